package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/storetest"
	"github.com/writ-io/writ/sim/world"
)

// driver lets the time of a world pass, in a goroutine of its own, and does what others want done in it.
type driver struct {
	world *world.World
	calls chan func()
	stop  chan struct{}
	done  chan struct{}
}

func drive(t *testing.T, w *world.World) *driver {
	d := &driver{world: w, calls: make(chan func()), stop: make(chan struct{}), done: make(chan struct{})}
	go func() { // joined by the cleanup
		defer close(d.done)
		world.Seeded(w.Dice("entropy"), d.run)
	}()
	t.Cleanup(func() {
		close(d.stop)
		<-d.done
	})
	return d
}

func (d *driver) run() {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-ticker.C:
			d.world.Run(d.world.Now() + 100*time.Millisecond)
		case call := <-d.calls:
			call()
			d.world.Run(d.world.Now() + 10*time.Millisecond)
		}
	}
}

// do has call called between two events, and waits for that.
func (d *driver) do(call func()) {
	called := make(chan struct{})
	select {
	case d.calls <- func() { defer close(called); call() }:
		<-called
	case <-d.stop:
	}
}

// port makes a quorum.Store of a Member.
type port struct {
	*driver
	cluster Cluster
	process *world.Process
	member  Member
	crashed chan struct{}

	mu      sync.Mutex
	leads   bool          // guarded by mu
	changed chan struct{} // guarded by mu
}

// port starts the process and opens its member. Called from the world.
func (d *driver) open(t *testing.T, c Cluster, p *world.Process) *port {
	s := &port{driver: d, cluster: c, process: p, crashed: make(chan struct{}), changed: make(chan struct{})}
	p.Start()
	m, err := c.Open(p)
	if err != nil {
		t.Error(err)
		return s
	}
	s.member = m
	m.OnChange(func() { s.lead(m.Leads()) })
	return s
}

func (s *port) lead(leads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leads = leads
	close(s.changed)
	s.changed = make(chan struct{})
}

// crash ends the member's process. Called from the world.
func (s *port) crash() {
	s.cluster.Crash(s.process)
	s.process.Crash()
	s.lead(false)
	close(s.crashed)
}

// patience is how much simulated time a call may take.
const patience = 20 * time.Second

type answer[T any] struct {
	value T
	err   error
}

// ask makes one call of a member and waits for its answer.
func ask[T any](ctx context.Context, s *port, call func(m Member, done func(T, error))) (T, error) {
	var none T
	answers := make(chan answer[T], 1)
	give := func(value T, err error) {
		select {
		case answers <- answer[T]{value, err}:
		default: // too late
		}
	}
	if ctx.Err() == nil {
		s.do(func() {
			s.process.Do(func() { call(s.member, give) })
			s.world.After(patience, func() { give(none, quorum.ErrUnknown) })
		})
	}
	select {
	case a := <-answers:
		return a.value, a.err
	default:
	}
	select {
	case a := <-answers:
		return a.value, a.err
	case <-s.crashed:
	case <-s.stop:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return none, fmt.Errorf("%w: %w", quorum.ErrUnknown, err)
	}
	return none, quorum.ErrUnknown
}

func (s *port) Claim(ctx context.Context, value []byte) (quorum.Term, error) {
	return ask(ctx, s, func(m Member, done func(quorum.Term, error)) { m.Claim(value, done) })
}

func (s *port) Load(ctx context.Context) ([]quorum.Entry, int64, error) {
	b, err := ask(ctx, s, func(m Member, done func(Backup, error)) {
		m.Load(func(entries []quorum.Entry, revision int64, err error) { done(Backup{revision, entries}, err) })
	})
	return b.Entries, b.Revision, err
}

func (s *port) Commit(ctx context.Context, term quorum.Term, writes []quorum.Write) (int64, error) {
	return ask(ctx, s, func(m Member, done func(int64, error)) { m.Commit(term, writes, done) })
}

func (s *port) Confirm(ctx context.Context, term quorum.Term) error {
	_, err := ask(ctx, s, func(m Member, done func(struct{}, error)) {
		m.Confirm(term, func(err error) { done(struct{}{}, err) })
	})
	return err
}

