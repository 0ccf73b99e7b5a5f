package store

import (
	"encoding/binary"
	"slices"

	"github.com/writ-io/writ/quorum"
)

// ID implements Member.
func (r *replica) ID() uint64 { return r.log.member }

// Leads implements Member.
func (r *replica) Leads() bool { return r.leads }

// OnChange implements Member.
func (r *replica) OnChange(f func()) { r.onChange = append(r.onChange, f) }

// Progress implements Member.
func (r *replica) Progress() quorum.Progress {
	return quorum.Progress{
		RaftTerm: r.log.hard.term, AppliedIndex: r.applied, Revision: r.kv.revision,
		Leader: r.lead, DBBytes: r.kv.bytes, DBFileBytes: r.kv.bytes,
	}
}

// later calls f in this life, but not from within the present call.
func (r *replica) later(f func()) { r.seat.process.After(0, f) }

// propose has the quorum decide a command. Whether it does shows when it is applied, if ever.
func (r *replica) propose(cmd *command) {
	if !r.over() {
		r.cluster.enter(cmd)
		if r.node.Propose(binary.BigEndian.AppendUint64(nil, cmd.id)) == nil {
			r.pump()
			return
		}
	}
	if done := cmd.done; done != nil {
		cmd.done = nil
		r.later(func() { done(0, quorum.ErrUnknown) })
	}
}

// Claim implements Member.
func (r *replica) Claim(value []byte, done func(quorum.Term, error)) {
	if value == nil {
		value = noHead
	}
	r.propose(&command{
		kind: kindClaim, expect: r.kv.record.Revision, writes: []quorum.Write{{Key: quorum.KeyTerm, Value: value}},
		proposer: r.serial, done: func(revision int64, err error) { done(quorum.Term(revision), err) },
	})
}

// Commit implements Member.
func (r *replica) Commit(term quorum.Term, writes []quorum.Write, done func(revision int64, err error)) {
	if tooLarge(writes) {
		r.later(func() { done(0, quorum.ErrTooLarge) })
		return
	}
	r.propose(&command{kind: kindCommit, term: term, writes: slices.Clone(writes), proposer: r.serial, done: done})
}

// Announce implements Member.
func (r *replica) Announce(write quorum.Write, done func(revision int64, err error)) {
	r.propose(&command{kind: kindAnnounce, writes: []quorum.Write{write}, proposer: r.serial, done: done})
}

// Load implements Member.
func (r *replica) Load(done func(entries []quorum.Entry, revision int64, err error)) {
	r.reads.begin(r, func() { done(r.kv.load(), r.kv.revision, nil) })
}

// Head implements Member.
func (r *replica) Head(done func(revision int64, err error)) {
	r.reads.begin(r, func() { done(r.kv.revision, nil) })
}

// Confirm implements Member.
func (r *replica) Confirm(term quorum.Term, done func(error)) {
	r.reads.begin(r, func() {
		if r.kv.holds(term) {
			done(nil)
		} else {
			done(quorum.ErrDeposed)
		}
	})
}

// Watch implements Member.
func (r *replica) Watch(from int64, deliver func(quorum.Change), ended func(error)) (stop func()) {
	return r.watchers.add(r.kv, r.kv.revision, from, deliver, ended)
}

// MoveLeader implements Member.
func (r *replica) MoveLeader(to uint64) {
	if r.leads && !r.over() {
		r.node.TransferLeader(to)
		r.pump()
	}
}

// Compact implements Member: on every member, in the order of commits.
func (r *replica) Compact(revision int64) {
	r.propose(&command{kind: kindCompact, expect: revision})
}

// Backup implements Member.
func (r *replica) Backup() *Backup { return r.kv.backup() }
