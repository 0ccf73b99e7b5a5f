package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim"
	"github.com/writ-io/writ/sim/mutant"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/report"
	"github.com/writ-io/writ/sim/trace"
)

// simulator is what carries plans out.
type simulator struct {
	run       func(plan.Plan, sim.Options) *sim.Result
	sweep     func(context.Context, sim.Sweep) *sim.Summary
	scenario  func(name string) (plan.Plan, bool)
	scenarios func() []string
	marks     func(groups bool) []string // that runs may reach
}

func newSimulator() *simulator {
	return &simulator{
		run:       sim.Run,
		sweep:     func(ctx context.Context, s sim.Sweep) *sim.Summary { return s.Run(ctx) },
		scenario:  sim.Scenario,
		scenarios: sim.Scenarios,
		marks: func(groups bool) []string {
			if groups {
				return append(sim.Marks(), sim.PromotionMarks()...)
			}
			return sim.Marks()
		},
	}
}

func (a *app) simCommand(version string) *cobra.Command {
	s := a.simulator
	if s == nil {
		s = newSimulator()
	}
	cmd := group(&cobra.Command{
		Use: "sim", Short: "Simulate a quorum, its clients and what goes wrong",
		Long: `Run the quorum's own code in a simulated world: time, networks, disks and crashes are drawn from a seed or written in a
scenario, and every promise of docs/INVARIANTS.md is checked. The same program gives the same run for the same seed, always.

Exit codes: 0 if every promise held, or just those broke that a scenario expects to break; 1 otherwise.`,
	})
	b := build{version, revision()}
	cmd.AddCommand(a.simRunCommand(s, b), a.simReplayCommand(s, b), a.simMinimizeCommand(s, b))
	return cmd
}

// build is what decides how a plan goes, beside the plan.
type build struct{ version, revision string }

func (b build) String() string {
	if b.revision == "" {
		return b.version
	}
	return b.version + " (commit " + b.revision + ")"
}

// revision is the commit that the program was built from, if it knows.
func revision() string {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

// choice is which plan is meant.
type choice struct {
	seed     uint64
	seeded   bool // whether the seed was given
	scenario string
	duration time.Duration
	store    string
	groups   bool // every drawn plan that has two regions has a failover group
	services bool // every drawn plan has services
	planted
}

func (c *choice) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	c.planted.flags(cmd)
	flags.Uint64Var(&c.seed, "seed", 1, "what everything random is derived from")
	flags.DurationVar(&c.duration, "duration", 0, "simulated time for which clients work and faults happen (default: the scenario's, or 10m)")
	flags.BoolVar(&c.groups, "groups", false, "draw guards and a failover group into every plan that has two regions")
	flags.BoolVar(&c.services, "singletons", false, "draw services into every plan that do in one place what is to be done in one place")
	flags.StringVar(&c.store, "store", "", "what nodes replicate with: raft, or the faster and simpler fast (default: the scenario's, or raft)")
}

// planted is a bug that is to be found. Only a program that was built with -tags mutants has any.
type planted struct{ mutant string }

func (m *planted) flags(cmd *cobra.Command) {
	if !mutant.Enabled {
		return
	}
	cmd.Flags().StringVar(&m.mutant, "mutant", "", "plant this bug, to see whether it is found")
	_ = cmd.RegisterFlagCompletionFunc("mutant", cobra.FixedCompletions(mutants(), cobra.ShellCompDirectiveNoFileComp)) // the flag exists
}

func (m *planted) check() error {
	if _, known := mutant.Find(mutant.ID(m.mutant)); m.mutant != "" && !known {
		return lease.Invalid("--mutant", fmt.Sprintf("%q is unknown", m.mutant), "use one of "+strings.Join(mutants(), ", "))
	}
	return nil
}

// command is what the flag adds to a command.
func (m *planted) command() string {
	if m.mutant == "" {
		return ""
	}
	return " --mutant " + m.mutant
}

// options are those of a run.
func (m *planted) options(traced bool) sim.Options {
	return sim.Options{Mutant: m.mutant, Trace: traced}
}

// mutants lists the bugs that can be planted.
func mutants() []string {
	names := make([]string, len(mutant.Registry))
	for i, m := range mutant.Registry {
		names[i] = string(m.ID)
	}
	return names
}

// complete lets the shell offer what the flags take.
func complete(cmd *cobra.Command, s *simulator) {
	_ = cmd.RegisterFlagCompletionFunc("store", // the flag exists
		cobra.FixedCompletions([]string{string(plan.Raft), string(plan.Fast)}, cobra.ShellCompDirectiveNoFileComp))
	if cmd.Flags().Lookup("scenario") != nil {
		_ = cmd.RegisterFlagCompletionFunc("scenario", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return s.scenarios(), cobra.ShellCompDirectiveDefault
		})
	}
}

