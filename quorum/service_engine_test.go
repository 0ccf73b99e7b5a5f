package quorum

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// stoppedClock always shows the same time.
type stoppedClock struct {
	clock.Clock
	now clock.Instant
}

func (c stoppedClock) Now() clock.Instant { return c.now }

// What arrives while somebody has the engine, for whatever reason, is decided as soon as that is over.
func TestWhatArrivesMeanwhileIsNotForgotten(t *testing.T) {
	d := serving(t, EngineConfig{})
	s := &Service{
		clock: stoppedClock{clock.Monotonic(), d.now}, engine: d.engine, role: Serving, armed: clock.Never,
		rearm: make(chan struct{}, 1), rounds: make(chan roundWork, 1), open: make(map[lease.CallID]*submission),
	}
	s.withEngine(func() {
		if _, err := s.Submit([]any{acquireOf("app", "a", "r")}, func([]lease.Reply) {}); err != nil {
			t.Fatal(err)
		}
		if len(s.rounds) != 0 {
			t.Error("two have the engine at the same time")
		}
	})
	if len(s.rounds) != 1 {
		t.Error("the command was not decided")
	}
}

// A panic of the engine ends the process, though whoever called recovers it as servers do: a node that kept a broken engine would
// lead on and answer nothing. Each case runs in a process of its own, which is to die.
func TestAPanicOfTheEngineEndsTheProcess(t *testing.T) {
	const env = "WRIT_TEST_PANIC"
	calls := map[string]func(*Service){
		"withEngine": func(s *Service) { s.withEngine(func() { panic("of a core") }) },
		"turn": func(s *Service) {
			s.engine = nil // so that a step of it panics
			s.Abandon(1)
		},
	}
	if call := calls[os.Getenv(env)]; call != nil {
		defer func() { _ = recover() }()
		call(&Service{logger: hclog.Default(), clock: clock.Monotonic(), engine: NewEngine(EngineConfig{}), open: make(map[lease.CallID]*submission)})
		return
	}
	for name := range calls {
		t.Run(name, func(t *testing.T) {
			child := exec.Command(os.Args[0], "-test.run=^TestAPanicOfTheEngineEndsTheProcess$")
			child.Env = append(os.Environ(), env+"="+name)
			out, err := child.CombinedOutput()
			if err == nil {
				t.Fatalf("the process went on:\n%s", out)
			}
			for _, says := range []string{"the engine has panicked", "stack=", "service_engine_test.go", "panic: "} {
				if !strings.Contains(string(out), says) {
					t.Errorf("it does not say %q:\n%s", says, out)
				}
			}
		})
	}
}
