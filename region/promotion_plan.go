//writ:core

package region

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// planned is what a promotion is planned with.
type planned struct {
	group     *group
	ask       *writv1.PlanRequest
	requester string
	automatic bool
	evidence  []*writv1.Evidence
	// traceparent is the caller's; empty: none.
	traceparent string
}

// plan freezes a promotion for people to sign.
func (x *Machine) plan(m lease.Moment, cmd Command, ask *writv1.PlanRequest) (*writv1.Promotion, *lease.Error) {
	caller := cmd.Caller
	g := x.groups[ask.Group]
	if g == nil {
		return nil, noGroup(ask.Group)
	}
	p, err := x.propose(m, planned{group: g, ask: ask, requester: string(caller.Principal), traceparent: cmd.Traceparent})
	if err != nil {
		x.noteRefusal(caller, g.name, "plan", err)
		return nil, err
	}
	return x.show(m, p), nil
}

func noGroup(name string) *lease.Error {
	return &lease.Error{Reason: lease.ReasonNotFound, Message: "there is no group " + strconv.Quote(name), Fix: "`writ group list` names those that there are"}
}

// propose makes a promotion, or says why not. It begins when its operation lacks nothing: at Execute, or by itself if it is
// automatic.
func (x *Machine) propose(m lease.Moment, w planned) (*promotion, *lease.Error) {
	if p := x.repeated(w); p != nil {
		return p, nil
	}
	g := w.group
	old, err := x.mayPropose(w)
	if err != nil {
		return nil, err
	}
	to, err := x.target(w, old)
	if err != nil {
		return nil, err
	}
	present := x.tenures.Tenure(resourceOf(g.rec.Spec)).Token
	if w.ask.ExpectedToken != 0 && fence.Token(w.ask.ExpectedToken) != present {
		return nil, staleToken(g, w.ask.ExpectedToken, present)
	}
	rec := &writv1.Promotion{
		Group: g.name, From: g.rec.Primary, To: to, Mode: w.ask.Mode, State: proposed, StateSince: timestamppb.New(m.Wall), Automatic: w.automatic,
		ExpectedToken: cmp.Or(w.ask.ExpectedToken, uint64(present)), GroupVersion: g.rec.Version, LossCap: w.ask.LossCap,
		RequestId: w.ask.RequestId, Evidence: w.evidence, Timeline: &writv1.Timeline{Detected: w.ask.DetectedAt}, Revision: 1,
	}
	if rec.Timeline.Detected == nil && rec.Mode == writv1.PromotionMode_PROMOTION_MODE_FAILOVER {
		rec.Timeline.Detected = timestamppb.New(m.Wall)
	}
	if old != nil {
		rec.Supersedes, rec.Tails = old.rec.Id, old.rec.Tails
	}
	x.prune(g)
	op, err := x.newOperation(m, proposal{
		kind: writv1.OperationKind_OPERATION_KIND_PROMOTION, group: g, body: x.planBody(m, g, rec, w.ask.Reason), rule: x.ruleFor(g, rec.Mode),
		validFor: w.ask.ValidFor.AsDuration(), requester: w.requester, reason: w.ask.Reason,
	})
	if err != nil {
		return nil, err
	}
	rec.Id, rec.PlannedAt, rec.Traceparent = op.Id, rec.StateSince, x.traceOf(op.Id, w.traceparent)
	p := &promotion{group: g}
	movePlan.row().check(p)
	p = x.addPromotion(m, g, rec)
	x.hasMoved(p)
	x.store(PromotionRecord, rec.Id, rec)
	x.notePromotion(p, movePlan, stateName(none), w.requester, w.ask.Reason)
	x.wake(m.Now)
	return p, nil
}

func staleToken(g *group, have uint64, present fence.Token) *lease.Error {
	return &lease.Error{
		Reason: lease.ReasonStaleToken, Field: "expected_token", Message: "is " + fence.Token(have).String() + ", and the group's token is " + present.String(),
		Fix: "look at the group again, and plan anew", Resource: resourceOf(g.rec.Spec), Token: present,
	}
}

