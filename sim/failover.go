package sim

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/region"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// failovers is what a run knows of its failover groups: what was committed of them, as anybody may read it.
type failovers struct {
	groups     map[string]*writv1.Group
	promotions map[string]*writv1.Promotion
	order      []string // of promotions, as they came
	operations map[string]*writv1.Operation
	epoch      uint32 // of the quorum
	ambushes   []*ambush
	reached    map[string]uint64 // states and transitions
}

// ambush waits for a promotion to enter a state.
type ambush struct {
	states []string
	length time.Duration
}

func newFailovers() failovers {
	return failovers{
		groups: make(map[string]*writv1.Group), promotions: make(map[string]*writv1.Promotion), operations: make(map[string]*writv1.Operation),
		reached: make(map[string]uint64),
	}
}

const hookTimeout = 5 * time.Second

// specOf is what operators apply for a group of the plan.
func (r *run) specOf(g plan.Group) *writv1.GroupSpec {
	spec := &writv1.GroupSpec{Name: g.Name, Rpo: &writv1.Loss{Time: durationpb.New(g.RPO)}, Headroom: 100}
	if g.Drain != 0 {
		spec.Drain = durationpb.New(g.Drain)
	}
	if !g.Signed {
		spec.Approvals = &writv1.GroupApprovals{Switchover: &writv1.ApprovalRule{None: true}}
	}
	if g.Automatic {
		spec.Automatic = []*writv1.Direction{{From: g.Regions[0], To: g.Regions[1]}}
	}
	for i, name := range g.Regions {
		role := writv1.RegionRole_REGION_ROLE_STANDBY
		if i == 0 {
			role = writv1.RegionRole_REGION_ROLE_PRIMARY
		}
		at := &writv1.GroupRegion{Name: name, Role: role, Priority: int32(len(g.Regions) - i), Agent: agentPrincipal(name)}
		for _, guard := range r.through[lease.Resource(g.Name)] {
			if guard.spec.Region == name && guard.spec.As == "" {
				at.Guards = append(at.Guards, guard.spec.Name)
			}
		}
		spec.Regions = append(spec.Regions, at)
	}
	for kind := writv1.HookKind_HOOK_KIND_DRAIN; kind <= writv1.HookKind_HOOK_KIND_REINSTATE; kind++ {
		spec.Hooks = append(spec.Hooks, &writv1.Hook{Kind: kind, Timeout: durationpb.New(hookTimeout)})
	}
	return spec
}

func agentPrincipal(region string) string { return "agent-" + region }

// failoverCommitted takes in what was committed of groups, promotions and operations.
func (r *run) failoverCommitted(c quorumChange) {
	moved := make(map[lease.Resource]bool) // whose tenures may end in this commit
	for _, e := range c.Entries {
		switch name, kind := failoverKey(e.Key); kind {
		case region.GroupRecord:
			take(r, r.failovers.groups, name, e.Value)
			if g := r.failovers.groups[name]; g.GetState() == writv1.GroupState_GROUP_STATE_CONFLICT {
				moved[lease.Resource(name)] = true
			}
		case region.PromotionRecord:
			before := r.failovers.promotions[name]
			take(r, r.failovers.promotions, name, e.Value)
			if now := r.failovers.promotions[name]; now != nil {
				r.promotionCommitted(before, now)
				if entered := before.GetState() != now.State; entered && (stateOf(now.State) == "fencing" || stateOf(now.State) == "rolling_back") {
					moved[lease.Resource(now.Group)] = true
				}
			}
		case region.OperationRecord:
			take(r, r.failovers.operations, name, e.Value)
			if op := r.failovers.operations[name]; op != nil {
				if p := r.failovers.promotions[op.Id]; p != nil {
					r.judge.Agrees(p, op)
				}
				r.judge.Operation(op)
			}
		default:
			if strings.HasPrefix(e.Key, quorum.Prefix+"audit/") && e.Value != nil {
				if rec, err := audit.Parse(e.Value); err == nil && rec.Detail["transition"] != "" {
					r.failovers.reached["transition-"+rec.Detail["transition"]]++
				}
			}
			if e.Key == quorum.KeyIdentity {
				var id writv1.IdentityRecord
				if err := proto.Unmarshal(e.Value, &id); err == nil {
					r.failovers.epoch = id.Epoch
				}
			}
		}
	}
	r.judge.Moved(func(name lease.Resource) bool { return moved[name] }, r.failovers.epoch)
}

