package lease_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func TestAcquireWaitsForTheHolder(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		c, other := w.dial(), w.dial()
		held := w.acquire(other, "r", 10*time.Second)
		var got *lease.Hold
		var wg sync.WaitGroup
		wg.Go(func() { got = w.acquire(c, "r", 10*time.Second) })
		w.pass(35 * time.Second)
		// Polls are shorter than a third of the TTL, but not much.
		if polls := w.calls("Acquire") - 1; polls < 12 || polls > 25 {
			w.Errorf("%d polls in 35 s", polls)
		}
		if w.nodes[0].Calls("Acquire") != w.calls("Acquire") {
			w.Error("polls went astray from the nearest node")
		}
		released := w.clock.Now()
		if err := held.Release(w.Context()); err != nil {
			w.Fatal(err)
		}
		wg.Wait()
		if took := w.clock.Now().Sub(released); took > 100*time.Millisecond {
			w.Errorf("granted %v after the release", took)
		}
		if got.Token() <= held.Token() {
			w.Errorf("token %v after %v", got.Token(), held.Token())
		}
		w.wantHeld(got)
	})
}

func TestAcquireTakesOverFromADeadHolder(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c, other := w.dial(), w.dial()
		w.acquire(other, "r", 10*time.Second)
		started := w.clock.Now()
		if err := other.Close(); err != nil { // without releasing
			w.Fatal(err)
		}
		w.wantHeld(w.acquire(c, "r", 10*time.Second))
		if took := w.clock.Now().Sub(started); took > 10100*time.Millisecond {
			w.Errorf("took %v", took)
		}
	})
}

func TestWaitersAreServedInOrder(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 3*time.Second)
		const waiters = 5
		order := make(chan int, waiters)
		var wg sync.WaitGroup
		for i := range waiters {
			wg.Go(func() {
				h := w.acquire(c, "r", 3*time.Second)
				order <- i
				w.pass(time.Second)
				if err := h.Release(w.Context()); err != nil {
					w.Error(err)
				}
			})
			w.pass(100 * time.Millisecond)
		}
		if err := h.Release(w.Context()); err != nil {
			w.Fatal(err)
		}
		wg.Wait()
		for i := range waiters {
			if got := <-order; got != i {
				w.Errorf("waiter %d was served as number %d", got, i)
			}
		}
	})
}

func TestTryAcquireNamesTheHolder(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c, other := w.dial(), w.dial()
		held := w.acquire(other, "r", 10*time.Second)
		_, err := c.TryAcquire(w.Context(), "r", lease.AcquireOptions{})
		w.wantErr(err, lease.ErrHeld)
		var why *lease.Error
		if !errors.As(err, &why) || why.Holder != held.Holder() || why.Token != held.Token() || why.RetryAfter <= 0 {
			w.Errorf("%#v", why)
		}
		if lease.ExitCode(err) != lease.ExitHeld {
			w.Errorf("exit code %d", lease.ExitCode(err))
		}
		free, err := c.TryAcquire(w.Context(), "free", lease.AcquireOptions{})
		if err != nil {
			w.Fatal(err)
		}
		w.wantHeld(free)
		w.pass(time.Second)
		if w.calls("CancelAcquire") != 0 {
			w.Error("cancelled what was refused")
		}
	})
}

func TestAcquireGivesUpAfterMaxWait(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c, other := w.dial(), w.dial()
		held := w.acquire(other, "r", 10*time.Second)
		started := w.clock.Now()
		_, err := c.Acquire(w.Context(), "r", lease.AcquireOptions{MaxWait: 4 * time.Second})
		w.wantErr(err, lease.ErrHeld)
		var why *lease.Error
		if !errors.As(err, &why) || why.Holder != held.Holder() {
			w.Errorf("%#v", why)
		}
		if took := w.clock.Now().Sub(started); took < 4*time.Second || took > 4100*time.Millisecond {
			w.Errorf("took %v", took)
		}
		w.pass(time.Second)
		if w.calls("CancelAcquire") != 1 {
			w.Errorf("%d cancels", w.calls("CancelAcquire"))
		}
	})
}

