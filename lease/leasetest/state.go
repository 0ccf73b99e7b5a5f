package leasetest

import (
	"context"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// State is what nodes answer from: a [Quorum], or another that decides differently. It is safe for concurrent use.
type State interface {
	// Do carries a command out and answers it with what lease.Reply says. An Acquire that waits returns when ctx ends.
	Do(ctx context.Context, c lease.Command) (any, error)
	// List returns what is known of the resources under a prefix, in name order, after a name.
	List(prefix, after string, heldOnly bool) []lease.Info
	// Journal is what watches see.
	Journal() *Journal
	// Sign makes a writ of a grant.
	Sign(w fence.Writ) (string, error)
}

// Do implements [State].
func (q *Quorum) Do(ctx context.Context, c lease.Command) (any, error) {
	switch c := c.(type) {
	case lease.Acquire:
		grant, waiting, err := q.acquire(ctx, c)
		if grant != nil {
			return grant, err
		}
		return waiting, err
	case lease.CancelAcquire:
		return q.cancel(c), nil
	case lease.Renew:
		return q.renew(c.Caller, c.Refs), nil
	case lease.Release:
		return nil, q.release(c)
	case lease.Checkpoint:
		return nil, q.checkpoint(c)
	case lease.ForceRelease:
		return q.force(string(c.Resource), c.Token)
	case lease.Inspect:
		return q.inspect(c)
	default:
		return nil, lease.Errorf(lease.ReasonInternal, "%T is not played here", c)
	}
}

func (q *Quorum) inspect(c lease.Inspect) (lease.Info, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.resource(string(c.Resource))
	q.expire(r)
	if c.Token != 0 {
		if _, err := q.check(c.Caller, c.Ref); err != nil {
			return lease.Info{}, err
		}
	}
	if r.info.Token == 0 {
		return lease.Info{}, lease.Errorf(lease.ReasonNotFound, "%s was never granted", c.Resource)
	}
	info := r.info
	if c.WithCheckpoint {
		info.Checkpoint = r.checkpoint
	}
	return info, nil
}

// List implements [State].
func (q *Quorum) List(prefix, after string, heldOnly bool) []lease.Info {
	return q.list(prefix, after, heldOnly)
}

// Journal implements [State].
func (q *Quorum) Journal() *Journal { return q.journal }

// Sign implements [State] with a text that names the grant; it is not signed.
func (q *Quorum) Sign(w fence.Writ) (string, error) {
	return "writ of " + w.Resource + " under " + w.Token.String(), nil
}

var _ State = (*Quorum)(nil)
