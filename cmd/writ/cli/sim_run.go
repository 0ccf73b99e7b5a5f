package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim"
	"github.com/writ-io/writ/sim/plan"
)

// verdict is a run as data. A seed is a string, as 64 bits are in protobuf JSON.
type verdict struct {
	Seed       string            `json:"seed"`
	Scenario   string            `json:"scenario,omitempty"`
	Hash       string            `json:"hash"`
	Events     uint64            `json:"events"`
	Operations uint64            `json:"operations"`
	Simulated  float64           `json:"simulated_seconds"`
	Wall       float64           `json:"wall_seconds,omitempty"` // not known of one run of a sweep
	Recovery   float64           `json:"recovery_seconds"`
	Expected   []string          `json:"expected,omitempty"`
	Mutant     string            `json:"mutant,omitempty"`
	Violations []brokenPromise   `json:"violations"`
	Marks      map[string]uint64 `json:"marks"`
	OK         bool              `json:"ok"`
	Version    string            `json:"version"`
	Revision   string            `json:"revision,omitempty"`
	Command    string            `json:"command"`

	grouped bool // the plan has failover groups
}

type brokenPromise struct {
	Invariant string  `json:"invariant"`
	At        float64 `json:"at_seconds"`
	Text      string  `json:"text"`
}

func newVerdict(p plan.Plan, r *sim.Result, wall time.Duration, b build, command string) *verdict {
	v := &verdict{
		Seed: strconv.FormatUint(p.Seed, 10), Scenario: p.Name, Hash: r.Hash, Events: r.Events, Operations: r.Operations,
		Simulated: r.Simulated.Seconds(), Wall: wall.Seconds(), Recovery: r.Recovery.Seconds(),
		Expected: p.Expect, Violations: []brokenPromise{}, Marks: r.Marks, OK: asExpected(p, r),
		Version: b.version, Revision: b.revision, Command: command, grouped: len(p.Groups) > 0,
	}
	for _, x := range r.Violations {
		v.Violations = append(v.Violations, brokenPromise{x.Invariant, x.At.Seconds(), x.Text})
	}
	return v
}

// asExpected tells whether those promises broke that were to break, and no others.
func asExpected(p plan.Plan, r *sim.Result) bool {
	return slices.Equal(slices.Sorted(slices.Values(broke(r))), slices.Sorted(slices.Values(p.Expect)))
}

// broke lists the invariants that broke, each once.
func broke(r *sim.Result) []string {
	var names []string
	for _, v := range r.Violations {
		if !slices.Contains(names, v.Invariant) {
			names = append(names, v.Invariant)
		}
	}
	return names
}

// outcome says in a few words what became of a run.
func (v *verdict) outcome() string {
	var names []string
	for _, x := range v.Violations {
		if !slices.Contains(names, x.Invariant) {
			names = append(names, x.Invariant)
		}
	}
	switch {
	case len(names) == 0 && v.OK:
		return "clean"
	case len(names) == 0:
		return "clean, but expected to break " + strings.Join(v.Expected, ", ")
	case v.OK:
		return "broken as expected: " + strings.Join(names, ", ")
	}
	return "broken: " + strings.Join(names, ", ")
}

func (a *app) simRunCommand(s *simulator, b build) *cobra.Command {
	var c choice
	var f files
	var hours float64
	var seeds uint64
	var thorough bool
	cmd := &cobra.Command{
		Use: "run", Short: "Simulate a drawn plan or a scenario",
		Long: `Simulate the plan that is drawn from --seed, or a scenario. With --hours, go through the seeds from --seed on until so many
hours have been simulated, and sum up; with --seeds, through so many. An interrupt ends that with the sum so far. --html and --save then tell of the first
run that broke a promise, if there is one. One seed of a hundred is run twice, and must go the same way again.`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.check(cmd.Flags()); err != nil {
				return err
			}
			if err := f.check(); err != nil {
				return err
			}
			bySeeds := cmd.Flags().Changed("seeds")
			if !cmd.Flags().Changed("hours") && !bySeeds {
				if thorough {
					return lease.Invalid("--require-marks", "is of sweeps", "give --hours or --seeds, or leave it out")
				}
				p, command, err := c.plan(s, c.seed)
				if err != nil {
					return err
				}
				return a.simulate(cmd.Context(), s, p, f, c.planted, b, command)
			}
			switch {
			case bySeeds && cmd.Flags().Changed("hours"):
				return lease.Invalid("--seeds", "excludes --hours", "choose one")
			case bySeeds && seeds == 0:
				return lease.Invalid("--seeds", "is 0", "use 1 or more")
			case !bySeeds && (!(hours > 0) || math.IsInf(hours, 0)):
				return lease.Invalid("--hours", fmt.Sprintf("is %g", hours), "use a positive number, such as 0.5")
			}
			c.seeded = true
			w := &sweep{app: a, simulator: s, choice: c, files: f, build: b, hours: hours, seeds: seeds, thorough: thorough}
			return w.run(cmd.Context())
		},
	}
	c.flags(cmd)
	f.flags(cmd.Flags(), "the run")
	cmd.Flags().StringVar(&c.scenario, "scenario", "", "the name of a scenario that is built in, or a file with one")
	cmd.Flags().Float64Var(&hours, "hours", 0, "how many simulated hours to go through")
	cmd.Flags().Uint64Var(&seeds, "seeds", 0, "how many seeds to go through")
	cmd.Flags().BoolVar(&thorough, "require-marks", false, "with --hours or --seeds, fail if a situation that runs mark was never reached")
	complete(cmd, s)
	return cmd
}

