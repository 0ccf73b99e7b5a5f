package region

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
)

func TestSpecsThatAreRefused(t *testing.T) {
	direction := func(from, to string) *writv1.Direction { return &writv1.Direction{From: from, To: to} }
	primary, witness := writv1.RegionRole_REGION_ROLE_PRIMARY, writv1.RegionRole_REGION_ROLE_WITNESS
	drain := writv1.HookKind_HOOK_KIND_DRAIN
	for field, all := range map[string][]func(*writv1.GroupSpec){
		"name": {
			func(s *writv1.GroupSpec) { s.Name = "" }, func(s *writv1.GroupSpec) { s.Name = "Orders" }, func(s *writv1.GroupSpec) { s.Name = "1a" },
			func(s *writv1.GroupSpec) { s.Name = strings.Repeat("a", 65) }, func(s *writv1.GroupSpec) { s.Name = "approvers" }, func(s *writv1.GroupSpec) { s.Name = "a_b" },
		},
		"resource": {func(s *writv1.GroupSpec) { s.Resource = "a//b" }, func(s *writv1.GroupSpec) { s.DrillOf, s.Resource = "real", "real" }, func(s *writv1.GroupSpec) { s.Resource = "drill/orders" }},
		"drill_of": {func(s *writv1.GroupSpec) { s.DrillOf = "orders" }, func(s *writv1.GroupSpec) { s.DrillOf = "?" }},
		"regions": {
			func(s *writv1.GroupSpec) { s.Regions = s.Regions[:1] },
			func(s *writv1.GroupSpec) { s.Regions = nil },
			func(s *writv1.GroupSpec) { s.Regions[0].Role = witness },
			func(s *writv1.GroupSpec) { s.Regions = s.Regions[:2]; s.Regions[1].Role = witness },
			func(s *writv1.GroupSpec) { s.Regions = slices.Repeat(s.Regions, 6) },
		},
		"regions[1].role":       {func(s *writv1.GroupSpec) { s.Regions[1].Role = primary }, func(s *writv1.GroupSpec) { s.Regions[1].Role = 0 }, func(s *writv1.GroupSpec) { s.Regions[1].Role = 9 }},
		"regions[1].name":       {func(s *writv1.GroupSpec) { s.Regions[1].Name = "eu" }, func(s *writv1.GroupSpec) { s.Regions[1].Name = "" }},
		"regions[1].priority":   {func(s *writv1.GroupSpec) { s.Regions[1].Priority = 1001 }, func(s *writv1.GroupSpec) { s.Regions[1].Priority = -1001 }},
		"regions[1].guards[0]":  {func(s *writv1.GroupSpec) { s.Regions[1].Guards = []string{""} }, func(s *writv1.GroupSpec) { s.Regions[1].Guards = s.Regions[0].Guards }},
		"regions[1].guards[1]":  {func(s *writv1.GroupSpec) { s.Regions[1].Guards = []string{"a", "a"} }},
		"regions[1].guards":     {func(s *writv1.GroupSpec) { s.Regions[1].Guards = make([]string, 65) }},
		"regions[1].agent":      {func(s *writv1.GroupSpec) { s.Regions[1].Agent = strings.Repeat("a", 2049) }},
		"regions[1].writers[0]": {func(s *writv1.GroupSpec) { s.Regions[1].Writers = []string{""} }},
		"regions[1].writers[1]": {func(s *writv1.GroupSpec) { s.Regions[1].Writers = []string{"a", "a"} }},
		"regions[2].writers":    {func(s *writv1.GroupSpec) { s.Regions[2].Role, s.Regions[2].Writers = witness, []string{"a"} }},
		"headroom":              {func(s *writv1.GroupSpec) { s.Headroom = 1001 }},
		"rpo.time":              {func(s *writv1.GroupSpec) { s.Rpo.Time = durationpb.New(-1) }},
		"hold":                  {func(s *writv1.GroupSpec) { s.Hold = durationpb.New(MinHold - 1) }, func(s *writv1.GroupSpec) { s.Hold = durationpb.New(2 * time.Hour) }, func(s *writv1.GroupSpec) { s.Hold = &durationpb.Duration{Seconds: 1, Nanos: -1} }},
		"dwell":                 {func(s *writv1.GroupSpec) { s.Dwell = durationpb.New(-1) }},
		"window":                {func(s *writv1.GroupSpec) { s.Window = durationpb.New(-1) }},
		"drain":                 {func(s *writv1.GroupSpec) { s.Drain = durationpb.New(time.Millisecond) }},
		"shift[0]":              {func(s *writv1.GroupSpec) { s.Shift = []uint32{0, 100} }, func(s *writv1.GroupSpec) { s.Shift = []uint32{50} }},
		"shift[1]":              {func(s *writv1.GroupSpec) { s.Shift = []uint32{50, 50, 100} }, func(s *writv1.GroupSpec) { s.Shift = []uint32{50, 10, 100} }, func(s *writv1.GroupSpec) { s.Shift = []uint32{50, 101} }},
		"hooks[7].kind":         {func(s *writv1.GroupSpec) { s.Hooks = append(s.Hooks, &writv1.Hook{Kind: drain}) }, func(s *writv1.GroupSpec) { s.Hooks = append(s.Hooks, &writv1.Hook{}) }, func(s *writv1.GroupSpec) { s.Hooks = append(s.Hooks, nil) }},
		"hooks[0].timeout":      {func(s *writv1.GroupSpec) { s.Hooks[0].Timeout = durationpb.New(0) }, func(s *writv1.GroupSpec) { s.Hooks[0].Timeout = durationpb.New(2 * time.Hour) }},
		"hooks[5].optional":     {func(s *writv1.GroupSpec) { s.Hooks[5].Optional = true }},
		"automatic[0].from":     {func(s *writv1.GroupSpec) { s.Automatic[0].From = "mars" }, func(s *writv1.GroupSpec) { s.Regions[0].Guards = nil }, func(s *writv1.GroupSpec) { s.Regions[2].Agent = "" }, func(s *writv1.GroupSpec) { s.Regions[0].Agent = "" }, func(s *writv1.GroupSpec) { s.Regions[2].Role, s.Automatic[0].From = witness, "ap" }},
		"automatic[0].to":       {func(s *writv1.GroupSpec) { s.Automatic[0].To = "eu" }, func(s *writv1.GroupSpec) { s.Automatic[0].To = "mars" }, func(s *writv1.GroupSpec) { s.Regions[1].Role = witness }, func(s *writv1.GroupSpec) { s.Regions[1].Agent = "" }},
		"automatic[0]":          {func(s *writv1.GroupSpec) { s.DrillOf = "real" }},
		"automatic[1]":          {func(s *writv1.GroupSpec) { s.Automatic = append(s.Automatic, direction("us", "eu")) }, func(s *writv1.GroupSpec) { s.Automatic = append(s.Automatic, direction("eu", "us")) }},
		"automatic[2]": {func(s *writv1.GroupSpec) {
			s.Automatic = append(s.Automatic, direction("us", "ap"), direction("ap", "eu"))
		}},
		"rpo": {func(s *writv1.GroupSpec) { s.Rpo = nil }, func(s *writv1.GroupSpec) { s.Rpo = &writv1.Loss{} }},

		"approvals.failover.none":     {func(s *writv1.GroupSpec) { s.Approvals.Failover = &writv1.ApprovalRule{None: true} }},
		"approvals.failback.none":     {func(s *writv1.GroupSpec) { s.Approvals.Failback = &writv1.ApprovalRule{None: true} }},
		"approvals.change.none":       {func(s *writv1.GroupSpec) { s.Approvals.Change = &writv1.ApprovalRule{None: true} }},
		"approvals.switchover.people": {func(s *writv1.GroupSpec) { s.Approvals.Switchover = &writv1.ApprovalRule{People: 1} }},
		"approvals.failover.people":   {func(s *writv1.GroupSpec) { s.Approvals.Failover = &writv1.ApprovalRule{} }},
		"approvals.failover.valid_for": {func(s *writv1.GroupSpec) {
			s.Approvals.Failover = &writv1.ApprovalRule{People: 2, ValidFor: durationpb.New(1)}
		}},
		"approvals.change.roles[0].role": {func(s *writv1.GroupSpec) {
			s.Approvals.Change = &writv1.ApprovalRule{People: 2, Roles: []*writv1.RoleCount{{People: 1}}}
		}},
		"spec": {func(s *writv1.GroupSpec) {
			s.Regions[1].Writers = slices.Repeat([]string{strings.Repeat("w", 2000)}, 60)
		}},
	} {
		for i, change := range all {
			s := ordersSpec()
			s.Automatic = []*writv1.Direction{direction("eu", "us")}
			if _, err := normal(s); err != nil {
				t.Fatal(err)
			}
			change(s)
			_, err := normal(s)
			if err == nil || err.Reason != lease.ReasonInvalid || err.Field != field || err.Fix == "" || err.Message == "" {
				t.Errorf("%s %d: %v", field, i, err)
			}
		}
	}
	if _, err := Normal(nil); err == nil {
		t.Error("no spec is in order")
	}
	d := ordersSpec()
	d.DrillOf, d.Approvals = "real", &writv1.GroupApprovals{Change: &writv1.ApprovalRule{None: true}, Failover: &writv1.ApprovalRule{None: true}, Failback: &writv1.ApprovalRule{None: true}}
	if n, err := Normal(d); err != nil || n.Resource != "drill/real" || n.Hold.AsDuration() != DefaultHold || n.Shift[0] != 100 {
		t.Errorf("a drill without signatures: %v, %v", n, err)
	}
}

