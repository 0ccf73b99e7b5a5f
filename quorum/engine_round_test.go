package quorum

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
)

// gathered hands commands in while a round is under way, lets that end after some time, and answers what the next one commits.
func (d *engineDriver) gathered(after time.Duration, commands ...any) []Write {
	d.t.Helper()
	d.hold = true
	d.submit(acquireOf("b", "under way", "B"))
	d.submit(commands...)
	d.now = d.now.Add(after)
	d.commits = nil
	d.step(RoundDone{Round: d.round})
	d.run(gatherMost)
	if len(d.commits) != 1 {
		d.t.Fatalf("%d commits, want the next one", len(d.commits))
	}
	return d.commits[0]
}

func (d *engineDriver) finish() {
	d.t.Helper()
	d.hold = false
	d.step(RoundDone{Round: d.round})
	d.run(0)
}

func countKeys(writes []Write, prefix string) (n int) {
	for _, w := range writes {
		if strings.HasPrefix(w.Key, prefix) {
			n++
		}
	}
	return n
}

// Requests fill a round up to its number of writes, whether the table makes them or they stand beside it.
func TestARoundTakesSoManyRequests(t *testing.T) {
	var acquires, forced []any
	for i := range 3000 {
		acquires = append(acquires, acquireOf("a", lease.Resource(fmt.Sprint(i)), "A"))
		forced = append(forced, lease.ForceRelease{Caller: lease.Caller{Principal: "a"}, Ref: lease.Ref{Resource: "under way"}})
	}
	d := serving(t, EngineConfig{})
	if got := countKeys(d.gathered(0, acquires...), prefixLease); got != roundRequested {
		t.Errorf("a round grants %d leases, want %d", got, roundRequested)
	}
	d.finish()
	d = serving(t, EngineConfig{})
	if got := countKeys(d.gathered(0, forced...), prefixAudit); got != roundRequested-1 {
		t.Errorf("a round records %d forced releases of one lease, want %d", got, roundRequested-1)
	}
	d.finish()
}

// What expires fills up what requests and their audit records have left of a commit, in writes and in bytes.
func TestWhatExpiresFillsUpTheRound(t *testing.T) {
	for name, c := range map[string]struct {
		reason string
		long   string // in the name of each lease
	}{
		"writes": {"", ""},
		"bytes":  {strings.Repeat("x", lease.MaxReasonBytes), strings.Repeat("n", 200)},
	} {
		d := serving(t, EngineConfig{})
		d.grantMany(6000, func(i int) lease.Resource { return lease.Resource(fmt.Sprintf("%s%06d", c.long, i)) })
		d.now = d.now.Add(55 * time.Second)
		d.submit(acquireOf("a", "r", "A"))
		var forced []any
		for range 1000 {
			forced = append(forced, lease.ForceRelease{Caller: lease.Caller{Principal: "admin"}, Ref: lease.Ref{Resource: "r"}, Reason: c.reason})
		}
		writes := d.gathered(5*time.Second, forced...) // the driver holds it against the limits
		size := 0
		for _, w := range writes {
			size += len(w.Key) + len(w.Value) + packedOverhead
		}
		if audits := countKeys(writes, prefixAudit); audits < 100 || len(writes) < roundWrites*9/10 && size < roundBytes*8/10 {
			t.Errorf("%s: %d records and %d writes of %d bytes leave room", name, audits, len(writes), size)
		}
		d.finish()
	}
}

// Requests are decided while there are tokens for what each may need, and not beyond.
func TestRequestsWaitForTokens(t *testing.T) {
	d := serving(t, EngineConfig{TokenBlock: 10})
	d.forgetful = true
	left := int(d.engine.table.TokensLeft())
	var commands []any
	for i := range left + 10 {
		commands = append(commands, acquireOf("a", lease.Resource(fmt.Sprint(i)), "A"))
	}
	d.submit(commands...)
	d.run(time.Second)
	if got, want := len(d.replies), left-requestTokens+1; got != want {
		t.Errorf("%d requests are granted with %d tokens, want %d", got, left, want)
	}
}

// Invariant: extraBytes bounds what the writes beside the table's take.
func TestWritesBesideTheTablesAreCounted(t *testing.T) {
	e := NewEngine(EngineConfig{})
	for _, w := range []Write{{Key: "k"}, {Key: "key", Value: []byte("value")}} {
		before := e.extraBytes
		e.add(w)
		if got, want := e.extraBytes-before, len(w.Key)+len(w.Value)+packedOverhead; got != want {
			t.Errorf("%v counts as %d bytes, want %d", w, got, want)
		}
	}
	if e.takeWrites(); e.extraBytes != 0 {
		t.Errorf("%d bytes are left of none", e.extraBytes)
	}
}

// The next block is reserved while half of one is left, and what a round may take: nobody waits for tokens then.
func TestTheNextBlockIsReservedInTime(t *testing.T) {
	const block = 8 * roundRequested
	d := serving(t, EngineConfig{TokenBlock: block})
	name := func(i int) lease.Resource { return lease.Resource(fmt.Sprint(d.last, "-", i)) }
	d.grantMany(block-block/2-roundRequested, name)
	if d.engine.identity.Ceiling != block || d.engine.table.TokensLeft() != block/2+roundRequested {
		t.Fatalf("the ceiling is %d with %d tokens left", d.engine.identity.Ceiling, d.engine.table.TokensLeft())
	}
	d.grantMany(1, name)
	if left := d.engine.table.TokensLeft(); d.engine.identity.Ceiling != 2*block || left != block+block/2+roundRequested-1 {
		t.Errorf("the ceiling is %d with %d tokens left", d.engine.identity.Ceiling, left)
	}
}

// An empty checkpoint is one that is removed: nothing is left of it in the store.
func TestAnEmptyCheckpointIsRemoved(t *testing.T) {
	d := serving(t, EngineConfig{})
	d.submit(acquireOf("a", "r", "A"))
	put := lease.Checkpoint{Caller: lease.Caller{Principal: "a", Instance: "1"}, Ref: lease.Ref{Resource: "r", Token: 1<<48 | 1}}
	for _, data := range [][]byte{[]byte("slot 7"), {}, nil} {
		d.commits, put.Data = nil, data
		d.submit(put)
		if w := d.commits[0][0]; w.Key != CheckpointKey("r") || string(w.Value) != string(data) || w.Value == nil != (len(data) == 0) {
			t.Errorf("a checkpoint of %q is written as %#v", data, w)
		}
	}
}
