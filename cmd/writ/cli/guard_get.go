package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// maxFloors bounds the floors that are shown of one guard.
const maxFloors = 1_000_000

func (a *app) guardGetCommand() *cobra.Command {
	var prefix string
	var limit int
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Show the floors that a guard keeps",
		Long: `Show every floor that a guard keeps, as the guard itself tells them now, beside what the quorum knows of each resource. Any node
can be asked: the one that the guard is connected to asks it.

FLOOR is the lowest token that the guard admits, IN FLIGHT how many writes it has let go and not seen finish, WAITING how many wait
for their turn, QUORUM the newest token that the quorum knows of. STATE is one of

  same      neither is ahead of the other
  draining  writes under older tokens may still be on their way to the storage
  raising   the next token has been taken; it is granted when the guard has lifted its floor
  BEHIND    a higher token has been granted, and the guard admits an older one
  AHEAD     the quorum knows of no such token: somebody made it up on a trusted route, or the quorum went back
  unknown   the quorum knows nothing of the resource, or no majority confirms what it knows

Pages are read one after the other, so that floors of different pages are not of one instant.

Exit code 0: the guard has answered; 5: it is not connected, or did not answer, and what the quorum knows of it is shown.`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 || limit > maxFloors {
				return lease.Invalid("--limit", fmt.Sprintf("is %d", limit), fmt.Sprintf("use 1 to %d", maxFloors))
			}
			resp, err := a.floors(cmd.Context(), args[0], prefix, limit)
			if err != nil {
				return err
			}
			if err := a.print(resp, func(w io.Writer) { a.printGuard(w, resp) }); err != nil {
				return err
			}
			a.sayFloors(args[0], resp)
			if resp.GetReach() == writv1.GuardReach_GUARD_REACH_ANSWERED {
				return nil
			}
			return unanswered(args[0], resp)
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only resources whose names begin with this `text`")
	cmd.Flags().IntVar(&limit, "limit", maxFloors, "at most so many")
	return cmd
}

func unanswered(name string, resp *writv1.GetGuardResponse) error {
	return lease.Errorf(lease.ReasonNoQuorum, "the floors of guard %s are not known: %s", oneLine(name), oneLine(resp.GetDetail()))
}

// floors reads pages to the end, or to the limit, and answers them as one. The rest is that of the first page.
func (a *app) floors(ctx context.Context, name, prefix string, limit int) (all *writv1.GetGuardResponse, err error) {
	req := &writv1.GetGuardRequest{Name: name, Prefix: prefix}
	for {
		req.PageSize = int32(min(limit-len(all.GetFloors()), mostPerPage))
		var page *writv1.GetGuardResponse
		err := a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
			page, err = writv1.NewFenceServiceClient(conn).GetGuard(ctx, req)
			return err
		})
		switch {
		case err != nil:
			return nil, err
		case all == nil:
			all = page
		case page.GetReach() != writv1.GuardReach_GUARD_REACH_ANSWERED:
			e := lease.Errorf(lease.ReasonNoQuorum, "guard %s told %d floors and then no more: %s", oneLine(name), len(all.GetFloors()), oneLine(page.GetDetail()))
			e.Fix = "ask again"
			return nil, e
		default:
			all.Floors = append(all.Floors, page.GetFloors()...)
			all.Base, all.NextPageToken = page.GetBase(), page.GetNextPageToken()
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" || len(all.GetFloors()) >= limit {
			return all, nil
		}
	}
}

// sayFloors warns of what an operator has to look into, and of what is not shown.
func (a *app) sayFloors(name string, resp *writv1.GetGuardResponse) {
	behind, ahead := 0, 0
	for _, f := range resp.GetFloors() {
		switch f.GetStanding() {
		case writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_BEHIND:
			behind++
		case writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_AHEAD:
			ahead++
		case writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_SAME, writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_RAISING,
			writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_UNSPECIFIED:
		}
	}
	if behind > 0 {
		a.say("warning: guard %s admits tokens that are older than what has been granted, for %d resources", oneLine(name), behind)
	}
	if ahead > 0 {
		a.say("warning: guard %s has floors above what the quorum knows of, for %d resources", oneLine(name), ahead)
	}
	if resp.GetReach() == writv1.GuardReach_GUARD_REACH_ANSWERED && resp.GetDetail() != "" {
		a.say("guard %s: %s", oneLine(name), oneLine(resp.GetDetail()))
	}
	if resp.GetNextPageToken() != "" {
		a.say("guard %s has more than %d floors; see --limit", oneLine(name), len(resp.GetFloors()))
	}
	if resp.GetGuard() != nil {
		a.sayAlarms(&writv1.ListGuardsResponse{Guards: []*writv1.Guard{resp.GetGuard()}})
	}
}

