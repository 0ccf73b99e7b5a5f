package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/cmd/writ/cli/supervisor"
	"github.com/writ-io/writ/lease"
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

CMD finds WRIT_RESOURCE, WRIT_TOKEN (decimal), WRIT_TOKEN_TEXT (epoch.sequence) and, if the quorum signs, WRIT (the signed
writ) in its environment; what it writes to should compare the token. WRIT_INSTANCE lets it call "writ lease checkpoint".

The end. When the lease cannot be renewed, every process of CMD gets SIGTERM --stop-grace before the local deadline, and
SIGKILL before that deadline, with no help from the network. When the quorum says that the lease is over, they get SIGKILL
at once. What CMD leaves running when it exits may end by itself for --stop-grace, and then is ended likewise. Processes
count as CMD's also where they left its process group or session; what another service starts for CMD does not.

Not even SIGKILL reaches CMD while writ itself is stopped (SIGSTOP, a frozen machine): CMD goes on, and writ kills it when it
wakes after the deadline. If writ is killed, CMD is killed with it, but not what CMD had started. What is written then, only
a comparison of tokens at the storage can refuse.

Signals. TERM, INT, HUP, QUIT, USR1, USR2, WINCH and TSTP are forwarded to CMD's process group. While waiting for the lease,
TERM, INT, HUP and QUIT give up the place in the queue and end with 128 and the signal's number.

Terminal. If standard input and output are the terminal, CMD is put in its foreground, and the terminal comes back when CMD
ends or is stopped; elsewhere CMD gets it when it asks for it. A job that is stopped from the keyboard does not renew: if it
is continued too late, CMD is killed instead.

The exit code is CMD's, 128 and the signal's number if a signal ended it, or 125 for failures of writ run itself: no lease
within --wait, no quorum, CMD cannot be started, the lease was lost.`,
		Example: `  writ run billing/nightly --ttl 15s -- ./nightly.sh
  writ run web/leader --wait 1m -- sh -c 'exec ./serve --token "$WRIT_TOKEN"'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
				return lease.Invalid("arguments", "are not NAME -- CMD", "write: writ run NAME [flags] -- CMD [ARG…]")
			}
			return nil
		},
		Annotations: map[string]string{ownExitCode: ""},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd.Flags().Changed("stop-grace")); err != nil {
				return err
			}
			return a.runCommandLine(cmd.Context(), args[0], args[1:], f)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.ttl, "ttl", lease.DefaultTTL, "how long others wait if this process dies")
	flags.DurationVar(&f.wait, "wait", 0, "give up if it is still held after so long; 0: wait without limit")
	flags.DurationVar(&f.grace, "stop-grace", 0, "SIGTERM comes so long before the local deadline; 0: SIGKILL only (default a third of --ttl, at least 100ms)")
	flags.Int32Var(&f.priority, "priority", 0, "higher waits in front of lower, -1000 to 1000")
	return cmd
}

// check validates the flags, and sets the default of what was not given.
func (f *runFlags) check(graceGiven bool) error {
	switch {
	case f.ttl < lease.MinTTL:
		return lease.Invalid("--ttl", fmt.Sprintf("is %v", f.ttl), fmt.Sprintf("use at least %v", lease.MinTTL))
	case f.wait < 0:
		return lease.Invalid("--wait", fmt.Sprintf("is %v", f.wait), "use 0 (wait without limit) or more")
	case !graceGiven:
		f.grace = supervisor.DefaultGrace(f.ttl)
	}
	return supervisor.CheckGrace(f.grace, f.ttl)
}
