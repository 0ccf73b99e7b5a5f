package lease_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/writ-io/writ/lease"
)

// watcher collects events as text.
type watcher struct {
	mu     sync.Mutex
	events []string // guarded by mu
	token  string   // guarded by mu; of the last event
	err    error    // guarded by mu
	done   chan struct{}
}

func (w *world) watch(ctx context.Context, c *lease.Client, opts lease.WatchOptions) *watcher {
	v := &watcher{done: make(chan struct{})}
	go func() {
		defer close(v.done)
		for event, err := range c.Watch(ctx, opts) {
			v.mu.Lock()
			if v.err = err; err == nil {
				text := event.Kind.String()
				if event.Info.Resource != "" {
					text += fmt.Sprintf(" %s %s", event.Info.Resource, event.Info.State)
				}
				v.events = append(v.events, text)
				v.token = event.ResumeToken
			}
			v.mu.Unlock()
		}
	}()
	return v
}

// expect compares with what was seen since the last time.
func (w *world) expect(v *watcher, want ...string) {
	w.Helper()
	synctest.Wait()
	w.pass(time.Second)
	v.mu.Lock()
	defer v.mu.Unlock()
	if fmt.Sprint(v.events) != fmt.Sprint(want) {
		w.Errorf("saw %q, want %q", v.events, want)
	}
	v.events = nil
}

func TestWatchSeesStateThenChanges(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		w.acquire(c, "jobs/a", time.Minute)
		ctx, cancel := context.WithCancel(w.Context())
		v := w.watch(ctx, c, lease.WatchOptions{Prefix: "jobs/"})
		w.expect(v, "state jobs/a held", "synced")
		b := w.acquire(c, "jobs/b", time.Minute)
		w.acquire(c, "other", time.Minute)
		if err := b.Release(w.Context()); err != nil {
			w.Fatal(err)
		}
		w.expect(v, "changed jobs/b held", "changed jobs/b free")
		cancel()
		<-v.done
		w.wantErr(v.err, context.Canceled)
	})
}

func TestWatchResumesOnAnotherNode(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		c := w.dial()
		v := w.watch(w.Context(), c, lease.WatchOptions{})
		w.expect(v, "synced")
		for i, fail := range []func(){
			w.nodes[0].Reset, w.nodes[0].Stop, w.nodes[1].Stop, func() { w.network.Start(w.nodes[0]); w.nodes[2].Stop() },
		} {
			a := w.acquire(c, fmt.Sprint("r", i), time.Minute)
			w.expect(v, fmt.Sprintf("changed r%d held", i))
			fail()
			if err := a.Release(w.Context()); err != nil {
				w.Fatal(err)
			}
			w.expect(v, fmt.Sprintf("changed r%d free", i))
		}
	})
}

// A stream on which nothing comes any more is given up.
func TestWatchNoticesASilentNode(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		v := w.watch(w.Context(), c, lease.WatchOptions{})
		w.expect(v, "synced")
		w.nodes[0].Freeze()
		w.acquire(c, "r", time.Minute)
		w.pass(31 * time.Second)
		w.expect(v, "changed r held")
		w.thawAll()
	})
}

// So is one whose node is there, but has nothing to say.
func TestWatchNoticesASilentStream(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		w.nodes[0].Script("Watch", func(ctx context.Context, _ any, _ func() (any, error)) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		v := w.watch(w.Context(), c, lease.WatchOptions{})
		w.pass(31 * time.Second)
		w.expect(v, "synced")
	})
}

func TestWatchSurfacesResync(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		v := w.watch(w.Context(), c, lease.WatchOptions{})
		w.expect(v, "synced")
		w.nodes[0].Stop()
		w.nodes[1].Stop()
		// Nobody watches while this happens, and history is forgotten.
		w.network.Start(w.nodes[0])
		w.nodes[0].Script("Watch", func(context.Context, any, func() (any, error)) (any, error) {
			return nil, lease.ErrNoQuorum
		})
		h := w.acquire(c, "r", time.Minute)
		w.quorum.Compact()
		w.nodes[0].Script("Watch", nil)
		w.expect(v, "resync", "state r held", "synced")
		if err := h.Release(w.Context()); err != nil {
			w.Fatal(err)
		}
		w.expect(v, "changed r free")
	})
}

func TestWatchContinuesAnEarlierOne(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		ctx, cancel := context.WithCancel(w.Context())
		v := w.watch(ctx, c, lease.WatchOptions{})
		w.expect(v, "synced")
		w.acquire(c, "a", time.Minute)
		w.expect(v, "changed a held")
		cancel()
		<-v.done
		w.acquire(c, "b", time.Minute)
		next := w.watch(w.Context(), c, lease.WatchOptions{ResumeToken: v.token})
		w.expect(next, "changed b held")
		w.expect(w.watch(w.Context(), c, lease.WatchOptions{ResumeToken: "of another quorum"}), "resync", "state a held", "state b held", "synced")
	})
}

// A state that was seen in part is not to be added up with the next one.
func TestWatchStartsOverAfterHalfAState(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		w.acquire(c, "a", time.Minute)
		ctx, cancel := context.WithCancel(w.Context())
		defer cancel()
		var seen []string
		for event, err := range c.Watch(ctx, lease.WatchOptions{}) {
			if err != nil {
				break
			}
			seen = append(seen, event.Kind.String())
			if event.Kind != lease.EventSynced && event.Kind != lease.EventChanged && event.ResumeToken != "" {
				w.Errorf("%v can be resumed from", event.Kind)
			}
			if len(seen) == 1 {
				w.nodes[0].Reset() // what is behind it on the way is lost
				w.nodes[0].Stop()
			}
			if event.Kind == lease.EventSynced {
				cancel()
			}
		}
		// How much had arrived already is the network's affair.
		switch got := fmt.Sprint(seen); got {
		case "[state synced]", "[state resync state synced]":
		default:
			w.Errorf("saw %v", got)
		}
	})
}

func TestWatchStopsWhenNobodyListens(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		for range c.Watch(w.Context(), lease.WatchOptions{}) {
			break
		}
		w.script("Watch", func(context.Context, any, func() (any, error)) (any, error) { return nil, lease.ErrDenied })
		n := 0
		for _, err := range c.Watch(w.Context(), lease.WatchOptions{}) {
			w.wantErr(err, lease.ErrDenied)
			n++
		}
		if n != 1 {
			w.Errorf("%d events", n)
		}
	})
}

func TestWatchEndsWithTheClient(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		c := w.dial()
		v := w.watch(w.Context(), c, lease.WatchOptions{})
		w.expect(v, "synced")
		if err := c.Close(); err != nil {
			w.Fatal(err)
		}
		<-v.done
		w.wantErr(v.err, lease.ErrClosed)
	})
}

// The node cuts off a consumer that is too slow; it goes on where it was.
func TestWatchResumesAfterItWasTooSlow(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		v := w.watch(w.Context(), c, lease.WatchOptions{})
		w.expect(v, "synced")
		w.nodes[0].Reset()
		w.script("Watch", func(context.Context, any, func() (any, error)) (any, error) {
			w.script("Watch", nil)
			return nil, lease.ErrLimit
		})
		w.acquire(c, "r", time.Minute)
		w.expect(v, "changed r held")
	})
}
