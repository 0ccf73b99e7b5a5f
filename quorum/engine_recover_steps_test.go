package quorum

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// recovery takes one engine through a recovery, with what its nodes announce.
type recovery struct {
	t       *testing.T
	engine  *Engine
	now     clock.Instant
	nodes   []*writv1.NodeRecord
	commits [][]Write
}

const recoveryStart = clock.Instant(time.Hour)

// beginRecovery is an engine whose state is foreign to its own witness: of node n1, beside a member that has no name yet.
func beginRecovery(t *testing.T, own *writv1.WitnessRecord) *recovery {
	t.Helper()
	own.Cluster, own.Node, own.MemberId, own.Foreign = "test", "n1", 1, "restored"
	r := &recovery{
		t: t, engine: NewEngine(EngineConfig{Node: "n1", Cluster: "test", TokenBlock: 5000}), now: recoveryStart,
		nodes: []*writv1.NodeRecord{{Name: "n1", MemberId: 1}},
	}
	attempt := r.step(Leadership{Leader: true}).Claim
	r.step(Claimed{Attempt: attempt, Term: 5, Nonce: "new"})
	r.step(Loaded{Attempt: attempt, Revision: 5, Own: own, Nodes: r.nodes, Members: []MemberInfo{{ID: 1, Name: "n1"}, {ID: 0xab}},
		Identity: &writv1.IdentityRecord{
			Cluster: "test", Incarnation: "old", Epoch: 2, Ceiling: 900, MaxTtlMs: 1000, Members: map[string]uint64{"n1": 1, "ab": 0xab},
			Pending: &writv1.MemberChange{Name: "n3", Add: true},
		},
	})
	r.done()
	return r
}

func (r *recovery) step(ev EngineEvent) *Effects {
	r.t.Helper()
	effects := r.engine.Step(lease.Moment{Now: r.now, Wall: time.UnixMilli(1000)}, ev)
	if effects.Commit != nil {
		r.commits = append(r.commits, effects.Commit)
	}
	return effects
}

// done ends the round in flight.
func (r *recovery) done() *Effects {
	r.t.Helper()
	if r.engine.round == nil {
		r.t.Fatal("nothing is being committed")
	}
	return r.step(RoundDone{Round: r.engine.round.number})
}

// announce is what one node says, beside what the others have said.
func (r *recovery) announce(n *writv1.NodeRecord) *Effects {
	r.t.Helper()
	var nodes []*writv1.NodeRecord
	for _, known := range r.nodes {
		if known.MemberId != n.MemberId {
			nodes = append(nodes, known)
		}
	}
	r.nodes = append(nodes, n)
	return r.step(NodesChanged{Nodes: r.nodes, Members: []MemberInfo{{ID: 1, Name: "n1"}, {ID: 0xab}}})
}

// waits holds what the engine says that it waits for against a part of it.
func (r *recovery) waits(want string, until clock.Instant) {
	r.t.Helper()
	if what, at := r.engine.Waiting(); r.engine.Role() != Recovering || !strings.Contains(what, want) || at != until {
		r.t.Fatalf("the engine is %v and waits until %v: %q, want until %v: %q", r.engine.Role(), at, what, until, want)
	}
	if r.engine.round != nil {
		r.t.Fatal("something is being committed meanwhile")
	}
	if wake := r.engine.effects.Wake; wake != until {
		r.t.Fatalf("the engine wakes at %v, want %v", wake, until)
	}
}

