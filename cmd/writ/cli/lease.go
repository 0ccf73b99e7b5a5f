package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

func (a *app) leaseCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "lease", Short: "Acquire, look at and release leases"}
	cmd.AddCommand(
		a.acquireCommand(), a.getCommand(), a.listCommand(), a.watchCommand(), a.renewCommand(), a.releaseCommand(),
		a.forceReleaseCommand(), a.checkpointCommand(),
	)
	return cmd
}

type acquireFlags struct {
	ttl, wait time.Duration
	priority  int32
	metadata  string
	requestID string
	writ      bool
	hold      bool
}

func (a *app) acquireCommand() *cobra.Command {
	var f acquireFlags
	cmd := &cobra.Command{
		Use:   "acquire NAME",
		Short: "Acquire a lease",
		Long: `Acquire a lease and print the grant. It runs out after its TTL unless it is renewed ("writ lease renew", or
--hold to keep it until Ctrl-C). The same --request-id gets the same grant again.

Exit code 3: it is held by another, also after --wait.`,
		Example: "  writ lease acquire billing/nightly --ttl 30s\n  writ lease acquire billing/nightly --wait 1m --hold",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.hold {
				return a.acquireAndHold(cmd.Context(), args[0], f)
			}
			return a.acquire(cmd.Context(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.ttl, "ttl", lease.DefaultTTL, "how long the lease lasts without renewal")
	flags.DurationVar(&f.wait, "wait", 0, "how long to wait while another holds it")
	flags.Int32Var(&f.priority, "priority", 0, "higher waits in front of lower")
	flags.StringVar(&f.metadata, "metadata", "", "shown to whoever looks at the lease")
	flags.StringVar(&f.requestID, "request-id", "", "makes the request idempotent; default: a random one")
	flags.BoolVar(&f.writ, "writ", false, "print the signed writ, too")
	flags.BoolVar(&f.hold, "hold", false, "keep the lease until Ctrl-C, then release it")
	return cmd
}

func (a *app) acquire(ctx context.Context, name string, f acquireFlags) error {
	if f.wait < 0 {
		return lease.Invalid("--wait", fmt.Sprintf("is %v", f.wait), "use 0 or more")
	}
	req := &writv1.AcquireRequest{
		Resource: name, Ttl: durationpb.New(f.ttl), RequestId: f.requestID, Priority: f.priority, Region: a.regionName(),
		Instance: a.cliInstance(), Metadata: []byte(f.metadata), WantWrit: f.writ,
	}
	if req.RequestId == "" {
		req.RequestId = rand.Text()
	}
	giveUp := time.Now().Add(f.wait)
	for {
		if left := time.Until(giveUp); left > 0 {
			req.Wait = durationpb.New(left)
		} else {
			req.Wait = nil
		}
		var resp *writv1.AcquireResponse
		err := a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
			resp, err = writv1.NewLeaseServiceClient(conn).Acquire(ctx, req)
			return err
		})
		if ctx.Err() != nil {
			a.cancel(req)
			return lease.Errorf(lease.ReasonHeld, "interrupted while waiting for %q", name)
		}
		if err != nil {
			return err
		}
		if g := resp.GetGrant(); g != nil {
			return a.print(g, func(w io.Writer) { printGrant(w, g, req.GetRequestId()) })
		}
		if !time.Now().Before(giveUp) {
			a.cancel(req)
			held := resp.GetWaiting()
			return &lease.Error{
				Reason: lease.ReasonHeld, Resource: lease.Resource(name), Token: fence.Token(held.GetHeldToken()),
				Message: fmt.Sprintf("%q is still held by %s after %v", name, holderText(held.GetHeldBy()), f.wait),
			}
		}
	}
}

// regionName is what the environment says where the flag is silent.
func (a *app) regionName() string {
	if cfg, err := a.config(); err == nil {
		return cfg.Region
	}
	return a.region
}

