package lease_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

func TestHoldIsRenewedUntilReleased(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "billing/nightly", 10*time.Second)
		if h.Resource() != "billing/nightly" || !h.Token().Valid() || h.TTL() != 10*time.Second || h.Holder().Instance != c.Instance() ||
			h.Holder().Region != "eu" || h.GrantedAt().IsZero() {
			w.Errorf("hold of %+v", h.Holder())
		}
		for range 100 {
			w.pass(time.Second)
			w.wantHeld(h)
		}
		// A third of 10 s, up to a tenth earlier by this process's spread, plus the grant's own.
		if n := w.calls("Renew"); n < 29 || n > 34 {
			w.Errorf("%d renewals in 100 s", n)
		}
		if err := h.Release(w.Context()); err != nil {
			w.Fatal(err)
		}
		w.wantEnded(h, lease.ErrReleased)
		if info := w.quorum.Info("billing/nightly"); info.State != lease.Free || info.End != lease.EndReleased {
			w.Errorf("after the release: %v, %v", info.State, info.End)
		}
		renewals := w.calls("Renew")
		w.pass(time.Minute)
		if w.calls("Renew") != renewals {
			w.Error("a released lease was renewed")
		}
	})
}

func TestManyHoldsShareOneRenewal(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		for i := range 200 {
			w.acquire(c, fmt.Sprintf("r/%03d", i), 10*time.Second)
		}
		before := w.calls("Renew")
		w.pass(60 * time.Second)
		if n := w.calls("Renew") - before; n < 17 || n > 21 {
			w.Errorf("%d renewals of 200 leases in a minute", n)
		}
		if w.quorum.Held() != 200 {
			w.Errorf("%d held", w.quorum.Held())
		}
	})
}

// S7: the context ends at the local deadline, counted from before the sending, with no help from the network, and before
// the quorum frees the resource.
func TestHoldEndsAtItsDeadlineWithoutTheNetwork(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		c := w.dial()
		w.nodes[0].SetDelay(300 * time.Millisecond)
		before := w.clock.Now()
		h := w.acquire(c, "r", 10*time.Second)
		w.freezeAll()
		<-h.Done()
		lasted := w.clock.Now().Sub(before)
		if want := clock.Shrink(10*time.Second, clock.DefaultDriftPPM, clock.DefaultMargin); lasted != want {
			w.Errorf("believed for %v, want %v", lasted, want)
		}
		w.wantEnded(h, lease.ErrLost)
		w.wantErr(h.Err(), lease.ErrExpired)
		var lost *lease.LostError
		if !errors.As(h.Err(), &lost) || lost.Cause != lease.LostDeadline || lost.Token != h.Token() || lost.Resource != "r" {
			w.Errorf("lost: %#v", lost)
		}
		if w.quorum.Info("r").State != lease.Held {
			w.Error("the quorum freed the resource while it was believed")
		}
		w.thawAll()
	})
}

func TestHoldSurvivesANodeThatGoesSilent(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
		inBubble(t, 3, func(w *world) {
			c := w.dial()
			h := w.acquire(c, "r", ttl)
			w.nodes[0].Freeze()
			w.pass(ttl)
			w.wantHeld(h)
			// Once it is known to be silent, it costs nothing any more.
			for range 10 {
				w.pass(ttl / 5)
				if left := h.Remaining(); left < ttl/2 {
					w.Errorf("ttl %v: only %v left while two nodes answer", ttl, left)
				}
			}
			w.nodes[1].Freeze()
			w.pass(ttl)
			w.wantHeld(h)
			w.thawAll()
		})
	}
}

// A node that answers probes and swallows renewals is asked less and less.
func TestHoldSurvivesANodeThatSwallowsRenewals(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 3*time.Second)
		w.nodes[0].Script("Renew", func(ctx context.Context, _ any, _ func() (any, error)) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		for range 120 {
			w.pass(time.Second)
			w.wantHeld(h)
		}
		if n := w.nodes[0].Calls("Renew"); n > 20 {
			w.Errorf("%d renewals were lost on it", n)
		}
	})
}

func TestHoldEndsWhenTheQuorumEndsIt(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 9*time.Second)
		w.quorum.End("r", lease.EndForced)
		w.pass(3100 * time.Millisecond)
		w.wantEnded(h, lease.ErrLost)
		var lost *lease.LostError
		if !errors.As(h.Err(), &lost) || lost.Cause != lease.LostEnded || lost.Reason != lease.ReasonExpired {
			w.Errorf("lost: %#v", lost)
		}
		w.wantErr(h.Release(w.Context()), lease.ErrLost)
		if w.calls("Release") != 0 {
			w.Error("released what the quorum had ended")
		}
	})
}

func TestHoldHearsThatItIsContended(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		h, other := w.acquire(c, "r", 9*time.Second), w.acquire(c, "other", 9*time.Second)
		w.script("Renew", func(_ context.Context, request any, next func() (any, error)) (any, error) {
			response, err := next()
			for i, l := range request.(*writv1.RenewRequest).GetLeases() {
				if l.GetResource() == "r" {
					response.(*writv1.RenewResponse).Contended = []int32{int32(i)}
				}
			}
			return response, err
		})
		w.pass(10 * time.Second)
		select {
		case <-h.Contended():
		default:
			w.Error("nobody said that it is contended")
		}
		select {
		case <-other.Contended():
			w.Error("the wrong lease is contended")
		default:
		}
		w.wantHeld(h)
	})
}

