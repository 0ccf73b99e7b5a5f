//writ:core

package lease

import (
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// KeeperEvent is what happened to the leases of a [Keeper].
type KeeperEvent interface{ keeperEvent() }

// KeeperTick says that time has passed: the instant of [KeeperEffects.Wake] has come.
type KeeperTick struct{}

// KeeperGranted says that a lease was granted.
type KeeperGranted struct {
	// ID names the lease from now on. A second grant of an ID is a panic.
	ID KeeperID
	Ref
	// TTL is the one of the grant; above 0.
	TTL time.Duration
	// Lead is how long before its local deadline the lease is given up, so that work under it has time to stop; not
	// negative.
	Lead time.Duration
	// SentAt is an instant before the request was sent, to which this grant is the answer.
	SentAt clock.Instant
}

// KeeperRenewed says what came of a renewal. It may come late, twice or never.
type KeeperRenewed struct {
	// Renewal is the effect that was carried out.
	Renewal Renewal
	// Failed says that the call as a whole failed or that its outcome is unknown; Outcome is ignored then.
	Failed bool
	// Outcome says what was not renewed. Its indices count the leases of the Renewal.
	Outcome RenewOutcome
}

// KeeperEnded says that another call for exactly this grant was answered with EXPIRED, NOT_HOLDER or RELEASED.
type KeeperEnded struct {
	ID     KeeperID
	Reason Reason
}

// KeeperReleased says that the lease is about to be released. It is never renewed or believed again; a renewal that is
// under way cannot revive it, because the server knows the token as released.
type KeeperReleased struct{ ID KeeperID }

// KeeperVerify asks for a renewal of one lease now, in a message of its own.
type KeeperVerify struct{ ID KeeperID }

// KeeperSuspected says that the clock may have missed time. Every lease is on probation: not believed until a renewal
// that is sent from now on succeeds, and lost if none does within a third of its TTL.
type KeeperSuspected struct{}

// KeeperForgotten drops every lease without a word; they run out at the server.
type KeeperForgotten struct{}

func (KeeperTick) keeperEvent()      {}
func (KeeperGranted) keeperEvent()   {}
func (KeeperRenewed) keeperEvent()   {}
func (KeeperEnded) keeperEvent()     {}
func (KeeperReleased) keeperEvent()  {}
func (KeeperVerify) keeperEvent()    {}
func (KeeperSuspected) keeperEvent() {}
func (KeeperForgotten) keeperEvent() {}

// KeeperEffects is what a shell does after a step, Beliefs before Lost. Its slices are valid until the next step.
type KeeperEffects struct {
	// Renewals are to be sent. Belief counts from SentAt, so sending one late is safe and only wastes time.
	Renewals []Renewal
	// Lost leases must not be used any more; they are gone from the Keeper.
	Lost []KeeperLoss
	// Contended leases are those that a request of higher priority has begun to wait for, each once.
	Contended []KeeperID
	// Beliefs are what has changed, in order.
	Beliefs []KeeperBelief
	// Wake is when to step with [KeeperTick] if nothing happens before; 0 means never.
	Wake clock.Instant
}

// KeeperBelief says that a lease may be believed before Until, which is 0 while it may not be believed.
type KeeperBelief struct {
	ID    KeeperID
	Until clock.Instant
}

// KeeperLoss says that a lease was lost, and why.
type KeeperLoss struct {
	ID    KeeperID
	Cause LostCause
	// Reason is what the server said with LostEnded, and EXPIRED otherwise.
	Reason Reason
}

// LostCause says how a lease was lost.
type LostCause uint8

// The causes.
const (
	// LostDeadline: no renewal succeeded before the local deadline.
	LostDeadline LostCause = iota + 1
	// LostEnded: the server said that the grant has ended.
	LostEnded
	// LostSuspicion: the clock may have missed time, and no renewal succeeded since.
	LostSuspicion
)

func (c LostCause) String() string {
	switch c {
	case LostDeadline:
		return "its deadline passed without a renewal"
	case LostEnded:
		return "the server ended it"
	case LostSuspicion:
		return "the clock missed time and no renewal succeeded since"
	}
	return "unknown cause"
}

// Renewal is one renewal message to send.
type Renewal struct {
	// SentAt is from when on a success counts.
	SentAt clock.Instant
	// Deadline is when nobody waits for the answer any more.
	Deadline clock.Instant
	// Hedge is when the Keeper tries again for want of an answer; one that comes later still counts.
	Hedge clock.Instant
	// Attempt is 1 for the first attempt and counts up until one succeeds: go to another node then.
	Attempt int
	// Verify is the lease of a [KeeperVerify], 0 for an ordinary renewal.
	Verify KeeperID

	leases []*keeperLease
	era    uint64
}

// Len returns how many leases the message names, at most [MaxRenewals].
func (r Renewal) Len() int { return len(r.leases) }

// Ref returns the i-th grant to renew.
func (r Renewal) Ref(i int) Ref { return r.leases[i].ref }

// ID returns the name of the i-th lease.
func (r Renewal) ID(i int) KeeperID { return r.leases[i].id }
