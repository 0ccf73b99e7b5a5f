package supervisor

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

const ms = clock.Instant(time.Millisecond)

// moment is one step of a script and what it must lead to.
type moment struct {
	at       clock.Instant // in ms
	deadline clock.Instant // in ms
	event    event
	want     phase
	does     effects // wake in ms; -1 for never
}

func play(t *testing.T, m *machine, script []moment) {
	t.Helper()
	for i, s := range script {
		got := m.step(s.at*ms, s.deadline*ms, s.event)
		want := s.does
		if want.wake *= ms; want.wake < 0 {
			want.wake = clock.Never
		}
		if got != want || m.phase != s.want {
			t.Fatalf("step %d at %d ms: %+v in phase %v, want %+v in phase %v", i, s.at, got, m.phase, want, s.want)
		}
	}
}

// Deadline 10 s, grace 3 s, reserve 250 ms throughout.
func TestMachine(t *testing.T) {
	cause := errors.New("ended by the server")
	cases := map[string]struct {
		script []moment
		cause  error
	}{
		"the command ends by itself": {script: []moment{
			{1, 10_000, tick{}, working, effects{wake: 7000}},
			{500, 10_000, exited{}, lingering, effects{wake: 3500}},
			{501, 10_000, gone{}, over, effects{over: true, wake: -1}},
		}},
		"all end at once": {script: []moment{
			{500, 10_000, gone{}, over, effects{over: true, wake: -1}},
		}},
		"renewals move the deadline": {script: []moment{
			{1, 10_000, tick{}, working, effects{wake: 7000}},
			{7000, 13_000, tick{}, working, effects{wake: 10_000}},
			{10_000, 16_000, tick{}, working, effects{wake: 13_000}},
		}},
		"a lease that cannot be renewed": {cause: ErrDeadline, script: []moment{
			{1, 10_000, tick{}, working, effects{wake: 7000}},
			{6999, 10_000, tick{}, working, effects{wake: 7000}},
			{7000, 10_000, tick{}, ending, effects{terminate: true, wake: 9750}},
			{9749, 10_000, tick{}, ending, effects{wake: 9750}},
			{9750, 10_000, tick{}, killing, effects{kill: true, wake: 19_750}},
			{9760, 10_000, gone{}, over, effects{over: true, wake: -1}},
		}},
		"a renewal that comes too late for the command": {cause: ErrDeadline, script: []moment{
			{7000, 10_000, tick{}, ending, effects{terminate: true, wake: 9750}},
			{8000, 17_000, tick{}, ending, effects{wake: 10_000}},
			{10_000, 17_000, tick{}, killing, effects{kill: true, wake: 20_000}},
		}},
		"a belief in doubt does not bring the end forward": {script: []moment{
			{1, 10_000, tick{}, working, effects{wake: 7000}},
			{2000, 2000, tick{}, working, effects{wake: 7000}},
		}},
		"a lost lease": {cause: cause, script: []moment{
			{100, 10_000, lost{cause}, killing, effects{kill: true, wake: 10_100}},
			{101, 10_000, exited{}, killing, effects{wake: 10_100}},
			{102, 10_000, gone{}, over, effects{over: true, wake: -1}},
		}},
		"a lease lost while ending": {cause: ErrDeadline, script: []moment{
			{7000, 10_000, tick{}, ending, effects{terminate: true, wake: 9750}},
			{7100, 10_000, lost{cause}, killing, effects{kill: true, wake: 17_100}},
			{7101, 10_000, lost{cause}, killing, effects{wake: 17_100}},
		}},
		"woken after the deadline": {cause: ErrDeadline, script: []moment{
			{1, 10_000, tick{}, working, effects{wake: 7000}},
			{60_000, 10_000, tick{}, killing, effects{kill: true, wake: 70_000}},
		}},
		"woken after the deadline with a renewal that has come": {script: []moment{
			{1, 10_000, tick{}, working, effects{wake: 7000}},
			{60_000, 70_000, tick{}, working, effects{wake: 67_000}},
		}},
		"what the command leaves behind": {script: []moment{
			{1000, 20_000, exited{}, lingering, effects{wake: 4000}},
			{4000, 20_000, tick{}, ending, effects{terminate: true, wake: 7000}},
			{7000, 20_000, tick{}, killing, effects{kill: true, wake: 17_000}},
			{7001, 20_000, gone{}, over, effects{over: true, wake: -1}},
		}},
		"what the command leaves behind when the lease runs out": {script: []moment{
			{6000, 10_000, exited{}, lingering, effects{wake: 7000}},
			{7000, 10_000, tick{}, ending, effects{terminate: true, wake: 9750}},
			{9750, 10_000, tick{}, killing, effects{kill: true, wake: 19_750}},
		}},
		"a process that does not die": {cause: cause, script: []moment{
			{100, 10_000, lost{cause}, killing, effects{kill: true, wake: 10_100}},
			{10_100, 10_000, tick{}, over, effects{over: true, wake: -1}},
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m := newMachine(3*time.Second, 250*time.Millisecond, c.script[0].deadline*ms)
			play(t, m, c.script)
			if !errors.Is(m.cause, c.cause) || (m.cause == nil) != (c.cause == nil) {
				t.Errorf("cause %v, want %v", m.cause, c.cause)
			}
		})
	}
}

