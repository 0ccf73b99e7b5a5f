package singleton

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/lease/clock"
)

var rewriteScenarios = flag.Bool("rewrite", false, "write what happened into the scenarios under testdata")

// Scenarios are text: command lines, a line of dashes, and what they printed. The commands:
//
//	config [ineligible] [handover] [stop-on-loss] [strict] [tell] [grace=D]
//	began | ended | granted | refused | lost left=D | contended | returned nil|error|panic|exit
//	released | abandoned left=D | told
//	advance D                   let time pass; the shell wakes when asked to
func TestRunnerScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/runner/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScenario(string(text), (&runnerDriver{t: t}).command)
			if *rewriteScenarios {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil { //nolint:gosec // not a secret
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s differs; run the test with -rewrite and review the diff\n%s", file, got)
			}
		})
	}
}

// runScenario carries out each paragraph of commands and returns the text with what they print now. Paragraphs end with
// an empty line; lines that begin with # are prose.
func runScenario(text string, command func(fields []string) string) string {
	var out, printed strings.Builder
	flush := func() {
		if printed.Len() > 0 {
			out.WriteString("----\n" + printed.String())
			printed.Reset()
		}
	}
	skip := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
			flush()
			skip = false
			out.WriteString("\n")
		case skip || line == "----":
			skip = true
		case strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		default:
			out.WriteString(line + "\n")
			printed.WriteString(command(strings.Fields(line)))
		}
	}
	flush()
	return out.String()
}

const runnerOrigin = clock.Instant(time.Hour)

type runnerDriver struct {
	t    *testing.T
	core *Runner
	now  clock.Instant
	wake clock.Instant
}

func (d *runnerDriver) command(fields []string) string {
	name, args := fields[0], fields[1:]
	has := func(flag string) bool { return slices.Contains(args, flag) }
	if name == "config" {
		grace := d.option(args, "grace", DefaultStopGrace)
		d.now, d.wake = runnerOrigin, 0
		d.core = NewRunner(RunnerConfig{
			Ineligible: has("ineligible"), HandOver: has("handover"), StopOnLoss: has("stop-on-loss"), Strict: has("strict"),
			TellStuck: has("tell"), StopGrace: grace,
		})
		return ""
	}
	left := d.now.Add(d.option(args, "left", 0))
	switch name {
	case "advance":
		return d.advance(args[0])
	case "began":
		return d.step(RunnerBegan{})
	case "ended":
		return d.step(RunnerEnded{})
	case "granted":
		return d.step(RunnerGranted{})
	case "refused":
		return d.step(RunnerRefused{})
	case "lost":
		return d.step(RunnerLost{Until: left})
	case "contended":
		return d.step(RunnerContended{})
	case "returned":
		how := slices.Index([]string{"", "nil", "error", "panic", "exit"}, args[0])
		return d.step(RunnerReturned{How: RunnerReturn(how)}) //nolint:gosec // one of five
	case "released":
		return d.step(RunnerReleased{})
	case "abandoned":
		return d.step(RunnerAbandoned{Until: left})
	case "told":
		return d.step(RunnerTold{})
	}
	d.t.Fatalf("unknown command %q", name)
	return ""
}

func (d *runnerDriver) option(args []string, name string, otherwise time.Duration) time.Duration {
	for _, a := range args {
		if text, ok := strings.CutPrefix(a, name+"="); ok {
			value, err := time.ParseDuration(text)
			if err != nil {
				d.t.Fatal(err)
			}
			return value
		}
	}
	return otherwise
}

func (d *runnerDriver) advance(text string) string {
	span, err := time.ParseDuration(text)
	if err != nil {
		d.t.Fatal(err)
	}
	var out strings.Builder
	end := d.now.Add(span)
	for d.wake != 0 && !d.wake.After(end) {
		d.now = max(d.now, d.wake)
		out.WriteString(d.step(RunnerTick{}))
	}
	d.now = end
	return out.String()
}

func (d *runnerDriver) step(event RunnerEvent) string {
	effects := d.core.Step(d.now, event)
	d.wake = effects.Wake
	var parts []string
	if effects.Cancel != 0 {
		parts = append(parts, fmt.Sprintf("cancel (%v)", effects.Cancel))
	}
	for _, e := range []struct {
		on   bool
		name string
	}{
		{effects.Acquire, "acquire"}, {effects.Start, "start"}, {effects.Release, "release"}, {effects.Abandon, "abandon"},
		{effects.Tell, "tell"}, {effects.Exit, "exit"},
	} {
		if e.on {
			parts = append(parts, e.name)
		}
	}
	if effects.Done != 0 {
		parts = append(parts, fmt.Sprintf("done (%v)", effects.Done))
	}
	if parts == nil {
		parts = []string{"nothing"}
	}
	text := fmt.Sprintf("%v: %s; %v", d.now.Sub(runnerOrigin), strings.Join(parts, ", "), d.core.State())
	if d.wake != 0 {
		text += fmt.Sprintf(", wakes at %v", d.wake.Sub(runnerOrigin))
	}
	return text + "\n"
}
