//go:build linux

package nemesis

import (
	"context"
	"slices"

	"github.com/writ-io/writ/jepsen/choice"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/wait"
)

// Kinds are all nemeses.
var Kinds = choice.Set[Kind]{
	All:  slices.Concat(processes, networks, writers, aimed, singles, promoters, disks, rolling),
	Tell: func(k Kind) (name, doc string) { return k.Name, k.Doc },
}

// processes harm processes.
var processes = []Kind{
	{Name: "kill-node", Doc: "SIGKILL a node, half the time the coordinator, and start it again", strike: func(ctx context.Context, s *strike) error {
		return s.killNodes(ctx, s.between(100, 2000), s.node(ctx))
	}},
	{Name: "crash-loop", Doc: "SIGKILL a node again and again, shortly after each start", strike: func(ctx context.Context, s *strike) error {
		i := s.node(ctx)
		for range 2 + s.rng.IntN(4) {
			if err := s.killNodes(ctx, s.between(50, 400), i); err != nil || !wait.For(ctx, s.between(100, 1000)) {
				return err
			}
		}
		return nil
	}},
	{Name: "crash-all", Doc: "SIGKILL all nodes at once", strike: func(ctx context.Context, s *strike) error {
		defer wait.For(ctx, s.between(3000, 8000)) // or nobody would ever get anywhere
		return s.killNodes(ctx, s.between(50, 500), 0, 1, 2)
	}},
	{Name: "pause-node", Doc: "SIGSTOP a node, half the time the coordinator", strike: func(ctx context.Context, s *strike) error {
		i := s.node(ctx)
		if !s.take("nodes") {
			return nil
		}
		return s.during(ctx, region(i), s.between(100, 4000), func() error { return s.lab.Nodes.Pause(i) }, func() error { return s.lab.Nodes.Resume(i) })
	}},
	{Name: "kill-guard", Doc: "SIGKILL a guard, mostly in the middle of a write, and start it again", strike: func(ctx context.Context, s *strike) error {
		i, ok := s.writtenTo(ctx)
		if !ok || !s.take(guard(i)) {
			return nil
		}
		return s.during(ctx, guard(i), s.out(), s.lab.Guards[i].Kill, s.lab.Guards[i].Start)
	}},
	{Name: "pause-guard", Doc: "SIGSTOP a guard in the middle of a write, for less than half of its slack", strike: func(ctx context.Context, s *strike) error {
		i, ok := s.writtenTo(ctx)
		if !ok || !s.take(guard(i)) {
			return nil
		}
		return s.pauseGuard(ctx, i)
	}},
	{Name: "stop-guard", Doc: "SIGTERM a guard, so that it waits for what is under way, and start it again", strike: func(ctx context.Context, s *strike) error {
		return s.stopGuard(ctx)
	}},
}

// networks harm the network. Names that are taken are those of links, as a party and another.
var networks = []Kind{
	{Name: "unplug-node", Doc: "take a node off the network", strike: func(ctx context.Context, s *strike) error {
		return s.unplug(ctx, s.between(500, 3000), region(s.node(ctx)))
	}},
	{Name: "cut-nodes", Doc: "drop everything between two nodes, who both reach the third: a bridge", strike: func(ctx context.Context, s *strike) error {
		a, b := s.twoNodes(ctx)
		return s.cut(ctx, s.between(500, 4000), both(a, b))
	}},
	{Name: "cut-nodes-oneway", Doc: "drop what one node sends to another", strike: func(ctx context.Context, s *strike) error {
		a, b := s.twoNodes(ctx)
		return s.cut(ctx, s.between(500, 4000), []way{{a, b}})
	}},
	{Name: "cut-clients", Doc: "drop everything between the clients and a node, or all of them", strike: func(ctx context.Context, s *strike) error {
		nodes := s.someNodes()
		return s.cut(ctx, s.between(500, 3000), both(s.client(), nodes...))
	}},
	{Name: "cut-guard", Doc: "drop everything between a guard and the quorum", strike: func(ctx context.Context, s *strike) error {
		return s.cut(ctx, s.out(), both(s.guard(), regions...))
	}},
	{Name: "cut-guard-oneway", Doc: "drop what a guard sends to the quorum, or what that sends to it", strike: func(ctx context.Context, s *strike) error {
		return s.cut(ctx, s.out(), s.oneWay(s.guard(), regions...))
	}},
	{Name: "unplug-guard", Doc: "take a guard off the network", strike: func(ctx context.Context, s *strike) error {
		return s.unplug(ctx, s.out(), s.guard())
	}},
	{Name: "cut-store", Doc: "drop everything between a guard and the store, or in one direction", strike: func(ctx context.Context, s *strike) error {
		g := s.guard()
		ways := both(g, lab.Store)
		if s.rng.IntN(2) == 0 {
			ways = s.oneWay(g, lab.Store)
		}
		return s.cut(ctx, s.out(), ways)
	}},
	{Name: "reset", Doc: "answer what two nodes, or a client and a node, send to each other with resets", strike: func(ctx context.Context, s *strike) error {
		a, b := s.twoNodes(ctx)
		if s.rng.IntN(2) == 0 {
			a = s.client()
		}
		return s.links(ctx, "reset", s.between(200, 3000), both(a, b), s.lab.Net.Refuse)
	}},
	{Name: "shape", Doc: "delay, lose, double and reorder what a party sends and gets", strike: func(ctx context.Context, s *strike) error {
		return s.shape(ctx, s.between(2000, 6000))
	}},
}

// writers harm those who write to the store or to the database.
var writers = []Kind{
	{Name: "kill-writer", Doc: "SIGKILL a writer or a process with jobs, half the time in the middle of a write, and start it again", strike: func(ctx context.Context, s *strike) error {
		w := s.whoever()
		if s.rng.IntN(2) == 0 {
			s.awaitWrite(ctx, w.Book, w.Said)
		}
		if !s.take(w.Party) {
			return nil
		}
		return s.during(ctx, w.Party, s.between(0, 3000), w.Kill, w.Start)
	}},
	{Name: "pause-writer", Doc: "SIGSTOP a writer or a process with jobs, for up to four times its TTL", strike: func(ctx context.Context, s *strike) error {
		w := s.whoever()
		if !s.take(w.Party) {
			return nil
		}
		return s.during(ctx, w.Party, s.between(100, 6000), w.Pause, func() error { _, err := w.Resume(); return err })
	}},
	{Name: "unplug-writer", Doc: "take a writer or a process with jobs off the network", strike: func(ctx context.Context, s *strike) error {
		return s.unplug(ctx, s.between(100, 4000), s.whoever().Party)
	}},
	{Name: "hold-writer", Doc: "SIGSTOP a writer between reading and writing, or a process within a slot, until another has written", strike: func(ctx context.Context, s *strike) error {
		return s.holdWriter(ctx)
	}},
	{Name: "cut-writer", Doc: "drop everything between a writer and the quorum, or one way between it and a guard or the database", strike: func(ctx context.Context, s *strike) error {
		w := s.whoever()
		ways := both(w.Party, regions...)
		if s.rng.IntN(2) == 0 {
			front := s.guard()
			if slices.Contains(s.lab.TableWriters, w) || slices.Contains(s.lab.Services, w) {
				front = lab.Database
			}
			ways = s.oneWay(w.Party, front)
		}
		return s.cut(ctx, s.between(500, 4000), ways)
	}},
}
