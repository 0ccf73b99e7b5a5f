package lease_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// streamCount counts the pipelines of a client and the messages that it sends over them.
type streamCount struct{ streams, messages, calls atomic.Int32 }

func (c *streamCount) option() grpc.DialOption {
	return grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
		streamer grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		stream, err := streamer(ctx, desc, cc, method, opts...)
		if method == writv1.LeaseService_Pipeline_FullMethodName {
			c.streams.Add(1)
			return countedStream{stream, c}, err
		}
		return stream, err
	})
}

type countedStream struct {
	grpc.ClientStream
	count *streamCount
}

func (s countedStream) SendMsg(m any) error {
	s.count.messages.Add(1)
	s.count.calls.Add(int32(len(m.(*writv1.PipelineRequest).GetCalls())))
	return s.ClientStream.SendMsg(m)
}

func TestCallsShareMessages(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		var count streamCount
		cfg := w.config()
		cfg.DialOptions = append(cfg.DialOptions, count.option())
		c := w.dialWith(cfg)
		var wg sync.WaitGroup
		const workers, rounds = 500, 4
		for i := range workers {
			wg.Go(func() {
				for range rounds {
					h, err := c.Acquire(w.Context(), fmt.Sprintf("r/%d", i), lease.AcquireOptions{TTL: 10 * time.Second})
					if err != nil {
						w.Error(err)
						return
					}
					if err := h.Release(w.Context()); err != nil {
						w.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if n := count.streams.Load(); n != 1 {
			w.Errorf("%d streams, want 1", n)
		}
		if n := count.calls.Load(); n != 2*workers*rounds {
			w.Errorf("%d calls, want %d", n, 2*workers*rounds)
		}
		if n := count.messages.Load(); n > workers {
			w.Errorf("%d messages for %d calls", n, 2*workers*rounds)
		}
	})
}

// More calls than a stream may have open wait for their turn, and those that are given up make room.
func TestFullPipelineWaits(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		holder := w.dial()
		held := w.acquire(holder, "held", time.Minute)
		ctx, cancel := context.WithCancel(w.Context())
		var waiters sync.WaitGroup
		for range 4096 {
			waiters.Go(func() {
				if _, err := c.Acquire(ctx, "held", lease.AcquireOptions{TTL: time.Minute}); !errors.Is(err, context.Canceled) {
					w.Errorf("got %v", err)
				}
			})
		}
		w.pass(time.Second)
		got := make(chan error, 1)
		go func() {
			_, err := c.Acquire(w.Context(), "free", lease.AcquireOptions{TTL: time.Minute})
			got <- err
		}()
		w.pass(time.Second)
		select {
		case err := <-got:
			w.Errorf("got %v over a full pipeline", err)
		default:
		}
		cancel()
		waiters.Wait()
		if err := <-got; err != nil {
			w.Error(err)
		}
		w.wantHeld(held)
	})
}

// The first call after another node has begun to decide pays for the way over the old one, and no other does.
func TestCallsGoWhereTheyAreDecided(t *testing.T) {
	inBubble(t, 3, func(w *world) {
		for _, n := range w.nodes {
			n.SetDelay(5 * time.Millisecond)
		}
		cfg := w.config()
		cfg.Region = ""
		c := w.dialWith(cfg) // before anybody decides
		for round, decides := range []int{1, 2, 0} {
			for _, n := range w.nodes {
				n.SetCoordinator(fmt.Sprintf("node-%d:7411", decides+1))
			}
			before, all := w.nodes[decides].Calls("Acquire"), w.calls("Acquire")
			for i := range 5 {
				w.acquire(c, fmt.Sprintf("r/%d/%d", round, i), time.Minute)
			}
			direct, sum := w.nodes[decides].Calls("Acquire")-before, w.calls("Acquire")-all
			if sum != 5 || direct < 4 {
				w.Errorf("round %d: %d of %d calls went to the node that decides", round, direct, sum)
			}
		}
	})
}

// A stream is replaced before a node would end it, and what is open on the old one is answered there.
func TestPipelineIsReplaced(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		var count streamCount
		cfg := w.config()
		cfg.DialOptions = append(cfg.DialOptions, count.option())
		c := w.dialWith(cfg)
		hold := w.acquire(w.dial(), "held", time.Hour)
		w.pass(4*time.Minute + 59*time.Second)
		waiting := make(chan error, 1)
		w.acquire(c, "first", time.Hour)
		w.pass(4*time.Minute + 59*time.Second)
		go func() {
			_, err := c.Acquire(w.Context(), "held", lease.AcquireOptions{TTL: time.Hour})
			waiting <- err
		}()
		w.pass(2 * time.Second)
		w.acquire(c, "second", time.Hour)
		if n := count.streams.Load(); n != 2 {
			w.Errorf("%d streams, want 2", n)
		}
		if err := hold.Release(w.Context()); err != nil {
			w.Error(err)
		}
		if err := <-waiting; err != nil {
			w.Error(err)
		}
		synctest.Wait()
		if n := w.calls("Acquire"); n != 4 {
			w.Errorf("%d acquires, want 4: none may be asked twice", n)
		}
	})
}

// A node that knows no pipelines is asked call by call.
func TestNodeWithoutPipelines(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		cfg := w.config()
		var refused atomic.Int32
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainStreamInterceptor(func(context.Context, *grpc.StreamDesc,
			*grpc.ClientConn, string, grpc.Streamer, ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			refused.Add(1)
			return nil, status.Error(codes.Unimplemented, "unknown method Pipeline")
		}))
		c := w.dialWith(cfg)
		for range 3 {
			if err := w.acquire(c, "r", time.Minute).Release(w.Context()); err != nil {
				w.Error(err)
			}
		}
		if n := refused.Load(); n != 1 {
			w.Errorf("tried %d times, want once", n)
		}
		if n := w.calls("Acquire"); n != 3 {
			w.Errorf("%d acquires, want 3", n)
		}
	})
}
