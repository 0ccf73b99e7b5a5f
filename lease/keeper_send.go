//writ:core

package lease

import (
	"container/heap"
	"time"

	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

// loseDue reports every lease whose time has run out.
func (k *Keeper) loseDue() {
	for len(k.leases) > 0 && !k.now.Before(k.leases[0].until) {
		l := k.leases[0]
		cause := LostDeadline
		if l.probation && l.until.Before(l.deadline) {
			cause = LostSuspicion
		}
		k.lose(l, cause, ReasonExpired)
	}
}

func (k *Keeper) lose(l *keeperLease, cause LostCause, reason Reason) {
	k.remove(l)
	if mutant.On(mutant.WorkContinues) {
		k.out.Beliefs = append(k.out.Beliefs, KeeperBelief{ID: l.id, Until: keeperNever})
		return
	}
	k.out.Lost = append(k.out.Lost, KeeperLoss{ID: l.id, Cause: cause, Reason: reason})
}

func (k *Keeper) remove(l *keeperLease) {
	heap.Remove(&k.leases, l.index)
	delete(k.byID, l.id)
	k.setUrgent(l, false)
	k.stale = k.stale || l.ttl == k.shortest
	if len(k.leases) == 0 {
		k.nextTick = 0
	}
}

func (k *Keeper) forget() {
	for _, l := range k.leases {
		l.index = -1
	}
	clear(k.byID)
	k.leases, k.nextTick, k.urgent = nil, 0, 0
}

func (k *Keeper) setUrgent(l *keeperLease, urgent bool) {
	if l.urgent == urgent {
		return
	}
	l.urgent = urgent
	if urgent {
		k.urgent++
	} else {
		k.urgent--
	}
}

// every returns how long after it was sent a renewal is due again.
func (k *Keeper) every(ttl time.Duration) time.Duration {
	every := ttl / 1000 * time.Duration(k.cfg.RenewPermille)
	return every / 1000 * time.Duration(1000-k.cfg.SpreadPermille)
}

// sendDue asks for the renewals that have fallen due.
func (k *Keeper) sendDue() {
	tick := k.nextTick != 0 && !k.now.Before(k.nextTick)
	if !tick && (k.urgent == 0 || k.now.Before(k.retryAt)) {
		return
	}
	if tick {
		k.refreshShortest()
		k.nextTick = k.now.Add(k.every(k.shortest))
	}
	var message []*keeperLease
	bytes := 0
	k.retryAt = keeperNever
	for i, l := range k.leases {
		if k.isDue(l, tick) {
			if message == nil {
				message = make([]*keeperLease, 0, min(len(k.leases)-i, MaxRenewals))
			}
			k.attempt(l)
			message = append(message, l)
			bytes += len(l.ref.Resource) + keeperRefOverhead
			if len(message) == MaxRenewals || bytes >= keeperMessageBytes {
				k.addRenewal(message, 0)
				message, bytes = nil, 0
			}
		}
		if l.urgent {
			k.retryAt = min(k.retryAt, l.due)
		}
	}
	if len(message) > 0 {
		k.addRenewal(message, 0)
	}
}

const keeperNever clock.Instant = 1<<63 - 1

// isDue tells whether to renew a lease now. On a tick that is whatever would be late on the next tick.
func (k *Keeper) isDue(l *keeperLease, tick bool) bool {
	if l.urgent {
		return !k.now.Add(l.ttl / keeperSlackPart).Before(l.due)
	}
	return tick && l.due.Before(k.nextTick)
}

// attempt notes that a renewal of the lease is sent now.
func (k *Keeper) attempt(l *keeperLease) {
	l.attempts++
	l.sentAt = k.now
	l.due = k.now.Add(l.ttl / keeperHedgePart)
	k.setUrgent(l, true)
	k.retryAt = min(k.retryAt, l.due)
}

// addRenewal asks for one renewal message.
func (k *Keeper) addRenewal(leases []*keeperLease, verify KeeperID) {
	r := Renewal{SentAt: k.now, Verify: verify, leases: leases, era: k.era}
	hedge := keeperNever
	for _, l := range leases {
		r.Attempt = max(r.Attempt, l.attempts)
		r.Deadline = max(r.Deadline, l.until)
		hedge = min(hedge, l.due)
	}
	r.Deadline = min(r.Deadline, k.now.Add(keeperCallLimit))
	r.Hedge = min(r.Deadline, hedge)
	k.out.Renewals = append(k.out.Renewals, r)
}

// refreshShortest finds the shortest TTL again after the lease that had it has gone.
func (k *Keeper) refreshShortest() {
	if !k.stale {
		return
	}
	k.stale = false
	k.shortest = k.leases[0].ttl
	for _, l := range k.leases {
		k.shortest = min(k.shortest, l.ttl)
	}
}

// wake returns when the next step is due whatever happens, 0 for never.
func (k *Keeper) wake() clock.Instant {
	if len(k.leases) == 0 {
		return 0
	}
	wake := min(k.nextTick, k.leases[0].until)
	if k.urgent > 0 {
		wake = min(wake, k.retryAt)
	}
	return wake
}

func (l *keeperLease) gone() bool { return l.index < 0 }

// keeperHeap orders leases by the instant at which they are lost.
type keeperHeap []*keeperLease

func (h keeperHeap) Len() int           { return len(h) }
func (h keeperHeap) Less(i, j int) bool { return h[i].until < h[j].until }
func (h keeperHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *keeperHeap) Push(x any) {
	l := x.(*keeperLease)
	l.index = len(*h)
	*h = append(*h, l)
}

func (h *keeperHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	l.index = -1
	return l
}
