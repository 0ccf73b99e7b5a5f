package quorum

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// engineDriver is the shell of an engine whose store does everything at once.
type engineDriver struct {
	t       *testing.T
	engine  *Engine
	now     clock.Instant
	last    lease.CallID
	replies map[lease.CallID]lease.Reply
	commits [][]Write
	// hold keeps rounds in flight until it is false again and a round is carried out.
	hold  bool
	round uint64 // in flight
	// forgetful keeps what is to be witnessed from being saved.
	forgetful bool
	witness   *Witnessed // the newest that has not been saved
}

// serving takes an engine to the point where it serves.
func serving(t *testing.T, config EngineConfig) *engineDriver {
	t.Helper()
	config.Node, config.Cluster = "n1", "test"
	d := &engineDriver{t: t, engine: NewEngine(config), now: clock.Instant(time.Hour), replies: map[lease.CallID]lease.Reply{}}
	d.step(Leadership{Leader: true})
	if d.engine.Role() != Serving {
		t.Fatalf("the engine is %v, want serving", d.engine.Role())
	}
	d.commits = nil
	return d
}

func (d *engineDriver) step(ev EngineEvent) {
	d.t.Helper()
	for next := []EngineEvent{ev}; len(next) > 0; next = next[1:] {
		e := d.engine.Step(lease.Moment{Now: d.now, Wall: time.UnixMilli(int64(d.now) / 1e6)}, next[0])
		for _, r := range e.Replies {
			if _, ok := d.replies[r.ID]; ok {
				d.t.Fatalf("call %d is answered twice", r.ID)
			}
			d.replies[r.ID] = r
		}
		switch {
		case e.Claim != 0:
			next = append(next, Claimed{Attempt: e.Claim, Term: 5, Nonce: "new"})
		case e.Load != 0:
			next = append(next, Loaded{Attempt: e.Load, Revision: 5, Members: []MemberInfo{{ID: 1, Name: "n1"}}})
		case e.Commit != nil || e.Confirm:
			if e.Commit != nil {
				d.commits = append(d.commits, e.Commit)
				withinLimits(d.t, e.Commit)
			}
			if d.round = e.Round; !d.hold {
				next = append(next, RoundDone{Round: e.Round})
			}
		}
		if e.Witness != nil && d.forgetful {
			w := *e.Witness
			d.witness = &w
		} else if e.Witness != nil {
			next = append(next, *e.Witness)
		}
	}
}

// submit hands commands in at once; their answers are in replies under the ids.
func (d *engineDriver) submit(commands ...any) []lease.CallID {
	d.t.Helper()
	var batch Submits
	var ids []lease.CallID
	for _, c := range commands {
		d.last++
		ids = append(ids, d.last)
		batch = append(batch, Submit{ID: d.last, Intake: d.now, Command: c})
	}
	d.step(batch)
	return ids
}

// run lets time pass and does what becomes due.
func (d *engineDriver) run(by time.Duration) {
	d.t.Helper()
	until := d.now.Add(by)
	for d.engine.effects.Wake <= until {
		d.now = max(d.now, d.engine.effects.Wake)
		d.step(Tick{})
	}
	d.now = until
}

// withinLimits holds a commit against what a store accepts. A packed write takes up to 10 bytes beside key and value.
func withinLimits(t interface{ Fatalf(string, ...any) }, writes []Write) {
	size := 0
	for _, w := range writes {
		size += len(w.Key) + len(w.Value) + 10
	}
	if len(writes) > MaxCommitWrites || size > MaxCommitBytes {
		t.Fatalf("a commit of %d writes and %d bytes exceeds the limits of %d and %d", len(writes), size, MaxCommitWrites, MaxCommitBytes)
	}
}

func acquireOf(principal lease.Principal, name lease.Resource, request string) lease.Acquire {
	return lease.Acquire{
		Caller: lease.Caller{Principal: principal, Instance: "1"}, Resource: name, RequestID: request, TTL: 10 * time.Second,
	}
}

