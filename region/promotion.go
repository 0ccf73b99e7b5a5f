//writ:core

package region

import (
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// keepPromotions is how many promotions of a group are kept when they have ended.
const keepPromotions = 100

// take moves a promotion along a row of the table. change sets what the new state needs; it may be nil.
func (x *Machine) take(m lease.Moment, p *promotion, name move, actor, reason string, change func(*writv1.Promotion)) {
	t := name.row()
	t.check(p)
	was := p.rec.State
	x.changePromotion(p, func(rec *writv1.Promotion) {
		rec.State, rec.StateSince, rec.Stuck, rec.Reason = t.To, timestamppb.New(m.Wall), false, reason
		if change != nil {
			change(rec)
		}
		if PromotionEnded(t.To) || t.To == rollingBack {
			giveUp(rec, "", t.To == done || t.To == rolledBack)
		}
	})
	p.since = m.Now
	x.hasMoved(p)
	x.notePromotion(p, name, stateName(was), actor, reason)
	x.follow(p)
	x.followDrill(m, p, name, actor)
	x.wake(m.Now)
}

// hasMoved notes that a promotion has made its transition of this round.
func (x *Machine) hasMoved(p *promotion) {
	p.moved = true
	x.moved = append(x.moved, p)
}

// notePromotion tells of a transition.
func (x *Machine) notePromotion(p *promotion, name move, was, actor, reason string) {
	rec := p.rec
	detail := map[string]string{
		"group": rec.Group, "from": rec.From, "to": rec.To, "mode": modeName(rec.Mode), "was": was, "transition": string(name),
		"token": tokenText(rec.Token), "old_token": tokenText(rec.ExpectedToken), "step": strconv.FormatUint(rec.Step, 10),
	}
	if rec.State == tail { // who accepts it by the cap signs no document that says it
		detail["tails"] = tailsText(rec.Tails)
	}
	x.note(lease.Note{Actor: actor, Action: "promotion." + strings.ToLower(stateName(rec.State)), Target: rec.Id, Reason: reason, Detail: detail})
}

func tokenText(token uint64) string {
	if token == 0 {
		return ""
	}
	return fence.Token(token).Decimal() // as everything else in the log has it
}

// changePromotion stores the promotion's record as change leaves a copy of it.
func (x *Machine) changePromotion(p *promotion, change func(*writv1.Promotion)) {
	rec := proto.CloneOf(p.rec)
	change(rec)
	rec.Revision++
	p.rec = rec
	x.store(PromotionRecord, rec.Id, rec)
	x.keepOpen(p)
	if len(p.waiters) > 0 && !p.seen {
		p.seen = true
		x.seen = append(x.seen, p)
	}
}

// stick makes a promotion stand still until somebody resumes it.
func (x *Machine) stick(p *promotion, reason string) {
	if p.rec.Stuck && p.rec.Reason == reason {
		return
	}
	x.changePromotion(p, func(rec *writv1.Promotion) { rec.Stuck, rec.Reason = true, reason })
	x.note(lease.Note{
		Actor: "quorum", Action: "promotion.stuck", Target: p.rec.Id, Reason: reason,
		Detail: map[string]string{"group": p.rec.Group, "state": stateName(p.rec.State)},
	})
}

// follow keeps the group in step with a promotion that has just moved.
func (x *Machine) follow(p *promotion) {
	g := p.group
	under := ""
	for _, o := range x.openOf(g) {
		if o.rec.State != proposed && o.rec.State != approving && (under == "" || o.rec.Id == g.rec.Promotion) {
			under = o.rec.Id
		}
	}
	state := g.rec.State
	switch p.rec.State {
	case fencing, tail, granted, rollingBack:
		state = writv1.GroupState_GROUP_STATE_PROMOTING
	case degraded, done, rolledBack:
		state = writv1.GroupState_GROUP_STATE_STEADY
		if g.rec.Primary == "" {
			state = writv1.GroupState_GROUP_STATE_RECOVERED
		}
	default:
	}
	if p.rec.State == fencing {
		under = p.rec.Id
	}
	if len(g.rec.Tails) > 0 && (state != writv1.GroupState_GROUP_STATE_PROMOTING || !endsConflict(p.rec)) {
		state = writv1.GroupState_GROUP_STATE_CONFLICT
	}
	if under != g.rec.Promotion || state != g.rec.State {
		x.changeGroup(g, func(rec *writv1.Group) { rec.Promotion, rec.State = under, state })
	}
}

// addPromotion takes a promotion in.
func (x *Machine) addPromotion(m lease.Moment, g *group, rec *writv1.Promotion) *promotion {
	p := &promotion{rec: rec, group: g, since: m.Now, asked: m.Now}
	x.promotions[rec.Id] = p
	at, _ := slices.BinarySearchFunc(g.history, rec.Id, func(o *promotion, id string) int { return compareIDs(o.rec.Id, id) })
	g.history = slices.Insert(g.history, at, p)
	x.keepOpen(p)
	return p
}

// dropPromotion forgets one, with its operation.
func (x *Machine) dropPromotion(p *promotion) {
	delete(x.promotions, p.rec.Id)
	for _, list := range []*[]*promotion{&x.open, &x.asking, &p.group.history} {
		*list = slices.DeleteFunc(*list, func(o *promotion) bool { return o == p })
	}
	x.store(PromotionRecord, p.rec.Id, nil)
	for _, id := range append(x.parts[p.rec.Id], p.rec.Id) {
		if x.operations[id] != nil {
			x.dropOperation(id)
		}
	}
	delete(x.parts, p.rec.Id)
	for _, w := range p.waiters {
		delete(x.watches, w.id)
		x.refuse(w.id, lease.Errorf(lease.ReasonNotFound, "the promotion %s has been forgotten", p.rec.Id))
	}
}

// keepOpen keeps open and asking, by id.
func (x *Machine) keepOpen(p *promotion) {
	keep(&x.open, p, !PromotionEnded(p.rec.State))
	keep(&x.asking, p, slices.ContainsFunc(p.rec.Hooks, pending))
}

func keep(list *[]*promotion, p *promotion, wanted bool) {
	at, found := slices.BinarySearchFunc(*list, p.rec.Id, func(o *promotion, id string) int { return strings.Compare(o.rec.Id, id) })
	switch {
	case wanted && !found:
		*list = slices.Insert(*list, at, p)
	case !wanted && found:
		*list = slices.Delete(*list, at, at+1)
	}
}

// openOf lists the promotions of a group that have not ended: at most one, and its successor.
func (x *Machine) openOf(g *group) []*promotion {
	var all []*promotion
	for _, p := range g.history {
		if !PromotionEnded(p.rec.State) {
			all = append(all, p)
		}
	}
	return all
}

// prune forgets the oldest ended promotions of a group.
func (x *Machine) prune(g *group) {
	all := slices.Clone(g.history)
	for i, p := range all {
		if i >= len(all)-keepPromotions {
			return
		}
		if PromotionEnded(p.rec.State) && !x.unsettledLoss(p) {
			x.dropPromotion(p)
		}
	}
}

// unsettledLoss says whether a promotion is what a region in quarantine can be settled by.
func (x *Machine) unsettledLoss(p *promotion) bool {
	return x.maySettle(p) == nil && slices.ContainsFunc(p.rec.Tails, func(lost *writv1.Tail) bool {
		return slices.Contains(p.group.rec.Quarantined, lost.From)
	})
}

// epochOf is the epoch that an id was made in; 0 if it is no id.
func epochOf(id string) fence.Epoch {
	epoch, _ := numbersOf(id)
	return fence.Epoch(epoch)
}

func numbersOf(id string) (epoch, number uint64) {
	before, after, ok := strings.Cut(id[strings.LastIndexByte(id, '-')+1:], ".")
	if !ok {
		return 0, 0
	}
	epoch, _ = strconv.ParseUint(before, 10, 15)
	number, _ = strconv.ParseUint(after, 10, 64)
	return epoch, number
}

// compareIDs orders the ids of a group by age.
func compareIDs(a, b string) int {
	ae, an := numbersOf(a)
	be, bn := numbersOf(b)
	switch {
	case ae != be:
		return compareNumbers(ae, be)
	case an != bn:
		return compareNumbers(an, bn)
	}
	return strings.Compare(a, b)
}

func compareNumbers(a, b uint64) int {
	if a < b {
		return -1
	} else if a > b {
		return 1
	}
	return 0
}

// voidPromotions ends what was begun under another epoch: what it expected is over.
func (x *Machine) voidPromotions(m lease.Moment, room func() bool) bool {
	for _, p := range slices.Clone(x.open) {
		if epochOf(p.rec.Id) == x.config.Epoch {
			continue
		}
		if !room() {
			return false
		}
		x.take(m, p, moveVoid, "quorum", "the quorum was rebuilt: the plan was for the epoch before", nil)
		x.endPlan(m, p, writv1.OperationState_OPERATION_STATE_VOID, p.rec.Reason)
	}
	return true
}

// endPlan ends the promotion's operation, if it was not executed.
func (x *Machine) endPlan(m lease.Moment, p *promotion, state writv1.OperationState, reason string) {
	for _, id := range append([]string{p.rec.Id}, x.parts[p.rec.Id]...) {
		op := x.operations[id]
		if op.GetState() == writv1.OperationState_OPERATION_STATE_PENDING && op.Kind != writv1.OperationKind_OPERATION_KIND_SETTLEMENT {
			x.endOperation(m, op, state, reason)
		}
	}
}
