package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
	"github.com/writ-io/writ/cmd/writ/cli/supervisor"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/lease/leasetest"
)

const name = "jobs/a"

// stage is a quorum of one test double with a process of writ that runs an actor.
type stage struct {
	quorum   *leasetest.Quorum
	node     *leasetest.Node
	endpoint string
	line     *proctest.Line
	vouched  atomic.Int64 // when the node last took in what the lease counts from
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{quorum: leasetest.NewQuorum(nil), line: proctest.NewLine(t)}
	s.node = leasetest.NewNode(s.quorum, "node-1", "eu")
	s.endpoint = listen(t, s.node)
	for _, method := range []string{"Acquire", "Renew"} {
		s.node.Script(method, func(_ context.Context, _ any, next func() (any, error)) (any, error) {
			s.vouched.Store(int64(clock.System().Now()))
			return next()
		})
	}
	return s
}

// run starts "writ run" over the actor.
func (s *stage) run(t *testing.T, actor proctest.Actor, flags ...string) *process {
	t.Helper()
	return s.launch(t, actor.Env(s.line), append(append([]string{"run", name}, flags...), "--", os.Args[0])...)
}

func (s *stage) launch(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	return launch(t, append(env, "WRIT_ENDPOINTS="+s.endpoint, "WRIT_INSECURE=true"), args...)
}

