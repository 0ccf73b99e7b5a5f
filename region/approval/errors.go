//writ:core

package approval

import (
	"errors"
	"time"
)

// What can be wrong with a signature; to be matched with errors.Is.
var (
	// ErrMalformed: it is no SSHSIG signature, or of a kind of key that does not count.
	ErrMalformed = errors.New("malformed signature")
	// ErrNamespace: it was made for another purpose.
	ErrNamespace = errors.New("wrong namespace")
	// ErrDigest: it is not over this document.
	ErrDigest = errors.New("not over this document")
	// ErrUnknownKey: no approver has that key.
	ErrUnknownKey = errors.New("unknown key")
	// ErrRevoked: the key is revoked.
	ErrRevoked = errors.New("revoked key")
	// ErrExpired: the key is not valid any more.
	ErrExpired = errors.New("expired key")
)

// Error says why a signature does not count. It matches one of the sentinels above.
type Error struct {
	// Kind is one of the sentinels.
	Kind error
	// Problem says what is wrong with the signature, for people; and Fix what to do.
	Problem string
	Fix     string
	// Key is the fingerprint of the key, as ssh-keygen -l prints it; empty if it was not reached.
	Key string
	// Approver is whose key it is; empty if that is not known.
	Approver string
	// Expired is since when the key is not valid, with ErrExpired.
	Expired time.Time
}

func (e *Error) Error() string { return "the signature " + e.Problem + "; " + e.Fix }

func (e *Error) Unwrap() error { return e.Kind }

func malformed(problem string) *Error {
	return &Error{
		Kind: ErrMalformed, Problem: problem,
		Fix: "hand in what writ promote approve or ssh-keygen -Y sign has written, whole and unchanged",
	}
}

// FieldError says which part of a set of approvers, or of a rule, is unusable, what is wrong with it, and what would do.
type FieldError struct {
	Field, Problem, Fix string
}

func (e *FieldError) Error() string { return e.Field + " " + e.Problem + "; " + e.Fix }
