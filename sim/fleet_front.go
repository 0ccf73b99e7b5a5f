package sim

import (
	"slices"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// front is what a node is to clients: package api/server in simulated time. What the node does not decide it forwards to the
// one that does: renewals of all clients together, one message under way at a time; anything else at once and alone. What had
// been forwarded to a coordinator that is replaced goes to the new one.
type front struct {
	fleet *fleet
	node  *node
	term  quorum.Term // of the coordinator that it knows

	taken     map[*ask]uint64 // from clients, and not answered; only for reset, which sorts
	forwarded []*ask          // alone, in order; those that are answered are dropped now and then
	renewals  []*ask          // that wait for the message under way
	underWay  []*ask          // renewals
	message   uint64          // counts messages of renewals
	count     uint64
}

// ask is one call of a client.
type ask struct {
	command lease.Command
	until   time.Duration // nobody waits longer
	since   time.Duration // of the search for a coordinator; 0: it has not begun
	done    bool
	// answer takes the answer, and who decided it; nil if the connection broke.
	answer func(reply lease.Reply, by *node)
}

// As a node that is assembled in cmd/writ has it.
const (
	frontPause    = 20 * time.Millisecond
	frontPatience = 3 * fleetElection
)

func newFront(x *fleet, n *node) *front {
	return &front{fleet: x, node: n, taken: make(map[*ask]uint64)}
}

// follow keeps track of who decides, as the node's view tells it.
func (f *front) follow() {
	n := f.node
	_, term := n.image.Term()
	if f.term != 0 && term != f.term {
		f.term = term
		f.again()
	}
	f.term = term
	n.reach(func() bool { return false }, n.image.Revision()+1, f.follow)
}

// again forwards what had been forwarded to the coordinator of before.
func (f *front) again() {
	open := slices.DeleteFunc(f.forwarded, func(a *ask) bool { return a.done })
	f.forwarded = nil
	for _, a := range open {
		f.take(a)
	}
	f.renewals = append(f.underWay, f.renewals...)
	f.underWay = nil
	f.empty()
}

// arrive takes a call of a client in.
func (f *front) arrive(a *ask) {
	if f.fleet.spec.Reset {
		f.count++
		f.taken[a] = f.count
	}
	f.take(a)
}

// finish answers a call, once.
func (f *front) finish(a *ask, reply lease.Reply, by *node) {
	if a.done {
		return
	}
	if reply.Err != nil && reply.Err.Reason == lease.ReasonNotCoordinator {
		f.search(a, reply)
		return
	}
	a.done = true
	delete(f.taken, a)
	a.answer(reply, by)
}

// search looks again for who decides, for as long as patience lasts.
func (f *front) search(a *ask, reply lease.Reply) {
	now := f.fleet.run.world.Now()
	if a.since == 0 {
		a.since = now
	}
	if now-a.since >= frontPatience || now >= a.until {
		f.finish(a, lease.Reply{Err: lease.Errorf(lease.ReasonNoQuorum, "nobody decides: %v", reply.Err)}, f.node)
		return
	}
	f.node.process.After(frontPause, func() { f.take(a) })
}

// take has a call decided.
func (f *front) take(a *ask) {
	now := f.fleet.run.world.Now()
	switch {
	case a.done || now >= a.until:
		a.done = true
	case f.node.engine.Role() != quorum.Follower:
		f.node.submit(a.command, a.until-now, func(r lease.Reply) { f.finish(a, r, f.node) })
	case f.gathers(a):
		f.renewals = append(f.renewals, a)
		f.empty()
	default:
		f.forward(a)
	}
}

func (f *front) gathers(a *ask) bool {
	_, renewal := a.command.(lease.Renew)
	return renewal && !f.fleet.spec.Alone
}

// coordinator is who decides, as the node knows; nil: nobody else.
func (f *front) coordinator() *front {
	claimed, _ := f.node.image.Term()
	if to := f.node.run.nodeNamed(claimed.GetNode()); to != nil && to != f.node {
		return f.fleet.fronts[f.fleet.index(to)]
	}
	return nil
}

// forward carries one call to the coordinator.
func (f *front) forward(a *ask) {
	to := f.coordinator()
	if to == nil {
		f.search(a, lease.Reply{Err: lease.Errorf(lease.ReasonNotCoordinator, "none is known")})
		return
	}
	if len(f.forwarded) >= 1024 && len(f.forwarded) == cap(f.forwarded) {
		f.forwarded = slices.DeleteFunc(f.forwarded, func(a *ask) bool { return a.done })
	}
	f.forwarded = append(f.forwarded, a)
	f.fleet.between(f.node, to.node, func() {
		to.decide(a.command, a.until, func(r lease.Reply) {
			f.fleet.between(to.node, f.node, func() { f.finish(a, r, to.node) })
		})
	})
}

// decide is a call that another node has forwarded.
func (f *front) decide(command lease.Command, until time.Duration, answer func(lease.Reply)) {
	left := until - f.fleet.run.world.Now()
	switch {
	case left <= 0: // nobody waits for it
	case f.node.engine.Role() == quorum.Follower:
		answer(lease.Reply{Err: lease.Errorf(lease.ReasonNotCoordinator, "%s does not decide", f.node.name())})
	default:
		f.node.submit(command, left, answer)
	}
}

// empty sends the renewals that wait, unless a message of them is under way.
func (f *front) empty() {
	if len(f.underWay) > 0 || len(f.renewals) == 0 {
		return
	}
	to := f.coordinator()
	if to == nil {
		waiting := f.renewals
		f.renewals = nil
		for _, a := range waiting {
			f.search(a, lease.Reply{Err: lease.Errorf(lease.ReasonNotCoordinator, "none is known")})
		}
		return
	}
	leases, most := 0, 0
	for _, a := range f.renewals {
		if leases += len(a.command.(lease.Renew).Refs); most > 0 && leases > lease.MaxRenewals {
			break
		}
		most++
	}
	batch := slices.Clone(f.renewals[:most])
	f.renewals = slices.Delete(f.renewals, 0, most)
	f.underWay = batch
	f.message++
	message := f.message
	f.fleet.between(f.node, to.node, func() {
		to.decideAll(batch, func(replies []lease.Reply) {
			f.fleet.between(to.node, f.node, func() {
				if f.message == message && f.underWay != nil {
					f.underWay = nil
				}
				for i, a := range batch {
					f.finish(a, replies[i], to.node)
				}
				f.empty()
			})
		})
	})
}

// decideAll is a message of renewals that another node has forwarded.
func (f *front) decideAll(batch []*ask, answer func([]lease.Reply)) {
	n := f.node
	replies := make([]lease.Reply, len(batch))
	if n.engine.Role() == quorum.Follower {
		for i := range replies {
			replies[i] = lease.Reply{Err: lease.Errorf(lease.ReasonNotCoordinator, "%s does not decide", n.name())}
		}
		answer(replies)
		return
	}
	left := len(batch)
	submits := make(quorum.Submits, len(batch))
	for i, a := range batch {
		n.lastID++
		n.open[n.lastID] = &served{command: a.command, intake: n.run.world.Now(), answer: func(r lease.Reply) {
			replies[i] = r
			if left--; left == 0 {
				answer(replies)
			}
		}}
		submits[i] = quorum.Submit{ID: n.lastID, Intake: n.process.Clock.Now(), Command: a.command}
	}
	n.stepSoon(submits)
}

// reset breaks the connections of clients to a node that has died.
func (f *front) reset() {
	open := make([]*ask, 0, len(f.taken))
	for a := range f.taken { // sorted below
		open = append(open, a)
	}
	slices.SortFunc(open, func(a, b *ask) int { return int(f.taken[a]) - int(f.taken[b]) })
	for _, a := range open {
		if !a.done {
			a.done = true
			a.answer(lease.Reply{}, nil)
		}
	}
	clear(f.taken)
}

// between carries a message from node to node.
func (x *fleet) between(from, to *node, deliver func()) {
	x.meter.forwarded(x.index(from), x.index(to))
	x.run.net.Send(from.process, to.process, deliver)
}
