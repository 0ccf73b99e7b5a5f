package fence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxWritBytes is the longest compact writ that is accepted or signed.
	MaxWritBytes = 8 << 10

	// WritType is the typ header of a writ.
	WritType = "writ+jwt"

	// The longest field values, in bytes. Together they always fit into
	// MaxWritBytes.
	maxIssuer    = 256
	maxResource  = 512
	maxHolder    = 1024
	maxRegion    = 128
	maxRequestID = 256

	// maxIssuedAt is the last second of the year 9999.
	maxIssuedAt = 253402300799
)

// Writ is a grant as a signed statement. On the wire it is a JWS in compact
// form with alg EdDSA, typ writ+jwt and the kid of a node's key; the claim of
// each field stands beside it. It has no expiry: newer tokens end it.
//
// All strings are printable UTF-8 without line breaks; lengths are in bytes.
type Writ struct {
	// Issuer names the quorum that granted: 1 to 256 bytes. Claim iss.
	Issuer string
	// Resource is the name of what is protected: 1 to 512 bytes. Claim res.
	Resource string
	// Holder is the identity that holds the lease: 1 to 1024 bytes. Claim hld.
	Holder string
	// Region is where the holder runs, empty when unknown: up to 128 bytes.
	// Claim rgn.
	Region string
	// Token is the fencing token of the grant. Claim tok, a decimal string.
	Token Token
	// IssuedAt is the issuer's wall time, for people; never decide by it. Whole
	// seconds in UTC, after 1970 and up to the year 9999: Sign drops fractions.
	// Claim iat, an integer.
	IssuedAt time.Time
	// RequestID names the request that was granted, empty when there was none:
	// up to 256 bytes. Claim rid.
	RequestID string
}

// Expected says what a verifier requires of a writ besides the signature. Empty
// fields are not compared.
type Expected struct {
	// Issuer is the quorum that must have granted.
	Issuer string
	// Resource is what the writ must be for.
	Resource string
}

// Require returns nil when w is what is wanted, and otherwise an [ErrInvalidWrit]
// that names the claim.
func (w Writ) Require(want Expected) error {
	if want.Issuer != "" && w.Issuer != want.Issuer {
		return invalid(ErrInvalidWrit, "iss", w.Issuer, "present a writ issued by "+quote(want.Issuer))
	}
	if want.Resource != "" && w.Resource != want.Resource {
		return invalid(ErrInvalidWrit, "res", w.Resource, "present a writ for resource "+quote(want.Resource))
	}
	return nil
}

// Validate reports the first field that is out of its range as [ErrInvalidWrit],
// under the name of its claim.
func (w Writ) Validate() error {
	fields := []struct {
		claim, value string
		required     bool
		limit        int
	}{
		{"iss", w.Issuer, true, maxIssuer},
		{"res", w.Resource, true, maxResource},
		{"hld", w.Holder, true, maxHolder},
		{"rgn", w.Region, false, maxRegion},
		{"rid", w.RequestID, false, maxRequestID},
	}
	for _, f := range fields {
		if f.required && f.value == "" {
			return invalid(ErrInvalidWrit, f.claim, "", "must not be empty")
		}
		if len(f.value) > f.limit {
			return invalid(ErrInvalidWrit, f.claim, f.value, "use at most "+strconv.Itoa(f.limit)+" bytes")
		}
		if !printable(f.value) {
			return invalid(ErrInvalidWrit, f.claim, f.value, "use printable UTF-8 only")
		}
	}
	if !w.Token.Valid() {
		return invalid(ErrInvalidWrit, "tok", w.Token.Decimal(), "use a granted token")
	}
	if s := w.IssuedAt.Unix(); s < 1 || s > maxIssuedAt {
		return invalid(ErrInvalidWrit, "iat", strconv.FormatInt(s, 10), "use the present time")
	}
	return nil
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// claims is the payload in the order in which it is written.
type claims struct {
	Issuer    string `json:"iss"`
	Resource  string `json:"res"`
	Holder    string `json:"hld"`
	Region    string `json:"rgn"`
	Token     string `json:"tok"`
	IssuedAt  int64  `json:"iat"`
	RequestID string `json:"rid"`
}

// marshalClaims validates w and returns its payload.
func marshalClaims(w Writ) ([]byte, error) {
	if err := w.Validate(); err != nil {
		return nil, err
	}
	var payload bytes.Buffer
	encoder := json.NewEncoder(&payload)
	// Escaping for HTML could push the longest names over MaxWritBytes.
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(claims{
		Issuer: w.Issuer, Resource: w.Resource, Holder: w.Holder, Region: w.Region,
		Token: w.Token.Decimal(), IssuedAt: w.IssuedAt.Unix(), RequestID: w.RequestID,
	})
	if err != nil {
		return nil, fmt.Errorf("fence: encoding a writ: %w", err)
	}
	return bytes.TrimSuffix(payload.Bytes(), []byte{'\n'}), nil
}

// parseClaims reads a payload. Every claim must be there once and have its
// type; claims that it does not know are passed over, so that a newer issuer
// may add some.
func parseClaims(payload []byte) (Writ, error) {
	found, err := parseObject(ErrInvalidWrit, "payload", payload)
	if err != nil {
		return Writ{}, err
	}
	var w Writ
	var token string
	texts := []struct {
		claim string
		into  *string
	}{
		{"iss", &w.Issuer}, {"res", &w.Resource}, {"hld", &w.Holder},
		{"rgn", &w.Region}, {"rid", &w.RequestID}, {"tok", &token},
	}
	for _, c := range texts {
		if *c.into, err = found.text(c.claim); err != nil {
			return Writ{}, err
		}
	}
	if w.Token, err = parseStored(token); err != nil {
		return Writ{}, invalid(ErrInvalidWrit, "tok", token, "must be a token as a decimal string")
	}
	raw, ok := found.members["iat"]
	if !ok {
		return Writ{}, invalid(ErrInvalidWrit, "iat", "", "is missing")
	}
	seconds, ok := parseDecimal(string(raw))
	if !ok || seconds > maxIssuedAt {
		return Writ{}, invalid(ErrInvalidWrit, "iat", string(raw), "must be whole seconds since 1970")
	}
	w.IssuedAt = time.Unix(int64(seconds), 0).UTC()
	if err := w.Validate(); err != nil {
		return Writ{}, err
	}
	return w, nil
}
