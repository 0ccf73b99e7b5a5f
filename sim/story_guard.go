package sim

import (
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// refusedBy tells that a guard does not let something through.
func (s *story) refusedBy(p *world.Process, of *passage, err error) {
	if s == nil {
		return
	}
	what := "a read"
	if of.made != nil {
		what = "a write"
	}
	who := "nobody we know"
	if of.client != nil {
		who = of.client.spec.Name
	}
	s.event(p, trace.EventAnswer, "refuses %s of %s: %v", what, who, err)
}

// guardCommitted tells what the quorum has committed about a guard.
func (s *story) guardCommitted(g *guard, rec *writv1.GuardRecord) {
	if s == nil || g == nil {
		return
	}
	switch {
	case rec == nil:
		s.event(g.process, trace.EventCommit, "is taken off the list")
	case rec.Left:
		s.event(g.process, trace.EventCommit, "has left")
	case rec.Out:
		s.event(g.process, trace.EventCommit, "is out: its guard lease has run out")
	default:
		s.event(g.process, trace.EventCommit, "is on the list: session %s, rules %d, floors %s at version %d %s",
			rec.Session, rec.RulesVersion, rec.Store, rec.Version, rec.Warning)
	}
}
