package lease_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/lease/clock/bubble"
	"github.com/writ-io/writ/lease/leasetest"
)

// world is a quorum of test doubles and clients of it, all in one bubble of invented time.
type world struct {
	*testing.T
	quorum  *leasetest.Quorum
	network *leasetest.Network
	nodes   []*leasetest.Node
	clock   *skewedClock
}

// skewedClock is a bubble's clock with a time of day that a test can move.
type skewedClock struct {
	clock.Clock
	skew atomic.Int64
}

func (c *skewedClock) Wall() time.Time { return c.Clock.Wall().Add(time.Duration(c.skew.Load())) }

// inBubble runs a test against n nodes, node-1 in region eu, node-2 in us, node-3 in ap.
func inBubble(t *testing.T, n int, test func(*world)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		w := &world{T: t, network: leasetest.NewNetwork(), clock: &skewedClock{Clock: clock.Monotonic()}}
		w.quorum = leasetest.NewQuorum(w.clock)
		for i := range n {
			node := leasetest.NewNode(w.quorum, fmt.Sprintf("node-%d:7411", i+1), []string{"eu", "us", "ap"}[i])
			node.SetDelay(time.Duration(i+1) * 5 * time.Millisecond) // node-1 is nearest
			w.network.Start(node)
			w.nodes = append(w.nodes, node)
			t.Cleanup(node.Stop)
		}
		test(w)
	})
}

func (w *world) config() lease.Config {
	cfg := lease.Config{
		Insecure: true, Clock: w.clock, Region: "eu",
		DialOptions: []grpc.DialOption{w.network.Option()},
	}
	for i := range w.nodes {
		cfg.Endpoints = append(cfg.Endpoints, fmt.Sprintf("node-%d:7411", i+1))
	}
	return cfg
}

func (w *world) dial() *lease.Client { return w.dialWith(w.config()) }

func (w *world) dialWith(cfg lease.Config) *lease.Client {
	w.Helper()
	c, err := lease.Dial(w.Context(), cfg)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := c.Close(); err != nil {
			w.Error(err)
		}
	})
	return c
}

func (w *world) acquire(c *lease.Client, resource string, ttl time.Duration) *lease.Hold {
	w.Helper()
	h, err := c.Acquire(w.Context(), resource, lease.AcquireOptions{TTL: ttl})
	if err != nil {
		w.Fatal(err)
	}
	return h
}

// pass lets time pass and everything settle.
func (w *world) pass(span time.Duration) {
	timer := w.clock.NewTimer(w.clock.Now().Add(span))
	defer timer.Stop()
	<-timer.C()
	synctest.Wait()
}

func (w *world) freezeAll() {
	for _, n := range w.nodes {
		n.Freeze()
	}
}

func (w *world) thawAll() {
	for _, n := range w.nodes {
		n.Thaw()
	}
}

func (w *world) calls(method string) int {
	sum := 0
	for _, n := range w.nodes {
		sum += n.Calls(method)
	}
	return sum
}

// script sets a script on every node.
func (w *world) script(method string, s leasetest.Script) {
	for _, n := range w.nodes {
		n.Script(method, s)
	}
}

// loseAnswers carries out the next calls of a method and breaks off instead of answering.
func (w *world) loseAnswers(method string, times int32) {
	var lost atomic.Int32
	w.script(method, func(_ context.Context, _ any, next func() (any, error)) (any, error) {
		response, err := next()
		if lost.Add(1) <= times {
			return nil, lease.ErrUnknownOutcome
		}
		return response, err
	})
}

func (w *world) wantErr(got, want error) {
	w.Helper()
	if !errors.Is(got, want) {
		w.Fatalf("got error %v, want %v", got, want)
	}
}

func (w *world) wantEnded(h *lease.Hold, cause error) {
	w.Helper()
	select {
	case <-h.Done():
	default:
		w.Fatalf("the context of %s goes on", h.Resource())
	}
	if !errors.Is(h.Err(), cause) || !errors.Is(context.Cause(h.Context()), cause) {
		w.Fatalf("%s ended with %v, want %v", h.Resource(), h.Err(), cause)
	}
	if h.Valid() || h.Remaining() != 0 {
		w.Fatalf("%s has ended and is valid for %v", h.Resource(), h.Remaining())
	}
}

func (w *world) wantHeld(h *lease.Hold) {
	w.Helper()
	if err := h.Err(); err != nil || !h.Valid() {
		w.Fatalf("%s is not held: %v, %v left", h.Resource(), err, h.Remaining())
	}
	if info := w.quorum.Info(string(h.Resource())); info.State != lease.Held || info.Token != h.Token() {
		w.Fatalf("%s is %v under %v at the quorum, held here under %v", h.Resource(), info.State, info.Token, h.Token())
	}
}
