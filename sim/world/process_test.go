package world_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/world"
)

// diary keeps what happened, in order.
type diary []string

func (d *diary) note(s string) func() { return func() { *d = append(*d, s) } }

func (d *diary) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(*d, want) {
		t.Errorf("it did %q, want %q", *d, want)
	}
	*d = nil
}

func startedProcess(w *world.World) *world.Process {
	p := w.NewProcess("p", "r", 0)
	p.Start()
	return p
}

func TestProcessDoes(t *testing.T) {
	w := world.New(1)
	p := w.NewProcess("p", "r", 0)
	var did diary
	p.Do(did.note("before the first life"))
	p.Start()
	p.Do(did.note("at once"))
	p.After(time.Second, did.note("later"))
	did.want(t, "at once")
	w.Run(time.Second)
	did.want(t, "later")
	p.Crash()
	p.Do(did.note("while it is down"))
	did.want(t)
	if p.Up() || p.Paused() {
		t.Error("it is not down")
	}
	p.Start()
	defer func() {
		if recover() == nil {
			t.Error("it was started while it ran")
		}
	}()
	p.Start()
}

func TestPausedProcess(t *testing.T) {
	w := world.New(1)
	p := startedProcess(w)
	var did diary
	p.Pause()
	p.Do(did.note("1"))
	p.After(2, did.note("3"))
	p.After(1, did.note("2"))
	before := p.Clock.Now()
	w.Run(10)
	if p.Clock.Now() == before {
		t.Error("its clock stood still")
	}
	p.DoIn(p.Life(), did.note("4"))
	did.want(t)
	p.Resume()
	did.want(t, "1", "2", "3", "4")
	p.Resume() // of what runs
	p.Do(did.note("5"))
	did.want(t, "5")
}

// What happens to a process on resuming may pause it again: the rest keeps its order.
func TestPausedWhileItResumes(t *testing.T) {
	p := startedProcess(world.New(1))
	var did diary
	p.Pause()
	p.Do(did.note("1"))
	p.Do(p.Pause)
	p.Do(did.note("2"))
	p.Resume()
	did.want(t, "1")
	if !p.Paused() {
		t.Fatal("it is not paused")
	}
	p.Do(did.note("3"))
	p.Resume()
	did.want(t, "2", "3")
}

func TestCrashDropsWhatWaits(t *testing.T) {
	for name, crash := range map[string]func(p *world.Process){
		"crash":                func(p *world.Process) { p.Crash() },
		"crash and start":      func(p *world.Process) { p.Crash(); p.Start() },
		"crash while resuming": func(p *world.Process) { p.Resume() },
	} {
		t.Run(name, func(t *testing.T) {
			w := world.New(1)
			p := startedProcess(w)
			var did diary
			life := p.Life()
			p.After(5, did.note("later"))
			p.Pause()
			if name == "crash while resuming" {
				p.Do(did.note("first"))
				p.Do(func() { p.Crash(); p.Start() })
			}
			p.Do(did.note("waited"))
			crash(p)
			p.DoIn(life, did.note("meant for the life before"))
			w.Run(10)
			if p.Paused() {
				t.Error("its pause outlived it")
			}
			if name == "crash while resuming" {
				did.want(t, "first")
			} else {
				did.want(t)
			}
			if p.Up() {
				p.DoIn(p.Life(), did.note("of this life"))
				did.want(t, "of this life")
			}
		})
	}
}

func TestPauseOfWhatIsDown(t *testing.T) {
	p := world.New(1).NewProcess("p", "r", 0)
	p.Pause()
	p.Start()
	if p.Paused() {
		t.Error("it was paused before it began")
	}
}

// What is done in a process is what was meant for its present life, in order, but for the time while it is paused.
func TestProcessProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := startedProcess(world.New(1))
		var did, want, waiting []int
		lives := []uint64{p.Life()}
		number := 0
		for range rapid.IntRange(1, 40).Draw(t, "actions") {
			switch rapid.SampledFrom([]string{"do", "do", "do in", "pause", "resume", "crash", "start"}).Draw(t, "action") {
			case "do":
				number++
				me := number
				p.Do(func() { did = append(did, me) })
				if p.Paused() {
					waiting = append(waiting, me)
				} else if p.Up() {
					want = append(want, me)
				}
			case "do in":
				number++
				me := number
				life := rapid.SampledFrom(lives).Draw(t, "life")
				p.DoIn(life, func() { did = append(did, me) })
				switch {
				case life != lives[len(lives)-1] || !p.Up():
				case p.Paused():
					waiting = append(waiting, me)
				default:
					want = append(want, me)
				}
			case "pause":
				p.Pause()
			case "resume":
				p.Resume()
				want = append(want, waiting...)
				waiting = nil
			case "crash":
				p.Crash()
				waiting = nil
			case "start":
				if !p.Up() {
					p.Start()
					lives = append(lives, p.Life())
				}
			}
			if !slices.Equal(did, want) {
				t.Fatalf("it did %v, want %v", did, want)
			}
		}
	})
}

// alarmed is a process with an alarm that notes the instants at which it rings.
type alarmed struct {
	*world.Process
	w     *world.World
	alarm *world.Alarm
	rings []clock.Instant
}

func newAlarmed(ppm int64) *alarmed {
	w := world.New(1)
	a := &alarmed{Process: w.NewProcess("p", "r", ppm), w: w}
	a.Start()
	a.alarm = a.NewAlarm(func() { a.rings = append(a.rings, a.Clock.Now()) })
	return a
}

func (a *alarmed) in(d time.Duration) clock.Instant { return a.Clock.Now().Add(d) }

