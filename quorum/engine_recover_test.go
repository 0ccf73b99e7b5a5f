package quorum

import (
	"errors"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// loadForeign takes an engine to the point where it has loaded state, with requests in its queue.
func loadForeign(t *testing.T, identity *writv1.IdentityRecord, witness *writv1.WitnessRecord, queued ...any) *Engine {
	t.Helper()
	e := NewEngine(EngineConfig{Node: "n1", Cluster: "test"})
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	attempt := e.Step(m, Leadership{Leader: true}).Claim
	if attempt == 0 {
		t.Fatal("the engine does not claim a term")
	}
	for i, command := range queued {
		e.Step(m, Submits{{ID: lease.CallID(i + 1), Intake: m.Now, Command: command}})
	}
	e.Step(m, Claimed{Attempt: attempt, Term: 5, Nonce: "new"})
	e.Step(m, Loaded{
		Attempt: attempt, Revision: 5, Identity: identity, Own: witness,
		Members: []MemberInfo{{ID: 1, Name: "n1"}}, Nodes: []*writv1.NodeRecord{{Name: "n1", MemberId: 1, Witness: witness}},
	})
	if e.Role() != Recovering {
		t.Fatalf("the engine is %v, want recovering", e.Role())
	}
	return e
}

func TestRequestsOfBeforeARecoveryAreRefused(t *testing.T) {
	e := loadForeign(t,
		&writv1.IdentityRecord{Cluster: "test", Incarnation: "old", Epoch: 1, Members: map[string]uint64{"n1": 1}},
		&writv1.WitnessRecord{Cluster: "test", Node: "n1", MemberId: 1, Epoch: 1, Foreign: "restored"},
		lease.Release{Ref: lease.Ref{Resource: "a", Token: 1<<48 | 1}},
		BeginMemberChange{Change: &writv1.MemberChange{Name: "n2", Add: true}},
	)
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	effects := e.Step(m, RoundDone{Round: e.round.number})
	if len(effects.Replies) != 1 || effects.Replies[0].ID != 1 || !errors.Is(effects.Replies[0].Err, lease.ErrRecovering) {
		t.Fatalf("replies %+v, want RECOVERING for the request", effects.Replies)
	}
	if e.round == nil {
		t.Fatal("the change of membership is not being committed")
	}
	effects = e.Step(m, RoundDone{Round: e.round.number})
	if len(effects.Replies) != 1 || effects.Replies[0].ID != 2 || effects.Replies[0].Err != nil {
		t.Errorf("replies %+v, want success for the change of membership", effects.Replies)
	}
}

// A backup from the middle of a recovery holds an epoch that tokens were granted in later.
func TestForeignStateFromWithinARecovery(t *testing.T) {
	for _, raised := range []bool{false, true} {
		e := loadForeign(t,
			&writv1.IdentityRecord{
				Cluster: "test", Incarnation: "recovered", Epoch: 5, Members: map[string]uint64{"n1": 1},
				Recovery: &writv1.Recovery{Id: "recovered", EpochRaised: raised},
			},
			&writv1.WitnessRecord{Cluster: "test", Node: "n1", MemberId: 1, Epoch: 5, Incarnation: "recovered", Ceiling: 1000, Foreign: "restored"},
		)
		if e.identity.Recovery.EpochRaised {
			t.Errorf("raised %v: the recovery of the backup goes on in epoch %d", raised, e.identity.Epoch)
		}
	}
}

// A coordinator that takes over in the middle of a recovery goes on with it.
func TestRecoveryGoesOnUnderTheNextTerm(t *testing.T) {
	e := loadForeign(t,
		&writv1.IdentityRecord{
			Cluster: "test", Incarnation: "recovered", Epoch: 5, Members: map[string]uint64{"n1": 1},
			Recovery: &writv1.Recovery{Id: "recovered", EpochRaised: true},
		},
		&writv1.WitnessRecord{Cluster: "test", Node: "n1", MemberId: 1, Epoch: 4, Incarnation: "old", Foreign: "restored"},
	)
	if r := e.identity.Recovery; r.Id != "recovered" || !r.EpochRaised {
		t.Errorf("recovery %v, want the one under way", r)
	}
}

// A witness that contradicts the state counts as well if it shows up while the first commit of a term is under way.
func TestForeignWitnessWhileReserving(t *testing.T) {
	e := NewEngine(EngineConfig{Node: "n1", Cluster: "test"})
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	attempt := e.Step(m, Leadership{Leader: true}).Claim
	e.Step(m, Claimed{Attempt: attempt, Term: 5, Nonce: "new"})
	members := []MemberInfo{{ID: 1, Name: "n1"}, {ID: 2, Name: "n2"}}
	round := e.Step(m, Loaded{Attempt: attempt, Revision: 5, Members: members}).Round
	e.Step(m, NodesChanged{Members: members, Nodes: []*writv1.NodeRecord{
		{Name: "n2", MemberId: 2, Witness: &writv1.WitnessRecord{Cluster: "test", Node: "n2", Epoch: 9}},
	}})
	w := e.Step(m, RoundDone{Round: round}).Witness
	if w == nil {
		t.Fatal("the ceiling is not to be witnessed")
	}
	effects := e.Step(m, *w)
	if e.Role() == Serving || effects.Claim == 0 || effects.Warning == "" {
		t.Errorf("the engine is %v (%q), want a new claim", e.Role(), effects.Warning)
	}
}
