//writ:core

package region

import (
	"cmp"
	"encoding/json"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
	"github.com/writ-io/writ/sim/mutant"
)

// putOff is answered within the machine by a call that has to wait for the next round: the promotion has made its transition
// of this one.
const putOff lease.Reason = "PUT_OFF"

// named finds a promotion that may make a transition now.
func (x *Machine) named(id string) (*promotion, *lease.Error) {
	p := x.promotions[id]
	switch {
	case p == nil:
		return nil, &lease.Error{Reason: lease.ReasonNotFound, Message: "there is no promotion " + strconv.Quote(id), Fix: "`writ promote list` names those that there are"}
	case p.moved:
		return nil, &lease.Error{Reason: putOff}
	}
	return p, nil
}

// execute begins a promotion whose signatures are in.
func (x *Machine) execute(m lease.Moment, caller lease.Caller, ask *writv1.ExecuteRequest) (*writv1.Promotion, *lease.Error) {
	p, err := x.named(ask.Id)
	if err != nil {
		return nil, err
	}
	switch p.rec.State {
	case proposed, approving:
	case expired:
		return nil, lease.Errorf(lease.ReasonExpired, "%s has expired: plan anew", p.rec.Id)
	case cancelled, void, superseded, rolledBack:
		return nil, lease.Errorf(lease.ReasonConflict, "%s has ended: it is %s; plan anew", p.rec.Id, stateName(p.rec.State))
	default:
		if p.rec.State == done && mutant.On(mutant.ExecutedTwiceAfterUnknown) {
			x.tenures.FenceTenure(m, resourceOf(p.group.rec.Spec))
		}
		return x.show(m, p), nil
	}
	if err := x.mayBegin(m, p); err != nil {
		x.noteRefusal(caller, p.rec.Id, "execute", err)
		return nil, err
	}
	x.begin(m, p, string(caller.Principal))
	return x.show(m, p), nil
}

// mayBegin says what a promotion lacks.
func (x *Machine) mayBegin(m lease.Moment, p *promotion) *lease.Error {
	op, g := x.operations[p.rec.Id], p.group
	switch {
	case x.overdue(m, p):
		return lease.Errorf(lease.ReasonExpired, "%s expired at %s: plan anew", p.rec.Id, op.ExpiresAt.AsTime().UTC().Format("15:04:05"))
	case x.tokenMoved(p):
		return staleToken(g, p.rec.ExpectedToken, x.tenures.Tenure(resourceOf(g.rec.Spec)).Token)
	case g.rec.Version != p.rec.GroupVersion:
		return lease.Errorf(lease.ReasonConflict, "%s has version %d, and %s was planned with version %d: plan anew", g.name, g.rec.Version, p.rec.Id, p.rec.GroupVersion)
	}
	if missing := x.operationMissing(m, op); missing != "" {
		return lease.Errorf(lease.ReasonPending, "%s cannot be executed yet: %s", p.rec.Id, missing)
	}
	return nil
}

func (x *Machine) overdue(m lease.Moment, p *promotion) bool {
	op := x.operations[p.rec.Id]
	return op != nil && op.ExpiresAt != nil && !m.Wall.Before(op.ExpiresAt.AsTime())
}

// tokenMoved says whether the group's token is another one than the plan was made for.
func (x *Machine) tokenMoved(p *promotion) bool {
	t := x.tenures.Tenure(resourceOf(p.group.rec.Spec))
	if inConflict(p.group) && !endsConflict(p.rec) {
		return true // people have to name the primary first
	}
	return t.Token != fence.Token(p.rec.ExpectedToken) && !mutant.On(mutant.PromotionWithoutTokenCompare)
}

