package gocron_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	cron "github.com/go-co-op/gocron/v2"
	"google.golang.org/grpc"

	"github.com/writ-io/writ/contrib/gocron"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/lease/clock/bubble"
	"github.com/writ-io/writ/lease/leasetest"
)

const ttl = 10 * time.Second

// world is a quorum in a bubble of invented time, and processes each with a node and a scheduler of its own.
type world struct {
	*testing.T
	quorum    *leasetest.Quorum
	clock     clock.Clock
	processes []*process

	mu   sync.Mutex
	runs []ran // guarded by mu
}

// ran is one run of the job.
type ran struct {
	by    int
	token fence.Token
	slot  int64 // the second in which it began
}

type process struct {
	node   *leasetest.Node
	client *lease.Client
}

func inBubble(t *testing.T, n int, test func(*world)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		w := &world{T: t, clock: clock.Monotonic()}
		w.quorum = leasetest.NewQuorum(w.clock)
		for i := range n {
			network := leasetest.NewNetwork()
			node := leasetest.NewNode(w.quorum, fmt.Sprintf("node-%d:7411", i), "eu")
			network.Start(node)
			t.Cleanup(node.Stop)
			client, err := lease.Dial(t.Context(), lease.Config{
				Insecure: true, Clock: w.clock, Endpoints: []string{fmt.Sprintf("node-%d:7411", i)},
				DialOptions: []grpc.DialOption{network.Option()},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := client.Close(); err != nil {
					t.Error(err)
				}
			})
			w.processes = append(w.processes, &process{node: node, client: client})
		}
		test(w)
	})
}

// note is a job that notes that it ran, and under which token.
func (w *world) note(by int) func(context.Context) error {
	return func(ctx context.Context) error {
		write, _ := fence.FromContext(ctx)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.runs = append(w.runs, ran{by: by, token: write.Token, slot: time.Now().Unix()})
		return ctx.Err()
	}
}

// schedule starts a scheduler whose job runs every ten seconds, on the second.
func (w *world) schedule(task func(context.Context) error, option cron.SchedulerOption) cron.Scheduler {
	w.Helper()
	s, err := cron.NewScheduler(option, cron.WithLocation(time.UTC))
	if err != nil {
		w.Fatal(err)
	}
	if _, err := s.NewJob(cron.CronJob("*/10 * * * * *", true), cron.NewTask(task), cron.WithName("nightly")); err != nil {
		w.Fatal(err)
	}
	s.Start()
	return s
}

// take answers the runs since it was called last.
func (w *world) take() []ran {
	w.mu.Lock()
	defer w.mu.Unlock()
	runs := w.runs
	w.runs = nil
	return runs
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// once checks that each of n slots ran once, all of them in one process, and answers in which.
func (w *world) once(what string, n int) ran {
	w.Helper()
	runs := w.take()
	slots := map[int64]bool{}
	for _, r := range runs {
		if slots[r.slot] || r.by != runs[0].by || r.token != runs[0].token || r.token == 0 {
			w.Errorf("%s: %+v", what, runs)
			break
		}
		slots[r.slot] = true
	}
	if len(runs) < n || len(runs) > n+1 {
		w.Fatalf("%s: %d slots ran, want %d or so: %+v", what, len(runs), n, runs)
	}
	return runs[0]
}

func TestOneSchedulerOfAllRunsJobs(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		var electors []*gocron.Elector
		var schedulers []cron.Scheduler
		for i, p := range w.processes {
			e, err := gocron.NewElector(p.client, gocron.ElectorConfig{Resource: "reports/scheduler", TTL: ttl})
			w.must(err)
			electors = append(electors, e)
			schedulers = append(schedulers, w.schedule(e.Under(w.note(i)), cron.WithDistributedElector(e)))
		}
		time.Sleep(time.Minute + 5*time.Second) // looked at between slots
		first := w.once("at first", 6)
		if got := electors[first.by].Token(); got != first.token {
			w.Errorf("it leads under %v, and says %v", first.token, got)
		}

		// One that is shut down hands over at once.
		w.must(schedulers[first.by].Shutdown())
		w.must(electors[first.by].Close(w.Context()))
		time.Sleep(time.Minute)
		second := w.once("after a hand-over", 6)
		if second.by == first.by || second.token <= first.token {
			w.Errorf("%+v after %+v", second, first)
		}

		// One that is cut off runs nothing any more, and the last one takes over within the TTL.
		w.processes[second.by].node.Freeze()
		time.Sleep(ttl + time.Second)
		w.take()
		if err := electors[second.by].IsLeader(w.Context()); !errors.Is(err, gocron.ErrNotLeader) {
			w.Errorf("a leader that is cut off: %v", err)
		}
		time.Sleep(time.Minute)
		third := w.once("after a cut", 6)
		if third.by == second.by || third.by == first.by || third.token <= second.token {
			w.Errorf("%+v after %+v", third, second)
		}
		w.processes[second.by].node.Thaw()
		for i := range electors {
			if i != first.by {
				w.must(schedulers[i].Shutdown())
				w.must(electors[i].Close(w.Context()))
			}
		}
		if w.quorum.Held() != 0 {
			w.Error("the lease is held after the end")
		}
	})
}

