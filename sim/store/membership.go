package store

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/writ-io/writ/quorum"
)

// Members implements Member.
func (r *replica) Members() []quorum.MemberInfo { return slices.Clone(r.members) }

// member is what the replica knows of a member; nil if it is none.
func (r *replica) member(id uint64) *quorum.MemberInfo {
	for i := range r.members {
		if r.members[i].ID == id {
			return &r.members[i]
		}
	}
	return nil
}

// AddMember implements Member.
func (r *replica) AddMember(name string, done func(id uint64, err error)) {
	c := r.cluster
	c.lastID++
	id := c.lastID
	c.births[id] = r.log.lineage
	r.proposeChange(raftpb.ConfChangeAddLearnerNode, id, name, func(err error) {
		if err != nil {
			id = 0
		}
		done(id, err)
	})
}

// PromoteMember implements Member.
func (r *replica) PromoteMember(id uint64, done func(error)) {
	if m := r.member(id); m == nil || !m.Learner {
		r.later(func() { done(ErrNoMember) })
		return
	}
	// The leader would know from what the learner has told it. What is on its disk says about the same.
	s := r.cluster.byID[id]
	if s == nil || s.log == nil || s.log.member != id || s.log.last() < r.applied/10*9 {
		r.later(func() { done(ErrNotReady) })
		return
	}
	r.proposeChange(raftpb.ConfChangeAddNode, id, "", done)
}

// RemoveMember implements Member.
func (r *replica) RemoveMember(id uint64, done func(error)) {
	if r.member(id) == nil {
		r.later(func() { done(ErrNoMember) })
		return
	}
	r.proposeChange(raftpb.ConfChangeRemoveNode, id, "", done)
}

func (r *replica) proposeChange(t raftpb.ConfChangeType, id uint64, name string, done func(error)) {
	if r.over() {
		r.later(func() { done(quorum.ErrUnknown) })
		return
	}
	cmd := &command{proposer: r.serial, done: func(_ int64, err error) { done(err) }}
	r.cluster.enter(cmd)
	change := &raftpb.ConfChange{Type: t.Enum(), NodeId: new(id), Id: new(cmd.id), Context: []byte(name)}
	if r.node.ProposeConfChange(change) != nil {
		cmd.done = nil
		r.later(func() { done(quorum.ErrUnknown) })
	}
	r.pump()
}

// changeMembership applies a decided change. One that does not fit is none, and raft must be told so by an empty one.
func (r *replica) changeMembership(change *raftpb.ConfChange) error {
	id, m := change.GetNodeId(), r.member(change.GetNodeId())
	var err error
	switch change.GetType() {
	case raftpb.ConfChangeAddLearnerNode:
		r.members = append(r.members, quorum.MemberInfo{ID: id, Name: string(change.GetContext()), Learner: true})
	case raftpb.ConfChangeAddNode:
		if m == nil || !m.Learner {
			err = ErrNoMember
			break
		}
		m.Learner = false
	case raftpb.ConfChangeRemoveNode:
		if m == nil || len(r.conf.Voters) == 1 && !m.Learner {
			err = ErrNoMember
			break
		}
		r.members = slices.DeleteFunc(r.members, func(m quorum.MemberInfo) bool { return m.ID == id })
		r.removed = append(r.removed, id)
	default:
	}
	if err != nil {
		r.node.ApplyConfChange(&raftpb.ConfChange{NodeId: new(raft.None)})
		return err
	}
	r.conf = r.node.ApplyConfChange(change)
	r.changed = true
	if change.GetType() == raftpb.ConfChangeRemoveNode && id == r.log.member {
		r.stop()
	}
	return nil
}

// stop ends a replica that is no member any more.
func (r *replica) stop() {
	id := r.log.member
	r.stopped, r.leads, r.lead, r.changed = true, false, 0, true
	r.members = slices.DeleteFunc(r.members, func(m quorum.MemberInfo) bool { return m.ID == id })
}

// makeKnown has the quorum know that this member has started, if it does not.
func (r *replica) makeKnown() {
	if m := r.member(r.log.member); m == nil || m.Started || r.lead == 0 || r.ticks%askAgain != 0 {
		return
	}
	r.propose(&command{kind: kindStarted, expect: int64(r.log.member)})
}

// started applies what makeKnown proposed.
func (r *replica) started(cmd *command) {
	if cmd.kind != kindStarted {
		return
	}
	if m := r.member(uint64(cmd.expect)); m != nil && !m.Started {
		m.Started, r.changed = true, true
	}
}
