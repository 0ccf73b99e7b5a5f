package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func (a *app) quorumCommand(more []*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: "quorum", Short: "Operate the quorum"}
	cmd.AddCommand(a.statusCommand(), a.memberCommand(), a.snapshotCommand(), a.moveCommand())
	cmd.AddCommand(more...)
	return cmd
}

func (a *app) status(ctx context.Context) (st *writv1.StatusResponse, err error) {
	err = a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		st, err = writv1.NewClusterServiceClient(conn).Status(ctx, &writv1.StatusRequest{})
		return err
	})
	return st, err
}

func (a *app) statusCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what one node knows of the quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for {
				st, err := a.status(cmd.Context())
				if err != nil {
					return err
				}
				if err := a.print(st, func(w io.Writer) { printStatus(w, st) }); err != nil || !follow {
					return err
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(time.Second):
					_, _ = fmt.Fprintln(a.stdout)
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "again every second, until Ctrl-C")
	return cmd
}

func printStatus(w io.Writer, st *writv1.StatusResponse) {
	ready := "yes"
	if !st.GetReady() {
		ready = "no: " + st.GetNotReadyReason()
	}
	recovering := ""
	if d := st.GetRecoveringFor().AsDuration(); d > 0 {
		recovering = d.Round(time.Second).String()
	}
	pairs(w,
		[2]string{"cluster", st.GetCluster()},
		[2]string{"asked", st.GetNode()},
		[2]string{"ready", ready},
		[2]string{"coordinator", st.GetCoordinator()},
		[2]string{"epoch", fmt.Sprint(st.GetEpoch())},
		[2]string{"grants in", recovering},
		[2]string{"storage", fmt.Sprintf("%.1f of %.0f MiB", mib(st.GetDbBytes()), mib(st.GetQuotaBytes()))},
	)
	_, _ = fmt.Fprintln(w)
	printNodes(w, st)
}

func printNodes(w io.Writer, st *writv1.StatusResponse) {
	rows := [][]string{{"NODE", "REGION", "ROLE", "REACHABLE", "API", "PEER", "VERSION"}}
	for _, n := range st.GetNodes() {
		role, reachable := "member", "no"
		switch {
		case n.GetCoordinator():
			role = "coordinator"
		case n.GetLearner():
			role = "learner"
		}
		if n.GetReachable() {
			reachable = "yes"
		}
		rows = append(rows, []string{n.GetName(), n.GetRegion(), role, reachable, n.GetApiAddress(), n.GetPeerUrl(), n.GetVersion()})
	}
	columns(w, rows)
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func (a *app) memberCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "member", Short: "List, add, remove and replace nodes"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List the nodes", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				st, err := a.status(cmd.Context())
				if err != nil {
					return err
				}
				return a.print(st, func(w io.Writer) { printNodes(w, st) })
			},
		},
		&cobra.Command{
			Use: "add NAME PEER-URL", Short: "Admit a node; start it afterwards with bootstrap.join", Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error { return a.memberAdd(cmd.Context(), args[0], args[1]) },
		},
		&cobra.Command{
			Use: "remove NAME", Short: "Take a node out", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := a.memberRemove(cmd.Context(), args[0]); err != nil {
					return err
				}
				return a.print(&writv1.MemberRemoveResponse{}, func(w io.Writer) { _, _ = fmt.Fprintln(w, "removed", args[0]) })
			},
		},
		&cobra.Command{
			Use: "replace NAME PEER-URL", Short: "Take a node out whose data is lost, and admit it anew", Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := a.memberRemove(cmd.Context(), args[0]); err != nil && !errors.Is(err, lease.ErrNotFound) {
					return err
				}
				_, _ = fmt.Fprintf(a.stderr, "writ: %s is removed; admitting it anew\n", args[0])
				return a.memberAdd(cmd.Context(), args[0], args[1])
			},
		},
	)
	return cmd
}

func (a *app) memberAdd(ctx context.Context, name, url string) error {
	var resp *writv1.MemberAddResponse
	err := a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = writv1.NewClusterServiceClient(conn).MemberAdd(ctx, &writv1.MemberAddRequest{Name: name, PeerUrl: url})
		return err
	})
	if err != nil {
		return err
	}
	return a.print(resp, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "admitted %s as member %s. Start it with an empty data_dir and:\n\nbootstrap:\n  join: true\n  members:\n", name, resp.GetMemberId())
		for _, member := range sortedKeys(resp.GetMembers()) {
			_, _ = fmt.Fprintf(w, "    %s: %s\n", member, resp.GetMembers()[member])
		}
	})
}

func (a *app) memberRemove(ctx context.Context, name string) error {
	return a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := writv1.NewClusterServiceClient(conn).MemberRemove(ctx, &writv1.MemberRemoveRequest{Name: name})
		return err
	})
}

func (a *app) moveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "move-coordinator [NODE]", Short: "Hand the coordinator over", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &writv1.MoveCoordinatorRequest{}
			if len(args) > 0 {
				req.To = args[0]
			}
			var resp *writv1.MoveCoordinatorResponse
			err := a.each(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) (err error) {
				resp, err = writv1.NewClusterServiceClient(conn).MoveCoordinator(ctx, req)
				return err
			})
			if err != nil {
				return err
			}
			return a.print(resp, func(w io.Writer) { _, _ = fmt.Fprintln(w, "coordinator:", resp.GetCoordinator()) })
		},
	}
}

func (a *app) snapshotCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "snapshot FILE", Short: "Save a backup of the quorum's state", Args: cobra.ExactArgs(1),
		Long: `Save a backup of the state as the asked node has it. The file appears under its name only when it is whole and on disk.
"writ quorum restore" rebuilds a quorum from it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := os.Stat(args[0]); err == nil && !force {
				return lease.Invalid("FILE", args[0]+" exists", "name another one, or give --force")
			}
			size, sum, err := a.snapshot(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			data := map[string]any{"file": args[0], "bytes": size, "sha256": sum}
			return a.print(data, func(w io.Writer) { _, _ = fmt.Fprintf(w, "saved %s: %d bytes, sha256 %s\n", args[0], size, sum) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace the file if it exists")
	return cmd
}

// snapshotTimeout bounds a backup: it takes as long as its size asks for, not as long as a request.
const snapshotTimeout = time.Hour

func (a *app) snapshot(ctx context.Context, path string) (size int64, sum string, err error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*")
	if err != nil {
		return 0, "", lease.Invalid("FILE", "cannot be written: "+err.Error(), "name a file in a writable directory")
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name())
	}()
	hash := sha256.New()
	wide := *a
	wide.timeout = snapshotTimeout
	err = wide.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := file.Truncate(0); err != nil {
			return err
		}
		hash.Reset()
		size, err = receive(ctx, conn, io.MultiWriter(file, hash))
		return err
	})
	if err != nil {
		return 0, "", err
	}
	if err := errors.Join(file.Sync(), file.Close(), os.Rename(file.Name(), path)); err != nil {
		return 0, "", err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return 0, "", err
	}
	return size, hex.EncodeToString(hash.Sum(nil)), errors.Join(dir.Sync(), dir.Close())
}

func receive(ctx context.Context, conn *grpc.ClientConn, w io.Writer) (size int64, err error) {
	stream, err := writv1.NewClusterServiceClient(conn).Snapshot(ctx, &writv1.SnapshotRequest{})
	if err != nil {
		return 0, err
	}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
		n, err := w.Write(chunk.GetChunk())
		size += int64(n)
		if err != nil {
			return 0, err
		}
	}
}
