//writ:core

package region

import (
	"fmt"
	"slices"
	"strings"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// The states, by short names.
const (
	none        = writv1.PromotionState_PROMOTION_STATE_UNSPECIFIED
	proposed    = writv1.PromotionState_PROMOTION_STATE_PROPOSED
	approving   = writv1.PromotionState_PROMOTION_STATE_APPROVING
	preflight   = writv1.PromotionState_PROMOTION_STATE_PREFLIGHT
	draining    = writv1.PromotionState_PROMOTION_STATE_DRAINING
	fencing     = writv1.PromotionState_PROMOTION_STATE_FENCING
	tail        = writv1.PromotionState_PROMOTION_STATE_TAIL
	granted     = writv1.PromotionState_PROMOTION_STATE_GRANTED
	verifying   = writv1.PromotionState_PROMOTION_STATE_VERIFYING
	degraded    = writv1.PromotionState_PROMOTION_STATE_DEGRADED
	reconciled  = writv1.PromotionState_PROMOTION_STATE_RECONCILED
	done        = writv1.PromotionState_PROMOTION_STATE_DONE
	cancelled   = writv1.PromotionState_PROMOTION_STATE_CANCELLED
	expired     = writv1.PromotionState_PROMOTION_STATE_EXPIRED
	superseded  = writv1.PromotionState_PROMOTION_STATE_SUPERSEDED
	void        = writv1.PromotionState_PROMOTION_STATE_VOID
	rolledBack  = writv1.PromotionState_PROMOTION_STATE_ROLLED_BACK
	undraining  = writv1.PromotionState_PROMOTION_STATE_UNDRAINING
	rollingBack = writv1.PromotionState_PROMOTION_STATE_ROLLING_BACK
)

// PromotionEnded says whether nothing comes after a state.
func PromotionEnded(s writv1.PromotionState) bool {
	switch s {
	case done, cancelled, expired, superseded, void, rolledBack:
		return true
	default:
		return false
	}
}

// Transition is a row of the table of transitions: a promotion moves only along one of them.
type Transition struct {
	// Name tells it from the others, and stands in the audit record of each time it is taken.
	Name move
	From []writv1.PromotionState
	To   writv1.PromotionState
	// When it is taken, and what it does besides, for people.
	When, Does string
}

// move names a transition.
type move string

// The transitions.
const (
	movePlan       move = "plan"
	moveCollect    move = "collect"
	moveBegin      move = "begin"
	moveBeginNow   move = "begin-at-once"
	moveAbort      move = "abort"
	moveExpire     move = "expire"
	moveTokenMoved move = "token-moved"
	moveDrain      move = "drain"
	moveFence      move = "fence"
	moveDrained    move = "drained"
	moveAbortDrain move = "abort-drain"
	moveMissDrain  move = "miss-drain"
	moveUndrained  move = "undrained"
	moveClean      move = "clean"
	moveTail       move = "tail"
	moveGrant      move = "grant"
	moveRollBack   move = "roll-back"
	moveRolledBack move = "rolled-back"
	moveVerify     move = "verify"
	moveVerified   move = "verified"
	moveDegrade    move = "degrade"
	moveSettle     move = "settle"
	moveReconcile  move = "reconcile"
	moveSupersede  move = "supersede"
	moveVoid       move = "void"
)

func from(states ...writv1.PromotionState) []writv1.PromotionState { return states }

// Transitions is the table: every transition that there is.
func Transitions() []Transition {
	return []Transition{
		{movePlan, from(none), proposed, "`Plan` is asked for, and nothing stands in its way",
			"freezes the plan in the document of its operation"},
		{moveCollect, from(proposed), approving, "the next round", "signatures are collected"},
		{moveBegin, from(approving), preflight, "`Execute` is asked for and nothing is missing; an automatic promotion begins by itself",
			"the promotion is the group's"},
		{moveBeginNow, from(proposed), preflight, "`Execute` comes before the next round, and nobody has to sign",
			"the promotion is the group's"},
		{moveAbort, from(proposed, approving, preflight), cancelled, "`Abort` is asked for", "ends the operation"},
		{moveExpire, from(approving, preflight), expired, "the plan has expired by the coordinator's wall clock", "ends the operation"},
		{moveTokenMoved, from(preflight), cancelled, "the group's token is not the expected one any more",
			"ends the operation: the plan was for what is over"},
		{moveDrain, from(preflight), draining, "every check holds; a switchover or failback, and the group has a `drain` hook",
			"asks A to drain"},
		{moveFence, from(preflight), fencing, "every check holds, and there is nothing to drain",
			"**executes**: judges the operation again, compares the token, ends A's tenure and raises every guard"},
		{moveDrained, from(draining), fencing, "A has drained, B has reached A's position, every check holds still",
			"**executes**, as above"},
		{moveAbortDrain, from(draining), undraining, "`Abort` is asked for", "asks A to write again"},
		{moveMissDrain, from(draining), undraining, "the deadline has passed, or the token moved, or the plan expired",
			"asks A to write again"},
		{moveUndrained, from(undraining), cancelled, "the `undrain` hook has succeeded, is optional, was skipped, or there is none",
			"ends the operation; A goes on under its token"},
		{moveClean, from(fencing), granted, "every guard is proved, A has drained and B has reached its position",
			"gives B the tenure; asks B for `promote`, and A for `demote`"},
		{moveTail, from(fencing), tail, "every guard is proved, and B may lack writes of A",
			"notes the tail; above the cap, or unknown: makes the operation that accepts it"},
		{moveGrant, from(tail), granted, "the tail is within the cap, or its operation has been executed",
			"gives B the tenure, quarantines A; asks B for `promote`, and A for `demote`"},
		{moveRollBack, from(fencing, tail, granted), rollingBack, "`Abort` is asked for",
			"from GRANTED ends B's tenure and raises every guard again"},
		{moveRolledBack, from(rollingBack), rolledBack, "A has a newer token, and its `undrain` (or else `reinstate`) hook and, if B was asked to `shift`, its own `shift` back have succeeded, are optional, were skipped, or there are none; after a recovery: nobody has one",
			"A is primary again; if B had the tenure it is quarantined"},
		{moveVerify, from(granted), verifying, "`promote` and every step of `shift` have succeeded", "asks B for `verify`"},
		{moveVerified, from(verifying), done, "`verify` has succeeded, and nothing was lost",
			"B serves; A is asked to follow it, which nothing waits for"},
		{moveDegrade, from(verifying), degraded, "`verify` has succeeded, and A was not drained, or a tail is open",
			"B serves; A stays in quarantine"},
		{moveSettle, from(degraded), reconciled, "a settlement has been executed", "asks A for `reinstate`"},
		{moveReconcile, from(reconciled), done, "every `reinstate` has succeeded, is optional, was skipped, or there is none", "A leaves quarantine"},
		{moveSupersede, from(granted, verifying, degraded), superseded, "a successor enters FENCING, in the same commit",
			"the successor takes the tails over"},
		{moveVoid, from(proposed, approving, preflight, draining, undraining, fencing, tail, granted, verifying, degraded, reconciled, rollingBack), void,
			"a coordinator of a newer epoch takes over", "ends the operation; the group is RECOVERED"},
	}
}

// row is a transition by its name.
func (name move) row() Transition {
	for _, t := range Transitions() {
		if t.Name == name {
			return t
		}
	}
	panic("region: there is no transition " + string(name))
}

// check holds a transition against the state that it is taken from.
func (t Transition) check(p *promotion) {
	state := none
	if p.rec != nil {
		state = p.rec.State
	}
	if !slices.Contains(t.From, state) || p.moved {
		panic(fmt.Sprintf("region: promotion %s takes %q in %s, moved in this round: %t", p.rec.GetId(), t.Name, stateName(state), p.moved))
	}
}

// stateName is a state as people call it.
func stateName(s writv1.PromotionState) string {
	if s == none {
		return "(none)"
	}
	return strings.TrimPrefix(s.String(), "PROMOTION_STATE_")
}

// modeName is a mode as people call it.
func modeName(mode writv1.PromotionMode) string {
	return strings.ToLower(strings.TrimPrefix(mode.String(), "PROMOTION_MODE_"))
}

// hookName is a hook as configurations call it.
func hookName(kind writv1.HookKind) string {
	return strings.ToLower(strings.TrimPrefix(kind.String(), "HOOK_KIND_"))
}

// TransitionsTable is the table in Markdown, as docs/PROMOTION.md shows it.
func TransitionsTable() string {
	var b strings.Builder
	b.WriteString("| transition | from | to | when | what it does |\n|---|---|---|---|---|\n")
	for _, t := range Transitions() {
		states := make([]string, len(t.From))
		for i, s := range t.From {
			states[i] = stateName(s)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", t.Name, strings.Join(states, ", "), stateName(t.To), t.When, t.Does)
	}
	return b.String()
}
