//go:build unix && !solaris && !illumos && !aix

package floors

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockRetry is how often a lock that another process has is asked for.
const lockRetry = 20 * time.Millisecond

// lock takes the lock that the database takes as well, so that nobody writes while the file is inspected.
func lock(file *os.File, wait time.Duration) error {
	for waited := time.Duration(0); ; waited += lockRetry {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("floors: locking: %w", err)
		case waited >= wait:
			return fmt.Errorf("%w: two guards must not share one: end the other process, or give each its own file", ErrInUse)
		}
		time.Sleep(lockRetry)
	}
}
