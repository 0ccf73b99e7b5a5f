package crowd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/history"
	"github.com/writ-io/writ/lease"
)

const (
	longTTL = 3 * time.Second
	// pace is how often a client does something.
	pace = 10 * time.Millisecond
	// callLimit is how long a client waits for an answer, and patientLimit how long it does sometimes: long enough for a
	// node to say that it found no coordinator.
	callLimit    = time.Second
	patientLimit = 5 * time.Second
)

// Config says who calls whom.
type Config struct {
	// ID tells the client from others of the same history.
	ID   int
	Seed uint64
	// Nodes are called at random, under the names given.
	Nodes []writv1.LeaseServiceClient
	Names []string
	// Resources are what is fought over.
	Resources []string
	// Start is when time began: the same for all clients.
	Start time.Time
	// Pace is how often a client does something. Default: 10 ms.
	Pace time.Duration
	// Local has every read answered from the node's own state, which may be old: they are not linearizable.
	Local bool
	// Begin, if set, is called before each call, and what it returns after it.
	Begin func(op history.Op) (end func(op history.Op))
}

// Client calls random nodes and notes what came of it. It repeats nothing: each call is a line of the history. One goroutine
// uses it.
type Client struct {
	config Config
	rng    *rand.Rand
	ops    []history.Op
	calls  int
	holds  map[string]grip // by resource; what it believes to hold, without looking at the clock
	past   map[string]grip // by resource; what it has lost, released or forgotten
}

// grip is a grant as its holder knows it.
type grip struct {
	token    uint64
	instance string
	ttl      time.Duration
}

// New makes a client.
func New(config Config) *Client {
	if config.Pace == 0 {
		config.Pace = pace
	}
	return &Client{
		config: config, rng: rand.New(rand.NewPCG(config.Seed, uint64(config.ID+1))), holds: make(map[string]grip), past: make(map[string]grip),
	}
}

// Ops is what came of the calls, unless [Config].Begin is set.
func (c *Client) Ops() []history.Op { return c.ops }

// Run calls until ctx ends, and finishes the call that it is in.
func (c *Client) Run(ctx context.Context) {
	tick := time.NewTicker(c.config.Pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// Whoever is in the middle of a call finishes it: nothing is left unknown only because the time is over.
			c.act(context.WithoutCancel(ctx))
		}
	}
}

// act does one thing.
func (c *Client) act(ctx context.Context) {
	name, dice := c.config.Resources[c.rng.IntN(len(c.config.Resources))], c.rng.IntN(100)
	if own := slices.Sorted(maps.Keys(c.holds)); len(own) > 0 && c.rng.IntN(2) == 0 {
		name = own[c.rng.IntN(len(own))]
	}
	old, stale := c.past[name]
	if grip, ok := c.holds[name]; ok {
		old.instance = grip.instance // to be told from the present grant by its token alone
		switch {
		case dice < 3 && stale:
			c.renew(ctx, name, old)
		case dice < 6 && stale:
			c.checkpoint(ctx, name, old)
		case dice < 40:
			c.renew(ctx, name, grip)
		case dice < 60:
			c.checkpoint(ctx, name, grip)
		case dice < 80:
			c.release(ctx, name, grip)
		case dice < 84:
			c.over(name) // dies, as far as the quorum can tell
		default:
			c.Get(ctx, name)
		}
		return
	}
	switch {
	case dice < 40:
		c.acquire(ctx, name)
	case dice < 47 && stale:
		c.renew(ctx, name, old)
	case dice < 50 && stale:
		c.checkpoint(ctx, name, old)
	default:
		c.Get(ctx, name)
	}
}

// over stops believing in a grant.
func (c *Client) over(name string) {
	if grip, ok := c.holds[name]; ok {
		c.past[name] = grip
		delete(c.holds, name)
	}
}

