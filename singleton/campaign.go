package singleton

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// campaign runs a function under leases on one resource: it is the shell of a [Runner]. Run makes one and calls run; so do
// the parts of this package that hold many resources.
type campaign struct {
	client   *lease.Client
	settings *settings
	resource string
	// work runs in each term, in a goroutine of its own. Its context carries the term and the writ.
	work func(ctx context.Context, hold *lease.Hold) error
	// acquire asks for the lease until ctx ends.
	acquire func(ctx context.Context) (*lease.Hold, error)
	exit    func(code int) // ends the process

	core    *Runner
	clock   clock.Clock
	timer   clock.Timer
	pending []RunnerEvent
	ended   <-chan struct{} // of the caller's context, until the core has heard of it

	// Of the present term; touched by the goroutine of run alone.
	hold      *lease.Hold
	cancel    context.CancelCauseFunc
	stopped   clock.Instant // since when the function's context has ended
	returned  chan campaignReturn
	lost      <-chan struct{}
	contended <-chan struct{}

	loss    error          // how a lease was lost
	refusal error          // what came of the last request
	result  campaignReturn // of the last function that returned
}

// campaignReturn says how a function returned.
type campaignReturn struct {
	how   RunnerReturn
	err   error
	late  bool // after its context had ended
	panic *PanicError
}

// releaseLimit bounds the release of a lease, which runs out by itself if that fails.
const releaseLimit = 5 * time.Second

// run returns when the function has returned and is not to be run again, when there is no lease to be had, or when ctx has
// ended; see [Singleton.Run]. It panics if the function did.
func (c *campaign) run(ctx context.Context) error {
	c.core, c.clock = NewRunner(c.settings.runner()), c.client.Clock()
	c.timer = c.clock.NewTimer(clock.Never)
	c.timer.Stop() // most are never needed, and an armed one costs
	defer c.timer.Stop()
	if c.ended = ctx.Done(); ctx.Err() != nil {
		c.hearEnd()
	} else {
		c.hear(RunnerBegan{})
	}
	for {
		if len(c.pending) == 0 {
			c.wait(ctx)
		}
		event := c.pending[0]
		c.pending = c.pending[1:]
		effects := c.core.Step(c.clock.Now(), event)
		if effects.Done != 0 {
			return c.outcome(ctx, effects.Done)
		}
		c.apply(ctx, effects)
	}
}

func (c *campaign) hear(event RunnerEvent) { c.pending = append(c.pending, event) }

// hearEnd takes in, once, that the caller's context has ended.
func (c *campaign) hearEnd() {
	c.ended = nil
	c.hear(RunnerEnded{})
}

// hearLoss takes in, once, that the hold's context has ended.
func (c *campaign) hearLoss() {
	c.lost, c.loss = nil, c.hold.Err()
	c.hear(RunnerLost{Until: c.clock.Now().Add(c.hold.Left())})
}

// wait waits for the next event.
func (c *campaign) wait(ctx context.Context) {
	select {
	case <-c.ended:
		c.hearEnd()
	case <-c.lost:
		c.hearLoss()
	case <-c.contended:
		c.contended = nil
		c.hear(RunnerContended{})
	case c.result = <-c.returned:
		c.returned = nil
		if c.result.late { // and then that is why
			c.catchUp(ctx)
		}
		c.hear(RunnerReturned{How: c.result.how})
	case <-c.timer.C():
		c.hear(RunnerTick{})
	}
}

// catchUp hears what has ended the function's context, if that has not been heard yet.
func (c *campaign) catchUp(ctx context.Context) {
	if c.ended != nil && ctx.Err() != nil {
		c.hearEnd()
	}
	if c.lost != nil && c.hold.Err() != nil {
		c.hearLoss()
	}
}

// apply carries effects out.
func (c *campaign) apply(ctx context.Context, effects RunnerEffects) {
	if effects.Cancel != 0 {
		c.stop(ctx, effects.Cancel)
	}
	if effects.Acquire {
		c.ask(ctx)
	}
	if effects.Start {
		c.start()
	}
	if effects.Release {
		c.release(ctx)
	}
	if effects.Abandon {
		c.lost, c.contended = nil, nil
		c.hear(RunnerAbandoned{Until: c.clock.Now().Add(c.hold.Abandon())})
	}
	if effects.Tell {
		c.settings.OnStuck(c.stuck())
		c.hear(RunnerTold{})
	}
	if effects.Exit {
		c.die()
	}
	if effects.Wake != 0 {
		c.timer.Reset(effects.Wake)
	} else {
		c.timer.Stop()
	}
}

