package quorum

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

var (
	guards = lease.Caller{Principal: "guards"}
	admin  = lease.Caller{Principal: "admin"}
)

func enrolOf(name, session string, witnessed fence.Token) lease.GuardCall {
	return lease.GuardCall{Caller: guards, Request: &writv1.GuardRequest{Id: 1, Guard: name, Session: session, Ask: &writv1.GuardRequest_Enrol{
		Enrol: &writv1.GuardEnrol{Covers: []string{"db/*"}, Store: "disk-" + name, Slack: durationpb.New(time.Second), Witnessed: uint64(witnessed)},
	}}}
}

func ackOf(name, session, resource string, token fence.Token) lease.GuardCall {
	return lease.GuardCall{Caller: guards, Request: &writv1.GuardRequest{Id: 2, Guard: name, Session: session, Ask: &writv1.GuardRequest_Acks{
		Acks: &writv1.GuardAcks{Acks: []*writv1.GuardAck{{Resource: resource, Token: uint64(token), Proof: writv1.GuardProof_GUARD_PROOF_ACKED}}},
	}}}
}

func closing() lease.SetGuarding {
	return lease.SetGuarding{Caller: admin, Rule: &writv1.GuardingRule{Prefix: "db/", Isolation: writv1.Isolation_ISOLATION_CLOSE}}
}

// stored answers the newest value that was committed under a key.
func (d *engineDriver) stored(key string) []byte {
	for i := len(d.commits) - 1; i >= 0; i-- {
		for _, w := range d.commits[i] {
			if w.Key == key {
				return w.Value
			}
		}
	}
	return nil
}

func (d *engineDriver) record(name lease.Resource) lease.Record {
	d.t.Helper()
	var rec lease.Record
	if err := rec.UnmarshalBinary(d.stored(LeaseKey(name))); err != nil {
		d.t.Fatal(err)
	}
	return rec
}

// The way of a guarded resource from one holder to the next, with what is committed at each step.
func TestAGuardedGrantRestsOnCommittedProof(t *testing.T) {
	d := serving(t, EngineConfig{})
	d.submit(closing(), enrolOf("g1", "s1", 0))
	want := acquireOf("a", "db/orders", "A")
	want.Wait, want.TTL = time.Minute, time.Minute
	ids := d.submit(want)
	rec := d.record("db/orders")
	if r, ok := d.replies[ids[0]]; ok || rec.Held || rec.Fencing == 0 {
		t.Fatalf("answered %+v (%t) with %+v stored, want a raise that is committed and not answered", r, ok, rec)
	}
	d.submit(ackOf("g1", "s1", "db/orders", rec.Fencing))
	grant, _ := d.replies[ids[0]].Value.(*lease.Grant)
	if grant == nil || grant.Token != rec.Fencing || !grant.Guarded {
		t.Fatalf("answered %+v, want a grant under %v", d.replies[ids[0]], rec.Fencing)
	}
	if rec = d.record("db/orders"); !rec.Held || len(rec.Proofs) != 1 || rec.Proofs[0] != (lease.Proof{Guard: "g1", How: lease.ProofAcked}) {
		t.Errorf("stored %+v, want g1's proof with the grant", rec)
	}
	// The guard is told that the old token is over though nobody asks for the resource.
	d.submit(lease.Release{Caller: lease.Caller{Principal: "a", Instance: "1"}, Ref: lease.Ref{Resource: "db/orders", Token: grant.Token}})
	if after := d.record("db/orders"); after.Held || after.Fencing <= grant.Token {
		t.Errorf("stored %+v, want a raise above %v", after, grant.Token)
	}
	// Its guard lease, and W, run out without a word: that is a proof too, and it is committed.
	d.run(lease.DefaultGuardLease + time.Second)
	var g writv1.GuardRecord
	if err := proto.Unmarshal(d.stored(GuardKey("g1")), &g); err != nil || !g.Out {
		t.Fatalf("stored %v (%v), want that g1 is out", &g, err)
	}
	ids = d.submit(acquireOf("b", "db/orders", "B"))
	if grant, _ = d.replies[ids[0]].Value.(*lease.Grant); grant == nil {
		t.Fatalf("answered %+v, want a grant", d.replies[ids[0]])
	}
	if rec = d.record("db/orders"); len(rec.Proofs) != 1 || rec.Proofs[0].How != lease.ProofLapsed {
		t.Errorf("stored proofs %v, want lapsed", rec.Proofs)
	}
	var actions []string
	for _, r := range d.audited() {
		actions = append(actions, r.Action)
	}
	if got := strings.Join(actions, " "); got != "guard.rule guard.enrol grant end guard.lapse grant" {
		t.Errorf("audited %s", got)
	}
}