// The lease is released when what runs under it has returned, and its context has ended before.
func TestElectorJoinsBeforeItReleases(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		leads := make(chan error, 2)
		e, err := gocron.NewElector(w.processes[0].client, gocron.ElectorConfig{
			Resource: "r", TTL: ttl, OnChange: func(err error) { leads <- err },
		})
		w.must(err)
		w.must(<-leads)
		began, returned := make(chan struct{}), make(chan error, 1)
		go func() {
			returned <- e.Under(func(ctx context.Context) error {
				close(began)
				<-ctx.Done()
				time.Sleep(5 * time.Second)
				if w.quorum.Held() != 1 {
					w.Error("released before the function had returned")
				}
				return nil
			})(context.Background())
		}()
		<-began
		short, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if err := e.Close(short); !errors.Is(err, context.DeadlineExceeded) {
			w.Errorf("closed while a function went on: %v", err)
		}
		if err := e.Under(w.note(0))(w.Context()); !errors.Is(err, gocron.ErrNotLeader) {
			w.Errorf("a function that begins while the elector is closed: %v", err)
		}
		w.must(e.Close(w.Context()))
		w.must(<-returned)
		if err := <-leads; !errors.Is(err, context.Canceled) || w.quorum.Held() != 0 {
			w.Errorf("after Close: %v, %d held", err, w.quorum.Held())
		}
	})
}

func TestLossEndsWhatTheLeaderRuns(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		leads := make(chan error, 4)
		e, err := gocron.NewElector(w.processes[0].client, gocron.ElectorConfig{
			Resource: "r", TTL: ttl, OnChange: func(err error) { leads <- err },
		})
		w.must(err)
		w.must(<-leads)
		before := e.Token()
		began := make(chan struct{})
		returned := make(chan error, 1)
		go func() {
			returned <- e.Under(func(ctx context.Context) error { close(began); <-ctx.Done(); return context.Cause(ctx) })(w.Context())
		}()
		<-began
		w.quorum.End("r", lease.EndForced)
		if err := <-returned; !errors.Is(err, lease.ErrLost) {
			w.Errorf("the function's context ended with %v", err)
		}
		if err := <-leads; !errors.Is(err, lease.ErrLost) {
			w.Errorf("told of the loss by %v", err)
		}
		w.must(<-leads) // and it leads again
		if e.Token() <= before {
			w.Errorf("leads under %v after %v", e.Token(), before)
		}
		w.must(e.Close(w.Context()))
	})
}

func TestEachRunIsLocked(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		var lockers []*gocron.Locker
		var schedulers []cron.Scheduler
		for i, p := range w.processes {
			l, err := gocron.NewLocker(p.client, gocron.LockerConfig{Prefix: "reports/", TTL: ttl})
			w.must(err)
			lockers = append(lockers, l)
			schedulers = append(schedulers, w.schedule(l.Under("nightly", w.note(i)), cron.WithDistributedLocker(l)))
			time.Sleep(300 * time.Millisecond) // they are not started at once, nor are their jobs
		}
		time.Sleep(time.Minute)
		slots := map[int64]int{}
		var last fence.Token
		runs := w.take()
		for _, r := range runs {
			slots[r.slot]++
			if slots[r.slot] > 1 || r.token <= last {
				w.Errorf("run twice, or under an old token: %+v", runs)
			}
			last = r.token
		}
		if len(slots) < 6 || len(slots) > 7 {
			w.Errorf("%d slots ran in a minute", len(slots))
		}
		for i := range lockers {
			w.must(schedulers[i].Shutdown())
			w.must(lockers[i].Close(w.Context()))
		}
		if w.quorum.Held() != 0 {
			w.Error("a job is locked after the end")
		}
	})
}

