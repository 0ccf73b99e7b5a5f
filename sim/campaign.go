package sim

import (
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/world"
	"github.com/writ-io/writ/singleton"
)

// campaign runs a function under leases on one resource: the shell of a singleton.Runner.
type campaign struct {
	service *service
	core    *singleton.Runner
	newGrip func() *grip
	labour  labour
	done    func(singleton.RunnerOutcome)

	grip    *grip
	granted *lease.Grant // that the grip comes from
	alarm   *world.Alarm
	pending []singleton.RunnerEvent
	busy    bool
	dead    bool // the process has ended
	ended   bool
	terms   int
}

// labour is what runs in a term of a campaign.
type labour interface {
	// begin begins under the campaign's grip, and calls returned, some time.
	begin(g *grip, grant *lease.Grant, returned func(singleton.RunnerReturn))
	// stop ends its context.
	stop()
}

// run begins.
func (c *campaign) run(config singleton.RunnerConfig) {
	c.core = singleton.NewRunner(config)
	c.alarm = c.service.process().NewAlarm(func() { c.hear(singleton.RunnerTick{}) })
	c.hear(singleton.RunnerBegan{})
}

// end takes in that the caller wants no more.
func (c *campaign) end() {
	if c.ended {
		return
	}
	c.ended = true
	c.hear(singleton.RunnerEnded{})
	if c.grip != nil {
		c.grip.cancel()
	}
}

// hear steps the core with what has happened, one thing after the other.
func (c *campaign) hear(event singleton.RunnerEvent) {
	c.pending = append(c.pending, event)
	if c.busy {
		return
	}
	c.busy = true
	for len(c.pending) > 0 && !c.dead {
		event := c.pending[0]
		c.pending = c.pending[1:]
		c.apply(c.core.Step(c.service.now(), event))
	}
	c.busy = false
}

// apply carries effects out, in their order.
func (c *campaign) apply(e singleton.RunnerEffects) {
	if e.Done != 0 {
		c.dead = true
		c.alarm.Set(clock.Never)
		c.done(e.Done)
		return
	}
	if e.Cancel != 0 {
		if e.Cancel == singleton.CauseHandedOver {
			c.service.run.mark(MarkHandedOver)
		}
		c.labour.stop()
	}
	if e.Acquire {
		c.ask()
	}
	if e.Start {
		c.start()
	}
	if e.Release {
		c.alarm.Set(clock.Never)
		c.labour.stop() // whatever is left of it
		c.grip.release(func() { c.hear(singleton.RunnerReleased{}) })
	}
	if e.Abandon {
		c.service.run.mark(MarkStuck)
		left := c.grip.abandon()
		c.hear(singleton.RunnerAbandoned{Until: c.service.now().Add(left)})
	}
	if e.Exit {
		c.service.exit()
	}
	if e.Wake != 0 {
		c.alarm.Set(e.Wake)
	} else {
		c.alarm.Set(clock.Never)
	}
}

// ask asks for the lease.
func (c *campaign) ask() {
	g := c.newGrip()
	c.grip = g
	g.onGrant = c.grant
	g.onEnd = func() { c.hear(singleton.RunnerRefused{}) }
	if c.ended {
		g.state = gripLetGo
		c.hear(singleton.RunnerRefused{})
		return
	}
	g.ask()
}

// grant takes a grant in. The labour begins when the core says so, which is now or never.
func (c *campaign) grant(grant *lease.Grant) {
	c.granted = grant
	c.hear(singleton.RunnerGranted{})
}

// start starts the labour under the grip.
func (c *campaign) start() {
	g := c.grip
	if c.terms++; c.terms > 1 {
		c.service.run.mark(MarkRanAgain)
	}
	g.onLoss = func() { c.lose(g) }
	g.onWait = func() { c.hear(singleton.RunnerContended{}) }
	c.labour.begin(g, c.granted, func(how singleton.RunnerReturn) { c.hear(singleton.RunnerReturned{How: how}) })
	if g.state == gripLost { // before it began
		c.lose(g)
	}
}

// lose takes in that the lease is lost: the function's context, which comes from the lease's, has ended with it.
func (c *campaign) lose(g *grip) {
	c.labour.stop()
	c.hear(singleton.RunnerLost{Until: c.service.now().Add(g.left())})
}
