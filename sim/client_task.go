package sim

import (
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/trace"
)

// task takes one lease after the other: it asks, waits, works, and lets go.
type task struct {
	client    *client
	resources []lease.Resource
	turn      int

	// The acquisition under way, or that the present lease comes from.
	resource lease.Resource
	id       string
	before   fence.Token   // what had been acknowledged to anybody when it began
	began    time.Duration // of the acquisition
	phase    phase
	pauses   int  // in a row
	try      bool // without waiting, if it is held
	op       *sampled

	// The lease.
	hold        lease.KeeperID
	token       fence.Token
	until       clock.Instant // of belief; 0: not to be believed now
	checkpoints uint64        // sent under it
	grant       uint64        // counts leases, so that timers of an earlier one are told apart
	rewriting   uint64        // the lease under which a guarded list is being rewritten; 0: none is
}

type phase uint8

const (
	resting phase = iota
	asking
	working
	ending
)

// next begins an acquisition.
func (t *task) next() {
	c := t.client
	if t.phase != resting || c.retiring() {
		return
	}
	t.resource = t.resources[t.turn%len(t.resources)]
	t.turn++
	t.phase, t.token, t.until, t.pauses = asking, 0, 0, 0
	t.began = c.run.world.Now()
	t.newRequest()
	t.try = c.dice.Chance(c.spec.Try)
	t.attempt()
}

func (t *task) newRequest() {
	c := t.client
	c.requests++
	t.id = c.caller.Instance + "/" + decimal(uint64(c.requests))
	t.before = c.run.judge.Acknowledged(t.resource)
	t.op = c.run.sample.acquiring(t)
}

// attempt asks one node, as lease.Client does: for a part of the TTL, so that a node which has gone silent costs no more, and
// never so long that the grant is worthless.
func (t *task) attempt() {
	c := t.client
	if t.phase != asking {
		return
	}
	if c.retiring() {
		t.giveUp()
		return
	}
	if c.run.unruled(t.resource) {
		t.again(100 * time.Millisecond)
		return
	}
	sent := c.look()
	ttl := c.spec.TTL
	most := ttl / 5 * 4
	slack := min(max(ttl/12, 4*c.run.quality(c.process, c.nodes[c.tour%len(c.nodes)].process).Delay+100*time.Millisecond), most)
	poll := min(ttl/6, most-slack)
	command := lease.Acquire{
		Caller: c.caller, Resource: t.resource, RequestID: t.id, TTL: ttl, Wait: max(poll, time.Millisecond), Priority: c.spec.Priority, Region: c.spec.Region,
	}
	if t.try {
		command.Wait = 0
	}
	c.call(command, poll+slack, func(reply lease.Reply, ok bool) {
		if t.phase != asking || t.id != command.RequestID {
			return
		}
		switch value := reply.Value.(type) {
		case *lease.Grant:
			t.granted(command, value, sent)
		case *lease.Waiting:
			t.pauses = 0
			if c.dice.Chance(c.spec.Impatience) {
				t.giveUp()
				return
			}
			t.again(sent.Add(min(poll, value.Keep) / 4).Sub(c.process.Clock.Now()))
		default:
			t.refused(reply.Err, ok)
		}
	})
}

// again asks again when d has passed.
func (t *task) again(d time.Duration) {
	id := t.id
	t.client.process.After(max(d, 0), func() {
		if t.id == id {
			t.attempt()
		}
	})
}

// refused goes on after an attempt without a grant.
func (t *task) refused(err *lease.Error, answered bool) {
	c := t.client
	if answered && t.try && err.Reason == lease.ReasonHeld {
		c.run.sample.held(t.op, err)
		t.over()
		return
	}
	t.try = false // whatever it came to is to be found out
	if answered && (err.Reason == lease.ReasonExpired || err.Reason == lease.ReasonReleased) {
		// It was granted, but the answer was lost and the lease is over.
		c.run.mark(MarkLateDuplicate)
		c.run.sample.lost(t.op)
		t.newRequest()
		t.again(0)
		return
	}
	if answered && err.Reason != lease.ReasonHeld {
		c.tour++
	}
	t.pauses++
	t.again(c.dice.Between(10*time.Millisecond, 20*time.Millisecond<<min(t.pauses, 5)))
}

