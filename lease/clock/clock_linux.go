package clock

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SuspendAware reports whether [System] counts the time that the machine spends
// suspended.
const SuspendAware = true

// systemNow reads CLOCK_BOOTTIME. Every kernel that Go supports has it; a
// refusal (a sandbox's syscall filter) leaves no clock to be safe by, so the
// process must not go on.
func systemNow() Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("clock: reading CLOCK_BOOTTIME failed: %v: allow clock_gettime in the sandbox", err))
	}
	return Instant(ts.Nano())
}
