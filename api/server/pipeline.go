package server

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/quorum"
)

// maxPipelined bounds the open calls of one stream, as the .proto file says.
const maxPipelined = 4096

// pipeline serves one stream of LeaseService.Pipeline. Where this node decides, its calls go to the quorum by the message
// and come back by the round, without a goroutine of their own. Every other one goes the way of a call that came alone.
type pipeline struct {
	service *leaseService
	chain   *chain
	from    *caller
	ctx     context.Context // ends with the stream
	wake    chan struct{}   // capacity 1: there is something to send, or to end
	alone   sync.WaitGroup

	mu       sync.Mutex
	open     map[uint64]*pipelined       // guarded by mu; by the client's id
	deciding map[lease.CallID]*pipelined // guarded by mu; those of open that this node decides
	answers  []*writv1.PipelineAnswer    // guarded by mu; not sent yet
	ending   bool                        // guarded by mu; no further calls are taken
	gone     bool                        // guarded by mu; nobody reads answers any more
	broken   error                       // guarded by mu; why the stream must end at once

	// The quorum may deliver while mu is held around Submit.
	repliesMu sync.Mutex
	replies   []lease.Reply // guarded by repliesMu; not translated yet
}

// pipelined is one open call.
type pipelined struct {
	id      uint64
	method  string
	acquire *writv1.AcquireRequest // or
	release *writv1.ReleaseRequest
	began   clock.Instant
	leave   func()             // ends what the limits count
	call    lease.CallID       // 0 unless this node decides
	cancel  context.CancelFunc // nil unless it goes alone
}

func (s *leaseService) Pipeline(stream grpc.BidiStreamingServer[writv1.PipelineRequest, writv1.PipelineResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	p := &pipeline{
		service: s, chain: s.chain, from: callerOf(ctx), ctx: ctx, wake: make(chan struct{}, 1),
		open: make(map[uint64]*pipelined), deciding: make(map[lease.CallID]*pipelined),
	}
	defer p.alone.Wait()
	defer p.abandonAll()
	defer cancel()
	defer context.AfterFunc(s.draining, p.drain)()
	// It ends when this function has returned, which ends the stream, at the latest.
	go p.receive(stream)
	return p.send(stream)
}

// send answers until the stream is over.
func (p *pipeline) send(stream grpc.BidiStreamingServer[writv1.PipelineRequest, writv1.PipelineResponse]) error {
	for {
		select {
		case <-p.wake:
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
		p.repliesMu.Lock()
		replies := p.replies
		p.replies = nil
		p.repliesMu.Unlock()
		p.settle(replies)
		p.mu.Lock()
		answers, over, broken := p.answers, p.ending && len(p.open) == 0, p.broken
		p.answers = nil
		p.mu.Unlock()
		if len(answers) > 0 {
			if err := stream.Send(&writv1.PipelineResponse{Answers: answers}); err != nil {
				return err
			}
		}
		if broken != nil || over {
			return broken
		}
	}
}

func (p *pipeline) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// receive takes calls in until no more come.
func (p *pipeline) receive(stream grpc.BidiStreamingServer[writv1.PipelineRequest, writv1.PipelineResponse]) {
	err := p.take(stream)
	p.mu.Lock()
	p.ending = true
	if !errors.Is(err, io.EOF) {
		p.broken = err
	}
	p.mu.Unlock()
	p.nudge()
}

func (p *pipeline) take(stream grpc.BidiStreamingServer[writv1.PipelineRequest, writv1.PipelineResponse]) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = p.chain.recovered(p.ctx, r)
		}
	}()
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := p.begin(request.GetCalls()); err != nil {
			return err
		}
	}
}

// begin takes the calls of one message in. An error of its own means that the stream makes no sense.
func (p *pipeline) begin(calls []*writv1.PipelineCall) error {
	var (
		decides  = p.service.forwarder.tracker.current().self
		together []*pipelined
		commands []any
	)
	for _, c := range calls {
		if c.GetAbandon() {
			p.submit(together, commands) // it may be among these
			together, commands = nil, nil
			p.abandon(c.GetId())
			continue
		}
		x, err := p.admit(c)
		if err != nil {
			return err
		}
		command, err := p.command(x)
		switch {
		case err != nil:
			p.finish(x, nil, err)
		case decides:
			together, commands = append(together, x), append(commands, command)
		default:
			p.goAlone(x)
		}
	}
	p.submit(together, commands)
	return nil
}

