package lease_test

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

type requestKey struct {
	resource  lease.Resource
	principal lease.Principal
	id        string
}

// tableWorld drives a table and the model with the same events and holds one against the other after each.
type tableWorld struct {
	t      *rapid.T
	config lease.TableConfig
	table  *lease.Table
	model  *ledger
	now    clock.Instant

	epoch    fence.Epoch
	limit    uint64 // sequences above it have not been allowed
	lastCall lease.CallID
	open     map[lease.CallID]lease.Request
	stored   map[lease.Resource][]byte // what a commit would have written
	kept     map[lease.Resource][]byte

	tokens  map[requestKey]fence.Token               // never a second one, as long as the record remembers the request
	beliefs map[lease.Resource]map[fence.Token]int64 // until when a holder may believe, at most
	granted fence.Token                              // the highest ever
}

var tablePolicy = lease.Policy{Rules: []lease.PolicyRule{
	{Prefix: "slow/", LockDelay: 700 * time.Millisecond},
	{Prefix: "few/", MaxLeases: 1},
}}

func tableRules(name lease.Resource) (delay time.Duration, most int, prefix string) {
	for _, r := range tablePolicy.Rules {
		if strings.HasPrefix(string(name), r.Prefix) {
			return r.LockDelay, r.MaxLeases, r.Prefix
		}
	}
	return 0, 0, ""
}

const tableRetention = 5 * time.Second

func newTableWorld(t *rapid.T) *tableWorld {
	w := &tableWorld{
		t: t, now: clock.Instant(time.Hour), epoch: 1, limit: 1 << 20,
		config: lease.TableConfig{Policy: tablePolicy, Retention: tableRetention, MaxWaiters: 3},
		open:   map[lease.CallID]lease.Request{}, stored: map[lease.Resource][]byte{}, kept: map[lease.Resource][]byte{},
		tokens: map[requestKey]fence.Token{}, beliefs: map[lease.Resource]map[fence.Token]int64{},
	}
	w.model = &ledger{
		rules: tableRules, retention: tableRetention, queueMost: 3, now: w.now, epoch: 1, next: tableToken(1, 1),
		leases: map[lease.Resource]*modelLease{},
	}
	w.table = lease.NewTable(w.config, 1)
	w.table.Allow(1, w.limit)
	return w
}

func tableToken(epoch fence.Epoch, sequence uint64) fence.Token {
	token, err := fence.NewToken(epoch, sequence)
	if err != nil {
		panic(err)
	}
	return token
}

func (w *tableWorld) moment() lease.Moment {
	return lease.Moment{Now: w.now, Wall: time.UnixMilli(int64(w.now) / 1e6).UTC()}
}

var placeInTick = regexp.MustCompile(`waits at \d+ behind [0-9.]+`)

// step lets table and model take an event, and compares the answers and what a commit would have written.
func (w *tableWorld) step(ev lease.TableEvent) {
	replies := slices.Clone(w.table.Step(w.moment(), ev).Replies)
	w.judge(ev, replies, w.collect())
}

// judge holds what the table did on an event, and which tokens it granted, against the model.
func (w *tableWorld) judge(ev lease.TableEvent, replies []lease.Reply, minted map[lease.Resource]fence.Token) {
	got, paused := map[lease.CallID]string{}, map[lease.CallID]bool{}
	for _, r := range replies {
		if got[r.ID] != "" {
			w.t.Fatalf("call %d is answered twice: %q and %q", r.ID, got[r.ID], tellReply(r))
		}
		got[r.ID] = tellReply(r)
		_, paused[r.ID] = r.Value.(*lease.Waiting)
	}
	w.model.paused = func(id lease.CallID) bool { return paused[id] }
	w.model.minted = func(name lease.Resource) fence.Token { return minted[name] }
	want := w.model.apply(w.moment(), ev)
	if _, ok := ev.(lease.Tick); ok {
		// Within a tick the order of what is due is not fixed, and so neither is the place that a waiter is told.
		for _, said := range []map[lease.CallID]string{got, want} {
			for id := range said {
				said[id] = placeInTick.ReplaceAllString(said[id], "waits")
			}
		}
	}
	if !maps.Equal(got, want) {
		w.t.Fatalf("%T at %v\nanswers  %s\nexpected %s", ev, w.now, shorten(got), shorten(want))
	}
	w.compare(ev)
	// One event may end a grant and make the next, or make one and end it.
	over := w.letGo(replies)
	for _, ref := range over {
		delete(w.beliefs[ref.Resource], ref.Token)
	}
	for _, r := range replies {
		w.witness(r)
	}
	for _, ref := range over {
		delete(w.beliefs[ref.Resource], ref.Token)
	}
}

