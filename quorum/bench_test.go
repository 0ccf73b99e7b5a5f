package quorum_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum/etcd"
	"github.com/writ-io/writ/quorum/quorumtest"

	"github.com/writ-io/writ/quorum"
)

// BenchmarkAcquireRelease is one cycle in process, on three members: what the API adds comes on top.
func BenchmarkAcquireRelease(b *testing.B) {
	for _, clients := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			c := quorumtest.New(b, 3)
			c.Configure = func(e *etcd.Config, q *quorum.Config) {
				e.Heartbeat, e.Election, q.Election = 100*time.Millisecond, time.Second, time.Second
			}
			c.StartAll()
			s := c.Coordinator().Service
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for i := range clients {
				wg.Add(1)
				go func() {
					defer wg.Done()
					caller := lease.Caller{Principal: "bench", Instance: fmt.Sprint(i)}
					name := lease.Resource(fmt.Sprintf("bench/%d", i))
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						out, err := s.Acquire(b.Context(), lease.Acquire{Caller: caller, Resource: name, RequestID: fmt.Sprint(n), TTL: 10 * time.Second})
						if err == nil {
							err = s.Release(b.Context(), lease.Release{Caller: caller, Ref: lease.Ref{Resource: name, Token: out.Grant.Token}})
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "cycles/s")
		})
	}
}
