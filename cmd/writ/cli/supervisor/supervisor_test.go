//go:build linux

package supervisor_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/writ-io/writ/cmd/writ/cli/proctree"
	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
	"github.com/writ-io/writ/cmd/writ/cli/supervisor"
	"github.com/writ-io/writ/lease/clock"
)

// Run wants a process of its own, so the tests start themselves once more, as a supervisor of an actor.
const specVariable = "SUPERVISOR_TEST_SPEC"

func TestMain(m *testing.M) {
	if spec := os.Getenv(specVariable); spec != "" {
		os.Exit(supervise(spec))
	}
	proctest.Main()
	os.Exit(m.Run())
}

// spec is what a supervisor process is to do.
type spec struct {
	// Believe is how long the lease may be believed from the start, and by each "renew" on the standard input.
	Believe, TTL, Grace time.Duration
}

// report is what it writes in the end.
type report struct {
	Code     int
	Exited   bool
	Cause    string
	Left     string
	Said     []string
	Deadline clock.Instant // of the lease, at the end
	Over     clock.Instant // when Run had returned
}

// hold is a lease that this process decides about.
type hold struct {
	until atomic.Int64
	done  chan struct{}
	lose  func()
}

func (h *hold) Remaining() time.Duration {
	return max(0, clock.Instant(h.until.Load()).Sub(clock.System().Now()))
}
func (h *hold) Done() <-chan struct{} { return h.done }
func (h *hold) Err() error            { return errors.New("taken away") }

func (h *hold) renew(d time.Duration) { h.until.Store(int64(clock.System().Now().Add(d))) }

func supervise(text string) int {
	var s spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		panic(err)
	}
	_ = os.Unsetenv(specVariable)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, slices.Concat(supervisor.Forwarded(), supervisor.JobControl())...)
	h := &hold{done: make(chan struct{})}
	h.lose = sync.OnceFunc(func() { close(h.done) })
	h.renew(s.Believe)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			switch in.Text() {
			case "renew":
				h.renew(s.Believe)
			case "lose":
				h.lose()
			}
		}
	}()
	null, err := os.Open(os.DevNull)
	if err != nil {
		panic(err)
	}
	var r report
	outcome, err := supervisor.Run(supervisor.Config{
		Command: proctree.Command{Args: os.Args[:1], Env: os.Environ(), Files: [3]*os.File{null, os.Stderr, os.Stderr}},
		Hold:    h, Clock: clock.System(), TTL: s.TTL, Grace: s.Grace, Signals: signals,
		Say: func(format string, args ...any) { r.Said = append(r.Said, fmt.Sprintf(format, args...)) },
	})
	if err != nil {
		panic(err)
	}
	r.Over, r.Deadline = clock.System().Now(), clock.Instant(h.until.Load())
	r.Code, r.Exited, r.Left = outcome.Status.Code, outcome.Exited, outcome.Left
	if outcome.Cause != nil {
		r.Cause = outcome.Cause.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		panic(err)
	}
	return 0
}

// process is a supervisor at work.
type process struct {
	*exec.Cmd
	line *proctest.Line
	in   interface{ Write([]byte) (int, error) }
	out  *json.Decoder
}

func start(t *testing.T, s spec, actor proctest.Actor) *process {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(os.Args[0]), line: proctest.NewLine(t)}
	p.Env = slices.Concat(os.Environ(), actor.Env(p.line), []string{specVariable + "=" + string(text)})
	p.Stderr = os.Stderr
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, json.NewDecoder(out)
	watchdog := time.AfterFunc(proctest.Patience, func() { _ = p.Process.Kill() })
	t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGCONT)
		_, _ = fmt.Fprintln(p.in, "lose") // if it still runs after a failure
		_ = p.Wait()
		watchdog.Stop()
	})
	return p
}

func (p *process) tell(t *testing.T, word string) {
	t.Helper()
	if _, err := fmt.Fprintln(p.in, word); err != nil {
		t.Fatal(err)
	}
}

func (p *process) report(t *testing.T) report {
	t.Helper()
	var r report
	if err := p.out.Decode(&r); err != nil {
		t.Fatalf("no report from the supervisor: %v", err)
	}
	if len(r.Said) > 0 {
		t.Logf("it said %q", r.Said)
	}
	if r.Left != "" {
		t.Errorf("left: %s", r.Left)
	}
	return r
}

// quiet never comes near its deadline.
var quiet = spec{Believe: time.Hour, TTL: time.Hour, Grace: time.Minute}

var (
	term = []syscall.Signal{syscall.SIGTERM}
	// stubborn ignores SIGTERM in a session of its own, and nobody knows its parent.
	stubborn = proctest.Actor{Session: true, Leave: true, Children: []proctest.Actor{{Session: true, Ignore: term}}}
)

func TestPassesTheExitCode(t *testing.T) {
	r := start(t, quiet, proctest.Actor{Leave: true, Code: 42}).report(t)
	if !r.Exited || r.Code != 42 || r.Cause != "" {
		t.Errorf("report %+v, want code 42", r)
	}
}

