//writ:core

package region

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
	"github.com/writ-io/writ/sim/mutant"
)

func (x *Machine) approve(m lease.Moment, caller lease.Caller, ask *writv1.ApproveRequest) (*writv1.Operation, *lease.Error) {
	op, err := x.findOperation(ask.Id)
	if err != nil {
		return nil, err
	}
	changed, err := x.sign(m, caller, op, ask.Signature)
	if err != nil {
		x.note(lease.Note{
			Actor: string(caller.Principal), Action: "operation.refuse", Target: op.Id, Reason: err.Error(),
			Detail: map[string]string{"digest": op.Digest, "request": "approve"},
		})
		return nil, err
	}
	return x.showOperation(m, changed), nil
}

// sign adds a signature, or says why it does not count.
func (x *Machine) sign(m lease.Moment, caller lease.Caller, op *writv1.Operation, signature string) (*writv1.Operation, *lease.Error) {
	if err := x.mayBeSigned(m, op); err != nil {
		return nil, err
	}
	signer, wrong := x.judge().Verify(approval.Namespace, op.Document, signature, m.Wall)
	if wrong != nil {
		return nil, signatureError(wrong)
	}
	signature = strings.TrimSpace(signature) + "\n"
	for _, before := range op.Approvals {
		switch {
		case !approval.SamePerson(signer, approval.Signer{Approver: before.Approver, Key: before.Key}):
		case before.Withdrawn:
			// A signature that was handed in once is known to others: it must not come back without the person.
			return nil, &lease.Error{
				Reason: lease.ReasonConflict, Message: fmt.Sprintf("%s has taken back a signature of this operation", signer.Approver),
				Fix: "have it proposed again, and sign that",
			}
		case before.Key == signer.Key && before.Signature == signature:
			return op, nil
		default:
			return nil, &lease.Error{
				Reason: lease.ReasonConflict, Message: fmt.Sprintf("%s has signed already, with the key %s; a person counts once", signer.Approver, before.Key),
				Fix: "let somebody else sign",
			}
		}
	}
	if len(op.Approvals) >= maxApprovals {
		return nil, lease.Errorf(lease.ReasonLimit, "the operation has %d signatures already", len(op.Approvals))
	}
	signed := proto.CloneOf(op)
	signed.Approvals = append(signed.Approvals, &writv1.Approval{
		Approver: signer.Approver, Key: signer.Key, Signature: signature, At: timestamppb.New(m.Wall), SubmittedBy: string(caller.Principal),
	})
	x.storeOperation(signed)
	x.note(lease.Note{Actor: string(caller.Principal), Action: "operation.approve", Target: op.Id, Detail: map[string]string{
		"digest": op.Digest, "approver": signer.Approver, "key": signer.Key, "signature": signature,
	}})
	x.wake(m.Now)
	return signed, nil
}

// mayBeSigned says why signatures of an operation are not taken.
func (x *Machine) mayBeSigned(m lease.Moment, op *writv1.Operation) *lease.Error {
	if err := notPending(op); err != nil {
		return err
	}
	if pastExpiry(m, op) {
		return expiredError(op)
	}
	return x.outdated(op)
}

// executed says whether an operation has been executed, so that it never is again.
func executed(op *writv1.Operation) bool {
	return op.State == writv1.OperationState_OPERATION_STATE_EXECUTED && !mutant.On(mutant.ExecutedTwice)
}

// notPending says how an operation has ended.
func notPending(op *writv1.Operation) *lease.Error {
	switch op.State {
	case writv1.OperationState_OPERATION_STATE_PENDING:
		return nil
	case writv1.OperationState_OPERATION_STATE_EXPIRED:
		return expiredError(op)
	case writv1.OperationState_OPERATION_STATE_EXECUTED:
		if !executed(op) {
			return nil
		}
		return &lease.Error{Reason: lease.ReasonConflict, Message: fmt.Sprintf("the operation %s has been executed", op.Id)}
	default:
	}
	word := strings.ToLower(strings.TrimPrefix(op.State.String(), "OPERATION_STATE_"))
	return &lease.Error{Reason: lease.ReasonConflict, Message: fmt.Sprintf("the operation %s is %s: %s", op.Id, word, op.Reason), Fix: "propose it again"}
}

func expiredError(op *writv1.Operation) *lease.Error {
	return &lease.Error{
		Reason: lease.ReasonExpired, Message: fmt.Sprintf("the operation %s expired at %s, by the coordinator's clock", op.Id, op.ExpiresAt.AsTime().Format("2006-01-02T15:04:05Z07:00")),
		Fix: "propose it again",
	}
}

