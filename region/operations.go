//writ:core

package region

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
	"github.com/writ-io/writ/sim/mutant"
)

const (
	// keptOperations is how many operations of a group are kept that have ended.
	keptOperations = 200
	// maxPending bounds the operations of a group and of one kind that wait for signatures: changes that nobody signs must not be
	// in the way of a promotion, nor of what it waits for.
	maxPending = 64
	// maxApprovals bounds the signatures of one operation, with those that were withdrawn.
	maxApprovals = 64
	// maxBodyBytes bounds what an operation does.
	maxBodyBytes = 96 << 10
)

// proposal is an operation to be made.
type proposal struct {
	kind      writv1.OperationKind
	group     *group // nil: of the approvers, or of a group that is not there yet
	about     string // that group's name
	promotion string // the one it belongs to; for a plan empty: it is its own
	body      any
	rule      *writv1.ApprovalRule
	validFor  time.Duration // 0: the rule's, or one hour
	requester string
	reason    string
}

// documentKind is what a document calls the kind of its operation.
func documentKind(k writv1.OperationKind) string {
	switch k {
	case writv1.OperationKind_OPERATION_KIND_PROMOTION:
		return approval.KindPromotion
	case writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE:
		return approval.KindGroupChange
	case writv1.OperationKind_OPERATION_KIND_APPROVERS_CHANGE:
		return approval.KindApproversChange
	case writv1.OperationKind_OPERATION_KIND_TAIL:
		return approval.KindTail
	case writv1.OperationKind_OPERATION_KIND_SETTLEMENT:
		return approval.KindSettlement
	case writv1.OperationKind_OPERATION_KIND_ATTESTATION:
		return approval.KindAttestation
	default:
		return ""
	}
}

// newOperation makes and stores an operation, with its id from the group's counter.
func (x *Machine) newOperation(m lease.Moment, p proposal) (*writv1.Operation, *lease.Error) {
	name := p.about
	if p.group != nil {
		name = p.group.name
	}
	pending := 0
	//writ:unordered it counts
	for _, op := range x.pending {
		if op.Group == name && op.Kind == p.kind {
			pending++
		}
	}
	if pending >= maxPending {
		return nil, lease.Errorf(lease.ReasonLimit, "%d operations of the kind %s wait for signatures already; execute them, or let them expire", pending, documentKind(p.kind))
	}
	longest := approval.Validity(x.orOwn(p.rule))
	if p.validFor < 0 || p.validFor > longest {
		return nil, lease.Invalid("valid_for", "is "+p.validFor.String(), fmt.Sprintf("use at most %v, as the rule says, or leave it out", longest))
	}
	created := wallTime(m)
	expires := created.Add(cmp.Or(p.validFor, longest))
	number := x.nextNumber(p.group)
	id := cmp.Or(nameOf(p.group), approversGroup) + "-" + strconv.FormatUint(uint64(x.config.Epoch), 10) + "." + strconv.FormatUint(number, 10)
	document, err := x.document(p, id, name, created, expires)
	if err != nil {
		return nil, err
	}
	x.countNumber(p.group, number)
	op := &writv1.Operation{
		Id: id, Kind: p.kind, Group: name, Promotion: p.promotion, Document: document, Digest: approval.Digest(document), Requester: p.requester,
		CreatedAt: timestamppb.New(created), ExpiresAt: timestamppb.New(expires), State: writv1.OperationState_OPERATION_STATE_PENDING, Rule: p.rule,
	}
	x.storeOperation(op)
	detail := map[string]string{"document": string(document), "digest": op.Digest, "kind": documentKind(p.kind)}
	if name != "" {
		detail["group"] = name
	}
	if p.promotion != "" {
		detail["promotion"] = p.promotion
	}
	if p.rule != nil {
		detail["rule"] = jsonOf(p.rule)
	}
	x.note(lease.Note{Actor: p.requester, Action: "operation.propose", Target: id, Reason: p.reason, Detail: detail})
	x.forgetOperations(name)
	x.wake(m.Now.Add(expires.Sub(m.Wall)))
	return op, nil
}

func nameOf(g *group) string {
	if g == nil {
		return ""
	}
	return g.name
}

