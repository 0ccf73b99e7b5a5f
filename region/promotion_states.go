//writ:core

package region

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/mutant"
)

// What each state waits for, and how it is left. A method that makes a transition is named after it.

// advance lets a promotion make at most one transition, or take the next step within its state.
func (x *Machine) advance(m lease.Moment, p *promotion) {
	if x.timeOut(m, p); p.rec.Stuck && p.rec.State != draining && p.rec.State != approving && p.rec.State != preflight {
		return
	}
	switch p.rec.State {
	case proposed:
		x.collect(m, p)
	case approving:
		x.inApproving(m, p)
	case preflight:
		x.inPreflight(m, p)
	case draining:
		x.inDraining(m, p)
	case undraining:
		x.inUndraining(m, p)
	case fencing:
		x.inFencing(m, p)
	case tail:
		x.inTail(m, p)
	case granted:
		x.inGranted(m, p)
	case verifying:
		x.inVerifying(m, p)
	case degraded:
		if p.rec.Settlement != "" {
			x.settleLoss(m, p)
		}
	case reconciled:
		x.inReconciled(m, p)
	case rollingBack:
		x.inRollingBack(m, p)
	default:
	}
}

func (x *Machine) collect(m lease.Moment, p *promotion) {
	x.take(m, p, moveCollect, "quorum", "", nil)
}

func (x *Machine) inApproving(m lease.Moment, p *promotion) {
	switch {
	case x.overdue(m, p):
		x.expire(m, p)
	case p.rec.Automatic && x.mayBegin(m, p) == nil:
		x.begin(m, p, "quorum")
	default:
		x.wakeAtExpiry(m, p)
	}
}

// wakeAtExpiry looks again when the plan expires by the wall clock, and at least every minute, for that clock may be set.
func (x *Machine) wakeAtExpiry(m lease.Moment, p *promotion) {
	if op := x.operations[p.rec.Id]; op != nil {
		x.wake(m.Now.Add(min(max(op.ExpiresAt.AsTime().Sub(m.Wall), 0)+time.Millisecond, time.Minute)))
	}
}

// begin makes the promotion the group's.
func (x *Machine) begin(m lease.Moment, p *promotion, actor string) {
	name := moveBegin
	if p.rec.State == proposed {
		name = moveBeginNow
	}
	x.take(m, p, name, actor, "", func(rec *writv1.Promotion) { rec.Timeline.Decided = timestamppb.New(m.Wall) })
}

func (x *Machine) expire(m lease.Moment, p *promotion) {
	const reason = "the plan has expired"
	x.take(m, p, moveExpire, "quorum", reason, nil)
	x.endPlan(m, p, writv1.OperationState_OPERATION_STATE_EXPIRED, reason)
}

// cancel ends a promotion of which nothing has happened.
func (x *Machine) cancel(m lease.Moment, p *promotion, name move, actor, reason string) {
	x.take(m, p, name, actor, reason, nil)
	x.endPlan(m, p, writv1.OperationState_OPERATION_STATE_CANCELLED, reason)
}

func (x *Machine) inPreflight(m lease.Moment, p *promotion) {
	switch {
	case x.overdue(m, p):
		x.expire(m, p)
		return
	case x.tokenMoved(p):
		x.cancel(m, p, moveTokenMoved, "quorum", "the group's token has moved: the plan was for what is over")
		return
	case p.rec.Stuck:
		x.wakeAtExpiry(m, p)
		return
	}
	problem, unknown := x.preflight(m, p)
	if problem != "" {
		if until := p.since.Add(x.freshFor()); unknown && m.Now < until {
			x.wake(until) // a coordinator that has just begun has heard of nobody
			return
		}
		x.stick(p, problem)
		x.wakeAtExpiry(m, p)
		return
	}
	if drains(p.rec.Mode) && x.needed(p.group, writv1.HookKind_HOOK_KIND_DRAIN, p.rec.From) != nil {
		x.drain(m, p)
		return
	}
	x.fence(m, p, moveFence)
}

// drains says whether a promotion of that mode asks A to stop first.
func drains(mode writv1.PromotionMode) bool {
	return mode == writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER || mode == writv1.PromotionMode_PROMOTION_MODE_FAILBACK
}

