//go:build linux

package nemesis

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/appends/writer"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/wait"
)

// aimed watch the system, and strike at the moment in which a rule that is broken gives itself away. By chance that would take
// hours to come together.
var aimed = []Kind{
	{Name: "strike-holder", Doc: "SIGKILL, SIGSTOP or unplug a writer as soon as it has been granted the lease", strike: func(ctx context.Context, s *strike) error {
		return s.holder(ctx)
	}},
	{Name: "strike-commit", Doc: "SIGKILL, SIGSTOP or unplug the coordinator when it has written to its log and not answered yet", strike: func(ctx context.Context, s *strike) error {
		return s.commit(ctx)
	}},
	{Name: "strike-persist", Doc: "SIGKILL, SIGSTOP or silence a guard when it has written a floor and not acknowledged it yet", strike: func(ctx context.Context, s *strike) error {
		return s.persist(ctx)
	}},
	{Name: "old-coordinator", Doc: "SIGSTOP the coordinator when it is idle until another takes over, and let it go on cut off from the other nodes", strike: func(ctx context.Context, s *strike) error {
		return s.oldCoordinator(ctx)
	}},
	{Name: "kill-successor", Doc: "SIGKILL the coordinator, and the next one as soon as it has taken over", strike: func(ctx context.Context, s *strike) error {
		return s.successor(ctx)
	}},
	{Name: "kill-guard-slow", Doc: "SIGKILL a guard in the middle of a write that the store takes its time over", strike: func(ctx context.Context, s *strike) error {
		return s.slowWrite(ctx)
	}},
	{Name: "strand-kill", Doc: "cut a guard from the store, and SIGKILL it with a write that cannot get there", strike: func(ctx context.Context, s *strike) error {
		return s.strand(ctx, killed)
	}},
	{Name: "strand-cut", Doc: "cut a guard from the store, and from the quorum with a write that cannot get there", strike: func(ctx context.Context, s *strike) error {
		return s.strand(ctx, isolated)
	}},
	{Name: "strand-leave", Doc: "cut a guard from the store, and leave it with a write that cannot get there", strike: func(ctx context.Context, s *strike) error {
		return s.strand(ctx, left)
	}},
	{Name: "zombie", Doc: "have a writer that was overtaken write at a guard that cannot have heard of it", strike: func(ctx context.Context, s *strike) error {
		return s.zombie(ctx, alive)
	}},
	{Name: "zombie-restart", Doc: "the same at a guard that was killed, and started when it could not hear of it", strike: func(ctx context.Context, s *strike) error {
		return s.zombie(ctx, unaware)
	}},
	{Name: "zombie-forgotten", Doc: "the same at a guard that had heard of it, was killed, and started when it could not hear of it again", strike: func(ctx context.Context, s *strike) error {
		return s.zombie(ctx, forgetful)
	}},
}

// holder strikes whoever is granted the lease next.
func (s *strike) holder(ctx context.Context) error {
	said, ok := s.lab.Book.Await(ctx, func(said writer.Said) bool { return said.Kind == writer.Granted })
	if !ok {
		return nil
	}
	for _, w := range s.lab.Writers {
		if !w.Said(said) || !s.take(w.Party, "plug "+w.Party) {
			continue
		}
		under := fmt.Sprintf("%s, granted %v: ", w.Party, said.Token)
		switch s.rng.IntN(3) {
		case 0:
			return s.during(ctx, under+"SIGKILL", s.between(0, 3000), w.Kill, w.Start)
		case 1:
			return s.during(ctx, under+"SIGSTOP", s.between(100, 6000), w.Pause, func() error { _, err := w.Resume(); return err })
		default:
			return s.unplugTaken(ctx, under+"unplugged", s.between(100, 4000), w.Party)
		}
	}
	return nil
}

// commit has the coordinator commit something, and strikes it when its log has been written to.
func (s *strike) commit(ctx context.Context) error {
	i, ok := s.lab.Nodes.Coordinator(ctx)
	if !ok || !s.take("nodes", "plug "+region(i)) {
		return nil
	}
	w, err := s.watchLog(i)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, 2*time.Second)
	var asked sync.WaitGroup
	defer func() {
		cancel()
		asked.Wait()
		_ = w.close()
	}()
	name := fmt.Sprintf("strike/%x", s.rng.Uint64())
	asked.Go(func() { s.ask(asking, i, name) })
	if !w.await(asking) {
		return nil
	}
	// A commit takes some milliseconds.
	wait.For(ctx, time.Duration(s.rng.IntN(3000))*time.Microsecond)
	switch s.rng.IntN(3) {
	case 0:
		return s.during(ctx, region(i)+" SIGKILL", s.between(100, 2000), func() error { return s.lab.Nodes.Kill(i) }, func() error { return s.lab.Nodes.Restart(i) })
	case 1:
		return s.during(ctx, region(i)+" SIGSTOP", s.between(100, 4000), func() error { return s.lab.Nodes.Pause(i) }, func() error { return s.lab.Nodes.Resume(i) })
	default:
		return s.unplugTaken(ctx, region(i)+" unplugged", s.between(500, 3000), region(i))
	}
}

// ask asks a node for a lease, which it has to commit, whatever comes of it.
func (s *strike) ask(ctx context.Context, node int, name string) {
	conn, err := s.lab.Nodes.Dial(node)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = writv1.NewLeaseServiceClient(conn).Acquire(ctx, &writv1.AcquireRequest{
		Resource: name, Ttl: durationpb.New(time.Second), RequestId: name, Instance: lab.Observer,
	})
}

