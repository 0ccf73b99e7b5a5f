//writ:core

package region

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// What has to hold before A's tenure ends, and what is lost when it has. Unknown is never taken for dead, nor for nothing.

// preflight says what stands in the way of a promotion. unknown: it may only not have been heard of yet.
func (x *Machine) preflight(m lease.Moment, p *promotion) (problem string, unknown bool) {
	g, rec := p.group, p.rec
	if g.rec.Version != rec.GroupVersion {
		return fmt.Sprintf("the group has version %d, and the plan was made for version %d: abort, and plan anew", g.rec.Version, rec.GroupVersion), false
	}
	if old := x.promotions[rec.Supersedes]; !x.eligible(g, rec.To, old) {
		return rec.To + " is in quarantine: settle what it lost with `writ promote reinstate`", false
	}
	if problem := x.checkGuards(g, rec.To); problem != "" {
		return problem, false
	}
	if problem, unknown := x.checkTarget(m, p); problem != "" {
		return problem, unknown
	}
	if drains(rec.Mode) && x.needed(g, writv1.HookKind_HOOK_KIND_DRAIN, rec.From) != nil && x.fresh(m, g, rec.From) == nil {
		return "nothing is heard of the agent of " + rec.From + ", which has to drain: start it, or plan a failover", true
	}
	a, b := x.fresh(m, g, rec.From), x.fresh(m, g, rec.To)
	if a.GetConfigDigest() != "" && b.GetConfigDigest() != "" && a.ConfigDigest != b.ConfigDigest {
		return fmt.Sprintf("the configurations differ: %s has %s, and %s has %s", rec.From, a.ConfigDigest, rec.To, b.ConfigDigest), false
	}
	return "", false
}

// checkGuards says which guard that the spec names cannot be proved, or would not let the target write.
func (x *Machine) checkGuards(g *group, to string) string {
	enrolled := x.tenures.TenureGuards(resourceOf(g.rec.Spec))
	for _, r := range g.rec.Spec.Regions {
		for _, name := range r.Guards {
			at := slices.IndexFunc(enrolled, func(e lease.TenureGuard) bool { return e.Name == name })
			switch {
			case at < 0:
				return fmt.Sprintf("the guard %q of %s is not enrolled for %s: start it, or take it out of the group's spec", name, r.Name, resourceOf(g.rec.Spec))
			case r.Name == to && enrolled[at].Out:
				return fmt.Sprintf("the guard %q of %s is out, and would refuse every write: bring it back", name, r.Name)
			}
		}
	}
	return ""
}

// checkTarget says what the target lacks.
func (x *Machine) checkTarget(m lease.Moment, p *promotion) (problem string, unknown bool) {
	g, to := p.group, p.rec.To
	r := findRegion(g.rec.Spec, to)
	if r == nil {
		return "the group has no region " + to, false
	}
	if r.Agent == "" {
		for _, kind := range []writv1.HookKind{writv1.HookKind_HOOK_KIND_PROMOTE, writv1.HookKind_HOOK_KIND_SHIFT, writv1.HookKind_HOOK_KIND_VERIFY} {
			if h := hookOf(g.rec.Spec, kind); h != nil && !h.Optional {
				return fmt.Sprintf("the group needs the hook %s, and %s has no agent to run it", hookName(kind), to), false
			}
		}
		return "", false
	}
	report := x.fresh(m, g, to)
	if report == nil {
		return "nothing is heard of the agent of " + to + ": start it, and resume", true
	}
	switch report.Health {
	case writv1.Health_HEALTH_OK:
	case writv1.Health_HEALTH_DEGRADED:
		if report.Detail == "" {
			return to + " says that it is degraded, and not why", false
		}
	default:
		return fmt.Sprintf("%s is not healthy: %s %s", to, healthName(report.Health), report.Detail), false
	}
	if least := g.rec.Spec.Headroom; least > 0 && (report.Headroom == nil || *report.Headroom < least) {
		have := "unknown"
		if report.Headroom != nil {
			have = perMille(*report.Headroom)
		}
		return fmt.Sprintf("the headroom of %s is %s, and has to be %s at least", to, have, perMille(least)), report.Headroom == nil
	}
	return x.checkLag(m, p, report)
}