// orOwn is the rule that is meant: the approvers' own where there is none.
func (x *Machine) orOwn(rule *writv1.ApprovalRule) *writv1.ApprovalRule {
	if rule == nil {
		return x.approvers.GetRule()
	}
	return rule
}

func (x *Machine) nextNumber(g *group) uint64 {
	if g != nil {
		return g.rec.Operations + 1
	}
	return x.approvers.GetOperations() + 1
}

func (x *Machine) countNumber(g *group, number uint64) {
	if g != nil {
		x.changeGroup(g, func(rec *writv1.Group) { rec.Operations = number })
		return
	}
	set := proto.CloneOf(x.approvers)
	set.Operations = number
	judged := x.set
	x.storeApprovers(set)
	x.judging = judging{set: judged, of: set} // only the counter has changed
}

// document is what people sign.
func (x *Machine) document(p proposal, id, name string, created, expires time.Time) ([]byte, *lease.Error) {
	body, err := approval.Canonical(p.body)
	if err != nil {
		return nil, lease.Errorf(lease.ReasonInternal, "%v", err)
	}
	if len(body) > maxBodyBytes {
		return nil, lease.Errorf(lease.ReasonLimit, "what is to be signed is %d bytes long, at most %d are possible", len(body), maxBodyBytes)
	}
	if mutant.On(mutant.DigestWithoutArguments) {
		body = []byte("{}")
	}
	document, err := approval.Document{
		Format: approval.Format, Cluster: x.config.Cluster, Incarnation: x.config.Incarnation, Epoch: uint32(x.config.Epoch), ID: id,
		Kind: documentKind(p.kind), Group: name, Requester: p.requester, Created: created, Expires: expires,
		PolicyVersion: x.approvers.GetVersion(), Body: body,
	}.Encode()
	if err != nil {
		return nil, lease.Errorf(lease.ReasonInternal, "%v", err)
	}
	return document, nil
}

// forgetOperations drops the oldest of a group that have ended. Names of which there is no group share what is kept: there is no
// end to them.
func (x *Machine) forgetOperations(name string) {
	nameless := func(name string) bool { return name != "" && x.groups[name] == nil }
	shared := nameless(name)
	var ended []*writv1.Operation
	//writ:unordered sorted below
	for _, op := range x.operations {
		if own := op.Group == name || shared && nameless(op.Group); !own || op.State == writv1.OperationState_OPERATION_STATE_PENDING {
			continue
		}
		if p := x.promotions[cmp.Or(op.Promotion, op.Id)]; p != nil && (p.rec.Id == op.Id || !PromotionEnded(p.rec.State)) {
			continue // it is forgotten with its promotion
		}
		ended = append(ended, op)
	}
	if len(ended) <= keptOperations {
		return
	}
	slices.SortFunc(ended, newerOperation)
	for _, op := range ended[keptOperations:] {
		x.dropOperation(op.Id)
	}
}

// newerOperation orders operations, the newest first.
func newerOperation(a, b *writv1.Operation) int {
	return cmp.Or(b.CreatedAt.AsTime().Compare(a.CreatedAt.AsTime()), compareIDs(b.Id, a.Id))
}

func (x *Machine) listOperations(m lease.Moment, ask *writv1.ListOperationsRequest) (*writv1.ListOperationsResponse, *lease.Error) {
	var found []*writv1.Operation
	//writ:unordered sorted below
	for _, op := range x.operations {
		if (ask.Group == "" || op.Group == ask.Group) && (!ask.Open || op.State == writv1.OperationState_OPERATION_STATE_PENDING) {
			found = append(found, op)
		}
	}
	slices.SortFunc(found, newerOperation)
	limit := int(cmp.Or(ask.Limit, 100))
	list := &writv1.ListOperationsResponse{}
	for _, op := range found[:min(limit, len(found))] {
		list.Operations = append(list.Operations, x.showOperation(m, op))
	}
	return list, nil
}

func (x *Machine) getOperation(m lease.Moment, ask *writv1.GetOperationRequest) (*writv1.Operation, *lease.Error) {
	op, err := x.findOperation(ask.Id)
	if err != nil {
		return nil, err
	}
	return x.showOperation(m, op), nil
}