func (x *Machine) drain(m lease.Moment, p *promotion) {
	x.take(m, p, moveDrain, "quorum", "", func(rec *writv1.Promotion) {
		x.ask(m, p, rec, need{kind: writv1.HookKind_HOOK_KIND_DRAIN, region: rec.From})
	})
}

func (x *Machine) inDraining(m lease.Moment, p *promotion) {
	deadline := p.since.Add(drainFor(p.group.rec.Spec))
	switch {
	case m.Now >= deadline:
		x.undrain(m, p, moveMissDrain, "quorum", "the drain missed its deadline of "+drainFor(p.group.rec.Spec).String()+": "+x.drainWaits(m, p))
		return
	case x.tokenMoved(p):
		x.undrain(m, p, moveMissDrain, "quorum", "the group's token has moved")
		return
	case x.overdue(m, p):
		x.undrain(m, p, moveMissDrain, "quorum", "the plan has expired")
		return
	}
	x.wake(deadline)
	if p.rec.Stuck {
		return
	}
	if n, open := x.nextNeed(p); open {
		x.pursue(m, p, n)
		return
	}
	if x.caughtUp(m, p) != "" {
		return
	}
	if problem, unknown := x.preflight(m, p); problem != "" {
		if !unknown {
			x.stick(p, problem)
		}
		return
	}
	x.fence(m, p, moveDrained)
}

// drainWaits says what a drain waits for.
func (x *Machine) drainWaits(m lease.Moment, p *promotion) string {
	if p.rec.Stuck {
		return p.rec.Reason
	}
	if n, open := x.nextNeed(p); open {
		return n.String() + " has not succeeded"
	}
	return x.caughtUp(m, p)
}

func drainFor(spec *writv1.GroupSpec) time.Duration {
	if spec.Drain == nil {
		return DefaultDrain
	}
	return spec.Drain.AsDuration()
}

// fence is the executing transaction: everything is judged again, and A's tenure ends.
func (x *Machine) fence(m lease.Moment, p *promotion, name move) {
	g := p.group
	resource := resourceOf(g.rec.Spec)
	if old := x.promotions[p.rec.Supersedes]; old != nil && !PromotionEnded(old.rec.State) {
		if !slices.Contains(moveSupersede.row().From, old.rec.State) || old.moved {
			return // it is about to end, one way or the other
		}
	}
	op := x.operations[p.rec.Id]
	signers, err := x.lackingNothing(m, op)
	if err != nil {
		x.stick(p, err.Error())
		return
	}
	token := x.tenures.FenceTenure(m, resource)
	if token == 0 {
		return // nothing has been executed: all of it is judged again when there is a token
	}
	x.markExecuted(m, op, "quorum", signers)
	x.supersede(m, p)
	x.take(m, p, name, "quorum", "", func(rec *writv1.Promotion) {
		rec.Token, rec.Proofs = uint64(token), nil
		if rec.Timeline.Decided == nil {
			rec.Timeline.Decided = timestamppb.New(m.Wall)
		}
	})
	x.changeGroup(g, func(rec *writv1.Group) {
		if rec.Primary != "" {
			rec.LastPrimary = rec.Primary // what a rebuilt quorum would have to go by
		}
		rec.Primary = ""
		if p.rec.Automatic {
			rec.LastAutomaticAt = timestamppb.New(m.Wall)
		}
	})
}

// supersede ends the promotion whose place p takes, and carries its tails over.
func (x *Machine) supersede(m lease.Moment, p *promotion) {
	old := x.promotions[p.rec.Supersedes]
	if old == nil || PromotionEnded(old.rec.State) {
		if len(p.rec.Tails) > 0 { // it has ended by itself since the plan: what it lost has been settled
			x.changePromotion(p, func(rec *writv1.Promotion) { rec.Tails = nil })
		}
		return
	}
	x.take(m, old, moveSupersede, "quorum", "superseded by "+p.rec.Id, func(rec *writv1.Promotion) { rec.SupersededBy = p.rec.Id })
	x.endPlan(m, old, writv1.OperationState_OPERATION_STATE_CANCELLED, old.rec.Reason)
	x.changePromotion(p, func(rec *writv1.Promotion) {
		rec.Tails = old.rec.Tails
		if old.rec.Settlement != "" {
			rec.Tails = nil // people have said what became of them
		}
	})
	if old.rec.Settlement != "" {
		x.liftQuarantine(old)
	}
}

