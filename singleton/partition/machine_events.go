//writ:core

package partition

import (
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Event is something that happens to the machine.
type Event interface{ machineEvent() }

// Watched is what the watch of the group's prefix yielded.
type Watched struct{ Event lease.WatchEvent }

// Joined says that the member's lease, which [Effects.Join] asked for, is held.
type Joined struct{}

// Excluded says that the member's lease is over, or was not granted.
type Excluded struct{}

// Granted says that the lease of a partition, which [Effects.Ask] asked for, is held.
type Granted struct{ Index int }

// Refused says that an asking is over without a lease, because it was cancelled or failed.
type Refused struct{ Index int }

// Returned says that the function of a partition has returned.
type Returned struct{ Index int }

// Lost says that the lease of a partition is over, and its function's context has ended.
type Lost struct{ Index int }

// Released says that what [Effects.Release] asked for has been done, or cannot be: the lease is over, or will run out.
type Released struct{ Index int }

// Leave makes the member give up everything. It is never undone.
type Leave struct{}

func (Watched) machineEvent()  {}
func (Joined) machineEvent()   {}
func (Excluded) machineEvent() {}
func (Granted) machineEvent()  {}
func (Refused) machineEvent()  {}
func (Returned) machineEvent() {}
func (Lost) machineEvent()     {}
func (Released) machineEvent() {}
func (Leave) machineEvent()    {}

// Effects is what a step wants done. Partitions are named by index, in ascending order. A partition can be asked for in the step
// in which it is released, or even started, if its lease was lost: Ask is to be carried out after everything else, which is
// about the lease before.
type Effects struct {
	// Join asks for the member's lease, which is to be awaited. It is answered by Joined or Excluded; a Joined is followed by
	// Excluded once the lease is over.
	Join bool
	// Quit ends the member's lease, or the asking for it. It is answered by Excluded.
	Quit bool
	// Ask asks for the leases of partitions. Each is answered by Granted or Refused.
	Ask []int
	// Cancel ends askings, which are answered still.
	Cancel []int
	// Start starts the functions of partitions that were granted. Each is answered by Returned; Lost may come before or after.
	Start []int
	// Revoke tells functions that their partitions are wanted elsewhere; they are held still.
	Revoke []int
	// End ends the contexts of functions that did not return within the grace.
	End []int
	// Release ends leases of partitions whose functions have returned, or were never started. Each is answered by Released.
	Release []int
	// Wake is when the machine is to be stepped again if nothing happens before; 0 for never.
	Wake clock.Instant
	// Done: the member has left, and nothing of it remains.
	Done bool
}

// MachineConfig is what a machine must know of its member and its group.
type MachineConfig struct {
	Names Names
	// Self is the member's ID.
	Self string
	// Partitions is how many there are.
	Partitions int
	// Homes names the region that each partition prefers; nil if none does.
	Homes []string
	// Grace is how long a function has to return after its partition was revoked, before its context is ended.
	Grace time.Duration
	// Retry is how long to wait after a request that failed.
	Retry time.Duration
	// Settle is how long the first members of a group wait for others before they take partitions, so that the very first does not
	// take them all.
	Settle time.Duration
	// Pending is how many partitions may be asked for at a time.
	Pending int
}

// Defaults of a [MachineConfig].
const (
	DefaultGrace   = 10 * time.Second
	DefaultRetry   = time.Second
	DefaultSettle  = 300 * time.Millisecond
	DefaultPending = 64
)

func (c MachineConfig) withDefaults() MachineConfig {
	if c.Pending == 0 {
		c.Pending = DefaultPending
	}
	return c
}
