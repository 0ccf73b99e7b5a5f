package sim

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// conversation is one stream of a guard with a node. What the guard asks may overtake itself, as a node carries it to the
// coordinator; what the node says is heard in order, or not at all.
type conversation struct {
	guard  *guard
	node   *node
	broken bool
	since  int // how often the quorum had been put back when it began

	// The node's side.
	begun     bool
	asked     map[uint64]bool
	following bool
	stops     map[string]func()
	told      map[string]uint64 // floors
	sent      uint64

	// The guard's side.
	open  bool // the node has taken it
	got   uint64
	early map[uint64]*writv1.GuardResponse
	heard time.Duration // when something came last
}

// Of a guard's link, as in production.
const (
	linkPatience = 5 * time.Second
	askPatience  = 10 * time.Second
)

// connect begins a conversation with the next node.
func (g *guard) connect() {
	n := g.nodes[g.tour%len(g.nodes)]
	c := &conversation{guard: g, node: n, since: g.run.rebuilt, asked: make(map[uint64]bool), stops: make(map[string]func()), told: make(map[string]uint64), heard: g.run.world.Now()}
	g.talk = c
	g.run.net.Send(g.process, n.process, func() { n.converse(c) })
	g.process.After(linkPatience, func() {
		if g.talk == c && !c.open {
			g.reconnect()
		}
	})
}

// listen notices a stream that has broken.
func (g *guard) listen() {
	g.process.After(time.Second, func() {
		if c := g.talk; c != nil && (c.broken || len(c.early) > 0 && g.run.world.Now()-c.heard > time.Second) {
			g.reconnect()
		}
		g.listen()
	})
}

// drop ends the conversation on the guard's side.
func (g *guard) drop() (open bool) {
	c := g.talk
	g.talk = nil
	if c == nil {
		return false
	}
	c.end()
	return c.open
}

// end breaks the stream.
func (c *conversation) end() {
	c.broken = true
	for _, pattern := range sortedKeys(c.stops) {
		c.stops[pattern]()
	}
	clear(c.stops)
}

// reconnect goes on at another node.
func (g *guard) reconnect() {
	if g.drop() {
		g.step(gate.Disconnected{})
	}
	g.tour++
	g.process.After(g.dice.Between(25*time.Millisecond, 250*time.Millisecond), func() {
		if g.talk == nil {
			g.connect()
		}
	})
}

// say sends what the gate asks.
func (g *guard) say(m *writv1.GuardRequest) {
	c := g.talk
	if c == nil || !c.open {
		return // the stream has broken, of which the gate is about to be told
	}
	for _, ack := range m.GetAcks().GetAcks() {
		g.acknowledges(ack)
	}
	g.run.net.Send(g.process, c.node.process, func() { c.node.asked(c, m) })
}

// acknowledges holds an ack to what is on disk, and to what is under way.
func (g *guard) acknowledges(ack *writv1.GuardAck) {
	name, floor := lease.Resource(ack.GetResource()), fence.Token(ack.GetToken())
	if ack.GetProof() == writv1.GuardProof_GUARD_PROOF_CUT {
		g.run.mark(MarkGuardCut)
	}
	durable := g.disk.floor(string(name))
	if g.door != nil {
		durable = min(durable, g.door.floor(name))
	}
	g.run.judge.Acknowledges(g.spec.Name, name, floor, durable, g.older(name, floor))
}

// older is a token below floor that something of this guard may still reach the storage under; 0: none.
func (g *guard) older(name lease.Resource, floor fence.Token) fence.Token {
	for _, p := range g.alive {
		if p.resource == name && p.token < floor && p.made != nil {
			return p.token
		}
	}
	return 0
}

// hears takes a message in.
func (g *guard) hears(m *writv1.GuardResponse) {
	stale := g.talk.since < g.run.rebuilt
	if e := m.GetEnrolled(); e != nil && !e.GetMore() && g.base == 0 {
		g.base = fence.Token(e.GetBase())
	}
	if m.GetError() != nil && g.disk.stores > 1 && forGood(m) {
		g.conflicts()
	}
	if e := m.GetEnrolled(); e != nil && !e.GetMore() {
		g.seed = seeded{fence.Token(e.GetBase()), g.talk.since}
		if !stale && g.door == nil { // a storage is held to a seed when it has been raised to it
			g.run.judge.Tighten(g.called(), g.seed.base)
		}
	}
	raises := slices.Concat(m.GetRaises().GetRaises(), m.GetContacted().GetRaises())
	g.step(gate.Heard{Message: m})
	if stale { // of a quorum that is not any more, perhaps with rules that this one does not know
		g.loosen()
	}
	for _, f := range raises {
		if g.older(lease.Resource(f.GetResource()), fence.Token(f.GetToken())) != 0 {
			g.run.mark(MarkGuardDraining)
		}
	}
}

// conflicts has an operator answer for the process whose floors are lost: it is this one's predecessor, which the quorum
// expects to go on for ever.
func (g *guard) conflicts() {
	if !g.awaited {
		g.awaited = true
		g.run.oper.want("attest "+g.spec.Name, func(done func(bool)) {
			g.run.oper.attest(g, func(ok bool) {
				if ok {
					g.awaited = false
					g.start()
				}
				done(ok)
			})
		})
	}
}

// converse takes a stream of a guard.
func (n *node) converse(c *conversation) {
	if c.begun || c.broken {
		return
	}
	c.begun = true
	n.talks = slices.DeleteFunc(n.talks, func(o *conversation) bool { return o.broken })
	n.talks = append(n.talks, c)
	g := c.guard
	n.run.net.Send(n.process, g.process, func() {
		if g.talk == c && !c.open {
			c.open, c.heard = true, n.run.world.Now()
			g.step(gate.Connected{})
		}
	})
}

