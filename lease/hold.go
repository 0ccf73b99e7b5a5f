package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

var (
	// ErrLost is the cause of a hold's context when its lease was lost; the cause itself is a *LostError.
	ErrLost = errors.New("lease: lost")
	// ErrClosed is the cause of a hold's context, and the error of any call, after [Client.Close].
	ErrClosed = errors.New("lease: the client is closed")
)

// LostError tells which lease was lost and how. It matches [ErrLost], and the sentinel of Reason.
type LostError struct {
	Resource Resource
	Token    fence.Token
	Cause    LostCause
	// Reason is what the server said (EXPIRED, NOT_HOLDER or RELEASED), and EXPIRED when it could not be heard.
	Reason Reason
}

func (e *LostError) Error() string {
	return fmt.Sprintf("%v: %s under %s: %v", ErrLost, e.Resource, e.Token, e.Cause)
}

// Unwrap returns [ErrLost] and an *Error of the reason.
func (e *LostError) Unwrap() []error {
	return []error{ErrLost, &Error{Reason: e.Reason, Resource: e.Resource, Token: e.Token}}
}

// Hold is a lease that this process holds. The client renews it until it is released or lost; its methods are safe for
// concurrent use.
//
// Work under a hold runs under [Hold.Context] and carries [Hold.Token] to whatever it writes to. The context ends before
// another process can be granted the resource, by this machine's clock and with no help from the network; but a process
// can be paused between looking and writing, and only a guard or the storage that compares tokens stops what it writes
// then.
type Hold struct {
	client *Client
	id     KeeperID
	grant  *Grant
	lead   time.Duration

	ctx    context.Context
	cancel context.CancelCauseFunc

	checkpoints atomic.Uint64 // calls of Checkpoint

	until     atomic.Int64 // end of belief, 0 while there is none; written under the shell's mu
	over      atomic.Int64 // until when nobody else can be granted it, 0 if that is not known; written under the shell's mu
	contended chan struct{}

	mu       sync.Mutex
	writ     string        // guarded by mu; the signed grant, once there is one
	release  chan struct{} // holds a token while nobody releases
	released atomic.Bool   // the server has confirmed it; written by the owner of release's token
}

// newHold makes a hold of a grant. Its context carries the values of ctx and nothing else of it.
func (c *Client) newHold(ctx context.Context, grant *Grant, writ string, lead time.Duration) *Hold {
	h := &Hold{client: c, grant: grant, lead: lead, contended: make(chan struct{}), release: make(chan struct{}, 1), writ: writ}
	h.ctx, h.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	h.release <- struct{}{}
	return h
}

// Resource returns the name of what is held.
func (h *Hold) Resource() Resource { return h.grant.Resource }

// Token returns the fencing token of the grant. It never changes.
func (h *Hold) Token() fence.Token { return h.grant.Token }

// Holder returns this process as the quorum knows it.
func (h *Hold) Holder() Holder { return h.grant.Holder }

// TTL returns for how long each renewal extends the lease.
func (h *Hold) TTL() time.Duration { return h.grant.TTL }

// GrantedAt returns the coordinator's time of day at the grant, for people.
func (h *Hold) GrantedAt() time.Time { return h.grant.GrantedAt }

// CheckpointData returns the checkpoint that came with the grant: what the last holder stored, nil if there is none. The
// caller must not change it.
func (h *Hold) CheckpointData() []byte { return h.grant.Checkpoint }

// Context ends when the lease must not be used any more. Its cause is a *[LostError] when the lease was lost,
// [ErrReleased] after [Hold.Release], and [ErrClosed] after [Client.Close]. It carries the values, but not the deadline or
// the end, of the context that the lease was acquired with.
func (h *Hold) Context() context.Context { return h.ctx }

// Done is closed when the lease must not be used any more.
func (h *Hold) Done() <-chan struct{} { return h.ctx.Done() }

// Err returns nil while the lease is held and the cause of [Hold.Context] afterwards.
func (h *Hold) Err() error { return context.Cause(h.ctx) }

// Contended is closed when a request of higher priority has begun to wait for the resource. The lease goes on; a holder
// that can do so gracefully may release it.
func (h *Hold) Contended() <-chan struct{} { return h.contended }

// Remaining returns for how long the lease may still be believed without another renewal, by the clock that counts
// suspend; 0 when it may not be believed now. That may be for a moment only: after a freeze a renewal restores belief.
func (h *Hold) Remaining() time.Duration {
	now, trusted := h.client.shell.look()
	until := clock.Instant(h.until.Load())
	if until == 0 || !trusted || !now.Before(until) {
		return 0
	}
	return until.Sub(now)
}

// Valid tells whether the lease may be believed now. It asks nobody: see [Hold.Verify].
func (h *Hold) Valid() bool { return h.Remaining() > 0 }

// Left returns for how long, by the same clock, certainly nobody else can be granted the resource: [Hold.Remaining] and
// the lead while the lease is held, and what is left of that after it was given up for want of a renewal or abandoned. It
// is 0 when nothing is certain.
func (h *Hold) Left() time.Duration {
	now, trusted := h.client.shell.look()
	over := clock.Instant(h.over.Load())
	if over == 0 || !trusted || !now.Before(over) {
		return 0
	}
	return over.Sub(now)
}

