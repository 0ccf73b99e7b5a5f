package sim

import (
	"encoding/json"
	"slices"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region"
)

// What people do about guards that tenures rely on, and that are gone.

// answerForGuards has people answer for the guards that are gone, outside of promotions.
func (c *console) answerForGuards() {
	for _, guard := range sortedKeys(c.gone) {
		rec := c.run.known[guard]
		if !rec.GetOut() || !c.stopped(guard) {
			continue
		}
		for _, g := range c.run.plan.Groups {
			if c.run.failovers.groups[g.Name] != nil && relies(lease.Resource(g.Name), rec) {
				c.answerFor(guard, g.Name)
				break
			}
		}
	}
}

// stopped says whether the process of a guard has ended, and is not started before it is off the list: people do not answer for
// one that they merely cannot reach.
func (c *console) stopped(name string) bool {
	return slices.ContainsFunc(c.run.guards, func(g *guard) bool { return g.called() == name && g.kept })
}

// answerFor asks for the operation by which people answer for a guard, or signs and executes it.
func (c *console) answerFor(guard, group string) {
	for _, op := range c.pending(group, "") {
		if op.Kind == writv1.OperationKind_OPERATION_KIND_ATTESTATION && attestationOf(op).Guard == guard && !c.spent(op) {
			c.approve(group, op.Id, true)
			return
		}
	}
	ask := &writv1.AttestGuardRequest{Group: group, Guard: guard, Reason: "its process has ended"}
	c.ask("ann", ask, func(_ proto.Message, err *lease.Error) {
		if err == nil {
			c.run.failovers.reached[markAnsweredFor]++
		}
	})
}

// attestation is what people sign of a guard.
type attestation struct{ Guard, Session string }

func attestationOf(op *writv1.Operation) attestation {
	var document struct{ Body attestation }
	if json.Unmarshal(op.Document, &document) != nil {
		return attestation{}
	}
	return document.Body
}

// relies says whether a guard covers a resource.
func relies(name lease.Resource, rec *writv1.GuardRecord) bool {
	for _, patterns := range [][]string{rec.Covers, rec.Former} {
		for _, p := range patterns {
			if lease.Covers(p, name) {
				return true
			}
		}
	}
	return false
}

// vouched holds a guard's being taken off the list to S8: one that may go on without contact for ever, and that a tenure relies
// on which some region has had, is taken off at the word of several people, and not of one.
func (r *run) vouched(guard string, c quorumChange) {
	rec := r.known[guard]
	if rec == nil {
		return
	}
	known := remembered{rules: r.judge.Ruling(), guards: map[string]*writv1.GuardRecord{guard: rec}}
	for _, g := range r.plan.Groups {
		name := lease.Resource(g.Name)
		group := r.failovers.groups[g.Name]
		if group.GetToken() == 0 || rec.Out && !known.awaits(guard, name) || !relies(name, rec) {
			continue
		}
		if !r.answeredFor(guard, rec.Session, c) {
			r.judge.Unvouched(guard, g.Name)
		}
	}
}

// answeredFor says whether people have answered for a guard, within a promotion or outside of any, by that commit.
func (r *run) answeredFor(guard, session string, c quorumChange) bool {
	answers := func(op *writv1.Operation) bool {
		by := attestationOf(op)
		return op.GetKind() == writv1.OperationKind_OPERATION_KIND_ATTESTATION && op.State == writv1.OperationState_OPERATION_STATE_EXECUTED &&
			by.Guard == guard && (op.Promotion != "" || by.Session == session)
	}
	for _, id := range sortedKeys(r.failovers.operations) {
		if answers(r.failovers.operations[id]) {
			return true
		}
	}
	for _, e := range c.Entries {
		op := &writv1.Operation{}
		if _, kind := failoverKey(e.Key); kind == region.OperationRecord && proto.Unmarshal(e.Value, op) == nil && answers(op) {
			return true
		}
	}
	return false
}
