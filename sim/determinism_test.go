package sim_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/sim"
	"github.com/writ-io/writ/sim/plan"
)

// repeated lists the plans that are carried out again and again: a minute of some drawn ones, and one that must fail.
func repeated() (plans []plan.Plan) {
	for _, store := range []plan.Store{plan.Raft, plan.Fast} {
		for seed := range uint64(2) {
			plans = append(plans, plan.Draw(seed, plan.Seeded(seed), plan.DrawOptions{Duration: time.Minute, Store: store}))
		}
		plans = append(plans, broken(store))
	}
	return plans
}

// small is a plan of two clients, who take turns, and two faults.
func small(store plan.Store) plan.Plan {
	p := plan.Plan{
		Seed: 1, Store: store, Duration: 20 * time.Second, Election: time.Second, Heartbeat: 100 * time.Millisecond,
		MaxTTL: time.Minute, Retention: time.Minute, SyncDelay: time.Millisecond, Sample: 20,
		Nodes: []plan.Node{{Name: "n1", Region: "a"}, {Name: "n2", Region: "a"}, {Name: "n3", Region: "a"}},
		Faults: []plan.Fault{
			{At: 2 * time.Second, For: 5 * time.Second, Kind: plan.Cut, A: []string{"n1"}},
			{At: 9 * time.Second, For: time.Second, Kind: plan.Pause, A: []string{"n2"}},
		},
	}
	for i := range 2 {
		p.Clients = append(p.Clients, plan.Client{
			Name: fmt.Sprint("c", i+1), Region: "a", Resources: []string{"r"}, TTL: 5 * time.Second, Hold: time.Second,
			Think: 100 * time.Millisecond, Write: 100 * time.Millisecond,
		})
	}
	return p
}

// broken is a plan outside of the model: whoever holds the lease is cut off, and its clock is much too slow.
func broken(store plan.Store) plan.Plan {
	p := small(store)
	for i := range p.Clients {
		p.Clients[i].PPM, p.Clients[i].Hold = -300_000, time.Minute
	}
	p.Faults = []plan.Fault{{At: 5 * time.Second, For: 12 * time.Second, Kind: plan.Cut, A: []string{plan.Holder}}}
	return p
}

// outcome is everything that a plan has come to, as text; the trace apart.
func outcome(p plan.Plan, o sim.Options) string {
	r := sim.Run(p, o)
	r.Trace = nil
	text, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// outcomes of all repeated plans, a line each.
func outcomes(o sim.Options) []string {
	var lines []string
	for _, p := range repeated() {
		lines = append(lines, outcome(p, o))
	}
	return lines
}

// tellOutcomes is the variable that makes the test binary tell the outcomes to the file that it names.
const tellOutcomes = "WRIT_SIM_OUTCOMES"

// TestTellOutcomes is what TestRunsRepeatThemselves starts in processes of its own.
func TestTellOutcomes(t *testing.T) {
	name := os.Getenv(tellOutcomes)
	if name == "" {
		t.Skip("only for the processes of another test")
	}
	if err := os.WriteFile(name, []byte(strings.Join(outcomes(sim.Options{}), "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// process carries the plans out in a fresh process with so many processors.
func process(t *testing.T, processors int) []string {
	file := fmt.Sprintf("%s/%d", t.TempDir(), processors)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTellOutcomes$")
	cmd.Env = append(os.Environ(), tellOutcomes+"="+file, fmt.Sprint("GOMAXPROCS=", processors))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
	}
	return strings.Split(string(text), "\n")
}

// One plan has one outcome: again, beside another run, in another process, with other processors, and traced.
func TestRunsRepeatThemselves(t *testing.T) {
	ways := []struct {
		name string
		run  func() []string
		got  []string
	}{
		{name: "in one goroutine", run: func() []string { return outcomes(sim.Options{}) }},
		{name: "in another at once, traced", run: func() []string { return outcomes(sim.Options{Trace: true}) }},
		{name: "in a process with one processor", run: func() []string { return process(t, 1) }},
		{name: "in a process with two", run: func() []string { return process(t, 2) }},
	}
	var running sync.WaitGroup
	for i := range ways {
		running.Go(func() { ways[i].got = ways[i].run() })
	}
	running.Wait()
	want := outcomes(sim.Options{})
	for _, way := range ways {
		if len(way.got) != len(want) {
			t.Errorf("%s: %d outcomes, want %d", way.name, len(way.got), len(want))
			continue
		}
		for i, p := range repeated() {
			if way.got[i] != want[i] {
				t.Errorf("seed %d on %s, %s:\n%s\nand alone:\n%s", p.Seed, p.Store, way.name, way.got[i], want[i])
			}
		}
	}
	for i, p := range repeated() {
		if fails := strings.Contains(want[i], `"Invariant":"S4"`); fails != (p.Clients[0].PPM < -plan.MaxPPM) {
			t.Errorf("seed %d on %s: %s", p.Seed, p.Store, want[i])
		}
	}
	slices.Sort(want)
	if n := len(slices.Compact(want)); n != len(ways[0].got) {
		t.Errorf("%d plans have %d outcomes", len(ways[0].got), n)
	}
}

// What else is looked at must not change what happens.
func TestTraceChangesNothing(t *testing.T) {
	p := repeated()[0]
	p.Duration = 10 * time.Second
	p.Faults = slices.DeleteFunc(p.Faults, func(f plan.Fault) bool { return f.At >= p.Duration })
	with, without := sim.Run(p, sim.Options{Trace: true}), sim.Run(p, sim.Options{})
	if with.Hash != without.Hash || with.Events != without.Events {
		t.Errorf("%d events to hash %s with a trace, %d to %s without", with.Events, with.Hash, without.Events, without.Hash)
	}
	if with.Trace == nil || without.Trace != nil {
		t.Error("there is no trace, or one that nobody asked for")
	}
}

// A hash is worth something if it shows what is different: a fault less, another seed, or a client that is a little slower.
func TestHashShowsThePlan(t *testing.T) {
	for _, store := range []plan.Store{plan.Raft, plan.Fast} {
		seen := make(map[string]string)
		for name, change := range map[string]func(p *plan.Plan){
			"the plan":        func(*plan.Plan) {},
			"a fault less":    func(p *plan.Plan) { p.Faults = p.Faults[1:] },
			"a longer fault":  func(p *plan.Plan) { p.Faults[0].For += time.Millisecond },
			"another seed":    func(p *plan.Plan) { p.Seed++ },
			"a slower client": func(p *plan.Plan) { p.Clients[0].PPM-- },
			"a client less":   func(p *plan.Plan) { p.Clients = p.Clients[1:] },
		} {
			p := small(store)
			change(&p)
			if err := p.Validate(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			r := sim.Run(p, sim.Options{})
			if len(r.Violations) > 0 {
				t.Errorf("%s on %s: %v", name, store, r.Violations)
			}
			if other, ok := seen[r.Hash]; ok {
				t.Errorf("on %s %s and %s have one hash", store, name, other)
			}
			seen[r.Hash] = name
		}
	}
}
