//writ:core

package lease

import (
	"fmt"
	"time"

	"github.com/writ-io/writ/fence"
)

// Reason is the machine-readable name of an error, the same in Go, gRPC and REST.
type Reason string

// The reasons. What each means for a caller stands in the table in wire.go.
const (
	ReasonHeld            Reason = "HELD"
	ReasonStaleToken      Reason = "STALE_TOKEN"
	ReasonNotHolder       Reason = "NOT_HOLDER"
	ReasonReleased        Reason = "RELEASED"
	ReasonExpired         Reason = "EXPIRED"
	ReasonNotFound        Reason = "NOT_FOUND"
	ReasonInvalid         Reason = "INVALID"
	ReasonDenied          Reason = "DENIED"
	ReasonUnauthenticated Reason = "UNAUTHENTICATED"
	ReasonLimit           Reason = "LIMIT"
	ReasonNoQuorum        Reason = "NO_QUORUM"
	ReasonNotCoordinator  Reason = "NOT_COORDINATOR"
	ReasonUnknownOutcome  Reason = "UNKNOWN_OUTCOME"
	ReasonRecovering      Reason = "RECOVERING"
	ReasonResync          Reason = "RESYNC"
	ReasonNotGuarded      Reason = "NOT_GUARDED"
	ReasonConflict        Reason = "CONFLICT"
	ReasonFencing         Reason = "FENCING"
	ReasonPending         Reason = "PENDING"
	ReasonInternal        Reason = "INTERNAL"
)

// Sentinels, to be matched with errors.Is. An *Error matches the sentinel of its reason.
var (
	// ErrHeld: somebody else holds the resource.
	ErrHeld error = &Error{Reason: ReasonHeld}
	// ErrNotHolder: the caller does not hold the grant that (resource, token) names.
	ErrNotHolder error = &Error{Reason: ReasonNotHolder}
	// ErrReleased: the grant, or the request, was released or cancelled before.
	ErrReleased error = &Error{Reason: ReasonReleased}
	// ErrExpired: the grant ran out, or was taken away.
	ErrExpired error = &Error{Reason: ReasonExpired}
	// ErrNotFound: nothing is known under that name.
	ErrNotFound error = &Error{Reason: ReasonNotFound}
	// ErrInvalid: a field of the request is unusable; Field and Fix say which and what would do.
	ErrInvalid error = &Error{Reason: ReasonInvalid}
	// ErrDenied: the policy does not allow it.
	ErrDenied error = &Error{Reason: ReasonDenied}
	// ErrUnauthenticated: the caller showed no usable identity.
	ErrUnauthenticated error = &Error{Reason: ReasonUnauthenticated}
	// ErrLimit: a rate, count or size limit is reached.
	ErrLimit error = &Error{Reason: ReasonLimit}
	// ErrNoQuorum: no majority answers; nothing was changed.
	ErrNoQuorum error = &Error{Reason: ReasonNoQuorum}
	// ErrNotCoordinator: the node that was asked does not decide at the moment.
	ErrNotCoordinator error = &Error{Reason: ReasonNotCoordinator}
	// ErrUnknownOutcome: the request may or may not have had its effect; ask again with the same request id.
	ErrUnknownOutcome error = &Error{Reason: ReasonUnknownOutcome}
	// ErrRecovering: the quorum was rebuilt and waits until every lease of before has run out.
	ErrRecovering error = &Error{Reason: ReasonRecovering}
	// ErrResync: a watch cannot be continued from that point.
	ErrResync error = &Error{Reason: ReasonResync}
	// ErrNotGuarded: no guard has proved that it refuses the holder.
	ErrNotGuarded error = &Error{Reason: ReasonNotGuarded}
	// ErrConflict: another change of the same thing is under way.
	ErrConflict error = &Error{Reason: ReasonConflict}
	// ErrFencing: nobody holds the resource, but not every guard has proved yet that it refuses who held it last.
	ErrFencing error = &Error{Reason: ReasonFencing}
	// ErrPending: signatures are missing, or a promotion has not come to its end.
	ErrPending error = &Error{Reason: ReasonPending}
)

// Error is every error of the lease API. Fields that do not apply are zero.
type Error struct {
	Reason  Reason
	Message string // for people; without the reason
	// Field and Fix are set with INVALID: what was wrong, and what would be right.
	Field string
	Fix   string
	// Resource, Holder and Token describe the grant in the way, with HELD, or the one that was asked for.
	Resource Resource
	Holder   Holder
	Token    fence.Token
	// RetryAfter is how long to wait before asking again; 0 if not known.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	s := string(e.Reason)
	if e.Field != "" {
		s += ": " + e.Field
		if e.Message != "" {
			s += " " + e.Message
		}
	} else if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

// Is matches errors by reason.
func (e *Error) Is(target error) bool {
	if e.Reason == ReasonStaleToken && target == fence.ErrStale {
		return true
	}
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// Invalid is the error for an unusable field: what is wrong with it and what would do.
func Invalid(field, problem, fix string) *Error {
	return &Error{Reason: ReasonInvalid, Field: field, Message: problem, Fix: fix}
}

// Errorf builds an error of a reason.
func Errorf(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}
