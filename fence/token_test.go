package fence_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
)

// drawToken draws a valid token; the ends of both ranges come often.
func drawToken(t *rapid.T, label string) fence.Token {
	epoch := fence.Epoch(rapid.Uint16Range(1, uint16(fence.MaxEpoch)).Draw(t, label+" epoch"))
	sequence := rapid.Uint64Range(1, fence.MaxSequence).Draw(t, label+" sequence")
	token, err := fence.NewToken(epoch, sequence)
	if err != nil {
		t.Fatal(err)
	}
	if token.Epoch() != epoch || token.Sequence() != sequence || !token.Valid() || token.IsZero() || token <= 0 {
		t.Fatalf("NewToken(%d, %d) = %d", epoch, sequence, token)
	}
	return token
}

func TestTokenRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := drawToken(t, "token")
		for _, form := range []string{token.String(), token.Decimal()} {
			if got, err := fence.ParseToken(form); err != nil || got != token {
				t.Fatalf("ParseToken(%q) = %d, %v; want %d", form, got, err, token)
			}
		}
		checkRoundTrip(t, token)
	})
	checkRoundTrip(t, 0)
}

// checkRoundTrip covers every encoding that may store a token or none.
func checkRoundTrip(t interface{ Fatalf(string, ...any) }, token fence.Token) {
	var fromText, fromJSON, fromNumber, fromSQL, fromSQLText fence.Token
	text, err := token.MarshalText()
	if err != nil || fromText.UnmarshalText(text) != nil || fromText != token {
		t.Fatalf("text of %d: %s, %v, back as %d", token, text, err, fromText)
	}
	data, err := json.Marshal(token)
	if err != nil || data[0] != '"' || json.Unmarshal(data, &fromJSON) != nil || fromJSON != token {
		t.Fatalf("JSON of %d: %s, %v, back as %d", token, data, err, fromJSON)
	}
	if json.Unmarshal(text, &fromNumber) != nil || fromNumber != token {
		t.Fatalf("JSON number %s came back as %d", text, fromNumber)
	}
	value, err := token.Value()
	if err != nil || fromSQL.Scan(value) != nil || fromSQL != token {
		t.Fatalf("SQL value of %d: %v, %v, back as %d", token, value, err, fromSQL)
	}
	if fromSQLText.Scan(text) != nil || fromSQLText != token {
		t.Fatalf("SQL text %s came back as %d", text, fromSQLText)
	}
}

func TestTokenOrderIsThatOfItsParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawToken(t, "a"), drawToken(t, "b")
		var want int
		switch {
		case a.Epoch() < b.Epoch(), a.Epoch() == b.Epoch() && a.Sequence() < b.Sequence():
			want = -1
		case a != b:
			want = 1
		}
		if got := a.Compare(b); got != want || (a < b) != (want < 0) || (a > b) != (want > 0) {
			t.Fatalf("Compare(%s, %s) = %d, want %d", a, b, got, want)
		}
		if fence.Token(0).Compare(a) != -1 {
			t.Fatalf("the zero token is not below %s", a)
		}
		if next, err := a.Next(); err == nil && (next <= a || next.Epoch() != a.Epoch()) {
			t.Fatalf("%s.Next() = %s", a, next)
		}
	})
}

func TestTokenLimits(t *testing.T) {
	highest, err := fence.NewToken(fence.MaxEpoch, fence.MaxSequence)
	if err != nil || highest != math.MaxInt64 {
		t.Errorf("the highest token is %d, %v; want 2^63-1", highest, err)
	}
	for _, c := range []struct {
		epoch    fence.Epoch
		sequence uint64
	}{{0, 1}, {1, 0}, {0, 0}, {1 << 15, 1}, {math.MaxUint16, 1}, {1, 1 << 48}, {1, math.MaxUint64}} {
		if token, err := fence.NewToken(c.epoch, c.sequence); !errors.Is(err, fence.ErrInvalidToken) || token != 0 {
			t.Errorf("NewToken(%d, %d) = %d, %v; want ErrInvalidToken", c.epoch, c.sequence, token, err)
		}
	}
	for _, token := range []fence.Token{0, 1, 1 << 48, -1, math.MinInt64, -1 << 48} {
		if token.Valid() {
			t.Errorf("%d is valid", token)
		}
		if _, err := token.Next(); !errors.Is(err, fence.ErrInvalidToken) {
			t.Errorf("%d.Next: %v, want ErrInvalidToken", token, err)
		}
		if token.IsZero() {
			continue
		}
		_, textErr := token.MarshalText()
		_, jsonErr := token.MarshalJSON()
		_, valueErr := token.Value()
		for _, err := range []error{textErr, jsonErr, valueErr} {
			if !errors.Is(err, fence.ErrInvalidToken) {
				t.Errorf("%d was encoded: %v", token, err)
			}
		}
	}
}

