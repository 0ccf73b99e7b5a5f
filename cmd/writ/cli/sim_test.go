package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/sim"
	"github.com/writ-io/writ/sim/mutant"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
)

// toy is a simulator in which a run breaks S4 if its plan pauses somebody, and whose scenario is "calm".
func toy() *simulator {
	s := &simulator{
		run: func(p plan.Plan, o sim.Options) *sim.Result {
			r := &sim.Result{Seed: p.Seed, Hash: "00ff", Events: 10, Operations: 5, Simulated: p.Duration, Marks: map[string]uint64{"hand-off": 2}}
			if i := slices.IndexFunc(p.Faults, func(f plan.Fault) bool { return f.Kind == plan.Pause }); i >= 0 {
				r.Violations = []trace.Violation{
					{At: p.Faults[i].At, Invariant: "S4", Text: "two\nbelieve"}, {At: p.Faults[i].At + 1, Invariant: "S4", Text: "again"},
				}
			}
			if o.Trace {
				r.Trace = &trace.Trace{Seed: p.Seed, Hash: r.Hash, Simulated: r.Simulated, Violations: r.Violations}
			}
			return r
		},
		scenario: func(name string) (plan.Plan, bool) {
			p, err := plan.Parse(name, []byte("writ-sim 1\nname calm\nseed 9\nnode n1 region eu\nclient c1 region eu resources r1\nat 30s for 1s cut n1\n"))
			return p, err == nil && name == "calm"
		},
		scenarios: func() []string { return []string{"calm"} },
		marks:     func(bool) []string { return []string{"hand-off", "take-over"} },
	}
	s.sweep = s.oneByOne
	return s
}

// oneByOne sweeps as sim.Sweep does, in order, and says that every run was repeated.
func (s *simulator) oneByOne(ctx context.Context, w sim.Sweep) *sim.Summary {
	done := &sim.Summary{Marks: map[string]uint64{}}
	for seed := w.From; seed < w.From+w.Seeds && ctx.Err() == nil; seed++ {
		p := w.Plan(seed)
		r := s.run(p, w.Options)
		done.Seeds++
		done.Repeated++
		done.Simulated += r.Simulated
		done.Events += r.Events
		done.Operations += r.Operations
		for mark, n := range r.Marks {
			done.Marks[mark] += n
		}
		w.Each(p, r)
	}
	return done
}

func writSim(ctx context.Context, s *simulator, args ...string) result {
	var stdout, stderr bytes.Buffer
	a := &app{stdout: &stdout, stderr: &stderr, now: func() time.Time { return instant }, simulator: s}
	code := a.run(ctx, "1.2.3", append([]string{"sim"}, args...), nil, nil)
	return result{code, stdout.String(), stderr.String()}
}

const pausing = "writ-sim 1\nname pausing\nseed 7\nnode n1 region eu\nnode n2 region eu\nnode n3 region eu\nclient c1 region eu resources r1\nat 30s for 1s pause c1\nat 40s for 1s cut n1\n"

// scenarioFile writes a plan and answers its path.
func scenarioFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plan.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}

