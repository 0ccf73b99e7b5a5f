//go:build linux

package report

import (
	"fmt"
	"slices"

	"github.com/writ-io/writ/jepsen/judge"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

// table is workloads by nemeses.
type table struct {
	Nemeses []column
	Rows    []row
}

type column struct {
	Name   string
	Faults int
}

type row struct {
	Workload string
	All      verdict.Verdict
	Cells    []cell
}

// cell is a workload in the rounds in which a nemesis did harm.
type cell struct {
	// Struck: there is such a round.
	Struck  bool
	Verdict verdict.Verdict
	// Calls that succeeded, of Total.
	Succeeded, Total int
	Title            string
}

func newTable(r *judge.Report) (t table) {
	h := r.History
	rounds := make(map[string][]int)
	for _, name := range h.Run.Nemeses {
		c := column{Name: name}
		for _, f := range h.Faults {
			if f.Nemesis == name {
				c.Faults++
				if !slices.Contains(rounds[name], f.Round) {
					rounds[name] = append(rounds[name], f.Round)
				}
			}
		}
		t.Nemeses = append(t.Nemeses, c)
	}
	for _, name := range h.Run.Workloads {
		line := row{Workload: name, All: verdict.Of(about(r.Judgements, name, nil))}
		for _, c := range t.Nemeses {
			line.Cells = append(line.Cells, newCell(r, name, c.Name, rounds[c.Name]))
		}
		t.Rows = append(t.Rows, line)
	}
	return t
}

func newCell(r *judge.Report, workload, nemesis string, rounds []int) cell {
	c := cell{Struck: len(rounds) > 0, Verdict: verdict.Of(about(r.Judgements, workload, rounds))}
	for _, call := range r.History.Calls {
		if call.Workload != workload || !slices.Contains(rounds, call.Round) {
			continue
		}
		c.Total++
		if call.Outcome == record.OK {
			c.Succeeded++
		}
	}
	c.Title = fmt.Sprintf("%s under %s: %s, in rounds %v", workload, nemesis, c.Verdict, rounds)
	return c
}

// about are the judgements on a workload that bear on some rounds; on all, if rounds is nil. One on the whole run bears on
// each.
func about(all []verdict.Judgement, workload string, rounds []int) (found []verdict.Judgement) {
	for _, j := range all {
		common := rounds == nil || len(j.Rounds) == 0 || slices.ContainsFunc(j.Rounds, func(n int) bool { return slices.Contains(rounds, n) })
		if j.Workload == workload && common {
			found = append(found, j)
		}
	}
	return found
}
