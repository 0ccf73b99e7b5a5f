package k8slock_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"k8s.io/client-go/tools/leaderelection"

	"github.com/writ-io/writ/contrib/k8slock"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/lease/clock/bubble"
	"github.com/writ-io/writ/lease/leasetest"
)

const resource = "controllers/dns"

const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
	// looks is how long it takes at most until a candidate looks again: client-go adds up to 1.2 of the period.
	looks = retryPeriod * 22 / 10
)

// world is a quorum in a bubble of invented time, and candidates each with a node of its own.
type world struct {
	*testing.T
	quorum     *leasetest.Quorum
	clock      clock.Clock
	candidates []*candidate

	mu     sync.Mutex
	leads  int           // guarded by mu
	most   int           // guarded by mu; that ever led at once
	tokens []fence.Token // guarded by mu; of leaderships, in order
}

// candidate is a process in a cluster of its own.
type candidate struct {
	name   string
	node   *leasetest.Node
	client *lease.Client
	lock   *k8slock.Lock
}

func inBubble(t *testing.T, n int, test func(*world)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		w := &world{T: t, clock: clock.Monotonic()}
		w.quorum = leasetest.NewQuorum(w.clock)
		for i := range n {
			w.candidates = append(w.candidates, w.candidate(fmt.Sprintf("cluster-%d", i)))
		}
		test(w)
	})
}

func (w *world) candidate(name string) *candidate {
	w.Helper()
	network := leasetest.NewNetwork()
	node := leasetest.NewNode(w.quorum, name+":7411", "eu")
	network.Start(node)
	w.Cleanup(node.Stop)
	client, err := lease.Dial(w.Context(), lease.Config{
		Insecure: true, Clock: w.clock, Endpoints: []string{name + ":7411"}, DialOptions: []grpc.DialOption{network.Option()},
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := client.Close(); err != nil {
			w.Error(err)
		}
	})
	lock, err := k8slock.New(client, k8slock.Config{Resource: resource, Identity: name})
	if err != nil {
		w.Fatal(err)
	}
	return &candidate{name: name, node: node, client: client, lock: lock}
}

func loop(callbacks leaderelection.LeaderCallbacks) leaderelection.LeaderElectionConfig {
	if callbacks.OnStoppedLeading == nil {
		callbacks.OnStoppedLeading = func() {}
	}
	return leaderelection.LeaderElectionConfig{
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, Callbacks: callbacks,
	}
}

// lead is what a leader does: it is noted, and works until its context ends.
func (w *world) lead(began chan<- fence.Write) func(context.Context) {
	return func(ctx context.Context) {
		write, _ := fence.FromContext(ctx)
		w.mu.Lock()
		w.leads++
		w.most = max(w.most, w.leads)
		w.tokens = append(w.tokens, write.Token)
		w.mu.Unlock()
		began <- write
		<-ctx.Done()
		w.mu.Lock()
		w.leads--
		w.mu.Unlock()
	}
}

// checkTerms checks that never two led at once, and that each leadership had a newer token than those before it.
func (w *world) checkTerms(want int) {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.most > 1 {
		w.Errorf("%d led at once", w.most)
	}
	if len(w.tokens) != want || !slices.IsSortedFunc(w.tokens, func(a, b fence.Token) int {
		if a < b {
			return -1
		}
		return 1
	}) || slices.Contains(w.tokens, 0) {
		w.Errorf("%d leaderships had the tokens %v, want %d with growing ones", len(w.tokens), w.tokens, want)
	}
}

// run is a loop that runs in the background.
type run struct {
	cancel context.CancelFunc
	ended  chan error
}

func (w *world) run(c *candidate, cfg leaderelection.LeaderElectionConfig) *run {
	ctx, cancel := context.WithCancel(w.Context())
	r := &run{cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- k8slock.Run(ctx, c.lock, cfg) }()
	return r
}

// within waits for something in invented time, and answers how long it took.
func within[T any](w *world, limit time.Duration, what string, from <-chan T) (T, time.Duration) {
	w.Helper()
	began := w.clock.Now()
	select {
	case got := <-from:
		return got, w.clock.Now().Sub(began)
	case <-time.After(limit):
		w.Fatalf("%s did not happen within %v", what, limit)
		panic("unreachable")
	}
}
