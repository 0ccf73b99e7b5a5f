package plan

import "time"

// Plan is one run. Everything random in it that the plan does not say is derived from Seed.
type Plan struct {
	// Name is that of the scenario, one word; empty if the plan was drawn.
	Name string
	// About says in a line or more what the scenario shows.
	About []string
	Seed  uint64
	Store Store
	// Duration is how long clients work and faults happen. Then everything is healed, and must make progress again.
	Duration time.Duration
	// Election is the election timeout, Heartbeat a tick of raft: Election is at least 5 of them.
	Election, Heartbeat time.Duration
	// Policy of every node.
	MaxTTL    time.Duration
	LockDelay time.Duration
	Retention time.Duration
	// SyncDelay is how long a disk usually takes to flush.
	SyncDelay time.Duration
	// Sample is how many operations of one resource are recorded and judged for linearizability; 0: none.
	Sample int
	// GuardLease is for how long a guard goes on without contact; 0: 30 seconds.
	GuardLease time.Duration
	// Storage is what the storage does with tokens.
	Storage Storage

	Links []Link
	Nodes []Node
	// Rules say which resources are guarded.
	Rules    []Rule
	Guards   []Guard
	Groups   []Group
	Agents   []Agent
	Writers  []Writer
	Clients  []Client
	Works    []Work
	Services []Service
	Watchers []Watcher
	Faults   []Fault
	// Expect lists the invariants that this run breaks, such as S4; empty: none.
	Expect []string
}

// Store is what the nodes replicate their state with.
type Store string

// The stores.
const (
	Raft Store = "raft" // real raft, a replica on each node
	Fast Store = "fast" // one copy with unknown outcomes and delays
)

// Storage is what the storage does with the tokens of guarded resources. Those of all others it always compares.
type Storage string

// What a storage does.
const (
	// Comparing storage compares tokens in the operation itself.
	Comparing Storage = ""
	// Plain storage does whatever reaches it. Guards before it stand still for no longer than half of W in any guard lease.
	Plain Storage = "plain"
)

// Rule has the resources under a prefix guarded. An operator sets it before clients take any of them.
type Rule struct {
	Prefix string
	// Open lets guards go on without contact, for as long as it takes; a fault may change that.
	Open bool
	// Unproven lets a grant be made although an open guard that is out has not been proved.
	Unproven bool
	// Drain is how long older writes may take until they are cut; 0: 10 seconds.
	Drain time.Duration
}

// Guard is a process before the storage. Clients write guarded resources through any guard that covers them, and have to
// take a guarded resource to the storage itself if none does. Its name starts with g.
type Guard struct {
	Name, Region string
	PPM          int64
	// Covers are resources, or prefixes that end in an asterisk.
	Covers []string
	// Stamps are those for which it presents the token of its own region, to programs that have none.
	Stamps []string
	// Slack is W.
	Slack time.Duration
	// Park is how long a write waits for its turn.
	Park time.Duration
	// As is the name that it enrols under; empty: its own. With that of another one it is configured by mistake.
	As string
	// Close has it refuse without contact whatever the rules say.
	Close bool
	// Storage makes it the guard of a storage that compares tokens by itself, in the operation: clients write to that whether the
	// guard runs or not, and the guard only raises it. That storage is never down, and takes nothing before it was raised first.
	Storage bool
}

// Link is the way between two regions, in both directions. Two regions without one are 1 ms apart.
type Link struct {
	A, B   string
	RTT    time.Duration
	Jitter time.Duration // mean, each way
	Loss   int           // thousandths
	Dup    int           // thousandths
}

// Node is a node of the quorum. Its name starts with n, as n1.
type Node struct {
	Name, Region string
	// PPM is by how many millionths its clock runs fast; negative: slow.
	PPM int64
}

// Client is a process that takes leases and writes under them. Its name starts with c.
type Client struct {
	Name, Region string
	PPM          int64
	// Resources that it takes, one after the other, or with All together.
	Resources []string
	All       bool
	TTL       time.Duration
	// Hold is for how long it keeps a lease, and Think how long it rests afterwards: means.
	Hold, Think time.Duration
	// Write is how often it writes to the storage while it holds; 0: never. Checkpoint likewise.
	Write, Checkpoint time.Duration
	Priority          int32
	// In thousandths: Impatience is how many waits it gives up, Leave how many leases it leaves to run out, and Try how many
	// times it asks without waiting.
	Impatience, Leave, Try int
	// Stamped has it write without a token, through guards of its region that stamp one.
	Stamped bool
}

