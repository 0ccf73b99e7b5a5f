package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/writ-io/writ/sim"
	"github.com/writ-io/writ/sim/plan"
)

// sweep goes through seeds.
type sweep struct {
	*app
	*simulator
	choice
	files
	build
	hours float64
}

// sum is what came of a sweep, as data.
type sum struct {
	First       string            `json:"first_seed"`
	Seeds       int               `json:"seeds"`
	Hours       float64           `json:"simulated_hours"`
	Wall        float64           `json:"wall_seconds"`
	Events      uint64            `json:"events"`
	Operations  uint64            `json:"operations"`
	Marks       map[string]uint64 `json:"marks"`
	Unreached   []string          `json:"marks_not_reached"`
	Failures    []*verdict        `json:"failures"`
	Interrupted bool              `json:"interrupted"`
	Version     string            `json:"version"`
	Revision    string            `json:"revision,omitempty"`
}

// keptFailures bounds what a sweep tells about: who breaks every run needs no list of them.
const keptFailures = 100

func (w *sweep) run(ctx context.Context) error {
	began := time.Now()
	total := &sum{First: strconv.FormatUint(w.seed, 10), Marks: make(map[string]uint64), Unreached: []string{}, Failures: []*verdict{}, Version: w.version, Revision: w.revision}
	var simulated time.Duration
	failed := 0
	for seed := w.seed; simulated.Hours() < w.hours; seed++ {
		p, command, err := w.plan(w.simulator, seed)
		if err != nil {
			return err
		}
		started := time.Now()
		r := w.within(ctx, p, sim.Options{})
		if r == nil {
			total.Interrupted = true
			break
		}
		simulated += max(r.Simulated, time.Nanosecond)
		total.Seeds++
		total.Events += r.Events
		total.Operations += r.Operations
		for mark, n := range r.Marks {
			total.Marks[mark] += n
		}
		if asExpected(p, r) {
			continue
		}
		failed++
		v := newVerdict(p, r, time.Since(started), w.build, command)
		w.sayBroken(v, w.build)
		if len(total.Failures) < keptFailures {
			total.Failures = append(total.Failures, v)
		}
		if failed == 1 {
			if err := w.keep(ctx, p, command); err != nil {
				return err
			}
		}
	}
	total.Hours, total.Wall = simulated.Hours(), time.Since(began).Seconds()
	for _, mark := range w.marks() {
		if total.Marks[mark] == 0 {
			total.Unreached = append(total.Unreached, mark)
		}
	}
	if err := w.print(total, func(out io.Writer) { w.page(out, total, failed) }); err != nil {
		return err
	}
	if failed > 0 {
		return errBroken
	}
	return nil
}

// keep writes what was asked for of the first failure. To draw it, it is run once more.
func (w *sweep) keep(ctx context.Context, p plan.Plan, command string) error {
	var r *sim.Result
	if w.html != "" {
		if r = w.within(ctx, p, sim.Options{Trace: true}); r == nil {
			return nil
		}
		return w.write(p, r.Trace, command)
	}
	return w.write(p, nil, command)
}

func (w *sweep) page(out io.Writer, total *sum, failed int) {
	outcome := cell{"clean", good}
	if failed > 0 {
		outcome = cell{fmt.Sprintf("%d of %d runs broke a promise", failed, total.Seeds), bad}
	}
	interrupted := ""
	if total.Interrupted {
		interrupted = "yes, this is the sum so far"
	}
	marks := w.marks()
	w.pairs(out,
		pair{"outcome", outcome},
		pair{"interrupted", cell{interrupted, weak}},
		pair{"seeds", text(fmt.Sprintf("%d from %s on", total.Seeds, total.First))},
		pair{"simulated", text(fmt.Sprintf("%.2f hours", total.Hours))},
		pair{"took", text(seconds(total.Wall))},
		pair{"events", text(strconv.FormatUint(total.Events, 10))},
		pair{"operations", text(strconv.FormatUint(total.Operations, 10))},
		pair{"marks", text(fmt.Sprintf("%d of %d reached", len(marks)-len(total.Unreached), len(marks)))},
		pair{"not reached", cell{strings.Join(slices.Sorted(slices.Values(total.Unreached)), ", "), weak}},
	)
	if failed == 0 {
		return
	}
	_, _ = fmt.Fprintln(out)
	var rows [][]cell
	for _, v := range total.Failures {
		first := brokenPromise{Text: v.outcome()}
		if len(v.Violations) > 0 {
			first = v.Violations[0]
		}
		rows = append(rows, []cell{text(v.Seed), {first.Invariant, bad}, text(instantOf(first.At)), text(oneLine(first.Text))})
	}
	w.columns(out, []string{"SEED", "BROKEN", "AT", "HOW"}, rows)
}
