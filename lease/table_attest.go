//writ:core

package lease

import (
	"fmt"

	"github.com/writ-io/writ/sim/mutant"
)

// Where a guard can prove nothing itself any more, people answer for it: one person where only leases depend on it, those who
// approve for a failover group where a tenure does.

// AttestTenure notes that people answer for a guard which the raise under way awaits; false if it does not. It is not stored:
// the next coordinator's raise asks every guard again.
func (t *Table) AttestTenure(m Moment, name Resource, guard string) bool {
	e, g := t.tenureOf(name), t.guards.byName[guard]
	if e == nil || g == nil || e.raise() == nil || !e.raise().waitsFor(g) {
		return false
	}
	t.prove(m, g, e, ProofAttested)
	return true
}

// CoveringGuard tells what there is of a guard, and which tenures it covers; false: it is not on the list.
func (t *Table) CoveringGuard(name string) (CoveringGuard, bool) {
	g := t.guards.byName[name]
	if g == nil {
		return CoveringGuard{}, false
	}
	shown := CoveringGuard{Name: name, Region: g.rec.Region, Session: g.rec.Session, Store: g.rec.Store, Out: g.rec.Out, Lapses: g.lapse}
	for _, e := range t.tenures {
		if g.covers(e.name) {
			shown.Tenures = append(shown.Tenures, CoveredTenure{Resource: e.name, Group: e.tenure()})
		}
	}
	return shown, true
}

// AttestGuard takes a guard off the list for which people answer: whatever awaits it takes that for a proof. They answer for the
// process that enrolled under a session, once it is out; false if it is not, or if another enrolment has come since. Unlike
// AttestTenure it is stored, for no later raise finds the guard.
func (t *Table) AttestGuard(m Moment, by Attestation) bool {
	g := t.guards.byName[by.Guard]
	if g == nil || !g.rec.Out || g.rec.Session != by.Session {
		return false
	}
	t.takeOff(m, g, ProofAttested)
	t.noteLate(Note{Actor: by.Actor, Action: "guard.remove", Target: by.Guard, Reason: by.Reason, Detail: map[string]string{
		"proof": ProofAttested.String(), "operation": by.Operation, "session": by.Session, "store": g.rec.Store}})
	return true
}

// mayAttest refuses one person's word for a guard that a tenure needs: that takes those who approve promotions. Before any region
// has had the tenure there is no promotion either, and one person's word is enough, as it is for a lease. That people have answered
// for a guard of that name before does not count: it was for another raise, or another process.
func (t *Table) mayAttest(g *guard) *Error {
	for _, e := range t.tenures {
		if mutant.On(mutant.TenureAttestedByOne) {
			break
		}
		if e.by().Principal == Principal("group/"+e.tenure()) && g.covers(e.name) && g.known(t.guarded(e.name)) == 0 {
			return &Error{Reason: ReasonDenied, Resource: e.name,
				Message: fmt.Sprintf("guard %q may be admitting writes of %q, which is the tenure of failover group %q", g.rec.Name, e.name, e.tenure()),
				Fix:     fmt.Sprintf("stop it and wait until it is out; if it never proves anything any more, have people answer for it: writ guard attest %s --group %s", g.rec.Name, e.tenure())}
		}
	}
	return nil
}

// howToAttest says how the way is cleared for a guard's successor.
func (t *Table) howToAttest(g *guard) string {
	if t.mayAttest(g) != nil {
		return "have people answer for it that the other one is gone: writ guard attest"
	}
	return "attest that the other one is gone: writ guard remove --attest"
}
