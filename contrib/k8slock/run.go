package k8slock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/writ-io/writ/fence"
)

// ErrNotRenewed is what [Run] returns when the loop stopped leading because it could not renew within RenewDeadline.
var ErrNotRenewed = errors.New("k8slock: leadership ended: it could not be renewed in time")

// Bind returns a context that ends when ctx does, and with a *lease.LostError as its cause when the lease of a leadership
// is lost. A loop that runs under it stops leading at once. Call the function that comes with it when the loop has ended.
func (l *Lock) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	bound, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	key := &cancel
	l.bound[key] = struct{}{}
	if l.term != nil && l.term.lost != nil {
		cancel(l.term.lost)
	}
	return bound, func() {
		l.mu.Lock()
		delete(l.bound, key)
		l.mu.Unlock()
		cancel(nil)
	}
}

// Run runs client-go's leader election loop with this lock until leadership has ended or ctx has, waits until
// OnStartedLeading has returned, and then releases the lease. It sets cfg.Lock. Errors: what client-go finds in cfg; ctx's
// cause; a *lease.LostError if the lease was lost; [ErrNotRenewed].
func Run(ctx context.Context, lock *Lock, cfg leaderelection.LeaderElectionConfig) error {
	if cfg.Coordinated {
		return errors.New("k8slock: Coordinated is set, but Writ decides who leads; leave it out")
	}
	leads := &leadership{Lock: lock}
	if work := cfg.Callbacks.OnStartedLeading; work != nil {
		cfg.Callbacks.OnStartedLeading = func(ctx context.Context) { leads.run(ctx, work) }
	}
	cfg.Lock = leads
	elector, err := leaderelection.NewLeaderElector(cfg)
	if err != nil {
		return fmt.Errorf("k8slock: %w", err)
	}
	bound, unbind := lock.Bind(ctx)
	defer unbind()
	elector.Run(bound)
	leads.finish()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case bound.Err() != nil:
		return context.Cause(bound)
	}
	return ErrNotRenewed
}

// leadership is a lock of one loop that knows when the loop's work has returned.
type leadership struct {
	*Lock
	term *term         // nil if the loop has not led
	work chan struct{} // closed when the work has returned
}

// RecordEvent is called by the loop when it leads, before it starts the work.
func (l *leadership) RecordEvent(event string) {
	if event == becameLeader {
		l.term, _ = l.present()
		l.work = make(chan struct{})
	}
	l.Lock.RecordEvent(event)
}

// Update releases only after the work has returned; client-go asks for it when its context has ended.
func (l *leadership) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if record.HolderIdentity == "" && l.work != nil {
		select {
		case <-l.work:
		case <-ctx.Done():
			return fmt.Errorf("k8slock: the work has not returned, so %s is not released: %w", l.Describe(), ctx.Err())
		}
	}
	return l.Lock.Update(ctx, record)
}

// run runs the work under the grant.
func (l *leadership) run(ctx context.Context, work func(context.Context)) {
	defer close(l.work)
	work(l.term.newContext(ctx))
}

// newContext returns a context under which requests present the grant.
func (t *term) newContext(ctx context.Context) context.Context {
	write := fence.Write{Resource: string(t.hold.Resource()), Token: t.hold.Token()}
	if t.hold.HasWrit() {
		if writ, err := t.hold.Writ(ctx); err == nil {
			write.Writ, write.Token = writ, 0
		}
	}
	return fence.NewContext(ctx, write)
}

// finish waits for the work and releases what the loop did not.
func (l *leadership) finish() {
	if l.term == nil {
		return
	}
	<-l.work
	ctx, cancel := context.WithTimeout(context.Background(), releaseLimit)
	defer cancel()
	_ = l.term.release(ctx) // if nobody can be told, it runs out
}

// releaseLimit bounds the release of a lease, which runs out by itself if that fails.
const releaseLimit = 5 * time.Second
