//writ:core

package lease

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

func (t *Table) listGuards(m Moment, r Request, c ListGuards) {
	list := &writv1.ListGuardsResponse{}
	for _, g := range t.guards.order {
		if c.Resource == "" || g.covers(c.Resource) {
			list.Guards = append(list.Guards, g.show(m))
		}
	}
	t.reply(r.ID, list)
}

func (g *guard) show(m Moment) *writv1.Guard {
	rec := g.rec
	shown := &writv1.Guard{
		Name: rec.Name, State: writv1.GuardState_GUARD_STATE_ENROLLED, Principal: rec.Principal, Region: rec.Region, Form: rec.Form,
		Promise: writv1.GuardPromise(rec.Promise), Covers: rec.Covers, Slack: durationpb.New(time.Duration(rec.SlackMs) * time.Millisecond),
		Lag: uint32(g.open.n), NewestFloor: g.newest, Counts: g.counts, Alarms: g.alarms, Warning: rec.Warning, Version: rec.Version,
		RulesVersion: rec.RulesVersion, EnrolledAt: timestamppb.New(time.UnixMilli(rec.EnrolledAtUnixMs)), SoftwareVersion: rec.SoftwareVersion,
		NeverLapses: rec.NeverLapses,
	}
	if rec.Out {
		shown.State = writv1.GuardState_GUARD_STATE_OUT
	} else {
		shown.LeaseLeft = durationpb.New(g.deadline.Sub(m.Now))
	}
	if oldest := g.open.first; oldest != nil {
		shown.OldestRaise = durationpb.New(max(0, m.Now.Sub(oldest.entry.raise().begun)))
	}
	return shown
}

func (t *Table) removeGuard(m Moment, r Request, c RemoveGuard) {
	if err := checkText("reason", c.Reason, MaxReasonBytes); err != nil {
		t.refuse(r.ID, err)
		return
	}
	g := t.guards.byName[c.Name]
	switch {
	case g == nil:
		t.refuse(r.ID, Errorf(ReasonNotFound, "no guard %q is enrolled", c.Name))
		return
	case c.Attest && c.Reason == "":
		t.refuse(r.ID, Invalid("reason", "is empty", "say how you know that the guard admits nothing any more"))
		return
	case !c.Attest && !g.rec.Out:
		t.refuse(r.ID, &Error{Reason: ReasonNotGuarded, Message: fmt.Sprintf("guard %q may be admitting writes", c.Name),
			Fix: "stop it and wait until it is out, or attest that it admits nothing any more"})
		return
	case !c.Attest && t.lasts(g) != "":
		t.refuse(r.ID, &Error{Reason: ReasonNotGuarded, Message: fmt.Sprintf("guard %q may be admitting writes: %s", c.Name, t.lasts(g)),
			Fix: "attest that it admits nothing any more"})
		return
	}
	how := ProofAttested
	if !c.Attest {
		how = ProofLapsed
	} else if err := t.mayAttest(g); err != nil {
		t.refuse(r.ID, err)
		return
	}
	t.takeOff(m, g, how)
	t.note(Note{Actor: string(c.Principal), Action: "guard.remove", Target: c.Name, Reason: c.Reason, Detail: map[string]string{"proof": how.String()}})
	t.reply(r.ID, nil)
}

// takeOff proves a guard wherever it is awaited, and takes it off the list. Should its process come back, it is told that it is
// not on the list, and has to be seeded like a new one.
func (t *Table) takeOff(m Moment, g *guard, how ProofHow) {
	for e := range g.open.all() {
		t.prove(m, g, e, how)
	}
	g.gone = true
	t.timers.remove(g)
	t.store(g, g.rec)
	delete(t.guards.byName, g.rec.Name)
	t.guards.order = slices.DeleteFunc(t.guards.order, func(o *guard) bool { return o == g })
}

func (t *Table) setGuarding(m Moment, r Request, c SetGuarding) {
	if err := checkText("reason", c.Reason, MaxReasonBytes); err != nil {
		t.refuse(r.ID, err)
		return
	}
	next, err := t.guards.rules.changed(c, t.epoch)
	if err != nil {
		t.refuse(r.ID, err)
		return
	}
	if err := t.keepsTenures(next); err != nil {
		t.refuse(r.ID, err)
		return
	}
	t.replaceRules(m, next)
	detail := map[string]string{"isolation": c.Rule.Isolation.String(), "version": fmt.Sprint(next.Version)}
	if c.Remove {
		detail["isolation"] = "none"
	}
	if c.Rule.Exact {
		detail["exact"] = "true"
	}
	t.note(Note{Actor: string(c.Principal), Action: "guard.rule", Target: c.Rule.Prefix, Reason: c.Reason, Detail: detail})
	t.reply(r.ID, next)
}

// reviewRules ends the waiting for a guard where nothing is guarded any more, or where the new rules let it.
func (t *Table) reviewRules(m Moment, g *guard) {
	for e := range g.open.all() {
		if t.guarded(e.name) == nil {
			e.raise().givenUp = true
			t.proved(m, g, e)
		}
	}
	t.reviewGuard(m, g)
}
