package lease_test

import (
	"errors"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
)

func TestALeadEndsTheContextBeforeTheDeadline(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		h, err := w.dial().Acquire(w.Context(), "r", lease.AcquireOptions{TTL: 10 * time.Second, Lead: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		w.pass(30 * time.Second) // renewals go on as without a lead
		if remaining, left := h.Remaining(), h.Left(); remaining < 4*time.Second || left != remaining+2*time.Second {
			t.Fatalf("%v may be believed, %v are left", remaining, left)
		}
		w.freezeAll()
		left := h.Left()
		<-h.Done()
		var lost *lease.LostError
		if !errors.As(h.Err(), &lost) || lost.Cause != lease.LostDeadline || h.Remaining() != 0 {
			t.Fatalf("%v with %v remaining", h.Err(), h.Remaining())
		}
		if now := h.Left(); now > 2*time.Second || now < 2*time.Second-10*time.Millisecond || left < 4*time.Second {
			t.Errorf("%v are left of %v", now, left)
		}
		w.pass(2 * time.Second)
		if now := h.Left(); now != 0 {
			t.Errorf("%v are left after the deadline", now)
		}
		w.thawAll()
	})
}

func TestALeadIsAtMostAQuarter(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		for _, lead := range []time.Duration{-1, 2500*time.Millisecond + 1} {
			if _, err := c.Acquire(w.Context(), "r", lease.AcquireOptions{TTL: 10 * time.Second, Lead: lead}); !errors.Is(err, lease.ErrInvalid) {
				t.Errorf("lead %v: %v", lead, err)
			}
		}
	})
}

func TestAbandon(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		h := w.acquire(w.dial(), "r", 10*time.Second)
		w.pass(time.Second)
		if left := h.Abandon(); left < 8*time.Second || left > 9*time.Second {
			t.Errorf("%v are left", left)
		}
		if !errors.Is(h.Err(), lease.ErrReleased) || h.Valid() {
			t.Errorf("it is valid, or over because of %v", h.Err())
		}
		w.pass(8 * time.Second)
		if info := w.quorum.Info("r"); info.State != lease.Held {
			t.Errorf("the quorum was told: %+v", info)
		}
		w.pass(2 * time.Second)
		if info := w.quorum.Info("r"); info.End != lease.EndExpired || w.calls("Renew") > 0 || h.Left() != 0 {
			t.Errorf("%+v after %d renewals, %v left", info, w.calls("Renew"), h.Left())
		}
	})
}

func TestReleaseAfterAbandon(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		h := w.acquire(w.dial(), "r", 10*time.Second)
		h.Abandon()
		if err := h.Release(w.Context()); err != nil {
			t.Error(err)
		}
		if info := w.quorum.Info("r"); info.End != lease.EndReleased {
			t.Errorf("%+v", info)
		}
	})
}
