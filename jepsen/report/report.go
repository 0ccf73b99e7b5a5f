//go:build linux

package report

import (
	_ "embed" // the page
	"errors"
	"html/template"
	"io"
	"os"
	"time"

	"github.com/writ-io/writ/jepsen/judge"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

//go:embed page.html
var page string

var tmpl = template.Must(template.New("page").Funcs(template.FuncMap{
	"seconds": func(d time.Duration) string { return d.Round(time.Millisecond).String() },
	"lower":   func(v verdict.Verdict) string { return v.String() },
}).Parse(page))

// Write writes the page to a file, which is replaced.
func Write(path string, r *judge.Report) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(HTML(f, r), f.Close())
}

// view is what the page shows.
type view struct {
	Run      *record.Run
	Overall  verdict.Verdict
	Verdict  verdict.Verdict
	Calls    int
	Outcomes map[record.Outcome]int
	Events   int
	Faults   []record.Fault
	Rounds   []record.Round
	Last     time.Duration
	Complete bool
	Table    table
	Plots    []plot
	Tokens   *tokens // nil: there is nothing to show
	// Judgements that are not valid, and those that are.
	Notable, Sound []verdict.Judgement
	Controls       []control
	Pictures       []picture
}

// control is a positive control.
type control struct {
	Name   string
	Found  bool
	Report *judge.Report
	Shown  []verdict.Judgement
}

// HTML writes the page.
func HTML(w io.Writer, r *judge.Report) error {
	h := r.History
	v := view{
		Run: h.Run, Overall: r.Overall(), Verdict: r.Verdict, Calls: len(h.Calls), Outcomes: make(map[record.Outcome]int),
		Events: len(h.Events), Faults: h.Faults, Rounds: h.Rounds, Last: h.Last, Complete: h.Complete(), Table: newTable(r),
	}
	for _, c := range h.Calls {
		v.Outcomes[c.Outcome]++
	}
	for _, name := range h.Run.Workloads {
		v.Plots = append(v.Plots, newPlot(h, name))
	}
	v.Notable, v.Sound = split(r.Judgements)
	for _, c := range r.Controls {
		notable, _ := split(c.Judgements)
		v.Controls = append(v.Controls, control{c.History.Run.Name, c.FoundOut(), c, notable})
	}
	var err error
	if v.Tokens, err = newTokens(h); err != nil {
		v.Tokens = nil // a judgement says so, too
	}
	if v.Pictures, err = pictures(r); err != nil {
		return err
	}
	return tmpl.Execute(w, v)
}

func split(all []verdict.Judgement) (notable, sound []verdict.Judgement) {
	for _, j := range all {
		if j.Verdict == verdict.Valid {
			sound = append(sound, j)
		} else {
			notable = append(notable, j)
		}
	}
	return notable, sound
}
