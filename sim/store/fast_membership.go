package store

import (
	"slices"

	"github.com/writ-io/writ/quorum"
)

// Members implements Member.
func (m *fastMember) Members() []quorum.MemberInfo {
	return slices.DeleteFunc(slices.Clone(m.lineage.members), func(o quorum.MemberInfo) bool { return m.stopped && o.ID == m.id })
}

// decide makes a change of the membership, unless change answers an error.
func (m *fastMember) decide(change func(l *fastLineage) error, done func(error)) {
	m.read(func() func() {
		err := change(m.lineage)
		if err == nil {
			m.lineage.reseat()
			m.lineage.tellAll()
		}
		return func() { done(err) }
	})
}

// AddMember implements Member.
func (m *fastMember) AddMember(name string, done func(id uint64, err error)) {
	c := m.cluster
	c.lastID++
	id := c.lastID
	m.decide(func(l *fastLineage) error {
		c.births[id] = l
		l.members = append(l.members, quorum.MemberInfo{ID: id, Name: name, Learner: true})
		return nil
	}, func(err error) { done(id, err) })
}

// PromoteMember implements Member.
func (m *fastMember) PromoteMember(id uint64, done func(error)) {
	m.decide(func(l *fastLineage) error {
		info := l.member(id)
		if info == nil || !info.Learner {
			return ErrNoMember
		}
		if s := m.cluster.byID[id]; s == nil || !l.serves(s) || s.data.id != id {
			return ErrNotReady
		}
		info.Learner = false
		return nil
	}, done)
}

// RemoveMember implements Member.
func (m *fastMember) RemoveMember(id uint64, done func(error)) {
	m.decide(func(l *fastLineage) error {
		info := l.member(id)
		if info == nil || !info.Learner && len(l.voters) == 1 {
			return ErrNoMember
		}
		s := m.cluster.byID[id]
		l.members = slices.DeleteFunc(l.members, func(o quorum.MemberInfo) bool { return o.ID == id })
		if s == nil {
			return nil
		}
		if l.leader == s {
			l.leader = nil
		}
		if gone := s.member; gone != nil && gone.id == id {
			s.process.After(gone.draw(m.cluster.config.Lag), gone.stop)
		}
		return nil
	}, done)
}

// stop ends a member that is none any more.
func (m *fastMember) stop() {
	if !m.dead {
		m.stopped, m.leads = true, false
		m.tell()
	}
}

// makeKnown has the others know that this member has started.
func (m *fastMember) makeKnown() {
	if info := m.lineage.member(m.id); info != nil && !info.Started {
		info.Started = true
		m.lineage.tellAll()
	}
}

// MoveLeader implements Member.
func (m *fastMember) MoveLeader(to uint64) {
	s := m.cluster.byID[to]
	if !m.leads || s == nil || s == m.seat {
		return
	}
	m.seat.process.After(m.draw(m.cluster.config.Reach), func() {
		l := m.lineage
		if l.leader == m.seat && slices.Contains(l.voters, s) && l.works(s) {
			m.leads = false
			l.lead(s)
		}
	})
}
