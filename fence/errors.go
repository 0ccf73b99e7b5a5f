package fence

import (
	"errors"
	"fmt"
	"strconv"
)

var (
	// ErrStale means that a newer token has been seen: the write must not
	// happen. Acquiring again is the only remedy. See [*StaleError].
	ErrStale = errors.New("fence: stale token")

	// ErrInvalidToken means that something is not a token. See [*InvalidError].
	ErrInvalidToken = errors.New("fence: invalid token")

	// ErrInvalidWrit means that something is not an acceptable writ: damaged,
	// forged, of another kind, or for another resource or issuer. See
	// [*InvalidError].
	ErrInvalidWrit = errors.New("fence: invalid writ")

	// ErrInvalidKey means that a key, a key set or a key file cannot be used.
	// See [*InvalidError].
	ErrInvalidKey = errors.New("fence: invalid key")

	// ErrUnknownKey means that a writ names a key that the set does not hold.
	// After a rotation, fetching the key set again may help; do so at a bounded
	// rate, because anybody can make up a key id.
	ErrUnknownKey = errors.New("fence: unknown key")

	// ErrExhausted means that an epoch has no sequence left, or that there is no
	// epoch after the last.
	ErrExhausted = errors.New("fence: tokens exhausted")
)

// StaleError tells which token was refused and why. It matches [ErrStale].
type StaleError struct {
	// Resource is the name of what is protected.
	Resource string
	// Have is the token that was presented.
	Have Token
	// Floor is the highest token seen for the resource; it is above Have.
	Floor Token
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("%v: %s for resource %s is below the floor %s: stop writing and acquire again",
		ErrStale, e.Have, quote(e.Resource), e.Floor)
}

// Unwrap returns [ErrStale].
func (e *StaleError) Unwrap() error { return ErrStale }

// InvalidError names the field that was refused and how to put it right. It
// matches the sentinel in Kind.
type InvalidError struct {
	// Kind is ErrInvalidToken, ErrInvalidWrit, ErrInvalidKey or ErrUnknownKey.
	Kind error
	// Field names what was refused, as it is called where it was found: a
	// claim, a header parameter, a JSON member, a file.
	Field string
	// Value is what was found, shortened; empty when it is absent or secret.
	Value string
	// Fix says what to do.
	Fix string
}

func (e *InvalidError) Error() string {
	field := e.Field
	if !printable(field) {
		field = quote(field) // the name of a member can come from outside
	}
	if e.Value == "" {
		return fmt.Sprintf("%v: %s: %s", e.Kind, field, e.Fix)
	}
	return fmt.Sprintf("%v: %s %s: %s", e.Kind, field, quote(e.Value), e.Fix)
}

// Unwrap returns Kind.
func (e *InvalidError) Unwrap() error { return e.Kind }

// invalid makes an InvalidError; value may come from outside.
func invalid(kind error, field, value, fix string) *InvalidError {
	return &InvalidError{Kind: kind, Field: field, Value: shorten(value), Fix: fix}
}

// shownBytes bounds how much of an untrusted value an error repeats.
const shownBytes = 64

// shorten cuts a long value. Shortening twice changes nothing.
func shorten(s string) string {
	const more = "…"
	if len(s) <= shownBytes+len(more) {
		return s
	}
	return s[:shownBytes] + more
}

// quote makes an untrusted value safe to print on one line.
func quote(s string) string { return strconv.QuoteToGraphic(shorten(s)) }
