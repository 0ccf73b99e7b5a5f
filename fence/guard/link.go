package guard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
)

const (
	// A node that does not take a stream within this time is given up.
	linkConnect = 5 * time.Second
	// A conversation that lasted this long was a good one: the next node is tried at once.
	linkGood = 10 * time.Second
	// Between attempts the link waits, doubling up to the most when every node has failed.
	linkFirstWait = 25 * time.Millisecond
	linkMostWait  = 2 * time.Second
	// linkMessage bounds what a node may send in one message.
	linkMessage = 16 << 20
)

var (
	errSilent = errors.New("guard: the node has not answered for too long")
	errSlow   = errors.New("guard: the node did not take a stream in time")
)

// link keeps a stream with one of the nodes, and goes on at the next one when it breaks.
type link struct {
	guard   *Guard
	options []grpc.DialOption
}

func newLink(g *Guard, creds credentials.TransportCredentials) *link {
	return &link{guard: g, options: append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithUserAgent("writ-guard"),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(linkMessage)),
	}, g.cfg.DialOptions...)}
}

// run speaks with one node after the other until ctx ends.
func (l *link) run(ctx context.Context) {
	g := l.guard
	endpoints := g.cfg.Endpoints
	timer := g.clock.NewTimer(clock.Never)
	defer timer.Stop()
	told := make(map[string]string) // by endpoint: the same complaint is not repeated with every attempt
	for at, failures := 0, 0; ctx.Err() == nil; at++ {
		address := endpoints[at%len(endpoints)]
		began := g.clock.Now()
		err := l.converse(ctx, address)
		if ctx.Err() != nil {
			return
		}
		if g.clock.Now().Sub(began) >= linkGood {
			failures = 0
			clear(told)
		}
		failures++
		g.noteLink("", err)
		if text := err.Error(); text != told[address] {
			told[address] = text
			g.logger.Info("no conversation with a node; trying the next one", "endpoint", address, "error", err)
		}
		timer.Reset(g.clock.Now().Add(linkWait(failures, len(endpoints))))
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
		}
	}
}

// linkWait is how long to wait after the latest of so many failures in a row.
func linkWait(failures, endpoints int) time.Duration {
	rounds := failures / endpoints
	wait := min(linkFirstWait<<min(rounds, 10), linkMostWait)
	return wait*4/5 + rand.N(wait*2/5)
}

// conversation is one stream. Its outbox is drained by a goroutine of its own, so that a node that does not read holds up
// nobody.
type conversation struct {
	cancel context.CancelCauseFunc
	ready  chan struct{} // holds one token while the outbox may not be empty

	mu     sync.Mutex
	outbox []*writv1.GuardRequest // guarded by mu
}

func (c *conversation) say(requests ...*writv1.GuardRequest) {
	c.mu.Lock()
	c.outbox = append(c.outbox, requests...)
	c.mu.Unlock()
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

func (c *conversation) take() []*writv1.GuardRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	requests := c.outbox
	c.outbox = nil
	return requests
}

// converse speaks with one node until the stream breaks, which is always an error.
func (l *link) converse(ctx context.Context, address string) error {
	g := l.guard
	target := address
	if !strings.Contains(target, "://") {
		target = "passthrough:///" + target // the dialer looks names up for each connection
	}
	conn, err := grpc.NewClient(target, l.options...)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // its only error is that it was closed before
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slow := time.AfterFunc(linkConnect, func() { cancel(errSlow) })
	stream, err := writv1.NewFenceServiceClient(conn).Guard(ctx)
	if !slow.Stop() && err == nil {
		err = errSlow
	}
	if err != nil {
		return because(ctx, err)
	}
	c := &conversation{cancel: cancel, ready: make(chan struct{}, 1)}
	var sending sync.WaitGroup
	sending.Go(func() { c.send(ctx, stream) })
	g.logger.Debug("speaking with a node", "endpoint", address)
	g.noteLink(address, nil)
	g.connected(c)
	for {
		var m *writv1.GuardResponse
		if m, err = stream.Recv(); err != nil {
			break
		}
		g.heard(c, m)
	}
	g.disconnected(c)
	err = because(ctx, err)
	cancel(nil)
	sending.Wait()
	return err
}

// send carries the outbox out until ctx ends.
func (c *conversation) send(ctx context.Context, stream grpc.BidiStreamingClient[writv1.GuardRequest, writv1.GuardResponse]) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.ready:
		}
		for _, r := range c.take() {
			if err := stream.Send(r); err != nil {
				return // what broke the stream, Recv tells
			}
		}
	}
}

// because prefers why the guard itself ended a conversation to what the stream made of it.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}