// abort cancels a promotion, or rolls it back.
func (x *Machine) abort(m lease.Moment, caller lease.Caller, ask *writv1.AbortRequest) (*writv1.Promotion, *lease.Error) {
	p, err := x.named(ask.Id)
	if err != nil {
		return nil, err
	}
	actor, reason := string(caller.Principal), cmp.Or(ask.Reason, "aborted")
	switch p.rec.State {
	case proposed, approving, preflight:
		x.cancel(m, p, moveAbort, actor, reason)
	case draining:
		x.undrain(m, p, moveAbortDrain, actor, reason)
	case granted:
		if p.rec.From == "" {
			return nil, lease.Errorf(lease.ReasonConflict, "%s has given %s the tenure, and nobody had it before: plan a successor", p.rec.Id, p.rec.To)
		}
		if x.tenures.FenceTenure(m, resourceOf(p.group.rec.Spec)) == 0 {
			return nil, noTokens()
		}
		x.rollBack(m, p, actor, reason)
	case fencing, tail:
		x.rollBack(m, p, actor, reason)
	case undraining, rollingBack, cancelled, rolledBack:
	case verifying, degraded, reconciled:
		return nil, lease.Errorf(lease.ReasonConflict, "%s is %s: %s has the tenure and may have written; plan a successor instead", p.rec.Id, stateName(p.rec.State), p.rec.To)
	default:
		return nil, lease.Errorf(lease.ReasonConflict, "%s has ended: it is %s", p.rec.Id, stateName(p.rec.State))
	}
	return x.show(m, p), nil
}

func noTokens() *lease.Error {
	return lease.Errorf(lease.ReasonNoQuorum, "there is no token to be had at the moment; ask again")
}

// resume tries again what failed.
func (x *Machine) resume(m lease.Moment, caller lease.Caller, ask *writv1.ResumeRequest) (*writv1.Promotion, *lease.Error) {
	p, err := x.named(ask.Id)
	if err != nil {
		return nil, err
	}
	if PromotionEnded(p.rec.State) {
		return nil, lease.Errorf(lease.ReasonConflict, "%s has ended: it is %s", p.rec.Id, stateName(p.rec.State))
	}
	if !p.rec.Stuck {
		return x.show(m, p), nil
	}
	n, failed := x.nextNeed(p)
	failed = failed && lastRun(p.rec, n) >= 0
	if ask.SkipHook {
		switch {
		case !failed:
			return nil, lease.Invalid("skip_hook", "is set, and no hook has failed", "leave it out")
		case n.kind == writv1.HookKind_HOOK_KIND_VERIFY:
			return nil, lease.Invalid("skip_hook", "is set, and verify must not be skipped", "make the hook succeed, or plan a successor")
		}
	}
	p.since = m.Now
	x.changePromotion(p, func(rec *writv1.Promotion) {
		rec.Stuck, rec.Reason = false, ""
		switch {
		case !failed:
		case ask.SkipHook:
			rec.Hooks[lastRun(rec, n)].Skipped = true
		default:
			x.ask(m, p, rec, n)
		}
	})
	x.note(lease.Note{Actor: string(caller.Principal), Action: "promotion.resume", Target: p.rec.Id, Reason: ask.Reason, Detail: map[string]string{
		"group": p.rec.Group, "state": stateName(p.rec.State), "skip_hook": strconv.FormatBool(ask.SkipHook)}})
	if !failed && p.rec.State == tail {
		x.askForTail(m, p)
	}
	x.wake(m.Now)
	return x.show(m, p), nil
}

// acknowledge notes that somebody has taken the matter in hand.
func (x *Machine) acknowledge(m lease.Moment, caller lease.Caller, ask *writv1.AcknowledgeRequest) (*writv1.Promotion, *lease.Error) {
	p, err := x.named(ask.Id)
	if err != nil {
		return nil, err
	}
	if p.rec.Timeline.GetAcknowledged() == nil {
		x.changePromotion(p, func(rec *writv1.Promotion) { rec.Timeline.Acknowledged = timestamppb.New(m.Wall) })
		x.note(lease.Note{Actor: string(caller.Principal), Action: "promotion.acknowledge", Target: p.rec.Id, Detail: map[string]string{"group": p.rec.Group}})
	}
	return x.show(m, p), nil
}

// reinstate answers the operation that settles what was lost.
func (x *Machine) reinstate(m lease.Moment, caller lease.Caller, ask *writv1.ReinstateRequest) (*writv1.Operation, *lease.Error) {
	p, err := x.named(ask.Id)
	if err != nil {
		return nil, err
	}
	if err := x.maySettle(p); err != nil {
		return nil, err
	}
	if _, known := writv1.Disposition_name[int32(ask.Disposition)]; !known || ask.Disposition == writv1.Disposition_DISPOSITION_UNSPECIFIED {
		return nil, lease.Invalid("disposition", "has to be said", "give replayed, accepted or discarded")
	}
	op, err := x.newOperation(m, proposal{
		kind: writv1.OperationKind_OPERATION_KIND_SETTLEMENT, group: p.group, promotion: p.rec.Id, rule: x.ruleForChange(p.group),
		requester: string(caller.Principal), reason: ask.Reason,
		body: map[string]any{"promotion": p.rec.Id, "disposition": dispositionName(ask.Disposition), "tails": tailsBody(p.rec.Tails), "reason": ask.Reason},
	})
	if err != nil {
		return nil, err
	}
	return x.showOperation(m, op), nil
}

