package lease_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
)

func TestCloseEndsHoldsAndLeavesTheirLeases(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 10*time.Second)
		for range 3 {
			if err := c.Close(); err != nil {
				w.Fatal(err)
			}
		}
		w.wantEnded(h, lease.ErrClosed)
		if w.quorum.Info("r").State != lease.Held {
			w.Error("closing released the lease")
		}
		_, err := c.Get(w.Context(), "r", lease.GetOptions{})
		w.wantErr(err, lease.ErrClosed)
		w.wantErr(h.Verify(w.Context()), lease.ErrClosed)
		w.wantErr(h.Release(w.Context()), lease.ErrClosed)
		w.wantErr(c.ReleaseAll(w.Context()), nil)
		w.pass(11 * time.Second)
		if w.quorum.Info("r").End != lease.EndExpired {
			w.Error("the lease did not run out")
		}
	})
}

// Close must not hang on nodes that have gone silent.
func TestCloseIsBounded(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		w.acquire(c, "r", 10*time.Second)
		w.freezeAll()
		w.pass(5 * time.Second) // renewals hang
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		_, err := c.TryAcquire(ctx, "s", lease.AcquireOptions{}) // and so does its cancellation
		w.wantErr(err, context.DeadlineExceeded)
		started := w.clock.Now()
		if err := c.Close(); err != nil {
			w.Fatal(err)
		}
		if took := w.clock.Now().Sub(started); took > 2*time.Second {
			w.Errorf("took %v", took)
		}
		w.thawAll()
	})
}

func TestDialPrefersTheNearestNode(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		w.nodes[0].SetDelay(40 * time.Millisecond)
		w.nodes[1].SetDelay(20 * time.Millisecond)
		w.nodes[2].SetDelay(30 * time.Millisecond)
		w.acquire(w.dial(), "r", time.Second)
		if w.nodes[1].Calls("Acquire") != 1 {
			w.Error("not the nearest")
		}
	})
}

func TestDialPrefersTheOwnRegionIfAboutAsNear(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		cfg := w.config()
		cfg.Region = "ap"
		w.nodes[0].SetDelay(20 * time.Millisecond)
		w.nodes[1].SetDelay(21 * time.Millisecond)
		w.nodes[2].SetDelay(28 * time.Millisecond)
		w.acquire(w.dialWith(cfg), "r", time.Second)
		if w.nodes[2].Calls("Acquire") != 1 {
			w.Error("not of the own region")
		}
		w.nodes[2].SetDelay(60 * time.Millisecond)
		w.acquire(w.dialWith(cfg), "s", time.Second)
		if w.nodes[0].Calls("Acquire") != 1 {
			w.Error("far away for the sake of its region")
		}
	})
}

func TestDialAvoidsNodesThatCannotServe(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		w.nodes[0].SetReady(false)
		c := w.dial()
		w.acquire(c, "r", time.Second)
		if w.nodes[1].Calls("Acquire") != 1 {
			w.Error("asked a node that is not ready")
		}
		w.nodes[0].SetReady(true)
		w.pass(3 * time.Second)
		w.acquire(c, "s", time.Second)
		if w.nodes[0].Calls("Acquire") != 1 {
			w.Error("did not notice that it is ready")
		}
	})
}

func TestClientReturnsToANearerNode(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 3*time.Second)
		w.nodes[0].Stop()
		w.pass(30 * time.Second)
		w.wantHeld(h)
		there := w.nodes[1].Calls("Renew")
		if there < 20 {
			w.Errorf("%d renewals by the other node", there)
		}
		w.network.Start(w.nodes[0])
		w.pass(15 * time.Second) // the longest penalty and some
		here := w.nodes[0].Calls("Renew")
		w.pass(30 * time.Second)
		if w.nodes[0].Calls("Renew") < here+20 {
			w.Error("did not return")
		}
		w.wantHeld(h)
	})
}

func TestDialFailsWhenNobodyAnswers(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		cfg := w.config()
		cfg.DialTimeout = 3 * time.Second
		for _, n := range w.nodes {
			n.Stop()
		}
		started := w.clock.Now()
		_, err := lease.Dial(w.Context(), cfg)
		w.wantErr(err, context.DeadlineExceeded)
		if lease.ExitCode(err) != lease.ExitUnavailable {
			w.Errorf("exit code %d of %v", lease.ExitCode(err), err)
		}
		if took := w.clock.Now().Sub(started); took > 3100*time.Millisecond {
			w.Errorf("took %v", took)
		}
		// Silence is no better than refusal.
		for _, n := range w.nodes {
			w.network.Start(n)
			n.Freeze()
		}
		_, err = lease.Dial(w.Context(), cfg)
		w.wantErr(err, context.DeadlineExceeded)
		w.thawAll()
	})
}

func TestDialWaitsForANodeThatStarts(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.nodes[0].Stop()
		go func() {
			w.pass(2 * time.Second)
			w.network.Start(w.nodes[0])
		}()
		w.acquire(w.dial(), "r", time.Second)
	})
}