// call carries out one call at a random node and notes it. do fills in what it saw.
func (c *Client) call(ctx context.Context, op history.Op, do func(context.Context, writv1.LeaseServiceClient, *history.Sight) error) history.Op {
	limit := callLimit
	if c.rng.IntN(3) == 0 {
		limit = patientLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	node := c.rng.IntN(len(c.config.Nodes))
	c.calls++
	op.Client, op.Call = c.config.ID, time.Since(c.config.Start)
	var end func(history.Op)
	if c.config.Begin != nil {
		end = c.config.Begin(op)
	}
	err := do(ctx, c.config.Nodes[node], &op.Saw)
	op.Return = time.Since(c.config.Start)
	op.Outcome = history.OutcomeOf(op.Kind, err)
	op.Detail = c.config.Names[node]
	if err != nil {
		op.Saw = history.Sight{}
		op.Detail += ": " + err.Error()
	}
	var known *lease.Error
	if op.Outcome == history.Held && errors.As(lease.FromError(err), &known) {
		op.Saw = history.Sight{Token: uint64(known.Token), Holder: known.Holder.Instance}
	}
	if end != nil {
		end(op)
	} else {
		c.ops = append(c.ops, op)
	}
	return op
}

// underGrip makes a call that needs a grant.
func (c *Client) underGrip(ctx context.Context, op history.Op, name string, g grip, do func(context.Context, writv1.LeaseServiceClient) error) {
	op.Resource, op.Instance, op.Token, op.TTL = name, g.instance, g.token, g.ttl
	op = c.call(ctx, op, func(ctx context.Context, node writv1.LeaseServiceClient, _ *history.Sight) error {
		return do(ctx, node)
	})
	ended := op.Outcome == history.Expired || op.Outcome == history.Released || op.Outcome == history.NotHolder
	if c.holds[name] == g && (ended || op.Kind == history.Release) {
		c.over(name)
	}
}

func (c *Client) acquire(ctx context.Context, name string) {
	g := grip{instance: fmt.Sprintf("c%d-%d", c.config.ID, c.calls), ttl: c.ttl()}
	op := history.Op{Kind: history.Acquire, Resource: name, Instance: g.instance, TTL: g.ttl}
	op = c.call(ctx, op, func(ctx context.Context, node writv1.LeaseServiceClient, saw *history.Sight) error {
		response, err := node.Acquire(ctx, &writv1.AcquireRequest{
			Resource: name, Ttl: durationpb.New(g.ttl), RequestId: g.instance, Instance: g.instance,
		})
		grant := response.GetGrant()
		*saw = history.Sight{Token: grant.GetToken(), Holder: grant.GetHolder().GetInstance(), Data: string(grant.GetCheckpoint())}
		return err
	})
	if op.Outcome == history.OK {
		g.token = op.Saw.Token
		c.holds[name] = g
	}
}

// ttl draws one: mostly such that leases expire, and sometimes longer than any takeover of the coordinator lasts, after which
// the lease must still be held.
func (c *Client) ttl() time.Duration {
	if c.rng.IntN(8) == 0 {
		return longTTL + time.Duration(c.rng.Int64N(int64(longTTL)))
	}
	return time.Duration(300+c.rng.IntN(900)) * time.Millisecond
}

func (c *Client) renew(ctx context.Context, name string, g grip) {
	c.underGrip(ctx, history.Op{Kind: history.Renew}, name, g, func(ctx context.Context, node writv1.LeaseServiceClient) error {
		response, err := node.Renew(ctx, &writv1.RenewRequest{
			Leases: []*writv1.LeaseRef{{Resource: name, Token: g.token}}, Instance: g.instance,
		})
		if err != nil {
			return err
		}
		for _, failure := range response.GetFailures() {
			return lease.Errorf(lease.Reason(failure.GetReason()), "%s", failure.GetMessage())
		}
		return nil
	})
}

func (c *Client) release(ctx context.Context, name string, g grip) {
	c.underGrip(ctx, history.Op{Kind: history.Release}, name, g, func(ctx context.Context, node writv1.LeaseServiceClient) error {
		_, err := node.Release(ctx, &writv1.ReleaseRequest{Resource: name, Token: g.token, Instance: g.instance})
		return err
	})
}

func (c *Client) checkpoint(ctx context.Context, name string, g grip) {
	data := fmt.Sprintf("c%d-%d", c.config.ID, c.calls)
	c.underGrip(ctx, history.Op{Kind: history.Checkpoint, Data: data}, name, g, func(ctx context.Context, node writv1.LeaseServiceClient) error {
		_, err := node.Checkpoint(ctx, &writv1.CheckpointRequest{Resource: name, Token: g.token, Data: []byte(data), Instance: g.instance})
		return err
	})
}

// Get reads from the node's view or, half the time, from the coordinator's memory. Both are linearizable, unless
// [Config].Local is set.
func (c *Client) Get(ctx context.Context, name string) {
	request := &writv1.GetRequest{Resource: name, WithDeadline: c.rng.IntN(2) == 0}
	if c.config.Local {
		request = &writv1.GetRequest{Resource: name, Consistency: writv1.ReadConsistency_READ_CONSISTENCY_LOCAL}
	}
	c.call(ctx, history.Op{Kind: history.Get, Resource: name}, func(ctx context.Context, node writv1.LeaseServiceClient, saw *history.Sight) error {
		response, err := node.Get(ctx, request)
		l := response.GetLease()
		*saw = history.Sight{Token: l.GetToken(), Holder: l.GetHolder().GetInstance(), Free: l.GetState() == writv1.LeaseState_LEASE_STATE_FREE}
		switch {
		case saw.Free && l.GetEnd() == writv1.EndReason_END_REASON_RELEASED:
			saw.End = history.EndReleased
		case saw.Free && l.GetEnd() == writv1.EndReason_END_REASON_EXPIRED:
			saw.End = history.EndExpired
		}
		return err
	})
}
