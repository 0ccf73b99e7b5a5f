package lease

import (
	"context"
	"time"

	"google.golang.org/grpc"
)

// Ask carries out a call of another service of the API with the client's choice of nodes: it goes to one after the other
// until one answers or ctx ends. A node gets patience to answer. What the call does must be idempotent: an attempt without
// an answer may have been carried out. The error names what was asked.
func (c *Client) Ask(ctx context.Context, what string, patience time.Duration, do func(context.Context, *grpc.ClientConn) error) error {
	tour := c.nodes.tour()
	var last error
	for {
		err := c.attempt(ctx, tour.next(), patience, func(ctx context.Context, e *dialEndpoint) error { return do(ctx, e.conn) })
		if err == nil || !clientRetryable(err) && !clientThrottled(err) {
			return err
		}
		last = clientTell(last, err)
		if !c.pause(ctx, tour, err) {
			return c.ended(ctx, what, tour, last)
		}
	}
}