// recallCommitted takes in what a quorum that was put back still knows of groups and guards. Nobody changes any of that before
// the first of its coordinators has loaded it, so the image from which that one does is what all later changes begin with. One
// looked at later may lag behind changes that were taken in, which would then be forgotten.
func (r *run) recallCommitted(image *quorum.Image) {
	if r.recalled == r.lineage {
		return
	}
	r.recalled = r.lineage
	var entries []quorum.Entry
	image.Ascend("", func(e quorum.Entry) bool {
		entries = append(entries, e)
		return true
	})
	r.known = r.recall(entries).guards
	clear(r.failovers.groups)
	clear(r.failovers.promotions)
	clear(r.failovers.operations)
	for _, e := range entries {
		switch name, kind := failoverKey(e.Key); kind {
		case region.GroupRecord:
			take(r, r.failovers.groups, name, e.Value)
		case region.PromotionRecord:
			take(r, r.failovers.promotions, name, e.Value)
		case region.OperationRecord:
			take(r, r.failovers.operations, name, e.Value)
		default: // what is known of it, the judge keeps
		}
	}
}

// failoverKey says what a key is of.
func failoverKey(key string) (name string, kind region.RecordKind) {
	for _, kind := range []region.RecordKind{region.GroupRecord, region.PromotionRecord, region.OperationRecord} {
		if name, ok := strings.CutPrefix(key, quorum.RegionKey(kind, "")); ok {
			return name, kind
		}
	}
	return "", 0
}

// take reads a record, or forgets it.
func take[R any, P interface {
	*R
	proto.Message
}](r *run, all map[string]P, name string, value []byte) {
	if value == nil {
		delete(all, name)
		return
	}
	rec := P(new(R))
	if err := proto.Unmarshal(value, rec); err != nil {
		r.violation("D1", "the record "+name+" cannot be read: "+err.Error())
		return
	}
	all[name] = rec
}

// stateOf is a promotion's state as plans call it.
func stateOf(s writv1.PromotionState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "PROMOTION_STATE_"))
}

func (r *run) promotionCommitted(before, now *writv1.Promotion) {
	if before == nil {
		r.failovers.order = append(r.failovers.order, now.Id)
	}
	if before != nil && before.State == now.State {
		return
	}
	state := stateOf(now.State)
	r.failovers.reached["promotion-"+state]++
	r.story.event(nil, trace.EventCommit, "promotion %s is %s: %s", now.Id, state, now.Reason)
	r.judge.Promotion(now)
	for i, a := range r.failovers.ambushes {
		for _, s := range a.states {
			if s == state {
				r.failovers.ambushes = append(r.failovers.ambushes[:i:i], r.failovers.ambushes[i+1:]...)
				r.world.After(0, func() { r.spring(a, state) })
				return
			}
		}
	}
}

// spring ends the coordinator.
func (r *run) spring(a *ambush, state string) {
	n := r.coordinator()
	if n == nil || r.healing {
		return
	}
	r.failovers.reached["coordinator-lost-in-"+state]++
	r.story.event(n.process, trace.EventFault, "dies as a promotion is %s", state)
	n.crash()
	r.world.After(a.length, n.start)
}

// openPromotion is the newest promotion of a group that has not ended; nil: there is none.
func (r *run) openPromotion(group string) *writv1.Promotion {
	for i := len(r.failovers.order) - 1; i >= 0; i-- {
		if p := r.failovers.promotions[r.failovers.order[i]]; p != nil && p.Group == group && !region.PromotionEnded(p.State) {
			return p
		}
	}
	return nil
}

func (r *run) coordinatorWall() time.Time {
	if n := r.coordinator(); n != nil {
		return n.process.Clock.Wall()
	}
	return time.Time{}
}

// worsen has an agent say for a while that its region has failed, or its hooks fail.
func (r *run) worsen(kind plan.Kind, p *world.Process) (end func()) {
	a, ok := r.actor(p).(*agent)
	if !ok {
		return nil
	}
	count := &a.ill
	if kind == plan.BadHooks {
		count = &a.bad
	}
	*count++
	return func() { *count-- }
}

// promotionsPatience bounds how long a promotion may take when nothing is wrong any more and people sign.
const promotionsPatience = 5 * time.Minute

// promotionsEnd waits until every promotion has ended.
func (r *run) promotionsEnd() {
	r.failovers.ambushes = nil
	clear(r.console.wants)
	limit := r.world.Now() + promotionsPatience + 2*r.guardPatience()
	for len(r.plan.Groups) > 0 && r.console.settled() != "" {
		if r.world.Now() > limit {
			r.violation("L1", "a promotion did not end: "+r.console.settled())
			return
		}
		r.world.Run(r.world.Now() + 100*time.Millisecond)
		r.mend()
	}
}
