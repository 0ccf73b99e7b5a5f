package sim_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/sim"
	"github.com/writ-io/writ/sim/plan"
)

// choices draws a plan from rapid, which looks for the smallest numbers that still fail: for the simplest plan.
type choices struct{ t *rapid.T }

func (c choices) Int(label string, low, high int) int {
	return rapid.IntRange(low, high).Draw(c.t, label)
}

// Short plans of every kind break no invariant. One that does is shrunk before it is shown: writ sim replay takes its text.
func TestPlans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := plan.DrawOptions{Duration: time.Duration(rapid.IntRange(5, 60).Draw(t, "seconds")) * time.Second, Store: plan.Fast}
		p := plan.Draw(rapid.Uint64Range(0, 1<<32).Draw(t, "seed"), choices{t}, o)
		if r := sim.Run(p, sim.Options{}); len(r.Violations) > 0 {
			t.Fatalf("%s\n%v", violations(r), p)
		}
	})
}
