//go:build linux

package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/history"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/wait"
)

const (
	counterClients   = 4
	counterResources = 3
	counterTTL       = 2 * time.Second
	counterLimit     = 2 * time.Second
	counterPause     = 30 * time.Millisecond
)

var counter = Kind{
	Name: "counter", Doc: "holders count in the checkpoint; nothing acknowledged is lost",
	Rate: 1, Bound: 3*time.Second + allowance,
	Start: func(w World) (Workload, error) {
		q, err := w.dial()
		return &count{world: w, quorum: q}, err
	},
	Check: checkCounter,
}

// count has clients count.
type count struct {
	world  World
	quorum *quorum
}

// counted is a call, and what came of it, as it is recorded. An acquisition has the resource, and then the token and the
// number that came with it; a store and a release have all three.
type counted struct {
	Resource string `json:"resource"`
	Token    uint64 `json:"token,omitempty"`
	Number   int    `json:"number,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

// Close counts once more under every resource: none is held for good by somebody who is gone.
func (c *count) Close(ctx context.Context) error {
	defer c.quorum.close()
	rng := rand.New(rand.NewPCG(c.world.Seed, 0))
	for r := range counterResources {
		for n := 0; c.turn(ctx, rng, "last", fmt.Sprintf("last-%d-%d", r, n), r) != record.OK; n++ {
			if !wait.For(ctx, counterPause) {
				return fmt.Errorf("workload: count/%d is not granted though no fault is left", r)
			}
		}
	}
	return nil
}

func (c *count) Run(ctx context.Context, round int) error {
	var running sync.WaitGroup
	for i := range counterClients {
		rng := rand.New(rand.NewPCG(c.world.Seed, uint64(round)<<16|uint64(i)))
		running.Go(func() {
			for turn := 0; wait.For(ctx, time.Duration(rng.Int64N(int64(2*counterPause)))); turn++ {
				c.turn(context.WithoutCancel(ctx), rng, fmt.Sprintf("count%d", i), fmt.Sprintf("n%d-%d-%d", i, round, turn), rng.IntN(counterResources))
			}
		})
	}
	running.Wait()
	return nil
}

// turn acquires, counts and releases, each at a node of its own and each once. It returns what came of the acquisition.
func (c *count) turn(ctx context.Context, rng *rand.Rand, client, instance string, resource int) record.Outcome {
	what := counted{Resource: fmt.Sprintf("count/%d", resource)}
	outcome := c.call(ctx, rng, client, history.Acquire, &what, func(ctx context.Context, node writv1.LeaseServiceClient) error {
		response, err := node.Acquire(ctx, &writv1.AcquireRequest{
			Resource: what.Resource, Ttl: durationpb.New(counterTTL), RequestId: instance, Instance: instance,
		})
		if err != nil {
			return err
		}
		what.Token = response.GetGrant().GetToken()
		if data := response.GetGrant().GetCheckpoint(); len(data) > 0 {
			if what.Number, err = strconv.Atoi(string(data)); err != nil {
				what.Number, what.Detail = -1, err.Error() // which nobody stored
			}
		}
		return nil
	})
	if outcome != record.OK {
		return outcome
	}
	what.Number++
	c.call(ctx, rng, client, history.Checkpoint, &what, func(ctx context.Context, node writv1.LeaseServiceClient) error {
		_, err := node.Checkpoint(ctx, &writv1.CheckpointRequest{
			Resource: what.Resource, Token: what.Token, Data: strconv.AppendInt(nil, int64(what.Number), 10), Instance: instance,
		})
		return err
	})
	c.call(ctx, rng, client, history.Release, &what, func(ctx context.Context, node writv1.LeaseServiceClient) error {
		_, err := node.Release(ctx, &writv1.ReleaseRequest{Resource: what.Resource, Token: what.Token, Instance: instance})
		return err
	})
	return outcome
}

// call makes a call and records it.
func (c *count) call(ctx context.Context, rng *rand.Rand, client string, kind history.Kind, what *counted,
	do func(context.Context, writv1.LeaseServiceClient) error,
) record.Outcome {
	ctx, cancel := context.WithTimeout(ctx, counterLimit)
	defer cancel()
	done := c.world.Record.Call("counter", client, kind.String(), *what)
	err := do(ctx, c.quorum.nodes[rng.IntN(len(c.quorum.nodes))])
	outcome := record.Fail
	switch history.OutcomeOf(kind, err) {
	case history.OK:
		outcome = record.OK
	case history.Unknown, history.Absurd:
		outcome = record.Unknown
	case history.Held, history.Expired, history.Released, history.NotHolder, history.NotFound, history.Refused:
	}
	if err != nil {
		what.Detail = err.Error()
	}
	done(outcome, *what)
	what.Detail = ""
	return outcome
}

// grant is an acquisition that succeeded, and what its holder tried to store.
type grant struct {
	token      uint64
	number     int
	at, until  time.Duration // of the call
	round      int
	stores     []*record.Call
	storedWhat []counted
}

func checkCounter(h *record.History) []verdict.Judgement {
	numbers := judgement("counter", "nothing lost", "every holder received the last number acknowledged, or one sent since")
	tokens := judgement("counter", "tokens increase", "a grant acknowledged before another was asked for has the smaller token")
	grants, err := countedGrants(h)
	if err != nil {
		return garbled("counter", "nothing lost", err)
	}
	for _, resource := range slices.Sorted(maps.Keys(grants)) {
		checkNumbers(&numbers, resource, grants[resource])
		checkTokens(&tokens, resource, grants[resource])
	}
	return []verdict.Judgement{numbers, tokens}
}

// countedGrants reads the record. Grants of a resource are in the order of their tokens.
func countedGrants(h *record.History) (map[string][]*grant, error) {
	all, byToken := make(map[string][]*grant), make(map[uint64]*grant)
	var stores []*record.Call
	for _, c := range h.Of("counter") {
		switch {
		case c.Op == history.Checkpoint.String():
			stores = append(stores, c)
		case c.Op == history.Acquire.String() && c.Outcome == record.OK:
			var what counted
			if err := record.Decode(c.Result, &what); err != nil {
				return nil, fmt.Errorf("the answer to call %d: %w", c.ID, err)
			}
			g := &grant{token: what.Token, number: what.Number, at: c.At, until: c.Returned, round: c.Round}
			all[what.Resource] = append(all[what.Resource], g)
			byToken[what.Token] = g
		}
	}
	for _, c := range stores {
		var what counted
		if err := record.Decode(c.Value, &what); err != nil {
			return nil, fmt.Errorf("call %d: %w", c.ID, err)
		}
		g := byToken[what.Token]
		if g == nil {
			return nil, errors.New("a store under a token that nobody was granted: " + strconv.FormatUint(what.Token, 10))
		}
		g.stores, g.storedWhat = append(g.stores, c), append(g.storedWhat, what)
	}
	for _, grants := range all {
		slices.SortStableFunc(grants, func(a, b *grant) int { return cmp.Compare(a.token, b.token) })
	}
	return all, nil
}

// checkNumbers goes through the grants of a resource with the numbers that may be stored.
func checkNumbers(j *verdict.Judgement, resource string, grants []*grant) {
	possible := []int{0}
	for _, g := range grants {
		if !slices.Contains(possible, g.number) {
			blame(j, g.round, "%s: %d came with the grant of %d at %v, and only %v can have been stored", resource, g.number, g.token, g.at, possible)
		}
		possible = []int{g.number}
		for i, c := range g.stores {
			switch c.Outcome {
			case record.OK:
				possible = []int{g.storedWhat[i].Number}
			case record.Unknown:
				possible = append(possible, g.storedWhat[i].Number)
			case record.Fail:
			}
		}
	}
}

// checkTokens looks for a grant that was answered before another was asked for and has no smaller token.
func checkTokens(j *verdict.Judgement, resource string, grants []*grant) {
	for i, g := range grants {
		if i > 0 && grants[i-1].token == g.token {
			blame(j, g.round, "%s: token %d was granted twice", resource, g.token)
		}
	}
	// From the largest token down: the earliest answer among those that are larger.
	earliest := time.Duration(1<<63 - 1)
	var whose *grant
	for _, g := range slices.Backward(grants) {
		if whose != nil && earliest < g.at {
			blame(j, g.round, "%s: %d was granted by %v, and %d only asked for at %v", resource, whose.token, earliest, g.token, g.at)
		}
		if g.until < earliest {
			earliest, whose = g.until, g
		}
	}
}