func (x *Machine) findOperation(id string) (*writv1.Operation, *lease.Error) {
	op := x.operations[id]
	if op == nil {
		return nil, &lease.Error{Reason: lease.ReasonNotFound, Message: fmt.Sprintf("there is no operation %q", id), Fix: "see writ promote list"}
	}
	return op, nil
}

// showOperation is an operation for people, with what it lacks.
func (x *Machine) showOperation(m lease.Moment, op *writv1.Operation) *writv1.Operation {
	shown := proto.CloneOf(op)
	if op.State == writv1.OperationState_OPERATION_STATE_PENDING {
		shown.Missing = x.operationMissing(m, op)
	}
	return shown
}

// ruleFor is who has to sign a promotion of a mode; nil: as the approvers' own rule says.
func (x *Machine) ruleFor(g *group, mode writv1.PromotionMode) *writv1.ApprovalRule {
	a := g.rec.Spec.Approvals
	switch mode {
	case writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER:
		return a.GetSwitchover()
	case writv1.PromotionMode_PROMOTION_MODE_FAILBACK:
		return a.GetFailback()
	default: // to name the primary after a recovery is a failover: what was before is lost
		return a.GetFailover()
	}
}

// ruleForChange is who has to sign changes (see ruleForLoosening), losses, settlements and attestations; nil: as the approvers' own rule says.
func (x *Machine) ruleForChange(g *group) *writv1.ApprovalRule {
	return g.rec.Spec.Approvals.GetChange()
}

// ruleForLoosening is who has to sign a change that loosens rules of a group: whoever satisfies it satisfies the rule for changes,
// and each of those that are loosened. Otherwise those whom a rule does not trust could do away with it. The rules of a drill keep
// nothing real safe.
func (x *Machine) ruleForLoosening(g *group, loosened []*writv1.ApprovalRule) *writv1.ApprovalRule {
	if g.rec.Spec.DrillOf != "" {
		return x.ruleForChange(g)
	}
	all := make([]*writv1.ApprovalRule, 0, len(loosened))
	for _, rule := range loosened {
		all = append(all, x.orOwn(rule))
	}
	change := x.orOwn(x.ruleForChange(g))
	if rule := approval.ForLoosening(change, all); rule != change {
		return rule
	}
	return x.ruleForChange(g)
}

// ruleForRemoval is who has to sign the removal of a group: with it all of its rules are gone.
func (x *Machine) ruleForRemoval(g *group) *writv1.ApprovalRule {
	var all []*writv1.ApprovalRule
	for _, r := range rulesOf(g.rec.Spec) {
		all = append(all, r.rule)
	}
	return x.ruleForLoosening(g, all)
}

// ruleOfChange is the rule of an operation that changes a group, by what it loosens of the group as it is.
func (x *Machine) ruleOfChange(g *group, op *writv1.Operation) *writv1.ApprovalRule {
	body, spec, err := readChange(op)
	if err == nil && body.Action != removeAction {
		spec, err = normal(spec)
	}
	if err != nil || body.Action == removeAction {
		return x.ruleForRemoval(g)
	}
	return x.ruleForLoosening(g, compareSpecs(g.rec.Spec, spec, x.approvers.GetRule()).loosened)
}

// presentRule is the rule of an operation as it is now, which may not be what it was when the operation was made.
func (x *Machine) presentRule(op *writv1.Operation) *writv1.ApprovalRule {
	if ofGuard(op) {
		return x.ruleForGone(op)
	}
	g := x.groups[op.Group]
	if op.Kind == writv1.OperationKind_OPERATION_KIND_APPROVERS_CHANGE || g == nil {
		return x.approvers.GetRule()
	}
	switch op.Kind {
	case writv1.OperationKind_OPERATION_KIND_PROMOTION:
	case writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE:
		return x.ruleOfChange(g, op)
	default:
		return x.ruleForChange(g)
	}
	if p := x.promotions[op.Id]; p != nil {
		return x.ruleFor(g, p.rec.Mode)
	}
	return op.Rule
}

