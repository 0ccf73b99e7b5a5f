package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/lease"
)

// app is what all commands share.
type app struct {
	connection
	output string
	stdout io.Writer
	stderr io.Writer
	stdin  *os.File
}

// exitError ends the program with a code of its own and, if it has a cause, a message.
type exitError struct {
	code  int
	cause error
}

func (e *exitError) Error() string {
	if e.cause == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.cause.Error()
}

func (e *exitError) Unwrap() error { return e.cause }

// Main runs the command line and answers the exit code. Servers are the commands that are not of this package, quorum
// those that belong beneath "quorum".
func Main(version string, args []string, servers, quorum []*cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{stdout: os.Stdout, stderr: os.Stderr, stdin: os.Stdin}
	return a.run(ctx, version, args, servers, quorum)
}

func (a *app) run(ctx context.Context, version string, args []string, servers, quorum []*cobra.Command) int {
	root := a.root(version, servers, quorum)
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return lease.ExitOK
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.cause != nil {
			a.complain(exit.cause)
		}
		return exit.code
	}
	a.complain(err)
	return lease.ExitCode(err)
}

// complain tells an error in one line, or as JSON where data would be JSON.
func (a *app) complain(err error) {
	if a.output != "json" {
		_, _ = fmt.Fprintln(a.stderr, "writ:", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	out := map[string]string{"message": err.Error(), "reason": string(lease.ReasonOf(err))}
	var e *lease.Error
	if errors.As(err, &e) {
		out["message"] = e.Message
		for key, value := range map[string]string{"field": e.Field, "fix": e.Fix, "resource": string(e.Resource)} {
			if value != "" {
				out[key] = value
			}
		}
		if e.Token != 0 {
			out["token"] = e.Token.Decimal()
		}
		if e.Holder != (lease.Holder{}) {
			out["holder"] = e.Holder.String()
		}
	}
	raw, _ := json.Marshal(map[string]any{"error": out}) // strings only: it cannot fail
	_, _ = fmt.Fprintln(a.stderr, string(raw))
}

func (a *app) root(version string, servers, quorum []*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:   "writ",
		Short: "Leases and fencing tokens for systems that live in several regions",
		Long: `Writ answers who may write now, and how everyone else finds out that they may not.

Try it: "writ dev" starts a quorum of three regions on this machine.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			switch a.output {
			case "table", "json", "yaml":
				return nil
			}
			problem := fmt.Sprintf("is %q", a.output)
			a.output = "table"
			return lease.Invalid("--output", problem, "use table, json or yaml")
		},
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&a.output, "output", "o", "table", "how to print data: table, json or yaml")
	a.flags(flags)
	root.AddCommand(a.leaseCommand(), a.quorumCommand(quorum), a.runCommand(), versionCommand(a, version))
	root.AddCommand(servers...)
	return root
}

func versionCommand(a *app, version string) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.print(map[string]string{"version": version}, func(w io.Writer) { _, _ = fmt.Fprintln(w, "writ", version) })
		},
	}
}
