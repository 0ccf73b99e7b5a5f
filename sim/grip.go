package sim

import (
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/trace"
)

// grip is one request for a lease, and the lease: what lease.Client.Acquire and lease.Hold are in production. Whoever asks
// sets the callbacks, which are called in the present life of the process and at most once each.
type grip struct {
	client   *client
	resource lease.Resource
	ttl      time.Duration
	lead     time.Duration // of the keeper: how long before the end of the lease it is given up
	priority int32
	metadata []byte

	onGrant func(*lease.Grant)
	onEnd   func() // the request is over without a lease
	onLoss  func()
	onWait  func() // a request of higher priority waits

	state  gripState
	id     string
	before fence.Token
	began  time.Duration
	pauses int

	hold        lease.KeeperID
	token       fence.Token
	until       clock.Instant // of belief; 0: not now
	over        clock.Instant // until when nobody else can have it; 0: not known
	sure        clock.Instant // until when the quorum has vouched for it, by what was answered; see vouched
	checkpoints uint64
}

type gripState uint8

const (
	gripAsking gripState = iota
	gripHeld
	gripLost
	gripLetGo // released, abandoned or not asked for any more
)

// ask begins to ask for the lease.
func (g *grip) ask() {
	g.began = g.client.run.world.Now()
	g.newRequest()
	g.attempt()
}

func (g *grip) newRequest() {
	c := g.client
	c.requests++
	g.id = c.caller.Instance + "/" + decimal(uint64(c.requests))
	g.before = c.run.judge.Acknowledged(g.resource)
}

// attempt asks one node, for a part of the TTL: as a task does.
func (g *grip) attempt() {
	c := g.client
	if g.state != gripAsking {
		return
	}
	sent := c.look()
	most := g.ttl / 5 * 4
	slack := min(max(g.ttl/12, 4*c.run.quality(c.process, c.nodes[c.tour%len(c.nodes)].process).Delay+100*time.Millisecond), most)
	poll := min(g.ttl/6, most-slack)
	command := lease.Acquire{
		Caller: c.caller, Resource: g.resource, RequestID: g.id, TTL: g.ttl, Wait: max(poll, time.Millisecond), Priority: g.priority,
		Region: c.spec.Region, Metadata: g.metadata,
	}
	c.call(command, poll+slack, func(reply lease.Reply, ok bool) {
		if g.state != gripAsking || g.id != command.RequestID {
			return
		}
		switch value := reply.Value.(type) {
		case *lease.Grant:
			g.granted(command, value, sent)
		case *lease.Waiting:
			g.pauses = 0
			g.again(sent.Add(min(poll, value.Keep) / 4).Sub(c.process.Clock.Now()))
		default:
			g.refused(reply.Err, ok)
		}
	})
}

func (g *grip) again(d time.Duration) {
	id := g.id
	g.client.process.After(max(d, 0), func() {
		if g.id == id {
			g.attempt()
		}
	})
}

// refused goes on after an attempt without a grant.
func (g *grip) refused(err *lease.Error, answered bool) {
	c := g.client
	if answered && (err.Reason == lease.ReasonExpired || err.Reason == lease.ReasonReleased) {
		c.run.mark(MarkLateDuplicate)
		g.newRequest()
		g.again(0)
		return
	}
	if answered && err.Reason != lease.ReasonHeld {
		c.tour++
	}
	g.pauses++
	g.again(c.dice.Between(10*time.Millisecond, 20*time.Millisecond<<min(g.pauses, 5)))
}

// granted makes a hold of a grant that came in time, and asks again otherwise.
func (g *grip) granted(command lease.Acquire, grant *lease.Grant, sent clock.Instant) {
	c := g.client
	now := c.look()
	c.run.judge.Granted(command, grant, g.before)
	if grant.Replayed {
		c.run.mark(MarkReplayed)
	}
	if !now.Before(clock.DefaultDrift().BelieveUntil(sent, grant.TTL).Add(-g.lead)) {
		g.again(0)
		return
	}
	c.run.latency.add(c.run.world.Now() - g.began)
	c.run.story.event(c.process, trace.EventAnswer, "is granted %s under %v", g.resource, grant.Token)
	g.state, g.token = gripHeld, grant.Token
	c.lastID++
	g.hold = c.lastID
	c.holds[g.hold] = g
	g.vouched(sent)
	c.step(lease.KeeperGranted{ID: g.hold, Ref: lease.Ref{Resource: g.resource, Token: g.token}, TTL: grant.TTL, Lead: g.lead, SentAt: sent})
	if g.state == gripHeld || g.state == gripLost {
		g.onGrant(grant)
	}
}

// vouched counts for itself, and not by what the keeper says, until when the lease is there.
func (g *grip) vouched(sent clock.Instant) {
	g.sure = max(g.sure, clock.DefaultDrift().BelieveUntil(sent, g.ttl))
}

func (g *grip) believes() clock.Instant { return g.until }

