//go:build mutants

package quorum

import (
	"fmt"
	"slices"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

// Each scenario tells what happens where its rule is applied. It must be told otherwise while the mutant is on.
var mutantScenarios = map[mutant.ID]func(*testing.T) string{
	mutant.WallClock: func(t *testing.T) string {
		d := serving(t, EngineConfig{})
		d.submit(acquireOf("a", "r", "A"))
		d.last++
		effects := d.engine.Step(lease.Moment{Now: d.now, Wall: time.Unix(0, int64(d.now)).Add(time.Hour)},
			Submits{{ID: d.last, Intake: d.now, Command: acquireOf("b", "r", "B")}})
		return fmt.Sprint(effects.Confirm)
	},
	mutant.RenewalWithoutConfirm: func(t *testing.T) string {
		return answeredInFlight(t, lease.Renew{Caller: lease.Caller{Principal: "a", Instance: "1"}, Refs: []lease.Ref{{Resource: "r", Token: 1<<48 | 1}}})
	},
	mutant.RefusalWithoutConfirm: func(t *testing.T) string { return answeredInFlight(t, acquireOf("b", "r", "B")) },
	mutant.AnswerBeforeCommit:    func(t *testing.T) string { return answeredInFlight(t, acquireOf("b", "s", "B")) },
	mutant.LateToTheConfirm: func(t *testing.T) string {
		d := serving(t, EngineConfig{})
		d.submit(acquireOf("a", "r", "A"))
		d.hold = true
		d.submit(lease.Inspect{Ref: lease.Ref{Resource: "r"}})
		d.submit(lease.Inspect{Ref: lease.Ref{Resource: "r"}})
		return fmt.Sprint(len(d.engine.Step(lease.Moment{Now: d.now}, RoundDone{Round: d.round}).Replies))
	},
	mutant.CeilingNotCommitted: func(t *testing.T) string {
		d := serving(t, EngineConfig{TokenBlock: 64})
		d.grantMany(64, func(i int) lease.Resource { return lease.Resource(fmt.Sprint(i)) })
		return writesTheIdentity(d)
	},
	mutant.AuditHeadLost: func(t *testing.T) string {
		d := serving(t, EngineConfig{})
		d.submit(acquireOf("a", "r", "A"))
		d.submit(lease.ForceRelease{Caller: lease.Caller{Principal: "admin"}, Ref: lease.Ref{Resource: "r"}, Reason: "test"})
		return writesTheIdentity(d)
	},
	mutant.UnknownTakenAsFailure: func(t *testing.T) string {
		d := serving(t, EngineConfig{})
		d.hold = true
		id := d.submit(acquireOf("a", "r", "A"))[0]
		d.step(RoundDone{Round: d.round, Err: ErrUnknown})
		return string(d.replies[id].Err.Reason)
	},
	mutant.KeptTableAfterDeposed: func(t *testing.T) string {
		d := serving(t, EngineConfig{})
		d.hold = true
		d.submit(acquireOf("a", "r", "A"))
		d.engine.Step(lease.Moment{Now: d.now}, RoundDone{Round: d.round, Err: ErrDeposed})
		return d.engine.Role().String()
	},
	mutant.ForeignUnnoticed: func(t *testing.T) string {
		d := serving(t, EngineConfig{})
		d.engine.Step(lease.Moment{Now: d.now}, NodesChanged{Nodes: []*writv1.NodeRecord{{Name: "n2", Witness: &writv1.WitnessRecord{Epoch: 9}}}})
		return d.engine.Role().String()
	},
	mutant.EpochFromBackup: func(t *testing.T) string {
		witness := &writv1.WitnessRecord{Cluster: "test", Node: "n1", MemberId: 1, Epoch: 3, Foreign: "restored"}
		e := loadForeign(t, &writv1.IdentityRecord{Cluster: "test", Incarnation: "old", Epoch: 1, Members: map[string]uint64{"n1": 1}}, witness)
		m := lease.Moment{Now: clock.Instant(time.Hour)}
		e.Step(m, RoundDone{Round: e.round.number})
		e.Step(m, NodesChanged{
			Members: []MemberInfo{{ID: 1, Name: "n1"}},
			Nodes:   []*writv1.NodeRecord{{Name: "n1", MemberId: 1, Witness: witness, RecoveryId: "new"}},
		})
		return fmt.Sprint(e.identity.Epoch)
	},
	mutant.RecoveryWithoutWait: func(t *testing.T) string {
		identity := &writv1.IdentityRecord{
			Cluster: "test", Incarnation: "new", Epoch: 5, Members: map[string]uint64{"n1": 1}, MaxTtlMs: 1000,
			Recovery: &writv1.Recovery{Id: "new", EpochRaised: true},
		}
		e := loadForeign(t, identity, &writv1.WitnessRecord{Cluster: "test", Node: "n1", MemberId: 1, Epoch: 4})
		e.Step(lease.Moment{Now: clock.Instant(time.Hour)}, NodesChanged{
			Members: []MemberInfo{{ID: 1, Name: "n1"}},
			Nodes:   []*writv1.NodeRecord{{Name: "n1", MemberId: 1, Witness: &writv1.WitnessRecord{Epoch: 5, Incarnation: "new"}}},
		})
		return e.Role().String()
	},
	mutant.LoadBeforeClaim:       func(*testing.T) string { return fmt.Sprint(NewImage().Has(5)) },
	mutant.WatchSkipsAfterResume: func(*testing.T) string { return fmt.Sprint(Resume{Revision: 7}.From()) },
	mutant.WatchRepeats:          func(*testing.T) string { return fmt.Sprint(Resume{Revision: 7}.From()) },
	mutant.CompactionIgnored: func(*testing.T) string {
		told := 0
		_, err := TellState(NewImage(), "", true, func(WatchEvent) error {
			told++
			return nil
		})
		return fmt.Sprint(told, err)
	},
}

func TestMutantsOfTheCoordinatorShow(t *testing.T) {
	defer mutant.Use("")
	for id, scenario := range mutantScenarios {
		mutant.Use("")
		want := scenario(t)
		mutant.Use(id)
		if got := scenario(t); got == want {
			t.Errorf("%s changes nothing: %s", id, got)
		}
	}
}

// answeredInFlight tells whether a command is answered while its round is under way, when a holds r.
func answeredInFlight(t *testing.T, command any) string {
	t.Helper()
	d := serving(t, EngineConfig{})
	d.submit(acquireOf("a", "r", "A"))
	d.hold = true
	_, answered := d.replies[d.submit(command)[0]]
	return fmt.Sprint(answered)
}

// writesTheIdentity tells whether any commit so far has written the identity record.
func writesTheIdentity(d *engineDriver) string {
	return fmt.Sprint(slices.ContainsFunc(d.commits, func(writes []Write) bool {
		return slices.ContainsFunc(writes, func(w Write) bool { return w.Key == KeyIdentity })
	}))
}