// Verify renews the lease now and returns nil if that succeeded after the call began, so that the quorum vouched for the
// lease at some moment during the call. Errors: *[LostError], [ErrReleased] or [ErrClosed] if the lease is over, and
// otherwise why nobody could be asked, with ctx's error, when ctx ends.
func (h *Hold) Verify(ctx context.Context) error {
	var last error
	tour := h.client.nodes.tour()
	for {
		renewal, ok := h.client.shell.verify(h)
		if !ok {
			<-h.ctx.Done()
			return h.Err()
		}
		err := h.client.shell.renew(ctx, renewal, tour.next())
		switch {
		case h.ctx.Err() != nil:
			return h.Err()
		case err == nil && h.Valid():
			return nil
		case err != nil:
			last = clientTell(last, err)
		}
		if !h.client.pause(ctx, tour, err) {
			return h.client.ended(ctx, "verify", tour, last)
		}
	}
}

// Checkpoint stores state for the next holder, who gets it with the grant. Checkpoints take effect in the order of the calls: an
// attempt that comes late does not undo a later one. Data is up to [MaxCheckpointBytes]; empty data removes
// it. Errors: *[LostError] if the lease is over, also when this call found that out; INVALID, LIMIT or DENIED; otherwise
// why the outcome is not known, when ctx ends or the lease runs out.
func (h *Hold) Checkpoint(ctx context.Context, data []byte) error {
	request := &writv1.CheckpointRequest{
		Resource: string(h.grant.Resource), Token: uint64(h.grant.Token), Instance: h.client.cfg.Instance,
		Data:     bytes.Clone(data), // an attempt that was given up may still be on its way out
		Sequence: h.checkpoints.Add(1),
	}
	return h.call(ctx, "checkpoint", func(ctx context.Context, e *dialEndpoint) error {
		return e.calls.checkpoint(ctx, request)
	})
}

// Writ returns the grant as a signed statement that guards accept, a compact JWS. It is fetched once, unless it came with
// the grant. Errors: as those of [Hold.Checkpoint].
func (h *Hold) Writ(ctx context.Context) (string, error) {
	h.mu.Lock()
	writ := h.writ
	h.mu.Unlock()
	if writ != "" {
		return writ, nil
	}
	request := &writv1.IssueWritRequest{
		Resource: string(h.grant.Resource), Token: uint64(h.grant.Token), Instance: h.client.cfg.Instance,
	}
	err := h.call(ctx, "issue writ", func(ctx context.Context, e *dialEndpoint) error {
		response, err := e.fence.IssueWrit(ctx, request)
		writ = response.GetWrit()
		return err
	})
	if err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writ = writ
	return writ, nil
}

// HasWrit tells whether the hold has the signed grant already, so that [Hold.Writ] calls nobody: it came with the grant,
// as it does on guarded resources, or was fetched before.
func (h *Hold) HasWrit() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.writ != ""
}

// call carries out a call that needs the lease, within what is left of it.
func (h *Hold) call(ctx context.Context, what string, do func(context.Context, *dialEndpoint) error) error {
	if err := h.Err(); err != nil {
		return err
	}
	left := h.Remaining()
	if left == 0 { // in doubt for the moment; a renewal is on its way
		left = h.grant.TTL
	}
	call, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(h.ctx, func() { cancel(h.Err()) })()
	err := h.client.call(call, what, left, do)
	switch reason := ReasonOf(err); {
	case reason == ReasonExpired, reason == ReasonNotHolder, reason == ReasonReleased:
		h.client.shell.step(KeeperEnded{ID: h.id, Reason: reason})
	case err != nil && h.Remaining() == 0:
		h.client.shell.step(KeeperTick{}) // the deadline may have come this very moment
	}
	if ended := h.Err(); err != nil && ended != nil {
		return ended
	}
	return err
}

// Abandon stops renewing the lease and tells nobody, so that it runs out by itself: for work that does not stop, and under
// which nobody else should be let in early. The context ends with [ErrReleased]. It returns [Hold.Left]. A Release that
// comes later tells the quorum after all.
func (h *Hold) Abandon() time.Duration {
	h.client.shell.releaseHold(h)
	return h.Left()
}

// Release ends the lease: it is not renewed or valid any more, its context ends with [ErrReleased], and the quorum is told
// so that the next holder need not wait. Stop the work first, wait for it, then release.
//
// Releasing twice is fine: a second call returns what is known, and asks again if the first could not reach the quorum. If
// ctx has ended already, the call is made under a context of its own, up to a few seconds. Errors: *[LostError] if the
// lease was over before; otherwise why nobody could be told, and then the lease runs out by itself within its TTL.
func (h *Hold) Release(ctx context.Context) error {
	if ctx.Err() != nil {
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), clientFarewell)
		defer cancel()
		ctx = own
	}
	select {
	case <-h.release:
		defer func() { h.release <- struct{}{} }()
	case <-ctx.Done():
		return h.client.ended(ctx, "release", &dialTour{}, ErrUnknownOutcome)
	}
	if h.released.Load() {
		return nil
	}
	h.client.shell.releaseHold(h)
	var lost *LostError
	if errors.As(h.Err(), &lost) && lost.Cause == LostEnded {
		return lost
	}
	request := &writv1.ReleaseRequest{
		Resource: string(h.grant.Resource), Token: uint64(h.grant.Token), Instance: h.client.cfg.Instance,
	}
	attempts := 0
	// Once the TTL has passed there is nothing left to end.
	err := h.client.call(ctx, "release", h.grant.TTL, func(ctx context.Context, e *dialEndpoint) error {
		attempts++
		return e.calls.release(ctx, request)
	})
	switch reason := ReasonOf(err); {
	case err == nil, reason == ReasonReleased:
	case reason == ReasonNotHolder && attempts > 1: // an attempt without an answer was the one that did it
	case reason == ReasonExpired, reason == ReasonNotHolder:
		return &LostError{Resource: h.grant.Resource, Token: h.grant.Token, Cause: LostEnded, Reason: reason}
	default:
		return err
	}
	h.released.Store(true)
	if lost != nil {
		return lost
	}
	return nil
}