// collect takes what has changed, as a commit would, and answers the tokens that were granted in it.
func (w *tableWorld) collect() map[lease.Resource]fence.Token {
	minted := map[lease.Resource]fence.Token{}
	seen := map[lease.Resource]bool{}
	announced, estimate := w.table.DirtyWrites(), w.table.DirtyBytes()
	writes, size := 0, 0
	highest := w.granted
	w.table.Dirty(func(c lease.Change) {
		if seen[c.Resource] {
			w.t.Fatalf("%s is handed over twice", c.Resource)
		}
		seen[c.Resource] = true
		size += w.store(c)
		writes++
		if c.CheckpointChanged {
			writes++
		}
		var before lease.Record
		if old := w.stored[c.Resource]; old != nil {
			w.must(before.UnmarshalBinary(old))
		}
		if c.Record == nil {
			delete(w.stored, c.Resource)
			return
		}
		stored, err := c.Record.AppendBinary(nil)
		w.must(err)
		w.stored[c.Resource] = stored
		if token := c.Record.Token; token != before.Token {
			if token <= w.granted || token.Epoch() != w.epoch || token.Sequence() > w.limit {
				w.t.Fatalf("%s is granted %v after %v, below %d.%d", c.Resource, token, w.granted, w.epoch, w.limit)
			}
			highest = max(highest, token)
			minted[c.Resource] = token
		}
	})
	if writes != announced || size > estimate || estimate > size+10*writes {
		w.t.Fatalf("%d writes of %d bytes were announced as %d of %d", writes, size, announced, estimate)
	}
	if w.table.DirtyWrites() != 0 || w.table.DirtyBytes() != 0 {
		w.t.Fatalf("%d writes are left of none", w.table.DirtyWrites())
	}
	w.granted = highest
	return minted
}

// store answers how many bytes the change takes, with the 10 that a store adds to a write, and that its record reads back
// as it was.
func (w *tableWorld) store(c lease.Change) int {
	size := len("/writ/lease/") + len(c.Resource) + 10
	if c.CheckpointChanged {
		w.kept[c.Resource] = slices.Clone(c.Checkpoint)
		size += len("/writ/checkpoint/") + len(c.Resource) + len(c.Checkpoint) + 10
	}
	if c.Record == nil {
		if len(w.kept[c.Resource]) > 0 {
			w.t.Fatalf("%s is forgotten with a checkpoint", c.Resource)
		}
		return size
	}
	stored, err := c.Record.AppendBinary([]byte("before"))
	w.must(err)
	var back lease.Record
	w.must(back.UnmarshalBinary(stored[len("before"):]))
	if !reflect.DeepEqual(tableTidy(back), tableTidy(*c.Record)) {
		w.t.Fatalf("a record does not read back:\n%+v\n%+v", *c.Record, back)
	}
	return size + len(stored) - len("before")
}

// tableTidy makes records comparable that mean the same.
func tableTidy(r lease.Record) lease.Record {
	if len(r.Metadata) == 0 {
		r.Metadata = nil
	}
	if len(r.Outcomes) == 0 {
		r.Outcomes = nil
	}
	return r
}

// shorten cuts what is long on purpose.
func shorten(v any) string {
	s := strings.ReplaceAll(fmt.Sprint(v), string(tableLong), "long")
	return strings.ReplaceAll(s, strings.Repeat("k", 2000), "k…")
}

func tellRecord(r lease.Record) string {
	r.Metadata = nil
	return shorten(fmt.Sprintf("%+v", r))
}

