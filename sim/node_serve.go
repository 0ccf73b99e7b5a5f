package sim

import (
	"fmt"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/region"
	"github.com/writ-io/writ/sim/judge"
)

// served is a command that a node has taken in.
type served struct {
	command any
	intake  time.Duration
	answer  func(lease.Reply)
}

// serve takes a command of a client in. A node that does not decide carries it on to the one that does, once. Nobody waits
// for the answer beyond limit.
func (n *node) serve(command any, limit time.Duration, forwarded bool, answer func(lease.Reply)) {
	if n.engine.Role() != quorum.Follower {
		n.submit(command, limit, answer)
		return
	}
	claimed, _ := n.image.Term()
	to := n.run.nodeNamed(claimed.GetNode())
	if forwarded || to == nil || to == n {
		answer(lease.Reply{Err: lease.Errorf(lease.ReasonNotCoordinator, "%s does not decide", n.name())})
		return
	}
	n.run.mark(MarkForwarded)
	n.run.net.Send(n.process, to.process, func() {
		to.serve(command, limit, true, func(r lease.Reply) {
			n.run.net.Send(to.process, n.process, func() { answer(r) })
		})
	})
}

func (n *node) submit(command any, limit time.Duration, answer func(lease.Reply)) {
	n.lastID++
	id := n.lastID
	n.open[id] = &served{command: command, intake: n.run.world.Now(), answer: answer}
	n.stepSoon(quorum.Submits{{ID: id, Intake: n.process.Clock.Now(), Command: command}})
	acquire, isAcquire := command.(lease.Acquire)
	_, polls := command.(region.Command)
	if (isAcquire && acquire.Wait > 0 || polls) && n.open[id] != nil {
		n.process.After(limit, func() {
			if n.open[id] != nil {
				delete(n.open, id)
				n.stepSoon(quorum.Abandoned{ID: id})
			}
		})
	}
}

// answer hands replies out.
func (n *node) answer(replies []lease.Reply) {
	for _, r := range replies {
		s := n.open[r.ID]
		if s == nil {
			continue // abandoned
		}
		delete(n.open, r.ID)
		if command, ok := s.command.(lease.Command); ok {
			n.run.judge.Answered(judge.Answer{
				Node: n.name(), Lineage: n.run.lineage, Term: n.term, Intake: s.intake, Command: command, Reply: r,
			})
			if g, ok := r.Value.(*lease.Grant); ok && (uint32(g.Token.Epoch()) != n.witness.Epoch || g.Token.Sequence() > n.witness.Ceiling) {
				n.run.violation("S1", fmt.Sprintf("%s granted %s under %v, and its witness remembers epoch %d up to %d only", n.name(), g.Resource, g.Token, n.witness.Epoch, n.witness.Ceiling))
			}
			if r.Err != nil && r.Err.Reason == lease.ReasonUnknownOutcome {
				n.run.mark(MarkUnknownOutcome)
			}
		}
		s.answer(r)
	}
}

// dropAll answers everything that is open: nothing of it has been decided.
func (n *node) dropAll() {
	for id := lease.CallID(1); id <= n.lastID && len(n.open) > 0; id++ {
		if s := n.open[id]; s != nil {
			delete(n.open, id)
			s.answer(lease.Reply{ID: id, Err: lease.Errorf(lease.ReasonNotCoordinator, "%s has stopped deciding", n.name())})
		}
	}
}

// get reads a resource as of now.
func (n *node) get(name lease.Resource, answer func(lease.Info, *lease.Error)) {
	n.fresh(func(ok bool) {
		if !ok {
			answer(lease.Info{}, lease.Errorf(lease.ReasonNoQuorum, "no majority confirms what is newest"))
			return
		}
		e, found := n.image.Get(quorum.LeaseKey(name))
		if !found {
			answer(lease.Info{}, lease.Errorf(lease.ReasonNotFound, "nothing is known of %q", name))
			return
		}
		var rec lease.Record
		if err := rec.UnmarshalBinary(e.Value); err != nil {
			panic(err)
		}
		answer(rec.Info(), nil)
	})
}

// getCheckpoint reads the checkpoint of a resource as of now; nil if there is none.
func (n *node) getCheckpoint(name lease.Resource, answer func(data []byte, ok bool)) {
	n.fresh(func(ok bool) {
		if !ok {
			answer(nil, false)
			return
		}
		e, _ := n.image.Get(quorum.CheckpointKey(name))
		answer(e.Value, true)
	})
}

// readTimeout is as in production.
const readTimeout = 5 * time.Second

// fresh calls do when the image has everything that was acknowledged before the call, or with false.
func (n *node) fresh(do func(ok bool)) {
	done := n.bounded(readTimeout, func(err error) { do(err == nil) })
	n.member.Head(func(revision int64, err error) {
		if err != nil {
			done(err)
			return
		}
		n.reach(func() bool { return n.image.Revision() >= revision }, revision, func() { done(nil) })
	})
}
