package server

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
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
	var told string // who decides
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
			response := &writv1.PipelineResponse{Answers: answers}
			if name := p.service.forwarder.tracker.current().node.Name; name != "" && name != told {
				response.Coordinator, told = name, name
			}
			if err := stream.Send(response); err != nil {
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
		case x.acquire == nil:
			p.finish(x, nil, nil)
		default:
			resp, err := p.service.acquired(quorum.OutcomeOf(r), x.acquire.GetWantWrit())
			p.finish(x, resp, err)
		}
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
