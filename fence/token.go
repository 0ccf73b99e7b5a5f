package fence

import (
	"cmp"
	"database/sql/driver"
	"fmt"
	"strconv"
	"strings"
)

const (
	// MaxEpoch is the highest epoch; the lowest is 1.
	MaxEpoch Epoch = 1<<15 - 1
	// MaxSequence is the highest sequence; the lowest is 1.
	MaxSequence uint64 = 1<<sequenceBits - 1

	sequenceBits = 48
)

// Epoch is the upper part of a token, 1 to [MaxEpoch]. It changes only when the
// quorum is rebuilt from a backup or by break-glass, and only upward. The zero
// Epoch stands for none.
type Epoch uint16

// Valid reports whether e is in 1 to [MaxEpoch].
func (e Epoch) Valid() bool { return e >= 1 && e <= MaxEpoch }

// Next returns the epoch after e; after zero comes 1. After [MaxEpoch] it
// returns [ErrExhausted].
func (e Epoch) Next() (Epoch, error) {
	if e >= MaxEpoch {
		return 0, fmt.Errorf("%w: no epoch after %d", ErrExhausted, e)
	}
	return e + 1, nil
}

// Token is a fencing token: epoch<<48 | sequence, a positive 63-bit integer. A
// later grant of a resource carries a greater token, so <, >, and == compare
// grants. The zero Token stands for none; it is below every valid token.
//
// Machines write a token as a decimal integer ([Token.Decimal]), people as
// "epoch.sequence" ([Token.String]).
type Token int64

// NewToken returns the token with the given epoch, 1 to [MaxEpoch], and
// sequence, 1 to [MaxSequence]. Anything else is [ErrInvalidToken].
func NewToken(epoch Epoch, sequence uint64) (Token, error) {
	if !epoch.Valid() {
		return 0, invalid(ErrInvalidToken, "epoch", strconv.FormatUint(uint64(epoch), 10), "use 1 to 32767")
	}
	if sequence < 1 || sequence > MaxSequence {
		return 0, invalid(ErrInvalidToken, "sequence", strconv.FormatUint(sequence, 10), "use 1 to 281474976710655")
	}
	return Token(epoch)<<sequenceBits | Token(sequence), nil
}

// ParseToken reads a token in either form, "1125899906842631" or "4.7". It
// accepts only what [Token.Decimal] and [Token.String] write for valid tokens:
// no sign, no leading zero, no space. Anything else is [ErrInvalidToken].
func ParseToken(s string) (Token, error) {
	epoch, sequence, dotted := strings.Cut(s, ".")
	if !dotted {
		n, ok := parseDecimal(s)
		if t := Token(n); ok && t.Valid() {
			return t, nil
		}
		return 0, invalid(ErrInvalidToken, "token", s, "use a decimal integer or epoch.sequence, as it was granted")
	}
	e, ok := parseDecimal(epoch)
	if !ok || e > uint64(MaxEpoch) {
		return 0, invalid(ErrInvalidToken, "epoch", epoch, "use 1 to 32767")
	}
	n, ok := parseDecimal(sequence)
	if !ok {
		return 0, invalid(ErrInvalidToken, "sequence", sequence, "use 1 to 281474976710655")
	}
	return NewToken(Epoch(e), n)
}

// parseDecimal reads the canonical decimal form of an unsigned integer.
func parseDecimal(s string) (n uint64, ok bool) {
	if len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64) // refuses signs, spaces and emptiness
	return n, err == nil
}

// parseStored reads the decimal form of a valid token, or "0" for none.
func parseStored(s string) (Token, error) {
	if s == "0" {
		return 0, nil
	}
	if strings.Contains(s, ".") {
		return 0, invalid(ErrInvalidToken, "token", s, "use a decimal integer")
	}
	return ParseToken(s)
}

// Epoch returns the upper part.
func (t Token) Epoch() Epoch { return Epoch(uint64(t) >> sequenceBits) }

// Sequence returns the lower part.
func (t Token) Sequence() uint64 { return uint64(t) & MaxSequence }

