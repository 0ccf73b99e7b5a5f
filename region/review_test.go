package region

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

const (
	demoteHook = writv1.HookKind_HOOK_KIND_DEMOTE
	drainHook  = writv1.HookKind_HOOK_KIND_DRAIN
)

// A demote that A never answered is over when A is primary again: whatever comes of its agent must not turn it into a standby.
func TestADemoteOutlivesNoFailback(t *testing.T) {
	w := newOrders(t, nil)
	w.agents["eu"].silent[demoteHook] = true
	first := w.begun(modeSwitchover, "us", nil)
	w.carry(first, journey{mode: modeSwitchover}, func() {})
	if w.state(first) != done || !slices.ContainsFunc(w.promotions[first].Hooks, func(r *writv1.HookRun) bool { return r.Kind == demoteHook && pending(r) }) {
		t.Fatalf("it is %s: %v", stateName(w.state(first)), w.promotions[first].Hooks)
	}
	second := w.begun(writv1.PromotionMode_PROMOTION_MODE_FAILBACK, "eu", nil)
	w.carry(second, journey{mode: modeSwitchover}, func() {})
	w.agents["eu"].silent[demoteHook] = false
	for _, change := range []func(){func() {}, w.takeover} {
		change()
		w.agents["eu"].session++ // a run that has been given nothing yet
		w.pass(5 * time.Second)
		if did := strings.Join(w.agents["eu"].did, ", "); strings.Contains(did, first+"/") && strings.Contains(did, "demote") {
			t.Fatalf("eu, which is primary, did %s", did)
		}
	}
	if g := w.groups["orders"]; g.Primary != "eu" {
		t.Fatalf("the group is %v", g)
	}
	for _, run := range w.promotions[first].Hooks {
		if pending(run) && run.Region == "eu" {
			t.Errorf("%v is still asked of the primary", run)
		}
	}
}

// A limit in bytes alone says nothing of what A wrote after it was last heard of.
func TestBytesOfASilentPrimaryAreALowerBound(t *testing.T) {
	for name, c := range map[string]struct {
		limit *writv1.Loss
		want  writv1.PromotionState
	}{
		"bytes alone":               {&writv1.Loss{Bytes: proto.Uint64(1 << 40)}, tail},
		"a time that covers it":     {&writv1.Loss{Bytes: proto.Uint64(1000), Time: durationpb.New(time.Minute)}, degraded},
		"a time that does not":      {&writv1.Loss{Bytes: proto.Uint64(1000), Time: durationpb.New(10 * time.Second)}, tail},
		"fewer bytes than at least": {&writv1.Loss{Bytes: proto.Uint64(599), Time: durationpb.New(time.Minute)}, tail},
		"time alone":                {&writv1.Loss{Time: durationpb.New(time.Minute)}, degraded},
		"any loss":                  {&writv1.Loss{}, degraded},
	} {
		t.Run(name, func(t *testing.T) {
			w := newOrders(t, nil)
			w.agents["us"].position = 400
			w.pass(time.Second)
			w.agents["eu"].dead, w.deadGuards["guard-eu"] = true, true
			w.pass(4 * time.Second)
			p, err := w.plan(modeFailover, "us", c.limit)
			if err != nil {
				t.Fatal(err)
			}
			document := string(w.operations[p.Id].Document)
			if !strings.Contains(document, `"at_least_bytes":"600"`) || strings.Contains(document, `"bytes":"600"`) || !strings.Contains(document, `"silence":"4s"`) {
				t.Errorf("what is signed does not say how little is known: %s", document)
			}
			if err := w.sign(p.Id); err != nil {
				t.Fatal(err)
			}
			w.must("ops", &writv1.ExecuteRequest{Id: p.Id})
			w.pass(20 * time.Second)
			if w.state(p.Id) != c.want {
				t.Fatal(w.tell())
			}
			if lost := w.promotions[p.Id].Tails[0]; lost.Bytes != nil || lost.Time.AsDuration() < 12*time.Second {
				t.Errorf("the tail is %v", lost)
			}
		})
	}
}

