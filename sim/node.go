package sim

import (
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/store"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

type quorumChange = quorum.Change

const clusterName = "sim"

// node is one node of the quorum: what quorum.Service is in production, in simulated time. It drives the engine, the image and
// the rules of witnesses that ship.
type node struct {
	run     *run
	process *world.Process
	removed bool // the quorum has taken it out, or never let it in

	// On disk, beside the store.
	witness *writv1.WitnessRecord
	// Of the present life.
	member  store.Member
	engine  *quorum.Engine
	image   *quorum.Image
	alarm   *world.Alarm
	stop    func() // ends the watch that keeps the image
	reached []reaching
	open    map[lease.CallID]*served
	lastID  lease.CallID
	term    quorum.Term
	round   roundUnderWay
	busy    bool // in the middle of a step
	notes   []note
	earlier quorum.Progress // of the member, when the witness was last told
	telling bool            // an announcement is under way
	streams []*stream
	talks   []*conversation // with guards
	hurried quorum.Term     // guards have been told who claimed it
}

// reaching waits for the image to come to a revision.
type reaching struct {
	revision int64
	do       func()
}

type roundUnderWay struct {
	number uint64
	writes []quorum.Write
	since  time.Duration
}

func newNode(r *run, spec plan.Node) *node {
	n := &node{run: r, process: r.world.NewProcess(spec.Name, spec.Region, spec.PPM)}
	n.witness = &writv1.WitnessRecord{Cluster: clusterName, Node: spec.Name}
	return n
}

func (n *node) name() string { return n.process.Name }

// start begins a life of the node, unless its disk is not what its witness has seen.
func (n *node) start() {
	if n.process.Up() || n.removed {
		return
	}
	disk := n.run.store.Disk(n.process)
	if n.noticesDisk() {
		n.run.mark(MarkStartRefused)
		n.run.story.event(n.process, trace.EventFault, "refuses to start: its log is older than its witness")
		n.run.oper.replace(n)
		return
	}
	n.process.Start()
	member, err := n.run.store.Open(n.process)
	if err != nil {
		n.process.Crash()
		n.run.oper.replace(n)
		return
	}
	n.run.story.up(n.process)
	life := n.process.Life()
	disk.OnFull = func() {
		n.run.world.After(0, func() { // not in the middle of what the store does
			if n.process.Life() == life && n.process.Up() {
				n.run.mark(MarkDiskFull)
				n.crash()
				n.run.world.After(time.Second, n.start)
			}
		})
	}
	n.member, n.image, n.open = member, quorum.NewImage(), make(map[lease.CallID]*served)
	n.engine = quorum.NewEngine(quorum.EngineConfig{
		Node: n.name(), Cluster: clusterName, TokenBlock: n.run.tokenBlock, Approvers: n.run.approvers, RetryClaim: max(n.run.plan.Election/10, 10*time.Millisecond),
		Table: lease.TableConfig{Policy: n.run.policy(), Retention: n.run.plan.Retention, GuardLease: n.run.guardLease()},
	})
	n.alarm = n.process.NewAlarm(func() { n.step(quorum.Tick{}) })
	n.reached, n.notes, n.telling, n.term, n.streams = nil, nil, false, 0, nil
	n.talks, n.hurried = nil, 0
	n.round, n.earlier, n.stop = roundUnderWay{}, quorum.Progress{}, func() {}
	member.OnChange(n.storeChanged)
	n.load()
	n.storeChanged()
	n.every(witnessEvery, n.progress)
	n.every(houseEvery, n.keepHouse)
}

// noticesDisk says whether the node's witness has seen more of its log than its disk holds.
func (n *node) noticesDisk() bool {
	term, index := n.run.store.Disk(n.process).Holds()
	w := quorum.WitnessFromRecord(n.witness)
	return w.MemberID != 0 && w.AheadOf(quorum.LogEnd{RaftTerm: term, LastIndex: index})
}

// Intervals as in production.
const (
	witnessEvery = 5 * time.Second
	houseEvery   = time.Second
	compactEvery = 30 * time.Second
	retryEvery   = 50 * time.Millisecond
	// tokenBlock is so little that coordinators reserve one block after the other, and keepRevisions so that watchers come
	// too late at times.
	tokenBlock    = 64
	keepRevisions = 200
)

// crash ends the life of the node.
func (n *node) crash() {
	if !n.process.Up() {
		return
	}
	if n.run.store.Disk(n.process).Torn {
		n.run.mark(MarkTornWrite)
	}
	n.run.store.Crash(n.process)
	n.process.Crash()
	n.run.story.downAt(n.process)
	for _, s := range n.streams {
		s.broken = true
	}
	for _, c := range n.talks {
		c.broken = true
	}
	n.engine = nil
}

// every calls do as long as this life lasts.
func (n *node) every(d time.Duration, do func()) {
	n.process.After(d, func() {
		do()
		n.every(d, do)
	})
}

// decides says whether the node believes that it decides.
func (n *node) decides() bool {
	return n.process.Up() && n.engine != nil && n.engine.Role() == quorum.Serving
}

func (n *node) storeChanged() {
	n.run.story.leads(n.process, n.member.Leads())
	n.stepSoon(quorum.Leadership{Leader: n.member.Leads()})
	n.herald()
}

// stepSoon steps the engine by ev now, or right after the step that is under way.
func (n *node) stepSoon(ev quorum.EngineEvent) {
	if n.busy {
		n.process.After(0, func() { n.step(ev) })
		return
	}
	n.step(ev)
}

// step steps the engine and carries its effects out.
func (n *node) step(ev quorum.EngineEvent) {
	n.busy = true
	was := n.engine.Role()
	e := n.engine.Step(lease.Moment{Now: n.process.Clock.Now(), Wall: n.process.Clock.Wall()}, ev)
	if done, ok := ev.(quorum.RoundDone); ok && done.Err != nil {
		n.roundFailed(done, e)
	}
	n.perform(e)
	n.busy = false
	if now := n.engine.Role(); now != was {
		n.roleChanged(was, now)
	}
	n.alarm.Set(e.Wake)
}

// roundFailed takes note of what was promised about a commit whose round did not succeed.
func (n *node) roundFailed(done quorum.RoundDone, e *quorum.Effects) {
	if errors.Is(done.Err, quorum.ErrDeposed) {
		n.run.mark(MarkDeposedRound)
	}
	if done.Round != n.round.number || n.round.writes == nil {
		return
	}
	for _, reply := range e.Replies {
		if reply.Err != nil && reply.Err.Reason == lease.ReasonNoQuorum {
			n.run.judge.Unchanged(n.round.writes, n.round.since)
			return
		}
	}
}

func (n *node) roleChanged(was, now quorum.Role) {
	n.run.story.role(n.process, now == quorum.Serving, "%v → %v under term %d", was, now, n.term)
	if now == quorum.Recovering {
		n.run.mark(MarkForeign)
	}
	if now != quorum.Serving {
		return
	}
	if n.run.judge.Fencing() > 0 {
		n.run.mark(MarkTakeoverMidRaise)
	}
	for _, o := range n.run.nodes {
		if o == n || !o.decides() {
			continue
		}
		n.run.mark(MarkTwoCoordinators)
		if o.round.writes != nil {
			n.run.mark(MarkTakeoverInFlight)
		}
	}
}

// perform carries effects out. What comes of them comes back as events.
func (n *node) perform(e *quorum.Effects) {
	n.answer(e.Replies)
	if e.DropAll {
		n.dropAll()
	}
	switch {
	case e.Claim != 0:
		n.claim(e.Claim)
	case e.Load != 0:
		n.takeOver(e.Load, e.Term)
	case e.Commit != nil || e.Confirm:
		n.carryOut(e.Round, e.Term, e.Commit)
	}
	if e.Witness != nil {
		ceiling := *e.Witness
		if n.engine.Role() == quorum.Serving {
			n.run.mark(MarkTokensReserved)
		}
		n.witnessCeiling(ceiling)
	}
}

// bounded answers a callback that hands its error to finish, which is called once: with ErrUnknown when d has passed.
func (n *node) bounded(d time.Duration, finish func(error)) func(error) {
	over := false
	end := func(err error) {
		if !over {
			over = true
			finish(err)
		}
	}
	n.process.After(d, func() { end(quorum.ErrUnknown) })
	return end
}

func (n *node) carryOut(number uint64, term quorum.Term, writes []quorum.Write) {
	n.round = roundUnderWay{number, writes, n.run.world.Now()}
	done := n.bounded(2*n.run.plan.Election, func(err error) {
		n.stepSoon(quorum.RoundDone{Round: number, Err: err})
		if n.round.number == number {
			n.round.writes = nil
		}
	})
	if writes == nil {
		n.member.Confirm(term, done)
		return
	}
	n.member.Commit(term, writes, func(_ int64, err error) { done(err) })
}

func (n *node) claim(attempt uint64) {
	value, err := proto.Marshal(&writv1.TermRecord{Node: n.name(), Nonce: n.process.Life()<<32 | attempt})
	if err != nil {
		panic(err)
	}
	var term quorum.Term
	dice := n.run.world.Dice("nonce", n.process.Life(), attempt, uint64(len(n.name())), uint64(n.name()[len(n.name())-1]))
	done := n.bounded(2*n.run.plan.Election, func(err error) {
		if err == nil {
			n.term = term
		}
		n.stepSoon(quorum.Claimed{Attempt: attempt, Term: term, Nonce: n.name() + "-" + hex(dice.Uint64()), Err: err})
	})
	n.member.Claim(value, func(t quorum.Term, err error) {
		term = t
		done(err)
	})
}

// takeOver hands the state over once the image has the claim's own event.
func (n *node) takeOver(attempt uint64, term quorum.Term) {
	done := n.bounded(4*n.run.plan.Election, func(err error) {
		if err != nil {
			n.stepSoon(quorum.Loaded{Attempt: attempt, Err: err})
			return
		}
		state, err := n.image.Loaded()
		state.Attempt, state.Err, state.Members, state.Own = attempt, err, n.member.Members(), n.witness
		n.run.judge.Loaded(n.name(), n.run.lineage, &state)
		n.run.recallCommitted(n.image)
		n.stepSoon(state)
	})
	n.reach(func() bool { return n.image.Has(term) }, int64(term), func() { done(nil) })
}

// load keeps the image, from the whole state on.
func (n *node) load() {
	var entries []quorum.Entry
	var revision int64
	done := n.bounded(2*n.run.plan.Election, func(err error) {
		if err != nil {
			n.process.After(retryEvery, n.load)
			return
		}
		if n.image.Reset(entries, revision) {
			n.advanced(true)
		}
		n.stop = n.member.Watch(n.image.Revision()+1, func(c quorum.Change) { n.advanced(n.image.Apply(c)) }, func(error) { n.process.After(retryEvery, n.load) })
	})
	n.member.Load(func(e []quorum.Entry, r int64, err error) {
		entries, revision = e, r
		done(err)
	})
}

// advanced follows a change of the image; told says that it is one that the node itself acts on.
func (n *node) advanced(told bool) {
	if len(n.reached) > 0 {
		waiting := n.reached
		n.reached = nil
		for _, w := range waiting {
			if w.revision <= n.image.Revision() {
				w.do()
			} else {
				n.reached = append(n.reached, w)
			}
		}
	}
	if told {
		n.herald()
		n.hurry()
	}
}

// reach calls do when the image has come to a revision, or now if there says that it has.
func (n *node) reach(there func() bool, revision int64, do func()) {
	if there() {
		do()
		return
	}
	n.reached = append(n.reached, reaching{revision, do})
}

// policy is that of every node.
func (r *run) policy() lease.Policy {
	return lease.Policy{Rules: []lease.PolicyRule{{MaxTTL: r.plan.MaxTTL, LockDelay: r.plan.LockDelay}}}
}
