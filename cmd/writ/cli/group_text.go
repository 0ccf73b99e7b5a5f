package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// How groups are shown to people.

func (a *app) printGroups(w io.Writer, groups []*writv1.Group) {
	var rows [][]cell
	for _, g := range groups {
		rows = append(rows, []cell{
			text(g.GetSpec().GetName()), groupState(g), text(g.GetPrimary()), text(groupToken(g)), text(a.ago(g.GetSince())),
			text(g.GetPromotion()), text(regionNames(g.GetSpec())), text(g.GetSpec().GetDrillOf()),
		})
	}
	a.columns(w, []string{"GROUP", "STATE", "PRIMARY", "TOKEN", "SINCE", "PROMOTION", "REGIONS", "DRILL OF"}, rows)
}

func groupState(g *writv1.Group) cell {
	c := text(enumText(g.GetState()))
	switch g.GetState() {
	case writv1.GroupState_GROUP_STATE_STEADY:
		c.style = good
	case writv1.GroupState_GROUP_STATE_RECOVERED, writv1.GroupState_GROUP_STATE_CONFLICT:
		c.style = bad
	default:
		c.style = weak
	}
	return c
}

func groupToken(g *writv1.Group) string {
	if g.GetToken() == 0 {
		return ""
	}
	return fence.Token(g.GetToken()).String()
}

func regionNames(spec *writv1.GroupSpec) string {
	var names []string
	for _, r := range spec.GetRegions() {
		names = append(names, r.GetName())
	}
	return strings.Join(names, ",")
}

// printGroup shows how a group is.
func (a *app) printGroup(w io.Writer, g *writv1.Group) {
	a.pairs(w,
		pair{"group", text(g.GetSpec().GetName())},
		pair{"state", groupState(g)},
		pair{"primary", text(g.GetPrimary())},
		pair{"token", text(bothTokens(g.GetToken(), fence.Token(g.GetToken()).String()))},
		pair{"since", text(a.ago(g.GetSince()))},
		pair{"promotion", cell{g.GetPromotion(), weak}},
		pair{"quarantined", cell{strings.Join(g.GetQuarantined(), ", "), bad}},
		pair{"waits for", cell{waitsText(g.GetWaits()), weak}},
		pair{"last primary", text(lastPrimary(g))},
		pair{"last drill", text(a.ago(g.GetLastDrillAt()))},
	)
	_, _ = fmt.Fprintln(w)
	var rows [][]cell
	for _, r := range g.GetRegions() {
		rows = append(rows, regionRow(g, r))
	}
	a.columns(w, []string{"REGION", "ROLE", "HEALTH", "HEARD", "LAG", "BEHIND", "HEADROOM", "WRITABLE", "GUARDS", "DETAIL"}, rows)
	a.printTails(w, g.GetTails())
}

// lastPrimary counts only where nobody is primary.
func lastPrimary(g *writv1.Group) string {
	if g.GetPrimary() != "" {
		return ""
	}
	return g.GetLastPrimary()
}

func regionRow(g *writv1.Group, r *writv1.RegionStatus) []cell {
	report := r.GetReport()
	heard := cell{"never", weak}
	if r.GetAge() != nil {
		heard = text(span(r.GetAge().AsDuration()) + " ago")
	}
	headroom, writable := "", ""
	if report != nil && report.Headroom != nil {
		headroom = fmt.Sprintf("%g%%", float64(report.GetHeadroom())/10)
	}
	if report != nil && report.Writable != nil {
		writable = map[bool]string{true: "yes", false: "no"}[report.GetWritable()]
	}
	return []cell{
		text(r.GetRegion()), text(roleOf(g, r.GetRegion())), healthCell(r.GetHealth()), heard, text(spanText(report.GetLag())), text(behind(report)),
		text(headroom), text(writable), guardsCell(r.GetGuards()), text(oneLine(report.GetDetail())),
	}
}

// roleOf is what a region is at the moment, and not what it was when the group was made.
func roleOf(g *writv1.Group, name string) string {
	if g.GetPrimary() == name {
		return "primary"
	}
	for _, r := range g.GetSpec().GetRegions() {
		if r.GetName() == name && r.GetRole() == writv1.RegionRole_REGION_ROLE_WITNESS {
			return "witness"
		}
	}
	return "standby"
}

