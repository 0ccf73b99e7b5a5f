package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

type forceFlags struct {
	token, reason string
	now, yes      bool
}

func (a *app) forceReleaseCommand() *cobra.Command {
	var f forceFlags
	cmd := &cobra.Command{
		Use:   "force-release NAME --reason REASON",
		Short: "Take a lease away from its holder",
		Long: `Take a lease away: its holder cannot renew it any more, and the resource is free when the lease has run out. It is
written to the audit log. --now frees it at once, which only guards that have proved that they refuse the holder allow.

On a terminal the name has to be typed; elsewhere --yes has to be given.`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.forceRelease(cmd.Context(), args[0], f) },
	}
	tokenFlag(cmd, &f.token, "only if it is held under this `token`")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why; it stands in the audit log")
	cmd.Flags().BoolVar(&f.now, "now", false, "free it at once")
	yesFlag(cmd, &f.yes)
	return cmd
}

func (a *app) forceRelease(ctx context.Context, name string, f forceFlags) error {
	req := &writv1.ForceReleaseRequest{Resource: name, Reason: f.reason, Now: f.now}
	if f.reason == "" {
		return lease.Invalid("--reason", "is missing", "say why; it stands in the audit log")
	}
	if f.token != "" {
		t, err := parseToken(f.token)
		if err != nil {
			return err
		}
		req.Token = uint64(t)
	}
	if err := a.confirm(ctx, "This takes "+name+" away from its holder.", name, f.yes); err != nil {
		return err
	}
	var resp *writv1.ForceReleaseResponse
	do := func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = writv1.NewLeaseServiceClient(conn).ForceRelease(ctx, req)
		return err
	}
	ask := a.each
	if req.GetToken() == 0 {
		ask = a.once // done twice, it might hit the next holder
	}
	if err := ask(ctx, do); err != nil {
		return err
	}
	return a.print(resp, func(w io.Writer) {
		l := resp.GetLease()
		_, _ = fmt.Fprintf(w, "%s cannot renew %s under token %s any more; ", holderText(l.GetHolder()), l.GetResource(), l.GetTokenText())
		switch left := l.GetRemaining().AsDuration(); {
		case f.now:
			_, _ = fmt.Fprintln(w, "it is free")
		case left > 0:
			_, _ = fmt.Fprintf(w, "it is free in %s\n", span(left))
		default:
			_, _ = fmt.Fprintf(w, "it is free within %s\n", durationText(l.GetTtl()))
		}
	})
}

func yesFlag(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVarP(yes, "yes", "y", false, "do not ask")
}

// confirm lets a person type the name of what is about to be touched.
func (a *app) confirm(ctx context.Context, what, name string, yes bool) error {
	switch {
	case yes:
		return nil
	case !isTerminal(a.stdin):
		return lease.Invalid("--yes", "is not given and there is no terminal to ask at", "give it to go on without a question")
	}
	_, _ = fmt.Fprintf(a.stderr, "%s Type %s to go on: ", what, name)
	answer := make(chan string, 1)
	go func() { // ends with the program if nobody answers
		line, _ := bufio.NewReader(a.stdin).ReadString('\n') // half a line is no answer either
		answer <- line
	}()
	select {
	case <-ctx.Done():
		_, _ = fmt.Fprintln(a.stderr)
		return errors.New("interrupted; nothing was changed")
	case line := <-answer:
		if !strings.HasSuffix(line, "\n") || strings.TrimSpace(line) != name {
			return lease.Invalid("answer", "is not the name", "nothing was changed")
		}
		return nil
	}
}