func dispositionName(d writv1.Disposition) string {
	return strings.ToLower(strings.TrimPrefix(d.String(), "DISPOSITION_"))
}

// maySettle says whether there is a loss to be settled.
func (x *Machine) maySettle(p *promotion) *lease.Error {
	lost := len(p.rec.Tails) > 0 || p.rec.State == degraded
	switch p.rec.State {
	case verifying, degraded, rolledBack, void:
		if lost && p.rec.Settlement == "" {
			return nil
		}
		return lease.Errorf(lease.ReasonConflict, "%s has nothing to be settled", p.rec.Id)
	default:
	}
	return lease.Errorf(lease.ReasonConflict, "%s is %s: what was lost is settled when the target serves", p.rec.Id, stateName(p.rec.State))
}

// signed is what this file reads back of the documents that it had made.
type signed struct {
	Body struct{ Guard, Token, Disposition string }
}

func readSigned(op *writv1.Operation) signed {
	var s signed
	if json.Unmarshal(op.Document, &s) != nil {
		return signed{}
	}
	return s
}

// mayExecute says why an operation (TAIL, SETTLEMENT, ATTESTATION) cannot be executed now.
func (x *Machine) mayExecute(m lease.Moment, op *writv1.Operation) *lease.Error {
	if ofGuard(op) {
		return x.mayGiveUp(m, op)
	}
	p, err := x.named(op.Promotion)
	if err != nil {
		return err
	}
	switch op.Kind {
	case writv1.OperationKind_OPERATION_KIND_TAIL:
		if p.rec.State != tail {
			return lease.Errorf(lease.ReasonConflict, "%s is %s and waits for no loss to be accepted", p.rec.Id, stateName(p.rec.State))
		}
	case writv1.OperationKind_OPERATION_KIND_SETTLEMENT:
		return x.maySettle(p)
	case writv1.OperationKind_OPERATION_KIND_ATTESTATION:
		body := readSigned(op).Body
		if fenced := x.tenures.Tenure(resourceOf(p.group.rec.Spec)).Fencing; body.Token != fenced.Decimal() {
			return lease.Errorf(lease.ReasonConflict, "%s was made for the token %s, and guards are being raised to %s: ask for another", op.Id, body.Token, fenced.Decimal())
		}
		return x.mayAttest(p, body.Guard)
	default:
	}
	return nil
}

// operationExecuted does what such an operation says; it has just been marked.
func (x *Machine) operationExecuted(m lease.Moment, op *writv1.Operation, actor string) {
	if ofGuard(op) {
		x.giveUp(m, op, actor)
		return
	}
	p := x.promotions[op.Promotion]
	if p == nil {
		return
	}
	switch op.Kind {
	case writv1.OperationKind_OPERATION_KIND_ATTESTATION:
		x.attestAgain(m, p)
	case writv1.OperationKind_OPERATION_KIND_SETTLEMENT:
		x.changePromotion(p, func(rec *writv1.Promotion) { rec.Settlement = readSigned(op).Body.Disposition })
		if PromotionEnded(p.rec.State) {
			x.liftQuarantine(p)
			x.changePromotion(p, func(rec *writv1.Promotion) { x.askBystanders(m, p, rec) })
		}
	default:
	}
	x.wake(m.Now)
}

func tailsBody(tails []*writv1.Tail) []any {
	out := make([]any, 0, len(tails))
	for _, t := range tails {
		out = append(out, map[string]any{
			"from": t.From, "to": t.To, "token": strconv.FormatUint(t.Token, 10), "last_of_from": positionBody(t.LastOfFrom),
			"last_of_to": positionBody(t.LastOfTo), "loss": tailLoss(t),
		})
	}
	return out
}

// tailsText is what documents say of tails, for a record.
func tailsText(tails []*writv1.Tail) string {
	written, err := approval.Canonical(tailsBody(tails))
	if err != nil {
		return "" // invalid UTF-8, which the API does not let in
	}
	return string(written)
}
