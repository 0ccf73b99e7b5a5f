package etcd

import (
	"context"
	"fmt"
	"sync"

	"github.com/writ-io/writ/quorum"
)

// gate lets calls in until it closes. Closing ends their contexts and waits for them, so that nobody touches the
// database while etcd closes it.
type gate struct {
	ctx    context.Context // ends when the gate closes
	cancel context.CancelCauseFunc

	mu     sync.Mutex
	closed bool // guarded by mu
	calls  sync.WaitGroup
}

func newGate() *gate {
	g := &gate{}
	g.ctx, g.cancel = context.WithCancelCause(context.Background())
	return g
}

// enter answers a context that also ends when the gate closes, and leave, which must be called. The error wraps
// ErrStopped and ErrUnknown.
func (g *gate) enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, nil, fmt.Errorf("%w: %w", quorum.ErrUnknown, context.Cause(g.ctx))
	}
	g.calls.Add(1)
	inner, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(g.ctx, func() { cancel(context.Cause(g.ctx)) })
	return inner, func() {
		stop()
		cancel(nil)
		g.calls.Done()
	}, nil
}

// shut closes the gate and does not wait.
func (g *gate) shut(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.cancel(cause)
}

// drain waits until everybody who was let in has left. The gate must be shut.
func (g *gate) drain() { g.calls.Wait() }
