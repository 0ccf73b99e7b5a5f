package sim

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
)

// Sweep runs one seed after the other.
type Sweep struct {
	// From is the first seed; Seeds is how many; 0: until the context ends or Each says so.
	From, Seeds uint64
	// Draw says what the plans are drawn from.
	Draw plan.DrawOptions
	// Plan makes the plan of a seed, if it is not to be drawn. It is called by many at once.
	Plan func(seed uint64) plan.Plan
	// Options of each run.
	Options Options
	// Workers is how many runs go on at a time; 0: one per processor. Results do not depend on it.
	Workers int
	// Each hears of every result, one at a time, in any order; false ends the sweep.
	Each func(plan.Plan, *Result) bool
}

// Summary is what came of a sweep.
type Summary struct {
	Seeds      uint64
	Simulated  time.Duration
	Wall       time.Duration
	Events     uint64
	Operations uint64
	Repeated   uint64            // runs that were made twice, and compared
	Marks      map[string]uint64 // how often each was reached
	Failed     []*Result         // of runs that broke an invariant which their plan did not expect
}

// repeatEvery is the part of all runs that are made twice, the first one of a sweep among them: a simulator that does not repeat itself finds bugs that nobody
// can look at.
const repeatEvery = 100

// collectAt is how far the heap of a sweep grows, in percent of what lives, before garbage is collected. Runs make much
// garbage and keep little, some 20 MB each: at 100 percent, collecting takes a third of the time. GOMEMLIMIT still holds.
const collectAt = 800

// Run carries the sweep out until it is done or ctx ends. Runs that have begun are finished. Meanwhile the whole program
// collects garbage less often.
func (s Sweep) Run(ctx context.Context) *Summary {
	workers := s.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	sum := &Summary{Marks: make(map[string]uint64)}
	var (
		mu      sync.Mutex // guards sum and calls of Each
		next    atomic.Uint64
		stopped atomic.Bool
		running sync.WaitGroup
	)
	defer debug.SetGCPercent(debug.SetGCPercent(collectAt))
	began := time.Now()
	for range workers {
		running.Go(func() {
			for ctx.Err() == nil && !stopped.Load() {
				n := next.Add(1) - 1
				if s.Seeds != 0 && n >= s.Seeds {
					return
				}
				seed := s.From + n
				p := s.plan(seed)
				r := Run(p, s.Options)
				repeated := n%repeatEvery == 0
				if repeated {
					r.repeat(Run(p, s.Options))
				}
				mu.Lock()
				sum.add(p, r, repeated)
				if s.Each != nil && !s.Each(p, r) {
					stopped.Store(true)
				}
				mu.Unlock()
			}
		})
	}
	running.Wait()
	sum.Wall = time.Since(began)
	return sum
}

func (s Sweep) plan(seed uint64) plan.Plan {
	if s.Plan != nil {
		return s.Plan(seed)
	}
	return plan.Draw(seed, plan.Seeded(seed), s.Draw)
}

// repeat compares a run with the same one made again.
func (r *Result) repeat(again *Result) {
	if r.Hash != again.Hash || r.Events != again.Events {
		r.Violations = append(r.Violations, trace.Violation{
			At: r.Simulated, Invariant: Determinism,
			Text: fmt.Sprintf("the same plan went through %d events to hash %s, and then through %d to %s", r.Events, r.Hash, again.Events, again.Hash),
		})
	}
}

// Determinism is the name under which a run that does not repeat itself is reported.
const Determinism = "determinism"

func (s *Summary) add(p plan.Plan, r *Result, repeated bool) {
	s.Seeds++
	s.Simulated += r.Simulated
	s.Events += r.Events
	s.Operations += r.Operations
	if repeated {
		s.Repeated++
	}
	for name, n := range r.Marks {
		s.Marks[name] += n
	}
	if slices.ContainsFunc(r.Violations, func(v trace.Violation) bool { return !slices.Contains(p.Expect, v.Invariant) }) {
		s.Failed = append(s.Failed, r)
	}
}

// Missing lists marks that were never reached, in their order.
func (s *Summary) Missing() []string {
	var missing []string
	for _, name := range markNames {
		if s.Marks[name] == 0 {
			missing = append(missing, name)
		}
	}
	return missing
}
