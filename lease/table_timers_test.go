package lease

import (
	"fmt"
	"testing"
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// Whoever polls often, or asks and gives up, or holds for a long time and then for a short one, leaves nothing behind that
// only time takes away.
func TestTimersDoNotPileUp(t *testing.T) {
	table := NewTable(TableConfig{Policy: Policy{Rules: []PolicyRule{{MaxTTL: MaxTTL}}}}, 1)
	table.Allow(1, 1<<20)
	now := clock.Instant(time.Hour)
	call := CallID(0)
	ask := func(c Command) {
		call++
		table.Step(Moment{Now: now}, Request{ID: call, Intake: now, Command: c})
		table.Step(Moment{Now: now}, Tick{MaxWrites: 1000, MaxBytes: 1 << 20})
		table.Dirty(func(Change) {})
	}
	who := Caller{Principal: "p"}
	ask(Acquire{Caller: who, Resource: "r", RequestID: "holder", TTL: MaxTTL})
	for i := range 1000 {
		now++
		wait := Acquire{Caller: who, Resource: "r", RequestID: "poll", TTL: MaxTTL - time.Duration(i)*time.Second, Wait: time.Hour}
		ask(wait)
		table.Step(Moment{Now: now}, Gone{ID: call})
		wait.RequestID = fmt.Sprint("gives up ", i)
		ask(wait)
		ask(CancelAcquire{Caller: who, Resource: "r", RequestID: wait.RequestID})
	}
	for i := range 1000 {
		now = now.Add(2 * time.Second)
		c := Acquire{Caller: who, Resource: "cycle", RequestID: fmt.Sprint(i), TTL: time.Second}
		if i%2 == 0 {
			c.TTL = time.Hour
		}
		ask(c)
		if e := table.entries["cycle"]; e.held {
			ask(Release{Caller: who, Ref: Ref{Resource: "cycle", Token: e.token}})
		}
	}
	if got := len(table.timers.items); got > 3 {
		t.Errorf("%d timers for two resources and one who waits", got)
	}
	if got := len(table.waiting) + len(table.byRequest); got > 2 {
		t.Errorf("%d places in the indices of those who wait", got)
	}
}

// A heap gives its timers in the order of time, and within it first set, first served, whatever is moved or removed.
func TestTimersComeInOrder(t *testing.T) {
	var h timerHeap
	entries := make([]entry, 200)
	at := make(map[*entry]clock.Instant)
	x := uint32(7)
	for step := range 5000 {
		x = x*1664525 + 1013904223
		e := &entries[int(x>>8)%len(entries)]
		when := clock.Instant(x >> 24)
		before, ok := at[e]
		switch {
		case step%3 == 0:
			h.remove(e)
			delete(at, e)
		case !ok || when < before:
			at[e] = when
			fallthrough
		default:
			h.set(e, when)
		}
	}
	if len(h.items) != len(at) || len(at) == 0 {
		t.Fatalf("%d timers of %d", len(h.items), len(at))
	}
	var last timer
	for len(h.items) > 0 {
		first := h.items[0]
		e, _ := h.pop().(*entry)
		if first.at != at[e] || first.at < last.at || first.at == last.at && first.seq < last.seq || e.timer != 0 {
			t.Fatalf("a timer of %v, set for %v, after %v", first.at, at[e], last.at)
		}
		last = first
	}
}

// Who is set again for no earlier time keeps its turn.
func TestATimerKeepsItsTurn(t *testing.T) {
	var h timerHeap
	entries := make([]entry, 3)
	for _, i := range []int{0, 1, 2, 1, 0} {
		h.set(&entries[i], 5)
	}
	h.set(&entries[1], 6)
	for i := range entries {
		if got := h.pop(); got != &entries[i] {
			t.Errorf("turn %d is not that of who was set then", i)
		}
	}
}

// A place that nobody asks for is kept for a third of the TTL, and at the end of it goes to nobody.
func TestAPlaceIsKeptUntilItsEnd(t *testing.T) {
	for _, early := range []clock.Instant{0, 1} {
		table := NewTable(TableConfig{}, 1)
		table.Allow(1, 10)
		now := clock.Instant(time.Hour)
		ask := func(id CallID, c Command) {
			if replies := table.Step(Moment{Now: now}, Request{ID: id, Intake: now, Command: c}).Replies; len(replies) > 0 && replies[0].Err != nil {
				t.Fatal(replies[0].Err)
			}
		}
		ask(1, Acquire{Caller: Caller{Principal: "a"}, Resource: "r", RequestID: "A", TTL: time.Minute})
		ask(2, Acquire{Caller: Caller{Principal: "b"}, Resource: "r", RequestID: "B", TTL: 3 * time.Second, Wait: time.Second})
		table.Step(Moment{Now: now}, Gone{ID: 2})
		now = now.Add(time.Second) - early
		ask(3, Release{Caller: Caller{Principal: "a"}, Ref: Ref{Resource: "r", Token: table.entries["r"].token}})
		if held := table.entries["r"].held; held != (early > 0) {
			t.Errorf("%v before the end of its place the waiter is granted: %v", early, held)
		}
	}
}
