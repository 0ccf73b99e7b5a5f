package node

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

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

// Commands are the commands that run nodes, for the root.
func Commands(version string) []*cobra.Command {
	return []*cobra.Command{serverCommand(version), devCommand(version)}
}

// QuorumCommands are the commands beneath "quorum" that work on a node's directory while the node is stopped.
func QuorumCommands(string) []*cobra.Command {
	return []*cobra.Command{restoreCommand()}
}

func serverCommand(version string) *cobra.Command {
	var path string
	var minEpoch uint16
	var example bool
	cmd := &cobra.Command{
		Use:   "server --config writ.yaml",
		Short: "Run one node of a quorum",
		Long: `Run one node of a quorum until SIGTERM or SIGINT, which let requests under way finish and hand the
coordinator over first, or break off the start; a second one ends the process at once. SIGHUP reads the policy file anew.
Certificates are read anew whenever their files change.

Every key of the configuration can also be set in the environment: api.listen as WRIT_SERVER_API__LISTEN.`,
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
			return serve(cmd.Context(), config, Options{
				MinEpoch: fence.Epoch(minEpoch), Version: version, Logger: newLogger(config.Log, cmd.ErrOrStderr()),
			})
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "the configuration `file` (YAML)")
	cmd.Flags().Uint16Var(&minEpoch, "min-epoch", 0, minEpochUsage)
	cmd.Flags().BoolVar(&example, "example", false, "print a configuration with every key, and exit")
	return cmd
}

const minEpochUsage = "the highest `epoch` that anybody remembers (a token's part before the dot), where no witness does; tokens go on above it"

func newLogger(c Log, out io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "writ", Level: hclog.LevelFromString(c.Level), Output: out, JSONFormat: c.Format == "json",
	})
}

// echo is how long after a signal another one is the same once more.
const echo = 300 * time.Millisecond

// serve runs a node until a signal or its failure ends it.
func serve(ctx context.Context, config Config, o Options) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	n, err := Start(ctx, config, o)
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		o.Logger.Info("stopped before the node was running", "reason", err)
		return nil
	}
	if err != nil {
		return err
	}
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGHUP {
				_ = n.Reload() // logged
				continue
			}
		case <-ctx.Done():
		case <-n.Done():
			o.Logger.Error("the node has failed", "error", n.Err())
		}
		break
	}
	o.Logger.Info("stopping: a second signal stops at once")
	stopped := make(chan error, 1)
	go func() { stopped <- n.Stop(context.WithoutCancel(ctx)) }()
	return awaitStop(stopped, signals)
}

// awaitStop waits for a stop to finish, or for the second signal, which it answers with an error: the process then exits
// and leaves the rest to the kernel. Nothing is lost by that but the orderly hand-over.
func awaitStop(stopped <-chan error, signals <-chan os.Signal) error {
	began := clock.System().Now()
	for {
		select {
		case err := <-stopped:
			return err
		case s := <-signals:
			// Wrappers such as timeout(1) send the first one twice, to the process and to its group.
			if s != syscall.SIGHUP && clock.System().Now().Sub(began) > echo {
				return fmt.Errorf("stopped at once by a second signal (%v)", s)
			}
		}
	}
}
