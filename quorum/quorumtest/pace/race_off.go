//go:build !race

package pace

import "time"

// Heartbeat and Election are those of a member of a test's quorum.
const (
	Heartbeat = 50 * time.Millisecond
	Election  = 500 * time.Millisecond
)