// audited answers the audit records of all commits, one chain.
func (d *engineDriver) audited() (records []audit.Record) {
	d.t.Helper()
	var head audit.Head
	for _, writes := range d.commits {
		for _, w := range writes {
			if !strings.HasPrefix(w.Key, prefixAudit) {
				continue
			}
			r, next, err := audit.Verify(head, w.Value)
			if err != nil || w.Key != AuditKey(next.Sequence) {
				d.t.Fatalf("the record under %s: %v", w.Key, err)
			}
			records, head = append(records, r), next
		}
	}
	return records
}

// A forced release that comes upon a lease which has just run out takes the grant of whoever waited, and that is recorded
// as any other.
func TestForcedReleasesAreAuditedEvenIfTheyServeAWaiter(t *testing.T) {
	d := serving(t, EngineConfig{})
	waits := acquireOf("b", "r", "B")
	waits.Wait, waits.TTL = time.Hour, time.Minute
	d.submit(acquireOf("a", "r", "A"), waits)
	d.now = d.now.Add(10 * time.Second)
	ids := d.submit(lease.ForceRelease{Caller: lease.Caller{Principal: "admin"}, Ref: lease.Ref{Resource: "r"}, Reason: "test"})
	info, _ := d.replies[ids[0]].Value.(lease.Info)
	if info.State != lease.Ending || info.Holder.Principal != "b" {
		t.Fatalf("the forced release answers %+v, want that it takes b's grant", d.replies[ids[0]])
	}
	if got := d.audited(); len(got) != 1 {
		t.Errorf("%d records of it, want 1", len(got))
	}
}

// Forced releases add records of their own to a commit: as many as anybody asks for at a time.
func TestManyForcedReleasesFitIntoCommits(t *testing.T) {
	d := serving(t, EngineConfig{})
	d.submit(acquireOf("a", "r", "A"))
	d.hold = true
	d.submit(acquireOf("a", "other", "A"))
	var many []any
	for range 5000 {
		many = append(many, lease.ForceRelease{
			Caller: lease.Caller{Principal: lease.Principal(strings.Repeat("p", 1000))}, Ref: lease.Ref{Resource: "r"}, Reason: strings.Repeat("x", lease.MaxReasonBytes),
		})
	}
	ids := d.submit(many...)
	d.hold = false
	d.step(RoundDone{Round: d.round})
	d.run(0)
	for _, id := range ids {
		if r, ok := d.replies[id]; !ok || r.Err != nil {
			t.Fatalf("call %d: %+v", id, r)
		}
	}
	if got := len(d.audited()); got != len(ids) {
		t.Errorf("%d records of %d forced releases", got, len(ids))
	}
}

func TestAReasonHasBounds(t *testing.T) {
	d := serving(t, EngineConfig{})
	d.submit(acquireOf("a", "r", "A"))
	admin := lease.Caller{Principal: "admin"}
	ids := d.submit(
		lease.ForceRelease{Caller: admin, Ref: lease.Ref{Resource: "r"}, Reason: strings.Repeat("x", lease.MaxReasonBytes+1)},
		lease.ForceRelease{Caller: admin, Ref: lease.Ref{Resource: "r"}, Reason: "\xff"},
		lease.ForceRelease{Caller: lease.Caller{Principal: lease.Principal(strings.Repeat("p", 3000))}, Ref: lease.Ref{Resource: "r"}, Reason: "x"},
	)
	for _, id := range ids {
		if r := d.replies[id]; r.Err == nil || r.Err.Reason != lease.ReasonInvalid {
			t.Errorf("call %d: %+v, want INVALID", id, r)
		}
	}
	if got := d.audited(); len(got) != 0 {
		t.Errorf("refused requests are recorded: %v", got)
	}
}

