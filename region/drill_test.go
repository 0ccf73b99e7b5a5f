package region

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// touched notes whose tenures a machine changes.
type touched struct {
	Tenures
	names []lease.Resource
}

func (t *touched) ClaimTenure(m lease.Moment, name lease.Resource, group string) *lease.Error {
	t.names = append(t.names, name)
	return t.Tenures.ClaimTenure(m, name, group)
}

func (t *touched) DropTenure(m lease.Moment, name lease.Resource) {
	t.names = append(t.names, name)
	t.Tenures.DropTenure(m, name)
}

func (t *touched) FenceTenure(m lease.Moment, name lease.Resource) fence.Token {
	t.names = append(t.names, name)
	return t.Tenures.FenceTenure(m, name)
}

func (t *touched) AttestTenure(m lease.Moment, name lease.Resource, guard string) bool {
	t.names = append(t.names, name)
	return t.Tenures.AttestTenure(m, name, guard)
}

func (t *touched) GrantTenure(m lease.Moment, name lease.Resource, region string) (fence.Token, bool) {
	t.names = append(t.names, name)
	return t.Tenures.GrantTenure(m, name, region)
}

// newDrilled is a world with the group orders, whose guards cover drills as well, and its shadow.
func newDrilled(t testing.TB) (*world, *touched) {
	t.Helper()
	w := newOrders(t, nil)
	for _, region := range []string{"eu", "us", "ap"} {
		w.guardCall("guard-"+region, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Enrol{Enrol: &writv1.GuardEnrol{
			Region: region, Covers: []string{"orders", DrillPrefix + "*"}, Store: "guard-" + region, Slack: durationpb.New(2 * time.Second)}}})
	}
	w.settle()
	seen := &touched{Tenures: w.machine.tenures}
	w.machine.tenures = seen
	w.shadow()
	return w, seen
}

// shadow makes the shadow of the group orders.
func (w *world) shadow() {
	w.t.Helper()
	if op := w.must("ops", &writv1.ApplyGroupRequest{Spec: DrillSpec(w.groups["orders"])}).(*writv1.ApplyGroupResponse).Operation; op != nil {
		w.t.Fatalf("a drill wants signatures: %v", op)
	}
	w.settle()
	w.pass(2 * time.Second)
	if g := w.groups["orders-drill"]; g.GetState() != writv1.GroupState_GROUP_STATE_STEADY || g.Primary != w.groups["orders"].Primary {
		w.t.Fatalf("the shadow is %v", g)
	}
}

// drill carries a promotion of the shadow through, to its end.
func (w *world) drill(mode writv1.PromotionMode, to string) *writv1.Promotion {
	w.t.Helper()
	p := w.must("ops", &writv1.PlanRequest{Group: "orders-drill", To: to, Mode: mode, LossCap: &writv1.Loss{}}).(*writv1.Promotion)
	w.must("ops", &writv1.ExecuteRequest{Id: p.Id})
	w.settle()
	w.pass(5 * time.Second)
	if w.state(p.Id) == degraded {
		op := w.must("ops", &writv1.ReinstateRequest{Id: p.Id, Disposition: writv1.Disposition_DISPOSITION_DISCARDED}).(*writv1.Operation)
		w.must("ops", &writv1.ExecuteOperationRequest{Id: op.Id})
		w.settle()
		w.pass(2 * time.Second)
	}
	return w.promotions[p.Id]
}

// verdicts are what guards said of canaries with the token that a promotion ended.
func verdicts(p *writv1.Promotion, refused bool) []*writv1.GuardVerdict {
	var all []*writv1.GuardVerdict
	for _, region := range []string{"eu", "us", "ap"} {
		all = append(all, &writv1.GuardVerdict{Guard: "guard-" + region, Token: p.ExpectedToken, Refused: refused, Answered: true})
	}
	return all
}

func (w *world) record(p *writv1.Promotion, change func(*writv1.RecordDrillRequest)) *writv1.Drill {
	w.t.Helper()
	ask := &writv1.RecordDrillRequest{Group: "orders", Id: p.Id, Before: verdicts(p, false), After: verdicts(p, true)}
	if change != nil {
		change(ask)
	}
	return w.must("ops", ask).(*writv1.Drill)
}

func (w *world) told(action string) int {
	n := 0
	for _, note := range w.notes {
		if note.Action == action && note.Target == "orders" {
			n++
		}
	}
	return n
}

