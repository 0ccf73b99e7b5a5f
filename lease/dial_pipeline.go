package lease

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
)

// dialPipeline carries acquires, releases and checkpoints to one node over a stream, as many to a message as there are: what
// gRPC does for a call of its own costs both sides several times what deciding it does.
type dialPipeline struct {
	service writv1.LeaseServiceClient
	clock   clock.Clock
	decided func(node string) // told who decides, as the node says
	ctx     context.Context
	cancel  context.CancelFunc
	streams sync.WaitGroup
	unary   atomic.Bool // the node does not know pipelines
	few     atomic.Bool // it knows them, but no checkpoints there

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
	// pipelineQuiet and at most pipelineFew calls, of at most pipelineRoom bytes, are open. Where there is more traffic, calls
	// that wait for each other share a message, and so a round of the coordinator.
	pipelineQuiet = time.Millisecond
	pipelineFew   = 8
	pipelineRoom  = 16 << 10 // a quarter of what a stream takes without blocking
	// Checkpoints are not sent by their callers, and wait for others unless they are alone: programs that store many do so
	// at the same instants. Nothing else waits for them.
	pipelineGather = 2 * time.Millisecond
	pipelineMany   = 256
	// A checkpoint above pipelineLarge is a call of its own, so that what is short need not wait for it.
	pipelineLarge = 16 << 10
	// pipelineAge is how long a stream takes calls. It is short against the time that a node gives to what runs on a
	// connection that it wants to see the end of.
	pipelineAge = 5 * time.Minute
	// pipelineUnknown is the field that a node names when it does not know a kind of call.
	pipelineUnknown = "calls.call"
)

func newDialPipeline(service writv1.LeaseServiceClient, clk clock.Clock, decided func(string)) *dialPipeline {
	p := &dialPipeline{service: service, clock: clk, decided: decided}
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

func (p *dialPipeline) checkpoint(ctx context.Context, request *writv1.CheckpointRequest) error {
	if len(request.GetData()) <= pipelineLarge && !p.unary.Load() && !p.few.Load() {
		_, err := p.call(ctx, &writv1.PipelineCall{Call: &writv1.PipelineCall_Checkpoint{Checkpoint: request}})
		switch {
		case status.Code(err) == codes.Unimplemented:
			p.unary.Store(true)
		case err == nil || !p.few.Load():
			return err
		}
	}
	_, err := p.service.Checkpoint(ctx, request)
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
			pipeline: p, until: now.Add(pipelineAge), open: make(map[uint64]dialOpen), wake: make(chan struct{}, 1),
		}
		p.stream = s
		p.streams.Go(s.run)
	}
	s.last++
	call.Id = s.last
	size := proto.Size(call)
	s.open[call.Id] = dialOpen{answered, size}
	s.pending = append(s.pending, call)
	checkpoint := call.GetCheckpoint() != nil
	s.hasty = s.hasty || !checkpoint
	quiet := now.Sub(s.active) >= pipelineQuiet && s.sent <= pipelineFew
	room := s.bytes+size <= pipelineRoom && s.stream != nil && !s.sending && !s.abandoned
	s.active = now
	if (s.lone || quiet) && room && !checkpoint && len(s.pending) == 1 {
		s.sending = true
		return s, true, nil
	}
	s.nudge()
	return s, false, nil
}
