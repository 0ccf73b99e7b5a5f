package clock_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/lease/clock"
)

func TestWatchdog(t *testing.T) {
	const second = time.Second
	cases := []struct {
		name          string
		advance, jump time.Duration
		suspect       bool
	}{
		{"in step", second, 0, false},
		{"suspend that both count", time.Hour, 0, false},
		{"ordinary correction", second, -20 * time.Millisecond, false},
		{"exactly at the threshold", second, second, false},
		{"exactly at the threshold, back", second, -second, false},
		{"freeze that only the wall shows", second, second + 1, true},
		{"freeze that hides from the wall", time.Minute, -(second + 1), true},
		{"time of day set back", second, -time.Hour, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := clock.NewManual(1)
			var w clock.Watchdog
			if jump, suspect := w.Observe(m.Now(), m.Wall()); jump != 0 || suspect {
				t.Fatalf("first observation = %v, %v", jump, suspect)
			}
			m.Advance(c.advance)
			m.JumpWall(c.jump)
			if jump, suspect := w.Observe(m.Now(), m.Wall()); jump != c.jump || suspect != c.suspect {
				t.Errorf("Observe = %v, %v; want %v, %v", jump, suspect, c.jump, c.suspect)
			}
			m.Advance(second)
			if jump, suspect := w.Observe(m.Now(), m.Wall()); jump != 0 || suspect {
				t.Errorf("next observation = %v, %v; want 0, false", jump, suspect)
			}
		})
	}
}

func TestWatchdogSuspectsAClockThatGoesBack(t *testing.T) {
	wall := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var w clock.Watchdog
	w.Observe(100, wall)
	if _, suspect := w.Observe(99, wall); !suspect {
		t.Error("a clock that went back is not suspect")
	}
}

func TestWatchdogCatchesEveryJump(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := clock.NewManual(1)
		var w clock.Watchdog
		w.Observe(m.Now(), m.Wall())
		for range rapid.IntRange(1, 20).Draw(t, "observations") {
			m.Advance(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "advance")))
			want := time.Duration(rapid.Int64Range(-int64(3*time.Second), int64(3*time.Second)).Draw(t, "jump"))
			m.JumpWall(want)
			jump, suspect := w.Observe(m.Now(), m.Wall())
			if jump != want || suspect != (want.Abs() > clock.SuspectAfter) {
				t.Fatalf("Observe = %v, %v after a jump of %v", jump, suspect, want)
			}
		}
	})
}
