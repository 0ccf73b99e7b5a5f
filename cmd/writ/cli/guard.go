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
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

func (a *app) guardCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "guard",
		Short: "Look after guards, and say what is guarded",
		Long: `Look after guards: what stands in front of storage and refuses writers whose tokens are old. What is guarded is said by
rules, a prefix each; of those that match a resource the one with the longest prefix applies.`,
	})
	cmd.AddCommand(a.guardListCommand(), a.guardGetCommand(), a.guardVerifyCommand(), a.guardRemoveCommand(), a.guardAttestCommand(), a.protectCommand(), a.unprotectCommand(), a.rulesCommand())
	return cmd
}

func (a *app) guardListCommand() *cobra.Command {
	var resource string
	var follow, floors bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the guards",
		Long: `List the guards, as the coordinator knows them. LEASE is how long a guard may go on without contact, LAG how many raises it
has not acknowledged and since when the oldest has been waiting, FLOOR what it acknowledged last to the present coordinator. With
--floors every guard is asked for all the floors that it keeps, as by writ guard get.

Alarms are tokens from the quorum that were below a guard's floor: somebody claimed a token that was never granted, or the
quorum has gone back.`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := &writv1.ListGuardsRequest{Resource: resource}
			switch {
			case follow && floors:
				return lease.Invalid("--floors", "excludes --watch", "choose one")
			case follow:
				return a.watchGuards(cmd.Context(), req, statusEvery)
			}
			list, err := a.guards(cmd.Context(), req)
			if err != nil {
				return err
			}
			if floors {
				return a.listWithFloors(cmd.Context(), list, resource)
			}
			a.sayAlarms(list)
			return a.print(list, func(w io.Writer) { a.printGuards(w, list) })
		},
	}
	cmd.Flags().StringVar(&resource, "resource", "", "only guards that cover this `name`")
	cmd.Flags().BoolVar(&floors, "floors", false, "with every floor that each of them keeps; with --resource those of names that begin with it")
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "again every 2 s, until Ctrl-C")
	return cmd
}

func (a *app) guards(ctx context.Context, req *writv1.ListGuardsRequest) (list *writv1.ListGuardsResponse, err error) {
	err = a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		list, err = writv1.NewFenceServiceClient(conn).ListGuards(ctx, req)
		return err
	})
	return list, err
}

// watchGuards goes on where nobody answers.
func (a *app) watchGuards(ctx context.Context, req *writv1.ListGuardsRequest, every time.Duration) error {
	const clear = "\x1b[H\x1b[2J"
	again := time.NewTicker(every)
	defer again.Stop()
	for {
		list, err := a.guards(ctx, req)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			a.say("%s", oneLine(err.Error()))
		default:
			var page strings.Builder
			if a.colours() {
				page.WriteString(clear) // the page before
			}
			a.printGuards(&page, list)
			if err := a.printNext(list, page.String()); err != nil {
				return err
			}
			a.sayAlarms(list)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

// sayAlarms warns of what an operator has to look into.
func (a *app) sayAlarms(list *writv1.ListGuardsResponse) {
	for _, g := range list.GetGuards() {
		for _, alarm := range g.GetAlarms() {
			a.say("warning: guard %s was told token %s of %s, which is below its floor %s", oneLine(g.GetName()),
				fence.Token(alarm.GetToken()), oneLine(alarm.GetResource()), fence.Token(alarm.GetFloor()))
		}
		if g.GetWarning() != "" {
			a.say("warning: guard %s: %s", oneLine(g.GetName()), oneLine(g.GetWarning()))
		}
	}
}

func (a *app) printGuards(w io.Writer, list *writv1.ListGuardsResponse) {
	var rows [][]cell
	for _, g := range list.GetGuards() {
		rows = append(rows, []cell{
			text(oneLine(g.GetName())), guardState(g), text(oneLine(g.GetRegion())), text(oneLine(g.GetForm())), text(promiseText(g.GetPromise())),
			leaseCell(g), lagCell(g), text(floorText(g.GetNewestFloor())), alarmsCell(g),
		})
	}
	a.columns(w, []string{"NAME", "STATE", "REGION", "FORM", "PROMISE", "LEASE", "LAG", "FLOOR", "ALARMS"}, rows)
}

func guardState(g *writv1.Guard) cell {
	switch g.GetState() {
	case writv1.GuardState_GUARD_STATE_ENROLLED:
		return cell{"enrolled", good}
	case writv1.GuardState_GUARD_STATE_OUT:
		if g.GetNeverLapses() {
			return cell{"awaited", bad}
		}
		return cell{"out", bad}
	case writv1.GuardState_GUARD_STATE_UNSPECIFIED:
	}
	return cell{"unknown", weak}
}

func promiseText(p writv1.GuardPromise) string {
	switch p {
	case writv1.GuardPromise_GUARD_PROMISE_ATOMIC:
		return "atomic"
	case writv1.GuardPromise_GUARD_PROMISE_DRAINED:
		return "drained"
	case writv1.GuardPromise_GUARD_PROMISE_CHECK_THEN_ACT:
		return "check-then-act"
	case writv1.GuardPromise_GUARD_PROMISE_UNSPECIFIED:
	}
	return ""
}

func leaseCell(g *writv1.Guard) cell {
	switch left := g.GetLeaseLeft(); {
	case left == nil || g.GetState() == writv1.GuardState_GUARD_STATE_OUT:
		return cell{}
	case left.AsDuration() <= 0:
		return cell{"over for " + span(-left.AsDuration()), bad}
	default:
		return text(spanText(left))
	}
}

func lagCell(g *writv1.Guard) cell {
	if g.GetLag() == 0 {
		return text("0")
	}
	return cell{fmt.Sprintf("%d for %s", g.GetLag(), span(g.GetOldestRaise().AsDuration())), weak}
}

func floorText(f *writv1.GuardFloor) string {
	if f.GetToken() == 0 {
		return ""
	}
	return oneLine(f.GetResource()) + " " + fence.Token(f.GetToken()).String()
}

func alarmsCell(g *writv1.Guard) cell {
	if n := len(g.GetAlarms()); n > 0 {
		return cell{fmt.Sprint(n), bad}
	}
	return text("0")
}
