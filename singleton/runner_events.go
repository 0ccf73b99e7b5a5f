//writ:core

package singleton

import "github.com/writ-io/writ/lease/clock"

// RunnerEvent is what happened to a [Runner].
type RunnerEvent interface{ runnerEvent() }

// RunnerBegan says that the function is to be run. It comes once, first.
type RunnerBegan struct{}

// RunnerEnded says that the caller wants no more. A request for the lease is to end soon then.
type RunnerEnded struct{}

// RunnerGranted answers an Acquire: the lease is held.
type RunnerGranted struct{}

// RunnerRefused answers an Acquire: there will be no lease.
type RunnerRefused struct{}

// RunnerLost says that the lease is lost, or about to be. It may come at any time after a grant.
type RunnerLost struct {
	// Until is before when certainly nobody else can be granted the resource; now or earlier if that is not certain.
	Until clock.Instant
}

// RunnerContended says that a request of higher priority waits for the resource.
type RunnerContended struct{}

// RunnerReturned says that the function has returned.
type RunnerReturned struct{ How RunnerReturn }

// RunnerReleased answers a Release: it has been tried, with success or without.
type RunnerReleased struct{}

// RunnerAbandoned answers an Abandon: the lease is not renewed any more.
type RunnerAbandoned struct {
	// Until is before when certainly nobody else can be granted the resource; now or earlier if that is not certain.
	Until clock.Instant
}

// RunnerTold answers a Tell.
type RunnerTold struct{}

// RunnerTick says that the instant of [RunnerEffects.Wake] has come.
type RunnerTick struct{}

func (RunnerBegan) runnerEvent()     {}
func (RunnerEnded) runnerEvent()     {}
func (RunnerGranted) runnerEvent()   {}
func (RunnerRefused) runnerEvent()   {}
func (RunnerLost) runnerEvent()      {}
func (RunnerContended) runnerEvent() {}
func (RunnerReturned) runnerEvent()  {}
func (RunnerReleased) runnerEvent()  {}
func (RunnerAbandoned) runnerEvent() {}
func (RunnerTold) runnerEvent()      {}
func (RunnerTick) runnerEvent()      {}

// RunnerCause says why a function's context has ended.
type RunnerCause uint8

// The causes.
const (
	// CauseEnded: the caller wants no more.
	CauseEnded RunnerCause = iota + 1
	// CauseLost: the lease is lost.
	CauseLost
	// CauseHandedOver: a request of higher priority waits.
	CauseHandedOver
)

func (c RunnerCause) String() string {
	names := [...]string{"none", "ended", "lost", "handed over"}
	if int(c) >= len(names) {
		return "unknown"
	}
	return names[c]
}

// RunnerReturn says how a function returned.
type RunnerReturn uint8

// The ways to return.
const (
	// ReturnedNil: without an error.
	ReturnedNil RunnerReturn = iota + 1
	// ReturnedError: with one.
	ReturnedError
	// ReturnedPanic: it panicked.
	ReturnedPanic
	// ReturnedExit: it called runtime.Goexit.
	ReturnedExit
)

// RunnerOutcome says how it all ended.
type RunnerOutcome uint8

// The outcomes.
const (
	// RunnerOutcomeReturned: the function returned, of itself or because the caller wanted no more, and is not run again.
	RunnerOutcomeReturned RunnerOutcome = iota + 1
	// RunnerOutcomeRefused: there was no lease to be had.
	RunnerOutcomeRefused
	// RunnerOutcomeEnded: the caller wanted no more before the function was started.
	RunnerOutcomeEnded
	// RunnerOutcomeLost: the lease was lost, and is not asked for again.
	RunnerOutcomeLost
	// RunnerOutcomeStuck: the function did not return and was left behind.
	RunnerOutcomeStuck
)

func (o RunnerOutcome) String() string {
	names := [...]string{"none", "returned", "refused", "ended", "lost", "stuck"}
	if int(o) >= len(names) {
		return "unknown"
	}
	return names[o]
}

// RunnerEffects is what a shell does after a step, in the order of the fields. Each that is not zero is carried out once,
// and answered with its event.
type RunnerEffects struct {
	// Cancel ends the function's context; there is no answer.
	Cancel RunnerCause
	// Acquire asks for the lease until the caller wants no more: RunnerGranted or RunnerRefused.
	Acquire bool
	// Start starts the function: RunnerReturned, some time.
	Start bool
	// Release ends the lease: RunnerReleased.
	Release bool
	// Abandon stops renewing it and tells nobody: RunnerAbandoned.
	Abandon bool
	// Tell tells the owner that the function is stuck: RunnerTold.
	Tell bool
	// Exit ends the process.
	Exit bool
	// Done says that it is all over, and how.
	Done RunnerOutcome
	// Wake is when to step with [RunnerTick] if nothing happens before; 0 means never.
	Wake clock.Instant
}
