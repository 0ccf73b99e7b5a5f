package cron

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/singleton/schedule"
)

var rewriteScenarios = flag.Bool("rewrite", false, "write what happened into the scenarios under testdata")

// Scenarios are text: command lines, a line of dashes, and what they printed. The commands:
//
//	job SPEC… [catch_up=C] [overlap=O] [window=D] [max=N] [jitter=D] [attempts=N]
//	                           the job that the next holder runs; blanks in SPEC are underscores
//	at HH:MM[:SS]|+D|-D        set the time of day, and step
//	grant HOLDER               a new process holds the job
//	crash                      the process is gone
//	keep | lose                from now on what is stored arrives at once, or not at all and unanswered
//	stored | notstored         answer what is being stored
//	return done|failed|panicked [REASON]
//	end                        the context of the term ends
//	pause NOTE | resume | trigger ID
//	show                       the state that is stored
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := &driver{t: t, now: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), arrives: true}
			got := runScenario(string(text), d.command)
			if *rewriteScenarios {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s differs; run the test with -rewrite and review the diff\n%s", file, got)
			}
		})
	}
}

// runScenario carries out each paragraph of commands and returns the text with what they print now.
func runScenario(text string, command func(name string, args []string) string) string {
	var out strings.Builder
	skip := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
			skip = false
			out.WriteString("\n")
		case skip || line == "----":
			skip = true
		case strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		default:
			out.WriteString(line + "\n")
			fields := strings.Fields(line)
			if printed := command(fields[0], fields[1:]); printed != "" {
				out.WriteString("----\n" + printed)
				skip = true
			}
		}
	}
	return out.String()
}

type driver struct {
	t       *testing.T
	cfg     Config
	now     time.Time
	machine *Machine
	token   fence.Token
	arrives bool
	stored  []byte // what the quorum has
	sent    []byte // what is being stored
	control Control
	out     strings.Builder
}

func (d *driver) command(name string, args []string) string {
	d.out.Reset()
	rest := strings.Join(args, " ")
	switch name {
	case "job":
		d.job(args)
	case "at":
		d.moveTo(args[0])
		if d.machine != nil {
			d.step(Elapsed{})
		}
	case "grant":
		var err error
		if d.machine, err = NewMachine(d.cfg); err != nil {
			d.t.Fatal(err)
		}
		d.token++
		d.step(Granted{Token: d.token, Holder: args[0], Checkpoint: d.stored, Control: d.control})
	case "crash":
		d.machine = nil
	case "keep", "lose":
		d.arrives = name == "keep"
	case "stored":
		d.stored = d.sent
		d.step(Stored{})
	case "notstored":
		d.step(NotStored{})
	case "return":
		d.step(Returned{Outcome: Outcome(args[0]), Reason: strings.Join(args[1:], " "), Took: 1500 * time.Millisecond})
	case "end":
		d.step(Ended{})
	case "pause":
		d.steer(d.control.WithPause(Pause{Note: rest, By: "ann", At: d.now}))
	case "resume":
		c := d.control
		c.Pause = nil
		d.steer(c, nil)
	case "trigger":
		d.steer(d.control.WithTrigger(Trigger{ID: rest, By: "ann", At: d.now}))
	case "show":
		d.show()
	default:
		d.t.Fatalf("unknown command %q", name)
	}
	return d.out.String()
}

func (d *driver) job(args []string) {
	d.cfg = Config{Job: "job"}
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		switch {
		case !ok:
			s, err := schedule.Parse(strings.ReplaceAll(arg, "_", " "), "")
			if err != nil {
				d.t.Fatal(err)
			}
			d.cfg.Schedule = s
		case key == "catch_up":
			d.cfg.Policy.CatchUp = CatchUp(value)
		case key == "overlap":
			d.cfg.Policy.Overlap = Overlap(value)
		case key == "window":
			d.cfg.Policy.Window = d.duration(value)
		case key == "jitter":
			d.cfg.Policy.Jitter = d.duration(value)
		case key == "max":
			d.cfg.Policy.Max, _ = strconv.Atoi(value)
		case key == "attempts":
			d.cfg.Policy.MaxAttempts, _ = strconv.Atoi(value)
		default:
			d.t.Fatalf("unknown option %q", arg)
		}
	}
}

