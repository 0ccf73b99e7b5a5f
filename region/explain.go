//writ:core

package region

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// The rules that explain names.
const (
	// RuleNothing: the primary works; what else has happened is no reason to move.
	RuleNothing = "nothing"
	// RuleShift: the primary is degraded; traffic may be shifted, and it stays primary.
	RuleShift = "shift"
	// RuleFailover: the region is down, and what would be lost is within the rpo.
	RuleFailover = "failover"
	// RuleFailoverWithTail: the region is down, and more than the rpo would be lost, or nobody knows how much.
	RuleFailoverWithTail = "failover-with-tail"
	// RuleUnknown: what is known is not enough for any other.
	RuleUnknown = "unknown"
)

func (x *Machine) explain(m lease.Moment, ask *writv1.ExplainRequest) (*writv1.ExplainResponse, *lease.Error) {
	g, err := x.findGroup(ask.Group)
	if err != nil {
		return nil, err
	}
	told := x.applies(m, g)
	for _, c := range choices(g) {
		d := x.judgeDirection(m, g, c.From, c.To)
		x.judgeFlapping(m, g, &d)
		for _, b := range d.blocks {
			told.Blocks = append(told.Blocks, "to "+c.To+": "+b)
		}
	}
	if g.rec.Primary != "" && len(choices(g)) == 0 {
		told.Blocks = append(told.Blocks, "no promotion from "+g.rec.Primary+" is automatic")
	}
	return told, nil
}

// applies finds the rule.
func (x *Machine) applies(m lease.Moment, g *group) *writv1.ExplainResponse {
	primary := g.rec.Primary
	if primary == "" {
		text := fmt.Sprintf("nobody has the tenure: the group is %s", groupStateName(g.rec.State))
		if g.rec.State == writv1.GroupState_GROUP_STATE_RECOVERED {
			text += "; people have to name the primary, which was " + orUnknown(g.rec.LastPrimary)
		}
		return &writv1.ExplainResponse{Rule: RuleUnknown, Text: text}
	}
	own := x.fresh(m, g, primary)
	d := x.isDown(m, g, primary)
	said := x.saidOf(m, g, primary)
	switch {
	case own.GetHealth() == writv1.Health_HEALTH_OK:
		text := primary + " says that it works: promote nothing."
		if len(said) > 0 {
			text += " Others do not reach it, which may as well be the way between: an availability zone or a link that is lost is no reason to move."
		}
		return &writv1.ExplainResponse{Rule: RuleNothing, Text: text, Evidence: said}
	case own.GetHealth() == writv1.Health_HEALTH_DEGRADED:
		return &writv1.ExplainResponse{
			Rule: RuleShift, Evidence: said,
			Text: fmt.Sprintf("%s says that it is degraded (%s): shift traffic away from it, do not promote. What was written stays in one place.", primary, orUnknown(own.Detail)),
		}
	case len(d.blocks) == 0, own.GetHealth() == writv1.Health_HEALTH_FAILED && x.hasFailed(m, g, primary):
		return x.explainDown(m, g, primary, append(slices.Clone(d.evidence), missingOf(said, d.evidence)...))
	}
	return &writv1.ExplainResponse{
		Rule: RuleUnknown, Evidence: said,
		Text: "what is known is not enough to say whether " + primary + " is down, and what cannot be seen is not dead: " + strings.Join(d.blocks, "; "),
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "nobody knows"
	}
	return s
}

// hasFailed: its own agent has said so for the hold.
func (x *Machine) hasFailed(m lease.Moment, g *group, region string) bool {
	s := g.sights[sightKey{region, region}]
	return s != nil && m.Now.Sub(s.since) >= durationOf(g.rec.Spec.Hold, DefaultHold)
}

func (x *Machine) explainDown(m lease.Moment, g *group, primary string, evidence []*writv1.Evidence) *writv1.ExplainResponse {
	to := x.bestTarget(g, nil)
	if to == "" {
		return &writv1.ExplainResponse{Rule: RuleUnknown, Evidence: evidence, Text: primary + " is down, and no region may take its place: settle what is in quarantine first"}
	}
	lost := x.estimate(m, g, &writv1.Promotion{From: primary, To: to, Mode: writv1.PromotionMode_PROMOTION_MODE_FAILOVER})
	if within(lost, g.rec.Spec.Rpo) {
		return &writv1.ExplainResponse{
			Rule: RuleFailover, Evidence: evidence,
			Text: fmt.Sprintf("%s is down: fail over to %s, and fence %s. What may be lost (%s) is within the rpo.", primary, to, primary, lossWords(lost)),
		}
	}
	return &writv1.ExplainResponse{
		Rule: RuleFailoverWithTail, Evidence: evidence,
		Text: fmt.Sprintf("%s is down: fail over to %s, and fence %s. What may be lost (%s) is above the rpo, or not known: people have to accept it, and what becomes of the tail has to be settled.",
			primary, to, primary, lossWords(lost)),
	}
}

// saidOf is what agents that are heard of say against a region, for however short a time.
func (x *Machine) saidOf(m lease.Moment, g *group, region string) []*writv1.Evidence {
	var said []*writv1.Evidence
	for _, o := range observers(g.rec.Spec, region) {
		if s := g.sights[sightKey{o.Name, region}]; s != nil && x.fresh(m, g, o.Name) != nil {
			said = append(said, &writv1.Evidence{Observer: o.Name, About: region, What: "unreachable", Since: timestamppb.New(s.wall)})
		}
	}
	return said
}

// missingOf are those that known lacks.
func missingOf(all, known []*writv1.Evidence) []*writv1.Evidence {
	return slices.DeleteFunc(slices.Clone(all), func(e *writv1.Evidence) bool {
		return slices.ContainsFunc(known, func(k *writv1.Evidence) bool { return k.Observer == e.Observer && k.About == e.About })
	})
}

// lapsesLast is when the last of the guards is fenced without help; Never if one may go on.
func lapsesLast(guards []lease.TenureGuard) clock.Instant {
	var last clock.Instant
	for _, k := range guards {
		if !k.Fenceable && !k.Proved {
			return clock.Never
		}
		if !k.Out {
			last = max(last, k.Lapses)
		}
	}
	return last
}