// Who does not wait for others waits for the guards a little, and is told which of them it was.
func TestATryNamesTheGuardsInTheWay(t *testing.T) {
	d := serving(t, EngineConfig{})
	d.submit(closing(), enrolOf("g1", "s1", 0))
	ids := d.submit(acquireOf("a", "db/orders", "A"))
	d.run(3 * time.Second)
	r := d.replies[ids[0]]
	if !errors.Is(r.Err, lease.ErrFencing) || !strings.Contains(r.Err.Error(), "g1") {
		t.Fatalf("answered %+v, want FENCING that names g1", r)
	}
	rec := d.record("db/orders")
	d.submit(ackOf("g1", "s1", "db/orders", rec.Fencing))
	ids = d.submit(acquireOf("a", "db/orders", "A"))
	if grant, _ := d.replies[ids[0]].Value.(*lease.Grant); grant == nil || grant.Token != rec.Fencing {
		t.Errorf("answered %+v, want a grant at once", d.replies[ids[0]])
	}
}

// A forced release takes effect at once where guards have proved that they refuse the holder, and nowhere else.
func TestForcedNowNeedsGuards(t *testing.T) {
	d := serving(t, EngineConfig{})
	now := lease.ForceRelease{Caller: admin, Ref: lease.Ref{Resource: "db/orders"}, Reason: "test", Now: true}
	d.submit(closing(), acquireOf("a", "db/orders", "A"))
	if ids := d.submit(now); !errors.Is(d.replies[ids[0]].Err, lease.ErrNotGuarded) {
		t.Fatalf("without a guard: %+v, want NOT_GUARDED", d.replies[ids[0]])
	}
	d.submit(enrolOf("g1", "s1", 0))
	if ids := d.submit(now); d.replies[ids[0]].Err != nil {
		t.Fatalf("with a guard: %+v", d.replies[ids[0]])
	}
	next := acquireOf("b", "db/orders", "B")
	next.Wait, next.TTL = time.Minute, time.Minute
	ids := d.submit(next)
	if _, ok := d.replies[ids[0]]; ok {
		t.Fatal("granted before the guard has acknowledged")
	}
	d.submit(ackOf("g1", "s1", "db/orders", d.record("db/orders").Fencing))
	if grant, _ := d.replies[ids[0]].Value.(*lease.Grant); grant == nil {
		t.Fatalf("answered %+v, want a grant", d.replies[ids[0]])
	}
	if forced := d.audited()[4]; forced.Action != "lease.force-release" || forced.Detail["exception"] == "" {
		t.Errorf("audited %+v, want the exception to S4", forced)
	}
}

