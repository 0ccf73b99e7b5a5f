// Command scaling prints the tables of docs/SCALING.md: one quorum over five regions, and up to a hundred thousand processes
// that hold leases, in simulated time. The same flags print the same tables, always and everywhere.
//
//	go run ./sim/scaling                    # everything: some minutes on two cores
//	go run ./sim/scaling -sizes 100,1000    # seconds
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/writ-io/writ/sim"
)

func main() {
	sizes := flag.String("sizes", "100,1000,10000,100000", "how many clients there are, one experiment after the other; regions apart for the last")
	failovers := flag.Int("failovers", 9, "how often the loss of each coordinator is repeated, by 1,000 clients")
	sharing := flag.Int("sharing", 10_000, "leases in the experiments on shared messages; 0: none")
	ttl := flag.Duration("ttl", 30*time.Second, "of every lease")
	seed := flag.Uint64("seed", 1, "what everything random is derived from")
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "experiments that run at a time; results do not depend on it")
	flag.Parse()
	debug.SetGCPercent(200)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, options{*sizes, *failovers, *sharing, *ttl, *seed, *workers}); err != nil {
		fmt.Fprintln(os.Stderr, "scaling:", err)
		os.Exit(1)
	}
}

type options struct {
	sizes              string
	failovers, sharing int
	ttl                time.Duration
	seed               uint64
	workers            int
}

func run(ctx context.Context, o options) error {
	var all lab
	var steady [][]*sim.FleetResult // by size and coordinator
	for text := range strings.SplitSeq(o.sizes, ",") {
		clients, err := strconv.Atoi(text)
		if err != nil || clients < 100 || clients > 1_000_000 {
			return fmt.Errorf("-sizes: %q is no number from 100 to 1000000", text)
		}
		row := make([]*sim.FleetResult, len(sim.FleetRegions()))
		for i, at := range sim.FleetRegions() {
			all.want(&row[i], o.sized(o.seed, at, clients))
		}
		steady = append(steady, row)
	}
	losses := make([][2][]*sim.FleetResult, len(sim.FleetRegions())) // silent and reset
	for i, at := range sim.FleetRegions() {
		for how := range losses[i] {
			losses[i][how] = make([]*sim.FleetResult, o.failovers)
			for n := range o.failovers {
				f := o.sized(o.seed+uint64(n), at, 1000)
				f.Measure, f.Reset = time.Second, how == 1
				all.want(&losses[i][how][n], f)
			}
		}
	}
	shared := make([]*sim.FleetResult, len(sharings))
	if o.sharing > 0 {
		for i, s := range sharings {
			f := o.sized(o.seed, sim.FleetRegions()[0], 100)
			f.Processes, f.Leases, f.Contended, f.Alone = o.sharing/s.leases, s.leases, 0, s.alone
			f.Hold, f.Measure = time.Hour, 30*time.Second
			all.want(&shared[i], f)
		}
	}
	if err := all.carryOut(ctx, o.workers); err != nil {
		return err
	}
	latencyTables(steady[len(steady)-1])
	sizeTables(steady)
	if o.failovers > 0 {
		failoverTable(losses)
	}
	if o.sharing > 0 {
		sharingTable(shared)
	}
	return nil
}

// sized is the experiment with so many clients: five for each resource that is fought for, and all others by themselves. The
// fewer there are, the longer they are watched.
func (o options) sized(seed uint64, coordinator string, clients int) sim.Fleet {
	contended := min(max(clients/50, 2), 100)
	return sim.Fleet{
		Seed: seed, Coordinator: coordinator, Processes: clients - contended*len(sim.FleetRegions()), Leases: 1, Contended: contended,
		TTL: o.ttl, Hold: time.Minute, Measure: max(10*time.Second, 10*time.Minute/time.Duration(max(clients/100, 1))),
	}
}

// lab holds the experiments that are wanted.
type lab []experiment

type experiment struct {
	into  **sim.FleetResult
	fleet sim.Fleet
}

func (l *lab) want(into **sim.FleetResult, f sim.Fleet) { *l = append(*l, experiment{into, f}) }

// carryOut carries every experiment out. A broken promise is an error.
func (l *lab) carryOut(ctx context.Context, workers int) error {
	var mu sync.Mutex // guards failed and done
	var failed error
	done := 0
	queue := make(chan experiment)
	var running sync.WaitGroup
	for range max(workers, 1) {
		running.Go(func() {
			for e := range queue {
				r := sim.RunFleet(e.fleet)
				mu.Lock()
				*e.into = r
				done++
				fmt.Fprintf(os.Stderr, "\r%d of %d experiments ", done, len(*l))
				if len(r.Violations) > 0 && failed == nil {
					failed = fmt.Errorf("%+v: %s: %s", e.fleet, r.Violations[0].Invariant, r.Violations[0].Text)
				}
				mu.Unlock()
			}
		})
	}
	for _, e := range *l {
		if ctx.Err() != nil {
			break
		}
		queue <- e
	}
	close(queue)
	running.Wait()
	fmt.Fprintln(os.Stderr)
	if failed == nil {
		failed = ctx.Err()
	}
	return failed
}