// Without a drain hook, only what was looked at after fencing says that nothing is lost: what a probe saw before, or an agent
// sent before, is of a time at which A could write.
func TestLooksFromBeforeFencingProveNothing(t *testing.T) {
	without := func(s *writv1.GroupSpec) {
		s.Hooks = slices.DeleteFunc(s.Hooks, func(h *writv1.Hook) bool { return h.Kind == drainHook })
		s.Rpo.Time = durationpb.New(time.Hour)
	}
	for name, c := range map[string]struct {
		age  time.Duration
		want writv1.PromotionState
	}{
		"looks from after fencing": {0, done},
		"older looks":              {20 * time.Second, degraded},
	} {
		t.Run(name, func(t *testing.T) {
			w := newOrders(t, without)
			for _, a := range w.agents {
				a.age = c.age
			}
			id := w.begun(modeSwitchover, "us", nil)
			w.pass(15 * time.Second)
			if w.state(id) != c.want {
				t.Fatal(w.tell())
			}
		})
	}
}

// Where nobody signs a switchover, one person must not make a failover of it by what the plan accepts, or by skipping the drain.
func TestALossAboveTheRPOIsAlwaysSigned(t *testing.T) {
	w := newOrders(t, nil)
	for _, limit := range []*writv1.Loss{{}, {Time: durationpb.New(8760 * time.Hour)}, {Bytes: proto.Uint64(0)}} {
		refused(t, w, &writv1.PlanRequest{Group: "orders", To: "us", Mode: modeSwitchover, LossCap: limit}, lease.ReasonInvalid, "above the rpo", "operation.refuse")
	}
	if _, err := w.plan(modeSwitchover, "us", &writv1.Loss{Time: durationpb.New(time.Second)}); err != nil {
		t.Errorf("a cap below the rpo: %v", err)
	}
	without := newOrders(t, func(s *writv1.GroupSpec) { s.Rpo = nil })
	refused(t, without, &writv1.PlanRequest{Group: "orders", To: "us", Mode: modeSwitchover, LossCap: &writv1.Loss{}}, lease.ReasonInvalid, "above the rpo", "operation.refuse")

	for name, drained := range map[string]bool{"no drain hook": false, "the drain is skipped": true} {
		t.Run(name, func(t *testing.T) {
			w := newOrders(t, func(s *writv1.GroupSpec) {
				s.Hooks = slices.DeleteFunc(s.Hooks, func(h *writv1.Hook) bool { return h.Kind == drainHook && !drained })
			})
			w.agents["eu"].outcomes[drainHook] = writv1.HookOutcome_HOOK_OUTCOME_FAILED
			p, err := w.plan(modeSwitchover, "us", nil)
			if err != nil {
				t.Fatal(err)
			}
			// The cap stands in the record, as in one from before it was refused.
			rec := proto.CloneOf(w.promotions[p.Id])
			rec.LossCap = &writv1.Loss{}
			w.promotions[p.Id] = rec
			w.takeover()
			w.pass(2 * time.Second)
			w.deadGuards["guard-eu"] = true
			w.must("ops", &writv1.ExecuteRequest{Id: p.Id})
			w.settle()
			if drained {
				w.must("ops", &writv1.ResumeRequest{Id: p.Id, SkipHook: true})
				w.settle()
			}
			if w.state(p.Id) != fencing {
				t.Fatal(w.tell())
			}
			w.agents["eu"].dead = true
			w.pass(time.Minute)
			if w.state(p.Id) != tail || w.groups["orders"].Primary != "" {
				t.Fatal(w.tell())
			}
			for _, op := range w.must("ops", &writv1.ListOperationsRequest{Group: "orders", Open: true}).(*writv1.ListOperationsResponse).Operations {
				if op.Kind != writv1.OperationKind_OPERATION_KIND_TAIL || op.Missing != "2 more people" {
					t.Errorf("it waits for %v", op)
				}
			}
		})
	}
}

