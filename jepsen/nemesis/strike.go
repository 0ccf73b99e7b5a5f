//go:build linux

package nemesis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/appends/writer"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/netns"
)

var regions = cluster.Regions[:]

func region(i int) string { return cluster.Regions[i] }
func guard(i int) string  { return lab.Guard(i) }

// way is one direction of a link.
type way struct{ from, to string }

func (w way) String() string { return w.from + "→" + w.to }

// both are both ways between a party and others.
func both(party string, others ...string) (ways []way) {
	for _, other := range others {
		ways = append(ways, way{party, other}, way{other, party})
	}
	return ways
}

// oneWay draws a direction.
func (s *strike) oneWay(party string, others ...string) (ways []way) {
	out := s.rng.IntN(2) == 0
	for _, other := range others {
		if out {
			ways = append(ways, way{party, other})
		} else {
			ways = append(ways, way{other, party})
		}
	}
	return ways
}

// node draws one, half the time the coordinator.
func (s *strike) node(ctx context.Context) int {
	i := s.rng.IntN(cluster.Size)
	if s.rng.IntN(2) == 0 {
		if c, ok := s.lab.Nodes.Coordinator(ctx); ok {
			i = c
		}
	}
	return i
}

func (s *strike) twoNodes(ctx context.Context) (a, b string) {
	i := s.node(ctx)
	return region(i), region((i + 1 + s.rng.IntN(cluster.Size-1)) % cluster.Size)
}

// someNodes draws one, two, or all.
func (s *strike) someNodes() (nodes []string) {
	for _, i := range s.rng.Perm(cluster.Size)[:1+s.rng.IntN(cluster.Size)] {
		nodes = append(nodes, region(i))
	}
	return nodes
}

func (s *strike) guard() string       { return lab.Guard(s.rng.IntN(lab.GuardCount)) }
func (s *strike) writer() *lab.Worker { return s.lab.Writers[s.rng.IntN(len(s.lab.Writers))] }

// whoever draws one of all who write, to a store or to the database.
func (s *strike) whoever() *lab.Worker {
	all := slices.Concat(s.lab.Writers, s.lab.TableWriters, s.lab.Services)
	if s.lab.Pair != nil {
		all = append(all, s.lab.Pair.Writers...)
	}
	return all[s.rng.IntN(len(all))]
}

func (s *strike) client() string {
	return s.lab.Config.Clients[s.rng.IntN(len(s.lab.Config.Clients))]
}

// killNodes kills nodes and starts them again. Nodes are harmed by one strike at a time: a quorum without a majority shows
// little.
func (s *strike) killNodes(ctx context.Context, span time.Duration, nodes ...int) error {
	if !slices.Contains(s.holds, "nodes") && !s.take("nodes") {
		return nil
	}
	var names []string
	for _, i := range nodes {
		names = append(names, region(i))
	}
	each := func(do func(int) error) func() error {
		return func() (err error) {
			for _, i := range nodes {
				err = errors.Join(err, do(i))
			}
			return err
		}
	}
	return s.during(ctx, strings.Join(names, " "), span, each(s.lab.Nodes.Kill), each(s.lab.Nodes.Restart))
}

// writtenTo waits until a writer begins to write, and returns by which guard; any guard, sometimes, and if nobody does.
func (s *strike) writtenTo(ctx context.Context) (guard int, ok bool) {
	if s.rng.IntN(4) == 0 {
		return s.rng.IntN(lab.GuardCount), true
	}
	if said, ok := s.awaitWrite(ctx, s.lab.Book, func(writer.Said) bool { return true }); ok {
		return said.Front, true
	}
	return s.rng.IntN(lab.GuardCount), ctx.Err() == nil
}

// awaitWrite waits until a writer that is sought begins to write, for some time.
func (s *strike) awaitWrite(ctx context.Context, b *book.Book, sought func(writer.Said) bool) (writer.Said, bool) {
	within, cancel := context.WithTimeout(ctx, lab.Lapse)
	defer cancel()
	return b.Await(within, func(said writer.Said) bool { return said.Kind == writer.Put && sought(said) })
}

// stopLimit bounds the end of a guard that is asked to end.
const stopLimit = 2 * time.Minute