// What agents say of the real group is what is known of its shadow, and so are they.
func TestConfidenceInAShadow(t *testing.T) {
	w, _ := newDrilled(t)
	c := w.must("ops", &writv1.ConfidenceRequest{Group: "orders-drill", To: "us"}).(*writv1.ConfidenceResponse)
	heard := 0
	for _, line := range c.Lines {
		if strings.HasPrefix(line.Check, "agent ") && line.Ok {
			heard++
		}
	}
	if heard != 3 {
		t.Errorf("%d of 3 agents are heard of: %v", heard, c.Lines)
	}
}

// A drill is carried through by the same machine, with every hook that an agent has for it, and its outcome stands with the real
// group, whose tenure is what it was.
func TestDrill(t *testing.T) {
	for _, mode := range []writv1.PromotionMode{writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, writv1.PromotionMode_PROMOTION_MODE_FAILOVER} {
		t.Run(modeName(mode), func(t *testing.T) {
			w, seen := newDrilled(t)
			before := w.records["orders"]
			for _, a := range w.agents { // no hook is made for drills
				for kind := writv1.HookKind(1); kind <= allHooks; kind++ {
					a.outcomes[kind] = writv1.HookOutcome_HOOK_OUTCOME_NONE
				}
			}
			p := w.drill(mode, "us")
			if p.State != done || p.Token <= p.ExpectedToken {
				t.Fatalf("it is %v", p)
			}
			if w.told("drill.run") != 1 || w.told("drill.pass")+w.told("drill.fail") != 0 || w.groups["orders"].LastDrillAt != nil {
				t.Errorf("before anybody judged it: %v", w.notes)
			}
			d := w.record(p, nil)
			if d.Outcome != writv1.DrillOutcome_DRILL_OUTCOME_PASSED || d.TimeToHealthy == nil || d.Actor != "ops" || d.From != "eu" || d.To != "us" {
				t.Errorf("it was judged: %v", d)
			}
			if again := w.record(p, func(r *writv1.RecordDrillRequest) { r.After = nil }); !proto.Equal(d, again) || w.told("drill.pass") != 1 {
				t.Errorf("judged again: %v", again)
			}
			g := w.groups["orders"]
			if len(g.Drills) != 1 || !proto.Equal(g.LastDrillAt, d.JudgedAt) || g.Version != 1 {
				t.Errorf("the group is %v", g)
			}
			if after := w.records["orders"]; after.Token != before.Token || after.Holder != before.Holder || !after.Held {
				t.Errorf("the real tenure was %v, and is %v", before, after)
			}
			if slices.Contains(seen.names, "orders") || !slices.Contains(seen.names, "drill/orders") {
				t.Errorf("it touched %v", seen.names)
			}
			w.takeover()
			if g := w.must("ops", &writv1.GetGroupRequest{Name: "orders"}).(*writv1.Group); len(g.Drills) != 1 {
				t.Errorf("another coordinator knows of %v", g.Drills)
			}
		})
	}
}

// What a drill fails by.
func TestDrillThatFails(t *testing.T) {
	type ask = writv1.RecordDrillRequest
	at := func(all []*writv1.GuardVerdict, guard string) *writv1.GuardVerdict {
		return all[slices.IndexFunc(all, func(v *writv1.GuardVerdict) bool { return v.Guard == guard })]
	}
	w, _ := newDrilled(t)
	for _, c := range []struct {
		name, want string
		change     func(*ask)
		hook       writv1.HookOutcome
	}{
		{name: "a guard lets the zombie through", want: "guard-eu let the zombie writer through: 200", change: func(r *ask) {
			v := at(r.After, "guard-eu")
			v.Refused, v.Detail = false, "200"
		}},
		{name: "once is enough", want: "guard-ap let the zombie writer through", change: func(r *ask) {
			r.After = append(r.After, &writv1.GuardVerdict{Guard: "guard-ap", Token: r.After[0].Token, Answered: true})
		}},
		{name: "a guard is not asked", want: "guard-us could not be asked", change: func(r *ask) {
			r.After = slices.DeleteFunc(r.After, func(v *writv1.GuardVerdict) bool { return v.Guard == "guard-us" })
		}},
		{name: "a guard does not answer", want: "guard-us could not be asked: silence", change: func(r *ask) {
			v := at(r.After, "guard-us")
			v.Refused, v.Answered, v.Detail = false, false, "silence"
		}},
		{name: "another token", want: "guard-us could not be asked", change: func(r *ask) { at(r.After, "guard-us").Token-- }},
		{name: "a guard refuses everything", want: "guard-eu did not let the zombie writer through before", change: func(r *ask) { at(r.Before, "guard-eu").Refused = true }},
		{name: "nothing was tried before", want: "guard-ap did not let the zombie writer through before", change: func(r *ask) { r.Before = nil }},
		{name: "a hook fails", want: "verify in us failed: said", hook: writv1.HookOutcome_HOOK_OUTCOME_FAILED},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			w.agents["us"].outcomes[writv1.HookKind_HOOK_KIND_VERIFY] = c.hook
			last, failed := w.groups["orders"].LastDrillAt, w.told("drill.fail")
			p := w.drill(writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, "us")
			d := w.record(p, c.change)
			if d.Outcome != writv1.DrillOutcome_DRILL_OUTCOME_FAILED || !strings.Contains(strings.Join(d.Problems, "; "), c.want) {
				t.Errorf("it was judged: %v, want %q", d, c.want)
			}
			if w.groups["orders"].LastDrillAt != last || w.told("drill.fail") != failed+1 {
				t.Errorf("a drill that failed counts: %v", w.groups["orders"])
			}
			w.again()
		})
	}
}

