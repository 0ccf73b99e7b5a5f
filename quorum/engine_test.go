package quorum

import (
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
		if e.Witness != nil {
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
