//writ:core

package region

import (
	"fmt"
	"slices"
	"strings"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/region/approval"
)

const (
	// drillAge is how old the last drill may be before it is pointed out.
	drillAge = 30 * 24 * time.Hour
	// certificateLeft is how long an agent's certificate has to last.
	certificateLeft = 24 * time.Hour
)

// checklist collects the lines of a confidence report.
type checklist struct{ lines []*writv1.ConfidenceLine }

func (c *checklist) ok(check, detail string, args ...any) {
	c.lines = append(c.lines, &writv1.ConfidenceLine{Check: check, Ok: true, Detail: fmt.Sprintf(detail, args...)})
}

func (c *checklist) bad(check, fix, detail string, args ...any) {
	c.lines = append(c.lines, &writv1.ConfidenceLine{Check: check, Detail: fmt.Sprintf(detail, args...), Fix: fix})
}

func (c *checklist) warn(check, fix, detail string, args ...any) {
	c.lines = append(c.lines, &writv1.ConfidenceLine{Check: check, Detail: fmt.Sprintf(detail, args...), Fix: fix, Warning: true})
}

// line adds one that is good if problem is empty.
func (c *checklist) line(check, problem, fix, detail string) {
	if problem == "" {
		c.ok(check, "%s", detail)
		return
	}
	c.bad(check, fix, "%s", problem)
}

func (x *Machine) confidence(m lease.Moment, ask *writv1.ConfidenceRequest) (*writv1.ConfidenceResponse, *lease.Error) {
	g, err := x.findGroup(ask.Group)
	if err != nil {
		return nil, err
	}
	to := ask.To
	if to == "" {
		to = x.bestTarget(g, nil)
	}
	var c checklist
	target := findRegion(g.rec.Spec, to)
	if ask.To != "" && target == nil {
		return nil, lease.Invalid("to", fmt.Sprintf("is %q, which is none of the regions of %s", to, g.name), "name one of them, or leave it out")
	}
	x.trustGroup(g, to, &c)
	x.trustGuards(m, g, &c)
	if target != nil && to != g.rec.Primary {
		x.trustTarget(m, g, target, &c)
		x.trustData(m, g, to, &c)
	}
	x.trustAgents(m, g, &c)
	x.trustApprovers(m, g, &c)
	x.trustDrill(m, g, &c)
	answer := &writv1.ConfidenceResponse{Go: true, Lines: c.lines}
	for _, l := range c.lines {
		answer.Go = answer.Go && (l.Ok || l.Warning)
	}
	return answer, nil
}

// trustGroup: a promotion to that region could be planned at all.
func (x *Machine) trustGroup(g *group, to string, c *checklist) {
	rec := g.rec
	target := findRegion(rec.Spec, to)
	switch {
	case to == "":
		c.bad("target", "settle what is in quarantine with writ promote reinstate, or add a standby", "no region may become primary")
	case to == rec.Primary:
		c.bad("target", "name another region", "%s is primary already", to)
	case target.GetRole() == writv1.RegionRole_REGION_ROLE_WITNESS:
		c.bad("target", "name a standby", "%s is a witness, which never becomes primary", to)
	default:
		c.ok("target", "%s", to)
	}
	problem, fix := "", ""
	if rec.State != writv1.GroupState_GROUP_STATE_STEADY {
		problem, fix = "the group is "+groupStateName(rec.State), "see writ group status "+g.name
	}
	if open := x.openOf(g); len(open) > 0 {
		problem, fix = "the promotion "+open[0].rec.Id+" is open", "wait until it has ended, or abort it"
	}
	c.line("no promotion open", problem, fix, "the group is steady")
	if problem = ""; slices.Contains(rec.Quarantined, to) {
		problem = "what " + to + " lost has not been settled"
	}
	c.line("not quarantined", problem, "settle it with writ promote reinstate", "nothing is to be settled")
}

