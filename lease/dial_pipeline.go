package lease

import (
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
)

// dialPipeline carries acquires and releases to one node over a stream, as many to a message as there are: what gRPC does
// for a call of its own costs both sides several times what deciding it does.
type dialPipeline struct {
	service writv1.LeaseServiceClient
	clock   clock.Clock
	ctx     context.Context
	cancel  context.CancelFunc
	streams sync.WaitGroup
	unary   atomic.Bool // the node does not know pipelines

	mu     sync.Mutex
	closed bool        // guarded by mu
	stream *dialStream // guarded by mu; the one that takes calls, nil for none
}

const (
	// pipelineOpen bounds the calls of a stream that are sent and not answered; more wait for their turn.
	pipelineOpen = 4096
	// Bounds of one message.
	pipelineCalls = 1024
	pipelineBytes = 256 << 10
	// pipelineAge is how long a stream takes calls. It is short against the time that a node gives to what runs on a
	// connection that it wants to see the end of.
	pipelineAge = 5 * time.Minute
)

func newDialPipeline(service writv1.LeaseServiceClient, clk clock.Clock) *dialPipeline {
	p := &dialPipeline{service: service, clock: clk}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// close ends the streams, with their calls.
func (p *dialPipeline) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.streams.Wait()
}

func (p *dialPipeline) acquire(ctx context.Context, request *writv1.AcquireRequest) (*writv1.AcquireResponse, error) {
	if !p.unary.Load() {
		answer, err := p.call(ctx, &writv1.PipelineCall{Call: &writv1.PipelineCall_Acquire{Acquire: request}})
		if status.Code(err) != codes.Unimplemented {
			return answer.GetAcquire(), err
		}
		p.unary.Store(true)
	}
	return p.service.Acquire(ctx, request)
}

func (p *dialPipeline) release(ctx context.Context, request *writv1.ReleaseRequest) error {
	if !p.unary.Load() {
		_, err := p.call(ctx, &writv1.PipelineCall{Call: &writv1.PipelineCall_Release{Release: request}})
		if status.Code(err) != codes.Unimplemented {
			return err
		}
		p.unary.Store(true)
	}
	_, err := p.service.Release(ctx, request)
	return err
}

// dialAnswer is how a call ended.
type dialAnswer struct {
	message *writv1.PipelineAnswer
	err     error
}

// call sends one call and waits for its answer. Its errors are those of a call of its own.
func (p *dialPipeline) call(ctx context.Context, call *writv1.PipelineCall) (*writv1.PipelineAnswer, error) {
	answered := make(chan dialAnswer, 1)
	s, err := p.submit(call, answered)
	if err != nil {
		return nil, err
	}
	select {
	case a := <-answered:
		if st := a.message.GetError(); st != nil {
			return nil, status.FromProto(st).Err()
		}
		return a.message, a.err
	case <-ctx.Done():
		s.abandon(call.GetId())
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// submit hands a call to the stream, which it opens if there is none or the old one is too old.
func (p *dialPipeline) submit(call *writv1.PipelineCall, answered chan dialAnswer) (*dialStream, error) {
	now := p.clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, status.Error(codes.Canceled, "the client is closed")
	}
	s := p.stream
	if s != nil && !now.Before(s.until) {
		s.closing = true
		s.nudge()
		s = nil
	}
	if s == nil {
		s = &dialStream{
			pipeline: p, until: now.Add(pipelineAge), open: make(map[uint64]chan dialAnswer), wake: make(chan struct{}, 1),
		}
		p.stream = s
		p.streams.Go(s.run)
	}
	s.last++
	call.Id = s.last
	s.open[call.Id] = answered
	s.pending = append(s.pending, call)
	s.nudge()
	return s, nil
}

// dialStream is one stream of a pipeline.
type dialStream struct {
	pipeline *dialPipeline
	until    clock.Instant // when it takes no further calls
	wake     chan struct{} // capacity 1: there is something to send

	// Guarded by the pipeline's mu.
	last    uint64 // id of the last call
	open    map[uint64]chan dialAnswer
	pending []*writv1.PipelineCall // not sent yet
	sent    int                    // how many of open are sent
	closing bool                   // no further calls come
	over    bool
}

func (s *dialStream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run carries the stream until it breaks, or until it is closing and every call has been answered.
func (s *dialStream) run() {
	ctx, cancel := context.WithCancel(s.pipeline.ctx)
	defer cancel()
	stream, err := s.pipeline.service.Pipeline(ctx)
	if err != nil {
		s.fail(err)
		return
	}
	var sending sync.WaitGroup
	sending.Go(func() { s.send(ctx, stream) })
	s.fail(s.receive(stream))
	cancel()
	sending.Wait()
}

func (s *dialStream) send(ctx context.Context, stream grpc.BidiStreamingClient[writv1.PipelineRequest, writv1.PipelineResponse]) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		// Callers that were answered by one message ask again at the same time: let all of them speak.
		runtime.Gosched()
		for {
			calls, last := s.take()
			if len(calls) > 0 && stream.Send(&writv1.PipelineRequest{Calls: calls}) != nil {
				return // the receiver learns why
			}
			if last {
				_ = stream.CloseSend() // never fails
				return
			}
			if len(calls) == 0 {
				break
			}
		}
	}
}

