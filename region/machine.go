//writ:core

package region

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Machine is the pure core of failover: groups, promotions, operations and agents. It changes its own memory as it decides,
// like lease.Table beside it: the engine lets nothing out before it has been committed, and throws both away when it cannot
// know. So nothing is ever undone, and records are replaced, never changed in place.
type Machine struct {
	config  Config
	tenures Tenures

	groups map[string]*group
	// former is where the ids of groups that were removed ended.
	former     map[string]uint64
	names      []string // of groups, sorted
	promotions map[string]*promotion
	operations map[string]*writv1.Operation
	// pending are the operations that have not ended.
	pending   map[string]*writv1.Operation
	approvers *writv1.ApproverSet
	// parts are the operations that belong to a promotion, beside its own, in the order in which they were made.
	parts map[string][]string
	judging

	// open are the promotions that have not ended, by id; each may go on in every round.
	open []*promotion
	// asking are those, ended or not, that have asked for a hook which has not answered, by id.
	asking []*promotion
	// unsettled are groups that go on in every round: their first tenure is being granted, or their last one fenced.
	unsettled []*group

	agents  map[agentKey]*agent
	polls   map[lease.CallID]*agent
	watches map[lease.CallID]*promotion

	due     clock.Instant
	dirty   []recordKey
	changed map[recordKey]proto.Message
	bytes   int
	stale   bool         // some of what was loaded may be of another epoch
	outworn bool         // some of what is pending may have been made for other approvers, or for a group as it was before
	moved   []*promotion // have made their transition of this round
	seen    []*promotion // have changed in this round, and somebody waits for that
	ready   []*agent     // polls that may have something to be answered with
	later   []Request    // that came when a promotion had made its transition of the round
	stand   uint64       // counts changes of where groups stand
	effects Effects
	early   []lease.Note // of Load: they come with the first step
}

// group is a failover group in memory.
type group struct {
	name string
	// rec is replaced, never changed.
	rec *writv1.Group
	// regions are what agents said, in the order of the spec.
	regions []*regionView
	// history are its promotions, oldest first.
	history []*promotion
	automatic
}

// regionView is what is known of a region of a group. Nothing of it is stored.
type regionView struct {
	name string
	// principal is its agent's.
	principal string
	report    *writv1.GroupReport
	// at is when the report was taken in; meaningless without one.
	at clock.Instant
	// looked is a time that the data of the report was looked at after; 0: not known.
	looked clock.Instant
	agent  *agent
}

// promotion is one promotion in memory.
type promotion struct {
	rec   *writv1.Promotion
	group *group
	// moved: it has made its transition of this round.
	moved bool
	// since is when this coordinator saw it enter its state.
	since clock.Instant
	// asked is when this coordinator first had the newest hook run to ask for.
	asked clock.Instant
	// proved is when this coordinator saw that every guard had been; 0: not yet.
	proved  clock.Instant
	waiters []watch
	seen    bool
}

type recordKey struct {
	kind RecordKind
	name string
}

// NewMachine makes an empty machine that acts upon tokens through tenures.
func NewMachine(config Config, tenures Tenures) *Machine {
	config.Interval = cmp.Or(config.Interval, time.Second)
	return &Machine{
		config: config, tenures: tenures, due: clock.Never, approvers: config.Approvers,
		groups: map[string]*group{}, former: map[string]uint64{}, promotions: map[string]*promotion{}, operations: map[string]*writv1.Operation{}, pending: map[string]*writv1.Operation{}, parts: map[string][]string{},
		agents: map[agentKey]*agent{}, polls: map[lease.CallID]*agent{}, watches: map[lease.CallID]*promotion{},
		changed: map[recordKey]proto.Message{},
	}
}

// Load takes over what was committed. It comes once, before the first step, and after the table has been loaded. What was
// planned under another epoch is void, and hooks that have not answered are asked for again, with the same step.
func (x *Machine) Load(m lease.Moment, s State) {
	if s.Approvers != nil {
		x.approvers = s.Approvers
	}
	for _, rec := range s.Operations {
		x.addOperation(rec)
	}
	//writ:unordered each list is sorted by itself
	for _, ids := range x.parts {
		slices.SortFunc(ids, compareIDs)
	}
	for _, rec := range s.Groups {
		if rec.State == writv1.GroupState_GROUP_STATE_REMOVED {
			x.former[rec.Spec.Name] = rec.Operations
			continue
		}
		x.addGroup(rec)
	}
	for _, rec := range s.Promotions {
		if g := x.groups[rec.Group]; g != nil {
			x.addPromotion(m, g, rec)
		}
	}
	x.bootstrapApprovers()
	x.stale, x.outworn = true, true
	x.due = m.Now
	x.early, x.effects.Notes = slices.Clone(x.effects.Notes), nil
}

