package k8slock_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/writ-io/writ/contrib/k8slock"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// A leader that is stopped hands over to the next, which leads under a newer token.
func TestCandidatesOfSeveralClustersElectOneLeader(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		began := make(chan fence.Write)
		runs := map[fence.Token]*run{}
		var all []*run
		for _, c := range w.candidates {
			cfg := loop(leaderelection.LeaderCallbacks{})
			r := &run{}
			cfg.Callbacks.OnStartedLeading = func(ctx context.Context) {
				write, _ := fence.FromContext(ctx)
				w.mu.Lock()
				runs[write.Token] = r
				w.mu.Unlock()
				w.lead(began)(ctx)
			}
			cfg.ReleaseOnCancel = len(all)%2 == 0
			*r = *w.run(c, cfg)
			all = append(all, r)
		}
		for range w.candidates {
			write, _ := within(w, looks, "an election", began)
			if write.Resource != resource {
				w.Errorf("the leader's context carries %+v", write)
			}
			time.Sleep(5 * leaseDuration)
			w.mu.Lock()
			leader := runs[write.Token]
			w.mu.Unlock()
			leader.cancel()
			if err, _ := within(w, time.Second, "the end of a leadership", leader.ended); !errors.Is(err, context.Canceled) {
				w.Errorf("a leader that was stopped: %v", err)
			}
		}
		w.checkTerms(3)
	})
}

// A leader that is cut off stops before anybody else can lead, with nobody's help.
func TestACutOffLeaderStopsBeforeTheNextBegins(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		began := make(chan fence.Write, 2)
		first := w.run(w.candidates[0], loop(leaderelection.LeaderCallbacks{OnStartedLeading: w.lead(began)}))
		within(w, looks, "the first election", began)
		second := w.run(w.candidates[1], loop(leaderelection.LeaderCallbacks{OnStartedLeading: w.lead(began)}))
		time.Sleep(7 * time.Second)
		w.candidates[0].node.Freeze()
		_, took := within(w, leaseDuration+looks, "the second election", began)
		w.Logf("the next leads after %v", took)
		if err, _ := within(w, 6*time.Second, "the end of the first", first.ended); !errors.Is(err, lease.ErrLost) && !errors.Is(err, k8slock.ErrNotRenewed) {
			w.Errorf("a leader that was cut off: %v", err)
		}
		second.cancel()
		if err, _ := within(w, time.Second, "the end of the second", second.ended); !errors.Is(err, context.Canceled) {
			w.Errorf("a leader that was stopped: %v", err)
		}
		w.candidates[0].node.Thaw()
		w.checkTerms(2)
	})
}

// A lease that is taken away ends the leadership at once, and the loop does not go on leading under another grant, even if
// the lease is free.
func TestALossEndsLeadership(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		began := make(chan fence.Write, 1)
		for range 3 {
			stopped := false
			r := w.run(w.candidates[0], loop(leaderelection.LeaderCallbacks{
				OnStartedLeading: w.lead(began), OnStoppedLeading: func() { stopped = true },
			}))
			write, _ := within(w, looks, "an election", began)
			if got := w.candidates[0].lock.Token(); got != write.Token {
				w.Errorf("leads under %v, and says %v", write.Token, got)
			}
			time.Sleep(time.Second)
			w.quorum.End(resource, lease.EndForced)
			var lost *lease.LostError
			if err, _ := within(w, leaseDuration/3, "the end", r.ended); !errors.As(err, &lost) || lost.Token != write.Token || !stopped {
				w.Errorf("lost under %v: %v", write.Token, err)
			}
			if got := w.candidates[0].lock.Token(); got != 0 {
				w.Errorf("says %v after the end", got)
			}
		}
		w.checkTerms(3)
	})
}

