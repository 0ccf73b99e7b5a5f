//writ:core

package region

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// A drill is a promotion of a shadow of a group: a group of its own, with a resource of its own beneath [DrillPrefix], which
// the same guards cover. The machine makes no difference between the two, but for what stands in this file.

// DrillPrefix is what the resources of drills begin with, and no others. Guards cover them by a pattern, such as drill/*.
const DrillPrefix = "drill/"

const (
	// keepDrills is how many drills of a group are kept.
	keepDrills = 64
	// maxDrillProblems bounds what is kept of one.
	maxDrillProblems    = 16
	maxDrillProblemSize = 256
)

// DrillName is the name of a group's shadow.
func DrillName(group string) string { return group + "-drill" }

// DrillSpec is what the shadow of a group is: the same regions with the same guards and agents, and the same primary. Nobody has
// to sign for it, nothing of it is automatic, and no hook has to succeed: agents run only those that are made for drills, and a
// drill is judged by the hooks that failed.
func DrillSpec(real *writv1.Group) *writv1.GroupSpec {
	spec := proto.CloneOf(real.Spec)
	spec.Name, spec.DrillOf, spec.Resource = DrillName(real.Spec.Name), real.Spec.Name, DrillPrefix+string(resourceOf(real.Spec))
	spec.Automatic = nil
	free := func() *writv1.ApprovalRule { return &writv1.ApprovalRule{None: true} }
	spec.Approvals = &writv1.GroupApprovals{Switchover: free(), Failover: free(), Failback: free(), Change: free()}
	for _, h := range spec.Hooks {
		h.Optional = true
	}
	if real.Primary == "" {
		return spec
	}
	for _, r := range spec.Regions {
		switch {
		case r.Name == real.Primary:
			r.Role = writv1.RegionRole_REGION_ROLE_PRIMARY
		case r.Role == writv1.RegionRole_REGION_ROLE_PRIMARY:
			r.Role = writv1.RegionRole_REGION_ROLE_STANDBY
		}
	}
	return spec
}

// mayShadow says why there cannot be such a drill. Its resource is beneath DrillPrefix, and that of the group that it is of.
func (x *Machine) mayShadow(spec *writv1.GroupSpec) *lease.Error {
	if spec.DrillOf == "" {
		return nil
	}
	of := x.groups[spec.DrillOf]
	switch {
	case of == nil:
		return lease.Invalid("drill_of", fmt.Sprintf("is %q, which is no group", spec.DrillOf), "name the real group")
	case of.rec.Spec.DrillOf != "":
		return lease.Invalid("drill_of", fmt.Sprintf("is %q, which is a drill itself", spec.DrillOf), "name the real group")
	case of.rec.State == writv1.GroupState_GROUP_STATE_REMOVING:
		return lease.Errorf(lease.ReasonConflict, "the group %s is being removed", of.name)
	}
	if want := DrillPrefix + string(resourceOf(of.rec.Spec)); spec.Resource != want {
		return lease.Invalid("resource", fmt.Sprintf("is %q", spec.Resource), "use "+want)
	}
	return nil
}

// drillOperations is where the ids of a new group begin: a shadow goes on where the one before it ended, for agents remember
// what they have run by the promotion's id.
func (x *Machine) drillOperations(spec *writv1.GroupSpec) uint64 {
	if of := x.groups[spec.DrillOf]; of != nil {
		return of.rec.DrillOperations
	}
	return 0
}

// endShadow keeps of a group that is about to be forgotten what the next shadow needs to know.
func (x *Machine) endShadow(g *group) {
	if of := x.groups[g.rec.Spec.DrillOf]; of != nil {
		x.changeGroup(of, func(rec *writv1.Group) { rec.DrillOperations = max(rec.DrillOperations, g.rec.Operations) })
	}
}