// stopGuard ends a guard as a service manager does.
func (s *strike) stopGuard(ctx context.Context) error {
	i := s.rng.IntN(lab.GuardCount)
	if !s.take(guard(i)) {
		return nil
	}
	return s.during(ctx, guard(i), s.between(0, 1000), func() error { return s.endGuard(ctx, i) }, s.lab.Guards[i].Start)
}

// endGuard asks a guard to end, and waits until it has. It may say that it could not wait for everything.
func (s *strike) endGuard(ctx context.Context, i int) error {
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	if err := s.lab.Guards[i].Stop(stopping); stopping.Err() != nil {
		return err
	}
	return nil
}

func (s *strike) pauseGuard(ctx context.Context, i int) error {
	g := s.lab.Guards[i]
	return s.during(ctx, guard(i), s.guardPause(), g.Pause, func() error {
		span, err := g.Resume()
		s.paused(span)
		return err
	})
}

// guardPause draws for how long a guard may stand still.
func (s *strike) guardPause() time.Duration {
	return s.between(50, int(lab.Slack.Milliseconds())/2-100)
}

// paused writes down that a guard stood still.
func (s *strike) paused(span time.Duration) {
	s.field.mu.Lock()
	defer s.field.mu.Unlock()
	s.field.longest = max(s.field.longest, span)
	if s.field.Paused != nil {
		s.field.Paused(span)
	}
}

// unplug takes parties off the network together.
func (s *strike) unplug(ctx context.Context, span time.Duration, parties ...string) error {
	var plugs []string
	for _, party := range parties {
		plugs = append(plugs, "plug "+party)
	}
	if !s.take(plugs...) {
		return nil
	}
	return s.unplugTaken(ctx, strings.Join(parties, " "), span, parties...)
}

// unplugTaken does the same to parties whose plugs the strike has taken.
func (s *strike) unplugTaken(ctx context.Context, detail string, span time.Duration, parties ...string) error {
	each := func(do func(string)) func() error {
		return func() error {
			for _, party := range parties {
				do(party)
			}
			return nil
		}
	}
	return s.during(ctx, detail, span, each(s.lab.Net.Unplug), each(s.lab.Net.Plug))
}

func (s *strike) cut(ctx context.Context, span time.Duration, ways []way) error {
	return s.links(ctx, "cut", span, ways, s.lab.Net.Cut)
}

// links does something to links, and mends them.
func (s *strike) links(ctx context.Context, what string, span time.Duration, ways []way, do func(from, to string)) error {
	if !s.take(names(ways)...) {
		return nil
	}
	return s.during(ctx, what+" "+strings.Join(names(ways), " "), span, s.each(ways, do), s.each(ways, s.lab.Net.Mend))
}

// names are what links are taken by.
func names(ways []way) (names []string) {
	for _, w := range ways {
		names = append(names, w.String())
	}
	return names
}

// each does something to links.
func (s *strike) each(ways []way, do func(from, to string)) func() error {
	return func() error {
		for _, w := range ways {
			do(w.from, w.to)
		}
		return nil
	}
}

// shape makes the links of a party bad, both ways.
func (s *strike) shape(ctx context.Context, span time.Duration) error {
	parties := slices.Concat(regions, s.lab.Config.Clients, []string{s.guard()})
	party := parties[s.rng.IntN(len(parties))]
	shape := netns.Shape{
		Delay: s.between(0, 60), Jitter: s.between(0, 60),
		Loss: float64(s.rng.IntN(10)) / 100, Duplicate: float64(s.rng.IntN(10)) / 100, Reorder: float64(s.rng.IntN(50)) / 100,
	}
	var taken []string
	var ways []way
	for _, other := range s.lab.Parties() {
		if other != party && other != lab.Observer {
			ways = append(ways, both(party, other)...)
		}
	}
	for _, w := range ways {
		taken = append(taken, "shape "+w.String())
	}
	if !s.take(taken...) {
		return nil
	}
	set := func(shape netns.Shape) func() error {
		return func() (err error) {
			for _, w := range ways {
				err = errors.Join(err, s.lab.Net.Shape(w.from, w.to, shape))
			}
			return err
		}
	}
	detail := fmt.Sprintf("%s: delay %v to %v, loss %v, duplication %v, reordering %v", party, shape.Delay, shape.Delay+shape.Jitter,
		shape.Loss, shape.Duplicate, shape.Reorder)
	return s.during(ctx, detail, span, set(shape), set(netns.Shape{}))
}
