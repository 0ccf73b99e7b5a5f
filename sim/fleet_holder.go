package sim

import (
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/world"
)

// holder is a process of a fleet: lease.Client around the keeper that ships, as [client] is, but without what looks for bugs.
// So a hundred thousand of them fit. The judge hears of what they ask and believe all the same.
type holder struct {
	fleet   *fleet
	process *world.Process
	region  int
	dice    *world.Dice
	nodes   []*node // the one to ask first in front
	tour    int

	caller   lease.Caller
	keeper   *lease.Keeper
	alarm    *world.Alarm
	slots    []*slot
	holds    map[lease.KeeperID]*slot
	lastID   lease.KeeperID
	requests uint64

	calls   []call // to be sent together
	answers []func()
	from    *node // that answers stem from
}

type call struct {
	to  *node
	ask *ask
}

// slot is one lease that a process takes again and again.
type slot struct {
	holder   *holder
	resource lease.Resource
	hold     time.Duration // 0: it is fought for
	id       string
	before   fence.Token
	began    time.Duration
	token    fence.Token
	keeperID lease.KeeperID // 0: it is not held
	pauses   int
}

func newHolder(x *fleet, name string, region int) *holder {
	h := &holder{
		fleet: x, region: region, process: x.run.world.NewProcess(name, fleetRegions[region], 0), dice: x.run.world.Dice("holder " + name),
		holds: make(map[lease.KeeperID]*slot),
	}
	h.nodes = x.run.nearest(h.process)
	// As the SDK does: a node that is about as near, and decides, saves the hop.
	nearest := x.run.quality(h.process, h.nodes[0].process).Delay
	for i, n := range h.nodes[1:] {
		if n.process.Region == x.spec.Coordinator && 2*x.run.quality(h.process, n.process).Delay <= 3*nearest+2*time.Millisecond {
			h.nodes[0], h.nodes[i+1] = n, h.nodes[0]
		}
	}
	keeper, err := lease.NewKeeper(lease.KeeperConfig{Drift: clock.DefaultDrift(), SpreadPermille: h.dice.Intn(200)})
	if err != nil {
		panic(err)
	}
	h.keeper = keeper
	x.holders = append(x.holders, h)
	return h
}

func (h *holder) add(resource string, hold time.Duration) {
	h.slots = append(h.slots, &slot{holder: h, resource: lease.Resource(resource), hold: hold})
}

func (h *holder) start() {
	h.process.Start()
	h.caller = lease.Caller{Principal: lease.Principal(h.process.Name), Instance: h.process.Name}
	h.alarm = h.process.NewAlarm(func() { h.step(lease.KeeperTick{}) })
	for _, s := range h.slots {
		s.acquire()
	}
}

// step tells the keeper what happened, and does what follows.
func (h *holder) step(ev lease.KeeperEvent) {
	judge := h.fleet.run.judge
	e := h.keeper.Step(h.process.Clock.Now(), ev)
	for _, b := range e.Beliefs {
		if s := h.holds[b.ID]; s != nil {
			judge.Believes(h.process.Name, s.resource, s.token, h.process.Clock.When(b.Until))
		}
	}
	for _, r := range e.Renewals {
		h.renew(r)
	}
	for _, l := range e.Lost {
		s := h.holds[l.ID]
		delete(h.holds, l.ID)
		h.fleet.meter.lost(s)
		s.rest()
	}
	if e.Wake == 0 {
		e.Wake = clock.Never
	}
	h.alarm.Set(e.Wake)
}

// renew sends a renewal, to another node if an attempt before was not answered.
func (h *holder) renew(r lease.Renewal) {
	refs := make([]lease.Ref, r.Len())
	for i := range refs {
		refs[i] = r.Ref(i)
	}
	if r.Attempt > 1 {
		h.tour++
	}
	sent := h.fleet.run.world.Now()
	h.ask(lease.Renew{Caller: h.caller, Refs: refs}, h.process.Clock.When(r.Deadline)-sent, func(reply lease.Reply, by *node) {
		if by == nil || reply.Err != nil {
			h.step(lease.KeeperRenewed{Renewal: r, Failed: true})
			return
		}
		h.fleet.meter.renewed(h, sent, by)
		outcome, _ := reply.Value.(lease.RenewOutcome)
		h.step(lease.KeeperRenewed{Renewal: r, Outcome: outcome})
	})
}

// ask sends a command to a node and waits for its answer up to limit; then, or if the connection breaks, by is nil.
func (h *holder) ask(command lease.Command, limit time.Duration, done func(reply lease.Reply, by *node)) {
	x := h.fleet
	x.run.judge.Asked(command)
	n := h.nodes[h.tour%len(h.nodes)]
	over := false
	end := func(reply lease.Reply, by *node) {
		if !over {
			over = true
			done(reply, by)
		}
	}
	h.process.After(max(limit, 0), func() { end(lease.Reply{}, nil) })
	a := &ask{command: command, until: x.run.world.Now() + limit}
	a.answer = func(reply lease.Reply, by *node) {
		if by == nil {
			h.broken(n, 1, end)
			return
		}
		h.answered(n, func() { end(reply, by) })
	}
	if x.spec.Reset && !n.process.Up() {
		h.broken(n, 2, end)
		return
	}
	h.send(n, a)
}

// broken tells that a connection broke, some ways later.
func (h *holder) broken(n *node, ways time.Duration, end func(lease.Reply, *node)) {
	h.process.After(ways*h.fleet.run.quality(h.process, n.process).Delay, func() { end(lease.Reply{}, nil) })
}

