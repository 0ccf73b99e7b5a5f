//writ:core

package gate

import (
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

// Config is what a gate depends on besides events.
type Config struct {
	// Name of the guard: 1 to 64 bytes, the same over restarts.
	Name string
	// Session names this run of the process, and no other one: 1 to 48 bytes. Each enrolment puts a number behind it.
	Session string
	// Enrol is what the guard says of itself; the gate fills Store, Version, Witnessed and Slack in.
	Enrol *writv1.GuardEnrol
	// Slack is W: it bounds a pause of the guard plus the storage's execution of what has been forwarded.
	Slack time.Duration
	Drift clock.Drift
	// AlwaysClose makes the guard refuse without contact whatever the rules say.
	AlwaysClose bool
	// MaxParked bounds the writes that wait for their turn; default 10,000.
	MaxParked int
	// MaxParkTime bounds how long a write waits for its turn; default 10 s.
	MaxParkTime time.Duration
}

// State is what a floor store holds.
type State struct {
	// Store names the store; made with it.
	Store string
	// Version counts its changes.
	Version uint64
	// Base is the floor of every resource that has none of its own. A floor of its own may be below it.
	Base fence.Token
	// Witnessed is the highest token that came from the quorum.
	Witnessed fence.Token
	// Floors are in order of their resources.
	Floors []Floor
	// Clean says that the last process that had the store open had nothing under way when it closed it.
	Clean bool
	// Quorum is the one that the guard enrolled with last.
	Quorum Quorum
	// Openings are what certificates of break-glass did, the oldest first.
	Openings []Opening
	// Wall is the time of day at which the process starts. It is not stored; certificates expire by it.
	Wall time.Time
}

// Floor is the lowest token that may be admitted for a resource.
type Floor struct {
	Resource string
	Token    fence.Token
	// Drained says that every write under an older token has finished.
	Drained bool
}

// Batch is a change of the floor store, to be made durable in one transaction.
type Batch struct {
	// Serial numbers the batches of one gate from 1. They are written in order.
	Serial  uint64
	Version uint64
	// Floors to put; none is below the one it replaces.
	Floors []Floor
	// Base and Witnessed to put; 0: unchanged.
	Base, Witnessed fence.Token
	// Forget removes every floor that is at or below the base that results, before Floors are put: a floor of a resource's
	// own that is below the base counts, so those of the batch stay.
	Forget bool
	// Quorum to put; nil: unchanged.
	Quorum *Quorum
	// Openings take the place of those that are stored, if PutOpenings says so.
	Openings    []Opening
	PutOpenings bool
}

// Ticket names an admission of one gate: it is never used twice. 0 is none.
type Ticket uint64

// Answer is what becomes of a write that asks to be admitted.
type Answer uint8

// The answers.
const (
	// Refuse: Admit's error says why.
	Refuse Answer = iota + 1
	// Go: it is under way, until Done.
	Go
	// Wait: Decided will say, in the effects of a later step.
	Wait
)

// Decided says what became of a write that had to wait: it is under way if Err is nil.
type Decided struct {
	Ticket Ticket
	Token  fence.Token
	Err    error
}

// Event is something that happens to a gate.
type Event interface{ gateEvent() }

type (
	// Connected says that messages can be sent.
	Connected struct{}
	// Disconnected says that they cannot, and that answers of before will not come.
	Disconnected struct{}
	// Heard is a message of the quorum.
	Heard struct{ Message *writv1.GuardResponse }
	// Persisted is the result of a batch. An error means that nothing of it may be counted on.
	Persisted struct {
		Serial uint64
		Err    error
	}
	// Suspicion says that the clock and the time of day disagree: nothing is believed until a new contact.
	// Wall is the time of day; zero: it is not known.
	Suspicion struct{ Wall time.Time }
	// Abandoned says that nobody waits for the parked write of that ticket any more. It is not decided
	// any more. If it has been, this is ignored: one that was admitted needs its Done all the same, as Finished if it was
	// never sent.
	Abandoned struct{ Ticket Ticket }
	// Stop begins to shut down: nothing more is admitted, and the guard leaves when nothing is under way.
	Stop struct{}
	// Tick lets time pass.
	Tick struct{}
)

func (Connected) gateEvent()    {}
func (Disconnected) gateEvent() {}
func (Heard) gateEvent()        {}
func (Persisted) gateEvent()    {}
func (Suspicion) gateEvent()    {}
func (Abandoned) gateEvent()    {}
func (Stop) gateEvent()         {}
func (Tick) gateEvent()         {}

// Effects is what a step wants done. It is valid until the next step; what its slices point to may be kept.
type Effects struct {
	// Persist, in order, then step Persisted for each.
	Persist []Batch
	// Send to the quorum, in order.
	Send []*writv1.GuardRequest
	// Decided answers writes that waited.
	Decided []Decided
	// Cut: break these writes off; each still ends with Done, as Broken unless it finished first.
	Cut []Ticket
	// Probe: carry this canary through the front, then send the verdict.
	Probe []Probe
	// Keys is a JSON Web Key Set that came; empty: none did.
	Keys string
	// Grants that came, for stamp mode.
	Grants []*writv1.GuardGrant
	// Opened are certificates that are in force from now on, by their ids.
	Opened []string
	// Left: Stop has come to its end.
	Left bool
	// Reconnect: the quorum has not answered for too long; try another node.
	Reconnect bool
	// Warning is something an operator should know; empty: nothing.
	Warning string
	// Wake is when the next Tick has something to do; clock.Never if nothing.
	Wake clock.Instant
}

// Probe is a canary: a write that a sound guard refuses.
type Probe struct {
	ID    uint64
	Probe *writv1.GuardProbe
}
