//writ:core

package cron

import (
	"hash/fnv"
	"strconv"
	"time"

	"github.com/writ-io/writ/sim/mutant"
)

// Reasons for which slots are skipped.
const (
	reasonPaused   = "paused"
	reasonMissed   = "missed"
	reasonOverlap  = "the one before was running"
	reasonOvertake = "another fell due before it could run"
	reasonFull     = "too many were waiting"
)

// nextSlot returns the slot after the cursor.
func (m *Machine) nextSlot() (time.Time, bool) {
	if !m.nextAfter.Equal(m.state.Cursor) || m.nextAfter.IsZero() {
		m.next, m.nextOK = m.cfg.Schedule.Next(m.state.Cursor)
		m.nextAfter = m.state.Cursor
	}
	return m.next, m.nextOK
}

// due is when a slot is run: its jitter after it.
func (m *Machine) due(slot time.Time) time.Time {
	return slot.Add(Jitter(m.cfg.Job, slot, m.cfg.Policy.Jitter))
}

// Jitter is by how much a slot of a job is delayed: less than most, in milliseconds, and the same everywhere.
func Jitter(job string, slot time.Time, most time.Duration) time.Duration {
	if most < time.Millisecond {
		return 0
	}
	h := fnv.New64a()
	text := make([]byte, 0, 64)
	text = append(append(strconv.AppendInt(text, slot.Unix(), 10), ' '), job...)
	_, _ = h.Write(text) // never fails
	sum := h.Sum64()
	sum ^= sum >> 32 // the low bits of FNV are the poorer ones
	return time.Duration(sum%uint64(most.Milliseconds())) * time.Millisecond
}

// dispose moves the cursor over every slot that is due: it waits in the backlog from now on, or is skipped and recorded.
func (m *Machine) dispose() {
	if m.control.Pause != nil {
		for _, slot := range m.state.Backlog {
			m.skip(slot.At, slot.At, reasonPaused)
		}
		m.state.Backlog = nil
	}
	first, ok := m.nextSlot()
	if !ok || m.due(first).After(m.now) {
		return
	}
	last := m.lastDue(first)
	if m.control.Pause != nil {
		m.skip(first, last, reasonPaused)
	} else {
		m.admit(first, last)
	}
	m.state.Cursor, m.dirty = last.UTC(), true
}

// lastDue returns the last slot that is due, given that the first is. Slots fall due in their order: one that is not due
// holds those after it up.
func (m *Machine) lastDue(first time.Time) time.Time {
	last := first
	if sure, ok := m.cfg.Schedule.Latest(first, m.now.Add(-m.cfg.Policy.Jitter)); ok {
		last = sure
	}
	for {
		next, ok := m.cfg.Schedule.Next(last)
		if !ok || m.due(next).After(m.now) {
			return last
		}
		last = next
	}
}

// admit chooses among the slots from first to last, which are due.
func (m *Machine) admit(first, last time.Time) {
	policy := m.cfg.Policy
	oldest := m.now.Add(-max(policy.Window, Punctual))
	if mutant.On(mutant.WindowIgnored) {
		oldest = m.now.Add(-Punctual)
	}
	var chosen []time.Time // the newest first
	most := 1
	if policy.CatchUp == CatchUpAll {
		most = policy.Max
	}
	slot, ok := last, true
	for ; ok && len(chosen) < most && !m.due(slot).Before(oldest); slot, ok = m.before(first, slot) {
		chosen = append(chosen, slot)
	}
	missed := 0
	if ok { // slot is the newest of those that were not chosen
		missed = m.skip(first, slot, reasonMissed)
	}
	for i := len(chosen) - 1; i >= 0; i-- {
		m.enqueue(Slot{At: chosen[i].UTC(), Missed: missed})
		missed = 0
	}
}

// before returns the slot before another, and false if it would be before first.
func (m *Machine) before(first, slot time.Time) (time.Time, bool) {
	return m.cfg.Schedule.Latest(first.Add(-time.Second), slot.Add(-time.Second))
}

// enqueue adds a slot that is due to the backlog, or does what overlap asks for.
func (m *Machine) enqueue(slot Slot) {
	busy := m.running != nil || m.claimed != nil
	waiting := len(m.state.Backlog)
	switch {
	case waiting == 0 && !busy:
		m.wait(slot)
	case waiting > 0 && m.cfg.Policy.CatchUp == CatchUpAll:
		if waiting >= m.cfg.Policy.Max {
			m.skip(slot.At, slot.At, reasonFull)
			return
		}
		m.wait(slot)
	case m.cfg.Policy.Overlap == OverlapCancelOther:
		for _, w := range m.state.Backlog {
			m.skip(w.At, w.At, reasonOvertake)
		}
		m.state.Backlog = nil
		m.wait(slot)
		if m.running != nil && !m.cancel {
			m.cancel, m.out.Cancel = true, true
		}
	case m.cfg.Policy.Overlap == OverlapBufferOne && waiting == 0:
		m.wait(slot)
	default:
		m.skip(slot.At, slot.At, reasonOverlap)
	}
}

func (m *Machine) wait(slot Slot) {
	m.state.Backlog = append(m.state.Backlog[:len(m.state.Backlog):len(m.state.Backlog)], slot)
	m.dirty = true
}

// skip records that slots are not run, and returns how many, up to countLimit.
func (m *Machine) skip(first, last time.Time, reason string) int {
	count := 1
	for slot := first; slot.Before(last) && count < countLimit; count++ {
		next, ok := m.cfg.Schedule.Next(slot)
		if !ok || next.After(last) {
			break
		}
		slot = next
	}
	r := Record{Slot: first.UTC(), Outcome: Skipped, Reason: reason}
	if count > 1 {
		end := last.UTC()
		r.Count, r.Last = count, &end
	}
	m.state.record(r)
	m.dirty = true
	return count
}
