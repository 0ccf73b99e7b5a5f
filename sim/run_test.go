package sim_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/writ-io/writ/sim"
	"github.com/writ-io/writ/sim/plan"
)

func TestSmoke(t *testing.T) {
	from, n := uint64(0), uint64(20)
	if s := os.Getenv("FROM"); s != "" {
		from, _ = strconv.ParseUint(s, 10, 64)
		n = 1
	}
	if s := os.Getenv("N"); s != "" {
		n, _ = strconv.ParseUint(s, 10, 64)
	}
	var simulated, wall time.Duration
	marks := map[string]uint64{}
	for seed := from; seed < from+n; seed++ {
		p := plan.Draw(seed, plan.Seeded(seed), plan.DrawOptions{Duration: 2 * time.Minute, Store: plan.Raft})
		began := time.Now()
		r := sim.Run(p, sim.Options{})
		took := time.Since(began)
		simulated += r.Simulated
		wall += took
		t.Logf("seed %d: %s, %d events, %d ops, %v in %v (%.0f), recovery %v, %+v", seed, r.Hash, r.Events, r.Operations, r.Simulated.Round(time.Millisecond), took.Round(time.Millisecond), float64(r.Simulated)/float64(took), r.Recovery, r.Latency)
		for m, n := range r.Marks {
			marks[m] += n
		}
		for i, v := range r.Violations {
			if i < 3 {
				t.Errorf("seed %d %v %s: %.1500s", seed, v.At, v.Invariant, v.Text)
			}
		}
	}
	t.Log(marks)
	t.Logf("%.0f times real time", float64(simulated)/float64(wall))
}
