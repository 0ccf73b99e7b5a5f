//writ:core

package region

import (
	"fmt"
	"slices"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/region/approval"
)

// A guard that may go on without contact, for all that the quorum knows, is awaited for ever. People answer for it then: for one
// raise of a promotion, which they know to be urgent, or for good, when the guard is out.

// attestGuard answers the operation by which people answer for a guard, within a promotion or outside of any.
func (x *Machine) attestGuard(m lease.Moment, caller lease.Caller, ask *writv1.AttestGuardRequest) (*writv1.Operation, *lease.Error) {
	switch {
	case ask.Id == "" && ask.Group == "":
		return nil, lease.Invalid("id", "and group are empty", "name the promotion that awaits the guard, or, outside of promotions, a group whose tenure it covers")
	case ask.Id != "" && ask.Group != "":
		return nil, lease.Invalid("group", "is given beside id", "leave out one of them: an attestation is for one promotion, or outside of any")
	case ask.Group != "":
		return x.attestGone(m, caller, ask)
	}
	p, err := x.named(ask.Id)
	if err != nil {
		return nil, err
	}
	if err := x.mayAttest(p, ask.Guard); err != nil {
		return nil, err
	}
	fenced := x.tenures.Tenure(resourceOf(p.group.rec.Spec)).Fencing
	op, err := x.newOperation(m, proposal{
		kind: writv1.OperationKind_OPERATION_KIND_ATTESTATION, group: p.group, promotion: p.rec.Id, rule: x.ruleForChange(p.group),
		requester: string(caller.Principal), reason: ask.Reason,
		body: map[string]any{"promotion": p.rec.Id, "guard": ask.Guard, "token": fenced.Decimal(), "reason": ask.Reason},
	})
	if err != nil {
		return nil, err
	}
	return x.showOperation(m, op), nil
}

func (x *Machine) mayAttest(p *promotion, guard string) *lease.Error {
	if p.rec.State != fencing && p.rec.State != rollingBack {
		return lease.Errorf(lease.ReasonConflict, "%s is %s and waits for no guard", p.rec.Id, stateName(p.rec.State))
	}
	for _, w := range x.tenures.Tenure(resourceOf(p.group.rec.Spec)).Awaits {
		if w.Guard == guard {
			return nil
		}
	}
	return &lease.Error{Reason: lease.ReasonConflict, Field: "guard", Message: fmt.Sprintf("%q is not awaited by %s", guard, p.rec.Id), Fix: "`writ promote get` lists the guards that are"}
}

// attestAgain tells the table what people answer for: it does not store that.
func (x *Machine) attestAgain(m lease.Moment, p *promotion) {
	resource := resourceOf(p.group.rec.Spec)
	t := x.tenures.Tenure(resource)
	if len(t.Awaits) == 0 {
		return
	}
	for _, id := range x.parts[p.rec.Id] {
		op := x.operations[id]
		if op.GetKind() != writv1.OperationKind_OPERATION_KIND_ATTESTATION || op.State != writv1.OperationState_OPERATION_STATE_EXECUTED {
			continue
		}
		body := readSigned(op).Body
		if body.Token == t.Fencing.Decimal() && slices.ContainsFunc(t.Awaits, func(w lease.TenureWait) bool { return w.Guard == body.Guard }) {
			x.tenures.AttestTenure(m, resource, body.Guard)
		}
	}
}

// goneBody is what the document of an attestation outside of promotions says.
type goneBody struct {
	Guard   string       `json:"guard"`
	Region  string       `json:"region"`
	Session string       `json:"session"`
	Store   string       `json:"store"`
	Tenures []goneTenure `json:"tenures"`
	Reason  string       `json:"reason"`
}

type goneTenure struct {
	Group    string `json:"group"`
	Resource string `json:"resource"`
}

// ofGuard says whether an operation is an attestation outside of promotions.
func ofGuard(op *writv1.Operation) bool {
	return op.Kind == writv1.OperationKind_OPERATION_KIND_ATTESTATION && op.Promotion == ""
}

func goneOf(g lease.CoveringGuard, reason string) goneBody {
	body := goneBody{Guard: g.Name, Region: g.Region, Session: g.Session, Store: g.Store, Tenures: []goneTenure{}, Reason: reason}
	for _, t := range g.Tenures {
		body.Tenures = append(body.Tenures, goneTenure{Group: t.Group, Resource: string(t.Resource)})
	}
	return body
}

