package lease_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// liveHeap is the size of what is reachable.
func liveHeap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// A coordinator keeps very many leases. The table is a part of what one takes, beside the view and the store.
func TestALeaseTakesLittleMemory(t *testing.T) {
	const leases, most = 100_000, 288
	table := lease.NewTable(lease.TableConfig{}, 1)
	table.Allow(1, 1<<40)
	m := lease.Moment{Now: clock.Instant(time.Hour), Wall: time.Unix(1e9, 0)}
	before := liveHeap()
	for i := range leases {
		// Every request brings strings of its own, as from the wire.
		table.Step(m, lease.Request{ID: lease.CallID(i + 1), Intake: m.Now, Command: lease.Acquire{
			Caller: lease.Caller{
				Principal: lease.Principal(strings.Clone("spiffe://writ/bench")), Instance: fmt.Sprintf("bench-%d", i%16),
			},
			Resource: lease.Resource(fmt.Sprintf("scale/resource-%06d", i)), RequestID: fmt.Sprintf("%032x", i),
			TTL: 30 * time.Second, Region: strings.Clone("eu"),
		}})
		if i%1000 == 0 {
			table.Dirty(func(lease.Change) {})
		}
	}
	table.Dirty(func(lease.Change) {})
	if got := (liveHeap() - before) / leases; got > most {
		t.Errorf("a lease takes %d bytes, want at most %d", got, most)
	}
	runtime.KeepAlive(table)
}
