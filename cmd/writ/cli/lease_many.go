package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/writ/cli/proctree"
	"github.com/writ-io/writ/lease"
)

func (a *app) listCommand() *cobra.Command {
	var held, follow, local bool
	var limit int
	cmd := &cobra.Command{
		Use:   "list [PREFIX]",
		Short: "List resources",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix := strings.Join(args, "")
			if follow {
				return a.watch(cmd.Context(), prefix, "")
			}
			return a.list(cmd.Context(), &writv1.ListRequest{Prefix: prefix, HeldOnly: held, Consistency: consistency(local)}, limit)
		},
	}
	cmd.Flags().BoolVar(&held, "held", false, "only what is held")
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "go on with what changes, as \"writ lease watch\"")
	cmd.Flags().BoolVar(&local, "local", false, "show what the asked node has seen, also without a quorum")
	cmd.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	return cmd
}

func consistency(local bool) writv1.ReadConsistency {
	if local {
		return writv1.ReadConsistency_READ_CONSISTENCY_LOCAL
	}
	return writv1.ReadConsistency_READ_CONSISTENCY_LINEARIZABLE
}

func (a *app) list(ctx context.Context, req *writv1.ListRequest, limit int) error {
	if limit < 1 {
		return lease.Invalid("--limit", fmt.Sprintf("is %d", limit), "use 1 or more")
	}
	all := &writv1.ListResponse{}
	for {
		req.PageSize = int32(min(limit-len(all.Leases), 1000))
		var page *writv1.ListResponse
		err := a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
			page, err = writv1.NewLeaseServiceClient(conn).List(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
		all.Leases = append(all.Leases, page.GetLeases()...)
		all.Revision, all.NextPageToken = page.GetRevision(), page.GetNextPageToken()
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" || len(all.Leases) >= limit {
			break
		}
	}
	if all.NextPageToken != "" {
		_, _ = fmt.Fprintf(a.stderr, "writ: there are more than %d; see --limit\n", limit)
	}
	return a.print(all, func(w io.Writer) {
		rows := [][]string{leaseHeading}
		for _, l := range all.GetLeases() {
			rows = append(rows, leaseRow(l))
		}
		columns(w, rows)
	})
}

func (a *app) watchCommand() *cobra.Command {
	var resume string
	cmd := &cobra.Command{
		Use:   "watch [PREFIX]",
		Short: "Follow what changes, until Ctrl-C",
		Long: `Follow what changes: the present state first, then every change once and in order, also when nodes fail. With -o json
every line is one event; its resumeToken, given to --resume, goes on right behind it, at any node.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.watch(cmd.Context(), strings.Join(args, ""), resume)
		},
	}
	cmd.Flags().StringVar(&resume, "resume", "", "go on behind this resume token")
	return cmd
}

func (a *app) watch(ctx context.Context, prefix, resume string) error {
	client, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	for ev, err := range client.Watch(ctx, lease.WatchOptions{Prefix: prefix, ResumeToken: resume}) {
		if err != nil {
			if interrupted(ctx, err) {
				return nil
			}
			return err
		}
		if err := a.printLine(watchProto(ev), watchLine(ev)); err != nil {
			return err
		}
	}
	return nil
}

var watchKinds = map[lease.EventKind]writv1.WatchResponse_Kind{
	lease.EventState: writv1.WatchResponse_KIND_STATE, lease.EventSynced: writv1.WatchResponse_KIND_SYNCED,
	lease.EventChanged: writv1.WatchResponse_KIND_CHANGED, lease.EventRemoved: writv1.WatchResponse_KIND_REMOVED,
	lease.EventResync: writv1.WatchResponse_KIND_RESYNC, lease.EventProgress: writv1.WatchResponse_KIND_PROGRESS,
}

func watchProto(ev lease.WatchEvent) *writv1.WatchResponse {
	out := &writv1.WatchResponse{Kind: watchKinds[ev.Kind], ResumeToken: ev.ResumeToken}
	if ev.Info.Resource != "" {
		out.Lease = lease.InfoToProto(&ev.Info)
	}
	return out
}

func watchLine(ev lease.WatchEvent) string {
	if ev.Info.Resource == "" {
		return fmt.Sprintf("%-8s  %s", ev.Kind, ev.ResumeToken)
	}
	l := lease.InfoToProto(&ev.Info)
	return strings.TrimRight(fmt.Sprintf("%-8s  %s  %s  %s  %s", ev.Kind, l.GetResource(), stateText(l), tokenText(l.GetToken(), l.GetTokenText()), holderText(l.GetHolder())), " ")
}

func (a *app) forceReleaseCommand() *cobra.Command {
	var token, reason string
	var now, yes bool
	cmd := &cobra.Command{
		Use:   "force-release NAME --reason REASON",
		Short: "Take a lease away from its holder",
		Long: `Take a lease away: its holder cannot renew it any more, and the resource is free when the lease has run out. It is
written to the audit log. --now frees it at once, which only guards that have proved that they refuse the holder allow.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &writv1.ForceReleaseRequest{Resource: args[0], Reason: reason, Now: now}
			if token != "" {
				t, err := parseToken(token)
				if err != nil {
					return err
				}
				req.Token = uint64(t)
			}
			if !yes {
				if err := a.confirm(args[0]); err != nil {
					return err
				}
			}
			var resp *writv1.ForceReleaseResponse
			err := a.each(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) (err error) {
				resp, err = writv1.NewLeaseServiceClient(conn).ForceRelease(ctx, req)
				return err
			})
			if err != nil {
				return err
			}
			return a.print(resp, func(w io.Writer) {
				l := resp.GetLease()
				_, _ = fmt.Fprintf(w, "%s cannot renew %s under token %s any more; it is free in %v\n",
					holderText(l.GetHolder()), l.GetResource(), l.GetTokenText(), l.GetRemaining().AsDuration().Round(10*time.Millisecond))
			})
		},
	}
	cmd.Flags().StringVar(&token, "token", "", "only if it is held under this token")
	cmd.Flags().StringVar(&reason, "reason", "", "why; it stands in the audit log")
	cmd.Flags().BoolVar(&now, "now", false, "free it at once")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	_ = cmd.MarkFlagRequired("reason") // the flag exists
	return cmd
}

// confirm lets a person type the name of what is about to be touched. Without a terminal, --yes has to be given.
func (a *app) confirm(name string) error {
	terminal := proctree.OpenTerminal()
	if terminal == nil {
		return lease.Invalid("--yes", "is not given and there is no terminal to ask at", "give it to go on without a question")
	}
	terminal.Close()
	_, _ = fmt.Fprintf(a.stderr, "This takes %s away from its holder. Type its name to go on: ", name)
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != name {
		return lease.Errorf(lease.ReasonDenied, "not confirmed; nothing was changed")
	}
	return nil
}