func perMille(n uint32) string {
	return strconv.FormatFloat(float64(n)/10, 'f', 1, 64) + " %"
}

// checkLag holds the target's lag against the group's rpo. A failover for which people have said how much may be lost goes on.
func (x *Machine) checkLag(m lease.Moment, p *promotion, report *writv1.GroupReport) (problem string, unknown bool) {
	g, rpo := p.group, p.group.rec.Spec.Rpo
	switch p.rec.Mode {
	case writv1.PromotionMode_PROMOTION_MODE_RECOVER:
		return "", false
	case writv1.PromotionMode_PROMOTION_MODE_FAILOVER:
		if p.rec.LossCap != nil {
			return "", false
		}
	default:
	}
	lost := x.estimate(m, g, p.rec)
	least, known := leastBytes(lost)
	switch {
	case rpo == nil:
	case rpo.Time != nil && report.Lag == nil:
		return "the lag of " + p.rec.To + " is not known: look at its agent's probe, or plan a failover with the loss that you accept", true
	case rpo.Time != nil && report.Lag.AsDuration() > rpo.Time.AsDuration():
		return fmt.Sprintf("%s lags by %v, and the rpo is %v", p.rec.To, report.Lag.AsDuration(), rpo.Time.AsDuration()), false
	case rpo.Bytes != nil && lost.Bytes == nil && (!known || rpo.Time == nil):
		return "how many bytes " + p.rec.To + " lags is not known: look at its agent's probe, or plan a failover with the loss that you accept", true
	case rpo.Bytes != nil && least > *rpo.Bytes:
		return fmt.Sprintf("%s lags by %d bytes, and the rpo is %d", p.rec.To, least, *rpo.Bytes), false
	}
	return "", false
}

func healthName(h writv1.Health) string { return strings.TrimPrefix(h.String(), "HEALTH_") }

// estimate is what would be lost if nothing more came from A: what is known of both positions, each as it was last heard of.
// Bytes are told only where A is heard of, or has drained. What A wrote since it fell silent is bounded by time alone.
func (x *Machine) estimate(m lease.Moment, g *group, rec *writv1.Promotion) *writv1.Tail {
	origin := originOf(g, rec)
	lost := &writv1.Tail{From: origin, To: rec.To, Token: rec.ExpectedToken, LastOfFrom: rec.Drained}
	a, b := x.sight(g, origin), x.fresh(m, g, rec.To)
	if b == nil {
		if lost.LastOfFrom == nil && a != nil {
			lost.LastOfFrom = a.report.GetPosition()
		}
		return lost
	}
	lost.LastOfTo = b.Position
	if lost.LastOfFrom == nil {
		lost.LastOfFrom = b.Upstream
		if a != nil && a.report.GetPosition() != nil && !beyond(b.Upstream, a.report.Position) {
			lost.LastOfFrom = a.report.Position
		}
	}
	if bytes, known := leastBytes(lost); known && (rec.Drained != nil || x.fresh(m, g, origin) != nil) {
		lost.Bytes = &bytes
	}
	if silent, ever := x.silence(m, g, origin); b.Lag != nil && ever {
		lost.Time = durationpb.New(b.Lag.AsDuration() + silent)
	}
	return lost
}

// originOf is the region whose writes a promotion may lose.
func originOf(g *group, rec *writv1.Promotion) string {
	if rec.Mode == writv1.PromotionMode_PROMOTION_MODE_RECOVER {
		return g.rec.LastPrimary
	}
	return rec.From
}

// silence is how old what is known of a region is; false if nothing is.
func (x *Machine) silence(m lease.Moment, g *group, region string) (time.Duration, bool) {
	v := x.sight(g, region)
	if v == nil || v.report == nil {
		return 0, false
	}
	return max(m.Now.Sub(v.at), 0) + max(v.report.Age.AsDuration(), 0), true
}

// leastBytes is how many bytes lie between the positions of a loss: so many are lost at least.
func leastBytes(lost *writv1.Tail) (uint64, bool) {
	a, b := lost.LastOfFrom, lost.LastOfTo
	if a == nil || b == nil || a.Log != b.Log {
		return 0, false
	}
	return a.Bytes - min(a.Bytes, b.Bytes), true
}

