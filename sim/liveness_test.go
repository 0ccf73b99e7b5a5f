package sim_test

import (
	"strings"
	"testing"

	"github.com/writ-io/writ/sim"
)

// L1: no livelock under a permanent one-way cut. That everything is healed in the end proves nothing here, so the grants are
// counted that were made before.
func TestOneWayCutIsNoLivelock(t *testing.T) {
	for _, side := range [][2]string{{"n1", "n2 n3"}, {"n2 n3", "n1"}, {"n1", "n2"}} {
		p, ok := sim.Scenario("one-way-cut")
		if !ok {
			t.Fatal("the scenario is gone")
		}
		p.Faults[0].A, p.Faults[0].B = strings.Fields(side[0]), strings.Fields(side[1])
		for seed := range uint64(5) {
			p.Seed = seed
			r := sim.Run(p, sim.Options{})
			if len(r.Violations) > 0 {
				t.Errorf("from %s to %s, seed %d: %+v", side[0], side[1], seed, r.Violations)
			}
			// Two clients that take turns of about a second and a half: some eighty grants in two minutes.
			if r.Latency.Count < 40 {
				t.Errorf("from %s to %s, seed %d: %d grants in %v", side[0], side[1], seed, r.Latency.Count, p.Duration)
			}
		}
	}
}
