//writ:core

package partition

import (
	"slices"

	"github.com/writ-io/writ/sim/mutant"
)

// granted takes a lease in, and starts its function unless it is not wanted any more.
func (m *Machine) granted(index int) {
	p := &m.parts[index]
	switch {
	case p.phase == phaseCancelling, p.phase == phaseAsking && m.leaving:
		m.release(index)
	case p.phase == phaseAsking:
		p.phase, p.idle, p.until = phaseHeld, false, 0
		m.out.Start = append(m.out.Start, index)
	default:
		panic("partition: granted what was not asked for")
	}
}

func (m *Machine) refused(index int) {
	p := &m.parts[index]
	if p.phase == phaseAsking {
		p.until = m.now.Add(m.cfg.Retry)
	}
	p.phase = phaseNone
}

// returned releases what was to be given up. A function that returns of itself leaves its partition with this member, so
// that nobody begins anew what it has finished.
func (m *Machine) returned(index int) {
	p := &m.parts[index]
	switch p.phase {
	case phaseHeld:
		p.idle = true
	case phaseRevoked, phaseEnding:
		m.release(index)
	case phaseReleasing: // it was never started
	case phaseNone, phaseAsking, phaseCancelling:
		panic("partition: a function returned that was not running")
	}
}

// lost notes that a lease is over. There is something left to wait for only if the function has not returned.
func (m *Machine) lost(index int) {
	p := &m.parts[index]
	switch p.phase {
	case phaseHeld, phaseRevoked:
		if mutant.On(mutant.LostIsKept) {
			return
		}
		if p.idle {
			m.release(index)
			return
		}
		p.phase, p.until = phaseEnding, 0
	case phaseNone, phaseAsking, phaseCancelling, phaseEnding, phaseReleasing:
	}
}

func (m *Machine) release(index int) {
	p := &m.parts[index]
	p.phase, p.idle, p.until = phaseReleasing, false, 0
	m.out.Release = append(m.out.Release, index)
}

// decide does what is due about a partition that the member asked for.
func (m *Machine) decide(index int) {
	p := &m.parts[index]
	switch p.phase {
	case phaseAsking:
		// Somebody else should hold it: what waits in its queue would take it away from them again.
		if m.leaving || m.synced && !m.mine(index) {
			p.phase = phaseCancelling
			m.out.Cancel = append(m.out.Cancel, index)
		}
	case phaseHeld:
		if m.leaving || m.synced && m.Target(index) != "" && !m.mine(index) {
			m.revoke(index)
		}
	case phaseRevoked:
		if mutant.On(mutant.GraceForgotten) {
			return
		}
		if p.until > m.now {
			m.wake(p.until)
			return
		}
		p.phase, p.until = phaseEnding, 0
		m.out.End = append(m.out.End, index)
	case phaseNone, phaseCancelling, phaseEnding, phaseReleasing:
	}
}

// ask asks for what is free and this member's, a number at a time.
//
// It waits for the answers to what it cancelled: they may be grants. A member that holds one partition too many, if only
// until it has released it, moves everybody's target, and two that do so in turn never agree.
func (m *Machine) ask(pending int) {
	if slices.ContainsFunc(m.parts, func(p part) bool { return p.phase == phaseCancelling }) {
		return
	}
	for index := range m.parts {
		p := &m.parts[index]
		if p.phase == phaseNone && m.mayAsk(index) && pending < m.cfg.Pending {
			pending++
			p.phase, p.until = phaseAsking, 0
			m.out.Ask = append(m.out.Ask, index)
		}
	}
}

func (m *Machine) revoke(index int) {
	p := &m.parts[index]
	if p.idle {
		m.release(index)
		return
	}
	p.phase, p.until = phaseRevoked, m.now.Add(m.cfg.Grace)
	m.wake(p.until)
	m.out.Revoke = append(m.out.Revoke, index)
}

// mine tells whether the target gives a partition to this member.
func (m *Machine) mine(index int) bool { return m.Target(index) == m.cfg.Self }

// mayAsk tells whether to ask for a partition now, and wakes when only time is missing.
func (m *Machine) mayAsk(index int) bool {
	p := &m.parts[index]
	if m.leaving || m.state != memberIn || !m.synced || p.holder != "" || !m.mine(index) {
		return false
	}
	if at := max(p.until, m.startAt); at > m.now {
		m.wake(at)
		return false
	}
	return true
}
