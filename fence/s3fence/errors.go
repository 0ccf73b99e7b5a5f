package s3fence

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/writ-io/writ/fence"
)

var (
	// ErrNotFound means that there is nothing under the key or name, or that it was deleted.
	ErrNotFound = errors.New("s3fence: not found")

	// ErrPrecondition is what a [Store] answers when it did not write because the condition did not hold.
	ErrPrecondition = errors.New("s3fence: precondition failed")

	// ErrRefused is what a [Store] answers when it certainly did not write for another reason, such as missing rights.
	ErrRefused = errors.New("s3fence: refused by the storage")

	// ErrForeign means that an object was not written through this package, so that nothing is known of its token. Who
	// wrote it is not stopped by tokens; see [Objects.Adopt].
	ErrForeign = errors.New("s3fence: foreign object")

	// ErrDamaged means that an object says that it was written through this package, but cannot have been: the fields of
	// its seal are unreadable or contradict its metadata. Nothing is written over it.
	ErrDamaged = errors.New("s3fence: damaged object")

	// ErrContended means that other writers under the same token were faster in every attempt. Nothing was written.
	ErrContended = errors.New("s3fence: too many writers at once")

	// ErrUnknown means that a write may have happened or may yet happen. See [*UnknownError].
	ErrUnknown = errors.New("s3fence: outcome unknown")

	// ErrTooLarge means that a body exceeds [Config].MaxBytes.
	ErrTooLarge = errors.New("s3fence: body too large")

	// ErrInvalid means that a configuration, key or name cannot be used.
	ErrInvalid = errors.New("s3fence: invalid")

	// ErrUnsafe means that a storage does not do what fencing needs of it. See [Verify].
	ErrUnsafe = errors.New("s3fence: unsafe storage")
)

// UnknownError tells that a write was sent and not answered. It matches [ErrUnknown] and its cause, and also
// [fence.ErrStale] if a newer token has been seen since, so that trying again is of no use.
//
// Such a write happens at most once, if at all: it carries the condition that the object is unchanged, and no object
// becomes again what it was. Read before trying again.
type UnknownError struct {
	Key string
	// Cause is why there was no answer.
	Cause error
	// Stale is set if a newer token has been seen since.
	Stale *fence.StaleError
}

func (e *UnknownError) Error() string {
	s := fmt.Sprintf("%v: writing %s: %v", ErrUnknown, quote(e.Key), e.Cause)
	if e.Stale != nil {
		s += "; " + e.Stale.Error()
	}
	return s
}

// Unwrap returns ErrUnknown, Cause and Stale.
func (e *UnknownError) Unwrap() []error {
	errs := []error{ErrUnknown}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	if e.Stale != nil {
		errs = append(errs, e.Stale)
	}
	return errs
}

// quote makes an untrusted value safe to print on one line.
func quote(s string) string {
	const shown = 128
	if len(s) > shown {
		s = s[:shown] + "…"
	}
	return strconv.QuoteToGraphic(s)
}