// bothWays are changes of a spec that loosen; back, they do not.
var bothWays = map[string]func(*writv1.GroupSpec){
	"fewer people":       func(s *writv1.GroupSpec) { s.Approvals.Failover.People = 2 },
	"no role":            func(s *writv1.GroupSpec) { s.Approvals.Failover.Roles = nil },
	"valid for longer":   func(s *writv1.GroupSpec) { s.Approvals.Failover.ValidFor = durationpb.New(time.Hour) },
	"nobody signs":       func(s *writv1.GroupSpec) { s.Approvals.Switchover = &writv1.ApprovalRule{None: true} },
	"larger rpo, time":   func(s *writv1.GroupSpec) { s.Rpo.Time = durationpb.New(time.Minute) },
	"larger rpo, bytes":  func(s *writv1.GroupSpec) { s.Rpo.Bytes = proto.Uint64(2000) },
	"any bytes":          func(s *writv1.GroupSpec) { s.Rpo.Bytes = nil },
	"any loss":           func(s *writv1.GroupSpec) { s.Rpo = &writv1.Loss{} },
	"less headroom":      func(s *writv1.GroupSpec) { s.Headroom = 99 },
	"shorter hold":       func(s *writv1.GroupSpec) { s.Hold = durationpb.New(59 * time.Second) },
	"shorter dwell":      func(s *writv1.GroupSpec) { s.Dwell = durationpb.New(time.Second) },
	"shorter window":     func(s *writv1.GroupSpec) { s.Window = durationpb.New(time.Second) },
	"another direction":  func(s *writv1.GroupSpec) { s.Automatic = append(s.Automatic, &writv1.Direction{From: "eu", To: "ap"}) },
	"a guard less":       func(s *writv1.GroupSpec) { s.Regions[1].Guards = nil },
	"a writer more":      func(s *writv1.GroupSpec) { s.Regions[1].Writers = append(s.Regions[1].Writers, "w") },
	"a hook less":        func(s *writv1.GroupSpec) { s.Hooks = s.Hooks[1:] },
	"an optional hook":   func(s *writv1.GroupSpec) { s.Hooks[0].Optional = true },
	"a witness promoted": func(s *writv1.GroupSpec) { s.Regions[3].Role = writv1.RegionRole_REGION_ROLE_STANDBY },
	"another region": func(s *writv1.GroupSpec) {
		s.Regions = append(s.Regions, &writv1.GroupRegion{Name: "sa", Role: writv1.RegionRole_REGION_ROLE_STANDBY})
	},
}

