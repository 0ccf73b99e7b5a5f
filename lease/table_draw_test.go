package lease_test

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// What the property draws. Names are few, so that requests meet.

var (
	tableNames      = []lease.Resource{"r", "slow/s", "few/1", "few/2"}
	tableLong       = lease.Principal("spiffe://long/" + strings.Repeat("x", 700))
	tablePrincipals = []lease.Principal{"p", "q", tableLong}
	tableTTLs       = []time.Duration{lease.MinTTL, 400 * time.Millisecond, time.Second + 300*time.Microsecond, 3 * time.Second}
)

func drawName(t *rapid.T) lease.Resource { return rapid.SampledFrom(tableNames).Draw(t, "resource") }

func drawCaller(t *rapid.T) lease.Caller {
	return lease.Caller{
		Principal: rapid.SampledFrom(tablePrincipals).Draw(t, "principal"),
		Instance:  rapid.SampledFrom([]string{"1", "1", "1", "2"}).Draw(t, "instance"),
	}
}

// drawRef names the present grant, mostly; or one of before, of elsewhere, of the future, or nothing at all.
func (w *tableWorld) drawRef(t *rapid.T) (lease.Caller, lease.Ref) {
	name := drawName(t)
	who, ref := drawCaller(t), lease.Ref{Resource: name}
	x := w.model.leases[name]
	if x != nil {
		ref.Token = x.rec.Token
		if x.rec.Held && rapid.IntRange(0, 3).Draw(t, "right caller") > 0 {
			who = lease.Caller{Principal: x.rec.Holder.Principal, Instance: x.rec.Holder.Instance}
		}
	}
	switch rapid.IntRange(0, 7).Draw(t, "ref") {
	case 0:
		if x != nil && len(x.rec.Outcomes) > 0 {
			ref.Token = rapid.SampledFrom(x.rec.Outcomes).Draw(t, "outcome").Token
		}
	case 1:
		if other := w.model.leases[drawName(t)]; other != nil {
			ref.Token = other.rec.Token
		}
	case 2:
		ref.Token = rapid.SampledFrom([]fence.Token{0, 1, -5, w.model.next, w.model.next + 7, tableToken(w.epoch+1, 1), math.MaxInt64}).Draw(t, "token")
	}
	return who, ref
}

// request takes a command in, now or somewhat earlier, as one that stood in a queue.
func (w *tableWorld) request(t *rapid.T, c lease.Command) {
	w.lastCall++
	late := clock.Instant(rapid.SampledFrom([]int64{0, 0, 0, 1, 3e8, 6e8}).Draw(t, "late"))
	r := lease.Request{ID: w.lastCall, Intake: w.now - late, Command: c}
	w.open[r.ID] = r
	w.step(r)
}

func (w *tableWorld) drawAcquire(t *rapid.T) {
	w.request(t, lease.Acquire{
		Caller: drawCaller(t), Resource: drawName(t), RequestID: rapid.StringMatching(`[A-F]`).Draw(t, "request"),
		TTL: rapid.SampledFrom(tableTTLs).Draw(t, "ttl"), Wait: rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "wait"),
		Priority: rapid.Int32Range(-1, 1).Draw(t, "priority"), Metadata: rapid.SampledFrom([][]byte{nil, []byte(strings.Repeat("m", 300))}).Draw(t, "metadata"),
	})
}

// drawAgain repeats a request that is held or waits, as a poll does.
func (w *tableWorld) drawAgain(t *rapid.T) {
	name := drawName(t)
	x := w.model.leases[name]
	if x == nil {
		t.Skip("nothing to repeat")
	}
	var asks []lease.Acquire
	for _, v := range x.queue {
		asks = append(asks, v.ask)
	}
	if x.rec.Held {
		asks = append(asks, lease.Acquire{
			Caller:   lease.Caller{Principal: x.rec.Holder.Principal, Instance: x.rec.Holder.Instance},
			Resource: name, RequestID: x.rec.RequestID, TTL: x.rec.TTL,
		})
	}
	if len(asks) == 0 {
		t.Skip("nothing to repeat")
	}
	c := rapid.SampledFrom(asks).Draw(t, "ask")
	c.Wait = rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "wait")
	w.request(t, c)
}

func (w *tableWorld) drawCancel(t *rapid.T) {
	c := lease.CancelAcquire{Caller: drawCaller(t), Resource: drawName(t), RequestID: rapid.StringMatching(`[A-F]`).Draw(t, "request")}
	if x := w.model.leases[c.Resource]; x != nil && x.rec.Held && rapid.Bool().Draw(t, "holder") {
		c.Principal, c.RequestID = x.rec.Holder.Principal, x.rec.RequestID
	}
	w.request(t, c)
}

func (w *tableWorld) drawRenew(t *rapid.T) {
	who, ref := w.drawRef(t)
	c := lease.Renew{Caller: who, Refs: []lease.Ref{ref}}
	for range rapid.IntRange(0, 2).Draw(t, "more") {
		_, ref := w.drawRef(t)
		c.Refs = append(c.Refs, ref)
	}
	w.request(t, c)
}

func (w *tableWorld) drawRelease(t *rapid.T) {
	who, ref := w.drawRef(t)
	w.request(t, lease.Release{Caller: who, Ref: ref})
}

