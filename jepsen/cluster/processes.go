//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Processes starts programs that do not outlive this one. Its methods are safe for concurrent use.
type Processes struct {
	starts chan start
	ended  sync.WaitGroup // the starter, and a waiter for each process

	mu      sync.Mutex
	running map[*Process]bool // guarded by mu
	closed  bool              // guarded by mu
}

type start struct {
	cmd  *exec.Cmd
	done chan error
}

// Process is a program that was started. It can be stopped, but not be started again.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed after err was written
	err  error
}

// NewProcesses makes an empty set. Close it.
func NewProcesses() *Processes {
	p := &Processes{starts: make(chan start), running: make(map[*Process]bool)}
	p.ended.Go(p.starter)
	return p
}

// starter starts every process. The kernel kills a child when the thread that started it ends, so one thread starts them
// all, and stays until Close.
func (p *Processes) starter() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	for s := range p.starts {
		s.done <- s.cmd.Start()
	}
}

// Start starts a command, which must not have been started before.
func (p *Processes) Start(cmd *exec.Cmd) (*Process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.New("cluster: the set of processes is closed")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s := start{cmd, make(chan error)}
	p.starts <- s
	if err := <-s.done; err != nil {
		return nil, fmt.Errorf("cluster: start %s: %w", cmd.Path, err)
	}
	process := &Process{cmd: cmd, done: make(chan struct{})}
	p.running[process] = true
	p.ended.Go(func() {
		process.err = cmd.Wait()
		close(process.done)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.running, process)
	})
	return process, nil
}

// Close kills what still runs and waits until it is gone.
func (p *Processes) Close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.starts)
	}
	for process := range p.running {
		_ = process.cmd.Process.Kill() // fails if it has just ended
	}
	p.mu.Unlock()
	p.ended.Wait()
}

// Signal sends a signal. It fails if the process has ended.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// killLimit bounds the waiting for a process that was killed: the kernel first finishes what it does for it on a disk.
const killLimit = 2 * time.Minute

// Kill ends the process by SIGKILL, also while it is stopped, and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	timer := time.NewTimer(killLimit)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("cluster: %s is not gone %v after SIGKILL", p.cmd.Path, killLimit)
	}
}

// fell kills the process unless it has ended, and tells whether it had.
func (p *Process) fell() (alone bool, err error) {
	select {
	case <-p.done:
		return true, nil
	default:
	}
	if err := p.Kill(); !errors.Is(err, os.ErrProcessDone) {
		return false, err
	}
	<-p.done
	return true, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the process ended; nil before, and after success.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}
