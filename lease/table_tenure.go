//writ:core

package lease

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

// A tenure is an entry that failover groups alone decide about: it has no deadline, no queue and no requests. It ends, is
// fenced and is granted as a guarded lease is, and every step of that is asked for. What these methods change is stored, and
// what they note is told, with the round in which they are called.

// tenure is the group whose tenure the entry is; empty: it is a lease.
func (e *entry) tenure() string {
	if e.extra == nil {
		return ""
	}
	return e.extra.tenure
}

// MaxTenureGroupBytes bounds the name of the group that a tenure belongs to.
const MaxTenureGroupBytes = 64

// ClaimTenure makes a resource a tenure's of a group: no lease on it is granted from then on, and it is guarded by a rule that
// closes, which is added if there is none. Claiming it again for the same group changes nothing.
// Errors: HELD while somebody has a lease on it, CONFLICT if it is another group's, INVALID if a rule leaves it open.
func (t *Table) ClaimTenure(m Moment, name Resource, group string) *Error {
	if err := checkClaim(name, group); err != nil {
		return err
	}
	e := t.entries[name]
	switch {
	case e == nil:
	case e.tenure() == group:
		return nil
	case e.tenure() != "":
		return &Error{Reason: ReasonConflict, Resource: name, Message: fmt.Sprintf("%q is the tenure of group %q", name, e.tenure()),
			Fix: "give the group another resource"}
	case e.held:
		err := t.heldError(e)
		err.Fix = "release the lease first, and wait until it has ended: a tenure begins with a free resource"
		return err
	}
	if err := t.closeFor(m, name, group); err != nil {
		return err
	}
	if e == nil {
		e = t.newEntry(m, name, -1)
	}
	for len(e.queue()) > 0 {
		w := e.queue()[0]
		if w.call != 0 {
			t.lateReply(w.call, t.tenureError(e, group))
		}
		t.leave(w)
	}
	e.rule, e.due = -1, 0 // leases' policy and delays are not a tenure's
	t.takeUp(m, e, t.guarded(name))
	t.addTenure(e, group)
	t.mark(e)
	return nil
}

func checkClaim(name Resource, group string) *Error {
	if p := resourceProblem(string(name)); p != "" {
		return Invalid("resource", p, "use 1 to 512 bytes of printable UTF-8 in non-empty segments")
	}
	if group == "" {
		return Invalid("group", "is empty", "name the group that the tenure belongs to")
	}
	return checkText("group", group, MaxTenureGroupBytes)
}

// closeFor makes sure that the guards of a tenure refuse writes without contact.
func (t *Table) closeFor(m Moment, name Resource, group string) *Error {
	rule := t.guarded(name)
	switch {
	case rule == nil:
	case rule.Isolation != writv1.Isolation_ISOLATION_CLOSE:
		return Invalid("resource", fmt.Sprintf("%q is guarded by the rule for %s, which lets guards go on without contact", name, scopeOf(rule)),
			fmt.Sprintf("set a rule for the prefix %q with isolation close first", name))
	default:
		return nil
	}
	// For it alone: what else begins with that name is not the group's, and keeps its lock delay.
	rule = &writv1.GuardingRule{Prefix: string(name), Exact: true, Isolation: writv1.Isolation_ISOLATION_CLOSE}
	next, err := t.guards.rules.changed(SetGuarding{Rule: rule}, t.epoch)
	if err != nil {
		return err
	}
	t.replaceRules(m, next)
	t.noteLate(Note{Actor: "group/" + group, Action: "guard.rule", Target: rule.Prefix, Reason: "the tenure of a group is guarded",
		Detail: map[string]string{"isolation": rule.Isolation.String(), "exact": "true", "version": fmt.Sprint(next.Version)}})
	return nil
}

// DropTenure ends what there is, and gives the resource back to leases. The rule that guards it stays.
func (t *Table) DropTenure(m Moment, name Resource) {
	e := t.tenureOf(name)
	if e == nil {
		return
	}
	if e.held {
		t.endTenure(m, e, "dropped")
	}
	e.extra.tenure = ""
	t.tenures = slices.DeleteFunc(t.tenures, func(o *entry) bool { return o == e })
	e.rule = int32(t.config.Policy.ruleFor(name))
	e.freedAt, e.due = m.Now, m.Now
	t.mark(e)
	if e.token != 0 && t.TokensLeft() > 0 {
		t.retire(m, e)
	}
	t.wakeFree(e)
}

