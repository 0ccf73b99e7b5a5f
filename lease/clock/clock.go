package clock

import (
	"math"
	"time"
)

// Instant is a point in time of one clock, in nanoseconds since an origin that
// only that clock knows (on Linux, [System] counts from boot). It means nothing
// to another process, another machine or another Clock, and it must not be
// stored or sent.
//
// The clocks of this package never return the zero Instant, so zero can stand
// for "not set".
type Instant int64

// Never is later than every instant that a clock shows.
const Never Instant = 1<<63 - 1

// Add returns the instant d after i (before it when d is negative). A result
// that does not fit becomes the latest or the earliest Instant.
func (i Instant) Add(d time.Duration) Instant {
	sum := int64(i) + int64(d)
	switch {
	case d > 0 && sum < int64(i):
		return math.MaxInt64
	case d < 0 && sum > int64(i):
		return math.MinInt64
	}
	return Instant(sum)
}

// Sub returns how long after earlier i is. A result that does not fit becomes
// the longest or the most negative Duration.
func (i Instant) Sub(earlier Instant) time.Duration {
	return time.Duration(subtract(int64(i), int64(earlier)))
}

// Before reports whether i is strictly before j.
func (i Instant) Before(j Instant) bool { return i < j }

// After reports whether i is strictly after j.
func (i Instant) After(j Instant) bool { return i > j }

// subtract returns a−b, held to the range of int64.
func subtract(a, b int64) int64 {
	diff := a - b
	switch {
	case b < 0 && diff < a:
		return math.MaxInt64
	case b > 0 && diff > a:
		return math.MinInt64
	}
	return diff
}

// Clock tells the time and wakes its callers. Implementations are safe for
// concurrent use.
type Clock interface {
	// Now returns the present instant. It never goes backwards.
	Now() Instant

	// Wall returns the time of day in UTC, without a monotonic reading. It may
	// jump either way. It is for people; never compute a lease from it.
	Wall() time.Time

	// NewTimer returns a timer that fires once, at or after at. An instant that
	// is not in the future fires at once. Stop a timer that is not needed any
	// more.
	NewTimer(at Instant) Timer
}

// Timer fires once for each time it is set. Its methods are safe for
// concurrent use, and none of them blocks.
type Timer interface {
	// C returns the channel on which the timer fires, always the same one. It
	// holds at most one tick, so a receiver that is late loses nothing and the
	// clock never waits for it. It is never closed.
	C() <-chan struct{}

	// Reset sets the timer to fire at or after at, in place of what it was set
	// to before. It needs no Stop and no draining: once Reset has returned, a
	// tick received from C belongs to the new setting.
	Reset(at Instant)

	// Stop disarms the timer. Once Stop has returned, nothing is received from
	// C until the next Reset. Stop may be called any number of times.
	Stop()
}

// System returns the clock of this process. All calls return the same clock.
//
// On Linux it reads CLOCK_BOOTTIME, which goes on during suspend. Elsewhere it
// is Go's monotonic clock, with the limitation that [SuspendAware] reports.
//
// Go's timers stand still during suspend, so an armed timer looks at the clock
// again at least every 100 ms: what fell due during a suspend fires within
// 100 ms of the resume. That costs one short wake-up per 100 ms for each armed
// timer, so a loop that waits for many deadlines arms one timer for the
// earliest.
//
// System must not be used inside a testing/synctest bubble, where Go's timers
// run on invented time; use [Monotonic] there.
func System() Clock { return system }

// maxSlice bounds how late a timer notices that the machine was suspended.
const maxSlice = 100 * time.Millisecond

var system Clock = systemClock{}

type systemClock struct{}

func (systemClock) Now() Instant    { return systemNow() }
func (systemClock) Wall() time.Time { return wallNow() }

func (systemClock) NewTimer(at Instant) Timer {
	return newTimer(systemNow, maxSlice, at)
}

// Monotonic returns a clock on Go's time package, whose instants count from
// shortly before the call. Inside a testing/synctest bubble it follows the
// bubble's time; create it inside the bubble.
//
// It does not count suspend on most platforms. Production code uses [System].
// Instants of two Monotonic clocks are not comparable.
func Monotonic() Clock { return monotonicClock{origin: time.Now()} }

type monotonicClock struct{ origin time.Time }

// firstInstant keeps the instants of clocks that count from their creation away
// from zero.
const firstInstant Instant = Instant(time.Second)

func (m monotonicClock) Now() Instant    { return firstInstant.Add(time.Since(m.origin)) }
func (m monotonicClock) Wall() time.Time { return wallNow() }

func (m monotonicClock) NewTimer(at Instant) Timer {
	return newTimer(m.Now, math.MaxInt64, at)
}

// wallNow strips the monotonic reading, so that subtracting two results really
// compares times of day.
func wallNow() time.Time { return time.Now().Round(0).UTC() }

var (
	_ Clock = systemClock{}
	_ Clock = monotonicClock{}
	_ Clock = (*Manual)(nil)
	_ Timer = (*goTimer)(nil)
	_ Timer = (*manualTimer)(nil)
)
