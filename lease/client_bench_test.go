package lease_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/leasetest"
)

// 256 workers acquire and release over TCP; the server's work in the same process is included.
func BenchmarkAcquireRelease(b *testing.B) {
	node := leasetest.NewNode(leasetest.NewQuorum(nil), "node-1", "eu")
	client, err := lease.Dial(b.Context(), lease.Config{Endpoints: []string{startTCP(b, node)}, Insecure: true})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	const workers = 256
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for w := range workers {
		wg.Go(func() {
			name := fmt.Sprint("bench/", w)
			for next.Add(1) <= int64(b.N) {
				h, err := client.Acquire(b.Context(), name, lease.AcquireOptions{})
				if err == nil {
					err = h.Release(b.Context())
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
}

func BenchmarkHoldValid(b *testing.B) {
	node := leasetest.NewNode(leasetest.NewQuorum(nil), "node-1", "eu")
	client, err := lease.Dial(b.Context(), lease.Config{Endpoints: []string{startTCP(b, node)}, Insecure: true})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	h, err := client.Acquire(b.Context(), "r", lease.AcquireOptions{TTL: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if !h.Valid() {
				b.Error("not valid")
			}
		}
	})
}

// ours returns the stacks of goroutines that run code of this package or of gRPC, besides the caller's.
func ours() []string {
	buffer := make([]byte, 1<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]
	var stacks []string
	for i, stack := range strings.Split(string(buffer), "\n\n") {
		if i > 0 && (strings.Contains(stack, "writ/lease.") || strings.Contains(stack, "google.golang.org/grpc")) &&
			!strings.Contains(stack, "testing.(*T).Run(") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// Over real connections, nothing runs any more when Close has returned. (Inside a bubble every test checks that.)
func TestCloseLeavesNothingBehind(t *testing.T) {
	q := leasetest.NewQuorum(nil)
	near, far := leasetest.NewNode(q, "node-1", "eu"), leasetest.NewNode(q, "node-2", "us")
	cfg := lease.Config{Endpoints: []string{startTCP(t, near), startTCP(t, far)}, Insecure: true}
	for range 5 {
		client, err := lease.Dial(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for range client.Watch(t.Context(), lease.WatchOptions{}) {
			}
		})
		for i := range 20 {
			h, err := client.Acquire(t.Context(), fmt.Sprint("r", i), lease.AcquireOptions{TTL: 300 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { <-h.Done() })
		}
		near.Reset()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := client.Acquire(ctx, "r0", lease.AcquireOptions{}); err == nil {
			t.Error("acquired what is held")
		}
		cancel()
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	}
	near.Stop()
	far.Stop()
	deadline := time.Now().Add(10 * time.Second)
	for stacks := ours(); len(stacks) > 0; stacks = ours() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left:\n%s", len(stacks), strings.Join(stacks, "\n\n"))
		}
		runtime.Gosched()
	}
}