// trustGuards: each guard that is listed is enrolled, in contact, and acknowledges.
func (x *Machine) trustGuards(m lease.Moment, g *group, c *checklist) {
	resource := resourceOf(g.rec.Spec)
	known := x.tenures.TenureGuards(resource)
	shown := x.tenures.ShowGuards(m, resource)
	listed := 0
	for _, r := range g.rec.Spec.Regions {
		listed += len(r.Guards)
		for _, name := range r.Guards {
			check := "guard " + name
			at := slices.IndexFunc(known, func(k lease.TenureGuard) bool { return k.Name == name })
			behind := slices.IndexFunc(shown, func(s *writv1.Guard) bool { return s.Name == name && s.Lag > 0 })
			switch {
			case at < 0:
				c.bad(check, "start it, and let it cover "+string(resource), "it is not enrolled for %s", resource)
			case known[at].Region != r.Name:
				c.bad(check, "list it with the region that it is in", "it is in %s, and listed for %s", known[at].Region, r.Name)
			case known[at].Out:
				c.bad(check, "look why it has no contact: writ guard list", "it is out: nothing has been heard of it")
			case behind >= 0:
				c.bad(check, "look what it waits for: writ guard list", "it has not acknowledged %d raises", shown[behind].Lag)
			case known[at].NeverLapses:
				c.warn(check, "know who answers for it if its region is lost: writ promote attest", "it is in contact, and has to acknowledge: its storage goes on admitting by itself, whatever is heard of the guard")
			case !known[at].Fenceable:
				c.warn(check, "let it go by the newest rules, under which it refuses without contact", "it is in contact, and would have to acknowledge: without contact it may go on admitting")
			default:
				c.ok(check, "it is in contact, and acknowledges")
			}
		}
	}
	for _, k := range known {
		listedHere := slices.ContainsFunc(g.rec.Spec.Regions, func(r *writv1.GroupRegion) bool { return slices.Contains(r.Guards, k.Name) })
		if !listedHere && k.Out {
			c.warn("guard "+k.Name, "start it, or remove it: writ guard list", "it is out, and not listed")
		}
	}
	if listed == 0 {
		c.bad("guards", "list the guards before each region's storage in the spec of the group", "none are listed: nothing keeps the old primary from writing")
	}
	if at := lapsesLast(known); at != clock.Never && at > m.Now {
		c.ok("wait without help", "if every guard fell silent now, all were fenced in %s", seconds(at.Sub(m.Now)+time.Second-1))
	}
}

// trustTarget: its agent is heard of, says that it is healthy, and has the hooks that a promotion needs.
func (x *Machine) trustTarget(m lease.Moment, g *group, r *writv1.GroupRegion, c *checklist) {
	if r.Agent == "" {
		c.warn("target's health", "run writ agent in "+r.Name+", and name its principal in the spec", "%s has no agent: nothing is known of it", r.Name)
		return
	}
	report := x.fresh(m, g, r.Name)
	if report == nil {
		c.bad("target's health", "start writ agent in "+r.Name+", and look at its log", "nothing is heard of the agent of %s", r.Name)
		return
	}
	problem := ""
	if report.Health != writv1.Health_HEALTH_OK {
		problem = fmt.Sprintf("%s says %s: %s", r.Name, healthName(report.Health), report.Detail)
	}
	c.line("target's health", problem, "repair what its agent's probes find", r.Name+" says that it is healthy")
	var missing []string
	for _, h := range g.rec.Spec.Hooks {
		if atTarget(h.Kind) && !h.Optional && !slices.Contains(report.Hooks, h.Kind) {
			missing = append(missing, hookName(h.Kind))
		}
	}
	problem = ""
	if len(missing) > 0 {
		problem = fmt.Sprintf("the agent of %s has no hook %s", r.Name, strings.Join(missing, ", "))
	}
	c.line("target's hooks", problem, "configure them in its agent, or make them optional in the spec", "its agent has every hook that is needed")
	if least := g.rec.Spec.Headroom; least > 0 {
		problem = ""
		switch {
		case report.Headroom == nil:
			problem = "the agent of " + r.Name + " does not tell its headroom"
		case *report.Headroom < least:
			problem = fmt.Sprintf("%s is free in %s, and it has to be %s", perMille(*report.Headroom), r.Name, perMille(least))
		}
		c.line("target's headroom", problem, "add capacity, or let a probe tell how much there is", perMille(report.GetHeadroom())+" is free")
	}
}

func atTarget(k writv1.HookKind) bool {
	return k == writv1.HookKind_HOOK_KIND_PROMOTE || k == writv1.HookKind_HOOK_KIND_SHIFT || k == writv1.HookKind_HOOK_KIND_VERIFY
}

