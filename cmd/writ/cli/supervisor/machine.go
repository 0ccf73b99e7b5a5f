package supervisor

import (
	"errors"
	"fmt"
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// ErrDeadline is why a command was ended: the lease could not be renewed, and its local deadline came near.
var ErrDeadline = errors.New("the lease could not be renewed in time")

// giveUp is how long after SIGKILL a process that does not die is waited for.
const giveUp = 10 * time.Second

// machine decides when the processes of a command are asked to end and when they are killed. It is pure: it is told what
// happened and when, and answers what to do.
//
// Invariant: a step at or after deadline − reserve leaves the machine in the phase killing or over, and as long as it is in
// neither, wake is not after deadline − reserve.
type machine struct {
	grace, reserve time.Duration

	now      clock.Instant
	deadline clock.Instant // the latest that is known; it never goes back
	phase    phase
	phaseEnd clock.Instant // when the phase has lasted long enough; [clock.Never] while working
	exited   bool
	cause    error
	out      effects
}

// phase is how far the end of the command has come.
type phase uint8

const (
	// working: the command runs.
	working phase = iota
	// lingering: the command has exited, and what is left of its tree may end by itself.
	lingering
	// ending: everything was asked to end.
	ending
	// killing: everything was sent SIGKILL.
	killing
	// over: nothing is left, or it does not die.
	over
)

func (p phase) String() string {
	switch p {
	case working:
		return "working"
	case lingering:
		return "lingering"
	case ending:
		return "ending"
	case killing:
		return "killing"
	case over:
		return "over"
	}
	return fmt.Sprintf("phase(%d)", uint8(p))
}

// event is what happened.
type event interface{ event() }

type (
	// tick says that time has passed.
	tick struct{}
	// lost says that the lease must not be believed any more.
	lost struct{ cause error }
	// exited says that the command has ended.
	exited struct{}
	// gone says that no process of the command is left.
	gone struct{}
)

func (tick) event()   {}
func (lost) event()   {}
func (exited) event() {}
func (gone) event()   {}

// effects is what to do after a step.
type effects struct {
	terminate bool // ask every process to end
	kill      bool // kill every process
	over      bool // stop waiting
	// wake is when to step with tick if nothing happens before.
	wake clock.Instant
}

func newMachine(grace, reserve time.Duration, deadline clock.Instant) *machine {
	return &machine{grace: grace, reserve: reserve, deadline: deadline, phaseEnd: clock.Never}
}

// step takes an event. deadline is the lease's local deadline as it is now; one before the latest known changes nothing.
func (m *machine) step(now, deadline clock.Instant, e event) effects {
	m.now, m.deadline = max(m.now, now), max(m.deadline, deadline)
	m.out = effects{}
	m.passTime()
	if m.phase != over {
		switch e := e.(type) {
		case tick:
		case lost:
			m.becomeKilling(e.cause)
		case exited:
			m.commandExited()
		case gone:
			m.becomeOver()
		default:
			panic(fmt.Sprintf("supervisor: unknown event %T", e))
		}
		m.passTime() // a phase may be over as soon as it begins
	}
	m.out.wake = m.wake()
	return m.out
}

// passTime carries out what is due.
func (m *machine) passTime() {
	if m.phase < killing && !m.now.Before(m.lastMoment()) {
		m.becomeKilling(ErrDeadline)
	}
	switch m.phase {
	case working:
		if !m.now.Before(m.askAt()) {
			m.becomeEnding(ErrDeadline)
		}
	case lingering:
		if !m.now.Before(min(m.phaseEnd, m.askAt())) {
			m.becomeEnding(nil)
		}
	case ending:
		if !m.now.Before(m.phaseEnd) {
			m.becomeKilling(nil)
		}
	case killing:
		if !m.now.Before(m.phaseEnd) {
			m.becomeOver()
		}
	case over:
	}
}

// askAt is when the processes are asked to end, for want of a renewal.
func (m *machine) askAt() clock.Instant { return m.deadline.Add(-m.grace) }

// lastMoment is when they must be killed, come what may.
func (m *machine) lastMoment() clock.Instant { return m.deadline.Add(-m.reserve) }

func (m *machine) commandExited() {
	m.exited = true
	if m.phase == working {
		m.phase, m.phaseEnd = lingering, m.now.Add(m.grace)
	}
}

func (m *machine) becomeEnding(cause error) {
	m.mustBeBefore(ending)
	// The grace is not extended when a renewal succeeds after all: what was asked to end is to end.
	m.phase, m.phaseEnd = ending, m.now.Add(m.grace)
	m.blame(cause)
	m.out.terminate = true
}

func (m *machine) becomeKilling(cause error) {
	if m.phase == killing {
		return // lost, and the deadline too
	}
	m.mustBeBefore(killing)
	m.phase, m.phaseEnd = killing, m.now.Add(giveUp)
	m.blame(cause)
	m.out.kill = true
}

func (m *machine) becomeOver() {
	m.mustBeBefore(over)
	m.phase, m.phaseEnd = over, clock.Never
	m.out.over = true
}

func (m *machine) mustBeBefore(next phase) {
	if m.phase >= next {
		panic(fmt.Sprintf("supervisor: from %v to %v", m.phase, next))
	}
}

// blame remembers why the command was ended. One that had exited by itself was not.
func (m *machine) blame(cause error) {
	if m.cause == nil && !m.exited {
		m.cause = cause
	}
}

// wake is the next instant at which passTime has something to do.
func (m *machine) wake() clock.Instant {
	switch m.phase {
	case working, lingering:
		return min(m.phaseEnd, m.askAt(), m.lastMoment())
	case ending:
		return min(m.phaseEnd, m.lastMoment())
	case killing:
		return m.phaseEnd
	case over:
	}
	return clock.Never
}