// again removes the shadow and makes it anew.
func (w *world) again() {
	w.t.Helper()
	w.must("ops", &writv1.RemoveGroupRequest{Name: "orders-drill"})
	w.settle()
	w.pass(time.Second)
	if w.groups["orders-drill"] != nil {
		w.t.Fatal("the shadow is there still")
	}
	w.shadow()
}

// A drill that ends by itself has failed, and nobody has to say so; a plan that nobody executed was none.
func TestDrillThatIsNotCarriedThrough(t *testing.T) {
	w, _ := newDrilled(t)
	plan := &writv1.PlanRequest{Group: "orders-drill", To: "us", Mode: writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER}
	p := w.must("ops", plan).(*writv1.Promotion)
	w.must("ops", &writv1.AbortRequest{Id: p.Id})
	if g := w.groups["orders"]; len(g.Drills) != 0 {
		t.Fatalf("drills %v", g.Drills)
	}
	w.deadGuards["guard-ap"] = true
	p = w.must("ops", plan).(*writv1.Promotion)
	w.must("ops", &writv1.ExecuteRequest{Id: p.Id})
	w.settle()
	if _, err := w.ask("ops", &writv1.RecordDrillRequest{Group: "orders", Id: p.Id}); err == nil || err.Reason != lease.ReasonConflict {
		t.Errorf("judged under way: %v", err)
	}
	w.must("ops", &writv1.AbortRequest{Id: p.Id, Reason: "enough"})
	w.pass(20 * time.Second)
	g := w.groups["orders"]
	if len(g.Drills) != 1 || g.Drills[0].Outcome != writv1.DrillOutcome_DRILL_OUTCOME_FAILED || !strings.Contains(g.Drills[0].Problems[0], "rolled_back: enough") {
		t.Errorf("drills %v, the promotion is %v", g.Drills, w.promotions[p.Id])
	}
	for what, ask := range map[string]*writv1.RecordDrillRequest{
		"promotion":      {Group: "orders", Id: "orders-drill-1.99"},
		"no group":       {Group: "nothing", Id: p.Id},
		"no drill of it": {Group: "orders-drill", Id: p.Id},
	} {
		if d, err := w.ask("ops", ask); err == nil {
			t.Errorf("%s: %v", what, d)
		}
	}
}

// The ids of a shadow's promotions are not those of the shadow before it: agents remember them.
func TestShadowsGoOnWithIds(t *testing.T) {
	w, _ := newDrilled(t)
	seen := map[string]bool{}
	for range 3 {
		p := w.drill(writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, "us")
		if seen[p.Id] || p.State != done {
			t.Fatalf("%s again, %v", p.Id, p.State)
		}
		seen[p.Id] = true
		w.again()
	}
}

// Only so many drills are kept.
func TestDrillsAreKeptInBounds(t *testing.T) {
	w, _ := newDrilled(t)
	g := w.machine.groups["orders"]
	w.machine.changeGroup(g, func(rec *writv1.Group) {
		for i := range keepDrills {
			rec.Drills = append(rec.Drills, &writv1.Drill{Promotion: fmt.Sprint(i)})
		}
	})
	p := w.drill(writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER, "us")
	w.record(p, func(r *writv1.RecordDrillRequest) {
		for i := range 100 {
			r.After[0].Detail = strings.Repeat("ä", 500)
			r.After[0].Refused = i < 0
		}
	})
	kept := w.groups["orders"].Drills
	if len(kept) != keepDrills || kept[0].Promotion != "1" || len(kept[keepDrills-1].Problems[0]) > maxDrillProblemSize {
		t.Errorf("%d drills are kept, from %v", len(kept), kept[0])
	}
	list := w.must("ops", &writv1.ListGroupsRequest{}).(*writv1.ListGroupsResponse)
	for _, g := range list.Groups {
		if len(g.Drills) > 1 {
			t.Errorf("a list has %d drills of %s", len(g.Drills), g.Spec.Name)
		}
	}
	if len(w.groups["orders"].Drills) != keepDrills {
		t.Error("to list them has changed them")
	}
}