func TestDialGoesOnWithoutASilentNode(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		w.nodes[0].Freeze()
		started := w.clock.Now()
		c := w.dial()
		if took := w.clock.Now().Sub(started); took > 300*time.Millisecond {
			w.Errorf("dialling took %v", took)
		}
		w.acquire(c, "r", time.Second)
		w.thawAll()
	})
}

func TestGet(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		_, err := c.Get(w.Context(), "r", lease.GetOptions{})
		w.wantErr(err, lease.ErrNotFound)
		_, err = c.Get(w.Context(), "/", lease.GetOptions{})
		w.wantErr(err, lease.ErrInvalid)
		h := w.acquire(c, "r", 10*time.Second)
		if err := h.Checkpoint(w.Context(), []byte("slot 7")); err != nil {
			w.Error(err)
		}
		info, err := c.Get(w.Context(), "r", lease.GetOptions{WithCheckpoint: true})
		if err != nil || string(info.Checkpoint) != "slot 7" {
			w.Errorf("asked for the checkpoint: %+v, %v", info, err)
		}
		w.nodes[0].Freeze() // reads move on too
		info, err = c.Get(w.Context(), "r", lease.GetOptions{Local: true, WithDeadline: true})
		if err != nil || info.Checkpoint != nil || info.State != lease.Held || info.Token != h.Token() || info.Holder != h.Holder() {
			w.Errorf("%+v, %v", info, err)
		}
		w.nodes[1].Freeze()
		_, err = c.Get(w.Context(), "r", lease.GetOptions{})
		w.wantErr(err, context.DeadlineExceeded)
		w.thawAll()
	})
}

func TestListFetchesPages(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		var want []lease.Resource
		for i := range 25 {
			h := w.acquire(c, fmt.Sprintf("jobs/%02d", i), 10*time.Second)
			if i == 3 {
				if err := h.Release(w.Context()); err != nil {
					w.Fatal(err)
				}
				continue
			}
			want = append(want, h.Resource())
		}
		w.acquire(c, "other", 10*time.Second)
		var got []lease.Resource
		for info, err := range c.List(w.Context(), lease.ListOptions{Prefix: "jobs/", PageSize: 10, HeldOnly: true}) {
			if err != nil {
				w.Fatal(err)
			}
			got = append(got, info.Resource)
		}
		if !slices.Equal(got, want) || w.calls("List") != 3 {
			w.Errorf("%v in %d pages", got, w.calls("List"))
		}
		for range c.List(w.Context(), lease.ListOptions{}) {
			break
		}
		w.script("List", func(context.Context, any, func() (any, error)) (any, error) { return nil, lease.ErrDenied })
		for _, err := range c.List(w.Context(), lease.ListOptions{}) {
			w.wantErr(err, lease.ErrDenied)
		}
	})
}

func TestForceRelease(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 10*time.Second)
		_, err := c.ForceRelease(w.Context(), "r", lease.ForceReleaseOptions{Token: h.Token() + 1, Reason: "test"})
		w.wantErr(err, &lease.Error{Reason: lease.ReasonStaleToken})
		w.loseAnswers("ForceRelease", 1)
		_, err = c.ForceRelease(w.Context(), "r", lease.ForceReleaseOptions{Token: h.Token(), Reason: "test"})
		w.wantErr(err, lease.ErrNotFound) // the first attempt did it
		// Without a token the second attempt might hit a successor.
		w.acquire(c, "s", 10*time.Second)
		before := w.calls("ForceRelease")
		w.loseAnswers("ForceRelease", 1)
		_, err = c.ForceRelease(w.Context(), "s", lease.ForceReleaseOptions{Reason: "test"})
		w.wantErr(err, lease.ErrUnknownOutcome)
		if w.calls("ForceRelease") != before+1 {
			w.Error("asked again without a token")
		}
		// What certainly did not happen is asked for again.
		u := w.acquire(c, "u", 10*time.Second)
		var n atomic.Int32
		w.script("ForceRelease", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
			if n.Add(1) == 1 {
				return nil, lease.ErrNoQuorum
			}
			return next()
		})
		info, err := c.ForceRelease(w.Context(), "u", lease.ForceReleaseOptions{Reason: "test"})
		if err != nil || info.Token != u.Token() {
			w.Errorf("%+v, %v", info, err)
		}
	})
}

func TestCallsTryEveryNodeBeforeTheyPause(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		c := w.dial()
		w.acquire(c, "r", time.Minute)
		before := make([]int, 3)
		var refuse atomic.Bool
		refuse.Store(true)
		w.script("Get", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
			if refuse.Load() {
				return nil, lease.ErrNoQuorum
			}
			return next()
		})
		ctx, cancel := context.WithTimeout(w.Context(), 40*time.Millisecond)
		defer cancel()
		_, err := c.Get(ctx, "r", lease.GetOptions{})
		w.wantErr(err, context.DeadlineExceeded)
		for i, n := range w.nodes {
			if n.Calls("Get") == before[i] {
				w.Errorf("node %d was not asked", i+1)
			}
		}
		// They are all in disgrace now; the first that serves is found.
		refuse.Store(false)
		if _, err := c.Get(w.Context(), "r", lease.GetOptions{}); err != nil {
			w.Fatal(err)
		}
	})
}