// A request whose caller has gone away must not be granted behind everybody's back.
func TestAcquireCancelsTheRequestWhenItsContextEnds(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c, other := w.dial(), w.dial()
		held := w.acquire(other, "r", 10*time.Second)
		ctx, cancel := context.WithTimeout(w.Context(), 3*time.Second)
		defer cancel()
		_, err := c.Acquire(ctx, "r", lease.AcquireOptions{})
		w.wantErr(err, context.DeadlineExceeded)
		w.wantErr(err, lease.ErrHeld)
		w.pass(time.Second)
		if err := held.Release(w.Context()); err != nil {
			w.Fatal(err)
		}
		w.pass(10 * time.Second)
		if info := w.quorum.Info("r"); info.State != lease.Free || info.Token != held.Token() {
			w.Errorf("an orphan is %v under %v", info.State, info.Token)
		}
	})
}

// The grant was made, but its answer was lost, and the caller did not wait for another.
func TestAcquireReleasesAGrantThatNobodyTook(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		w.loseAnswers("Acquire", 1000)
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		_, err := c.TryAcquire(ctx, "r", lease.AcquireOptions{})
		w.wantErr(err, context.DeadlineExceeded)
		w.wantErr(err, lease.ErrUnknownOutcome)
		w.pass(time.Second)
		if w.quorum.Info("r").End != lease.EndReleased {
			w.Error("the grant is an orphan")
		}
	})
}

func TestAcquireReturnsAtOnceWhenItsContextHasEnded(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		why := errors.New("no need")
		ctx, cancel := context.WithCancelCause(w.Context())
		cancel(why)
		_, err := c.Acquire(ctx, "r", lease.AcquireOptions{})
		w.wantErr(err, why)
		if w.calls("Acquire")+w.calls("CancelAcquire") != 0 {
			w.Error("a request was sent")
		}
	})
}

func TestAcquirePassesErrorsOn(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		for _, want := range []error{lease.ErrDenied, lease.ErrUnauthenticated, lease.ErrLimit, lease.ErrInvalid, lease.ErrConflict} {
			w.script("Acquire", func(context.Context, any, func() (any, error)) (any, error) { return nil, want })
			_, err := c.Acquire(w.Context(), "r", lease.AcquireOptions{})
			w.wantErr(err, want)
		}
		calls := w.calls("Acquire")
		for _, bad := range []struct {
			resource string
			opts     lease.AcquireOptions
		}{
			{"", lease.AcquireOptions{}},
			{"a//b", lease.AcquireOptions{}},
			{"r", lease.AcquireOptions{TTL: -1}},
			{"r", lease.AcquireOptions{TTL: 15 * time.Millisecond}},
			{"r", lease.AcquireOptions{MaxWait: -1}},
		} {
			_, err := c.Acquire(w.Context(), bad.resource, bad.opts)
			w.wantErr(err, lease.ErrInvalid)
		}
		if w.calls("Acquire") != calls {
			w.Error("a request that cannot be valid was sent")
		}
	})
}

// A grant that comes after its window is worth nothing; asked for again it comes as a renewal.
func TestAcquireDoesNotTakeAStaleGrant(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		var n atomic.Int32
		w.script("Acquire", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
			response, err := next()
			if n.Add(1) == 1 {
				// The server grants less than asked for, and the answer takes longer than that.
				grant := response.(*writv1.AcquireResponse).GetGrant()
				grant.Ttl.Seconds, grant.Ttl.Nanos = 0, int32(250*time.Millisecond)
				w.pass(300 * time.Millisecond)
			}
			return response, err
		})
		h := w.acquire(c, "r", 10*time.Second)
		if n.Load() != 2 || h.Remaining() < 9*time.Second {
			w.Errorf("%v left after %d attempts", h.Remaining(), n.Load())
		}
		w.wantHeld(h)
	})
}