// admit opens a call.
func (p *pipeline) admit(c *writv1.PipelineCall) (*pipelined, error) {
	x := &pipelined{id: c.GetId(), acquire: c.GetAcquire(), release: c.GetRelease(), began: callClock.Now(), leave: nothing}
	switch {
	case x.acquire != nil:
		x.method = writv1.LeaseService_Acquire_FullMethodName
	case x.release != nil:
		x.method = writv1.LeaseService_Release_FullMethodName
	default:
		return nil, lease.Invalid("calls.call", "is missing", "set acquire, release or abandon")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case x.id == 0:
		return nil, lease.Invalid("calls.id", "is 0", "number the calls of a stream from 1 on")
	case p.open[x.id] != nil:
		return nil, lease.Invalid("calls.id", "is that of a call which is open", "give each call an id of its own")
	case len(p.open) >= maxPipelined || len(p.answers) >= 2*maxPipelined:
		e := lease.Errorf(lease.ReasonLimit, "%d calls are open on this stream, and %d answers not read", len(p.open), len(p.answers))
		e.Fix = "wait for answers, or use another stream"
		return nil, e
	}
	p.open[x.id] = x
	return x, nil
}

// command limits, validates and authorises a call as one that came alone, and translates it.
func (p *pipeline) command(x *pipelined) (command any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = p.chain.recovered(p.ctx, r)
		}
	}()
	p.mu.Lock()
	ending := p.ending
	p.mu.Unlock()
	if ending {
		return nil, lease.Errorf(lease.ReasonNotCoordinator, "%v", errDraining)
	}
	if x.leave, err = p.chain.limiter.enter(p.from); err != nil {
		return nil, err
	}
	if x.acquire != nil {
		if err := p.chain.check(p.from, x.acquire); err != nil {
			return nil, err
		}
		return p.service.acquireCommand(p.from, x.acquire)
	}
	if err := p.chain.check(p.from, x.release); err != nil {
		return nil, err
	}
	return p.service.releaseCommand(p.from, x.release)
}

// submit hands calls to this node's quorum. If it has ceased to decide, they go alone.
func (p *pipeline) submit(calls []*pipelined, commands []any) {
	if len(calls) == 0 {
		return
	}
	p.mu.Lock()
	if p.gone {
		p.mu.Unlock()
		return
	}
	first, err := p.service.quorum.Submit(commands, p.deliver)
	if err == nil {
		for i, x := range calls {
			x.call = first + lease.CallID(i)
			p.deciding[x.call] = x
		}
	}
	p.mu.Unlock()
	if err != nil {
		for _, x := range calls {
			p.goAlone(x)
		}
	}
}

// deliver takes what the quorum has decided, and leaves the rest to the sender.
func (p *pipeline) deliver(replies []lease.Reply) {
	p.repliesMu.Lock()
	p.replies = append(p.replies, replies...)
	p.repliesMu.Unlock()
	p.nudge()
}

// settle answers what the quorum has decided.
func (p *pipeline) settle(replies []lease.Reply) {
	p.mu.Lock()
	decided := make([]*pipelined, len(replies))
	for i, r := range replies {
		decided[i] = p.deciding[r.ID] // nil if abandoned
		delete(p.deciding, r.ID)
	}
	p.mu.Unlock()
	for i, x := range decided {
		r := replies[i]
		switch {
		case x == nil:
		case r.Err != nil && r.Err.Reason == lease.ReasonNotCoordinator:
			p.goAlone(x) // which looks for the one that decides
		case r.Err != nil:
			p.finish(x, nil, r.Err)
		case x.release != nil:
			p.finish(x, nil, nil)
		default:
			resp, err := p.service.acquired(quorum.OutcomeOf(r), x.acquire.GetWantWrit())
			p.finish(x, resp, err)
		}
	}
}