// ask asks for the lease and hears the answer.
func (c *campaign) ask(ctx context.Context) {
	c.hold, c.refusal = c.acquire(ctx)
	if c.ended != nil && ctx.Err() != nil {
		c.hearEnd() // first, so that a grant is not used
	}
	if c.refusal != nil {
		c.hear(RunnerRefused{})
		return
	}
	c.hear(RunnerGranted{})
}

// start starts the function under the hold.
func (c *campaign) start() {
	work, cancel := context.WithCancelCause(newContext(c.hold))
	c.cancel = cancel
	c.lost, c.contended, c.stopped = c.hold.Done(), c.hold.Contended(), 0
	returned := make(chan campaignReturn, 1)
	c.returned = returned
	hold := c.hold
	c.settings.Logger.Info("term began", "resource", hold.Resource(), "token", hold.Token())
	go c.term(work, hold, returned) // joined by wait, unless the function is left behind as stuck
}

// term runs the function and tells how it returned, however it did.
func (c *campaign) term(ctx context.Context, hold *lease.Hold, returned chan<- campaignReturn) {
	result := campaignReturn{how: ReturnedExit}
	defer func() {
		if value := recover(); value != nil {
			result.how, result.panic = ReturnedPanic, newPanicError(value)
		}
		result.late = ctx.Err() != nil
		returned <- result
	}()
	if stopped := c.settings.Hooks.Stopped; stopped != nil {
		defer func() { stopped(termOf(hold), context.Cause(ctx)) }()
	}
	if started := c.settings.Hooks.Started; started != nil {
		started(termOf(hold))
	}
	err := c.work(ctx, hold)
	result.how, result.err = ReturnedNil, err
	if err != nil {
		result.how = ReturnedError
	}
}

// stop ends the function's context.
func (c *campaign) stop(ctx context.Context, why RunnerCause) {
	cause := c.hold.Err()
	switch why {
	case CauseEnded:
		cause = context.Cause(ctx)
	case CauseHandedOver:
		cause = ErrHandedOver
	case CauseLost: // it has ended with the hold's
	}
	c.stopped = c.clock.Now()
	c.settings.Logger.Info("term ends", "resource", c.hold.Resource(), "token", c.hold.Token(), "cause", cause)
	c.cancel(cause)
}

// release ends the lease, after the function has returned, and with a context of its own: the caller's has perhaps ended.
func (c *campaign) release(ctx context.Context) {
	c.lost, c.contended = nil, nil
	if c.cancel != nil {
		c.cancel(lease.ErrReleased)
		c.cancel = nil
	}
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	logger := c.settings.Logger.With("resource", c.hold.Resource(), "token", c.hold.Token())
	var lost *lease.LostError
	switch err := c.hold.Release(own); {
	case err == nil:
		logger.Info("term ended", "returned", c.result.err)
	case errors.As(err, &lost):
		logger.Warn("term ended: the lease was lost", "returned", c.result.err, "cause", err)
	default:
		logger.Warn("term ended: the lease could not be released and runs out by itself", "returned", c.result.err, "error", err)
	}
	c.hear(RunnerReleased{})
}

func (c *campaign) stuck() Stuck {
	return Stuck{Resource: c.hold.Resource(), Token: c.hold.Token(), Since: c.clock.Now().Sub(c.stopped)}
}

// die ends the process, because that is the only way to stop a function that does not return.
func (c *campaign) die() {
	logger := c.settings.Logger
	if !logger.Enabled(context.Background(), slog.LevelError) {
		logger = slog.Default() // a process that vanishes without a word helps nobody
	}
	stuck := c.stuck()
	logger.Error("a function did not return after its context had ended; exiting, because its lease has run out",
		"resource", stuck.Resource, "token", stuck.Token, "since", stuck.Since, "code", ExitStuck)
	c.exit(ExitStuck)
}

// outcome is what run returns.
func (c *campaign) outcome(ctx context.Context, outcome RunnerOutcome) error {
	switch outcome {
	case RunnerOutcomeReturned:
		switch c.result.how {
		case ReturnedPanic:
			panic(c.result.panic)
		case ReturnedExit:
			return fmt.Errorf("%w: %s", ErrGoexit, c.resource)
		default:
			return c.result.err
		}
	case RunnerOutcomeRefused:
		return c.refusal
	case RunnerOutcomeEnded:
		return fmt.Errorf("singleton: %s: %w", c.resource, context.Cause(ctx))
	case RunnerOutcomeLost:
		return errors.Join(c.loss, c.result.err)
	case RunnerOutcomeStuck:
		return fmt.Errorf("%w: %s under %v", ErrStuck, c.hold.Resource(), c.hold.Token())
	default:
		panic(fmt.Sprintf("singleton: campaign: unknown outcome %d", outcome))
	}
}