// A guard that remembers a token which this history cannot have granted is a witness: nothing more is decided under this term,
// and the epoch is raised above what it remembers.
func TestAGuardIsAWitness(t *testing.T) {
	for name, witnessed := range map[string]fence.Token{"of a later epoch": 7<<48 | 3, "above the ceiling": 1<<48 | 1<<40} {
		t.Run(name, func(t *testing.T) {
			d := serving(t, EngineConfig{})
			d.hold = true
			d.submit(acquireOf("a", "r", "A"))
			enrolled := d.submit(enrolOf("g1", "s1", witnessed), acquireOf("b", "other", "B"))
			effects := d.engine.Step(lease.Moment{Now: d.now}, RoundDone{Round: d.round})
			var id writv1.IdentityRecord
			for _, w := range effects.Commit {
				if w.Key == KeyIdentity {
					if err := proto.Unmarshal(w.Value, &id); err != nil {
						t.Fatal(err)
					}
				} else if !strings.HasPrefix(w.Key, prefixAudit) {
					t.Errorf("%s is committed beside the recovery", w.Key)
				}
			}
			if id.Recovery == nil || effects.Warning == "" {
				t.Fatalf("committed %v with warning %q, want a recovery", &id, effects.Warning)
			}
			effects = d.engine.Step(lease.Moment{Now: d.now}, RoundDone{Round: effects.Round})
			if effects.Claim == 0 || !effects.DropAll {
				t.Fatalf("%+v, want that everybody is turned away and the term claimed anew", effects)
			}
			for _, call := range enrolled {
				if r, ok := d.replies[call]; ok && r.Err == nil {
					t.Errorf("call %d is answered %+v", call, r)
				}
			}
			d.hold = false
			attempt := effects.Claim
			d.engine.Step(lease.Moment{Now: d.now}, Claimed{Attempt: attempt, Term: 9, Nonce: "next"})
			own := &writv1.WitnessRecord{Cluster: "test", Node: "n1", MemberId: 1, Epoch: id.Epoch, Incarnation: id.Incarnation}
			d.step(Loaded{
				Attempt: attempt, Revision: 9, Identity: &id, Own: own, Members: []MemberInfo{{ID: 1, Name: "n1"}},
				Nodes: []*writv1.NodeRecord{{Name: "n1", MemberId: 1, RecoveryId: id.Recovery.Id, Witness: own}},
			})
			if got := d.engine.identity; d.engine.Role() != Recovering || !got.Recovery.EpochRaised || got.Epoch <= uint32(witnessed.Epoch()) {
				t.Errorf("the engine is %v with %v, want a recovery above epoch %d", d.engine.Role(), got, witnessed.Epoch())
			}
		})
	}
}

// A guard that came while the term began is heard as one that comes later.
func TestAGuardIsAWitnessWhileTheTermBegins(t *testing.T) {
	d := &engineDriver{t: t, engine: NewEngine(EngineConfig{Node: "n1", Cluster: "test"}), now: clock.Instant(time.Hour), replies: map[lease.CallID]lease.Reply{}}
	d.forgetful = true
	d.step(Leadership{Leader: true})
	d.submit(enrolOf("g1", "s1", 7<<48|3))
	if d.engine.Role() != Reserving || d.witness == nil {
		t.Fatalf("the engine is %v, want reserving", d.engine.Role())
	}
	d.hold = true
	d.step(*d.witness)
	if r := d.engine.identity.GetRecovery(); r.GetAbove() != 7 {
		t.Errorf("the engine is %v with recovery %v, want one above epoch 7", d.engine.Role(), r)
	}
}