// granted makes a hold of a grant that came in time.
func (t *task) granted(command lease.Acquire, g *lease.Grant, sent clock.Instant) {
	c := t.client
	c.look()
	c.run.judge.Granted(command, g, t.before)
	c.run.sample.granted(t.op, g)
	if g.Replayed {
		c.run.mark(MarkReplayed)
	}
	if len(g.Checkpoint) > 0 {
		c.run.mark(MarkCheckpointPassed)
	}
	c.run.latency.add(c.run.world.Now() - t.began)
	c.run.story.event(c.process, trace.EventAnswer, "is granted %s under %v", t.resource, g.Token)
	t.grant++
	t.phase, t.token, t.checkpoints = working, g.Token, 0
	c.lastID++
	t.hold = c.lastID
	c.holds[t.hold] = t
	c.step(lease.KeeperGranted{ID: t.hold, Ref: lease.Ref{Resource: g.Resource, Token: g.Token}, TTL: g.TTL, SentAt: sent})
	if t.phase != working {
		return // it was too long on its way
	}
	if c.retiring() {
		t.finish()
		return
	}
	t.during(c.dice.About(max(c.spec.Hold, time.Millisecond)), t.finish)
	t.repeat(c.spec.Write, t.write)
	t.repeat(c.spec.Checkpoint, t.checkpoint)
}

// during calls do after d, if the lease lasts that long.
func (t *task) during(d time.Duration, do func()) {
	grant := t.grant
	t.client.process.After(d, func() {
		if t.grant == grant && t.phase == working {
			do()
		}
	})
}

// repeat calls do about every d, while the lease lasts.
func (t *task) repeat(d time.Duration, do func()) {
	if d > 0 {
		t.during(t.client.dice.Between(d/2, d*3/2), func() {
			do()
			t.repeat(d, do)
		})
	}
}

// finish ends the work of its own accord: it lets go, or at times leaves the lease to run out.
func (t *task) finish() {
	if t.phase != working {
		return
	}
	c := t.client
	c.step(lease.KeeperReleased{ID: t.hold})
	if t.phase != working {
		return // its deadline has come this very moment
	}
	delete(c.holds, t.hold)
	t.believe(0)
	if c.dice.Chance(c.spec.Leave) && !c.retiring() {
		t.over()
		return
	}
	t.phase = ending
	t.release(c.process.Clock.Now().Add(c.spec.TTL), c.run.sample.releasing(t), 1)
}

// release tells the quorum, until it has answered or the lease has run out.
func (t *task) release(until clock.Instant, op *sampled, attempt int) {
	c := t.client
	command := lease.Release{Caller: c.caller, Ref: lease.Ref{Resource: t.resource, Token: t.token}}
	c.call(command, c.spec.TTL/3, func(reply lease.Reply, ok bool) {
		if t.phase != ending {
			return
		}
		again := attempt > 1 && reply.Err != nil && reply.Err.Reason == lease.ReasonNotHolder // one before may have done it
		if ok && (reply.Err == nil || known(reply.Err)) && !again {
			c.run.sample.answered(op, reply, ok) // one call, however often it is repeated
		}
		if ok && (reply.Err == nil || known(reply.Err)) || !c.process.Clock.Now().Before(until) {
			t.over()
			return
		}
		if ok {
			c.tour++
		}
		c.process.After(c.dice.Between(20*time.Millisecond, 200*time.Millisecond), func() { t.release(until, op, attempt+1) })
	})
}

// over rests, and begins anew.
func (t *task) over() {
	t.phase = resting
	c := t.client
	if t.token != 0 && len(c.run.through[t.resource]) > 0 && c.spec.Write > 0 && c.dice.Chance(300) {
		c.haunt(t.resource, t.token, 1+c.dice.Intn(5))
	}
	c.process.After(c.dice.About(max(c.spec.Think, time.Millisecond)), t.next)
}