// repeated finds the promotion of the same request.
func (x *Machine) repeated(w planned) *promotion {
	if w.ask.RequestId == "" {
		return nil
	}
	for _, p := range w.group.history {
		if op := x.operations[p.rec.Id]; p.rec.RequestId == w.ask.RequestId && op.GetRequester() == w.requester {
			return p
		}
	}
	return nil
}

// mayPropose says whether the group can have another promotion, and which one it would succeed.
func (x *Machine) mayPropose(w planned) (*promotion, *lease.Error) {
	g, mode := w.group, w.ask.Mode
	switch mode {
	case writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, writv1.PromotionMode_PROMOTION_MODE_FAILOVER,
		writv1.PromotionMode_PROMOTION_MODE_FAILBACK, writv1.PromotionMode_PROMOTION_MODE_RECOVER:
	default:
		return nil, lease.Invalid("mode", "has to be said: a switchover must never become a failover by leaving something out",
			"give switchover, failover, failback or recover")
	}
	if mode == writv1.PromotionMode_PROMOTION_MODE_FAILOVER && w.ask.LossCap == nil && g.rec.Spec.Rpo == nil {
		return nil, lease.Invalid("loss_cap", "is required with a failover of a group without an rpo",
			"say how much may be lost without asking again; an empty one accepts any loss")
	}
	if w.ask.LossCap != nil && x.capTooLoose(g, mode, w.ask.LossCap) {
		return nil, lease.Invalid("loss_cap", "is above the rpo of "+g.name+", and nobody signs a "+modeName(mode)+" of it",
			"leave it out, so that people are asked if more than the rpo is lost; or plan a failover")
	}
	nobody := g.rec.State == writv1.GroupState_GROUP_STATE_RECOVERED || g.rec.State == writv1.GroupState_GROUP_STATE_CONFLICT
	if recover := mode == writv1.PromotionMode_PROMOTION_MODE_RECOVER; recover != nobody {
		if recover {
			return nil, lease.Invalid("mode", "is recover, and "+g.name+" is "+groupStateName(g.rec.State), "recover is for groups whose primary people have to name; use switchover or failover")
		}
		return nil, lease.Errorf(lease.ReasonConflict, "%s is %s: people have to name the primary; plan with mode recover", g.name, groupStateName(g.rec.State))
	}
	var old *promotion
	for _, p := range x.openOf(g) {
		switch p.rec.State {
		case granted, verifying, degraded:
			old = p
		default:
			return nil, lease.Errorf(lease.ReasonConflict, "%s has the promotion %s in %s: wait for it, or abort it", g.name, p.rec.Id, stateName(p.rec.State))
		}
	}
	if old == nil && !nobody && g.rec.State != writv1.GroupState_GROUP_STATE_STEADY {
		return nil, lease.Errorf(lease.ReasonConflict, "%s is %s", g.name, groupStateName(g.rec.State))
	}
	return old, nil
}

// target is where a promotion goes.
func (x *Machine) target(w planned, old *promotion) (string, *lease.Error) {
	g, to := w.group, w.ask.To
	if w.ask.Mode == writv1.PromotionMode_PROMOTION_MODE_FAILBACK {
		before := x.primaryBefore(g)
		if before == "" || to != "" && to != before {
			return "", lease.Invalid("to", "is not the region that was primary before "+g.rec.Primary, "use switchover, or name "+cmp.Or(before, "another region"))
		}
		to = before
	}
	if to == "" {
		to = x.bestTarget(g, old)
		if to == "" {
			return "", lease.Errorf(lease.ReasonConflict, "%s has no eligible target: each other region is a witness or in quarantine; `writ promote reinstate` settles what was lost", g.name)
		}
	}
	r := findRegion(g.rec.Spec, to)
	switch {
	case r == nil:
		return "", lease.Invalid("to", strconv.Quote(to)+" is not a region of "+g.name, "name one of its standbys")
	case to == g.rec.Primary && !inConflict(g):
		return "", lease.Invalid("to", to+" is primary already", "name another region")
	case r.Role == writv1.RegionRole_REGION_ROLE_WITNESS:
		return "", lease.Invalid("to", to+" is a witness", "name one of the group's standbys")
	case !x.eligible(g, to, old) && !inConflict(g): // there, people choose between the two
		return "", lease.Errorf(lease.ReasonConflict, "%s is in quarantine: what it lost has to be settled first, with `writ promote reinstate`", to)
	}
	return to, nil
}