// outdated says why an operation cannot be executed whoever signs it: it was made for another history, or other approvers.
func (x *Machine) outdated(op *writv1.Operation) *lease.Error {
	again := func(problem string) *lease.Error {
		return &lease.Error{Reason: lease.ReasonConflict, Message: problem, Fix: "propose it again"}
	}
	if err := x.bound(op); err != nil {
		return again(err.Error())
	}
	if x.judge() == nil {
		return &lease.Error{Reason: lease.ReasonDenied, Message: "there are no approvers", Fix: noApproversFix}
	}
	document, err := approval.ParseDocument(op.Document)
	if err != nil || document.PolicyVersion != x.approvers.Version {
		return again(fmt.Sprintf("the approvers have changed since, from version %d to %d", document.PolicyVersion, x.approvers.Version))
	}
	return nil
}

func signatureError(err error) *lease.Error {
	var wrong *approval.Error
	if !errors.As(err, &wrong) {
		return lease.Invalid("signature", err.Error(), "sign the document again")
	}
	if errors.Is(err, approval.ErrMalformed) {
		return lease.Invalid("signature", wrong.Problem, wrong.Fix)
	}
	return &lease.Error{Reason: lease.ReasonDenied, Message: "the signature " + wrong.Problem, Fix: wrong.Fix}
}

func (x *Machine) withdraw(m lease.Moment, caller lease.Caller, ask *writv1.WithdrawRequest) (*writv1.Operation, *lease.Error) {
	op, err := x.findOperation(ask.Id)
	if err != nil {
		return nil, err
	}
	if err := notPending(op); err != nil {
		return nil, err
	}
	at := slices.IndexFunc(op.Approvals, func(a *writv1.Approval) bool { return a.Approver == ask.Approver })
	if at < 0 {
		return nil, lease.Errorf(lease.ReasonNotFound, "%s has not signed the operation %s", ask.Approver, op.Id)
	}
	changed := proto.CloneOf(op)
	for _, a := range changed.Approvals {
		a.Withdrawn = a.Withdrawn || a.Approver == ask.Approver
	}
	if proto.Equal(op, changed) {
		return x.showOperation(m, op), nil
	}
	x.storeOperation(changed)
	x.note(lease.Note{Actor: string(caller.Principal), Action: "operation.withdraw", Target: op.Id, Reason: ask.Reason, Detail: map[string]string{"approver": ask.Approver}})
	return x.showOperation(m, changed), nil
}

// counted are the signatures that count now: each is verified again, by the approvers as they are.
func (x *Machine) counted(m lease.Moment, op *writv1.Operation) []approval.Signer {
	var signers []approval.Signer
	for _, a := range op.Approvals {
		if a.Withdrawn {
			continue
		}
		if signer, err := x.judge().Verify(approval.Namespace, op.Document, a.Signature, m.Wall); err == nil && signer.Approver == a.Approver {
			signers = append(signers, signer)
		}
	}
	return signers
}

// operationMissing says what an operation lacks to be executed now; "" if nothing. It takes evidence in place of signatures
// where a promotion is automatic.
func (x *Machine) operationMissing(m lease.Moment, op *writv1.Operation) string {
	if err := notPending(op); err != nil {
		return err.Message
	}
	if err := x.unfit(m, op); err != nil {
		return err.Message
	}
	missing, _ := x.lacking(m, op)
	return missing
}

// unfit says why an operation cannot be executed any more.
func (x *Machine) unfit(m lease.Moment, op *writv1.Operation) *lease.Error {
	if overdue(m, op) {
		return expiredError(op)
	}
	if err := x.outdated(op); err != nil && (err.Reason != lease.ReasonDenied || !x.needsNobody(op)) {
		return err
	}
	return nil
}

// needsNobody: the rule is that nobody signs, or evidence stands for signatures.
func (x *Machine) needsNobody(op *writv1.Operation) bool {
	p := x.promotions[op.Id]
	return p != nil && p.rec.Automatic || x.presentRule(op).GetNone()
}

// lacking says what an operation lacks that may still come, and who has signed it.
func (x *Machine) lacking(m lease.Moment, op *writv1.Operation) (string, []approval.Signer) {
	if p := x.promotions[op.Id]; p != nil && p.rec.Automatic {
		return x.evidenceMissing(m, p), nil
	}
	rule := x.presentRule(op)
	if rule.GetNone() {
		return "", nil
	}
	signers := x.counted(m, op)
	return x.judge().Missing(rule, op.Requester, signers), signers
}

// lackingNothing judges all of an operation again, and changes nothing: it says who has signed, or why it cannot be executed.
// Errors: PENDING, EXPIRED, CONFLICT.
func (x *Machine) lackingNothing(m lease.Moment, op *writv1.Operation) ([]approval.Signer, *lease.Error) {
	if err := notPending(op); err != nil {
		return nil, err
	}
	if err := x.unfit(m, op); err != nil {
		return nil, err
	}
	missing, signers := x.lacking(m, op)
	if missing != "" {
		return nil, &lease.Error{Reason: lease.ReasonPending, Message: fmt.Sprintf("the operation %s lacks %s", op.Id, missing)}
	}
	return signers, nil
}