// send sends calls. Those of one moment go together, as over the stream of the SDK.
func (h *holder) send(n *node, a *ask) {
	h.calls = append(h.calls, call{n, a})
	switch {
	case h.fleet.spec.Alone:
		h.flush()
	case len(h.calls) == 1 && len(h.slots) == 1:
		h.flush()
	case len(h.calls) == 1:
		h.process.After(0, h.flush)
	}
}

func (h *holder) flush() {
	x := h.fleet
	calls := h.calls
	h.calls = nil
	for len(calls) > 0 {
		to, n := calls[0].to, 1
		for n < len(calls) && calls[n].to == to {
			n++
		}
		message := calls[:n]
		calls = calls[n:]
		f := x.fronts[x.index(to)]
		x.meter.asked(x.index(to))
		x.run.net.Send(h.process, to.process, func() {
			for _, c := range message {
				f.arrive(c.ask)
			}
		})
	}
}

// answered sends answers, those of one moment together.
func (h *holder) answered(n *node, take func()) {
	if h.fleet.spec.Alone || len(h.slots) == 1 {
		h.reply(n, []func(){take})
		return
	}
	if len(h.answers) > 0 && h.from != n {
		h.reply(h.from, h.answers)
		h.answers = nil
	}
	h.from = n
	h.answers = append(h.answers, take)
	if len(h.answers) == 1 {
		h.fleet.run.world.After(0, func() {
			if len(h.answers) > 0 {
				h.reply(h.from, h.answers)
				h.answers = nil
			}
		})
	}
}

func (h *holder) reply(n *node, all []func()) {
	h.fleet.meter.asked(h.fleet.index(n))
	h.fleet.run.net.Send(n.process, h.process, func() {
		for _, take := range all {
			take()
		}
	})
}

// acquire begins an acquisition.
func (s *slot) acquire() {
	h := s.holder
	h.requests++
	s.id = h.process.Name + "/" + decimal(h.requests)
	s.before = h.fleet.run.judge.Acknowledged(s.resource)
	s.began, s.pauses = h.fleet.run.world.Now(), 0
	s.attempt()
}

// attempt asks one node for a part of the TTL, as lease.Client does.
func (s *slot) attempt() {
	h, x := s.holder, s.holder.fleet
	ttl, sent := x.spec.TTL, h.process.Clock.Now()
	rtt := 2 * x.run.quality(h.process, h.nodes[h.tour%len(h.nodes)].process).Delay
	slack := min(max(ttl/12, 2*rtt+100*time.Millisecond), ttl/5*4)
	poll := min(ttl/6, ttl/5*4-slack)
	command := lease.Acquire{
		Caller: h.caller, Resource: s.resource, RequestID: s.id, TTL: ttl, Wait: poll, Region: h.process.Region,
	}
	h.ask(command, poll+slack, func(reply lease.Reply, by *node) {
		switch value := reply.Value.(type) {
		case *lease.Grant:
			s.granted(command, value, sent, by)
		case *lease.Waiting:
			s.pauses = 0
			h.process.After(max(sent.Add(min(poll, value.Keep)/4).Sub(h.process.Clock.Now()), 0), s.attempt)
		default:
			h.tour++
			s.pauses++
			h.process.After(h.dice.Between(10*time.Millisecond, 20*time.Millisecond<<min(s.pauses, 5)), s.attempt)
		}
	})
}

func (s *slot) granted(command lease.Acquire, g *lease.Grant, sent clock.Instant, by *node) {
	h := s.holder
	h.fleet.run.judge.Granted(command, g, s.before)
	h.fleet.meter.granted(s, by)
	h.lastID++
	s.token, s.keeperID = g.Token, h.lastID
	h.holds[s.keeperID] = s
	h.step(lease.KeeperGranted{ID: s.keeperID, Ref: lease.Ref{Resource: g.Resource, Token: g.Token}, TTL: g.TTL, SentAt: sent})
	hold := s.hold
	if hold == 0 {
		hold = time.Second
	}
	id := s.keeperID
	h.process.After(h.dice.About(hold), func() {
		if h.holds[id] == s && (s.hold == 0 || !h.fleet.winding) {
			s.release()
		}
	})
}

func (s *slot) release() {
	h := s.holder
	id, token := s.keeperID, s.token
	h.step(lease.KeeperReleased{ID: id})
	if h.holds[id] != s {
		return // its deadline has come this very moment
	}
	delete(h.holds, id)
	h.fleet.run.judge.Believes(h.process.Name, s.resource, token, 0)
	h.fleet.meter.released(s)
	s.letGo(lease.Ref{Resource: s.resource, Token: token}, h.process.Clock.Now().Add(h.fleet.spec.TTL))
}

// letGo tells the quorum, until it has answered or the lease has run out.
func (s *slot) letGo(ref lease.Ref, until clock.Instant) {
	h := s.holder
	h.ask(lease.Release{Caller: h.caller, Ref: ref}, h.fleet.spec.TTL/3, func(reply lease.Reply, by *node) {
		if by != nil && (reply.Err == nil || known(reply.Err)) || !h.process.Clock.Now().Before(until) {
			s.rest()
			return
		}
		h.tour++
		h.process.After(h.dice.Between(20*time.Millisecond, 200*time.Millisecond), func() { s.letGo(ref, until) })
	})
}

// rest waits, and begins anew.
func (s *slot) rest() {
	s.keeperID = 0
	think := time.Second
	if s.hold == 0 {
		think = 200 * time.Millisecond
	}
	s.holder.process.After(s.holder.dice.About(think), s.acquire)
}
