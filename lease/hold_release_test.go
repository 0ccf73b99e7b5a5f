package lease_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
)

func TestReleaseIsIdempotent(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 10*time.Second)
		w.loseAnswers("Release", 1) // the second attempt finds it released
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if err := h.Release(w.Context()); err != nil {
					w.Error(err)
				}
			})
		}
		wg.Wait()
		if w.calls("Release") != 2 {
			w.Errorf("%d calls", w.calls("Release"))
		}
		w.wantEnded(h, lease.ErrReleased)
	})
}

func TestReleaseOfAnotherHoldersResource(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c, other := w.dial(), w.dial()
		h := w.acquire(c, "r", 10*time.Second)
		// The answer is lost, and before the next attempt somebody else takes the resource.
		var taken *lease.Hold
		w.nodes[0].Script("Release", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
			_, err := next()
			taken = w.acquire(other, "r", 10*time.Second)
			return nil, errors.Join(err, lease.ErrUnknownOutcome)
		})
		if err := h.Release(w.Context()); err != nil {
			w.Fatal(err)
		}
		w.wantHeld(taken)
	})
}

func TestReleaseAfterTheContextHasEnded(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 10*time.Second)
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		if err := h.Release(ctx); err != nil {
			w.Fatal(err)
		}
		if w.quorum.Info("r").State != lease.Free {
			w.Error("not released")
		}
		// With nobody to tell, it takes a bounded time, and the lease is not believed meanwhile.
		h = w.acquire(c, "r", 10*time.Second)
		w.freezeAll()
		started := w.clock.Now()
		w.wantErr(h.Release(ctx), lease.ErrUnknownOutcome)
		if took := w.clock.Now().Sub(started); took > 3*time.Second {
			w.Errorf("took %v", took)
		}
		w.wantEnded(h, lease.ErrReleased)
		// Once somebody hears it, a second call gets through.
		w.thawAll()
		if err := h.Release(w.Context()); err != nil {
			w.Fatal(err)
		}
		if w.quorum.Info("r").State != lease.Free {
			w.Error("not released")
		}
	})
}

func TestReleaseOfALostLeaseStillFreesIt(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 10*time.Second)
		w.script("Renew", func(context.Context, any, func() (any, error)) (any, error) {
			return nil, lease.ErrNoQuorum
		})
		<-h.Done()
		w.wantErr(h.Release(w.Context()), lease.ErrLost)
		if w.quorum.Info("r").End != lease.EndReleased {
			w.Error("the resource waits for its deadline")
		}
	})
}

// Once the TTL has passed there is nothing left to end.
func TestReleaseGivesUpWithTheLease(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 2*time.Second)
		w.freezeAll()
		started := w.clock.Now()
		w.wantErr(h.Release(w.Context()), lease.ErrUnknownOutcome)
		if took := w.clock.Now().Sub(started); took > 2*time.Second {
			w.Errorf("took %v", took)
		}
		w.thawAll()
	})
}

func TestReleaseAll(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		for i := range 150 {
			w.acquire(c, fmt.Sprint("r", i), 10*time.Second)
		}
		if err := c.ReleaseAll(w.Context()); err != nil {
			w.Fatal(err)
		}
		if w.quorum.Held() != 0 {
			w.Errorf("%d held", w.quorum.Held())
		}
	})
}