func healthCell(h writv1.Health) cell {
	styles := map[writv1.Health]style{
		writv1.Health_HEALTH_UNKNOWN: weak, writv1.Health_HEALTH_OK: good, writv1.Health_HEALTH_DEGRADED: weak, writv1.Health_HEALTH_FAILED: bad,
	}
	if h == writv1.Health_HEALTH_UNKNOWN {
		return cell{"unknown", weak}
	}
	return cell{enumText(h), styles[h]}
}

// behind is how many bytes of its upstream a region has not got.
func behind(r *writv1.GroupReport) string {
	p, up := r.GetPosition(), r.GetUpstream()
	switch {
	case p == nil || up == nil:
		return ""
	case p.GetLog() != up.GetLog():
		return "another log"
	}
	return bytesAmount(up.GetBytes() - min(up.GetBytes(), p.GetBytes()))
}

func guardsCell(guards []*writv1.Guard) cell {
	if len(guards) == 0 {
		return text("")
	}
	in := 0
	for _, g := range guards {
		if g.GetState() == writv1.GuardState_GUARD_STATE_ENROLLED {
			in++
		}
	}
	c := text(fmt.Sprintf("%d of %d", in, len(guards)))
	if in < len(guards) {
		c.style = bad
	}
	return c
}

// printGroupSpec shows what a group is told to be.
func (a *app) printGroupSpec(w io.Writer, g *writv1.Group) {
	s := g.GetSpec()
	a.pairs(w,
		pair{"group", text(s.GetName())},
		pair{"version", text(fmt.Sprint(g.GetVersion()))},
		pair{"resource", text(s.GetResource())},
		pair{"primary", text(g.GetPrimary())},
		pair{"rpo", text(lossOf(s.GetRpo()))},
		pair{"headroom", text(thousandths(s.GetHeadroom()))},
		pair{"automatic", text(directionsText(s.GetAutomatic()))},
		pair{"hold", text(durationText(s.GetHold()))},
		pair{"dwell", text(durationText(s.GetDwell()))},
		pair{"window", text(durationText(s.GetWindow()))},
		pair{"drain", text(durationText(s.GetDrain()))},
		pair{"hooks", text(hooksText(s.GetHooks()))},
		pair{"shift", text(percents(s.GetShift()))},
		pair{"switchover", text(ruleText(s.GetApprovals().GetSwitchover()))},
		pair{"failover", text(ruleText(s.GetApprovals().GetFailover()))},
		pair{"failback", text(ruleText(s.GetApprovals().GetFailback()))},
		pair{"changes", text(ruleText(s.GetApprovals().GetChange()))},
		pair{"drill of", text(s.GetDrillOf())},
	)
	_, _ = fmt.Fprintln(w)
	var rows [][]cell
	for _, r := range s.GetRegions() {
		rows = append(rows, []cell{
			text(r.GetName()), text(enumText(r.GetRole())), text(fmt.Sprint(r.GetPriority())), text(r.GetAgent()), text(strings.Join(r.GetGuards(), ",")),
			text(strings.Join(r.GetWriters(), ",")),
		})
	}
	a.columns(w, []string{"REGION", "ROLE", "PRIORITY", "AGENT", "GUARDS", "WRITERS"}, rows)
}

func thousandths(n uint32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%g%%", float64(n)/10)
}

func directionsText(all []*writv1.Direction) string {
	var texts []string
	for _, d := range all {
		texts = append(texts, d.GetFrom()+" to "+d.GetTo())
	}
	return strings.Join(texts, ", ")
}

func hooksText(hooks []*writv1.Hook) string {
	var texts []string
	for _, h := range hooks {
		one := enumText(h.GetKind())
		if h.GetTimeout() != nil && h.GetTimeout().AsDuration() != 30*time.Second {
			one += " within " + durationText(h.GetTimeout())
		}
		if h.GetOptional() {
			one += " (optional)"
		}
		texts = append(texts, one)
	}
	return strings.Join(texts, ", ")
}

func percents(shift []uint32) string {
	var texts []string
	for _, p := range shift {
		texts = append(texts, fmt.Sprintf("%d%%", p))
	}
	return strings.Join(texts, ", ")
}

// ruleText says who has to sign.
func ruleText(r *writv1.ApprovalRule) string {
	if r == nil {
		return ""
	}
	if r.GetNone() {
		return "nobody has to sign"
	}
	one := fmt.Sprintf("%d people", r.GetPeople())
	for _, role := range r.GetRoles() {
		one += fmt.Sprintf(", %d of them %s", role.GetPeople(), oneLine(role.GetRole()))
	}
	if r.GetValidFor() != nil {
		one += ", within " + durationText(r.GetValidFor())
	}
	return one
}
