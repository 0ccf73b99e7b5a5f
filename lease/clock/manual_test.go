package clock_test

import (
	"testing"
	"time"

	"github.com/writ-io/writ/lease/clock"
)

func TestManualFiresWhatIsDue(t *testing.T) {
	m := clock.NewManual(1000)
	early, late := m.NewTimer(1010), m.NewTimer(1020)
	if at, ok := m.NextTimer(); !ok || at != 1010 {
		t.Fatalf("NextTimer = %d, %v; want 1010, true", at, ok)
	}
	m.Advance(10)
	if !fired(early) || fired(late) {
		t.Fatal("at 1010 only the first timer is due")
	}
	if at, ok := m.NextTimer(); !ok || at != 1020 {
		t.Fatalf("NextTimer = %d, %v; want 1020, true", at, ok)
	}
	m.Advance(10)
	if fired(early) || !fired(late) {
		t.Fatal("at 1020 only the second timer is due")
	}
	if at, ok := m.NextTimer(); ok {
		t.Fatalf("NextTimer = %d with no timer armed", at)
	}
}

func TestManualWall(t *testing.T) {
	m := clock.NewManual(1)
	start := m.Wall()
	m.Advance(time.Minute)
	m.JumpWall(-time.Hour)
	if got := m.Wall().Sub(start); got != time.Minute-time.Hour {
		t.Errorf("wall moved by %v", got)
	}
	if got := m.Now(); got != clock.Instant(1).Add(time.Minute) {
		t.Errorf("Now = %d; a jump of the wall moved the clock", got)
	}
	at := time.Date(2030, 5, 6, 7, 8, 9, 0, time.FixedZone("east", 7200))
	m.SetWall(at)
	if got := m.Wall(); !got.Equal(at) || got.Location() != time.UTC {
		t.Errorf("Wall = %v, want %v in UTC", got, at)
	}
}

func TestManualNeverGoesBack(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Advance(-1) did not panic")
		}
	}()
	clock.NewManual(1).Advance(-1)
}