// sight is what is known of a region of a group. Of a drill it is what is known of the real group: the data is the same.
func (x *Machine) sight(g *group, region string) *regionView {
	v := x.view(g, region)
	of := x.groups[g.rec.Spec.DrillOf]
	if of == nil || v == nil {
		return v
	}
	if real := x.view(of, region); real != nil && real.report != nil && real.principal == v.principal {
		return real
	}
	return v
}

// followDrill tells that a drill has begun, and notes one that ended without being carried through: nobody has to judge that.
func (x *Machine) followDrill(m lease.Moment, p *promotion, name move, actor string) {
	of := x.groups[p.group.rec.Spec.DrillOf]
	if of == nil {
		return
	}
	rec := p.rec
	switch {
	case name == moveBegin || name == moveBeginNow:
		x.note(lease.Note{Actor: actor, Action: "drill.run", Target: of.name, Detail: drillDetail(p)})
	case PromotionEnded(rec.State) && rec.State != done && rec.Timeline.GetDecided() != nil:
		x.keepDrill(m, of, p, actor, []string{notCarriedThrough(rec)})
	}
}

func drillDetail(p *promotion) map[string]string {
	return map[string]string{"drill": p.group.name, "promotion": p.rec.Id, "from": p.rec.From, "to": p.rec.To, "mode": modeName(p.rec.Mode)}
}

func notCarriedThrough(rec *writv1.Promotion) string {
	return "the promotion is " + strings.ToLower(stateName(rec.State)) + ": " + cmp.Or(rec.Reason, "it was not carried through")
}

// recordDrill judges a drill whose promotion has come to its end.
func (x *Machine) recordDrill(m lease.Moment, caller lease.Caller, ask *writv1.RecordDrillRequest) (*writv1.Drill, *lease.Error) {
	g, err := x.findGroup(ask.Group)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(g.rec.Drills, func(d *writv1.Drill) bool { return d.Promotion == ask.Id })
	if at >= 0 {
		return g.rec.Drills[at], nil
	}
	p := x.promotions[ask.Id]
	switch {
	case p == nil:
		return nil, &lease.Error{Reason: lease.ReasonNotFound, Field: "id", Message: fmt.Sprintf("%q is not there", ask.Id), Fix: "run the drill again"}
	case p.group.rec.Spec.DrillOf != g.name:
		return nil, lease.Invalid("id", fmt.Sprintf("is of %s, which is no drill of %s", p.group.name, g.name), "name a promotion of "+DrillName(g.name))
	case !PromotionEnded(p.rec.State):
		return nil, lease.Errorf(lease.ReasonConflict, "%s is %s: a drill is judged when its promotion has ended", p.rec.Id, stateName(p.rec.State))
	}
	return x.keepDrill(m, g, p, string(caller.Principal), x.judgeDrill(g, p, ask)), nil
}

// judgeDrill lists what a drill failed by.
func (x *Machine) judgeDrill(g *group, p *promotion, ask *writv1.RecordDrillRequest) []string {
	var problems []string
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	rec := p.rec
	if rec.State != done {
		wrong("%s", notCarriedThrough(rec))
	}
	for _, run := range rec.Hooks {
		if run.Outcome == writv1.HookOutcome_HOOK_OUTCOME_FAILED || run.Outcome == writv1.HookOutcome_HOOK_OUTCOME_TIMED_OUT {
			wrong("%s in %s %s: %s", hookName(run.Kind), run.Region, outcomeText(run), run.Output)
		}
	}
	if want, err := normal(DrillSpec(g.rec)); err != nil || !sameShadow(want, p.group.rec.Spec) {
		wrong("the drill is not of the group as it is now: its regions, guards, agents or hooks are others")
	}
	for _, name := range x.drilledGuards(p.group) {
		if let := verdictsOf(ask.Before, name, rec.ExpectedToken); !slices.ContainsFunc(let, letThrough) {
			wrong("the guard %s did not let the zombie writer through before: that it refuses says nothing%s", name, lastDetail(let))
		}
		after := verdictsOf(ask.After, name, rec.ExpectedToken)
		at := slices.IndexFunc(after, func(v *writv1.GuardVerdict) bool { return !v.Refused })
		switch {
		case len(after) == 0:
			wrong("the guard %s could not be asked", name)
		case at >= 0 && !after[at].Answered:
			wrong("the guard %s could not be asked%s", name, lastDetail(after[at:at+1]))
		case at >= 0:
			wrong("the guard %s let the zombie writer through%s", name, lastDetail(after[at:at+1]))
		}
	}
	return problems
}