// executeOperation judges all of an operation again, and marks it executed. Errors: as those of lackingNothing.
func (x *Machine) executeOperation(m lease.Moment, op *writv1.Operation, actor string) *lease.Error {
	op = x.operations[op.Id]
	signers, err := x.lackingNothing(m, op)
	if err == nil {
		x.markExecuted(m, op, actor, signers)
	}
	return err
}

// markExecuted marks an operation that has just been found to lack nothing.
func (x *Machine) markExecuted(m lease.Moment, op *writv1.Operation, actor string, signers []approval.Signer) {
	rule := x.presentRule(op)
	done := proto.CloneOf(op)
	done.State, done.EndedAt = writv1.OperationState_OPERATION_STATE_EXECUTED, timestamppb.New(m.Wall)
	x.storeOperation(done)
	detail := map[string]string{"digest": op.Digest}
	if rule != nil {
		detail["rule"] = jsonOf(rule)
	} else if own := x.approvers.GetRule(); own != nil {
		detail["rule"] = jsonOf(own)
	}
	var names []string
	for _, s := range signers {
		names = append(names, s.Approver)
	}
	slices.Sort(names)
	detail["approvers"] = strings.Join(slices.Compact(names), " ")
	if p := x.promotions[op.Id]; p != nil && p.rec.Automatic {
		detail["automatic"] = "true"
		delete(detail, "rule")
	}
	x.note(lease.Note{Actor: actor, Action: "operation.execute", Target: op.Id, Detail: detail})
}

func (x *Machine) executeOperationRequest(m lease.Moment, caller lease.Caller, ask *writv1.ExecuteOperationRequest) (*writv1.Operation, *lease.Error) {
	op, err := x.findOperation(ask.Id)
	if err != nil {
		return nil, err
	}
	if op.Kind == writv1.OperationKind_OPERATION_KIND_PROMOTION {
		return nil, lease.Invalid("id", "is that of a promotion", "use writ promote execute")
	}
	if executed(op) {
		return x.showOperation(m, op), nil // somebody asks again who did not hear the answer
	}
	if err := x.carryOut(m, op, string(caller.Principal)); err != nil {
		x.note(lease.Note{
			Actor: string(caller.Principal), Action: "operation.refuse", Target: op.Id, Reason: err.Error(),
			Detail: map[string]string{"digest": op.Digest, "request": "execute"},
		})
		return nil, err
	}
	return x.showOperation(m, x.operations[op.Id]), nil
}

// carryOut executes an operation that is not a promotion, and does what it says, or nothing.
func (x *Machine) carryOut(m lease.Moment, op *writv1.Operation, actor string) *lease.Error {
	switch op.Kind {
	case writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE:
		return x.carryOutGroup(m, op, actor)
	case writv1.OperationKind_OPERATION_KIND_APPROVERS_CHANGE:
		return x.carryOutApprovers(m, op, actor)
	default:
	}
	if err := x.mayExecute(m, op); err != nil {
		return err
	}
	if err := x.executeOperation(m, op, actor); err != nil {
		return err
	}
	x.operationExecuted(m, x.operations[op.Id], actor)
	return nil
}

func (x *Machine) carryOutApprovers(m lease.Moment, op *writv1.Operation, actor string) *lease.Error {
	var body approversBody
	next := &writv1.ApproverSet{}
	if err := readBody(op, &body, func() error { return approval.ReadMessage(body.Set, next) }); err != nil {
		return err
	}
	if err := checkApprovers(next); err != nil {
		return err
	}
	if err := x.rulesSatisfiable(next); err != nil {
		return err
	}
	if err := x.executeOperation(m, op, actor); err != nil {
		return err
	}
	x.installApprovers(m, op, next, body.Reason, actor)
	return nil
}

// readBody takes what is to be done from what was signed, and from nowhere else.
func readBody(op *writv1.Operation, body any, more func() error) *lease.Error {
	document, err := approval.ParseDocument(op.Document)
	if err == nil {
		err = json.Unmarshal(document.Body, body)
	}
	if err == nil {
		err = more()
	}
	if err != nil {
		return lease.Errorf(lease.ReasonInternal, "the document of %s cannot be read: %v", op.Id, err)
	}
	return nil
}

// noteRefusal tells that something was asked for which is not done.
func (x *Machine) noteRefusal(caller lease.Caller, target, request string, err *lease.Error) {
	x.note(lease.Note{Actor: string(caller.Principal), Action: "operation.refuse", Target: target, Reason: err.Error(), Detail: map[string]string{"request": request}})
}
