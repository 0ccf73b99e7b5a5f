package leasetest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Quorum is the state that nodes answer from. It is safe for concurrent use.
type Quorum struct {
	clock clock.Clock

	mu        sync.Mutex
	resources map[string]*resource // guarded by mu
	sequence  uint64               // guarded by mu; of the last token
	changed   chan struct{}        // guarded by mu; closed and replaced at each change
	journal   *Journal
}

type resource struct {
	info       lease.Info
	deadline   clock.Instant
	checkpoint []byte
	ended      map[string]lease.End // by request id
	queue      []ticket
}

// ticket is a place in the queue, kept for a while between polls.
type ticket struct {
	requestID string
	keepUntil clock.Instant
}

// NewQuorum makes a quorum that knows no resource. A nil clock stands for [clock.System].
func NewQuorum(c clock.Clock) *Quorum {
	if c == nil {
		c = clock.System()
	}
	return &Quorum{clock: c, resources: make(map[string]*resource), changed: make(chan struct{}), journal: NewJournal()}
}

// Info returns what is known of a resource.
func (q *Quorum) Info(name string) lease.Info {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.resource(name)
	q.expire(r)
	return r.info
}

// Held returns how many resources are held.
func (q *Quorum) Held() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, r := range q.resources {
		if q.expire(r); r.info.State != lease.Free {
			n++
		}
	}
	return n
}

// End ends the present grant of a resource, as a forced release does.
func (q *Quorum) End(name string, how lease.End) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.end(q.resource(name), how)
}

// Compact forgets history, so that watches can only resume from the newest change.
func (q *Quorum) Compact() { q.journal.Compact() }

// resource returns the entry of a name. The caller holds mu, as for all methods below.
func (q *Quorum) resource(name string) *resource {
	r := q.resources[name]
	if r == nil {
		r = &resource{info: lease.Info{Resource: lease.Resource(name), State: lease.Free}, ended: make(map[string]lease.End)}
		q.resources[name] = r
	}
	return r
}

func (q *Quorum) record(r *resource) {
	r.info.Revision++
	q.journal.Changed(r.info)
	close(q.changed)
	q.changed = make(chan struct{})
}

func (q *Quorum) expire(r *resource) {
	if r.info.State != lease.Free && !q.clock.Now().Before(r.deadline) {
		q.end(r, lease.EndExpired)
	}
}

func (q *Quorum) end(r *resource, how lease.End) {
	if r.info.State == lease.Free {
		return
	}
	r.ended[r.info.RequestID] = how
	r.info.State, r.info.End = lease.Free, how
	q.record(r)
}

// check returns the resource if the caller holds the grant, extended to the present.
func (q *Quorum) check(who lease.Caller, ref lease.Ref) (*resource, *lease.Error) {
	r := q.resource(string(ref.Resource))
	q.expire(r)
	switch {
	case r.info.Token != ref.Token || r.info.Holder.Instance != who.Instance:
		return nil, &lease.Error{Reason: lease.ReasonNotHolder, Resource: ref.Resource, Token: ref.Token}
	case r.info.State == lease.Free:
		return nil, &lease.Error{Reason: endReason(r.info.End), Resource: ref.Resource, Token: ref.Token}
	}
	return r, nil
}

func endReason(how lease.End) lease.Reason {
	if how == lease.EndReleased || how == lease.EndCancelled {
		return lease.ReasonReleased
	}
	return lease.ReasonExpired
}

// acquire grants, replays or queues until the poll ends.
func (q *Quorum) acquire(ctx context.Context, a lease.Acquire) (*lease.Grant, *lease.Waiting, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	intake := q.clock.Now()
	end := intake.Add(min(a.Wait, a.TTL/3))
	r := q.resource(string(a.Resource))
	for {
		q.expire(r)
		now := q.clock.Now()
		if how, ok := r.ended[a.RequestID]; ok {
			return nil, nil, lease.Errorf(endReason(how), "the grant of request %s is over", a.RequestID)
		}
		if r.info.State == lease.Held && r.info.RequestID == a.RequestID && r.info.Holder.Instance == a.Instance {
			r.deadline = max(r.deadline, intake.Add(r.info.TTL))
			return grantOf(r, true), nil, nil
		}
		r.queue = slices.DeleteFunc(r.queue, func(t ticket) bool { return t.requestID != a.RequestID && !now.Before(t.keepUntil) })
		place := slices.IndexFunc(r.queue, func(t ticket) bool { return t.requestID == a.RequestID })
		if r.info.State == lease.Free && (len(r.queue) == 0 || place == 0) {
			return q.grant(r, a, intake), nil, nil
		}
		if a.Wait <= 0 {
			return nil, nil, &lease.Error{
				Reason: lease.ReasonHeld, Resource: a.Resource, Holder: r.info.Holder, Token: r.info.Token,
				Message: "somebody else holds it", RetryAfter: r.deadline.Sub(now),
			}
		}
		if place < 0 {
			place = len(r.queue)
			r.queue = append(r.queue, ticket{requestID: a.RequestID})
		}
		r.queue[place].keepUntil = end.Add(a.TTL / 3)
		if !now.Before(end) || ctx.Err() != nil {
			return nil, &lease.Waiting{Position: place + 1, HeldBy: r.info.Holder, HeldToken: r.info.Token, Keep: a.TTL / 3}, nil
		}
		q.wait(ctx, min(end, r.deadline))
	}
}

