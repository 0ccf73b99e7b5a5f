//writ:core

package lease

import "github.com/writ-io/writ/lease/clock"

// timer wakes an entry or a waiter. Timers are never taken back: one that finds nothing due sets the next.
type timer struct {
	at     clock.Instant
	seq    uint64 // first set, first served
	entry  *entry
	waiter *waiter
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

func (h *timerHeap) push(t timer) {
	h.seq++
	t.seq = h.seq
	h.items = append(h.items, t)
	for i := len(h.items) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			break
		}
		h.items[i], h.items[parent] = h.items[parent], h.items[i]
		i = parent
	}
}

func (h *timerHeap) pop() timer {
	top, last := h.items[0], len(h.items)-1
	h.items[0] = h.items[last]
	h.items[last] = timer{}
	h.items = h.items[:last]
	for i := 0; ; {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < last && h.less(child, least) {
				least = child
			}
		}
		if least == i {
			return top
		}
		h.items[i], h.items[least] = h.items[least], h.items[i]
		i = least
	}
}

func (h *timerHeap) next() clock.Instant {
	if len(h.items) == 0 {
		return clock.Never
	}
	return h.items[0].at
}

// wakeAt makes sure that the entry is looked at by then.
func (t *Table) wakeAt(e *entry, at clock.Instant) {
	if at < e.wake {
		e.wake = at
		t.timers.push(timer{at: at, entry: e})
	}
}

// wakeFree sets the next look at a free resource: for whoever waits out the lock delay, or to forget it.
func (t *Table) wakeFree(e *entry) {
	if len(e.queue) > 0 {
		t.wakeAt(e, e.notBefore)
	} else if !e.rec.HasCheckpoint {
		t.wakeAt(e, t.forgetAt(e))
	}
}

func (t *Table) forgetAt(e *entry) clock.Instant {
	return max(e.freedAt.Add(t.config.Retention), e.notBefore)
}

func (t *Table) tick(m Moment, limit Tick) {
	// Whoever waits takes a token from whatever ends.
	for t.timers.next() <= m.Now && t.dirtyWrites < limit.MaxWrites && t.dirtyBytes < limit.MaxBytes && t.TokensLeft() > 0 {
		tm := t.timers.pop()
		if tm.waiter != nil {
			t.waiterDue(m, tm.waiter)
			continue
		}
		if e := tm.entry; e.wake == tm.at && t.entries[e.rec.Resource] == e {
			e.wake = clock.Never
			t.entryDue(m, e)
		}
	}
}

func (t *Table) waiterDue(m Moment, w *waiter) {
	switch {
	case w.entry == nil:
	case w.call != 0 && w.pollUntil <= m.Now:
		t.answerWaiting(m, w)
	case w.call == 0 && w.keepUntil <= m.Now:
		t.leave(w)
	}
}

func (t *Table) entryDue(m Moment, e *entry) {
	switch {
	case e.ended:
		t.mark(e)
		t.wakeFree(e)
	case e.rec.Held && e.deadline <= m.Now:
		t.expire(m, e)
	case e.rec.Held:
		t.wakeAt(e, e.deadline)
	case len(e.queue) > 0 && e.notBefore <= m.Now:
		t.promote(m, e)
	case len(e.queue) > 0:
		t.wakeAt(e, e.notBefore)
	case e.rec.HasCheckpoint || e.gone:
	case t.forgetAt(e) <= m.Now:
		t.forget(e)
	default:
		t.wakeAt(e, t.forgetAt(e))
	}
}
