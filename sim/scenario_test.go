package sim_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/writ-io/writ/sim"
)

var rewrite = flag.Bool("rewrite", false, "write what came of the scenarios into testdata/golden")

// Every scenario breaks what it says that it breaks, and was where its golden file says that it was. Counts and the hash are
// left out: they change with every drawn delay.
func TestScenarios(t *testing.T) {
	golden := filepath.Join("testdata", "golden")
	known := map[string]bool{}
	for _, name := range sim.Scenarios() {
		known[name+".golden"] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, ok := sim.Scenario(name)
			if !ok || p.Name != name || len(p.About) == 0 {
				t.Fatalf("there is no scenario of that name that says what it shows: it is called %q", p.Name)
			}
			r := sim.Run(p, sim.Options{})
			broken := map[string]bool{}
			for _, v := range r.Violations {
				broken[v.Invariant] = true
				if !slices.Contains(p.Expect, v.Invariant) {
					t.Errorf("%v %s: %s", v.At, v.Invariant, v.Text)
				}
			}
			for _, invariant := range p.Expect {
				if !broken[invariant] {
					t.Errorf("%s is expected to break, and holds", invariant)
				}
			}
			var got bytes.Buffer
			fmt.Fprintf(&got, "broken: %s\n", cmp.Or(strings.Join(slices.Sorted(maps.Keys(broken)), " "), "nothing"))
			for _, mark := range slices.Concat(sim.Marks(), sim.PromotionMarks()) {
				if r.Marks[mark] > 0 {
					fmt.Fprintln(&got, mark)
				}
			}
			path := filepath.Join(golden, name+".golden")
			if *rewrite {
				if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, got.Bytes()) {
				t.Errorf("got\n%s\nwant\n%s\nrun with -rewrite and read the difference", &got, want)
			}
		})
	}
	entries, err := os.ReadDir(golden)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !known[e.Name()] {
			t.Errorf("%s is of no scenario", filepath.Join(golden, e.Name()))
		}
	}
}

// What a plan shows is the same each time, also while others run.
func TestScenariosRepeatThemselves(t *testing.T) {
	for _, name := range []string{"clean", "partition-with-takeover"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, _ := sim.Scenario(name)
			first, second := sim.Run(p, sim.Options{}), sim.Run(p, sim.Options{Trace: true})
			if first.Hash != second.Hash || first.Events != second.Events || first.Trace != nil || second.Trace == nil {
				t.Errorf("%s after %d events, then %s after %d", first.Hash, first.Events, second.Hash, second.Events)
			}
		})
	}
}
