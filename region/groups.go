//writ:core

package region

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
)

// MaxGroups bounds the groups of a quorum.
const MaxGroups = 4096

// maxSpecBytes bounds a group's spec, which is stored and told in one commit.
const maxSpecBytes = 64 << 10

// groupBody is what the document of a change of a group says.
type groupBody struct {
	// Action is apply or remove.
	Action   string          `json:"action"`
	Replaces uint64          `json:"replaces,string"`
	Spec     json.RawMessage `json:"spec"`
	Changes  []string        `json:"changes"`
	Reason   string          `json:"reason"`
}

const (
	applyAction  = "apply"
	removeAction = "remove"
)

func (x *Machine) applyGroup(m lease.Moment, caller lease.Caller, ask *writv1.ApplyGroupRequest) (*writv1.ApplyGroupResponse, *lease.Error) {
	answer, err := x.applySpec(m, caller, ask)
	if err != nil && !ask.DryRun {
		x.note(lease.Note{Actor: string(caller.Principal), Action: "group.refuse", Target: ask.GetSpec().GetName(), Reason: err.Error(), Detail: map[string]string{"request": "apply"}})
	}
	return answer, err
}

func (x *Machine) applySpec(m lease.Moment, caller lease.Caller, ask *writv1.ApplyGroupRequest) (*writv1.ApplyGroupResponse, *lease.Error) {
	spec, err := normal(ask.Spec)
	if err != nil {
		return nil, err
	}
	g := x.groups[spec.Name]
	if err := x.mayApply(g, spec, ask.Version); err != nil {
		return nil, err
	}
	var c changes
	rule := x.approvers.GetRule()
	if g == nil {
		c = compareNew(spec, rule)
	} else {
		c = compareSpecs(g.rec.Spec, spec, rule)
		rule = x.ruleForLoosening(g, c.loosened)
	}
	answer := &writv1.ApplyGroupResponse{Changes: c.all}
	switch {
	case ask.DryRun || len(c.all) == 0:
	case c.loosens && !rule.GetNone():
		op, err := x.proposeGroup(m, caller, g, spec.Name, rule, groupBody{
			Action: applyAction, Replaces: versionOf(g), Spec: rawJSON(spec), Changes: c.all, Reason: ask.Reason,
		})
		if err != nil {
			return nil, err
		}
		answer.Operation = x.showOperation(m, op)
	default:
		if err := x.install(m, spec, c, string(caller.Principal), ask.Reason, ""); err != nil {
			return nil, err
		}
	}
	if g := x.groups[spec.Name]; g != nil {
		answer.Group = x.showGroup(m, g, true)
	}
	return answer, nil
}

func versionOf(g *group) uint64 {
	if g == nil {
		return 0
	}
	return g.rec.Version
}

// mayApply says why a spec cannot be that of a group whatever people agree on. g is nil where there is none yet.
func (x *Machine) mayApply(g *group, spec *writv1.GroupSpec, version uint64) *lease.Error {
	if size := proto.Size(spec); size > maxSpecBytes {
		return lease.Errorf(lease.ReasonLimit, "the spec of the group %s takes %d bytes, at most %d are possible", spec.Name, size, maxSpecBytes)
	}
	if version != 0 && version != versionOf(g) {
		return &lease.Error{Reason: lease.ReasonConflict, Message: fmt.Sprintf("the group %s is of version %d by now, not %d", spec.Name, versionOf(g), version), Fix: "get it again and decide anew"}
	}
	if set := x.judge(); set != nil {
		for _, r := range rulesOf(spec) {
			if err := set.Satisfiable(r.field, r.rule); err != nil {
				return fieldError(err)
			}
		}
	}
	if g == nil {
		return x.mayCreate(spec)
	}
	if err := x.mayChange(g); err != nil {
		return err
	}
	old := g.rec.Spec
	switch {
	case spec.Resource != old.Resource:
		return lease.Invalid("resource", fmt.Sprintf("is %q, and was %q", spec.Resource, old.Resource), "leave it as it is: make another group for another resource")
	case spec.DrillOf != old.DrillOf:
		return lease.Invalid("drill_of", fmt.Sprintf("is %q, and was %q", spec.DrillOf, old.DrillOf), "leave it as it is: a drill does not become real, nor the other way round")
	}
	for i, r := range spec.Regions {
		primary := r.Role == writv1.RegionRole_REGION_ROLE_PRIMARY
		if was := findRegion(old, r.Name); primary && was.GetRole() != r.Role && r.Name != g.rec.Primary {
			return lease.Invalid(fmt.Sprintf("regions[%d].role", i), "is primary, which the region is not", "leave the roles as they are, and use writ promote to move the primary")
		}
	}
	if now := g.rec.Primary; now != "" {
		if r := findRegion(spec, now); r == nil || r.Role == writv1.RegionRole_REGION_ROLE_WITNESS {
			return lease.Invalid("regions", fmt.Sprintf("leaves no primary or standby %q, which is primary now", now), "promote another region first")
		}
	}
	return nil
}

