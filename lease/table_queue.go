//writ:core

package lease

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

// waiter is a request in a queue. Between two polls it has no call and keeps its place until keepUntil.
type waiter struct {
	acquire   Acquire
	call      CallID // 0 between polls
	intake    clock.Instant
	pollUntil clock.Instant
	keepUntil clock.Instant
	seq       uint64
	entry     *entry // nil once it has left the queue
	timer     int32  // its place in the timers, from 1; 0: none
	// once: it waits for guards alone, and not for another holder; it is refused when its time is up.
	once bool
}

type waitKey struct {
	resource  Resource
	principal Principal
	requestID string
}

func (w *waiter) key() waitKey {
	return waitKey{w.acquire.Resource, w.acquire.Principal, w.acquire.RequestID}
}

// third is the longest poll: a dead waiter is dropped soon, and a grant counts from a recent send.
func (w *waiter) third() time.Duration { return w.acquire.TTL / 3 }

// before orders a queue: higher priority first, then first come.
func (w *waiter) before(v *waiter) bool {
	if w.acquire.Priority != v.acquire.Priority {
		return w.acquire.Priority > v.acquire.Priority
	}
	return w.seq < v.seq
}

func (t *Table) enqueue(m Moment, e *entry, r Request, c Acquire, once bool) {
	t.waitSeq++
	w := &waiter{acquire: c, seq: t.waitSeq, entry: e, once: once}
	queue := e.queue()
	at := sort.Search(len(queue), func(i int) bool { return w.before(queue[i]) })
	e.more().queue = slices.Insert(queue, at, w)
	t.byRequest[w.key()] = w
	t.listen(m, w, r, c)
	if !e.held {
		t.wakeFree(e) // when the lock delay ends, not with the next poll
	}
}

// poll lets a waiting request wait on, at its place, with what the new poll says about time.
func (t *Table) poll(m Moment, w *waiter, r Request, c Acquire) {
	if w.acquire.Instance != c.Instance {
		t.refuse(r.ID, t.heldError(w.entry))
		return
	}
	if w.call != 0 {
		t.answerWaiting(m, w)
	}
	w.acquire.TTL = c.TTL
	t.listen(m, w, r, c)
	t.promote(m, w.entry)
	if c.Wait <= 0 && w.call == r.ID && w.entry != nil {
		t.answerWaiting(m, w)
	}
}

func (t *Table) listen(m Moment, w *waiter, r Request, c Acquire) {
	if w.call = r.ID; w.intake == 0 || !mutant.On(mutant.PollKeepsOldIntake) {
		w.intake = r.Intake
	}
	w.pollUntil = r.Intake.Add(min(c.Wait, w.third()))
	w.keepUntil = w.pollUntil.Add(w.third())
	t.waiting[r.ID] = w
	t.timers.set(w, max(w.pollUntil, m.Now))
}

// place is where a waiter stands in the queue, from 0.
func (e *entry) place(w *waiter) int {
	queue := e.queue()
	return sort.Search(len(queue), func(i int) bool { return !queue[i].before(w) })
}

// answerWaiting ends a poll and keeps the place for another third of the TTL.
func (t *Table) answerWaiting(m Moment, w *waiter) {
	e := w.entry
	if w.once {
		t.refuse(w.call, t.fencingError(e))
		t.leave(w)
		return
	}
	t.reply(w.call, &Waiting{Position: e.place(w) + 1, HeldBy: e.by(), HeldToken: e.token, Keep: w.third()})
	t.hangUp(m, w)
}

func (t *Table) hangUp(m Moment, w *waiter) {
	delete(t.waiting, w.call)
	w.call = 0
	w.keepUntil = m.Now.Add(w.third())
	t.timers.set(w, w.keepUntil)
}

func (t *Table) gone(m Moment, id CallID) {
	switch w := t.waiting[id]; {
	case w == nil:
	case w.once:
		t.leave(w)
	default:
		t.hangUp(m, w)
	}
}

// leave takes a request out of its queue.
func (t *Table) leave(w *waiter) {
	e := w.entry
	at := e.place(w)
	e.extra.queue = slices.Delete(e.extra.queue, at, at+1)
	if len(e.extra.queue) == 0 {
		e.extra.queue = nil
	}
	delete(t.byRequest, w.key())
	delete(t.waiting, w.call)
	t.timers.remove(w)
	w.entry = nil
	if len(e.queue()) == 0 && !e.held {
		t.wakeFree(e)
	}
}

// promote gives a free resource to the first in the queue.
func (t *Table) promote(m Moment, e *entry) {
	for i := 0; i < len(e.queue()) && !e.held && e.due <= m.Now && !t.full(int(e.rule)) && t.fenced(m, e); {
		w := e.queue()[i]
		switch {
		case w.call == 0 && w.keepUntil <= m.Now:
			t.leave(w)
		case w.intake.Add(w.acquire.TTL-w.third()) <= m.Now:
			// Its validity would count from a send too long ago: let it ask again, and the next in line have it.
			if w.call != 0 {
				t.answerWaiting(m, w)
			}
			if w.entry != nil {
				i++
			}
		default:
			granted := *w
			t.leave(w)
			t.grant(m, e, granted)
		}
	}
}

func (t *Table) cancelAcquire(m Moment, r Request, c CancelAcquire) {
	if err := checkCancel(c); err != nil {
		t.refuse(r.ID, err)
		return
	}
	e := t.entries[c.Resource]
	if t.refused(r.ID, e) {
		return
	}
	if e == nil {
		e = t.newEntry(m, c.Resource, t.config.Policy.ruleFor(c.Resource))
	}
	t.settle(m, e, r.Intake)
	if e.held && e.holder.Principal == c.Principal && e.requestID == c.RequestID {
		if e.holder.Instance != c.Instance {
			t.refuse(r.ID, anothersError(c))
			return
		}
		token := e.token
		t.end(m, e, EndReleased)
		t.reply(r.ID, token)
		return
	}
	if o := e.outcome(c.Principal, c.RequestID); o != nil {
		t.reply(r.ID, fence.Token(0))
		return
	}
	if w := t.byRequest[waitKey{c.Resource, c.Principal, c.RequestID}]; w != nil {
		if w.acquire.Instance != c.Instance {
			t.refuse(r.ID, anothersError(c))
			return
		}
		if w.call != 0 {
			t.refuse(w.call, Errorf(ReasonReleased, "request %q for %q was cancelled", c.RequestID, c.Resource))
		}
		t.leave(w)
	}
	// Remembered even if nothing waited: the request itself may still be on its way.
	e.remember(c.Principal, c.RequestID, 0, EndCancelled)
	t.mark(e)
	if !e.held {
		e.freedAt = m.Now // remembered as long as any other outcome
		t.wakeFree(e)
	}
	t.reply(r.ID, fence.Token(0))
}

// anothersError protects a request from another process of the same principal that happens to use the same id.
func anothersError(c CancelAcquire) *Error {
	return Errorf(ReasonNotHolder, "request %q for %q is another instance's", c.RequestID, c.Resource)
}

func checkCancel(c CancelAcquire) *Error {
	if p := resourceProblem(string(c.Resource)); p != "" {
		return Invalid("resource", p, "use the name of the request to cancel")
	}
	if c.RequestID == "" {
		return Invalid("request_id", "is empty", "use the id of the request to cancel")
	}
	return cmp.Or(checkText("request_id", c.RequestID, MaxRequestIDBytes), checkText("principal", string(c.Principal), maxPrincipalBytes))
}