// Each step waits for every member, says for which one, and says until when if it knows.
func TestARecoverySaysWhatItWaitsFor(t *testing.T) {
	r := beginRecovery(t, &writv1.WitnessRecord{Epoch: 3, MaxTtlMs: 2000})
	r.waits("node n1 has not shown its witness; start it, or remove it with: writ quorum member remove n1", clock.Never)
	r.announce(&writv1.NodeRecord{Name: "n1", MemberId: 1, RecoveryId: "new"})
	r.waits("node ab has not shown its witness", clock.Never)
	r.announce(&writv1.NodeRecord{Name: "n2", MemberId: 0xab, RecoveryId: "another"})
	r.waits("node ab has not shown its witness", clock.Never)

	r.announce(&writv1.NodeRecord{Name: "n2", MemberId: 0xab, RecoveryId: "new", Witness: &writv1.WitnessRecord{Epoch: 7, MaxTtlMs: 90_000}})
	id := committedIdentity(t, r.commits[len(r.commits)-1])
	if id.Epoch != 8 || id.Incarnation != "new" || id.Ceiling != 0 || id.MaxTtlMs != 90_000 || id.Pending != nil ||
		!maps.Equal(id.Members, map[string]uint64{"n1": 1, "n2": 0xab}) {
		t.Fatalf("the new identity is %v", id)
	}
	if what, until := r.engine.Waiting(); what == "" || until != clock.Never {
		t.Errorf("while it commits the engine waits until %v: %q", until, what)
	}
	r.done()

	r.waits("node n1 has not witnessed the new epoch", clock.Never)
	r.announce(&writv1.NodeRecord{Name: "n1", MemberId: 1, Witness: &writv1.WitnessRecord{Epoch: 8, Incarnation: "new"}})
	for _, not := range []*writv1.WitnessRecord{nil, {Epoch: 7, Incarnation: "new"}, {Epoch: 8, Incarnation: "old"}} {
		r.announce(&writv1.NodeRecord{Name: "n2", MemberId: 0xab, Witness: not})
		r.waits("node ab has not witnessed the new epoch", clock.Never)
	}
	r.announce(&writv1.NodeRecord{Name: "n2", MemberId: 0xab, Witness: &writv1.WitnessRecord{Epoch: 8, Incarnation: "new"}})
	end := recoveryStart.Add(90 * time.Second)
	r.waits("every lease that may have been granted before runs out", end)

	r.now = end - 1
	r.step(Tick{})
	r.waits("every lease", end)
	r.now = end
	r.step(Tick{})
	if what, until := r.engine.Waiting(); r.engine.Role() != Reserving || what != "" || until != clock.Never {
		t.Fatalf("the engine is %v and waits until %v for %q", r.engine.Role(), until, what)
	}
	id = committedIdentity(t, r.commits[len(r.commits)-1])
	if id.Recovery != nil || id.Epoch != 8 || id.Ceiling != 5000 {
		t.Errorf("the identity after the recovery is %v", id)
	}
	if want := []string{"quorum.foreign-state", "quorum.raise-epoch", "quorum.recovered"}; fmt.Sprint(r.actions()) != fmt.Sprint(want) {
		t.Errorf("recorded are %v, want %v", r.actions(), want)
	}
	r.step(*r.done().Witness)
	if r.engine.Role() != Serving {
		t.Errorf("the engine is %v, want serving", r.engine.Role())
	}
}

// actions answers what was recorded, in order of the chain.
func (r *recovery) actions() (actions []string) {
	r.t.Helper()
	var head audit.Head
	for _, writes := range r.commits {
		for _, w := range writes {
			if !strings.HasPrefix(w.Key, prefixAudit) {
				continue
			}
			rec, next, err := audit.Verify(head, w.Value)
			if err != nil {
				r.t.Fatal(err)
			}
			actions, head = append(actions, rec.Action), next
		}
	}
	return actions
}

// What this node remembers counts, though it may not have announced it.
func TestARecoveryRaisesTheEpochAboveItsOwnWitness(t *testing.T) {
	r := beginRecovery(t, &writv1.WitnessRecord{Epoch: 9, MaxTtlMs: 120_000})
	for _, member := range []uint64{1, 0xab} {
		r.announce(&writv1.NodeRecord{MemberId: member, RecoveryId: "new"})
	}
	if id := committedIdentity(t, r.commits[len(r.commits)-1]); id.Epoch != 10 || id.MaxTtlMs != 120_000 {
		t.Errorf("the new identity is %v", id)
	}
}

func TestARecoveryWithoutAnEpochLeftGrantsNothing(t *testing.T) {
	r := beginRecovery(t, &writv1.WitnessRecord{Epoch: uint32(fence.MaxEpoch)})
	for _, member := range []uint64{1, 0xab} {
		r.announce(&writv1.NodeRecord{MemberId: member, RecoveryId: "new"})
	}
	r.waits(fmt.Sprint("no epoch is left above ", fence.MaxEpoch), clock.Never)
}

