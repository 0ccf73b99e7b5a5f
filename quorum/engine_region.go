//writ:core

package quorum

import (
	"strings"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/region"
)

// How failover groups take part in a round: their machine is asked and ticked beside the table, which it acts upon, and what
// both changed goes into one commit.

var _ region.Tenures = (*lease.Table)(nil)

// What the machine may begin in one round, beside one promotion's step, and what is kept free of a round for that: each of
// its writes comes with a few more, of audit records and of the table.
const (
	regionWrites     = 128
	regionBytes      = 64 << 10
	regionRoomWrites = 1024
	regionRoomBytes  = 320 << 10
)

// loadRegion builds the machine beside the table.
func (e *Engine) loadRegion(m lease.Moment, state region.State) {
	e.machine = region.NewMachine(region.Config{
		Cluster: e.config.Cluster, Incarnation: e.identity.Incarnation, Epoch: e.epoch(), Term: int64(e.term),
		Approvers: e.config.Approvers,
	}, e.table)
	e.machine.Load(m, state)
	e.tellGuards()
	// What loading told belongs into the first commit: a step that does nothing hands it over.
	e.regionNotes(m, e.machine.Step(m, region.Gone{}))
}

// decideRegion steps the machine by one request and collects its answers.
func (e *Engine) decideRegion(m lease.Moment, s Submit, c region.Command, replies []lease.Reply) []lease.Reply {
	step := e.machine.Step(m, region.Request{ID: s.ID, Intake: s.Intake, Command: c})
	replies = append(replies, step.Replies...)
	return append(replies, e.regionNotes(m, step)...)
}

// tick lets time pass for the table, then for the machine.
func (e *Engine) tick(m lease.Moment, replies []lease.Reply) []lease.Reply {
	limit := lease.Tick{MaxWrites: roundWrites, MaxBytes: roundBytes}
	moves := e.machine.HasWork() || e.machine.NextDue() <= m.Now
	if moves {
		limit.MaxWrites -= regionRoomWrites
		limit.MaxBytes -= regionRoomBytes
	}
	limit.MaxWrites -= len(e.extra) + e.machine.DirtyWrites()
	limit.MaxBytes -= e.extraBytes + e.machine.DirtyBytes()
	due := e.table.Step(m, limit)
	e.auditNotes(m, due.Notes)
	replies = append(replies, due.Replies...)
	if moves && e.dirtyBytes() > roundBytes-regionRoomBytes+regionBytes {
		return replies // a request has left no room; the next round begins with none
	}
	step := e.machine.Step(m, region.Tick{MaxWrites: e.machine.DirtyWrites() + regionWrites, MaxBytes: e.machine.DirtyBytes() + regionBytes})
	replies = append(replies, step.Replies...)
	return append(replies, e.regionNotes(m, step)...)
}

// regionNotes puts what the machine tells into the audit log, and what the table did at its word. It answers what the table
// has to say to whom that concerned.
func (e *Engine) regionNotes(m lease.Moment, step *region.Effects) []lease.Reply {
	e.tellGuards()
	replies, notes := e.table.TakeLate()
	for i := range notes {
		if id := promotionOf(notes[i], step.Notes); id != "" {
			notes[i].Detail["promotion"] = id
		}
	}
	e.auditNotes(m, notes)
	e.auditNotes(m, step.Notes)
	if len(notes) > 0 {
		e.promiseGuards() // a rule may have been added
	}
	return replies
}

// tellGuards lets guards know of which history they are and who may open them without a quorum.
func (e *Engine) tellGuards() { e.table.SetQuorum(e.identity.Incarnation, e.machine.Approvers()) }

// reported lets the groups know of what guards did without a quorum.
func (e *Engine) reported(m lease.Moment, replies []lease.Reply) []lease.Reply {
	for _, r := range e.table.TakeReported() {
		step := e.machine.Step(m, region.Contradicted{Reported: r})
		replies = append(replies, e.regionNotes(m, step)...)
	}
	return replies
}

// promotionOf finds which promotion a change of a tenure is a step of, among what the machine told of the same moment; empty:
// none.
func promotionOf(tenure lease.Note, told []lease.Note) (id string) {
	for _, n := range told {
		if strings.HasPrefix(n.Action, "promotion.") && n.Detail["transition"] != "" && n.Detail["group"] == tenure.Detail["group"] && n.Action != "promotion.superseded" {
			id = n.Target
		}
	}
	return id
}

// regionWrites collects what the machine changed.
func (e *Engine) regionWrites(writes []Write) []Write {
	e.machine.Dirty(func(c region.Change) {
		w := Write{Key: RegionKey(c.Kind, c.Name)}
		if c.Record != nil {
			w.Value = marshal(c.Record)
		}
		writes = append(writes, w)
	})
	return writes
}

// dirtyWrites is how many writes the round takes so far.
func (e *Engine) dirtyWrites() int {
	return e.table.DirtyWrites() + e.machine.DirtyWrites() + len(e.extra)
}

// dirtyBytes bounds what the round takes so far.
func (e *Engine) dirtyBytes() int {
	return e.table.DirtyBytes() + e.machine.DirtyBytes() + e.extraBytes
}

// nextDue is when the next round has something to do that nobody asks for; not before there are tokens.
func (e *Engine) nextDue() clock.Instant {
	if e.table.TokensLeft() == 0 {
		return clock.Never
	}
	return min(e.table.NextDue(), e.machine.NextDue())
}
