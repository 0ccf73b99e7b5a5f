//writ:core

package lease

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

// guards is the list of guards, and the rules that they go by.
type guards struct {
	rules   guardRules
	byName  map[string]*guard
	order   []*guard // by name
	changed []*guard // whose records have to be stored
	// rulesChanged: the rules have to be stored.
	rulesChanged bool
	quorum       quorumFacts
	reported     []Reported
}

// guard is one guard. Its lease is memory, as that of a holder is.
type guard struct {
	rec      *writv1.GuardRecord // what is stored of it
	deadline clock.Instant       // of its guard lease; it may admit until then
	lapse    clock.Instant       // W later: nothing that it admitted is under way
	since    clock.Instant       // of its enrolment, or of this coordinator's beginning
	open     openRaises          // that await it
	timer    int32
	dirty    bool
	gone     bool
	// For people.
	newest *writv1.GuardFloor
	counts *writv1.GuardCounts
	alarms []*writv1.GuardAlarm
}

func (g *guard) timerPlace() *int32 { return &g.timer }

// covers says whether raises of a resource wait for g.
func (g *guard) covers(name Resource) bool {
	return coversAny(g.rec.Covers, name) || coversAny(g.rec.Former, name)
}

// closes says whether g refuses writes under a rule when its guard lease has run out, and knows that it has to.
func (g *guard) closes(rule *writv1.GuardingRule) bool {
	if g.rec.NeverLapses && !mutant.On(mutant.StorageGuardLapses) {
		return false
	}
	return rule.GetIsolation() == writv1.Isolation_ISOLATION_CLOSE &&
		(g.rec.RulesVersion >= rule.GetClosedSince() || mutant.On(mutant.ClosedBeforeHeard))
}

// lasts says why g may go on admitting for ever, wherever it covers anything; empty: it cannot.
func (t *Table) lasts(g *guard) string {
	switch {
	case g.rec.Left:
		return ""
	case g.rec.NeverLapses:
		return "its storage does so by itself"
	case t.guards.rules.opens(g.rec.Covers, g.rec.RulesVersion):
		return "a rule lets it, without contact"
	}
	return ""
}

// known says how a guard is proved to admit nothing at all under a rule; 0: it is not.
func (g *guard) known(rule *writv1.GuardingRule) ProofHow {
	switch {
	case !g.rec.Out:
		return 0
	case g.rec.Left:
		return ProofAcked
	case g.closes(rule) || mutant.On(mutant.OpenGuardLapses):
		return ProofLapsed
	case rule.GetAllowUnproven():
		return Unproven
	}
	return 0
}

// GuardChange is a changed record of a guard; a nil Record deletes it.
type GuardChange struct {
	Name   string
	Record *writv1.GuardRecord
}

// DirtyGuards hands every guard that changed since the last call to visit, once each, and answers the rules if they changed.
// Records are shared, and never changed in place.
func (t *Table) DirtyGuards(visit func(GuardChange)) (rules *writv1.GuardingRecord) {
	for _, g := range t.guards.changed {
		c := GuardChange{Name: g.rec.Name, Record: g.rec}
		if g.gone {
			c.Record = nil
		}
		visit(c)
		g.dirty = false
	}
	clear(t.guards.changed)
	t.guards.changed = t.guards.changed[:0]
	if t.guards.rulesChanged {
		t.guards.rulesChanged = false
		rules = t.guards.rules.record
	}
	return rules
}

// LoadGuards takes over the guards and rules as they were committed, before any resource is loaded. Every guard that is not
// out gets its full lease from m: it may have been promised that by the coordinator before.
func (t *Table) LoadGuards(m Moment, records []*writv1.GuardRecord, rules *writv1.GuardingRecord) {
	t.guards.rules = guardRules{rules}
	for _, rec := range records {
		g := &guard{rec: rec, since: m.Now}
		t.addGuard(g)
		if !rec.Out && mutant.On(mutant.GuardLapsesAtTakeover) {
			m.Now = m.Now.Add(-time.Duration(rec.LeaseMs) * time.Millisecond)
		}
		if !rec.Out {
			t.extendGuard(g, m.Now)
		}
	}
}

func (t *Table) addGuard(g *guard) {
	at, _ := slices.BinarySearchFunc(t.guards.order, g, func(a, b *guard) int { return strings.Compare(a.rec.Name, b.rec.Name) })
	t.guards.order = slices.Insert(t.guards.order, at, g)
	if t.guards.byName == nil {
		t.guards.byName = make(map[string]*guard)
	}
	t.guards.byName[g.rec.Name] = g
}

// store notes a new record of g to be committed.
func (t *Table) store(g *guard, rec *writv1.GuardRecord) {
	g.rec = rec
	if !g.dirty {
		g.dirty = true
		t.guards.changed = append(t.guards.changed, g)
	}
	t.dirtyWrites++
	t.dirtyBytes += writeOverhead + len(rec.Name) + proto.Size(rec)
}

// extendGuard confers the guard lease from intake on. It never moves a deadline back.
func (t *Table) extendGuard(g *guard, intake clock.Instant) {
	g.deadline = max(g.deadline, intake.Add(time.Duration(g.rec.LeaseMs)*time.Millisecond))
	g.lapse = max(g.lapse, g.deadline.Add(time.Duration(g.rec.SlackMs)*time.Millisecond))
	if mutant.On(mutant.GuardLapsesEarly) {
		g.lapse = g.deadline.Add(-time.Duration(g.rec.LeaseMs) * time.Millisecond / 2)
	}
	if mutant.On(mutant.LapseWithoutSlack) {
		g.lapse = g.deadline
	}
	t.timers.set(g, g.lapse)
}

// guardDue commits that a guard's lease, and W, have run out.
func (t *Table) guardDue(m Moment, g *guard) {
	switch {
	case g.gone || g.rec.Out:
	case m.Now < g.lapse:
		t.timers.set(g, g.lapse)
	default:
		rec := proto.CloneOf(g.rec)
		rec.Out = true
		t.store(g, rec)
		t.note(Note{Actor: "quorum", Action: "guard.lapse", Target: rec.Name, Reason: "its guard lease has run out"})
		t.reviewGuard(m, g)
	}
}

// reviewGuard proves what is known of a guard by now.
func (t *Table) reviewGuard(m Moment, g *guard) {
	for e := range g.open.all() {
		if how := g.known(t.guarded(e.name)); how != 0 {
			t.prove(m, g, e, how)
		}
	}
}