func TestTokensRunOut(t *testing.T) {
	last, err := fence.NewToken(3, fence.MaxSequence)
	if err != nil {
		t.Fatal(err)
	}
	if next, err := last.Next(); !errors.Is(err, fence.ErrExhausted) || next != 0 {
		t.Errorf("%s.Next() = %s, %v; want ErrExhausted", last, next, err)
	}
	if next, err := (last - 1).Next(); err != nil || next != last {
		t.Errorf("%s.Next() = %s, %v", last-1, next, err)
	}
	for from, want := range map[fence.Epoch]fence.Epoch{0: 1, 1: 2, fence.MaxEpoch - 1: fence.MaxEpoch} {
		if got, err := from.Next(); err != nil || got != want {
			t.Errorf("Epoch(%d).Next() = %d, %v; want %d", from, got, err, want)
		}
	}
	for _, epoch := range []fence.Epoch{fence.MaxEpoch, math.MaxUint16} {
		if _, err := epoch.Next(); !errors.Is(err, fence.ErrExhausted) {
			t.Errorf("Epoch(%d).Next(): %v, want ErrExhausted", epoch, err)
		}
	}
}

// refusedTokens are texts that no reader of tokens takes.
var refusedTokens = []string{
	"", " ", ".", "1.", ".1", "1.1.1", "+1.1", "1.+1", "-1.1", "01.1", "1.01", " 1.1", "1.1 ", "1. 1",
	"0.1", "1.0", "0.0", "32768.1", "1.281474976710656", "1.1\n", "1,1", "1.1e3", "0x1.1", "1_0.1", "１.1",
	"1", "281474976710656", "281474976710655", "+281474976710657", "-281474976710657", "0281474976710657",
	" 281474976710657", "281474976710657 ", "9223372036854775808", "18446744073709551615",
	"18446744073709551616", "18728219050420207617", "281474976710657x", "0x1000000000001", "\x00", "NaN", "null",
}

func TestRefusedTokens(t *testing.T) {
	for _, s := range append(refusedTokens, "0") {
		if token, err := fence.ParseToken(s); !errors.Is(err, fence.ErrInvalidToken) || token != 0 {
			t.Errorf("ParseToken(%q) = %d, %v; want ErrInvalidToken", s, token, err)
		}
	}
	const before fence.Token = 1<<48 | 9
	refuses := func(what string, read func(*fence.Token) error) {
		t.Helper()
		token := before
		if err := read(&token); err == nil || token != before {
			t.Errorf("%s was read as %d, %v", what, token, err)
		}
	}
	for _, s := range append(refusedTokens, "1.1") {
		refuses("text "+s, func(t *fence.Token) error { return t.UnmarshalText([]byte(s)) })
		refuses("JSON "+s, func(t *fence.Token) error { return t.UnmarshalJSON([]byte(s)) })
		refuses("JSON string "+s, func(t *fence.Token) error { return t.UnmarshalJSON([]byte(`"` + s + `"`)) })
		refuses("SQL "+s, func(t *fence.Token) error { return t.Scan(s) })
	}
	for _, data := range []string{"null", "true", "{}", "[]", "1e15", "281474976710657.0", `""`, `"\u0030"`} {
		refuses("JSON "+data, func(t *fence.Token) error { return json.Unmarshal([]byte(data), t) })
	}
	for _, src := range []any{nil, int64(-1), int64(7), 1.5, true, int32(1)} {
		refuses("SQL value", func(t *fence.Token) error { return t.Scan(src) })
	}
	var nullable sql.Null[fence.Token]
	if err := nullable.Scan(nil); err != nil || nullable.Valid {
		t.Errorf("sql.Null.Scan(nil) = %v, %v", nullable, err)
	}
}

func TestErrorsSayWhatAndHow(t *testing.T) {
	_, err := fence.ParseToken("99999." + strings.Repeat("9", 500))
	var bad *fence.InvalidError
	if !errors.As(err, &bad) || bad.Field != "epoch" || bad.Value != "99999" || bad.Fix == "" {
		t.Errorf("got %#v", err)
	}
	_, err = fence.ParseToken(strings.Repeat("9\n", 500))
	if len(err.Error()) > 250 || strings.Contains(err.Error(), "\n") {
		t.Errorf("an error repeats an untrusted value: %v", err)
	}

	stale := error(&fence.StaleError{Resource: "orders\n-db", Have: 1<<48 | 4, Floor: 1<<48 | 7})
	var data *fence.StaleError
	if !errors.Is(stale, fence.ErrStale) || !errors.As(stale, &data) || errors.Is(stale, fence.ErrInvalidToken) {
		t.Errorf("%v does not match ErrStale only", stale)
	}
	const want = `fence: stale token: 1.4 for resource "orders\n-db" is below the floor 1.7: stop writing and acquire again`
	if stale.Error() != want {
		t.Errorf("got  %s\nwant %s", stale, want)
	}
	hostile := &fence.InvalidError{Kind: fence.ErrInvalidWrit, Field: "a\nb", Fix: "no"}
	if strings.Contains(hostile.Error(), "\n") {
		t.Errorf("a field name breaks the line: %q", hostile.Error())
	}
}

func FuzzParseToken(f *testing.F) {
	for _, s := range append(refusedTokens, "0", "1.1", "4.7", "32767.281474976710655", "281474976710657", "9223372036854775807") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		token, err := fence.ParseToken(s)
		if err != nil {
			if !errors.Is(err, fence.ErrInvalidToken) || token != 0 {
				t.Fatalf("ParseToken(%q) = %d, %v", s, token, err)
			}
			return
		}
		if !token.Valid() || (s != token.String() && s != token.Decimal()) {
			t.Fatalf("ParseToken(%q) = %d, whose forms are %s and %s", s, token, token, token.Decimal())
		}
	})
}