// Meanwhile requests about leases are refused, with when to come back if that is known, and members may change: a member that
// is gone must be removed before a recovery can end.
func TestWhatIsAnsweredDuringARecovery(t *testing.T) {
	r := beginRecovery(t, &writv1.WitnessRecord{Epoch: 3})
	ask := Submits{{ID: 1, Intake: r.now, Command: acquireOf("a", "r", "A")}}
	refused := func(after time.Duration) {
		t.Helper()
		replies := r.step(ask).Replies
		if len(replies) != 1 || !errors.Is(replies[0].Err, lease.ErrRecovering) || replies[0].Err.RetryAfter != after {
			t.Errorf("answered %+v, want RECOVERING, again after %v", replies, after)
		}
	}
	refused(0)
	if effects := r.step(Leadership{Leader: true}); !effects.Confirm {
		t.Error("the term is not confirmed when somebody else may have claimed")
	}
	r.done()

	change := EndMemberChange{Members: map[string]uint64{"n1": 1}, Removed: "n2"}
	effects := r.step(Submits{{ID: 2, Intake: r.now, Command: change}})
	if id := committedIdentity(t, effects.Commit); !maps.Equal(id.GetMembers(), change.Members) {
		t.Fatalf("committed is %v", id)
	}
	r.step(Submits{{ID: 3, Intake: r.now, Command: "nonsense"}})
	r.step(NodesChanged{Members: []MemberInfo{{ID: 1, Name: "n1"}}, Nodes: []*writv1.NodeRecord{{Name: "n1", MemberId: 1, RecoveryId: "new"}}})
	// All witnesses have been shown, but one round is in flight at a time.
	effects = r.done()
	if len(effects.Replies) != 1 || effects.Replies[0].ID != 2 || effects.Replies[0].Err != nil || !effects.Confirm {
		t.Errorf("the change is answered with %+v", effects)
	}
	effects = r.done()
	if len(effects.Replies) != 1 || effects.Replies[0].Err == nil || effects.Replies[0].Err.Reason != lease.ReasonInternal {
		t.Errorf("nonsense is answered with %+v", effects.Replies)
	}
	if id := committedIdentity(t, effects.Commit); id.GetEpoch() != 4 {
		t.Fatalf("the epoch is not raised: %v", id)
	}
	r.done()
	r.now = r.now.Add(10 * time.Second)
	r.step(NodesChanged{Members: []MemberInfo{{ID: 1, Name: "n1"}}, Nodes: []*writv1.NodeRecord{
		{Name: "n1", MemberId: 1, Witness: &writv1.WitnessRecord{Epoch: 4, Incarnation: "new"}},
	}})
	refused(lease.DefaultMaxTTL - 10*time.Second)
}

// A node that is configured for another cluster than its state is of does nothing, and says so.
func TestAnotherClustersStateIsLeftAlone(t *testing.T) {
	e := NewEngine(EngineConfig{Node: "n1", Cluster: "test"})
	m := lease.Moment{Now: recoveryStart}
	attempt := e.Step(m, Leadership{Leader: true}).Claim
	e.Step(m, Claimed{Attempt: attempt, Term: 5, Nonce: "new"})
	effects := e.Step(m, Loaded{
		Attempt: attempt, Revision: 5, Identity: &writv1.IdentityRecord{Cluster: "other", Epoch: 1, Members: map[string]uint64{"n1": 1}},
		Members: []MemberInfo{{ID: 1, Name: "n1"}},
	})
	if e.Role() != Follower || effects.Commit != nil || effects.Wake != clock.Never || !strings.Contains(effects.Warning, `of cluster "other"`) {
		t.Errorf("the engine is %v, wakes at %v and warns %q", e.Role(), effects.Wake, effects.Warning)
	}
}

