package lease

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

// cpuTime returns what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// What it costs a client to keep n leases with a TTL of 10 s for one period, encoding included and the network and the
// server left out. The metric %core is for a process that does nothing else.
func BenchmarkRenewPeriod(b *testing.B) {
	for _, n := range []int{1_000, 50_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkRenewPeriod(b, n) })
	}
}

func benchmarkRenewPeriod(b *testing.B, n int) {
	manual := clock.NewManual(clock.Instant(time.Hour))
	var granted, renewed, messages atomic.Int64
	// In place of the network: grants everything, and encodes what it is sent.
	answer := func(_ context.Context, _ string, request, response any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
		switch r := request.(type) {
		case *writv1.AcquireRequest:
			response.(*writv1.AcquireResponse).Outcome = &writv1.AcquireResponse_Grant{Grant: &writv1.Grant{
				Resource: r.GetResource(), Token: uint64(fence.Token(1<<48 | granted.Add(1))), Ttl: r.GetTtl(),
			}}
		case *writv1.RenewRequest:
			if _, err := proto.Marshal(r); err != nil {
				return err
			}
			messages.Add(1)
			renewed.Add(int64(len(r.GetLeases())))
		}
		return nil
	}
	client, err := Dial(b.Context(), Config{
		Endpoints: []string{"nobody:1"}, Insecure: true, Clock: manual,
		DialOptions: []grpc.DialOption{grpc.WithUnaryInterceptor(answer)},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	for i := range n {
		if _, err = client.Acquire(b.Context(), fmt.Sprintf("bench/resource-%06d", i), AcquireOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	started, spent := manual.Now(), cpuTime(b)
	b.ReportAllocs()
	for b.Loop() {
		for target := renewed.Load() + int64(n); renewed.Load() < target; {
			at, _ := manual.NextTimer()
			manual.Advance(at.Sub(manual.Now()))
			for at := manual.Now(); at <= manual.Now(); at, _ = manual.NextTimer() {
				runtime.Gosched() // until the loop has taken the time in
			}
			client.shell.calls.Wait()
		}
	}
	spent = cpuTime(b) - spent
	if held := client.shell.keeper.Len(); held != n {
		b.Fatalf("%d leases are left of %d", held, n)
	}
	b.ReportMetric(float64(spent)/float64(manual.Now().Sub(started))*100, "%core")
	b.ReportMetric(float64(messages.Load())/float64(b.N), "messages/op")
}
