package store

import (
	"encoding/binary"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/world"
)

// replica is a member of a Raft cluster, for one life of its process.
//
// Invariant: unless busy or a flush is under way, raft has nothing ready.
type replica struct {
	cluster *Raft
	seat    *seat
	serial  uint64 // no other replica, of whatever process or life, has it
	log     *raftLog
	node    *raft.RawNode
	alarm   *world.Alarm
	ticks   int

	kv      *kv
	applied uint64
	term    uint64 // of the entry applied last
	conf    *raftpb.ConfState
	members []quorum.MemberInfo
	removed []uint64

	lead     uint64
	leads    bool
	busy     bool
	underWay *raft.Ready // being flushed: nil or &kept
	kept     raft.Ready
	incoming []*image // whose messages raft has
	dead     bool     // the life is over
	stopped  bool     // removed from the membership, or without a disk
	mute     bool     // nobody is to know what it applies
	changed  bool     // leadership or membership has, and nobody was told

	onFlushed func() // flushed, made once
	reads     reads
	watchers  watchers
	onChange  []func()
}

// Of the log, keepEntries stay behind an image, which is taken every imageEvery entries.
const (
	imageEvery  = 1000
	keepEntries = 500
)

func (c *Raft) newReplica(s *seat) *replica {
	i := s.log.image()
	r := &replica{
		cluster: c, seat: s, serial: c.serial(), log: s.log,
		kv: i.kv.clone(), applied: i.index, term: i.term,
		conf: i.conf, members: slices.Clone(i.members), removed: slices.Clone(i.removed),
	}
	r.watchers.dead, s.log.present, r.onFlushed = r.over, r.image, r.flushed
	node, err := raft.NewRawNode(&raft.Config{
		ID:              s.log.member,
		ElectionTick:    int(c.timing.Election / c.timing.Heartbeat),
		HeartbeatTick:   1,
		Storage:         s.log,
		Applied:         i.index,
		MaxSizePerMsg:   256 * entryBytes,
		MaxInflightMsgs: 512,
		CheckQuorum:     true,
		PreVote:         true,
		Logger:          quiet{},

		MaxCommittedSizePerReady: 1 << 40,
	})
	if err != nil {
		panic(err)
	}
	r.node = node
	return r
}

// open applies what the disk knows to be committed and begins to keep time.
func (r *replica) open() {
	r.pump()
	if r.mute {
		return
	}
	r.alarm = r.seat.process.NewAlarm(r.tick)
	r.setAlarm()
}

func (r *replica) setAlarm() {
	r.alarm.Set(r.seat.process.Clock.Now().Add(r.cluster.timing.Heartbeat))
}

// over says that nothing happens here any more.
func (r *replica) over() bool { return r.dead || r.stopped }

func (r *replica) tick() {
	if r.over() {
		return
	}
	r.setAlarm()
	r.ticks++
	if r.underWay == nil {
		r.log.durable = r.log.hard // nobody waits for the commit index, but it is not long on its way
	}
	r.node.Tick()
	r.makeKnown()
	r.reads.tick(r)
	r.pump()
}

// receive takes a message in.
func (s *seat) receive(l *lineage, m *raftpb.Message, i *image) {
	r := s.replica
	if r == nil || r.over() || r.log.lineage != l || r.log.member != m.GetTo() {
		return
	}
	if slices.Contains(r.removed, m.GetFrom()) {
		r.expel(m.GetFrom())
		return
	}
	if i != nil {
		r.incoming = append(r.incoming, i)
	}
	if r.step(m) {
		r.pump()
	} else {
		r.fail()
	}
}

// step has raft take a message in, and answers false if raft has found that its log has lost something: it panics then, as it
// may if a disk was put back.
func (r *replica) step(m *raftpb.Message) (sound bool) {
	defer func() {
		if !sound && r.cluster.lied {
			_ = recover()
		}
	}()
	_ = r.node.Step(m) // what raft does not want is as good as lost
	return true
}

// pump does what raft has ready, until it has nothing or a flush is under way.
func (r *replica) pump() {
	if r.busy || r.underWay != nil || r.over() {
		return
	}
	r.busy = true
	for !r.over() && r.node.HasReady() {
		rd := r.node.Ready()
		if !r.begin(&rd) {
			break
		}
		r.finish(&rd)
	}
	r.busy = false
	r.notify()
}