// take lets somebody else hold the resource for an hour.
func (s *stage) take(t *testing.T) *lease.Hold {
	t.Helper()
	c, err := lease.Dial(t.Context(), lease.Config{Endpoints: []string{s.endpoint}, Insecure: true, Instance: "rival"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	hold, err := c.Acquire(t.Context(), name, lease.AcquireOptions{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return hold
}

// wantReleased checks that the lease was released, not left to run out.
func (s *stage) wantReleased(t *testing.T) {
	t.Helper()
	if info := s.quorum.Info(name); info.State != lease.Free || info.End != lease.EndReleased {
		t.Errorf("the lease is %v (%v), want it released", info.State, info.End)
	}
}

var (
	term = []syscall.Signal{syscall.SIGTERM}
	// stubborn ignores SIGTERM in a session of its own, and its parent has ended.
	stubborn = proctest.Actor{Session: true, Leave: true, Children: []proctest.Actor{{Session: true, Ignore: term}}}
)

func TestRunPassesTheEnvironmentAndTheExitCode(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	actor := proctest.Actor{Leave: true, Code: 42, Show: []string{"WRIT_RESOURCE", "WRIT_TOKEN", "WRIT_TOKEN_TEXT", "WRIT_INSTANCE", "WRIT"}}
	// What another "writ run" around this one has set is not passed on.
	env := append(actor.Env(s.line), "WRIT_TOKEN=1", "WRIT_INSTANCE=outer", "WRIT=outer")
	p := s.launch(t, env, "run", name, "--instance", "me", "--", os.Args[0])
	for _, want := range []string{
		"WRIT_RESOURCE=jobs/a", "WRIT_TOKEN=281474976710657", "WRIT_TOKEN_TEXT=1.1", "WRIT_INSTANCE=me", "WRIT=writ of jobs/a under 1.1", "ready",
	} {
		s.line.Expect(t, want)
	}
	if code := p.end(t); code != 42 || p.stderr.Len() > 0 {
		t.Errorf("exit code %d, want 42 and silence", code)
	}
	s.wantReleased(t)
}

func TestRunWithoutASignature(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	fails(s.node, "IssueWrit", lease.Errorf(lease.ReasonInternal, "no key"))
	actor := proctest.Actor{Leave: true, Show: []string{"WRIT", "WRIT_TOKEN_TEXT"}}
	p := s.launch(t, append(actor.Env(s.line), "WRIT=outer"), "run", name, "--", os.Args[0])
	s.line.Expect(t, "WRIT=")
	s.line.Expect(t, "WRIT_TOKEN_TEXT=1.1")
	if code := p.end(t); code != 0 || !strings.Contains(p.stderr.String(), "the command runs without a signed writ: INTERNAL: no key") {
		t.Errorf("exit code %d", code)
	}
}

// Whatever the command has started is gone before the lease is released.
func TestRunReleasesWhenNothingIsLeft(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	late := make(chan bool, 1)
	s.node.Script("Release", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
		select {
		case <-s.line.Gone():
			late <- true
		case <-time.After(30 * time.Second):
			late <- false
		}
		return next()
	})
	p := s.run(t, proctest.Actor{Leave: true, Code: 4, Children: []proctest.Actor{stubborn}}, "--stop-grace", "200ms")
	if code := p.end(t); code != 4 || !strings.Contains(p.stderr.String(), "left processes behind") {
		t.Errorf("exit code %d, want 4 and a remark", code)
	}
	if !<-late {
		t.Error("released while processes were alive")
	}
	s.wantReleased(t)
}

func TestRunForwardsSignals(t *testing.T) {
	t.Parallel()
	passed := map[syscall.Signal]string{
		syscall.SIGTERM: "terminated", syscall.SIGHUP: "hangup", syscall.SIGQUIT: "quit", syscall.SIGUSR1: "user defined signal 1",
		syscall.SIGUSR2: "user defined signal 2", syscall.SIGWINCH: "window changed",
	}
	s := newStage(t)
	p := s.run(t, proctest.Actor{Name: "command", Catch: slices.Collect(maps.Keys(passed)), EndOn: []syscall.Signal{syscall.SIGINT}, Code: 6})
	s.line.Expect(t, "ready")
	for sig, want := range passed {
		if err := p.signal(sig); err != nil {
			t.Fatal(err)
		}
		s.line.Expect(t, "command "+want)
	}
	if err := p.signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	s.line.Expect(t, "command interrupt")
	if code := p.end(t); code != 6 {
		t.Errorf("exit code %d, want 6", code)
	}
	s.wantReleased(t)
}

func TestRunDiesOfTheCommandsSignal(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := s.run(t, proctest.Actor{})
	s.line.Expect(t, "ready")
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.end(t); code != 128+15 {
		t.Errorf("exit code %d, want 143", code)
	}
}

// A signal while waiting gives up the place in the queue; the command never starts.
func TestRunGivesUpWaiting(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.take(t)
			waits := make(chan struct{}, 100)
			s.node.Script("Acquire", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
				waits <- struct{}{}
				return next()
			})
			p := s.run(t, proctest.Actor{})
			<-waits
			if err := p.signal(syscall.SIGUSR1); err != nil { // which is the command's, and there is none
				t.Fatal(err)
			}
			if err := p.signal(sig); err != nil {
				t.Fatal(err)
			}
			if code := p.end(t); code != 128+int(sig) || p.stderr.String() != fmt.Sprintf("writ: %v while waiting for %s\n", sig, name) {
				t.Errorf("exit code %d, stderr %q", code, p.stderr)
			}
			if s.node.Calls("CancelAcquire") == 0 {
				t.Error("the request was not cancelled")
			}
		})
	}
}

// A signal that came before anything was set up is not lost.
func TestRunHearsSignalsFromTheStart(t *testing.T) {
	s := newStage(t)
	t.Setenv("WRIT_ENDPOINTS", s.endpoint)
	t.Setenv("WRIT_INSECURE", "true")
	s.take(t) // so that the command could not start before
	r := writBy(t.Context(), t, []os.Signal{syscall.SIGTERM}, "run", name, "--", "true")
	r.want(t, 128+15, "", "writ: terminated while waiting for jobs/a\n")
}

