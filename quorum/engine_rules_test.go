package quorum

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// committedIdentity is the identity record of a commit, nil if there is none in it.
func committedIdentity(t *testing.T, writes []Write) *writv1.IdentityRecord {
	t.Helper()
	for _, w := range writes {
		if w.Key == KeyIdentity {
			id := &writv1.IdentityRecord{}
			if err := proto.Unmarshal(w.Value, id); err != nil {
				t.Fatal(err)
			}
			return id
		}
	}
	return nil
}

func TestTokensStayBelowTheCommittedCeiling(t *testing.T) {
	d := serving(t, EngineConfig{TokenBlock: 64})
	ceiling := d.engine.identity.Ceiling
	for i := range 40 {
		d.commits = nil
		refs := d.grantMany(64, func(j int) lease.Resource { return lease.Resource(fmt.Sprint(64*i + j)) })
		for _, ref := range refs {
			if ref.Token.Sequence() > ceiling {
				t.Fatalf("token %v is above the ceiling %d", ref.Token, ceiling)
			}
		}
		for _, writes := range d.commits {
			ceiling = max(ceiling, committedIdentity(t, writes).GetCeiling())
		}
	}
}

func TestAnAuditRecordIsCommittedWithTheHeadOfItsChain(t *testing.T) {
	d := serving(t, EngineConfig{})
	var head audit.Head
	for range 3 {
		d.submit(acquireOf("a", "r", "A"))
		d.commits = nil
		d.submit(lease.ForceRelease{Caller: lease.Caller{Principal: "admin"}, Ref: lease.Ref{Resource: "r"}, Reason: "test"})
		for _, w := range d.commits[0] {
			if strings.HasPrefix(w.Key, prefixAudit) {
				_, next, err := audit.Verify(head, w.Value)
				if err != nil {
					t.Fatal(err)
				}
				head = next
			}
		}
		if id := committedIdentity(t, d.commits[0]); id.GetAuditSequence() != head.Sequence || string(id.GetAuditHash()) != string(head.Hash) {
			t.Fatalf("the head is %d, the identity has %v", head.Sequence, id)
		}
	}
}

func TestWhatACommitsOutcomeIsAnsweredAs(t *testing.T) {
	for outcome, want := range map[error]error{
		ErrUnknown: lease.ErrUnknownOutcome, errors.New("any other"): lease.ErrUnknownOutcome,
		ErrDeposed: lease.ErrNotCoordinator, ErrNoSpace: lease.ErrNoQuorum,
	} {
		d := serving(t, EngineConfig{})
		d.hold = true
		id := d.submit(acquireOf("a", "r", "A"))[0]
		d.step(RoundDone{Round: d.round, Err: outcome})
		if got := d.replies[id].Err; got == nil || !errors.Is(got, want) {
			t.Errorf("%v is answered as %v, want %v", outcome, got, want)
		}
		if d.engine.table != nil {
			t.Errorf("after %v the engine keeps its table", outcome)
		}
	}
}

func TestARecoveryRaisesTheEpochAboveEveryWitnessAndWaits(t *testing.T) {
	witness := &writv1.WitnessRecord{Cluster: "test", Node: "n1", MemberId: 1, Epoch: 3, Foreign: "restored", MaxTtlMs: 3_600_000}
	e := loadForeign(t, &writv1.IdentityRecord{Cluster: "test", Incarnation: "old", Epoch: 1, Members: map[string]uint64{"n1": 1}}, witness)
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	told := func(w *writv1.WitnessRecord, recovery string) NodesChanged {
		return NodesChanged{
			Members: []MemberInfo{{ID: 1, Name: "n1"}},
			Nodes:   []*writv1.NodeRecord{{Name: "n1", MemberId: 1, Witness: w, RecoveryId: recovery}},
		}
	}
	e.Step(m, RoundDone{Round: e.round.number})
	if e.Step(m, told(witness, "")); e.round != nil {
		t.Fatal("the epoch is raised before the witness was shown")
	}
	id := committedIdentity(t, e.Step(m, told(witness, "new")).Commit)
	if id.GetEpoch() != 4 || id.GetIncarnation() != "new" || id.GetMaxTtlMs() < 3_600_000 {
		t.Fatalf("the new identity is %v", id)
	}
	e.Step(m, RoundDone{Round: e.round.number})
	effects := e.Step(m, told(&writv1.WitnessRecord{Epoch: 4, Incarnation: "new"}, "new"))
	if want := m.Now.Add(time.Duration(id.MaxTtlMs) * time.Millisecond); effects.Commit != nil || effects.Wake != want {
		t.Fatalf("the engine is %v and wakes at %v, want %v", e.Role(), effects.Wake, want)
	}
	m.Now = effects.Wake - 1
	if e.Step(m, Tick{}); e.Role() != Recovering {
		t.Error("grants resume before the longest TTL has passed")
	}
	m.Now++
	if e.Step(m, Tick{}); e.Role() != Reserving {
		t.Errorf("the engine is %v, want reserving", e.Role())
	}
}

// At the soft quota, whatever the state need not grow for goes on.
func TestTheSoftQuotaRefusesWhatGrows(t *testing.T) {
	d := serving(t, EngineConfig{})
	who := lease.Caller{Principal: "a", Instance: "1"}
	ref := lease.Ref{Resource: "r", Token: 1<<48 | 1}
	d.submit(acquireOf("a", "r", "A"))
	ask := func(command any) error {
		t.Helper()
		reply, ok := d.replies[d.submit(command)[0]]
		if !ok {
			t.Fatalf("%+v is not answered", command)
		}
		if reply.Err == nil {
			return nil
		}
		return reply.Err
	}
	checkpoint := func(data string, ref lease.Ref) error {
		return ask(lease.Checkpoint{Caller: who, Ref: ref, Data: []byte(data)})
	}
	if err := checkpoint("slot 7", ref); err != nil {
		t.Fatal(err)
	}
	d.step(Quota{Exceeded: true})
	if err := checkpoint("slot 10", ref); !errors.Is(err, lease.ErrLimit) {
		t.Errorf("a larger checkpoint: %v", err)
	}
	if err := checkpoint("slot 10", lease.Ref{Resource: "r", Token: 1<<48 | 2}); errors.Is(err, lease.ErrLimit) || err == nil {
		t.Errorf("a checkpoint under another token: %v", err)
	}
	if err := checkpoint("slot 8", ref); err != nil {
		t.Errorf("a checkpoint of the same size: %v", err)
	}
	if err := ask(acquireOf("a", "new", "B")); !errors.Is(err, lease.ErrLimit) {
		t.Errorf("a new resource: %v", err)
	}
	if err := ask(lease.Renew{Caller: who, Refs: []lease.Ref{ref}}); err != nil {
		t.Errorf("a renewal: %v", err)
	}
	if err := ask(lease.Release{Caller: who, Ref: ref}); err != nil {
		t.Errorf("a release: %v", err)
	}
	if err := ask(acquireOf("b", "r", "C")); err != nil {
		t.Errorf("another holder: %v", err)
	}
	d.step(Quota{})
	if err := ask(acquireOf("a", "new", "D")); err != nil {
		t.Errorf("a new resource below it: %v", err)
	}
}
