package lease

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

// DefaultTTL is the TTL of a lease that is acquired without one.
const DefaultTTL = 10 * time.Second

// AcquireOptions says how to acquire. The zero value is ready for use.
type AcquireOptions struct {
	// TTL is how long the lease outlives the last renewal, and so how long others wait for a holder that died. 0 means
	// [DefaultTTL]; otherwise within the policy's bounds (at least 250 ms unless set). The quorum counts it in whole
	// milliseconds.
	TTL time.Duration
	// Lead is how long before the local deadline the hold's context ends for want of a renewal, so that work has time to
	// stop while nobody else can be granted the resource: up to a quarter of the TTL. The default is 0.
	Lead time.Duration
	// Priority orders those that wait: higher first, -[MaxPriority] to [MaxPriority].
	Priority int32
	// MaxWait is how long Acquire waits for the resource to become free before it gives up with HELD. 0: until the
	// context ends. TryAcquire ignores it.
	MaxWait time.Duration
	// Metadata is shown to whoever looks at the lease: up to [MaxMetadataBytes].
	Metadata []byte
	// RequestID makes the request idempotent across restarts of the process, if the caller keeps it: the same id gets the
	// same grant again. 1 to [MaxRequestIDBytes]; empty draws a random one.
	RequestID string
	// WantWrit asks for the signed grant at once, so that [Hold.Writ] needs no further call.
	WantWrit bool
}

// clientAcquisition is one request for a resource, over all its attempts.
type clientAcquisition struct {
	client    *Client
	tour      *dialTour
	what      string
	ownID     bool                   // the id is ours to replace
	request   *writv1.AcquireRequest // what every attempt says
	ttl       time.Duration
	lead      time.Duration
	giveUp    clock.Instant // when MaxWait is over, 0 for never
	wait      bool          // queue for it
	last      error         // what the last attempt that was answered said
	uncertain bool          // the quorum may have granted the request, or keep a place in a queue for it
}

// Acquire waits until this process holds the resource and returns the hold, which the client then keeps alive.
//
// It queues by priority, then first come, first served, and keeps its place by asking again within a third of the TTL.
// While nodes fail or the quorum has no coordinator it goes on asking, always under the same request id, so that it never
// takes two leases. Validity counts from before the sending of the attempt that was answered.
//
// When ctx ends first, it returns ctx's error with what the last attempt said, and cancels the request in the background.
// Other errors: HELD, with the holder, after MaxWait; INVALID, DENIED, UNAUTHENTICATED or LIMIT; RELEASED or EXPIRED if
// RequestID was given and its lease is over; [ErrClosed].
func (c *Client) Acquire(ctx context.Context, resource string, opts AcquireOptions) (*Hold, error) {
	return c.acquire(ctx, "acquire", resource, opts, true)
}

// TryAcquire is [Client.Acquire] without waiting: if the resource is held it returns HELD at once, with the holder.
func (c *Client) TryAcquire(ctx context.Context, resource string, opts AcquireOptions) (*Hold, error) {
	return c.acquire(ctx, "try acquire", resource, opts, false)
}

func (c *Client) acquire(ctx context.Context, what, resource string, opts AcquireOptions, wait bool) (*Hold, error) {
	a, err := c.newAcquisition(what, resource, opts, wait)
	if err != nil {
		return nil, err
	}
	for {
		hold, again := a.attempt(ctx)
		if hold != nil {
			return hold, nil
		}
		if !again {
			break
		}
		if ctx.Err() != nil || c.ctx.Err() != nil {
			a.last = c.ended(ctx, what, a.tour, a.last)
			break
		}
	}
	if a.uncertain {
		a.abandon()
	}
	return nil, a.last
}