// A lease is not released over processes that live on: whoever got it next would meet them.
func TestRunKeepsTheLeaseOverWhatCannotBeKilled(t *testing.T) {
	s := newStage(t)
	c, err := lease.Dial(t.Context(), lease.Config{Endpoints: []string{s.endpoint}, Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hold, err := c.Acquire(t.Context(), name, lease.AcquireOptions{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	r := runner{app: &app{connection: connection{timeout: time.Second}}, name: name, client: c, hold: hold}
	err = r.end(t.Context(), supervisor.Outcome{Exited: true, Left: "17 (stuck)"}, nil)
	if err == nil || !strings.Contains(err.Error(), "17 (stuck)") || errors.As(err, new(*exitError)) {
		t.Errorf("it ended with %v", err)
	}
	if s.quorum.Held() != 1 {
		t.Error("the lease was released")
	}
}

func TestRunWaitsInVain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.take(t)
	p := s.run(t, proctest.Actor{}, "--wait", "300ms")
	if code := p.end(t); code != 125 || p.stderr.String() != `writ: HELD: "jobs/a" is held by spiffe://test/client#rival under token 1.1`+"\n" {
		t.Errorf("exit code %d, stderr %q", code, p.stderr)
	}
}

// lostTTL is of leases that are lost while a test watches: the shortest that has the longest reserve to kill in, for machines that
// are busy.
const lostTTL = 10 * time.Second

// S7: when the quorum falls silent, the whole tree is dead before anybody else could be granted the resource, and before
// the holder's own deadline, which counts from before the last answered renewal.
func TestRunKillsBeforeTheDeadlineWithoutTheNetwork(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := s.run(t, proctest.Actor{Name: "command", Catch: term, Children: []proctest.Actor{stubborn}}, "--ttl", lostTTL.String(), "--stop-grace", "2s")
	s.line.Expect(t, "ready")
	s.node.Freeze()
	s.line.Expect(t, "command terminated")
	ended := s.line.Ended(t)
	deadline := clock.DefaultDrift().BelieveUntil(clock.Instant(s.vouched.Load()), lostTTL)
	if !ended.Before(deadline) {
		t.Errorf("processes lived until %v after the deadline", ended.Sub(deadline))
	}
	t.Logf("dead %v before the deadline", deadline.Sub(ended))
	if code := p.end(t); code != 125 || !strings.Contains(p.stderr.String(), "EXPIRED: the command was ended because its lease on jobs/a was lost: the lease could not be renewed in time") {
		t.Errorf("exit code %d", code)
	}
}

// The end does not depend on anybody who reads what is said about it: neither on one who waits nor on one who has gone.
func TestRunKillsWithoutAnErrorOutput(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *os.File, *os.File){
		"blocked": func(t *testing.T, _, w *os.File) { fill(t, w) },
		"broken":  func(_ *testing.T, r, _ *os.File) { _ = r.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			spoil(t, r, w)
			killsWithout(t, r, w)
		})
	}
}

// killsWithout checks that the end comes in time, and is told by the exit code, with an error output of no use.
func killsWithout(t *testing.T, reader, stderr *os.File) {
	t.Helper()
	s := newStage(t)
	actor := proctest.Actor{Ignore: term, Children: []proctest.Actor{stubborn}}
	p := prepare(append(actor.Env(s.line), "WRIT_ENDPOINTS="+s.endpoint, "WRIT_INSECURE=true"), "run", name, "--ttl", lostTTL.String(), "--", os.Args[0])
	p.Stderr = stderr
	p.begin(t)
	s.line.Expect(t, "ready")
	s.node.Freeze()
	ended := s.line.Ended(t)
	if deadline := clock.DefaultDrift().BelieveUntil(clock.Instant(s.vouched.Load()), lostTTL); !ended.Before(deadline) {
		t.Errorf("processes lived until %v after the deadline", ended.Sub(deadline))
	}
	_ = reader.Close() // so that nobody waits for the last words
	if code := p.end(t); code != 125 {
		t.Errorf("exit code %d, want 125", code)
	}
}

// fill writes to a pipe until it takes no more.
func fill(t *testing.T, w *os.File) {
	t.Helper()
	if err := w.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := w.Write(make([]byte, 4096)); err != nil {
			return
		}
	}
}

