package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func (a *app) memberCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "member", Short: "List, add, remove and replace nodes"})
	cmd.AddCommand(a.memberListCommand(), a.memberAddCommand(), a.memberRemoveCommand(), a.memberReplaceCommand())
	return cmd
}

func (a *app) memberListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the nodes", Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := a.status(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(&writv1.StatusResponse{Nodes: st.GetNodes()}, func(w io.Writer) { a.printNodes(w, st) })
		},
	}
}

func (a *app) memberAddCommand() *cobra.Command {
	return &cobra.Command{
		Use: "add NAME PEER-URL", Short: "Admit a node; start it afterwards with bootstrap.join",
		Args: arguments("NAME", "PEER-URL"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.memberAdd(cmd.Context(), args[0], args[1]) },
	}
}

func (a *app) memberRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "Take a node out",
		Long: "Take a node out for good. It is refused where too few other nodes are reachable to go on without it.",
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.checkRemoval(cmd.Context(), args[0], force); err != nil {
				return err
			}
			if err := a.memberRemove(cmd.Context(), args[0]); err != nil {
				return err
			}
			return a.print(&writv1.MemberRemoveResponse{}, func(w io.Writer) { _, _ = fmt.Fprintln(w, "removed", args[0]) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also where the nodes that are left seem too few")
	return cmd
}

func (a *app) memberReplaceCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "replace NAME PEER-URL", Short: "Take a node out whose data is lost, and admit it anew",
		Long: `Take a node out whose data is lost, and admit it anew under the same name. Stop it first, and start it afterwards with an
empty directory and bootstrap.join. If only the first half succeeds, "writ quorum member add" does the second, and so does
the same command again.`,
		Args: arguments("NAME", "PEER-URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.memberReplace(cmd.Context(), args[0], args[1], force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also where it still runs, or where the nodes that are left seem too few")
	return cmd
}

func (a *app) memberReplace(ctx context.Context, name, url string, force bool) error {
	st, err := a.status(ctx)
	if err != nil {
		return err
	}
	switch node := nodeOf(st, name); {
	case node == nil:
		a.say("%s is no member; admitting it", name)
		return a.memberAdd(ctx, name, url)
	case node.GetReachable() && !force:
		return lease.Invalid("NAME", name+" still runs", "stop it first, or give --force")
	}
	if err := a.checkRemoval(ctx, name, force); err != nil {
		return err
	}
	a.say("removing %s", name)
	if err := a.memberRemove(ctx, name); err != nil && !errors.Is(err, lease.ErrNotFound) {
		return err
	}
	a.say("removed; admitting %s at %s", name, url)
	if err := a.memberAdd(ctx, name, url); err != nil {
		return fmt.Errorf("%s is removed but not admitted; go on with \"writ quorum member add %s %s\": %w", name, name, url, err)
	}
	return nil
}

func nodeOf(st *writv1.StatusResponse, name string) *writv1.NodeStatus {
	for _, n := range st.GetNodes() {
		if n.GetName() == name {
			return n
		}
	}
	return nil
}

// checkRemoval refuses to take away a node that the others cannot spare.
func (a *app) checkRemoval(ctx context.Context, name string, force bool) error {
	if force {
		return nil
	}
	st, err := a.status(ctx)
	if err != nil {
		return err
	}
	var voters, reachable int
	for _, n := range st.GetNodes() {
		if n.GetName() != name && !n.GetLearner() {
			voters++
			if n.GetReachable() {
				reachable++
			}
		}
	}
	switch {
	case nodeOf(st, name) == nil:
		return lease.Errorf(lease.ReasonNotFound, "%s is no member", name)
	case voters == 0:
		return lease.Invalid("NAME", name+" is the only node", "stop it instead")
	case reachable < voters/2+1:
		return lease.Invalid("NAME", fmt.Sprintf("%s cannot be spared: %s sees %d of %d other nodes, and %d must be left", name, st.GetNode(), reachable, voters, voters/2+1),
			"bring the others back first, or give --force")
	}
	return nil
}

func (a *app) memberAdd(ctx context.Context, name, url string) error {
	var resp *writv1.MemberAddResponse
	err := a.once(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = writv1.NewClusterServiceClient(conn).MemberAdd(ctx, &writv1.MemberAddRequest{Name: name, PeerUrl: url})
		return err
	})
	if err != nil {
		return err
	}
	return a.print(resp, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "admitted %s as member %s. Start it with an empty data_dir and:\n\nbootstrap:\n  join: true\n  members:\n", name, resp.GetMemberId())
		for _, member := range slices.Sorted(maps.Keys(resp.GetMembers())) {
			_, _ = fmt.Fprintf(w, "    %s: %s\n", member, resp.GetMembers()[member])
		}
	})
}

func (a *app) memberRemove(ctx context.Context, name string) error {
	return a.once(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := writv1.NewClusterServiceClient(conn).MemberRemove(ctx, &writv1.MemberRemoveRequest{Name: name})
		return err
	})
}
