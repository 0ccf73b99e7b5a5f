package store

import "time"

// How leadership moves: a check a few times per election looks at who can reach whom, and stands for heartbeats and votes.

// checksPerElection is how often it looks.
const checksPerElection = 5

// electionTime draws how long a leader may be away before there is another.
func (c *Fast) electionTime() time.Duration {
	return c.timing.Election + c.dice.Between(0, c.timing.Election/2)
}

func (c *Fast) check() {
	for _, l := range c.lineages {
		l.check()
	}
	c.world.After(c.timing.Election/checksPerElection, c.check)
}

func (l *fastLineage) check() {
	now := l.cluster.world.Now()
	if l.works(l.leader) {
		l.lostAt = now
	} else if now-l.lostAt >= l.patience {
		l.elect()
	}
	for _, s := range l.seats {
		if m := s.member; m != nil && m.lineage == l {
			m.check()
		}
	}
}

// works says whether the process of a member runs and can reach most of the others, and they it.
func (l *fastLineage) works(s *fastSeat) bool {
	if !l.serves(s) {
		return false
	}
	reached := 0
	for _, o := range l.voters {
		if o == s || l.serves(o) && l.cluster.linked(s, o) {
			reached++
		}
	}
	return reached > len(l.voters)/2
}

// serves says whether somebody runs as a member of this lineage.
func (l *fastLineage) serves(s *fastSeat) bool {
	return s != nil && s.member != nil && s.member.lineage == l && !s.member.over() && s.process.Up() && !s.process.Paused()
}

func (c *Fast) linked(a, b *fastSeat) bool {
	return c.net.Connected(a.process, b.process) && c.net.Connected(b.process, a.process)
}

// reachable says whether a member can have something decided.
func (l *fastLineage) reachable(s *fastSeat) bool {
	return l.works(l.leader) && (s == l.leader || l.serves(s) && l.cluster.linked(s, l.leader))
}

// elect makes one of those leader who can be.
func (l *fastLineage) elect() {
	var able []*fastSeat
	for _, s := range l.voters {
		if l.works(s) {
			able = append(able, s)
		}
	}
	if len(able) > 0 {
		l.lead(able[l.cluster.dice.Intn(len(able))])
	}
}

// lead makes s the leader. The one before finds out by itself.
func (l *fastLineage) lead(s *fastSeat) {
	l.leader, l.lostAt, l.patience = s, l.cluster.world.Now(), l.cluster.electionTime()
	l.term++
	l.tellAll()
}

// tellAll has everybody look at leadership and membership again.
func (l *fastLineage) tellAll() {
	for _, s := range l.seats {
		if m := s.member; m != nil && m.lineage == l {
			if s == l.leader {
				m.leads = true
			}
			m.tell()
		}
	}
}

// check is what happens to a member regularly.
func (m *fastMember) check() {
	l := m.lineage
	if m.over() || m.seat.process.Paused() {
		return
	}
	if m.leads && l.leader != m.seat && !m.leaving {
		m.leaving = true
		m.seat.process.After(m.seat.dice.Between(0, l.cluster.timing.Election), m.stepDown)
	}
	if !l.reachable(m.seat) {
		if m.leads && !m.leaving && l.cluster.world.Now()-l.lostAt >= l.cluster.timing.Election {
			m.leaving = true
			m.stepDown()
		}
		return
	}
	m.seat.data.term = l.term
	m.makeKnown()
	if len(m.watchers.all) == 0 {
		m.seat.data.applied = l.kv.revision
	} else if m.seat.data.applied < l.kv.revision {
		m.expect()
	}
}

// stepDown ends the belief of a former leader.
func (m *fastMember) stepDown() {
	m.leaving = false
	if !m.over() && m.leads && (m.lineage.leader != m.seat || !m.lineage.works(m.seat)) {
		if m.lineage.leader == m.seat {
			m.lineage.leader = nil
		}
		m.leads = false
		m.tell()
	}
}
