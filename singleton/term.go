package singleton

import (
	"context"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// Term is one grant: from when a process began to hold a resource until it did not any more.
type Term struct {
	Resource lease.Resource
	Token    fence.Token
	Holder   lease.Holder
	// GrantedAt is the coordinator's time of day, for people.
	GrantedAt time.Time
	// Checkpoint is what the last holder has stored, nil if there is nothing. It is known to the function that runs in the
	// term, and to its hooks. It must not be changed.
	Checkpoint []byte
	// Ended says that the term is over, and End how, if that is known.
	Ended bool
	End   lease.End
}

// Write is what to present to storage that takes a bare token from callers that it trusts, such as pgfence's.
func (t Term) Write() fence.Write {
	return fence.Write{Resource: string(t.Resource), Token: t.Token}
}

type holdKey struct{}

// newContext returns the context of a function that runs under a hold. Requests made under it present the hold's writ, or
// its token if it has no writ. It ends with the hold's, and has its values.
func newContext(hold *lease.Hold) context.Context {
	write := termOf(hold).Write()
	if hold.HasWrit() {
		if writ, err := hold.Writ(hold.Context()); err == nil { // which calls nobody
			write = fence.Write{Resource: write.Resource, Writ: writ}
		}
	}
	return context.WithValue(fence.NewContext(hold.Context(), write), holdKey{}, hold)
}

func holdOf(ctx context.Context) (*lease.Hold, bool) {
	hold, ok := ctx.Value(holdKey{}).(*lease.Hold)
	return hold, ok
}

func termOf(hold *lease.Hold) Term {
	return Term{
		Resource: hold.Resource(), Token: hold.Token(), Holder: hold.Holder(), GrantedAt: hold.GrantedAt(),
		Checkpoint: hold.CheckpointData(),
	}
}

// FromContext returns the term that a function runs in, from its context or one derived of it, and false for any other.
func FromContext(ctx context.Context) (Term, bool) {
	hold, ok := holdOf(ctx)
	if !ok {
		return Term{}, false
	}
	return termOf(hold), true
}

// Checkpoint stores state for the next term, whose [Term.Checkpoint] it is: up to 64 KiB; empty data removes it. It is
// refused once a newer token exists. Errors: [ErrNoTerm]; INVALID in a tick of [Singleton.Cron], whose checkpoint is the
// state of the job; what lease.Hold.Checkpoint returns.
func Checkpoint(ctx context.Context, data []byte) error {
	if ctx.Value(cronKey{}) != nil {
		return lease.Invalid("checkpoint", "is the state of the job", "store under a resource of its own, or with the effects")
	}
	hold, ok := holdOf(ctx)
	if !ok {
		return ErrNoTerm
	}
	return hold.Checkpoint(ctx, data)
}

// Verify asks the quorum whether the term lasts, and returns nil if it vouched for it during the call. Before an effect that
// nothing fences it narrows the window in which a paused process does harm, and does not close it. Errors: [ErrNoTerm];
// what lease.Hold.Verify returns.
func Verify(ctx context.Context) error {
	hold, ok := holdOf(ctx)
	if !ok {
		return ErrNoTerm
	}
	return hold.Verify(ctx)
}

// Remaining is how long the context may still last without a renewal, by a clock that counts suspend; 0 outside of a term.
func Remaining(ctx context.Context) time.Duration {
	hold, ok := holdOf(ctx)
	if !ok || ctx.Err() != nil {
		return 0
	}
	return hold.Remaining()
}
