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

// apply is the model's step: what must be answered, with every reply as tellReply writes it.
func (l *ledger) apply(m lease.Moment, ev lease.TableEvent) map[lease.CallID]string {
	l.now, l.wall = m.Now, m.Wall
	l.replies = map[lease.CallID]string{}
	switch ev := ev.(type) {
	case lease.Tick:
		l.tick()
	case lease.Gone:
		for _, x := range l.leases {
			for _, w := range x.queue {
				if w.call == ev.ID {
					w.call, w.keepUntil = 0, l.now.Add(w.third())
				}
			}
		}
	case lease.Request:
		switch c := ev.Command.(type) {
		case lease.Acquire:
			l.acquire(ev, c)
		case lease.CancelAcquire:
			l.cancel(ev, c)
		case lease.Renew:
			l.renew(ev, c)
		case lease.Release:
			l.release(ev, c)
		case lease.Checkpoint:
			l.keep(ev, c)
		case lease.ForceRelease:
			l.force(ev, c)
		case lease.Inspect:
			l.inspect(ev, c)
		}
	}
	l.next = max(l.next, l.last+1)
	return l.replies
}

// settle ends a lease that had run out when the request was taken in, and serves those who waited before it.
func (l *ledger) settle(x *modelLease, intake clock.Instant) {
	if x.rec.Held && x.deadline <= intake {
		l.expire(x)
	}
}

func (l *ledger) acquire(r lease.Request, c lease.Acquire) {
	c.TTL = c.TTL.Truncate(time.Millisecond)
	if c.TTL < lease.MinTTL || c.TTL > lease.DefaultMaxTTL || c.RequestID == "" || len(c.Metadata) > lease.MaxMetadataBytes {
		l.answer(r.ID, "INVALID")
		return
	}
	x := l.at(c.Resource)
	l.settle(x, r.Intake)
	l.handOver(x)
	w := x.waiterOf(c.Principal, c.RequestID)
	switch o := x.outcomeOf(c.Principal, c.RequestID); {
	case x.rec.Held && x.rec.RequestID == c.RequestID && x.rec.Holder.Principal == c.Principal:
		l.replay(x, r, c)
	case o != nil:
		l.answer(r.ID, "%s %v", ended(o.End), o.Token)
	case w != nil && w.ask.Instance != c.Instance:
		l.answer(r.ID, "HELD %v", x.rec.Token)
	case w != nil:
		l.poll(x, w, r, c)
	case !x.rec.Held && x.notBefore <= l.now && l.full(c.Resource):
		l.answer(r.ID, "LIMIT")
	case !x.rec.Held && x.notBefore <= l.now:
		l.grant(x, &modelWaiter{ask: c, call: r.ID, intake: r.Intake})
	case c.Wait <= 0:
		l.answer(r.ID, "HELD %v", x.rec.Token)
	case len(x.queue) >= l.queueMost:
		l.answer(r.ID, "LIMIT")
	default:
		l.arrivals++
		w := &modelWaiter{ask: c, arrival: l.arrivals}
		x.enqueue(w)
		x.owed = x.owed || !x.rec.Held
		w.listen(r, c)
	}
}

func (l *ledger) replay(x *modelLease, r lease.Request, c lease.Acquire) {
	switch {
	case x.rec.Holder.Instance != c.Instance:
		l.answer(r.ID, "HELD %v", x.rec.Token)
	case x.rec.Ending:
		l.answer(r.ID, "EXPIRED %v", x.rec.Token)
	default:
		x.deadline = max(x.deadline, r.Intake.Add(x.rec.TTL))
		l.answer(r.ID, "%s", l.granted(x, true))
	}
}

func (w *modelWaiter) listen(r lease.Request, c lease.Acquire) {
	w.ask.TTL = c.TTL
	w.call, w.intake = r.ID, r.Intake
	w.pollUntil = r.Intake.Add(min(c.Wait, w.third()))
}

func (l *ledger) poll(x *modelLease, w *modelWaiter, r lease.Request, c lease.Acquire) {
	if w.call != 0 {
		l.pause(x, w)
	}
	w.listen(r, c)
	l.handOver(x)
	if c.Wait <= 0 && w.call == r.ID && slices.Contains(x.queue, w) {
		l.pause(x, w)
	}
}

