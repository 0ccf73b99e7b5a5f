package sim_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/sim"
	"github.com/writ-io/writ/sim/plan"
)

// Drawn plans break no invariant. What fails here is replayed by the command that it prints; many more seeds are for
// writ sim sweep.
func TestDrawnPlansAreClean(t *testing.T) {
	const duration = 2 * time.Minute
	for _, store := range []plan.Store{plan.Raft, plan.Fast} {
		t.Run(string(store), func(t *testing.T) {
			sum := sim.Sweep{
				From: *from, Seeds: drawn(), Draw: plan.DrawOptions{Duration: duration, Store: store},
				Each: func(p plan.Plan, r *sim.Result) bool {
					if len(r.Violations) > 0 {
						t.Errorf("seed %d:\n%s\n%v\nTo see it again: go run ./cmd/writ sim run --seed %d --duration %v --store %s",
							r.Seed, violations(r), p, r.Seed, duration, store)
					}
					return true
				},
			}.Run(t.Context())
			if sum.Seeds != drawn() || sum.Simulated < time.Duration(drawn())*duration {
				t.Errorf("%d seeds in %v of simulated time", sum.Seeds, sum.Simulated)
			}
			t.Logf("%v in %v, %d operations", sum.Simulated.Round(time.Second), sum.Wall.Round(time.Millisecond), sum.Operations)
		})
	}
}

var (
	from  = flag.Uint64("from", 1, "the first seed of drawn plans")
	seeds = flag.Uint64("seeds", 20, "how many drawn plans of each kind; a fifth of them with -short")
)

// drawn is how many plans a test draws.
func drawn() uint64 {
	if testing.Short() {
		return max(2, *seeds/5)
	}
	return *seeds
}

// Nor do plans that all have guards.
func TestDrawnGuardsAreClean(t *testing.T) {
	const duration = 2 * time.Minute
	for _, store := range []plan.Store{plan.Raft, plan.Fast} {
		t.Run(string(store), func(t *testing.T) {
			sum := sim.Sweep{
				From: *from, Seeds: drawn() / 2, Draw: plan.DrawOptions{Duration: duration, Store: store, Guards: true},
				Each: func(p plan.Plan, r *sim.Result) bool {
					if len(r.Violations) > 0 {
						t.Errorf("seed %d:\n%s\n%v", r.Seed, violations(r), p)
					}
					return true
				},
			}.Run(t.Context())
			if sum.Seeds != drawn()/2 {
				t.Errorf("%d seeds", sum.Seeds)
			}
			t.Logf("%v in %v, %d operations; marks %v", sum.Simulated.Round(time.Second), sum.Wall.Round(time.Millisecond), sum.Operations, sum.Marks)
		})
	}
}

// Nor do plans that have failover groups.
func TestDrawnGroupsAreClean(t *testing.T) {
	const duration = 4 * time.Minute
	sum := sim.Sweep{
		From: *from, Seeds: drawn(), Draw: plan.DrawOptions{Duration: duration, Store: plan.Fast, Groups: true},
		Each: func(p plan.Plan, r *sim.Result) bool {
			if len(r.Violations) > 0 {
				t.Errorf("seed %d:\n%s\n%v", r.Seed, violations(r), p)
			}
			return true
		},
	}.Run(t.Context())
	t.Logf("%v in %v, %d operations; marks %v", sum.Simulated.Round(time.Second), sum.Wall.Round(time.Millisecond), sum.Operations, sum.Marks)
}

// violations are what a run has broken, a line each.
func violations(r *sim.Result) string {
	var b strings.Builder
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "%v %s: %s\n", v.At, v.Invariant, v.Text)
	}
	return b.String()
}

// brief draws plans that take no time.
var brief = plan.DrawOptions{Duration: time.Second, Store: plan.Fast}

// What a sweep finds does not depend on how many runs go on at a time; and every hundredth seed is run twice.
func TestSweep(t *testing.T) {
	const from, seeds = 97, 5
	sweep := func(workers int) (map[uint64]string, *sim.Summary) {
		hashes := make(map[uint64]string)
		sum := sim.Sweep{
			From: from, Seeds: seeds, Draw: brief, Workers: workers,
			Each: func(p plan.Plan, r *sim.Result) bool {
				if p.Seed != r.Seed || hashes[r.Seed] != "" {
					t.Errorf("the plan of seed %d came with the result of %d, or twice", p.Seed, r.Seed)
				}
				hashes[r.Seed] = r.Hash
				return true
			},
		}.Run(t.Context())
		return hashes, sum
	}
	one, sum := sweep(1)
	many, sumOfMany := sweep(3)
	if !maps.Equal(one, many) {
		t.Errorf("with one worker: %v, with three: %v", one, many)
	}
	if seen := slices.Sorted(maps.Keys(one)); !slices.Equal(seen, []uint64{97, 98, 99, 100, 101}) {
		t.Errorf("seeds %d", seen)
	}
	if sum.Seeds != seeds || sum.Repeated != 1 || sumOfMany.Repeated != 1 {
		t.Errorf("%d seeds, %d and %d run twice", sum.Seeds, sum.Repeated, sumOfMany.Repeated)
	}
	if sum.Events != sumOfMany.Events || sum.Operations != sumOfMany.Operations || !maps.Equal(sum.Marks, sumOfMany.Marks) {
		t.Errorf("%d events and %d operations with one worker, %d and %d with three", sum.Events, sum.Operations, sumOfMany.Events, sumOfMany.Operations)
	}
	for _, name := range sum.Missing() {
		if sum.Marks[name] > 0 || !slices.Contains(sim.Marks(), name) {
			t.Errorf("%s is not missing", name)
		}
	}
}

func TestSweepStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, test := range map[string]struct {
		ctx     context.Context
		workers int
		most    uint64
		third   func() bool // when it has the third result
	}{
		"Each has seen enough":       {ctx: t.Context(), workers: 1, most: 3, third: func() bool { return false }},
		"Each, of many":              {ctx: t.Context(), workers: 4, most: 6, third: func() bool { return false }},
		"the context ends":           {ctx: ctx, workers: 1, most: 3, third: func() bool { cancel(); return true }},
		"the context had ended then": {ctx: ended(), workers: 2, most: 0},
	} {
		var heard uint64
		sum := sim.Sweep{
			From: 1, Draw: brief, Workers: test.workers,
			Each: func(plan.Plan, *sim.Result) bool {
				heard++
				return heard != 3 || test.third()
			},
		}.Run(test.ctx)
		if sum.Seeds != heard || sum.Seeds > test.most || sum.Seeds < min(3, test.most) {
			t.Errorf("%s: %d seeds, of which Each heard %d", name, sum.Seeds, heard)
		}
	}
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// Nor do plans in which services do in one place what is to be done in one place.
func TestDrawnSingletonsAreClean(t *testing.T) {
	const duration = 3 * time.Minute
	for _, store := range []plan.Store{plan.Raft, plan.Fast} {
		t.Run(string(store), func(t *testing.T) {
			sum := sim.Sweep{
				From: *from, Seeds: *seeds / 2, Draw: plan.DrawOptions{Duration: duration, Store: store, Singletons: true},
				Each: func(p plan.Plan, r *sim.Result) bool {
					if len(r.Violations) > 0 {
						t.Errorf("seed %d:\n%s\n%v", r.Seed, violations(r), p)
					}
					return true
				},
			}.Run(t.Context())
			t.Logf("%v in %v, %d operations; marks %v", sum.Simulated.Round(time.Second), sum.Wall.Round(time.Millisecond), sum.Operations, sum.Marks)
		})
	}
}