// A change of membership is announced with a record of it, and another one has to wait for its end.
func TestMembersChangeOneAtATime(t *testing.T) {
	d := serving(t, EngineConfig{})
	add := &writv1.MemberChange{Name: "n2", Add: true, PeerUrl: "https://n2"}
	remove := &writv1.MemberChange{Name: "n3", MemberId: 3}
	ids := d.submit(
		BeginMemberChange{Actor: "admin", Change: add}, BeginMemberChange{Actor: "admin", Change: add},
		BeginMemberChange{Actor: "admin", Change: remove}, EndMemberChange{Members: map[string]uint64{"n1": 1, "n2": 2}},
		BeginMemberChange{Actor: "admin", Change: remove}, EndMemberChange{Members: map[string]uint64{"n1": 1}, Removed: "n3"},
	)
	for i, id := range ids {
		if r := d.replies[id]; (r.Err != nil) != (i == 2) || i == 2 && r.Err.Reason != lease.ReasonConflict {
			t.Errorf("command %d is answered with %+v", i, r)
		}
	}
	var actions []string
	for _, r := range d.audited() {
		actions = append(actions, fmt.Sprint(r.Action, " ", r.Target, " ", r.Detail["peer_url"]))
	}
	if want := []string{"quorum.member-add n2 https://n2", "quorum.member-add n2 https://n2", "quorum.member-remove n3 "}; fmt.Sprint(actions) != fmt.Sprint(want) {
		t.Errorf("recorded are %q, want %q", actions, want)
	}
	dropped := 0
	for _, w := range d.commits[0] {
		if strings.HasPrefix(w.Key, prefixNode) {
			dropped++
			if w.Key != NodeKey("n3") || w.Value != nil {
				t.Errorf("%s is written as %q", w.Key, w.Value)
			}
		}
	}
	if id := committedIdentity(t, d.commits[0]); dropped != 1 || id.Pending != nil || !maps.Equal(id.Members, map[string]uint64{"n1": 1}) {
		t.Errorf("%d nodes are dropped, and the identity is %v", dropped, id)
	}
}

// loadedWith is an engine that has loaded a state of one member, which is called n1.
func loadedWith(t *testing.T, id *writv1.IdentityRecord) *Engine {
	t.Helper()
	e := NewEngine(EngineConfig{Node: "n1", Cluster: "test"})
	m := lease.Moment{Now: recoveryStart}
	attempt := e.Step(m, Leadership{Leader: true}).Claim
	e.Step(m, Claimed{Attempt: attempt, Term: 5, Nonce: "new"})
	e.Step(m, Loaded{
		Attempt: attempt, Revision: 5, Identity: id, Members: []MemberInfo{{ID: 1, Name: "n1", PeerURLs: []string{"https://n1"}}},
	})
	return e
}

// A term takes the store's word for the members if a change was under way, and only then.
func TestANewTermEndsAChangeOfMembers(t *testing.T) {
	for name, c := range map[string]struct {
		committed map[string]uint64
		pending   *writv1.MemberChange
		want      map[string]uint64
	}{
		"no change":         {map[string]uint64{"first": 1}, nil, map[string]uint64{"first": 1}},
		"added":             {nil, &writv1.MemberChange{Name: "n1", Add: true, PeerUrl: "https://n1"}, map[string]uint64{"n1": 1}},
		"removed":           {map[string]uint64{"n1": 1, "n2": 2}, &writv1.MemberChange{Name: "n2", MemberId: 2}, map[string]uint64{"n1": 1}},
		"it never happened": {map[string]uint64{"n1": 1}, &writv1.MemberChange{Name: "n2", Add: true}, map[string]uint64{"n1": 1}},
	} {
		e := loadedWith(t, &writv1.IdentityRecord{Cluster: "test", Incarnation: "i", Epoch: 1, Members: c.committed, Pending: c.pending})
		if id := committedIdentity(t, e.effects.Commit); e.Role() != Reserving || id.Pending != nil || !maps.Equal(id.Members, c.want) {
			t.Errorf("%s: the engine is %v and commits %v, want %v", name, e.Role(), id, c.want)
		}
	}
}

// Invariant: before a block of tokens is committed and witnessed, a new term has none at all.
func TestANewTermHasNoTokensBeforeItsWitness(t *testing.T) {
	e := loadedWith(t, &writv1.IdentityRecord{Cluster: "test", Incarnation: "i", Epoch: 1, Ceiling: 900, Members: map[string]uint64{"n1": 1}})
	m := lease.Moment{Now: recoveryStart}
	w := e.Step(m, RoundDone{Round: e.round.number}).Witness
	if w == nil || w.Ceiling != 900+1<<16 {
		t.Fatalf("to be witnessed is %+v", w)
	}
	if e.Step(m, Witnessed{Epoch: 1, Incarnation: "i", Ceiling: w.Ceiling - 1}); e.Role() != Reserving || e.table.TokensLeft() != 0 {
		t.Errorf("the engine is %v and has %d tokens before its witness has the ceiling", e.Role(), e.table.TokensLeft())
	}
	if e.Step(m, *w); e.Role() != Serving || e.table.TokensLeft() != 1<<16 {
		t.Errorf("the engine is %v and has %d tokens of a block", e.Role(), e.table.TokensLeft())
	}
}
