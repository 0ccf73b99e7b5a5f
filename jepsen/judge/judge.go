//go:build linux

package judge

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/workload"
)

// Report is a run with what was found.
type Report struct {
	History    *record.History
	Judgements []verdict.Judgement
	// Verdict is that of the run by itself.
	Verdict verdict.Verdict
	// Controls are the runs that must be invalid.
	Controls []*Report
}

// Overall is the verdict on the run and its controls: a control that is not found out makes everything invalid, for then
// the judges, or the faults, are blind.
func (r *Report) Overall() verdict.Verdict {
	for _, c := range r.Controls {
		if c.Verdict != verdict.Invalid {
			return verdict.Invalid
		}
	}
	return r.Verdict
}

// Dir reads and judges a directory and its controls.
func Dir(dir string) (*Report, error) {
	h, err := record.Read(dir)
	if err != nil {
		return nil, err
	}
	r, err := History(h)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(dir, record.ControlsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		control, err := Dir(filepath.Join(dir, record.ControlsDir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("control %s: %w", e.Name(), err)
		}
		r.Controls = append(r.Controls, control)
	}
	return r, nil
}

// History judges one record. Errors: a workload that nobody knows.
func History(h *record.History) (*Report, error) {
	kinds, err := workload.Kinds.Named(h.Run.Workloads...)
	if err != nil {
		return nil, err
	}
	r := &Report{History: h}
	for _, k := range kinds {
		r.Judgements = append(r.Judgements, k.Check(h)...)
		if !h.Run.Control {
			r.Judgements = append(r.Judgements, rate(h, k))
			r.Judgements = append(r.Judgements, liveness(h, k)...)
		}
	}
	logged, err := logs(h)
	if err != nil {
		return nil, err
	}
	r.Judgements = append(r.Judgements, logged, harness(h), faults(h))
	if told, ok := audited(h); ok {
		r.Judgements = append(r.Judgements, told)
	}
	r.Verdict = verdict.Of(r.Judgements)
	return r, nil
}

// rate wants enough calls to have succeeded, on average over all rounds.
func rate(h *record.History, k workload.Kind) verdict.Judgement {
	var span time.Duration
	for i, r := range h.Rounds {
		end := h.Last
		if i+1 < len(h.Rounds) {
			end = h.Rounds[i+1].Began
		}
		if r.Healed != 0 {
			end = min(end, r.Healed)
		}
		span += end - r.Began
	}
	succeeded := 0
	for _, c := range h.Calls {
		if c.Workload == k.Name && c.Outcome == record.OK {
			succeeded++
		}
	}
	asked := k.Rate
	if h.Run.Pace > 0 {
		asked *= h.Run.Pace
	}
	j := verdict.Judgement{Workload: k.Name, Check: "rate", Verdict: verdict.Valid}
	j.Reason = fmt.Sprintf("%d calls succeeded, %.1f a second; %.1f are asked for", succeeded, float64(succeeded)/max(span.Seconds(), 1), asked)
	switch {
	case succeeded >= int(asked*span.Seconds()): // a part of a call cannot succeed
	case h.Complete() && len(h.Run.Problems) == 0:
		j.Verdict = verdict.Invalid
	default: // there may have been time for more
		j.Verdict = verdict.Unknown
	}
	return j
}

// liveness wants a call to succeed after each round.
func liveness(h *record.History, k workload.Kind) (all []verdict.Judgement) {
	for _, r := range h.Rounds {
		j := verdict.Judgement{Workload: k.Name, Check: "L1", Rounds: []int{r.Number}}
		took, found := recovery(h, k.Name, r.Healed)
		switch {
		case r.Healed == 0:
			j.Reason = "the round did not come to its end"
		case found && took <= k.Bound:
			j.Verdict = verdict.Valid
			j.Reason = fmt.Sprintf("a call succeeded %v after the faults, of at most %v", took.Round(time.Millisecond), k.Bound)
		case !found && h.Last < r.Healed+k.Bound:
			j.Reason = fmt.Sprintf("no call succeeded after the faults, and the record ends %v after them", (h.Last - r.Healed).Round(time.Millisecond))
		case !found:
			j.Verdict, j.Reason = verdict.Invalid, "no call succeeded after the faults"
		default:
			j.Verdict = verdict.Invalid
			j.Reason = fmt.Sprintf("no call succeeded within %v after the faults, and the first %v after them", k.Bound, took.Round(time.Millisecond))
		}
		all = append(all, j)
	}
	return all
}

// recovery is how long after an instant a call succeeded that was made after it.
func recovery(h *record.History, name string, from time.Duration) (took time.Duration, found bool) {
	for _, c := range h.Calls {
		if c.Workload == name && c.Outcome == record.OK && c.At >= from && (!found || c.Returned-from < took) {
			took, found = c.Returned-from, true
		}
	}
	return took, found
}

// cries are what begins a line that a process writes when it breaks down.
var cries = []string{"panic:", "fatal error:", "WARNING: DATA RACE", "SIGSEGV", "unexpected fault address"}

// logs wants no process to have broken down.
func logs(h *record.History) (verdict.Judgement, error) {
	j := verdict.Judgement{Check: "logs", Verdict: verdict.Valid, Reason: "no process panicked"}
	paths, err := filepath.Glob(filepath.Join(h.Dir, record.LogsDir, "*"))
	if err != nil {
		return j, err
	}
	if len(paths) == 0 {
		j.Verdict, j.Reason = verdict.Unknown, "there are no logs"
	}
	for _, path := range paths {
		if err := read(path, func(line string) {
			if slices.ContainsFunc(cries, func(cry string) bool { return strings.HasPrefix(line, cry) }) {
				j.Verdict, j.Reason = verdict.Invalid, "a process broke down"
				j.Evidence = append(j.Evidence, filepath.Base(path)+": "+line)
			}
		}); err != nil {
			return j, err
		}
	}
	return j, nil
}

func read(path string, take func(line string)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		take(lines.Text())
	}
	return lines.Err()
}

// harness asks whether what was tried, or who tried it, failed.
func harness(h *record.History) verdict.Judgement {
	j := verdict.Judgement{Check: "harness", Verdict: verdict.Valid, Reason: "the run came to its end"}
	if !h.Complete() {
		j.Verdict, j.Reason = verdict.Unknown, "the run did not come to its end"
	}
	for _, p := range h.Run.Problems {
		if p.Broken {
			j.Verdict, j.Reason = verdict.Invalid, "a process ended or stayed away though nobody ended it"
		} else if j.Verdict == verdict.Valid {
			j.Verdict, j.Reason = verdict.Unknown, "the harness failed"
		}
		j.Evidence = append(j.Evidence, p.Text)
	}
	return j
}

// faults wants every nemesis of a round to have had its chance: a run without harm shows nothing.
func faults(h *record.History) verdict.Judgement {
	struck := make(map[string]int)
	for _, f := range h.Faults {
		struck[f.Nemesis]++
	}
	j := verdict.Judgement{Check: "faults", Verdict: verdict.Valid, Reason: fmt.Sprintf("%d faults", len(h.Faults))}
	if len(h.Faults) == 0 && len(h.Run.Nemeses) > 0 {
		j.Verdict, j.Reason = verdict.Unknown, "no nemesis struck"
		return j
	}
	var idle []string
	for _, name := range h.Run.Nemeses {
		if struck[name] == 0 {
			idle = append(idle, name)
		}
	}
	if len(idle) > 0 {
		j.Evidence = []string{"did not strike: " + strings.Join(idle, ", ")}
	}
	return j
}
