package singleton_test

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/lease/clock/bubble"
	"github.com/writ-io/writ/lease/leasetest"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/cron"
)

// wireCount counts what a client sends: calls of its own by method, and messages over the pipeline.
type wireCount struct {
	mu       sync.Mutex
	calls    map[string]int // guarded by mu
	messages int            // guarded by mu
}

func (c *wireCount) take() (calls map[string]int, messages int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls, messages = c.calls, c.messages
	c.calls, c.messages = make(map[string]int), 0
	return calls, messages
}

func (c *wireCount) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
			invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
		) error {
			c.mu.Lock()
			c.calls[path.Base(method)]++
			c.mu.Unlock()
			return invoker(ctx, method, req, reply, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
			streamer grpc.Streamer, opts ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			stream, err := streamer(ctx, desc, cc, method, opts...)
			if method == writv1.LeaseService_Pipeline_FullMethodName {
				return countedMessages{stream, c}, err
			}
			return stream, err
		}),
	}
}

type countedMessages struct {
	grpc.ClientStream
	count *wireCount
}

func (s countedMessages) SendMsg(m any) error {
	s.count.mu.Lock()
	s.count.messages++
	s.count.mu.Unlock()
	return s.ClientStream.SendMsg(m)
}

// onOneNode is a process with a quorum of one node, which can be told how to answer.
func onOneNode(t *testing.T, clk clock.Clock, ttl time.Duration, options ...grpc.DialOption) (*singleton.Singleton, *leasetest.Node) {
	t.Helper()
	network := leasetest.NewNetwork()
	node := leasetest.NewNode(leasetest.NewQuorum(clk), "node-1:7411", "eu")
	network.Start(node)
	t.Cleanup(node.Stop)
	client, err := lease.Dial(t.Context(), lease.Config{
		Endpoints: []string{"node-1:7411"}, Insecure: true, Clock: clk, DialOptions: append(options, network.Option()),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	single, err := singleton.New(client, singleton.Config{TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return single, node
}

// A quorum that is asked too much says when to come back, which is no reason to give a job up.
func TestCronWaitsOutARateLimit(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		clk := clock.Monotonic()
		single, node := onOneNode(t, clk, 10*time.Second)
		var refused atomic.Int32
		var first atomic.Int64
		node.Script("Acquire", func(_ context.Context, _ any, next func() (any, error)) (any, error) {
			if n := refused.Add(1); n > 3 {
				return next()
			} else if n == 1 {
				first.Store(int64(clk.Now()))
			}
			return nil, &lease.Error{Reason: lease.ReasonLimit, Message: "too many calls", RetryAfter: 2 * time.Second}
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var began atomic.Int64
		ended := make(chan error, 1)
		go func() {
			ended <- single.Cron(ctx, "jobs/a", "* * * * *", func(context.Context, singleton.Tick) error {
				began.CompareAndSwap(0, int64(clk.Now()))
				return nil
			})
		}()
		timer := clk.NewTimer(clk.Now().Add(2 * time.Minute))
		defer timer.Stop()
		select {
		case err := <-ended:
			t.Fatalf("given up: %v", err)
		case <-timer.C():
		}
		if began.Load() == 0 || refused.Load() != 4 {
			t.Errorf("%d attempts; the job ran: %v", refused.Load(), began.Load() != 0)
		}
		if waited := time.Duration(began.Load() - first.Load()); waited < 6*time.Second {
			t.Errorf("it came back within %v, and was told to wait for 6 s", waited)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// The jobs of a process are renewed in one call per third of the TTL, and what they store travels together: nothing
// of what a process sends grows with the number of its jobs.
func TestManyJobsShareCalls(t *testing.T) {
	const (
		jobs, ttl = 2000, 10 * time.Second
		// They are spread as 10,000 would be over half a minute.
		jitter, minutes = 6 * time.Second, 2
	)
	bubble.Test(t, func(t *testing.T) {
		count, clk := &wireCount{calls: make(map[string]int)}, clock.Monotonic()
		single, _ := onOneNode(t, clk, ttl, count.options()...)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var ticks atomic.Int32
		var running sync.WaitGroup
		for i := range jobs {
			running.Go(func() {
				_ = single.Cron(ctx, fmt.Sprintf("jobs/%d", i), "* * * * *", func(context.Context, singleton.Tick) error {
					ticks.Add(1)
					return nil
				}, singleton.WithPolicy(cron.Policy{Jitter: jitter}))
			})
		}
		pass := func(d time.Duration) {
			timer := clk.NewTimer(clk.Now().Add(d))
			defer timer.Stop()
			<-timer.C()
			synctest.Wait()
		}
		pass(30 * time.Second)
		ticks.Store(0)
		count.take()
		const span = minutes * time.Minute
		pass(span)
		calls, messages := count.take()
		if n := int(ticks.Load()); n != minutes*jobs {
			t.Errorf("%d ticks in %v, want %d", n, span, minutes*jobs)
		}
		// One message may be due a little before a third of the TTL has passed.
		if n, most := calls["Renew"], int(span/(ttl/4)); n == 0 || n > most {
			t.Errorf("%d renewals in %v, want at most %d", n, span, most)
		}
		// One with the claims and one with the outcomes of all jobs of a tenth of a second, and now and then another one.
		if most := 3 * minutes * int(jitter/(100*time.Millisecond)); messages > most {
			t.Errorf("%d messages over the pipeline in %v for %d ticks, want at most %d", messages, span, ticks.Load(), most)
		}
		delete(calls, "Renew")
		if len(calls) > 0 {
			t.Errorf("and calls of their own: %v", calls)
		}
		t.Logf("%d ticks: %d messages over the pipeline", ticks.Load(), messages)
		cancel()
		running.Wait()
	})
}

// A program that may read the control documents of its own jobs alone, and so not watch all of them, hears of a pause.
func TestCronHearsOfAPauseWithoutAWatch(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		clk := clock.Monotonic()
		single, node := onOneNode(t, clk, 10*time.Second)
		node.Script("Watch", func(context.Context, any, func() (any, error)) (any, error) {
			return nil, &lease.Error{Reason: lease.ReasonDenied, Message: "read of writ.jobs/ is not allowed"}
		})
		ctx, cancel := context.WithCancel(t.Context())
		var runs atomic.Int32
		ended := make(chan error, 1)
		go func() {
			ended <- single.Cron(ctx, "jobs/a", "* * * * *", func(context.Context, singleton.Tick) error {
				runs.Add(1)
				return nil
			})
		}()
		pass := func(d time.Duration) {
			timer := clk.NewTimer(clk.Now().Add(d))
			defer timer.Stop()
			<-timer.C()
		}
		pass(90 * time.Second)
		if runs.Load() != 1 {
			t.Errorf("ran %d times", runs.Load())
		}
		if err := single.PauseJob(ctx, "jobs/a", "the database moves"); err != nil {
			t.Error(err)
		}
		pass(5 * time.Minute)
		if runs.Load() != 1 {
			t.Errorf("ran %d times though it is paused", runs.Load())
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