// eligible says whether a region may get the tenure: it is not in quarantine, or what it lost has been settled.
func (x *Machine) eligible(g *group, region string, old *promotion) bool {
	if !slices.Contains(g.rec.Quarantined, region) {
		return true
	}
	return old != nil && old.rec.Settlement != "" && slices.ContainsFunc(old.rec.Tails, func(lost *writv1.Tail) bool { return lost.From == region })
}

func (x *Machine) bestTarget(g *group, old *promotion) string {
	var best *writv1.GroupRegion
	for _, r := range g.rec.Spec.Regions {
		if r.Name == g.rec.Primary || r.Role == writv1.RegionRole_REGION_ROLE_WITNESS || !x.eligible(g, r.Name, old) {
			continue
		}
		if best == nil || r.Priority > best.Priority {
			best = r
		}
	}
	return best.GetName()
}

// primaryBefore is the region that the present primary took over from.
func (x *Machine) primaryBefore(g *group) string {
	for _, p := range slices.Backward(g.history) {
		if p.rec.To == g.rec.Primary && p.rec.Token == g.rec.Token {
			return p.rec.From
		}
	}
	return ""
}

func groupStateName(s writv1.GroupState) string {
	return strings.TrimPrefix(s.String(), "GROUP_STATE_")
}

// planBody is what is signed of a plan, beside what every operation's document has.
func (x *Machine) planBody(m lease.Moment, g *group, rec *writv1.Promotion, reason string) map[string]any {
	lost := x.estimate(m, g, rec)
	body := map[string]any{
		"from": rec.From, "to": rec.To, "mode": modeName(rec.Mode), "expected_token": strconv.FormatUint(rec.ExpectedToken, 10),
		"group_version": strconv.FormatUint(rec.GroupVersion, 10), "reason": reason, "automatic": rec.Automatic,
		"evidence": map[string]any{
			"positions":      map[string]any{"from": positionBody(lost.LastOfFrom), "to": positionBody(lost.LastOfTo)},
			"estimated_loss": tailLoss(lost),
			"lag":            "unknown",
			"silence":        "unknown",
			"observed":       evidenceBody(rec.Evidence),
		},
		"loss_cap": nil,
	}
	if r := x.fresh(m, g, rec.To); r.GetLag() != nil {
		body["evidence"].(map[string]any)["lag"] = r.Lag.AsDuration().String()
	}
	if silent, ever := x.silence(m, g, lost.From); ever {
		body["evidence"].(map[string]any)["silence"] = silent.Round(time.Millisecond).String()
	}
	if rec.LossCap != nil {
		body["loss_cap"] = lossBody(rec.LossCap)
	}
	if rec.Supersedes != "" {
		body["supersedes"] = rec.Supersedes
	}
	if len(g.rec.Tails) > 0 {
		body["conflict"] = tailsBody(g.rec.Tails)
	}
	return body
}

func evidenceBody(all []*writv1.Evidence) []any {
	out := make([]any, 0, len(all))
	for _, e := range all {
		out = append(out, map[string]any{"observer": e.Observer, "about": e.About, "what": e.What, "since": e.Since.AsTime().UTC().Format(time.RFC3339)})
	}
	return out
}

func positionBody(p *writv1.Position) any {
	if p == nil {
		return "unknown"
	}
	return map[string]any{"log": p.Log, "bytes": strconv.FormatUint(p.Bytes, 10), "text": p.Text}
}

// tailLoss is what is known of a loss. Where the bytes are not, it says how many they are at least.
func tailLoss(lost *writv1.Tail) map[string]any {
	body := lossBody(&writv1.Loss{Time: lost.Time, Bytes: lost.Bytes})
	if least, known := leastBytes(lost); known && lost.Bytes == nil {
		body["at_least_bytes"] = strconv.FormatUint(least, 10)
	}
	return body
}

func lossBody(l *writv1.Loss) map[string]any {
	body := map[string]any{}
	if l.Bytes != nil {
		body["bytes"] = strconv.FormatUint(*l.Bytes, 10)
	}
	if l.Time != nil {
		body["time"] = l.Time.AsDuration().String()
	}
	return body
}
