//go:build linux

package jepsen_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/crowd"
	"github.com/writ-io/writ/jepsen/history"
	"github.com/writ-io/writ/jepsen/wait"
)

// judgement bounds the judgement of one resource.
const judgement = 2 * time.Minute

// TestLeasesAreLinearizable has clients fight over a few resources while nodes are killed, paused and restarted, and has the
// whole history judged. S1, S5, S9, D1, and S4 as far as the servers have a part in it: no lease ends early.
func TestLeasesAreLinearizable(t *testing.T) {
	seed := setting(t, "WRIT_JEPSEN_SEED", time.Now().UnixNano())
	span := time.Duration(setting(t, "WRIT_JEPSEN_SECONDS", 20)) * time.Second
	clients := int(setting(t, "WRIT_JEPSEN_CLIENTS", 6))
	c := startCluster(t, false)
	resources := []string{"jepsen/a", "jepsen/b", "jepsen/c"}
	start := time.Now()
	clientele := newCrowd(t, c, seed, clients, resources, start)
	evil := &spoiler{cluster: c, rng: rand.New(rand.NewPCG(uint64(seed), 0)), start: start}
	t.Cleanup(func() {
		// Slower than it should be, which is no failure, but worth a look at what took so long.
		if t.Failed() || time.Since(start) > 2*span {
			t.Logf("faults, in ms:\n%s", strings.Join(evil.journal, "\n"))
			t.Logf("run it again with WRIT_JEPSEN_SEED=%d WRIT_JEPSEN_SECONDS=%d WRIT_JEPSEN_CLIENTS=%d", seed, span/time.Second, clients)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	var running sync.WaitGroup
	for _, client := range clientele {
		running.Go(func() { client.Run(ctx) })
	}
	err := evil.run(ctx)
	running.Wait()
	evil.note("all calls are over", nil)
	if err != nil {
		t.Fatal(err)
	}
	healed := time.Now()
	settle(t, c)
	recovery := time.Since(healed)
	for _, client := range clientele {
		for _, name := range resources {
			client.Get(t.Context(), name)
		}
	}
	var ops []history.Op
	for _, client := range clientele {
		ops = append(ops, client.Ops()...)
	}
	began := time.Now()
	if err := history.Check(ops, judgement); err != nil {
		t.Error(err)
	}
	t.Logf("seed %d: %d calls by %d clients in %v, all nodes ready %v later, judged in %v; faults: %s", seed, len(ops), clients, span,
		recovery.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), evil)
	checkTally(t, ops)
}

func newCrowd(t *testing.T, c *cluster.Cluster, seed int64, size int, resources []string, start time.Time) []*crowd.Client {
	all := make([]*crowd.Client, size)
	for id := range all {
		config := crowd.Config{ID: id, Seed: uint64(seed), Names: cluster.Regions[:], Resources: resources, Start: start}
		for i := range cluster.Size {
			conn, err := c.Dial(i)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			config.Nodes = append(config.Nodes, writv1.NewLeaseServiceClient(conn))
		}
		all[id] = crowd.New(config)
	}
	return all
}

// checkTally shows what the calls came to, and fails if too little happened to mean anything.
func checkTally(t *testing.T, ops []history.Op) {
	t.Helper()
	tally := make(map[string]int)
	for _, op := range ops {
		tally[fmt.Sprintf("%v: %v", op.Kind, op.Outcome)]++
	}
	var lines []string
	for what, n := range tally {
		lines = append(lines, fmt.Sprintf("%s %d", what, n))
	}
	slices.Sort(lines)
	t.Log(strings.Join(lines, ", "))
	for _, needed := range []string{"acquire: ok", "acquire: held", "renew: ok", "renew: expired", "release: ok", "checkpoint: ok", "get: ok"} {
		if tally[needed] == 0 {
			t.Errorf("nothing came to %q: the test shows too little", needed)
		}
	}
}

// spoiler does harm.
type spoiler struct {
	cluster *cluster.Cluster
	rng     *rand.Rand
	kills   int
	pauses  int
	crashes int
	start   time.Time // the same as the clients'
	journal []string
}

// note writes down what is done.
func (n *spoiler) note(what string, nodes []int) {
	names := make([]string, len(nodes))
	for k, i := range nodes {
		names[k] = cluster.Regions[i]
	}
	n.journal = append(n.journal, fmt.Sprintf("%9.3f %s %s", float64(time.Since(n.start))/float64(time.Millisecond), what, strings.Join(names, " ")))
}

func (n *spoiler) String() string {
	return fmt.Sprintf("%d kills, %d pauses, %d crashes of all", n.kills, n.pauses, n.crashes)
}

// run does harm until ctx ends. A fault that has begun is healed first.
func (n *spoiler) run(ctx context.Context) error {
	for wait.For(ctx, n.between(300, 1500)) {
		if err := n.fault(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (n *spoiler) between(low, high int) time.Duration {
	return time.Duration(low+n.rng.IntN(high-low+1)) * time.Millisecond
}

// fault harms one or more nodes for a while; none is down or paused when it returns, though one may still be starting.
func (n *spoiler) fault(ctx context.Context) error {
	kind, aimed, first, span := n.rng.IntN(100), n.rng.IntN(2) == 0, n.rng.IntN(cluster.Size), n.between(100, 2000)
	if aimed {
		if i, ok := n.cluster.Coordinator(ctx); ok {
			first = i
		}
	}
	second := (first + 1 + n.rng.IntN(cluster.Size-1)) % cluster.Size
	third := cluster.Size - first - second
	switch {
	case kind < 40:
		n.kills++
		return n.kill(ctx, span, first)
	case kind < 80:
		// Up to twice as long: time for others to take over, and for calls to pile up at a node that does not know.
		n.pauses++
		return n.pause(ctx, span*time.Duration(1+n.rng.IntN(2)), first)
	case kind < 90:
		n.pauses += 2
		return n.pause(ctx, span, first, second)
	default:
		n.crashes++
		return n.kill(ctx, span/4, first, second, third)
	}
}

func (n *spoiler) kill(ctx context.Context, span time.Duration, nodes ...int) error {
	n.note("kill", nodes)
	for _, i := range nodes {
		if err := n.cluster.Kill(i); err != nil {
			return err
		}
	}
	wait.For(ctx, span)
	n.note("restart", nodes)
	for _, i := range nodes {
		if err := n.cluster.Restart(i); err != nil {
			return err
		}
	}
	return nil
}

func (n *spoiler) pause(ctx context.Context, span time.Duration, nodes ...int) error {
	n.note("pause", nodes)
	for _, i := range nodes {
		if err := n.cluster.Pause(i); err != nil {
			return err
		}
	}
	wait.For(ctx, span)
	n.note("resume", nodes)
	for _, i := range nodes {
		if err := n.cluster.Resume(i); err != nil {
			return err
		}
	}
	return nil
}