// The same, where the loop knows nothing of Run and Bind.
func TestALockThatLostItsLeaseRefusesUntilLeadershipHasEnded(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		lock := w.candidates[0].lock
		record := resourcelock.LeaderElectionRecord{HolderIdentity: lock.Identity(), LeaseDurationSeconds: 15}
		if err := lock.Create(w.Context(), record); err != nil {
			w.Fatal(err)
		}
		lock.RecordEvent("became leader")
		first := lock.Token()
		if err := lock.Update(w.Context(), record); err != nil {
			w.Fatal(err)
		}
		w.quorum.End(resource, lease.EndForced)
		for range 2 {
			if err := lock.Update(w.Context(), record); !errors.Is(err, k8slock.ErrNotHeld) || !errors.Is(err, lease.ErrLost) {
				w.Errorf("after the loss: %v", err)
			}
			time.Sleep(time.Second)
		}
		bound, unbind := lock.Bind(w.Context())
		defer unbind()
		if !errors.Is(context.Cause(bound), lease.ErrLost) {
			w.Errorf("bound after the loss: %v", context.Cause(bound))
		}
		lock.RecordEvent("stopped leading")
		if err := lock.Update(w.Context(), record); err != nil || lock.Token() <= first {
			w.Errorf("a new leadership: %v, under %v after %v", err, lock.Token(), first)
		}
	})
}

// Work that takes long to stop is waited for: nobody leads while it goes on, as long as the lease can be kept.
func TestTheLeaseIsReleasedAfterTheWork(t *testing.T) {
	for _, release := range []bool{true, false} {
		inBubble(t, 2, func(w *world) {
			began := make(chan fence.Write, 2)
			cfg := loop(leaderelection.LeaderCallbacks{})
			cfg.ReleaseOnCancel = release
			returned := false
			cfg.Callbacks.OnStartedLeading = func(ctx context.Context) {
				w.lead(began)(ctx)
				time.Sleep(5 * time.Second)
				if w.quorum.Held() != 1 {
					w.Error("the lease was released while the work went on")
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				returned = true
			}
			first := w.run(w.candidates[0], cfg)
			within(w, looks, "the first election", began)
			cfg.Callbacks.OnStartedLeading = func(ctx context.Context) {
				w.mu.Lock()
				if !returned {
					w.Error("the second led while the first worked")
				}
				w.mu.Unlock()
				w.lead(began)(ctx)
			}
			second := w.run(w.candidates[1], cfg)
			time.Sleep(time.Second)
			first.cancel()
			if err, _ := within(w, 6*time.Second, "the end of the first", first.ended); !errors.Is(err, context.Canceled) {
				w.Errorf("a leader that was stopped: %v", err)
			}
			within(w, looks, "the second election", began)
			second.cancel()
			if err, _ := within(w, 6*time.Second, "the end of the second", second.ended); !errors.Is(err, context.Canceled) {
				w.Errorf("a leader that was stopped: %v", err)
			}
			w.checkTerms(2)
		})
	}
}

// A loop that stops without releasing lets the lease run out, as client-go does.
func TestAStoppedLoopLetsTheLeaseRunOut(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		cfg := loop(leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) {}})
		cfg.Lock = w.candidates[0].lock
		elector, err := leaderelection.NewLeaderElector(cfg)
		if err != nil {
			w.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
		defer cancel()
		elector.Run(ctx)
		if w.quorum.Held() != 1 {
			w.Error("the lease has been released, with work perhaps going on")
		}
		time.Sleep(leaseDuration)
		if w.quorum.Held() != 0 {
			w.Error("the lease is still renewed")
		}
	})
}