// giveUp ends a wait, and the grant if it was made meanwhile.
func (t *task) giveUp() {
	c := t.client
	c.run.mark(MarkCancelled)
	c.run.sample.lost(t.op)
	t.phase = ending
	t.cancel(5)
}

func (t *task) cancel(tries int) {
	c := t.client
	c.call(lease.CancelAcquire{Caller: c.caller, Resource: t.resource, RequestID: t.id}, time.Second, func(reply lease.Reply, ok bool) {
		if token, granted := reply.Value.(fence.Token); ok && granted && token != 0 {
			c.run.mark(MarkCancelledGrant)
		}
		if ok && (reply.Err == nil || known(reply.Err)) || tries == 0 {
			t.over()
			return
		}
		c.tour++
		c.process.After(200*time.Millisecond, func() { t.cancel(tries - 1) })
	})
}

// look reads the resource, at a node or from the coordinator.
func (t *task) look() {
	c := t.client
	name := t.resources[c.dice.Intn(len(t.resources))]
	if c.dice.Chance(500) {
		c.call(lease.Inspect{Caller: c.caller, Ref: lease.Ref{Resource: name}}, time.Second, func(lease.Reply, bool) {})
		return
	}
	n := c.nodes[c.dice.Intn(len(c.nodes))]
	op := c.run.sample.reading(c, name)
	c.run.operations++
	c.run.net.Send(c.process, n.process, func() {
		n.get(name, func(info lease.Info, err *lease.Error) {
			c.run.net.Send(n.process, c.process, func() { c.run.sample.read(op, info, err) })
		})
	})
}

// browse reads now and then, as long as the process lives.
func (t *task) browse() {
	c := t.client
	c.process.After(c.dice.About(readEvery), func() {
		if !c.retiring() {
			t.look()
			t.browse()
		}
	})
}

// readEvery is how often a task reads.
const readEvery = 2 * time.Second

// checkpoint stores state for the next holder.
func (t *task) checkpoint() {
	c := t.client
	t.checkpoints++
	data := t.id + " at " + decimal(uint64(c.run.world.Now()))
	op := c.run.sample.storing(t, data)
	command := lease.Checkpoint{Caller: c.caller, Ref: lease.Ref{Resource: t.resource, Token: t.token}, Data: []byte(data), Sequence: t.checkpoints}
	hold := t.hold
	c.call(command, c.spec.TTL/3, func(reply lease.Reply, ok bool) {
		c.run.sample.answered(op, reply, ok)
		if !ok || reply.Err == nil {
			return
		}
		switch reply.Err.Reason {
		case lease.ReasonExpired, lease.ReasonNotHolder, lease.ReasonReleased:
			if c.holds[hold] == t {
				c.step(lease.KeeperEnded{ID: hold, Reason: reply.Err.Reason})
			}
		default:
		}
	})
}

// write changes the list of the resource in the storage: it reads it and writes it back with one element more, both under
// its token. Half of the writes look at the clock first, as careful code does; the others rely on the work being stopped in
// time, and on the storage.
func (t *task) write() {
	c := t.client
	careful := c.dice.Chance(500)
	now := c.process.Clock.Now()
	if careful {
		now = c.look()
		if t.phase != working || t.until == 0 || !now.Before(t.until) {
			return
		}
		c.run.judge.Works(c.spec.Name, t.resource, t.token)
	} else if t.until != 0 && !now.Before(t.until) {
		if late := now.Sub(t.until); c.run.world.Now()-late >= c.resumedAt { // it ran when the deadline came
			c.run.judge.Overran(c.spec.Name, t.resource, t.token, late)
		}
	}
	if len(c.run.through[t.resource]) == 0 {
		c.run.storage.append(c, t.resource, t.token)
		return
	}
	if grant := t.grant; t.rewriting != grant { // one after the other
		t.rewriting = grant
		c.rewrite(t.resource, t.token, func() {
			if t.rewriting == grant {
				t.rewriting = 0
			}
		})
	}
}