// loosenEitherWay loosen, and so does taking them back.
var loosenEitherWay = map[string]func(*writv1.GroupSpec){
	"another agent": func(s *writv1.GroupSpec) { s.Regions[1].Agent = "other" },
	// Bytes alone are never kept while A is silent, and without a limit nothing is.
	"rpo, bytes alone": func(s *writv1.GroupSpec) { s.Rpo.Time = nil },
	"no rpo":           func(s *writv1.GroupSpec) { s.Rpo = nil },
	"no agent":         func(s *writv1.GroupSpec) { s.Regions[3].Agent = "" },
	"moved guard": func(s *writv1.GroupSpec) {
		s.Regions[1].Guards, s.Regions[2].Guards = s.Regions[2].Guards, s.Regions[1].Guards
	},
}

// harmless changes loosen neither way.
var harmless = map[string]func(*writv1.GroupSpec){
	"priority": func(s *writv1.GroupSpec) { s.Regions[1].Priority = 99 },
	"drain":    func(s *writv1.GroupSpec) { s.Drain = durationpb.New(time.Hour) },
	"timeout":  func(s *writv1.GroupSpec) { s.Hooks[0].Timeout = durationpb.New(time.Minute) },
	"shift":    func(s *writv1.GroupSpec) { s.Shift = []uint32{10, 100} },
	"order":    func(s *writv1.GroupSpec) { slices.Reverse(s.Regions) },
}

