package sim

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// guard is a process before the storage: what fence/guard and its proxy are in production, in simulated time, around the
// gate that ships. Its floor store is floorDisk, its stream to a node is conversation, and what it lets through is passage.
type guard struct {
	run     *run
	spec    plan.Guard
	process *world.Process
	dice    *world.Dice
	nodes   []*node
	tour    int
	disk    floorDisk
	kept    bool // down, until an operator starts it
	keptAt  time.Duration
	awaited bool          // it has lost its floors, and an operator looks after its enrolment
	stalls  []stall       // how long it stood still lately
	sound   bool          // whatever it lets through reaches the storage within its slack
	alive   []*passage    // writes that may still reach the storage, of any life
	gone    func(ok bool) // ends a stop in order
	door    *door         // the storage that it raises, as that compares tokens by itself; nil: writes go through the guard

	// Of the present life.
	gate   *gate.Gate
	dog    clock.Watchdog
	alarm  *world.Alarm
	parked map[gate.Ticket]*passage
	under  map[gate.Ticket]*passage
	talk   *conversation
	grants map[lease.Resource]grantOf // to stamp
	base   fence.Token                // of the first seed of this life; 0: not told yet
	seed   seeded                     // the newest
}

// seeded is a seed of the quorum: all tokens that had been taken are below its base. rebuilt is how often the quorum had been put back.
type seeded struct {
	base    fence.Token
	rebuilt int
}

type stall struct{ at, length time.Duration }

func newGuard(r *run, spec plan.Guard) *guard {
	g := &guard{run: r, spec: spec, process: r.world.NewProcess(spec.Name, spec.Region, spec.PPM), dice: r.world.Dice("guard " + spec.Name)}
	g.nodes = r.nearest(g.process)
	g.door = newDoor(g)
	g.sound = r.plan.Storage == plan.Plain && g.door == nil
	g.disk.lose(spec.Name)
	return g
}

// start begins a life of the process, from what is on its disk.
func (g *guard) start() {
	if g.process.Up() || g.kept {
		return
	}
	g.process.Start()
	g.run.story.up(g.process)
	if g.disk.full {
		g.crash() // the store is marked as open before anything else
		g.run.world.After(time.Second, g.start)
		return
	}
	state := g.disk.open()
	covers := g.spec.Covers
	core, err := gate.New(gate.Config{
		Name: g.called(), Session: g.spec.Name + "/" + decimal(g.process.Life()), Slack: g.spec.Slack, Drift: clock.DefaultDrift(), AlwaysClose: g.spec.Close, MaxParkTime: g.spec.Park,
		Enrol: &writv1.GuardEnrol{Region: g.spec.Region, Form: "sim", Promise: g.promise(), NeverLapses: g.door != nil, Covers: covers, Stamps: g.spec.Stamps},
	}, state, g.process.Clock.Now())
	if err != nil {
		panic(err)
	}
	g.gate, g.dog, g.talk, g.base, g.gone = core, clock.Watchdog{}, nil, 0, nil
	g.grants = make(map[lease.Resource]grantOf)
	g.parked, g.under = make(map[gate.Ticket]*passage), make(map[gate.Ticket]*passage)
	g.alarm = g.process.NewAlarm(func() { g.step(gate.Tick{}) })
	g.step(gate.Tick{})
	g.connect()
	g.listen()
}

func (g *guard) promise() writv1.GuardPromise {
	if g.door != nil {
		return writv1.GuardPromise_GUARD_PROMISE_ATOMIC
	}
	return writv1.GuardPromise_GUARD_PROMISE_DRAINED
}

// called is the name that the quorum knows the guard by.
func (g *guard) called() string { return cmp.Or(g.spec.As, g.spec.Name) }

// crash ends the life of the process. What it has let through may go on.
func (g *guard) crash() {
	if !g.process.Up() {
		return
	}
	g.process.Crash()
	g.run.story.downAt(g.process)
	g.drop()
	g.disk.crash(g.run.world.Now(), g.dice)
	for _, p := range slices.Clone(g.alive) {
		p.breakOff()
		p.ended = true
	}
	g.gate = nil
}

// look compares the clocks.
func (g *guard) look() clock.Instant {
	now := g.process.Clock.Now()
	if _, suspect := g.dog.Observe(now, g.process.Clock.Wall()); suspect {
		g.run.mark(MarkGuardSuspicion)
		g.apply(g.gate.Step(now, gate.Suspicion{}))
	}
	return now
}

