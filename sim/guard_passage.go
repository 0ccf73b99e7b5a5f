package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/judge"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/world"
)

// passage is an operation of a client on its way through a guard to the storage: a read, or a write if it has made
// something.
type passage struct {
	guard    *guard
	client   *client
	resource lease.Resource
	token    fence.Token
	made     *version
	key      string // of the connection, under that token
	number   uint64
	answer   func(base *version, ok bool) // runs at the client
	arrived  bool
	stamped  bool // it comes without a token, and is given one
	appends  bool // the storage itself puts it behind what there is: many write at a time
	forged   bool // its token was made up; it goes no further than the storage's door

	// At the guard.
	ticket    gate.Ticket
	forwarded bool
	ended     bool // the gate knows how it ended
	loose     bool // it was let through by a guard that nobody waited for
	// At the storage.
	attempt uint64 // tells plans apart of when it is carried out
	reached bool
	base    *version
	ok      bool
}

// ask sends an operation through one of the guards, and waits for its answer for a while.
func (c *client) ask(p *passage, done func(base *version, ok bool)) {
	through := c.run.through[p.resource]
	if p.stamped = c.spec.Stamped; p.stamped {
		if through = c.stampers(through, p.resource); len(through) == 0 {
			c.process.After(0, func() { done(nil, false) })
			return
		}
	}
	g := through[c.dice.Intn(len(through))]
	over, connection := false, c.caller.Instance
	p.guard, p.client = g, c
	p.answer = func(base *version, ok bool) {
		if !over && c.caller.Instance == connection {
			over = true
			done(base, ok)
		}
	}
	c.process.After(c.dice.Between(time.Second, 6*time.Second), func() { p.answer(nil, false) })
	c.run.net.Send(c.process, p.before(), func() {
		if !p.arrived { // a connection delivers once
			p.arrived = true
			g.take(p)
		}
	})
}

// rewrite reads a list and writes it back with one element more, each through some guard, and calls done when that has come
// to an end.
func (c *client) rewrite(name lease.Resource, token fence.Token, done func()) {
	c.written++
	number := c.written
	key := c.caller.Instance + "@" + token.Decimal()
	c.ask(&passage{resource: name, token: token, key: key, number: number}, func(base *version, ok bool) {
		if !ok {
			done()
			return
		}
		made := &version{base: base, element: fmt.Sprintf("%s#%d", key, number)}
		c.ask(&passage{resource: name, token: token, key: key, number: number, made: made, appends: c.appends}, func(*version, bool) { done() })
	})
}

// haunt goes on writing for a while under a token that is over.
func (c *client) haunt(name lease.Resource, token fence.Token, rounds int) {
	if rounds == 0 || c.run.winding {
		return
	}
	c.process.After(c.dice.About(c.spec.TTL/5), func() {
		if !c.run.winding {
			c.rewrite(name, token, func() { c.haunt(name, token, rounds-1) })
		}
	})
}

// before is the process that a passage comes to: the guard, or the storage that does without it.
func (p *passage) before() *world.Process {
	if p.guard.door != nil {
		return p.guard.door.process
	}
	return p.guard.process
}

// take asks the gate, or the storage that compares tokens by itself.
func (g *guard) take(p *passage) {
	if g.door != nil {
		g.door.take(p)
		return
	}
	if g.gate == nil {
		return
	}
	now := g.look()
	if g.gate == nil {
		return
	}
	if p.stamped && !g.stamp(p) {
		p.reply(nil, false)
		return
	}
	ticket, answer, err := g.gate.Admit(now, string(p.resource), p.token, !p.forged && !p.stamped && g.dice.Chance(750))
	if answer == gate.Wait {
		g.parked[ticket] = p
	}
	if g.gate.Pending() {
		g.apply(g.gate.Take())
	}
	switch answer {
	case gate.Refuse:
		p.refused(err)
	case gate.Go:
		p.admitted(ticket)
	default:
		if g.dice.Chance(200) { // its client goes away before long
			g.process.After(g.dice.Between(0, 2*time.Second), func() {
				if g.parked[ticket] == p {
					delete(g.parked, ticket)
					g.step(gate.Abandoned{Ticket: ticket})
				}
			})
		}
	}
}

func (p *passage) reply(base *version, ok bool) {
	g := p.guard
	if p.client == nil {
		return // a canary, or worse
	}
	g.run.net.Send(p.before(), p.client.process, func() { p.answer(base, ok) })
}

func (p *passage) refused(err error) {
	g := p.guard
	g.refusal(err)
	var stale *fence.StaleError
	if errors.As(err, &stale) && p.made != nil {
		g.run.story.attempted(p.client.process, p.resource, p.token, false, stale.Floor)
	}
	g.run.story.refusedBy(p.before(), p, err)
	p.reply(nil, false)
}

