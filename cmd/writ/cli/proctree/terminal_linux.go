package proctree

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Terminal is the controlling terminal of this process. It is not safe for concurrent use.
type Terminal struct {
	file  *os.File
	group int // our process group
	// modes are what the terminal was set to before it was lent; nil if it could not be read.
	modes *unix.Termios
	lent  bool
}

// OpenTerminal opens the controlling terminal, and returns nil when there is none.
func OpenTerminal() *Terminal {
	file, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	t := &Terminal{file: file, group: syscall.Getpgrp()}
	t.modes, _ = unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return t
}

// Close closes the terminal's file. A nil Terminal is closed already.
func (t *Terminal) Close() {
	if t != nil {
		_ = t.file.Close()
	}
}

// Ours reports whether our process group is in the foreground.
func (t *Terminal) Ours() bool {
	group, err := t.foreground()
	return err == nil && group == t.group
}

func (t *Terminal) foreground() (int, error) {
	return unix.IoctlGetInt(int(t.file.Fd()), unix.TIOCGPGRP)
}

// give puts a process group in the foreground.
func (t *Terminal) give(group int) error {
	// Whoever does this from the background is stopped by SIGTTOU, unless its thread blocks it. Ignoring the signal would
	// do too, but every command would inherit that.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var block, before unix.Sigset_t
	block.Val[0] |= 1 << (syscall.SIGTTOU - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &block, &before); err != nil {
		return err
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) //nolint:errcheck // the arguments are right
	return unix.IoctlSetPointerInt(int(t.file.Fd()), unix.TIOCSPGRP, group)
}

// Lend puts the command in the foreground of the terminal if we are there, and continues it in case it was stopped for
// want of it. It reports whether the command has the terminal now.
func (t *Tree) Lend() bool {
	if t.terminal == nil || !t.terminal.Ours() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reaped || t.terminal.give(t.pid) != nil {
		return false
	}
	t.terminal.lent = true
	_ = syscall.Kill(-t.pid, syscall.SIGCONT)
	return true
}

// Reclaim takes the terminal back, if it was lent and nobody else took it. With reset it also undoes what the command did
// to the terminal's modes, which a command that was killed had no time for.
func (t *Tree) Reclaim(reset bool) {
	if t.terminal == nil || !t.terminal.lent {
		return
	}
	t.terminal.lent = false
	if group, err := t.terminal.foreground(); err != nil || group != t.pid {
		return
	}
	if err := t.terminal.give(t.terminal.group); err == nil && reset && t.terminal.modes != nil {
		_ = unix.IoctlSetTermios(int(t.terminal.file.Fd()), unix.TCSETSW, t.terminal.modes)
	}
}

// Suspend follows a command that was stopped from the keyboard: it takes the terminal back and stops our process group,
// so that the shell goes on. It reports whether it did so; where nobody could continue us it does not. It may return
// before the stop takes effect; a SIGCONT tells when it is over.
func (t *Tree) Suspend() bool {
	if t.terminal == nil || !controlled() {
		return false
	}
	t.Reclaim(false)
	return syscall.Kill(0, syscall.SIGSTOP) == nil
}

// Resume continues a command that was stopped, in the foreground if we are there.
func (t *Tree) Resume() {
	if !t.Lend() {
		t.Signal(syscall.SIGCONT)
	}
}

// controlled reports whether a shell controls our process group: the nearest ancestor outside of the group is in our
// session.
func controlled() bool {
	self, err := readProcess(os.Getpid())
	if err != nil {
		return false
	}
	for p := self; ; {
		if p, err = readProcess(p.parent); err != nil {
			return false
		}
		if p.group != self.group {
			return p.session == self.session
		}
	}
}
