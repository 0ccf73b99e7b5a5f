package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

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
		Long: `Acquire a lease and print the grant. It runs out after its TTL unless it is renewed ("writ lease renew", or --hold to keep
it until Ctrl-C, which releases it). The same --request-id gets the same grant again, renewed.

The holder is the principal of the certificate and the instance. The instance is cli-USER@HOST unless --instance or
WRIT_INSTANCE says otherwise, so that "writ lease release" from the same account releases the lease; with --hold the process
has one of its own.

Exit code 3: another holds it, also at the end of --wait; the message says who.`,
		Example: "  writ lease acquire billing/nightly --ttl 30s\n  writ lease acquire billing/nightly --wait 1m --hold",
		Args:    arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.acquire(cmd.Context(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.ttl, "ttl", lease.DefaultTTL, "how long the lease lasts without renewal")
	flags.DurationVar(&f.wait, "wait", 0, "how long to wait while another holds it")
	flags.Int32Var(&f.priority, "priority", 0, "higher waits in front of lower, -1000 to 1000")
	flags.StringVar(&f.metadata, "metadata", "", "shown to whoever looks at the lease")
	flags.StringVar(&f.requestID, "request-id", "", "makes the request idempotent (default: a random one)")
	flags.BoolVar(&f.writ, "writ", false, "print the signed writ, too")
	flags.BoolVar(&f.hold, "hold", false, "keep the lease until Ctrl-C, then release it")
	return cmd
}

func (a *app) acquire(ctx context.Context, name string, f acquireFlags) error {
	if f.wait < 0 {
		return lease.Invalid("--wait", fmt.Sprintf("is %v", f.wait), "use 0 or more")
	}
	if f.hold {
		outliveReaders()
	}
	a, end := a.unhindered()
	defer end()
	cfg, err := a.config()
	if err != nil {
		return err
	}
	if !f.hold {
		cfg.Instance = a.stableInstance()
	}
	client, err := a.dialWith(ctx, cfg)
	if err != nil {
		return err
	}
	// Without --hold it leaves the lease as it is, and waits until a request that was given up is cancelled.
	defer func() { _ = client.Close() }() // always nil
	if f.requestID == "" {
		f.requestID = rand.Text()
	}
	hold, err := a.grant(ctx, client, name, f)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted while acquiring %s", name)
		}
		return err
	}
	err = a.printHold(ctx, hold, f)
	switch {
	case !f.hold:
		return err
	case err != nil:
		return errors.Join(err, a.letGo(ctx, hold)) // nobody knows of it
	}
	return a.keep(ctx, hold)
}

// grant acquires. Without --wait it is bounded as any other request.
func (a *app) grant(ctx context.Context, client *lease.Client, name string, f acquireFlags) (*lease.Hold, error) {
	opts := lease.AcquireOptions{
		TTL: f.ttl, Priority: f.priority, MaxWait: f.wait, Metadata: []byte(f.metadata), RequestID: f.requestID,
	}
	if f.wait > 0 {
		return client.Acquire(ctx, name, opts)
	}
	limited, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return client.TryAcquire(limited, name, opts)
}

func (a *app) printHold(ctx context.Context, hold *lease.Hold, f acquireFlags) error {
	g := &writv1.Grant{
		Resource: string(hold.Resource()), Token: uint64(hold.Token()), TokenText: hold.Token().String(),
		Holder: lease.HolderToProto(hold.Holder()), Ttl: durationpb.New(hold.TTL()), Checkpoint: hold.CheckpointData(),
	}
	if at := hold.GrantedAt(); !at.IsZero() {
		g.GrantedAt = timestamppb.New(at)
	}
	if f.writ {
		var err error
		if g.Writ, err = hold.Writ(ctx); err != nil {
			return fmt.Errorf("%s is acquired under token %s, but its writ is not signed: %w", hold.Resource(), hold.Token(), err)
		}
	}
	return a.print(with{g, "requestId", f.requestID}, func(w io.Writer) {
		a.pairs(w,
			pair{"resource", text(g.GetResource())},
			pair{"token", text(bothTokens(g.GetToken(), g.GetTokenText()))},
			pair{"holder", text(holderText(g.GetHolder()))},
			pair{"ttl", text(durationText(g.GetTtl()))},
			pair{"request id", text(f.requestID)},
			pair{"checkpoint", text(bytesText(g.GetCheckpoint()))},
			pair{"writ", text(g.GetWrit())},
		)
	})
}

// keep holds the lease until somebody ends the program.
func (a *app) keep(ctx context.Context, hold *lease.Hold) error {
	a.say("holding %s until Ctrl-C", hold.Resource())
	select {
	case <-ctx.Done():
		return a.letGo(ctx, hold)
	case <-hold.Done():
		return hold.Err()
	}
}

// letGo releases the lease, also where ctx has ended.
func (a *app) letGo(ctx context.Context, hold *lease.Hold) error {
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(a.timeout, hold.TTL()))
	defer cancel()
	if err := hold.Release(release); err != nil && !errors.Is(err, lease.ErrReleased) {
		return err
	}
	return nil
}
