//go:build linux

package workload

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/wait"
	"github.com/writ-io/writ/lease"
)

const (
	believers       = 6
	beliefResources = 2
	beliefTTL       = 1500 * time.Millisecond
	// beliefWait is how long a client queues, and beliefLimit bounds an acquisition.
	beliefWait, beliefLimit = 2 * time.Second, 4 * time.Second
	// beliefLook is how often a holder looks whether its hold is valid.
	beliefLook = 4 * time.Millisecond
)

// What is recorded of it.
const (
	opAcquire  = "acquire"
	opBelieved = "believed"
)

var believing = Kind{
	Name: "belief", Doc: "holders say from when until when they believed to hold; no two of them at a time",
	Rate: 0.2, Bound: beliefTTL + beliefWait + 3*time.Second + allowance,
	Start: startBelieving,
	Check: checkBelief,
}

// believe has clients of the SDK at work, which no fault stops or kills: what is tried is what they believe while the quorum
// and the network are harmed, and some of them are cut off.
type believe struct {
	world   World
	clients []*lease.Client
}

// Belief is a grant, and when its holder was seen to believe in it, by the clock of the record.
type Belief struct {
	Resource string        `json:"resource"`
	Token    fence.Token   `json:"token,omitzero"`
	From     time.Duration `json:"from,omitempty"`
	Until    time.Duration `json:"until,omitempty"`
	Detail   string        `json:"detail,omitempty"`
	// Client and Round are those of the record.
	Client string `json:"-"`
	Round  int    `json:"-"`
}

func startBelieving(w World) (Workload, error) {
	b := &believe{world: w}
	files := w.Lab.Nodes.Client()
	for i := range believers {
		// Some are never cut off: they are granted what the others believe in for a while longer.
		party := []string{Client, lab.Observer}[i%2]
		ctx, cancel := context.WithTimeout(context.Background(), allowance)
		client, err := lease.Dial(ctx, lease.Config{
			Endpoints: files.Endpoints, CAFile: files.CAFile, CertFile: files.CertFile, KeyFile: files.KeyFile,
			Instance: believer(i), AttemptTimeout: time.Second, CallTimeout: 5 * time.Second,
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(w.Lab.Net.Dial(party))},
		})
		cancel()
		if err != nil {
			b.close()
			return nil, err
		}
		b.clients = append(b.clients, client)
	}
	return b, nil
}

func believer(i int) string { return fmt.Sprintf("believer%d", i) }

func (b *believe) close() {
	for _, client := range b.clients {
		_ = client.Close() // what it holds is released or runs out
	}
}

// Close acquires every resource once more: none is held for good by somebody who is gone.
func (b *believe) Close(ctx context.Context) error {
	defer b.close()
	for i := range beliefResources {
		hold, err := b.clients[0].Acquire(ctx, beliefResource(i), lease.AcquireOptions{TTL: beliefTTL})
		if err != nil {
			return fmt.Errorf("workload: %s is not granted though no fault is left: %w", beliefResource(i), err)
		}
		_ = hold.Release(ctx) // or it runs out
	}
	return nil
}

func beliefResource(i int) string { return fmt.Sprintf("belief/%d", i) }

func (b *believe) Run(ctx context.Context, round int) error {
	var running sync.WaitGroup
	for i, client := range b.clients {
		rng := rand.New(rand.NewPCG(b.world.Seed, uint64(round)<<16|0x4000|uint64(i)))
		running.Go(func() {
			for wait.For(ctx, time.Duration(rng.Int64N(int64(100*time.Millisecond)))) {
				b.turn(ctx, rng, believer(i), client)
			}
		})
	}
	running.Wait()
	return nil
}