// No guard uses the epochs up, by accident or on purpose: what it remembers is evidence within bounds, and beyond them a reason to
// refuse it.
func TestAGuardIsNoWitnessBeyondBelief(t *testing.T) {
	const half = maxGuardsEpoch
	for name, c := range map[string]struct {
		epoch     fence.Epoch // of the state
		witnessed fence.Token
		believed  bool
	}{
		"the last epoch":               {1, 32767<<48 | 1, false},
		"the last but one":             {1, 32766<<48 | 1, false},
		"further than rebuilds lead":   {1, (2+maxEpochsBehind)<<48 | 1, false},
		"as far as rebuilds lead":      {1, (1+maxEpochsBehind)<<48 | 1, true},
		"into the half of the members": {half, fence.Token(half+1)<<48 | 1, false},
		"the last that guards reach":   {half - 1, fence.Token(half)<<48 | 1, true},
		"above a ceiling up there":     {half + 1, fence.Token(half+1)<<48 | 1<<40, false},
		"damage in the sequence":       {1, 1<<48 | 1<<47, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := serving(t, EngineConfig{})
			d.engine.identity.Epoch = uint32(c.epoch)
			d.hold = true
			enrolled := d.submit(enrolOf("g1", "s1", c.witnessed))[0]
			warning := d.engine.effects.Warning
			if got := d.engine.identity.Recovery.GetAbove(); c.believed {
				if next, err := fence.Epoch(got).Next(); got != uint32(c.witnessed.Epoch()) || err != nil || next > half+1 {
					t.Fatalf("a recovery above %d (%v), want one above %v", got, err, c.witnessed)
				}
				return
			} else if got != 0 || warning == "" {
				t.Fatalf("a recovery above %d, warning %q, want a warning alone", got, warning)
			}
			if r, ok := d.replies[enrolled]; ok {
				t.Fatalf("answered %+v before the term was confirmed", r)
			}
			d.hold = false
			d.step(RoundDone{Round: d.round})
			if r := d.replies[enrolled]; r.Err == nil || r.Err.Reason != lease.ReasonInvalid || r.Err.Field != "witnessed" || r.Err.Fix == "" {
				t.Errorf("answered %+v, want INVALID witnessed with a fix", r)
			}
			if d.engine.Role() != Serving || d.stored(GuardKey("g1")) != nil {
				t.Errorf("the engine is %v, and the guard enrolled: %t", d.engine.Role(), d.stored(GuardKey("g1")) != nil)
			}
		})
	}
}

// Nobody is a witness under a guard's name that is another's, nor with an enrolment that makes no sense.
func TestOnlyAGuardIsAWitness(t *testing.T) {
	for name, change := range map[string]func(*lease.GuardCall){
		"another's name": func(c *lease.GuardCall) { c.Principal = "mallory" },
		"no name":        func(c *lease.GuardCall) { c.Request.Guard = "" },
		"covers nothing": func(c *lease.GuardCall) { c.Request.GetEnrol().Covers = nil },
	} {
		d := serving(t, EngineConfig{})
		d.submit(enrolOf("g1", "s1", 0))
		call := enrolOf("g1", "s2", 7<<48|3)
		change(&call)
		id := d.submit(call)[0]
		if r := d.replies[id]; r.Err == nil || r.Err.Reason != lease.ReasonDenied && r.Err.Reason != lease.ReasonInvalid || d.engine.Role() != Serving {
			t.Errorf("%s: answered %+v by an engine that is %v, want a refusal and nothing else", name, r, d.engine.Role())
		}
	}
}

// What the guards and rules are is part of the state that a coordinator takes over.
func TestGuardsAreLoaded(t *testing.T) {
	d := serving(t, EngineConfig{})
	d.submit(closing(), enrolOf("g1", "s1", 0))
	image := NewImage()
	for i, writes := range d.commits {
		var entries []Entry
		for _, w := range writes {
			entries = append(entries, Entry{Key: w.Key, Value: w.Value, Revision: int64(i + 1)})
		}
		image.Apply(Change{Revision: int64(i + 1), Entries: entries})
	}
	loaded, err := image.Loaded()
	if err != nil || len(loaded.Guards) != 1 || len(loaded.Guarding.GetRules()) != 1 {
		t.Fatalf("loaded %d guards and %v, %v", len(loaded.Guards), loaded.Guarding, err)
	}
	table := lease.NewTable(lease.TableConfig{}, 1)
	table.Allow(100, 200)
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	table.LoadGuards(m, loaded.Guards, loaded.Guarding)
	replies := table.Step(m, lease.Request{ID: 1, Intake: m.Now, Command: lease.ListGuards{}}).Replies
	list, _ := replies[0].Value.(*writv1.ListGuardsResponse)
	if len(list.GetGuards()) != 1 || list.Guards[0].LeaseLeft.AsDuration() != lease.DefaultGuardLease {
		t.Errorf("listed %v, want g1 with a full lease", list)
	}
}
