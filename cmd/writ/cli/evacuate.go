package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func (a *app) regionCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "region", Short: "What concerns all groups of a region"})
	cmd.AddCommand(a.evacuateCommand())
	return cmd
}

type evacuateFlags struct {
	mode, lossCap, reason, order string
	parallel, maxFailures        int
	planOnly                     bool
}

func (a *app) evacuateCommand() *cobra.Command {
	f := evacuateFlags{}
	cmd := &cobra.Command{
		Use:   "evacuate REGION --mode MODE",
		Short: "Make another region primary of every group that a region leads",
		Long: `Plan a promotion for every group that a region leads, and carry each through when it has been approved, the groups in which
the region has the highest priority first, or those that --order lists. At most --max-parallel are under way at a time, and
none is begun any more when --max-failures have not come to their end.

It can be interrupted at any time: what has begun goes on by itself, and the same command again goes on with the rest.`,
		Args: arguments("REGION"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.evacuate(cmd.Context(), args[0], f) },
	}
	cmd.Flags().StringVar(&f.mode, "mode", "", "switchover or failover")
	cmd.Flags().IntVar(&f.parallel, "max-parallel", 4, "so many at a time")
	cmd.Flags().IntVar(&f.maxFailures, "max-failures", 1, "begin no more when so many have failed; 0: go on all the same")
	cmd.Flags().StringVar(&f.lossCap, "loss-cap", "", "what each may lose without asking again, such as 16MiB, 30s or both; default: the group's rpo")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why; it is signed, too")
	cmd.Flags().StringVar(&f.order, "order", "", "begin with the groups that this `file` lists, a name a line")
	cmd.Flags().BoolVar(&f.planOnly, "plan-only", false, "make the plans, and execute none")
	_ = cmd.RegisterFlagCompletionFunc("mode", // the flag exists
		cobra.FixedCompletions([]string{"switchover", "failover"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// evacuation is one group on its way out of a region.
type evacuation struct {
	group     string
	priority  int32
	promotion *writv1.Promotion
	begun     bool
	problem   error // why it is not carried through
	teller    teller
}

func (e *evacuation) over() bool {
	if e.problem != nil {
		return true
	}
	rests, _ := restOf(e.promotion)
	return rests
}

func (e *evacuation) failure() error {
	if e.problem != nil {
		return e.problem
	}
	_, err := restOf(e.promotion)
	return err
}

func (a *app) evacuate(ctx context.Context, region string, f evacuateFlags) error {
	mode, err := modeOf(f.mode)
	switch {
	case err != nil:
		return err
	case mode != writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER && mode != writv1.PromotionMode_PROMOTION_MODE_FAILOVER:
		return lease.Invalid("--mode", fmt.Sprintf("is %q", f.mode), "use switchover or failover")
	case f.parallel < 1:
		return lease.Invalid("--max-parallel", fmt.Sprintf("is %d", f.parallel), "use 1 or more")
	case f.maxFailures < 0:
		return lease.Invalid("--max-failures", fmt.Sprintf("is %d", f.maxFailures), "use 0 or more")
	}
	loss, err := parseLoss("--loss-cap", f.lossCap)
	if err != nil {
		return err
	}
	all, err := a.ledBy(ctx, region, f.order)
	if err != nil {
		return err
	}
	for _, e := range all {
		a.planEvacuation(ctx, e, &writv1.PlanRequest{Group: e.group, Mode: mode, LossCap: loss, Reason: f.reason, RequestId: rand.Text()})
	}
	if !f.planOnly {
		a.carryThrough(ctx, all, f)
	}
	if err := a.printEvacuation(all); err != nil {
		return err
	}
	return evacuationEnd(ctx, region, all, f.planOnly)
}

// ledBy lists the groups that a region leads, in the order in which they leave it. Drills stay.
func (a *app) ledBy(ctx context.Context, region, order string) ([]*evacuation, error) {
	listed, err := a.readOrder(order)
	if err != nil {
		return nil, err
	}
	list, err := askRegions(ctx, a.each, writv1.RegionServiceClient.ListGroups, &writv1.ListGroupsRequest{})
	if err != nil {
		return nil, err
	}
	known := false
	var all []*evacuation
	for _, g := range list.GetGroups() {
		for _, r := range g.GetSpec().GetRegions() {
			known = known || r.GetName() == region
			if r.GetName() != region || g.GetSpec().GetDrillOf() != "" {
				continue
			}
			e := &evacuation{group: g.GetSpec().GetName(), priority: r.GetPriority()}
			if g.GetPrimary() == region || a.leaves(ctx, e, region, g.GetPromotion()) {
				all = append(all, e)
			}
		}
	}
	if !known {
		return nil, lease.Invalid("REGION", fmt.Sprintf("%q is in no group that you may read", region), "use a region's name as writ group list shows it")
	}
	place := func(name string) int {
		if i := slices.Index(listed, name); i >= 0 {
			return i
		}
		return len(listed)
	}
	slices.SortStableFunc(all, func(x, y *evacuation) int {
		return cmp.Or(cmp.Compare(place(x.group), place(y.group)), cmp.Compare(y.priority, x.priority), cmp.Compare(x.group, y.group))
	})
	return all, nil
}

// leaves reports whether a group is on its way out of a region, which has lost the tenure already: it counts among those that are
// under way.
func (a *app) leaves(ctx context.Context, e *evacuation, region, promotion string) bool {
	if promotion == "" {
		return false
	}
	p, err := a.promotion(ctx, promotion)
	if err != nil {
		e.problem = err
		return true
	}
	e.promotion, e.begun = p, !waitsForPeople(p)
	return e.begun && p.GetFrom() == region
}

// readOrder reads a list of names, a line each.
func (a *app) readOrder(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	data, err := a.readFile("--order", path)
	if err != nil {
		return nil, err
	}
	var names []string
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if name := strings.TrimSpace(lines.Text()); name != "" && !strings.HasPrefix(name, "#") {
			names = append(names, name)
		}
	}
	return names, lines.Err()
}

// planEvacuation goes on with the promotion that is open, or plans one.
func (a *app) planEvacuation(ctx context.Context, e *evacuation, req *writv1.PlanRequest) {
	if e.promotion != nil || e.problem != nil {
		return
	}
	open, err := askRegions(ctx, a.each, writv1.RegionServiceClient.ListPromotions, &writv1.ListPromotionsRequest{Group: e.group, Open: true})
	if err != nil {
		e.problem = err
		return
	}
	if all := open.GetPromotions(); len(all) > 0 {
		e.promotion = all[0]
		e.begun = !waitsForPeople(e.promotion)
		return
	}
	e.promotion, e.problem = askRegions(ctx, a.each, writv1.RegionServiceClient.Plan, req)
	if e.problem == nil && e.promotion.GetOperation().GetMissing() != "" {
		id := e.promotion.GetId()
		a.say("%s: %s; sign it with: writ promote approve %s --key FILE", id, oneLine(e.promotion.GetOperation().GetMissing()), id)
	}
}

// waitsForPeople reports whether a promotion has not been executed.
func waitsForPeople(p *writv1.Promotion) bool {
	return p.GetState() == writv1.PromotionState_PROMOTION_STATE_PROPOSED || p.GetState() == writv1.PromotionState_PROMOTION_STATE_APPROVING
}

// evacuateEvery is how often the promotions are looked at.
const evacuateEvery = 500 * time.Millisecond

// carryThrough executes what has been approved, in order and within the limits, until all have ended or nothing is begun any
// more.
func (a *app) carryThrough(ctx context.Context, all []*evacuation, f evacuateFlags) {
	ticker := time.NewTicker(evacuateEvery)
	defer ticker.Stop()
	for {
		running, failures, open := 0, 0, false
		for _, e := range all {
			a.lookAt(ctx, e)
			switch {
			case e.over() && e.failure() != nil:
				failures++
			case e.over():
			case e.begun:
				running++
			default:
				open = true
			}
		}
		stop := f.maxFailures > 0 && failures >= f.maxFailures
		for _, e := range all {
			if !stop && !e.over() && !e.begun && running < f.parallel && e.promotion.GetOperation().GetMissing() == "" {
				a.begin(ctx, e)
				running++
			}
		}
		if running == 0 && (!open || stop) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// lookAt sees how a promotion is. Where nobody answers, it stays as it was.
func (a *app) lookAt(ctx context.Context, e *evacuation) {
	if e.over() {
		return
	}
	p, err := a.promotion(ctx, e.promotion.GetId())
	switch {
	case err == nil:
		e.promotion = p
		e.begun = e.begun || !waitsForPeople(p)
	case ctx.Err() == nil && lease.ExitCode(err) != lease.ExitUnavailable:
		e.problem = err
	}
	if line := e.teller.line(e.promotion, a.now()); line != "" && e.problem == nil {
		a.say("%s", line)
	}
}

func (a *app) begin(ctx context.Context, e *evacuation) {
	p, err := askRegions(ctx, a.each, writv1.RegionServiceClient.Execute, &writv1.ExecuteRequest{Id: e.promotion.GetId()})
	switch {
	case err == nil:
		e.promotion, e.begun = p, true
	case errors.Is(err, lease.ErrPending): // a signature has been withdrawn since
	case ctx.Err() == nil && lease.ExitCode(err) != lease.ExitUnavailable:
		e.problem = err
	}
}

// MarshalJSON uses the field names of the API.
func (e *evacuation) MarshalJSON() ([]byte, error) {
	p := e.promotion
	if p == nil {
		p = &writv1.Promotion{Group: e.group}
	}
	problem := ""
	if err := e.failure(); err != nil {
		problem = err.Error()
	}
	return with{p, "problem", problem}.MarshalJSON()
}

func (a *app) printEvacuation(all []*evacuation) error {
	return a.print(all, func(w io.Writer) {
		var rows [][]cell
		for i, e := range all {
			state, note := text(""), text(oneLine(e.promotion.GetOperation().GetMissing()))
			if e.promotion != nil {
				state = promotionState(e.promotion)
			}
			if e.begun {
				note = text(spanText(e.promotion.GetTimeline().GetTimeToHealthy()))
			}
			if err := e.failure(); err != nil {
				note = cell{oneLine(err.Error()), bad}
			}
			rows = append(rows, []cell{text(fmt.Sprint(i + 1)), text(e.group), text(e.promotion.GetTo()), text(e.promotion.GetId()), state, note})
		}
		a.columns(w, []string{"#", "GROUP", "TO", "PROMOTION", "STATE", "TIME TO HEALTHY, OR WHAT IS WRONG"}, rows)
	})
}

// evacuationEnd says how it went: by the worst of all.
func evacuationEnd(ctx context.Context, region string, all []*evacuation, planOnly bool) error {
	var failed, open []string
	for _, e := range all {
		switch {
		case e.failure() != nil:
			failed = append(failed, e.group)
		case !e.over():
			open = append(open, e.group)
		}
	}
	switch {
	case len(failed) > 0:
		e := lease.Errorf(lease.ReasonConflict, "not all groups have left %s: %s", region, strings.Join(failed, ", "))
		e.Fix = "see to them; the same command again goes on"
		return e
	case len(open) > 0 && (ctx.Err() != nil || planOnly):
		e := lease.Errorf(lease.ReasonPending, "%d of %d groups have not left %s yet", len(open), len(all), region)
		e.Fix = "the same command again goes on"
		return e
	}
	return nil
}