func (a *alarmed) want(t *testing.T, want ...clock.Instant) {
	t.Helper()
	if !slices.Equal(a.rings, want) {
		t.Errorf("it rang at %d, want %d", a.rings, want)
	}
	a.rings = nil
}

func TestAlarm(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, a *alarmed){
		"rings once": func(t *testing.T, a *alarmed) {
			at := a.in(time.Second)
			a.alarm.Set(at)
			a.alarm.Set(at)
			a.w.Run(a.Clock.When(at) - 1)
			a.want(t)
			a.w.Run(time.Minute)
			a.want(t, at)
		},
		"is set again after it rang": func(t *testing.T, a *alarmed) {
			at := a.in(time.Second)
			a.alarm.Set(at)
			a.w.Run(2 * time.Second)
			a.want(t, at)
			now := a.in(0)
			a.alarm.Set(at) // the same instant, which has passed: now
			a.want(t)
			a.w.Run(2 * time.Second)
			a.want(t, now)
		},
		"set later": func(t *testing.T, a *alarmed) {
			at := a.in(2 * time.Second)
			a.alarm.Set(a.in(time.Second))
			a.alarm.Set(at)
			a.w.Run(time.Minute)
			a.want(t, at)
		},
		"set earlier": func(t *testing.T, a *alarmed) {
			at := a.in(time.Second)
			a.alarm.Set(a.in(2 * time.Second))
			a.alarm.Set(at)
			a.w.Run(time.Minute)
			a.want(t, at)
		},
		"turned off": func(t *testing.T, a *alarmed) {
			a.alarm.Set(a.in(time.Second))
			a.alarm.Set(clock.Never)
			a.w.Run(time.Minute)
			a.want(t)
		},
		"turned off and on again": func(t *testing.T, a *alarmed) {
			at := a.in(time.Second)
			a.alarm.Set(at)
			a.alarm.Set(clock.Never)
			a.alarm.Set(at)
			a.w.Run(time.Minute)
			a.want(t, at)
		},
		"waits for what the clock has missed": func(t *testing.T, a *alarmed) {
			at := a.in(10 * time.Second)
			a.alarm.Set(at)
			a.w.Run(5 * time.Second)
			a.Clock.Miss(3 * time.Second)
			a.w.Run(12 * time.Second)
			a.want(t)
			a.Clock.Miss(time.Second)
			a.w.Run(time.Minute)
			a.want(t, at)
		},
		"forgets the time before, also after a miss": func(t *testing.T, a *alarmed) {
			a.alarm.Set(a.in(10 * time.Second))
			a.w.Run(5 * time.Second)
			a.Clock.Miss(3 * time.Second)
			at := a.in(time.Second)
			a.alarm.Set(at)
			a.w.Run(time.Minute)
			a.want(t, at)
		},
		"rings when it is resumed": func(t *testing.T, a *alarmed) {
			a.alarm.Set(a.in(time.Second))
			a.Pause()
			a.w.Run(2 * time.Second)
			a.want(t)
			now := a.in(0)
			a.Resume()
			a.want(t, now)
		},
		"is turned off while it waits for that": func(t *testing.T, a *alarmed) {
			a.alarm.Set(a.in(time.Second))
			a.Pause()
			a.Do(func() { a.alarm.Set(clock.Never) })
			a.w.Run(2 * time.Second)
			a.Resume()
			a.w.Run(time.Minute)
			a.want(t)
		},
		"is frozen, and goes on waiting": func(t *testing.T, a *alarmed) {
			at := a.in(time.Second)
			a.alarm.Set(at)
			a.Pause()
			a.w.Run(10 * time.Second)
			a.Clock.Miss(10 * time.Second)
			a.Resume()
			a.want(t)
			a.w.Run(time.Minute)
			a.want(t, at)
		},
		"of a dead life": func(t *testing.T, a *alarmed) {
			a.alarm.Set(a.in(time.Second))
			a.Crash()
			a.w.Run(time.Minute)
			a.want(t)
		},
		"of a life before": func(t *testing.T, a *alarmed) {
			a.alarm.Set(a.in(time.Second))
			a.Crash()
			a.Start()
			a.w.Run(time.Minute)
			a.want(t)
			at := a.in(time.Second)
			a.alarm.Set(at)
			a.w.Run(2 * time.Minute)
			a.want(t, at)
		},
		"sets itself": func(t *testing.T, a *alarmed) {
			first := a.in(time.Second)
			var b *world.Alarm
			b = a.NewAlarm(func() {
				a.rings = append(a.rings, a.in(0))
				if len(a.rings) < 3 {
					b.Set(a.in(time.Second))
				}
			})
			b.Set(first)
			a.w.Run(time.Minute)
			a.want(t, first, first.Add(time.Second), first.Add(2*time.Second))
		},
	} {
		t.Run(name, func(t *testing.T) { test(t, newAlarmed(0)) })
	}
}

// An alarm rings at the first nanosecond at which the clock shows its instant, at any rate.
func TestAlarmIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := newAlarmed(rapid.Int64Range(-500, 500).Draw(t, "ppm"))
		a.w.Run(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "begin")))
		at := a.in(time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "ahead")))
		a.alarm.Set(at)
		if rapid.Bool().Draw(t, "miss") {
			a.w.Run(a.w.Now() + (a.Clock.When(at)-a.w.Now())/2)
			a.Clock.Miss(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "missed")))
		}
		first := a.Clock.When(at)
		a.w.Run(first - 1)
		if len(a.rings) != 0 {
			t.Fatalf("it was set to %d and rang at %d", at, a.rings)
		}
		a.w.Run(first + 1) // where the clock was set, what it had counted until then was rounded
		if len(a.rings) != 1 {
			t.Fatalf("it was set to %d, and rang at %d", at, a.rings)
		}
	})
}