func (a *app) simReplayCommand(s *simulator, b build) *cobra.Command {
	var f files
	var m planted
	cmd := &cobra.Command{
		Use: "replay FILE", Short: "Simulate a plan that was saved",
		Long: `Simulate the plan in a file, as "writ sim run --save" and "writ sim minimize --save" write it, and people write scenarios.
The run is the same as it was if the program is.`,
		Args: arguments("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := m.check(); err != nil {
				return err
			}
			p, err := readFile(args[0])
			if err != nil {
				return err
			}
			return a.simulate(cmd.Context(), s, p, f, m, b, "writ sim replay "+quote(args[0])+m.command())
		},
	}
	m.flags(cmd)
	cmd.Flags().StringVar(&f.html, "html", "", "write a page that shows the run to this file, and replace it if it exists")
	return cmd
}

// within carries a plan out. It is nil if the context ended first: a run cannot be stopped, and so goes on until the program
// ends, which is at once.
func (s *simulator) within(ctx context.Context, p plan.Plan, o sim.Options) *sim.Result {
	done := make(chan *sim.Result, 1)
	go func() { done <- s.run(p, o) }()
	select {
	case r := <-done:
		return r
	case <-ctx.Done():
		return nil
	}
}

// errBroken ends the program where the verdict has told everything.
var errBroken = &exitError{code: lease.ExitError}

// simulate carries one plan out and tells what came of it.
func (a *app) simulate(ctx context.Context, s *simulator, p plan.Plan, f files, m planted, b build, command string) error {
	began := time.Now()
	r := s.within(ctx, p, m.options(f.html != ""))
	if r == nil {
		return ctx.Err()
	}
	v := newVerdict(p, r, time.Since(began), b, command)
	v.Mutant = m.mutant
	if err := f.write(p, r.Trace, command, m.mutant); err != nil {
		return err
	}
	if err := a.print(v, func(w io.Writer) { a.verdictPage(w, s, v) }); err != nil {
		return err
	}
	if !v.OK {
		a.sayBroken(v, b)
		return errBroken
	}
	return nil
}

// sayBroken tells how to come back to a run.
func (a *app) sayBroken(v *verdict, b build) {
	a.say("seed %s of writ %s is %s", v.Seed, b, v.outcome())
	a.say("again: %s", v.Command)
}

func (a *app) verdictPage(w io.Writer, s *simulator, v *verdict) {
	look := good
	if len(v.Violations) > 0 || !v.OK {
		look = bad
	}
	a.pairs(w,
		pair{"outcome", cell{v.outcome(), look}},
		pair{"scenario", text(v.Scenario)},
		pair{"mutant", text(v.Mutant)},
		pair{"seed", text(v.Seed)},
		pair{"hash", text(v.Hash)},
		pair{"simulated", text(seconds(v.Simulated))},
		pair{"took", text(seconds(v.Wall))},
		pair{"recovered", text(within(v.Recovery))},
		pair{"events", text(strconv.FormatUint(v.Events, 10))},
		pair{"operations", text(strconv.FormatUint(v.Operations, 10))},
		pair{"marks", text(fmt.Sprintf("%d of %d reached", len(reached(v.Marks)), len(s.marks(v.grouped))))},
	)
	if len(v.Violations) == 0 {
		return
	}
	_, _ = fmt.Fprintln(w)
	a.columns(w, []string{"BROKEN", "AT", "HOW"}, promiseRows(v.Violations))
}

func promiseRows(violations []brokenPromise) (rows [][]cell) {
	for _, x := range violations {
		rows = append(rows, []cell{{x.Invariant, bad}, text(instantOf(x.At)), text(oneLine(x.Text))})
	}
	return rows
}

// instantOf writes an instant of simulated time with its digits.
func instantOf(s float64) string { return time.Duration(math.Round(s * 1e9)).String() }

// seconds writes how long something took.
func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

// within writes how long it took, if it is known.
func within(s float64) string {
	if s == 0 {
		return ""
	}
	return "within " + seconds(s)
}

// reached lists the marks that were reached.
func reached(marks map[string]uint64) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(marks)) {
		if marks[name] > 0 {
			names = append(names, name)
		}
	}
	return names
}