func TestRecords(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		first, second := w.candidates[0].lock, w.candidates[1].lock
		if _, _, err := first.Get(w.Context()); !apierrors.IsNotFound(err) {
			w.Errorf("before the first election: %v", err)
		}
		take := func(l *k8slock.Lock, transitions int) error {
			return l.Update(w.Context(), resourcelock.LeaderElectionRecord{
				HolderIdentity: l.Identity(), LeaseDurationSeconds: 15, LeaderTransitions: transitions,
			})
		}
		if err := take(first, 7); err != nil {
			w.Fatal(err)
		}
		if err := take(second, 8); !errors.Is(err, k8slock.ErrNotHeld) || !errors.Is(err, lease.ErrHeld) {
			w.Errorf("taken twice: %v", err)
		}
		for _, l := range []*k8slock.Lock{first, second} {
			var before []byte
			for range 2 {
				record, raw, err := l.Get(w.Context())
				if err != nil || record.HolderIdentity != "cluster-0" || record.LeaderTransitions != 7 || bytes.Equal(raw, before) {
					w.Errorf("%s sees %+v, %v", l.Identity(), record, err)
				}
				before = raw
			}
		}
		// Who has the same name is not the same process.
		namesake, err := k8slock.New(w.candidates[1].client, k8slock.Config{Resource: resource, Identity: "cluster-0"})
		if err != nil {
			w.Fatal(err)
		}
		if record, _, err := namesake.Get(w.Context()); err != nil || !strings.HasPrefix(record.HolderIdentity, "cluster-0#") {
			w.Errorf("a namesake sees %+v, %v", record, err)
		}
		if err := first.Update(w.Context(), resourcelock.LeaderElectionRecord{}); err != nil {
			w.Fatal(err)
		}
		record, raw, err := second.Get(w.Context())
		if err != nil || record.HolderIdentity != "" || record.LeaderTransitions != 7 {
			w.Errorf("after the release: %+v, %v", record, err)
		}
		if _, again, _ := second.Get(w.Context()); !bytes.Equal(raw, again) {
			w.Error("a free lease seems to change")
		}
		if err := take(second, 8); err != nil {
			w.Errorf("after the release: %v", err)
		}
		if err := first.Update(w.Context(), resourcelock.LeaderElectionRecord{}); err != nil || w.quorum.Held() != 1 {
			w.Errorf("released what another holds: %v", err)
		}
	})
}

// A lease that something else holds is shown with its holder.
func TestLeasesOfOthersAreShown(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		hold, err := w.candidates[0].client.Acquire(w.Context(), resource, lease.AcquireOptions{Metadata: []byte(`{"writ":"run"}`)})
		if err != nil {
			w.Fatal(err)
		}
		record, _, err := w.candidates[1].lock.Get(w.Context())
		if err != nil || record.HolderIdentity != hold.Holder().String() {
			w.Errorf("%+v, %v", record, err)
		}
	})
}

// A call ends in time for the loop to stop leading, whatever the quorum does.
func TestCallsAreBounded(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.candidates[0]
		c.node.Freeze()
		for name, call := range map[string]func() error{
			"get": func() error { _, _, err := c.lock.Get(w.Context()); return err },
			"update": func() error {
				return c.lock.Update(w.Context(), resourcelock.LeaderElectionRecord{HolderIdentity: c.name})
			},
		} {
			began := w.clock.Now()
			if err := call(); !errors.Is(err, context.DeadlineExceeded) {
				w.Errorf("%s: %v", name, err)
			}
			if took := w.clock.Now().Sub(began); took > leaseDuration/3 {
				w.Errorf("%s took %v", name, took)
			}
		}
		c.node.Thaw()
	})
}

func TestUnusableInputIsRefused(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.candidates[0]
		if _, err := k8slock.New(nil, k8slock.Config{Resource: resource}); !errors.Is(err, lease.ErrInvalid) {
			w.Errorf("no client: %v", err)
		}
		for field, cfg := range map[string]k8slock.Config{
			"resource": {Resource: "a//b"}, "identity": {Resource: "a", Identity: strings.Repeat("x", 1025)}, "ttl": {Resource: "a", TTL: -1},
		} {
			if _, err := k8slock.New(c.client, cfg); !errors.Is(err, lease.ErrInvalid) || !strings.Contains(err.Error(), field) {
				w.Errorf("%s: %v", field, err)
			}
		}
		nameless, err := k8slock.New(c.client, k8slock.Config{Resource: resource})
		if err != nil || nameless.Identity() != c.client.Instance() || nameless.Describe() != "writ/"+resource {
			w.Errorf("%q, %v", nameless.Identity(), err)
		}
		if err := c.lock.Update(w.Context(), resourcelock.LeaderElectionRecord{HolderIdentity: "somebody"}); !errors.Is(err, lease.ErrInvalid) {
			w.Errorf("another's identity: %v", err)
		}
		cfg := loop(leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) {}})
		cfg.Coordinated = true
		if err := k8slock.Run(w.Context(), c.lock, cfg); err == nil {
			w.Error("coordinated election ran")
		}
		if err := k8slock.Run(w.Context(), c.lock, loop(leaderelection.LeaderCallbacks{})); err == nil {
			w.Error("a loop without work ran")
		}
	})
}
