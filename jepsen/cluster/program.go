//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Program is one that can be killed, paused and started again. Its methods are safe for concurrent use.
type Program struct {
	// Name is for people.
	Name string
	// Command prepares the next process. What it leaves unset of the outputs goes to Log.
	Command func() (*exec.Cmd, error)
	// Log is the path of a file that is appended to.
	Log string
	// Processes is what the processes belong to.
	Processes *Processes
	// End is the signal that asks it to end. Default: SIGTERM.
	End syscall.Signal

	mu      sync.Mutex
	process *Process  // guarded by mu; nil while it is down
	paused  time.Time // guarded by mu; zero while it is not
}

// Start starts the program, which is down.
func (p *Program) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process != nil {
		return fmt.Errorf("cluster: %s is running", p.Name)
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd, err := p.Command()
	if err != nil {
		return err
	}
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if cmd.Stderr == nil {
		cmd.Stderr = log
	}
	p.process, err = p.Processes.Start(cmd)
	return err
}

// Kill ends the program by SIGKILL.
func (p *Program) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.check(); err != nil {
		return err
	}
	process := p.process
	p.process, p.paused = nil, time.Time{}
	return process.Kill()
}

// Fell ends the program as Kill does, unless it has ended by itself, and tells whether it had: what was done to it may be a reason
// to.
func (p *Program) Fell() (alone bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return false, fmt.Errorf("cluster: %s is down", p.Name)
	}
	process := p.process
	p.process, p.paused = nil, time.Time{}
	return process.fell()
}

// Ended is closed when the program, which is up, has ended.
func (p *Program) Ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return nil
	}
	return p.process.Done()
}

// Stop asks the program to end and waits until it has, at most until ctx ends.
func (p *Program) Stop(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.check(); err != nil {
		return err
	}
	end := p.End
	if end == 0 {
		end = syscall.SIGTERM
	}
	if err := p.process.Signal(end); err != nil {
		return err
	}
	select {
	case <-p.process.Done():
		err := p.process.Err()
		p.process = nil
		return err
	case <-ctx.Done():
		return fmt.Errorf("cluster: stop %s: %w", p.Name, context.Cause(ctx))
	}
}

// Await waits until the program has ended by itself, at most until ctx ends.
func (p *Program) Await(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return fmt.Errorf("cluster: %s is down", p.Name)
	}
	select {
	case <-p.process.Done():
		err := p.process.Err()
		p.process = nil
		return err
	case <-ctx.Done():
		return fmt.Errorf("cluster: await the end of %s: %w", p.Name, context.Cause(ctx))
	}
}

// Pause stops the program by SIGSTOP.
func (p *Program) Pause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.check(); err != nil {
		return err
	}
	p.paused = time.Now()
	return p.process.Signal(syscall.SIGSTOP)
}

// Resume lets a paused program go on, and returns for how long at most it was paused.
func (p *Program) Resume() (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.check(); err != nil {
		return 0, err
	}
	err := p.process.Signal(syscall.SIGCONT)
	span := time.Since(p.paused)
	p.paused = time.Time{}
	return span, err
}

// Check returns an error if the program has ended, though nobody killed it.
func (p *Program) Check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return nil
	}
	return p.check()
}

// check returns an error if the program is down. The caller holds mu.
func (p *Program) check() error {
	if p.process == nil {
		return fmt.Errorf("cluster: %s is down", p.Name)
	}
	select {
	case <-p.process.Done():
		return fmt.Errorf("cluster: %s ended by itself: %w", p.Name, errors.Join(p.process.Err(), errors.New("see its log")))
	default:
		return nil
	}
}
