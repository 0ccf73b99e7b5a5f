package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/cmd/writ/cli/proctree"
	"github.com/writ-io/writ/cmd/writ/cli/supervisor"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// exitOwn is the exit code of run's own failures.
const exitOwn = 125

type runFlags struct {
	ttl, wait, grace time.Duration
	priority         int32
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run NAME [flags] -- CMD [ARG…]",
		Short: "Run a command while holding a lease",
		Long: `Acquire NAME, run CMD, keep the lease, and release it when CMD and everything it has started have ended.

CMD finds WRIT_RESOURCE, WRIT_TOKEN (decimal), WRIT_TOKEN_TEXT (epoch.sequence) and WRIT (the signed writ) in its environment;
what it writes to should compare the token. Signals are forwarded, also while waiting. When the lease is lost, CMD gets
SIGTERM --stop-grace before the local deadline and the whole tree of processes SIGKILL before that deadline, with no help
from the network. Should writ itself be stopped (SIGSTOP, a frozen machine) beyond the deadline, it kills the tree when it
wakes; what CMD wrote in between only a token comparison at the storage can refuse.

The exit code is CMD's, 128 and the signal's number if a signal ended it, or 125 for failures of writ run itself: the lease
was lost, nothing could be started, no quorum.`,
		Example: "  writ run billing/nightly --ttl 15s -- ./nightly.sh",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if at := cmd.ArgsLenAtDash(); at != 1 {
				return &exitError{exitOwn, lease.Invalid("CMD", "does not stand behind --", "write: writ run NAME [flags] -- CMD ARG…")}
			}
			return a.runUnder(context.WithoutCancel(cmd.Context()), args[0], args[1:], f)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.ttl, "ttl", lease.DefaultTTL, "how long others wait when this process dies")
	flags.DurationVar(&f.wait, "wait", 0, "give up with code 125 if it is still held after so long; 0: wait without limit")
	flags.DurationVar(&f.grace, "stop-grace", 0, "time between SIGTERM and the local deadline; default: a third of --ttl")
	flags.Int32Var(&f.priority, "priority", 0, "higher waits in front of lower")
	return cmd
}

func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stderr, "writ: "+format+"\n", args...)
}

func (a *app) runUnder(ctx context.Context, name string, command []string, f runFlags) error {
	if f.grace == 0 {
		f.grace = min(supervisor.DefaultGrace(f.ttl), f.ttl/2)
	}
	if err := supervisor.CheckGrace(f.grace, f.ttl); err != nil {
		return &exitError{exitOwn, err}
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, supervisor.Forwarded()...)
	defer signal.Stop(signals)
	client, err := a.client(ctx)
	if err != nil {
		return &exitError{exitOwn, err}
	}
	defer func() { _ = client.Close() }()
	hold, err := a.await(ctx, client, name, f, signals)
	if err != nil {
		return err
	}
	terminal := proctree.OpenTerminal()
	defer terminal.Close()
	outcome, err := supervisor.Run(supervisor.Config{
		Command: proctree.Command{
			Args: command, Env: append(os.Environ(), a.environment(ctx, hold)...),
			Files: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, Terminal: terminal,
		},
		Interactive: terminal != nil && terminal.Ours(), Hold: heldLease{hold}, Clock: clock.System(), TTL: hold.TTL(), Grace: f.grace,
		Signals: signals, Say: a.say,
	})
	if outcome.Left != "" {
		// Whoever is granted the resource next must not meet what could not be killed: the lease runs out by itself.
		return &exitError{exitOwn, fmt.Errorf("processes of the command are left, so the lease is not released: %s", outcome.Left)}
	}
	release, cancel := context.WithTimeout(ctx, min(a.timeout, hold.TTL()))
	defer cancel()
	releaseErr := hold.Release(release)
	switch {
	case err != nil:
		return &exitError{exitOwn, err}
	case outcome.Cause != nil:
		return &exitError{exitOwn, fmt.Errorf("the lease on %s was lost and the command was ended: %w", name, outcome.Cause)}
	case releaseErr != nil && !errors.Is(releaseErr, lease.ErrReleased):
		a.say("the lease could not be released and runs out by itself: %v", releaseErr)
	}
	if outcome.Status.Code != 0 {
		return &exitError{code: outcome.Status.Code}
	}
	return nil
}

// await acquires, unless a signal ends the waiting.
func (a *app) await(ctx context.Context, client *lease.Client, name string, f runFlags, signals <-chan os.Signal) (*lease.Hold, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		hold *lease.Hold
		err  error
	}
	done := make(chan result, 1)
	go func() {
		hold, err := client.Acquire(ctx, name, lease.AcquireOptions{TTL: f.ttl, MaxWait: f.wait, Priority: f.priority, WantWrit: true})
		done <- result{hold, err}
	}()
	for {
		select {
		case r := <-done:
			if r.err != nil {
				return nil, &exitError{exitOwn, r.err}
			}
			return r.hold, nil
		case sig := <-signals:
			if !ends(sig) {
				continue
			}
			cancel()
			if r := <-done; r.hold != nil {
				release, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.ttl)
				_ = r.hold.Release(release) // it runs out otherwise
				cancel()
			}
			number, _ := sig.(syscall.Signal)
			return nil, &exitError{128 + int(number), fmt.Errorf("%v while waiting for %s", sig, name)}
		}
	}
}

// ends says that a signal ends a process that does not handle it.
func ends(sig os.Signal) bool {
	switch sig {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT:
		return true
	}
	return false
}

func (a *app) environment(ctx context.Context, hold *lease.Hold) []string {
	env := []string{
		"WRIT_RESOURCE=" + string(hold.Resource()), "WRIT_TOKEN=" + hold.Token().Decimal(), "WRIT_TOKEN_TEXT=" + hold.Token().String(),
	}
	writ, err := hold.Writ(ctx)
	if err != nil {
		a.say("the command runs without a signed writ: %v", err)
		return env
	}
	return append(env, "WRIT="+writ)
}

// heldLease is a hold as the supervisor needs it.
type heldLease struct{ *lease.Hold }

func (h heldLease) Lost() <-chan struct{} { return h.Done() }
func (h heldLease) Cause() error          { return h.Err() }