// mayCreate says why there cannot be such a group.
func (x *Machine) mayCreate(spec *writv1.GroupSpec) *lease.Error {
	if len(x.groups) >= MaxGroups {
		return lease.Errorf(lease.ReasonLimit, "there are %d groups already", len(x.groups))
	}
	for _, name := range x.names {
		if resourceOf(x.groups[name].rec.Spec) == resourceOf(spec) {
			return &lease.Error{Reason: lease.ReasonConflict, Message: fmt.Sprintf("the group %s decides who has %q", name, spec.Resource), Fix: "use another resource"}
		}
	}
	return x.mayShadow(spec)
}

// mayChange says why a group cannot be changed or removed now.
func (x *Machine) mayChange(g *group) *lease.Error {
	if g.rec.State == writv1.GroupState_GROUP_STATE_REMOVING {
		return lease.Errorf(lease.ReasonConflict, "the group %s is being removed", g.name)
	}
	for _, p := range x.openOf(g) {
		return &lease.Error{Reason: lease.ReasonConflict, Message: fmt.Sprintf("the promotion %s is under way", p.rec.Id), Fix: "wait until it has ended, or abort it"}
	}
	return nil
}

// proposeGroup makes the operation of a change, or answers the one that there is.
func (x *Machine) proposeGroup(m lease.Moment, caller lease.Caller, g *group, name string, rule *writv1.ApprovalRule, body groupBody) (*writv1.Operation, *lease.Error) {
	if x.judge() == nil {
		return nil, &lease.Error{Reason: lease.ReasonDenied, Message: "people have to agree to this, and there are no approvers", Fix: noApproversFix}
	}
	wanted, err := approval.Canonical(body)
	if err != nil {
		return nil, lease.Errorf(lease.ReasonInternal, "%v", err)
	}
	for _, id := range sortedKeys(x.operations) {
		op := x.operations[id]
		if op.Group != name || op.Kind != writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE || x.mayBeSigned(m, op) != nil || op.Requester != string(caller.Principal) {
			continue
		}
		if document, err := approval.ParseDocument(op.Document); err == nil && bytes.Equal(document.Body, wanted) {
			return op, nil
		}
	}
	return x.newOperation(m, proposal{
		kind: writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE, group: g, about: name, body: body, rule: rule, requester: string(caller.Principal), reason: body.Reason,
	})
}

// readChange takes a change of a group from what was signed. The spec is empty if the group is to be removed.
func readChange(op *writv1.Operation) (body groupBody, spec *writv1.GroupSpec, err *lease.Error) {
	spec = &writv1.GroupSpec{}
	err = readBody(op, &body, func() error {
		if body.Action == removeAction {
			return nil
		}
		return approval.ReadMessage(body.Spec, spec)
	})
	return body, spec, err
}

