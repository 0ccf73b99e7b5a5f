package sim

import (
	"slices"
	"strings"

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
	case plan.Stop, plan.Attest:
		for _, p := range a {
			if g, ok := r.actor(p).(*guard); ok {
				r.retire(f, g, what)
			}
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
