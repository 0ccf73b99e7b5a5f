//writ:core

package quorum

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/region"
	"github.com/writ-io/writ/sim/mutant"
)

// Limits of one round, within those of a commit. Requests come up to roundRequested writes and half of the bytes, and one
// request more; then what expires comes up to roundWrites and roundBytes, and one record more. What is left is for that
// record, of 34 KiB at most, and for the identity record.
const (
	roundRequested = 1024
	roundWrites    = MaxCommitWrites - 64
	roundBytes     = MaxCommitBytes - 64<<10
	// packedOverhead bounds what a store adds to key and value.
	packedOverhead = 10
	// requestTokens bounds the tokens that one request takes: its own, and that of who is served before it.
	requestTokens = 2
)

func (e *Engine) submit(s Submit) {
	if len(e.queue) >= e.config.MaxQueue && len(e.left) > 0 {
		e.dropLeft()
	}
	switch {
	case e.role == Follower:
		e.refuse(s.ID, lease.Errorf(lease.ReasonNotCoordinator, "node %s does not decide at the moment", e.config.Node))
	case e.role == Recovering && isClients(s.Command):
		e.refuse(s.ID, e.recoveringError())
	case len(e.queue) >= e.config.MaxQueue:
		e.refuse(s.ID, lease.Errorf(lease.ReasonLimit, "%d requests wait for the coordinator already", len(e.queue)))
	default:
		if e.role == Serving && e.contradiction == nil {
			e.contradiction = e.contradicted(s.Command)
		}
		e.queue = append(e.queue, s)
	}
}

// isClients tells what clients ask for from what the quorum's own operators do.
func isClients(command any) bool {
	switch command.(type) {
	case lease.Command, region.Command:
		return true
	}
	return false
}

func (e *Engine) recoveringError() *lease.Error {
	err := lease.Errorf(lease.ReasonRecovering, "the quorum was rebuilt (%s) and grants nothing until %s",
		e.identity.Recovery.GetReason(), cmp.Or(e.waitFor, "every node has shown its witness"))
	if until := e.waitUntil; until != clock.Never {
		err.RetryAfter = until.Sub(e.now)
	}
	return err
}

// abandoned notes that a request need not be decided, if it has not been. Many may be abandoned together, when their callers
// lose patience in the same election: the queue is gone through once for many.
func (e *Engine) abandoned(m lease.Moment, id lease.CallID) {
	if e.table != nil {
		e.table.Step(m, lease.Gone{ID: id})
		e.regionNotes(m, e.machine.Step(m, region.Gone{ID: id}))
	}
	if len(e.queue) == 0 {
		return
	}
	if e.left == nil {
		e.left = make(map[lease.CallID]bool)
	}
	if e.left[id] = true; len(e.left) > len(e.queue)/2 {
		e.dropLeft()
	}
}

// dropLeft takes the abandoned requests out of the queue.
func (e *Engine) dropLeft() {
	e.queue = slices.DeleteFunc(e.queue, func(s Submit) bool { return e.left[s.ID] })
	e.left = nil
}

func (e *Engine) refuse(id lease.CallID, err *lease.Error) {
	e.effects.Replies = append(e.effects.Replies, lease.Reply{ID: id, Err: err})
}

// startRound decides everything that waits and what is due, and sends it off as one commit or one confirm.
func (e *Engine) startRound(m lease.Moment) {
	if e.round != nil {
		if mutant.On(mutant.LateToTheConfirm) && !e.round.commit {
			e.joinConfirm(m)
		}
		return
	}
	var replies []lease.Reply
	if len(e.left) > 0 {
		e.dropLeft()
	}
	if e.contradiction != nil {
		e.recoverAnew(m)
		return
	}
	if e.gather.holds(m.Now, len(e.queue)) {
		return
	}
	taken, queued := 0, len(e.queue)
	for taken < len(e.queue) && e.dirtyWrites() < roundRequested && e.dirtyBytes() < roundBytes/2 && e.table.TokensLeft() >= requestTokens {
		replies = e.decide(m, e.queue[taken], replies)
		taken++
	}
	e.queue = append(e.queue[:0], e.queue[taken:]...)
	replies = e.tick(m, replies)
	e.reserve()
	e.send(replies, e.writes())
	if e.round != nil {
		e.gather.started(m.Now, queued)
	}
}

// joinConfirm is what no request may do: it joins a confirm that began before it came. Only a mutant does it.
func (e *Engine) joinConfirm(m lease.Moment) {
	e.queue = slices.DeleteFunc(e.queue, func(s Submit) bool {
		switch s.Command.(type) {
		case lease.Renew, lease.Inspect:
			e.round.replies = e.decide(m, s, e.round.replies)
			return true
		}
		return false
	})
}