// carryOutGroup does what a signed change says, if the group is still as the change expects.
func (x *Machine) carryOutGroup(m lease.Moment, op *writv1.Operation, actor string) *lease.Error {
	body, spec, err := readChange(op)
	if err != nil {
		return err
	}
	g := x.groups[op.Group]
	if versionOf(g) != body.Replaces {
		return &lease.Error{Reason: lease.ReasonConflict, Message: fmt.Sprintf("the group %s is of version %d by now, not %d", op.Group, versionOf(g), body.Replaces), Fix: "propose the change again"}
	}
	if body.Action == removeAction {
		if err := x.mayRemove(g); err != nil {
			return err
		}
		if err := x.executeOperation(m, op, actor); err != nil {
			return err
		}
		x.remove(m, g, actor, body.Reason, op.Id)
		return nil
	}
	if spec, err = normal(spec); err != nil {
		return err
	}
	if err := x.mayApply(g, spec, 0); err != nil {
		return err
	}
	if _, err := x.lackingNothing(m, op); err != nil {
		return err
	}
	if g == nil {
		if err := x.tenures.ClaimTenure(m, resourceOf(spec), spec.Name); err != nil {
			return err
		}
	}
	if err := x.executeOperation(m, op, actor); err != nil {
		return err
	}
	return x.install(m, spec, changes{all: body.Changes}, actor, body.Reason, op.Id)
}

// install makes a spec that of its group.
func (x *Machine) install(m lease.Moment, spec *writv1.GroupSpec, c changes, actor, reason, operation string) *lease.Error {
	g := x.groups[spec.Name]
	if g == nil {
		if err := x.tenures.ClaimTenure(m, resourceOf(spec), spec.Name); err != nil {
			return err
		}
		g = x.addGroup(&writv1.Group{Spec: spec, Version: 1, State: writv1.GroupState_GROUP_STATE_ESTABLISHING, Since: timestamppb.New(m.Wall), Epoch: uint32(x.config.Epoch), Operations: max(x.drillOperations(spec), x.former[spec.Name])})
		x.storeGroup(g.rec)
		x.wake(m.Now)
	} else {
		x.changeGroup(g, func(rec *writv1.Group) { rec.Spec, rec.Version = spec, rec.Version+1 })
		x.viewRegions(g)
	}
	x.outworn = true
	x.wake(m.Now)
	x.forgetEvidence(m, g)
	detail := map[string]string{"version": fmt.Sprint(g.rec.Version), "resource": spec.Resource, "spec": jsonOf(spec)}
	for i, what := range c.all {
		detail[fmt.Sprintf("change.%02d", i+1)] = what
	}
	if operation != "" {
		detail["operation"] = operation
	}
	x.note(lease.Note{Actor: actor, Action: "group.apply", Target: g.name, Reason: reason, Detail: detail})
	return nil
}

func (x *Machine) removeGroup(m lease.Moment, caller lease.Caller, ask *writv1.RemoveGroupRequest) (*writv1.ApplyGroupResponse, *lease.Error) {
	answer, err := x.removeNamed(m, caller, ask)
	if err != nil {
		x.note(lease.Note{Actor: string(caller.Principal), Action: "group.refuse", Target: ask.Name, Reason: err.Error(), Detail: map[string]string{"request": "remove"}})
	}
	return answer, err
}

func (x *Machine) removeNamed(m lease.Moment, caller lease.Caller, ask *writv1.RemoveGroupRequest) (*writv1.ApplyGroupResponse, *lease.Error) {
	g, err := x.findGroup(ask.Name)
	if err != nil {
		return nil, err
	}
	answer := &writv1.ApplyGroupResponse{Changes: []string{"loosens: group " + g.name + " is removed: its tenure ends, and it is fenced"}}
	if g.rec.State == writv1.GroupState_GROUP_STATE_REMOVING {
		answer.Group = x.showGroup(m, g, true)
		return answer, nil
	}
	if err := x.mayRemove(g); err != nil {
		return nil, err
	}
	if rule := x.ruleForRemoval(g); rule.GetNone() {
		x.remove(m, g, string(caller.Principal), ask.Reason, "")
	} else {
		op, err := x.proposeGroup(m, caller, g, g.name, rule, groupBody{Action: removeAction, Replaces: g.rec.Version, Changes: answer.Changes, Reason: ask.Reason})
		if err != nil {
			return nil, err
		}
		answer.Operation = x.showOperation(m, op)
	}
	answer.Group = x.showGroup(m, g, true)
	return answer, nil
}

func (x *Machine) mayRemove(g *group) *lease.Error {
	if g == nil {
		return lease.Errorf(lease.ReasonNotFound, "there is no such group any more")
	}
	for _, name := range x.names {
		if x.groups[name].rec.Spec.DrillOf == g.name {
			return &lease.Error{Reason: lease.ReasonConflict, Message: fmt.Sprintf("the group %s is a drill of it", name), Fix: "remove that first"}
		}
	}
	return x.mayChange(g)
}

