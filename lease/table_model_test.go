package lease_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// ledger is a plain model of the lease table: a map and loops over all of it. It says which answers and which durable
// records an event must lead to. Only tokens are taken from the table, which may skip some, and held to their rules.
type ledger struct {
	rules     func(lease.Resource) (lockDelay time.Duration, maxLeases int, prefix string)
	retention time.Duration
	queueMost int

	now      clock.Instant
	wall     time.Time
	epoch    fence.Epoch
	next     fence.Token // nothing from here on has been granted
	last     fence.Token // of this event; granted before it: below next
	leases   map[lease.Resource]*modelLease
	arrivals int

	minted  func(lease.Resource) fence.Token // what the table granted in this event
	paused  func(lease.CallID) bool          // whether the table answered that call with a place in the queue
	replies map[lease.CallID]string
}

type modelLease struct {
	known      bool // there is a durable record
	rec        lease.Record
	checkpoint []byte
	deadline   clock.Instant // while held
	freedAt    clock.Instant // while free
	notBefore  clock.Instant // while free
	owed       bool          // free, and whoever waits is to be looked at from notBefore on
	queue      []*modelWaiter
}

type modelWaiter struct {
	ask       lease.Acquire
	call      lease.CallID // 0 between polls
	intake    clock.Instant
	pollUntil clock.Instant
	keepUntil clock.Instant
	arrival   int
}

func (w *modelWaiter) third() time.Duration { return w.ask.TTL / 3 }

// recent says whether a grant may still count from this waiter's send.
func (w *modelWaiter) recent(now clock.Instant) bool {
	return now < w.intake.Add(w.ask.TTL-w.third())
}

func (l *ledger) at(name lease.Resource) *modelLease {
	if l.leases[name] == nil {
		l.leases[name] = &modelLease{rec: lease.Record{Resource: name}, freedAt: l.now}
	}
	return l.leases[name]
}

func (l *ledger) answer(id lease.CallID, format string, args ...any) {
	if l.replies[id] != "" {
		panic(fmt.Sprintf("the model answers call %d twice", id))
	}
	l.replies[id] = fmt.Sprintf(format, args...)
}

func (l *ledger) full(name lease.Resource) bool {
	_, most, prefix := l.rules(name)
	count := 0
	for other, x := range l.leases {
		if x.rec.Held && strings.HasPrefix(string(other), prefix) {
			count++
		}
	}
	return most > 0 && count >= most
}

// grant gives x to a request, counted from its intake.
func (l *ledger) grant(x *modelLease, w *modelWaiter) {
	token := l.minted(x.rec.Resource)
	if token < l.next || token.Epoch() != l.epoch {
		panic(fmt.Sprintf("%s was granted %v, expected at least %v", x.rec.Resource, token, l.next))
	}
	l.last = max(l.last, token)
	x.known = true
	x.rec = lease.Record{
		Resource: x.rec.Resource, Token: token, Held: true,
		Holder:    lease.Holder{Principal: w.ask.Principal, Instance: w.ask.Instance, Region: w.ask.Region},
		RequestID: w.ask.RequestID, Priority: w.ask.Priority, TTL: w.ask.TTL, GrantedAt: l.wall, Metadata: w.ask.Metadata,
		Outcomes: x.rec.Outcomes, HasCheckpoint: len(x.checkpoint) > 0,
	}
	x.deadline = w.intake.Add(w.ask.TTL)
	if w.call != 0 {
		l.answer(w.call, "%s", l.granted(x, false))
	}
}

func (l *ledger) granted(x *modelLease, again bool) string {
	return tellGrant(&lease.Grant{
		Resource: x.rec.Resource, Token: x.rec.Token, Holder: x.rec.Holder, TTL: x.rec.TTL, GrantedAt: x.rec.GrantedAt,
		RequestID: x.rec.RequestID, Checkpoint: x.checkpoint, Replayed: again,
	})
}

// finish ends the present grant; whoever waits is next, after the lock delay unless the holder let go itself.
func (l *ledger) finish(x *modelLease, how lease.End) {
	l.note(x, x.rec.Holder.Principal, x.rec.RequestID, x.rec.Token, how)
	x.rec.Held, x.rec.Ending, x.rec.End = false, false, how
	x.freedAt, x.notBefore = l.now, l.now
	if delay, _, _ := l.rules(x.rec.Resource); how == lease.EndExpired || how == lease.EndForced {
		x.notBefore = l.now.Add(delay)
	}
	l.handOver(x)
	x.owed = !x.rec.Held && len(x.queue) > 0
}

func (l *ledger) expire(x *modelLease) {
	if x.rec.Ending {
		l.finish(x, lease.EndForced)
	} else {
		l.finish(x, lease.EndExpired)
	}
}