func TestRunKillsWhenTheLeaseIsTakenAway(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := s.run(t, proctest.Actor{Ignore: term, Children: []proctest.Actor{stubborn}}, "--ttl", "3s")
	s.line.Expect(t, "ready")
	s.quorum.End(name, lease.EndForced)
	s.line.Ended(t)
	if code := p.end(t); code != 125 || !strings.Contains(p.stderr.String(), "EXPIRED: the command was ended because its lease on jobs/a was lost: the server ended it") {
		t.Errorf("exit code %d", code)
	}
}

// A writ that was stopped beyond the deadline cannot keep its word, which is what tokens are for: a rival holds the
// resource while the command goes on. It kills the command as soon as it is continued.
func TestRunKillsWhenItWakes(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := s.run(t, proctest.Actor{Ignore: term}, "--ttl", lostTTL.String())
	s.line.Expect(t, "ready")
	if err := p.signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	rival := s.take(t) // as soon as the lease has run out
	select {
	case <-s.line.Gone():
		t.Error("somebody killed the command")
	default:
	}
	if err := p.signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.line.Ended(t)
	if code := p.end(t); code != 125 {
		t.Errorf("exit code %d, want 125", code)
	}
	if rival.Token().String() != "1.2" || !rival.Valid() {
		t.Errorf("the rival's lease %s was touched", rival.Token())
	}
}

func TestRunFailsByItself(t *testing.T) {
	s := newStage(t)
	t.Setenv("WRIT_ENDPOINTS", s.endpoint)
	t.Setenv("WRIT_INSECURE", "true")
	for line, want := range map[string]string{
		"run jobs/a -- no-such-command":               `cannot start "no-such-command": executable file not found in $PATH`,
		"run jobs/a -- /dev/null":                     `cannot start "/dev/null": permission denied`,
		"run jobs/a true":                             "INVALID: arguments are not NAME -- CMD; write: writ run NAME [flags] -- CMD [ARG…]",
		"run jobs/a --":                               "INVALID: arguments are not NAME -- CMD; write: writ run NAME [flags] -- CMD [ARG…]",
		"run jobs/a --bogus -- true":                  "INVALID: --bogus is no flag of writ run; see writ run --help",
		"run jobs/a --ttl 1ms -- true":                "INVALID: --ttl is 1ms; use at least 250ms",
		"run jobs/a --wait -1s -- true":               "INVALID: --wait is -1s; use 0 (wait without limit) or more",
		"run jobs/a --ttl 2s --stop-grace 2s -- true": "INVALID: --stop-grace (2s) is above half of --ttl (2s); use at most 1s, or a --ttl of at least 4s",
		"run jobs//a -- true":                         `INVALID: resource "jobs//a" has an empty segment; use 1 to 512 bytes of printable UTF-8 in non-empty segments, such as billing/nightly`,
		"run jobs/a --bogus -- true -o json":          "INVALID: --bogus is no flag of writ run; see writ run --help",
		"run jobs/a -o xml -- true":                   `INVALID: --output is "xml"; use table, json or yaml`,
	} {
		t.Run(line, func(t *testing.T) {
			p := launch(t, nil, strings.Fields(line)...)
			if code := p.end(t); code != 125 || p.stderr.String() != "writ: "+want+"\n" {
				t.Errorf("exit code %d, stderr %q, want %q", code, p.stderr, want)
			}
			if s.quorum.Held() != 0 {
				t.Error("the lease was left behind")
			}
		})
	}
	t.Run("no quorum", func(t *testing.T) {
		p := launch(t, nil, "run", name, "--endpoints", deadEndpoint(t), "--timeout", "300ms", "-o", "json", "--", "true")
		if code := p.end(t); code != 125 || field(t, p.stderr.String(), "error.reason") == "" || !strings.Contains(p.stderr.String(), `"exitCode":125`) {
			t.Errorf("exit code %d, stderr %s", code, p.stderr)
		}
	})
}
