//go:build mutants

package sim_test

import (
	"flag"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/writ-io/writ/sim"
	"github.com/writ-io/writ/sim/mutant"
	"github.com/writ-io/writ/sim/plan"
)

// only leaves all mutants out but one, and all suites but its own.
var only = flag.String("mutant", "", "hunt only the mutants of these names, parted by commas")

func chosen(m mutant.Mutant) bool {
	return *only == "" || slices.Contains(strings.Split(*only, ","), string(m.ID))
}

// budget is how many seeds each mutant has to die within.
var budget = flag.Uint64("budget", 120, "how many seeds a mutant has to die within")

// mutantDuration is that of the drawn plans.
const mutantDuration = 5 * time.Minute

// plans of a suite, by seed: those of a scenario, or drawn ones.
func suite(scenario string, seed uint64) plan.Plan {
	if p, ok := sim.Scenario(scenario); ok {
		p.Seed = seed
		return p
	}
	return plan.Draw(seed, plan.Seeded(seed), plan.DrawOptions{Duration: mutantDuration, Store: plan.Fast, Guards: scenario == mutant.Guarded, Groups: scenario == mutant.Grouped, Singletons: scenario == mutant.Singletons})
}

// TestMutantsDie plants each bug of the registry and lets the simulator hunt it. One that survives its budget is a hole in
// what the simulator does or checks.
func TestMutantsDie(t *testing.T) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MUTANT\tSUITE\tKILLED BY\tSEEDS\tSECONDS")
	for _, m := range mutant.Registry {
		if !chosen(m) {
			continue
		}
		name := m.Scenario
		if name == "" {
			name = "drawn"
		}
		began := time.Now()
		if m.Test != "" {
			name = m.Test
		}
		by, seeds := hunt(m)
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%.1f\n", m.ID, name, by, seeds, time.Since(began).Seconds())
		t.Logf("%s (%s): %q after %d seeds, %.1f s", m.ID, name, by, seeds, time.Since(began).Seconds())
		if by == "" {
			t.Errorf("%s survived %d seeds of %s: %s", m.ID, seeds, name, m.What)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &table)
}

// hunt runs a mutant's suite until one of the invariants breaks that are expected to, or the code panics.
func hunt(m mutant.Mutant) (by string, seeds uint64) {
	if m.Test != "" {
		return tested(m)
	}
	killed := func(r *sim.Result) string {
		for _, v := range r.Violations {
			if v.Invariant == "panic" || slices.Contains(m.Kills, v.Invariant) {
				return v.Invariant
			}
		}
		return ""
	}
	for seed := uint64(0); seed < *budget; {
		batch := runs(m.Scenario, seed, min(uint64(runtime.GOMAXPROCS(0)), *budget-seed), string(m.ID))
		for _, r := range batch {
			seed++
			if by := killed(r); by != "" {
				return by, seed
			}
		}
	}
	return "", *budget
}

// tested lets the test of a mutant hunt it.
func tested(m mutant.Mutant) (by string, seeds uint64) {
	pkg, name, _ := strings.Cut(m.Test, " ")
	out, err := exec.Command("go", "test", "-C", "..", "-count=1", "-tags", "mutants", pkg, "-run", "^"+name+"$",
		"-rapid.nofailfile", "-rapid.shrinktime=1ms", "-rapid.checks=3000", "-mutant", string(m.ID)).CombinedOutput()
	if err != nil && strings.Contains(string(out), "--- FAIL: "+name) {
		return "test", 1
	}
	return "", 1
}

// runs carries plans of a suite out, some at a time, and answers what came of them in order of their seeds.
func runs(scenario string, from, n uint64, id string) []*sim.Result {
	results := make([]*sim.Result, n)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() { results[i] = sim.Run(suite(scenario, from+i), sim.Options{Mutant: id}) })
	}
	running.Wait()
	return results
}

// TestUnmutatedCodeSurvives runs the same suites as long without any mutant: what kills mutants must not kill the code.
func TestUnmutatedCodeSurvives(t *testing.T) {
	suites := []string{""}
	if *only != "" {
		suites = nil
	}
	for _, m := range mutant.Registry {
		if m.Test == "" && !slices.Contains(suites, m.Scenario) && chosen(m) {
			suites = append(suites, m.Scenario)
		}
	}
	for _, name := range suites {
		for seed := uint64(0); seed < *budget; {
			for _, r := range runs(name, seed, min(uint64(runtime.GOMAXPROCS(0)), *budget-seed), "") {
				if len(r.Violations) > 0 {
					t.Errorf("suite %q, seed %d: %v: %s\n%s", name, seed, r.Violations[0].Invariant, r.Violations[0].Text, suite(name, seed))
				}
				seed++
			}
		}
	}
}