// sameShadow compares what a drill has to have in common with its group; where it began, and under which name, may be others.
func sameShadow(a, b *writv1.GroupSpec) bool {
	a, b = proto.CloneOf(a), proto.CloneOf(b)
	for _, s := range []*writv1.GroupSpec{a, b} {
		s.Name = ""
		for _, r := range s.Regions {
			if r.Role == writv1.RegionRole_REGION_ROLE_PRIMARY {
				r.Role = writv1.RegionRole_REGION_ROLE_STANDBY
			}
		}
	}
	return proto.Equal(a, b)
}

// drilledGuards are all that cover the drill's resource, and those that the spec names.
func (x *Machine) drilledGuards(g *group) []string {
	var names []string
	for _, guard := range x.tenures.TenureGuards(resourceOf(g.rec.Spec)) {
		names = append(names, guard.Name)
	}
	for _, r := range g.rec.Spec.Regions {
		names = append(names, r.Guards...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// verdictsOf are those of one guard on canaries with that token.
func verdictsOf(all []*writv1.GuardVerdict, guard string, token uint64) []*writv1.GuardVerdict {
	var own []*writv1.GuardVerdict
	for _, v := range all {
		if v.GetGuard() == guard && (v.Token == token || !v.Refused && !v.Answered) {
			own = append(own, v)
		}
	}
	return own
}

func letThrough(v *writv1.GuardVerdict) bool { return v.Answered && !v.Refused }

func lastDetail(verdicts []*writv1.GuardVerdict) string {
	if len(verdicts) == 0 || verdicts[len(verdicts)-1].Detail == "" {
		return ""
	}
	return ": " + verdicts[len(verdicts)-1].Detail
}

// keepDrill makes a drill part of the history of its group.
func (x *Machine) keepDrill(m lease.Moment, g *group, p *promotion, actor string, problems []string) *writv1.Drill {
	rec := p.rec
	d := &writv1.Drill{
		Promotion: rec.Id, From: rec.From, To: rec.To, Mode: rec.Mode, Outcome: writv1.DrillOutcome_DRILL_OUTCOME_PASSED, Actor: actor,
		BeganAt: rec.Timeline.GetDecided(), JudgedAt: timestamppb.New(m.Wall), TimeToHealthy: rec.Timeline.GetTimeToHealthy(),
	}
	detail, action := drillDetail(p), "drill.pass"
	if len(problems) > 0 {
		d.Outcome, action = writv1.DrillOutcome_DRILL_OUTCOME_FAILED, "drill.fail"
	}
	for i, what := range problems[:min(len(problems), maxDrillProblems)] {
		what = strings.ToValidUTF8(what[:min(len(what), maxDrillProblemSize)], "")
		d.Problems = append(d.Problems, what)
		detail[fmt.Sprintf("problem.%02d", i+1)] = what
	}
	if d.TimeToHealthy != nil {
		detail["time_to_healthy"] = d.TimeToHealthy.AsDuration().String()
	}
	detail["token"], detail["old_token"] = fence.Token(rec.Token).Decimal(), fence.Token(rec.ExpectedToken).Decimal()
	x.changeGroup(g, func(rec *writv1.Group) {
		rec.Drills = append(rec.Drills, d)
		rec.Drills = rec.Drills[max(0, len(rec.Drills)-keepDrills):]
		if len(problems) == 0 {
			rec.LastDrillAt = d.JudgedAt
		}
	})
	x.note(lease.Note{Actor: actor, Action: action, Target: g.name, Reason: strings.Join(d.Problems, "; "), Detail: detail})
	return d
}