// decide steps the table by one request and collects its answers.
func (e *Engine) decide(m lease.Moment, s Submit, replies []lease.Reply) []lease.Reply {
	if c, ok := s.Command.(region.Command); ok {
		return e.decideRegion(m, s, c, replies)
	}
	command, ok := s.Command.(lease.Command)
	if !ok {
		return append(replies, e.changeMembers(m, s))
	}
	if e.overQuota && e.grows(s.Intake, command) {
		return append(replies, lease.Reply{ID: s.ID, Err: lease.Errorf(lease.ReasonLimit, "the quorum's storage has reached its soft quota: "+
			"no new resources and no larger checkpoints until records are forgotten, checkpoints emptied, or the quota is raised")})
	}
	if c, ok := command.(lease.GuardCall); ok {
		if err := e.disbelieve(c); err != nil {
			return append(replies, lease.Reply{ID: s.ID, Err: err})
		}
	}
	step := e.table.Step(m, lease.Request{ID: s.ID, Intake: s.Intake, Command: command})
	out := step.Replies
	e.auditNotes(m, step.Notes)
	switch c := command.(type) {
	case lease.SetGuarding:
		e.promiseGuards()
	case lease.GuardCall:
		if c.Request.GetEnrol() != nil {
			e.promiseGuards()
			out = e.reported(m, out)
		}
	}
	if c, ok := command.(lease.ForceRelease); ok && out[len(out)-1].Err == nil {
		// Its own answer is the last: the end of a lease that had run out may have served a waiter before.
		info, _ := out[len(out)-1].Value.(lease.Info)
		e.audit(m, audit.Record{
			Actor: string(c.Principal), Action: "lease.force-release", Target: string(c.Resource), Reason: c.Reason,
			Detail: forced(c, info),
		})
	}
	return append(replies, out...)
}

// grows says whether a command would make the state grow for as long as its resource is known.
func (e *Engine) grows(intake clock.Instant, command lease.Command) bool {
	switch c := command.(type) {
	case lease.Acquire:
		return !e.table.Known(c.Resource)
	case lease.Checkpoint:
		return e.table.Grows(intake, c)
	}
	return false
}

func forced(c lease.ForceRelease, info lease.Info) map[string]string {
	detail := map[string]string{"token": info.Token.Decimal(), "holder": info.Holder.String(), "remaining": info.Remaining.String()}
	if c.Now {
		detail["now"] = "true"
		detail["exception"] = "S4: until its deadline the holder believes that it holds the resource; guards refuse it"
	}
	return detail
}

// auditNotes puts what the table tells into the audit log.
func (e *Engine) auditNotes(m lease.Moment, notes []lease.Note) {
	for _, n := range notes {
		e.audit(m, audit.Record{Actor: n.Actor, Action: n.Action, Target: n.Target, Reason: n.Reason, Detail: n.Detail})
	}
}

// audit puts a record into the commit of this round, beside what it tells.
func (e *Engine) audit(m lease.Moment, r audit.Record) {
	r.At = m.Wall
	head := audit.Head{Sequence: e.identity.AuditSequence, Hash: e.identity.AuditHash}
	stored, next, err := audit.Append(head, r)
	if err != nil {
		panic(fmt.Sprintf("quorum: %v", err))
	}
	e.identity.AuditSequence, e.identity.AuditHash = next.Sequence, next.Hash
	e.add(Write{Key: AuditKey(next.Sequence), Value: stored})
	if mutant.On(mutant.AuditHeadLost) {
		return
	}
	e.dirtyID = true
}

// add puts a write beside the table's into the commit of this round.
func (e *Engine) add(w Write) {
	e.extra = append(e.extra, w)
	e.extraBytes += len(w.Key) + len(w.Value) + packedOverhead
}

// reserve raises the ceiling when half of a block is left. The new tokens may be handed out when the commit has been
// applied and this node's witness knows of it.
func (e *Engine) reserve() {
	if e.reserved != 0 || e.table.TokensLeft() >= e.config.TokenBlock/2+roundRequested {
		return
	}
	e.identity.Ceiling += e.config.TokenBlock
	if mutant.On(mutant.CeilingNotCommitted) {
		e.table.Extend(e.identity.Ceiling)
		return
	}
	e.reserved, e.unsent = e.identity.Ceiling, true
	e.dirtyID = true
}

// writes collects what the decisions changed, one write per key.
func (e *Engine) writes() []Write {
	var writes []Write
	e.table.Dirty(func(c lease.Change) { writes = appendChange(writes, c) })
	rules := e.table.DirtyGuards(func(c lease.GuardChange) {
		w := Write{Key: GuardKey(c.Name)}
		if c.Record != nil {
			w.Value = marshal(c.Record)
		}
		writes = append(writes, w)
	})
	if rules != nil {
		writes = append(writes, Write{Key: KeyGuarding, Value: marshal(rules)})
	}
	return append(e.regionWrites(writes), e.takeWrites()...)
}

// takeWrites collects what changed beside the table.
func (e *Engine) takeWrites() []Write {
	writes := e.extra
	e.extra, e.extraBytes = nil, 0
	if e.dirtyID {
		e.dirtyID = false
		writes = append(writes, identityWrite(e.identity))
	}
	return writes
}