func TestSimMisunderstandings(t *testing.T) {
	taken := scenarioFile(t, "writ-sim 2\n")
	for line, want := range map[string]string{
		"run --seed x":                      `--seed is "x"; use a whole number from 0 to 18446744073709551615`,
		"run --seed -1":                     `--seed is "-1"; use a whole number from 0 to 18446744073709551615`,
		"run --hours x":                     `--hours is "x"; use a number, such as 0.5`,
		"run --hours 0":                     "--hours is 0; use a positive number, such as 0.5",
		"run --hours NaN":                   "--hours is NaN; use a positive number, such as 0.5",
		"run --require-marks":               "--require-marks is of sweeps; give --hours or --seeds, or leave it out",
		"run --seeds 0":                     "--seeds is 0; use 1 or more",
		"run --seeds 3 --hours 1":           "--seeds excludes --hours; choose one",
		"run --groups --scenario calm":      "--groups is of drawn plans; leave it or --scenario out",
		"run --store etcd":                  `--store is "etcd"; use raft or fast`,
		"run --duration 1ms":                "--duration is 1ms; use 1s to 24h0m0s",
		"run --scenario stormy":             `--scenario "stormy" is unknown; use one of calm, or a file`,
		"run --scenario calm --duration 2s": "--scenario does not go with the other flags: the instant of cut at 30s is 30s; use 0s to 2s; leave --duration out, or change the scenario",
		"run --save " + taken:               "--save " + taken + " exists; name another one",
		"run x":                             `arguments are too many: "x"; write: writ sim run`,
		"replay":                            "FILE is missing; write: writ sim replay FILE",
		"replay nowhere":                    "FILE nowhere does not exist; name a file that was written with --save",
		"replay " + taken:                   taken + `:1:10: the plan is of version "2"; this program knows version 1: use the program that wrote the file`,
		"minimize":                          "FILE or --seed is to be given; give one of them",
		"minimize x --seed 1":               "FILE excludes --seed, --duration and --store; choose one",
		"minimize x --runs 0":               "--runs is 0; use 1 or more",
		"rnu":                               `command "writ sim rnu" is unknown; did you mean writ sim run?`,
	} {
		t.Run(line, func(t *testing.T) {
			writSim(t.Context(), toy(), strings.Fields(line)...).want(t, 1, "", "writ: INVALID: "+want+"\n")
		})
	}
}

func TestSimRun(t *testing.T) {
	r := writSim(t.Context(), toy(), "run", "--scenario", "calm", "-o", "json")
	v := decode[verdict](t, r.stdout)
	if r.code != 0 || r.stderr != "" || !v.OK || v.Seed != "9" || v.Hash != "00ff" || v.Simulated != 120 || v.Events != 10 || v.Operations != 5 ||
		len(v.Violations) != 0 || v.Marks["hand-off"] != 2 || v.Command != "writ sim run --scenario calm" {
		t.Errorf("got %+v", r)
	}
	if r := writSim(t.Context(), toy(), "run", "--scenario", "calm", "--seed", "3", "--store", "fast"); r.code != 0 ||
		!strings.Contains(r.stdout, "outcome     clean\n") || !strings.Contains(r.stdout, "seed        3\n") || !strings.Contains(r.stdout, "1 of 2 reached") {
		t.Errorf("got %+v", r)
	}
	if r := writSim(t.Context(), toy(), "run", "--seed", "18446744073709551615", "--duration", "1m", "-o", "json"); field(t, r.stdout, "seed") != "18446744073709551615" ||
		field(t, r.stdout, "command") != "writ sim run --seed 18446744073709551615 --duration 1m0s" {
		t.Errorf("got %+v", r)
	}
}

// A broken promise tells the seed, the version and the command, and decides the exit code.
func TestSimReplay(t *testing.T) {
	path := scenarioFile(t, pausing)
	page := filepath.Join(t.TempDir(), "page.html")
	r := writSim(t.Context(), toy(), "replay", path, "--html", page, "-o", "json")
	v := decode[verdict](t, r.stdout)
	if r.code != 1 || v.OK || len(v.Violations) != 2 || v.Violations[0] != (brokenPromise{"S4", 30, "two\nbelieve"}) {
		t.Errorf("got %+v", r)
	}
	if !strings.Contains(r.stderr, "writ: seed 7 of writ 1.2.3") || !strings.Contains(r.stderr, "is broken: S4\nwrit: again: writ sim replay "+path+"\n") {
		t.Errorf("told %s", r.stderr)
	}
	if html, err := os.ReadFile(page); err != nil || !strings.Contains(string(html), "writ sim replay "+path) || !strings.Contains(string(html), "pausing") {
		t.Errorf("no page of it: %v", err)
	}
	if r := writSim(t.Context(), toy(), "replay", path); r.code != 1 || !strings.Contains(r.stdout, "S4      30s            two; believe\n") {
		t.Errorf("got %+v", r)
	}
	if r := writSim(t.Context(), toy(), "replay", scenarioFile(t, pausing+"expect S4\n")); r.code != 0 || !strings.Contains(r.stdout, "broken as expected: S4") || r.stderr != "" {
		t.Errorf("got %+v", r)
	}
	if r := writSim(t.Context(), toy(), "replay", scenarioFile(t, pausing+"expect S1\n")); r.code != 1 {
		t.Errorf("got %+v", r)
	}
	if r := writSim(t.Context(), toy(), "replay", scenarioFile(t, strings.Replace(pausing, "pause", "crash", 1)+"expect S4\n")); r.code != 1 || !strings.Contains(r.stdout, "clean, but expected to break S4") {
		t.Errorf("got %+v", r)
	}
}

