package singleton

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// runnerWorld is a holder in the small: a Runner, the real Keeper beside it, a function, and a quorum that answers or not.
type runnerWorld struct {
	t       *rapid.T
	config  RunnerConfig
	runner  *Runner
	keeper  *lease.Keeper
	drift   clock.Drift
	ttl     time.Duration
	lead    time.Duration
	now     clock.Instant
	wake    clock.Instant // of the Runner
	keepers clock.Instant // wake of the Keeper

	id       lease.KeeperID
	vouched  clock.Instant // until when the newest answered request confers the lease; 0: not held
	renewals []lease.Renewal

	// What the shell owes an answer.
	acquiring, releasing, abandoning, telling bool

	running, cancelled bool
	ended, exited      bool
	exitBy             clock.Instant // when the lease ends that was let go while the function runs; 0: none was
	done               RunnerOutcome
}

func (w *runnerWorld) step(event RunnerEvent) {
	if w.done != 0 {
		return
	}
	effects := w.runner.Step(w.now, event)
	w.wake = effects.Wake
	if effects.Cancel != 0 {
		if !w.running || w.cancelled {
			w.t.Fatalf("cancel of what does not run, or again")
		}
		w.cancelled = true
	}
	if effects.Acquire {
		if w.ended || w.running || w.vouched != 0 {
			w.t.Fatalf("acquire: ended %t, running %t, vouched %v", w.ended, w.running, w.vouched)
		}
		w.acquiring = true
	}
	if effects.Start {
		if w.running || w.ended || w.vouched == 0 {
			w.t.Fatalf("start: running %t, ended %t, vouched %v", w.running, w.ended, w.vouched)
		}
		w.running, w.cancelled = true, false
	}
	if effects.Release {
		if w.running {
			w.t.Fatal("released while the function runs")
		}
		w.releasing = true
	}
	if effects.Abandon {
		w.abandoning = true
	}
	if effects.Tell {
		w.telling = true
	}
	if effects.Exit {
		if !w.running || w.now.Before(w.vouched) || w.now.After(w.exitBy) {
			w.t.Fatalf("exit at %d: running %t, the lease ends at %d, exit is due by %d", w.now, w.running, w.vouched, w.exitBy)
		}
		w.exited, w.running = true, false
	}
	w.done = effects.Done
	if w.done != 0 && w.done != RunnerOutcomeStuck && w.running {
		w.t.Fatalf("done (%v) while the function runs", w.done)
	}
}

// keep steps the Keeper and passes losses on, as the campaign does through the hold's context.
func (w *runnerWorld) keep(event lease.KeeperEvent) {
	effects := w.keeper.Step(w.now, event)
	w.renewals = append(w.renewals, effects.Renewals...)
	w.keepers = effects.Wake
	for _, l := range effects.Lost {
		until := w.now
		if l.Cause == lease.LostDeadline {
			until = w.vouched
		}
		if !w.abandoning {
			w.step(RunnerLost{Until: until})
		}
	}
}

func (w *runnerWorld) release() {
	w.keep(lease.KeeperReleased{ID: w.id})
	w.vouched, w.renewals = 0, nil
}

// pass lets time pass. The shells wake in time; that is what S7 rests on.
func (w *runnerWorld) pass(d time.Duration) {
	end := w.now.Add(d)
	for {
		next := end
		for _, at := range []clock.Instant{w.wake, w.keepers} {
			if at != 0 {
				next = min(next, at)
			}
		}
		w.now = max(w.now, next)
		if w.keepers != 0 && !w.now.Before(w.keepers) {
			w.keep(lease.KeeperTick{})
		}
		if w.wake != 0 && !w.now.Before(w.wake) {
			w.step(RunnerTick{})
			w.answer()
		}
		w.check()
		if !w.now.Before(end) || w.exited {
			return
		}
	}
}

// answer answers what a shell answers without waiting for anybody.
func (w *runnerWorld) answer() {
	if w.abandoning {
		until := max(w.vouched, w.now)
		w.exitBy = until
		w.keep(lease.KeeperReleased{ID: w.id})
		w.abandoning = false
		w.step(RunnerAbandoned{Until: until})
	}
}

// check is S7: a function whose context has not ended runs under a lease that is vouched for, with the lead to spare; and
// if so configured the process does not outlive the lease.
func (w *runnerWorld) check() {
	if w.running && !w.cancelled && !w.now.Before(w.vouched.Add(-w.lead)) {
		w.t.Fatalf("the function's context lasts at %d, the lease ends at %d with a lead of %v", w.now, w.vouched, w.lead)
	}
	if w.running && w.ended && !w.cancelled {
		w.t.Fatal("the function's context lasts although the caller's has ended")
	}
	if w.config.Strict && !w.config.TellStuck && w.running && w.now.After(w.vouched) {
		w.t.Fatalf("a strict function runs at %d, its lease ended at %d", w.now, w.vouched)
	}
}

func TestRunnerProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &runnerWorld{t: t, now: runnerOrigin, drift: clock.DefaultDrift(), ttl: 10 * time.Second, lead: 1250 * time.Millisecond}
		w.config = RunnerConfig{
			HandOver: rapid.Bool().Draw(t, "handover"), StopOnLoss: rapid.Bool().Draw(t, "stop on loss"),
			StopGrace: rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second}).Draw(t, "grace"),
			Strict:    rapid.Bool().Draw(t, "strict"), TellStuck: rapid.Bool().Draw(t, "tell"),
		}
		w.runner = NewRunner(w.config)
		var err error
		if w.keeper, err = lease.NewKeeper(lease.KeeperConfig{Drift: w.drift}); err != nil {
			t.Fatal(err)
		}
		w.step(RunnerBegan{})
		actions := map[string]func(*rapid.T){
			"": func(*rapid.T) { w.check() },
			"pass": func(t *rapid.T) {
				w.pass(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 4 * time.Second, 20 * time.Second}).Draw(t, "d"))
			},
			"end": func(t *rapid.T) {
				if rapid.IntRange(0, 4).Draw(t, "really") > 0 {
					t.Skip()
				}
				w.ended = true
				w.step(RunnerEnded{})
				w.answer()
			},
			"grant": func(t *rapid.T) {
				if !w.acquiring || w.exited {
					t.Skip()
				}
				w.acquiring = false
				sent := w.now.Add(-time.Duration(rapid.IntRange(0, 2000).Draw(t, "ago")) * time.Millisecond)
				w.id++
				w.exitBy = 0
				w.vouched = w.drift.BelieveUntil(sent, w.ttl)
				w.keep(lease.KeeperGranted{
					ID: w.id, Ref: lease.Ref{Resource: "r", Token: 1<<48 | 1}, TTL: w.ttl, Lead: w.lead, SentAt: sent,
				})
				w.step(RunnerGranted{})
			},
			"refuse": func(t *rapid.T) {
				if !w.acquiring || w.exited || rapid.IntRange(0, 9).Draw(t, "really") > 0 {
					t.Skip()
				}
				w.acquiring = false
				w.step(RunnerRefused{})
			},
			"renewed": func(t *rapid.T) {
				if len(w.renewals) == 0 {
					t.Skip()
				}
				r := w.renewals[0]
				w.renewals = w.renewals[1:]
				if r.ID(0) != w.id || w.vouched == 0 {
					return
				}
				failed := rapid.Bool().Draw(t, "failed")
				if !failed && w.exitBy == 0 { // who has let a lease go takes no answer for it any more
					w.vouched = max(w.vouched, w.drift.BelieveUntil(r.SentAt, w.ttl))
				}
				w.keep(lease.KeeperRenewed{Renewal: r, Failed: failed})
				w.answer()
			},
			"contend": func(*rapid.T) {
				w.step(RunnerContended{})
				w.answer()
			},
			"return": func(t *rapid.T) {
				if !w.running || !w.cancelled && rapid.IntRange(0, 4).Draw(t, "of itself") > 0 {
					t.Skip()
				}
				w.running = false
				w.step(RunnerReturned{How: RunnerReturn(rapid.IntRange(1, 4).Draw(t, "how"))}) //nolint:gosec // 1 to 4
			},
			"released": func(t *rapid.T) {
				if !w.releasing {
					t.Skip()
				}
				w.releasing = false
				w.release()
				w.step(RunnerReleased{})
			},
			"told": func(t *rapid.T) {
				if !w.telling {
					t.Skip()
				}
				w.telling = false
				w.step(RunnerTold{})
			},
		}
		t.Repeat(actions)
		w.finish()
	})
}

// finish ends the caller's context and answers everything; it has to come to an end then.
func (w *runnerWorld) finish() {
	w.ended = true
	w.step(RunnerEnded{})
	w.check()
	for range 20 {
		w.answer()
		switch {
		case w.done != 0 || w.exited:
			return
		case w.acquiring:
			w.acquiring = false
			w.step(RunnerRefused{})
		case w.releasing:
			w.releasing = false
			w.release()
			w.step(RunnerReleased{})
		case w.telling:
			w.telling = false
			w.step(RunnerTold{})
		case w.running:
			w.pass(time.Minute)
			if w.running && w.done == 0 && !w.telling {
				w.t.Fatalf("a function that does not return is %v a minute after the end", w.runner.State())
			}
		}
	}
	w.t.Fatalf("it does not come to an end: %v", w.runner.State())
}
