package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/writ-io/writ/lease"
)

// app is what all commands share.
type app struct {
	connection
	output  string
	file    string // what -o names in place of a form, where a command takes that
	noColor bool
	stdin   *os.File
	stdout  io.Writer
	stderr  io.Writer
	now     func() time.Time // time of day, to show ages
	signals chan os.Signal   // what has come since the start; for "writ run", which passes signals on
	// simulator is what "writ sim" uses; nil: the real one.
	simulator *simulator
}

// signalsKept is how many signals wait to be dealt with.
const signalsKept = 64

// Main runs the command line and answers the exit code. Servers are the commands that are not of this package, quorum
// those that belong beneath "quorum".
func Main(version string, args []string, servers, quorum []*cobra.Command) int {
	signals := make(chan os.Signal, signalsKept)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, now: time.Now, signals: signals}
	return a.run(ctx, version, args, servers, quorum)
}

func (a *app) run(ctx context.Context, version string, args []string, servers, quorum []*cobra.Command) int {
	root := a.root(version, servers, quorum)
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	explain(root)
	cmd, err := root.ExecuteContextC(ctx)
	code, cause := judge(cmd, err)
	if cause != nil {
		a.complain(cause, code, a.output == outputJSON || asksForJSON(args))
	}
	return code
}

func (a *app) root(version string, servers, quorum []*cobra.Command) *cobra.Command {
	root := group(&cobra.Command{
		Use:   "writ",
		Short: "Leases and fencing tokens for systems that live in several regions",
		Long: `Writ answers who may write now, and how everyone else finds out that they may not.

Try it: "writ dev" starts a quorum of three regions on this machine.

Data goes to standard output, everything else to standard error. Exit codes: 0 ok, 1 error, 2 refused or stale, 3 held by
another, 4 not authorised, 5 unavailable, 6 pending, 7 expired; "writ run" passes the code of its command and uses 125 for
its own failures.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.checkOutput(cmd) },
	})
	root.SetFlagErrorFunc(flagError)
	flags := root.PersistentFlags()
	flags.StringVarP(&a.output, "output", "o", outputTable, "how to print data: table, json or yaml")
	flags.BoolVar(&a.noColor, "no-color", false, "print tables without colours (NO_COLOR)")
	a.flags(flags)
	_ = root.RegisterFlagCompletionFunc("output", // the flag exists
		cobra.FixedCompletions([]string{outputTable, outputJSON, outputYAML}, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(a.leaseCommand(), a.guardCommand(), a.quorumCommand(quorum), a.groupCommand(), a.promoteCommand(), a.confidenceCommand(),
		a.approversCommand(), a.regionCommand(), a.runCommand(), a.simCommand(version), versionCommand(a, version))
	root.AddCommand(a.drillCommand(), a.auditCommand(), a.breakglassCommand(), a.agentCommand(version), a.jobCommand())
	root.AddCommand(servers...)
	return root
}

// checkOutput reads -o: a form, or a file where the command writes one.
func (a *app) checkOutput(cmd *cobra.Command) error {
	switch a.output {
	case outputTable, outputJSON, outputYAML:
		return nil
	}
	given := a.output
	a.output = outputTable
	if namesFile(cmd, given) {
		a.file = given
		return nil
	}
	return lease.Invalid("--output", fmt.Sprintf("is %q", given), "use table, json or yaml")
}

func versionCommand(a *app, version string) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  arguments(),
		RunE: func(*cobra.Command, []string) error {
			return a.print(map[string]string{"version": version}, func(w io.Writer) { _, _ = fmt.Fprintln(w, "writ", version) })
		},
	}
}

// say tells people something.
func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stderr, "writ: "+format+"\n", args...)
}

func isTerminal(file *os.File) bool { return isatty.IsTerminal(file.Fd()) }
