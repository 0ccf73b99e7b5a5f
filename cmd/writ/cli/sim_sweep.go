package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
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
	hours    float64
	seeds    uint64 // 0: as many as that takes
	thorough bool   // a mark that is not reached fails the sweep
}

// sum is what came of a sweep, as data.
type sum struct {
	First       string            `json:"first_seed"`
	Seeds       uint64            `json:"seeds"`
	Hours       float64           `json:"simulated_hours"`
	Wall        float64           `json:"wall_seconds"`
	Repeated    uint64            `json:"repeated_runs"`
	Events      uint64            `json:"events"`
	Operations  uint64            `json:"operations"`
	Marks       map[string]uint64 `json:"marks"`
	Unreached   []string          `json:"marks_not_reached"`
	Failed      int               `json:"failed_runs"`
	Failures    []*verdict        `json:"failures"`
	Interrupted bool              `json:"interrupted"`
	Mutant      string            `json:"mutant,omitempty"`
	Version     string            `json:"version"`
	Revision    string            `json:"revision,omitempty"`
}

// keptFailures bounds what a sweep tells about: who breaks every run needs no list of them.
const keptFailures = 100

func (w *sweep) run(ctx context.Context) error {
	first, _, err := w.plan(w.simulator, w.seed)
	if err != nil {
		return err
	}
	s := sim.Sweep{
		From: w.seed, Seeds: cmp.Or(w.seeds, uint64(math.Ceil(min(w.hours*float64(time.Hour)/float64(first.Duration), 1<<60)))),
		Options: w.options(false), Plan: w.planOf,
	}
	var failures []*verdict
	failed := 0
	s.Each = func(p plan.Plan, r *sim.Result) bool {
		if asExpected(p, r) {
			return true
		}
		failed++
		if len(failures) < keptFailures {
			_, command, _ := w.plan(w.simulator, p.Seed)
			v := newVerdict(p, r, 0, w.build, command)
			v.Mutant = w.mutant
			w.sayBroken(v, w.build)
			failures = append(failures, v)
		}
		return true
	}
	done := w.sweep(ctx, s)
	slices.SortFunc(failures, func(a, b *verdict) int { return cmp.Or(len(a.Seed)-len(b.Seed), strings.Compare(a.Seed, b.Seed)) })
	total := w.total(done, failures, failed)
	total.Interrupted = done.Seeds < s.Seeds
	if err := w.keep(failures); err != nil {
		return err
	}
	if err := w.print(total, func(out io.Writer) { w.page(out, total) }); err != nil {
		return err
	}
	if failed > 0 {
		return errBroken
	}
	if w.thorough && len(total.Unreached) > 0 {
		w.say("%d marks were not reached: the sweep says nothing about %s", len(total.Unreached), strings.Join(total.Unreached, ", "))
		return errBroken
	}
	return nil
}

// planOf is the plan of a seed: where that of the first one exists, that of any other does.
func (w *sweep) planOf(seed uint64) plan.Plan {
	p, _, err := w.plan(w.simulator, seed)
	if err != nil {
		panic(err)
	}
	return p
}

func (w *sweep) total(done *sim.Summary, failures []*verdict, failed int) *sum {
	total := &sum{
		First: strconv.FormatUint(w.seed, 10), Seeds: done.Seeds, Hours: done.Simulated.Hours(), Wall: done.Wall.Seconds(), Repeated: done.Repeated,
		Events: done.Events, Operations: done.Operations, Marks: done.Marks, Unreached: []string{}, Failed: failed, Failures: []*verdict{},
		Mutant: w.mutant, Version: w.version, Revision: w.revision,
	}
	total.Failures = append(total.Failures, failures...)
	for _, mark := range w.marks(w.groups) {
		if total.Marks[mark] == 0 {
			total.Unreached = append(total.Unreached, mark)
		}
	}
	return total
}

// keep writes what was asked for of the first failure. To draw it, it is run once more.
func (w *sweep) keep(failures []*verdict) error {
	if len(failures) == 0 || w.html == "" && w.save == "" {
		return nil
	}
	seed, err := strconv.ParseUint(failures[0].Seed, 10, 64)
	if err != nil {
		return err
	}
	p := w.planOf(seed)
	r := &sim.Result{}
	if w.html != "" {
		r = w.simulator.run(p, w.options(true))
	}
	return w.write(p, r.Trace, failures[0].Command, w.mutant)
}

func (w *sweep) page(out io.Writer, total *sum) {
	outcome := cell{"clean", good}
	if total.Failed > 0 {
		outcome = cell{fmt.Sprintf("%d of %d runs broke a promise", total.Failed, total.Seeds), bad}
	}
	interrupted := ""
	if total.Interrupted {
		interrupted = "yes, this is the sum so far"
	}
	marks := w.marks(w.groups)
	w.pairs(out,
		pair{"outcome", outcome},
		pair{"interrupted", cell{interrupted, weak}},
		pair{"mutant", text(total.Mutant)},
		pair{"seeds", text(fmt.Sprintf("%d from %s on", total.Seeds, total.First))},
		pair{"simulated", text(fmt.Sprintf("%.2f hours", total.Hours))},
		pair{"took", text(seconds(total.Wall))},
		pair{"repeated", text(fmt.Sprintf("%d runs, to compare", total.Repeated))},
		pair{"events", text(strconv.FormatUint(total.Events, 10))},
		pair{"operations", text(strconv.FormatUint(total.Operations, 10))},
		pair{"marks", text(fmt.Sprintf("%d of %d reached", len(marks)-len(total.Unreached), len(marks)))},
		pair{"not reached", cell{strings.Join(total.Unreached, ", "), weak}},
	)
	if total.Failed == 0 {
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
