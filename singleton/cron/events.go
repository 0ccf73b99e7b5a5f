//writ:core

package cron

import (
	"time"

	"github.com/writ-io/writ/fence"
)

// Event is what happened to a [Machine].
type Event interface{ cronEvent() }

// Granted begins a term: the resource of the job is held. It comes first, and again only after the effect Over.
type Granted struct {
	Token  fence.Token
	Holder string // for the history
	// Checkpoint came with the grant, and Control was read after it.
	Checkpoint []byte
	Control    Control
}

// Controlled says that the control document was read again.
type Controlled struct{ Control Control }

// Elapsed says that time has passed.
type Elapsed struct{}

// Stored answers a Store: it is durable.
type Stored struct{}

// NotStored answers a Store: it may or may not be durable. It is tried again after a while, unless the term ends.
type NotStored struct{}

// Returned answers a Run: the function has returned, with Done, Failed or Panicked.
type Returned struct {
	Outcome Outcome
	Reason  string // of a failure
	// Took is how long it ran, by a clock that is not the time of day.
	Took time.Duration
}

// Ended says that the context of the term has ended: because the lease is lost, to be handed over, or not wanted any more.
type Ended struct{}

func (Granted) cronEvent()    {}
func (Controlled) cronEvent() {}
func (Elapsed) cronEvent()    {}
func (Stored) cronEvent()     {}
func (NotStored) cronEvent()  {}
func (Returned) cronEvent()   {}
func (Ended) cronEvent()      {}

// Effects is what a shell does after a step. The zero value of each field means nothing.
type Effects struct {
	// Store is to be written as the checkpoint of the job under the token of the term: Stored or NotStored. There is one at a
	// time.
	Store []byte
	// Run is to be run: Returned, some time. There is one at a time.
	Run *Tick
	// Cancel ends the context of what runs, because another slot takes its place.
	Cancel bool
	// Wake is the time of day at which to step with Elapsed, or as soon as the clock was set back, if nothing happens before.
	Wake time.Time
	// Over says that the term is over: nothing runs or is being stored, and the lease may be released.
	Over bool
	// Refused is why the job cannot run under this term: its state is not readable. Nothing was changed.
	Refused error
}

// Tick is one run of a job.
type Tick struct {
	// Job is the name of the job, which is its resource.
	Job string
	// ID names the slot, or the trigger, and is the same for all its attempts: record effects under it.
	ID string
	// Slot is when it was due, in the zone of the spec; of a manual run, when it was triggered.
	Slot time.Time
	// Attempt counts from 1; more says that a holder died, or was stopped, while it ran the slot.
	Attempt int
	// Missed is how many slots right before it were missed and skipped, counted up to 1,000.
	Missed int
	// Manual: somebody triggered it, who is By.
	Manual bool
	By     string
}
