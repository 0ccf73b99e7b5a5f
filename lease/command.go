//writ:core

package lease

import (
	"time"

	"github.com/writ-io/writ/fence"
)

// What may be asked of the table. Every command carries the caller: an identity that has been authenticated and, by
// resource prefix, authorised before.

// Caller is who asks.
type Caller struct {
	Principal Principal
	Instance  string
}

// Acquire asks for a resource.
type Acquire struct {
	Caller
	Resource Resource
	// RequestID makes the request idempotent within (principal, resource); not empty.
	RequestID string
	TTL       time.Duration
	// Wait is how long to wait in the queue within this request; the table cuts it to a third of TTL. 0: do not queue.
	Wait     time.Duration
	Priority int32
	Region   string
	Metadata []byte
}

// CancelAcquire ends an abandoned wait, and the grant if it was made meanwhile.
type CancelAcquire struct {
	Caller
	Resource  Resource
	RequestID string
}

// Ref names one grant.
type Ref struct {
	Resource Resource
	Token    fence.Token
}

// Renew extends grants, each by its own TTL.
type Renew struct {
	Caller
	Refs []Ref
}

// Release ends one grant.
type Release struct {
	Caller
	Ref
}

// Checkpoint stores state for the next holder; empty Data removes it.
type Checkpoint struct {
	Caller
	Ref
	Data []byte
	// Sequence orders the checkpoints of one grant: one that does not come after the newest that was stored changes nothing,
	// so that an attempt which was given up and arrives late cannot undo a later one. 0: stored in any case.
	Sequence uint64
}

// MaxReasonBytes bounds ForceRelease.Reason.
const MaxReasonBytes = 1024

// ForceRelease takes a lease away. A zero token means whichever grant there is.
type ForceRelease struct {
	Caller
	Ref
	Reason string // up to MaxReasonBytes; it is recorded
	Now    bool
}

// Inspect reads a resource with what only the coordinator knows. A zero token reads whatever is there; another one is an
// error (NOT_HOLDER, EXPIRED, RELEASED) unless it names the caller's present grant.
type Inspect struct {
	Caller
	Ref
	// WithCheckpoint answers the checkpoint too.
	WithCheckpoint bool
}

// Grant confers a lease for TTL, counted from before the request that it answers was sent.
type Grant struct {
	Resource   Resource
	Token      fence.Token
	Holder     Holder
	TTL        time.Duration
	GrantedAt  time.Time // coordinator's wall clock, for people
	RequestID  string
	Checkpoint []byte
	Replayed   bool // repeats an earlier grant of the same request, as a renewal
	// Guarded: guards refuse whoever held the resource before, and want a writ.
	Guarded bool
}

// Waiting says that the place in the queue is kept for Keep after this answer.
type Waiting struct {
	Position  int // 1 is next
	HeldBy    Holder
	HeldToken fence.Token
	Keep      time.Duration
}

// AcquireOutcome is a grant or a place in the queue: exactly one is not nil.
type AcquireOutcome struct {
	Grant   *Grant
	Waiting *Waiting
}

// RenewOutcome lists what was not renewed; every other ref was.
type RenewOutcome struct {
	Failures []RenewFailure
	// Contended lists renewed refs that a request of higher priority waits for.
	Contended []int
}

// RenewFailure says why the ref with that index was not renewed.
type RenewFailure struct {
	Index int
	Err   *Error
}

// Info is what is known of a resource.
type Info struct {
	Resource  Resource
	State     State
	Token     fence.Token // of the present or the last grant; 0: never granted
	Holder    Holder
	TTL       time.Duration
	GrantedAt time.Time
	End       End
	Metadata  []byte
	RequestID string
	// Remaining and Waiters are known to the coordinator only.
	Remaining time.Duration
	Waiters   int
	Revision  int64
	// Fencing is the token of the next grant, while the state is Fencing.
	Fencing fence.Token
	// Proofs say how each guard was proved to refuse what is older than Token.
	Proofs []Proof
	// Awaits names the guards that have not been proved to refuse what is older than Fencing; known to the coordinator only.
	Awaits []string
	// TenureGroup is the failover group whose tenure this is; empty: it is a lease.
	TenureGroup string
	// Checkpoint is the newest one, if it was asked for.
	Checkpoint []byte
}

// State of a resource.
type State uint8

// The states.
const (
	Free State = iota + 1
	Held
	// Ending is held, but taken away: not renewable, free at its deadline.
	Ending
	// Fencing is free, and its guards are being raised to the token of the next grant, or have been.
	Fencing
)

func (s State) String() string {
	switch s {
	case Free:
		return "free"
	case Held:
		return "held"
	case Ending:
		return "ending"
	case Fencing:
		return "fencing"
	}
	return "unknown"
}

// End is how a grant, or a request, ended. The numbers are stored.
type End int8

// The ends.
const (
	NotEnded End = iota
	EndReleased
	EndExpired
	EndCancelled
	EndForced
)

func (e End) String() string {
	switch e {
	case NotEnded:
		return ""
	case EndReleased:
		return "released"
	case EndExpired:
		return "expired"
	case EndCancelled:
		return "cancelled"
	case EndForced:
		return "forced"
	}
	return "unknown"
}

// Command is one of the requests above.
type Command interface{ command() }

func (Acquire) command()       {}
func (CancelAcquire) command() {}
func (Renew) command()         {}
func (Release) command()       {}
func (Checkpoint) command()    {}
func (ForceRelease) command()  {}
func (Inspect) command()       {}