func (x *Machine) inFencing(m lease.Moment, p *promotion) {
	t, ok := x.fenced(m, p)
	if !ok {
		return
	}
	if p.proved == 0 {
		p.proved = m.Now
	}
	lost, clean := x.lost(m, p)
	if lost == nil && !clean {
		x.wake(p.proved.Add(x.settleFor()))
		return
	}
	if clean {
		x.grant(m, p, moveClean)
		return
	}
	x.noteTail(m, p, lost, t)
}

// fenced notes what has been proved, and says whether every guard has been.
func (x *Machine) fenced(m lease.Moment, p *promotion) (lease.Tenure, bool) {
	x.attestAgain(m, p)
	t := x.tenures.Tenure(resourceOf(p.group.rec.Spec))
	if len(t.Proofs) > len(p.rec.Proofs) {
		x.noteProofs(m, p, t)
	}
	return t, t.Ready() || mutant.On(mutant.GrantBeforeFenced)
}

func (x *Machine) noteProofs(m lease.Moment, p *promotion, t lease.Tenure) {
	x.changePromotion(p, func(rec *writv1.Promotion) {
		for _, proof := range t.Proofs {
			if slices.ContainsFunc(rec.Proofs, func(known *writv1.GuardProved) bool { return known.Guard == proof.Guard }) {
				continue
			}
			region := ""
			for _, g := range x.tenures.TenureGuards(resourceOf(p.group.rec.Spec)) {
				if g.Name == proof.Guard {
					region = g.Region
				}
			}
			rec.Proofs = append(rec.Proofs, &writv1.GuardProved{Guard: proof.Guard, Region: region, How: writv1.GuardProof(proof.How), At: timestamppb.New(m.Wall)})
			x.note(lease.Note{Actor: "quorum", Action: "promotion.proof", Target: rec.Id, Detail: map[string]string{
				"group": rec.Group, "guard": proof.Guard, "region": region, "how": proof.How.String(), "token": t.Fencing.Decimal()}})
		}
	})
}

// noteTail records what B may lack of A.
func (x *Machine) noteTail(m lease.Moment, p *promotion, lost *writv1.Tail, t lease.Tenure) {
	x.take(m, p, moveTail, "quorum", "", func(rec *writv1.Promotion) {
		rec.Timeline.Fenced = timestamppb.New(m.Wall)
		rec.Tails = append(slices.Clone(rec.Tails), lost)
	})
	x.askForTail(m, p)
}

func (x *Machine) inTail(m lease.Moment, p *promotion) {
	if _, ok := x.fenced(m, p); !ok {
		return // another coordinator has the guards raised again
	}
	op := x.tailOperation(p)
	switch {
	case x.accepts(p), op.GetState() == writv1.OperationState_OPERATION_STATE_EXECUTED:
		x.grant(m, p, moveGrant)
	case op.GetState() == writv1.OperationState_OPERATION_STATE_PENDING:
	default:
		x.stick(p, "nobody accepted the loss in time; resume asks for signatures again, abort goes back to "+p.rec.From)
	}
}