// admitted counts it as under way, and has it forwarded a moment later.
func (p *passage) admitted(ticket gate.Ticket) {
	g := p.guard
	p.ticket = ticket
	g.under[ticket] = p
	g.alive = append(g.alive, p)
	p.loose = g.run.judge.Admits(p.admission())
	g.process.After(g.dice.Between(0, time.Millisecond), p.forward)
}

func (p *passage) admission() judge.Admission {
	g := p.guard
	a := judge.Admission{
		Guard: g.called(), Process: g.spec.Name, Store: g.disk.state.Store, Resource: p.resource, Token: p.token,
		Durable: g.disk.floor(string(p.resource)), Seeded: g.base != 0 && g.disk.state.Base >= g.base,
	}
	if p.made != nil || p.forged {
		a.Older = g.older(p.resource, p.token)
	}
	return a
}

// forward sends it to the storage.
func (p *passage) forward() {
	g := p.guard
	if p.ended {
		return
	}
	if !g.run.net.Connected(g.process, g.run.storage.process) {
		p.forget()
		g.process.After(g.dice.Between(0, time.Second), p.cutOff) // there is no connection to be had
		return
	}
	p.forwarded = true
	var took time.Duration
	switch lot := g.dice.Intn(100); {
	case lot < 80:
		took = g.dice.Between(200*time.Microsecond, 5*time.Millisecond)
	case lot < 92:
		took = g.dice.Between(0, g.execution())
	default: // much is to be written, or the storage is slow
		took = g.dice.Between(g.spec.Slack, 3*g.spec.Slack+6*time.Second)
	}
	p.carryOut(g.dice.Between(0, took))
	g.process.After(took, p.answered)
	if g.dice.Chance(30) {
		g.process.After(g.dice.Between(0, took), p.cutOff)
	}
}

// carryOut has the storage do it when d has passed.
func (p *passage) carryOut(d time.Duration) {
	p.attempt++
	attempt, r := p.attempt, p.guard.run
	r.world.After(d, func() {
		if p.attempt == attempt && !p.reached {
			p.reached = true
			p.forget()
			p.base, p.ok = r.storage.carryOut(p)
		}
	})
}

// forget takes it off the list of what may still reach the storage.
func (p *passage) forget() {
	p.attempt++
	p.guard.alive = slices.DeleteFunc(p.guard.alive, func(o *passage) bool { return o == p })
}

// answered ends it: the storage has answered.
func (p *passage) answered() {
	if p.ended {
		return
	}
	p.end(fence.Finished)
	p.reply(p.base, p.ok)
}

// cutOff breaks it off.
func (p *passage) cutOff() {
	if p.ended {
		return
	}
	p.breakOff()
	p.end(fence.Broken)
	p.reply(nil, false)
}

func (p *passage) end(o fence.Outcome) {
	g := p.guard
	p.ended = true
	delete(g.under, p.ticket)
	now := g.process.Clock.Now()
	if o != fence.Finished {
		now = g.look()
	}
	g.apply(g.gate.Done(now, p.ticket, o))
}

// breakOff ends its connection: the storage carries it out within the time that it may take, or not at all.
func (p *passage) breakOff() {
	g := p.guard
	switch {
	case p.reached || p.ended:
	case !p.forwarded || g.dice.Chance(400):
		p.forget()
	default:
		p.carryOut(g.dice.Between(0, g.execution()))
	}
}

// carryOut does what comes through a guard.
func (s *storage) carryOut(p *passage) (base *version, ok bool) {
	l := s.list(p.resource)
	plain := s.run.plan.Storage == plan.Plain
	if p.forged {
		return nil, false
	}
	if p.made == nil {
		if !plain && !s.admit(p.client, p.resource, p.token, false) {
			return nil, false
		}
		return l.current, true
	}
	if p.number <= l.sent[p.key] {
		return nil, false // the same program has written since, under the same token
	}
	if !plain && !s.admit(p.client, p.resource, p.token, true) {
		return nil, false
	}
	if plain {
		s.run.judge.Reaches(p.admission(), p.loose)
		s.run.story.write(p.client.process, p.resource, p.token, true, 0)
	}
	l.sent[p.key] = p.number
	if p.appends {
		p.made.base = l.current
	}
	if p.made.base != l.current && l.overlaps(p.made, p.key) {
		return nil, false
	}
	l.current = p.made
	l.acked = append(l.acked, p.made)
	s.run.world.Note(uint64(p.token))
	return nil, true
}
