package sim

import (
	"cmp"
	"crypto/ed25519"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region"
	"github.com/writ-io/writ/region/approval"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// console is where people look after failover groups: they plan what the plan of the run says, sign what waits for them, rightly
// and wrongly, and go on with what is stuck.
type console struct {
	run    *run
	dice   *world.Dice
	wants  map[string][]writv1.PromotionMode // by group, oldest first
	aborts map[string]bool
	tries  map[string]int  // of what was tried, by promotion
	late   map[string]bool // operations: whether they are signed, and not executed before they have expired
	number int
	// gone are guards that people answer for, by name, because tenures rely on them.
	gone map[string]bool
	// fickle people put off what they have signed, think again, and do the same thing at once: in drawn plans. In a scenario they
	// do what it says.
	fickle bool
}

// person is somebody who approves. The first two keys of the first one are hers.
type person struct {
	name    string
	keys    []ssh.Signer
	revoked bool
	until   time.Time // when the keys expire; zero: never
}

// may says whether a signature of that person counts at a time.
func (p person) may(at time.Time) bool { return !p.revoked && (p.until.IsZero() || at.Before(p.until)) }

// people are those of every run: signatures with such keys are the same each time.
var people = func() []person {
	all := []person{{name: "ann"}, {name: "bob"}, {name: "cyd"}, {name: "dan", revoked: true}, {name: "eve", until: time.Unix(1, 0)},
		{name: "fay", until: time.Date(2026, time.January, 1, 0, 1, 40, 0, time.UTC)}} // every clock begins with that day
	for i := range all {
		for j := range 2 {
			seed := make([]byte, ed25519.SeedSize)
			seed[0], seed[1] = byte(i+1), byte(j)
			signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
			if err != nil {
				panic(err)
			}
			all[i].keys = append(all[i].keys, signer)
		}
	}
	return all
}()

// operationsValid is how long an operation may wait for signatures.
const operationsValid = time.Minute

// approvers are the people as the quorum knows them.
func approvers() *writv1.ApproverSet {
	set := &writv1.ApproverSet{Version: 1, Rule: &writv1.ApprovalRule{People: 2, ValidFor: durationpb.New(operationsValid)}}
	for _, p := range people {
		a := &writv1.Approver{Name: p.name, Principals: []string{p.name}}
		for _, key := range p.keys {
			k := &writv1.ApproverKey{PublicKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))), Revoked: p.revoked}
			if !p.until.IsZero() {
				k.ExpiresAt = timestamppb.New(p.until)
			}
			a.Keys = append(a.Keys, k)
		}
		set.Approvers = append(set.Approvers, a)
	}
	return set
}

func newConsole(r *run) *console {
	return &console{run: r, dice: r.world.Dice("console"), wants: make(map[string][]writv1.PromotionMode), aborts: make(map[string]bool), tries: make(map[string]int),
		late: make(map[string]bool), gone: make(map[string]bool), fickle: r.plan.Name == ""}
}

const consoleEvery = 700 * time.Millisecond

// attend looks after every group, for ever.
func (c *console) attend() {
	for _, g := range c.run.plan.Groups {
		c.group(g)
	}
	c.answerForGuards()
	c.run.world.After(c.dice.Between(consoleEvery/2, consoleEvery*3/2), c.attend)
}

// ask asks the coordinator.
func (c *console) ask(who string, ask proto.Message, done func(proto.Message, *lease.Error)) {
	n := c.run.coordinator()
	if n == nil {
		return
	}
	over := false
	n.do(region.Command{Caller: lease.Caller{Principal: lease.Principal(who)}, Ask: ask}, func(r lease.Reply) {
		if over {
			return
		}
		over = true
		if r.Err != nil {
			c.run.story.event(n.process, trace.EventOperator, "%T is refused: %v", ask, r.Err)
			done(nil, r.Err)
			return
		}
		answer, _ := r.Value.(proto.Message)
		done(answer, nil)
	})
}

func nothing(proto.Message, *lease.Error) {}

