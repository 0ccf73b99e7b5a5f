//go:build linux

package judge

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
// the judges, or the faults, are blind. Without one that belongs to the run nothing is known.
func (r *Report) Overall() verdict.Verdict {
	for _, c := range r.Controls {
		if !c.FoundOut() {
			return verdict.Invalid
		}
	}
	if r.Verdict == verdict.Valid && len(r.Missing()) > 0 {
		return verdict.Unknown
	}
	return r.Verdict
}

// FoundOut tells whether what the control breaks was found invalid. That something else went wrong shows nothing.
func (r *Report) FoundOut() bool {
	breaks := r.History.Run.Breaks
	return slices.ContainsFunc(r.Judgements, func(j verdict.Judgement) bool {
		return j.Verdict == verdict.Invalid && j.Workload != "" && (breaks == nil || j.Workload == breaks.Workload && j.Check == breaks.Check)
	})
}

// Missing are the controls that belong to the run, and of which there is no record.
func (r *Report) Missing() (names []string) {
	for _, name := range r.History.Run.Controls {
		if !slices.ContainsFunc(r.Controls, func(c *Report) bool { return c.History.Run.Name == name }) {
			names = append(names, name)
		}
	}
	return names
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
	if counted, ok := goroutines(h); ok {
		r.Judgements = append(r.Judgements, counted)
	}
	if told, ok := audited(h); ok {
		r.Judgements = append(r.Judgements, told)
	}
	r.Verdict = verdict.Of(r.Judgements)
	return r, nil
}

// counts tells whether a call shows that work is done.
func counts(c *record.Call, k workload.Kind) bool {
	return c.Outcome == record.OK && !slices.Contains(k.Reads, c.Op)
}

// rate wants enough calls to have succeeded while there were faults, on average over all rounds.
func rate(h *record.History, k workload.Kind) verdict.Judgement {
	var span time.Duration
	ends := make([]time.Duration, len(h.Rounds))
	for i, r := range h.Rounds {
		ends[i] = h.Last
		if i+1 < len(h.Rounds) {
			ends[i] = h.Rounds[i+1].Began
		}
		if r.Healed != 0 {
			ends[i] = min(ends[i], r.Healed)
		}
		span += ends[i] - r.Began
	}
	succeeded := 0
	for _, c := range h.Of(k.Name) {
		if counts(c, k) && c.Round > 0 && c.Round <= len(ends) && c.Returned <= ends[c.Round-1] {
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

// liveness wants a call to succeed after each round. In the last one of a run that was broken off the workloads may have been told
// to end before one could.
func liveness(h *record.History, k workload.Kind) (all []verdict.Judgement) {
	brokenOff := slices.ContainsFunc(h.Run.Problems, func(p record.Problem) bool { return !p.Broken })
	for i, r := range h.Rounds {
		j := verdict.Judgement{Workload: k.Name, Check: "L1", Rounds: []int{r.Number}}
		took, found := recovery(h, k, r.Healed)
		switch {
		case r.Healed == 0:
			j.Reason = "the round did not come to its end"
		case found && took <= k.Bound:
			j.Verdict = verdict.Valid
			j.Reason = fmt.Sprintf("a call succeeded %v after the faults, of at most %v", took.Round(time.Millisecond), k.Bound)
		case brokenOff && i == len(h.Rounds)-1:
			j.Reason = "the run was broken off, and may not have waited for a call after the faults"
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
func recovery(h *record.History, k workload.Kind, from time.Duration) (took time.Duration, found bool) {
	made := h.Of(k.Name)
	first, _ := slices.BinarySearchFunc(made, from, func(c *record.Call, from time.Duration) int { return cmp.Compare(c.At, from) })
	for _, c := range made[first:] {
		if found && c.At-from > took {
			break // what is made later returns later
		}
		if counts(c, k) && (!found || c.Returned-from < took) {
			took, found = c.Returned-from, true
		}
	}
	return took, found
}

// cries are what begins a line that a process writes when it breaks down, and sobs what stands in one when something in it does.
var (
	cries = []string{"panic:", "fatal error:", "WARNING: DATA RACE", "SIGSEGV", "unexpected fault address"}
	sobs  = []string{"a handler panicked", "http: panic serving"}
)

func broken(line string) bool {
	return slices.ContainsFunc(cries, func(cry string) bool { return strings.HasPrefix(line, cry) }) ||
		slices.ContainsFunc(sobs, func(sob string) bool { return strings.Contains(line, sob) })
}

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
			if broken(line) {
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

// mostGoroutines is how many a process may have when little is asked of it that had that many the first time. A request that
// leaves one behind leaves thousands in minutes.
func mostGoroutines(first int) int { return 2*first + 500 }

// goroutines wants no process to have left more and more behind. False: the record has no counts.
func goroutines(h *record.History) (j verdict.Judgement, ok bool) {
	j = verdict.Judgement{Check: "goroutines", Verdict: verdict.Valid}
	first, most := make(map[string]int), 0
	for _, e := range h.Events {
		if e.Workload != record.Harness || e.Op != record.OpGoroutines {
			continue
		}
		var count int
		if err := record.Decode(e.Value, &count); err != nil {
			j.Verdict, j.Reason = verdict.Unknown, fmt.Sprintf("the record cannot be read: the goroutines of %s at %v: %v", e.Client, e.At, err)
			return j, true
		}
		if first[e.Client] == 0 {
			first[e.Client] = count
		}
		most = max(most, count)
		if count > mostGoroutines(first[e.Client]) {
			j.Verdict = verdict.Invalid
			j.Evidence = append(j.Evidence, fmt.Sprintf("%s had %d at %v, and %d in the beginning", e.Client, count, e.At, first[e.Client]))
		}
	}
	j.Reason = fmt.Sprintf("between rounds, no process had more than %d", most)
	if j.Verdict == verdict.Invalid {
		j.Reason, j.Evidence = "a process has more and more goroutines", j.Evidence[:min(len(j.Evidence), mostWrong)]
	}
	return j, len(first) > 0
}

// leastTurns is in how many rounds a nemesis has to find something to harm.
const leastTurns = 3

// faults wants every nemesis to have done harm that had its turn often enough: a run without harm shows nothing.
func faults(h *record.History) verdict.Judgement {
	struck, turns := make(map[string]int), make(map[string]int)
	for _, f := range h.Faults {
		struck[f.Nemesis]++
	}
	for _, r := range h.Rounds {
		for _, name := range r.Nemeses {
			turns[name]++
		}
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
		if struck[name] == 0 && turns[name] >= leastTurns {
			j.Verdict, j.Reason = verdict.Unknown, fmt.Sprintf("%d faults, and none of %s in %d rounds", len(h.Faults), name, turns[name])
		}
	}
	if len(idle) > 0 {
		j.Evidence = append(j.Evidence, "did not strike: "+strings.Join(idle, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(h.Run.LeftOut)) {
		j.Evidence = append(j.Evidence, fmt.Sprintf("left out: %s: %s", name, h.Run.LeftOut[name]))
	}
	return j
}
