package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

const ownToken = "the grant's `token`, decimal or epoch.sequence"

func (a *app) renewCommand() *cobra.Command {
	var token string
	cmd := &cobra.Command{
		Use:   "renew NAME --token TOKEN",
		Short: "Renew a lease once",
		Args:  arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseToken(token)
			if err != nil {
				return err
			}
			return a.renew(cmd.Context(), args[0], t)
		},
	}
	tokenFlag(cmd, &token, ownToken)
	return cmd
}

func (a *app) renew(ctx context.Context, name string, token fence.Token) error {
	req := &writv1.RenewRequest{
		Leases: []*writv1.LeaseRef{{Resource: name, Token: uint64(token)}}, Instance: a.stableInstance(),
	}
	var resp *writv1.RenewResponse
	err := a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = writv1.NewLeaseServiceClient(conn).Renew(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	for _, f := range resp.GetFailures() {
		e := lease.Errorf(lease.Reason(f.GetReason()), "%s", f.GetMessage())
		e.Resource, e.Token = lease.Resource(name), token
		return e
	}
	return a.print(resp, func(w io.Writer) { _, _ = fmt.Fprintln(w, "renewed", name) })
}

func (a *app) releaseCommand() *cobra.Command {
	var token string
	cmd := &cobra.Command{
		Use:   "release NAME --token TOKEN",
		Short: "Release a lease",
		Args:  arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseToken(token)
			if err != nil {
				return err
			}
			return a.release(cmd.Context(), args[0], t)
		},
	}
	tokenFlag(cmd, &token, ownToken)
	return cmd
}

func (a *app) release(ctx context.Context, name string, token fence.Token) error {
	req := &writv1.ReleaseRequest{Resource: name, Token: uint64(token), Instance: a.stableInstance()}
	unanswered := false
	err := a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := writv1.NewLeaseServiceClient(conn).Release(ctx, req)
		switch reason := lease.ReasonOf(err); {
		case err == nil:
		case reason == lease.ReasonUnknownOutcome, reason == "":
			unanswered = true
		case reason == lease.ReasonReleased && unanswered:
			return nil // by the attempt without an answer
		}
		return err
	})
	if err != nil {
		return err
	}
	return a.print(&writv1.ReleaseResponse{}, func(w io.Writer) { _, _ = fmt.Fprintln(w, "released", name) })
}

func (a *app) checkpointCommand() *cobra.Command {
	var token, data, file string
	cmd := &cobra.Command{
		Use:   "checkpoint NAME --token TOKEN (--data TEXT | --file FILE)",
		Short: "Store state that the next holder receives",
		Long: `Store up to 64 KiB that only the present holder may write, and that the next one receives with its grant. Empty data
removes it. Below "writ run", --token is "$WRIT_TOKEN".`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseToken(token)
			if err != nil {
				return err
			}
			content := []byte(data)
			switch fromFile := cmd.Flags().Changed("file"); {
			case fromFile == cmd.Flags().Changed("data"):
				return lease.Invalid("--data", "or --file is to be given", "give one of them")
			case fromFile:
				if content, err = os.ReadFile(file); err != nil {
					return lease.Invalid("--file", "cannot be read: "+err.Error(), "name a readable file")
				}
			}
			return a.checkpoint(cmd.Context(), args[0], t, content)
		},
	}
	tokenFlag(cmd, &token, ownToken)
	cmd.Flags().StringVar(&data, "data", "", "the state itself")
	cmd.Flags().StringVar(&file, "file", "", "a `file` that holds it")
	return cmd
}

func (a *app) checkpoint(ctx context.Context, name string, token fence.Token, content []byte) error {
	req := &writv1.CheckpointRequest{Resource: name, Token: uint64(token), Data: content, Instance: a.stableInstance()}
	err := a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := writv1.NewLeaseServiceClient(conn).Checkpoint(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	return a.print(&writv1.CheckpointResponse{}, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "stored %d bytes for %s\n", len(content), name)
	})
}
