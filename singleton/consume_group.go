package singleton

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/singleton/partition"
)

// consumer is one call of Consume: the shell of a partition.Machine.
type consumer struct {
	singleton  *Singleton
	client     *lease.Client
	set        *settings
	group      string
	names      partition.Names
	partitions int
	homes      []string
	fn         func(context.Context, *Partition) error
	member     string // the name of this member's lease
	metadata   []byte // of that lease

	machine *partition.Machine
	// Of the goroutine of run alone.
	workers map[int]*consumeWorker // the newest of each partition
	quit    context.CancelFunc     // ends the membership
	leaving bool                   // ctx has ended

	running sync.WaitGroup // everything that was started, but for functions that are stuck
	signal  chan struct{}  // holds a token when there are events

	mu      sync.Mutex
	events  []partition.Event // guarded by mu; not taken in yet
	failure error             // guarded by mu; the first one
	panicky *PanicError       // guarded by mu; the first one
}

// run returns when the member has left and everything has returned.
func (g *consumer) run(ctx context.Context) error {
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	g.running.Go(func() { g.watch(watching) })
	g.loop(ctx)
	stop()
	g.running.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.panicky != nil:
		panic(g.panicky)
	case g.failure != nil:
		return g.failure
	}
	return g.ended(ctx)
}

// ended is why the caller's context has ended.
func (g *consumer) ended(ctx context.Context) error {
	return fmt.Errorf("singleton: %s: %w", g.group, context.Cause(ctx))
}

// loop steps the machine until the member has left.
func (g *consumer) loop(ctx context.Context) {
	now := g.client.Clock()
	timer := now.NewTimer(clock.Never)
	defer timer.Stop()
	ended := ctx.Done()
	for {
		effects := g.machine.Step(now.Now(), g.take()...)
		g.apply(ctx, effects)
		if effects.Done {
			return
		}
		timer.Stop()
		if effects.Wake != 0 {
			timer.Reset(effects.Wake)
		}
		select {
		case <-g.signal:
		case <-timer.C():
		case <-ended:
			ended, g.leaving = nil, true
			g.tell(partition.Leave{})
		}
	}
}

// tell lets the machine hear of something.
func (g *consumer) tell(event partition.Event) {
	g.mu.Lock()
	g.events = append(g.events, event)
	g.mu.Unlock()
	select {
	case g.signal <- struct{}{}:
	default:
	}
}

// take returns what has happened, all at once: the machine computes its target once for it.
func (g *consumer) take() []partition.Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	events := g.events
	g.events = nil
	return events
}

// fail makes the member leave.
func (g *consumer) fail(err error) {
	g.mu.Lock()
	var failed *PanicError
	switch {
	case errors.As(err, &failed) && g.panicky == nil:
		g.panicky = failed
	case g.failure == nil:
		g.failure = err
	}
	g.mu.Unlock()
	g.set.Logger.Warn("leaving the group", "group", g.group, "error", err)
	g.tell(partition.Leave{})
}

// apply carries effects out.
func (g *consumer) apply(ctx context.Context, effects partition.Effects) {
	if effects.Join {
		membership, quit := context.WithCancel(context.WithoutCancel(ctx))
		g.quit = quit
		g.running.Go(func() {
			defer quit()
			g.belong(membership)
		})
	}
	if effects.Quit {
		g.quit()
	}
	for _, index := range effects.Cancel {
		g.workers[index].cancel(ErrRevoked)
	}
	for _, index := range effects.Start {
		close(g.workers[index].start)
	}
	for _, index := range effects.Revoke {
		close(g.workers[index].revoked)
	}
	for _, index := range effects.End {
		cause := ErrRevoked
		if g.leaving {
			cause = context.Cause(ctx)
		}
		g.workers[index].cancel(cause)
	}
	for _, index := range effects.Release {
		close(g.workers[index].release)
	}
	for _, index := range effects.Ask { // last: it puts another worker in the place of the one that the others are for
		g.ask(ctx, index)
	}
}

// watch tells the machine what becomes of the group's leases.
func (g *consumer) watch(ctx context.Context) {
	for event, err := range g.client.Watch(ctx, lease.WatchOptions{Prefix: g.names.Prefix()}) {
		switch {
		case err != nil && ctx.Err() == nil:
			g.fail(fmt.Errorf("singleton: watch %s: %w", g.group, err))
		case err == nil && event.Kind != lease.EventProgress:
			g.tell(partition.Watched{Event: event})
		}
	}
}

// belong holds the member's own lease until ctx ends or the lease is lost.
func (g *consumer) belong(ctx context.Context) {
	defer g.tell(partition.Excluded{})
	hold, err := g.client.Acquire(ctx, g.member, lease.AcquireOptions{
		TTL: g.set.TTL, Lead: g.set.StopLead, Metadata: g.metadata,
		MaxWait: 2 * g.set.TTL, // longer than what this process may have left behind, when it was another one
	})
	switch {
	case ctx.Err() != nil && err != nil:
		return
	case errors.Is(err, lease.ErrHeld):
		g.fail(lease.Invalid("instance", fmt.Sprintf("%q of group %s is in use by another process", g.client.Instance(), g.group),
			"give each process a lease.Config.Instance of its own, and call Consume once in it for each group"))
		return
	case err != nil:
		g.fail(err)
		return
	}
	defer g.singleton.release(ctx, hold)
	if err := g.agree(ctx); err != nil {
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, lease.ErrInvalid), errors.Is(err, lease.ErrDenied), errors.Is(err, lease.ErrUnauthenticated):
			g.fail(err)
		default:
			g.set.Logger.Warn("joining failed", "group", g.group, "error", err)
		}
		return
	}
	g.tell(partition.Joined{})
	select {
	case <-ctx.Done():
	case <-hold.Done():
	}
}

// agree makes sure that the group has as many partitions as this member thinks. It comes after the member's lease: whoever
// changes the number holds the group's lease while it looks for members.
func (g *consumer) agree(ctx context.Context) error {
	info, err := g.client.Get(ctx, g.names.Group(), lease.GetOptions{WithCheckpoint: true})
	switch {
	case err == nil && info.State == lease.Free && len(info.Checkpoint) > 0:
		return g.compare(info.Checkpoint)
	case err != nil && !errors.Is(err, lease.ErrNotFound):
		return err
	}
	hold, err := g.client.Acquire(ctx, g.names.Group(), lease.AcquireOptions{TTL: g.set.TTL})
	if err != nil {
		return err
	}
	defer g.singleton.release(ctx, hold)
	if data := hold.CheckpointData(); len(data) > 0 {
		return g.compare(data)
	}
	document, err := partition.Group{Partitions: g.partitions}.Encode()
	if err != nil {
		return err
	}
	return hold.Checkpoint(ctx, document)
}

func (g *consumer) compare(document []byte) error {
	stored, err := partition.ParseGroup(document)
	if err == nil && stored.Partitions != g.partitions {
		return lease.Invalid("partitions", fmt.Sprintf("is %d, and the group %s has %d", g.partitions, g.group, stored.Partitions),
			fmt.Sprintf("use %d, or stop every member and call Resize", stored.Partitions))
	}
	return err
}
