package store

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/world"
)

// Raft is the store as raft replicas on simulated disks. raft draws its election timeouts from crypto/rand: whoever drives
// the world does so within [world.Seeded].
type Raft struct {
	world  *world.World
	net    *world.Network
	timing Timing

	seats    map[*world.Process]*seat
	byID     map[uint64]*seat    // where each member id lives
	births   map[uint64]*lineage // of the ids that AddMember has answered
	lastID   uint64
	lineages int
	serials  uint64 // of replicas and reads
	commands []*command
	lied     bool // a disk was put back to an older state

	observers   []func(int, quorum.Change)
	onDivergent []func(string)
}

var _ Cluster = (*Raft)(nil)

// seat is what stays of a process when it crashes: its disk, and what serves on it at present.
type seat struct {
	process *world.Process
	disk    *Disk
	dice    *world.Dice // of flushes
	torn    *world.Dice
	log     *raftLog // nil: the disk is empty
	replica *replica // nil while it is down
}

// lineage is one history of the store: what a cluster decides from a Rebuild or ForceNew to the next.
type lineage struct {
	number   int
	observed int64 // the newest revision that the observers know
	base     uint64
	applied  []uint64 // what was applied at index base+1 and so on: the id of the command, 0 for none
}

// NewRaft makes a cluster whose first members are on the disks of the given processes.
func NewRaft(w *world.World, net *world.Network, timing Timing, initial []*world.Process) *Raft {
	c := &Raft{
		world: w, net: net, timing: timing,
		seats: make(map[*world.Process]*seat), byID: make(map[uint64]*seat), births: make(map[uint64]*lineage),
	}
	c.found(newKV(), initial)
	return c
}

// found makes processes the members of a new cluster that begins with a state.
func (c *Raft) found(state *kv, processes []*world.Process) {
	l := c.newLineage(state.revision, firstIndex)
	first := &image{index: firstIndex, term: 1, conf: &raftpb.ConfState{}, kv: state}
	for _, p := range processes {
		c.lastID++
		c.byID[c.lastID] = c.seat(p)
		first.conf.Voters = append(first.conf.Voters, c.lastID)
		first.members = append(first.members, quorum.MemberInfo{ID: c.lastID, Name: p.Name, Started: true})
	}
	for i, p := range processes {
		c.seat(p).log = newRaftLog(l, first.members[i].ID, first)
	}
}

// firstIndex is where a new log begins. It is not 0, so that whoever joins with nothing is sent an image.
const firstIndex = 1

func (c *Raft) newLineage(observed int64, base uint64) *lineage {
	l := &lineage{number: c.lineages, observed: observed, base: base}
	c.lineages++
	return l
}

func (c *Raft) seat(p *world.Process) *seat {
	s := c.seats[p]
	if s != nil {
		return s
	}
	s = &seat{process: p, dice: c.world.Dice("flush " + p.Name), torn: c.world.Dice("torn " + p.Name)}
	s.disk = &Disk{
		Wipe: func() { s.mustBeDown(); s.log = nil },
		Image: func() any {
			if s.log == nil {
				return (*raftLog)(nil)
			}
			return s.log.copy()
		},
		PutBack: func(image any) {
			s.mustBeDown()
			s.log, c.lied = nil, true
			if l := image.(*raftLog); l != nil {
				s.log = l.copy()
			}
		},
		Holds: func() (raftTerm, index uint64) {
			if s.log == nil {
				return 0, 0
			}
			return s.log.durable.term, s.log.last()
		},
	}
	c.seats[p] = s
	return s
}

func (s *seat) mustBeDown() {
	if s.replica != nil {
		panic("store: the disk of " + s.process.Name + " is in use")
	}
}

// Open implements Cluster.
func (c *Raft) Open(p *world.Process) (Member, error) {
	s := c.seat(p)
	s.mustBeDown()
	if s.log == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoData, p.Name)
	}
	s.replica = c.newReplica(s)
	s.replica.open()
	return s.replica, nil
}

// Crash implements Cluster.
func (c *Raft) Crash(p *world.Process) {
	s := c.seat(p)
	r := s.replica
	if r == nil {
		return
	}
	s.replica = nil
	r.dead = true
	if s.disk.Torn {
		s.log.crash(r.underWay, s.torn)
	} else {
		s.log.crash(r.underWay, nil)
	}
	s.disk.Torn = false
}

// Disk implements Cluster.
func (c *Raft) Disk(p *world.Process) *Disk { return c.seat(p).disk }

// Join implements Cluster.
func (c *Raft) Join(p *world.Process, id uint64) {
	s := c.seat(p)
	s.mustBeDown()
	l := c.births[id]
	if l == nil {
		panic(fmt.Sprintf("store: nobody has added member %d", id))
	}
	s.log = newRaftLog(l, id, nil)
	c.byID[id] = s
}

// Rebuild implements Cluster.
func (c *Raft) Rebuild(backup *Backup, processes []*world.Process) {
	for _, p := range processes {
		c.seat(p).mustBeDown()
	}
	c.found(restoreKV(backup), processes)
}

// ForceNew implements Cluster. As with etcd, what the disk does not know to be committed is dropped.
func (c *Raft) ForceNew(p *world.Process) {
	s := c.seat(p)
	s.mustBeDown()
	if s.log == nil {
		panic("store: nothing on the disk of " + p.Name)
	}
	// A replica that nobody hears of applies what is committed.
	r := c.newReplica(s)
	r.mute = true
	r.open()
	r.dead = true
	now := r.image()
	now.conf = &raftpb.ConfState{Voters: []uint64{s.log.member}}
	now.members = []quorum.MemberInfo{{ID: s.log.member, Name: p.Name, Started: true}}
	state := hard{term: s.log.durable.term, commit: now.index}
	s.log = newRaftLog(c.newLineage(now.kv.revision, now.index), s.log.member, now)
	s.log.hard, s.log.durable = state, state
}

// Observe implements Cluster.
func (c *Raft) Observe(f func(lineage int, change quorum.Change)) {
	c.observers = append(c.observers, f)
}

// OnDivergence implements Cluster.
func (c *Raft) OnDivergence(f func(what string)) { c.onDivergent = append(c.onDivergent, f) }

// applied takes down that somebody has applied a command at an index, 0 for none, and what it changed.
func (c *Raft) applied(l *lineage, who string, index, id uint64, change quorum.Change) {
	if uint64(len(l.applied)) < index-l.base-1 {
		panic("store: " + who + " has skipped an index")
	}
	if at := index - l.base - 1; at == uint64(len(l.applied)) {
		l.applied = append(l.applied, id)
	} else if l.applied[at] != id {
		for _, f := range c.onDivergent {
			f(fmt.Sprintf("%s applied command %d at index %d, others %d", who, id, index, l.applied[at]))
		}
		return
	}
	if change.Revision == l.observed+1 {
		l.observed = change.Revision
		c.world.Note(id ^ uint64(change.Revision)<<32)
		for _, f := range c.observers {
			f(l.number, change)
		}
	}
}

// enter gives a command its id.
func (c *Raft) enter(cmd *command) {
	c.commands = append(c.commands, cmd)
	cmd.id = uint64(len(c.commands))
}

func (c *Raft) command(id uint64) *command { return c.commands[id-1] }

func (c *Raft) serial() uint64 {
	c.serials++
	return c.serials
}

// syncTime draws how long a flush of a disk takes.
func (c *Raft) syncTime(s *seat) time.Duration {
	return c.timing.Sync + s.dice.Between(0, c.timing.Sync/2) + s.disk.Slower
}
