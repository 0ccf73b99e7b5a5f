package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/plan"
)

// minimized is a smaller plan as data.
type minimized struct {
	verdict
	Runs        int    `json:"runs"`
	Interrupted bool   `json:"interrupted"`
	Plan        string `json:"plan"`
}

func (a *app) simMinimizeCommand(s *simulator, b build) *cobra.Command {
	var c choice
	var f files
	var most int
	cmd := &cobra.Command{
		Use: "minimize [FILE]", Short: "Make a plan that breaks a promise smaller",
		Long: `Look for a smaller plan that breaks the same promise as the plan in FILE, or the one that is drawn from --seed: with fewer
faults, clients and nodes, shorter and rounder. The plan is printed, in the form that "writ sim replay" reads. An interrupt
ends the search with the smallest one so far.`,
		Args: arguments("[FILE]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.check(cmd.Flags()); err != nil {
				return err
			}
			if err := f.check(); err != nil {
				return err
			}
			var p plan.Plan
			var err error
			switch {
			case len(args) == 1 && (c.seeded || c.duration != 0 || c.store != ""):
				return lease.Invalid("FILE", "excludes --seed, --duration and --store", "choose one")
			case len(args) == 0 && !c.seeded:
				return lease.Invalid("FILE", "or --seed is to be given", "give one of them")
			case most < 1:
				return lease.Invalid("--runs", fmt.Sprintf("is %d", most), "use 1 or more")
			case len(args) == 1:
				p, err = readFile(args[0])
			default:
				p, _, err = c.plan(s, c.seed)
			}
			if err != nil {
				return err
			}
			return a.minimize(cmd.Context(), s, p, most, f, c.planted, b)
		},
	}
	c.flags(cmd)
	f.flags(cmd.Flags(), "the smaller run")
	cmd.Flags().IntVar(&most, "runs", 500, "how many plans to try at most")
	complete(cmd, s)
	return cmd
}

func (a *app) minimize(ctx context.Context, s *simulator, p plan.Plan, most int, f files, m planted, b build) error {
	began := time.Now()
	first := s.within(ctx, p, m.options(false))
	if first == nil {
		return ctx.Err()
	}
	names := broke(first)
	if len(names) == 0 {
		return lease.Invalid("the plan", fmt.Sprintf("of seed %d breaks no promise", p.Seed), "name one that does")
	}
	out := &minimized{Runs: 1}
	small := plan.Shrink(p, func(p plan.Plan) bool {
		if ctx.Err() != nil {
			return false
		}
		out.Runs++
		r := s.within(ctx, p, m.options(false))
		return r != nil && slices.Contains(broke(r), names[0])
	}, most)
	out.Interrupted = ctx.Err() != nil
	small.Expect = nil
	small.About = append(small.About, fmt.Sprintf("Breaks %s, with writ %s%s.", strings.Join(names[:1], ", "), b, m.command()))
	// The last run is short, as small as the plan is by now: an interrupt need not hinder it.
	r := s.run(small, m.options(f.html != ""))
	command := "writ sim replay FILE"
	if f.save != "" {
		command = "writ sim replay " + quote(f.save)
	}
	command += m.command()
	out.verdict = *newVerdict(small, r, time.Since(began), b, command)
	out.Mutant, out.Plan = m.mutant, small.String()
	if err := f.write(small, r.Trace, command, m.mutant); err != nil {
		return err
	}
	a.say("%d faults of %d, %d clients of %d and %d nodes of %d are left, and %s of %s, after %d runs",
		len(small.Faults), len(p.Faults), len(small.Clients), len(p.Clients), len(small.Nodes), len(p.Nodes), small.Duration, p.Duration, out.Runs)
	return a.print(out, func(w io.Writer) { _, _ = io.WriteString(w, out.Plan) })
}