func TestSimSweep(t *testing.T) {
	saved, page := filepath.Join(t.TempDir(), "first.txt"), filepath.Join(t.TempDir(), "first.html")
	r := writSim(t.Context(), toy(), "run", "--seed", "5", "--hours", "2", "--save", saved, "--html", page, "-o", "json")
	total := decode[sum](t, r.stdout)
	if r.code != 1 || total.Seeds != 12 || total.Hours != 2 || total.First != "5" || total.Events != 120 || total.Marks["hand-off"] != 24 ||
		!slices.Equal(total.Unreached, []string{"take-over"}) || total.Interrupted || len(total.Failures) == 0 || len(total.Failures) == 12 ||
		total.Failed != len(total.Failures) || total.Repeated != 12 {
		t.Fatalf("got %+v", total)
	}
	if told := strings.Count(r.stderr, "again: writ sim run --seed "); told != len(total.Failures) {
		t.Errorf("%d failures, %d told", len(total.Failures), told)
	}
	again := decode[verdict](t, writSim(t.Context(), toy(), "replay", saved, "-o", "json").stdout)
	if first := total.Failures[0]; again.Seed != first.Seed || again.Violations[0] != first.Violations[0] {
		t.Errorf("the saved plan gives %+v, not %+v", again, first)
	}
	if _, err := os.Stat(page); err != nil {
		t.Error(err)
	}
	if r := writSim(t.Context(), toy(), "run", "--seeds", "1", "--groups"); r.code != 0 || !strings.Contains(r.stdout, "seeds        1 from 1 on\n") {
		t.Errorf("got %+v", r)
	}
	if r := writSim(t.Context(), toy(), "run", "--scenario", "calm", "--hours", "0.1"); r.code != 0 || !strings.Contains(r.stdout, "seeds        3 from 1 on\n") || !strings.Contains(r.stdout, "not reached  take-over\n") {
		t.Errorf("got %+v", r)
	}
}

// A sweep that lacks a mark fails where that is asked for.
func TestSimRequiredMarks(t *testing.T) {
	r := writSim(t.Context(), toy(), "run", "--scenario", "calm", "--hours", "0.1", "--require-marks")
	if r.code != 1 || !strings.Contains(r.stdout, "outcome      clean\n") || r.stderr != "writ: 1 marks were not reached: the sweep says nothing about take-over\n" {
		t.Errorf("got %+v", r)
	}
}

// An interrupt ends a sweep with what there is.
func TestSimInterrupted(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	s, runs := toy(), 0
	run := s.run
	s.run = func(p plan.Plan, o sim.Options) *sim.Result {
		if runs++; runs == 3 {
			stop()
		}
		return run(p, o)
	}
	r := writSim(ctx, s, "run", "--scenario", "calm", "--hours", "1000", "-o", "json")
	if total := decode[sum](t, r.stdout); r.code != 0 || total.Seeds != 3 || !total.Interrupted {
		t.Errorf("got %+v", r)
	}
}