func TestMachineWithoutGraceKillsAtOnce(t *testing.T) {
	m := newMachine(0, 50*time.Millisecond, 1000*ms)
	play(t, m, []moment{
		{1, 1000, tick{}, working, effects{wake: 950}},
		{950, 1000, tick{}, killing, effects{kill: true, wake: 10_950}},
	})
}

// S7, whatever happens: stepped no later than it asked for, the machine kills at deadline − reserve or sooner, once.
func TestMachineKillsBeforeTheDeadline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		grace := time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "grace"))
		reserve := Reserve(time.Duration(rapid.Int64Range(int64(lease.MinTTL), int64(time.Minute)).Draw(t, "ttl")))
		now := clock.Instant(time.Hour)
		deadline := now.Add(time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "first")))
		m := newMachine(grace, reserve, deadline)
		var killed, finished, asked int
		out := m.step(now, deadline, tick{})
		for step := 0; ; step++ {
			killed, finished, asked = killed+count(out.kill), finished+count(out.over), asked+count(out.terminate)
			if killed > 1 || finished > 1 || asked > 1 {
				t.Fatalf("killed %d times, finished %d times, asked %d times", killed, finished, asked)
			}
			last := m.deadline.Add(-reserve)
			switch {
			case finished == 1:
				return
			case killed == 0 && !now.Before(last):
				t.Fatalf("alive in phase %v, %v after the last moment", m.phase, now.Sub(last))
			case killed == 0 && out.wake.After(last):
				t.Fatalf("sleeps %v beyond the last moment", out.wake.Sub(last))
			case out.wake.Before(now):
				t.Fatalf("wants to wake in the past")
			case step > 200:
				return // renewed over and over
			}
			var e event = tick{}
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				e = lost{errors.New("lost")}
			case 1:
				e = exited{}
			case 2:
				e = gone{}
			case 3, 4: // a renewal
				deadline = max(deadline, now.Add(time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "ttl"))))
			default:
				now = out.wake
			}
			out = m.step(now, deadline, e)
		}
	})
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestCheckGrace(t *testing.T) {
	for _, c := range []struct {
		grace, ttl time.Duration
		want       string
	}{
		{0, 10 * time.Second, ""},
		{5 * time.Second, 10 * time.Second, ""},
		{DefaultGrace(lease.MinTTL), lease.MinTTL, ""},
		{-1, 10 * time.Second, "INVALID: --stop-grace is -1ns; use 0 (kill without asking) or more"},
		{6 * time.Second, 10 * time.Second, "INVALID: --stop-grace (6s) is above half of --ttl (10s); use at most 5s, or a --ttl of at least 12s"},
	} {
		got := ""
		if err := CheckGrace(c.grace, c.ttl); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("CheckGrace(%v, %v) = %q, want %q", c.grace, c.ttl, got, c.want)
		}
	}
	for ttl, want := range map[time.Duration]time.Duration{
		lease.MinTTL: 50 * time.Millisecond, 4 * time.Second: 100 * time.Millisecond, time.Hour: 250 * time.Millisecond,
	} {
		if got := Reserve(ttl); got != want {
			t.Errorf("Reserve(%v) = %v, want %v", ttl, got, want)
		}
	}
}