// remove ends the tenure. The group is forgotten when every guard has been proved.
func (x *Machine) remove(m lease.Moment, g *group, actor, reason, operation string) {
	x.changeGroup(g, func(rec *writv1.Group) {
		rec.State, rec.LastPrimary, rec.Primary, rec.Since = writv1.GroupState_GROUP_STATE_REMOVING, rec.Primary, "", timestamppb.New(m.Wall)
	})
	detail := map[string]string{}
	if operation != "" {
		detail["operation"] = operation
	}
	x.note(lease.Note{Actor: actor, Action: "group.remove", Target: g.name, Reason: reason, Detail: detail})
	x.tenures.FenceTenure(m, resourceOf(g.rec.Spec))
	x.wake(m.Now)
}

// settleGroup lets a group in ESTABLISHING or REMOVING go on. It comes in every round.
func (x *Machine) settleGroup(m lease.Moment, g *group) {
	resource := resourceOf(g.rec.Spec)
	removing := g.rec.State == writv1.GroupState_GROUP_STATE_REMOVING
	t := x.tenures.Tenure(resource)
	switch {
	case t.Fencing == 0:
		if x.tenures.FenceTenure(m, resource) != 0 {
			x.wake(m.Now)
		}
	case !t.Ready():
	case removing:
		x.tenures.DropTenure(m, resource)
		x.note(lease.Note{Actor: "quorum", Action: "group.removed", Target: g.name, Detail: map[string]string{"token": t.Fencing.Decimal()}})
		x.endShadow(g)
		x.dropGroup(g)
	default:
		x.establish(m, g, resource)
	}
}

// establish gives the first tenure to the region that the spec says.
func (x *Machine) establish(m lease.Moment, g *group, resource lease.Resource) {
	at := slices.IndexFunc(g.rec.Spec.Regions, func(r *writv1.GroupRegion) bool { return r.Role == writv1.RegionRole_REGION_ROLE_PRIMARY })
	region := g.rec.Spec.Regions[at].Name
	token, ok := x.tenures.GrantTenure(m, resource, region)
	if !ok {
		return
	}
	x.changeGroup(g, func(rec *writv1.Group) {
		rec.State, rec.Primary, rec.Token, rec.Since = writv1.GroupState_GROUP_STATE_STEADY, region, uint64(token), timestamppb.New(m.Wall)
	})
	x.note(lease.Note{Actor: "quorum", Action: "group.establish", Target: g.name, Detail: map[string]string{"region": region, "token": token.Decimal(), "resource": string(resource)}})
}

// recoverGroup looks at a group that has just been loaded: of an older epoch, it is RECOVERED. What it was is not known any
// more, for the history that knew is lost; so nobody has the tenure until people name the primary.
func (x *Machine) recoverGroup(m lease.Moment, g *group) {
	x.forgetEvidence(m, g)
	rec := g.rec
	known := max(fence.Token(rec.Token).Epoch(), fence.Epoch(rec.Epoch))
	if known >= x.config.Epoch || rec.State == writv1.GroupState_GROUP_STATE_REMOVING {
		return
	}
	if rec.State == writv1.GroupState_GROUP_STATE_RECOVERED {
		x.changeGroup(g, func(rec *writv1.Group) { rec.Promotion, rec.Epoch = "", uint32(x.config.Epoch) })
		return
	}
	x.changeGroup(g, func(rec *writv1.Group) {
		if rec.Primary != "" {
			rec.LastPrimary = rec.Primary
		}
		if rec.State != writv1.GroupState_GROUP_STATE_CONFLICT { // its tails are to be settled all the same
			rec.State = writv1.GroupState_GROUP_STATE_RECOVERED
		}
		rec.Primary, rec.Promotion, rec.Epoch, rec.Since = "", "", uint32(x.config.Epoch), timestamppb.New(m.Wall)
	})
	x.note(lease.Note{Actor: "quorum", Action: "group.recovered", Target: g.name, Reason: "the quorum was rebuilt", Detail: map[string]string{"last_primary": g.rec.LastPrimary, "token": fence.Token(rec.Token).Decimal()}})
}