// newAcquisition checks what only the client can know, and leaves the rest to the policy.
func (c *Client) newAcquisition(what, resource string, opts AcquireOptions, wait bool) (*clientAcquisition, error) {
	if _, err := ParseResource(resource); err != nil {
		return nil, err
	}
	a := &clientAcquisition{client: c, tour: c.nodes.tour(), what: what, wait: wait, ttl: opts.TTL, lead: opts.Lead}
	if a.ttl == 0 {
		a.ttl = DefaultTTL
	}
	if believed := clock.Shrink(a.ttl, c.cfg.Drift.PPM, c.cfg.Drift.Margin); a.ttl < 0 || believed < a.ttl/2 {
		return nil, Invalid("ttl", fmt.Sprintf("of %v leaves %v to believe in", a.ttl, believed), "use a longer one, such as 10s")
	}
	if a.lead < 0 || a.lead > a.ttl/4 {
		return nil, Invalid("lead", fmt.Sprintf("is %v with a TTL of %v", a.lead, a.ttl), "use 0 to a quarter of the TTL")
	}
	if opts.MaxWait < 0 {
		return nil, Invalid("MaxWait", fmt.Sprintf("is %v", opts.MaxWait), "use a positive duration, or 0 to wait until the context ends")
	}
	if opts.MaxWait > 0 {
		a.giveUp = c.cfg.Clock.Now().Add(opts.MaxWait)
	}
	a.request = &writv1.AcquireRequest{
		Resource: resource, Ttl: durationpb.New(a.ttl), RequestId: opts.RequestID, Priority: opts.Priority,
		Region: c.cfg.Region, Instance: c.cfg.Instance, Metadata: opts.Metadata, WantWrit: opts.WantWrit,
	}
	if opts.RequestID == "" {
		a.ownID = true
		a.request.RequestId = rand.Text() // 128 random bits at least
	}
	return a, nil
}

// attempt asks one node. It returns a hold, or whether to go on; a.last says what happened.
func (a *clientAcquisition) attempt(ctx context.Context) (hold *Hold, again bool) {
	c := a.client
	if ctx.Err() != nil || c.ctx.Err() != nil {
		return nil, true // nothing has been sent; the caller finds out why
	}
	e := a.tour.next()
	poll, limit := a.poll(e)
	request := a.message(poll)
	wasUncertain := a.uncertain
	a.uncertain = true
	if _, trusted := c.shell.look(); !trusted { // so that a freeze from here on shows
		c.shell.step(KeeperTick{})
	}
	sent := c.cfg.Clock.Now()
	var response *writv1.AcquireResponse
	err := c.attempt(ctx, e, limit, func(ctx context.Context, e *dialEndpoint) (err error) {
		response, err = e.calls.acquire(ctx, request)
		return err
	})
	switch {
	case err != nil:
		return nil, a.refused(ctx, err, wasUncertain)
	case response.GetGrant() != nil:
		return a.granted(ctx, response.GetGrant(), sent)
	case response.GetWaiting() != nil:
		return nil, a.waiting(ctx, WaitingFromProto(response.GetWaiting()), sent, poll)
	}
	a.last = Errorf(ReasonInternal, "the server answered neither a grant nor a place in the queue")
	return nil, false
}

// message is the request of one attempt. An attempt that was given up may still be on its way out, so that each has its own.
func (a *clientAcquisition) message(poll time.Duration) *writv1.AcquireRequest {
	r := &writv1.AcquireRequest{
		Resource: a.request.Resource, Ttl: a.request.Ttl, RequestId: a.request.RequestId, Priority: a.request.Priority,
		Region: a.request.Region, Instance: a.request.Instance, Metadata: a.request.Metadata, WantWrit: a.request.WantWrit,
	}
	if poll > 0 {
		r.Wait = durationpb.New(poll)
	}
	return r
}