func (l *ledger) note(x *modelLease, p lease.Principal, id string, token fence.Token, how lease.End) {
	x.known = true
	x.rec.Outcomes = append(slices.Clone(x.rec.Outcomes), lease.Outcome{Principal: p, Request: lease.DigestRequest(id), Token: token, End: how})
	if n := len(x.rec.Outcomes); n > lease.MaxOutcomes {
		x.rec.Outcomes = x.rec.Outcomes[n-lease.MaxOutcomes:]
	}
}

// handOver gives a free resource to the first in line who asked lately.
func (l *ledger) handOver(x *modelLease) {
	for _, w := range slices.Clone(x.queue) {
		switch {
		case x.rec.Held || l.now < x.notBefore || l.full(x.rec.Resource):
			return
		case w.call == 0 && w.keepUntil <= l.now:
			x.drop(w)
		case w.recent(l.now):
			x.drop(w)
			l.grant(x, w)
		case w.call != 0:
			l.pause(x, w)
		}
	}
}

func (x *modelLease) drop(w *modelWaiter) {
	x.queue = slices.DeleteFunc(x.queue, func(v *modelWaiter) bool { return v == w })
}

// pause ends a poll; the place is kept for a third of the TTL.
func (l *ledger) pause(x *modelLease, w *modelWaiter) {
	l.answer(w.call, "waits at %d behind %v, kept %v", slices.Index(x.queue, w)+1, x.rec.Token, w.third())
	w.call, w.keepUntil = 0, l.now.Add(w.third())
}

func (x *modelLease) waiterOf(p lease.Principal, id string) *modelWaiter {
	for _, w := range x.queue {
		if w.ask.Principal == p && w.ask.RequestID == id {
			return w
		}
	}
	return nil
}

func (x *modelLease) outcomeOf(p lease.Principal, id string) *lease.Outcome {
	for i := range x.rec.Outcomes {
		if o := &x.rec.Outcomes[i]; o.Principal == p && o.Request == lease.DigestRequest(id) {
			return o
		}
	}
	return nil
}

func (x *modelLease) enqueue(w *modelWaiter) {
	at := 0
	for at < len(x.queue) && x.queue[at].ask.Priority >= w.ask.Priority {
		at++
	}
	x.queue = slices.Insert(x.queue, at, w)
}

// tick lets everything that is due happen. Where a poll ends at the instant at which its turn comes, either is right.
func (l *ledger) tick() {
	for _, name := range l.names() {
		x := l.leases[name]
		for _, w := range x.queue {
			if w.call != 0 && w.pollUntil <= l.now && l.paused(w.call) {
				l.pause(x, w)
			}
		}
		if x.rec.Held && x.deadline <= l.now {
			l.expire(x)
		}
		if !x.rec.Held && x.owed && x.notBefore <= l.now {
			x.owed = false
			l.handOver(x)
		}
		for _, w := range slices.Clone(x.queue) {
			if w.call != 0 && w.pollUntil <= l.now {
				l.pause(x, w)
			}
			if w.call == 0 && w.keepUntil <= l.now {
				x.drop(w)
			}
		}
		if x.forgettable() && x.forgetAt(l.retention) <= l.now {
			delete(l.leases, name)
		}
	}
}

func (x *modelLease) forgettable() bool {
	return x.known && !x.rec.Held && len(x.queue) == 0 && len(x.checkpoint) == 0
}

func (x *modelLease) forgetAt(retention time.Duration) clock.Instant {
	return max(x.freedAt.Add(retention), x.notBefore)
}

// due is the first instant at which a tick must have happened.
func (l *ledger) due() clock.Instant {
	first := clock.Never
	for _, x := range l.leases {
		switch {
		case x.rec.Held:
			first = min(first, x.deadline)
		case x.owed && len(x.queue) > 0:
			first = min(first, x.notBefore)
		case x.forgettable():
			first = min(first, x.forgetAt(l.retention))
		}
		for _, w := range x.queue {
			if w.call != 0 {
				first = min(first, w.pollUntil)
			}
		}
	}
	return first
}

func (l *ledger) names() []lease.Resource {
	var names []lease.Resource
	for name := range l.leases {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// takeover is what a new coordinator makes of the records: nobody waits, and every lease has its full TTL again.
func (l *ledger) takeover(epoch fence.Epoch, next fence.Token) {
	l.next = next
	for _, x := range l.leases {
		x.queue, x.owed = nil, false
		if x.rec.Held && epoch != l.epoch {
			l.note(x, x.rec.Holder.Principal, x.rec.RequestID, x.rec.Token, lease.EndExpired)
			x.rec.Held, x.rec.Ending, x.rec.End = false, false, lease.EndExpired
		}
		x.deadline, x.freedAt, x.notBefore = l.now.Add(x.rec.TTL), l.now, l.now
		if delay, _, _ := l.rules(x.rec.Resource); x.rec.End == lease.EndExpired || x.rec.End == lease.EndForced {
			x.notBefore = l.now.Add(delay)
		}
	}
	l.epoch = epoch
}