func (g *grip) believe(until clock.Instant) {
	g.until, g.over = until, 0
	c := g.client
	var at time.Duration
	if until != 0 {
		g.over = until.Add(g.lead)
		at = c.process.Clock.When(until)
	}
	c.run.judge.Believes(c.spec.Name, g.resource, g.token, at)
	c.run.story.belief(c.process, g.resource, g.token, at)
}

func (g *grip) disbelieve() {
	c := g.client
	c.run.judge.Believes(c.spec.Name, g.resource, g.token, 0)
	c.run.story.belief(c.process, g.resource, g.token, 0)
}

func (g *grip) lost(l lease.KeeperLoss) {
	c := g.client
	c.run.story.event(c.process, trace.EventLease, "loses %s under %v: %v", g.resource, g.token, l.Cause)
	c.run.judge.Loses(lease.Ref{Resource: g.resource, Token: g.token})
	over := g.over
	g.believe(0)
	if l.Cause == lease.LostDeadline {
		g.over = over
		c.run.mark(MarkLeadLoss)
	}
	g.state = gripLost
	if g.onLoss != nil {
		g.onLoss()
	}
}

func (g *grip) contended() {
	g.client.run.mark(MarkContended)
	if g.onWait != nil && g.state == gripHeld {
		g.onWait()
	}
}

// left is for how long certainly nobody else can have the lease.
func (g *grip) left() time.Duration {
	return max(0, g.over.Sub(g.client.look()))
}

// forget stops renewing.
func (g *grip) forget() {
	c := g.client
	if g.state != gripHeld {
		return
	}
	c.step(lease.KeeperReleased{ID: g.hold})
	if g.state != gripHeld {
		return // its deadline has come this very moment
	}
	over := g.over
	delete(c.holds, g.hold)
	g.believe(0)
	g.over, g.state = over, gripLetGo
}

// abandon stops renewing and tells nobody.
func (g *grip) abandon() time.Duration {
	g.onLoss, g.onWait = nil, nil
	g.forget()
	return g.left()
}

// releaseLimit is how long a release is tried, as in production.
const releaseLimit = 5 * time.Second

// release ends the lease, and calls done when that has been tried.
func (g *grip) release(done func()) {
	c := g.client
	g.onLoss, g.onWait = nil, nil
	g.forget()
	if g.state == gripLost {
		g.state = gripLetGo
	}
	until := c.process.Clock.Now().Add(min(g.ttl, releaseLimit))
	var try func()
	try = func() {
		c.call(lease.Release{Caller: c.caller, Ref: lease.Ref{Resource: g.resource, Token: g.token}}, g.ttl/3, func(reply lease.Reply, ok bool) {
			if ok && (reply.Err == nil || known(reply.Err)) || !c.process.Clock.Now().Before(until) {
				done()
				return
			}
			if ok {
				c.tour++
			}
			c.process.After(c.dice.Between(20*time.Millisecond, 200*time.Millisecond), try)
		})
	}
	try()
}

// cancel ends the request. It is over at once for whoever asked; the quorum is told a few times.
func (g *grip) cancel() {
	if g.state != gripAsking {
		return
	}
	g.state = gripLetGo
	c := g.client
	tries := 5
	var try func()
	try = func() {
		c.call(lease.CancelAcquire{Caller: c.caller, Resource: g.resource, RequestID: g.id}, time.Second, func(reply lease.Reply, ok bool) {
			if tries--; ok && (reply.Err == nil || known(reply.Err)) || tries == 0 {
				return
			}
			c.tour++
			c.process.After(200*time.Millisecond, try)
		})
	}
	try()
	if g.onEnd != nil {
		g.onEnd()
	}
}

// checkpoint stores state for the next holder, and calls done with what came of it: false also where that is not known. It is
// tried until the lease is over or goOn says no.
func (g *grip) checkpoint(data []byte, goOn func() bool, done func(ok bool)) {
	c := g.client
	g.checkpoints++
	command := lease.Checkpoint{Caller: c.caller, Ref: lease.Ref{Resource: g.resource, Token: g.token}, Data: data, Sequence: g.checkpoints}
	var try func()
	try = func() {
		if g.state != gripHeld || !goOn() {
			done(false)
			return
		}
		c.call(command, g.ttl/3, func(reply lease.Reply, ok bool) {
			switch {
			case ok && reply.Err == nil:
				done(true)
				return
			case ok && known(reply.Err):
				if reason := reply.Err.Reason; g.state == gripHeld && (reason == lease.ReasonExpired || reason == lease.ReasonNotHolder || reason == lease.ReasonReleased) {
					c.step(lease.KeeperEnded{ID: g.hold, Reason: reason})
				}
				done(false)
				return
			case ok:
				c.tour++
			}
			c.process.After(c.dice.Between(20*time.Millisecond, 100*time.Millisecond), try)
		})
	}
	try()
}