// turn acquires, believes for a while, and lets go or falls silent.
func (b *believe) turn(ctx context.Context, rng *rand.Rand, name string, client *lease.Client) {
	what := Belief{Resource: beliefResource(rng.IntN(beliefResources))}
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), beliefLimit)
	defer cancel()
	done := b.world.Record.Call("belief", name, opAcquire, what)
	hold, err := client.Acquire(asking, what.Resource, lease.AcquireOptions{TTL: beliefTTL, MaxWait: beliefWait})
	switch {
	case err == nil:
		what.Token = hold.Token()
		done(record.OK, what)
	case lease.ReasonOf(err) == lease.ReasonHeld:
		done(record.Fail, what)
		return
	default:
		what.Detail = err.Error()
		done(record.Unknown, what)
		return
	}
	span := time.Duration(rng.Int64N(int64(600 * time.Millisecond)))
	if rng.IntN(2) == 0 {
		span = beliefTTL + time.Duration(rng.Int64N(int64(2*beliefTTL))) // so that it is renewed, or lost, while others wait
	}
	if what.believe(ctx, b.world.Record, hold, span) {
		b.world.Record.Event("belief", name, opBelieved, what)
	}
	if rng.IntN(8) == 0 {
		hold.Abandon()
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer stop()
	_ = hold.Release(ctx) // or it runs out
}

// believe looks at a hold until it is lost or span is over, and notes when it was valid. A hold that is valid when it is looked
// at was so at the moment before, whenever the answer comes: it never becomes valid again.
func (w *Belief) believe(ctx context.Context, r *record.Writer, hold *lease.Hold, span time.Duration) bool {
	began := r.Now()
	for {
		at := r.Now()
		if !hold.Valid() {
			break
		}
		if w.From == 0 {
			w.From = at
		}
		w.Until = at
		if at-began >= span || !wait.For(ctx, beliefLook) {
			break
		}
	}
	return w.Until > w.From
}

// Beliefs are those that a record holds, by resource, in the order in which they began.
func Beliefs(h *record.History) (map[string][]Belief, error) {
	all := make(map[string][]Belief)
	for _, e := range h.Events {
		if e.Workload != "belief" || e.Op != opBelieved {
			continue
		}
		w := Belief{Client: e.Client, Round: e.Round}
		if err := record.Decode(e.Value, &w); err != nil {
			return nil, fmt.Errorf("what %s believed at %v: %w", e.Client, e.At, err)
		}
		if w.Resource == "" || w.Token == 0 || w.From >= w.Until {
			return nil, fmt.Errorf("what %s believed at %v: field \"resource\", \"token\" or \"until\" is missing, or before \"from\"", e.Client, e.At)
		}
		all[w.Resource] = append(all[w.Resource], w)
	}
	for _, said := range all {
		slices.SortStableFunc(said, func(a, b Belief) int { return cmp.Compare(a.From, b.From) })
	}
	return all, nil
}

// checkBelief looks for two that believed at a time, and for tokens that do not increase with the beliefs.
func checkBelief(h *record.History) []verdict.Judgement {
	const check = "S1 and S7"
	all, err := Beliefs(h)
	if err != nil {
		return garbled("belief", check, err)
	}
	j := judgement("belief", check, "")
	n := 0
	for _, resource := range slices.Sorted(maps.Keys(all)) {
		n += len(all[resource])
		checkBeliefs(&j, all[resource])
	}
	j.Reason = fmt.Sprintf("%d beliefs, one at a time, under increasing tokens", n)
	if j.Verdict == verdict.Invalid {
		j.Reason = "two believed to hold at a time, or under tokens that do not increase"
	}
	return []verdict.Judgement{j}
}

// checkBeliefs goes through those of one resource, beside the one that lasted longest until then and the newest grant.
func checkBeliefs(j *verdict.Judgement, said []Belief) {
	longest, newest := said[0], said[0]
	for _, now := range said[1:] {
		if now.From <= longest.Until {
			blame(j, now.Round, "%s: %s believed to hold it under %v from %v on, and %s under %v until %v",
				now.Resource, now.Client, now.Token, now.From, longest.Client, longest.Token, longest.Until)
		}
		if now.Token <= newest.Token {
			blame(j, now.Round, "%s: %s believed to hold it under %v at %v, after %s under %v at %v",
				now.Resource, now.Client, now.Token, now.From, newest.Client, newest.Token, newest.From)
		}
		if now.Until > longest.Until {
			longest = now
		}
		if now.Token > newest.Token {
			newest = now
		}
	}
}
