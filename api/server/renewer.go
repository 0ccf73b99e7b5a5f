package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// renewer has the coordinator renew. On another node, the renewals of all clients travel together: one message is under way
// at a time, and what arrives meanwhile goes into the next one.
type renewer struct {
	*forwarder
	quorum   Quorum
	maxBytes int
	timeout  time.Duration // of one message
	// stopped ends when the server does.
	stopped context.Context

	mu     sync.Mutex
	queue  []*renewal // guarded by mu; in order of arrival
	busy   bool       // guarded by mu; a goroutine empties the queue
	worker sync.WaitGroup
}

// renewTimeout is how long one message may take, by default. It is short, because the next one waits for it.
const renewTimeout = 2 * time.Second

// partBytes is more than what a part, or a lease in it, takes on the wire besides its names.
const partBytes = 24

// renewal is one request in the queue.
type renewal struct {
	ctx    context.Context
	cmd    lease.Renew
	leases []*writv1.LeaseRef // what cmd.Refs were made of
	search search
	done   chan struct{} // closed when outcome and err are set
	out    lease.RenewOutcome
	err    error
}

func (r *renewal) finish(out lease.RenewOutcome, err error) {
	r.out, r.err = out, err
	close(r.done)
}

// bytes is at least what the part takes on the wire.
func (r *renewal) bytes() int {
	n := partBytes + len(r.cmd.Principal) + len(r.cmd.Instance)
	for i := range r.cmd.Refs {
		n += partBytes + len(r.cmd.Refs[i].Resource)
	}
	return n
}

// renew renews for one client. leases are the messages that cmd.Refs were made of.
func (r *renewer) renew(ctx context.Context, cmd lease.Renew, leases []*writv1.LeaseRef) (lease.RenewOutcome, error) {
	if r.tracker.current().self {
		out, err := r.quorum.Renew(ctx, []lease.Renew{cmd})
		if err == nil {
			return out[0], nil
		}
		if !errors.Is(err, lease.ErrNotCoordinator) {
			return lease.RenewOutcome{}, err
		}
	}
	item := &renewal{ctx: ctx, cmd: cmd, leases: leases, done: make(chan struct{})}
	r.mu.Lock()
	if r.stopped.Err() != nil {
		r.mu.Unlock()
		return lease.RenewOutcome{}, lease.Errorf(lease.ReasonNoQuorum, "%v", errDraining)
	}
	r.queue = append(r.queue, item)
	if !r.busy {
		r.busy = true
		r.worker.Go(r.empty)
	}
	r.mu.Unlock()
	select {
	case <-item.done:
		return item.out, item.err
	case <-ctx.Done():
		// What is under way goes on; nobody waits for its answer.
		return lease.RenewOutcome{}, ctx.Err()
	}
}

// join waits for the goroutine that empties the queue. stopped must have ended.
func (r *renewer) join() {
	// Whoever was about to start it has done so, or has seen that it is too late.
	r.mu.Lock()
	r.mu.Unlock() //nolint:staticcheck // a barrier
	r.worker.Wait()
}

// empty sends what is in the queue until nothing is.
func (r *renewer) empty() {
	for {
		batch := r.take()
		if len(batch) == 0 {
			return
		}
		v := r.tracker.current()
		fail, err := r.send(v, batch)
		if err != nil {
			r.failed(v, batch, fail, err)
		}
	}
}

// take takes the next message's worth of requests that somebody still waits for. If there are none, the caller has to end.
func (r *renewer) take() []*renewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	var batch []*renewal
	leases, bytes, taken := 0, 0, 0
	for _, item := range r.queue {
		if item.ctx.Err() != nil {
			item.finish(lease.RenewOutcome{}, item.ctx.Err())
			taken++
			continue
		}
		leases += len(item.cmd.Refs)
		bytes += item.bytes()
		if len(batch) > 0 && (leases > lease.MaxRenewals || bytes > r.maxBytes) {
			break
		}
		batch = append(batch, item)
		taken++
	}
	clear(r.queue[:taken])
	r.queue = r.queue[taken:]
	if len(batch) == 0 {
		r.queue, r.busy = nil, false
	}
	return batch
}

// send has one batch renewed, here or at the coordinator, and finishes its requests unless it fails.
func (r *renewer) send(v *view, batch []*renewal) (failure, error) {
	ctx, cancel := context.WithTimeout(r.stopped, r.timeout)
	defer cancel()
	var outcomes []lease.RenewOutcome
	var err error
	switch {
	case v.self || v.node.Name == "":
		cmds := make([]lease.Renew, len(batch))
		for i, item := range batch {
			cmds[i] = item.cmd
		}
		if outcomes, err = r.quorum.Renew(ctx, cmds); err != nil {
			return failure{again: errors.Is(err, lease.ErrNotCoordinator)}, err
		}
	case v.link == nil:
		return failure{again: true}, v.err
	default:
		var fail failure
		if outcomes, fail, err = r.sendTo(ctx, v.link, batch); err != nil {
			return fail, err
		}
	}
	if len(outcomes) != len(batch) {
		return failure{}, fmt.Errorf("%d renewals were answered with %d outcomes", len(batch), len(outcomes))
	}
	for i, item := range batch {
		item.finish(outcomes[i], nil)
	}
	return failure{}, nil
}

func (r *renewer) sendTo(ctx context.Context, l *link, batch []*renewal) ([]lease.RenewOutcome, failure, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.over, cancel)()
	parts := make([]*writv1.RenewPart, len(batch))
	leases := 0
	for i, item := range batch {
		parts[i] = &writv1.RenewPart{
			Principal: string(item.cmd.Principal),
			Request:   &writv1.RenewRequest{Leases: item.leases, Instance: item.cmd.Instance},
		}
		leases += len(item.leases)
	}
	r.metrics.renewBatch.Observe(float64(leases))
	var to peer.Peer
	resp, err := l.peer.RenewBatch(ctx, &writv1.RenewBatchRequest{Parts: parts}, grpc.Peer(&to))
	if err != nil {
		return nil, judge(err, to.Addr != nil), err
	}
	if len(resp.GetParts()) != len(batch) {
		return nil, failure{}, fmt.Errorf("the coordinator answered %d of %d renewals", len(resp.GetParts()), len(batch))
	}
	outcomes := make([]lease.RenewOutcome, len(batch))
	for i, part := range resp.GetParts() {
		if outcomes[i], err = lease.RenewOutcomeFromProto(part, len(batch[i].leases)); err != nil {
			return nil, failure{}, err
		}
	}
	r.metrics.forwarded.Inc()
	return outcomes, failure{}, nil
}

// failed puts back, in front, what is worth another attempt, and waits until it is.
func (r *renewer) failed(v *view, batch []*renewal, fail failure, err error) {
	now := r.clock.Now()
	var again []*renewal
	pause := lastPause
	for _, item := range batch {
		s := &item.search
		s.failed(v, err)
		if fail.sent {
			s.sentTo = v.node.Name
		}
		switch {
		case !fail.again:
			item.finish(lease.RenewOutcome{}, s.answer(err))
			continue
		case r.stopped.Err() != nil, s.spent(now, r.config.Patience):
			r.metrics.forwardGivenUp.Inc()
			item.finish(lease.RenewOutcome{}, s.giveUp())
			continue
		}
		again = append(again, item)
		pause = min(pause, s.nextPause())
	}
	if len(again) == 0 {
		return
	}
	r.mu.Lock()
	r.queue = append(again, r.queue...)
	r.mu.Unlock()
	r.metrics.forwardRetries.Inc()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-r.stopped.Done():
	case <-v.changed:
	case <-timer.C:
	}
}
