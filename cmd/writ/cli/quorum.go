package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

func (a *app) quorumCommand(more []*cobra.Command) *cobra.Command {
	cmd := group(&cobra.Command{Use: "quorum", Short: "Operate the quorum"})
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

// statusEvery is how often --watch asks again.
const statusEvery = 2 * time.Second

func (a *app) statusCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what one node knows of the quorum",
		Long: `Show what the first of --endpoints that answers knows of the quorum, also where there is none. "reachable" is what that
node sees: ask others too before you trust it.`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if follow {
				return a.watchStatus(cmd.Context(), statusEvery)
			}
			st, err := a.status(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(st, func(w io.Writer) { a.printStatus(w, st) })
		},
	}
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "again every 2 s, until Ctrl-C")
	return cmd
}

// watchStatus goes on where nobody answers: that is when somebody watches.
func (a *app) watchStatus(ctx context.Context, every time.Duration) error {
	again := time.NewTicker(every)
	defer again.Stop()
	for {
		st, err := a.status(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			a.say("%s", oneLine(err.Error()))
		default:
			if err := a.printNext(st, a.statusPage(st)); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

// statusPage takes the place of the page before on a terminal, and follows it elsewhere.
func (a *app) statusPage(st *writv1.StatusResponse) string {
	const clear = "\x1b[H\x1b[2J"
	var page strings.Builder
	if a.colours() {
		page.WriteString(clear)
	}
	a.printStatus(&page, st)
	return page.String()
}

func (a *app) printStatus(w io.Writer, st *writv1.StatusResponse) {
	ready := cell{"yes", good}
	if !st.GetReady() {
		ready = cell{"no: " + oneLine(st.GetNotReadyReason()), bad}
	}
	coordinator := text(st.GetCoordinator())
	if coordinator.text == "" {
		coordinator = cell{"none known", bad}
	}
	recovering, leases := "", ""
	if d := st.GetRecoveringFor().AsDuration(); d > 0 {
		recovering = span(d)
	}
	if st.GetCoordinator() == st.GetNode() {
		leases = fmt.Sprint(st.GetLeases())
	}
	alarms := cell{}
	if n := len(st.GetAuditAlarms()); n > 0 {
		alarms = cell{fmt.Sprintf("CONTRADICTED by %d signed heads: see docs/AUDIT.md", n), bad}
	}
	a.pairs(w,
		pair{"cluster", text(st.GetCluster())},
		pair{"asked", text(st.GetNode())},
		pair{"ready", ready},
		pair{"coordinator", coordinator},
		pair{"epoch", text(fmt.Sprint(st.GetEpoch()))},
		pair{"grants in", cell{recovering, weak}},
		pair{"held leases", text(leases)},
		pair{"storage", storageCell(st)},
		pair{"audit log", alarms},
	)
	for _, alarm := range st.GetAuditAlarms() {
		_, _ = fmt.Fprintln(w, "audit log:", oneLine(alarm))
	}
	_, _ = fmt.Fprintln(w)
	a.printNodes(w, st)
}

// storageCell warns before the store is full.
func storageCell(st *writv1.StatusResponse) cell {
	const warnPercent, percent = 80, 100
	size, quota := st.GetDbBytes(), st.GetQuotaBytes()
	c := text(mib(size))
	if quota > 0 {
		c.text += " of " + mib(quota)
		if size*percent >= quota*warnPercent {
			c.style = bad
		}
	}
	return c
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

func (a *app) printNodes(w io.Writer, st *writv1.StatusResponse) {
	var rows [][]cell
	for _, n := range st.GetNodes() {
		role, reachable := text("member"), cell{"no", bad}
		switch {
		case n.GetCoordinator():
			role = cell{"coordinator", good}
		case n.GetLearner():
			role = cell{"learner", weak}
		}
		if n.GetReachable() {
			reachable = text("yes")
		}
		rows = append(rows, []cell{
			text(n.GetName()), text(n.GetRegion()), role, reachable, text(n.GetApiAddress()), text(n.GetPeerUrl()), text(n.GetVersion()),
		})
	}
	a.columns(w, []string{"NODE", "REGION", "ROLE", "REACHABLE", "API", "PEER", "VERSION"}, rows)
}

func (a *app) moveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "move-coordinator [NODE]", Short: "Hand the coordinator over, to a node or to any other",
		Args: arguments("[NODE]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &writv1.MoveCoordinatorRequest{To: strings.Join(args, "")}
			var resp *writv1.MoveCoordinatorResponse
			err := a.once(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) (err error) {
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