// grantMany makes n leases, as many at a time as a full queue holds.
func (d *engineDriver) grantMany(n int, name func(int) lease.Resource) (refs []lease.Ref) {
	d.t.Helper()
	for len(refs) < n {
		var commands []any
		for i := range min(20_000, n-len(refs)) {
			c := acquireOf("spiffe://test/a", name(len(refs)+i), "00112233445566778899aabbccddeeff")
			c.TTL = time.Minute
			commands = append(commands, c)
		}
		for i, id := range d.submit(commands...) {
			g, ok := d.replies[id].Value.(*lease.Grant)
			if !ok {
				d.t.Fatalf("request %d: %+v", i, d.replies[id])
			}
			refs = append(refs, lease.Ref{Resource: g.Resource, Token: g.Token})
		}
	}
	return refs
}

func TestManyLeasesExpireInFewRounds(t *testing.T) {
	d := serving(t, EngineConfig{Table: lease.TableConfig{Retention: time.Hour}})
	const leases = 100_000
	d.grantMany(leases, func(i int) lease.Resource { return lease.Resource(fmt.Sprintf("scale/resource-%06d", i)) })
	d.commits = nil
	d.run(2 * time.Minute)
	if d.engine.Held() != 0 {
		t.Fatalf("%d leases are left", d.engine.Held())
	}
	if got := len(d.commits); got > 30 {
		t.Errorf("%d leases expire in %d rounds, want at most 30", leases, got)
	}
	d.commits = nil
	d.run(2 * time.Hour)
	if got := len(d.commits); got > 30 {
		t.Errorf("%d records are forgotten in %d rounds, want at most 30", leases, got)
	}
}

// A checkpoint is a write of its own: what is asked for and what expires in one round stay within one commit together.
func TestCheckpointsAndExpiriesFitIntoCommits(t *testing.T) {
	d := serving(t, EngineConfig{})
	refs := d.grantMany(10_000, func(i int) lease.Resource { return lease.Resource(fmt.Sprintf("r%d", i)) })
	d.now = d.now.Add(time.Minute - 1)
	d.hold = true
	d.submit(acquireOf("b", "other", "B"))
	var commands []any
	for _, ref := range refs[:5000] {
		commands = append(commands, lease.Checkpoint{Caller: lease.Caller{Principal: "spiffe://test/a", Instance: "1"}, Ref: ref})
	}
	ids := d.submit(commands...)
	d.now, d.hold = d.now.Add(time.Second), false
	d.step(RoundDone{Round: d.round})
	d.run(0)
	for _, id := range ids {
		if r, ok := d.replies[id]; !ok || r.Err != nil && r.Err.Reason != lease.ReasonExpired {
			t.Fatalf("call %d: %+v", id, r)
		}
	}
	if got := d.engine.Held(); got != 1 {
		t.Errorf("%d leases are left, want the one of before", got)
	}
}

// While a node's witness cannot be saved there are no tokens but those of before: the engine waits, and does not ask to be
// woken for what it cannot do.
func TestWithoutTokensTheEngineWaits(t *testing.T) {
	d := serving(t, EngineConfig{TokenBlock: 10})
	d.forgetful = true
	var commands []any
	for i := range d.engine.table.TokensLeft() + 20 {
		commands = append(commands, acquireOf("a", lease.Resource(fmt.Sprint(i)), "A"))
	}
	ids := d.submit(commands...)
	d.run(time.Second)
	if r, ok := d.replies[ids[len(ids)-1]]; ok {
		t.Fatalf("there are more tokens than were allowed: %+v", r)
	}
	// What has run out may serve somebody who waits, which takes a token.
	d.now = d.now.Add(time.Hour)
	d.step(Tick{})
	d.step(Tick{})
	if wake := d.engine.effects.Wake; wake <= d.now {
		t.Errorf("at %v the engine asks to be woken at %v", d.now, wake)
	}
	d.forgetful = false
	for d.witness != nil {
		w := *d.witness
		d.witness = nil
		d.step(w)
	}
	d.run(0)
	for _, id := range ids {
		if r, ok := d.replies[id]; !ok || r.Err != nil {
			t.Fatalf("call %d: %+v", id, r)
		}
	}
	d.run(time.Hour)
	if d.engine.Held() != 0 {
		t.Errorf("%d leases are left", d.engine.Held())
	}
}

