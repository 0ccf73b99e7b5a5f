package sim

import (
	"fmt"
	"strings"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
)

// What operators, and those who mean ill, do at guards themselves.

// shield puts the rule of a prefix back, or takes it away: then its resources are granted without proof.
func (o *operator) shield(prefix string, on bool) {
	o.bare[prefix] = !on
	o.changeRule(prefix)
}

// forge tells a trusted route a token that nobody was granted: above is by how much it lies above all that were.
func (g *guard) forge(above int) {
	name, ok := g.oneOf()
	if !ok || g.gate == nil || g.process.Paused() || g.door != nil { // a storage that compares by itself has no such route
		return
	}
	token := g.run.judge.Newest(name)
	if token == 0 {
		return
	}
	g.run.forged = true
	g.run.story.event(g.process, trace.EventFault, "is told the token %v of %s, which nobody was granted", token+fence.Token(above), name)
	g.take(&passage{guard: g, resource: name, token: token + fence.Token(above), forged: true})
}

// alarmed takes in that a guard says that a token was made up, or that the quorum went back: it has to have a reason.
func (r *run) alarmed(g *guard, warning string) {
	r.mark(MarkGuardAlarm)
	if !r.forged && r.rebuilt == 0 && len(r.plan.Rules) > 0 { // without rules, nobody counts how often it was rebuilt
		r.violation("D2", fmt.Sprintf("%s warns without a reason: %s", g.spec.Name, warning))
	}
}

// probe has a node send a canary, which presents a token of before.
func (g *guard) probe() {
	name, ok := g.oneOf()
	newest := g.run.judge.Newest(name)
	if !ok || newest.Sequence() < 2 || g.talk == nil || !g.talk.open {
		return
	}
	g.talk.tell(&writv1.GuardResponse{Id: 1, Say: &writv1.GuardResponse_Probe{Probe: &writv1.GuardProbe{
		Resource: string(name), Token: uint64(newest - 1),
	}}})
}

// canary carries a canary through the front. One that is let through is judged as any write is.
func (g *guard) canary(p *writv1.GuardProbe) {
	if g.gate != nil {
		g.run.mark(MarkGuardProbed)
		g.take(&passage{guard: g, resource: lease.Resource(p.GetResource()), token: fence.Token(p.GetToken()), forged: true})
	}
}

// oneOf chooses a resource that is written through the guard.
func (g *guard) oneOf() (lease.Resource, bool) {
	names := g.guarding()
	if len(names) == 0 {
		return "", false
	}
	return names[g.dice.Intn(len(names))], true
}

// grantOf is what the guard's region holds, as far as a node has told.
type grantOf struct {
	token  fence.Token
	region string
}

// told takes grants in that are to be stamped, as fence/guard does.
func (g *guard) told(grants []*writv1.GuardGrant) {
	for _, t := range grants {
		if t.GetToken() == 0 {
			delete(g.grants, lease.Resource(t.GetResource()))
			continue
		}
		g.grants[lease.Resource(t.GetResource())] = grantOf{fence.Token(t.GetToken()), t.GetRegion()}
	}
}

// stamp gives a passage without a token that of the guard's region. Whoever was not granted that one itself survives the
// region's losing the resource and getting it back: nothing is promised of it, and it is left out.
func (g *guard) stamp(p *passage) (ok bool) {
	held, ok := g.grants[p.resource]
	if !ok || held.region != g.spec.Region || held.token != p.token {
		return false
	}
	g.run.mark(MarkGuardStamped)
	return true
}

// stamps says whether the guard presents tokens of its own for a resource.
func (g *guard) stamps(name lease.Resource) bool {
	for _, pattern := range g.spec.Stamps {
		if lease.Covers(pattern, name) {
			return true
		}
	}
	return false
}

// stampers are the guards that a program which knows nothing of tokens writes through.
func (c *client) stampers(through []*guard, name lease.Resource) []*guard {
	var chosen []*guard
	for _, g := range through {
		if g.spec.Region == c.spec.Region && g.stamps(name) {
			chosen = append(chosen, g)
		}
	}
	return chosen
}

// operateGuards does what an operator does about guards.
func (r *run) operateGuards(f plan.Fault, g *guard) {
	switch f.Kind {
	case plan.Forge:
		g.forge(f.Amount)
	case plan.Probe:
		g.probe()
	default:
		r.retire(f, g, strings.TrimSpace(string(f.Kind)+" "+strings.Join(f.A, " ")))
	}
}
