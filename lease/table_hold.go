//writ:core

package lease

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

func (t *Table) renew(m Moment, r Request, c Renew) {
	if len(c.Refs) > MaxRenewals {
		t.refuse(r.ID, Invalid("leases", fmt.Sprintf("names %d leases", len(c.Refs)), fmt.Sprintf("send at most %d at a time", MaxRenewals)))
		return
	}
	var out RenewOutcome
	for i, ref := range c.Refs {
		if mutant.On(mutant.RenewalRevives) {
			t.revive(m, r.Intake, c.Caller, ref)
		}
		e, err := t.mine(r.Intake, c.Caller, ref)
		if err == nil && e.ending {
			err = expiredError(e, "is being taken away by a forced release")
		}
		if err != nil {
			out.Failures = append(out.Failures, RenewFailure{Index: i, Err: err})
			continue
		}
		t.extend(e, r.Intake)
		if len(e.queue()) > 0 && e.queue()[0].acquire.Priority > e.priority {
			out.Contended = append(out.Contended, i)
		}
	}
	t.reply(r.ID, out)
}

// revive is what a renewal must not do: it holds an expired grant again. Only a mutant does it.
func (t *Table) revive(m Moment, intake clock.Instant, c Caller, ref Ref) {
	e := t.entries[ref.Resource]
	if e == nil {
		return
	}
	t.settle(m, e, intake)
	if e.held || e.token != ref.Token || e.how != EndExpired || e.by().Principal != c.Principal || e.by().Instance != c.Instance {
		return
	}
	e.held, e.how, e.due = true, NotEnded, intake.Add(e.ttl)
	t.count(e, 1)
	t.wakeAt(e, e.due)
	t.mark(e)
}

// mine finds the grant that ref names, if it is the caller's and its deadline had not passed at intake. One that has
// passed is refused and left to the next tick: a renewal of 10,000 late leases must not become 10,000 writes.
func (t *Table) mine(intake clock.Instant, c Caller, ref Ref) (*entry, *Error) {
	e := t.entries[ref.Resource]
	if e != nil && e.tenure() != "" {
		return nil, t.tenureError(e, e.tenure())
	}
	if e == nil || !e.held || e.token != ref.Token {
		return nil, t.notMine(e, c, ref)
	}
	switch {
	case e.holder.Principal != c.Principal || e.holder.Instance != c.Instance:
		return nil, notHolder(ref, fmt.Sprintf("is held by %v under that token", e.by()))
	case e.due <= intake:
		return nil, expiredError(e, "has expired")
	}
	return e, nil
}

func (t *Table) notMine(e *entry, c Caller, ref Ref) *Error {
	if !ref.Token.Valid() {
		return Invalid("token", fmt.Sprintf("%d is not a token", int64(ref.Token)), "use the token of the grant")
	}
	if ref.Token.Epoch() > t.epoch || (ref.Token.Epoch() == t.epoch && ref.Token.Sequence() >= t.next) {
		return Invalid("token", fmt.Sprintf("%v has never been granted", ref.Token), "use the token of the grant")
	}
	if e == nil {
		return notHolder(ref, "is not held")
	}
	if o := e.outcomeOf(ref.Token); o != nil && o.Principal == c.Principal {
		return o.err(ref.Resource, fmt.Sprintf("%q under token %v", ref.Resource, ref.Token))
	}
	if e.held {
		return notHolder(ref, fmt.Sprintf("is held by %v under token %v", e.by(), e.token))
	}
	return notHolder(ref, "is free")
}

func notHolder(ref Ref, what string) *Error {
	return &Error{Reason: ReasonNotHolder, Resource: ref.Resource, Token: ref.Token, Message: fmt.Sprintf("%q %s, asked for %v", ref.Resource, what, ref.Token)}
}

func (t *Table) release(m Moment, r Request, c Release) {
	e, err := t.mine(r.Intake, c.Caller, c.Ref)
	if mutant.On(mutant.ReleaseWithoutToken) && t.Known(c.Resource) && t.entries[c.Resource].held {
		e, err = t.entries[c.Resource], nil
	}
	if err != nil {
		// A repeated release has nothing to do any more; it names the grant that it ended.
		if prev := t.entries[c.Resource]; prev != nil {
			if o := prev.outcomeOf(c.Token); o != nil && o.End == EndReleased && o.Principal == c.Principal {
				t.reply(r.ID, nil)
				return
			}
		}
		t.refuse(r.ID, err)
		return
	}
	t.end(m, e, EndReleased)
	t.reply(r.ID, nil)
}

