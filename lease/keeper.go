//writ:core

package lease

import (
	"container/heap"
	"fmt"
	"time"

	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

// Keeper is the holder's side of the lease protocol, for all leases of one process: how long each may be believed, when
// to renew, and when it is lost. It is a pure core: a shell steps it, sends the renewals it asks for, and feeds back what
// came of them.
//
// Invariant: belief in a lease never outlives the window that the newest answered renewal confers, counted by this
// process's clock from before that renewal was sent (see [clock.Drift.BelieveUntil]).
//
// Invariant: a lease that was reported lost, released or forgotten is never renewed or believed again.
type Keeper struct {
	cfg KeeperConfig
	now clock.Instant

	leases keeperHeap // every lease, the one that is lost first on top
	byID   map[KeeperID]*keeperLease

	// All leases are renewed on common ticks, a third of the shortest TTL apart, so that one message carries them all.
	// Only retries are sent off the ticks.
	nextTick clock.Instant // 0 without leases
	shortest time.Duration // the shortest TTL, unless stale
	stale    bool          // a lease with the shortest TTL has gone
	urgent   int           // leases whose renewal does not wait for the tick
	retryAt  clock.Instant // not after the earliest due of an urgent lease

	replies   uint64        // answered so far
	era       uint64        // grows with every suspicion
	suspectAt clock.Instant // the last suspicion, 0 if none

	out KeeperEffects // its slices are used again in each step
}

// KeeperConfig holds what the Keeper must know of its process.
type KeeperConfig struct {
	// Drift is what to assume of this machine's clock and the coordinator's.
	Drift clock.Drift
	// RenewPermille is the part of its TTL after which a lease is due for renewal, in thousandths: 100 to 500, and 0
	// means 333. Half the TTL still leaves three attempts before the deadline.
	RenewPermille int
	// SpreadPermille makes renewals come earlier by this part, in thousandths: 0 to 200. Choose it at random once per
	// process, so that a fleet that was started together does not renew in step.
	SpreadPermille int
}

// Validate reports a value that is out of its range.
func (c KeeperConfig) Validate() error {
	if err := c.Drift.Validate(); err != nil {
		return err
	}
	if c.RenewPermille != 0 && (c.RenewPermille < 100 || c.RenewPermille > 500) {
		return fmt.Errorf("lease: renewals at %d thousandths of the TTL: use 100 to 500, normally %d", c.RenewPermille, keeperRenewPermille)
	}
	if c.SpreadPermille < 0 || c.SpreadPermille > 200 {
		return fmt.Errorf("lease: renewals spread over %d thousandths: use 0 to 200", c.SpreadPermille)
	}
	return nil
}

const (
	keeperRenewPermille = 333
	// An attempt that was not answered within this part of the TTL is hedged by another one: with renewals at a third,
	// attempts start at 2/6, 3/6, 4/6 and 5/6 of the TTL.
	keeperHedgePart = 6
	// A failed attempt is repeated after a 32nd of the TTL, then a 16th, then every 8th.
	keeperFirstRetryPart = 32
	keeperLastRetryPart  = 8
	// Retries that fall due within this part of the TTL go together.
	keeperSlackPart = 64
	// A lease on probation is lost if no renewal succeeds within this part of the TTL.
	keeperProbationPart = 3
	// keeperCallLimit bounds a renewal of leases with long TTLs.
	keeperCallLimit = 10 * time.Second
	// keeperMessageBytes keeps a renewal of long names well below the 4 MiB that gRPC takes by default.
	keeperMessageBytes = 2 << 20
	keeperRefOverhead  = 24
)

// KeeperID names a lease within one Keeper. The shell chooses it, and never twice.
type KeeperID uint64

// keeperLease is one lease. Its id, ref and ttl never change, so a shell may read them through a [Renewal] at any time.
type keeperLease struct {
	id  KeeperID
	ref Ref
	ttl time.Duration
	// lead is how long before the end of belief it is lost, so that work under it has time to stop.
	lead time.Duration

	index     int           // in the heap; -1 once gone
	deadline  clock.Instant // where belief ends, by the newest answered renewal
	until     clock.Instant // where it is lost: the deadline, or sooner on probation
	due       clock.Instant // next attempt to renew
	sentAt    clock.Instant // the newest attempt since the last success, 0 if none
	attempts  int           // since the last success
	urgent    bool          // due is to be kept to the instant: it awaits an answer, failed, or is on probation
	probation bool          // not believed until a renewal of this era succeeds
	contended bool
	failed    uint64 // the reply that last refused it
}

// NewKeeper makes a Keeper without leases. It returns what [KeeperConfig.Validate] finds.
func NewKeeper(cfg KeeperConfig) (*Keeper, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.RenewPermille == 0 {
		cfg.RenewPermille = keeperRenewPermille
	}
	return &Keeper{cfg: cfg, byID: make(map[KeeperID]*keeperLease)}, nil
}

// Len returns how many leases are kept.
func (k *Keeper) Len() int { return len(k.leases) }

// Step takes an event at an instant and returns what the shell has to do. What the effects hold is valid until the next
// Step. An instant before the last one counts as the last one. Losses that are due come before the event: an answer that
// arrives after the deadline does not bring a lease back.
func (k *Keeper) Step(now clock.Instant, event KeeperEvent) KeeperEffects {
	k.now = max(k.now, now)
	k.out = KeeperEffects{
		Renewals: k.out.Renewals[:0], Lost: k.out.Lost[:0], Contended: k.out.Contended[:0], Beliefs: k.out.Beliefs[:0],
	}
	k.loseDue()
	switch event := event.(type) {
	case KeeperTick:
	case KeeperGranted:
		k.granted(event)
	case KeeperRenewed:
		k.renewed(event)
	case KeeperEnded:
		if l := k.byID[event.ID]; l != nil {
			k.lose(l, LostEnded, event.Reason)
		}
	case KeeperReleased:
		if l := k.byID[event.ID]; l != nil {
			k.remove(l)
		}
	case KeeperVerify:
		if l := k.byID[event.ID]; l != nil {
			k.attempt(l)
			k.addRenewal([]*keeperLease{l}, l.id)
		}
	case KeeperSuspected:
		k.suspected()
	case KeeperForgotten:
		k.forget()
	default:
		panic(fmt.Sprintf("lease: keeper: unknown event %T", event))
	}
	k.loseDue()
	k.sendDue()
	k.out.Wake = k.wake()
	return k.out
}

// granted takes a lease in.
func (k *Keeper) granted(g KeeperGranted) {
	if k.byID[g.ID] != nil {
		panic(fmt.Sprintf("lease: keeper: id %d was granted twice", g.ID))
	}
	sent := min(g.SentAt, k.now)
	l := &keeperLease{id: g.ID, ref: g.Ref, ttl: g.TTL, lead: g.Lead, due: sent.Add(k.every(g.TTL))}
	l.deadline = k.believeUntil(sent, l)
	l.until = l.deadline
	if len(k.leases) == 0 || g.TTL < k.shortest {
		k.shortest, k.stale = g.TTL, false
	}
	if k.nextTick == 0 || l.due.Before(k.nextTick) {
		k.nextTick = l.due
	}
	k.byID[l.id] = l
	heap.Push(&k.leases, l)
	if k.suspectAt != 0 && !sent.After(k.suspectAt) {
		k.putOnProbation(l)
		heap.Fix(&k.leases, l.index)
		return
	}
	k.believe(l)
}

// renewed takes the answer to a renewal, or its failure, in.
func (k *Keeper) renewed(r KeeperRenewed) {
	if r.Failed {
		for _, l := range r.Renewal.leases {
			k.attemptFailed(l, r.Renewal)
		}
		return
	}
	k.replies++
	for _, f := range r.Outcome.Failures {
		l := r.Renewal.leases[f.Index]
		l.failed = k.replies
		if l.gone() {
			continue
		}
		switch f.Err.Reason {
		case ReasonExpired, ReasonNotHolder, ReasonReleased:
			k.lose(l, LostEnded, f.Err.Reason)
		default:
			k.attemptFailed(l, r.Renewal)
		}
	}
	// Sifting each of many leases costs more than ordering the heap anew.
	bulk := len(r.Renewal.leases) > len(k.leases)/4
	for _, l := range r.Renewal.leases {
		if !l.gone() && l.failed != k.replies && k.extend(l, r.Renewal) && !bulk {
			heap.Fix(&k.leases, l.index)
		}
	}
	if bulk {
		heap.Init(&k.leases)
	}
	for _, i := range r.Outcome.Contended {
		if l := r.Renewal.leases[i]; !l.gone() && !l.contended {
			l.contended = true
			k.out.Contended = append(k.out.Contended, l.id)
		}
	}
}

// extend moves a deadline to what a renewal confers, never back. It tells whether the lease's place in the heap may have
// changed.
func (k *Keeper) extend(l *keeperLease, r Renewal) bool {
	if r.era != k.era && l.probation {
		return false // sent before the suspicion: its instant proves nothing
	}
	deadline := k.believeUntil(r.SentAt, l)
	if !deadline.After(l.deadline) && !l.probation {
		return false
	}
	// On probation the old deadline proves nothing; elsewhere the new one is later.
	l.deadline, l.until = deadline, deadline
	l.probation = false
	l.due = r.SentAt.Add(k.every(l.ttl))
	l.attempts, l.sentAt = 0, 0
	k.setUrgent(l, false)
	k.believe(l)
	return true
}

// believeUntil is where belief ends in what was asked for at sent, less the lead.
func (k *Keeper) believeUntil(sent clock.Instant, l *keeperLease) clock.Instant {
	if mutant.On(mutant.ValidityFromReply) {
		sent = k.now
	}
	if mutant.On(mutant.NoDriftMargin) {
		return sent.Add(l.ttl)
	}
	return k.cfg.Drift.BelieveUntil(sent, l.ttl).Add(-l.lead)
}

// attemptFailed schedules the next attempt, unless a newer one is under way.
func (k *Keeper) attemptFailed(l *keeperLease, r Renewal) {
	if l.gone() || l.sentAt != r.SentAt {
		return
	}
	retry := min(l.ttl/keeperFirstRetryPart<<min(l.attempts-1, 4), l.ttl/keeperLastRetryPart)
	retry += retry / 1000 * time.Duration(k.cfg.SpreadPermille)
	l.due = min(l.due, k.now.Add(retry))
	k.retryAt = min(k.retryAt, l.due)
}

// suspected puts every lease on probation.
func (k *Keeper) suspected() {
	k.era++
	k.suspectAt = k.now
	for _, l := range k.leases {
		k.putOnProbation(l)
	}
	heap.Init(&k.leases)
}

// putOnProbation ends belief for the time being. The caller restores the heap.
func (k *Keeper) putOnProbation(l *keeperLease) {
	l.probation = true
	l.until = min(l.until, k.now.Add(l.ttl/keeperProbationPart))
	l.attempts, l.sentAt, l.due = 0, 0, k.now
	k.setUrgent(l, true)
	k.retryAt = k.now
	k.out.Beliefs = append(k.out.Beliefs, KeeperBelief{ID: l.id})
}

// believe publishes how long a lease may be believed.
func (k *Keeper) believe(l *keeperLease) {
	k.out.Beliefs = append(k.out.Beliefs, KeeperBelief{ID: l.id, Until: l.until})
}