func (l *ledger) cancel(r lease.Request, c lease.CancelAcquire) {
	x := l.at(c.Resource)
	l.settle(x, r.Intake)
	if x.rec.Held && x.rec.RequestID == c.RequestID && x.rec.Holder.Principal == c.Principal {
		if x.rec.Holder.Instance != c.Instance {
			l.answer(r.ID, "NOT_HOLDER")
			return
		}
		token := x.rec.Token
		l.finish(x, lease.EndReleased)
		l.answer(r.ID, "cancelled %v", token)
		return
	}
	if x.outcomeOf(c.Principal, c.RequestID) == nil {
		if w := x.waiterOf(c.Principal, c.RequestID); w != nil {
			if w.ask.Instance != c.Instance {
				l.answer(r.ID, "NOT_HOLDER")
				return
			}
			if w.call != 0 {
				l.answer(w.call, "RELEASED")
			}
			x.drop(w)
		}
		l.note(x, c.Principal, c.RequestID, 0, lease.EndCancelled)
		if !x.rec.Held {
			x.freedAt, x.owed = l.now, true
		}
	}
	l.answer(r.ID, "cancelled 0.0")
}

// mine says what is wrong with (resource, token) for that caller; empty: it names the caller's living grant.
func (l *ledger) mine(intake clock.Instant, who lease.Caller, ref lease.Ref) string {
	x := l.leases[ref.Resource]
	if x != nil && x.rec.Held && x.rec.Token == ref.Token {
		switch {
		case x.rec.Holder.Principal != who.Principal || x.rec.Holder.Instance != who.Instance:
			return "NOT_HOLDER"
		case x.deadline <= intake:
			return "EXPIRED " + ref.Token.String()
		}
		return ""
	}
	if !ref.Token.Valid() || ref.Token >= l.next {
		return "INVALID"
	}
	if x != nil {
		for _, o := range x.rec.Outcomes {
			if o.Token == ref.Token && o.Principal == who.Principal {
				return fmt.Sprintf("%s %v", ended(o.End), o.Token)
			}
		}
	}
	return "NOT_HOLDER"
}

func (l *ledger) renewable(intake clock.Instant, who lease.Caller, ref lease.Ref) string {
	problem := l.mine(intake, who, ref)
	if problem == "" && l.leases[ref.Resource].rec.Ending {
		return "EXPIRED " + ref.Token.String()
	}
	return problem
}

func (l *ledger) renew(r lease.Request, c lease.Renew) {
	var failed, contended []string
	for i, ref := range c.Refs {
		if problem := l.renewable(r.Intake, c.Caller, ref); problem != "" {
			failed = append(failed, fmt.Sprintf("%d: %s", i, problem))
			continue
		}
		x := l.leases[ref.Resource]
		x.deadline = max(x.deadline, r.Intake.Add(x.rec.TTL))
		if len(x.queue) > 0 && x.queue[0].ask.Priority > x.rec.Priority {
			contended = append(contended, fmt.Sprint(i))
		}
	}
	l.answer(r.ID, "renewed but %v, contended %v", failed, contended)
}

func (l *ledger) release(r lease.Request, c lease.Release) {
	problem := l.mine(r.Intake, c.Caller, c.Ref)
	switch {
	case problem == "":
		l.finish(l.leases[c.Resource], lease.EndReleased)
		l.answer(r.ID, "done")
	case strings.HasPrefix(problem, "RELEASED") && c.Token != 0:
		l.answer(r.ID, "done") // again
	default:
		l.answer(r.ID, "%s", problem)
	}
}

func (l *ledger) keep(r lease.Request, c lease.Checkpoint) {
	if len(c.Data) > lease.MaxCheckpointBytes {
		l.answer(r.ID, "INVALID")
		return
	}
	if problem := l.renewable(r.Intake, c.Caller, c.Ref); problem != "" {
		l.answer(r.ID, "%s", problem)
		return
	}
	x := l.leases[c.Resource]
	if c.Sequence == 0 || c.Sequence > x.rec.CheckpointSequence {
		x.checkpoint, x.rec.HasCheckpoint = slices.Clone(c.Data), len(c.Data) > 0
		x.rec.CheckpointSequence = max(x.rec.CheckpointSequence, c.Sequence)
	}
	l.answer(r.ID, "done")
}

