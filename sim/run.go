package sim

import (
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/judge"
	"github.com/writ-io/writ/sim/mutant"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/store"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// Options says what is wanted of a run beside its verdict.
type Options struct {
	// Trace keeps what is worth drawing.
	Trace bool
	// Mutant plants a bug, by its name; that needs the build tag mutants.
	Mutant string
}

// Result is what came of a run.
type Result struct {
	Seed       uint64
	Hash       string // over all events: equal for equal plans, always
	Events     uint64
	Operations uint64 // requests that clients sent
	Simulated  time.Duration
	// Recovery is how long it took from the end of all faults until every resource could be acquired.
	Recovery   time.Duration
	Violations []trace.Violation
	Marks      map[string]uint64
	Latency    Latency
	Trace      *trace.Trace // nil unless asked for
}

// maxViolations is how many are kept: the first ones matter.
const maxViolations = 20

// run is a plan that is being carried out.
type run struct {
	plan     plan.Plan
	world    *world.World
	net      *world.Network
	store    store.Cluster
	judge    *judge.Judge
	story    *story
	nodes    []*node
	clients  []*client
	watches  []*watcher
	guards   []*guard
	agents   []*agent
	writers  []*writer
	services []*service
	steward  *steward
	console  *console
	through  map[lease.Resource][]*guard    // what guarded resources are written through
	known    map[string]*writv1.GuardRecord // of the guards, as committed
	storage  *storage
	oper     *operator
	sample   *sample

	failovers  failovers
	approvers  *writv1.ApproverSet // nil: no failover groups
	tokenBlock uint64              // of every node
	ruled      bool                // the rules are set: guarded resources may be taken
	everOpen   bool                // a rule has let guards go on without contact
	forged     bool                // a guard was told a token that nobody was granted
	lineage    int
	recalled   int  // the lineage of which failovers and known are
	rebuilt    int  // how often the quorum was put back, or made anew
	cuts       int  // network faults that are in effect
	winding    bool // clients take no more leases
	healing    bool // all faults are over
	operations uint64
	violations []trace.Violation
	marks      [markCount]uint64
	latency    latencies
}

// Run carries a plan out. It never fails: whatever happens is in the result, also a panic of the code under test, which
// breaks the invariant "panic". One plan has one result, always.
func Run(p plan.Plan, o Options) *Result {
	mutant.Use(mutant.ID(o.Mutant))
	r := newRun(p, o)
	world.Seeded(r.world.Dice("crypto/rand"), r.carryOut)
	return r.result()
}

func newRun(p plan.Plan, o Options) *run {
	r := &run{plan: p, world: world.New(p.Seed), tokenBlock: tokenBlock}
	if o.Trace {
		r.story = newStory(p, r.world.Now)
	}
	r.judge = judge.New(r.world.Now, r.violation)
	r.judge.OnGrant = r.granted
	r.judge.OnSlot = r.slotRecorded
	r.net = r.world.NewNetwork(r.quality)
	r.sample = newSample(r)
	founders := p.Founders()
	var processes []*world.Process
	for _, spec := range p.Nodes {
		n := newNode(r, spec)
		r.nodes = append(r.nodes, n)
		if n.removed = !slices.Contains(founders, spec); !n.removed {
			processes = append(processes, n.process)
		}
	}
	timing := store.Timing{Heartbeat: p.Heartbeat, Election: p.Election, Sync: p.SyncDelay}
	if p.Store == plan.Fast {
		r.store = store.NewFast(r.world, r.net, timing, processes, r.misbehaviour())
	} else {
		r.store = store.NewRaft(r.world, r.net, timing, processes)
	}
	r.store.Observe(r.committed)
	r.store.OnDivergence(r.judge.Diverged)
	r.storage = newStorage(r)
	for i := range p.Clients {
		r.clients = append(r.clients, newClient(r, p.Clients[i]))
	}
	for i := range p.Watchers {
		r.watches = append(r.watches, newWatcher(r, p.Watchers[i]))
	}
	r.failovers = newFailovers()
	if len(p.Groups) > 0 {
		r.approvers = approvers()
	}
	for _, spec := range p.Agents {
		r.agents = append(r.agents, newAgent(r, spec))
	}
	for _, spec := range p.Writers {
		r.writers = append(r.writers, newWriter(r, spec))
	}
	for _, spec := range p.Services {
		r.services = append(r.services, newService(r, spec))
	}
	r.bookWorks()
	r.steward = newSteward(r)
	r.console = newConsole(r)
	r.newGuards()
	r.oper = newOperator(r)
	return r
}

// misbehaviour is how the fast store of this run behaves: in half of the runs its answers take long, so that much happens
// between an effect and its answer.
func (r *run) misbehaviour() store.FastConfig {
	dice := r.world.Dice("fast store")
	if dice.Chance(500) {
		return store.FastConfig{}
	}
	most := r.plan.Election / 5
	return store.FastConfig{Reach: dice.Between(0, most), Reply: dice.Between(0, most), Lag: dice.Between(0, most)}
}

// carryOut lets the plan happen, then heals everything and looks whether work goes on.
func (r *run) carryOut() {
	defer func() {
		if p := recover(); p != nil {
			r.violation("panic", fmt.Sprintf("%v\n%s", p, debug.Stack()))
		}
	}()
	for _, n := range r.nodes {
		n.start()
	}
	for _, c := range r.clients {
		c.start()
	}
	for _, w := range r.watches {
		w.start()
	}
	for _, g := range r.guards {
		g.start()
	}
	for _, a := range r.agents {
		a.start()
	}
	for _, w := range r.writers {
		w.start()
	}
	if len(r.services) > 0 {
		r.steward.client.start()
	}
	for _, s := range r.services {
		s.start()
	}
	if len(r.plan.Groups) > 0 {
		r.console.attend()
	}
	if len(r.plan.Rules) > 0 {
		r.oper.rule()
	}
	r.schedule()
	r.world.Run(r.plan.Duration)
	r.heal()
	r.storage.judge()
	r.sample.judge()
}

// committed hears of every change of the store, in order.
func (r *run) committed(lineage int, c quorumChange) {
	r.lineage = lineage
	r.judge.Committed(lineage, c)
	r.story.committed(r, c)
	r.world.Note(uint64(c.Revision))
	if len(r.guards) > 0 {
		r.guardsCommitted(c)
	}
	if len(r.plan.Groups) > 0 {
		r.failoverCommitted(c)
	}
}

// granted notes how a resource came to its holder.
func (r *run) granted(g judge.Grant) {
	switch {
	case g.Handed:
		r.mark(MarkHandOff)
	case g.After == lease.EndExpired && r.plan.LockDelay > 0 && g.FreeFor >= r.plan.LockDelay/2:
		r.mark(MarkLockDelay)
	}
	if g.After == lease.EndExpired && r.cuts > 0 {
		r.mark(MarkExpiryInPartition)
	}
	if g.Proved(lease.ProofLapsed) {
		r.mark(MarkGuardLapsed)
	}
	if g.Proved(lease.Unproven) {
		r.mark(MarkGuardUnproven)
	}
	if g.Bare && len(r.through[g.Resource]) > 0 {
		r.mark(MarkGuardBare)
	}
	if g.NewEpoch {
		r.mark(MarkEpochRaised)
	}
}

// violation keeps what the judge found.
func (r *run) violation(invariant, text string) {
	if len(r.violations) < maxViolations {
		r.violations = append(r.violations, trace.Violation{At: r.world.Now(), Invariant: invariant, Text: text})
	}
	r.world.NoteString(invariant)
}

func (r *run) mark(m Mark) {
	r.marks[m]++
	if r.marks[m] == 1 {
		r.story.event(nil, trace.EventMark, "mark: %v", m)
	}
}

// quality is what the plan says of the link between two processes.
func (r *run) quality(from, to *world.Process) world.Quality {
	if from == to {
		return world.Quality{Delay: 20 * time.Microsecond}
	}
	for _, l := range r.plan.Links {
		if l.A == from.Region && l.B == to.Region || l.B == from.Region && l.A == to.Region {
			return world.Quality{Delay: l.RTT / 2, Jitter: l.Jitter, Loss: l.Loss, Duplicate: l.Dup}
		}
	}
	return world.Quality{Delay: 500 * time.Microsecond, Jitter: 50 * time.Microsecond}
}

// roundTrip is the longest between any two of the nodes.
func (r *run) roundTrip() time.Duration {
	longest := time.Millisecond
	for _, l := range r.plan.Links {
		longest = max(longest, l.RTT+2*l.Jitter)
	}
	return longest
}

// longestTTL is the longest that any client asks for.
func (r *run) longestTTL() time.Duration {
	longest := probeTTL
	for _, c := range r.plan.Clients {
		longest = max(longest, c.TTL)
	}
	for _, s := range r.plan.Services {
		longest = max(longest, s.TTL, steerTTL)
	}
	return longest
}

// resources lists what clients take, in order.
func (r *run) resources() []string {
	var names []string
	for _, c := range r.plan.Clients {
		names = append(names, c.Resources...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (r *run) result() *Result {
	res := &Result{
		Seed: r.plan.Seed, Hash: fmt.Sprintf("%016x", r.world.Digest()), Events: r.world.Events(), Operations: r.operations,
		Simulated: r.world.Now(), Recovery: r.oper.recovery, Violations: r.violations, Marks: make(map[string]uint64), Latency: r.latency.summary(),
	}
	for name, n := range r.failovers.reached {
		res.Marks[name] = n
	}
	for m, n := range r.marks {
		if n > 0 {
			res.Marks[Mark(m).String()] = n
		}
	}
	res.Trace = r.story.finish(res)
	return res
}

// known says whether an error of the lease API says anything about a request.
func known(err *lease.Error) bool {
	switch err.Reason {
	case lease.ReasonNotCoordinator, lease.ReasonNoQuorum, lease.ReasonUnknownOutcome, lease.ReasonRecovering, lease.ReasonLimit:
		return false
	default:
		return true
	}
}
