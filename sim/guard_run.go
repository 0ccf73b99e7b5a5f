package sim

import (
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// newGuards makes the guards of the plan, and finds out what is written through them.
func (r *run) newGuards() {
	r.through, r.known = make(map[lease.Resource][]*guard), make(map[string]*writv1.GuardRecord)
	for _, spec := range r.plan.Guards {
		r.guards = append(r.guards, newGuard(r, spec))
	}
	names := r.resources()
	for _, g := range r.plan.Groups {
		names = append(names, g.Name)
	}
	for _, name := range names {
		_, through := r.plan.Guarded(name)
		for _, g := range r.guards {
			if slices.Contains(through, g.spec.Name) {
				r.through[lease.Resource(name)] = append(r.through[lease.Resource(name)], g)
			}
		}
	}
	r.everOpen = slices.ContainsFunc(r.plan.Rules, func(rule plan.Rule) bool { return rule.Open })
}

// unruled says whether a resource waits for an operator to have it guarded.
func (r *run) unruled(name lease.Resource) bool {
	if r.ruled || len(r.plan.Rules) == 0 {
		return false
	}
	ruled, _ := r.plan.Guarded(string(name))
	return ruled
}

// guardsCommitted marks what becomes of guards.
func (r *run) guardsCommitted(c quorumChange) {
	r.storagesAwaited()
	if r.everOpen && r.marks[MarkGuardOpenAwaited] == 0 && r.judge.Fencing() > 0 {
		for _, g := range r.guards {
			if rec := r.known[g.called()]; rec.GetOut() && !rec.GetLeft() {
				r.mark(MarkGuardOpenAwaited)
			}
		}
	}
	prefix := quorum.GuardKey("")
	for _, e := range c.Entries {
		name, ok := strings.CutPrefix(e.Key, prefix)
		if !ok {
			continue
		}
		if e.Value == nil {
			r.vouched(name, c)
		}
		rec := &writv1.GuardRecord{}
		if e.Value == nil {
			rec = nil
		} else if err := proto.Unmarshal(e.Value, rec); err != nil {
			r.violation("D1", "the record of guard "+name+" cannot be read: "+err.Error())
			continue
		}
		r.guardCommitted(r.known[name], rec)
		r.known[name] = rec
		r.story.guardCommitted(r.guardNamed(name), rec)
	}
}

func (r *run) guardCommitted(before, now *writv1.GuardRecord) {
	switch {
	case now == nil:
	case now.Out || before.GetSession() == now.Session:
	default: // it has enrolled
		if before.GetOut() {
			r.mark(MarkGuardReentered)
		}
		if strings.Contains(now.Warning, "went back") {
			r.mark(MarkGuardRolledBack)
		}
		if strings.Contains(now.Warning, "lost") {
			r.mark(MarkGuardFloorsLost)
		}
		if r.judge.Fencing() > 0 {
			r.mark(MarkGuardMidRaise)
		}
	}
}

func (r *run) guardNamed(name string) *guard {
	for _, g := range r.guards {
		if g.spec.Name == name {
			return g
		}
	}
	return nil
}

// guardPatience is by how much longer a resource may take because of its guards: one may have to lapse, or to break off what
// is under way and wait it out.
func (r *run) guardPatience() time.Duration {
	if len(r.guards) == 0 {
		return 0
	}
	var slack, drain time.Duration
	for _, g := range r.guards {
		slack = max(slack, g.spec.Slack)
	}
	for _, rule := range r.plan.Rules {
		if rule.Drain == 0 {
			drain = 10 * time.Second
		}
		drain = max(drain, rule.Drain)
	}
	return r.guardLease() + 2*slack + drain + 5*time.Second
}

// stall lets a guard stand still, for no longer than its slack allows.
func (r *run) stall(f plan.Fault, g *guard) {
	p := g.process
	if p.Paused() || !p.Up() {
		return
	}
	const shortest = 1100 * time.Millisecond // that a watchdog notices
	if f.Kind == plan.Freeze && g.sound && g.spec.Slack/2 < shortest {
		return
	}
	length := g.mayStall(f.For)
	if length == 0 || f.Kind == plan.Freeze && length < shortest {
		return
	}
	p.Pause()
	ended := r.story.band([]*world.Process{p}, trace.BandPaused, f.String())
	life := p.Life()
	r.world.After(length, func() {
		ended()
		if p.Life() != life || !p.Paused() {
			return
		}
		if f.Kind == plan.Freeze {
			p.Clock.Miss(length)
		}
		p.Resume()
	})
}

// guardDisk does something to the disk of a guard.
func (r *run) guardDisk(f plan.Fault, g *guard) (end func()) {
	ended := r.story.band([]*world.Process{g.process}, trace.BandDisk, f.String())
	switch f.Kind {
	case plan.SlowDisk:
		g.disk.slower += f.By
		return func() {
			g.disk.slower -= f.By
			ended()
		}
	case plan.FullDisk:
		g.disk.full = true
		return func() {
			g.disk.full = false
			ended()
		}
	case plan.Wipe:
		g.crash()
		g.disk.lose(g.spec.Name)
	default:
		g.crash()
		g.disk.putBack(r.world.Now() - f.By)
		r.judge.PutBack(g.disk.state.Store)
	}
	return func() {
		ended()
		g.start()
	}
}

// rule sets every rule of the plan, as it is to be now. Guarded resources are not taken before.
func (o *operator) rule() {
	o.run.ruled = false
	o.want("set the rules", func(done func(bool)) {
		o.ruleFrom(0, func(ok bool) {
			o.run.ruled = o.run.ruled || ok
			done(ok)
		})
	})
}

func (o *operator) ruleFrom(i int, done func(bool)) {
	if i == len(o.run.plan.Rules) {
		done(true)
		return
	}
	o.setRule(i, func(ok bool) {
		if !ok {
			done(false)
			return
		}
		o.ruleFrom(i+1, done)
	})
}

// setRule sets one rule of the plan.
func (o *operator) setRule(i int, done func(bool)) {
	c := o.run.coordinator()
	if c == nil {
		done(false)
		return
	}
	spec := o.run.plan.Rules[i]
	rule := &writv1.GuardingRule{Prefix: spec.Prefix, Isolation: writv1.Isolation_ISOLATION_CLOSE, DrainMs: spec.Drain.Milliseconds()}
	if o.open[spec.Prefix] {
		rule.Isolation, rule.AllowUnproven = writv1.Isolation_ISOLATION_OPEN, spec.Unproven
	}
	c.do(lease.SetGuarding{Caller: operatorCaller, Rule: rule, Remove: o.bare[spec.Prefix], Reason: "simulated"}, func(r lease.Reply) {
		done(r.Err == nil || r.Err.Reason == lease.ReasonNotFound && o.bare[spec.Prefix])
	})
}

var operatorCaller = lease.Caller{Principal: "operator"}

// turn opens or closes a rule.
func (o *operator) turn(prefix string, open bool) {
	o.open[prefix] = open
	o.changeRule(prefix)
}

// changeRule sets a rule of the plan as it is to be now.
func (o *operator) changeRule(prefix string) {
	i := slices.IndexFunc(o.run.plan.Rules, func(rule plan.Rule) bool { return rule.Prefix == prefix })
	if i < 0 {
		return
	}
	o.run.everOpen = o.run.everOpen || o.open[prefix]
	o.want("set the rule of "+prefix, func(done func(bool)) {
		o.setRule(i, func(ok bool) {
			if ok {
				o.run.mark(MarkGuardRules)
			}
			done(ok)
		})
	})
}

// attest stops a guard, and answers for it when nothing of it can be under way any more. It stays down until somebody starts it.
func (o *operator) attest(g *guard, done func(bool)) {
	if !g.kept {
		g.kept = true
		g.crash()
		if g.door != nil { // what people answer for has to be true
			g.door.lock()
		}
		g.keptAt = o.run.world.Now()
	}
	o.run.world.After(max(0, g.keptAt+g.spec.Slack+50*time.Millisecond-o.run.world.Now()), func() {
		c := o.run.coordinator()
		if c == nil || !g.kept {
			done(false)
			return
		}
		c.do(lease.RemoveGuard{Caller: operatorCaller, Name: g.called(), Attest: true, Reason: "its process has ended"}, func(r lease.Reply) {
			ok := r.Err == nil || r.Err.Reason == lease.ReasonNotFound
			if ok {
				o.run.mark(MarkGuardAttested)
				g.kept = false
				delete(o.run.console.gone, g.called())
			} else if r.Err.Reason == lease.ReasonDenied { // a tenure relies on it: that is not for one person
				o.run.console.gone[g.called()] = true
			}
			done(ok)
		})
	})
}

// remembered is what a quorum that was put back knows of guards and their rules.
type remembered struct {
	rules  *writv1.GuardingRecord
	guards map[string]*writv1.GuardRecord
}

// recall reads it from the state that a quorum was put back to.
func (r *run) recall(entries []quorum.Entry) remembered {
	known := remembered{guards: make(map[string]*writv1.GuardRecord)}
	for _, e := range entries {
		var into proto.Message
		name, isGuard := strings.CutPrefix(e.Key, quorum.GuardKey(""))
		switch {
		case e.Value == nil:
			continue
		case isGuard:
			known.guards[name] = &writv1.GuardRecord{}
			into = known.guards[name]
		case e.Key == quorum.KeyGuarding:
			known.rules = &writv1.GuardingRecord{}
			into = known.rules
		default:
			continue
		}
		if err := proto.Unmarshal(e.Value, into); err != nil {
			r.violation("D1", e.Key+" cannot be read: "+err.Error())
		}
	}
	return known
}

// awaits says whether a raise of a resource waits for a guard, however long it is silent.
func (k remembered) awaits(guard string, name lease.Resource) bool {
	rec := k.guards[guard]
	if rec == nil || rec.Left || !slices.ContainsFunc(rec.Covers, func(p string) bool { return lease.Covers(p, name) }) {
		return false
	}
	var rule *writv1.GuardingRule
	for _, r := range k.rules.GetRules() {
		if strings.HasPrefix(string(name), r.Prefix) && len(r.Prefix) >= len(rule.GetPrefix()) {
			rule = r
		}
	}
	lasts := rec.NeverLapses || rule.GetIsolation() == writv1.Isolation_ISOLATION_OPEN
	return lasts && !rule.GetAllowUnproven() || rule.GetClosedSince() > rec.RulesVersion
}

// loosen notes for which resources nothing is promised of a guard since the quorum was put back: those for which it goes on
// without contact, as the rules say that it has heard of, and that the quorum does not know it to go on for.
func (g *guard) loosen() {
	for _, name := range g.guarding() {
		if g.goesOn(name) && !g.run.oper.remembered.awaits(g.called(), name) {
			g.run.judge.Loosen(g.called(), name)
			g.run.mark(MarkGuardLoose)
		}
	}
}

// goesOn says whether writes of a resource go on without contact, through the guard or to its storage.
func (g *guard) goesOn(name lease.Resource) bool {
	return g.door != nil || g.gate != nil && !g.spec.Close && !g.gate.Closes(string(name))
}

// guarding lists the resources that are written through the guard.
func (g *guard) guarding() []lease.Resource {
	var names []lease.Resource
	for _, name := range slices.Sorted(maps.Keys(g.run.through)) {
		if slices.Contains(g.run.through[name], g) {
			names = append(names, name)
		}
	}
	return names
}

// excuse notes what nobody can promise any more: a quorum that was put back may not know of a guard, or of a rule, that lets
// writes go on without contact.
func (o *operator) excuse() {
	if len(o.run.plan.Rules) == 0 {
		return
	}
	o.run.rebuilt++
	o.run.judge.Rules(o.remembered.rules)
	for _, g := range o.run.guards {
		g.loosen()
	}
	for _, g := range o.run.guards {
		if g.kept || g.awaited { // who was to answer for it has other worries, and begins anew
			g.kept, g.awaited = false, false
			o.run.world.After(g.spec.Slack, g.start)
		}
	}
	o.rule()
}

// retire ends a guard in order, or has an operator answer for it, and starts it again in its time.
func (r *run) retire(f plan.Fault, g *guard, what string) {
	again := r.world.Now() + f.For
	start := func() { r.world.After(max(0, again-r.world.Now()), g.start) }
	if f.Kind == plan.Stop {
		g.stop(func(bool) { start() })
		return
	}
	if g.awaited || g.kept {
		return
	}
	g.awaited = true
	r.oper.want(what, func(done func(bool)) {
		r.oper.attest(g, func(ok bool) {
			if ok {
				g.awaited = false
				start()
			}
			done(ok)
		})
	})
}
