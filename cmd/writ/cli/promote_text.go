package cli

import (
	"fmt"
	"io"
	"strings"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// How promotions and operations are shown to people.

func promotionState(p *writv1.Promotion) cell {
	c := text(enumText(p.GetState()))
	if p.GetStuck() {
		return cell{c.text + " (stuck)", bad}
	}
	switch p.GetState() {
	case writv1.PromotionState_PROMOTION_STATE_DONE:
		c.style = good
	case writv1.PromotionState_PROMOTION_STATE_CANCELLED, writv1.PromotionState_PROMOTION_STATE_EXPIRED, writv1.PromotionState_PROMOTION_STATE_VOID,
		writv1.PromotionState_PROMOTION_STATE_ROLLED_BACK, writv1.PromotionState_PROMOTION_STATE_SUPERSEDED:
		c.style = faint
	default:
		c.style = weak
	}
	return c
}

func (a *app) printPromotions(w io.Writer, all []*writv1.Promotion) {
	var rows [][]cell
	for _, p := range all {
		rows = append(rows, []cell{
			text(p.GetId()), text(p.GetGroup()), text(enumText(p.GetMode())), text(p.GetFrom()), text(p.GetTo()), promotionState(p), text(a.ago(p.GetStateSince())),
			text(spanText(p.GetTimeline().GetTimeToHealthy())), text(oneLine(p.GetReason())),
		})
	}
	a.columns(w, []string{"ID", "GROUP", "MODE", "FROM", "TO", "STATE", "SINCE", "TIME TO HEALTHY", "REASON"}, rows)
}

// printPlan shows what has been planned, and what comes next.
func (a *app) printPlan(w io.Writer, p *writv1.Promotion) {
	op := p.GetOperation()
	a.pairs(w,
		pair{"promotion", text(p.GetId())},
		pair{"group", text(p.GetGroup())},
		pair{"mode", text(enumText(p.GetMode()))},
		pair{"from", text(p.GetFrom())},
		pair{"to", text(p.GetTo())},
		pair{"token", text(bothTokens(p.GetExpectedToken(), fence.Token(p.GetExpectedToken()).String()))},
		pair{"supersedes", text(p.GetSupersedes())},
		pair{"loss cap", text(lossOf(p.GetLossCap()))},
		pair{"expires", text(a.until(op.GetExpiresAt()))},
		pair{"digest", text(op.GetDigest())},
		pair{"has to be signed by", text(ruleText(op.GetRule()))},
		pair{"missing", cell{oneLine(op.GetMissing()), weak}},
	)
}

func (a *app) printPromotion(w io.Writer, p *writv1.Promotion) {
	signed, missing := signedBy(p.GetOperation()), p.GetOperation().GetMissing()
	if p.GetOperation().GetState() != writv1.OperationState_OPERATION_STATE_PENDING {
		missing = ""
	}
	a.pairs(w,
		pair{"promotion", text(p.GetId())},
		pair{"group", text(p.GetGroup())},
		pair{"mode", text(modeText(p))},
		pair{"from", text(p.GetFrom())},
		pair{"to", text(p.GetTo())},
		pair{"state", promotionState(p)},
		pair{"since", text(a.ago(p.GetStateSince()))},
		pair{"reason", cell{oneLine(p.GetReason()), weak}},
		pair{"waits for", cell{waitsText(p.GetWaits()), weak}},
		pair{"old token", text(bothTokens(p.GetExpectedToken(), fence.Token(p.GetExpectedToken()).String()))},
		pair{"token", text(bothTokens(p.GetToken(), fence.Token(p.GetToken()).String()))},
		pair{"signed by", text(signed)},
		pair{"missing", cell{oneLine(missing), weak}},
		pair{"superseded by", text(p.GetSupersededBy())},
		pair{"supersedes", text(p.GetSupersedes())},
		pair{"traffic", text(shiftedText(p))},
		pair{"settled", text(oneLine(p.GetSettlement()))},
	)
	a.printTimeline(w, p.GetTimeline())
	a.printHooks(w, p.GetHooks())
	a.printProofs(w, p.GetProofs())
	a.printTails(w, p.GetTails())
}

func modeText(p *writv1.Promotion) string {
	if p.GetAutomatic() {
		return enumText(p.GetMode()) + " (automatic, on evidence)"
	}
	return enumText(p.GetMode())
}

func shiftedText(p *writv1.Promotion) string {
	if p.GetShifted() == 0 {
		return ""
	}
	return fmt.Sprintf("%d%% shifted to %s", p.GetShifted(), p.GetTo())
}

func signedBy(op *writv1.Operation) string {
	var names []string
	for _, ap := range op.GetApprovals() {
		name := oneLine(ap.GetApprover())
		if ap.GetWithdrawn() {
			name += " (withdrawn)"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

func (a *app) printTimeline(w io.Writer, t *writv1.Timeline) {
	if t == nil {
		return
	}
	_, _ = fmt.Fprintln(w)
	a.pairs(w,
		pair{"detected", text(timeText(t.GetDetected()))}, pair{"acknowledged", text(timeText(t.GetAcknowledged()))},
		pair{"decided", text(timeText(t.GetDecided()))}, pair{"fenced", text(timeText(t.GetFenced()))},
		pair{"serving", text(timeText(t.GetServing()))}, pair{"reconciled", text(timeText(t.GetReconciled()))},
		pair{"time to healthy", text(spanText(t.GetTimeToHealthy()))},
	)
}

func (a *app) printHooks(w io.Writer, hooks []*writv1.HookRun) {
	if len(hooks) == 0 {
		return
	}
	var rows [][]cell
	for _, h := range hooks {
		kind := enumText(h.GetKind())
		if h.GetPercent() > 0 {
			kind += fmt.Sprintf(" %d%%", h.GetPercent())
		}
		rows = append(rows, []cell{text(kind), text(h.GetRegion()), outcomeCell(h), text(spanText(h.GetTook())), text(shortened(oneLine(h.GetOutput())))})
	}
	_, _ = fmt.Fprintln(w)
	a.columns(w, []string{"HOOK", "REGION", "OUTCOME", "TOOK", "OUTPUT"}, rows)
}

func outcomeCell(h *writv1.HookRun) cell {
	c := text(enumText(h.GetOutcome()))
	switch h.GetOutcome() {
	case writv1.HookOutcome_HOOK_OUTCOME_DONE:
		c.style = good
	case writv1.HookOutcome_HOOK_OUTCOME_FAILED, writv1.HookOutcome_HOOK_OUTCOME_TIMED_OUT:
		c.style = bad
	default:
		c.style = weak
	}
	if h.GetSkipped() {
		c.text += " (skipped)"
	}
	return c
}

// shortened is what is shown of a long text in a table.
func shortened(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

func (a *app) printProofs(w io.Writer, proofs []*writv1.GuardProved) {
	if len(proofs) == 0 {
		return
	}
	var rows [][]cell
	for _, p := range proofs {
		rows = append(rows, []cell{text(oneLine(p.GetGuard())), text(p.GetRegion()), text(enumText(p.GetHow())), text(timeText(p.GetAt()))})
	}
	_, _ = fmt.Fprintln(w)
	a.columns(w, []string{"GUARD", "REGION", "PROVED", "AT"}, rows)
}

func (a *app) printTails(w io.Writer, tails []*writv1.Tail) {
	if len(tails) == 0 {
		return
	}
	var rows [][]cell
	for _, t := range tails {
		amount := cell{"unknown", bad}
		if t.Bytes != nil {
			amount = text(bytesAmount(t.GetBytes()))
		}
		rows = append(rows, []cell{
			text(t.GetFrom()), text(t.GetTo()), text(fence.Token(t.GetToken()).String()), amount, text(spanText(t.GetTime())),
			text(oneLine(t.GetLastOfFrom().GetText())), text(oneLine(t.GetLastOfTo().GetText())),
		})
	}
	_, _ = fmt.Fprintln(w)
	a.columns(w, []string{"TAIL FROM", "TO", "UNDER", "BYTES", "TIME", "LAST OF FROM", "LAST OF TO"}, rows)
	for _, t := range tails {
		for _, e := range t.GetEntries() {
			_, _ = fmt.Fprintln(w, oneLine(e))
		}
	}
}

func (a *app) printOperations(w io.Writer, all []*writv1.Operation) {
	var rows [][]cell
	for _, o := range all {
		rows = append(rows, []cell{
			text(o.GetId()), text(enumText(o.GetKind())), operationState(o), text(a.ago(o.GetCreatedAt())), text(oneLine(o.GetRequester())),
			text(signedBy(o)), text(oneLine(o.GetMissing())),
		})
	}
	a.columns(w, []string{"ID", "KIND", "STATE", "CREATED", "REQUESTER", "SIGNED BY", "MISSING"}, rows)
}

func operationState(o *writv1.Operation) cell {
	c := text(enumText(o.GetState()))
	switch o.GetState() {
	case writv1.OperationState_OPERATION_STATE_PENDING:
		c.style = weak
	case writv1.OperationState_OPERATION_STATE_EXECUTED:
		c.style = good
	default:
		c.style = faint
	}
	return c
}

func (a *app) printOperation(w io.Writer, o *writv1.Operation) {
	missing, expires := o.GetMissing(), a.until(o.GetExpiresAt())
	if o.GetState() != writv1.OperationState_OPERATION_STATE_PENDING {
		missing, expires = "", timeText(o.GetExpiresAt())
	}
	a.pairs(w,
		pair{"operation", text(o.GetId())},
		pair{"kind", text(enumText(o.GetKind()))},
		pair{"group", text(o.GetGroup())},
		pair{"promotion", text(o.GetPromotion())},
		pair{"state", operationState(o)},
		pair{"reason", text(oneLine(o.GetReason()))},
		pair{"requester", text(oneLine(o.GetRequester()))},
		pair{"created", text(a.ago(o.GetCreatedAt()))},
		pair{"expires", text(expires)},
		pair{"digest", text(o.GetDigest())},
		pair{"has to be signed by", text(ruleText(o.GetRule()))},
		pair{"signed by", text(signedBy(o))},
		pair{"missing", cell{oneLine(missing), weak}},
	)
}
