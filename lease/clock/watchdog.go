package clock

import (
	"time"

	"github.com/writ-io/writ/sim/mutant"
)

// SuspectAfter is the disagreement between the clock and the time of day, over
// one interval, above which a [Watchdog] suspects a freeze.
const SuspectAfter = time.Second

// Watchdog notices that the clock and the time of day disagree about how much
// time has passed. That happens when a virtual machine was frozen and only one
// of the two shows it, or when somebody set the time of day. Either way the
// process must renew contact before it admits or believes anything.
//
// It is a pure value: it reads no clock. The zero Watchdog is ready for use. It
// is not safe for concurrent use.
type Watchdog struct {
	started bool
	now     Instant
	wall    time.Time
}

// Observe compares the time passed since the observation before by both
// clocks. It returns jump, by how much the time of day went further than the
// clock (negative: the clock went further, or the time of day was set back),
// and suspect, whether they disagree by more than [SuspectAfter]. A clock that
// went backwards is always suspect. The first observation has nothing to
// compare with and is never suspect.
//
// Take now and wall together, and observe regularly, say once a second: the
// ordinary correction of a time of day stays far below the threshold over a
// short interval.
func (w *Watchdog) Observe(now Instant, wall time.Time) (jump time.Duration, suspect bool) {
	wall = wall.Round(0)
	if !w.started {
		*w = Watchdog{started: true, now: now, wall: wall}
		return 0, false
	}
	passed := now.Sub(w.now)
	jump = time.Duration(subtract(int64(wall.Sub(w.wall)), int64(passed)))
	w.now, w.wall = now, wall
	if mutant.On(mutant.FreezeUnnoticed) {
		return jump, false
	}
	return jump, passed < 0 || jump > SuspectAfter || jump < -SuspectAfter
}