// persist strikes a guard when it writes a floor to its disk.
func (s *strike) persist(ctx context.Context) error {
	i := s.rng.IntN(lab.GuardCount)
	g := guard(i)
	var silent []way
	for _, node := range regions {
		silent = append(silent, way{g, node})
	}
	if !s.take(append(names(silent), g)...) {
		return nil
	}
	w, err := watchWrites(filepath.Join(s.lab.Config.Dir, g))
	if err != nil {
		return err
	}
	defer func() { _ = w.close() }()
	within, cancel := context.WithTimeout(ctx, lab.Lapse)
	defer cancel()
	if !w.await(within) {
		return nil
	}
	switch s.rng.IntN(3) {
	case 0:
		return s.during(ctx, g+" SIGKILL", s.out(), s.lab.Guards[i].Kill, s.lab.Guards[i].Start)
	case 1:
		return s.pauseGuard(ctx, i)
	default:
		return s.during(ctx, g+" silent to the quorum", s.out(), s.each(silent, s.lab.Net.Cut), s.each(silent, s.lab.Net.Mend))
	}
}

// slowWrite kills a guard a moment after a slow write has begun.
func (s *strike) slowWrite(ctx context.Context) error {
	said, ok := s.lab.Book.Await(ctx, func(said writer.Said) bool { return said.Kind == writer.Put && said.Slow })
	if !ok || !s.take(guard(said.Front)) {
		return nil
	}
	wait.For(ctx, 50*time.Millisecond)
	g := s.lab.Guards[said.Front]
	return s.during(ctx, fmt.Sprintf("%s, which writes %s", guard(said.Front), said.Element), s.between(0, 200), g.Kill, g.Start)
}

// takeover bounds the waiting for another coordinator.
const takeover = 10 * time.Second

// Stale is what a control does harm by: what a node knows gets old, which Writ never takes for what is.
var Stale = Kind{Name: "stale-node", Doc: "cut a node off from the other nodes, and from nobody else", strike: func(ctx context.Context, s *strike) error {
	return s.stale(ctx)
}}

// stale leaves the others with a coordinator, so that they go on.
func (s *strike) stale(ctx context.Context) error {
	i := s.rng.IntN(cluster.Size)
	if c, ok := s.lab.Nodes.Coordinator(ctx); ok && i == c {
		i = (i + 1) % cluster.Size
	}
	return s.cut(ctx, s.between(500, 1500), both(region(i), others(i)...))
}

// others are the nodes but one.
func others(i int) (nodes []string) {
	for _, node := range regions {
		if node != region(i) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// oldCoordinator has the coordinator go on at the moment of its succession, when it reaches clients and guards and no node.
func (s *strike) oldCoordinator(ctx context.Context) error {
	old, ok := s.lab.Nodes.Coordinator(ctx)
	if !ok {
		return nil
	}
	ways := both(region(old), others(old)...)
	if !s.take(append(names(ways), "nodes")...) {
		return nil
	}
	if err := s.awaitIdle(ctx, old); err != nil {
		return err
	}
	mend := s.each(ways, s.lab.Net.Mend)
	next := "nobody"
	err := s.while(ctx, region(old)+" SIGSTOP", func() error { return s.lab.Nodes.Pause(old) }, func(ctx context.Context) error {
		if i, ok := s.succeeded(ctx, old); ok {
			next = region(i)
		}
		return s.each(ways, s.lab.Net.Cut)()
	}, func() error { return s.lab.Nodes.Resume(old) })
	if err != nil {
		return errors.Join(err, mend())
	}
	return s.during(ctx, fmt.Sprintf("%s goes on alone, and %s decides", region(old), next), s.between(300, 3000), func() error { return nil }, mend)
}

const (
	// idle is how long a node that is idle has not written to its log, which a commit does every few milliseconds.
	idle = 15 * time.Millisecond
	// idleLimit bounds the waiting for that.
	idleLimit = 2 * time.Second
)

// awaitIdle waits until nothing is being committed, for some time: a coordinator that is stopped with a commit under way waits
// for the end of that first, and answers nobody before it knows that it was deposed.
func (s *strike) awaitIdle(ctx context.Context, node int) error {
	w, err := s.watchLog(node)
	if err != nil {
		return err
	}
	defer func() { _ = w.close() }()
	ctx, cancel := context.WithTimeout(ctx, idleLimit)
	defer cancel()
	for ctx.Err() == nil {
		quiet, stop := context.WithTimeout(ctx, idle)
		busy := w.await(quiet)
		stop()
		if !busy {
			break
		}
	}
	return nil
}

// watchLog begins to hear of what a node writes to its log.
func (s *strike) watchLog(node int) (*watch, error) {
	log, err := directory(filepath.Join(s.lab.Config.Dir, region(node)), "wal")
	if err != nil {
		return nil, err
	}
	return watchWrites(log)
}

// succeeded waits until another node decides than one that cannot, and returns it; false if none does in time.
func (s *strike) succeeded(ctx context.Context, old int) (next int, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, takeover)
	defer cancel()
	for {
		if i, ok := s.lab.Nodes.Coordinator(ctx); ok && i != old {
			return i, true
		}
		if !wait.For(ctx, 5*time.Millisecond) {
			return 0, false
		}
	}
}

// successor kills the coordinator, and the next one as soon as it decides. The first is started again then: two of three would
// be too few to go on with.
func (s *strike) successor(ctx context.Context) error {
	old, ok := s.lab.Nodes.Coordinator(ctx)
	if !ok || !s.take("nodes") {
		return nil
	}
	next, found := 0, false
	err := s.while(ctx, region(old), func() error { return s.lab.Nodes.Kill(old) }, func(ctx context.Context) error {
		next, found = s.succeeded(ctx, old)
		return nil
	}, func() error { return s.lab.Nodes.Restart(old) })
	if err != nil || !found {
		return err
	}
	return s.killNodes(ctx, s.between(100, 2000), next)
}
