//go:build linux

package judge_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/writ-io/writ/jepsen/judge"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

// grant is a call of the counter that succeeds.
func grant(w *record.Writer, token int) {
	w.Call("counter", "c", "acquire", map[string]any{"resource": fmt.Sprint("r", token)})(record.OK,
		map[string]any{"resource": fmt.Sprint("r", token), "token": token})
}

// run writes a record of two rounds, as a test wants it.
type run struct {
	calls     int
	afterHeal bool
	faults    bool
	log       string
	problems  []record.Problem
	unended   bool
	control   bool
	breaks    *record.Check
	controls  []string
	back      bool // tokens go back
	workloads []string
}

func (r run) write(t *testing.T, dir string) string {
	t.Helper()
	if r.workloads == nil {
		r.workloads = []string{"counter"}
	}
	w, err := record.Create(dir, record.Run{
		Name: "run", Control: r.control, Breaks: r.breaks, Controls: r.controls, Workloads: r.workloads, Nemeses: []string{"kill-node", "reset"}, Problems: []record.Problem{},
	})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		w.Round([]string{"kill-node"})
		if r.faults {
			w.Fault("kill-node", "eu")()
		}
		for i := range r.calls {
			grant(w, 1+round*1000+i)
		}
		w.Healed()
		if r.afterHeal {
			grant(w, 500+round*1000)
		}
	}
	if r.back {
		grant(w, 1)
		grant(w, 1)
	}
	for _, p := range r.problems {
		w.Problem(p)
	}
	if err := os.WriteFile(filepath.Join(dir, record.LogsDir, "eu.log"), []byte(r.log+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !r.unended {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestVerdicts(t *testing.T) {
	sound := run{calls: 5, afterHeal: true, faults: true, log: "all is well: panic: no"}
	for name, row := range map[string]struct {
		change func(*run)
		want   verdict.Verdict
		reason string
	}{
		"sound":               {func(*run) {}, verdict.Valid, ""},
		"no recovery":         {func(r *run) { r.afterHeal = false }, verdict.Unknown, "no call succeeded after the faults"},
		"no faults":           {func(r *run) { r.faults = false }, verdict.Unknown, "no nemesis struck"},
		"a panic":             {func(r *run) { r.log = "panic: runtime error" }, verdict.Invalid, "a process broke down"},
		"an end by itself":    {func(r *run) { r.problems = []record.Problem{{Broken: true, Text: "eu"}} }, verdict.Invalid, "a process ended"},
		"the harness failed":  {func(r *run) { r.problems = []record.Problem{{Text: "disk full"}} }, verdict.Unknown, "the harness failed"},
		"it crashed at once":  {func(r *run) { r.unended, r.calls, r.afterHeal = true, 0, false }, verdict.Unknown, "0 calls succeeded"},
		"the harness crashed": {func(r *run) { r.unended = true }, verdict.Unknown, "did not come to its end"},
	} {
		t.Run(name, func(t *testing.T) {
			r := sound
			row.change(&r)
			report, err := judge.Dir(r.write(t, t.TempDir()))
			if err != nil {
				t.Fatal(err)
			}
			if report.Verdict != row.want || report.Overall() != row.want {
				t.Errorf("%v and %v, want %v: %+v", report.Verdict, report.Overall(), row.want, report.Judgements)
			}
			found := row.reason == ""
			for _, j := range report.Judgements {
				found = found || strings.Contains(j.Reason, row.reason)
			}
			if !found {
				t.Errorf("%q is no reason of %+v", row.reason, report.Judgements)
			}
		})
	}
}

// linesOf makes a record of one round of lines as they are, of a run with these fields. Times are in seconds.
func linesOf(t *testing.T, fields string, healed int, calls ...[2]int) *judge.Report {
	t.Helper()
	dir := run{}.write(t, t.TempDir())
	var history, faults strings.Builder
	for i, call := range calls {
		_, _ = fmt.Fprintf(&history, `{"at":%d,"what":"call","id":%d,"round":1,"workload":"counter","client":"c","op":"renew"}`+"\n", call[0]*1e9, i+1)
		_, _ = fmt.Fprintf(&history, `{"at":%d,"what":"return","id":%d,"outcome":"ok"}`+"\n", call[1]*1e9, i+1)
	}
	_, _ = fmt.Fprintf(&history, `{"at":%d,"what":"event","workload":"counter","client":"c","op":"end"}`+"\n", int(1e12))
	_, _ = fmt.Fprintf(&faults, `{"at":0,"what":"round","round":1}`+"\n"+`{"at":%d,"what":"healed","round":1}`+"\n", healed*1e9)
	whole := fmt.Sprintf(`{"format":1,"name":"run","workloads":["counter"],%s}`, fields)
	for name, text := range map[string]string{record.HistoryFile: history.String(), record.FaultsFile: faults.String(), record.RunFile: whole} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := judge.Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLiveness(t *testing.T) {
	busy := [][2]int{{1, 2}, {3, 4}, {5, 6}, {7, 8}, {9, 10}}
	for name, row := range map[string]struct {
		run    string // empty: one that came to its end
		healed int
		calls  [][2]int
		want   verdict.Verdict
		reason string
	}{
		"at once":           {"", 10, [][2]int{{11, 12}}, verdict.Valid, "a call succeeded 2s after the faults"},
		"the first counts":  {"", 10, [][2]int{{11, 12}, {500, 501}}, verdict.Valid, "a call succeeded 2s after the faults"},
		"late":              {"", 10, [][2]int{{400, 401}}, verdict.Invalid, "the first 6m31s after them"},
		"never":             {"", 10, nil, verdict.Invalid, "no call succeeded after the faults"},
		"asked before":      {"", 11, [][2]int{{10, 12}}, verdict.Invalid, "no call succeeded after the faults"},
		"no time was left":  {"", 999, nil, verdict.Unknown, "the record ends 1s after them"},
		"a slow one is not": {"", 10, [][2]int{{11, 300}}, verdict.Invalid, "no call succeeded within"},
		"interrupted":       {`"ended":true,"problems":[{"text":"interrupted"}]`, 10, [][2]int{{400, 401}}, verdict.Unknown, "broken off"},
		"soon enough":       {`"ended":true,"problems":[{"text":"interrupted"}]`, 10, [][2]int{{11, 12}}, verdict.Valid, "a call succeeded 2s"},
		"not ready":         {`"ended":true,"problems":[{"text":"eu is not ready","broken":true}]`, 10, [][2]int{{400, 401}}, verdict.Invalid, "6m31s"},
	} {
		t.Run(name, func(t *testing.T) {
			r := linesOf(t, cmp.Or(row.run, `"ended":true`), row.healed, append(slices.Clone(busy), row.calls...)...)
			i := slices.IndexFunc(r.Judgements, func(j verdict.Judgement) bool { return j.Check == "L1" })
			if j := r.Judgements[i]; j.Verdict != row.want || !strings.Contains(j.Reason, row.reason) {
				t.Errorf("%v: %s; want %v: %s", j.Verdict, j.Reason, row.want, row.reason)
			}
		})
	}
}

// Of a run that was broken off it is not known whether there would have been more, and nothing is asked for in no time.
func TestRate(t *testing.T) {
	one := [][2]int{{1, 2}}
	for name, row := range map[string]struct {
		run    string
		healed int
		calls  [][2]int
		want   verdict.Verdict
		reason string
	}{
		"too few":            {`"ended":true`, 100, one, verdict.Invalid, "1 calls succeeded, 0.0 a second"},
		"killed":             {`"ended":false`, 100, one, verdict.Unknown, "1 calls succeeded, 0.0 a second"},
		"interrupted":        {`"ended":true,"problems":[{"text":"interrupted"}]`, 100, one, verdict.Unknown, "1 calls succeeded, 0.0 a second"},
		"all when healed":    {`"ended":true`, 3, [][2]int{{2, 4}, {5, 6}, {7, 8}, {8, 9}}, verdict.Invalid, "0 calls succeeded, 0.0 a second; 1.0 are asked for"},
		"none in two calls":  {`"ended":true,"pace":0.1`, 29, nil, verdict.Invalid, "0 calls succeeded, 0.0 a second; 0.1 are asked for"},
		"none in half a one": {`"ended":true,"pace":0.1`, 5, nil, verdict.Valid, "0 calls succeeded, 0.0 a second; 0.1 are asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			r := linesOf(t, row.run, row.healed, row.calls...)
			i := slices.IndexFunc(r.Judgements, func(j verdict.Judgement) bool { return j.Check == "rate" })
			if j := r.Judgements[i]; j.Verdict != row.want || !strings.Contains(j.Reason, row.reason) {
				t.Errorf("%v: %s; want %v: %s", j.Verdict, j.Reason, row.want, row.reason)
			}
		})
	}
}

// Less is asked for of regions that are far apart.
func TestPace(t *testing.T) {
	var calls [][2]int
	for i := range 30 {
		calls = append(calls, [2]int{i, i + 1})
	}
	for pace, want := range map[float64]verdict.Verdict{0: verdict.Invalid, 1: verdict.Invalid, 0.5: verdict.Invalid, 0.2: verdict.Valid} {
		r := linesOf(t, fmt.Sprintf(`"ended":true,"pace":%v`, pace), 100, calls...)
		i := slices.IndexFunc(r.Judgements, func(j verdict.Judgement) bool { return j.Check == "rate" })
		if j := r.Judgements[i]; j.Verdict != want || !strings.Contains(j.Reason, "30 calls succeeded") {
			t.Errorf("at %v: %v: %s", pace, j.Verdict, j.Reason)
		}
	}
}

func TestLogs(t *testing.T) {
	judged := func(dir string) verdict.Judgement {
		r, err := judge.Dir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return r.Judgements[slices.IndexFunc(r.Judgements, func(j verdict.Judgement) bool { return j.Check == "logs" })]
	}
	for _, line := range []string{"2026-01-01 [ERROR] writ.api: a handler panicked; the server goes on: x", "[ERROR] guard: http: panic serving 10.0.0.1"} {
		if j := judged(run{log: line}.write(t, t.TempDir())); j.Verdict != verdict.Invalid {
			t.Errorf("%s: %+v", line, j)
		}
	}
	if j := judged(run{log: "fatal error: all goroutines are asleep"}.write(t, t.TempDir())); len(j.Evidence) != 1 || !strings.Contains(j.Evidence[0], "eu.log: fatal error") {
		t.Errorf("who broke down is not said: %+v", j)
	}
	dir := run{}.write(t, t.TempDir())
	if err := os.Remove(filepath.Join(dir, record.LogsDir, "eu.log")); err != nil {
		t.Fatal(err)
	}
	if j := judged(dir); j.Verdict != verdict.Unknown {
		t.Errorf("without a log: %+v", j)
	}
}

// A request that leaves a goroutine behind shows in the next rounds; that there are some more does not matter.
func TestGoroutines(t *testing.T) {
	for name, row := range map[string]struct {
		counts []int
		want   verdict.Verdict
	}{
		"sound":      {[]int{200, 350, 120, 880}, verdict.Valid},
		"more":       {[]int{200, 350, 901}, verdict.Invalid},
		"not counts": {nil, verdict.Unknown},
	} {
		dir := t.TempDir()
		w, err := record.Create(dir, record.Run{Name: "run", Workloads: []string{"counter"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, count := range row.counts {
			w.Goroutines("eu", count)
			w.Goroutines("us", 100)
		}
		if row.counts == nil {
			w.Event(record.Harness, "eu", record.OpGoroutines, "many")
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := judge.Dir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if j := r.Judgements[slices.IndexFunc(r.Judgements, func(j verdict.Judgement) bool { return j.Check == "goroutines" })]; j.Verdict != row.want {
			t.Errorf("%s: %+v", name, j)
		}
	}
}

// A nemesis that has its turn again and again, and never does harm, shows nothing.
func TestIdleNemeses(t *testing.T) {
	for turns, want := range map[int]verdict.Verdict{2: verdict.Valid, 3: verdict.Unknown} {
		dir := t.TempDir()
		w, err := record.Create(dir, record.Run{Name: "run", Workloads: []string{"counter"}, Nemeses: []string{"kill-node", "reset"}, LeftOut: map[string]string{"starve": "no cgroups"}})
		if err != nil {
			t.Fatal(err)
		}
		for range turns {
			w.Round([]string{"kill-node", "reset"})
			w.Fault("kill-node", "eu")()
			w.Healed()
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := judge.Dir(dir)
		if err != nil {
			t.Fatal(err)
		}
		j := r.Judgements[slices.IndexFunc(r.Judgements, func(j verdict.Judgement) bool { return j.Check == "faults" })]
		if evidence := strings.Join(j.Evidence, "\n"); j.Verdict != want || !strings.Contains(evidence, "did not strike: reset") || !strings.Contains(evidence, "left out: starve: no cgroups") {
			t.Errorf("%d turns: %+v", turns, j)
		}
	}
}

// A control that is not found out makes a valid run invalid, and so does one of which nothing is known, or which something else
// went wrong with. One that is missing leaves everything open.
func TestControls(t *testing.T) {
	tokens, numbers := &record.Check{Workload: "counter", Check: "tokens increase"}, &record.Check{Workload: "counter", Check: "nothing lost"}
	late := []record.Problem{{Broken: true, Text: "late"}}
	for name, row := range map[string]struct {
		control run
		belong  []string
		want    verdict.Verdict
	}{
		"found out":             {run{control: true, breaks: tokens, back: true}, []string{"run"}, verdict.Valid},
		"of an older record":    {run{control: true, back: true}, nil, verdict.Valid},
		"not found out":         {run{control: true, breaks: tokens, calls: 5}, []string{"run"}, verdict.Invalid},
		"unknown":               {run{control: true, breaks: tokens, calls: 5, unended: true}, []string{"run"}, verdict.Invalid},
		"something else broke":  {run{control: true, breaks: tokens, problems: late}, []string{"run"}, verdict.Invalid},
		"a process broke down":  {run{control: true, log: "panic: no"}, nil, verdict.Invalid},
		"another promise broke": {run{control: true, breaks: numbers, back: true}, []string{"run"}, verdict.Invalid},
		"one is missing":        {run{control: true, breaks: tokens, back: true}, []string{"run", "other"}, verdict.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			dir := run{calls: 5, afterHeal: true, faults: true, controls: row.belong}.write(t, t.TempDir())
			row.control.faults = true
			row.control.write(t, filepath.Join(dir, record.ControlsDir, "one"))
			report, err := judge.Dir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if report.Verdict != verdict.Valid || report.Overall() != row.want {
				t.Errorf("the run is %v, all together %v, want %v", report.Verdict, report.Overall(), row.want)
			}
		})
	}
}

func TestWhatCannotBeJudged(t *testing.T) {
	if _, err := judge.Dir(t.TempDir()); err == nil {
		t.Error("an empty directory was judged")
	}
	if _, err := judge.Dir(run{workloads: []string{"regster"}}.write(t, t.TempDir())); err == nil || !strings.Contains(err.Error(), "regster") {
		t.Errorf("a workload that is none: %v", err)
	}
}
