//go:build linux

package report

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/writ-io/writ/jepsen/judge"
	"github.com/writ-io/writ/jepsen/verdict"
)

// Text writes what was found, for a terminal: every judgement that is not valid, and the sums of those that are.
func Text(w io.Writer, r *judge.Report) {
	h := r.History
	_, _ = fmt.Fprintf(w, "%s: %s; %d calls, %d faults in %d rounds, seed %d\n", h.Run.Name, r.Verdict, len(h.Calls), len(h.Faults), len(h.Rounds), h.Run.Seed)
	table := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	valid := make(map[[2]string]int)
	for _, j := range r.Judgements {
		key := [2]string{j.Workload, j.Check}
		if valid[key]++; j.Verdict == verdict.Valid && valid[key] > 1 {
			continue // another round of the same
		}
		_, _ = fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", j.Verdict, j.Workload, j.Check, j.Reason)
	}
	_ = table.Flush()
	for _, j := range r.Judgements {
		for _, line := range j.Evidence {
			_, _ = fmt.Fprintf(w, "    %s %s: %s\n", j.Workload, j.Check, line)
		}
	}
	for _, c := range r.Controls {
		_, _ = fmt.Fprintf(w, "control %s: %s, found out as it must be: %v\n", c.History.Run.Name, c.Verdict, c.FoundOut())
		for _, j := range c.Judgements {
			if j.Verdict == verdict.Invalid {
				_, _ = fmt.Fprintf(w, "  %s %s: %s\n", j.Workload, j.Check, j.Reason)
			}
		}
	}
	for _, name := range r.Missing() {
		_, _ = fmt.Fprintf(w, "control %s: there is no record of it\n", name)
	}
	if len(r.History.Run.Controls) > 0 || len(r.Controls) > 0 {
		_, _ = fmt.Fprintf(w, "all together: %s\n", r.Overall())
	}
}
