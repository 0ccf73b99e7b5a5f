package store

import (
	"time"

	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/world"
)

// Member is one node's part of the store while its process lives: [quorum.Member] without waiting. What a method of the same
// name promises there is promised here, but that no context bounds a call: the answer may never come.
type Member interface {
	Claim(value []byte, done func(quorum.Term, error))
	Load(done func(entries []quorum.Entry, revision int64, err error))
	Commit(term quorum.Term, writes []quorum.Write, done func(revision int64, err error))
	Confirm(term quorum.Term, done func(error))
	Announce(write quorum.Write, done func(revision int64, err error))
	Head(done func(revision int64, err error))
	// Watch delivers every change from a revision on, as this member applies it, until stop is called or the process
	// ends; first, at once, those that it has applied already. ended is called, and nothing delivered any more, if the
	// history from there on is gone: with quorum.ErrCompacted. Both may be called before Watch returns. Entries are shared between members: nobody changes them.
	Watch(from int64, deliver func(quorum.Change), ended func(error)) (stop func())
	// Leads says whether this member is the raft leader, or whatever stands for it.
	Leads() bool
	// OnChange has f called whenever leadership or membership may have changed here.
	OnChange(f func())

	ID() uint64
	Progress() quorum.Progress
	Members() []quorum.MemberInfo
	AddMember(name string, done func(id uint64, err error))
	PromoteMember(id uint64, done func(error))
	RemoveMember(id uint64, done func(error))
	MoveLeader(to uint64)
	Compact(revision int64)
	// Backup is an image of the state as this member has it.
	Backup() *Backup
}

// Backup is the state at a revision, without the membership.
type Backup struct {
	Revision int64
	Entries  []quorum.Entry
}

// Cluster is the store of all nodes of a run: their disks, and what they say to each other.
type Cluster interface {
	// Open starts the member of a process that has just been started, on what its disk holds. The error is
	// ErrNoData if there is nothing on it.
	Open(p *world.Process) (Member, error)
	// Crash is called when a process dies, before it does: what its disk has not flushed is lost.
	Crash(p *world.Process)
	// Disk is the disk of a process.
	Disk(p *world.Process) *Disk
	// Join prepares the empty disk of a process for the member id that AddMember answered under its name.
	Join(p *world.Process, id uint64)
	// Rebuild replaces the whole cluster: the processes, none of which is up, become its only members, with new ids, and each
	// of their disks holds the backup. Members of before are strangers to those of after.
	Rebuild(backup *Backup, processes []*world.Process)
	// ForceNew makes the member on a process's disk, which is not up, the only one of a cluster of its own.
	ForceNew(p *world.Process)
	// Observe has f called once for each change of the store, in order, when the first member applies it. A lineage is the
	// history since the last Rebuild or ForceNew: they count up from 0, and what they lose is not told.
	Observe(f func(lineage int, c quorum.Change))
	// OnDivergence has f called if members of one lineage apply different changes at one place, or if one that was applied
	// is lost without disks that lie: never, if the store keeps its promises.
	OnDivergence(f func(what string))
}

// Timing of a store.
type Timing struct {
	Heartbeat, Election time.Duration
	// Sync is how long a disk usually takes to flush.
	Sync time.Duration
}