// beyond says whether a is known to be further than b in the same log.
func beyond(a, b *writv1.Position) bool {
	return a != nil && b != nil && a.Log == b.Log && a.Bytes > b.Bytes
}

// caughtUp says what B lacks of what A had when it had drained; "" if nothing.
func (x *Machine) caughtUp(m lease.Moment, p *promotion) string {
	rec := p.rec
	at := lastRun(rec, need{kind: writv1.HookKind_HOOK_KIND_DRAIN, region: rec.From})
	if at < 0 || rec.Hooks[at].Outcome != writv1.HookOutcome_HOOK_OUTCOME_DONE {
		return "" // it was skipped: what is lost is told when A has been fenced
	}
	b := x.fresh(m, p.group, rec.To)
	switch {
	case b == nil && x.hasAgent(p.group, rec.To):
		return "nothing is heard of the agent of " + rec.To
	case rec.Drained == nil && b.GetPosition() == nil:
		return "" // there is no data whose positions are told
	case rec.Drained == nil:
		return rec.From + " did not say how far its data had got"
	case b.GetPosition() == nil:
		return rec.To + " does not say how far its data has got"
	case rec.Drained.Log != b.Position.Log:
		return fmt.Sprintf("%s follows the log %s, and %s wrote %s", rec.To, b.Position.Log, rec.From, rec.Drained.Log)
	case b.Position.Bytes < rec.Drained.Bytes:
		return fmt.Sprintf("%s has %d bytes of %d", rec.To, b.Position.Bytes, rec.Drained.Bytes)
	}
	return ""
}

func (x *Machine) hasAgent(g *group, region string) bool {
	return findRegion(g.rec.Spec, region).GetAgent() != ""
}

// lost says what B may lack now that A is fenced; clean: nothing. Neither: it will be known soon.
func (x *Machine) lost(m lease.Moment, p *promotion) (lost *writv1.Tail, clean bool) {
	g, rec := p.group, p.rec
	switch {
	case rec.Mode == writv1.PromotionMode_PROMOTION_MODE_RECOVER:
		if fence.Token(rec.ExpectedToken) == 0 || g.rec.LastPrimary == rec.To {
			return nil, true // what is open of before is settled afterwards
		}
	case drains(rec.Mode):
		at := lastRun(rec, need{kind: writv1.HookKind_HOOK_KIND_DRAIN, region: rec.From})
		if at >= 0 && rec.Hooks[at].Outcome == writv1.HookOutcome_HOOK_OUTCOME_DONE {
			return nil, true // B had reached it before A was fenced
		}
		if at < 0 {
			return x.settled(m, p)
		}
	}
	estimate := x.afterFencing(m, p)
	if x.fresh(m, g, originOf(g, rec)) != nil && !within(estimate, x.limitOf(p)) && m.Now < p.proved.Add(x.settleFor()) {
		return nil, false // A is heard of, and may yet say how far it got
	}
	return estimate, false
}

// settleFor is how long reports that were made after fencing are waited for.
func (x *Machine) settleFor() time.Duration { return 2 * x.freshFor() }

// lookedAfterFencing says whether what is known of a region was looked at when every guard had been proved: then it does not
// change any more. A report that was on its way, or came from an older look, says nothing of the last writes.
func lookedAfterFencing(v *regionView, p *promotion) bool {
	return v != nil && v.report != nil && v.looked > p.proved
}

// afterFencing is the estimate when A has been fenced. Its bytes are all only if A drained, or was looked at since.
func (x *Machine) afterFencing(m lease.Moment, p *promotion) *writv1.Tail {
	lost := x.estimate(m, p.group, p.rec)
	if p.rec.Drained == nil && !lookedAfterFencing(x.sight(p.group, originOf(p.group, p.rec)), p) {
		lost.Bytes = nil
	}
	return lost
}

// settled is for groups without a drain hook: the guards have drained A, so what is looked at since tells what it had.
func (x *Machine) settled(m lease.Moment, p *promotion) (*writv1.Tail, bool) {
	g, rec := p.group, p.rec
	a, b := x.sight(g, rec.From), x.sight(g, rec.To)
	if !x.hasAgent(g, rec.From) && !x.hasAgent(g, rec.To) {
		return nil, true
	}
	estimate := x.afterFencing(m, p)
	switch both := lookedAfterFencing(a, p) && lookedAfterFencing(b, p); {
	case both && a.report.Position == nil && b.report.Position == nil && b.report.Upstream == nil:
		return nil, true // there is no data whose positions are told
	case both && estimate.Bytes != nil && *estimate.Bytes == 0:
		return nil, true
	case m.Now < p.proved.Add(x.settleFor()):
		return nil, false
	}
	return estimate, false
}