func (t *Table) putCheckpoint(m Moment, r Request, c Checkpoint) {
	if len(c.Data) > MaxCheckpointBytes {
		t.refuse(r.ID, Invalid("data", fmt.Sprintf("is %d bytes long", len(c.Data)), fmt.Sprintf("use at most %d", MaxCheckpointBytes)))
		return
	}
	e, err := t.mine(r.Intake, c.Caller, c.Ref)
	if mutant.On(mutant.CheckpointWithoutToken) && t.Known(c.Resource) && t.entries[c.Resource].held {
		e, err = t.entries[c.Resource], nil
	}
	if err == nil && e.ending {
		err = expiredError(e, "is being taken away by a forced release")
	}
	if err != nil {
		t.refuse(r.ID, err)
		return
	}
	if overtaken := c.Sequence != 0 && c.Sequence <= e.more().sequence; overtaken && !mutant.On(mutant.CheckpointOvertakes) {
		t.reply(r.ID, nil)
		return
	}
	e.more().checkpoint, e.more().sequence = c.Data, max(c.Sequence, e.more().sequence)
	e.hasCheckpoint = len(c.Data) > 0
	if !e.dirtyCheck {
		e.dirtyCheck = true
		t.dirtyWrites++
	}
	t.mark(e)
	t.reply(r.ID, nil)
}

// Grows says whether a checkpoint would be stored, and is longer than the one that it replaces.
func (t *Table) Grows(intake clock.Instant, c Checkpoint) bool {
	e, err := t.mine(intake, c.Caller, c.Ref)
	return err == nil && len(c.Data) > len(e.checkpoint())
}

func (t *Table) forceRelease(m Moment, r Request, c ForceRelease) {
	if err := cmp.Or(checkText("reason", c.Reason, MaxReasonBytes), checkText("principal", string(c.Principal), maxPrincipalBytes)); err != nil {
		t.refuse(r.ID, err)
		return
	}
	e := t.entries[c.Resource]
	if t.refused(r.ID, e) {
		return
	}
	if e != nil {
		t.settle(m, e, r.Intake)
	}
	switch {
	case e == nil || !e.held:
		t.refuse(r.ID, &Error{Reason: ReasonNotFound, Resource: c.Resource, Message: fmt.Sprintf("nobody holds %q", c.Resource)})
	case c.Token != 0 && c.Token != e.token:
		t.refuse(r.ID, &Error{Reason: ReasonStaleToken, Resource: c.Resource, Token: e.token, Holder: e.by(),
			Message: fmt.Sprintf("%q is held under token %v, not %v", c.Resource, e.token, c.Token)})
	case c.Now && t.provable(e):
		// Whoever is granted it next is granted it when every guard has been proved to refuse this holder, who may believe
		// until then that it holds the resource.
		t.end(m, e, EndForced)
		t.reply(r.ID, t.info(m, e))
	case c.Now:
		t.refuse(r.ID, &Error{Reason: ReasonNotGuarded, Resource: c.Resource, Token: e.token,
			Message: fmt.Sprintf("no guard has proved that it refuses token %v of %q, so its holder may still be writing", e.token, c.Resource),
			Fix:     "release it without --now: it is free when its lease has run out"})
	default:
		if !e.ending {
			e.ending = true
			t.mark(e)
		}
		t.reply(r.ID, t.info(m, e))
	}
}

// provable says whether the next grant of a resource rests on proof alone: a guard covers it, and its rule takes nothing less.
func (t *Table) provable(e *entry) bool {
	rule := t.guarded(e.name)
	return rule != nil && !rule.AllowUnproven && slices.ContainsFunc(t.guards.order, func(g *guard) bool { return g.covers(e.name) })
}

func (t *Table) inspect(m Moment, r Request, c Inspect) {
	if c.Token != 0 {
		e, err := t.mine(r.Intake, c.Caller, c.Ref)
		if err != nil {
			t.refuse(r.ID, err)
			return
		}
		t.reply(r.ID, t.inspected(m, e, c))
		return
	}
	e := t.entries[c.Resource]
	if e == nil {
		t.refuse(r.ID, &Error{Reason: ReasonNotFound, Resource: c.Resource, Message: fmt.Sprintf("nothing is known of %q", c.Resource)})
		return
	}
	t.reply(r.ID, t.inspected(m, e, c))
}

func (t *Table) inspected(m Moment, e *entry, c Inspect) Info {
	i := t.info(m, e)
	if c.WithCheckpoint {
		i.Checkpoint = e.checkpoint()
	}
	return i
}

func (t *Table) info(m Moment, e *entry) Info {
	rec := e.record()
	i := rec.Info()
	i.Waiters, i.Awaits = len(e.queue()), e.raise().names()
	if e.held && e.tenure() == "" {
		i.Remaining = max(e.due.Sub(m.Now), time.Duration(0))
	}
	return i
}
