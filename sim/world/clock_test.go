package world_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/world"
)

// reading is what a clock shows at T.
type reading struct {
	at   time.Duration
	now  clock.Instant
	wall time.Time
}

func read(w *world.World, c *world.Clock) reading { return reading{w.Now(), c.Now(), c.Wall()} }

// counted checks that a clock has counted what passed between two readings, give or take its rate.
func counted(t *rapid.T, what string, got, passed time.Duration, ppm int64) {
	t.Helper()
	// What was counted before a clock was set is rounded down, by a nanosecond each time.
	const settings = 8
	exact := float64(passed) * (1 + float64(ppm)/1e6)
	if d := float64(got) - exact; d > settings || d < -settings {
		t.Fatalf("the %s counted %v in %v at %d ppm", what, got, passed, ppm)
	}
}

// A clock counts at its rate and never goes back, whatever is done to the time of day.
func TestClockRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := world.New(rapid.Uint64().Draw(t, "seed"))
		ppm := rapid.Int64Range(-500, 500).Draw(t, "ppm")
		c := w.NewClock("c", ppm)
		first := read(w, c)
		last := first
		var jumped time.Duration
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			w.Run(w.Now() + time.Duration(rapid.OneOf(rapid.Int64Range(0, 10), rapid.Int64Range(0, int64(100*time.Hour))).Draw(t, "passes")))
			r := read(w, c)
			if r.now < last.now {
				t.Fatalf("it went back from %d to %d", last.now, r.now)
			}
			counted(t, "clock", r.now.Sub(last.now), r.at-last.at, ppm)
			counted(t, "time of day", r.wall.Sub(last.wall), r.at-last.at, ppm)
			counted(t, "clock", r.now.Sub(first.now), r.at-first.at, ppm)
			if rapid.Bool().Draw(t, "jump") {
				d := time.Duration(rapid.Int64Range(-int64(time.Hour), int64(time.Hour)).Draw(t, "by"))
				jumped += d
				c.JumpWall(d)
				if after := read(w, c); after.now != r.now || after.wall.Sub(r.wall) != d {
					t.Fatalf("a jump by %v: the clock from %d to %d, the time of day from %v to %v", d, r.now, after.now, r.wall, after.wall)
				}
			}
			last = read(w, c)
		}
		counted(t, "time of day", last.wall.Sub(first.wall)-jumped, last.at-first.at, ppm)
	})
}

// When is the very nanosecond at which a clock begins to show an instant.
func TestClockWhen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := world.New(rapid.Uint64().Draw(t, "seed"))
		c := w.NewClock("c", rapid.Int64Range(-500, 500).Draw(t, "ppm"))
		for range rapid.IntRange(0, 3).Draw(t, "settings") {
			w.Run(w.Now() + time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "before")))
			if rapid.Bool().Draw(t, "miss") {
				c.Miss(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "missed")))
			} else {
				c.JumpWall(time.Second)
			}
		}
		w.Run(w.Now() + time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "after")))
		now := w.Now()
		ahead := rapid.OneOf(rapid.Int64Range(-10, 3000), rapid.Int64Range(0, int64(100*time.Hour))).Draw(t, "ahead")
		wanted := c.Now().Add(time.Duration(ahead))
		at := c.When(wanted)
		switch {
		case ahead <= 0:
			if at != now {
				t.Fatalf("at %v it shows %v since, and answers %v", now, time.Duration(ahead), at)
			}
			return
		case at <= now:
			t.Fatalf("at %v it shows what is %v ahead already at %v", now, time.Duration(ahead), at)
		}
		w.Run(at - 1)
		if !c.Now().Before(wanted) {
			t.Fatalf("it is to show %d first at %v, and does a nanosecond before", wanted, at)
		}
		w.Run(at)
		if c.Now().Before(wanted) {
			t.Fatalf("it is to show %d at %v, and shows %d", wanted, at, c.Now())
		}
		if again := c.When(wanted); again != at {
			t.Fatalf("at %v it shows %d, and answers %v", at, wanted, again)
		}
	})
}

func TestClockMisses(t *testing.T) {
	w := world.New(1)
	c := w.NewClock("c", 100)
	w.Run(time.Minute)
	before := read(w, c)
	c.Miss(time.Second)
	after := read(w, c)
	if before.now.Sub(after.now) != time.Second || after.wall != before.wall {
		t.Errorf("it missed a second: the clock went back by %v, and the time of day by %v", before.now.Sub(after.now), before.wall.Sub(after.wall))
	}
	w.Run(time.Minute + 10*time.Second)
	if passed := c.Now().Sub(after.now); passed != 10*time.Second+time.Millisecond {
		t.Errorf("in 10s after that it counted %v", passed)
	}
}

// Clocks begin at unlike instants, so that nothing works only because two of them agree.
func TestClocksBeginApart(t *testing.T) {
	w := world.New(1)
	seen := make(map[clock.Instant]bool)
	for _, name := range []string{"n1", "n2", "n3", "c1", "c2"} {
		c := w.NewClock(name, 0)
		if seen[c.Now()] || c.Now() < clock.Instant(time.Hour) {
			t.Errorf("the clock of %s begins at %v", name, time.Duration(c.Now()))
		}
		seen[c.Now()] = true
		if again := world.New(1).NewClock(name, 0); again.Now() != c.Now() {
			t.Errorf("the clock of %s begins at two instants", name)
		}
	}
}
