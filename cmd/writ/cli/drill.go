package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region"
)

func (a *app) drillCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "drill",
		Short: "Practise promotions, on a shadow of a group",
		Long: `Practise promotions, on a shadow of a group: a group of its own, with the same regions, guards and agents, and a token of its
own. The guards have to cover the shadow's resource, which is drill/ and that of the group.`,
	})
	cmd.AddCommand(a.drillRunCommand(), a.drillReportCommand())
	return cmd
}

type drillFlags struct {
	to, mode, reason string
	slo              time.Duration
	keep             bool
}

func (a *app) drillRunCommand() *cobra.Command {
	var f drillFlags
	cmd := &cobra.Command{
		Use:   "run GROUP --to REGION",
		Short: "Promote another region of a group's shadow, while a zombie writes",
		Long: `Promote another region of a group's shadow, as the group itself would be, and see how long that takes. Nobody has to sign,
and the group itself, its token and its data are not touched: agents run only hooks that are made for drills (in the section
"drill" of their configuration).

All the while a zombie writer goes on writing through each guard, under the shadow's old token, the way that writes take but
not on to the storage. The drill has passed if each guard let it through before, and refused it when the other region had been
granted its token. What came of it stands with the group ("writ drill report") and in the audit log.

Exit code 0: it passed; 1: it failed; 2: it passed, but took longer than --slo.`,
		Args: arguments("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.drill(cmd.Context(), args[0], f) },
	}
	cmd.Flags().StringVar(&f.to, "to", "", "the `region` to promote; default: the eligible one with the highest priority")
	cmd.Flags().StringVar(&f.mode, "mode", "switchover", "switchover or failover")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why; it stands in the audit log")
	cmd.Flags().DurationVar(&f.slo, "slo", 0, "how long it may take until the other region serves")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "leave the shadow there, to be looked at")
	_ = cmd.RegisterFlagCompletionFunc("mode", // the flag exists
		cobra.FixedCompletions([]string{"switchover", "failover"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) drill(ctx context.Context, name string, f drillFlags) error {
	mode, err := modeOf(f.mode)
	switch {
	case err != nil:
		return err
	case mode != writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER && mode != writv1.PromotionMode_PROMOTION_MODE_FAILOVER:
		return lease.Invalid("--mode", fmt.Sprintf("is %q", f.mode), "use switchover or failover")
	case f.slo < 0:
		return lease.Invalid("--slo", "is "+f.slo.String(), "use a time such as 60s")
	}
	shadow, err := a.makeShadow(ctx, name, f.reason)
	if err != nil {
		return err
	}
	d, err := a.practise(ctx, shadow, mode, f)
	if ctx.Err() != nil {
		a.say("the drill goes on by itself, and is not judged; the same command again tidies up")
		return &exitError{code: lease.ExitPending}
	}
	if !f.keep {
		err = errors.Join(err, a.removeShadow(ctx, shadow.GetSpec().GetName()))
	}
	if d == nil {
		return err
	}
	return errors.Join(a.print(d, func(w io.Writer) { a.printDrill(w, name, d, f.slo) }), err, drillEnd(d, f.slo))
}

// drillEnd is what a drill means to whoever ran it.
func drillEnd(d *writv1.Drill, slo time.Duration) error {
	switch {
	case d.GetOutcome() != writv1.DrillOutcome_DRILL_OUTCOME_PASSED:
		return &exitError{code: lease.ExitError, cause: errors.New("the drill failed: " + oneLine(strings.Join(d.GetProblems(), "; ")))}
	case missed(d, slo):
		return &exitError{code: lease.ExitRefused, cause: fmt.Errorf("the drill took %s, longer than %v", spanText(d.GetTimeToHealthy()), slo)}
	}
	return nil
}

// missed reports whether a drill took longer than it may; 0 is no limit.
func missed(d *writv1.Drill, slo time.Duration) bool {
	return slo > 0 && d.GetTimeToHealthy() != nil && d.GetTimeToHealthy().AsDuration() > slo
}

// makeShadow makes the shadow of a group anew, so that it begins where the group is, and waits until it has its token.
func (a *app) makeShadow(ctx context.Context, name, reason string) (*writv1.Group, error) {
	real, err := a.getGroup(ctx, name)
	switch {
	case err != nil:
		return nil, err
	case real.GetSpec().GetDrillOf() != "":
		return nil, lease.Invalid("GROUP", fmt.Sprintf("is %q, a drill itself", name), "name "+real.GetSpec().GetDrillOf())
	case real.GetPrimary() == "":
		return nil, lease.Errorf(lease.ReasonConflict, "%s is %s, and has no primary", name, enumText(real.GetState()))
	}
	spec := region.DrillSpec(real)
	if err := a.shadowIsGuarded(ctx, real.GetSpec(), spec); err != nil {
		return nil, err
	}
	if err := a.removeShadow(ctx, spec.GetName()); err != nil {
		return nil, err
	}
	if _, err := a.untilGroup(ctx, spec.GetName(), func(g *writv1.Group) bool { return g == nil }); err != nil {
		return nil, err
	}
	resp, err := askRegions(ctx, a.once, writv1.RegionServiceClient.ApplyGroup, &writv1.ApplyGroupRequest{Spec: spec, Reason: cmp.Or(reason, "drill")})
	if err != nil {
		return nil, err
	}
	if resp.GetOperation() != nil {
		return nil, lease.Errorf(lease.ReasonPending, "the drill's group has to be approved: %s", resp.GetOperation().GetId())
	}
	return a.untilGroup(ctx, spec.GetName(), func(g *writv1.Group) bool { return g.GetState() == writv1.GroupState_GROUP_STATE_STEADY })
}

// shadowIsGuarded refuses a drill whose writes some of the group's guards would know nothing of.
func (a *app) shadowIsGuarded(ctx context.Context, real, shadow *writv1.GroupSpec) error {
	var missing []string
	covered, err := a.guards(ctx, &writv1.ListGuardsRequest{Resource: shadow.GetResource()})
	if err != nil {
		return err
	}
	all, err := a.guards(ctx, &writv1.ListGuardsRequest{Resource: cmp.Or(real.GetResource(), real.GetName())})
	if err != nil {
		return err
	}
	for _, g := range all.GetGuards() {
		if !slices.ContainsFunc(covered.GetGuards(), func(c *writv1.Guard) bool { return c.GetName() == g.GetName() }) {
			missing = append(missing, oneLine(g.GetName()))
		}
	}
	switch {
	case len(all.GetGuards()) == 0:
		return lease.Errorf(lease.ReasonNotGuarded, "no guard covers %s: there is nothing to drill", cmp.Or(real.GetResource(), real.GetName()))
	case len(missing) > 0:
		e := lease.Errorf(lease.ReasonNotGuarded, "guards do not cover %s: %s", shadow.GetResource(), strings.Join(missing, ", "))
		e.Fix = "give each a route for drill/{1} (or let it cover drill/*)"
		return e
	}
	return nil
}

// shadowPoll is how often a group is looked at.
const shadowPoll = 100 * time.Millisecond

// untilGroup waits until a group is as wanted; nil: it is not there.
func (a *app) untilGroup(ctx context.Context, name string, wanted func(*writv1.Group) bool) (*writv1.Group, error) {
	ticker := time.NewTicker(shadowPoll)
	defer ticker.Stop()
	told := ""
	for {
		g, err := a.getGroup(ctx, name)
		switch {
		case errors.Is(err, lease.ErrNotFound):
			g = nil
		case err != nil:
			return nil, err
		}
		if wanted(g) {
			return g, nil
		}
		if g != nil && len(g.GetWaits()) > 0 && g.GetWaits()[0].GetWhat() != told {
			told = g.GetWaits()[0].GetWhat()
			a.say("%s is %s; waits for %s", name, enumText(g.GetState()), waitsText(g.GetWaits()))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
		}
	}
}

// removeShadow removes a shadow, if there is one. What an interrupted drill has left to be settled is.
func (a *app) removeShadow(ctx context.Context, name string) error {
	if _, err := a.getGroup(ctx, name); errors.Is(err, lease.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	open, err := askRegions(ctx, a.each, writv1.RegionServiceClient.ListPromotions, &writv1.ListPromotionsRequest{Group: name, Open: true})
	if err != nil {
		return err
	}
	for _, p := range open.GetPromotions() {
		switch {
		case p.GetState() == writv1.PromotionState_PROMOTION_STATE_DEGRADED:
			if _, err := a.settleDrill(ctx, p); err != nil {
				return err
			}
		case waitsForPeople(p): // nobody has begun it
			if _, err := askRegions(ctx, a.once, writv1.RegionServiceClient.Abort, &writv1.AbortRequest{Id: p.GetId(), Reason: "another drill"}); err != nil {
				return err
			}
		default:
			e := lease.Errorf(lease.ReasonConflict, "a drill is under way: %s is %s", p.GetId(), enumText(p.GetState()))
			e.Fix = fmt.Sprintf("wait for it, or writ promote abort %s", p.GetId())
			return e
		}
	}
	_, err = askRegions(ctx, a.once, writv1.RegionServiceClient.RemoveGroup, &writv1.RemoveGroupRequest{Name: name, Reason: "the drill is over"})
	return err
}

// settleDrill says that nothing was lost: nobody wrote anything.
func (a *app) settleDrill(ctx context.Context, p *writv1.Promotion) (*writv1.Promotion, error) {
	op, err := askRegions(ctx, a.once, writv1.RegionServiceClient.Reinstate, &writv1.ReinstateRequest{
		Id: p.GetId(), Disposition: writv1.Disposition_DISPOSITION_DISCARDED, Reason: "it was a drill",
	})
	if err != nil {
		return p, err
	}
	if _, err := askRegions(ctx, a.once, writv1.RegionServiceClient.ExecuteOperation, &writv1.ExecuteOperationRequest{Id: op.GetId()}); err != nil {
		return p, err
	}
	for ctx.Err() == nil && p.GetState() != writv1.PromotionState_PROMOTION_STATE_DONE {
		if p, err = a.nextOf(ctx, p); err != nil {
			return p, err
		}
	}
	return p, ctx.Err()
}

// practise carries the promotion through while the zombie writes, and has it judged. The answer is nil if it never began.
func (a *app) practise(ctx context.Context, shadow *writv1.Group, mode writv1.PromotionMode, f drillFlags) (*writv1.Drill, error) {
	p, err := askRegions(ctx, a.once, writv1.RegionServiceClient.Plan, &writv1.PlanRequest{
		Group: shadow.GetSpec().GetName(), To: f.to, Mode: mode, LossCap: &writv1.Loss{}, Reason: cmp.Or(f.reason, "drill"), ExpectedToken: shadow.GetToken(),
	})
	if err != nil {
		return nil, err
	}
	z := newZombie(a, shadow)
	if err := z.warmUp(ctx); err != nil {
		return nil, err
	}
	stop := z.start(ctx)
	defer stop()
	if p, err = askRegions(ctx, a.once, writv1.RegionServiceClient.Execute, &writv1.ExecuteRequest{Id: p.GetId()}); err != nil {
		return nil, err
	}
	p, err = a.followPromotion(ctx, p, z.follow)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case p.GetStuck():
		p, err = a.giveUpDrill(ctx, p)
	case p.GetState() == writv1.PromotionState_PROMOTION_STATE_DEGRADED:
		p, err = a.settleDrill(ctx, p)
	case err != nil:
		err = nil // it has ended otherwise, which is what is judged
	}
	if err != nil {
		return nil, err
	}
	stop()
	// What is certain: canaries that began when the other region had its token.
	if err := z.round(ctx); err != nil {
		a.say("%s", oneLine(err.Error()))
	}
	before, after := z.verdicts()
	return askRegions(ctx, a.each, writv1.RegionServiceClient.RecordDrill, &writv1.RecordDrillRequest{
		Group: shadow.GetSpec().GetDrillOf(), Id: p.GetId(), Before: before, After: after,
	})
}

// giveUpDrill aborts a drill that stands still, and waits for its end.
func (a *app) giveUpDrill(ctx context.Context, p *writv1.Promotion) (*writv1.Promotion, error) {
	p, err := askRegions(ctx, a.once, writv1.RegionServiceClient.Abort, &writv1.AbortRequest{Id: p.GetId(), Reason: p.GetReason()})
	for err == nil && ctx.Err() == nil && !region.PromotionEnded(p.GetState()) {
		p, err = a.nextOf(ctx, p)
	}
	return p, errors.Join(err, ctx.Err())
}