// grant gives B the tenure, and asks for what follows from that.
func (x *Machine) grant(m lease.Moment, p *promotion, name move) {
	g := p.group
	token, ok := x.tenures.GrantTenure(m, resourceOf(g.rec.Spec), p.rec.To)
	if !ok {
		panic("region: " + p.rec.Id + " is granted before every guard has been proved")
	}
	x.take(m, p, name, "quorum", "", func(rec *writv1.Promotion) {
		rec.Token = uint64(token)
		if rec.Timeline.Fenced == nil {
			rec.Timeline.Fenced = timestamppb.New(m.Wall)
		}
		if endsConflict(rec) {
			rec.Tails = append(slices.Clone(rec.Tails), g.rec.Tails...)
		}
	})
	x.changeGroup(g, func(rec *writv1.Group) {
		if endsConflict(p.rec) {
			rec.Tails = nil // they are the promotion's now
		}
		rec.Primary, rec.Token, rec.Since = p.rec.To, uint64(token), timestamppb.New(m.Wall)
		for _, lost := range p.rec.Tails {
			if lost.From != rec.Primary && !slices.Contains(rec.Quarantined, lost.From) {
				rec.Quarantined = append(rec.Quarantined, lost.From)
			}
		}
		rec.Quarantined = slices.DeleteFunc(rec.Quarantined, func(region string) bool { return region == rec.Primary })
	})
	x.retract(g, p)
	x.changePromotion(p, func(rec *writv1.Promotion) {
		for _, region := range x.demoted(g, rec) {
			if n := (need{kind: writv1.HookKind_HOOK_KIND_DEMOTE, region: region}); x.needed(g, n.kind, region) != nil {
				x.ask(m, p, rec, n)
			}
		}
		if n, open := x.nextNeedOf(g, rec); open {
			x.ask(m, p, rec, n)
		}
	})
}

// demoted are the regions that have to stop being primary.
func (x *Machine) demoted(g *group, rec *writv1.Promotion) []string {
	var regions []string
	for _, r := range g.rec.Spec.Regions {
		if r.Name != rec.To && (r.Name == rec.From || slices.Contains(g.rec.Quarantined, r.Name)) {
			regions = append(regions, r.Name)
		}
	}
	return regions
}

func (x *Machine) inGranted(m lease.Moment, p *promotion) {
	if n, open := x.nextNeed(p); open {
		x.pursue(m, p, n)
		return
	}
	x.verify(m, p)
}

func (x *Machine) verify(m lease.Moment, p *promotion) {
	x.take(m, p, moveVerify, "quorum", "", func(rec *writv1.Promotion) {
		rec.Shifted = 100
		if n, open := x.nextNeedOf(p.group, rec); open {
			x.ask(m, p, rec, n)
		}
	})
}

func (x *Machine) inVerifying(m lease.Moment, p *promotion) {
	if n, open := x.nextNeed(p); open {
		x.pursue(m, p, n)
		return
	}
	name := moveDegrade
	if len(p.rec.Tails) == 0 {
		name = moveVerified
	}
	x.serve(m, p, name)
}

// serve ends the time in which nobody could write. Time counts from when the trouble was noticed.
func (x *Machine) serve(m lease.Moment, p *promotion, name move) {
	x.take(m, p, name, "quorum", "", func(rec *writv1.Promotion) {
		rec.Timeline.Serving = timestamppb.New(m.Wall)
		began := rec.Timeline.Decided
		if rec.Timeline.Detected != nil {
			began = rec.Timeline.Detected
		}
		rec.Timeline.TimeToHealthy = durationpb.New(max(m.Wall.Sub(began.AsTime()), 0))
	})
	if name == moveVerified {
		x.changePromotion(p, func(rec *writv1.Promotion) { x.askBystanders(m, p, rec) })
		x.endPlan(m, p, writv1.OperationState_OPERATION_STATE_CANCELLED, "the promotion is done")
	}
}

func (x *Machine) settleLoss(m lease.Moment, p *promotion) {
	x.take(m, p, moveSettle, "quorum", "", func(rec *writv1.Promotion) {
		if n, open := x.nextNeedOf(p.group, rec); open {
			x.ask(m, p, rec, n)
		}
	})
}

func (x *Machine) inReconciled(m lease.Moment, p *promotion) {
	if n, open := x.nextNeed(p); open {
		x.pursue(m, p, n)
		return
	}
	x.reconcile(m, p)
}

func (x *Machine) reconcile(m lease.Moment, p *promotion) {
	x.liftQuarantine(p)
	x.take(m, p, moveReconcile, "quorum", "", func(rec *writv1.Promotion) { rec.Timeline.Reconciled = timestamppb.New(m.Wall) })
	x.endPlan(m, p, writv1.OperationState_OPERATION_STATE_CANCELLED, "the promotion is done")
}

