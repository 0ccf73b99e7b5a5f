package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// A call that every node has failed is tried again after this pause, doubling up to the most, with jitter. The first
	// is short because a new coordinator may be there already.
	clientFirstPause = 20 * time.Millisecond
	clientMostPause  = 250 * time.Millisecond
	// clientLeastSlack is what a node may take beyond its round trips before it counts as slow.
	clientLeastSlack = 100 * time.Millisecond
	// clientFarewell bounds calls that nobody waits for: cancelling a request, releasing after the context has ended.
	clientFarewell = 2 * time.Second
)

// errSlow is why a node is asked last after it has not answered in time.
var errSlow = errors.New("lease: no answer in time")

// clientSlack is how long an answer may take on the way: a few round trips, and a little to think.
func clientSlack(e *dialEndpoint) time.Duration { return clientLeastSlack + 4*e.roundTrip() }

// clientRetryable tells whether another node, or the same one later, may answer better. The outcome of such a failure may
// be unknown, so it is only used for calls that may be carried out twice.
func clientRetryable(err error) bool {
	switch ReasonOf(err) {
	case ReasonUnknownOutcome, ReasonNoQuorum, ReasonNotCoordinator, ReasonRecovering:
		return true
	default:
		return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	}
}

// clientThrottled tells whether a node refused to begin and said when to ask again.
func clientThrottled(err error) bool {
	var own *Error
	return errors.As(err, &own) && own.Reason == ReasonLimit && own.RetryAfter > 0
}

// call asks one node after the other until one answers or ctx ends, at the latest after CallTimeout; a node gets
// AttemptTimeout to answer. A call that serves a lease is given the time within which it is worth anything, otherwise 0,
// and no node gets more than a quarter of that. What the call does must be idempotent: an attempt without an answer may
// have been carried out.
func (c *Client) call(ctx context.Context, what string, within time.Duration, do func(context.Context, *dialEndpoint) error) error {
	total := c.cfg.CallTimeout
	if within > 0 {
		total = min(total, within)
	}
	ctx, cancel := context.WithTimeout(ctx, total)
	defer cancel()
	tour := c.nodes.tour()
	var last error
	for {
		e := tour.next()
		limit := c.cfg.AttemptTimeout
		if within > 0 {
			limit = min(limit, max(within/4, clientSlack(e)))
		}
		err := c.attempt(ctx, e, limit, do)
		if err == nil || !clientRetryable(err) && !clientThrottled(err) {
			return err
		}
		last = clientTell(last, err)
		if !c.pause(ctx, tour, err) {
			return c.ended(ctx, what, tour, last)
		}
	}
}

// clientTell chooses which of two failures to show: what a node said tells more than that none did.
func clientTell(last, err error) error {
	if last == nil || ReasonOf(err) != "" {
		return err
	}
	return last
}

// attempt asks one node, for at most limit, and notes how it did.
func (c *Client) attempt(ctx context.Context, e *dialEndpoint, limit time.Duration, do func(context.Context, *dialEndpoint) error) error {
	call, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := FromError(do(call, e))
	switch {
	case err == nil || !clientRetryable(err):
		c.nodes.answered(e)
	case ctx.Err() == nil && c.ctx.Err() == nil:
		c.nodes.failed(e, err)
	}
	return err
}

// pause waits before the next attempt of a tour: not at all while there are nodes that have not been asked, then longer and
// longer, and as long as the node asks for, unless another one may know better. It returns false when ctx has ended or the
// client is closed.
func (c *Client) pause(ctx context.Context, tour *dialTour, err error) bool {
	if ctx.Err() != nil || c.ctx.Err() != nil {
		return false
	}
	tour.note(err)
	var span time.Duration
	if tour.round() {
		rounds := max(1, tour.asked/len(c.nodes.all))
		span = min(clientFirstPause<<min(rounds-1, 8), clientMostPause)
		span = span/2 + rand.N(span/2)
	}
	var own *Error
	if errors.As(err, &own) && own.RetryAfter > 0 && (tour.round() || !nodeMatter(own.Reason)) {
		span = max(span, own.RetryAfter+rand.N(own.RetryAfter/8+1))
	}
	return c.sleep(ctx, span)
}

// nodeMatter tells whether a reason is about the node that was asked rather than about the quorum.
func nodeMatter(reason Reason) bool {
	return reason == ReasonNoQuorum || reason == ReasonNotCoordinator || reason == ReasonUnknownOutcome
}

// sleep waits for a span, and returns false when ctx has ended or the client is closed.
func (c *Client) sleep(ctx context.Context, span time.Duration) bool {
	if span <= 0 {
		return true
	}
	timer := c.cfg.Clock.NewTimer(c.cfg.Clock.Now().Add(span))
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return false
}

// ended is the error of a call that had no time left: why, what the last attempt said, and what other nodes did.
func (c *Client) ended(ctx context.Context, what string, tour *dialTour, last error) error {
	cause, others := context.Cause(ctx), tour.others(last)
	switch {
	case c.ctx.Err() != nil:
		return ErrClosed
	case last == nil:
		return fmt.Errorf("lease: %s: %w%s", what, cause, others)
	case errors.Is(last, cause): // and, if something was sent, ErrUnknownOutcome
		return fmt.Errorf("lease: %s: %w%s", what, last, others)
	}
	return fmt.Errorf("lease: %s: %w; the last answer was: %w%s", what, cause, last, others)
}
