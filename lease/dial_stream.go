package lease

import (
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
)

// dialOpen is a call without an answer.
type dialOpen struct {
	answered chan dialAnswer // capacity 1
	size     int             // bytes on the wire
}

// dialStream is one stream of a pipeline.
type dialStream struct {
	pipeline *dialPipeline
	until    clock.Instant // when it takes no further calls
	wake     chan struct{} // capacity 1: there is something to send

	// Guarded by the pipeline's mu.
	last    uint64 // id of the last call
	open    map[uint64]dialOpen
	pending []*writv1.PipelineCall // not sent yet
	sent    int                    // how many of open are sent
	bytes   int                    // and how many they take
	hasty   bool                   // something of pending does not wait for others
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
		s.gather(ctx)
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

// gather lets everybody speak who is about to: callers that were answered by one message ask again at the same time.
func (s *dialStream) gather(ctx context.Context) {
	runtime.Gosched()
	if !s.patient() {
		return
	}
	timer := s.pipeline.clock.NewTimer(s.pipeline.clock.Now().Add(pipelineGather))
	defer timer.Stop()
	for s.patient() {
		select {
		case <-s.wake:
		case <-timer.C():
			return
		case <-ctx.Done():
			return
		}
	}
}

// patient tells whether nothing but few checkpoints waits, and not one that is alone.
func (s *dialStream) patient() bool {
	s.pipeline.mu.Lock()
	defer s.pipeline.mu.Unlock()
	n := len(s.pending)
	return !s.hasty && !s.closing && n > 0 && n < pipelineMany && (n > 1 || s.sent > 0)
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
		size := s.open[call.GetId()].size // 0 for one that is abandoned, which takes a few bytes
		if !call.GetAbandon() {
			if s.sent == pipelineOpen {
				break
			}
			s.sent++
			s.bytes += size
		}
		bytes += size
		n++
	}
	calls, s.pending = s.pending[:n:n], s.pending[n:]
	if len(s.pending) == 0 {
		s.pending, s.hasty = nil, false
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
		if name := response.GetCoordinator(); name != "" {
			s.pipeline.decided(name) // before those who are answered ask again
		}
		s.pipeline.mu.Lock()
		for _, answer := range response.GetAnswers() {
			if open, ok := s.open[answer.GetId()]; ok {
				delete(s.open, answer.GetId())
				s.sent--
				s.bytes -= open.size
				open.answered <- dialAnswer{message: answer} // answered once, so it fits
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
	var own *Error
	if errors.As(FromError(err), &own) && own.Reason == ReasonInvalid && own.Field == pipelineUnknown && !s.pipeline.few.Load() {
		// That was a checkpoint. What else was open is not to blame.
		s.pipeline.few.Store(true)
		err = status.Error(codes.Unavailable, "the node does not take checkpoints over a pipeline")
	}
	s.over, s.pending, s.sent, s.bytes = true, nil, 0, 0
	if s.pipeline.stream == s {
		s.pipeline.stream = nil
	}
	for id, open := range s.open {
		delete(s.open, id)
		open.answered <- dialAnswer{err: err}
	}
}

// abandon ends the wait for an answer and tells the node, unless it has not heard of the call at all.
func (s *dialStream) abandon(id uint64) {
	s.pipeline.mu.Lock()
	defer s.pipeline.mu.Unlock()
	open, ok := s.open[id]
	if !ok {
		return
	}
	delete(s.open, id)
	if i := slices.IndexFunc(s.pending, func(c *writv1.PipelineCall) bool { return c.GetId() == id }); i >= 0 {
		s.pending = slices.Delete(s.pending, i, i+1)
		return
	}
	s.sent--
	s.bytes -= open.size
	s.abandoned = true
	if !s.over && !s.closing {
		abandon := &writv1.PipelineCall{Id: id, Call: &writv1.PipelineCall_Abandon{Abandon: true}}
		s.pending = slices.Insert(s.pending, 0, abandon) // what is full must not hold it up
		s.nudge()
	}
}