// printGuard shows a guard and its floors, or what is known of one that has not answered.
func (a *app) printGuard(w io.Writer, resp *writv1.GetGuardResponse) {
	g := resp.GetGuard()
	answered := resp.GetReach() == writv1.GuardReach_GUARD_REACH_ANSWERED
	lines := []pair{{"asked", reachCell(resp)}, {"base", text(tokenOrNone(resp.GetBase()))}}
	if g != nil {
		lines = append(lines, pair{"state", guardState(g)}, pair{"lease", leaseCell(g)})
	}
	if !answered {
		lines = append(lines, pair{"why", text(oneLine(resp.GetDetail()))}, pair{"last known", text(floorText(g.GetNewestFloor()))})
		a.pairs(w, lines...)
		return
	}
	a.pairs(w, append(lines, pair{"floors", text(fmt.Sprint(len(resp.GetFloors())))})...)
	if len(resp.GetFloors()) > 0 {
		_, _ = fmt.Fprintln(w)
		a.printFloors(w, resp.GetFloors())
	}
}

func reachCell(resp *writv1.GetGuardResponse) cell {
	switch resp.GetReach() {
	case writv1.GuardReach_GUARD_REACH_ANSWERED:
		return cell{"answered by node " + oneLine(resp.GetNode()), good}
	case writv1.GuardReach_GUARD_REACH_NOT_CONNECTED:
		return cell{"not connected", bad}
	case writv1.GuardReach_GUARD_REACH_SILENT:
		return cell{"connected to node " + oneLine(resp.GetNode()) + ", and silent", bad}
	case writv1.GuardReach_GUARD_REACH_TOO_OLD:
		return cell{"connected to node " + oneLine(resp.GetNode()) + ", and too old to tell", weak}
	case writv1.GuardReach_GUARD_REACH_UNSPECIFIED:
	}
	return cell{"unknown", bad}
}

func (a *app) printFloors(w io.Writer, floors []*writv1.GuardShownFloor) {
	rows := make([][]cell, 0, len(floors))
	for _, f := range floors {
		rows = append(rows, []cell{
			text(oneLine(f.GetFloor().GetResource())), text(tokenOrNone(f.GetFloor().GetToken())), text(fmt.Sprint(f.GetFloor().GetInFlight())),
			text(fmt.Sprint(f.GetFloor().GetWaiting())), text(tokenOrNone(f.GetKnown())), standingCell(f),
		})
	}
	a.columns(w, []string{"RESOURCE", "FLOOR", "IN FLIGHT", "WAITING", "QUORUM", "STATE"}, rows)
}

func tokenOrNone(token uint64) string {
	if token == 0 {
		return ""
	}
	return fence.Token(token).String()
}

func standingCell(f *writv1.GuardShownFloor) cell {
	switch f.GetStanding() {
	case writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_BEHIND:
		return cell{"BEHIND", bad}
	case writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_AHEAD:
		return cell{"AHEAD", bad}
	case writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_RAISING:
		return cell{"raising", weak}
	case writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_SAME, writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_UNSPECIFIED:
	}
	switch {
	case f.GetFloor().GetDraining():
		return cell{"draining", weak}
	case f.GetStanding() == writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_SAME:
		return cell{"same", good}
	}
	return cell{"unknown", faint}
}

// listWithFloors lists guards, each with all its floors.
func (a *app) listWithFloors(ctx context.Context, list *writv1.ListGuardsResponse, resource string) error {
	guards := make([]*writv1.GetGuardResponse, len(list.GetGuards()))
	out := make([]json.RawMessage, len(guards))
	for i, g := range list.GetGuards() {
		resp, err := a.floors(ctx, g.GetName(), resource, maxFloors)
		switch {
		case err == nil:
		case lease.ExitCode(err) != lease.ExitUnavailable || ctx.Err() != nil:
			return err
		default: // of one guard, while others may answer
			resp = &writv1.GetGuardResponse{Guard: g, Reach: writv1.GuardReach_GUARD_REACH_SILENT, Detail: trouble(err)}
		}
		guards[i] = resp
		if out[i], err = marshal(resp); err != nil {
			return err
		}
	}
	err := a.print(map[string]any{"guards": out}, func(w io.Writer) {
		a.printGuards(w, list)
		for i, g := range list.GetGuards() {
			_, _ = fmt.Fprintf(w, "\nguard %s\n", oneLine(g.GetName()))
			a.printGuard(w, guards[i])
		}
	})
	for i, g := range list.GetGuards() {
		a.sayFloors(g.GetName(), guards[i])
	}
	return err
}