// compare holds what stands in the store and what the table says about itself against the model.
func (w *tableWorld) compare(ev lease.TableEvent) {
	held := 0
	for key := range w.tokens {
		x := w.model.leases[key.resource]
		if x == nil || (x.outcomeOf(key.principal, key.id) == nil && (x.rec.RequestID != key.id || x.rec.Holder.Principal != key.principal)) {
			delete(w.tokens, key)
		}
	}
	for name, x := range w.model.leases {
		if x.rec.Held {
			held++
		}
		if x.known != (w.stored[name] != nil) {
			w.t.Fatalf("%T: record of %s stands: %v, expected %v", ev, name, !x.known, x.known)
		}
		if !x.known {
			continue
		}
		want, err := x.rec.AppendBinary(nil)
		w.must(err)
		if !bytes.Equal(w.stored[name], want) || !bytes.Equal(w.kept[name], x.checkpoint) {
			var rec lease.Record
			w.must(rec.UnmarshalBinary(w.stored[name]))
			w.t.Fatalf("%T\nstored   %s, checkpoint %d bytes\nexpected %s, checkpoint %d bytes", ev, tellRecord(rec), len(w.kept[name]), tellRecord(x.rec), len(x.checkpoint))
		}
	}
	for name := range w.stored {
		if w.model.leases[name] == nil {
			w.t.Fatalf("%T: a record of %s is left", ev, name)
		}
	}
	if got := w.table.HeldCount(); got != held {
		w.t.Fatalf("%d leases are held, expected %d", got, held)
	}
	if got, want := w.table.NextDue(), w.model.due(); got > max(want, w.now) {
		w.t.Fatalf("%T: next due at %v, but something is due at %v (now %v)", ev, got, want, w.now)
	}
}

// letGo lists the grants that these answers say their holders gave up.
func (w *tableWorld) letGo(replies []lease.Reply) []lease.Ref {
	var refs []lease.Ref
	for _, r := range replies {
		switch c := w.open[r.ID].Command.(type) {
		case lease.Release:
			if r.Err == nil {
				refs = append(refs, c.Ref)
			}
		case lease.CancelAcquire:
			if token, ok := r.Value.(fence.Token); ok {
				refs = append(refs, lease.Ref{Resource: c.Resource, Token: token})
			}
		}
	}
	return refs
}

// witness holds an answer against everything that was answered before.
func (w *tableWorld) witness(r lease.Reply) {
	asked, ok := w.open[r.ID]
	if !ok {
		w.t.Fatalf("call %d is answered and nobody asked: %s", r.ID, tellReply(r))
	}
	delete(w.open, r.ID)
	switch v := r.Value.(type) {
	case *lease.Grant:
		c, _ := asked.Command.(lease.Acquire)
		key := requestKey{c.Resource, c.Principal, c.RequestID}
		if before, ok := w.tokens[key]; ok && before != v.Token {
			w.t.Fatalf("request %s was granted %v and %v", shorten(key), before, v.Token)
		}
		w.tokens[key] = v.Token
		w.believe(c.Resource, v.Token, asked.Intake.Add(v.TTL))
	case lease.RenewOutcome:
		c, _ := asked.Command.(lease.Renew)
		failed := map[int]bool{}
		for _, f := range v.Failures {
			failed[f.Index] = true
		}
		for i, ref := range c.Refs {
			if !failed[i] {
				w.believe(ref.Resource, ref.Token, asked.Intake.Add(w.model.leases[ref.Resource].rec.TTL))
			}
		}
	}
}

// believe notes that a holder may believe in a grant, and that no other holder does any more (S4).
func (w *tableWorld) believe(name lease.Resource, token fence.Token, until clock.Instant) {
	if w.beliefs[name] == nil {
		w.beliefs[name] = map[fence.Token]int64{}
	}
	for other, believed := range w.beliefs[name] {
		if other != token && clock.Instant(believed) > w.now && until > w.now {
			w.t.Fatalf("%s: %v is believed until %v while %v is still believed until %v", name, token, until, other, clock.Instant(believed))
		}
	}
	w.beliefs[name][token] = max(w.beliefs[name][token], int64(until))
}

func (w *tableWorld) must(err error) {
	if err != nil {
		w.t.Fatal(err)
	}
}

// The table does what the model says, whatever is asked of it in whatever order.
func TestTableFollowsTheModel(t *testing.T) {
	for range 5 {
		rapid.Check(t, followTheModel)
	}
}

func followTheModel(t *rapid.T) {
	w := newTableWorld(t)
	t.Repeat(map[string]func(*rapid.T){
		"acquire":    w.drawAcquire,
		"again":      w.drawAgain,
		"cancel":     w.drawCancel,
		"renew":      w.drawRenew,
		"release":    w.drawRelease,
		"checkpoint": w.drawCheckpoint,
		"force":      w.drawForce,
		"inspect":    w.drawInspect,
		"gone":       w.drawGone,
		"wait":       w.drawWait,
		"tick":       func(*rapid.T) { w.tickAll() },
		"limited":    w.drawLimitedTick,
		"takeover":   w.drawTakeover,
	})
	w.finish()
}