func TestForwardsSignals(t *testing.T) {
	t.Parallel()
	all := []syscall.Signal{
		syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
	}
	p := start(t, quiet, proctest.Actor{Name: "command", Catch: all, EndOn: []syscall.Signal{syscall.SIGTERM}, Code: 3})
	p.line.Expect(t, "ready")
	for _, sig := range append(all[1:], syscall.SIGTERM) {
		if err := p.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		p.line.Expect(t, "command "+sig.String())
	}
	if r := p.report(t); r.Code != 3 || r.Cause != "" {
		t.Errorf("report %+v, want code 3", r)
	}
}

// S7: first SIGTERM, then SIGKILL for the whole tree, and all is over before the deadline. The processes have three seconds
// to start; the reserve is 250 ms.
func TestNothingLivesBeyondTheDeadline(t *testing.T) {
	t.Parallel()
	s := spec{Believe: 6 * time.Second, TTL: 10 * time.Second, Grace: 3 * time.Second}
	p := start(t, s, proctest.Actor{Name: "command", Catch: term, Children: []proctest.Actor{stubborn}})
	p.line.Expect(t, "ready")
	p.line.Expect(t, "command terminated")
	ended := p.line.Ended(t)
	r := p.report(t)
	if r.Cause != supervisor.ErrDeadline.Error() || !r.Exited || r.Code != 128+int(syscall.SIGKILL) {
		t.Errorf("report %+v, want a command killed for its deadline", r)
	}
	if !r.Over.Before(r.Deadline) || !ended.Before(r.Deadline) {
		t.Errorf("processes lived until %v, Run until %v after the deadline", ended.Sub(r.Deadline), r.Over.Sub(r.Deadline))
	}
}

func TestACommandThatEndsOnSIGTERMIsNotKilled(t *testing.T) {
	t.Parallel()
	s := spec{Believe: 7 * time.Second, TTL: 10 * time.Second, Grace: 4 * time.Second}
	p := start(t, s, proctest.Actor{Name: "command", EndOn: term, Code: 9})
	p.line.Expect(t, "ready")
	p.line.Expect(t, "command terminated")
	if r := p.report(t); r.Cause != supervisor.ErrDeadline.Error() || r.Code != 9 || !r.Over.Before(r.Deadline) {
		t.Errorf("report %+v, want code 9 for the deadline", r)
	}
}

func TestALostLeaseKillsAtOnce(t *testing.T) {
	p := start(t, quiet, proctest.Actor{Name: "command", Ignore: term, Children: []proctest.Actor{stubborn}})
	p.line.Expect(t, "ready")
	p.tell(t, "lose")
	p.line.Ended(t)
	if r := p.report(t); r.Cause != "taken away" || r.Code != 128+int(syscall.SIGKILL) {
		t.Errorf("report %+v, want a command killed for a lost lease", r)
	}
}

// Renewals keep the command alive; nobody needs to tell the supervisor of them.
func TestRenewalsMoveTheDeadline(t *testing.T) {
	t.Parallel()
	s := spec{Believe: 4 * time.Second, TTL: 10 * time.Second, Grace: time.Second}
	p := start(t, s, proctest.Actor{Name: "command", EndOn: []syscall.Signal{syscall.SIGUSR1}, Code: 5})
	p.line.Expect(t, "ready")
	first := clock.System().Now().Add(s.Believe)
	ticker := time.NewTicker(s.Believe / 8)
	defer ticker.Stop()
	for clock.System().Now().Before(first) {
		<-ticker.C
		p.tell(t, "renew")
	}
	if err := p.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	p.line.Expect(t, "command user defined signal 1")
	if r := p.report(t); r.Code != 5 || r.Cause != "" {
		t.Errorf("report %+v, want code 5", r)
	}
}

// What the command leaves behind is ended before Run returns, without blame on the command.
func TestWhatIsLeftBehindIsEnded(t *testing.T) {
	t.Parallel()
	s := spec{Believe: time.Hour, TTL: time.Hour, Grace: 200 * time.Millisecond}
	p := start(t, s, proctest.Actor{Leave: true, Code: 4, Children: []proctest.Actor{stubborn}})
	p.line.Expect(t, "ready")
	p.line.Ended(t)
	if r := p.report(t); !r.Exited || r.Code != 4 || r.Cause != "" || len(r.Said) != 2 {
		t.Errorf("report %+v, want code 4 and two remarks", r)
	}
}

// A supervisor that was stopped beyond the deadline kills the command when it is continued, without SIGTERM.
func TestAStoppedSupervisorKillsWhenItWakes(t *testing.T) {
	t.Parallel()
	s := spec{Believe: 4 * time.Second, TTL: 10 * time.Second, Grace: 500 * time.Millisecond}
	p := start(t, s, proctest.Actor{Name: "command", Catch: term})
	p.line.Expect(t, "ready")
	if err := p.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	beyond := clock.System().NewTimer(clock.System().Now().Add(s.Believe))
	defer beyond.Stop()
	<-beyond.C()
	if err := p.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.line.Ended(t)
	r := p.report(t)
	if r.Cause != supervisor.ErrDeadline.Error() || r.Code != 128+int(syscall.SIGKILL) || !r.Deadline.Before(r.Over) || len(r.Said) != 1 {
		t.Errorf("report %+v, want a command killed after its deadline", r)
	}
}
