package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// forwarder has the coordinator decide, wherever it is.
type forwarder struct {
	tracker *tracker
	config  Forward
	clock   clock.Clock
	metrics *metrics
}

// Pauses between two looks for the coordinator, for when nobody tells that it has changed.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 100 * time.Millisecond
)

// remoteCall calls one node.
type remoteCall[R any] func(ctx context.Context, l *link, opts ...grpc.CallOption) (R, error)

// manner is how a request may be passed on.
type manner struct {
	// wait is how long the request itself asks the coordinator to wait.
	wait time.Duration
	// once: what may have had its effect is not asked for again.
	once bool
	// moves: the request moves the coordinator away from the node that is asked. That one goes on and answers, so another
	// one's taking over does not end the call.
	moves bool
}

// decide answers what local answers if this node decides, and else what remote answers from the node that does. A request
// that finds no coordinator looks for one until its context ends, or patience does.
func decide[R any](ctx context.Context, f *forwarder, how manner, local func(context.Context) (R, error), remote remoteCall[R]) (R, error) {
	var none R
	from := callerOf(ctx)
	var search search
	for {
		v := f.tracker.current()
		began := f.clock.Now()
		if v.self || v.node.Name == "" || from.forwarded {
			resp, err := local(ctx)
			if !errors.Is(err, lease.ErrNotCoordinator) || from.forwarded {
				return resp, search.answer(err)
			}
			search.failed(v, err)
		} else if v.link == nil {
			search.failed(v, v.err)
		} else {
			resp, fail, err := attempt(ctx, f, v.link, from, how, remote)
			if !fail.again {
				if err == nil {
					f.metrics.forwarded.Inc()
				}
				return resp, search.answer(err)
			}
			search.failed(v, err)
			if fail.sent {
				search.sentTo = v.node.Name
			}
			search.over = fail.timedOut || (fail.sent && how.once)
		}
		if f.clock.Now().Sub(began) > f.config.Patience {
			search.since = 0 // it had been taken, and waited: the search begins anew
		}
		if err := search.pause(ctx, f, v); err != nil {
			return none, err
		}
	}
}

// failure says what a failed attempt means.
type failure struct {
	again    bool // another attempt is worth it
	sent     bool // the request may have had its effect
	timedOut bool // so much time has gone that another attempt is not worth it
}

// attempt asks the node behind l once.
func attempt[R any](ctx context.Context, f *forwarder, l *link, from *caller, how manner, remote remoteCall[R]) (R, failure, error) {
	callCtx, cancel := context.WithTimeout(ctx, f.config.Timeout+how.wait)
	defer cancel()
	if !how.moves {
		defer context.AfterFunc(l.over, cancel)()
	}
	callCtx = metadata.AppendToOutgoingContext(callCtx, keyForwarded, string(from.principal))
	var to peer.Peer
	resp, err := remote(callCtx, l, grpc.Peer(&to))
	if err == nil {
		return resp, failure{}, nil
	}
	if ctx.Err() != nil {
		return resp, failure{}, context.Cause(ctx)
	}
	fail := judge(err, to.Addr != nil)
	fail.timedOut = fail.again && l.over.Err() == nil && callCtx.Err() != nil
	return resp, fail, err
}

// judge sorts the errors of a call to another node. connected says whether the request was handed to a connection.
func judge(err error, connected bool) failure {
	st := status.Convert(err)
	if ours(st) {
		var e *lease.Error
		errors.As(lease.FromStatus(st), &e)
		// A node that does not know yet that this one is a node will learn it.
		notKnown := e.Reason == lease.ReasonDenied && e.Field == keyForwarded
		return failure{again: e.Reason == lease.ReasonNotCoordinator || notKnown}
	}
	switch st.Code() {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		// The connection broke, or the attempt was given up because the coordinator changed or took too long.
		return failure{again: true, sent: connected}
	}
	return failure{}
}

// ours reports whether a status was written by a node, and not by the transport.
func ours(st *status.Status) bool {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == lease.ErrorDomain {
			return true
		}
	}
	return false
}

// search is a request's search for the coordinator.
type search struct {
	since  clock.Instant // of the first failure in this row; 0 before
	wait   time.Duration // the last pause
	latest error
	name   string // of the node that latest is about
	sentTo string // the last node where an attempt may have had its effect
	over   bool   // no further attempt
}

// answer is what the request is answered when its latest attempt was refused with err. Of an earlier attempt that may have had
// its effect the refusal says nothing: what tells that nothing was done, or how things are without the effect, holds for the
// latest attempt alone.
func (s *search) answer(err error) error {
	if s.sentTo == "" {
		return err
	}
	said := lease.FromError(err)
	if !slices.Contains(ofOneAttempt, lease.ReasonOf(said)) {
		return err
	}
	s.latest = fmt.Errorf("asked again: %w", said)
	return s.giveUp()
}

// ofOneAttempt are the reasons that say what one attempt did not do, or what it found.
var ofOneAttempt = []lease.Reason{
	lease.ReasonNoQuorum, lease.ReasonNotCoordinator, lease.ReasonRecovering, lease.ReasonLimit,
	lease.ReasonHeld, lease.ReasonExpired, lease.ReasonReleased, lease.ReasonNotHolder,
}

func (s *search) failed(v *view, err error) { s.latest, s.name = err, v.node.Name }

// spent reports whether the search has taken longer than patience allows. The first call starts it.
func (s *search) spent(now clock.Instant, patience time.Duration) bool {
	if s.since == 0 {
		s.since = now
	}
	return s.over || now.Sub(s.since) >= patience
}

func (s *search) nextPause() time.Duration {
	s.wait = min(max(firstPause, 2*s.wait), lastPause)
	return s.wait
}

// pause waits until another attempt is worth it, or returns the answer when none is.
func (s *search) pause(ctx context.Context, f *forwarder, v *view) error {
	if s.spent(f.clock.Now(), f.config.Patience) {
		f.metrics.forwardGivenUp.Inc()
		return s.giveUp()
	}
	f.metrics.forwardRetries.Inc()
	timer := time.NewTimer(s.nextPause())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return s.interrupted(context.Cause(ctx))
	case <-v.changed:
	case <-timer.C:
	}
	return nil
}

// giveUp tells apart "nothing was changed" and "something may have been".
func (s *search) giveUp() error {
	var e *lease.Error
	switch {
	case s.sentTo != "":
		e = lease.Errorf(lease.ReasonUnknownOutcome, "the coordinator %s did not answer: %v", s.sentTo, lastWords(s.latest))
		e.Fix = "ask again with the same request id"
	case s.name != "":
		e = lease.Errorf(lease.ReasonNoQuorum, "the coordinator %s did not take the request: %v", s.name, lastWords(s.latest))
	default:
		e = lease.Errorf(lease.ReasonNoQuorum, "no coordinator is known: %v", lastWords(s.latest))
	}
	e.RetryAfter = lastPause
	return e
}

func (s *search) interrupted(cause error) error {
	if s.sentTo != "" {
		return s.giveUp()
	}
	return fmt.Errorf("looking for the coordinator: %w", cause)
}

// lastWords is the text of an error without the code that gRPC puts in front.
func lastWords(err error) string {
	if st, ok := status.FromError(err); ok {
		return st.Message()
	}
	return err.Error()
}
