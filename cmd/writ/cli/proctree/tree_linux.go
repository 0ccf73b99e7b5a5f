package proctree

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command says what to start.
type Command struct {
	// Args is the command and its arguments. A command without a slash is looked for in PATH.
	Args []string
	// Env is the whole environment.
	Env []string
	// Files are the command's standard input, output and error output.
	Files [3]*os.File
	// Terminal is lent to the command when it needs it; nil when there is none.
	Terminal *Terminal
}

// Status is how a command ended.
type Status struct {
	// Code is the exit code, or 128 plus the number of the signal that ended the command.
	Code int
	// Signal is the signal that ended the command, 0 if it exited.
	Signal syscall.Signal
}

func (s Status) String() string {
	if s.Signal != 0 {
		return fmt.Sprintf("killed by %s", unix.SignalName(s.Signal))
	}
	return fmt.Sprintf("exit code %d", s.Code)
}

// Tree is a command that was started and everything that came of it. Its methods are safe for concurrent use.
type Tree struct {
	pid      int // of the command, and its process group's
	terminal *Terminal
	exited   chan struct{}
	gone     chan struct{}
	stopped  chan syscall.Signal
	hurry    chan struct{}

	mu sync.Mutex // held while waiting for children, so that what is signalled under it cannot be reused meanwhile
	// Invariant: as long as reaped is false, pid names the command and its process group, and nothing else.
	reaped  bool   // guarded by mu
	status  Status // guarded by mu; set before exited is closed
	killing bool   // guarded by mu
}

// killEvery is how often a tree that is being killed is looked at, besides at each death.
const killEvery = 5 * time.Millisecond

// Start starts a command in a process group of its own. Errors: the command cannot be found or started, or the system does
// not offer what the package needs.
func Start(cmd Command) (*Tree, error) {
	path, err := exec.LookPath(cmd.Args[0])
	if err != nil {
		return nil, startError(cmd.Args[0], err)
	}
	if _, err := readProcess(os.Getpid()); err != nil {
		return nil, fmt.Errorf("proctree: /proc cannot be read: %w; mount it, the processes of the command are found there", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("proctree: becoming a child subreaper: %w; allow prctl in the sandbox", err)
	}
	t := &Tree{
		terminal: cmd.Terminal,
		exited:   make(chan struct{}), gone: make(chan struct{}),
		stopped: make(chan syscall.Signal, 1), hurry: make(chan struct{}, 1),
	}
	started := make(chan error)
	go t.own(path, cmd, started)
	if err := <-started; err != nil {
		return nil, startError(cmd.Args[0], err)
	}
	return t, nil
}

// startError says in one line which command could not be started and why.
func startError(name string, err error) error {
	if lookup := (*exec.Error)(nil); errors.As(err, &lookup) {
		err = lookup.Err
	}
	if path := (*os.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("cannot start %q: %w", name, err)
}

// own starts the command and waits for the children of this process until none is left. It keeps its thread all the
// while: the kernel kills the command when the thread that started it ends.
func (t *Tree) own(path string, cmd Command, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Before the start, so that no death is missed, and because ignored deaths leave no status.
	deaths := make(chan os.Signal, 1)
	signal.Notify(deaths, syscall.SIGCHLD)
	defer signal.Stop(deaths)

	handle, err := os.StartProcess(path, cmd.Args, &os.ProcAttr{
		Env: cmd.Env, Files: cmd.Files[:],
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		started <- err
		return
	}
	t.pid = handle.Pid
	_ = handle.Release() // waiting is done below, for all children at once
	started <- nil

	var again <-chan time.Time // while killing
	for !t.reap() {
		select {
		case <-deaths:
		case <-t.hurry:
			again = time.Tick(killEvery)
		case <-again:
		}
		t.mu.Lock()
		if t.killing {
			t.signalAll(syscall.SIGKILL)
		}
		t.mu.Unlock()
	}
	close(t.gone)
}

// reap takes note of every child that has ended or stopped, and tells whether there is none left.
func (t *Tree) reap() (none bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG|syscall.WUNTRACED|syscall.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD):
			return true
		case err != nil:
			panic(fmt.Sprintf("proctree: waiting for children: %v", err)) // the arguments are constants
		case pid == 0:
			return false
		case pid == t.pid && ws.Stopped():
			t.noteStop(ws.StopSignal())
		case pid == t.pid:
			t.reaped, t.status = true, Status{Code: ws.ExitStatus()}
			if ws.Signaled() {
				t.status = Status{Code: 128 + int(ws.Signal()), Signal: ws.Signal()}
			}
			close(t.exited)
		}
	}
}

// noteStop keeps the newest stop.
func (t *Tree) noteStop(sig syscall.Signal) {
	select {
	case <-t.stopped:
	default:
	}
	t.stopped <- sig
}

// Pid returns the process id of the command, which is its process group's too.
func (t *Tree) Pid() int { return t.pid }

// Exited is closed when the command has ended; others of its tree may go on.
func (t *Tree) Exited() <-chan struct{} { return t.exited }

// Gone is closed when no process of the tree is left.
func (t *Tree) Gone() <-chan struct{} { return t.gone }

// Stopped receives the signal that stopped the command (SIGTSTP, SIGSTOP, SIGTTIN, SIGTTOU); of several the newest.
func (t *Tree) Stopped() <-chan syscall.Signal { return t.stopped }

// Status tells how the command ended; call it once Exited is closed.
func (t *Tree) Status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status
}

// Signal sends sig to the command's process group.
func (t *Tree) Signal(sig syscall.Signal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.reaped {
		_ = syscall.Kill(-t.pid, sig) // it can only have gone or be somebody else's, and Left tells
		return
	}
	t.each(func(p process) bool { return p.group == t.pid }, sig)
}

// Terminate asks every process of the tree to end: SIGTERM, and SIGCONT for those that are stopped.
func (t *Tree) Terminate() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.signalAll(syscall.SIGTERM)
	t.signalAll(syscall.SIGCONT)
}

// Kill ends every process of the tree with SIGKILL. When it returns each that could be found was sent the signal; it goes
// on until none is left.
func (t *Tree) Kill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.killing = true
	t.signalAll(syscall.SIGKILL)
	select {
	case t.hurry <- struct{}{}:
	default:
	}
}

// signalAll sends sig once to every process of the tree. The caller holds mu.
func (t *Tree) signalAll(sig syscall.Signal) {
	if t.reaped {
		t.each(func(process) bool { return true }, sig)
		return
	}
	// The group first: the kernel lets nobody fork out of it meanwhile.
	_ = syscall.Kill(-t.pid, sig)
	t.each(func(p process) bool { return p.group != t.pid }, sig)
}

// each sends sig to the processes that are wanted. The caller holds mu.
func (t *Tree) each(want func(process) bool, sig syscall.Signal) {
	found, _ := descendants(os.Getpid()) // Start has seen that /proc is there
	for _, p := range found {
		if want(p) {
			_ = p.signal(sig) // one that may not be signalled stays, and Left tells
		}
	}
}

// Left names the processes of the tree that are left, for people.
func (t *Tree) Left() string {
	found, _ := descendants(os.Getpid())
	var names []string
	for _, p := range found {
		names = append(names, fmt.Sprintf("%d (%s, state %c)", p.pid, p.name, p.state))
	}
	return strings.Join(names, ", ")
}
