package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/writ-io/writ/lease/clock"
)

// Main runs the program with the commands that stand beside serving, and answers its exit code: that of an error which has
// one, and otherwise 1.
func Main(version string, args []string, commands ...*cobra.Command) int {
	cmd := Command(version)
	cmd.AddCommand(commands...)
	cmd.SetArgs(args)
	err := cmd.Execute()
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "writ-guard: %v\n", err)
	if coded := interface{ ExitCode() int }(nil); errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return 1
}

// Command is the root.
func Command(version string) *cobra.Command {
	var path string
	var example, checkOnly bool
	cmd := &cobra.Command{
		Use:   "writ-guard --config guard.yaml",
		Short: "Stand before a storage and refuse writes with a stale token",
		Long: `Stand before a storage and refuse writes with a stale token, until SIGTERM or SIGINT, which refuse new
writes and let those under way finish first; a second one ends the process at once, and the quorum then waits for
its guard lease to run out. Certificates are read anew for each connection.

Keys of the configuration can also be set in the environment: quorum.endpoints as WRIT_GUARD_QUORUM__ENDPOINTS.`,
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if example {
				_, err := io.WriteString(cmd.OutOrStdout(), exampleYAML)
				return err
			}
			config, err := Load(path, os.Environ())
			if err != nil {
				return err
			}
			if checkOnly {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "configuration %s: good; form %s, covers %q\n", path, config.form(), config.covers())
				return err
			}
			return serve(cmd.Context(), config, Options{Version: version, Logger: newLogger(config.Log, cmd.ErrOrStderr())})
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "the configuration `file` (YAML)")
	cmd.Flags().BoolVar(&checkOnly, "check-config", false, "check the configuration and the files that it names, and exit")
	cmd.Flags().BoolVar(&example, "example", false, "print a configuration with every key, and exit")
	return cmd
}

func newLogger(c Log, out io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "writ-guard", Level: hclog.LevelFromString(c.Level), Output: out, JSONFormat: c.Format == "json",
	})
}

// echo is how long after a signal another one is the same once more.
const echo = 300 * time.Millisecond

// serve runs a guard until a signal or its failure ends it.
func serve(ctx context.Context, config Config, o Options) error {
	if ctx == nil {
		ctx = context.Background()
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	s, err := Start(config, o)
	if err != nil {
		return err
	}
	select {
	case <-signals:
	case <-ctx.Done():
	case <-s.Done():
		o.Logger.Error("the guard has failed", "error", s.Err())
	}
	o.Logger.Info("stopping: a second signal stops at once", "stop_timeout", s.config.StopTimeout)
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(context.WithoutCancel(ctx)) }()
	return awaitStop(stopped, signals)
}

// awaitStop waits for a stop to finish, or for the second signal, which it answers with an error: the process then exits
// and leaves the rest to the kernel. Nothing is lost by that but the goodbye.
func awaitStop(stopped <-chan error, signals <-chan os.Signal) error {
	began := clock.System().Now()
	for {
		select {
		case err := <-stopped:
			return err
		case s := <-signals:
			// Wrappers such as timeout(1) send the first one twice, to the process and to its group.
			if clock.System().Now().Sub(began) > echo {
				return fmt.Errorf("stopped at once by a second signal (%v)", s)
			}
		}
	}
}
