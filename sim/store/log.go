package store

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/world"
)

// image is everything that a member has applied up to an index. Nobody changes one; members share them.
type image struct {
	index, term uint64
	conf        *raftpb.ConfState
	members     []quorum.MemberInfo
	removed     []uint64 // ids of former members
	kv          *kv
}

// hard is raft's hard state.
type hard struct{ term, vote, commit uint64 }

// raftLog is what the disk of a member holds for raft: an image, and the entries from somewhere before its end. Everything in
// it is flushed, but for the commit index in hard, which raft can do without.
//
// Invariant: images[0].index <= durable.commit, and the first entry's index is at most images[0].index+1.
type raftLog struct {
	lineage *lineage
	member  uint64
	// images are the newest one and the one before, which may be on its way to somebody.
	images  [2]*image
	before  uint64 // index and term of the entry before entries
	term    uint64
	entries []*raftpb.Entry
	hard    hard
	durable hard // hard as it is flushed
	// present makes an image of what the member has applied, while it runs.
	present func() *image
}

// newRaftLog is the log of a member that begins with an image; nil for one that has nothing yet.
func newRaftLog(l *lineage, member uint64, i *image) *raftLog {
	if i == nil {
		return &raftLog{lineage: l, member: member, images: [2]*image{{conf: &raftpb.ConfState{}, kv: newKV()}}}
	}
	state := hard{term: i.term, commit: i.index}
	return &raftLog{
		lineage: l, member: member, images: [2]*image{i},
		before: i.index, term: i.term, hard: state, durable: state,
	}
}

func (l *raftLog) image() *image { return l.images[0] }

// imageAt is the image that a snapshot message is about; nil if it is gone.
func (l *raftLog) imageAt(index uint64) *image {
	for _, i := range l.images {
		if i != nil && i.index == index {
			return i
		}
	}
	return nil
}

func (l *raftLog) last() uint64 { return l.before + uint64(len(l.entries)) }

// InitialState implements raft.Storage, as do the next five.
func (l *raftLog) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return &raftpb.HardState{Term: &l.hard.term, Vote: &l.hard.vote, Commit: &l.hard.commit}, l.image().conf, nil
}

// Entries implements raft.Storage. The size counts as the number of entries: all are about as small.
func (l *raftLog) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	switch {
	case lo <= l.before:
		return nil, raft.ErrCompacted
	case hi > l.last()+1:
		return nil, raft.ErrUnavailable
	}
	hi = min(hi, lo+max(maxSize/entryBytes, 1))
	return l.entries[lo-l.before-1 : hi-l.before-1 : hi-l.before-1], nil
}

// entryBytes is about what raft takes the size of an entry to be.
const entryBytes = 24

// Term implements raft.Storage.
func (l *raftLog) Term(i uint64) (uint64, error) {
	switch {
	case i < l.before:
		return 0, raft.ErrCompacted
	case i == l.before:
		return l.term, nil
	case i > l.last():
		return 0, raft.ErrUnavailable
	}
	return l.entries[i-l.before-1].GetTerm(), nil
}

// LastIndex implements raft.Storage.
func (l *raftLog) LastIndex() (uint64, error) { return l.last(), nil }

// FirstIndex implements raft.Storage.
func (l *raftLog) FirstIndex() (uint64, error) { return l.before + 1, nil }

// Snapshot implements raft.Storage. As with etcd, it is of the present: an older one may not know the member that it is for. What
// it stands for is imageAt its index.
func (l *raftLog) Snapshot() (*raftpb.Snapshot, error) {
	l.remember(l.present())
	i := l.image()
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(i.index), Term: new(i.term), ConfState: i.conf}}, nil
}

// append adds entries, in place of what there is from the first one's index on.
func (l *raftLog) append(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	first := entries[0].GetIndex()
	if first <= l.before {
		panic("store: raft rewrites what is compacted")
	}
	keep := first - l.before - 1
	if keep == uint64(len(l.entries)) {
		l.entries = append(l.entries, entries...)
		return
	}
	l.entries = append(l.entries[:keep:keep], entries...) // raft may still read the others
}

// setHard writes the hard state; flushed says whether it is safe from then on.
func (l *raftLog) setHard(h *raftpb.HardState, flushed bool) {
	if !raft.IsEmptyHardState(h) {
		l.hard = hard{h.GetTerm(), h.GetVote(), h.GetCommit()}
	}
	if flushed {
		l.durable = l.hard
	}
}

// restore replaces everything by an image that the leader has sent.
func (l *raftLog) restore(i *image) {
	l.images = [2]*image{i, l.images[0]}
	l.before, l.term, l.entries = i.index, i.term, nil
	l.hard.commit = max(l.hard.commit, i.index)
	l.durable = l.hard
}

// remember keeps an image.
func (l *raftLog) remember(i *image) {
	if i.index > l.image().index {
		l.images = [2]*image{i, l.images[0]}
		l.durable.commit = max(l.durable.commit, i.index)
	}
}

// truncate drops the entries up to an index, which an image has to cover.
func (l *raftLog) truncate(index uint64) {
	term, _ := l.Term(index)
	l.entries = slices.Clone(l.entries[index-l.before:])
	l.before, l.term = index, term
}

// crash forgets what is not flushed. A disk that tears keeps the first records of what raft was about to write.
func (l *raftLog) crash(underWay *raft.Ready, torn *world.Dice) {
	if torn == nil || underWay == nil || !raft.IsEmptySnap(underWay.Snapshot) { // an image is whole or not there
		l.hard = l.durable
		return
	}
	// The records are the entries and then the hard state.
	records := len(underWay.Entries) + 1
	kept := torn.Intn(records + 1)
	l.append(underWay.Entries[:min(kept, len(underWay.Entries))])
	if kept == records {
		l.setHard(underWay.HardState, true)
	}
	l.hard = l.durable
}

// copy is what the disk holds, for putting it back later.
func (l *raftLog) copy() *raftLog {
	c := *l
	c.entries = slices.Clone(l.entries)
	c.hard, c.present = l.durable, nil
	return &c
}
