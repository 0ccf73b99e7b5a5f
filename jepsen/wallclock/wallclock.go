//go:build linux

package wallclock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// ErrUnsupported means that clocks of processes cannot be changed on this machine, or by this user.
var ErrUnsupported = errors.New("wallclock: clocks of processes cannot be changed here")

// Supported returns an [ErrUnsupported] that says what is missing, or nil.
func Supported() error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("%w: it needs amd64", ErrUnsupported)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: run it as root", ErrUnsupported)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	defer func() { _ = mem.Close() }()
	if _, err := inspect(os.Getpid(), mem); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return nil
}

// Clock is the wall clock of a process. Its methods are not safe for concurrent use, and neither are two of one process.
type Clock struct {
	mem  *os.File
	code int64
}

// stopLimit bounds the waiting for a process to stand still.
const stopLimit = 10 * time.Second

// Of takes hold of the clock of a process, which goes on as it did. The process stands still for some milliseconds meanwhile,
// and runs afterwards. Close it.
func Of(pid int) (*Clock, error) {
	mem, err := os.OpenFile(filepath.Join("/proc", fmt.Sprint(pid), "mem"), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("wallclock: %w", err)
	}
	page, err := inspect(pid, mem)
	if err == nil && !page.patched {
		err = patch(pid, mem, page)
	}
	if err != nil {
		return nil, errors.Join(err, mem.Close())
	}
	return &Clock{mem, page.code}, nil
}

// Close lets go of the clock, and leaves it as it is.
func (c *Clock) Close() error { return c.mem.Close() }

// Jump has the clock differ from the right time by so much, in whole seconds, and go on if it stood still.
func (c *Clock) Jump(by time.Duration) error {
	return errors.Join(c.set(atSkew, int64(by/time.Second)), c.set(atSeconds, 0))
}

// Freeze has the clock stand still at a time after 1970.
func (c *Clock) Freeze(at time.Time) error {
	return errors.Join(c.set(atNanoseconds, int64(at.Nanosecond())), c.set(atSeconds, at.Unix()))
}

// Restore gives the process the right time.
func (c *Clock) Restore() error { return c.Jump(0) }

// set writes a number, at once.
func (c *Clock) set(at, to int64) error {
	if _, err := c.mem.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(to)), c.code+at); err != nil {
		return fmt.Errorf("wallclock: %w", err)
	}
	return nil
}

// patch has the function jump to the code, while the process stands still.
func patch(pid int, mem *os.File, page image) (err error) {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("wallclock: stop process %d: %w", pid, err)
	}
	defer func() {
		if failed := syscall.Kill(pid, syscall.SIGCONT); failed != nil {
			err = errors.Join(err, fmt.Errorf("wallclock: let process %d go on: %w", pid, failed))
		}
	}()
	if err := awaitStill(pid, page); err != nil {
		return err
	}
	if _, err := mem.WriteAt(code, page.code); err != nil {
		return fmt.Errorf("wallclock: write to the vDSO of process %d: %w", pid, err)
	}
	if _, err := mem.WriteAt(page.jump(), page.function); err != nil {
		return fmt.Errorf("wallclock: write to the vDSO of process %d: %w", pid, err)
	}
	return nil
}

// awaitStill waits until every thread has stopped, and none within what is overwritten.
func awaitStill(pid int, page image) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(stopLimit); ; <-tick.C {
		still, inside, err := threads(pid, page)
		switch {
		case err != nil:
			return err
		case inside: // which is left within nanoseconds
			if err := errors.Join(syscall.Kill(pid, syscall.SIGCONT), syscall.Kill(pid, syscall.SIGSTOP)); err != nil {
				return fmt.Errorf("wallclock: process %d: %w", pid, err)
			}
		case still:
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("wallclock: process %d does not stand still %v after SIGSTOP", pid, stopLimit)
		}
	}
}

// threads tells whether all have stopped, and whether one of them is within what is overwritten.
func threads(pid int, page image) (still, inside bool, err error) {
	all, err := filepath.Glob(filepath.Join("/proc", fmt.Sprint(pid), "task", "*"))
	if err != nil || len(all) == 0 {
		return false, false, errors.Join(fmt.Errorf("wallclock: process %d has no threads", pid), err)
	}
	for _, thread := range all {
		stat, err := os.ReadFile(filepath.Join(thread, "stat"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return false, false, fmt.Errorf("wallclock: %w", err)
		}
		_, state, _ := strings.Cut(string(stat), ") ")
		if !strings.HasPrefix(state, "T") {
			return false, false, nil
		}
		where, err := os.ReadFile(filepath.Join(thread, "syscall"))
		if err != nil {
			return false, false, fmt.Errorf("wallclock: %w", err)
		}
		fields := strings.Fields(string(where))
		var at int64
		if _, err := fmt.Sscanf(fields[len(fields)-1], "0x%x", &at); err != nil {
			return false, false, nil // it is still running
		}
		if at > page.function && at < page.function+jumpSize {
			return true, true, nil
		}
	}
	return true, false, nil
}