// liftQuarantine makes the regions whose tails a promotion carries eligible again.
func (x *Machine) liftQuarantine(p *promotion) {
	kept := slices.DeleteFunc(slices.Clone(p.group.rec.Quarantined), func(region string) bool {
		return slices.ContainsFunc(p.rec.Tails, func(lost *writv1.Tail) bool { return lost.From == region })
	})
	if len(kept) != len(p.group.rec.Quarantined) {
		x.changeGroup(p.group, func(rec *writv1.Group) { rec.Quarantined = kept })
	}
}

// undrain asks A to write again, under the token that it has.
func (x *Machine) undrain(m lease.Moment, p *promotion, name move, actor, reason string) {
	x.take(m, p, name, actor, reason, func(rec *writv1.Promotion) {
		giveUp(rec, rec.From, false)
		if n, open := x.nextNeedOf(p.group, rec); open {
			x.ask(m, p, rec, n)
		}
	})
}

func (x *Machine) inUndraining(m lease.Moment, p *promotion) {
	if n, open := x.nextNeed(p); open {
		x.pursue(m, p, n)
		return
	}
	x.cancel(m, p, moveUndrained, "quorum", p.rec.Reason)
}

// rollBack goes back to A, under a token that is newer than what B may have had.
func (x *Machine) rollBack(m lease.Moment, p *promotion, actor, reason string) {
	g := p.group
	had := g.rec.Primary == p.rec.To
	fenced := uint64(x.tenures.Tenure(resourceOf(g.rec.Spec)).Fencing)
	x.take(m, p, moveRollBack, actor, reason, func(rec *writv1.Promotion) {
		rec.Tails = slices.DeleteFunc(slices.Clone(rec.Tails), func(lost *writv1.Tail) bool { return lost.Token == rec.ExpectedToken })
		if had {
			rec.Tails = append(rec.Tails, &writv1.Tail{From: rec.To, To: rec.From, Token: rec.Token})
			rec.Proofs = nil
		}
		rec.Token = fenced
	})
	x.endPlan(m, p, writv1.OperationState_OPERATION_STATE_CANCELLED, reason)
	if had {
		x.changeGroup(g, func(rec *writv1.Group) { rec.LastPrimary, rec.Primary = rec.Primary, "" })
	}
}

func (x *Machine) inRollingBack(m lease.Moment, p *promotion) {
	g := p.group
	switch {
	case p.rec.From == "": // nobody had it before
		x.rolledBack(m, p)
		return
	case g.rec.Primary != p.rec.From:
		x.grantBack(m, p)
		return
	}
	if n, open := x.nextNeed(p); open {
		x.pursue(m, p, n)
		return
	}
	x.rolledBack(m, p)
}

// grantBack gives A the tenure again.
func (x *Machine) grantBack(m lease.Moment, p *promotion) {
	g := p.group
	if _, ok := x.fenced(m, p); !ok {
		return
	}
	token, ok := x.tenures.GrantTenure(m, resourceOf(g.rec.Spec), p.rec.From)
	if !ok {
		return
	}
	x.changeGroup(g, func(rec *writv1.Group) {
		rec.Primary, rec.Token, rec.Since = p.rec.From, uint64(token), timestamppb.New(m.Wall)
		rec.Quarantined = slices.DeleteFunc(rec.Quarantined, func(region string) bool { return region == rec.Primary })
		if slices.ContainsFunc(p.rec.Tails, func(lost *writv1.Tail) bool { return lost.From == p.rec.To }) && !slices.Contains(rec.Quarantined, p.rec.To) {
			rec.Quarantined = append(rec.Quarantined, p.rec.To)
		}
	})
	x.retract(g, p)
	x.changePromotion(p, func(rec *writv1.Promotion) {
		rec.Token = uint64(token)
		if n := (need{kind: writv1.HookKind_HOOK_KIND_DEMOTE, region: rec.To}); slices.Contains(g.rec.Quarantined, rec.To) && x.needed(g, n.kind, rec.To) != nil {
			x.ask(m, p, rec, n)
		}
		if n, open := x.nextNeedOf(g, rec); open {
			x.ask(m, p, rec, n)
		}
	})
	x.wake(m.Now)
}

func (x *Machine) rolledBack(m lease.Moment, p *promotion) {
	x.take(m, p, moveRolledBack, "quorum", p.rec.Reason, nil)
}
