package trace

import "time"

// Trace is what is worth drawing of one run. Every time is T, simulated real time since the start of the run.
type Trace struct {
	Title      string // the scenario's name, or how the plan came about
	Seed       uint64
	Hash       string
	Command    string // that replays the run
	Simulated  time.Duration
	Lanes      []Lane
	Bands      []Band
	Beliefs    []Belief
	Writes     []Write
	Events     []Event
	Violations []Violation
}

// LaneKind is what has a lane.
type LaneKind string

// The kinds of lanes, in the order in which they are drawn.
const (
	LaneOperator LaneKind = "operator"
	LaneNode     LaneKind = "node"
	LaneClient   LaneKind = "client"
	LaneGuard    LaneKind = "guard"
	LaneStorage  LaneKind = "storage"
)

// Lane is one actor. The others name it by its index in Trace.Lanes.
type Lane struct {
	Name   string
	Region string
	Kind   LaneKind
}

// BandKind is what a lane is in for a while.
type BandKind string

// The kinds of bands.
const (
	BandDown        BandKind = "down"        // crashed, until it is restarted
	BandPaused      BandKind = "paused"      // the process stands still
	BandCut         BandKind = "cut"         // some of its links are cut or clogged
	BandDisk        BandKind = "disk"        // its disk is slow, full or lying
	BandLeader      BandKind = "leader"      // raft leader
	BandCoordinator BandKind = "coordinator" // it believes that it decides
	BandClock       BandKind = "clock"       // an instant: its clock jumped
)

// Band is a stretch of a lane.
type Band struct {
	Lane     int
	Kind     BandKind
	From, To time.Duration
	Text     string
}

// Belief is for how long a holder believed in a lease.
type Belief struct {
	Lane     int // the client's
	Resource string
	Token    uint64
	From, To time.Duration
}

// Write is one attempt to write to the storage under a token.
type Write struct {
	Lane     int // the client's
	Resource string
	Token    uint64
	At       time.Duration // at the storage
	Accepted bool
	Floor    uint64 // the highest token that the storage had seen before
}

// EventKind groups events, for a reader to choose from.
type EventKind string

// The kinds of events.
const (
	EventFault    EventKind = "fault"    // the world did something to an actor
	EventRole     EventKind = "role"     // a coordinator came or went
	EventRequest  EventKind = "request"  // a client asked
	EventAnswer   EventKind = "answer"   // and was answered
	EventCommit   EventKind = "commit"   // a change was committed
	EventLease    EventKind = "lease"    // a holder gained or lost belief
	EventOperator EventKind = "operator" // an operator did something
	EventMark     EventKind = "mark"     // a coverage mark was reached for the first time
)

// Event is something that happened, in words.
type Event struct {
	At   time.Duration
	Lane int
	Kind EventKind
	Text string
}

// Violation is a promise that was broken.
type Violation struct {
	At        time.Duration
	Invariant string // as in docs/INVARIANTS.md: S1, S4, D1 …
	Text      string
}