// A node in disgrace is not asked first every time.
func TestCallsRememberWhoDoesNotServe(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		w.acquire(c, "r", time.Minute)
		w.nodes[0].Script("Get", func(context.Context, any, func() (any, error)) (any, error) { return nil, lease.ErrNoQuorum })
		for range 10 {
			if _, err := c.Get(w.Context(), "r", lease.GetOptions{}); err != nil {
				w.Fatal(err)
			}
		}
		if n := w.nodes[0].Calls("Get"); n != 1 {
			w.Errorf("asked %d times", n)
		}
	})
}

// When all are in disgrace, the first that serves is not again.
func TestCallsRememberWhoServes(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		w.acquire(c, "r", time.Minute)
		w.script("Get", func(context.Context, any, func() (any, error)) (any, error) { return nil, lease.ErrNoQuorum })
		ctx, cancel := context.WithTimeout(w.Context(), 30*time.Millisecond)
		defer cancel()
		_, err := c.Get(ctx, "r", lease.GetOptions{})
		w.wantErr(err, lease.ErrNoQuorum)
		w.nodes[1].Script("Get", nil)
		if _, err := c.Get(w.Context(), "r", lease.GetOptions{}); err != nil {
			w.Fatal(err)
		}
		asked := w.nodes[0].Calls("Get")
		for range 5 {
			if _, err := c.Get(w.Context(), "r", lease.GetOptions{}); err != nil {
				w.Fatal(err)
			}
		}
		if w.nodes[0].Calls("Get") != asked {
			w.Error("asked the one that does not serve")
		}
	})
}

func TestErrorsOfALongTryTellWhatHappened(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		w.script("Get", func(context.Context, any, func() (any, error)) (any, error) {
			return nil, &lease.Error{Reason: lease.ReasonNoQuorum, Message: "1 of 3 nodes answers"}
		})
		_, err := c.Get(w.Context(), "r", lease.GetOptions{})
		w.wantErr(err, context.DeadlineExceeded)
		w.wantErr(err, lease.ErrNoQuorum)
		var why *lease.Error
		if !errors.As(err, &why) || why.Message != "1 of 3 nodes answers" || lease.ExitCode(err) != lease.ExitUnavailable {
			w.Errorf("%v", err)
		}
	})
}

// Who is asked why at night wants to know it of every node, and not the same three times.
func TestErrorsOfALongTryTellOfEveryNode(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		c := w.dial()
		for i, says := range []string{"1 of 3 nodes answers", "its disk is full", "1 of 3 nodes answers"} {
			for _, call := range []string{"Get", "Acquire"} {
				w.nodes[i].Script(call, func(context.Context, any, func() (any, error)) (any, error) {
					return nil, &lease.Error{Reason: lease.ReasonNoQuorum, Message: says}
				})
			}
		}
		for what, call := range map[string]func(context.Context) error{
			"get":     func(ctx context.Context) error { _, err := c.Get(ctx, "r", lease.GetOptions{}); return err },
			"acquire": func(ctx context.Context) error { _, err := c.TryAcquire(ctx, "r", lease.AcquireOptions{}); return err },
		} {
			ctx, cancel := context.WithTimeout(w.Context(), 2*time.Second)
			err := call(ctx)
			cancel()
			w.wantErr(err, lease.ErrNoQuorum)
			if text := err.Error(); strings.Count(text, "its disk is full") != 1 || strings.Count(text, "1 of 3 nodes answers") > 2 {
				w.Errorf("%s: %v", what, err)
			}
		}
	})
}

// A node that asks for patience gets it; one that cannot serve is not waited for while there are others.
func TestCallsHeedRetryAfter(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", 10*time.Second)
		for _, step := range []struct {
			reason      lease.Reason
			least, most time.Duration
		}{
			{lease.ReasonLimit, time.Second, 1200 * time.Millisecond},
			{lease.ReasonRecovering, time.Second, 1200 * time.Millisecond},
			{lease.ReasonNoQuorum, 0, 100 * time.Millisecond},
		} {
			var n atomic.Int32
			w.script("Checkpoint", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
				if n.Add(1) == 1 {
					return nil, &lease.Error{Reason: step.reason, RetryAfter: time.Second}
				}
				return next()
			})
			started := w.clock.Now()
			if err := h.Checkpoint(w.Context(), nil); err != nil {
				w.Error(err)
			}
			if took := w.clock.Now().Sub(started); took < step.least || took > step.most {
				w.Errorf("%s: took %v", step.reason, took)
			}
		}
		w.script("Checkpoint", func(context.Context, any, func() (any, error)) (any, error) { return nil, lease.ErrLimit })
		w.wantErr(h.Checkpoint(w.Context(), nil), lease.ErrLimit)
	})
}
