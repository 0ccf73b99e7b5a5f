package store

import (
	"fmt"
	"slices"
	"time"

	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/world"
)

// FastConfig says how badly a [Fast] behaves. A probability or a delay of 0 means its default, below 0 none.
type FastConfig struct {
	// Reach is how long a call usually takes to take effect, Reply how long the answer takes from then on, and Lag how long
	// it takes until the watches of another member tell. Each is evenly distributed up to twice that.
	// Default: a Sync and a half, half a Sync, one Sync.
	Reach, Reply, Lag time.Duration
	// In thousandths: Silent calls take effect and are never answered; Lost ones neither; Late ones take effect at some
	// time within three elections. Default: 2, 2, 2.
	Silent, Lost, Late int
}

func (c FastConfig) withDefaults(t Timing) FastConfig {
	c.Reach = withDefault(c.Reach, t.Sync*3/2)
	c.Reply = withDefault(c.Reply, t.Sync/2)
	c.Lag = withDefault(c.Lag, t.Sync)
	c.Silent, c.Lost, c.Late = withDefault(c.Silent, 2), withDefault(c.Lost, 2), withDefault(c.Late, 2)
	return c
}

func withDefault[T int | time.Duration](v, byDefault T) T {
	if v == 0 {
		return byDefault
	}
	return max(v, 0)
}

// Fast is the store as one copy that all members share. It promises what quorum.Store does and no more.
type Fast struct {
	world  *world.World
	net    *world.Network
	timing Timing
	config FastConfig
	dice   *world.Dice

	seats     map[*world.Process]*fastSeat
	byID      map[uint64]*fastSeat
	births    map[uint64]*fastLineage
	lastID    uint64
	lineages  []*fastLineage
	observers []func(int, quorum.Change)
}

var _ Cluster = (*Fast)(nil)

// fastSeat is a process, what its disk says, and the member that runs on it.
type fastSeat struct {
	process *world.Process
	disk    *Disk
	dice    *world.Dice
	data    fastData
	member  *fastMember // nil while it is down
}

// fastData is what is on a disk: who it is, and how far it has come. The state itself is the lineage's.
type fastData struct {
	lineage *fastLineage // nil: nothing
	id      uint64
	term    uint64
	applied int64
}

// fastLineage is one history, with its one copy of the state.
type fastLineage struct {
	cluster *Fast
	number  int
	kv      *kv
	members []quorum.MemberInfo
	voters  []*fastSeat
	seats   []*fastSeat // of all members

	term     uint64 // counts leaders
	leader   *fastSeat
	lostAt   time.Duration // when the leader was last seen to do its work
	patience time.Duration // for how long it may not
}

// NewFast makes a cluster whose first members are on the disks of the given processes.
func NewFast(w *world.World, net *world.Network, timing Timing, initial []*world.Process, config FastConfig) *Fast {
	c := &Fast{
		world: w, net: net, timing: timing, config: config.withDefaults(timing), dice: w.Dice("fast store"),
		seats: make(map[*world.Process]*fastSeat), byID: make(map[uint64]*fastSeat), births: make(map[uint64]*fastLineage),
	}
	c.found(newKV(), initial)
	c.check()
	return c
}

func (c *Fast) found(state *kv, processes []*world.Process) {
	l := c.newLineage(state)
	for _, p := range processes {
		c.lastID++
		s := c.seat(p)
		c.byID[c.lastID] = s
		s.data = fastData{lineage: l, id: c.lastID, term: 1, applied: state.revision}
		l.members = append(l.members, quorum.MemberInfo{ID: c.lastID, Name: p.Name, Started: true})
	}
	l.reseat()
}

func (c *Fast) newLineage(state *kv) *fastLineage {
	l := &fastLineage{cluster: c, number: len(c.lineages), kv: state, term: 1, lostAt: c.world.Now()}
	l.patience = c.electionTime()
	c.lineages = append(c.lineages, l)
	return l
}

// reseat finds out who serves the members.
func (l *fastLineage) reseat() {
	l.voters, l.seats = nil, nil
	for _, m := range l.members {
		s := l.cluster.byID[m.ID]
		if !m.Learner {
			l.voters = append(l.voters, s)
		}
		if s != nil {
			l.seats = append(l.seats, s)
		}
	}
}

