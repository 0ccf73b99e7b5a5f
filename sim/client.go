package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// client is a process that holds leases: what lease.Client is in production, in simulated time, around the keeper that
// ships. Its tasks take leases and work under them.
type client struct {
	run     *run
	spec    plan.Client
	retired bool // it takes no more leases
	twice   bool // it sends everything twice
	process *world.Process
	dice    *world.Dice
	nodes   []*node // nearest first
	tour    int     // which of them to ask

	// Of the present life.
	caller    lease.Caller
	keeper    *lease.Keeper
	dog       clock.Watchdog
	alarm     *world.Alarm
	holds     map[lease.KeeperID]tenant
	tasks     []*task
	lastID    lease.KeeperID
	requests  int
	resumedAt time.Duration // when the process went on last
	appends   bool          // many write what it writes
	written   uint64        // numbers what is sent to the storage
}

// tenant is who works under a lease that a client's keeper keeps.
type tenant interface {
	// believe takes in until when the lease may be believed; 0: not now.
	believe(until clock.Instant)
	// believes is what believe was told last.
	believes() clock.Instant
	// vouched takes in that a renewal which was sent then has succeeded.
	vouched(sent clock.Instant)
	lost(l lease.KeeperLoss)
	// contended takes in that a request of higher priority waits.
	contended()
	// disbelieve tells the judge that the process stands still, or is gone.
	disbelieve()
}

func newClient(r *run, spec plan.Client) *client {
	c := &client{run: r, spec: spec, process: r.world.NewProcess(spec.Name, spec.Region, spec.PPM), dice: r.world.Dice("client " + spec.Name)}
	c.nodes = r.nearest(c.process)
	return c
}

// nearest lists the nodes by their distance from a process, as a client measures it.
func (r *run) nearest(p *world.Process) []*node {
	nodes := slices.Clone(r.nodes)
	slices.SortStableFunc(nodes, func(a, b *node) int { return int(r.quality(p, a.process).Delay - r.quality(p, b.process).Delay) })
	return nodes
}

// start begins a life of the process, which knows nothing of what it held before.
func (c *client) start() {
	if c.process.Up() {
		return
	}
	c.process.Start()
	c.run.story.up(c.process)
	c.caller = lease.Caller{Principal: lease.Principal(c.spec.Name), Instance: c.spec.Name + "/" + decimal(c.process.Life())}
	keeper, err := lease.NewKeeper(lease.KeeperConfig{Drift: clock.DefaultDrift(), SpreadPermille: c.dice.Intn(200)})
	if err != nil {
		panic(err)
	}
	c.keeper, c.dog, c.holds, c.tasks = keeper, clock.Watchdog{}, make(map[lease.KeeperID]tenant), nil
	c.alarm = c.process.NewAlarm(func() { c.step(lease.KeeperTick{}) })
	c.resumedAt = c.run.world.Now()
	if c.spec.All {
		for _, name := range c.spec.Resources {
			c.addTask(name)
		}
	} else if len(c.spec.Resources) > 0 {
		c.addTask(c.spec.Resources...)
	}
}

func (c *client) addTask(names ...string) {
	t := &task{client: c}
	for _, name := range names {
		t.resources = append(t.resources, lease.Resource(name))
	}
	c.tasks = append(c.tasks, t)
	c.process.After(c.dice.About(max(c.spec.Think, time.Millisecond)), t.next)
	if c.spec.Name != probeName {
		t.browse()
	}
}

// crash ends the life of the process. Nobody believes in anything any more.
func (c *client) crash() {
	if !c.process.Up() {
		return
	}
	c.process.Crash()
	c.run.story.downAt(c.process)
	c.disbelieve()
}

// disbelieve tells the judge that the process stands still or is gone, and acts on no belief meanwhile.
func (c *client) disbelieve() {
	for _, t := range c.tasks {
		t.disbelieve()
	}
	for _, id := range slices.Sorted(maps.Keys(c.holds)) {
		if _, ok := c.holds[id].(*task); !ok {
			c.holds[id].disbelieve()
		}
	}
}

func (t *task) disbelieve() {
	if c := t.client; t.token != 0 {
		c.run.judge.Believes(c.spec.Name, t.resource, t.token, 0)
		c.run.story.belief(c.process, t.resource, t.token, 0)
	}
}

// thaw goes on after a freeze that the clock has missed.
func (c *client) thaw() {
	c.resumedAt = c.run.world.Now()
	c.process.Resume()
}

// look compares the clocks, and puts every lease on probation if they disagree.
func (c *client) look() clock.Instant {
	now := c.process.Clock.Now()
	if _, suspect := c.dog.Observe(now, c.process.Clock.Wall()); suspect {
		c.run.mark(MarkSuspicion)
		c.apply(c.keeper.Step(now, lease.KeeperSuspected{}))
	}
	return now
}

// step tells the keeper what happened, and does what follows.
func (c *client) step(ev lease.KeeperEvent) {
	now := c.look()
	c.apply(c.keeper.Step(now, ev))
}

