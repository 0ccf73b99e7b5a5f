package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func (a *app) drillReportCommand() *cobra.Command {
	var slo time.Duration
	cmd := &cobra.Command{
		Use:   "report [GROUP]",
		Short: "Show how drills went, and how long they took",
		Long: `Show the last drills of a group, or of all groups: which passed, and how long it took until the other region served, as the
times that half, nine tenths and 99 of a hundred of those that passed did not exceed.

Exit code 0: all is in order; 2: a drill that passed took longer than --slo.`,
		Args: arguments("[GROUP]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if slo < 0 {
				return lease.Invalid("--slo", "is "+slo.String(), "use a time such as 60s")
			}
			return a.drillReport(cmd.Context(), strings.Join(args, ""), slo)
		},
	}
	cmd.Flags().DurationVar(&slo, "slo", 0, "how long a drill may take until the other region serves")
	return cmd
}

// drilled is what there is to tell of a group's drills.
type drilled struct {
	group          string
	drills         []*writv1.Drill // newest first
	passed, failed int
	times          []time.Duration // of those that passed, ascending
	misses         int
	slo            time.Duration
}

func newDrilled(g *writv1.Group, slo time.Duration) *drilled {
	d := &drilled{group: g.GetSpec().GetName(), drills: slices.Clone(g.GetDrills()), slo: slo}
	slices.Reverse(d.drills)
	for _, one := range d.drills {
		if one.GetOutcome() != writv1.DrillOutcome_DRILL_OUTCOME_PASSED {
			d.failed++
			continue
		}
		d.passed++
		if one.GetTimeToHealthy() != nil {
			d.times = append(d.times, one.GetTimeToHealthy().AsDuration())
		}
		if missed(one, slo) {
			d.misses++
		}
	}
	slices.Sort(d.times)
	return d
}

// percentile is the least time that so many of a hundred drills did not exceed; false if none passed.
func (d *drilled) percentile(of100 int) (time.Duration, bool) {
	if len(d.times) == 0 {
		return 0, false
	}
	rank := (len(d.times)*of100 + 99) / 100
	return d.times[max(rank, 1)-1], true
}

func (d *drilled) percentileText(of100 int) string {
	t, ok := d.percentile(of100)
	if !ok {
		return ""
	}
	return span(t)
}

// MarshalJSON uses the field names of the API, and its form of durations.
func (d *drilled) MarshalJSON() ([]byte, error) {
	out := struct {
		Group  string            `json:"group"`
		Passed int               `json:"passed"`
		Failed int               `json:"failed"`
		Misses *int              `json:"misses,omitempty"`
		P50    string            `json:"p50,omitempty"`
		P90    string            `json:"p90,omitempty"`
		P99    string            `json:"p99,omitempty"`
		Drills []json.RawMessage `json:"drills"`
	}{Group: d.group, Passed: d.passed, Failed: d.failed, Drills: []json.RawMessage{}}
	if d.slo > 0 {
		out.Misses = &d.misses
	}
	for of100, into := range map[int]*string{50: &out.P50, 90: &out.P90, 99: &out.P99} {
		if t, ok := d.percentile(of100); ok {
			*into = fmt.Sprintf("%.3fs", t.Seconds())
		}
	}
	for _, one := range d.drills {
		raw, err := marshal(one)
		if err != nil {
			return nil, err
		}
		out.Drills = append(out.Drills, raw)
	}
	return json.Marshal(out)
}

func (a *app) drillReport(ctx context.Context, name string, slo time.Duration) error {
	names := []string{name}
	if name == "" {
		list, err := askRegions(ctx, a.each, writv1.RegionServiceClient.ListGroups, &writv1.ListGroupsRequest{})
		if err != nil {
			return err
		}
		names = nil
		for _, g := range list.GetGroups() {
			if len(g.GetDrills()) > 0 {
				names = append(names, g.GetSpec().GetName())
			}
		}
	}
	all := []*drilled{}
	var slow []string
	for _, name := range names {
		g, err := a.getGroup(ctx, name)
		if err != nil {
			return err
		}
		d := newDrilled(g, slo)
		if all = append(all, d); d.misses > 0 {
			slow = append(slow, d.group)
		}
	}
	if err := a.print(map[string]any{"groups": all}, func(w io.Writer) { a.printDrills(w, all) }); err != nil || len(slow) == 0 {
		return err
	}
	return &exitError{code: lease.ExitRefused, cause: fmt.Errorf("drills took longer than %v: %s", slo, strings.Join(slow, ", "))}
}

func (a *app) printDrills(w io.Writer, all []*drilled) {
	var sums, rows [][]cell
	for _, d := range all {
		last := cell{"never", bad}
		for _, one := range d.drills {
			if one.GetOutcome() == writv1.DrillOutcome_DRILL_OUTCOME_PASSED {
				last = text(a.ago(one.GetJudgedAt()))
				break
			}
		}
		sum := []cell{text(d.group), text(fmt.Sprint(d.passed)), text(fmt.Sprint(d.failed)), last,
			text(d.percentileText(50)), text(d.percentileText(90)), text(d.percentileText(99))}
		if d.slo > 0 {
			sum = append(sum, text(fmt.Sprint(d.misses)))
		}
		sums = append(sums, sum)
		for _, one := range d.drills {
			rows = append(rows, []cell{
				text(one.GetPromotion()), text(enumText(one.GetMode())), text(one.GetFrom()), text(one.GetTo()), text(a.ago(one.GetJudgedAt())),
				drillOutcome(one, d.slo), text(spanText(one.GetTimeToHealthy())), text(shortened(oneLine(strings.Join(one.GetProblems(), "; ")))),
			})
		}
	}
	heading := []string{"GROUP", "PASSED", "FAILED", "LAST PASSED", "P50", "P90", "P99"}
	if len(all) > 0 && all[0].slo > 0 {
		heading = append(heading, "TOO LONG")
	}
	a.columns(w, heading, sums)
	if len(rows) > 0 {
		_, _ = fmt.Fprintln(w)
		a.columns(w, []string{"DRILL", "MODE", "FROM", "TO", "WHEN", "OUTCOME", "TIME TO HEALTHY", "PROBLEMS"}, rows)
	}
}

func drillOutcome(d *writv1.Drill, slo time.Duration) cell {
	switch {
	case d.GetOutcome() != writv1.DrillOutcome_DRILL_OUTCOME_PASSED:
		return cell{"failed", bad}
	case missed(d, slo):
		return cell{"passed, too long", weak}
	}
	return cell{"passed", good}
}

func (a *app) printDrill(w io.Writer, name string, d *writv1.Drill, slo time.Duration) {
	a.pairs(w,
		pair{"drill", text(d.GetPromotion())},
		pair{"of", text(name)},
		pair{"mode", text(enumText(d.GetMode()))},
		pair{"from", text(d.GetFrom())},
		pair{"to", text(d.GetTo())},
		pair{"outcome", drillOutcome(d, slo)},
		pair{"time to healthy", text(spanText(d.GetTimeToHealthy()))},
	)
	for _, what := range d.GetProblems() {
		_, _ = fmt.Fprintf(w, "\n%s", oneLine(what))
	}
	if len(d.GetProblems()) > 0 {
		_, _ = fmt.Fprintln(w)
	}
}