// appendChange turns one changed record into its writes. A checkpoint stands under a key of its own: it may be 64 KiB,
// and most changes of the record leave it alone.
func appendChange(writes []Write, c lease.Change) []Write {
	if c.CheckpointChanged {
		w := Write{Key: CheckpointKey(c.Resource)}
		if len(c.Checkpoint) > 0 {
			w.Value = c.Checkpoint
		}
		writes = append(writes, w)
	}
	w := Write{Key: LeaseKey(c.Resource)}
	if c.Record != nil {
		value, err := c.Record.AppendBinary(nil)
		if err != nil {
			panic(fmt.Sprintf("quorum: record of %q: %v", c.Resource, err))
		}
		w.Value = value
	}
	return append(writes, w)
}

func identityWrite(id proto.Message) Write { return Write{Key: KeyIdentity, Value: marshal(id)} }

// marshal encodes a record. Its texts have been checked when they came in.
func marshal(rec proto.Message) []byte {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(rec)
	if err != nil {
		panic(fmt.Sprintf("quorum: %T: %v", rec, err))
	}
	return value
}

// send starts a round if there is anything to commit, to answer or to find out.
func (e *Engine) send(replies []lease.Reply, writes []Write) {
	if leavesAtOnce(replies, len(writes) > 0) {
		e.effects.Replies, replies = append(e.effects.Replies, replies...), nil
	}
	if len(replies) == 0 && len(writes) == 0 && !e.doubt {
		return
	}
	e.doubt = false
	r := &round{number: e.nextRound(), replies: replies, commit: len(writes) > 0}
	if e.unsent && r.commit {
		r.ceiling, e.unsent = e.reserved, false
	}
	e.round = r
	e.effects.Round, e.effects.Term = r.number, e.term
	e.effects.Commit, e.effects.Confirm = writes, !r.commit
}

// leavesAtOnce says which answers do not wait for their round: none. Only a mutant thinks otherwise.
func leavesAtOnce(replies []lease.Reply, commit bool) bool {
	switch {
	case mutant.On(mutant.AnswerBeforeCommit):
		return commit
	case mutant.On(mutant.RenewalWithoutConfirm):
		return !commit
	case mutant.On(mutant.RefusalWithoutConfirm):
		return !commit && !slices.ContainsFunc(replies, func(r lease.Reply) bool { return r.Err == nil })
	}
	return false
}

func (e *Engine) nextRound() uint64 {
	e.rounds++
	return e.rounds
}

func (e *Engine) roundDone(m lease.Moment, ev RoundDone) {
	r := e.round
	if r == nil || r.number != ev.Round {
		return
	}
	if ev.Err != nil {
		e.roundFailed(m, r, ev.Err)
		return
	}
	e.round = nil
	e.gather.done(m.Now, len(r.replies), len(e.queue))
	e.effects.Replies = append(e.effects.Replies, r.replies...)
	if e.contradiction != nil && e.identity.Recovery != nil {
		e.becomeFollower(m, m.Now)
		return
	}
	if r.ceiling != 0 {
		e.effects.Witness = &Witnessed{Epoch: e.epoch(), Incarnation: e.identity.Incarnation, Ceiling: r.ceiling}
	}
}

// roundFailed gives the term up, in every case: what was decided is in the table and not in the store.
func (e *Engine) roundFailed(m lease.Moment, r *round, err error) {
	e.round = nil
	switch {
	case errors.Is(err, ErrDeposed):
		e.fail(r, lease.Errorf(lease.ReasonNotCoordinator, "another node has taken over"))
		if mutant.On(mutant.KeptTableAfterDeposed) && e.role == Serving {
			return
		}
	case errors.Is(err, ErrNoSpace):
		e.effects.Warning = "the store refuses writes: its storage quota is exceeded"
		e.fail(r, lease.Errorf(lease.ReasonNoQuorum, "the quorum's storage is full; nothing was changed"))
	case errors.Is(err, ErrTooLarge):
		e.effects.Warning = "a round exceeded the limits of a commit: " + err.Error()
		e.fail(r, lease.Errorf(lease.ReasonNoQuorum, "the request was part of a round that is too large; nothing was changed"))
	case !r.commit || mutant.On(mutant.UnknownTakenAsFailure):
		e.fail(r, lease.Errorf(lease.ReasonNoQuorum, "no majority confirmed the coordinator; nothing was changed"))
	default:
		e.fail(r, lease.Errorf(lease.ReasonUnknownOutcome, "the commit's outcome is not known; ask again with the same request id"))
	}
	e.becomeFollower(m, m.Now.Add(e.config.RetryClaim))
}

func (e *Engine) witnessed(m lease.Moment, ev Witnessed) {
	if e.identity == nil || ev.Epoch != e.epoch() {
		return
	}
	if e.role == Reserving {
		e.becomeServing(m, ev.Ceiling)
		return
	}
	if e.table != nil && e.reserved != 0 && ev.Ceiling >= e.reserved {
		e.table.Extend(e.reserved)
		e.reserved = 0
	}
}
