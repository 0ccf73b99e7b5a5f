//go:build race

package pace

import "time"

// Heartbeat and Election are those of a member of a test's quorum. The detector makes everything several times as slow.
const (
	Heartbeat = 150 * time.Millisecond
	Election  = 1500 * time.Millisecond
)
