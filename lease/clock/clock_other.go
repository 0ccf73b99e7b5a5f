//go:build !linux

package clock

import "time"

// SuspendAware reports whether [System] counts the time that the machine spends
// suspended. It does not here: Go's monotonic clock may stand still while the
// machine sleeps, so after a resume a holder can believe in a lease that
// others consider over. Guards still refuse its old token. Watch for the jump
// with [Watchdog], or run holders on Linux.
const SuspendAware = false

var processStart = time.Now()

func systemNow() Instant { return firstInstant.Add(time.Since(processStart)) }