// trustData: the target is close enough to the primary, and configured as it is.
func (x *Machine) trustData(m lease.Moment, g *group, to string, c *checklist) {
	if rpo := g.rec.Spec.Rpo; rpo != nil && g.rec.Primary != "" {
		lost := x.estimate(m, g, &writv1.Promotion{From: g.rec.Primary, To: to, Mode: writv1.PromotionMode_PROMOTION_MODE_FAILOVER})
		if report := x.fresh(m, g, to); x.fresh(m, g, g.rec.Primary) != nil && report.GetLag() != nil {
			lost.Time = report.Lag // what comes between two reports is no lag
		}
		problem := ""
		if !within(lost, rpo) {
			problem = fmt.Sprintf("%s lags by %s, and the rpo is %s and %s bytes", to, lossWords(lost), bound(rpo.Time), bytesBound(rpo))
		}
		c.line("lag", problem, "look why replication is behind, or let probes tell both positions", "within the rpo: "+lossWords(lost))
	}
	digests := map[string][]string{}
	var kinds []string
	for _, r := range g.rec.Spec.Regions {
		if report := x.fresh(m, g, r.Name); report.GetConfigDigest() != "" && r.Role != writv1.RegionRole_REGION_ROLE_WITNESS {
			if digests[report.ConfigDigest] == nil {
				kinds = append(kinds, report.ConfigDigest)
			}
			digests[report.ConfigDigest] = append(digests[report.ConfigDigest], r.Name)
		}
	}
	if len(kinds) == 0 {
		return
	}
	var told []string
	for _, k := range kinds {
		told = append(told, strings.Join(digests[k], ", ")+" "+k)
	}
	problem := ""
	if len(kinds) > 1 {
		problem = "the configuration differs: " + strings.Join(told, "; ")
	}
	c.line("configuration", problem, "bring the regions to the same configuration", "the same in "+strings.Join(told, "; "))
}

// trustAgents: the other agents are heard of.
func (x *Machine) trustAgents(m lease.Moment, g *group, c *checklist) {
	for _, r := range g.rec.Spec.Regions {
		if r.Agent == "" {
			continue
		}
		check := "agent " + r.Name
		v := x.sight(g, r.Name)
		if x.fresh(m, g, r.Name) == nil || v.agent == nil {
			c.bad(check, "start writ agent in "+r.Name+", and look at its log", "nothing is heard of it")
			continue
		}
		expires := v.agent.expires
		switch left := expires.Sub(m.Wall); {
		case expires.IsZero():
			c.ok(check, "it reports; when its certificate expires it does not say")
		case left <= certificateLeft:
			c.bad(check, "renew its certificate", "its certificate expires at %s", expires.UTC().Format(time.RFC3339))
		case left <= 7*certificateLeft:
			c.warn(check, "renew its certificate", "its certificate expires at %s", expires.UTC().Format(time.RFC3339))
		default:
			c.ok(check, "it reports, and its certificate lasts until %s", expires.UTC().Format(time.RFC3339))
		}
	}
}

// trustApprovers: those who could sign now are enough for every rule of a promotion.
func (x *Machine) trustApprovers(m lease.Moment, g *group, c *checklist) {
	const fix = "change the approvers, with those who can sign still: writ approvers set"
	set := x.judge()
	usable := usableNow(m, x.approvers)
	for _, mode := range []writv1.PromotionMode{writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, writv1.PromotionMode_PROMOTION_MODE_FAILOVER} {
		check := "approvers for a " + modeName(mode)
		rule := x.ruleFor(g, mode)
		switch {
		case rule.GetNone():
			c.ok(check, "nobody has to sign")
		case set == nil:
			c.bad(check, noApproversFix, "there are no approvers")
		default:
			problem := ""
			if missing := set.Missing(rule, "", usable); missing != "" {
				problem = "if all signed who can, it would lack " + missing
			}
			c.line(check, problem, fix, fmt.Sprintf("%d people can sign", len(usable)))
		}
	}
	for _, mode := range g.rec.Spec.Automatic {
		c.ok("automatic", "from %s to %s nobody has to sign, on evidence", mode.From, mode.To)
	}
}

// trustDrill points out that promotions have not been practised.
func (x *Machine) trustDrill(m lease.Moment, g *group, c *checklist) {
	if g.rec.Spec.DrillOf != "" {
		return
	}
	at := g.rec.LastDrillAt
	for _, name := range x.names {
		if o := x.groups[name]; o.rec.Spec.DrillOf == g.name && o.rec.LastDrillAt.AsTime().After(at.AsTime()) {
			at = o.rec.LastDrillAt
		}
	}
	const fix = "writ drill run"
	switch {
	case at == nil:
		c.warn("drill", fix, "there has been none")
	case m.Wall.Sub(at.AsTime()) > drillAge:
		c.warn("drill", fix, "the last one was on %s", at.AsTime().UTC().Format(time.DateOnly))
	default:
		c.ok("drill", "the last one was on %s", at.AsTime().UTC().Format(time.DateOnly))
	}
}

// usableNow are the people who have a key that counts at this moment.
func usableNow(m lease.Moment, set *writv1.ApproverSet) []approval.Signer {
	var usable []approval.Signer
	for _, a := range set.GetApprovers() {
		if slices.ContainsFunc(a.Keys, func(k *writv1.ApproverKey) bool {
			return !k.Revoked && (k.ExpiresAt == nil || m.Wall.Before(k.ExpiresAt.AsTime()))
		}) {
			usable = append(usable, approval.Signer{Approver: a.Name})
		}
	}
	return usable
}