// take takes the next message's calls off the waiting ones. last says that none will follow.
func (s *dialStream) take() (calls []*writv1.PipelineCall, last bool) {
	s.pipeline.mu.Lock()
	defer s.pipeline.mu.Unlock()
	n, bytes := 0, 0
	for n < min(len(s.pending), pipelineCalls) && bytes < pipelineBytes {
		call := s.pending[n]
		if !call.GetAbandon() {
			if s.sent == pipelineOpen {
				break
			}
			s.sent++
		}
		bytes += proto.Size(call)
		n++
	}
	calls, s.pending = s.pending[:n:n], s.pending[n:]
	if len(s.pending) == 0 {
		s.pending = nil
	}
	return calls, s.closing && len(s.pending) == 0
}

// receive hands answers out until the stream ends, and returns why.
func (s *dialStream) receive(stream grpc.BidiStreamingClient[writv1.PipelineRequest, writv1.PipelineResponse]) error {
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return status.Error(codes.Unavailable, "the node ended the stream")
		}
		if err != nil {
			return err
		}
		s.pipeline.mu.Lock()
		for _, answer := range response.GetAnswers() {
			if answered := s.open[answer.GetId()]; answered != nil {
				delete(s.open, answer.GetId())
				s.sent--
				answered <- dialAnswer{message: answer} // capacity 1, answered once
			}
		}
		more := len(s.pending) > 0
		s.pipeline.mu.Unlock()
		if more { // that had no room
			s.nudge()
		}
	}
}

// fail ends the stream and every call on it.
func (s *dialStream) fail(err error) {
	s.pipeline.mu.Lock()
	defer s.pipeline.mu.Unlock()
	s.over, s.pending, s.sent = true, nil, 0
	if s.pipeline.stream == s {
		s.pipeline.stream = nil
	}
	for id, answered := range s.open {
		delete(s.open, id)
		answered <- dialAnswer{err: err}
	}
}

// abandon ends the wait for an answer and tells the node, unless it has not heard of the call at all.
func (s *dialStream) abandon(id uint64) {
	s.pipeline.mu.Lock()
	defer s.pipeline.mu.Unlock()
	if s.open[id] == nil {
		return
	}
	delete(s.open, id)
	if i := slices.IndexFunc(s.pending, func(c *writv1.PipelineCall) bool { return c.GetId() == id }); i >= 0 {
		s.pending = slices.Delete(s.pending, i, i+1)
		return
	}
	s.sent--
	if !s.over && !s.closing {
		abandon := &writv1.PipelineCall{Id: id, Call: &writv1.PipelineCall_Abandon{Abandon: true}}
		s.pending = slices.Insert(s.pending, 0, abandon) // what is full must not hold it up
		s.nudge()
	}
}
