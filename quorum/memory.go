//writ:core

package quorum

import (
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// What a node remembers in its witness, and when it tells the others. The functions answer the next record and never change
// one in place; whose it is (cluster, node and member) is the shell's to fill in.

// NoteIdentity answers w with what the quorum has committed about itself, and with what NoteProgress adds; w itself if
// there is nothing new. What contradicts the witness is not noted: a contradiction has to be seen, not overwritten.
func NoteIdentity(w *writv1.WitnessRecord, id *writv1.IdentityRecord, revision int64, earlier Progress) *writv1.WitnessRecord {
	if id == nil {
		return w
	}
	newer := id.Epoch > w.Epoch
	same := id.Epoch == w.Epoch && w.Foreign == "" && (w.Incarnation == "" || w.Incarnation == id.Incarnation)
	if !newer && !same {
		return w
	}
	if !newer && w.Incarnation == id.Incarnation && w.Ceiling >= id.Ceiling && w.MaxTtlMs >= id.MaxTtlMs {
		return w
	}
	next := proto.CloneOf(w)
	if newer {
		next.Ceiling, next.Foreign, next.Revision = 0, "", 0
	}
	next.Incarnation, next.Epoch = id.Incarnation, id.Epoch
	next.Ceiling = max(next.Ceiling, id.Ceiling)
	next.MaxTtlMs = max(next.MaxTtlMs, id.MaxTtlMs)
	return NoteProgress(next, revision, earlier)
}

// NoteProgress answers w with how far the store has come: the revision that this node has seen, and how far its member was
// a while ago. A member may apply an entry a moment before its own log has it on disk, and the witness is held against the
// log, so what is noted must be on disk by now.
func NoteProgress(w *writv1.WitnessRecord, revision int64, earlier Progress) *writv1.WitnessRecord {
	next := proto.CloneOf(w)
	if w.Incarnation == "" || w.Foreign != "" {
		return next
	}
	next.RaftTerm, next.AppliedIndex = max(w.RaftTerm, earlier.RaftTerm), max(w.AppliedIndex, earlier.AppliedIndex)
	next.Revision = max(w.Revision, revision)
	return next
}

// NoteCeiling answers w with a committed ceiling, and whether that holds it: a witness of another history does not, and is
// left alone. Only when what holds it has been saved may its tokens be handed out. What was committed comes with the
// ceiling: this node's view may not have it yet.
func NoteCeiling(w *writv1.WitnessRecord, ceiling Witnessed) (next *writv1.WitnessRecord, holds bool) {
	epoch := uint32(ceiling.Epoch)
	if w.Foreign != "" || w.Epoch > epoch || (w.Epoch == epoch && w.Incarnation != "" && w.Incarnation != ceiling.Incarnation) {
		return w, false
	}
	next = proto.CloneOf(w)
	if w.Epoch < epoch {
		next.Ceiling, next.Revision = 0, 0
	}
	next.Incarnation, next.Epoch = ceiling.Incarnation, epoch
	next.Ceiling = max(next.Ceiling, ceiling.Ceiling)
	return next, true
}

// WorthAnnouncing says whether a node should announce next, when known is what the quorum has of it (nil: nothing).
// Progress moves all the time and is not worth an announcement of its own.
func WorthAnnouncing(known, next *writv1.NodeRecord) bool {
	was := known.GetWitness()
	if was == nil {
		return true
	}
	if w := next.Witness; was.Epoch == w.GetEpoch() && was.Incarnation == w.GetIncarnation() {
		next = proto.CloneOf(next)
		next.Witness.RaftTerm, next.Witness.AppliedIndex, next.Witness.Revision = was.RaftTerm, was.AppliedIndex, was.Revision
		next.Witness.Ceiling = was.Ceiling
	}
	return !proto.Equal(known, next)
}

// LogEnd is where the log of a member's store ends.
type LogEnd struct {
	RaftTerm  uint64
	LastIndex uint64
}

// Restarted answers w for a member that is yet to be made: its positions in the log begin again, what may have been handed
// out does not.
func (w Witness) Restarted() Witness {
	w.MemberID, w.RaftTerm, w.AppliedIndex, w.Revision = 0, 0, 0, 0
	return w
}

// AheadOf says that the witness has seen more of its member's log than is left of it. Such a store was put back to an older
// state, and must not start: raft counts on a member that forgets nothing.
func (w Witness) AheadOf(log LogEnd) bool {
	return log.LastIndex < w.AppliedIndex || log.RaftTerm < w.RaftTerm
}