// endOperation ends one that was not executed.
func (x *Machine) endOperation(m lease.Moment, op *writv1.Operation, state writv1.OperationState, reason string) {
	op = x.operations[op.Id]
	if op == nil || op.State != writv1.OperationState_OPERATION_STATE_PENDING {
		return
	}
	ended := proto.CloneOf(op)
	ended.State, ended.Reason, ended.EndedAt = state, reason, timestamppb.New(m.Wall)
	x.storeOperation(ended)
	action := map[writv1.OperationState]string{
		writv1.OperationState_OPERATION_STATE_EXPIRED: "operation.expire", writv1.OperationState_OPERATION_STATE_VOID: "operation.void",
	}[state]
	x.note(lease.Note{Actor: "quorum", Action: cmp.Or(action, "operation.cancel"), Target: op.Id, Reason: reason})
}

// expireOperations ends what has expired, except for plans, which their promotions end. It asks for a tick when the next one
// will.
func (x *Machine) expireOperations(m lease.Moment, limit Tick) {
	for _, id := range sortedKeys(x.pending) {
		op := x.pending[id]
		switch {
		case !overdue(m, op):
			// By the wall clock, which may be set: that is looked at again, at the latest in a minute.
			x.wake(m.Now.Add(max(time.Millisecond, min(time.Minute, op.ExpiresAt.AsTime().Sub(m.Wall)))))
		case op.Kind != writv1.OperationKind_OPERATION_KIND_PROMOTION:
			if x.full(m, limit) {
				return
			}
			x.endOperation(m, op, writv1.OperationState_OPERATION_STATE_EXPIRED, "it was not executed in time")
		}
	}
}

// cancelOutworn ends what nobody can execute any more, as much as a round carries, so that it is not in the way of what can be
// proposed; true when nothing is left. Plans are ended by their promotions.
func (x *Machine) cancelOutworn(m lease.Moment, limit Tick) bool {
	for _, id := range sortedKeys(x.pending) {
		op := x.pending[id]
		why := x.overtaken(op)
		if why == "" {
			continue
		}
		if x.full(m, limit) {
			return false
		}
		x.endOperation(m, op, writv1.OperationState_OPERATION_STATE_CANCELLED, why)
	}
	return true
}

// overtaken says what has changed since an operation was proposed so that nobody can execute it any more; "" if nothing has.
func (x *Machine) overtaken(op *writv1.Operation) string {
	if op.Kind == writv1.OperationKind_OPERATION_KIND_PROMOTION {
		return ""
	}
	document, err := approval.ParseDocument(op.Document)
	if err != nil || document.PolicyVersion != x.approvers.GetVersion() {
		return "the approvers have changed since"
	}
	var body groupBody
	if op.Kind == writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE &&
		(json.Unmarshal(document.Body, &body) != nil || body.Replaces != versionOf(x.groups[op.Group])) {
		return "the group has changed since"
	}
	return ""
}

// voidOperations ends what is of another epoch or incarnation.
func (x *Machine) voidOperations(m lease.Moment, room func() bool) bool {
	for _, id := range sortedKeys(x.pending) {
		op := x.pending[id]
		if x.bound(op) != nil {
			if !room() {
				return false
			}
			x.endOperation(m, op, writv1.OperationState_OPERATION_STATE_VOID, "it was signed for another epoch or incarnation of the quorum")
		}
	}
	return true
}

// bound checks that an operation's document is its own, and of this history.
func (x *Machine) bound(op *writv1.Operation) error {
	document, err := approval.ParseDocument(op.Document)
	switch {
	case err != nil:
		return err
	case approval.Digest(op.Document) != op.Digest:
		return errors.New("the document has another digest than the operation")
	case document.Cluster != x.config.Cluster || document.Incarnation != x.config.Incarnation || document.Epoch != uint32(x.config.Epoch):
		return errors.New("the document is of another epoch or incarnation of the quorum")
	case document.ID != op.Id || document.Kind != documentKind(op.Kind) || document.Group != op.Group:
		return errors.New("the document is of another operation")
	}
	return nil
}

// pastExpiry says whether an operation may not be signed any more, by the coordinator's wall clock alone.
func pastExpiry(m lease.Moment, op *writv1.Operation) bool {
	return !m.Wall.Before(op.ExpiresAt.AsTime())
}

// overdue says whether an operation may not be executed any more.
func overdue(m lease.Moment, op *writv1.Operation) bool {
	return pastExpiry(m, op) && !mutant.On(mutant.ExpiryAtApprovalOnly)
}