func (s *port) Announce(ctx context.Context, write quorum.Write) (int64, error) {
	return ask(ctx, s, func(m Member, done func(int64, error)) { m.Announce(write, done) })
}

func (s *port) Head(ctx context.Context) (int64, error) {
	return ask(ctx, s, func(m Member, done func(int64, error)) { m.Head(done) })
}

func (s *port) Watch(ctx context.Context, from int64, deliver func(quorum.Change) bool) error {
	var (
		mu    sync.Mutex
		queue []quorum.Change // guarded by mu
		over  error           // guarded by mu
		more  = make(chan struct{}, 1)
	)
	wake := func() {
		select {
		case more <- struct{}{}:
		default:
		}
	}
	s.do(func() {
		s.process.Do(func() {
			stop := s.member.Watch(from, func(c quorum.Change) {
				mu.Lock()
				defer mu.Unlock()
				c.Entries = slices.Clone(c.Entries) // the caller's own, unlike a Member's
				queue = append(queue, c)
				wake()
			}, func(err error) {
				mu.Lock()
				defer mu.Unlock()
				over = err
				wake()
			})
			context.AfterFunc(ctx, func() { s.do(stop) })
		})
	})
	for {
		mu.Lock()
		changes, err := queue, over
		queue = nil
		mu.Unlock()
		for _, c := range changes {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !deliver(c) {
				return nil
			}
		}
		if err != nil {
			return err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *port) Leadership() (bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leads, s.changed
}

var _ quorum.Store = (*port)(nil)

var testTiming = Timing{Heartbeat: 100 * time.Millisecond, Election: time.Second, Sync: 2 * time.Millisecond}

// maker makes a cluster of the processes.
type maker func(*world.World, *world.Network, []*world.Process) Cluster

func makeRaft(w *world.World, net *world.Network, processes []*world.Process) Cluster {
	return NewRaft(w, net, testTiming, processes)
}

// makeFast makes one that answers: the suite holds a store to what it says, and asks again only for claims.
func makeFast(w *world.World, net *world.Network, processes []*world.Process) Cluster {
	return NewFast(w, net, testTiming, processes, FastConfig{Silent: -1, Lost: -1, Late: -1})
}

func testProcesses(w *world.World, n int) []*world.Process {
	var processes []*world.Process
	for i := range n {
		processes = append(processes, w.NewProcess(fmt.Sprint("node ", i), "region", int64(i*50)))
	}
	return processes
}

// harness is a new cluster, seen through ports.
func harness(t *testing.T, n int, make maker) storetest.Harness {
	w := world.New(1)
	net := w.NewNetwork(func(_, _ *world.Process) world.Quality {
		return world.Quality{Delay: 500 * time.Microsecond, Jitter: 100 * time.Microsecond}
	})
	processes := testProcesses(w, n)
	var ports []*port
	d := drive(t, w)
	d.do(func() {
		cluster := make(w, net, processes)
		cluster.OnDivergence(func(what string) { t.Error(what) })
		for _, p := range processes {
			ports = append(ports, d.open(t, cluster, p))
		}
	})
	h := storetest.Harness{
		Compact: func(ctx context.Context, revision int64) error {
			d.do(func() { ports[0].member.Compact(revision) })
			_, err := ports[0].Head(ctx)
			for _, s := range ports { // each has applied the compaction once it has read what came after
				if err == nil {
					_, err = s.Announce(ctx, quorum.Write{Key: quorum.Prefix + "node/compacted"})
				}
			}
			return err
		},
		Isolate: func(store int) func() {
			fault := &world.Fault{Cut: true, Hits: func(from, to *world.Process) bool {
				return from == processes[store] || to == processes[store]
			}}
			d.do(func() { net.Add(fault) })
			return func() { d.do(func() { net.Remove(fault) }) }
		},
		Stop: func(store int) { d.do(ports[store].crash) },
	}
	for _, s := range ports {
		h.Stores = append(h.Stores, s)
	}
	for {
		if _, err := ports[0].Head(t.Context()); err == nil { // there is a first leader
			return h
		}
	}
}

func TestRaftIsAStore(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) storetest.Harness { return harness(t, n, makeRaft) })
		})
	}
}

func TestFastIsAStore(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) storetest.Harness { return harness(t, n, makeFast) })
		})
	}
}
