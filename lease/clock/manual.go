package clock

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Manual is a [Clock] that moves only when told to, for tests that decide every
// step. It starts no goroutine, and the same calls always have the same result.
//
// Suspend and freeze are played like this: a suspend that the clock counts is
// Advance, a freeze that only the wall clock shows afterwards is JumpWall, and
// one that hides from the wall clock is Advance(d) followed by JumpWall(-d).
//
// A Manual is safe for concurrent use. It must be made by [NewManual].
type Manual struct {
	mu    sync.Mutex
	now   Instant        // guarded by mu
	wall  time.Time      // guarded by mu
	armed []*manualTimer // guarded by mu; in the order in which they were set
}

// manualWall is where the wall clock of every Manual starts.
var manualWall = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// NewManual returns a clock that stands at start. Its wall clock stands at
// midnight UTC on 1 January 2026; SetWall changes that. Starting at the zero
// Instant makes "now" look like "not set" to code that uses zero for it.
func NewManual(start Instant) *Manual {
	return &Manual{now: start, wall: manualWall}
}

// Now returns the instant to which the clock was last moved.
func (m *Manual) Now() Instant {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Wall returns the time of day to which the clock was last moved or set.
func (m *Manual) Wall() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wall
}

// Advance moves the clock and the time of day forward by d, and fires every
// timer that is due by then before it returns. It panics when d is negative,
// because Now never goes backwards.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d < 0 {
		panic(fmt.Sprintf("clock: Manual.Advance(%v): the clock cannot go back; use JumpWall for the time of day", d))
	}
	m.now = m.now.Add(d)
	m.wall = m.wall.Add(d)
	m.armed = slices.DeleteFunc(m.armed, func(t *manualTimer) bool {
		due := !m.now.Before(t.at)
		if due {
			t.ch.fire()
		}
		return due
	})
}

// SetWall sets the time of day and leaves the clock where it is.
func (m *Manual) SetWall(wall time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wall = wall.Round(0).UTC()
}

// JumpWall moves only the time of day, forward or, when d is negative, back.
func (m *Manual) JumpWall(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wall = m.wall.Add(d)
}

// NextTimer returns the earliest instant for which a timer is armed, and false
// when there is none. A test can drive to it with Advance(at.Sub(m.Now())).
func (m *Manual) NextTimer() (at Instant, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.armed {
		if !ok || t.at.Before(at) {
			at, ok = t.at, true
		}
	}
	return at, ok
}

// NewTimer returns a timer that fires when Advance reaches at, or at once when
// at is not in the future.
func (m *Manual) NewTimer(at Instant) Timer {
	t := &manualTimer{clock: m, ch: newTick()}
	t.Reset(at)
	return t
}

type manualTimer struct {
	clock *Manual
	ch    tick
	at    Instant // guarded by clock.mu
}

func (t *manualTimer) C() <-chan struct{} { return t.ch }

func (t *manualTimer) Reset(at Instant) {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.disarm()
	t.at = at
	if !t.clock.now.Before(at) {
		t.ch.fire()
		return
	}
	t.clock.armed = append(t.clock.armed, t)
}

func (t *manualTimer) Stop() {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.disarm()
}

// disarm takes the timer off the clock and takes back an unreceived tick. The
// caller holds clock.mu.
func (t *manualTimer) disarm() {
	t.clock.armed = slices.DeleteFunc(t.clock.armed, func(o *manualTimer) bool { return o == t })
	t.ch.clear()
}
