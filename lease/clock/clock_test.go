package clock_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/lease/clock/bubble"
)

// fired reports whether a tick is waiting, and takes it.
func fired(timer clock.Timer) bool {
	select {
	case <-timer.C():
		return true
	default:
		return false
	}
}

func TestInstantArithmeticSaturates(t *testing.T) {
	const latest, earliest = clock.Instant(math.MaxInt64), clock.Instant(math.MinInt64)
	const longest, shortest = time.Duration(math.MaxInt64), time.Duration(math.MinInt64)
	adds := []struct {
		from clock.Instant
		d    time.Duration
		want clock.Instant
	}{
		{5, 3, 8}, {5, -8, -3}, {latest, 0, latest},
		{latest - 1, 2, latest}, {earliest + 1, -2, earliest},
		{latest, longest, latest}, {earliest, shortest, earliest}, {-1, shortest, earliest},
		{0, shortest, earliest},
	}
	for _, c := range adds {
		if got := c.from.Add(c.d); got != c.want {
			t.Errorf("Instant(%d).Add(%d) = %d, want %d", c.from, c.d, got, c.want)
		}
	}
	subs := []struct {
		a, b clock.Instant
		want time.Duration
	}{
		{5, 3, 2}, {3, 5, -2}, {latest, -1, longest}, {earliest, 1, shortest},
		{0, earliest, longest}, {-1, earliest, longest}, {earliest, earliest, 0}, {latest, latest, 0},
	}
	for _, c := range subs {
		if got := c.a.Sub(c.b); got != c.want {
			t.Errorf("Instant(%d).Sub(%d) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestInstantOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := clock.Instant(rapid.Int64().Draw(t, "a"))
		b := clock.Instant(rapid.Int64().Draw(t, "b"))
		if a.Before(b) != b.After(a) || (a.Before(b) && b.Before(a)) || (a == b) == (a.Before(b) || a.After(b)) {
			t.Fatalf("order of %d and %d is not a total order", a, b)
		}
		if gap := b.Sub(a); gap != math.MaxInt64 && gap != math.MinInt64 && a.Add(gap) != b {
			t.Fatalf("%d.Add(%d) != %d", a, gap, b)
		}
	})
}

func TestSystemTimerFiresOnceAndNeverEarly(t *testing.T) {
	system := clock.System()
	// Longer than a slice, so that the timer sleeps more than once.
	at := system.Now().Add(130 * time.Millisecond)
	timer := system.NewTimer(at)
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-time.After(10 * time.Second):
		t.Fatal("timer did not fire")
	}
	if now := system.Now(); now.Before(at) {
		t.Fatalf("timer fired %v early", at.Sub(now))
	}
	if fired(timer) {
		t.Fatal("timer fired twice")
	}
}

func TestSystemNeverGoesBack(t *testing.T) {
	system := clock.System()
	if system != clock.System() {
		t.Fatal("System returned two different clocks")
	}
	last := system.Now()
	if last <= 0 {
		t.Fatalf("Now = %d, want a positive instant", last)
	}
	for range 10_000 {
		now := system.Now()
		if now.Before(last) {
			t.Fatalf("Now went back by %v", last.Sub(now))
		}
		last = now
	}
}

func TestSystemWallHasNoMonotonicReading(t *testing.T) {
	for name, c := range map[string]clock.Clock{"system": clock.System(), "monotonic": clock.Monotonic()} {
		wall := c.Wall()
		if wall != wall.Round(0) || wall.Location() != time.UTC {
			t.Errorf("%s: Wall() = %#v, want UTC without a monotonic reading", name, wall)
		}
		if d := time.Since(wall); d < -time.Minute || d > time.Minute {
			t.Errorf("%s: Wall() is %v away from time.Now()", name, d)
		}
	}
}

func TestMonotonicTimerIsExactInABubble(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := clock.Monotonic()
		start := c.Now()
		if start <= 0 {
			t.Fatalf("Now = %d, want a positive instant", start)
		}
		timer := c.NewTimer(start.Add(time.Hour))
		<-timer.C()
		if got := c.Now().Sub(start); got != time.Hour {
			t.Fatalf("timer fired after %v, want 1h", got)
		}
	})
}

// The contract of Timer, on every kind of clock that a bubble can drive.
func TestTimerContract(t *testing.T) {
	type world struct {
		clock clock.Clock
		pass  func(time.Duration)
	}
	worlds := map[string]func() world{
		"monotonic": func() world { return world{clock.Monotonic(), time.Sleep} },
		"manual": func() world {
			m := clock.NewManual(1)
			return world{m, m.Advance}
		},
	}
	for name, newWorld := range worlds {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld()
				testTimerContract(t, w.clock, func(d time.Duration) {
					w.pass(d)
					synctest.Wait()
				})
			})
		})
	}
}

func testTimerContract(t *testing.T, c clock.Clock, pass func(time.Duration)) {
	t.Helper()
	expect := func(timer clock.Timer, want bool, when string) {
		t.Helper()
		if got := fired(timer); got != want {
			t.Fatalf("%s: fired = %v, want %v", when, got, want)
		}
	}
	timer := c.NewTimer(c.Now().Add(10))
	pass(9)
	expect(timer, false, "one nanosecond early")
	pass(1)
	expect(timer, true, "on time")
	pass(time.Hour)
	expect(timer, false, "again without Reset")

	timer.Reset(c.Now())
	expect(timer, true, "set to now")
	timer.Reset(c.Now().Add(-time.Hour))
	timer.Reset(c.Now().Add(10))
	expect(timer, false, "an unreceived tick survived Reset")
	timer.Reset(c.Now().Add(20))
	pass(15)
	expect(timer, false, "the earlier setting survived Reset")
	pass(5)
	timer.Stop()
	expect(timer, false, "an unreceived tick survived Stop")
	timer.Reset(c.Now().Add(5))
	timer.Stop()
	timer.Stop()
	pass(time.Hour)
	expect(timer, false, "fired after Stop")
	timer.Reset(c.Now().Add(5))
	pass(5)
	expect(timer, true, "set again after Stop")
	timer.Reset(math.MaxInt64)
	pass(24 * time.Hour)
	expect(timer, false, "set to the end of time")
	timer.Stop()
}

// Reset and Stop race with expiry; the race detector and the last assertion
// are the judges.
func TestTimerConcurrentUse(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := clock.Monotonic()
		timer := c.NewTimer(c.Now().Add(1))
		done := make(chan struct{})
		for range 4 {
			go func() {
				for range 200 {
					timer.Reset(c.Now().Add(time.Microsecond))
					time.Sleep(time.Microsecond)
					timer.Stop()
				}
				done <- struct{}{}
			}()
		}
		for range 4 {
			<-done
		}
		timer.Stop()
		time.Sleep(time.Second)
		synctest.Wait()
		if fired(timer) {
			t.Fatal("fired after the last Stop")
		}
	})
}

func BenchmarkSystemNow(b *testing.B) {
	system := clock.System()
	for b.Loop() {
		_ = system.Now()
	}
}

func BenchmarkTimerReset(b *testing.B) {
	system := clock.System()
	timer := system.NewTimer(system.Now().Add(time.Hour))
	defer timer.Stop()
	at := system.Now().Add(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		timer.Reset(at)
	}
}