// What one round carries of what another epoch has ended: a commit is bounded, and nothing is asked before it is all done.
const (
	maxRenewals     = 500
	maxRenewedBytes = 256 << 10
)

// renew ends what is of another epoch, as much as a round carries; true when nothing is left.
func (x *Machine) renew(m lease.Moment) bool {
	room := func() bool {
		return len(x.dirty) < maxRenewals && len(x.effects.Notes) < maxRenewals && x.bytes < maxRenewedBytes
	}
	for _, name := range x.names {
		if !room() {
			return false
		}
		x.recoverGroup(m, x.groups[name])
	}
	return x.voidPromotions(m, room) && x.voidOperations(m, room)
}

// Step takes one event in.
func (x *Machine) Step(m lease.Moment, ev Event) *Effects {
	x.effects.Replies, x.effects.Notes = x.effects.Replies[:0], append(x.effects.Notes[:0], x.early...)
	x.early = nil
	switch ev := ev.(type) {
	case Request:
		x.request(m, ev)
	case Gone:
		x.gone(ev.ID)
	case Tick:
		x.tick(m, ev)
	case Contradicted:
		x.contradicted(m, ev)
	}
	return &x.effects
}

//nolint:gocyclo // a flat list of what may be asked
func (x *Machine) request(m lease.Moment, r Request) {
	if x.stale {
		x.later = append(x.later, r)
		return
	}
	caller := r.Command.Caller
	switch ask := r.Command.Ask.(type) {
	case *writv1.AgentPollRequest:
		x.agentPoll(m, r, ask)
	case *writv1.ApplyGroupRequest:
		x.answer(r.ID)(x.applyGroup(m, caller, ask))
	case *writv1.RemoveGroupRequest:
		x.answer(r.ID)(x.removeGroup(m, caller, ask))
	case *writv1.ListGroupsRequest:
		x.answer(r.ID)(x.listGroups(m))
	case *writv1.GetGroupRequest:
		x.answer(r.ID)(x.getGroup(m, ask))
	case *writv1.PlanRequest:
		x.answer(r.ID)(x.plan(m, r.Command, ask))
	case *writv1.ExecuteRequest:
		x.onPromotion(r)(x.execute(m, caller, ask))
	case *writv1.AbortRequest:
		x.onPromotion(r)(x.abort(m, caller, ask))
	case *writv1.ResumeRequest:
		x.onPromotion(r)(x.resume(m, caller, ask))
	case *writv1.AcknowledgeRequest:
		x.onPromotion(r)(x.acknowledge(m, caller, ask))
	case *writv1.ReinstateRequest:
		x.onPromotion(r)(x.reinstate(m, caller, ask))
	case *writv1.AttestGuardRequest:
		x.onPromotion(r)(x.attestGuard(m, caller, ask))
	case *writv1.ListPromotionsRequest:
		x.answer(r.ID)(x.listPromotions(m, ask))
	case *writv1.GetPromotionRequest:
		x.getPromotion(m, r, ask)
	case *writv1.ExplainRequest:
		x.answer(r.ID)(x.explain(m, ask))
	case *writv1.ConfidenceRequest:
		x.answer(r.ID)(x.confidence(m, ask))
	case *writv1.RecordDrillRequest:
		x.answer(r.ID)(x.recordDrill(m, caller, ask))
	case *writv1.ListOperationsRequest:
		x.answer(r.ID)(x.listOperations(m, ask))
	case *writv1.GetOperationRequest:
		x.answer(r.ID)(x.getOperation(m, ask))
	case *writv1.ApproveRequest:
		x.answer(r.ID)(x.approve(m, caller, ask))
	case *writv1.WithdrawRequest:
		x.answer(r.ID)(x.withdraw(m, caller, ask))
	case *writv1.ExecuteOperationRequest:
		x.onPromotion(r)(x.executeOperationRequest(m, caller, ask))
	case *writv1.GetApproversRequest:
		x.answer(r.ID)(x.getApprovers())
	case *writv1.ChangeApproversRequest:
		x.answer(r.ID)(x.changeApprovers(m, caller, ask))
	default:
		x.refuse(r.ID, lease.Errorf(lease.ReasonInvalid, "the machine does not know the request %T", ask))
	}
}

