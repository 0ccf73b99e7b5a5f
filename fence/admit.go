package fence

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Write is a write that asks to be admitted. Exactly one of Writ and Token is set.
type Write struct {
	// Resource is the name of what is protected: 1 to 512 bytes.
	Resource string
	// Writ is a signed writ in compact form.
	Writ string
	// Token is a bare token, which proves nothing: set it only for callers that are trusted not to invent one.
	Token Token
}

// Admitter decides about writes. A guard is one, and so is a client of a guard.
type Admitter interface {
	// Admit waits until the write may begin, or answers why it may not: [ErrStale], [ErrInvalidWrit], [ErrUnknownKey],
	// [ErrInvalidToken], [ErrUnguarded] or [ErrUnavailable], or the cause of ctx. It waits while a token that is newer
	// than the floor is written down and while older writes finish.
	Admit(ctx context.Context, w Write) (Admission, error)
}

// Admission is an admitted write. Done must be called exactly once.
type Admission interface {
	// Token is the token that the write was admitted under.
	Token() Token
	// Cut is closed when the write has to be broken off: a newer token has waited for it long enough.
	Cut() <-chan struct{}
	// Done says how the write ended. A newer token waits for it.
	Done(Outcome)
}

// Outcome is how an admitted write ended.
type Outcome uint8

// The outcomes.
const (
	// Finished: the storage has answered completely, so nothing of the write is under way any more. Also for a write that
	// was certainly never sent.
	Finished Outcome = iota + 1
	// Broken: it was sent, or may have been, and was not answered completely. The storage may still carry it out, so it
	// counts as under way for a while.
	Broken
)

var (
	// ErrUnavailable means that a guard cannot decide at the moment and therefore refuses. See [*UnavailableError].
	ErrUnavailable = errors.New("fence: guard unavailable")

	// ErrUnguarded means that the guard has no route for the resource, and therefore refuses.
	ErrUnguarded = errors.New("fence: resource not guarded here")
)

// Obstacle is why a guard cannot decide at the moment.
type Obstacle string

// The obstacles.
const (
	// NotSeeded: the guard has not heard from the quorum since it started.
	NotSeeded Obstacle = "NOT_SEEDED"
	// Isolated: the guard has had no contact with the quorum for its guard lease, and the resource's rule says close.
	Isolated Obstacle = "ISOLATED"
	// Draining: older writes are still under way.
	Draining Obstacle = "DRAINING"
	// StoreFailed: the guard could not write its floor down.
	StoreFailed Obstacle = "STORE_FAILED"
	// Overloaded: as many writes wait or are under way as the guard's limits allow.
	Overloaded Obstacle = "OVERLOADED"
	// Stopping: the guard is shutting down.
	Stopping Obstacle = "STOPPING"
	// NoGrant: in stamp mode, the guard's region does not hold the resource.
	NoGrant Obstacle = "NO_GRANT"
)

// UnavailableError tells why a guard refused without having decided. It matches [ErrUnavailable]; trying again may help.
type UnavailableError struct {
	Resource string
	Obstacle Obstacle
	// Detail is for people; may be empty.
	Detail string
	// RetryAfter is when trying again may help; 0: not known.
	RetryAfter time.Duration
}

func (e *UnavailableError) Error() string {
	s := fmt.Sprintf("%v: %s: resource %s", ErrUnavailable, e.Obstacle, quote(e.Resource))
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Unwrap returns [ErrUnavailable].
func (e *UnavailableError) Unwrap() error { return ErrUnavailable }
