package world

import (
	"math/bits"
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// Clock is a machine's clock: it runs at a rate of its own, and its wall clock can be set.
type Clock struct {
	world *World
	ppm   int64         // it runs by so many millionths faster than T
	at    time.Duration // T at which it showed base
	base  clock.Instant
	wall  time.Time // what the wall clock showed at that T
}

// wallStart is what every wall clock shows at T 0, unless it is set.
var wallStart = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// NewClock makes a clock that runs ppm millionths faster than real time, or slower if that is negative. It starts at some
// instant of its own, as machines do that were not started together.
func (w *World) NewClock(name string, ppm int64) *Clock {
	base := clock.Instant(time.Hour) + clock.Instant(w.Dice("clock", hashString(name)).Between(0, 1000*time.Hour))
	return &Clock{world: w, ppm: ppm, base: base, wall: wallStart, at: w.now}
}

// elapsed is what the clock counts in d of real time, exact for some thousand hours.
func (c *Clock) elapsed(d time.Duration) time.Duration {
	return d + d*time.Duration(c.ppm)/1_000_000
}

// Now is what the clock shows.
func (c *Clock) Now() clock.Instant { return c.base.Add(c.elapsed(c.world.now - c.at)) }

// Wall is the time of day that the machine shows.
func (c *Clock) Wall() time.Time { return c.wall.Add(c.elapsed(c.world.now - c.at)) }

// farthest is how far ahead a clock is read: further than any run goes, and no product overflows.
const farthest = 4000 * time.Hour

// When is the first T at which the clock shows an instant, as it runs now; the present if it does already.
func (c *Clock) When(i clock.Instant) time.Duration {
	left := i.Sub(c.base)
	if left <= 0 {
		return c.world.now
	}
	left = min(left, farthest)
	high, low := bits.Mul64(uint64(left), 1_000_000)
	quotient, _ := bits.Div64(high, low, uint64(1_000_000+c.ppm))
	t := time.Duration(quotient)
	for t > 0 && c.elapsed(t-1) >= left {
		t--
	}
	for c.elapsed(t) < left {
		t++
	}
	return max(c.at+t, c.world.now)
}

// rebase lets the clock go on from what it shows.
func (c *Clock) rebase() {
	c.base, c.wall, c.at = c.Now(), c.Wall(), c.world.now
}

// JumpWall sets the time of day forward, or back.
func (c *Clock) JumpWall(d time.Duration) {
	c.rebase()
	c.wall = c.wall.Add(d)
}

// Miss makes the clock miss d of the time that has passed, as a machine that was frozen by its host: the time of day has been
// corrected since, so that it shows.
func (c *Clock) Miss(d time.Duration) {
	c.rebase()
	c.base = c.base.Add(-d)
}