// step steps the gate by an event.
func (g *guard) step(ev gate.Event) {
	if g.gate == nil {
		return
	}
	now := g.look()
	if g.gate != nil {
		g.apply(g.gate.Step(now, ev))
	}
}

// apply carries effects out. Nothing of that steps the gate before this has returned, but the end of the process.
func (g *guard) apply(e *gate.Effects) {
	if e == nil {
		return
	}
	if e.Warning != "" {
		g.run.story.event(g.process, trace.EventFault, "warns: %s", e.Warning)
		if strings.Contains(e.Warning, "a token was made up on a trusted route") {
			g.run.alarmed(g, e.Warning)
		}
	}
	for _, b := range e.Persist {
		g.persist(b)
	}
	for _, m := range e.Send {
		g.say(m)
	}
	for _, ticket := range e.Cut {
		if p := g.under[ticket]; p != nil {
			g.process.After(g.dice.Between(0, 5*time.Millisecond), p.cutOff)
		}
	}
	for _, d := range e.Decided {
		g.decided(d)
	}
	g.told(e.Grants)
	for _, p := range e.Probe {
		g.process.After(0, func() { g.canary(p.Probe) })
	}
	if e.Reconnect {
		g.process.After(0, g.reconnect)
	}
	g.alarm.Set(min(e.Wake, g.process.Clock.Now().Add(watchEvery)))
	if e.Left {
		g.process.After(0, g.leave)
	}
}

// decided goes on with a passage that was parked.
func (g *guard) decided(d gate.Decided) {
	p := g.parked[d.Ticket]
	delete(g.parked, d.Ticket)
	if d.Err != nil {
		p.refused(d.Err)
		return
	}
	g.run.mark(MarkGuardParked)
	p.admitted(d.Ticket)
}

// stop lets the process leave in order; done is called when it is down.
func (g *guard) stop(done func(ok bool)) {
	if g.gate == nil || g.gone != nil {
		done(g.gate == nil)
		return
	}
	g.gone = done
	g.step(gate.Stop{})
	g.process.After(g.spec.Slack+g.run.guardLease(), func() { // the shell's deadline: it ends without having left
		if g.gone != nil {
			end := g.gone
			g.gone = nil
			g.crash()
			end(true)
		}
	})
}

// leave ends the process, which has nothing under way.
func (g *guard) leave() {
	if g.gone == nil {
		return
	}
	g.run.mark(MarkGuardLeft)
	end := g.gone
	g.gone = nil
	if g.disk.writing == nil {
		g.disk.state.Clean = true
	}
	g.crash()
	end(true)
}

// mayStall is for how long the process may stand still now, for its slack to hold: half of it in any guard lease.
func (g *guard) mayStall(wanted time.Duration) time.Duration {
	if !g.sound {
		return wanted
	}
	now := g.run.world.Now()
	left := g.spec.Slack / 2
	keep := g.stalls[:0]
	for _, s := range g.stalls {
		if s.at+s.length+g.run.guardLease()+2*g.spec.Slack > now {
			keep = append(keep, s)
			left -= s.length
		}
	}
	g.stalls = keep
	allowed := max(0, min(wanted, left))
	if allowed > 0 {
		g.stalls = append(g.stalls, stall{now, allowed})
	}
	return allowed
}

// execution is how long the storage may take for what has been forwarded, once nobody waits for it any more.
func (g *guard) execution() time.Duration { return g.spec.Slack * 9 / 20 }

// guardLease is G.
func (r *run) guardLease() time.Duration {
	if r.plan.GuardLease != 0 {
		return r.plan.GuardLease
	}
	return lease.DefaultGuardLease
}

var errDiskFull = errors.New("disk full")

// refusal is a mark for why a guard refused.
func (g *guard) refusal(err error) {
	var unavailable *fence.UnavailableError
	switch {
	case errors.Is(err, fence.ErrStale):
		g.run.mark(MarkGuardRefused)
	case errors.As(err, &unavailable):
		switch unavailable.Obstacle {
		case fence.Isolated:
			g.run.mark(MarkGuardIsolated)
			if g.spec.Close {
				g.run.mark(MarkGuardClosesItself)
			}
		case fence.Draining:
			g.run.mark(MarkGuardDrainTimeout)
		default: // nothing that a sweep has to look for
		}
	}
}