// The request was granted and the lease ran out before anybody heard of it.
func TestAcquireBeginsAnewWhenItsGrantHasEnded(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		w.nodes[0].Script("Acquire", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
			_, err := next()
			w.quorum.End("r", lease.EndExpired)
			w.nodes[0].Script("Acquire", nil)
			return nil, errors.Join(err, lease.ErrUnknownOutcome)
		})
		h := w.acquire(c, "r", 10*time.Second)
		if h.Token().Sequence() != 2 {
			w.Errorf("token %v", h.Token())
		}
		w.wantHeld(h)
	})
}

func TestAcquireWithAnIDOfItsOwn(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		opts := lease.AcquireOptions{RequestID: "nightly-2026-11-21"}
		h, err := c.Acquire(w.Context(), "r", opts)
		if err != nil {
			w.Fatal(err)
		}
		again, err := c.Acquire(w.Context(), "r", opts)
		if err != nil || again.Token() != h.Token() {
			w.Fatalf("%v, %v", again, err)
		}
		if err := h.Release(w.Context()); err != nil {
			w.Fatal(err)
		}
		_, err = c.Acquire(w.Context(), "r", opts)
		w.wantErr(err, lease.ErrReleased)
	})
}

// A server that answers polls at once is not asked in a tight loop.
func TestPollsArePaced(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		w.script("Acquire", func(context.Context, any, func() (any, error)) (any, error) {
			return lease.OutcomeToProto(lease.AcquireOutcome{Waiting: &lease.Waiting{Position: 1, Keep: 3 * time.Second}}), nil
		})
		_, err := c.Acquire(w.Context(), "r", lease.AcquireOptions{MaxWait: 10 * time.Second})
		w.wantErr(err, lease.ErrHeld)
		if n := w.calls("Acquire"); n < 10 || n > 40 {
			w.Errorf("%d polls in 10 s", n)
		}
	})
}

func TestAGrantOfSomethingElseIsRefused(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		for _, grant := range []*writv1.Grant{
			lease.GrantToProto(&lease.Grant{Resource: "other", Token: tokenA, TTL: time.Second}),
			lease.GrantToProto(&lease.Grant{Resource: "r", TTL: time.Second}),
			nil,
		} {
			w.script("Acquire", func(context.Context, any, func() (any, error)) (any, error) {
				if grant == nil {
					return &writv1.AcquireResponse{}, nil
				}
				return &writv1.AcquireResponse{Outcome: &writv1.AcquireResponse_Grant{Grant: grant}}, nil
			})
			_, err := c.Acquire(w.Context(), "r", lease.AcquireOptions{})
			w.wantErr(err, &lease.Error{Reason: lease.ReasonInternal})
		}
	})
}

func TestRequestIDsDiffer(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		seen := make(map[string]bool)
		w.script("Acquire", func(_ context.Context, request any, next func() (any, error)) (any, error) {
			seen[request.(*writv1.AcquireRequest).GetRequestId()] = true
			return next()
		})
		for i := range 10 {
			w.acquire(c, strings.Repeat("r", i+1), time.Second)
		}
		if len(seen) != 10 {
			w.Errorf("%d ids for 10 requests", len(seen))
		}
		for id := range seen {
			if len(id) < 26 || len(id) > lease.MaxRequestIDBytes {
				w.Errorf("id %q", id)
			}
		}
	})
}

func TestAcquireEndsWithTheClient(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c, other := w.dial(), w.dial()
		w.acquire(other, "r", 10*time.Second)
		var err error
		var wg sync.WaitGroup
		wg.Go(func() { _, err = c.Acquire(w.Context(), "r", lease.AcquireOptions{}) })
		w.pass(time.Second)
		if err := c.Close(); err != nil {
			w.Fatal(err)
		}
		wg.Wait()
		w.wantErr(err, lease.ErrClosed)
		_, err = c.Acquire(w.Context(), "s", lease.AcquireOptions{})
		w.wantErr(err, lease.ErrClosed)
	})
}
