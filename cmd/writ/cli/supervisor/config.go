package supervisor

import (
	"fmt"
	"time"

	"github.com/writ-io/writ/lease"
)

// The reserve is a fortieth of the TTL within these bounds: 50 ms kill a tree of processes on a busy machine, and a longer
// lease can afford more.
const (
	reservePart = 40
	minReserve  = 50 * time.Millisecond
	maxReserve  = 250 * time.Millisecond
	// minGrace is what a process needs to end in an orderly way; it bounds only the default.
	minGrace = 100 * time.Millisecond
)

// Reserve returns how long before the local deadline processes are killed.
func Reserve(ttl time.Duration) time.Duration {
	return min(max(ttl/reservePart, minReserve), maxReserve)
}

// DefaultGrace returns how long before the local deadline processes are asked to end, unless configured: a third of the
// TTL, at least 100 ms.
func DefaultGrace(ttl time.Duration) time.Duration { return max(ttl/3, minGrace) }

// CheckGrace reports a grace that does not fit the TTL. Errors: INVALID, which names the flags.
func CheckGrace(grace, ttl time.Duration) error {
	switch {
	case grace < 0:
		return lease.Invalid("--stop-grace", fmt.Sprintf("is %v", grace), "use 0 (kill without asking) or more")
	case grace > ttl/2:
		// A lease is renewed after a third of its TTL, and the answer needs time.
		return lease.Invalid("--stop-grace", fmt.Sprintf("(%v) is above half of --ttl (%v)", grace, ttl),
			fmt.Sprintf("use at most %v, or a --ttl of at least %v", ttl/2, 2*grace))
	}
	return nil
}