// cancel gives the place in the queue up, as well as that can be told.
func (a *app) cancel(req *writv1.AcquireRequest) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := writv1.NewLeaseServiceClient(conn).CancelAcquire(ctx, &writv1.CancelAcquireRequest{
			Resource: req.GetResource(), RequestId: req.GetRequestId(), Instance: req.GetInstance(),
		})
		return err
	})
}

func printGrant(w io.Writer, g *writv1.Grant, requestID string) {
	pairs(w,
		[2]string{"resource", g.GetResource()},
		[2]string{"token", fmt.Sprintf("%d (%s)", g.GetToken(), g.GetTokenText())},
		[2]string{"holder", holderText(g.GetHolder())},
		[2]string{"ttl", g.GetTtl().AsDuration().String()},
		[2]string{"request id", requestID},
		[2]string{"checkpoint", string(g.GetCheckpoint())},
		[2]string{"writ", g.GetWrit()},
	)
}

func (a *app) acquireAndHold(ctx context.Context, name string, f acquireFlags) error {
	client, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	opts := lease.AcquireOptions{
		TTL: f.ttl, Priority: f.priority, MaxWait: f.wait, Metadata: []byte(f.metadata), RequestID: f.requestID, WantWrit: f.writ,
	}
	acquire := client.Acquire
	if f.wait == 0 {
		acquire = client.TryAcquire
	}
	hold, err := acquire(ctx, name, opts)
	if err != nil {
		return err
	}
	token := hold.Token()
	g := &writv1.Grant{
		Resource: name, Token: uint64(token), TokenText: token.String(), Holder: lease.HolderToProto(hold.Holder()),
		Ttl: durationpb.New(hold.TTL()), Checkpoint: hold.CheckpointData(),
	}
	if f.writ {
		if g.Writ, err = hold.Writ(ctx); err != nil {
			return err
		}
	}
	if err := a.print(g, func(w io.Writer) { printGrant(w, g, "") }); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(a.stderr, "writ: holding it until Ctrl-C")
	select {
	case <-ctx.Done():
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(a.timeout, hold.TTL()))
		defer cancel()
		return hold.Release(release)
	case <-hold.Done():
		return hold.Err()
	}
}

func (a *app) getCommand() *cobra.Command {
	var local bool
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Look at one resource",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &writv1.GetRequest{Resource: args[0], WithDeadline: !local}
			if local {
				req.Consistency = writv1.ReadConsistency_READ_CONSISTENCY_LOCAL
			}
			var resp *writv1.GetResponse
			get := func(ctx context.Context, conn *grpc.ClientConn) (err error) {
				resp, err = writv1.NewLeaseServiceClient(conn).Get(ctx, req)
				return err
			}
			if err := a.each(cmd.Context(), get); err != nil {
				if lease.ExitCode(err) == lease.ExitUnavailable && !local {
					return fmt.Errorf("%w (--local shows what one node has seen)", err)
				}
				return err
			}
			return a.print(resp.GetLease(), func(w io.Writer) { printLease(w, resp.GetLease()) })
		},
	}
	cmd.Flags().BoolVar(&local, "local", false, "show what the asked node has seen, also without a quorum")
	return cmd
}

func printLease(w io.Writer, l *writv1.Lease) {
	token, remaining, waiters := "", "", ""
	if l.GetToken() != 0 {
		token = fmt.Sprintf("%d (%s)", l.GetToken(), l.GetTokenText())
	}
	if l.GetRemaining() != nil {
		remaining = l.GetRemaining().AsDuration().Round(10 * time.Millisecond).String()
	}
	if l.GetWaiters() > 0 {
		waiters = fmt.Sprint(l.GetWaiters())
	}
	pairs(w,
		[2]string{"resource", l.GetResource()},
		[2]string{"state", stateText(l)},
		[2]string{"token", token},
		[2]string{"holder", holderText(l.GetHolder())},
		[2]string{"ttl", durationText(l.GetTtl())},
		[2]string{"remaining", remaining},
		[2]string{"waiting", waiters},
		[2]string{"granted", age(l)},
		[2]string{"metadata", string(l.GetMetadata())},
	)
}

