package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/world"
)

// benchmarkCluster measures simulated seconds, at 50 commits each, with three members.
func benchmarkCluster(b *testing.B, make maker) {
	w := world.New(1)
	net := w.NewNetwork(func(_, _ *world.Process) world.Quality {
		return world.Quality{Delay: 500 * time.Microsecond, Jitter: 100 * time.Microsecond}
	})
	world.Seeded(w.Dice("entropy"), func() {
		processes := testProcesses(w, 3)
		cluster := make(w, net, processes)
		var members []Member
		for _, p := range processes {
			p.Start()
			m, err := cluster.Open(p)
			if err != nil {
				b.Fatal(err)
			}
			m.Watch(1, func(quorum.Change) {}, func(error) {})
			members = append(members, m)
		}
		w.Run(5 * time.Second)
		var term quorum.Term
		leader := members[0]
		for _, m := range members {
			if m.Leads() {
				leader = m
			}
		}
		leader.Claim([]byte("x"), func(t quorum.Term, _ error) { term = t })
		w.Run(w.Now() + time.Second)
		values := [][]byte{[]byte("a value of about the size that a lease has"), []byte("another")}
		keys := [64]string{}
		for i := range keys {
			keys[i] = fmt.Sprintf("%slease/resource-%d", quorum.Prefix, i)
		}
		n, acked := 0, 0
		events := w.Events()
		b.ReportAllocs()
		for b.Loop() {
			for range 50 {
				n++
				leader.Commit(term, []quorum.Write{
					{Key: keys[n%64], Value: values[n%2]}, {Key: keys[n*7%64], Value: values[n%2]},
				}, func(_ int64, err error) {
					if err == nil {
						acked++
					}
				})
				w.Run(w.Now() + 20*time.Millisecond)
			}
			if n%5000 == 0 {
				leader.Compact(leader.Progress().Revision - 1000)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sim-s/s")
		b.ReportMetric(float64(w.Events()-events)/float64(b.N), "events/op")
		if acked < n*9/10 {
			b.Errorf("%d of %d commits acknowledged", acked, n)
		}
	})
}

func BenchmarkRaft(b *testing.B) { benchmarkCluster(b, makeRaft) }

func BenchmarkFast(b *testing.B) { benchmarkCluster(b, makeFast) }
