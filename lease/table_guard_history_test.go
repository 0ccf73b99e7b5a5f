package lease_test

import (
	"maps"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// A guard that goes by rules of a history which a restore has undone does not count as one that has heard of the rules which
// have their number now.
func TestRulesOfAnUndoneHistory(t *testing.T) {
	at := lease.Moment{Now: clock.Instant(time.Hour), Wall: time.UnixMilli(1e9)}
	open := &writv1.GuardingRule{Isolation: writv1.Isolation_ISOLATION_OPEN}
	table := lease.NewTable(lease.TableConfig{GuardLease: guardG, Retention: time.Hour}, 2)
	table.Allow(1, 1000)
	table.LoadGuards(at, []*writv1.GuardRecord{{
		Name: "g1", Principal: "guard", Covers: []string{"*"}, Store: "s", Session: "p.1", LeaseMs: guardG.Milliseconds(), SlackMs: 1000, RulesVersion: 1,
	}}, &writv1.GuardingRecord{Version: 1, Rules: []*writv1.GuardingRule{open}})
	call := lease.CallID(0)
	do := func(c lease.Command) lease.Reply {
		call++
		return table.Step(at, lease.Request{ID: call, Intake: at.Now, Command: c}).Replies[0]
	}
	contact := func(version uint64) *writv1.GuardContacted {
		t.Helper()
		r := do(lease.GuardCall{Caller: lease.Caller{Principal: "guard"}, Request: &writv1.GuardRequest{
			Guard: "g1", Session: "p.1", Id: 1, Ask: &writv1.GuardRequest_Contact{Contact: &writv1.GuardContact{RulesVersion: version}},
		}})
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return r.Value.(*writv1.GuardResponse).GetContacted()
	}
	r := do(lease.SetGuarding{Rule: &writv1.GuardingRule{Isolation: writv1.Isolation_ISOLATION_CLOSE}})
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	rules := r.Value.(*writv1.GuardingRecord)
	for _, version := range []uint64{2, 3, rules.Version + 1} { // the guard has heard of these in the history that is gone
		if told := contact(version).GetRules(); told.GetVersion() != rules.Version {
			t.Errorf("a guard that goes by version %d was told version %d, not %d", version, told.GetVersion(), rules.Version)
		}
	}
	// It may be going on without contact: when it is silent, nobody takes it for out.
	token, err := fence.NewToken(2, 1)
	if err != nil {
		t.Fatal(err)
	}
	table.Load(at, lease.Record{Resource: "r", Fencing: token}, nil)
	at.Now = at.Now.Add(2 * guardG)
	table.Step(at, lease.Tick{MaxWrites: 10, MaxBytes: 1 << 20})
	lag := func() uint32 {
		return do(lease.ListGuards{}).Value.(*writv1.ListGuardsResponse).Guards[0].Lag
	}
	if lag() != 1 {
		t.Error("a guard that has not heard of the rule was taken for one that closes")
	}
}

// A guard that is in doubt about a floor is told what a seed would tell it, of what it covers and of nothing else.
func TestDoubtsOfAGuardAreAnswered(t *testing.T) {
	at := lease.Moment{Now: clock.Instant(time.Hour), Wall: time.UnixMilli(1e9)}
	table := lease.NewTable(lease.TableConfig{GuardLease: guardG, Retention: time.Hour}, 2)
	table.Allow(1, 1000)
	token := func(sequence uint64) fence.Token {
		t.Helper()
		token, err := fence.NewToken(2, sequence)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	table.LoadGuards(at, []*writv1.GuardRecord{{
		Name: "g1", Principal: "guard", Covers: []string{"db/*"}, Store: "s", Session: "p.1", LeaseMs: guardG.Milliseconds(), SlackMs: 1000, RulesVersion: 1,
	}}, &writv1.GuardingRecord{Version: 1, Rules: []*writv1.GuardingRule{{Prefix: "db/", Isolation: writv1.Isolation_ISOLATION_CLOSE}}})
	holder := lease.Holder{Principal: "p", Instance: "i"}
	table.Load(at, lease.Record{Resource: "db/held", Held: true, Token: token(5), Holder: holder, TTL: time.Minute}, nil)
	table.Load(at, lease.Record{Resource: "db/raised", Token: token(3), Fencing: token(7)}, nil)
	table.Load(at, lease.Record{Resource: "db/free", Token: token(4)}, nil)
	table.Load(at, lease.Record{Resource: "log", Held: true, Token: token(8), Holder: holder, TTL: time.Minute}, nil)
	table.Allow(20, 1000)
	reply := table.Step(at, lease.Request{ID: 1, Intake: at.Now, Command: lease.GuardCall{
		Caller: lease.Caller{Principal: "guard"},
		Request: &writv1.GuardRequest{Guard: "g1", Session: "p.1", Id: 1, Ask: &writv1.GuardRequest_Contact{Contact: &writv1.GuardContact{
			RulesVersion: 1, Doubts: []string{"db/held", "db/raised", "db/free", "db/unknown", "log"},
		}}},
	}}).Replies[0]
	if reply.Err != nil {
		t.Fatal(reply.Err)
	}
	base := token(20) // above all that were taken, and not above any that will be
	want := map[string]fence.Token{"db/held": token(5), "db/raised": token(7), "db/free": base, "db/unknown": base}
	got := make(map[string]fence.Token)
	for _, f := range reply.Value.(*writv1.GuardResponse).GetContacted().GetFloors() {
		got[f.GetResource()] = fence.Token(f.GetToken())
	}
	if !maps.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}
