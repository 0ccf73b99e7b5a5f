//writ:core

package region

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// show is a promotion for people: with its operation, and what it waits for.
func (x *Machine) show(m lease.Moment, p *promotion) *writv1.Promotion {
	rec := proto.CloneOf(p.rec)
	if op := x.operations[rec.Id]; op != nil {
		rec.Operation = x.showOperation(m, op)
	}
	rec.Waits = x.waits(m, p)
	return rec
}

// waits says what a promotion waits for, and for how long at most.
func (x *Machine) waits(m lease.Moment, p *promotion) []*writv1.Wait {
	rec := p.rec
	if PromotionEnded(rec.State) {
		return nil
	}
	var all []*writv1.Wait
	wait := func(what string, until clock.Instant) {
		w := &writv1.Wait{What: what}
		if until != clock.Never {
			w.Left = durationpb.New(max(until.Sub(m.Now), 0))
		}
		all = append(all, w)
	}
	if rec.Stuck {
		wait("somebody to resume it: "+rec.Reason, clock.Never)
	}
	switch rec.State {
	case proposed, approving:
		if op := x.operations[rec.Id]; op != nil {
			wait(cmp.Or(x.operationMissing(m, op), "somebody to execute it"), m.Now.Add(op.ExpiresAt.AsTime().Sub(m.Wall)))
		}
	case draining:
		if what := x.drainWaits(m, p); what != "" {
			wait(what, p.since.Add(drainFor(p.group.rec.Spec)))
		}
	case fencing, tail, rollingBack:
		for _, w := range x.tenures.Tenure(resourceOf(p.group.rec.Spec)).Awaits {
			what := "the guard " + w.Guard + " of " + w.Region + " to acknowledge, or its guard lease to run out"
			if w.Lapses == clock.Never {
				what = "the guard " + w.Guard + " of " + w.Region + " to acknowledge: it may go on without contact, so if it cannot, people have to answer for it with `writ promote attest`"
			}
			wait(what, w.Lapses)
		}
		if op := x.tailOperation(p); rec.State == tail && op.GetState() == writv1.OperationState_OPERATION_STATE_PENDING {
			wait("the loss to be accepted by "+op.Id+": "+cmp.Or(x.operationMissing(m, op), "somebody to execute it"), m.Now.Add(op.ExpiresAt.AsTime().Sub(m.Wall)))
		}
	case degraded:
		wait("what became of the lost tail, by `writ promote reinstate`", clock.Never)
	default:
	}
	if n, open := x.nextNeed(p); open && !rec.Stuck && rec.State != draining {
		wait(n.String(), p.asked.Add(x.hookTimeout(p.group, n.kind)))
	}
	return all
}

func (x *Machine) listPromotions(m lease.Moment, ask *writv1.ListPromotionsRequest) (*writv1.ListPromotionsResponse, *lease.Error) {
	var all []*promotion
	//writ:unordered sorted below
	for _, p := range x.promotions {
		if (ask.Group == "" || p.rec.Group == ask.Group) && (!ask.Open || !PromotionEnded(p.rec.State)) {
			all = append(all, p)
		}
	}
	made := func(p *promotion) int64 { return x.operations[p.rec.Id].GetCreatedAt().AsTime().UnixNano() }
	slices.SortFunc(all, func(a, b *promotion) int {
		return cmp.Or(cmp.Compare(made(b), made(a)), compareIDs(b.rec.Id, a.rec.Id), strings.Compare(a.rec.Id, b.rec.Id))
	})
	limit := int(cmp.Or(ask.Limit, 100))
	answer := &writv1.ListPromotionsResponse{}
	for _, p := range all[:min(limit, len(all))] {
		answer.Promotions = append(answer.Promotions, x.show(m, p))
	}
	return answer, nil
}

// getPromotion answers one; with after_revision it waits until there is a newer one.
func (x *Machine) getPromotion(m lease.Moment, r Request, ask *writv1.GetPromotionRequest) {
	p := x.promotions[ask.Id]
	switch wait := min(ask.Wait.AsDuration(), maxPollWait); {
	case p == nil:
		x.refuse(r.ID, &lease.Error{Reason: lease.ReasonNotFound, Message: "there is no promotion " + strconv.Quote(ask.Id), Fix: "`writ promote list` names those that there are"})
	case ask.AfterRevision < p.rec.Revision || wait <= 0:
		x.reply(r.ID, x.show(m, p))
	default:
		p.waiters = append(p.waiters, watch{id: r.ID, until: r.Intake.Add(wait), after: ask.AfterRevision})
		x.watches[r.ID] = p
		x.wake(r.Intake.Add(wait))
	}
}

// answerWatches answers those who waited for a promotion to change, when the round ends.
func (x *Machine) answerWatches(m lease.Moment) {
	for _, p := range x.seen {
		p.seen = false
		for _, w := range slices.Clone(p.waiters) {
			if w.after < p.rec.Revision {
				x.forgetWatch(p, w.id)
				x.reply(w.id, x.show(m, p))
			}
		}
	}
	x.seen = x.seen[:0]
}

func (x *Machine) forgetWatch(p *promotion, id lease.CallID) {
	delete(x.watches, id)
	p.waiters = slices.DeleteFunc(p.waiters, func(w watch) bool { return w.id == id })
}
