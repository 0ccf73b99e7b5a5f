package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/writ-io/writ/jepsen/history"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/plan"
)

// sample records what clients asked of one resource and were answered, to be judged for linearizability.
type sample struct {
	run      *run
	resource lease.Resource // empty: nothing is recorded
	until    time.Duration  // what is asked from then on is not recorded
	ops      []*sampled
}

// sampled is one recorded call; nil stands for one that is not.
type sampled struct {
	history.Op
	done bool
}

// newSample chooses a resource whose whole history is what clients asked of it.
func newSample(r *run) *sample {
	s := &sample{run: r}
	p := r.plan
	if p.Sample == 0 || p.LockDelay > 0 || len(p.Clients) == 0 {
		return s
	}
	s.until = min(p.Duration, p.Retention)
	for _, f := range p.Faults {
		switch f.Kind {
		case plan.Force:
			return s
		case plan.Restore, plan.NewCluster, plan.Wipe, plan.OldDisk:
			s.until = min(s.until, f.At)
		default:
		}
	}
	var free []string
	for _, name := range r.resources() {
		if !slices.ContainsFunc(p.Clients, func(c plan.Client) bool { return c.Impatience > 0 && slices.Contains(c.Resources, name) }) {
			free = append(free, name)
		}
	}
	if len(free) > 0 {
		s.resource = lease.Resource(free[r.world.Dice("sample").Intn(len(free))])
	}
	return s
}

// call records a call that begins.
func (s *sample) call(t *task, kind history.Kind) *sampled {
	if t.resource != s.resource || s.run.world.Now() >= s.until {
		return nil
	}
	if len(s.ops) >= s.run.plan.Sample {
		s.until = s.run.world.Now()
		return nil
	}
	drift := clock.DefaultDrift()
	op := &sampled{Op: history.Op{
		Client: slices.Index(s.run.clients, t.client), Kind: kind, Resource: string(t.resource), Instance: t.id, Token: uint64(t.token),
		// The coordinator's clock may run fast: what it counts as the TTL is at least this much of real time.
		TTL: clock.Shrink(t.client.spec.TTL, drift.PPM, 0), Call: s.run.world.Now(), Outcome: history.Unknown,
	}}
	s.ops = append(s.ops, op)
	return op
}

// end ends the recording of a resource, of which something happens that the history's model does not know.
func (s *sample) end(name lease.Resource) {
	if name == s.resource {
		s.until = min(s.until, s.run.world.Now())
	}
}

func (s *sample) acquiring(t *task) *sampled {
	op := s.call(t, history.Acquire)
	if op != nil {
		op.Token = 0
	}
	return op
}

// reading records a read that begins.
func (s *sample) reading(c *client, name lease.Resource) *sampled {
	op := s.call(&task{client: c, resource: name}, history.Get)
	if op != nil {
		op.TTL = 0
	}
	return op
}

// read ends a read.
func (s *sample) read(op *sampled, info lease.Info, err *lease.Error) {
	if op == nil || op.done {
		return
	}
	op.done = true
	switch {
	case err != nil && err.Reason == lease.ReasonNotFound:
		op.Outcome, op.Return = history.NotFound, s.run.world.Now()
	case err == nil:
		op.Outcome, op.Return = history.OK, s.run.world.Now()
		op.Saw = history.Sight{Token: uint64(info.Token), Holder: info.RequestID, Free: info.State == lease.Free || info.State == lease.Fencing}
		switch info.End {
		case lease.EndReleased:
			op.Saw.End = history.EndReleased
		case lease.EndExpired:
			op.Saw.End = history.EndExpired
		case lease.NotEnded, lease.EndCancelled, lease.EndForced:
		}
		if !op.Saw.Free {
			op.Saw.End = history.NotEnded
		}
	}
}

// held ends an acquisition that found the resource held.
func (s *sample) held(op *sampled, err *lease.Error) {
	if op == nil || op.done {
		return
	}
	op.done, op.Outcome, op.Return = true, history.Held, s.run.world.Now()
	op.Saw = history.Sight{Token: uint64(err.Token), Holder: s.run.judge.RequestOf(lease.Ref{Resource: s.resource, Token: err.Token})}
}

func (s *sample) releasing(t *task) *sampled { return s.call(t, history.Release) }

func (s *sample) storing(t *task, data string) *sampled {
	op := s.call(t, history.Checkpoint)
	if op != nil {
		op.Data = data
	}
	return op
}

// renewing records a renewal of each lease of the sampled resource.
func (s *sample) renewing(c *client, refs []lease.Ref) []*sampled {
	var ops []*sampled
	for i, ref := range refs {
		if ref.Resource != s.resource {
			continue
		}
		for _, t := range c.tasks {
			if t.resource == ref.Resource && t.token == ref.Token {
				if op := s.call(t, history.Renew); op != nil {
					op.Client = op.Client<<16 | i // tells which of the message it is
					ops = append(ops, op)
				}
			}
		}
	}
	return ops
}

func (s *sample) renewed(ops []*sampled, reply lease.Reply, ok bool) {
	for _, op := range ops {
		index := op.Client & 0xffff
		op.Client >>= 16
		if !ok || reply.Err != nil {
			s.answered(op, reply, ok)
			continue
		}
		one := lease.Reply{}
		outcome, _ := reply.Value.(lease.RenewOutcome)
		for _, f := range outcome.Failures {
			if f.Index == index {
				one.Err = f.Err
			}
		}
		s.answered(op, one, true)
	}
}

// granted ends an acquisition that was granted.
func (s *sample) granted(op *sampled, g *lease.Grant) {
	if op == nil || op.done {
		return
	}
	op.done, op.Outcome, op.Return = true, history.OK, s.run.world.Now()
	op.Saw = history.Sight{Token: uint64(g.Token), Holder: op.Instance, Data: string(g.Checkpoint)}
}

// lost ends an acquisition of which nobody will know what came of it.
func (s *sample) lost(op *sampled) {
	if op != nil {
		op.done = true
	}
}

// answered ends another call.
func (s *sample) answered(op *sampled, reply lease.Reply, ok bool) {
	if op == nil || op.done {
		return
	}
	op.done = true
	if !ok {
		return
	}
	op.Return = s.run.world.Now()
	if reply.Err == nil {
		op.Outcome = history.OK
		return
	}
	op.Detail = reply.Err.Error()
	switch reply.Err.Reason {
	case lease.ReasonExpired:
		op.Outcome = history.Expired
	case lease.ReasonReleased:
		op.Outcome = history.Released
	case lease.ReasonNotHolder:
		op.Outcome = history.NotHolder
	case lease.ReasonNoQuorum:
		op.Outcome = history.Refused
	default: // unknown
	}
}

// judgement bounds the judging of one history in wall time: it is nearly always a matter of milliseconds. What takes longer
// has no verdict.
const judgement = time.Second

func (s *sample) judge() {
	var ops []history.Op
	for _, op := range s.ops {
		if op.Return > s.until { // later calls, which are not recorded, may have had a part in it
			op.Outcome, op.Return, op.Saw = history.Unknown, 0, history.Sight{}
		}
		ops = append(ops, op.Op)
	}
	// A request whose end is no longer remembered may be granted anew, which the model does not know.
	if len(ops) == 0 || s.run.judge.Regranted(s.resource) {
		return
	}
	err := history.Check(ops, judgement)
	if err == nil || errors.Is(err, history.ErrUndecided) {
		return
	}
	s.run.violation("S9", fmt.Sprintf("the answers about %s have no order: %v", s.resource, err))
}