func strictSpec(t testing.TB) *writv1.GroupSpec {
	s := ordersSpec()
	s.Regions = append(s.Regions, &writv1.GroupRegion{Name: "af", Role: writv1.RegionRole_REGION_ROLE_WITNESS, Agent: "agent-af"})
	s.Rpo.Bytes = proto.Uint64(1000)
	s.Automatic = []*writv1.Direction{{From: "eu", To: "us"}}
	s.Approvals = &writv1.GroupApprovals{
		Failover:   &writv1.ApprovalRule{People: 3, Roles: []*writv1.RoleCount{{Role: "sre", People: 1}}, ValidFor: durationpb.New(10 * time.Minute)},
		Switchover: &writv1.ApprovalRule{People: 2},
	}
	n, err := Normal(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWhatLoosens(t *testing.T) {
	own := &writv1.ApprovalRule{People: 2}
	check := func(name string, change func(*writv1.GroupSpec), there, back bool) {
		from, to := strictSpec(t), strictSpec(t)
		change(to)
		if c := compareSpecs(from, to, own); c.loosens != there || len(c.all) == 0 || there != strings.HasPrefix(strings.Join(c.all, ""), "loosens: ") {
			t.Errorf("%s: %v", name, c)
		}
		if c := compareSpecs(to, from, own); c.loosens != back || len(c.all) == 0 {
			t.Errorf("%s, back: %v", name, c)
		}
	}
	for name, change := range bothWays {
		check(name, change, true, false)
	}
	for name, change := range loosenEitherWay {
		check(name, change, true, true)
	}
	for name, change := range harmless {
		check(name, change, false, false)
	}
	if c := compareSpecs(strictSpec(t), strictSpec(t), own); len(c.all) > 0 {
		t.Errorf("nothing is %v", c)
	}
	gone := strictSpec(t)
	gone.Regions = gone.Regions[:3]
	if c := compareSpecs(strictSpec(t), gone, own); !c.loosens {
		t.Errorf("an observer is gone: %v", c)
	}
}

// A change of a rule that does not loosen never lets signatures through that were not enough before.
func TestLoosensIsSound(t *testing.T) {
	set, err := approval.NewSet(threePeople())
	if err != nil {
		t.Fatal(err)
	}
	own := threePeople().Rule
	draw := func(r *rapid.T, name string) *writv1.ApprovalRule {
		switch rapid.IntRange(0, 5).Draw(r, name) {
		case 0:
			return nil
		case 1:
			return &writv1.ApprovalRule{None: true}
		}
		rule := &writv1.ApprovalRule{People: uint32(rapid.IntRange(2, 3).Draw(r, name+" people"))}
		for _, role := range []string{"dba", "sre"} {
			if n := rapid.IntRange(0, 2).Draw(r, name+" "+role); n > 0 {
				rule.Roles = append(rule.Roles, &writv1.RoleCount{Role: role, People: uint32(n)})
			}
		}
		return rule
	}
	rapid.Check(t, func(r *rapid.T) {
		from, to := strictSpec(t), strictSpec(t)
		from.Approvals.Switchover, to.Approvals.Switchover = draw(r, "from"), draw(r, "to")
		if compareSpecs(from, to, own).loosens {
			return
		}
		var signers []approval.Signer
		for i, name := range []string{"ann", "ann", "bob", "cyd"} {
			if rapid.Bool().Draw(r, name) {
				signers = append(signers, approval.Signer{Approver: name, Key: string(rune('a' + i))})
			}
		}
		requester := rapid.SampledFrom([]string{"ops", "ann@laptop"}).Draw(r, "requester")
		if set.Missing(to.Approvals.Switchover, requester, signers) == "" && set.Missing(from.Approvals.Switchover, requester, signers) != "" {
			r.Fatalf("%v was not enough for %v, and is for %v", signers, from.Approvals.Switchover, to.Approvals.Switchover)
		}
	})
}

// A change of the rpo that does not loosen accepts no loss that was not accepted before. The limits and losses are all those of
// few values: those of others differ from each other in the same ways.
func TestNoLooserRPOIsNeutral(t *testing.T) {
	times, sizes := []*durationpb.Duration{nil}, []*uint64{nil}
	for i := range 4 {
		times, sizes = append(times, durationpb.New(time.Duration(i)*time.Second)), append(sizes, proto.Uint64(uint64(i)))
	}
	limits := []*writv1.Loss{nil}
	var losses []*writv1.Tail
	for _, span := range times {
		for _, bytes := range sizes {
			limits = append(limits, &writv1.Loss{Time: span, Bytes: bytes})
			losses = append(losses, &writv1.Tail{Time: span, Bytes: bytes})
			if bytes != nil { // that much at least
				losses = append(losses, &writv1.Tail{Time: span, LastOfFrom: &writv1.Position{Bytes: *bytes}, LastOfTo: &writv1.Position{}})
			}
		}
	}
	for _, from := range limits {
		for _, to := range limits {
			var more *writv1.Tail
			for _, lost := range losses {
				if within(lost, to) && !within(lost, from) {
					more = lost
				}
			}
			if looserLimit(from, to) != (more != nil) {
				t.Errorf("from %s to %s accepts %v", limitText(from), limitText(to), more)
			}
			before, after := strictSpec(t), strictSpec(t)
			before.Rpo, after.Rpo = from, to
			c := compareSpecs(before, after, nil)
			if !c.loosens && more != nil || proto.Equal(from, to) != (len(c.all) == 0) {
				t.Errorf("it is %q, and accepts %v", c.all, more)
			}
		}
	}
}

func TestAGroupIsAppliedChangedAndRemoved(t *testing.T) {
	w := newBills(t)
	g := w.must("ops", &writv1.GetGroupRequest{Name: "bills"}).(*writv1.Group)
	if g.Version != 1 || g.Primary != "eu" || g.Token == 0 || len(g.Regions) != 2 || g.Regions[0].Health != writv1.Health_HEALTH_UNKNOWN || g.Epoch != 1 {
		t.Errorf("the group is %v", g)
	}
	tighter := proto.CloneOf(g.Spec)
	tighter.Headroom = 500
	dry := w.must("ops", &writv1.ApplyGroupRequest{Spec: tighter, DryRun: true}).(*writv1.ApplyGroupResponse)
	if len(dry.Changes) != 1 || dry.Operation != nil || dry.Group.Version != 1 {
		t.Errorf("a dry run: %v", dry)
	}
	if done := w.must("ops", &writv1.ApplyGroupRequest{Spec: tighter, Version: 1}).(*writv1.ApplyGroupResponse); done.Operation != nil || done.Group.Version != 2 {
		t.Errorf("a stricter spec: %v", done)
	}
	if same := w.must("ops", &writv1.ApplyGroupRequest{Spec: tighter}).(*writv1.ApplyGroupResponse); same.Operation != nil || same.Group.Version != 2 || len(same.Changes) != 0 {
		t.Errorf("the same spec: %v", same)
	}
	a := pendingChange(t, w, "ops")
	if b := pendingChange(t, w, "ops"); a.Id != b.Id {
		t.Errorf("the same change is two operations, %s and %s", a.Id, b.Id)
	}
	gone := w.must("ops", &writv1.RemoveGroupRequest{Name: "bills", Reason: "over"}).(*writv1.ApplyGroupResponse)
	if gone.Operation == nil {
		t.Fatal("nobody has to agree that the group goes")
	}
	if err := signBoth(t, w, gone.Operation, annKey, bobKey); err != nil {
		t.Fatal(err)
	}
	w.must("ops", &writv1.ExecuteOperationRequest{Id: gone.Operation.Id})
	w.settle()
	if w.groups["bills"].State != writv1.GroupState_GROUP_STATE_REMOVED || w.table.Tenure("bills").Group != "" {
		t.Errorf("it is there still: %v, %v", w.groups, w.table.Tenure("bills"))
	}
	if list := w.must("ops", &writv1.ListGroupsRequest{}).(*writv1.ListGroupsResponse); len(list.Groups) != 0 {
		t.Errorf("it is shown still: %v", list)
	}
	if len(w.operations) != 0 {
		t.Errorf("its operations are there still: %v", w.operations)
	}
}

func TestARemovedGroupIsFencedFirst(t *testing.T) {
	w := newOrders(t, nil)
	w.deadGuards["guard-ap"] = true
	gone := w.must("ops", &writv1.RemoveGroupRequest{Name: "orders", Reason: "over"}).(*writv1.ApplyGroupResponse)
	if err := w.sign(gone.Operation.Id); err != nil {
		t.Fatal(err)
	}
	w.must("ops", &writv1.ExecuteOperationRequest{Id: gone.Operation.Id})
	w.pass(5 * time.Second)
	g := w.must("ops", &writv1.GetGroupRequest{Name: "orders"}).(*writv1.Group)
	if g.State != writv1.GroupState_GROUP_STATE_REMOVING || len(g.Waits) != 1 || g.Waits[0].Left == nil || !strings.Contains(g.Waits[0].What, "guard-ap") {
		t.Fatalf("it is %v, and waits for %v", g.State, g.Waits)
	}
	if _, err := w.ask("ops", &writv1.ApplyGroupRequest{Spec: ordersSpec()}); err == nil || err.Reason != lease.ReasonConflict {
		t.Errorf("changed while it is removed: %v", err)
	}
	w.takeover()
	w.pass(30 * time.Second)
	if w.groups["orders"].State != writv1.GroupState_GROUP_STATE_REMOVED {
		t.Errorf("it is there when every guard has been proved: %v", w.groups)
	}
	// Agents remember what they have run by the ids of promotions: another group of that name must not have them again.
	w.takeover()
	w.deadGuards["guard-ap"] = false
	w.apply(ordersSpec())
	w.pass(5 * time.Second)
	again := w.must("ops", &writv1.PlanRequest{Group: "orders", To: "us", Mode: writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER}).(*writv1.Promotion)
	if again.Id == gone.Operation.Id || w.groups["orders"].Operations <= 1 {
		t.Errorf("the group that was removed had the operation %s, and the new one has the promotion %s", gone.Operation.Id, again.Id)
	}
}

func TestChangesThatNobodyCanAgreeOn(t *testing.T) {
	w := newBills(t)
	spec := func(change func(*writv1.GroupSpec)) *writv1.ApplyGroupRequest {
		s := proto.CloneOf(w.groups["bills"].Spec)
		change(s)
		return &writv1.ApplyGroupRequest{Spec: s}
	}
	refused(t, w, spec(func(s *writv1.GroupSpec) { s.Resource = "other" }), lease.ReasonInvalid, "resource", "group.refuse")
	refused(t, w, spec(func(s *writv1.GroupSpec) { s.DrillOf = "other" }), lease.ReasonInvalid, "resource", "group.refuse")
	refused(t, w, spec(func(s *writv1.GroupSpec) { s.Regions[0].Role, s.Regions[1].Role = s.Regions[1].Role, s.Regions[0].Role }), lease.ReasonInvalid, "writ promote", "group.refuse")
	refused(t, w, spec(func(s *writv1.GroupSpec) { s.Regions = s.Regions[:1] }), lease.ReasonInvalid, "regions has 1", "group.refuse")
	refused(t, w, spec(func(s *writv1.GroupSpec) { s.Regions[1].Role = s.Regions[0].Role }), lease.ReasonInvalid, "regions[1].role", "group.refuse")
	refused(t, w, spec(func(s *writv1.GroupSpec) { s.Approvals.Change.Roles[0].Role = "pilot" }), lease.ReasonInvalid, "approvals.change.roles[0]", "group.refuse")
	refused(t, w, spec(func(s *writv1.GroupSpec) { s.Name = "more" }), lease.ReasonConflict, "bills", "group.refuse")
	refused(t, w, spec(func(s *writv1.GroupSpec) { s.Name, s.Resource, s.DrillOf = "drill", "", "nothing" }), lease.ReasonInvalid, "drill_of", "group.refuse")
	stale := spec(func(s *writv1.GroupSpec) { s.Headroom = 1 })
	stale.Version = 9
	refused(t, w, stale, lease.ReasonConflict, "of version 1 by now, not 9", "group.refuse")
	refused(t, w, &writv1.RemoveGroupRequest{Name: "nothing"}, lease.ReasonNotFound, "there is no group", "group.refuse")
}

// Who could not satisfy a rule cannot do away with it either: not by a change, nor with the whole group.
func TestALoosenedRuleHasToBeSatisfiedItself(t *testing.T) {
	strict := &writv1.ApprovalRule{People: 3, Roles: []*writv1.RoleCount{{Role: "dba", People: 2}}, ValidFor: durationpb.New(10 * time.Minute)}
	for name, ask := range map[string]func(spec *writv1.GroupSpec) proto.Message{
		"the rule is gone": func(s *writv1.GroupSpec) proto.Message {
			s.Approvals.Failover = nil
			return &writv1.ApplyGroupRequest{Spec: s}
		},
		"the rule asks for less": func(s *writv1.GroupSpec) proto.Message {
			s.Approvals.Failover.People = 2
			return &writv1.ApplyGroupRequest{Spec: s}
		},
		"the group is gone": func(s *writv1.GroupSpec) proto.Message { return &writv1.RemoveGroupRequest{Name: s.Name} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.config.Approvers = threePeople()
			w.load()
			spec := plainSpec()
			spec.Approvals = &writv1.GroupApprovals{Failover: strict, Change: &writv1.ApprovalRule{People: 2, Roles: []*writv1.RoleCount{{Role: "sre", People: 1}}}}
			w.must("ops", &writv1.ApplyGroupRequest{Spec: spec})
			w.settle()
			op := w.must("ops", ask(proto.CloneOf(w.groups["bills"].Spec))).(*writv1.ApplyGroupResponse).Operation
			want := &writv1.ApprovalRule{People: 3, Roles: []*writv1.RoleCount{{Role: "dba", People: 2}, {Role: "sre", People: 1}}, ValidFor: strict.ValidFor}
			if !proto.Equal(op.GetRule(), want) || op.ExpiresAt.AsTime().Sub(op.CreatedAt.AsTime()) != 10*time.Minute {
				t.Errorf("it is proposed as %v", op)
			}
			if err := signBoth(t, w, op, annKey, bobKey); err != nil {
				t.Fatal(err)
			}
			refused(t, w, &writv1.ExecuteOperationRequest{Id: op.Id}, lease.ReasonPending, "1 more person with role dba", "operation.refuse")
			if err := signBoth(t, w, op, cydKey); err != nil {
				t.Fatal(err)
			}
			w.must("ops", &writv1.ExecuteOperationRequest{Id: op.Id})
			w.settle()
			if g := w.groups["bills"]; g.GetVersion() == 1 && g.GetSpec().GetApprovals().GetFailover() != nil {
				t.Errorf("it is still %v", g)
			}
		})
	}
	// Where it becomes automatic nobody signs a failover any more.
	from, to := strictSpec(t), strictSpec(t)
	to.Automatic = append(to.Automatic, &writv1.Direction{From: "eu", To: "ap"})
	if c := compareSpecs(from, to, &writv1.ApprovalRule{People: 2}); len(c.loosened) != 1 || !proto.Equal(c.loosened[0], from.Approvals.Failover) {
		t.Errorf("an automatic direction loosens %v", c.loosened)
	}
}

func TestAWeakerRuleThanTheApproversOwnNeedsThem(t *testing.T) {
	w := newBills(t)
	s := plainSpec()
	s.Name, s.Approvals = "others", &writv1.GroupApprovals{Switchover: &writv1.ApprovalRule{None: true}}
	answer := w.must("ops", &writv1.ApplyGroupRequest{Spec: s}).(*writv1.ApplyGroupResponse)
	if answer.Operation == nil || answer.Group != nil || w.groups["others"] != nil || !strings.HasPrefix(answer.Operation.Id, "approvers-1.") {
		t.Fatalf("answered %v", answer)
	}
	refused(t, w, &writv1.ExecuteOperationRequest{Id: answer.Operation.Id}, lease.ReasonPending, "2 more people", "operation.refuse")
	if w.table.Tenure("others").Group != "" {
		t.Error("the resource was claimed before anybody agreed")
	}
	if err := signBoth(t, w, answer.Operation, annKey, bobKey); err != nil {
		t.Fatal(err)
	}
	w.must("ops", &writv1.ExecuteOperationRequest{Id: answer.Operation.Id})
	w.settle()
	if w.groups["others"].GetState() != writv1.GroupState_GROUP_STATE_STEADY {
		t.Errorf("it is %v", w.groups["others"])
	}
	s.Name, s.DrillOf, s.Resource = "rehearsal", "others", ""
	s.Approvals.Failover, s.Approvals.Change = &writv1.ApprovalRule{None: true}, &writv1.ApprovalRule{None: true}
	if answer := w.must("ops", &writv1.ApplyGroupRequest{Spec: s}).(*writv1.ApplyGroupResponse); answer.Operation != nil {
		t.Errorf("a drill wants %v", answer.Operation)
	}
	refused(t, w, &writv1.RemoveGroupRequest{Name: "others"}, lease.ReasonConflict, "is a drill of it", "group.refuse")
	w.settle()
	if gone := w.must("ops", &writv1.RemoveGroupRequest{Name: "rehearsal"}).(*writv1.ApplyGroupResponse); gone.Operation != nil {
		t.Errorf("to remove a drill wants %v", gone.Operation)
	}
	w.settle()
	if w.groups["rehearsal"] != nil {
		t.Error("the drill is there still")
	}
}