// group takes the next step for a group.
func (c *console) group(g plan.Group) {
	rec, open := c.run.failovers.groups[g.Name], c.run.openPromotion(g.Name)
	switch {
	case rec == nil && c.run.ruled && c.ready(g):
		c.ask("ann", &writv1.ApplyGroupRequest{Spec: c.run.specOf(g), Reason: "simulated"}, nothing)
		c.approve(g.Name, "", true)
	case rec == nil:
	case open != nil && c.aborts[g.Name]:
		c.abort(g.Name, cmp.Or(c.before(open), open))
	case open != nil && len(c.wants[g.Name]) > 0 && succeeded(open.State):
		c.plan(g.Name, c.wants[g.Name][0])
	case open != nil:
		c.promotion(open)
		c.secondThoughts(open)
	case rec.State == writv1.GroupState_GROUP_STATE_RECOVERED || rec.State == writv1.GroupState_GROUP_STATE_CONFLICT:
		c.plan(g.Name, writv1.PromotionMode_PROMOTION_MODE_RECOVER)
	case len(c.wants[g.Name]) > 0:
		c.plan(g.Name, c.wants[g.Name][0])
	default:
		c.repeatItself(g.Name)
		delete(c.aborts, g.Name)
		c.approve(g.Name, "", true)
	}
}

func (c *console) abort(group string, p *writv1.Promotion) {
	c.ask("ann", &writv1.AbortRequest{Id: p.Id, Reason: "simulated"}, func(_ proto.Message, err *lease.Error) {
		if err == nil || known(err) {
			delete(c.aborts, group)
		}
	})
}

// before is the promotion that is under way while its successor, p, is not; nil: there is none.
func (c *console) before(p *writv1.Promotion) *writv1.Promotion {
	old := c.run.failovers.promotions[p.Supersedes]
	if old == nil || region.PromotionEnded(old.State) || begun(p.State) {
		return nil
	}
	return old
}

func begun(state writv1.PromotionState) bool {
	return state != writv1.PromotionState_PROMOTION_STATE_PROPOSED && state != writv1.PromotionState_PROMOTION_STATE_APPROVING
}

// secondThoughts plans, at times, what is to follow a promotion that has just been granted, or takes that back while its
// successor is being signed: what people have signed then is for a token that is over.
func (c *console) secondThoughts(p *writv1.Promotion) {
	old := c.before(p)
	switch {
	case c.run.healing || !c.fickle:
	case p.State == writv1.PromotionState_PROMOTION_STATE_GRANTED && c.dice.Chance(150):
		c.plan(p.Group, writv1.PromotionMode_PROMOTION_MODE_FAILOVER)
	case old != nil && old.State == writv1.PromotionState_PROMOTION_STATE_GRANTED && c.dice.Chance(150):
		c.abort(p.Group, old)
	}
}

// repeatItself executes again what has been, as somebody does who has lost the answer.
func (c *console) repeatItself(group string) {
	for _, id := range sortedKeys(c.run.failovers.operations) {
		op := c.run.failovers.operations[id]
		if op.Group != group || op.State != writv1.OperationState_OPERATION_STATE_EXECUTED || !c.dice.Chance(30) {
			continue
		}
		if op.Kind == writv1.OperationKind_OPERATION_KIND_PROMOTION {
			c.ask("ann", &writv1.ExecuteRequest{Id: id}, nothing)
		} else {
			c.ask("ann", &writv1.ExecuteOperationRequest{Id: id}, nothing)
		}
	}
}

// succeeded says whether a promotion that has come so far may have a successor.
func succeeded(state writv1.PromotionState) bool {
	return state == writv1.PromotionState_PROMOTION_STATE_GRANTED || state == writv1.PromotionState_PROMOTION_STATE_VERIFYING ||
		state == writv1.PromotionState_PROMOTION_STATE_DEGRADED
}

// ready says whether the guards that the group names are there.
func (c *console) ready(g plan.Group) bool {
	for _, guard := range c.run.through[lease.Resource(g.Name)] {
		if c.run.known[guard.called()] == nil {
			return false
		}
	}
	return true
}