func (d *driver) duration(text string) time.Duration {
	v, err := time.ParseDuration(text)
	if err != nil {
		d.t.Fatal(err)
	}
	return v
}

func (d *driver) moveTo(text string) {
	if text[0] == '+' || text[0] == '-' {
		d.now = d.now.Add(d.duration(text))
		return
	}
	layout := "15:04:05"[:len(text)]
	at, err := time.Parse(layout, text)
	if err != nil {
		d.t.Fatal(err)
	}
	d.now = time.Date(2026, 11, 22, at.Hour(), at.Minute(), at.Second(), 0, time.UTC)
}

func (d *driver) steer(c Control, err error) {
	if err != nil {
		d.t.Fatal(err)
	}
	if d.control, err = ParseControl(c.Encode()); err != nil {
		d.t.Fatal(err)
	}
	if d.machine != nil {
		d.step(Controlled{Control: d.control})
	}
}

func (d *driver) step(e Event) {
	for e != nil {
		out := d.machine.Step(d.now, e)
		e = nil
		if out.Run != nil {
			fmt.Fprintf(&d.out, "run %s attempt %d", out.Run.ID, out.Run.Attempt)
			if out.Run.Missed > 0 {
				fmt.Fprintf(&d.out, ", %d missed", out.Run.Missed)
			}
			d.out.WriteString("\n")
		}
		if out.Cancel {
			d.out.WriteString("cancel\n")
		}
		if out.Refused != nil {
			fmt.Fprintf(&d.out, "refused: %v\n", out.Refused)
			d.machine = nil
			return
		}
		if out.Over {
			d.out.WriteString("over\n")
			d.machine = nil
			return
		}
		if out.Store != nil {
			d.sent = out.Store
			if d.arrives {
				d.stored, e = d.sent, Stored{}
			} else {
				d.out.WriteString("storing\n")
			}
		} else if !out.Wake.IsZero() {
			fmt.Fprintf(&d.out, "wake at %s\n", clockOf(out.Wake))
		}
	}
}

func clockOf(t time.Time) string {
	if t.Year() != 2026 || t.YearDay() != 326 {
		return t.UTC().Format("2006-01-02T15:04:05.999")
	}
	return t.UTC().Format("15:04:05.999")
}

func (d *driver) show() {
	if len(d.stored) == 0 {
		d.out.WriteString("nothing\n")
		return
	}
	s, err := ParseState(d.stored)
	if err != nil {
		d.t.Fatal(err)
	}
	fmt.Fprintf(&d.out, "cursor %s\n", clockOf(s.Cursor))
	for _, r := range s.History {
		fmt.Fprintf(&d.out, "  %s %s", clockOf(r.Slot), r.Outcome)
		if r.Count > 1 {
			fmt.Fprintf(&d.out, " ×%d until %s", r.Count, clockOf(*r.Last))
		}
		if r.Reason != "" {
			fmt.Fprintf(&d.out, " (%s)", r.Reason)
		}
		if r.Attempt > 0 {
			fmt.Fprintf(&d.out, " attempt %d by %s under %d", r.Attempt, r.Holder, r.Token)
		}
		d.out.WriteString("\n")
	}
	if c := s.Running; c != nil {
		fmt.Fprintf(&d.out, "  %s claimed, attempt %d by %s under %d\n", clockOf(c.Slot), c.Attempt, c.Holder, c.Token)
	}
	for _, b := range s.Backlog {
		fmt.Fprintf(&d.out, "  %s waits\n", clockOf(b.At))
	}
}