// accepts says whether what p loses is within what it may lose.
func (x *Machine) accepts(p *promotion) bool {
	limit := x.limitOf(p)
	for _, lost := range p.rec.Tails {
		if lost.Token == p.rec.ExpectedToken && !within(lost, limit) {
			return false
		}
	}
	return true
}

// limitOf is what a promotion may lose without asking again.
func (x *Machine) limitOf(p *promotion) *writv1.Loss {
	rpo := p.group.rec.Spec.Rpo
	if p.rec.LossCap == nil || x.capTooLoose(p.group, p.rec.Mode, p.rec.LossCap) {
		return rpo
	}
	return p.rec.LossCap
}

// capTooLoose says whether a plan would accept a loss for which nobody signs: more than the group's rpo, by a rule that asks for
// no signature. A drill has nothing to lose.
func (x *Machine) capTooLoose(g *group, mode writv1.PromotionMode, limit *writv1.Loss) bool {
	return g.rec.Spec.DrillOf == "" && x.ruleFor(g, mode).GetNone() && looserLimit(g.rec.Spec.Rpo, limit)
}

// within holds a loss against a limit. Without a limit only nothing is within it; an empty one accepts any loss. Where only the
// least is known of the bytes, a limit in bytes is kept by none, unless there is one in time as well: that covers the silence.
func within(lost *writv1.Tail, limit *writv1.Loss) bool {
	switch {
	case limit == nil:
		return lost.Bytes != nil && *lost.Bytes == 0 && lost.Time != nil && lost.Time.AsDuration() == 0
	case limit.Bytes != nil && lost.Bytes != nil && *lost.Bytes > *limit.Bytes:
		return false
	case limit.Bytes != nil && lost.Bytes == nil:
		if least, known := leastBytes(lost); !known || least > *limit.Bytes || limit.Time == nil {
			return false
		}
	}
	switch {
	case limit.Time != nil && (lost.Time == nil || lost.Time.AsDuration() > limit.Time.AsDuration()):
		return false
	}
	return true
}

// looserLimit says whether there is a loss that is within one limit and not within another, from.
func looserLimit(from, to *writv1.Loss) bool {
	switch {
	case to == nil:
		return false
	case from == nil:
		return true
	case from.Time != nil && (to.Time == nil || to.Time.AsDuration() > from.Time.AsDuration()):
		return true
	case from.Bytes != nil && (to.Bytes == nil || *to.Bytes > *from.Bytes):
		return true
	}
	return from.Bytes != nil && from.Time == nil && to.Time != nil // time stands for the bytes that nobody knows
}

// tailOperation is the newest operation that accepts the loss; nil if there is none.
func (x *Machine) tailOperation(p *promotion) *writv1.Operation {
	for _, id := range slices.Backward(x.parts[p.rec.Id]) {
		if op := x.operations[id]; op.GetKind() == writv1.OperationKind_OPERATION_KIND_TAIL {
			return op
		}
	}
	return nil
}

// askForTail makes the operation that accepts the loss, if one is needed.
func (x *Machine) askForTail(m lease.Moment, p *promotion) {
	op := x.tailOperation(p)
	if x.accepts(p) || op.GetState() == writv1.OperationState_OPERATION_STATE_PENDING || op.GetState() == writv1.OperationState_OPERATION_STATE_EXECUTED {
		return
	}
	_, err := x.newOperation(m, proposal{
		kind: writv1.OperationKind_OPERATION_KIND_TAIL, group: p.group, promotion: p.rec.Id, rule: x.ruleForChange(p.group), requester: "quorum",
		body: map[string]any{"promotion": p.rec.Id, "tails": tailsBody(p.rec.Tails)}, reason: "the loss is above the cap, or not known",
	})
	if err != nil {
		x.stick(p, err.Error())
	}
}

func (x *Machine) freshFor() time.Duration { return 3 * x.config.Interval }
