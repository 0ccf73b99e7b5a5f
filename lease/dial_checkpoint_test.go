package lease_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// plainCount counts calls that go alone.
type plainCount struct{ checkpoints atomic.Int32 }

func (c *plainCount) option() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
		invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		if method == writv1.LeaseService_Checkpoint_FullMethodName {
			c.checkpoints.Add(1)
		}
		return invoker(ctx, method, req, reply, cc, opts...)
	})
}

func (w *world) wantCheckpoint(resource string, want []byte) {
	w.Helper()
	info, err := w.dial().Get(w.Context(), resource, lease.GetOptions{WithCheckpoint: true})
	if err != nil || !bytes.Equal(info.Checkpoint, want) {
		w.Errorf("the checkpoint of %s is %d bytes long (%v), want %d", resource, len(info.Checkpoint), err, len(want))
	}
}

// Checkpoints that are stored at the same time share messages, and each is answered for itself.
func TestCheckpointsShareMessages(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		var count streamCount
		var plain plainCount
		cfg := w.config()
		cfg.DialOptions = append(cfg.DialOptions, count.option(), plain.option())
		c := w.dialWith(cfg)
		const jobs, lost = 200, 7
		var holds [jobs]*lease.Hold
		for i := range holds {
			holds[i] = w.acquire(c, fmt.Sprintf("r/%d", i), time.Minute)
		}
		w.quorum.End(fmt.Sprintf("r/%d", lost), lease.EndExpired)
		calls, messages := count.calls.Load(), count.messages.Load()
		var all sync.WaitGroup
		for i, h := range holds {
			all.Go(func() {
				err := h.Checkpoint(w.Context(), fmt.Append(nil, "slot of ", i))
				if i == lost {
					w.wantErr(err, lease.ErrLost)
				} else if err != nil {
					w.Error(err)
				}
			})
		}
		all.Wait()
		if n := count.calls.Load() - calls; n != jobs {
			w.Errorf("%d calls over the pipeline, want %d", n, jobs)
		}
		if n := count.messages.Load() - messages; n > jobs/10 {
			w.Errorf("%d messages for %d checkpoints", n, jobs)
		}
		if n := plain.checkpoints.Load(); n != 0 {
			w.Errorf("%d checkpoints went alone", n)
		}
		for _, i := range []int{0, jobs - 1} {
			w.wantCheckpoint(fmt.Sprintf("r/%d", i), fmt.Append(nil, "slot of ", i))
		}
		w.wantCheckpoint(fmt.Sprintf("r/%d", lost), nil)
	})
}

// What is long goes alone, so that what is short need not wait for it.
func TestLongCheckpointGoesAlone(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		var plain plainCount
		cfg := w.config()
		cfg.DialOptions = append(cfg.DialOptions, plain.option())
		c := w.dialWith(cfg)
		h := w.acquire(c, "r", time.Minute)
		for alone, size := range []int{16 << 10, 16<<10 + 1} {
			data := bytes.Repeat([]byte{1}, size)
			if err := h.Checkpoint(w.Context(), data); err != nil {
				w.Fatal(err)
			}
			if n := plain.checkpoints.Load(); int(n) != alone {
				w.Errorf("%d checkpoints went alone, want %d", n, alone)
			}
			w.wantCheckpoint("r", data)
		}
	})
}

// A call is given up in time, also when a frozen node takes nothing any more, and what the caller does with its buffer
// afterwards is not sent.
func TestCheckpointsToAFrozenNodeEndInTime(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		c := w.dial()
		h := w.acquire(c, "r", time.Hour)
		w.freezeAll()
		var all sync.WaitGroup
		for n := range 40 { // of which eight are what a stream takes without blocking
			all.Go(func() {
				ctx, cancel := context.WithTimeout(w.Context(), time.Second)
				defer cancel()
				data, began := bytes.Repeat([]byte("old!"), 4096), w.clock.Now()
				if n%9 == 8 {
					_, err := c.Acquire(ctx, "other", lease.AcquireOptions{TTL: time.Hour})
					w.wantErr(err, context.DeadlineExceeded)
				} else {
					w.wantErr(h.Checkpoint(ctx, data), context.DeadlineExceeded)
				}
				if late := w.clock.Now().Sub(began); late > 1100*time.Millisecond {
					w.Errorf("call %d was given up after %v", n, late)
				}
				copy(data, "new")
			})
			w.pass(5 * time.Millisecond) // so that callers would send by themselves
		}
		all.Wait()
		w.thawAll()
		w.pass(time.Second)
		if err := h.Checkpoint(w.Context(), []byte("last")); err != nil {
			w.Error(err)
		}
		w.pass(time.Second)
		w.wantCheckpoint("r", []byte("last"))
	})
}

// oldNode stands for a node that knows pipelines, and no checkpoints there.
type oldNode struct {
	grpc.ClientStream
	cancel context.CancelFunc
	broken atomic.Bool
}

func (s *oldNode) SendMsg(m any) error {
	for _, call := range m.(*writv1.PipelineRequest).GetCalls() {
		if call.GetCheckpoint() != nil {
			s.broken.Store(true)
			s.cancel()
			return io.EOF
		}
	}
	return s.ClientStream.SendMsg(m)
}

func (s *oldNode) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil && s.broken.Load() {
		return lease.ToStatus(lease.Invalid("calls.call", "is missing", "set acquire, release or abandon")).Err()
	}
	return err
}

// A node that ends the stream over a checkpoint gets them one by one; what else was open is asked again.
func TestNodeWithoutPipelinedCheckpoints(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		var plain plainCount
		var streams atomic.Int32
		cfg := w.config()
		cfg.DialOptions = append(cfg.DialOptions, plain.option(), grpc.WithChainStreamInterceptor(func(ctx context.Context,
			desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			if method != writv1.LeaseService_Pipeline_FullMethodName {
				return streamer(ctx, desc, cc, method, opts...)
			}
			streams.Add(1)
			ctx, cancel := context.WithCancel(ctx)
			stream, err := streamer(ctx, desc, cc, method, opts...)
			return &oldNode{ClientStream: stream, cancel: cancel}, err
		}))
		c := w.dialWith(cfg)
		other := w.acquire(w.dial(), "held", time.Minute)
		h := w.acquire(c, "r", time.Minute)
		waiting := make(chan error, 1)
		go func() {
			_, err := c.Acquire(w.Context(), "held", lease.AcquireOptions{TTL: time.Minute})
			waiting <- err
		}()
		w.pass(time.Second)
		for n := range int32(3) {
			if err := h.Checkpoint(w.Context(), []byte{byte(n)}); err != nil {
				w.Error(err)
			}
			if got := plain.checkpoints.Load(); got != n+1 {
				w.Errorf("%d checkpoints went alone, want %d", got, n+1)
			}
		}
		w.wantCheckpoint("r", []byte{2})
		if err := other.Release(w.Context()); err != nil {
			w.Error(err)
		}
		if err := <-waiting; err != nil {
			w.Errorf("what was open beside it: %v", err)
		}
		if n := streams.Load(); n != 2 {
			w.Errorf("%d streams, want 2: only one is lost", n)
		}
	})
}
