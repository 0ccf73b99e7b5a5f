package server

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// pipelined is one open call.
type pipelined struct {
	id      uint64
	method  string
	acquire *writv1.AcquireRequest // or
	release *writv1.ReleaseRequest // or
	check   *writv1.CheckpointRequest
	began   clock.Instant
	leave   func()             // ends what the limits count
	refused error              // why it is not carried out at all
	call    lease.CallID       // 0 unless this node decides
	cancel  context.CancelFunc // nil unless it goes alone
}

// admit counts a call against the limits and opens it.
func (p *pipeline) admit(c *writv1.PipelineCall) (*pipelined, error) {
	x := &pipelined{id: c.GetId(), acquire: c.GetAcquire(), release: c.GetRelease(), check: c.GetCheckpoint(), began: callClock.Now()}
	switch {
	case x.acquire != nil:
		x.method = writv1.LeaseService_Acquire_FullMethodName
	case x.release != nil:
		x.method = writv1.LeaseService_Release_FullMethodName
	case x.check != nil:
		x.method = writv1.LeaseService_Checkpoint_FullMethodName
	default:
		return nil, lease.Invalid("calls.call", "is missing", "set acquire, release, checkpoint or abandon")
	}
	if x.id == 0 {
		return nil, lease.Invalid("calls.id", "is 0", "number the calls of a stream from 1 on")
	}
	// Before anybody else knows of it, who may end it.
	x.leave, x.refused = p.chain.limiter.enter(p.from)
	if err := p.register(x); err != nil {
		x.leave()
		return nil, err
	}
	return x, nil
}

func (p *pipeline) register(x *pipelined) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.open[x.id] != nil:
		return lease.Invalid("calls.id", "is that of a call which is open", "give each call an id of its own")
	case len(p.open) >= maxPipelined || len(p.answers) >= 2*maxPipelined:
		e := lease.Errorf(lease.ReasonLimit, "%d calls are open on this stream, and %d answers not read", len(p.open), len(p.answers))
		e.Fix = "wait for answers, or use another stream"
		return e
	}
	if p.ending {
		x.refused = lease.Errorf(lease.ReasonNotCoordinator, "%v", errDraining)
	}
	p.open[x.id] = x
	return nil
}

// command validates and authorises a call as one that came alone, and translates it.
func (p *pipeline) command(x *pipelined) (command any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = p.chain.recovered(p.ctx, r)
		}
	}()
	if x.refused != nil {
		return nil, x.refused
	}
	switch {
	case x.acquire != nil:
		if err := p.chain.check(p.from, x.acquire); err != nil {
			return nil, err
		}
		return p.service.acquireCommand(p.from, x.acquire)
	case x.release != nil:
		if err := p.chain.check(p.from, x.release); err != nil {
			return nil, err
		}
		return p.service.releaseCommand(p.from, x.release)
	}
	if err := p.chain.check(p.from, x.check); err != nil {
		return nil, err
	}
	return p.service.checkpointCommand(p.from, x.check)
}

// The answers to every release, and every checkpoint, that succeeded.
var (
	released = &writv1.PipelineAnswer_Release{Release: &writv1.ReleaseResponse{}}
	stored   = &writv1.PipelineAnswer_Checkpoint{Checkpoint: &writv1.CheckpointResponse{}}
)

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
		var resp *writv1.AcquireResponse
		var err error
		switch {
		case x.release != nil:
			_, err = p.service.Release(ctx, x.release)
		case x.check != nil:
			_, err = p.service.Checkpoint(ctx, x.check)
		default:
			resp, err = p.service.Acquire(ctx, x.acquire)
		}
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
	case x.check != nil:
		message.Answer = stored
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