// asked carries what a guard asks to the coordinator.
func (n *node) asked(c *conversation, m *writv1.GuardRequest) {
	if c.broken || !c.begun || c.asked[m.GetId()] {
		return
	}
	c.asked[m.GetId()] = true
	n.run.operations++
	command := lease.GuardCall{Caller: lease.Caller{Principal: "guards"}, Request: m}
	n.serve(command, askPatience, false, func(r lease.Reply) {
		if r.Err != nil {
			c.tell(refusalOf(m.GetId(), r.Err))
			return
		}
		c.tell(r.Value.(*writv1.GuardResponse))
		if m.GetEnrol() != nil || m.GetContact() != nil {
			n.followFor(c)
		}
	})
}

// refusalOf is an error of the API as a guard is told it.
func refusalOf(id uint64, err *lease.Error) *writv1.GuardResponse {
	info := &errdetails.ErrorInfo{Domain: "writ.dev", Reason: string(err.Reason)}
	if err.RetryAfter == 0 {
		info.Metadata = map[string]string{"retry": "never"}
	}
	detail, failed := anypb.New(info)
	if failed != nil {
		panic(failed)
	}
	return &writv1.GuardResponse{Id: id, Say: &writv1.GuardResponse_Error{Error: &status.Status{Code: 9, Message: err.Message, Details: []*anypb.Any{detail}}}}
}

// forGood tells a conflict that time does not end.
func forGood(m *writv1.GuardResponse) bool {
	var info errdetails.ErrorInfo
	if details := m.GetError().GetDetails(); len(details) != 1 || details[0].UnmarshalTo(&info) != nil {
		return false
	}
	return info.GetReason() == string(lease.ReasonConflict) && info.GetMetadata()["retry"] == "never"
}

// tell carries a message to the guard.
func (c *conversation) tell(m *writv1.GuardResponse) {
	if c.broken {
		return
	}
	c.sent++
	number, g := c.sent, c.guard
	g.run.net.Send(c.node.process, g.process, func() {
		if g.talk != c || number <= c.got {
			return
		}
		if number != c.got+1 {
			if c.early == nil {
				c.early = make(map[uint64]*writv1.GuardResponse)
			}
			c.early[number] = m
			return
		}
		c.heard = g.run.world.Now()
		for ok := true; ok && g.talk == c; m, ok = c.early[c.got+1] {
			c.got++
			delete(c.early, c.got)
			g.hears(m)
		}
	})
}

// followFor tells a guard of raises, from the first answer on that makes it known.
func (n *node) followFor(c *conversation) {
	if c.following {
		return
	}
	c.following = true
	for _, pattern := range c.guard.spec.Covers {
		n.followPattern(c, pattern)
	}
}

func (n *node) followPattern(c *conversation, pattern string) {
	if c.broken {
		return
	}
	if stop := c.stops[pattern]; stop != nil {
		stop()
		delete(c.stops, pattern)
	}
	prefix := strings.TrimSuffix(pattern, "*")
	again := func() { n.process.After(retryEvery, func() { n.followPattern(c, pattern) }) }
	n.fresh(func(ok bool) {
		if !ok || c.broken {
			again()
			return
		}
		at, err := quorum.TellState(n.image, prefix, false, func(ev quorum.WatchEvent) error {
			c.raise(pattern, ev)
			return nil
		})
		if err != nil {
			n.run.violation("D1", err.Error())
			return
		}
		over := false
		c.stops[pattern] = n.member.Watch(at.From(), func(change quorum.Change) {
			if over || c.broken {
				return
			}
			events, err := quorum.Tell(change, prefix, at)
			for _, ev := range events {
				c.raise(pattern, ev)
			}
			if at = at.After(change); err != nil {
				over = true
				again()
			}
		}, func(error) {
			if !over {
				over = true
				again()
			}
		})
	})
}

// raise tells of a resource that is raised, or held.
func (c *conversation) raise(pattern string, ev quorum.WatchEvent) {
	name := string(ev.Lease.Resource)
	if ev.Kind != quorum.WatchState && ev.Kind != quorum.WatchChanged || !lease.Covers(pattern, ev.Lease.Resource) {
		return
	}
	floor := uint64(ev.Lease.Fencing)
	if ev.Lease.State == lease.Held || ev.Lease.State == lease.Ending {
		floor = uint64(ev.Lease.Token)
	}
	if c.guard.stamps(ev.Lease.Resource) {
		grant := &writv1.GuardGrant{Resource: name}
		if ev.Lease.State == lease.Held || ev.Lease.State == lease.Ending {
			grant.Token, grant.Region = uint64(ev.Lease.Token), ev.Lease.Holder.Region
		}
		c.tell(&writv1.GuardResponse{Say: &writv1.GuardResponse_Grants{Grants: &writv1.GuardGrants{Grants: []*writv1.GuardGrant{grant}}}})
	}
	if floor == 0 || c.told[name] >= floor {
		return
	}
	c.told[name] = floor
	c.tell(&writv1.GuardResponse{Say: &writv1.GuardResponse_Raises{Raises: &writv1.GuardRaises{
		Raises: []*writv1.GuardFloor{{Resource: name, Token: floor}},
	}}})
}

// hurry tells guards that somebody else decides.
func (n *node) hurry() {
	claimed, term := n.image.Term()
	if claimed == nil || term == n.hurried {
		return
	}
	n.hurried = term
	for _, c := range n.talks {
		c.tell(&writv1.GuardResponse{Say: &writv1.GuardResponse_Hurry{Hurry: &writv1.GuardNoted{}}})
	}
}