// begin does what need not wait for the disk, and answers false if the rest must.
func (r *replica) begin(rd *raft.Ready) bool {
	if rd.SoftState != nil {
		r.changed = r.changed || r.lead != rd.Lead || r.leads != (rd.RaftState == raft.StateLeader)
		r.lead, r.leads = rd.Lead, rd.RaftState == raft.StateLeader
	}
	if r.leads {
		// The leader may count on others before its own disk. What it owes as a follower of before must wait.
		r.send(rd.Messages, false, true)
	}
	snapshot := !raft.IsEmptySnap(rd.Snapshot)
	if r.seat.disk.Full && (rd.MustSync || snapshot || rd.HardState != nil) {
		r.fail()
		return false
	}
	if !rd.MustSync && !snapshot {
		return true
	}
	r.kept = *rd
	r.underWay = &r.kept
	r.seat.process.After(r.cluster.syncTime(r.seat), r.onFlushed)
	return false
}

// fail ends a replica whose disk is of no use.
func (r *replica) fail() {
	r.stopped, r.leads = true, false
	if f := r.seat.disk.OnFull; f != nil {
		f()
	}
}

func (r *replica) flushed() {
	if r.over() {
		return
	}
	rd := r.underWay
	r.underWay = nil
	r.busy = true
	r.finish(rd)
	r.busy = false
	r.pump()
	r.notify() // pump does not if the replica has just been removed
}

// finish does what had to wait for the disk.
func (r *replica) finish(rd *raft.Ready) {
	snapshot := !raft.IsEmptySnap(rd.Snapshot)
	r.log.setHard(rd.HardState, rd.MustSync || snapshot)
	if snapshot {
		r.install(rd.Snapshot.GetMetadata().GetIndex())
	}
	r.log.append(rd.Entries)
	r.send(rd.Messages, true, !r.leads)
	for _, state := range rd.ReadStates {
		r.reads.confirmed(r, state.Index, binary.BigEndian.Uint64(state.RequestCtx))
	}
	for _, e := range rd.CommittedEntries {
		if r.over() {
			return
		}
		r.apply(e)
	}
	r.reads.answer(r)
	if r.over() {
		return
	}
	r.node.Advance(*rd)
	if r.applied >= r.log.before+keepEntries+imageEvery {
		r.log.remember(r.image())
		r.log.truncate(r.applied - keepEntries)
	}
}

// promises says whether a message tells others what must be on the disk before.
func promises(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgAppResp, raftpb.MsgVoteResp, raftpb.MsgPreVoteResp:
		return true
	default:
		return false
	}
}

// apply applies a committed entry.
func (r *replica) apply(e *raftpb.Entry) {
	r.applied, r.term = e.GetIndex(), e.GetTerm()
	var cmd *command
	var conf *raftpb.ConfChange
	switch {
	case e.GetType() != raftpb.EntryNormal:
		conf = new(raftpb.ConfChange)
		if err := proto.Unmarshal(e.GetData(), conf); err != nil {
			panic(err)
		}
		cmd = r.cluster.command(conf.GetId())
	case len(e.GetData()) > 0:
		cmd = r.cluster.command(binary.BigEndian.Uint64(e.GetData()))
	default: // a new leader's first
		r.note(0, quorum.Change{})
		return
	}
	var err error
	var change quorum.Change
	if conf != nil {
		err = r.changeMembership(conf)
	} else if changed, refused := r.kv.apply(cmd); changed {
		change = quorum.Change{Revision: r.kv.revision, Entries: cmd.entries}
	} else {
		err = refused
		r.started(cmd)
	}
	r.note(cmd.id, change)
	if change.Revision > 0 {
		r.watchers.tell(r.kv, r.kv.revision)
	}
	if done := cmd.done; cmd.proposer == r.serial && done != nil && !r.dead {
		cmd.done = nil
		if err != nil {
			done(0, err)
		} else {
			done(r.kv.revision, nil)
		}
	}
}

func (r *replica) note(id uint64, change quorum.Change) {
	if !r.mute {
		r.cluster.applied(r.log.lineage, r.seat.process.Name, r.applied, id, change)
	}
}

// image is what the replica has applied.
func (r *replica) image() *image {
	return &image{
		index: r.applied, term: r.term, conf: r.conf,
		members: slices.Clone(r.members), removed: slices.Clone(r.removed), kv: r.kv.clone(),
	}
}

// install makes an image that the leader has sent the replica's state.
func (r *replica) install(index uint64) {
	at := slices.IndexFunc(r.incoming, func(i *image) bool { return i.index == index })
	i := r.incoming[at]
	r.incoming = nil
	r.log.restore(i)
	r.kv, r.applied, r.term = i.kv.clone(), i.index, i.term
	r.conf, r.members, r.removed = i.conf, slices.Clone(i.members), slices.Clone(i.removed)
	r.changed = true
	r.watchers.tell(r.kv, r.kv.revision)
}

// notify tells that leadership or membership may have changed.
func (r *replica) notify() {
	for r.changed && !r.dead {
		r.changed = false
		for _, f := range r.onChange {
			f()
		}
	}
}