// A short job stays locked for a while, for schedulers whose clocks are behind.
func TestLocksAreKeptForAWhile(t *testing.T) {
	inBubble(t, 2, func(w *world) {
		var lockers []*gocron.Locker
		for _, p := range w.processes {
			l, err := gocron.NewLocker(p.client, gocron.LockerConfig{TTL: ttl})
			w.must(err)
			lockers = append(lockers, l)
		}
		lock, err := lockers[0].Lock(w.Context(), "j")
		w.must(err)
		began, release := make(chan struct{}), make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- lockers[0].Under("j", func(context.Context) error { close(began); <-release; return nil })(w.Context())
		}()
		<-began
		ended, cancel := context.WithCancel(w.Context())
		cancel()
		w.must(lock.Unlock(ended)) // as gocron does
		w.must(lock.Unlock(ended))
		time.Sleep(gocron.DefaultMinHold + time.Second)
		if _, err := lockers[1].Lock(w.Context(), "j"); !errors.Is(err, gocron.ErrNotLocked) || !errors.Is(err, lease.ErrHeld) {
			w.Errorf("while its function goes on: %v", err)
		}
		close(release)
		w.must(<-done)
		time.Sleep(time.Second)
		lock, err = lockers[1].Lock(w.Context(), "j")
		w.must(err)
		w.must(lock.Unlock(w.Context()))
		time.Sleep(gocron.DefaultMinHold - 100*time.Millisecond)
		if _, err := lockers[0].Lock(w.Context(), "j"); !errors.Is(err, gocron.ErrNotLocked) {
			w.Errorf("just before the least time is over: %v", err)
		}
		time.Sleep(200 * time.Millisecond)
		lock, err = lockers[0].Lock(w.Context(), "j")
		w.must(err)
		short, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if err := lockers[0].Close(short); !errors.Is(err, context.DeadlineExceeded) {
			w.Errorf("closed while a job is locked: %v", err)
		}
		if _, err := lockers[0].Lock(w.Context(), "k"); !errors.Is(err, gocron.ErrNotLocked) {
			w.Errorf("locked by a locker that is closed: %v", err)
		}
		w.must(lock.Unlock(w.Context()))
		w.must(lockers[0].Close(w.Context()))
		w.must(lockers[1].Close(w.Context()))
		if err := lockers[1].Under("j", w.note(0))(w.Context()); !errors.Is(err, gocron.ErrNotLocked) {
			w.Errorf("ran without its lock: %v", err)
		}
	})
}

func TestUnusableInputIsRefused(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		client := w.processes[0].client
		for field, try := range map[string]func() error{
			"client":   func() error { _, err := gocron.NewElector(nil, gocron.ElectorConfig{Resource: "r"}); return err },
			"resource": func() error { _, err := gocron.NewElector(client, gocron.ElectorConfig{}); return err },
			"ttl": func() error {
				_, err := gocron.NewElector(client, gocron.ElectorConfig{Resource: "r", TTL: -1})
				return err
			},
			"prefix":   func() error { _, err := gocron.NewLocker(client, gocron.LockerConfig{Prefix: "/"}); return err },
			"min_hold": func() error { _, err := gocron.NewLocker(client, gocron.LockerConfig{MinHold: -1}); return err },
		} {
			if err := try(); !errors.Is(err, lease.ErrInvalid) || !strings.Contains(err.Error(), field) {
				w.Errorf("%s: %v", field, err)
			}
		}
		l, err := gocron.NewLocker(client, gocron.LockerConfig{})
		w.must(err)
		if _, err := l.Lock(w.Context(), "a//b"); !errors.Is(err, lease.ErrInvalid) {
			w.Errorf("a name that is none: %v", err)
		}
	})
}