// tick lets every promotion and group make at most one step each.
func (x *Machine) tick(m lease.Moment, limit Tick) {
	late := m.Now >= x.due
	if late {
		x.due = clock.Never
	}
	if x.stale {
		if x.stale = !x.renew(m); x.stale {
			x.settleMoved()
			x.wake(m.Now)
			return
		}
		x.settleMoved()
		late = true
	}
	later := x.later
	x.later = nil
	for i, r := range later {
		if x.full(m, limit) {
			x.later = append(x.later, later[i:]...)
			break
		}
		x.request(m, r)
	}
	for _, g := range slices.Clone(x.unsettled) {
		if x.full(m, limit) {
			break
		}
		x.settleGroup(m, g)
	}
	for _, p := range slices.Clone(x.open) {
		if x.full(m, limit) {
			break
		}
		if !p.moved { // by a request of this round, or by its successor
			x.advance(m, p)
		}
	}
	if len(x.moved) > 0 {
		x.settleMoved()
		x.wake(m.Now)
	}
	if x.outworn {
		x.outworn = !x.cancelOutworn(m, limit)
	}
	if late {
		x.reviewGroups(m)
		x.expireOperations(m, limit)
		x.wakePolls(m)
	}
	x.answerPolls(m)
	x.answerWatches(m)
	if len(x.later) > 0 {
		x.wake(m.Now)
	}
}

// full says that a round carries no more; what is left is due at once.
func (x *Machine) full(m lease.Moment, limit Tick) bool {
	if (limit.MaxWrites == 0 || len(x.dirty) < limit.MaxWrites) && (limit.MaxBytes == 0 || x.bytes < limit.MaxBytes) {
		return false
	}
	x.wake(m.Now)
	return true
}

// settleMoved lets every promotion make its next transition: the round is over.
func (x *Machine) settleMoved() {
	for _, p := range x.moved {
		p.moved = false
	}
	x.moved = x.moved[:0]
}

// NextDue is when the next Tick has something to do; clock.Never if nothing is due ever.
func (x *Machine) NextDue() clock.Instant { return x.due }

// wake asks for a Tick at that time, or before. Whatever waits for a time asks again when a Tick has come.
func (x *Machine) wake(at clock.Instant) { x.due = min(x.due, at) }

// HasWork says whether a Tick may do something though none is due: guards may have been proved.
func (x *Machine) HasWork() bool { return x.stale || len(x.open) > 0 || len(x.unsettled) > 0 }

// Dirty hands every record that changed since the last call to visit, once each, in the order in which they changed first.
func (x *Machine) Dirty(visit func(Change)) {
	for _, key := range x.dirty {
		visit(Change{Kind: key.kind, Name: key.name, Record: x.changed[key]})
	}
	x.dirty, x.bytes = x.dirty[:0], 0
	clear(x.changed)
}

// DirtyWrites is how many records Dirty will hand over.
func (x *Machine) DirtyWrites() int { return len(x.dirty) }

// DirtyBytes bounds the size of what Dirty will hand over, with its keys.
func (x *Machine) DirtyBytes() int { return x.bytes }

// writeOverhead bounds what a write takes beside the name and the value.
const writeOverhead = 48

func (x *Machine) store(kind RecordKind, name string, rec proto.Message) {
	key := recordKey{kind, name}
	old, again := x.changed[key]
	if !again {
		x.dirty = append(x.dirty, key)
		x.bytes += writeOverhead + len(name)
	} else if old != nil {
		x.bytes -= proto.Size(old)
	}
	if rec != nil {
		x.bytes += proto.Size(rec)
	}
	x.changed[key] = rec
}

// storeGroup makes rec what is known of a group, which is there.
func (x *Machine) storeGroup(rec *writv1.Group) {
	x.groups[rec.Spec.Name].rec = rec
	x.store(GroupRecord, rec.Spec.Name, rec)
	x.stand++
	x.settle(x.groups[rec.Spec.Name])
}

// changeGroup stores the group's record as change leaves a copy of it.
func (x *Machine) changeGroup(g *group, change func(*writv1.Group)) {
	rec := proto.CloneOf(g.rec)
	change(rec)
	x.storeGroup(rec)
}

// addGroup takes a group in, and answers it. To store it is a matter of its own.
func (x *Machine) addGroup(rec *writv1.Group) *group {
	g := &group{name: rec.Spec.Name, rec: rec}
	x.groups[g.name] = g
	at, _ := slices.BinarySearch(x.names, g.name)
	x.names = slices.Insert(x.names, at, g.name)
	x.stand++
	x.viewRegions(g)
	x.settle(g)
	return g
}