// FenceTenure ends the tenure that there is, takes the token of the next one, and raises every guard to it. Where a raise is
// under way, or done, it goes on with that one. It answers the token; 0: nothing was done, for there is no token at the moment.
func (t *Table) FenceTenure(m Moment, name Resource) fence.Token {
	e := t.tenureOf(name)
	switch {
	case e == nil:
		return 0
	case e.raise() != nil:
		return e.raise().token
	case t.TokensLeft() == 0:
		return 0
	}
	old, region := e.token, e.by().Region
	if e.held {
		t.endTenure(m, e, EndForced.String())
	}
	t.beginRaise(m, e, t.guarded(name))
	if old == 0 && mutant.On(mutant.FirstTenureUnfenced) {
		e.raise().awaits = nil
	}
	detail := map[string]string{"group": e.tenure(), "token": e.raise().token.Decimal()}
	if old != 0 {
		detail["old_token"], detail["region"] = old.Decimal(), region
	}
	if awaits := e.raise().names(); len(awaits) > 0 {
		detail["awaits"] = strings.Join(awaits, " ")
	}
	t.noteLate(Note{Actor: "group/" + e.tenure(), Action: "tenure.fence", Target: string(name), Detail: detail})
	return e.raise().token
}

func (t *Table) endTenure(m Moment, e *entry, how string) {
	e.held, e.how = false, EndForced
	t.count(e, -1)
	e.freedAt, e.due = m.Now, m.Now
	t.mark(e)
	t.noteLate(Note{Actor: "group/" + e.tenure(), Action: "tenure.end", Target: string(e.name),
		Detail: map[string]string{"group": e.tenure(), "token": e.token.Decimal(), "region": e.by().Region, "how": how}})
}

// GrantTenure gives the tenure to a region, under the token that every guard has been raised to; false if one has not been
// proved.
func (t *Table) GrantTenure(m Moment, name Resource, region string) (fence.Token, bool) {
	e := t.tenureOf(name)
	if e == nil || e.held || e.raise() == nil || !e.raise().over() {
		return 0, false
	}
	token := t.nextToken(e)
	if token <= e.token {
		panic(fmt.Sprintf("lease: token %v of the tenure %q does not exceed its last one %v", token, name, e.token))
	}
	e.token, e.held, e.ending, e.how = token, true, false, NotEnded
	e.holder = t.names.holder(Principal("group/"+e.tenure()), "", region)
	e.requestID, e.priority, e.ttl, e.grantedMs, e.due = "", 0, 0, unixMs(m.Wall), clock.Never
	e.extra.metadata, e.extra.sequence = nil, 0
	t.count(e, 1)
	t.mark(e)
	t.noteLate(Note{Actor: "group/" + e.tenure(), Action: "tenure.grant", Target: string(name), Detail: map[string]string{
		"group": e.tenure(), "token": token.Decimal(), "region": region, "proofs": proofText(e.extra.proofs)}})
	return token, true
}

// Tenure tells what there is.
func (t *Table) Tenure(name Resource) Tenure {
	e := t.tenureOf(name)
	if e == nil {
		return Tenure{}
	}
	shown := Tenure{Group: e.tenure(), Token: e.token, Held: e.held}
	if e.held {
		shown.Region = e.holder.Region
	}
	r := e.raise()
	if r == nil {
		shown.Proofs = slices.Clone(e.extra.proofs)
		return shown
	}
	shown.Fencing, shown.Proofs = r.token, slices.Clone(r.proofs)
	rule := t.guarded(name)
	for _, a := range r.awaits {
		wait := TenureWait{Guard: a.guard.rec.Name, Region: a.guard.rec.Region, Lapses: clock.Never}
		if a.guard.closes(rule) && !a.guard.rec.Out {
			wait.Lapses = a.guard.lapse
		}
		shown.Awaits = append(shown.Awaits, wait)
	}
	return shown
}

