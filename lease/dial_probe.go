package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
)

const (
	// dialRefresh is how often the round trips are measured again.
	dialRefresh = 30 * time.Second
	// dialProbeTimeout bounds one probe.
	dialProbeTimeout = 2 * time.Second
	// dialRetry is how soon all nodes are looked at again when that has not told enough.
	dialRetry = 100 * time.Millisecond
	// dialGrace is how long Dial waits for other nodes after the first has answered: as long again as that took, within
	// these bounds. It decides only who is asked first.
	dialLeastGrace = 5 * time.Millisecond
	dialMostGrace  = 250 * time.Millisecond
)

// connect measures all nodes and returns when the nearest is known, or with an error when none answers before ctx ends.
// It leaves no goroutine behind.
func (s *dialSet) connect(ctx context.Context) error {
	for {
		began := s.clock.Now()
		err := s.probeAll(ctx)
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.probed, s.refresh = began, s.clock.Now().Add(dialRefresh)
			return nil
		}
		if !dialSleep(ctx, s.clock, dialRetry) {
			return fmt.Errorf("lease: no node answers: %w: %w", context.Cause(ctx), err)
		}
	}
}

// probeAll probes all nodes at once. It returns nil if one answers, and what each said otherwise.
func (s *dialSet) probeAll(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	answers := make(chan error, len(s.all))
	started := s.clock.Now()
	for _, e := range s.all {
		wg.Go(func() { answers <- s.probe(ctx, e) })
	}
	var errs []error
	var grace <-chan struct{}
	for range s.all {
		select {
		case err := <-answers:
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if grace == nil {
				now := s.clock.Now()
				timer := s.clock.NewTimer(now.Add(min(max(now.Sub(started), dialLeastGrace), dialMostGrace)))
				defer timer.Stop()
				grace = timer.C()
			}
		case <-grace:
			return nil
		}
	}
	if grace != nil {
		return nil
	}
	return errors.Join(errs...)
}

// probe asks a node for its status and takes the answer in. A node that was not measured before is asked twice, because
// the first answer includes the handshake.
func (s *dialSet) probe(ctx context.Context, e *dialEndpoint) error {
	asks := 1
	if e.roundTrip() == 0 || e.down.Load() {
		asks = 2
		e.conn.ResetConnectBackoff()
	}
	ctx, cancel := context.WithTimeout(ctx, dialProbeTimeout)
	defer cancel()
	var rtt time.Duration
	var answer *writv1.StatusResponse
	for range asks {
		sent := s.clock.Now()
		got, err := e.cluster.Status(ctx, &writv1.StatusRequest{})
		switch status.Code(err) {
		case codes.OK:
			answer = got
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unauthenticated, codes.Internal, codes.Unknown:
			return fmt.Errorf("%s: %w", e.address, FromError(err))
		}
		// Any other refusal is an answer too: the node is there.
		rtt = s.clock.Now().Sub(sent)
	}
	found := dialFound{
		name: answer.GetNode(), ready: answer == nil || answer.GetReady(),
		decides: answer.GetCoordinator() != "" && answer.GetCoordinator() == answer.GetNode(),
	}
	for _, n := range answer.GetNodes() {
		if n.GetName() == answer.GetNode() {
			found.region = n.GetRegion()
		}
	}
	s.measured(e, rtt, found)
	return nil
}

// run probes failed nodes until they are well, and all of them now and then, until ctx ends.
func (s *dialSet) run(ctx context.Context) {
	// A Go timer is good enough: after a suspend it only looks later.
	timer := time.NewTimer(dialRefresh)
	defer timer.Stop()
	for {
		timer.Reset(s.nextProbe().Sub(s.clock.Now()))
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
			continue
		case <-timer.C:
		}
		s.probeDue(ctx)
	}
}

// probeDue probes the nodes whose turn it is and waits for them.
func (s *dialSet) probeDue(ctx context.Context) {
	now := s.clock.Now()
	s.mu.Lock()
	all := !now.Before(s.refresh)
	if all {
		s.probed, s.refresh = now, now.Add(dialRefresh)
	}
	var due []*dialEndpoint
	for _, e := range s.all {
		if all || e.watched() && !now.Before(e.probeAt) {
			due = append(due, e)
		}
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, e := range due {
		wg.Go(func() {
			if err := s.probe(ctx, e); err != nil && ctx.Err() == nil {
				s.failed(e, err)
			}
		})
	}
	wg.Wait()
}

// nextProbe returns when the prober has to look again.
func (s *dialSet) nextProbe() clock.Instant {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.refresh
	for _, e := range s.all {
		if e.watched() {
			next = min(next, e.probeAt)
		}
	}
	return next
}

// dialSleep waits for a span of the clock, and tells whether it could before ctx ended.
func dialSleep(ctx context.Context, c clock.Clock, span time.Duration) bool {
	timer := c.NewTimer(c.Now().Add(span))
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-ctx.Done():
		return false
	}
}