func (w *tableWorld) drawCheckpoint(t *rapid.T) {
	who, ref := w.drawRef(t)
	data := rapid.SampledFrom([][]byte{nil, []byte("slot 7"), []byte(strings.Repeat("k", 2000)), make([]byte, lease.MaxCheckpointBytes+1)}).Draw(t, "data")
	w.request(t, lease.Checkpoint{Caller: who, Ref: ref, Data: data, Sequence: rapid.Uint64Range(0, 5).Draw(t, "sequence")})
}

func (w *tableWorld) drawForce(t *rapid.T) {
	who, ref := w.drawRef(t)
	if rapid.Bool().Draw(t, "whatever there is") {
		ref.Token = 0
	}
	w.request(t, lease.ForceRelease{Caller: who, Ref: ref, Now: rapid.IntRange(0, 3).Draw(t, "now") == 0})
}

func (w *tableWorld) drawInspect(t *rapid.T) {
	who, ref := w.drawRef(t)
	if rapid.Bool().Draw(t, "whatever there is") {
		ref.Token = 0
	}
	w.request(t, lease.Inspect{Caller: who, Ref: ref, WithCheckpoint: rapid.Bool().Draw(t, "with checkpoint")})
}

// drawGone abandons a call that waits: it is not answered any more.
func (w *tableWorld) drawGone(t *rapid.T) {
	ids := slices.Sorted(maps.Keys(w.open))
	if len(ids) == 0 {
		t.Skip("nobody waits")
	}
	id := rapid.SampledFrom(ids).Draw(t, "call")
	delete(w.open, id)
	w.step(lease.Gone{ID: id})
}

// drawWait lets time pass: to what is due, or just before or after it, or anywhere.
func (w *tableWorld) drawWait(t *rapid.T) {
	by := clock.Instant(rapid.Int64Range(1, 9e8).Draw(t, "by"))
	if due := w.model.due(); due > w.now && due != clock.Never && rapid.Bool().Draw(t, "to what is due") {
		by = due - w.now + clock.Instant(rapid.Int64Range(-1, 1).Draw(t, "off by"))
	}
	w.now += max(by, 1)
}

// tickAll does everything that is due, and then nothing is due any more.
func (w *tableWorld) tickAll() {
	w.step(lease.Tick{MaxWrites: math.MaxInt, MaxBytes: math.MaxInt})
	if due := w.table.NextDue(); due <= w.now {
		w.t.Fatalf("at %v something is due since %v that no tick does", w.now, due)
	}
	for id, r := range w.open {
		if c, ok := r.Command.(lease.Acquire); ok && r.Intake.Add(min(c.Wait, c.TTL/3)) <= w.now {
			w.t.Fatalf("call %d of %v waits beyond the end of its poll", id, r.Intake)
		}
	}
}

// drawLimitedTick ticks in small portions, each of which gets on.
func (w *tableWorld) drawLimitedTick(t *rapid.T) {
	limit := lease.Tick{MaxWrites: rapid.IntRange(1, 2).Draw(t, "writes"), MaxBytes: rapid.SampledFrom([]int{1, math.MaxInt}).Draw(t, "bytes")}
	var replies []lease.Reply
	minted := map[lease.Resource]fence.Token{}
	for w.table.NextDue() <= w.now {
		replies = append(replies, w.table.Step(w.moment(), limit).Replies...)
		if n := w.table.DirtyWrites(); n > limit.MaxWrites || (n == 0 && w.table.NextDue() <= w.now) {
			t.Fatalf("a tick of %+v made %d writes and left more due at %v", limit, n, w.table.NextDue())
		}
		maps.Copy(minted, w.collect())
	}
	w.judge(limit, replies, minted)
}

// drawTakeover makes a new table of what was stored, as another coordinator does.
func (w *tableWorld) drawTakeover(t *rapid.T) {
	if rapid.IntRange(0, 9).Draw(t, "new epoch") == 0 {
		// The engine waits out every lease before the epoch changes.
		w.now = w.now.Add(slices.Max(tableTTLs))
		w.epoch, w.limit = w.epoch+1, 0
	}
	first := w.limit + 1
	w.limit += rapid.Uint64Range(200, 1<<20).Draw(t, "block")
	w.table = lease.NewTable(w.config, w.epoch)
	for _, name := range slices.Sorted(maps.Keys(w.stored)) {
		var rec lease.Record
		w.must(rec.UnmarshalBinary(w.stored[name]))
		w.table.Load(w.moment(), rec, w.kept[name])
	}
	w.table.Allow(first, w.limit)
	clear(w.open) // the engine drops whoever waits
	w.model.now = w.now
	w.model.takeover(w.epoch, tableToken(w.epoch, first))
	w.tickAll()
}

// finish lets everything run out: nobody is left waiting, and nothing but checkpoints is left.
func (w *tableWorld) finish() {
	for range 10 {
		w.now = w.now.Add(tableRetention)
		w.tickAll()
	}
	for id, r := range w.open {
		w.t.Errorf("call %d is never answered: %+v", id, r)
	}
	for name := range w.stored {
		if len(w.kept[name]) == 0 {
			w.t.Errorf("the record of %s is never forgotten", name)
		}
	}
	if w.table.HeldCount() != 0 {
		w.t.Errorf("%d leases are held for ever", w.table.HeldCount())
	}
}
