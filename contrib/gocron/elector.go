package gocron

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-co-op/gocron/v2"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// ErrNotLeader is what [Elector.IsLeader] returns in all processes but one.
var ErrNotLeader = errors.New("gocron: another scheduler leads, or none does yet")

// ElectorConfig says what is elected on.
type ElectorConfig struct {
	// Resource is the lease that the leader holds: the same in all schedulers.
	Resource string
	// TTL is how long others wait for a leader that died. 0 stands for lease.DefaultTTL.
	TTL time.Duration
	// OnChange is called when this process begins to lead, with nil, and when it has stopped, with the reason. It may be nil.
	OnChange func(error)
}

// Elector is a candidate: it waits for the lease, holds it, and after a loss waits again, until it is closed.
type Elector struct {
	client *lease.Client
	config ElectorConfig
	cancel context.CancelFunc
	ended  chan struct{} // closed when run has returned

	mu   sync.Mutex
	held *held // guarded by mu; nil while another leads
	err  error // guarded by mu; why the last attempt failed
}

var _ gocron.Elector = (*Elector)(nil)

// NewElector makes a candidate. The client stays the caller's to close, after [Elector.Close]. Errors: INVALID for a client
// that is nil, a resource or a TTL that cannot be used.
func NewElector(client *lease.Client, cfg ElectorConfig) (*Elector, error) {
	if client == nil {
		return nil, lease.Invalid("client", "is nil", "pass what lease.Dial returned")
	}
	if _, err := lease.ParseResource(cfg.Resource); err != nil {
		return nil, err
	}
	if cfg.TTL < 0 {
		return nil, lease.Invalid("ttl", "is negative", "leave it out for the default")
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Elector{client: client, config: cfg, cancel: cancel, ended: make(chan struct{})}
	go e.run(ctx) // joined by Close
	return e, nil
}

// pause is how long an elector waits after a refusal, such as DENIED, that asking again at once would not mend.
const pause = time.Second

// run leads whenever it can.
func (e *Elector) run(ctx context.Context) {
	defer close(e.ended)
	for ctx.Err() == nil {
		hold, err := e.client.Acquire(ctx, e.config.Resource, lease.AcquireOptions{TTL: e.config.TTL})
		e.mu.Lock()
		e.err = err
		e.mu.Unlock()
		if err == nil {
			e.lead(ctx, hold)
			continue
		}
		if errors.Is(err, lease.ErrClosed) {
			return
		}
		timer := e.client.Clock().NewTimer(e.client.Clock().Now().Add(pause))
		select {
		case <-timer.C():
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// lead leads until the lease is lost or ctx ends, and releases when what runs under it has returned.
func (e *Elector) lead(ctx context.Context, hold *lease.Hold) {
	h := newHeld(hold)
	e.set(h)
	e.tell(nil)
	select {
	case <-hold.Done():
	case <-ctx.Done():
	}
	e.set(nil)
	h.stop(ctx)
	reason := hold.Err()
	if reason == nil {
		reason = context.Cause(ctx)
	}
	_ = h.release(ctx) // if nobody can be told, it runs out
	e.tell(reason)
}

func (e *Elector) set(h *held) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held = h
}

func (e *Elector) tell(reason error) {
	if e.config.OnChange != nil {
		e.config.OnChange(reason)
	}
}

// IsLeader returns nil while this process may believe that it leads. It asks nobody. Errors: [ErrNotLeader], with why the
// quorum refused if it did.
func (e *Elector) IsLeader(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.held != nil && e.held.hold.Valid():
		return nil
	case e.err != nil:
		return fmt.Errorf("%w: %w", ErrNotLeader, e.err)
	}
	return ErrNotLeader
}

// Under returns a task that runs fn under the leader's grant: its context ends when the lease is lost or the elector is
// closed, and the lease is not released before fn has returned. Where another process leads it returns [ErrNotLeader].
func (e *Elector) Under(fn func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		e.mu.Lock()
		h := e.held
		e.mu.Unlock()
		if h == nil {
			return ErrNotLeader
		}
		return h.run(ctx, fn)
	}
}

// Token returns the fencing token under which this process leads, 0 if it does not.
func (e *Elector) Token() fence.Token {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.held == nil {
		return 0
	}
	return e.held.hold.Token()
}

// Close ends the context of functions under the lease, waits until they have returned, releases the lease and returns. If ctx ends before, Close
// returns its error, and the rest happens later. Shut the scheduler down first, which waits for jobs.
func (e *Elector) Close(ctx context.Context) error {
	e.cancel()
	select {
	case <-e.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("gocron: functions under %s have not returned: %w", e.config.Resource, context.Cause(ctx))
	}
}
