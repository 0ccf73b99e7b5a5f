package sim

import (
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/trace"
)

// note is something to be written into the witness.
type note struct {
	change func(*writv1.WitnessRecord) *writv1.WitnessRecord
	then   func()
}

// remember writes into the witness, one note after the other, and calls then when it is on disk.
func (n *node) remember(change func(*writv1.WitnessRecord) *writv1.WitnessRecord, then func()) {
	n.notes = append(n.notes, note{change, then})
	if len(n.notes) == 1 {
		n.writeNote()
	}
}

func (n *node) writeNote() {
	next := n.notes[0].change(n.witness)
	if next != n.witness {
		next.Cluster, next.Node, next.MemberId = clusterName, n.name(), n.member.ID()
	}
	if next == n.witness || proto.Equal(next, n.witness) {
		n.noted()
		return
	}
	n.process.After(n.run.plan.SyncDelay+n.run.store.Disk(n.process).Slower, func() {
		n.witness = next
		n.noted()
	})
}

func (n *node) noted() {
	then := n.notes[0].then
	n.notes = n.notes[1:]
	then()
	if len(n.notes) > 0 {
		n.writeNote()
	}
}

// herald keeps the witness and the announcement up to date with what the quorum commits, and hands everybody's to the engine.
func (n *node) herald() {
	n.remember(func(w *writv1.WitnessRecord) *writv1.WitnessRecord {
		return quorum.NoteIdentity(w, n.image.Identity(), n.image.Revision(), n.earlier)
	}, func() {
		n.announce()
		n.stepSoon(quorum.NodesChanged{Nodes: n.image.Nodes(), Members: n.member.Members()})
	})
}

// witnessCeiling makes a committed ceiling part of the node's memory. One that cannot remember tries to hand over.
func (n *node) witnessCeiling(ceiling quorum.Witnessed) {
	holds := false
	n.remember(func(w *writv1.WitnessRecord) (next *writv1.WitnessRecord) {
		next, holds = quorum.NoteCeiling(w, ceiling)
		return next
	}, func() {
		if holds {
			n.stepSoon(ceiling)
			return
		}
		n.run.oper.move(nil, func(bool) {})
		n.process.After(retryEvery, func() { n.witnessCeiling(ceiling) })
	})
}

func (n *node) progress() {
	earlier, revision := n.earlier, n.image.Revision()
	n.remember(func(w *writv1.WitnessRecord) *writv1.WitnessRecord { return quorum.NoteProgress(w, revision, earlier) }, func() {})
	n.earlier = n.member.Progress()
}

func (n *node) announce() {
	known := n.image.Node(n.name())
	next := &writv1.NodeRecord{
		Name: n.name(), Region: n.process.Region, PeerUrl: n.name(), MemberId: n.member.ID(), Principal: "node/" + n.name(),
		Witness: n.witness, RecoveryId: n.image.Identity().GetRecovery().GetId(),
	}
	if n.telling || n.image.Revision() == 0 && n.member.Progress().Revision > 0 || !quorum.WorthAnnouncing(known, next) {
		return
	}
	value, err := proto.Marshal(next)
	if err != nil {
		panic(err)
	}
	n.telling = true
	done := n.bounded(2*n.run.plan.Election, func(err error) {
		if err != nil {
			n.process.After(retryEvery, func() {
				n.telling = false
				n.announce()
			})
			return
		}
		n.telling = false
		n.announce()
	})
	n.member.Announce(quorum.Write{Key: quorum.NodeKey(n.name()), Value: value}, func(revision int64, err error) {
		if err != nil {
			done(err)
			return
		}
		n.reach(func() bool { return n.image.Revision() >= revision }, revision, func() { done(nil) })
	})
}

// keepHouse gives learners their votes, and drops old history.
func (n *node) keepHouse() {
	if !n.member.Leads() {
		return
	}
	for _, m := range n.member.Members() {
		if m.Learner && m.Started {
			n.member.PromoteMember(m.ID, func(err error) {
				if err == nil {
					n.run.mark(MarkLearnerPromoted)
				}
			})
		}
	}
	if now := n.run.world.Now(); now/compactEvery != (now-houseEvery)/compactEvery {
		if revision := n.image.Revision() - keepRevisions; revision > 0 {
			n.member.Compact(revision)
		}
	}
}

// do hands a command to the engine, as an operator's tool would at this node.
func (n *node) do(command any, done func(lease.Reply)) {
	if !n.decides() && (n.engine == nil || n.engine.Role() == quorum.Follower) {
		done(lease.Reply{Err: lease.Errorf(lease.ReasonNotCoordinator, "%s does not decide", n.name())})
		return
	}
	n.lastID++
	n.open[n.lastID] = &served{command: command, intake: n.run.world.Now(), answer: done}
	n.run.story.event(n.process, trace.EventOperator, "%T", command)
	n.stepSoon(quorum.Submits{{ID: n.lastID, Intake: n.process.Clock.Now(), Command: command}})
}
