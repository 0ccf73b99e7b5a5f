package lease

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/writ-io/writ/lease/clock"
)

// Client acquires leases and keeps them alive. One client serves a whole process: it renews everything that the process
// holds in one call, and its methods are safe for concurrent use.
type Client struct {
	cfg   Config
	nodes *dialSet
	shell *keeperShell

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	loops  sync.WaitGroup // the loops of the shell and of the prober

	mu        sync.Mutex
	closed    bool           // guarded by mu
	farewells sync.WaitGroup // requests being cancelled; nothing is added once closed
	done      chan struct{}  // closed when Close has finished
}

// clientSpread is how much earlier than others a process may renew, in thousandths.
const clientSpread = 100

// Dial connects to the quorum: it measures which node is nearest and returns once one has answered. Errors: what
// [Config.Validate] finds, INVALID for certificates that cannot be used, and why each node failed if none answers before
// ctx ends or DialTimeout has passed. Close the client when it is not needed any more.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	creds, err := cfg.credentials()
	if err != nil {
		return nil, err
	}
	nodes, err := newDialSet(cfg, creds)
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, nodes: nodes, done: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if c.shell, err = newKeeperShell(c, rand.IntN(clientSpread+1)); err == nil {
		dial, cancel := context.WithTimeout(ctx, cfg.DialTimeout)
		err = nodes.connect(dial)
		cancel()
	}
	if err != nil {
		c.cancel()
		nodes.close()
		return nil, err
	}
	c.loops.Go(func() { c.shell.run(c.ctx) })
	if len(nodes.all) > 1 {
		c.loops.Go(func() { nodes.run(c.ctx) })
	}
	return c, nil
}

// Instance returns the name by which the quorum tells this process from others of its principal.
func (c *Client) Instance() string { return c.cfg.Instance }

// Clock returns the clock by which leases are believed.
func (c *Client) Clock() clock.Clock { return c.cfg.Clock }

// Region returns where this process runs, as it was configured; may be empty.
func (c *Client) Region() string { return c.cfg.Region }

// Close stops renewing and ends the context of every hold with [ErrClosed]. It does not release them: the leases run out
// by themselves within their TTL, which keeps them safe from a successor while this process winds down. Use
// [Client.ReleaseAll] before to hand them over at once. Close waits for everything the client has started, which takes up
// to a few seconds while abandoned requests are cancelled. Calls under way end with an error. It returns nil.
func (c *Client) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	if !first {
		<-c.done
		return nil
	}
	c.cancel()
	c.shell.close()
	c.loops.Wait()
	c.farewells.Wait()
	c.nodes.close()
	close(c.done)
	return nil
}

// clientReleases bounds how many releases are under way at once.
const clientReleases = 64

// ReleaseAll releases every hold, several at a time. It returns what failed, joined.
func (c *Client) ReleaseAll(ctx context.Context) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		errs  []error // guarded by mu
		slots = make(chan struct{}, clientReleases)
	)
	for _, h := range c.shell.all() {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := h.Release(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// farewell carries out a call that nobody waits for but Close.
func (c *Client) farewell(what string, do func(context.Context, *dialEndpoint) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.farewells.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), clientFarewell)
		defer cancel()
		tour := c.nodes.tour()
		for range 2 * len(c.nodes.all) {
			err := c.attempt(ctx, tour.next(), clientFarewell/2, do)
			if err == nil || !clientRetryable(err) || ctx.Err() != nil {
				return
			}
			c.cfg.Logger.Debug("farewell failed", "call", what, "error", err)
			c.pause(ctx, tour, err)
		}
	})
}
