package singleton

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton/partition"
)

// consumeWorker asks for the lease of a partition once, and does what is done under it.
type consumeWorker struct {
	consumer *consumer
	index    int
	cancel   context.CancelCauseFunc // ends the asking, or the function's context
	// Closed by the consumer, each at most once.
	start, revoked, release chan struct{}

	mu   sync.Mutex
	said map[partition.Event]bool // guarded by mu
	over bool                     // guarded by mu; nothing more is said
}

// ask starts a worker.
func (g *consumer) ask(ctx context.Context, index int) {
	asking, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	w := &consumeWorker{
		consumer: g, index: index, cancel: cancel, said: make(map[partition.Event]bool),
		start: make(chan struct{}), revoked: make(chan struct{}), release: make(chan struct{}),
	}
	g.workers[index] = w
	g.running.Go(func() {
		defer cancel(nil)
		w.run(asking)
	})
}

// say tells the machine once of what has become of the partition.
func (w *consumeWorker) say(events ...partition.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range events {
		if !w.over && !w.said[e] {
			w.said[e] = true
			w.consumer.tell(e)
		}
	}
}

// end says the last of it. What a function that was left behind as stuck does later is not heard.
func (w *consumeWorker) end() {
	w.mu.Lock()
	granted := w.said[partition.Granted{Index: w.index}]
	w.mu.Unlock()
	if granted {
		w.say(partition.Lost{Index: w.index}, partition.Returned{Index: w.index}, partition.Released{Index: w.index})
	} else {
		w.say(partition.Refused{Index: w.index})
	}
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
}

// run holds the lease as long as it is wanted and there.
func (w *consumeWorker) run(ctx context.Context) {
	defer w.end()
	err := w.campaign(ctx)
	var failed *PanicError
	switch {
	case err == nil, errors.Is(err, ErrLost) && !errors.As(err, &failed):
	case errors.Is(err, ErrStuck), errors.Is(err, ErrGoexit), errors.As(err, &failed), ctx.Err() == nil:
		w.consumer.fail(err)
	}
}

// campaign runs a campaign for one term. It returns a panic of the function as an error.
func (w *consumeWorker) campaign(ctx context.Context) (err error) {
	defer func() {
		if value := recover(); value != nil {
			failed, ok := value.(*PanicError)
			if !ok {
				panic(value)
			}
			err = failed
		}
	}()
	g := w.consumer
	c := &campaign{
		client: g.client, settings: g.set, resource: g.names.Partition(w.index), work: w.work, exit: g.singleton.exit,
	}
	c.acquire = func(ctx context.Context) (*lease.Hold, error) {
		return g.client.Acquire(ctx, c.resource, g.set.acquire())
	}
	return c.run(ctx)
}

// work runs the function, when the machine says so, and stays until the lease is to be released.
func (w *consumeWorker) work(ctx context.Context, hold *lease.Hold) error {
	w.say(partition.Granted{Index: w.index})
	defer context.AfterFunc(ctx, func() { w.say(partition.Lost{Index: w.index}) })()
	select {
	case <-w.start:
	case <-w.release:
		return nil
	case <-ctx.Done():
		return nil
	}
	finished := false
	defer func() {
		if ctx.Err() != nil {
			w.say(partition.Lost{Index: w.index})
		}
		w.say(partition.Returned{Index: w.index})
		if !finished { // it panicked or ended its goroutine, which is told when the lease has been released
			w.consumer.tell(partition.Leave{})
		}
		select {
		case <-w.release:
		case <-ctx.Done():
		}
	}()
	err := w.consumer.fn(ctx, &Partition{index: w.index, hold: hold, revoked: w.revoked})
	if err != nil && ctx.Err() == nil {
		w.consumer.fail(fmt.Errorf("singleton: partition %d of %s: %w", w.index, w.consumer.group, err))
	}
	finished = true
	return nil
}
