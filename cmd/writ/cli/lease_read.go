package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func (a *app) getCommand() *cobra.Command {
	var flags getFlags
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Look at one resource",
		Long: `Look at one resource, with the time left and the number of requests that wait, which the coordinator knows. If there is
none, it shows what the asked node has seen, and says so.`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.get(cmd.Context(), args[0], flags) },
	}
	cmd.Flags().BoolVar(&flags.local, "local", false, "show what the asked node has seen: perhaps behind, but without a quorum")
	cmd.Flags().BoolVar(&flags.checkpoint, "checkpoint", false, "show what a holder stored for the next one, too")
	return cmd
}

type getFlags struct {
	local      bool
	checkpoint bool
}

// lastShare of a request's time is kept for asking without a coordinator.
const lastShare = 4

func (a *app) get(ctx context.Context, name string, flags getFlags) error {
	read := func(a *app, req *writv1.GetRequest) (l *writv1.Lease, err error) {
		err = a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
			resp, err := writv1.NewLeaseServiceClient(conn).Get(ctx, req)
			l = resp.GetLease()
			return err
		})
		return l, err
	}
	seen := &writv1.GetRequest{
		Resource: name, Consistency: writv1.ReadConsistency_READ_CONSISTENCY_LOCAL, WithCheckpoint: flags.checkpoint,
	}
	if flags.local {
		l, err := read(a, seen)
		if err != nil {
			return err
		}
		return a.printLease(l)
	}
	first, last := *a, *a
	last.timeout = a.timeout / lastShare
	first.timeout -= last.timeout
	l, err := read(&first, &writv1.GetRequest{Resource: name, WithDeadline: true, WithCheckpoint: flags.checkpoint})
	if lease.ExitCode(err) == lease.ExitUnavailable && ctx.Err() == nil {
		var other error
		if l, other = read(&last, seen); other != nil {
			return err
		}
		a.say("no coordinator answers, so this is what one node has seen, perhaps behind: %v", oneLine(err.Error()))
		err = nil
	}
	if err != nil {
		return err
	}
	return a.printLease(l)
}

func (a *app) printLease(l *writv1.Lease) error {
	waiters := ""
	if l.GetWaiters() > 0 {
		waiters = fmt.Sprint(l.GetWaiters())
	}
	return a.print(l, func(w io.Writer) {
		a.pairs(w,
			pair{"resource", text(l.GetResource())},
			pair{"state", stateCell(l)},
			pair{"token", text(bothTokens(l.GetToken(), l.GetTokenText()))},
			pair{"fencing", text(fencingText(l))},
			pair{"waits for", cell{oneLine(strings.Join(l.GetAwaits(), ", ")), weak}},
			pair{"proofs", text(proofsText(l))},
			pair{"holder", text(holderText(l.GetHolder()))},
			pair{"ttl", text(durationText(l.GetTtl()))},
			pair{"remaining", text(spanText(l.GetRemaining()))},
			pair{"waiting", text(waiters)},
			pair{"granted", text(a.ago(l.GetGrantedAt()))},
			pair{"metadata", text(bytesText(l.GetMetadata()))},
			pair{"checkpoint", text(bytesText(l.GetCheckpoint()))},
		)
	})
}

func (a *app) listCommand() *cobra.Command {
	var held, follow, local bool
	var limit int
	cmd := &cobra.Command{
		Use:   "list [PREFIX]",
		Short: "List resources",
		Args:  arguments("[PREFIX]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix := strings.Join(args, "")
			switch {
			case limit < 1:
				return lease.Invalid("--limit", fmt.Sprintf("is %d", limit), "use 1 or more")
			case follow && local:
				return lease.Invalid("--local", "excludes --watch", "choose one")
			case follow && cmd.Flags().Changed("limit"):
				return lease.Invalid("--limit", "excludes --watch", "choose one")
			case follow:
				return a.watch(cmd.Context(), watchFlags{prefix: prefix, held: held})
			}
			req := &writv1.ListRequest{Prefix: prefix, HeldOnly: held}
			if local {
				req.Consistency = writv1.ReadConsistency_READ_CONSISTENCY_LOCAL
			}
			return a.list(cmd.Context(), req, limit)
		},
	}
	cmd.Flags().BoolVar(&held, "held", false, "only what is held")
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "go on with every change, as \"writ lease watch\"")
	cmd.Flags().BoolVar(&local, "local", false, "show what the asked node has seen: perhaps behind, but without a quorum")
	cmd.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	return cmd
}

const mostPerPage = 1000

func (a *app) list(ctx context.Context, req *writv1.ListRequest, limit int) error {
	all := &writv1.ListResponse{}
	for {
		req.PageSize = int32(min(limit-len(all.GetLeases()), mostPerPage))
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
		req.PageToken = page.GetNextPageToken()
		if req.GetPageToken() == "" || len(all.GetLeases()) >= limit {
			break
		}
	}
	if all.GetNextPageToken() != "" {
		a.say("there are more than %d; see --limit", limit)
	}
	return a.print(all, func(w io.Writer) {
		var rows [][]cell
		for _, l := range all.GetLeases() {
			rows = append(rows, a.leaseRow(l))
		}
		a.columns(w, leaseHeading, rows)
	})
}