func durationText(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return d.AsDuration().String()
}

func (a *app) renewCommand() *cobra.Command {
	var token string
	cmd := &cobra.Command{
		Use:   "renew NAME --token TOKEN",
		Short: "Renew a lease once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseToken(token)
			if err != nil {
				return err
			}
			var resp *writv1.RenewResponse
			err = a.each(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) (err error) {
				resp, err = writv1.NewLeaseServiceClient(conn).Renew(ctx, &writv1.RenewRequest{
					Leases: []*writv1.LeaseRef{{Resource: args[0], Token: uint64(t)}}, Instance: a.cliInstance(),
				})
				return err
			})
			if err != nil {
				return err
			}
			if failures := resp.GetFailures(); len(failures) > 0 {
				return lease.Errorf(lease.Reason(failures[0].GetReason()), "%s", failures[0].GetMessage())
			}
			return a.print(resp, func(w io.Writer) { _, _ = fmt.Fprintln(w, "renewed", args[0]) })
		},
	}
	tokenFlag(cmd, &token)
	return cmd
}

func tokenFlag(cmd *cobra.Command, token *string) {
	cmd.Flags().StringVar(token, "token", "", "the grant's token, decimal or epoch.sequence")
	_ = cmd.MarkFlagRequired("token") // the flag exists
}

func parseToken(s string) (fence.Token, error) {
	t, err := fence.ParseToken(s)
	if err != nil {
		return 0, lease.Invalid("--token", fmt.Sprintf("%q is not a token", s), "use the token of the grant, decimal or epoch.sequence")
	}
	return t, nil
}

func (a *app) releaseCommand() *cobra.Command {
	var token string
	cmd := &cobra.Command{
		Use:   "release NAME --token TOKEN",
		Short: "Release a lease",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseToken(token)
			if err != nil {
				return err
			}
			err = a.each(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := writv1.NewLeaseServiceClient(conn).Release(ctx, &writv1.ReleaseRequest{Resource: args[0], Token: uint64(t), Instance: a.cliInstance()})
				return err
			})
			if err != nil {
				return err
			}
			return a.print(&writv1.ReleaseResponse{}, func(w io.Writer) { _, _ = fmt.Fprintln(w, "released", args[0]) })
		},
	}
	tokenFlag(cmd, &token)
	return cmd
}

func (a *app) checkpointCommand() *cobra.Command {
	var token, data, file string
	cmd := &cobra.Command{
		Use:   "checkpoint NAME --token TOKEN (--data TEXT | --file FILE)",
		Short: "Store state that the next holder receives",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseToken(token)
			if err != nil {
				return err
			}
			content := []byte(data)
			if file != "" {
				if content, err = os.ReadFile(file); err != nil {
					return lease.Invalid("--file", "cannot be read: "+err.Error(), "name a readable file")
				}
			}
			err = a.each(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := writv1.NewLeaseServiceClient(conn).Checkpoint(ctx, &writv1.CheckpointRequest{
					Resource: args[0], Token: uint64(t), Data: content, Instance: a.cliInstance(),
				})
				return err
			})
			if err != nil {
				return err
			}
			return a.print(&writv1.CheckpointResponse{}, func(w io.Writer) { _, _ = fmt.Fprintf(w, "stored %d bytes for %s\n", len(content), args[0]) })
		},
	}
	tokenFlag(cmd, &token)
	cmd.Flags().StringVar(&data, "data", "", "the state itself")
	cmd.Flags().StringVar(&file, "file", "", "a `file` that holds it")
	cmd.MarkFlagsMutuallyExclusive("data", "file")
	cmd.MarkFlagsOneRequired("data", "file")
	return cmd
}
