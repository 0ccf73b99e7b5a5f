package lease_test

import (
	"slices"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// A raise that nothing guarded for a while, or that a laxer rule was content without, needs its proofs as soon as a rule asks
// for them, for a lease as for a tenure.
func TestRaiseIsTakenUpWhenARuleAsksForProof(t *testing.T) {
	rule := func(isolation writv1.Isolation, unproven bool) *writv1.GuardingRule {
		return &writv1.GuardingRule{Prefix: "r", Isolation: isolation, AllowUnproven: unproven}
	}
	closes, lax := rule(writv1.Isolation_ISOLATION_CLOSE, false), rule(writv1.Isolation_ISOLATION_OPEN, true)
	for name, change := range map[string][]lease.SetGuarding{
		"unguarded": {{Rule: closes, Remove: true}, {Rule: closes}},
		"unproven":  {{Rule: closes}},
	} {
		t.Run(name, func(t *testing.T) {
			at := lease.Moment{Now: clock.Instant(time.Hour), Wall: time.UnixMilli(1e9)}
			guard := &writv1.GuardRecord{Name: "g1", Principal: "guard", Covers: []string{"*"}, Store: "s", Session: "p.1",
				LeaseMs: guardG.Milliseconds(), SlackMs: 1000, RulesVersion: 1}
			rules := &writv1.GuardingRecord{Version: 1, Rules: []*writv1.GuardingRule{closes}}
			if name == "unproven" {
				guard.Out, rules.Rules[0] = true, lax
			}
			table := lease.NewTable(lease.TableConfig{GuardLease: guardG, Retention: time.Hour}, 1)
			table.Allow(1, 1000)
			table.LoadGuards(at, []*writv1.GuardRecord{guard}, rules)
			call := lease.CallID(0)
			do := func(c lease.Command) lease.Reply {
				call++
				effects := table.Step(at, lease.Request{ID: call, Intake: at.Now, Command: c})
				if i := slices.IndexFunc(effects.Replies, func(r lease.Reply) bool { return r.ID == call }); i >= 0 {
					return effects.Replies[i]
				}
				return lease.Reply{}
			}
			who := lease.Caller{Principal: "app", Instance: "1"}
			do(lease.Acquire{Caller: who, Resource: "r/a", RequestID: "1", TTL: 10 * time.Second, Wait: time.Second})
			if name == "unproven" { // it was granted; otherwise it waits for g1
				do(lease.Release{Caller: who, Ref: lease.Ref{Resource: "r/a", Token: 1<<48 | 1}})
			}
			for _, c := range change {
				if r := do(c); r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			if info := do(lease.Inspect{Ref: lease.Ref{Resource: "r/a"}}); info.Err != nil || info.Value.(lease.Info).State != lease.Fencing {
				t.Fatalf("the resource is %+v, want one that is being fenced", info)
			}
			at.Now = at.Now.Add(5 * time.Second) // who waited has gone
			table.Step(at, lease.Tick{MaxWrites: 10, MaxBytes: 1 << 20})
			if err := table.ClaimTenure(at, "r/a", "pay"); err != nil {
				t.Fatal(err)
			}
			table.FenceTenure(at, "r/a")
			if tenure := table.Tenure("r/a"); tenure.Ready() {
				t.Errorf("the tenure is ready though g1 has proved nothing: %+v", tenure)
			}
			table.DropTenure(at, "r/a")
			if r := do(lease.Acquire{Caller: who, Resource: "r/a", RequestID: "2", TTL: 10 * time.Second, Wait: time.Second}); r.Value != nil {
				t.Errorf("granted though g1 has proved nothing: %+v", r.Value)
			}
		})
	}
}