func (l *ledger) force(r lease.Request, c lease.ForceRelease) {
	x := l.at(c.Resource)
	l.settle(x, r.Intake)
	switch {
	case !x.rec.Held:
		l.answer(r.ID, "NOT_FOUND")
	case c.Token != 0 && c.Token != x.rec.Token:
		l.answer(r.ID, "STALE_TOKEN %v", x.rec.Token)
	case c.Now:
		l.answer(r.ID, "NOT_GUARDED")
	default:
		x.rec.Ending = true
		l.answer(r.ID, "%s", l.info(x, false))
	}
}

func (l *ledger) inspect(r lease.Request, c lease.Inspect) {
	x := l.leases[c.Resource]
	switch {
	case c.Token != 0:
		if problem := l.mine(r.Intake, c.Caller, c.Ref); problem != "" {
			l.answer(r.ID, "%s", problem)
			return
		}
		l.answer(r.ID, "%s", l.info(x, c.WithCheckpoint))
	case x == nil || !x.known:
		l.answer(r.ID, "NOT_FOUND")
	default:
		l.answer(r.ID, "%s", l.info(x, c.WithCheckpoint))
	}
}

func (l *ledger) info(x *modelLease, withCheckpoint bool) string {
	i := x.rec.Info()
	if withCheckpoint {
		i.Checkpoint = x.checkpoint
	}
	i.Waiters = len(x.queue)
	if x.rec.Held {
		i.Remaining = max(0, x.deadline.Sub(l.now))
	}
	return tellInfo(i)
}

func ended(how lease.End) string {
	if how == lease.EndReleased || how == lease.EndCancelled {
		return "RELEASED"
	}
	return "EXPIRED"
}

// tellReply writes an answer of the table as the model writes it.
func tellReply(r lease.Reply) string {
	if e := r.Err; e != nil {
		switch e.Reason {
		case lease.ReasonHeld, lease.ReasonExpired, lease.ReasonStaleToken:
			return fmt.Sprintf("%s %v", e.Reason, e.Token)
		case lease.ReasonReleased:
			if e.Resource == "" {
				return "RELEASED" // a wait that was cancelled
			}
			return fmt.Sprintf("%s %v", e.Reason, e.Token)
		default:
			return string(e.Reason)
		}
	}
	switch v := r.Value.(type) {
	case *lease.Grant:
		return tellGrant(v)
	case *lease.Waiting:
		return fmt.Sprintf("waits at %d behind %v, kept %v", v.Position, v.HeldToken, v.Keep)
	case fence.Token:
		return fmt.Sprintf("cancelled %v", v)
	case lease.RenewOutcome:
		var failed []string
		for _, f := range v.Failures {
			failed = append(failed, fmt.Sprintf("%d: %s", f.Index, tellReply(lease.Reply{Err: f.Err})))
		}
		return fmt.Sprintf("renewed but %v, contended %v", failed, v.Contended)
	case lease.Info:
		return tellInfo(v)
	case nil:
		return "done"
	}
	return fmt.Sprintf("unknown reply %T", r.Value)
}

func tellGrant(g *lease.Grant) string {
	return fmt.Sprintf("grant %s %v to %v for %v at %d, request %s, checkpoint %q, again %v",
		g.Resource, g.Token, g.Holder, g.TTL, g.GrantedAt.UnixMilli(), g.RequestID, g.Checkpoint, g.Replayed)
}

func tellInfo(i lease.Info) string {
	return fmt.Sprintf("%s is %v under %v by %v, ttl %v, end %v, left %v, waiters %d, request %s, checkpoint %q",
		i.Resource, i.State, i.Token, i.Holder, i.TTL, i.End, i.Remaining, i.Waiters, i.RequestID, i.Checkpoint)
}