func TestAPlanWhoseTokenMovesIsCancelled(t *testing.T) {
	w := newOrders(t, nil)
	p, err := w.plan(modeFailover, "us", &writv1.Loss{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.sign(p.Id); err != nil {
		t.Fatal(err)
	}
	// Behind the machine's back, as no coordinator should see it.
	w.table.FenceTenure(w.moment(), "orders")
	w.pass(15 * time.Second)
	if _, ok := w.table.GrantTenure(w.moment(), "orders", "eu"); !ok {
		t.Fatal("not granted")
	}
	if _, err := w.ask("ops", &writv1.ExecuteRequest{Id: p.Id}); err == nil || err.Reason != lease.ReasonStaleToken {
		t.Fatalf("executed: %v", err)
	}
	if g := w.groups["orders"]; g.Primary != "eu" || w.operations[p.Id].State != writv1.OperationState_OPERATION_STATE_PENDING {
		t.Errorf("the group is %v, the operation %v", g, w.operations[p.Id].State)
	}
}

func TestConfidenceOfCertificatesAndConfigurations(t *testing.T) {
	w := quietOrders(t)
	say := func(region, digest string, left time.Duration) {
		poll := orderPoll(region, "1")
		poll.CertificateExpiresAt = timestamppb.New(w.moment().Wall.Add(left))
		poll.Reports[0].ConfigDigest = digest
		w.pollAs("agent-"+region, poll)
	}
	say("eu", "a", 365*24*time.Hour)
	say("us", "b", time.Hour)
	say("ap", "a", 3*24*time.Hour)
	lines := map[string]*writv1.ConfidenceLine{}
	answer := w.must("ops", &writv1.ConfidenceRequest{Group: "orders", To: "us"}).(*writv1.ConfidenceResponse)
	for _, l := range answer.Lines {
		lines[l.Check] = l
	}
	for check, want := range map[string]struct {
		ok, warning bool
		says        string
	}{
		"agent eu": {true, false, "lasts until"}, "agent us": {false, false, "expires at"}, "agent ap": {false, true, "expires at"},
		"configuration": {false, false, "differs"},
	} {
		if l := lines[check]; l.GetOk() != want.ok || l.GetWarning() != want.warning || !strings.Contains(l.GetDetail(), want.says) {
			t.Errorf("%s is told as %v", check, l)
		}
	}
	if answer.Go {
		t.Error("it says go")
	}
	say("us", "a", 365*24*time.Hour)
	for _, l := range w.must("ops", &writv1.ConfidenceRequest{Group: "orders", To: "us"}).(*writv1.ConfidenceResponse).Lines {
		if (l.Check == "configuration" || l.Check == "agent us") && !l.Ok {
			t.Errorf("%v", l)
		}
	}
}

// What agents say comes from outside: nothing of it stops a coordinator, or grows without bound.
func TestAgentsSayWhatTheyLike(t *testing.T) {
	w := newOrders(t, nil)
	id := w.begun(modeSwitchover, "us", nil)
	long := strings.Repeat("x", 1<<20)
	for _, health := range []writv1.Health{99, -1, 0} {
		poll := orderPoll("us", fmt.Sprint("odd", health))
		poll.Agent = "odd"
		poll.Reports[0] = &writv1.GroupReport{Group: "orders", Health: health, Detail: long, ConfigDigest: long, Lag: durationpb.New(-time.Hour), Age: durationpb.New(-time.Hour),
			Position: &writv1.Position{Log: long, Bytes: 1<<64 - 1}, Upstream: &writv1.Position{Text: long}, Hooks: []writv1.HookKind{99}, Peers: make([]*writv1.PeerReport, 1000)}
		poll.Results = []*writv1.TaskResult{{Group: "orders", Promotion: id, Step: 1, Kind: 99, Outcome: 99, Position: &writv1.Position{Log: long}}}
		w.pollAs("agent-us", poll)
		w.must("ops", &writv1.ConfidenceRequest{Group: "orders", To: "us"})
		w.must("ops", &writv1.ExplainRequest{Group: "orders"})
		w.settle()
	}
	if r := w.machine.view(w.machine.groups["orders"], "us").report; proto.Size(r) > 16<<10 {
		t.Errorf("a report takes %d bytes", proto.Size(r))
	}
	if _, err := w.ask("ops", &writv1.ChangeApproversRequest{}); err == nil {
		t.Error("no set is taken for one")
	}
}

func TestStrangersArePolledForWithoutATrace(t *testing.T) {
	w := newOrders(t, nil)
	notes := len(w.notes)
	for i := range maxAgents + 10 {
		w.machineAsks = append(w.machineAsks, Request{ID: lease.CallID(1<<40 + i), Intake: w.now, Command: Command{Caller: caller("stranger"),
			Ask: &writv1.AgentPollRequest{Agent: fmt.Sprint(i), Region: "eu", Session: "1"}}})
		if i%1000 == 0 {
			w.round()
		}
	}
	w.round()
	if n := len(w.machine.agents); n > maxAgents {
		t.Errorf("%d agents are remembered", n)
	}
	if len(w.notes) != notes {
		t.Errorf("%v was noted", w.notes[notes:])
	}
}

// What a region lost stays settleable, whatever became of the promotion: or it would be in quarantine for ever.
func TestQuarantineHasAWayOut(t *testing.T) {
	w := newOrders(t, nil)
	w.agents["eu"].dead = true
	id := w.begun(modeFailover, "us", &writv1.Loss{})
	for range 100 {
		if w.state(id) == degraded {
			break
		}
		w.pass(500 * time.Millisecond)
	}
	w.rebuild()
	w.settle()
	w.pass(2 * time.Second)
	if g := w.groups["orders"]; w.state(id) != void || !slices.Contains(g.Quarantined, "eu") {
		t.Fatalf("%s, %v", w.tell(), g)
	}
	again := w.begun(writv1.PromotionMode_PROMOTION_MODE_RECOVER, "us", &writv1.Loss{})
	w.carry(again, journey{mode: modeSwitchover}, func() {})
	for i := range keepPromotions + 5 { // plans that come and go
		p, err := w.plan(modeSwitchover, "ap", nil)
		if err != nil {
			t.Fatal(i, err)
		}
		w.must("ops", &writv1.AbortRequest{Id: p.Id})
	}
	if w.promotions[id] == nil || len(w.promotions) > keepPromotions+2 {
		t.Fatalf("of %d promotions, the one that the quarantine rests on is %v", len(w.promotions), w.promotions[id])
	}
	op := w.must("ops", &writv1.ReinstateRequest{Id: id, Disposition: writv1.Disposition_DISPOSITION_ACCEPTED}).(*writv1.Operation)
	if err := w.sign(op.Id); err != nil {
		t.Fatal(err)
	}
	w.must("ops", &writv1.ExecuteOperationRequest{Id: op.Id})
	if g := w.groups["orders"]; len(g.Quarantined) != 0 {
		t.Errorf("still in quarantine: %v", g.Quarantined)
	}
}

// A promotion that is lost to a rebuilt quorum while A is being fenced leaves it known whose writes there were.
func TestWhoWasPrimaryIsKnownWhileFencing(t *testing.T) {
	w := newOrders(t, nil)
	w.agents["eu"].dead, w.deadGuards["guard-eu"] = true, true
	id := w.begun(modeFailover, "us", &writv1.Loss{})
	w.settle()
	if w.state(id) != fencing {
		t.Fatal(w.tell())
	}
	w.rebuild()
	w.settle()
	if g := w.groups["orders"]; g.LastPrimary != "eu" {
		t.Fatalf("the group is %v", g)
	}
	again := w.begun(writv1.PromotionMode_PROMOTION_MODE_RECOVER, "us", nil)
	w.pass(30 * time.Second)
	if w.state(again) != tail {
		t.Errorf("nothing was asked of what eu wrote: %s", w.tell())
	}
}

// A successor that comes when its predecessor has been settled carries nothing over that nobody lost.
func TestASettledTailIsNotCarriedOver(t *testing.T) {
	w := newOrders(t, nil)
	first := w.begun(modeFailover, "us", &writv1.Loss{})
	for range 100 {
		if w.state(first) == degraded {
			break
		}
		w.pass(500 * time.Millisecond)
	}
	next, err := w.plan(modeSwitchover, "ap", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.must("ops", &writv1.ReinstateRequest{Id: first, Disposition: writv1.Disposition_DISPOSITION_ACCEPTED})
	w.agreeAll(first)
	w.pass(5 * time.Second)
	if w.state(first) != done {
		t.Fatal(w.tell())
	}
	w.must("ops", &writv1.ExecuteRequest{Id: next.Id})
	w.pass(10 * time.Second)
	if p := w.promotions[next.Id]; p.State != done || len(p.Tails) != 0 || len(w.groups["orders"].Quarantined) != 0 {
		t.Errorf("%s, %v", w.tell(), p.Tails)
	}
}

// How each hook went last is not forgotten, however often one of them is tried again.
func TestRepeatedHooksPushNothingOut(t *testing.T) {
	w := newOrders(t, nil)
	w.agents["us"].outcomes[writv1.HookKind_HOOK_KIND_SHIFT] = writv1.HookOutcome_HOOK_OUTCOME_FAILED
	id := w.begun(modeSwitchover, "us", nil)
	w.pass(time.Second)
	for range maxHookRuns + 5 {
		w.must("ops", &writv1.ResumeRequest{Id: id})
		w.settle()
	}
	promoted := 0
	for _, did := range w.agents["us"].did {
		if strings.HasSuffix(did, " promote") {
			promoted++
		}
	}
	if p := w.promotions[id]; promoted != 1 || p.State != granted || len(p.Hooks) > maxHookRuns {
		t.Errorf("promoted %d times, %s, %d runs", promoted, w.tell(), len(p.Hooks))
	}
}

// loaded makes a coordinator of many groups with pending operations.
func loaded(t *testing.T, groups, each int) (*Machine, lease.Moment) {
	t.Helper()
	w := newOrders(t, nil)
	p, err := w.plan(modeFailover, "us", &writv1.Loss{})
	if err != nil {
		t.Fatal(err)
	}
	w.settle()
	state := State{Approvers: w.approvers}
	for i := range groups {
		name := fmt.Sprintf("g%04d", i)
		g := proto.CloneOf(w.groups["orders"])
		g.Spec.Name, g.Spec.Resource = name, name
		state.Groups = append(state.Groups, g)
		for n := range each {
			op := proto.CloneOf(w.operations[p.Id])
			op.Id, op.Group, op.Kind = fmt.Sprintf("%s-1.%d", name, n+1), name, writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE
			if n == 0 {
				op.Kind = writv1.OperationKind_OPERATION_KIND_PROMOTION
				rec := proto.CloneOf(w.promotions[p.Id])
				rec.Id, rec.Group = op.Id, name
				state.Promotions = append(state.Promotions, rec)
			}
			state.Operations = append(state.Operations, op)
		}
	}
	w.config.Epoch++
	w.config.Term++
	table := lease.NewTable(lease.TableConfig{GuardLease: 10 * time.Second}, w.config.Epoch)
	table.Allow(1, 100000)
	m := lease.Moment{Now: clock.Instant(2 * time.Hour), Wall: worldStart.Add(time.Minute)}
	machine := NewMachine(w.config, table)
	machine.Load(m, state)
	return machine, m
}

// drain steps the machine until nothing is due, and says how many rounds that took; no commit may exceed what a quorum takes.
func drainRounds(t *testing.T, x *Machine, m lease.Moment) int {
	t.Helper()
	for round := range 10000 {
		notes, told := 0, 0
		for _, ev := range []Event{Gone{}, Tick{MaxWrites: x.DirtyWrites() + 128, MaxBytes: x.DirtyBytes() + 64<<10}} {
			for _, n := range x.Step(m, ev).Notes {
				notes++
				told += len(n.Action) + len(n.Target) + len(n.Reason)
				for k, v := range n.Detail {
					told += len(k) + len(v)
				}
			}
		}
		if writes, bytes := x.DirtyWrites()+notes, x.DirtyBytes()+told; writes > 2000 || bytes > 600<<10 {
			t.Fatalf("round %d takes %d writes of %d bytes", round, writes, bytes)
		}
		x.Dirty(func(Change) {})
		if x.NextDue() > m.Now {
			return round
		}
	}
	t.Fatal("there is no end to it")
	return 0
}

func TestAnotherEpochEndsThousandsOfOperationsInPieces(t *testing.T) {
	x, m := loaded(t, 1000, 5)
	rounds := drainRounds(t, x, m)
	for id, op := range x.operations {
		if op.State != writv1.OperationState_OPERATION_STATE_VOID {
			t.Fatalf("%s is %v", id, op.State)
		}
	}
	for name, g := range x.groups {
		if g.rec.State != writv1.GroupState_GROUP_STATE_RECOVERED || g.rec.Primary != "" {
			t.Fatalf("%s is %v", name, g.rec)
		}
	}
	if rounds < 10 || len(x.pending) != 0 {
		t.Errorf("%d rounds, %d pending", rounds, len(x.pending))
	}
}

func TestOtherApproversEndThousandsOfOperationsInPieces(t *testing.T) {
	x, m := loaded(t, 1, 1)
	drainRounds(t, x, m)
	for i := range 3000 {
		op := &writv1.Operation{Id: fmt.Sprintf("g%04d-2.%d", i, i), Group: fmt.Sprintf("g%04d", i), Kind: writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE,
			Document: []byte(strings.Repeat("x", 1000)), State: writv1.OperationState_OPERATION_STATE_PENDING, ExpiresAt: timestamppb.New(m.Wall.Add(time.Hour))}
		x.addOperation(op)
	}
	x.outworn = true
	x.wake(m.Now)
	if rounds := drainRounds(t, x, m); rounds < 10 || len(x.pending) != 0 {
		t.Errorf("%d rounds, %d pending", rounds, len(x.pending))
	}
	// Expiry comes in pieces as well.
	for i := range 3000 {
		x.addOperation(&writv1.Operation{Id: fmt.Sprintf("h%04d-2.%d", i, i), Group: fmt.Sprintf("h%04d", i), Kind: writv1.OperationKind_OPERATION_KIND_GROUP_CHANGE,
			Document: []byte(strings.Repeat("x", 1000)), State: writv1.OperationState_OPERATION_STATE_PENDING, ExpiresAt: timestamppb.New(m.Wall)})
	}
	x.wake(m.Now)
	if rounds := drainRounds(t, x, m); rounds < 10 || len(x.pending) != 0 {
		t.Errorf("%d rounds, %d pending", rounds, len(x.pending))
	}
}

func TestAGroupWithALongHistoryIsDroppedInOneCommit(t *testing.T) {
	w := newOrders(t, nil)
	for i := range keepPromotions + 20 {
		p, err := w.plan(modeSwitchover, "us", nil)
		if err != nil {
			t.Fatal(i, err)
		}
		w.must("ops", &writv1.AbortRequest{Id: p.Id})
	}
	g := w.machine.groups["orders"]
	w.machine.dropGroup(g)
	writes, bytes := w.machine.DirtyWrites(), w.machine.DirtyBytes()
	if writes < keepPromotions || writes > 1000 || bytes > 200<<10 {
		t.Errorf("it takes %d writes of %d bytes", writes, bytes)
	}
	if len(w.machine.operations) != 0 && slices.ContainsFunc(sortedKeys(w.machine.operations), func(id string) bool { return w.machine.operations[id].Group == "orders" }) {
		t.Error("operations stay")
	}
}

// The wait that people are told is the longest that there is: what comes after it follows at once.
func TestAnUnreachableRegionIsFencedInTime(t *testing.T) {
	w := newOrders(t, nil)
	w.agents["eu"].dead, w.deadGuards["guard-eu"] = true, true
	w.pass(time.Second)
	id := w.begun(modeFailover, "us", &writv1.Loss{})
	w.settle()
	p := w.must("ops", &writv1.GetPromotionRequest{Id: id}).(*writv1.Promotion)
	if p.State != fencing || len(p.Waits) != 1 || p.Waits[0].Left == nil {
		t.Fatalf("it is %s: %v", stateName(p.State), p.Waits)
	}
	until := w.now.Add(p.Waits[0].Left.AsDuration())
	for w.now < until.Add(time.Second) {
		w.now = min(max(w.now+1, min(w.table.NextDue(), w.machine.NextDue())), w.now.Add(100*time.Millisecond))
		w.settle()
		if g := w.groups["orders"]; g.Primary == "us" {
			if w.now > until.Add(100*time.Millisecond) {
				t.Errorf("%v late", w.now.Sub(until))
			}
			return
		}
	}
	t.Fatalf("not granted in time: %s", w.tell())
}

// A signature that was taken back counts for nobody, also when it was the last one that was missing.
func TestWithdrawnSignaturesDoNotExecute(t *testing.T) {
	w := newOrders(t, nil)
	p, err := w.plan(modeFailover, "us", &writv1.Loss{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.sign(p.Id); err != nil {
		t.Fatal(err)
	}
	w.must("ops", &writv1.WithdrawRequest{Id: p.Id, Approver: "bob"})
	if _, err := w.ask("ops", &writv1.ExecuteRequest{Id: p.Id}); err == nil || err.Reason != lease.ReasonPending {
		t.Fatalf("executed with one signature: %v", err)
	}
	w.pass(time.Second)
	if w.state(p.Id) != approving {
		t.Error(w.tell())
	}
}

// noTokensLeft are the tenures of a quorum that has no token left to fence with.
type noTokensLeft struct{ Tenures }

func (noTokensLeft) FenceTenure(lease.Moment, lease.Resource) fence.Token { return 0 }

// A plan is executed when A is fenced, and not before: what is signed can be taken back, and expires, for as long as there is no
// token to fence with.
func TestAPlanThatCannotFenceIsNotExecuted(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(w *world, id string)
		want      writv1.PromotionState
	}{
		"there is a token again": {func(*world, string) {}, degraded},
		"a signature is taken back": {func(w *world, id string) {
			w.must("ops", &writv1.WithdrawRequest{Id: id, Approver: "bob"})
		}, preflight},
		"the target is ill, and the plan expires": {func(w *world, id string) {
			w.agents["us"].health = writv1.Health_HEALTH_FAILED
			w.pass(time.Hour + time.Minute)
			w.agents["us"].health = writv1.Health_HEALTH_OK
			w.pass(2 * time.Second)
			_, _ = w.ask("ops", &writv1.ResumeRequest{Id: id})
		}, expired},
	} {
		t.Run(name, func(t *testing.T) {
			w := newOrders(t, nil)
			tenures := w.machine.tenures
			w.machine.tenures = noTokensLeft{tenures}
			id := w.begun(modeFailover, "us", &writv1.Loss{})
			w.pass(2 * time.Second)
			if w.state(id) != preflight || w.operations[id].State != writv1.OperationState_OPERATION_STATE_PENDING {
				t.Fatalf("without a token: %s %v", w.tell(), w.operations[id].State)
			}
			c.meanwhile(w, id)
			w.machine.tenures = tenures
			w.pass(15 * time.Second)
			if w.state(id) != c.want {
				t.Fatal(w.tell())
			}
			if fenced := w.groups["orders"].Token != w.promotions[id].ExpectedToken; fenced != (c.want == degraded) {
				t.Errorf("the group is %v", w.groups["orders"])
			}
		})
	}
}

// A successor waits for a predecessor that has gone past the states from which it may be taken over.
func TestASuccessorWaitsForWhatIsEnding(t *testing.T) {
	w := newOrders(t, nil)
	w.agents["eu"].silent[writv1.HookKind_HOOK_KIND_REINSTATE] = true
	first := w.begun(modeFailover, "us", &writv1.Loss{})
	for range 100 {
		if w.state(first) == degraded {
			break
		}
		w.pass(500 * time.Millisecond)
	}
	next, err := w.plan(modeSwitchover, "ap", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.must("ops", &writv1.ReinstateRequest{Id: first, Disposition: writv1.Disposition_DISPOSITION_ACCEPTED})
	w.agreeAll(first)
	w.pass(time.Second)
	if w.state(first) != reconciled {
		t.Fatal(w.tell())
	}
	w.must("ops", &writv1.ExecuteRequest{Id: next.Id})
	w.pass(3 * time.Second)
	if w.state(first) != reconciled || w.state(next.Id) == fencing {
		t.Fatal(w.tell())
	}
	w.agents["eu"].silent[writv1.HookKind_HOOK_KIND_REINSTATE] = false
	w.pass(10 * time.Second)
	if w.state(first) != done || w.state(next.Id) != done {
		t.Error(w.tell())
	}
}

// What an agent says that was lost makes no record of any size.
func TestEntriesOnRecordAreBounded(t *testing.T) {
	if got := entriesText([]string{"order 17", "two\nlines", "\xff"}); got != "order 17\ntwo lines\n?" {
		t.Errorf("%q", got)
	}
	many := make([]string, 64)
	for i := range many {
		many[i] = strings.Repeat("x", 255)
	}
	got := entriesText(many)
	if len(got) > maxHookOutput+20 || !strings.HasSuffix(got, "x\nand 48 more") {
		t.Errorf("%d bytes: …%q", len(got), got[max(0, len(got)-20):])
	}
	if got := entriesText([]string{strings.Repeat("x", 1<<20)}); got != "and 1 more" {
		t.Errorf("%d bytes", len(got))
	}
}