func (c *console) plan(group string, mode writv1.PromotionMode) {
	c.number++
	ask := &writv1.PlanRequest{Group: group, Mode: mode, Reason: "simulated", ValidFor: durationpb.New(c.dice.Between(10*time.Second, operationsValid)), RequestId: decimal(uint64(c.number))}
	if mode == writv1.PromotionMode_PROMOTION_MODE_RECOVER {
		ask.To = c.run.failovers.groups[group].LastPrimary
		if ask.To == "" {
			ask.To = c.run.failovers.groups[group].Spec.Regions[0].Name
		}
	}
	c.ask("ann", ask, func(_ proto.Message, err *lease.Error) {
		if wants := c.wants[group]; len(wants) > 0 && wants[0] == mode && (err == nil || known(err) && c.again("plan "+group) > 5) {
			c.wants[group] = wants[1:]
		}
	})
}

// again counts how often something was tried.
func (c *console) again(what string) int {
	c.tries[what]++
	return c.tries[what]
}

// promotion goes on with one.
func (c *console) promotion(p *writv1.Promotion) {
	switch p.State {
	case writv1.PromotionState_PROMOTION_STATE_PROPOSED, writv1.PromotionState_PROMOTION_STATE_APPROVING:
		if c.dice.Chance(300) { // too early, perhaps
			c.ask("ann", &writv1.ExecuteRequest{Id: p.Id}, nothing)
		}
		if c.approve(p.Group, p.Id, false) {
			c.atOnce(func() {
				c.ask("ann", &writv1.ExecuteRequest{Id: p.Id}, func(_ proto.Message, err *lease.Error) {
					if err != nil && err.Reason == lease.ReasonStaleToken {
						c.run.failovers.reached[markOvertaken]++
					}
				})
			})
		}
		if c.again("approve "+p.Id) > 40 {
			c.ask("ann", &writv1.AbortRequest{Id: p.Id, Reason: "nobody signs"}, nothing)
		}
		return
	case writv1.PromotionState_PROMOTION_STATE_TAIL:
		c.approve(p.Group, p.Id, true)
		if c.hopeless(p.Group, p.Id) {
			c.run.failovers.reached[markSpent]++
			c.ask("ann", &writv1.AbortRequest{Id: p.Id, Reason: "nobody accepts the loss"}, nothing)
		}
	case writv1.PromotionState_PROMOTION_STATE_DEGRADED:
		if !c.waiting(p.Group, p.Id) {
			ask := &writv1.ReinstateRequest{Id: p.Id, Disposition: writv1.Disposition_DISPOSITION_DISCARDED, Reason: "simulated"}
			c.ask("ann", ask, nothing)
		}
		c.approve(p.Group, p.Id, true)
	default:
	}
	if p.Stuck {
		tries := c.again("resume " + p.Id + stateOf(p.State))
		if tries > 30 && p.State == writv1.PromotionState_PROMOTION_STATE_PREFLIGHT {
			c.ask("ann", &writv1.AbortRequest{Id: p.Id, Reason: "it goes no further"}, nothing)
			return
		}
		c.ask("ann", &writv1.ResumeRequest{Id: p.Id, SkipHook: tries > 12 && tries%2 == 0, Reason: "simulated"}, nothing)
	}
}

// pending lists what waits for signatures within a promotion.
func (c *console) pending(group, promotion string) []*writv1.Operation {
	var list []*writv1.Operation
	for _, id := range sortedKeys(c.run.failovers.operations) {
		op := c.run.failovers.operations[id]
		if op.Group == group && op.Promotion == promotion && op.State == writv1.OperationState_OPERATION_STATE_PENDING && op.Id != promotion {
			list = append(list, op)
		}
	}
	return list
}

// waiting says whether something of a promotion waits for signatures that may still come.
func (c *console) waiting(group, promotion string) bool {
	list := c.pending(group, promotion)
	waits := slices.ContainsFunc(list, func(op *writv1.Operation) bool { return !c.spent(op) })
	if !waits && len(list) > 0 {
		c.run.failovers.reached[markSpent]++
	}
	return waits
}

