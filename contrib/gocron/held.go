package gocron

import (
	"context"
	"sync"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// held is a lease and what runs under it.
type held struct {
	hold   *lease.Hold
	ctx    context.Context // of functions under it
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	stopped bool           // guarded by mu; nothing begins any more
	running sync.WaitGroup // Add under mu while not stopped
}

func newHeld(hold *lease.Hold) *held {
	write := fence.Write{Resource: string(hold.Resource()), Token: hold.Token()}
	if hold.HasWrit() {
		if writ, err := hold.Writ(hold.Context()); err == nil {
			write.Writ, write.Token = writ, 0
		}
	}
	h := &held{hold: hold}
	h.ctx, h.cancel = context.WithCancelCause(fence.NewContext(hold.Context(), write))
	return h
}

// run runs fn under the lease, and under ctx.
func (h *held) run(ctx context.Context, fn func(context.Context) error) error {
	h.mu.Lock()
	if h.stopped {
		h.mu.Unlock()
		return ErrNotLeader
	}
	h.running.Add(1)
	h.mu.Unlock()
	defer h.running.Done()
	if err := context.Cause(h.ctx); err != nil {
		return err
	}
	write, _ := fence.FromContext(h.ctx)
	own, cancel := context.WithCancelCause(fence.NewContext(ctx, write))
	defer cancel(nil)
	defer context.AfterFunc(h.ctx, func() { cancel(context.Cause(h.ctx)) })()
	return fn(own)
}

// stop lets nothing begin, ends the context of what runs if ctx has ended, and waits for it.
func (h *held) stop(ctx context.Context) {
	h.mu.Lock()
	h.stopped = true
	h.mu.Unlock()
	if ctx.Err() != nil {
		h.cancel(context.Cause(ctx))
	}
	h.running.Wait()
}

// releaseLimit bounds the release of a lease, which runs out by itself if that fails.
const releaseLimit = 5 * time.Second

// release ends the lease with a context of its own: the caller's has perhaps ended.
func (h *held) release(ctx context.Context) error {
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	err := h.hold.Release(own)
	h.cancel(lease.ErrReleased)
	return err
}
