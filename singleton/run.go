package singleton

import (
	"context"
	"fmt"

	"github.com/writ-io/writ/lease"
)

// Func is what runs in one place. It has to return soon after ctx has ended; whatever it writes elsewhere should carry the
// writ or the token of ctx. See [FromContext] and fence.FromContext.
type Func func(ctx context.Context) error

// Run runs fn while this process holds the resource. It waits until it does, and runs fn again after the lease was lost or
// handed over, each time under a newer token.
//
// The context of fn ends with the cause [ErrLost] before the lease does, with [ErrHandedOver] when a preferred region
// takes over, with the cause of ctx when ctx ends, and with lease.ErrClosed when the client is closed. It does not end
// otherwise, and has the values of ctx. The lease is released when fn has returned, never before.
//
// What Run returns, always after fn has returned:
//
//   - what fn returned, nil included, if its context had not ended before, or ended because ctx did. What fn returns after
//     its context has ended for other reasons is logged: it is run again. So a function that has more to do may return
//     nil, and one that is finished just then is run once more.
//   - if ctx ended before fn was started: an error that wraps the cause of ctx.
//   - what lease.Client.Acquire returns, if there is no lease to be had: INVALID, DENIED, LIMIT, …
//   - with [ReturnOnLoss], an error that matches [ErrLost] and what fn returned.
//   - [ErrGoexit] if fn called runtime.Goexit.
//   - [ErrStuck], and before fn has returned, if it did not and [Config.OnStuck] did.
//
// If fn panics, Run releases the lease and panics with a *[PanicError]. A fn that is nil is INVALID.
func (s *Singleton) Run(ctx context.Context, resource string, fn Func, opts ...Option) error {
	c, err := s.campaign(resource, fn, opts)
	if err != nil {
		return err
	}
	return c.run(ctx)
}

// Try is [Singleton.Run] in one attempt: if somebody else holds the resource it returns HELD, with the holder, at once, and
// [ErrIneligible] if this region is not eligible. It does not hand over, and returns an error that matches [ErrLost], once
// fn has returned, if the lease was lost.
func (s *Singleton) Try(ctx context.Context, resource string, fn Func, opts ...Option) error {
	c, err := s.campaign(resource, fn, opts)
	if err != nil {
		return err
	}
	if !c.settings.eligible() {
		return fmt.Errorf("%w: %s in %q", ErrIneligible, resource, c.settings.Region)
	}
	c.settings.returnOnLoss, c.settings.handOver, c.settings.Preferred = true, false, nil
	c.acquire = func(ctx context.Context) (*lease.Hold, error) {
		return s.client.TryAcquire(ctx, resource, c.settings.acquire())
	}
	return c.run(ctx)
}

func (s *Singleton) campaign(resource string, fn Func, opts []Option) (*campaign, error) {
	if fn == nil {
		return nil, lease.Invalid("fn", "is nil", "pass the function to run")
	}
	return s.newCampaign(resource, func(ctx context.Context, _ *lease.Hold) error { return fn(ctx) }, opts)
}

// newCampaign makes a campaign, which the caller runs. The caller may exchange how it asks for the lease.
func (s *Singleton) newCampaign(resource string, work func(context.Context, *lease.Hold) error, opts []Option) (*campaign, error) {
	if _, err := lease.ParseResource(resource); err != nil {
		return nil, err
	}
	set, err := s.settings(opts)
	if err != nil {
		return nil, err
	}
	return &campaign{
		client: s.client, settings: set, resource: resource, work: work, exit: s.exit,
		acquire: func(ctx context.Context) (*lease.Hold, error) {
			return s.client.Acquire(ctx, resource, set.acquire())
		},
	}, nil
}