// dropGroup forgets a group with all of its promotions and operations, but for where its ids ended: those of another group of the
// same name go on from there.
func (x *Machine) dropGroup(g *group) {
	delete(x.groups, g.name)
	x.names = slices.DeleteFunc(x.names, func(name string) bool { return name == g.name })
	x.unsettled = slices.DeleteFunc(x.unsettled, func(u *group) bool { return u == g })
	x.storeFormer(g)
	x.stand++
	for _, id := range sortedKeys(x.promotions) {
		if p := x.promotions[id]; p.group == g {
			x.dropPromotion(p)
		}
	}
	for _, id := range sortedKeys(x.operations) {
		if x.operations[id].Group == g.name {
			x.dropOperation(id)
		}
	}
}

// storeFormer keeps where the ids of a group ended. Those of a drill stand in the group that it is of.
func (x *Machine) storeFormer(g *group) {
	if g.rec.Spec.DrillOf != "" {
		x.store(GroupRecord, g.name, nil)
		return
	}
	x.former[g.name] = g.rec.Operations
	x.store(GroupRecord, g.name, &writv1.Group{
		Spec: &writv1.GroupSpec{Name: g.name}, State: writv1.GroupState_GROUP_STATE_REMOVED, Operations: g.rec.Operations,
	})
}

// settle keeps unsettled, by name.
func (x *Machine) settle(g *group) {
	at, found := slices.BinarySearchFunc(x.unsettled, g.name, func(u *group, name string) int { return strings.Compare(u.name, name) })
	wanted := g.rec.State == writv1.GroupState_GROUP_STATE_ESTABLISHING || g.rec.State == writv1.GroupState_GROUP_STATE_REMOVING
	switch {
	case wanted && !found:
		x.unsettled = slices.Insert(x.unsettled, at, g)
	case !wanted && found:
		x.unsettled = slices.Delete(x.unsettled, at, at+1)
	}
}

// storeOperation makes rec what is known of an operation, new or not.
func (x *Machine) storeOperation(rec *writv1.Operation) {
	x.addOperation(rec)
	x.store(OperationRecord, rec.Id, rec)
}

func (x *Machine) addOperation(rec *writv1.Operation) {
	if x.operations[rec.Id] == nil && rec.Promotion != "" && rec.Promotion != rec.Id {
		x.parts[rec.Promotion] = append(x.parts[rec.Promotion], rec.Id)
	}
	x.operations[rec.Id] = rec
	if delete(x.pending, rec.Id); rec.State == writv1.OperationState_OPERATION_STATE_PENDING {
		x.pending[rec.Id] = rec
	}
}

// dropOperation forgets one.
func (x *Machine) dropOperation(id string) {
	delete(x.operations, id)
	delete(x.pending, id)
	x.store(OperationRecord, id, nil)
}

func (x *Machine) storeApprovers(rec *writv1.ApproverSet) {
	x.approvers = rec
	x.store(ApproversRecord, "", rec)
}

func (x *Machine) reply(id lease.CallID, value proto.Message) {
	x.effects.Replies = append(x.effects.Replies, lease.Reply{ID: id, Value: value})
}

func (x *Machine) refuse(id lease.CallID, err *lease.Error) {
	x.effects.Replies = append(x.effects.Replies, lease.Reply{ID: id, Err: err})
}

// answer replies with what a handler returns.
func (x *Machine) answer(id lease.CallID) func(proto.Message, *lease.Error) {
	return func(value proto.Message, err *lease.Error) {
		if err != nil {
			x.refuse(id, err)
			return
		}
		x.reply(id, value)
	}
}

// onPromotion is answer for calls that a promotion may put off to the next round.
func (x *Machine) onPromotion(r Request) func(proto.Message, *lease.Error) {
	return func(value proto.Message, err *lease.Error) {
		if err != nil && err.Reason == putOff {
			x.later = append(x.later, r)
			return
		}
		x.answer(r.ID)(value, err)
	}
}

// note tells something for the audit log, in the commit of what it tells.
func (x *Machine) note(n lease.Note) { x.effects.Notes = append(x.effects.Notes, n) }

// resourceOf is whose tokens the guards of a group compare.
func resourceOf(spec *writv1.GroupSpec) lease.Resource {
	return lease.Resource(cmp.Or(spec.Resource, spec.Name))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	//writ:unordered sorted below
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