// released is the answer to every release that succeeded.
var released = &writv1.PipelineAnswer_Release{Release: &writv1.ReleaseResponse{}}

// goAlone carries a call out as if it had come alone.
func (p *pipeline) goAlone(x *pipelined) {
	ctx, cancel := context.WithTimeout(p.ctx, defaultDeadline+clampWait(x.acquire.GetWait()))
	p.mu.Lock()
	open := p.open[x.id] == x
	if open {
		x.call, x.cancel = 0, cancel
		p.alone.Add(1)
	}
	p.mu.Unlock()
	if !open {
		cancel()
		return
	}
	go func() {
		defer p.alone.Done()
		defer cancel()
		defer func() {
			if r := recover(); r != nil {
				p.finish(x, nil, p.chain.recovered(ctx, r))
			}
		}()
		if x.release != nil {
			_, err := p.service.Release(ctx, x.release)
			p.finish(x, nil, err)
			return
		}
		resp, err := p.service.Acquire(ctx, x.acquire)
		p.finish(x, resp, err)
	}()
}

// finish answers a call, unless it was abandoned.
func (p *pipeline) finish(x *pipelined, acquired *writv1.AcquireResponse, err error) {
	message := &writv1.PipelineAnswer{Id: x.id}
	switch {
	case err != nil:
		message.Answer = &writv1.PipelineAnswer_Error{Error: status.Convert(p.chain.wireError(x.method, err)).Proto()}
	case x.release != nil:
		message.Answer = released
	default:
		message.Answer = &writv1.PipelineAnswer_Acquire{Acquire: acquired}
	}
	p.mu.Lock()
	open := p.open[x.id] == x
	if open {
		delete(p.open, x.id)
		p.answers = append(p.answers, message)
	}
	p.mu.Unlock()
	if open {
		p.over(x, codes.Code(message.GetError().GetCode()), err)
		p.nudge()
	}
}

// over lets go of what a call held, and tells of it.
func (p *pipeline) over(x *pipelined, code codes.Code, err error) {
	x.leave()
	took := callClock.Now().Sub(x.began)
	p.service.metrics.pipelined(x.method, code, took)
	if logged(p.chain.logger, err) {
		p.chain.logger.Log(hclogLevel(levelOf(code)), "finished call", "grpc.method", x.method, "grpc.code", code.String(),
			"reason", string(lease.ReasonOf(err)), "took", took, "peer", string(p.from.principal))
	}
}

func (p *pipeline) abandon(id uint64) {
	p.mu.Lock()
	x := p.remove(id)
	p.mu.Unlock()
	if x != nil {
		p.forget(x)
	}
}

// remove takes a call off the open ones. The caller holds mu.
func (p *pipeline) remove(id uint64) *pipelined {
	x := p.open[id]
	if x != nil {
		delete(p.open, id)
		delete(p.deciding, x.call)
	}
	return x
}

// forget ends what goes on for a call that was removed.
func (p *pipeline) forget(x *pipelined) {
	if x.call != 0 {
		p.service.quorum.Abandon(x.call)
	}
	if x.cancel != nil {
		x.cancel()
	}
	p.over(x, codes.Canceled, context.Canceled)
}

// abandonAll ends what is open when the stream ends.
func (p *pipeline) abandonAll() {
	p.mu.Lock()
	p.ending, p.gone = true, true
	var rest []*pipelined
	for id := range p.open {
		rest = append(rest, p.remove(id))
	}
	p.mu.Unlock()
	for _, x := range rest {
		p.forget(x)
	}
}

// drain takes no further calls, sends those that wait for a lease away, and lets the others finish.
func (p *pipeline) drain() {
	p.mu.Lock()
	p.ending = true
	var waiting []*pipelined
	for _, x := range p.deciding {
		if clampWait(x.acquire.GetWait()) > 0 {
			waiting = append(waiting, x)
			delete(p.deciding, x.call)
		}
	}
	p.mu.Unlock()
	for _, x := range waiting {
		p.service.quorum.Abandon(x.call)
		p.finish(x, nil, drainingError())
	}
	p.nudge()
}
