//writ:core

package region

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
)

// approversGroup stands where the name of a group would, in the ids of operations on the set of approvers.
const approversGroup = "approvers"

// judging keeps the set of approvers as it was judged usable.
type judging struct {
	set *approval.Set
	of  *writv1.ApproverSet
}

// judge is the present set of approvers; nil if there is none.
func (x *Machine) judge() *approval.Set {
	if x.of != x.approvers {
		set, err := approval.NewSet(x.approvers)
		if err != nil {
			// What was stored had been checked: a program that checks more must not let anything through that it cannot judge.
			set = nil
		}
		x.judging = judging{set: set, of: x.approvers}
	}
	return x.set
}

// fieldError is an approval package's error, with the field below prefix.
func fieldError(err error) *lease.Error {
	var wrong *approval.FieldError
	if errors.As(err, &wrong) {
		return lease.Invalid(wrong.Field, wrong.Problem, wrong.Fix)
	}
	return lease.Errorf(lease.ReasonInvalid, "%v", err)
}

func checkApprovers(set *writv1.ApproverSet) *lease.Error {
	if _, err := approval.NewSet(set); err != nil {
		return fieldError(err)
	}
	return nil
}

// bootstrapApprovers stores the configured set where none has been.
func (x *Machine) bootstrapApprovers() {
	if x.approvers == nil || x.approvers != x.config.Approvers {
		return
	}
	if err := checkApprovers(x.approvers); err != nil {
		x.note(lease.Note{Actor: "quorum", Action: "approvers.refuse", Target: approversGroup, Reason: err.Error()})
		x.approvers = nil
		return
	}
	set := proto.CloneOf(x.approvers)
	set.Version, set.Operations = 1, 0
	x.storeApprovers(set)
	x.noteApprovers(set, "quorum", "from the configuration", "")
}

func (x *Machine) noteApprovers(set *writv1.ApproverSet, actor, reason, operation string) {
	detail := map[string]string{"version": fmt.Sprint(set.Version), "set": jsonOf(set)}
	if operation != "" {
		detail["operation"] = operation
	}
	x.note(lease.Note{Actor: actor, Action: "approvers.change", Target: approversGroup, Reason: reason, Detail: detail})
}

func (x *Machine) getApprovers() (*writv1.ApproverSet, *lease.Error) {
	if x.approvers == nil {
		return nil, &lease.Error{Reason: lease.ReasonNotFound, Message: "there are no approvers", Fix: noApproversFix}
	}
	return x.approvers, nil
}

const noApproversFix = "put the first set into the configuration of the nodes, and restart the one that coordinates"

// approversBody is what the document of a change of the approvers says.
type approversBody struct {
	Replaces uint64          `json:"replaces,string"`
	Set      json.RawMessage `json:"set"`
	Changes  []string        `json:"changes"`
	Reason   string          `json:"reason"`
}

func (x *Machine) changeApprovers(m lease.Moment, caller lease.Caller, ask *writv1.ChangeApproversRequest) (*writv1.Operation, *lease.Error) {
	op, err := x.proposeApprovers(m, caller, ask)
	if err != nil {
		x.note(lease.Note{Actor: string(caller.Principal), Action: "operation.refuse", Target: approversGroup, Reason: err.Error()})
		return nil, err
	}
	return x.showOperation(m, op), nil
}

func (x *Machine) proposeApprovers(m lease.Moment, caller lease.Caller, ask *writv1.ChangeApproversRequest) (*writv1.Operation, *lease.Error) {
	if x.judge() == nil {
		return nil, &lease.Error{Reason: lease.ReasonDenied, Message: "there are no approvers who could agree", Fix: noApproversFix}
	}
	present := x.approvers
	if v := ask.GetSet().GetVersion(); v != 0 && v != present.Version {
		return nil, &lease.Error{
			Reason: lease.ReasonConflict, Message: fmt.Sprintf("the approvers are of version %d by now, not %d", present.Version, v),
			Fix: "get them again and decide anew",
		}
	}
	if ask.GetSet() == nil {
		return nil, lease.Invalid("set", "is missing", "say who may approve")
	}
	next := proto.CloneOf(ask.Set)
	next.Version, next.Operations = present.Version+1, 0
	if err := checkApprovers(next); err != nil {
		return nil, err
	}
	if err := x.rulesSatisfiable(next); err != nil {
		return nil, err
	}
	body := approversBody{Replaces: present.Version, Set: rawJSON(next), Changes: approversChanges(present, next), Reason: ask.Reason}
	if len(body.Changes) == 0 {
		return nil, lease.Invalid("set", "is what it is already", "change something")
	}
	return x.newOperation(m, proposal{
		kind: writv1.OperationKind_OPERATION_KIND_APPROVERS_CHANGE, body: body, rule: present.Rule, requester: string(caller.Principal), reason: ask.Reason,
	})
}

// rulesSatisfiable keeps a set from making the rule of a group one that nobody could satisfy.
func (x *Machine) rulesSatisfiable(next *writv1.ApproverSet) *lease.Error {
	set, err := approval.NewSet(next)
	if err != nil {
		return fieldError(err)
	}
	for _, name := range x.names {
		for _, r := range rulesOf(x.groups[name].rec.Spec) {
			if err := set.Satisfiable(r.field, r.rule); err != nil {
				wrong := fieldError(err)
				wrong.Field = "set"
				wrong.Message = fmt.Sprintf("is not enough for the group %s: %v", name, err)
				wrong.Fix = "change the group first, or keep more approvers"
				return wrong
			}
		}
	}
	return nil
}

func approversChanges(from, to *writv1.ApproverSet) []string {
	var changes []string
	for _, what := range approval.SetLoosens(from, to) {
		changes = append(changes, "loosens: "+what)
	}
	names := map[string]bool{}
	for _, a := range to.Approvers {
		names[a.Name] = true
	}
	for _, a := range from.Approvers {
		if !names[a.Name] {
			changes = append(changes, a.Name+" may not approve any more")
		}
	}
	if a, b := proto.CloneOf(from), proto.CloneOf(to); len(changes) == 0 {
		a.Version, a.Operations, b.Version, b.Operations = 0, 0, 0, 0
		if !proto.Equal(a, b) {
			changes = append(changes, "keys, roles, principals or the rule change, and nothing is allowed that was not")
		}
	}
	return changes
}

// installApprovers does what an executed operation says.
func (x *Machine) installApprovers(m lease.Moment, op *writv1.Operation, next *writv1.ApproverSet, reason, actor string) {
	next.Operations = x.approvers.Operations
	x.storeApprovers(next)
	x.noteApprovers(next, actor, reason, op.Id)
	x.outworn = true
	x.wake(m.Now)
}

// jsonOf is a message as canonical JSON, for records and documents.
func jsonOf(m proto.Message) string { return string(rawJSON(m)) }

func rawJSON(m proto.Message) json.RawMessage {
	written, err := approval.Message(m)
	if err != nil {
		return json.RawMessage("{}") // invalid UTF-8, which the API does not let in
	}
	return written
}

// wallTime is a time of day as documents say it: no finer than people read it.
func wallTime(m lease.Moment) time.Time { return m.Wall.UTC().Truncate(time.Millisecond) }
