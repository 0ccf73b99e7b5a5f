package lease_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
)

// Lost answers never lead to two tokens: the same request gets the same grant.
func TestAcquireAsksAgainUnderTheSameID(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		c := w.dial()
		w.loseAnswers("Acquire", 4)
		started := w.clock.Now()
		h := w.acquire(c, "r", 10*time.Second)
		if h.Token().Sequence() != 1 || w.calls("Acquire") != 5 {
			w.Errorf("token %v after %d calls", h.Token(), w.calls("Acquire"))
		}
		if took := w.clock.Now().Sub(started); took > 300*time.Millisecond {
			w.Errorf("took %v", took)
		}
		w.wantHeld(h)
	})
}

func TestAcquireOutlastsAQuorumWithoutACoordinator(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		c := w.dial()
		back := w.clock.Now().Add(2 * time.Second)
		var n atomic.Int32
		w.script("Acquire", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
			if w.clock.Now().Before(back) {
				return nil, []error{lease.ErrNoQuorum, lease.ErrNotCoordinator, lease.ErrRecovering}[n.Add(1)%3]
			}
			return next()
		})
		h := w.acquire(c, "r", 10*time.Second)
		if late := w.clock.Now().Sub(back); late > 300*time.Millisecond {
			w.Errorf("granted %v after the quorum was back", late)
		}
		if n.Load() > 80 {
			w.Errorf("%d attempts in 2 s", n.Load())
		}
		w.wantHeld(h)
	})
}

func TestAcquireTriesAgainQuickly(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		w.loseAnswers("Acquire", 1)
		started := w.clock.Now()
		w.acquire(c, "r", 10*time.Second)
		if took := w.clock.Now().Sub(started); took > 2*5*time.Millisecond+30*time.Millisecond {
			w.Errorf("took %v", took)
		}
	})
}

func TestAcquireWaitsAsLongAsTheServerAsks(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		for reason, wait := range map[lease.Reason]time.Duration{
			lease.ReasonRecovering: 5 * time.Second, lease.ReasonLimit: 3 * time.Second, lease.ReasonHeld: 2 * time.Second,
		} {
			var n atomic.Int32
			w.script("Acquire", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
				if n.Add(1) == 1 {
					return nil, &lease.Error{Reason: reason, RetryAfter: wait}
				}
				return next()
			})
			started := w.clock.Now()
			w.acquire(c, string(reason), 10*time.Second)
			if took := w.clock.Now().Sub(started); took < wait || took > wait*5/4 {
				w.Errorf("%s: took %v, asked for %v", reason, took, wait)
			}
		}
	})
}

// A node that goes silent while a request waits in the queue must be noticed within a fraction of the TTL.
func TestAcquireMovesOnFromASilentNode(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 10 * time.Second} {
		inBubble(t, 3, func(w *world) {
			c, other := w.dial(), w.dial()
			held := w.acquire(other, "r", ttl)
			var got *lease.Hold
			var wg sync.WaitGroup
			wg.Go(func() { got = w.acquire(c, "r", ttl) })
			w.pass(ttl / 20)
			w.nodes[0].Freeze()
			frozen := w.clock.Now()
			w.pass(ttl/4 + 150*time.Millisecond)
			if w.nodes[1].Calls("Acquire") == 0 {
				w.Errorf("ttl %v: still asking the silent node after %v", ttl, w.clock.Now().Sub(frozen))
			}
			if err := held.Release(w.Context()); err != nil {
				w.Fatal(err)
			}
			wg.Wait()
			w.wantHeld(got)
			w.thawAll()
		})
	}
}

func TestAcquireMovesOnFromABrokenConnection(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		w.nodes[0].Reset()
		started := w.clock.Now()
		w.wantHeld(w.acquire(c, "a", 10*time.Second))
		w.nodes[0].Stop()
		w.wantHeld(w.acquire(c, "b", 10*time.Second))
		if took := w.clock.Now().Sub(started); took > 200*time.Millisecond {
			w.Errorf("took %v", took)
		}
	})
}

// Close waits for requests that are being cancelled, so that a process that ends leaves no orphan.
func TestCloseWaitsForCancellations(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		w.loseAnswers("Acquire", 1000)
		w.script("CancelAcquire", func(ctx context.Context, _ any, next func() (any, error)) (any, error) {
			w.pass(500 * time.Millisecond)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return next()
		})
		ctx, cancel := context.WithTimeout(w.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := c.TryAcquire(ctx, "r", lease.AcquireOptions{})
		w.wantErr(err, context.DeadlineExceeded)
		if err := c.Close(); err != nil {
			w.Fatal(err)
		}
		if w.quorum.Info("r").End != lease.EndReleased {
			w.Error("an orphan is left")
		}
	})
}
