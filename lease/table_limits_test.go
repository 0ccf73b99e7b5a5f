package lease_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// What a round announces of its size bounds what it takes, of the longest names and the largest checkpoints too: a commit that
// turns out larger ends the term.
func TestTheSizeOfChangesIsBoundedFromAbove(t *testing.T) {
	const overhead = 10 // what a store adds to a write, as the engine bounds it
	who := lease.Caller{Principal: lease.Principal(strings.Repeat("p", 2000)), Instance: strings.Repeat("i", lease.MaxInstanceBytes)}
	m := lease.Moment{Now: clock.Instant(time.Hour), Wall: time.Unix(1e9, 0)}
	for _, length := range []int{1, 100, lease.MaxResourceBytes} {
		for _, data := range []int{0, 1, lease.MaxCheckpointBytes} {
			table := lease.NewTable(lease.TableConfig{}, 1)
			table.Allow(1, 10)
			name := lease.Resource(strings.Repeat("n", length))
			step := func(c lease.Command) any {
				replies := table.Step(m, lease.Request{ID: 1, Intake: m.Now, Command: c}).Replies
				if len(replies) != 1 || replies[0].Err != nil {
					t.Fatalf("%T is answered with %+v", c, replies)
				}
				return replies[0].Value
			}
			g, _ := step(lease.Acquire{Caller: who, Resource: name, RequestID: "A", TTL: time.Second}).(*lease.Grant)
			step(lease.Checkpoint{Caller: who, Ref: lease.Ref{Resource: name, Token: g.Token}, Data: make([]byte, data)})
			announced, size := table.DirtyBytes(), 0
			table.Dirty(func(c lease.Change) {
				size += len("/writ/lease/") + len(name) + c.Record.Size() + overhead
				if c.CheckpointChanged {
					size += len("/writ/checkpoint/") + len(name) + len(c.Checkpoint) + overhead
				}
			})
			if announced < size || announced > size+40 {
				t.Errorf("a name of %d bytes with a checkpoint of %d: %d bytes are announced, and %d are written", length, data, announced, size)
			}
		}
	}
}

func TestARenewalNamesOnlySoMany(t *testing.T) {
	table := lease.NewTable(lease.TableConfig{}, 1)
	table.Allow(1, 10)
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	for n, refused := range map[int]bool{lease.MaxRenewals: false, lease.MaxRenewals + 1: true} {
		replies := table.Step(m, lease.Request{ID: 1, Intake: m.Now, Command: lease.Renew{Refs: make([]lease.Ref, n)}}).Replies
		if len(replies) != 1 || (replies[0].Err != nil) != refused {
			t.Errorf("a renewal of %d leases is answered with %v", n, replies[0].Err)
		}
	}
}

func TestWhatIsKnown(t *testing.T) {
	table := lease.NewTable(lease.TableConfig{}, 1)
	table.Allow(1, 10)
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	table.Step(m, lease.Request{ID: 1, Intake: m.Now, Command: lease.Acquire{Resource: "r", RequestID: "A", TTL: time.Second}})
	if !table.Known("r") || table.Known("s") {
		t.Errorf("r is known: %v, s: %v", table.Known("r"), table.Known("s"))
	}
}

func TestPrioritiesHaveBounds(t *testing.T) {
	table := lease.NewTable(lease.TableConfig{}, 1)
	table.Allow(1, 10)
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	for priority, refused := range map[int32]bool{
		-lease.MaxPriority - 1: true, -lease.MaxPriority: false, lease.MaxPriority: false, lease.MaxPriority + 1: true,
	} {
		replies := table.Step(m, lease.Request{ID: 1, Intake: m.Now, Command: lease.Acquire{
			Resource: lease.Resource(fmt.Sprint(priority)), RequestID: "A", TTL: time.Second, Priority: priority,
		}}).Replies
		if len(replies) != 1 || (replies[0].Err != nil) != refused {
			t.Errorf("priority %d is answered with %+v", priority, replies)
		}
	}
}

// A checkpoint is written once: what comes again under its number is answered, and changes nothing.
func TestACheckpointIsStoredOnce(t *testing.T) {
	table := lease.NewTable(lease.TableConfig{}, 1)
	table.Allow(1, 10)
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	table.Step(m, lease.Request{ID: 1, Intake: m.Now, Command: lease.Acquire{Resource: "r", RequestID: "A", TTL: time.Second}})
	var stored []string
	for _, data := range []string{"first", "again"} {
		replies := table.Step(m, lease.Request{ID: 1, Intake: m.Now, Command: lease.Checkpoint{
			Ref: lease.Ref{Resource: "r", Token: tableToken(1, 1)}, Data: []byte(data), Sequence: 7,
		}}).Replies
		if len(replies) != 1 || replies[0].Err != nil {
			t.Fatalf("answered %+v", replies)
		}
		table.Dirty(func(c lease.Change) { stored = append(stored, string(c.Checkpoint)) })
	}
	if !slices.Equal(stored, []string{"first"}) {
		t.Errorf("stored are %q", stored)
	}
}