// attestGone answers the operation by which people answer for a guard outside of promotions.
func (x *Machine) attestGone(m lease.Moment, caller lease.Caller, ask *writv1.AttestGuardRequest) (*writv1.Operation, *lease.Error) {
	g, err := x.findGroup(ask.Group)
	if err != nil {
		return nil, err
	}
	if x.judge() == nil {
		return nil, &lease.Error{Reason: lease.ReasonDenied, Message: "people have to answer for the guard, and there are no approvers", Fix: noApproversFix}
	}
	guard, err := x.isGone(m, ask.Guard)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(guard.Tenures, func(t lease.CoveredTenure) bool { return t.Group == g.name }) {
		return nil, &lease.Error{Reason: lease.ReasonConflict, Field: "group", Message: fmt.Sprintf("guard %q does not cover the tenure of %s", ask.Guard, g.name),
			Fix: "name a group whose tenure it covers; if there is none, one person is enough: writ guard remove --attest"}
	}
	op, err := x.newOperation(m, proposal{
		kind: writv1.OperationKind_OPERATION_KIND_ATTESTATION, group: g, rule: x.ruleForGuard(guard), requester: string(caller.Principal),
		reason: ask.Reason, body: goneOf(guard, ask.Reason),
	})
	if err != nil {
		return nil, err
	}
	return x.showOperation(m, op), nil
}

// isGone finds a guard that people may answer for: one that is on the list, and out.
func (x *Machine) isGone(m lease.Moment, name string) (lease.CoveringGuard, *lease.Error) {
	g, ok := x.tenures.CoveringGuard(name)
	switch {
	case !ok:
		return g, &lease.Error{Reason: lease.ReasonNotFound, Field: "guard", Message: fmt.Sprintf("no guard %q is on the list", name), Fix: "see writ guard list"}
	case !g.Out:
		err := &lease.Error{Reason: lease.ReasonConflict, Field: "guard", Message: fmt.Sprintf("guard %q is not out: it has been heard of, or may go on for as long as its guard lease lasts", name),
			Fix: "stop it, and ask again when it is out"}
		if g.Lapses != clock.Never {
			err.RetryAfter = max(0, g.Lapses.Sub(m.Now))
		}
		return g, err
	}
	return g, nil
}

// ruleForGuard is who has to answer for a guard: whoever satisfies it satisfies the rule of each group that relies on the guard.
func (x *Machine) ruleForGuard(guard lease.CoveringGuard) *writv1.ApprovalRule {
	var rules []*writv1.ApprovalRule
	for _, t := range guard.Tenures {
		if g := x.groups[t.Group]; g != nil {
			rules = append(rules, x.orOwn(x.ruleForChange(g)))
		}
	}
	return approval.Together(rules)
}

// ruleForGone is the present rule of such an operation: groups may have come and changed since it was made.
func (x *Machine) ruleForGone(op *writv1.Operation) *writv1.ApprovalRule {
	guard, ok := x.tenures.CoveringGuard(readSigned(op).Body.Guard)
	if !ok {
		return op.Rule
	}
	return x.ruleForGuard(guard)
}

// mayGiveUp says why people's word for a guard cannot be taken now: the guard has been heard of since, or it is about more.
func (x *Machine) mayGiveUp(m lease.Moment, op *writv1.Operation) *lease.Error {
	var body goneBody
	if err := readBody(op, &body, func() error { return nil }); err != nil {
		return err
	}
	guard, err := x.isGone(m, body.Guard)
	switch {
	case err != nil:
		return err
	case guard.Session != body.Session:
		return &lease.Error{Reason: lease.ReasonConflict, Message: fmt.Sprintf("guard %q has enrolled since %s was made: it is another process, or is not gone", body.Guard, op.Id),
			Fix: "look at it again, and ask for another attestation if it is gone"}
	case !slices.Equal(goneOf(guard, "").Tenures, body.Tenures):
		return &lease.Error{Reason: lease.ReasonConflict, Message: fmt.Sprintf("guard %q covers other tenures than when %s was made", body.Guard, op.Id),
			Fix: "ask for another attestation"}
	}
	return nil
}

// giveUp does what such an operation says. mayGiveUp has allowed it in this step.
func (x *Machine) giveUp(m lease.Moment, op *writv1.Operation, actor string) {
	var body goneBody
	err := readBody(op, &body, func() error { return nil })
	by := lease.Attestation{Guard: body.Guard, Session: body.Session, Operation: op.Id, Actor: actor, Reason: body.Reason}
	if err != nil || !x.tenures.AttestGuard(m, by) {
		panic(fmt.Sprintf("region: %s was executed, and guard %q cannot be given up: %v", op.Id, body.Guard, err))
	}
	x.wake(m.Now)
}