func TestVerifyAsksTheQuorumNow(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 10*time.Second)
		w.pass(time.Second)
		if err := h.Verify(w.Context()); err != nil || w.calls("Renew") != 1 {
			w.Fatalf("%v after %d renewals", err, w.calls("Renew"))
		}
		if left := h.Remaining(); left < 9900*time.Millisecond {
			w.Errorf("%v left after a verification", left)
		}
		// A silent node costs a fraction of the TTL.
		w.nodes[0].Freeze()
		started := w.clock.Now()
		if err := h.Verify(w.Context()); err != nil {
			w.Fatal(err)
		}
		if took := w.clock.Now().Sub(started); took > 10*time.Second/4 {
			w.Errorf("took %v with one silent node", took)
		}
		w.nodes[1].Freeze()
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		w.wantErr(h.Verify(ctx), context.DeadlineExceeded)
		w.thawAll()
		w.wantHeld(h)
		w.quorum.End("r", lease.EndForced)
		w.wantErr(h.Verify(w.Context()), lease.ErrLost)
		w.wantEnded(h, lease.ErrLost)
		w.wantErr(h.Verify(w.Context()), lease.ErrLost)
	})
}

// A freeze that only the time of day shows: nothing is believed until the quorum has vouched for it anew.
func TestFreezePutsHoldsOnProbation(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 10*time.Second)
		w.pass(100 * time.Millisecond)
		renewals := w.calls("Renew")
		w.clock.skew.Add(int64(5 * time.Second))
		if h.Valid() || h.Remaining() != 0 {
			w.Fatal("believed right after a freeze")
		}
		w.pass(50 * time.Millisecond)
		w.wantHeld(h)
		if w.calls("Renew") != renewals+1 {
			w.Errorf("%d renewals after a freeze", w.calls("Renew")-renewals)
		}
		// Without an answer it is lost within a third of the TTL.
		w.freezeAll()
		w.clock.skew.Add(-int64(5 * time.Second))
		if h.Valid() {
			w.Fatal("believed right after a freeze")
		}
		started := w.clock.Now()
		<-h.Done()
		if took := w.clock.Now().Sub(started); took > 10*time.Second/3 {
			w.Errorf("lost after %v", took)
		}
		var lost *lease.LostError
		if !errors.As(h.Err(), &lost) || lost.Cause != lease.LostSuspicion {
			w.Errorf("lost: %v", h.Err())
		}
		w.thawAll()
	})
}

// A freeze that nobody looks at is found within a second.
func TestFreezeIsNoticedByItself(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", time.Hour)
		w.pass(5 * time.Second)
		renewals := w.calls("Renew")
		w.clock.skew.Add(int64(time.Minute))
		w.pass(1100 * time.Millisecond)
		if w.calls("Renew") != renewals+1 {
			w.Errorf("%d renewals after a freeze", w.calls("Renew")-renewals)
		}
		w.wantHeld(h)
	})
}

func TestCheckpointGoesToTheNextHolder(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 10*time.Second)
		if h.CheckpointData() != nil {
			w.Errorf("a checkpoint out of nowhere: %q", h.CheckpointData())
		}
		w.loseAnswers("Checkpoint", 1)
		if err := h.Checkpoint(w.Context(), []byte("slot 7")); err != nil {
			w.Fatal(err)
		}
		w.wantErr(h.Checkpoint(w.Context(), make([]byte, lease.MaxCheckpointBytes+1)), lease.ErrInvalid)
		if err := h.Release(w.Context()); err != nil {
			w.Fatal(err)
		}
		w.wantErr(h.Checkpoint(w.Context(), nil), lease.ErrReleased)
		h = w.acquire(c, "r", 10*time.Second)
		if string(h.CheckpointData()) != "slot 7" {
			w.Errorf("checkpoint %q", h.CheckpointData())
		}
		// A checkpoint that finds the lease ended ends the hold.
		w.quorum.End("r", lease.EndForced)
		w.wantErr(h.Checkpoint(w.Context(), nil), lease.ErrLost)
		w.wantEnded(h, lease.ErrLost)
	})
}

func TestCheckpointGivesUpWithTheLease(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 2*time.Second)
		w.freezeAll()
		w.wantErr(h.Checkpoint(w.Context(), nil), lease.ErrLost)
		w.wantEnded(h, lease.ErrLost)
		w.thawAll()
	})
}

func TestWritIsFetchedOnce(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 10*time.Second)
		want := "writ of r under " + h.Token().String()
		for range 3 {
			if got, err := h.Writ(w.Context()); err != nil || got != want {
				w.Fatalf("%q, %v", got, err)
			}
		}
		if w.calls("IssueWrit") != 1 {
			w.Errorf("%d calls", w.calls("IssueWrit"))
		}
		signed, err := c.Acquire(w.Context(), "s", lease.AcquireOptions{WantWrit: true})
		if err != nil {
			w.Fatal(err)
		}
		if _, err := signed.Writ(w.Context()); err != nil || w.calls("IssueWrit") != 1 {
			w.Errorf("%v after %d calls", err, w.calls("IssueWrit"))
		}
		other := w.acquire(c, "t", 10*time.Second)
		w.quorum.End("t", lease.EndForced)
		_, err = other.Writ(w.Context())
		w.wantErr(err, lease.ErrLost)
	})
}

func TestHoldCarriesTheValuesOfItsContext(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		type key struct{}
		c := w.dial()
		ctx, cancel := context.WithCancel(context.WithValue(w.Context(), key{}, "v"))
		h, err := c.Acquire(ctx, "r", lease.AcquireOptions{})
		if err != nil {
			w.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if h.Context().Value(key{}) != "v" || h.Err() != nil {
			w.Errorf("value %v, err %v", h.Context().Value(key{}), h.Err())
		}
	})
}
