package sim_test

import (
	"testing"
	"time"

	"github.com/writ-io/writ/sim"
	"github.com/writ-io/writ/sim/plan"
)

// busy makes about 50 client operations per simulated second: four holders that store a checkpoint every 90 ms, and one who
// waits for each of them.
const busy = `writ-sim 1
seed 1
duration 10m
election 1s
heartbeat 100ms
link za zb rtt 1.5ms jitter 100us
link za zd rtt 1.5ms jitter 100us
link zb zd rtt 1.5ms jitter 100us
node n1 region za ppm 100
node n2 region zb ppm -100
node n3 region zd
client c1 region za resources r1 ttl 10s hold 4s think 500ms checkpoint 90ms write 200ms
client c2 region zb resources r2 ttl 10s hold 4s think 500ms checkpoint 90ms write 200ms
client c3 region zd resources r3 ttl 10s hold 4s think 500ms checkpoint 90ms write 200ms
client c4 region za resources r4 ttl 10s hold 4s think 500ms checkpoint 90ms write 200ms
client c5 region zb resources r1,r2,r3,r4 all ttl 10s hold 1s think 1s checkpoint 90ms
at 1m for 10s cut n1
at 2m for 5s crash @leader
at 3m for 20s pause @holder
at 5m for 1s pause @leader
at 6m for 30s lossy n1 n2 n3 amount 50
at 8m for 10s crash c1
`

func benchmarkSweep(b *testing.B, s sim.Sweep) {
	s.From, s.Seeds = 1, uint64(b.N)
	b.ReportAllocs()
	sum := s.Run(b.Context())
	for _, r := range sum.Failed {
		b.Errorf("seed %d: %v", r.Seed, r.Violations[0])
	}
	b.ReportMetric(sum.Simulated.Seconds()/sum.Wall.Seconds(), "sim-s/s")
	b.ReportMetric(float64(sum.Operations)/sum.Simulated.Seconds(), "ops/sim-s")
	b.ReportMetric(float64(sum.Events)/sum.Simulated.Seconds(), "events/sim-s")
	b.ReportMetric(float64(sum.Seeds)/sum.Wall.Minutes(), "seeds/min")
}

// benchmarkBusy measures runs of the same plan, which differ in what is left to chance.
func benchmarkBusy(b *testing.B, store plan.Store) {
	p, err := plan.Parse("busy", []byte(busy))
	if err != nil {
		b.Fatal(err)
	}
	benchmarkSweep(b, sim.Sweep{Plan: func(seed uint64) plan.Plan {
		p := p
		p.Seed, p.Store = seed, store
		return p
	}})
}

func BenchmarkRaft(b *testing.B) { benchmarkBusy(b, plan.Raft) }

func BenchmarkFast(b *testing.B) { benchmarkBusy(b, plan.Fast) }

// BenchmarkSeeds measures runs of drawn plans.
func BenchmarkSeeds(b *testing.B) {
	for _, store := range []plan.Store{plan.Raft, plan.Fast} {
		b.Run(string(store), func(b *testing.B) {
			benchmarkSweep(b, sim.Sweep{Draw: plan.DrawOptions{Duration: 10 * time.Minute, Store: store}})
		})
	}
}