func (l *fastLineage) member(id uint64) *quorum.MemberInfo {
	at := slices.IndexFunc(l.members, func(m quorum.MemberInfo) bool { return m.ID == id })
	if at < 0 {
		return nil
	}
	return &l.members[at]
}

func (c *Fast) seat(p *world.Process) *fastSeat {
	s := c.seats[p]
	if s != nil {
		return s
	}
	s = &fastSeat{process: p, dice: c.world.Dice("fast store " + p.Name)}
	s.disk = &Disk{
		Wipe:    func() { s.mustBeDown(); s.data = fastData{} },
		Image:   func() any { return s.data },
		PutBack: func(image any) { s.mustBeDown(); s.data = image.(fastData) },
		Holds:   func() (raftTerm, index uint64) { return s.data.term, uint64(s.data.applied) },
	}
	c.seats[p] = s
	return s
}

func (s *fastSeat) mustBeDown() {
	if s.member != nil {
		panic("store: the disk of " + s.process.Name + " is in use")
	}
}

// Open implements Cluster.
func (c *Fast) Open(p *world.Process) (Member, error) {
	s := c.seat(p)
	s.mustBeDown()
	if s.data.lineage == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoData, p.Name)
	}
	s.member = newFastMember(s)
	return s.member, nil
}

// Crash implements Cluster.
func (c *Fast) Crash(p *world.Process) {
	s := c.seat(p)
	m := s.member
	if m == nil {
		return
	}
	m.dead, s.member, s.disk.Torn = true, nil, false
	if l := m.lineage; l.leader == s {
		l.leader, l.lostAt = nil, c.world.Now()
	}
}

// Disk implements Cluster.
func (c *Fast) Disk(p *world.Process) *Disk { return c.seat(p).disk }

// Join implements Cluster.
func (c *Fast) Join(p *world.Process, id uint64) {
	s := c.seat(p)
	s.mustBeDown()
	l := c.births[id]
	if l == nil {
		panic(fmt.Sprintf("store: nobody has added member %d", id))
	}
	c.byID[id] = s
	s.data = fastData{lineage: l, id: id}
	l.reseat()
}

// Rebuild implements Cluster.
func (c *Fast) Rebuild(backup *Backup, processes []*world.Process) {
	for _, p := range processes {
		c.seat(p).mustBeDown()
	}
	c.found(restoreKV(backup), processes)
}

// ForceNew implements Cluster. The new cluster has everything that was decided, whether or not it had reached this disk.
func (c *Fast) ForceNew(p *world.Process) {
	s := c.seat(p)
	s.mustBeDown()
	if s.data.lineage == nil {
		panic("store: nothing on the disk of " + p.Name)
	}
	l := c.newLineage(s.data.lineage.kv.clone())
	l.term = s.data.term + 1
	l.members = []quorum.MemberInfo{{ID: s.data.id, Name: p.Name, Started: true}}
	s.data = fastData{lineage: l, id: s.data.id, term: l.term, applied: l.kv.revision}
	l.reseat()
}

// Observe implements Cluster.
func (c *Fast) Observe(f func(lineage int, change quorum.Change)) {
	c.observers = append(c.observers, f)
}

// OnDivergence implements Cluster: there is nothing that could diverge.
func (c *Fast) OnDivergence(func(what string)) {}

// apply lets a command take effect.
func (l *fastLineage) apply(cmd *command) (int64, error) {
	changed, err := l.kv.apply(cmd)
	if err != nil {
		return 0, err
	}
	if changed {
		revision := l.kv.revision
		for _, f := range l.cluster.observers {
			f(l.number, quorum.Change{Revision: revision, Entries: cmd.entries})
		}
		for _, s := range l.seats {
			if m := s.member; m != nil && m.lineage == l {
				m.expect()
			}
		}
	}
	return l.kv.revision, nil
}

// Behave ends the misbehaving: from now on every call is answered, in its time.
func (f *Fast) Behave() { f.config.Silent, f.config.Lost, f.config.Late = 0, 0, 0 }