// Watcher follows the resources under a prefix, at one node after the other. Its name starts with w.
type Watcher struct {
	Name, Region string
	Prefix       string
	// Stay is how long it stays at a node before it resumes at another: a mean.
	Stay time.Duration
}

// Fault is something that goes wrong, or that an operator does, at an instant and, where that means something, for a while.
type Fault struct {
	At, For time.Duration
	Kind    Kind
	// Who it concerns: names of actors or regions. A and B are the two sides of what concerns links; B empty: all others.
	A, B []string
	// Amount: thousandths for lossy and duplicate; otherwise 0.
	Amount int
	// By is a duration: how much slower, how far a clock jumps.
	By time.Duration
}

// Kind is what goes wrong.
type Kind string

// The kinds. A is the first list of names, B the second.
const (
	// Network.
	Cut       Kind = "cut"       // nothing passes between A and B
	OneWay    Kind = "oneway"    // nothing passes from A to B
	Bridge    Kind = "bridge"    // A's first reaches all; the rest of A and B do not reach each other
	Clog      Kind = "clog"      // what goes between A and B is held back, and arrives in the end
	Swizzle   Kind = "swizzle"   // A's links clog one after the other, and unclog in another order
	Lossy     Kind = "lossy"     // Amount thousandths between A and B are lost
	Duplicate Kind = "duplicate" // Amount thousandths between A and B come twice
	Slow      Kind = "slow"      // By longer between A and B, with as much jitter
	// Processes.
	Crash     Kind = "crash"      // A's die, and are started again when For is over
	CrashLoop Kind = "crash-loop" // A's die every By
	Pause     Kind = "pause"      // A's stand still
	Freeze    Kind = "freeze"     // A's machines stand still, and their clocks miss it
	WallJump  Kind = "wall-jump"  // A's time of day jumps By
	// Disks.
	SlowDisk Kind = "slow-disk" // A's flushes take By longer
	FullDisk Kind = "full-disk" // A's disks take nothing more
	TornDisk Kind = "torn-disk" // A's die in the middle of a write, whose tail is torn
	Wipe     Kind = "wipe"      // A's disk is lost; an operator replaces the member
	OldDisk  Kind = "old-disk"  // A's disk is put back to what it was By ago, but not its witness
	// Operators.
	Move       Kind = "move"        // the coordinator is moved to A's first
	AddNode    Kind = "add"         // A's first joins
	RemoveNode Kind = "remove"      // A's first is removed
	Force      Kind = "force"       // the holder of a resource in A is forced to let go
	Backup     Kind = "backup"      // a snapshot is taken
	Restore    Kind = "restore"     // every node is restored from the last snapshot
	NewCluster Kind = "new-cluster" // A's first is forced into a cluster of its own; the others join it empty
	Twice      Kind = "twice"       // requests are sent twice for a while
	// Operators of guards.
	Stop   Kind = "stop"   // A's guards leave in order, and are started again when For is over
	Attest Kind = "attest" // A's guards are stopped, attested to admit nothing, taken off the list, and started when For is over
	Open   Kind = "open"   // the rules of the prefixes in A let guards go on without contact
	Close  Kind = "close"  // they do not any more
	// Operators of failover groups.
	Switchover Kind = "switchover" // the groups in A are moved to another region in order
	Failover   Kind = "failover"   // they are moved without their region's help
	Abort      Kind = "abort"      // their promotion is given up
	Ill        Kind = "ill"        // A's agents say for a while that their region has failed
	BadHooks   Kind = "bad-hooks"  // A's hooks fail for a while
	Ambush     Kind = "ambush"     // the coordinator dies, for a while, when a promotion enters a state of A
	Protect    Kind = "protect"    // the prefixes in A have their rules again
	Unprotect  Kind = "unprotect"  // they have none any more
	Forge      Kind = "forge"      // a trusted route of A's guards is told a token that was never granted, and is Amount above all that were
	Probe      Kind = "probe"      // canaries with tokens of before are sent through A's guards
	// Operators and people of what runs in one place.
	Deploy  Kind = "deploy"  // A's services end in order, and are started again when For is over
	Suspend Kind = "suspend" // the cron jobs in A are paused
	Resume  Kind = "resume"  // they are not any more
	Trigger Kind = "trigger" // they are triggered

	ForceNow Kind = "force-now" // the holder of a resource in A is forced to let go, and nobody waits for its lease
)
