package supervisor

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-io/writ/cmd/writ/cli/proctree"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Hold is a held lease as the supervisor needs it.
type Hold interface {
	// Remaining tells how long the lease may still be believed, 0 when it may not be.
	Remaining() time.Duration
	// Done is closed when the lease must not be used any more.
	Done() <-chan struct{}
	// Err tells why, once Done is closed.
	Err() error
}

var _ Hold = (*lease.Hold)(nil)

// Config says what to run and how.
type Config struct {
	Command proctree.Command
	// Interactive puts the command in the foreground of its terminal from the start, not only when it asks for it.
	Interactive bool
	Hold        Hold
	// Clock is the one that Remaining counts by.
	Clock clock.Clock
	// TTL is the lease's; Grace is how long before its local deadline processes are asked to end, see [CheckGrace].
	TTL, Grace time.Duration
	// Signals are those that this process receives. All but SIGCONT are forwarded.
	Signals <-chan os.Signal
	// Say tells people what happens. It must not block, for the command would live on meanwhile.
	Say func(format string, args ...any)
}

// Outcome is how it ended.
type Outcome struct {
	// Exited tells whether the command has ended, and Status how.
	Exited bool
	Status proctree.Status
	// Cause is why the command was ended; nil if it ended by itself.
	Cause error
	// Left names processes that could not be killed.
	Left string
}

// Run starts the command and returns when no process of it is left. Errors: those of [proctree.Start].
func Run(cfg Config) (Outcome, error) {
	tree, err := proctree.Start(cfg.Command)
	if err != nil {
		return Outcome{}, err
	}
	s := &shell{Config: cfg, tree: tree, exited: tree.Exited(), lost: cfg.Hold.Done()}
	s.machine = newMachine(cfg.Grace, Reserve(cfg.TTL), s.deadline())
	if cfg.Interactive {
		tree.Lend()
	}
	s.loop()
	return s.outcome(), nil
}

// shell carries out what the machine decides, in one loop. Nothing in it blocks but the wait for events.
type shell struct {
	Config
	machine *machine
	tree    *proctree.Tree
	exited  <-chan struct{} // nil once received
	lost    <-chan struct{} // nil once received
	// suspended says that we stopped ourselves because the command was stopped, and woken that we were continued.
	suspended, woken bool
}

func (s *shell) loop() {
	timer := s.Clock.NewTimer(clock.Never)
	defer timer.Stop()
	var e event = tick{}
	for {
		out := s.machine.step(s.Clock.Now(), s.deadline(), e)
		s.apply(out)
		if out.over {
			return
		}
		s.resume()
		timer.Reset(out.wake)
		e = s.next(timer)
	}
}

// deadline is the lease's local deadline, or an earlier instant.
func (s *shell) deadline() clock.Instant {
	now := s.Clock.Now() // before Remaining, for time may pass in between
	return now.Add(s.Hold.Remaining())
}

func (s *shell) apply(out effects) {
	switch {
	case out.kill:
		s.tree.Kill()
		s.Say("killing the command: %v", s.why())
	case out.terminate:
		s.tree.Terminate()
		s.Say("ending the command: %v", s.why())
	}
}

func (s *shell) why() string {
	switch {
	case s.machine.cause != nil:
		return s.machine.cause.Error()
	case s.machine.exited:
		return "it has exited, but left processes behind: " + s.tree.Left()
	}
	return "it did not end in time"
}

// next waits for something to happen.
func (s *shell) next(timer clock.Timer) event {
	select {
	case <-timer.C():
	case <-s.lost:
		if s.exited != nil && closed(s.exited) {
			s.exited = nil
			return exited{} // it had ended before the lease did
		}
		s.lost = nil
		return lost{cause: s.Hold.Err()}
	case <-s.tree.Gone():
		return gone{}
	case <-s.exited:
		s.exited = nil
		return exited{}
	case sig := <-s.Signals:
		s.received(sig.(syscall.Signal))
	case sig := <-s.tree.Stopped():
		s.stopped(sig)
	}
	return tick{}
}

func (s *shell) received(sig syscall.Signal) {
	if sig == syscall.SIGCONT {
		s.woken = true
		return
	}
	s.tree.Signal(sig)
}

// resume continues a command that was suspended with us. It comes after a step of the machine: if the lease ran out
// meanwhile, the command must not go on.
func (s *shell) resume() {
	if s.suspended && s.woken && s.machine.phase < ending {
		s.suspended = false
		s.tree.Resume()
	}
	s.woken = false
}

// stopped follows a command that was stopped by the terminal.
func (s *shell) stopped(sig syscall.Signal) {
	switch {
	case s.machine.phase >= ending:
		s.tree.Signal(syscall.SIGCONT) // it is to end
	case (sig == syscall.SIGTTIN || sig == syscall.SIGTTOU) && s.tree.Lend():
	case s.tree.Suspend():
		s.suspended, s.woken = true, false
	case sig == syscall.SIGTSTP:
		s.tree.Resume() // from a keyboard, where no shell could ever continue it
	}
}

func (s *shell) outcome() Outcome {
	o := Outcome{Cause: s.machine.cause, Exited: closed(s.tree.Exited())}
	if o.Exited {
		o.Status = s.tree.Status()
	}
	if !closed(s.tree.Gone()) {
		o.Left = s.tree.Left()
	}
	s.tree.Reclaim(o.Cause != nil || o.Status.Signal != 0)
	return o
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Forwarded lists the signals that [Run] is to be given, because they are the command's.
func Forwarded() []os.Signal {
	return []os.Signal{
		unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH,
	}
}

// JobControl lists the signals of a keyboard and its shell that [Run] is to be given, once the command is about to start.
func JobControl() []os.Signal { return []os.Signal{unix.SIGTSTP, unix.SIGCONT} }
