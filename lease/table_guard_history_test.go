package lease_test

import (
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