// hopeless says whether something waits for signatures of which none can come.
func (c *console) hopeless(group, promotion string) bool {
	return slices.ContainsFunc(c.pending(group, promotion), c.spent)
}

// spent says whether so many people have taken their signatures back, which they cannot give again, that an operation has to be
// proposed anew.
func (c *console) spent(op *writv1.Operation) bool {
	left := 0
	for _, p := range people {
		back := slices.ContainsFunc(op.Approvals, func(a *writv1.Approval) bool { return a.Approver == p.name && a.Withdrawn })
		if p.may(c.run.coordinatorWall()) && !back {
			left++
		}
	}
	return left < 2
}

// tooLate says whether somebody has put an operation off until it has expired. Nobody does when everything is healed.
func (c *console) tooLate(op *writv1.Operation) bool {
	if !c.fickle {
		return false
	}
	late, drawn := c.late[op.Id]
	if !drawn {
		late = c.dice.Chance(120)
		c.late[op.Id] = late
	}
	const margin = 3 * time.Second
	if late && !c.run.healing {
		c.run.failovers.reached[markPutOff]++
	}
	return late && !c.run.healing && c.run.coordinatorWall().Before(op.ExpiresAt.AsTime().Add(margin))
}

// atOnce executes something, and at times twice in the same moment, as two people do who look at the same console.
func (c *console) atOnce(execute func()) {
	execute()
	if c.fickle && c.dice.Chance(400) {
		execute()
	}
}

// approve signs what waits for that in a group, and executes it if execute says so. It answers whether as many have signed as
// have to.
func (c *console) approve(group, promotion string, execute bool) (enough bool) {
	for _, id := range sortedKeys(c.run.failovers.operations) {
		op := c.run.failovers.operations[id]
		if op.Group != group || op.State != writv1.OperationState_OPERATION_STATE_PENDING || execute == (op.Kind == writv1.OperationKind_OPERATION_KIND_PROMOTION) {
			continue
		}
		if promotion != "" && op.Promotion != promotion && op.Id != promotion {
			continue
		}
		if op.Rule.GetNone() || c.run.judge.Signers(op.Digest, op.Approvals, c.run.coordinatorWall()) >= 2 {
			if c.tooLate(op) {
				continue
			}
			enough = true
			if execute {
				c.atOnce(func() { c.ask("ann", &writv1.ExecuteOperationRequest{Id: id}, nothing) })
			}
			continue
		}
		c.sign(op)
		if execute && c.dice.Chance(200) { // with too few, perhaps
			c.ask("ann", &writv1.ExecuteOperationRequest{Id: id}, nothing)
		}
	}
	return enough
}

// sign has somebody sign an operation: at times one whose signature does not count, at times something else.
func (c *console) sign(op *writv1.Operation) {
	who := people[c.dice.Intn(len(people))]
	document := op.Document
	wrong := c.dice.Chance(100)
	if wrong {
		document = slices.Concat(document[:len(document)-1], []byte(`,"z":1}`))
	}
	armored, err := approval.Sign(who.keys[c.dice.Intn(len(who.keys))], approval.Namespace, document)
	if err != nil {
		panic(err)
	}
	if !wrong {
		c.run.judge.Signs(who.name, op.Digest, who.may)
	}
	c.ask(who.name, &writv1.ApproveRequest{Id: op.Id, Signature: armored}, nothing)
	if c.dice.Chance(60) {
		c.ask(who.name, &writv1.WithdrawRequest{Id: op.Id, Approver: who.name, Reason: "simulated"}, func(_ proto.Message, err *lease.Error) {
			if err == nil {
				c.run.judge.Withdraws(who.name, op.Digest)
			}
		})
	}
}

// settled says what a promotion that has not ended waits for; empty: all have ended.
func (c *console) settled() string {
	for _, g := range c.run.plan.Groups {
		if p := c.run.openPromotion(g.Name); p != nil {
			return p.Id + " is " + stateOf(p.State) + " " + p.Reason
		}
		if rec := c.run.failovers.groups[g.Name]; rec != nil && rec.Primary == "" {
			return g.Name + " has no primary, and is " + rec.State.String()
		}
	}
	return ""
}