// What a drill may be the shadow of, and what it may not touch.
func TestShadowsKeepToTheirResource(t *testing.T) {
	w, _ := newDrilled(t)
	for _, change := range []func(*writv1.GroupSpec){
		func(s *writv1.GroupSpec) { s.Name, s.Resource = "other", "orders" },
		func(s *writv1.GroupSpec) { s.Name, s.Resource = "other", "payments" },
		func(s *writv1.GroupSpec) { s.Name, s.Resource = "other", "drill/payments" },
		func(s *writv1.GroupSpec) { s.Name, s.DrillOf, s.Resource = "other", "", "drill/payments" },
		func(s *writv1.GroupSpec) { s.Name, s.DrillOf = "other", "orders-drill" },
	} {
		spec := DrillSpec(w.groups["orders"])
		change(spec)
		if answer, err := w.ask("ops", &writv1.ApplyGroupRequest{Spec: spec}); err == nil {
			t.Errorf("%s of %q for %q: %v", spec.Name, spec.DrillOf, spec.Resource, answer)
		}
	}
}

// Whatever is done with a drill, in whichever order, and whatever fails: no tenure but its own is touched.
func TestDrillsTouchNothingReal(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w, seen := newDrilled(t)
		before := w.records["orders"]
		for range rapid.IntRange(1, 25).Draw(r, "steps") {
			drillStep(w, r)
			if w.machine.tenures != Tenures(seen) { // another coordinator
				seen = &touched{Tenures: w.machine.tenures, names: seen.names}
				w.machine.tenures = seen
			}
			w.round()
			if slices.Contains(seen.names, "orders") {
				r.Fatalf("it touched %v", seen.names)
			}
			if now := w.records["orders"]; now.Token != before.Token || now.Holder != before.Holder || !now.Held || w.table.Tenure("orders").Fencing > now.Token {
				r.Fatalf("the real tenure was %v, and is %v", before, now)
			}
		}
	})
}

func drillStep(w *world, r *rapid.T) {
	last := ""
	for id := range w.promotions {
		if strings.HasPrefix(id, "orders-drill-") && (last == "" || compareIDs(id, last) > 0) {
			last = id
		}
	}
	region := rapid.SampledFrom([]string{"eu", "us", "ap"}).Draw(r, "region")
	switch rapid.IntRange(0, 10).Draw(r, "step") {
	case 0, 1:
		mode := writv1.PromotionMode(rapid.IntRange(1, 4).Draw(r, "mode"))
		if answer, err := w.ask("ops", &writv1.PlanRequest{Group: "orders-drill", To: region, Mode: mode, LossCap: &writv1.Loss{}}); err == nil {
			_, _ = w.ask("ops", &writv1.ExecuteRequest{Id: answer.(*writv1.Promotion).Id})
		}
	case 2:
		_, _ = w.ask("ops", &writv1.AbortRequest{Id: last})
	case 3:
		_, _ = w.ask("ops", &writv1.ResumeRequest{Id: last})
	case 4:
		if answer, err := w.ask("ops", &writv1.ReinstateRequest{Id: last, Disposition: writv1.Disposition_DISPOSITION_ACCEPTED}); err == nil {
			_, _ = w.ask("ops", &writv1.ExecuteOperationRequest{Id: answer.(*writv1.Operation).Id})
		}
	case 5:
		_, _ = w.ask("ops", &writv1.RemoveGroupRequest{Name: "orders-drill"})
	case 6:
		_, _ = w.ask("ops", &writv1.ApplyGroupRequest{Spec: DrillSpec(w.groups["orders"])})
	case 7:
		w.deadGuards["guard-"+region] = !w.deadGuards["guard-"+region]
	case 8:
		w.agents[region].outcomes[writv1.HookKind(rapid.IntRange(1, int(allHooks)).Draw(r, "hook"))] = writv1.HookOutcome(rapid.IntRange(2, 5).Draw(r, "outcome"))
	case 9:
		w.takeover()
	default:
		w.pass(time.Duration(rapid.IntRange(1, 15).Draw(r, "seconds")) * time.Second)
	}
}