func (c *choice) check(flags *pflag.FlagSet) error {
	c.seeded = flags.Changed("seed")
	switch {
	case c.store != "" && c.store != string(plan.Raft) && c.store != string(plan.Fast):
		return lease.Invalid("--store", fmt.Sprintf("is %q", c.store), "use raft or fast")
	case flags.Changed("duration") && (c.duration < time.Second || c.duration > plan.MaxDuration):
		return lease.Invalid("--duration", "is "+c.duration.String(), fmt.Sprintf("use 1s to %v", plan.MaxDuration))
	case c.services && c.scenario != "":
		return lease.Invalid("--singletons", "is of drawn plans", "leave it or --scenario out")
	case c.groups && c.scenario != "":
		return lease.Invalid("--groups", "is of drawn plans", "leave it or --scenario out")
	}
	return c.planted.check()
}

// plan answers the plan with a seed, and the command that carries it out.
func (c *choice) plan(s *simulator, seed uint64) (plan.Plan, string, error) {
	command := fmt.Sprintf("writ sim run --seed %d", seed)
	var p plan.Plan
	if c.scenario == "" {
		p = plan.Draw(seed, plan.Seeded(seed), plan.DrawOptions{Duration: c.duration, Store: plan.Store(c.store), Groups: c.groups, Singletons: c.services})
	} else {
		var err error
		if p, err = s.find(c.scenario); err != nil {
			return p, "", err
		}
		if c.seeded {
			p.Seed = seed
		} else {
			command = "writ sim run"
		}
		command += " --scenario " + quote(c.scenario)
		if c.duration != 0 {
			p.Duration = c.duration
		}
		if c.store != "" {
			p.Store = plan.Store(c.store)
		}
		if err := p.Validate(); err != nil {
			return p, "", lease.Invalid("--scenario", "does not go with the other flags: "+err.Error(), "leave --duration out, or change the scenario")
		}
	}
	if c.duration != 0 {
		command += " --duration " + c.duration.String()
	}
	if c.store != "" {
		command += " --store " + c.store
	}
	if c.groups {
		command += " --groups"
	}
	if c.services {
		command += " --singletons"
	}
	return p, command + c.command(), nil
}

// find answers a scenario of that name, or in a file.
func (s *simulator) find(name string) (plan.Plan, error) {
	if p, ok := s.scenario(name); ok {
		return p, nil
	}
	p, err := read("--scenario", name)
	if errors.Is(err, fs.ErrNotExist) {
		fix := "name a file"
		if known := s.scenarios(); len(known) > 0 {
			fix = "use one of " + strings.Join(known, ", ") + ", or a file"
		}
		return p, lease.Invalid("--scenario", fmt.Sprintf("%q is unknown", name), fix)
	}
	return p, err
}

// read reads the plan in a file.
func read(field, path string) (plan.Plan, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return plan.Plan{}, err
	case err == nil && info.Size() > plan.MaxBytes:
		return plan.Plan{}, lease.Invalid(field, fmt.Sprintf("%s has %d bytes", path, info.Size()), fmt.Sprintf("a plan has at most %d", plan.MaxBytes))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return plan.Plan{}, lease.Invalid(field, "cannot be read: "+err.Error(), "name a file with a plan")
	}
	p, err := plan.Parse(path, text)
	if bad := (*plan.SyntaxError)(nil); errors.As(err, &bad) {
		return p, lease.Invalid(fmt.Sprintf("%s:%d:%d:", bad.File, bad.Line, bad.Column), bad.Message, bad.Fix)
	}
	return p, err
}

// readFile is read for an argument.
func readFile(path string) (plan.Plan, error) {
	p, err := read("FILE", path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, lease.Invalid("FILE", path+" does not exist", "name a file that was written with --save")
	}
	return p, err
}

// quote makes one word of a text for a shell.
func quote(s string) string {
	const plain = "-_./+:@%,=0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(plain, r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// files are what is written beside the result.
type files struct{ html, save string }

func (f *files) flags(flags *pflag.FlagSet, which string) {
	flags.StringVar(&f.html, "html", "", "write a page that shows "+which+" to this file, and replace it if it exists")
	flags.StringVar(&f.save, "save", "", "write the plan of "+which+" to this file, which must not exist, for \"writ sim replay\"")
}

// check finds out before a long run what would be a pity after it.
func (f *files) check() error {
	if f.save == "" {
		return nil
	}
	if _, err := os.Lstat(f.save); err == nil {
		return lease.Invalid("--save", f.save+" exists", "name another one")
	}
	return nil
}

// write writes what was asked for.
func (f *files) write(p plan.Plan, t *trace.Trace, command, mutant string) error {
	if f.save != "" {
		file, err := os.OpenFile(f.save, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return lease.Invalid("--save", "cannot be written: "+err.Error(), "name a new file in a writable directory")
		}
		_, err = file.WriteString(p.String())
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	if f.html == "" || t == nil {
		return nil
	}
	t.Command = command
	if t.Title == "" {
		t.Title = titleOf(p, mutant)
	}
	var page bytes.Buffer
	if err := report.HTML(&page, t); err != nil {
		return err
	}
	if err := os.WriteFile(f.html, page.Bytes(), 0o666); err != nil {
		return lease.Invalid("--html", "cannot be written: "+err.Error(), "name a file in a writable directory")
	}
	return nil
}

func titleOf(p plan.Plan, mutant string) string {
	title := p.Name
	if title == "" {
		title = fmt.Sprintf("drawn from seed %d", p.Seed)
	}
	if mutant != "" {
		title += ", with " + mutant
	}
	return title
}