// watchEvery is how often the clocks are compared while leases are held.
const watchEvery = time.Second

func (c *client) apply(e lease.KeeperEffects) {
	now := c.process.Clock.Now()
	wake := clock.Never
	if e.Wake != 0 {
		wake = min(e.Wake, now.Add(watchEvery))
	}
	for _, b := range e.Beliefs {
		if t := c.holds[b.ID]; t != nil {
			t.believe(b.Until)
		}
	}
	for _, r := range e.Renewals {
		c.renew(r)
	}
	contended := slices.Clone(e.Contended)
	for _, l := range slices.Clone(e.Lost) {
		t := c.holds[l.ID]
		delete(c.holds, l.ID)
		t.lost(l)
	}
	c.alarm.Set(wake)
	for _, id := range contended {
		if t := c.holds[id]; t != nil {
			t.contended()
		}
	}
}

// retiring says whether it takes no more leases, and lets go of what it has.
func (c *client) retiring() bool { return c.retired || c.run.winding }

// renew sends a renewal, to another node if an attempt before was not answered.
func (c *client) renew(r lease.Renewal) {
	refs := make([]lease.Ref, r.Len())
	tokens := make([]uint64, r.Len())
	for i := range refs {
		refs[i] = r.Ref(i)
		tokens[i] = uint64(refs[i].Token)
	}
	if r.Attempt > 1 {
		c.tour++
	}
	records := c.run.sample.renewing(c, refs)
	limit := c.process.Clock.When(r.Deadline) - c.run.world.Now()
	c.call(lease.Renew{Caller: c.caller, Refs: refs}, limit, func(reply lease.Reply, ok bool) {
		c.run.sample.renewed(records, reply, ok)
		if !ok || reply.Err != nil {
			if ok && reply.Err.Reason == lease.ReasonNotCoordinator {
				c.tour++
			}
			c.step(lease.KeeperRenewed{Renewal: r, Failed: true})
			return
		}
		outcome, _ := reply.Value.(lease.RenewOutcome)
		for _, t := range c.holds {
			if left := t.believes().Sub(c.process.Clock.Now()); left > 0 && left < c.spec.TTL/10 && len(outcome.Failures) == 0 {
				c.run.marks[MarkLastMomentRenewal]++
			}
		}
		c.vouch(r, outcome)
		c.step(lease.KeeperRenewed{Renewal: r, Outcome: outcome})
	})
}

// vouch tells tenants that the quorum has renewed their leases.
func (c *client) vouch(r lease.Renewal, outcome lease.RenewOutcome) {
	for i := range r.Len() {
		if t := c.holds[r.ID(i)]; t != nil && !slices.ContainsFunc(outcome.Failures, func(f lease.RenewFailure) bool { return f.Index == i }) {
			t.vouched(r.SentAt)
		}
	}
}

// call sends a command to a node and waits for its answer, up to limit; then ok is false.
func (c *client) call(command lease.Command, limit time.Duration, done func(reply lease.Reply, ok bool)) {
	c.run.operations++
	c.run.judge.Asked(command)
	n := c.nodes[c.tour%len(c.nodes)]
	c.run.story.asks(c.process, n.name(), command)
	over, life := false, c.process.Life()
	answered := func(r lease.Reply) {
		if over || c.process.Life() != life { // an answer finds its connection gone
			return
		}
		over = true
		c.run.story.answers(c.process, n.name(), command, r)
		done(r, true)
	}
	c.process.After(max(limit, 0), func() {
		if !over {
			over = true
			c.tour++
			c.run.story.silent(c.process, n.name(), limit)
			done(lease.Reply{}, false)
		}
	})
	times := 1
	if c.twice {
		times = 2
	}
	for range times {
		c.run.net.Send(c.process, n.process, func() {
			n.serve(command, limit, false, func(r lease.Reply) {
				c.run.net.Send(n.process, c.process, func() { answered(r) })
			})
		})
	}
}

// believe takes in until when a lease may be believed.
func (t *task) believe(until clock.Instant) {
	t.until = until
	c := t.client
	var at time.Duration
	if until != 0 {
		at = c.process.Clock.When(until)
	}
	c.run.judge.Believes(c.spec.Name, t.resource, t.token, at)
	c.run.story.belief(c.process, t.resource, t.token, at)
}

func (t *task) believes() clock.Instant { return t.until }

// vouched changes nothing: what a task believes is what its keeper says.
func (t *task) vouched(clock.Instant) {}

func (t *task) contended() {
	t.client.run.mark(MarkContended)
	t.finish()
}

// lost ends the work under a lease.
func (t *task) lost(l lease.KeeperLoss) {
	c := t.client
	switch l.Cause {
	case lease.LostDeadline:
		c.run.mark(MarkDeadlineLoss)
	case lease.LostEnded:
		c.run.mark(MarkEndedLoss)
	case lease.LostSuspicion:
	}
	c.run.story.event(c.process, trace.EventLease, "loses %s under %v: %v", t.resource, t.token, l.Cause)
	t.believe(0)
	t.over()
}
