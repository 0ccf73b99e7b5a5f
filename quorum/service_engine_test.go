package quorum

import (
	"testing"

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
