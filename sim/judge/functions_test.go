package judge_test

import (
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/judge"
)

// S7: functions end in time, by themselves or with their process, and a lease is not released before.
func TestFunctions(t *testing.T) {
	f := judge.Function{Who: "s1", Resource: jobs, Token: token(1)}
	next := judge.Function{Who: "s1", Resource: jobs, Token: token(2)}
	other := judge.Function{Who: "s2", Resource: jobs, Token: token(2)}
	begun := func(c *court) {
		c.hold(token(1), "s1/a")
		c.write()
		c.Begins(f)
	}
	released := func(c *court) {
		c.Asked(lease.Release{Caller: lease.Caller{Principal: "s1"}, Ref: c.ref()})
		c.let(lease.EndReleased)
		c.write()
	}
	beat := func(b judge.Beat) func(*court) { return func(c *court) { begun(c); b.Function = f; c.Beats(b) } }
	try(t, []twin{
		{"released while it runs", "S7",
			func(c *court) { begun(c); released(c) },
			func(c *court) { begun(c); c.Returns(f); released(c) }},
		{"released by a process that is gone", "S7",
			func(c *court) { begun(c); c.Gone("s2"); released(c) },
			func(c *court) { begun(c); c.Gone("s1"); released(c) }},
		{"the lease of one that does not return runs out", "S7",
			func(c *court) { begun(c); released(c) },
			func(c *court) { begun(c); c.let(lease.EndExpired); c.write() }},
		{"two terms in one process", "S7",
			func(c *court) { c.Begins(f); c.Begins(next) },
			func(c *court) { c.Begins(f); c.Begins(other); c.Returns(f); c.Begins(next) }},
		{"its context lasts", "S7", beat(judge.Beat{Late: 1}), beat(judge.Beat{Late: 1, Over: 1, Stopped: true})},
		{"strict", "S7", beat(judge.Beat{Over: 1, Stopped: true, Strict: true}), beat(judge.Beat{Stopped: true, Strict: true})},
		{"it lingers", "S7", beat(judge.Beat{Stopped: true, Lingers: 1}), beat(judge.Beat{Stopped: true, Lingers: -time.Second})},
	})
	c := newCourt(t)
	if c.Begins(f); !c.Runs(f) || c.Runs(next) {
		t.Error("what runs is not known")
	}
}
