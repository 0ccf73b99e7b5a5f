//writ:core

package singleton

import (
	"fmt"
	"time"

	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

// Runner decides when a function runs under a lease: when to ask for the lease, when to start the function, when to end its
// context, when to release, and what to do with a function that does not return. It is a pure core: a shell steps it,
// carries its effects out and tells it what came of them.
//
// Invariant: the function is started only under a lease that was granted and not lost since, and never twice at a time.
//
// Invariant: the lease is released only after the function has returned.
//
// Invariant: once the lease is lost, the function's context has ended; nothing but a new grant starts the function again.
type Runner struct {
	config RunnerConfig
	state  RunnerState
	now    clock.Instant

	cause    RunnerCause   // why the function's context has ended, 0 if it has not
	ended    bool          // the caller wants no more
	lost     bool          // the present lease is
	returned RunnerReturn  // how the function returned, 0 while it has not
	stuckAt  clock.Instant // when a function that stops is taken for stuck
	exitAt   clock.Instant // when the process exits because of it; 0 if not known yet
	telling  bool          // somebody is being told that it is stuck
}

// RunnerConfig is what the decisions of a [Runner] depend on.
type RunnerConfig struct {
	// Ineligible says that this process must never run the function; it waits until the caller wants no more.
	Ineligible bool
	// HandOver has the function stopped for a waiter of higher priority, and run again when it is this process's turn.
	HandOver bool
	// StopOnLoss ends it all when the lease is lost; otherwise the lease is asked for again.
	StopOnLoss bool
	// StopGrace is how long a function has to return after its context has ended; above 0.
	StopGrace time.Duration
	// Strict takes a function for stuck when its lease runs out, whatever is left of StopGrace.
	Strict bool
	// TellStuck has the owner told of a stuck function and then leaves it behind; otherwise the process exits when the
	// lease has run out.
	TellStuck bool
}

// RunnerState is where a [Runner] is.
type RunnerState uint8

// The states.
const (
	// RunnerIdle: nothing has begun, or this process is not eligible.
	RunnerIdle RunnerState = iota
	// RunnerWaiting: the lease is being asked for.
	RunnerWaiting
	// RunnerRunning: the lease is held and the function runs.
	RunnerRunning
	// RunnerStopping: the function's context has ended; the function has not returned.
	RunnerStopping
	// RunnerStuck: it did not return in time. Its lease runs out.
	RunnerStuck
	// RunnerReleasing: it has returned; the lease is being released.
	RunnerReleasing
	// RunnerDone: nothing happens any more.
	RunnerDone
)

func (s RunnerState) String() string {
	names := [...]string{"idle", "waiting", "running", "stopping", "stuck", "releasing", "done"}
	if int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// NewRunner makes a Runner, which does nothing before [RunnerBegan].
func NewRunner(config RunnerConfig) *Runner { return &Runner{config: config} }

// State returns where the Runner is.
func (r *Runner) State() RunnerState { return r.state }

// Step takes in what happened and returns what to do. An instant before the last one counts as the last one. What cannot
// have happened is a panic.
func (r *Runner) Step(now clock.Instant, event RunnerEvent) RunnerEffects {
	r.now = max(r.now, now)
	var out RunnerEffects
	switch event := event.(type) {
	case RunnerBegan:
		out = r.began()
	case RunnerEnded:
		out = r.end()
	case RunnerGranted:
		out = r.granted()
	case RunnerRefused:
		out = r.refused()
	case RunnerLost:
		out = r.lose(event)
	case RunnerContended:
		out = r.contended()
	case RunnerReturned:
		out = r.functionReturned(event.How)
	case RunnerReleased:
		out = r.released()
	case RunnerAbandoned:
		out = r.abandoned(event)
	case RunnerTold:
		out = r.told()
	case RunnerTick:
	default:
		panic(fmt.Sprintf("singleton: runner: unknown event %T", event))
	}
	r.due(&out)
	out.Wake = r.wake()
	return out
}

func (r *Runner) expect(event string, states ...RunnerState) {
	for _, s := range states {
		if r.state == s {
			return
		}
	}
	panic(fmt.Sprintf("singleton: runner: %s while %v", event, r.state))
}

func (r *Runner) began() RunnerEffects {
	r.expect("began", RunnerIdle)
	if r.config.Ineligible {
		return RunnerEffects{}
	}
	return r.wait()
}

// wait asks for the lease.
func (r *Runner) wait() RunnerEffects {
	r.state = RunnerWaiting
	r.cause, r.returned, r.lost = 0, 0, false
	return RunnerEffects{Acquire: true}
}

// end takes in that the caller wants no more. A request for the lease is not cut short here: the caller's context does
// that, and it ends in a grant or a refusal.
func (r *Runner) end() RunnerEffects {
	r.ended = true
	switch r.state {
	case RunnerIdle:
		return r.done(RunnerOutcomeEnded)
	case RunnerRunning:
		return r.stop(CauseEnded)
	default:
		return RunnerEffects{}
	}
}

func (r *Runner) granted() RunnerEffects {
	r.expect("granted", RunnerWaiting)
	if r.ended {
		r.state = RunnerReleasing
		r.cause = CauseEnded
		return RunnerEffects{Release: true}
	}
	r.state = RunnerRunning
	return RunnerEffects{Start: true}
}

func (r *Runner) refused() RunnerEffects {
	r.expect("refused", RunnerWaiting)
	return r.done(RunnerOutcomeRefused)
}

func (r *Runner) lose(event RunnerLost) RunnerEffects {
	switch r.state {
	case RunnerRunning:
		if mutant.On(mutant.LossIgnored) {
			return RunnerEffects{}
		}
		r.lost = true
		effects := r.stop(CauseLost)
		if mutant.On(mutant.OldTermRuns) {
			effects.Acquire = r.wait().Acquire
			return effects
		}
		r.limit(event.Until)
		return effects
	case RunnerStopping:
		r.lost = true
		r.limit(event.Until)
	default: // it was let go, or the function has returned: nothing depends on it any more
	}
	return RunnerEffects{}
}

// limit takes in when the lease runs out that a function is stopping under.
func (r *Runner) limit(until clock.Instant) {
	if r.config.Strict {
		r.stuckAt = min(r.stuckAt, until)
	}
}

func (r *Runner) contended() RunnerEffects {
	if r.state != RunnerRunning || !r.config.HandOver {
		return RunnerEffects{}
	}
	return r.stop(CauseHandedOver)
}

// stop ends the function's context. The lease is renewed while it is held, because the function works until it returns.
func (r *Runner) stop(cause RunnerCause) RunnerEffects {
	r.expect("stop", RunnerRunning)
	r.state, r.cause = RunnerStopping, cause
	r.stuckAt = r.now.Add(r.config.StopGrace)
	if mutant.On(mutant.ReleasedAtCancel) {
		r.state = RunnerReleasing
		return RunnerEffects{Cancel: cause, Release: true}
	}
	return RunnerEffects{Cancel: cause}
}

func (r *Runner) functionReturned(how RunnerReturn) RunnerEffects {
	r.expect("returned", RunnerRunning, RunnerStopping, RunnerStuck)
	if how == 0 || r.returned != 0 {
		panic(fmt.Sprintf("singleton: runner: returned how %d, after %d", how, r.returned))
	}
	r.returned = how
	if r.telling {
		return RunnerEffects{} // who is told of it may still look at the lease
	}
	r.state = RunnerReleasing
	return RunnerEffects{Release: true}
}

// released decides how to go on after a term.
func (r *Runner) released() RunnerEffects {
	r.expect("released", RunnerReleasing)
	switch {
	case r.returned == 0: // granted after the end
		return r.done(RunnerOutcomeEnded)
	case r.returned == ReturnedPanic || r.returned == ReturnedExit:
		return r.done(RunnerOutcomeReturned)
	case r.cause == 0 || r.cause == CauseEnded:
		return r.done(RunnerOutcomeReturned)
	case r.config.StopOnLoss && (r.cause == CauseLost || r.lost):
		return r.done(RunnerOutcomeLost)
	case r.ended:
		return r.done(RunnerOutcomeReturned)
	}
	return r.wait()
}

// due takes a function that stops for stuck, and ends the process, when it is time.
func (r *Runner) due(out *RunnerEffects) {
	switch {
	case r.state == RunnerStopping && !r.now.Before(r.stuckAt):
		r.state = RunnerStuck
		out.Abandon = true
	case r.state == RunnerStuck && !r.telling && r.exitAt != 0 && !r.now.Before(r.exitAt):
		r.exitAt = 0
		out.Exit = true
	}
}

func (r *Runner) abandoned(event RunnerAbandoned) RunnerEffects {
	if r.state != RunnerStuck {
		return RunnerEffects{} // it returned meanwhile
	}
	if mutant.On(mutant.StuckReleased) {
		r.state = RunnerReleasing
		return RunnerEffects{Release: true}
	}
	if r.config.TellStuck {
		r.telling = true
		return RunnerEffects{Tell: true}
	}
	r.exitAt = max(event.Until, 1)
	return RunnerEffects{}
}

func (r *Runner) told() RunnerEffects {
	r.expect("told", RunnerStuck)
	r.telling = false
	if r.returned != 0 {
		r.state = RunnerReleasing
		return RunnerEffects{Release: true}
	}
	return r.done(RunnerOutcomeStuck)
}

func (r *Runner) done(outcome RunnerOutcome) RunnerEffects {
	r.state = RunnerDone
	return RunnerEffects{Done: outcome}
}

// wake is when to step again if nothing happens.
func (r *Runner) wake() clock.Instant {
	switch r.state {
	case RunnerStopping:
		return r.stuckAt
	case RunnerStuck:
		if !r.telling {
			return r.exitAt
		}
	default:
	}
	return 0
}
