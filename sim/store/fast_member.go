package store

import (
	"slices"
	"time"

	"github.com/writ-io/writ/quorum"
)

// fastMember is a member of a Fast cluster, for one life of its process.
type fastMember struct {
	cluster *Fast
	lineage *fastLineage
	seat    *fastSeat
	id      uint64
	life    uint64

	leads    bool
	leaving  bool // about to find out that it does not lead any more
	dead     bool // the life is over
	stopped  bool // removed from the membership, or without a disk
	expected bool // a delivery is scheduled

	deliver  func() // m.advance to the end
	watchers watchers
	onChange []func()
}

func newFastMember(s *fastSeat) *fastMember {
	l := s.data.lineage
	m := &fastMember{cluster: l.cluster, lineage: l, seat: s, id: s.data.id, life: s.process.Life()}
	m.stopped = l.member(m.id) == nil && s.data.applied > 0
	m.watchers.dead = m.over
	m.deliver = func() {
		m.expected = false
		if l.reachable(s) { // else the next check that finds it so makes up for it
			m.advance(l.kv.revision)
		}
	}
	return m
}

func (m *fastMember) over() bool { return m.dead || m.stopped }

// tell calls whoever wants to know of changes, in this life.
func (m *fastMember) tell() {
	m.seat.process.DoIn(m.life, func() {
		for _, f := range m.onChange {
			if m.dead {
				return
			}
			f()
		}
	})
}

// expect schedules the delivery of what has been decided.
func (m *fastMember) expect() {
	if m.expected || m.over() || len(m.watchers.all) == 0 {
		return
	}
	m.expected = true
	m.seat.process.After(m.draw(m.cluster.config.Lag), m.deliver)
}

// draw draws a delay with that mean.
func (m *fastMember) draw(mean time.Duration) time.Duration {
	return m.seat.dice.Between(0, 2*mean) + m.seat.disk.Slower
}

// advance applies what was decided up to a revision.
func (m *fastMember) advance(revision int64) {
	if m.over() || m.seat.data.applied >= revision {
		return
	}
	if m.seat.disk.Full {
		m.stopped, m.leads = true, false
		if f := m.seat.disk.OnFull; f != nil {
			f()
		}
		return
	}
	m.seat.data.applied, m.seat.data.term = revision, m.lineage.term
	m.watchers.tell(m.lineage.kv, revision)
}

// call is one call under way: the command takes effect, or read is called, and then done is, or read's answer.
type call struct {
	member   *fastMember
	command  command
	read     func() (answer func()) // nil: the command
	answer   func()
	revision int64
	err      error
	silent   bool
}

// begin sends a call on its way, and draws its fate.
func (m *fastMember) begin(c *call) {
	config := &m.cluster.config
	fate := int(m.seat.dice.Uint64() % 1000)
	delay := m.draw(config.Reach)
	switch {
	case m.over() || fate < config.Lost:
		return
	case fate < config.Lost+config.Silent:
		c.silent = true
	case fate < config.Lost+config.Silent+config.Late:
		delay = m.seat.dice.Between(0, 3*m.cluster.timing.Election)
	}
	c.member = m
	m.cluster.world.After(delay, c.takeEffect)
}

// takeEffect happens wherever the leader is: the caller may be gone by now.
func (c *call) takeEffect() {
	m := c.member
	l := m.lineage
	if !l.works(l.leader) || m.seat != l.leader && !m.cluster.linked(m.seat, l.leader) {
		return
	}
	if c.read == nil {
		c.revision, c.err = l.apply(&c.command)
	} else {
		c.answer = c.read()
	}
	if !c.silent {
		m.seat.process.After(m.draw(m.cluster.config.Reply), c.reply)
	}
}

// reply gives the answer, in the life of the caller.
func (c *call) reply() {
	m := c.member
	if m.dead || m.seat.member != m || !m.lineage.reachable(m.seat) {
		return
	}
	if c.read != nil {
		c.answer()
		return
	}
	m.advance(c.revision)
	if done := c.command.done; done != nil && !m.dead {
		done(c.revision, c.err)
	}
}

// read calls look when the read takes effect, and what it answers when it is answered.
func (m *fastMember) read(look func() (answer func())) { m.begin(&call{read: look}) }

// ID implements Member.
func (m *fastMember) ID() uint64 { return m.id }

// Leads implements Member.
func (m *fastMember) Leads() bool { return m.leads }

// OnChange implements Member.
func (m *fastMember) OnChange(f func()) { m.onChange = append(m.onChange, f) }

// Claim implements Member.
func (m *fastMember) Claim(value []byte, done func(quorum.Term, error)) {
	if value == nil {
		value = noHead
	}
	m.begin(&call{command: command{
		kind: kindClaim, expect: m.lineage.kv.record.Revision, writes: []quorum.Write{{Key: quorum.KeyTerm, Value: value}},
		done: func(revision int64, err error) { done(quorum.Term(revision), err) },
	}})
}

// Commit implements Member.
func (m *fastMember) Commit(term quorum.Term, writes []quorum.Write, done func(revision int64, err error)) {
	if tooLarge(writes) {
		m.seat.process.After(0, func() { done(0, quorum.ErrTooLarge) })
		return
	}
	m.begin(&call{command: command{kind: kindCommit, term: term, writes: slices.Clone(writes), done: done}})
}

// Announce implements Member.
func (m *fastMember) Announce(write quorum.Write, done func(revision int64, err error)) {
	m.begin(&call{command: command{kind: kindAnnounce, writes: []quorum.Write{write}, done: done}})
}

// Compact implements Member: for every member.
func (m *fastMember) Compact(revision int64) {
	m.begin(&call{command: command{kind: kindCompact, expect: revision}})
}

// Load implements Member.
func (m *fastMember) Load(done func(entries []quorum.Entry, revision int64, err error)) {
	m.read(func() func() {
		b := m.lineage.kv.backup()
		return func() { done(b.Entries, b.Revision, nil) }
	})
}

// Head implements Member.
func (m *fastMember) Head(done func(revision int64, err error)) {
	m.read(func() func() {
		revision := m.lineage.kv.revision
		return func() { done(revision, nil) }
	})
}

// Confirm implements Member.
func (m *fastMember) Confirm(term quorum.Term, done func(error)) {
	m.read(func() func() {
		var err error
		if !m.lineage.kv.holds(term) {
			err = quorum.ErrDeposed
		}
		return func() { done(err) }
	})
}

// Watch implements Member.
func (m *fastMember) Watch(from int64, deliver func(quorum.Change), ended func(error)) (stop func()) {
	if len(m.watchers.all) == 0 && m.lineage.reachable(m.seat) {
		m.seat.data.applied = m.lineage.kv.revision // nobody was there to see it lag
	}
	return m.watchers.add(m.lineage.kv, m.seat.data.applied, from, deliver, ended)
}

// Backup implements Member. All members have everything.
func (m *fastMember) Backup() *Backup { return m.lineage.kv.backup() }

// Progress implements Member.
func (m *fastMember) Progress() quorum.Progress {
	l := m.lineage
	p := quorum.Progress{
		RaftTerm: m.seat.data.term, AppliedIndex: uint64(m.seat.data.applied), Revision: m.seat.data.applied,
		DBBytes: l.kv.bytes, DBFileBytes: l.kv.bytes,
	}
	if l.leader != nil && l.reachable(m.seat) {
		p.Leader = l.leader.data.id
	}
	return p
}