// Valid reports whether t could have been granted: its epoch is 1 to
// [MaxEpoch] and its sequence at least 1.
func (t Token) Valid() bool { return t.Epoch().Valid() && t.Sequence() >= 1 }

// IsZero reports whether t is the zero Token, which stands for none.
func (t Token) IsZero() bool { return t == 0 }

// Compare returns −1 when t was granted before u, 0 when they are the same, +1
// when t was granted after u. Invalid negative values come first.
func (t Token) Compare(u Token) int { return cmp.Compare(t, u) }

// Next returns the token after t in its epoch. It returns [ErrInvalidToken]
// when t is not valid and [ErrExhausted] when its epoch has no sequence left.
func (t Token) Next() (Token, error) {
	if !t.Valid() {
		return 0, invalid(ErrInvalidToken, "token", t.Decimal(), "start from a granted token")
	}
	if t.Sequence() == MaxSequence {
		return 0, fmt.Errorf("%w: no sequence after %s", ErrExhausted, t)
	}
	return t + 1, nil
}

// String returns the form for people, "epoch.sequence": "4.7", or "0.0" for the
// zero Token.
func (t Token) String() string {
	return strconv.FormatUint(uint64(t.Epoch()), 10) + "." + strconv.FormatUint(t.Sequence(), 10)
}

// Decimal returns the form for machines, a decimal integer.
func (t Token) Decimal() string { return strconv.FormatInt(int64(t), 10) }

// check refuses what must not be written anywhere: neither valid nor zero.
func (t Token) check() error {
	if t.Valid() || t.IsZero() {
		return nil
	}
	return invalid(ErrInvalidToken, "token", t.Decimal(), "use a granted token or zero")
}

// MarshalText writes the decimal form, "0" for the zero Token. It returns
// [ErrInvalidToken] when t is neither valid nor zero.
func (t Token) MarshalText() ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	return []byte(t.Decimal()), nil
}

// UnmarshalText reads what MarshalText wrote. Unlike [ParseToken] it takes "0",
// for none, and refuses the dotted form. On error t is unchanged.
func (t *Token) UnmarshalText(text []byte) error {
	parsed, err := parseStored(string(text))
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}

// MarshalJSON writes the decimal form as a JSON string, because many readers
// of JSON numbers lose precision beyond 53 bits. The zero Token is "0"; use
// omitzero to leave it out. It returns [ErrInvalidToken] when t is neither
// valid nor zero.
func (t Token) MarshalJSON() ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	return []byte(`"` + t.Decimal() + `"`), nil
}

// UnmarshalJSON reads a JSON string or an integer number in the decimal form;
// zero means none. It refuses null, fractions and exponents with
// [ErrInvalidToken]. On error t is unchanged.
func (t *Token) UnmarshalJSON(data []byte) error {
	text := string(data)
	if n := len(text); n >= 2 && text[0] == '"' && text[n-1] == '"' {
		text = text[1 : n-1]
	}
	parsed, err := parseStored(text)
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}

// Value implements driver.Valuer with an int64 (SQL bigint). It returns
// [ErrInvalidToken] when t is neither valid nor zero.
func (t Token) Value() (driver.Value, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	return int64(t), nil
}

// Scan implements sql.Scanner for an integer column, or a text or numeric one
// in the decimal form; zero means none. It refuses NULL: scan a nullable column
// into sql.Null[Token]. Anything else is [ErrInvalidToken], and t is unchanged.
func (t *Token) Scan(src any) error {
	var scanned Token
	switch v := src.(type) {
	case int64:
		scanned = Token(v)
		if err := scanned.check(); err != nil {
			return err
		}
	case string:
		return t.UnmarshalText([]byte(v))
	case []byte:
		return t.UnmarshalText(v)
	case nil:
		return invalid(ErrInvalidToken, "token", "NULL", "scan into sql.Null[fence.Token]")
	default:
		return invalid(ErrInvalidToken, "token", fmt.Sprintf("%T", src), "use a bigint column")
	}
	*t = scanned
	return nil
}
