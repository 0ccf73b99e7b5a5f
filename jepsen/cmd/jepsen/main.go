//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/writ-io/writ/jepsen/campaign"
	"github.com/writ-io/writ/jepsen/choice"
	"github.com/writ-io/writ/jepsen/judge"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/nemesis"
	"github.com/writ-io/writ/jepsen/report"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/workload"
)

// The codes to exit with.
const (
	exitValid   = 0
	exitInvalid = 1
	exitUsage   = 2
	exitUnknown = 3
)

func main() {
	if code, ok := lab.Child(); ok {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const usage = `usage:
  jepsen run -time 5m -out DIR [-seed N] [-workloads a,b] [-nemeses x,y] [-controls p,q] [-matrix m] [-previous DIR]
  jepsen check DIR

Exit codes: 0 valid; 1 invalid, or a positive control that was not found out; 2 called wrongly; 3 unknown, or not carried out.
An interrupt ends a run early, heals everything, and leaves a record.
`

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	if len(args) < 2 {
		_, _ = fmt.Fprint(errs, usage)
		return exitUsage
	}
	switch args[1] {
	case "run":
		return runCampaign(ctx, args, out, errs)
	case "check":
		if len(args) != 3 || strings.HasPrefix(args[2], "-") {
			_, _ = fmt.Fprint(errs, usage)
			return exitUsage
		}
		return check(args[2], out, errs)
	}
	_, _ = fmt.Fprintf(errs, "jepsen: there is no command %q\n%s", args[1], usage)
	return exitUsage
}

// runCampaign reads the flags, runs and judges.
func runCampaign(ctx context.Context, args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("jepsen run", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // what it says of a mistake is in its error
	config := campaign.Config{Command: args, Progress: out}
	flags.DurationVar(&config.Time, "time", 5*time.Minute, "for how long faults happen in all, 1s to 24h; healing and controls come on top")
	flags.StringVar(&config.Dir, "out", "", "the `directory` of the record, which must not hold one yet")
	flags.Uint64Var(&config.Seed, "seed", uint64(time.Now().UnixNano()), "what faults and clients are drawn from")
	workloads := flags.String("workloads", "all", "`names`, separated by commas")
	nemeses := flags.String("nemeses", "all", "`names`, separated by commas, or none")
	previous := flags.String("previous", "", "a `directory` with writ and writ-guard of the previous release, for the nemesis upgrade")
	controls := flags.String("controls", "all", "`names` of positive controls, separated by commas, or none")
	matrix := flags.String("matrix", "none", "the `name` of how far the regions are from each other, or none: all in one place")
	if err := flags.Parse(args[2:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			_, _ = fmt.Fprint(out, usage)
			flags.SetOutput(out)
			flags.PrintDefaults()
			describe(out)
			return exitValid
		}
		_, _ = fmt.Fprintf(errs, "jepsen: %v; jepsen run -h lists all flags\n", err)
		return exitUsage
	}
	err := errors.Join(
		choose(&config.Workloads, "workloads", *workloads, workload.Kinds),
		choose(&config.Nemeses, "nemeses", *nemeses, nemesis.Kinds),
		choose(&config.Controls, "controls", *controls, campaign.Controls),
		spread(&config.Matrix, *matrix),
	)
	if flags.NArg() > 0 {
		err = errors.Join(err, fmt.Errorf("jepsen: %q is no flag", flags.Arg(0)))
	}
	if *previous != "" {
		config.Previous = lab.Release{Name: "the previous one", Writ: filepath.Join(*previous, "writ"), Guard: filepath.Join(*previous, "writ-guard")}
		for _, path := range []string{config.Previous.Writ, config.Previous.Guard} {
			if _, missing := os.Stat(path); missing != nil {
				err = errors.Join(err, fmt.Errorf("jepsen: -previous: %w", missing))
			}
		}
	}
	if config.Dir == "" {
		err = errors.Join(err, errors.New("jepsen: -out is missing: name a directory for the record"))
	}
	if config.Time < time.Second || config.Time > 24*time.Hour {
		err = errors.Join(err, fmt.Errorf("jepsen: -time is %v: give from 1s to 24h", config.Time))
	}
	if err != nil {
		_, _ = fmt.Fprintln(errs, err)
		return exitUsage
	}
	_, _ = fmt.Fprintf(out, "seed %d\n", config.Seed)
	if err := perform(ctx, config); err != nil {
		_, _ = fmt.Fprintln(errs, "jepsen:", err)
		return exitUnknown
	}
	return check(config.Dir, out, errs)
}

// choose reads the list that a flag names.
func choose[T any](into *[]T, name, list string, from choice.Set[T]) (err error) {
	if *into, err = from.Read(list); err != nil {
		return fmt.Errorf("jepsen: -%s: %w", name, err)
	}
	return nil
}

// spread reads the name of a matrix.
func spread(into *lab.Matrix, name string) error {
	if name == "none" {
		return nil
	}
	found, err := lab.Matrices.Named(name)
	if err != nil {
		return fmt.Errorf("jepsen: -matrix: %w", err)
	}
	*into = found[0]
	return nil
}

// describe lists what can be named.
func describe(w io.Writer) {
	_, _ = fmt.Fprintln(w, "\nworkloads:")
	_ = workload.Kinds.Describe(w)
	_, _ = fmt.Fprintln(w, "\nnemeses:")
	_ = nemesis.Kinds.Describe(w)
	_, _ = fmt.Fprintln(w, "\npositive controls:")
	_ = campaign.Controls.Describe(w)
	_, _ = fmt.Fprintln(w, "\nmatrices:")
	_ = lab.Matrices.Describe(w)
}

// perform builds the programs and runs.
func perform(ctx context.Context, config campaign.Config) (err error) {
	dir, err := os.MkdirTemp("", "writ-jepsen-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := config.Build(ctx, dir); err != nil {
		return err
	}
	return campaign.Run(ctx, config)
}

// check judges a record, writes the report, and says what was found.
func check(dir string, out, errs io.Writer) int {
	r, err := judge.Dir(dir)
	if err != nil {
		_, _ = fmt.Fprintln(errs, "jepsen:", err)
		return exitUnknown
	}
	path := filepath.Join(dir, "report.html")
	if err := report.Write(path, r); err != nil {
		_, _ = fmt.Fprintln(errs, "jepsen:", err)
		return exitUnknown
	}
	report.Text(out, r)
	_, _ = fmt.Fprintf(out, "report: %s\n", path)
	switch r.Overall() {
	case verdict.Valid:
		return exitValid
	case verdict.Invalid:
		return exitInvalid
	case verdict.Unknown:
	}
	return exitUnknown
}
