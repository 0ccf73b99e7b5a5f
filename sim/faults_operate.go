package sim

import (
	"slices"
	"strings"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/world"
)

// operate does what an operator does.
func (r *run) operate(f plan.Fault, a []*world.Process) (end func()) {
	var first *node
	for _, p := range a {
		if n, ok := r.actor(p).(*node); ok && first == nil {
			first = n
		}
	}
	what := strings.TrimSpace(string(f.Kind) + " " + strings.Join(f.A, " "))
	switch f.Kind {
	case plan.Move:
		r.oper.want(what, func(done func(bool)) { r.oper.move(first, func(bool) { done(true) }) })
	case plan.AddNode:
		if first != nil {
			r.oper.want(what, func(done func(bool)) { r.oper.add(first, done) })
		}
	case plan.RemoveNode:
		if first != nil {
			r.oper.want(what, func(done func(bool)) {
				r.oper.remove(first, func(ok bool) {
					if ok {
						first.crash()
						first.removed = true
					}
					done(ok)
				})
			})
		}
	case plan.Force, plan.ForceNow:
		for _, name := range f.A {
			tries := 0
			r.oper.want(what, func(done func(bool)) {
				tries++
				r.oper.force(lease.Resource(name), f.Kind == plan.ForceNow, func(ok bool) { done(ok || tries > 3) })
			})
		}
	case plan.Open, plan.Close:
		for _, prefix := range f.A {
			r.oper.turn(prefix, f.Kind == plan.Open)
		}
	case plan.Protect, plan.Unprotect:
		for _, prefix := range f.A {
			r.oper.shield(prefix, f.Kind == plan.Protect)
		}
	case plan.Switchover, plan.Failover:
		mode := writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER
		if f.Kind == plan.Failover {
			mode = writv1.PromotionMode_PROMOTION_MODE_FAILOVER
		}
		for _, name := range f.A {
			r.console.wants[name] = append(r.console.wants[name], mode)
		}
	case plan.Abort:
		for _, name := range f.A {
			r.console.aborts[name] = true
		}
	case plan.Ambush:
		r.failovers.ambushes = append(r.failovers.ambushes, &ambush{f.A, f.For})
	case plan.Ill, plan.BadHooks:
		return r.each(a, func(p *world.Process) func() { return r.worsen(f.Kind, p) })
	case plan.Stop, plan.Attest, plan.Forge, plan.Probe:
		for _, p := range a {
			if g, ok := r.actor(p).(*guard); ok {
				r.operateGuards(f, g)
			}
		}
	case plan.Deploy:
		return r.each(a, func(p *world.Process) func() {
			if s, ok := r.actor(p).(*service); ok {
				return s.deploy()
			}
			return nil
		})
	case plan.Suspend, plan.Resume, plan.Trigger:
		for _, name := range f.A {
			r.steward.do(f.Kind, name)
		}
	case plan.Backup:
		r.oper.want(what, r.oper.takeBackup)
	case plan.Restore:
		if r.oper.backup != nil {
			r.oper.restore()
		}
	case plan.NewCluster:
		if first != nil {
			r.oper.newCluster(first)
		}
	case plan.Twice:
		var chosen []*client
		for _, c := range r.clients {
			if len(f.A) == 0 || slices.Contains(a, c.process) {
				c.twice = true
				chosen = append(chosen, c)
			}
		}
		return func() {
			for _, c := range chosen {
				c.twice = false
			}
		}
	default:
	}
	return nil
}
