//go:build linux

package jepsen_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/lease"
)

const (
	turnWorkers   = 8
	turnResources = 4
	// turnTTL is longer than any failover, so that a hold may not be lost to one.
	turnTTL = 10 * time.Second
	// turnGrants is how many grants there must be before a node is killed, and again while it is down.
	turnGrants = 100
)

// turn is what the kill of one node came to.
type turn struct {
	node   string
	role   string
	gap    time.Duration // the longest time without a grant, while it was down
	grants int           // while it was down
	back   time.Duration // from its start until it is ready
}

// TestKillEachNodeInTurnUnderLoad kills one node after the other with SIGKILL while programs that use the SDK acquire, count
// and release. No acquisition fails, no token is repeated, no count is lost, and who holds a lease keeps it. S1, S4, D1.
func TestKillEachNodeInTurnUnderLoad(t *testing.T) {
	c := startCluster(t, true)
	config := c.Client()
	keeper, err := lease.Dial(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keeper.Close() })
	kept, err := keeper.TryAcquire(t.Context(), "jepsen/kept", lease.AcquireOptions{TTL: turnTTL})
	if err != nil {
		t.Fatal(err)
	}

	books := newLedger()
	stop := startLoad(t, config, books)
	var turns []turn
	for i := range cluster.Size {
		turns = append(turns, killUnderLoad(t, c, books, i))
	}
	stop()

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := kept.Verify(ctx); err != nil {
		t.Errorf("the lease that was held throughout: %v", err)
	}
	if err := errors.Join(books.problems...); err != nil {
		t.Error(err)
	}
	if books.lost > 0 {
		t.Errorf("%d holds were lost", books.lost)
	}
	if len(books.tokens) != len(books.grants) || books.counted == 0 {
		t.Errorf("%d tokens for %d grants, %d counted", len(books.tokens), len(books.grants), books.counted)
	}
	if sum := finalSum(ctx, t, keeper); sum < books.counted || sum > books.counted+books.unknown {
		t.Errorf("the counts add up to %d; %d were acknowledged and %d not", sum, books.counted, books.unknown)
	}
	showTurns(t.Output(), turns, books)
}

// startLoad starts workers that acquire, count and release until the returned function is called. Each uses a client of its
// own, as if it were a process.
func startLoad(t *testing.T, config lease.Config, books *ledger) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var working sync.WaitGroup
	t.Cleanup(func() { cancel(); working.Wait() })
	for i := range turnWorkers {
		config.Region = cluster.Regions[i%cluster.Size] // which is where it asks first
		client, err := lease.Dial(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		resource := turnResource(i % turnResources)
		working.Go(func() {
			defer func() { _ = client.Close() }()
			for work(ctx, client, resource, books) {
			}
		})
	}
	return func() { cancel(); working.Wait() }
}

func turnResource(i int) string { return fmt.Sprintf("jepsen/count-%d", i) }

// work acquires, counts and releases once. It returns false when there is no more to do.
func work(ctx context.Context, client *lease.Client, resource string, books *ledger) bool {
	hold, err := client.Acquire(ctx, resource, lease.AcquireOptions{TTL: turnTTL})
	if err != nil {
		if ctx.Err() == nil {
			books.failed(resource, err)
		}
		return false
	}
	// What was begun is finished.
	ctx = context.WithoutCancel(ctx)
	n := books.granted(hold) + 1
	books.stored(hold, n, hold.Checkpoint(ctx, strconv.AppendInt(nil, int64(n), 10)))
	books.released(hold, hold.Release(ctx))
	return true
}

// killUnderLoad kills node i when the load runs, brings it back when the load has run without it, and waits until it is
// ready.
func killUnderLoad(t *testing.T, c *cluster.Cluster, books *ledger, i int) turn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	awaitGrants(ctx, t, books, turnGrants)
	this := turn{node: cluster.Regions[i], role: "follower"}
	if coordinator, ok := c.Coordinator(ctx); ok && coordinator == i {
		this.role = "coordinator"
	}
	before, killed := books.count(), time.Now()
	if err := c.Kill(i); err != nil {
		t.Fatal(err)
	}
	awaitGrants(ctx, t, books, turnGrants)
	this.gap, this.grants = books.longestGap(killed), books.count()-before
	restarted := time.Now()
	if err := c.Restart(i); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	this.back = time.Since(restarted)
	return this
}

// awaitGrants waits for more grants.
func awaitGrants(ctx context.Context, t *testing.T, books *ledger, more int) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for start := books.count(); books.count() < start+more; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("only %d grants of %d", books.count()-start, more)
		}
	}
}

// finalSum adds up the last checkpoints.
func finalSum(ctx context.Context, t *testing.T, client *lease.Client) int {
	t.Helper()
	sum := 0
	for i := range turnResources {
		hold, err := client.Acquire(ctx, turnResource(i), lease.AcquireOptions{TTL: turnTTL})
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(string(hold.CheckpointData()))
		if err != nil {
			t.Fatal(err)
		}
		sum += n
		if err := hold.Release(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return sum
}

func showTurns(out io.Writer, turns []turn, books *ledger) {
	fmt.Fprintf(out, "three writ servers with mutual TLS; %d programs acquire, count and release %d resources\n", turnWorkers, turnResources)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "kill -9\tit was\tlongest time without a grant\tgrants while it was down\tready after its start")
	for _, turn := range turns {
		fmt.Fprintf(table, "%s\t%s\t%v\t%d\t%v\n", turn.node, turn.role, turn.gap.Round(time.Millisecond), turn.grants, turn.back.Round(time.Millisecond))
	}
	_ = table.Flush()
	fmt.Fprintf(out, "%d grants under %d different tokens, increasing for each resource\n", len(books.grants), len(books.tokens))
	fmt.Fprintf(out, "%d counts acknowledged, %d unknown, none missing; %d leases lost\n", books.counted, books.unknown, books.lost)
}