// wait lets go of mu until something changes, an instant comes or ctx ends.
func (q *Quorum) wait(ctx context.Context, until clock.Instant) {
	changed := q.changed
	q.mu.Unlock()
	defer q.mu.Lock()
	timer := q.clock.NewTimer(max(until, q.clock.Now().Add(time.Millisecond)))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C():
	case <-ctx.Done():
	}
}

func (q *Quorum) grant(r *resource, a lease.Acquire, intake clock.Instant) *lease.Grant {
	q.sequence++
	token, err := fence.NewToken(1, q.sequence)
	if err != nil {
		panic(err)
	}
	r.queue = slices.DeleteFunc(r.queue, func(t ticket) bool { return t.requestID == a.RequestID })
	r.deadline = intake.Add(a.TTL)
	r.info = lease.Info{
		Resource: a.Resource, State: lease.Held, Token: token, TTL: a.TTL, GrantedAt: q.clock.Wall(),
		Holder:    lease.Holder{Principal: a.Principal, Instance: a.Instance, Region: a.Region},
		Metadata:  a.Metadata,
		RequestID: a.RequestID,
		Revision:  r.info.Revision,
	}
	q.record(r)
	return grantOf(r, false)
}

func grantOf(r *resource, replayed bool) *lease.Grant {
	return &lease.Grant{
		Resource: r.info.Resource, Token: r.info.Token, Holder: r.info.Holder, TTL: r.info.TTL,
		GrantedAt: r.info.GrantedAt, RequestID: r.info.RequestID, Checkpoint: r.checkpoint, Replayed: replayed,
	}
}

// cancel ends a request, and returns the token of a grant that it released.
func (q *Quorum) cancel(c lease.CancelAcquire) fence.Token {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.resource(string(c.Resource))
	q.expire(r)
	r.queue = slices.DeleteFunc(r.queue, func(t ticket) bool { return t.requestID == c.RequestID })
	var released fence.Token
	if r.info.State == lease.Held && r.info.RequestID == c.RequestID && r.info.Holder.Instance == c.Instance {
		released = r.info.Token
		q.end(r, lease.EndReleased)
	}
	if _, ok := r.ended[c.RequestID]; !ok {
		r.ended[c.RequestID] = lease.EndCancelled
	}
	return released
}

func (q *Quorum) renew(who lease.Caller, refs []lease.Ref) lease.RenewOutcome {
	q.mu.Lock()
	defer q.mu.Unlock()
	var outcome lease.RenewOutcome
	now := q.clock.Now()
	for i, ref := range refs {
		r, err := q.check(who, ref)
		if err != nil {
			outcome.Failures = append(outcome.Failures, lease.RenewFailure{Index: i, Err: err})
			continue
		}
		r.deadline = max(r.deadline, now.Add(r.info.TTL))
	}
	return outcome
}

func (q *Quorum) release(c lease.Release) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	r, err := q.check(c.Caller, c.Ref)
	if err != nil {
		return err
	}
	q.end(r, lease.EndReleased)
	return nil
}

func (q *Quorum) checkpoint(c lease.Checkpoint) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	r, err := q.check(c.Caller, c.Ref)
	if err != nil {
		return err
	}
	r.checkpoint = slices.Clone(c.Data)
	q.record(r)
	return nil
}

func (q *Quorum) force(name string, token fence.Token) (lease.Info, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.resource(name)
	q.expire(r)
	if r.info.State == lease.Free {
		return lease.Info{}, lease.Errorf(lease.ReasonNotFound, "%s is not held", name)
	}
	if token != 0 && token != r.info.Token {
		return lease.Info{}, lease.Errorf(lease.ReasonStaleToken, "%s is held under %s", name, r.info.Token)
	}
	held := r.info
	q.end(r, lease.EndForced)
	return held, nil
}

// list returns the resources under a prefix in name order, after a name.
func (q *Quorum) list(prefix, after string, heldOnly bool) []lease.Info {
	q.mu.Lock()
	defer q.mu.Unlock()
	var infos []lease.Info
	for name, r := range q.resources {
		q.expire(r)
		if strings.HasPrefix(name, prefix) && name > after && r.info.Token != 0 && (!heldOnly || r.info.State != lease.Free) {
			infos = append(infos, r.info)
		}
	}
	slices.SortFunc(infos, func(a, b lease.Info) int { return strings.Compare(string(a.Resource), string(b.Resource)) })
	return infos
}
