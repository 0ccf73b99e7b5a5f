package lease_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Tokens come from ranges that only go up, one after the other, and there are exactly as many as were allowed.
func TestTokensComeFromTheRangesThatAreAllowed(t *testing.T) {
	table := lease.NewTable(lease.TableConfig{}, 1)
	left := func(want uint64) {
		t.Helper()
		if got := table.TokensLeft(); got != want {
			t.Fatalf("%d tokens are left, want %d", got, want)
		}
	}
	taken := uint64(0)
	take := func(want uint64) {
		t.Helper()
		taken++
		request := lease.Request{ID: 1, Intake: 1, Command: lease.Acquire{
			Resource: lease.Resource(fmt.Sprint("r", taken)), RequestID: "A", TTL: lease.MinTTL,
		}}
		replies := table.Step(lease.Moment{Now: clock.Instant(1)}, request).Replies
		if g, ok := replies[0].Value.(*lease.Grant); !ok || g.Token != tableToken(1, want) {
			t.Fatalf("answered %+v, want token %d", replies[0], want)
		}
	}
	refused := func(what string, allow func()) {
		t.Helper()
		before := table.TokensLeft()
		defer func() {
			if t.Helper(); recover() == nil || table.TokensLeft() != before {
				t.Errorf("%s: no panic, or %d tokens are left of %d", what, table.TokensLeft(), before)
			}
		}()
		allow()
	}
	table.Allow(1, 2)
	left(2)
	take(1)
	left(1)
	refused("a range that begins below", func() { table.Allow(1, 9) })
	refused("a range that ends below", func() { table.Allow(2, 1) })
	table.Extend(2) // nothing new
	left(1)
	table.Extend(3)
	left(2)
	take(2)
	take(3)
	left(0)
	refused("no token left", func() { take(4) })
	table.Allow(11, 10) // what is left of a block is skipped
	left(0)
	table.Extend(11)
	left(1)
	take(11)
	left(0)
}

// Whoever waits takes a token from whatever ends: without tokens nothing is due, and nothing happens.
func TestNothingEndsWithoutTokens(t *testing.T) {
	table := lease.NewTable(lease.TableConfig{}, 1)
	table.Allow(1, 1)
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	for i, wait := range []time.Duration{0, time.Second} {
		table.Step(m, lease.Request{ID: lease.CallID(i + 1), Intake: m.Now, Command: lease.Acquire{
			Resource: "r", RequestID: fmt.Sprint(i), TTL: 3 * time.Second, Wait: wait,
		}})
	}
	m.Now = m.Now.Add(3 * time.Second)
	all := lease.Tick{MaxWrites: math.MaxInt, MaxBytes: math.MaxInt}
	if replies := table.Step(m, all).Replies; len(replies) != 0 || table.NextDue() != clock.Never {
		t.Errorf("without tokens a tick answers %+v, and the next is due at %v", replies, table.NextDue())
	}
	table.Extend(2)
	if table.NextDue() > m.Now {
		t.Errorf("with tokens the next tick is due at %v", table.NextDue())
	}
	if table.Step(m, all); table.NextDue() <= m.Now || table.HeldCount() != 0 {
		t.Errorf("%d leases are held, and the next tick is due at %v", table.HeldCount(), table.NextDue())
	}
}

// A tick keeps to the room that there is, of which there may be none.
func TestATickWithoutRoomDoesNothing(t *testing.T) {
	table := lease.NewTable(lease.TableConfig{}, 1)
	table.Allow(1, 10)
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	table.Step(m, lease.Request{ID: 1, Intake: m.Now, Command: lease.Acquire{Resource: "r", RequestID: "A", TTL: time.Second}})
	table.Dirty(func(lease.Change) {})
	m.Now = m.Now.Add(time.Second)
	for _, limit := range []lease.Tick{{MaxWrites: 0, MaxBytes: 1}, {MaxWrites: 1, MaxBytes: 0}, {MaxWrites: 1, MaxBytes: 1}} {
		table.Step(m, limit)
		if held := limit.MaxWrites*limit.MaxBytes == 0; (table.HeldCount() == 1) != held {
			t.Errorf("after a tick of %+v %d leases are held", limit, table.HeldCount())
		}
	}
}

// A free resource that nobody waits for is left alone until its record is forgotten, or its last timer goes off.
func TestAFreeResourceIsNotLookedAtAtOnce(t *testing.T) {
	table := lease.NewTable(lease.TableConfig{}, 1)
	table.Allow(1, 10)
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	table.Step(m, lease.Request{ID: 1, Intake: m.Now, Command: lease.Acquire{Resource: "r", RequestID: "A", TTL: time.Minute}})
	table.Step(m, lease.Request{ID: 2, Intake: m.Now, Command: lease.Release{Ref: lease.Ref{Resource: "r", Token: tableToken(1, 1)}}})
	if table.HeldCount() != 0 || table.NextDue() != m.Now.Add(time.Minute) {
		t.Errorf("%d leases are held, and the next tick is due at %v", table.HeldCount(), table.NextDue())
	}
}

func TestANewTableHasNoTokens(t *testing.T) {
	if got := lease.NewTable(lease.TableConfig{}, 1).TokensLeft(); got != 0 {
		t.Errorf("%d tokens are left before any were allowed", got)
	}
}