// Requests that are abandoned while a round is under way are not decided, and the rest are, in their order.
func TestAbandonedRequestsAreNotDecided(t *testing.T) {
	d := serving(t, EngineConfig{MaxQueue: 60_000})
	d.hold = true
	d.submit(acquireOf("a", "first", "A"))
	var commands []any
	for i := range 60_000 {
		commands = append(commands, acquireOf("a", lease.Resource(fmt.Sprint("r", i)), "A"))
	}
	ids := d.submit(commands...)
	kept := map[lease.CallID]bool{}
	for i, id := range ids {
		if i%10 == 9 {
			kept[id] = true
		} else {
			d.step(Abandoned{ID: id})
		}
	}
	more := d.submit(acquireOf("a", "more", "A"))[0]
	if r, ok := d.replies[more]; ok {
		t.Fatalf("there is room in the queue, but %+v", r)
	}
	d.hold = false
	d.step(RoundDone{Round: d.round})
	last := lease.CallID(0)
	for _, id := range ids {
		r, ok := d.replies[id]
		if ok != kept[id] || r.Err != nil {
			t.Fatalf("call %d is answered: %v (%v), want %v", id, ok, r.Err, kept[id])
		}
		if g, ok := r.Value.(*lease.Grant); ok {
			if lease.CallID(g.Token) <= last {
				t.Fatalf("call %d is granted %v after %v", id, g.Token, last)
			}
			last = lease.CallID(g.Token)
		}
	}
	if got, want := d.engine.Held(), len(kept)+2; got != want {
		t.Errorf("%d leases are held, want %d", got, want)
	}
}

// Who has gone makes room in a full queue.
func TestAFullQueueDropsTheAbandoned(t *testing.T) {
	d := serving(t, EngineConfig{MaxQueue: 4})
	d.hold = true
	d.submit(acquireOf("a", "first", "A"))
	var commands []any
	for i := range 5 {
		commands = append(commands, acquireOf("a", lease.Resource(fmt.Sprint("r", i)), "A"))
	}
	ids := d.submit(commands...)
	if r := d.replies[ids[4]]; r.Err == nil || r.Err.Reason != lease.ReasonLimit {
		t.Fatalf("the fifth of four is answered with %+v", r)
	}
	d.step(Abandoned{ID: ids[0]})
	more := d.submit(acquireOf("a", "more", "A"))[0]
	if r, ok := d.replies[more]; ok {
		t.Fatalf("there is room in the queue, but %+v", r)
	}
	d.hold = false
	d.step(RoundDone{Round: d.round})
	d.run(time.Millisecond)
	if _, ok := d.replies[ids[0]]; ok || d.replies[more].Err != nil || d.engine.Held() != 5 {
		t.Errorf("%d leases are held, answers are %+v", d.engine.Held(), d.replies)
	}
}

// A node that was not the leader for so short a time that it did not notice, and has nothing to do, finds out whether another
// has claimed meanwhile: otherwise what that one granted would not expire.
func TestAnIdleCoordinatorNoticesThatItWasDeposed(t *testing.T) {
	d := serving(t, EngineConfig{})
	d.hold = true
	d.step(Leadership{Leader: true})
	if !d.engine.effects.Confirm {
		t.Fatal("the engine does not confirm its term")
	}
	effects := d.engine.Step(lease.Moment{Now: d.now}, RoundDone{Round: d.round, Err: ErrDeposed})
	if wake := effects.Wake; wake == clock.Never {
		t.Fatal("the engine does not want to claim again")
	}
	if effects = d.engine.Step(lease.Moment{Now: effects.Wake}, Tick{}); effects.Claim == 0 {
		t.Error("the engine does not claim again")
	}
}
