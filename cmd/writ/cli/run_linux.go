package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/writ-io/writ/cmd/writ/cli/proctree"
	"github.com/writ-io/writ/cmd/writ/cli/supervisor"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// runCommandLine runs a command under a lease. Errors are writ's own, but for an exitError, which passes on a code.
func (a *app) runCommandLine(ctx context.Context, name string, command []string, f runFlags) error {
	ctx = context.WithoutCancel(ctx) // signals are dealt with here
	outliveReaders()
	a, end := a.unhindered()
	defer end()
	signal.Notify(a.signals, supervisor.Forwarded()...)

	r := runner{app: a, name: name, flags: f}
	defer r.close()
	if err := r.acquire(ctx); err != nil {
		return err
	}
	// From here on a stop from the keyboard is the command's business.
	signal.Notify(a.signals, supervisor.JobControl()...)
	outcome, err := r.supervise(ctx, command)
	return r.end(ctx, outcome, err)
}

// runner is one "writ run".
type runner struct {
	*app
	name   string
	flags  runFlags
	client *lease.Client
	hold   *lease.Hold
}

// close also waits until an abandoned request is cancelled.
func (r *runner) close() {
	if r.client != nil {
		_ = r.client.Close() // always nil
	}
}

// acquire waits for the lease, unless a signal ends the waiting.
func (r *runner) acquire(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.dialAndAcquire(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case received := <-r.signals:
			sig, ok := received.(syscall.Signal)
			if !ok || !slices.Contains(deadly, sig) {
				continue
			}
			cancel()
			if err := <-done; err == nil { // it came at the same moment
				r.release(context.WithoutCancel(ctx))
			}
			return &exitError{128 + int(sig), fmt.Errorf("%v while waiting for %s", sig, r.name)}
		}
	}
}

// deadly are the signals that end the waiting.
var deadly = []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT}

func (r *runner) dialAndAcquire(ctx context.Context) (err error) {
	if r.client, err = r.dial(ctx); err != nil {
		return err
	}
	r.hold, err = r.client.Acquire(ctx, r.name, lease.AcquireOptions{TTL: r.flags.ttl, MaxWait: r.flags.wait, Priority: r.flags.priority})
	return err
}

// supervise runs the command until nothing of it is left.
func (r *runner) supervise(ctx context.Context, command []string) (supervisor.Outcome, error) {
	env := r.environment(ctx)
	if r.hold.Remaining() <= r.flags.grace {
		// The way here took so long that the command would be ended at once.
		verify, cancel := context.WithTimeout(ctx, r.flags.ttl/3)
		defer cancel()
		if err := r.hold.Verify(verify); err != nil {
			return supervisor.Outcome{}, err
		}
	}
	terminal := proctree.OpenTerminal()
	defer terminal.Close()
	return supervisor.Run(supervisor.Config{
		Command: proctree.Command{
			Args: command, Env: env, Files: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, Terminal: terminal,
		},
		Interactive: terminal != nil && isTerminal(os.Stdin) && isTerminal(os.Stdout),
		Hold:        r.hold, Clock: clock.System(), TTL: r.hold.TTL(), Grace: r.flags.grace,
		Signals: r.signals, Say: r.say,
	})
}

// signTimeout bounds the wait for a signed writ: it is not worth much of the lease.
const signTimeout = time.Second

// environment is the command's: ours, with what the grant says.
func (r *runner) environment(ctx context.Context) []string {
	token := r.hold.Token()
	grant := []string{
		"WRIT_RESOURCE=" + string(r.hold.Resource()), "WRIT_TOKEN=" + token.Decimal(), "WRIT_TOKEN_TEXT=" + token.String(),
		"WRIT_INSTANCE=" + r.client.Instance(),
	}
	ctx, cancel := context.WithTimeout(ctx, min(r.flags.ttl/6, signTimeout))
	defer cancel()
	writ, err := r.hold.Writ(ctx)
	if err != nil {
		r.say("the command runs without a signed writ: %v", err)
	} else {
		grant = append(grant, "WRIT="+writ)
	}
	// What a "writ run" around this one has set must not be taken for ours.
	return append(slices.DeleteFunc(os.Environ(), func(entry string) bool {
		key, _, _ := strings.Cut(entry, "=")
		return slices.Contains(grantVariables, key)
	}), grant...)
}

var grantVariables = []string{"WRIT_RESOURCE", "WRIT_TOKEN", "WRIT_TOKEN_TEXT", "WRIT_INSTANCE", "WRIT"}

// end releases the lease, once the command and all that it has started have gone, and says how it ended.
func (r *runner) end(ctx context.Context, outcome supervisor.Outcome, err error) error {
	if outcome.Left != "" {
		// Whoever is granted the resource next must not meet what could not be killed.
		return fmt.Errorf("processes of the command could not be killed, so the lease on %s is left to run out: %s", r.name, outcome.Left)
	}
	r.release(ctx)
	switch {
	case err != nil:
		return err
	case outcome.Cause != nil:
		return r.lost(outcome.Cause)
	case outcome.Status.Code != 0:
		return &exitError{code: outcome.Status.Code}
	}
	return nil
}

// lost says why the command was ended.
func (r *runner) lost(cause error) error {
	e := lease.Errorf(lease.ReasonExpired, "the command was ended because its lease on %s was lost: %v", r.name, cause)
	e.Resource, e.Token = r.hold.Resource(), r.hold.Token()
	if told := (*lease.LostError)(nil); errors.As(cause, &told) {
		e.Reason = told.Reason
		e.Message = fmt.Sprintf("the command was ended because its lease on %s was lost: %v", r.name, told.Cause)
	}
	return e
}

// leastRelease is what a release is worth even where the lease should be over.
const leastRelease = time.Second

// release lets the next one have it. A lease that cannot be released runs out by itself, so it is tried no longer.
func (r *runner) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(r.timeout, max(r.hold.Remaining(), leastRelease)))
	defer cancel()
	if err := r.hold.Release(ctx); err != nil && !errors.Is(err, lease.ErrLost) {
		r.say("the lease on %s could not be released and runs out by itself: %v", r.name, err)
	}
}
