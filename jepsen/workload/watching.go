//go:build linux

package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/history"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/wait"
)

const (
	watchers     = 3
	watchClients = 4
	// watchLate is how long watchers go on after a round's work is over, to see the rest of it.
	watchLate = 15 * time.Second
	// markLimit is how long the last grant of a round is asked for.
	markLimit = 30 * time.Second
)

var watching = Kind{
	Name: "watch", Doc: "watchers go from node to node while leases change; all see the same, in order, whole",
	Rate: 1, Bound: 8*time.Second + allowance, Reads: []string{history.Get.String()},
	Start: func(w World) (Workload, error) {
		q, err := w.dial()
		return &watch{fight{world: w, quorum: q, name: "watch", clients: watchClients, resources: []string{"a", "b"}}}, err
	},
	Check: checkWatch,
}

// watch has a small crowd make changes, and watchers look on.
type watch struct{ fight }

// seen is a message of a watch as it is recorded.
type seen struct {
	Kind     string `json:"kind"`
	Resource string `json:"resource,omitempty"`
	Token    uint64 `json:"token,omitempty"`
	Held     bool   `json:"held,omitempty"`
	Revision int64  `json:"revision,omitempty"`
}

// The operations that are recorded beside those of the crowd.
const (
	opSaw  = "saw"  // a message
	opMark = "mark" // the grant that ends a round: who has seen it has seen everything
)

// endMark is the resource of the grant that ends a round.
func endMark(round int) string { return fmt.Sprintf("watch/r%d/end", round) }

// Run watches from before the work until the round's last grant was seen, which a fault may hold up.
func (w *watch) Run(ctx context.Context, round int) error {
	looking, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var running, synced sync.WaitGroup
	synced.Add(watchers)
	for i := range watchers {
		rng := rand.New(rand.NewPCG(w.world.Seed, uint64(round)<<16|0x8000|uint64(i)))
		running.Go(func() {
			w.look(looking, rng, fmt.Sprintf("watcher%d", i), round, i, sync.OnceFunc(synced.Done))
		})
	}
	started := make(chan struct{})
	go func() { synced.Wait(); close(started) }()
	select {
	case <-started:
	case <-ctx.Done(): // the faults came first; the crowd has nothing to do then
	}
	err := w.fight.Run(ctx, round)
	w.mark(looking, round)
	timer := time.AfterFunc(watchLate, stop)
	defer timer.Stop()
	running.Wait()
	<-started // every watcher has ended, and says so
	return err
}

// mark makes the last grant of a round, again and again until it is made.
func (w *watch) mark(ctx context.Context, round int) {
	ctx, cancel := context.WithTimeout(ctx, markLimit)
	defer cancel()
	for n := 0; ; n++ {
		within, stop := context.WithTimeout(ctx, counterLimit)
		instance := fmt.Sprintf("mark%d-%d", round, n)
		done := w.world.Record.Call(w.name, "marker", opMark, seen{Resource: endMark(round)})
		response, err := w.quorum.nodes[n%cluster.Size].Acquire(within, acquireRequest(endMark(round), instance))
		stop()
		switch history.OutcomeOf(history.Acquire, err) {
		case history.OK:
			done(record.OK, seen{Token: response.GetGrant().GetToken()})
			return
		case history.Held: // by an attempt whose answer was lost
			done(record.Fail, nil)
			return
		default:
			done(record.Unknown, nil)
		}
		if !wait.For(ctx, 100*time.Millisecond) {
			return
		}
	}
}

// look watches at one node after the other until it has seen the end, or ctx ends.
func (w *watch) look(ctx context.Context, rng *rand.Rand, name string, round, node int, synced func()) {
	defer synced()
	token, ended := "", false
	for !ended && ctx.Err() == nil {
		// A stream is left after a while though nothing is wrong with it.
		within, cancel := context.WithTimeout(ctx, time.Second+time.Duration(rng.Int64N(int64(5*time.Second))))
		stream, err := w.quorum.nodes[node%cluster.Size].Watch(within, &writv1.WatchRequest{Prefix: fmt.Sprintf("watch/r%d/", round), ResumeToken: token})
		for err == nil && !ended {
			var m *writv1.WatchResponse
			if m, err = stream.Recv(); err != nil {
				break
			}
			if t := m.GetResumeToken(); t != "" {
				token = t
			}
			s := w.saw(name, m)
			if m.GetKind() == writv1.WatchResponse_KIND_SYNCED {
				synced()
			}
			ended = s.Resource == endMark(round)
		}
		cancel()
		node++
		if !ended {
			wait.For(ctx, 50*time.Millisecond)
		}
	}
}

// saw records a message, but for those that say nothing.
func (w *watch) saw(name string, m *writv1.WatchResponse) seen {
	l := m.GetLease()
	s := seen{Resource: l.GetResource(), Token: l.GetToken(), Revision: l.GetRevision(), Held: l.GetState() == writv1.LeaseState_LEASE_STATE_HELD}
	switch m.GetKind() {
	case writv1.WatchResponse_KIND_STATE:
		s.Kind = kindState
	case writv1.WatchResponse_KIND_SYNCED:
		s.Kind = kindSynced
	case writv1.WatchResponse_KIND_CHANGED:
		s.Kind = kindChanged
	case writv1.WatchResponse_KIND_REMOVED:
		s.Kind = kindRemoved
	case writv1.WatchResponse_KIND_RESYNC:
		s.Kind = kindResync
	default:
		return s
	}
	w.world.Record.Event(w.name, name, opSaw, s)
	return s
}