// TenureGuards lists the guards that cover a resource, by name.
func (t *Table) TenureGuards(name Resource) []TenureGuard {
	var list []TenureGuard
	rule := t.guarded(name)
	for _, g := range t.guards.order {
		if g.covers(name) {
			how := g.known(rule)
			list = append(list, TenureGuard{
				Name: g.rec.Name, Region: g.rec.Region, Out: g.rec.Out, Proved: how != 0 && how != Unproven, Fenceable: g.closes(rule),
				NeverLapses: g.rec.NeverLapses, Lapses: g.lapse,
			})
		}
	}
	return list
}

// ShowGuards lists them for people.
func (t *Table) ShowGuards(m Moment, name Resource) []*writv1.Guard {
	var list []*writv1.Guard
	for _, g := range t.guards.order {
		if g.covers(name) {
			list = append(list, g.show(m))
		}
	}
	return list
}

// TakeLate answers what was noted and answered outside of a step since the last call: by the methods for tenures.
func (t *Table) TakeLate() ([]Reply, []Note) {
	replies, notes := t.lateReplies, t.lateNotes
	t.lateReplies, t.lateNotes = nil, nil
	return replies, notes
}

func (t *Table) lateReply(id CallID, err *Error) {
	t.lateReplies = append(t.lateReplies, Reply{ID: id, Err: err})
}

func (t *Table) tenureOf(name Resource) *entry {
	if e := t.entries[name]; e != nil && e.tenure() != "" {
		return e
	}
	return nil
}

func (t *Table) addTenure(e *entry, group string) {
	e.more().tenure = group
	at, _ := slices.BinarySearchFunc(t.tenures, e, func(a, b *entry) int { return cmp.Compare(a.name, b.name) })
	t.tenures = slices.Insert(t.tenures, at, e)
}

// loadTenure takes over a tenure as it was committed. One of an older epoch has ended: people say who is primary then.
func (t *Table) loadTenure(m Moment, e *entry, rec Record) {
	t.addTenure(e, rec.TenureGroup)
	e.rule = -1
	switch {
	case e.held && e.token.Epoch() == t.epoch:
		e.due = clock.Never
		t.count(e, 1)
		return
	case e.held:
		e.held, e.how, e.ended = false, EndExpired, true
		t.wakeAt(e, m.Now)
	}
	e.freedAt = m.Now
	t.loadRaise(m, e, rec.Fencing)
}

// tenureError refuses what leases may be asked for.
func (t *Table) tenureError(e *entry, group string) *Error {
	return &Error{Reason: ReasonDenied, Resource: e.name, Message: fmt.Sprintf("%q is the tenure of failover group %q and not to be had as a lease", e.name, group),
		Fix: fmt.Sprintf("move it with: writ promote %s", group)}
}

// refused answers a command for leases where the entry is a tenure.
func (t *Table) refused(id CallID, e *entry) bool {
	if e == nil || e.tenure() == "" {
		return false
	}
	t.refuse(id, t.tenureError(e, e.tenure()))
	return true
}

// keepsTenures refuses rules that would leave a tenure unguarded, or let its guards go on without contact: then a region that
// nobody can reach could not be fenced.
func (t *Table) keepsTenures(next *writv1.GuardingRecord) *Error {
	for _, e := range t.tenures {
		rule := guardRules{next}.of(e.name)
		switch {
		case rule == nil:
			return Invalid("rule.prefix", fmt.Sprintf("would leave %q unguarded, which is the tenure of failover group %q", e.name, e.tenure()),
				fmt.Sprintf("set a rule for the prefix %q with isolation close first", e.name))
		case rule.Isolation != writv1.Isolation_ISOLATION_CLOSE:
			return Invalid("rule.isolation", fmt.Sprintf("would let guards of %q go on without contact, which is the tenure of failover group %q", e.name, e.tenure()),
				"use ISOLATION_CLOSE, or a rule for another prefix")
		}
	}
	return nil
}

// replaceRules puts other rules into force.
func (t *Table) replaceRules(m Moment, next *writv1.GuardingRecord) {
	t.guards.rules = guardRules{next}
	t.guards.rulesChanged = true
	t.dirtyWrites++
	t.dirtyBytes += writeOverhead + proto.Size(next)
	for _, g := range t.guards.order {
		t.reviewRules(m, g)
	}
}
