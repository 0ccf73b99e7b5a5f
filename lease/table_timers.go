//writ:core

package lease

import "github.com/writ-io/writ/lease/clock"

// timed is an entry, a waiter or a guard. Each has one timer at most, which is never put off: one that finds nothing due sets the
// next.
type timed interface{ timerPlace() *int32 }

func (e *entry) timerPlace() *int32  { return &e.timer }
func (w *waiter) timerPlace() *int32 { return &w.timer }

type timer struct {
	at  clock.Instant
	seq uint64 // first set, first served
	of  timed
}

// timerHeap is a binary heap, earliest first.
type timerHeap struct {
	items []timer
	seq   uint64
}

func (h *timerHeap) less(i, j int) bool {
	a, b := &h.items[i], &h.items[j]
	if a.at != b.at {
		return a.at < b.at
	}
	return a.seq < b.seq
}

func (h *timerHeap) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.items[i].of.timerPlace(), *h.items[j].of.timerPlace() = int32(i+1), int32(j+1)
}

// set makes sure that the timer goes off by then.
func (h *timerHeap) set(of timed, at clock.Instant) {
	i := int(*of.timerPlace()) - 1
	switch {
	case i < 0:
		i = len(h.items)
		h.items = append(h.items, timer{of: of})
		*of.timerPlace() = int32(i + 1)
	case h.items[i].at <= at:
		return
	}
	h.seq++
	h.items[i].at, h.items[i].seq = at, h.seq
	h.up(i)
}

func (h *timerHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *timerHeap) down(i int) {
	for {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(h.items) && h.less(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}

func (h *timerHeap) remove(of timed) {
	i, last := int(*of.timerPlace())-1, len(h.items)-1
	if i < 0 {
		return
	}
	h.swap(i, last)
	h.items[last] = timer{}
	h.items = h.items[:last]
	*of.timerPlace() = 0
	if i < last {
		h.down(i)
		h.up(i)
	}
}

func (h *timerHeap) pop() timed {
	of := h.items[0].of
	h.remove(of)
	return of
}

func (h *timerHeap) next() clock.Instant {
	if len(h.items) == 0 {
		return clock.Never
	}
	return h.items[0].at
}

// wakeAt makes sure that the entry is looked at by then.
func (t *Table) wakeAt(e *entry, at clock.Instant) {
	if at < clock.Never {
		t.timers.set(e, at)
	}
}

// wakeFree sets the next look at a free resource: for whoever waits out the lock delay, or to forget it.
func (t *Table) wakeFree(e *entry) {
	if e.tenure() != "" {
		return // it is never forgotten
	}
	if len(e.queue()) > 0 {
		t.wakeAt(e, e.due)
	} else if !e.hasCheckpoint {
		t.wakeAt(e, t.forgetAt(e))
	}
}

func (t *Table) forgetAt(e *entry) clock.Instant {
	return max(e.freedAt.Add(t.config.Retention), e.due)
}

func (t *Table) tick(m Moment, limit Tick) {
	// Whoever waits takes a token from whatever ends.
	for t.timers.next() <= m.Now && t.dirtyWrites+len(t.effects.Notes) < limit.MaxWrites &&
		t.dirtyBytes+t.noteBytes < limit.MaxBytes && t.TokensLeft() > 0 {
		switch of := t.timers.pop().(type) {
		case *waiter:
			t.waiterDue(m, of)
		case *entry:
			t.entryDue(m, of)
		case *guard:
			t.guardDue(m, of)
		}
	}
}

func (t *Table) waiterDue(m Moment, w *waiter) {
	switch {
	case w.call != 0 && w.pollUntil <= m.Now:
		t.answerWaiting(m, w)
	case w.call != 0:
		t.timers.set(w, w.pollUntil)
	case w.keepUntil <= m.Now:
		t.leave(w)
	default:
		t.timers.set(w, w.keepUntil)
	}
}

func (t *Table) entryDue(m Moment, e *entry) {
	switch {
	case e.ended:
		t.mark(e)
		t.wakeFree(e)
	case e.tenure() != "":
	case e.held && e.due <= m.Now:
		t.expire(m, e)
	case e.held:
		t.wakeAt(e, e.due)
	case len(e.queue()) > 0 && e.due <= m.Now:
		t.promote(m, e)
	case len(e.queue()) > 0:
		t.wakeAt(e, e.due)
	case e.hasCheckpoint || e.gone:
	case t.forgetAt(e) <= m.Now:
		t.forget(e)
	default:
		t.wakeAt(e, t.forgetAt(e))
	}
}