// poll returns how long an attempt may wait in the queue and how long it may take in all. The sum is about a quarter of
// the TTL, so that a node which has gone silent costs no more than that, and never so long that the grant is worthless.
func (a *clientAcquisition) poll(e *dialEndpoint) (poll, limit time.Duration) {
	most := a.ttl / 5 * 4
	slack := min(max(a.ttl/12, clientSlack(e)), most)
	if !a.wait {
		return 0, min(max(a.ttl/4, slack), most)
	}
	poll = min(a.ttl/6, most-slack)
	if a.giveUp != 0 {
		poll = min(poll, a.giveUp.Sub(a.client.cfg.Clock.Now()))
	}
	// Not 0: that would give up the place in the queue.
	poll = max(poll, time.Millisecond)
	return poll, poll + slack
}

// granted makes a hold of a grant that came in time.
func (a *clientAcquisition) granted(ctx context.Context, message *writv1.Grant, sent clock.Instant) (*Hold, bool) {
	grant, err := GrantFromProto(message)
	if err == nil && string(grant.Resource) != a.request.Resource {
		err = Errorf(ReasonInternal, "the server granted %s instead of %s", grant.Resource, a.request.Resource)
	}
	if err != nil {
		a.last = err
		return nil, false
	}
	grant.RequestID = a.request.RequestId
	hold := a.client.newHold(ctx, grant, message.GetWrit(), a.lead)
	adopted, err := a.client.shell.adopt(hold, sent)
	if adopted {
		return hold, false
	}
	// It was too long on its way. Asked for again, the same grant comes as a renewal.
	hold.cancel(ErrClosed)
	a.last = err
	return nil, err == nil
}

// waiting paces the polls: a server that answers early is not asked in a tight loop.
func (a *clientAcquisition) waiting(ctx context.Context, w *Waiting, sent clock.Instant, poll time.Duration) bool {
	a.last = a.held(w.HeldBy, w.HeldToken)
	a.tour.reset()
	now := a.client.cfg.Clock.Now()
	if a.giveUp != 0 && !now.Before(a.giveUp) {
		return false
	}
	return a.client.sleep(ctx, sent.Add(min(poll, w.Keep)/4).Sub(now)) || ctx.Err() != nil || a.client.ctx.Err() != nil
}

func (a *clientAcquisition) held(by Holder, token fence.Token) *Error {
	return &Error{
		Reason: ReasonHeld, Resource: Resource(a.request.Resource), Holder: by, Token: token,
		Message: fmt.Sprintf("%q is held by %s under token %s", a.request.Resource, by, token),
	}
}

// refused decides whether to go on after an error, and waits as long as that takes.
func (a *clientAcquisition) refused(ctx context.Context, err error, wasUncertain bool) bool {
	c := a.client
	reason := ReasonOf(err)
	a.last = clientTell(a.last, err)
	switch {
	case clientRetryable(err):
	case (reason == ReasonExpired || reason == ReasonReleased) && a.ownID:
		// This request was granted, but the answer was lost and the lease is over. Begin anew.
		a.request.RequestId = rand.Text()
		a.uncertain = false
	case a.wait && (reason == ReasonHeld || clientThrottled(err)):
		// Nobody keeps a place: it is held without a queue, or not to be asked for yet.
		a.uncertain = wasUncertain
	default:
		// A node answered: whatever an earlier attempt may have left behind is still to be cancelled.
		a.uncertain = wasUncertain
		return false
	}
	if a.giveUp != 0 && !c.cfg.Clock.Now().Before(a.giveUp) {
		return false
	}
	c.pause(ctx, a.tour, err)
	return true
}

// abandon tells the quorum that nobody waits for this request any more. A grant that was made meanwhile is released.
func (a *clientAcquisition) abandon() {
	request := &writv1.CancelAcquireRequest{
		Resource: a.request.Resource, RequestId: a.request.RequestId, Instance: a.client.cfg.Instance,
	}
	a.client.farewell("cancel acquire", func(ctx context.Context, e *dialEndpoint) error {
		_, err := e.lease.CancelAcquire(ctx, request)
		return err
	})
}