// The simulator itself: one built-in scenario, and a sweep of two seeds, both in real runs.
func TestSimItself(t *testing.T) {
	r := writSim(t.Context(), nil, "run", "--scenario", "clean", "--store", "fast", "--duration", "5s", "-o", "json")
	if v := decode[verdict](t, r.stdout); r.code != 0 || !v.OK || v.Scenario != "clean" || v.Operations == 0 {
		t.Errorf("got %+v", r)
	}
	args := []string{"run", "--seed", "99", "--store", "fast", "--duration", "10s", "--hours", "0.005", "-o", "json"}
	total := decode[sum](t, writSim(t.Context(), nil, args...).stdout)
	if total.Seeds != 2 || total.Repeated != 1 || total.First != "99" || total.Failed != 0 {
		t.Errorf("got %+v", total)
	}
}

// A bug can be planted only where the program has some; then it is part of the command that shows it.
func TestSimMutant(t *testing.T) {
	r := writSim(t.Context(), toy(), "run", "--scenario", "calm", "--mutant", "EarlyExpiry", "-o", "json")
	if !mutant.Enabled {
		if r.code != 1 || !strings.Contains(r.stderr, "--mutant") {
			t.Errorf("got %+v", r)
		}
		return
	}
	if v := decode[verdict](t, r.stdout); v.Mutant != "EarlyExpiry" || v.Command != "writ sim run --scenario calm --mutant EarlyExpiry" {
		t.Errorf("got %+v", r)
	}
	if r := writSim(t.Context(), toy(), "run", "--mutant", "Godzilla"); r.code != 1 || !strings.Contains(r.stderr, `--mutant "Godzilla" is unknown; use one of ValidityFromReply, `) {
		t.Errorf("got %+v", r)
	}
}

func TestSimMinimize(t *testing.T) {
	saved := filepath.Join(t.TempDir(), "small.txt")
	r := writSim(t.Context(), toy(), "minimize", scenarioFile(t, pausing), "--save", saved)
	if r.code != 0 || !strings.Contains(r.stderr, "1 faults of 2, 1 clients of 1 and 1 nodes of 3 are left") {
		t.Fatalf("got %+v", r)
	}
	p, err := plan.Parse("small", []byte(r.stdout))
	if err != nil || len(p.Faults) != 1 || p.Faults[0].Kind != plan.Pause || len(p.About) != 1 || !strings.HasPrefix(p.About[0], "Breaks S4, with writ 1.2.3") {
		t.Errorf("%v in\n%s", err, r.stdout)
	}
	if text, err := os.ReadFile(saved); err != nil || string(text) != r.stdout {
		t.Errorf("saved %q, %v", text, err)
	}
	v := decode[minimized](t, writSim(t.Context(), toy(), "minimize", saved, "-o", "json").stdout)
	if !strings.HasPrefix(v.Plan, "writ-sim 1\n") || v.Runs < 2 || len(v.Violations) != 2 || v.Seed != "7" {
		t.Errorf("got %+v", v)
	}
	writSim(t.Context(), toy(), "minimize", scenarioFile(t, "writ-sim 1\nnode n1 region eu\n")).want(t, 1, "",
		"writ: INVALID: the plan of seed 1 breaks no promise; name one that does\n")
}

func TestSimCompletion(t *testing.T) {
	for _, x := range []struct{ line, want string }{
		{"__completeNoDesc sim run --store ", "raft\nfast\n:4\n"},
		{"__completeNoDesc sim run --scenario ", "calm\n:0\n"},
		{"__completeNoDesc sim m", "minimize\n:4\n"},
	} {
		var stdout, stderr bytes.Buffer
		a := &app{stdout: &stdout, stderr: &stderr, simulator: toy()}
		if code := a.run(t.Context(), "1.2.3", strings.Split(x.line, " "), nil, nil); code != 0 || stdout.String() != x.want {
			t.Errorf("%s: %d %q %q", x.line, code, stdout.String(), stderr.String())
		}
	}
}
