//go:build linux

package cluster

import (
	"context"
	"time"

	"github.com/writ-io/writ/jepsen/wait"
)

// askPace is how often nodes are asked while something is waited for.
const askPace = 50 * time.Millisecond

// AwaitNode waits until node i says that it can serve, and fails if it ends or ctx does.
func (c *Cluster) AwaitNode(ctx context.Context, i int) error {
	return until(ctx, func(ctx context.Context) (bool, error) {
		c.mu.Lock()
		err := c.check(i)
		c.mu.Unlock()
		if err != nil {
			return false, err
		}
		status, err := c.Status(ctx, i)
		return err == nil && status.GetReady(), nil
	})
}

// Use has node i be started by another program than [Config].Binary from now on; empty: by that again.
func (c *Cluster) Use(i int, binary string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.binaries[i] = binary
}

// until asks again and again.
func until(ctx context.Context, ask func(context.Context) (bool, error)) error {
	for {
		if done, err := ask(ctx); done || err != nil {
			return err
		}
		if !wait.For(ctx, askPace) {
			return context.Cause(ctx)
		}
	}
}
