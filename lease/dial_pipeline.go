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
	// A call is sent by its caller if it follows the only answer that was outstanding, or if nothing has happened for
	// pipelineQuiet and at most pipelineFew calls are open. Where there is more traffic, calls that wait for each other
	// share a message, and so a round of the coordinator.
	pipelineQuiet = time.Millisecond
	pipelineFew   = 8
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
	s, alone, err := p.submit(call, answered)
	if err != nil {
		return nil, err
	}
	if alone {
		s.sendAlone()
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

// submit hands a call to the stream, which it opens if there is none or the old one is too old. If it answers that the call
// is alone, it is the caller's to send.
func (p *dialPipeline) submit(call *writv1.PipelineCall, answered chan dialAnswer) (s *dialStream, alone bool, err error) {
	now := p.clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false, status.Error(codes.Canceled, "the client is closed")
	}
	s = p.stream
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
	quiet := now.Sub(s.active) >= pipelineQuiet && s.sent <= pipelineFew
	s.active = now
	if (s.lone || quiet) && s.stream != nil && !s.sending && !s.abandoned && len(s.pending) == 1 {
		s.sending = true
		return s, true, nil
	}
	s.nudge()
	return s, false, nil
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
	sending bool                   // somebody does
	closing bool                   // no further calls come
	over    bool
	lone    bool          // the last message brought the one answer that was outstanding
	active  clock.Instant // when the last call or answer came
	// A call was given up, so that what was sent for it may still be on its way. It stays so until the stream is replaced.
	abandoned bool

	stream grpc.BidiStreamingClient[writv1.PipelineRequest, writv1.PipelineResponse] // nil until it is open
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
	s.pipeline.mu.Lock()
	s.stream = stream
	s.pipeline.mu.Unlock()
	var sending sync.WaitGroup
	sending.Go(func() { s.send(ctx) })
	s.fail(s.receive())
	cancel()
	sending.Wait()
}

func (s *dialStream) send(ctx context.Context) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		// Callers that were answered by one message ask again at the same time: let all of them speak.
		runtime.Gosched()
		for s.begin() {
			calls, last := s.take()
			if len(calls) > 0 && s.stream.Send(&writv1.PipelineRequest{Calls: calls}) != nil {
				return // the receiver learns why
			}
			if last {
				_ = s.stream.CloseSend() // never fails
				return
			}
			s.end()
			if len(calls) == 0 {
				break
			}
		}
	}
}

// begin makes the caller the one that sends, unless somebody is, who then wakes the sender.
func (s *dialStream) begin() bool {
	s.pipeline.mu.Lock()
	defer s.pipeline.mu.Unlock()
	if s.sending {
		return false
	}
	s.sending = true
	return true
}

// end lets others send. It tells whether anything waits.
func (s *dialStream) end() (more bool) {
	s.pipeline.mu.Lock()
	defer s.pipeline.mu.Unlock()
	s.sending = false
	return len(s.pending) > 0 || s.closing
}

// sendAlone sends the one call that there is, which spares it the way over the sender. It does not block: there is room on a
// stream on which few calls are open and none was given up.
func (s *dialStream) sendAlone() {
	if calls, _ := s.take(); len(calls) > 0 {
		_ = s.stream.Send(&writv1.PipelineRequest{Calls: calls}) // the receiver learns why it failed
	}
	if s.end() {
		s.nudge()
	}
}

// take takes the next message's calls off the waiting ones. last says that none will follow.
func (s *dialStream) take() (calls []*writv1.PipelineCall, last bool) {
	s.pipeline.mu.Lock()
	defer s.pipeline.mu.Unlock()
	s.lone = false
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
func (s *dialStream) receive() error {
	for {
		response, err := s.stream.Recv()
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
		s.lone = s.sent == 0 && len(response.GetAnswers()) == 1
		s.active = s.pipeline.clock.Now()
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
	s.abandoned = true
	if !s.over && !s.closing {
		abandon := &writv1.PipelineCall{Id: id, Call: &writv1.PipelineCall_Abandon{Abandon: true}}
		s.pending = slices.Insert(s.pending, 0, abandon) // what is full must not hold it up
		s.nudge()
	}
}
