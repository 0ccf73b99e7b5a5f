package sim

import (
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/world"
)

// meter measures a fleet.
type meter struct {
	fleet  *fleet
	opened time.Duration // when the steady state began
	on     bool
	result FleetResult

	acquire, handOff, renew []latencies                      // by region, and over all
	letGo                   map[lease.Resource]time.Duration // when the release of a resource that is fought for was called
	client, forward, nodes  []int                            // messages by node, each counted where it is sent and where it arrives
	total                   [3]int
	commits, confirms       int

	lostAt    time.Duration // when the coordinator was lost; 0: not yet
	lostNode  *node
	waiting   map[*holder]bool // processes that held leases then, and have not renewed them since
	takenOver bool
}

func (m *meter) begin(x *fleet) {
	m.fleet = x
	all := len(fleetRegions) + 1
	m.acquire, m.handOff, m.renew = make([]latencies, all), make([]latencies, all), make([]latencies, all)
	m.client, m.forward, m.nodes = make([]int, len(fleetRegions)), make([]int, len(fleetRegions)), make([]int, len(fleetRegions))
	m.letGo, m.waiting = make(map[lease.Resource]time.Duration), make(map[*holder]bool)
	indices := make(map[*world.Process]int)
	for i, n := range x.run.nodes {
		indices[n.process] = i
	}
	x.run.net.Tap = func(from, to *world.Process) {
		if !m.on {
			return
		}
		if i, ok := indices[from]; ok {
			if j, ok := indices[to]; ok {
				m.nodes[i]++
				m.nodes[j]++
				m.total[2]++
			}
		}
	}
}

func (m *meter) open() {
	m.on, m.opened = true, m.fleet.run.world.Now()
	m.commits, m.confirms = m.rounds()
}

// rounds counts what the coordinator has decided so far.
func (m *meter) rounds() (commits, confirms int) {
	if n := m.fleet.run.coordinator(); n != nil {
		return int(n.image.Revision()), int(n.round.number)
	}
	return 0, 0
}

func (m *meter) close() {
	m.on = false
	span := m.fleet.spec.Measure.Seconds()
	rate := func(n int) float64 { return float64(n) / span }
	revision, rounds := m.rounds()
	m.result.Commits = rate(revision - m.commits)
	m.result.Confirms = rate(rounds-m.confirms) - m.result.Commits
	m.result.Traffic = Traffic{rate(m.total[0]), rate(m.total[1]), rate(m.total[2] - m.total[1])}
	for i := range fleetRegions {
		m.result.PerNode = append(m.result.PerNode, Traffic{rate(m.client[i]), rate(m.forward[i]), rate(m.nodes[i] - m.forward[i])})
	}
	for i := range m.acquire {
		m.result.Acquire = append(m.result.Acquire, m.acquire[i].summary())
		m.result.HandOff = append(m.result.HandOff, m.handOff[i].summary())
		m.result.Renew = append(m.result.Renew, m.renew[i].summary())
	}
	m.acquire, m.handOff, m.renew = nil, nil, nil
	for _, h := range m.fleet.holders {
		m.result.Held += h.keeper.Len()
	}
}

// asked counts a message between a process and a node.
func (m *meter) asked(node int) {
	if m.on {
		m.client[node]++
		m.total[0]++
	}
}

// forwarded counts a request that one node forwards to another, or its answer.
func (m *meter) forwarded(from, to int) {
	if m.on {
		m.forward[from]++
		m.forward[to]++
		m.total[1]++
	}
}

// note takes a latency in of what began within the steady state.
func (m *meter) note(into []latencies, region int, began time.Duration) {
	if m.on && began >= m.opened {
		d := m.fleet.run.world.Now() - began
		into[region] = append(into[region], d)
		into[len(into)-1] = append(into[len(into)-1], d)
	}
}

func (m *meter) renewed(h *holder, sent time.Duration, by *node) {
	m.note(m.renew, h.region, sent)
	if by != m.lostNode {
		m.safe(h)
	}
}

// safe takes in that the loss of the coordinator cannot cost a process its leases any more.
func (m *meter) safe(h *holder) {
	if m.waiting[h] {
		delete(m.waiting, h)
		if len(m.waiting) == 0 {
			m.result.Intact = m.fleet.run.world.Now() - m.lostAt
		}
	}
}

func (m *meter) granted(s *slot, by *node) {
	if s.hold > 0 {
		m.note(m.acquire, s.holder.region, s.began)
	} else if at, ok := m.letGo[s.resource]; ok {
		delete(m.letGo, s.resource)
		if s.began < at {
			m.note(m.handOff, s.holder.region, at)
		}
	}
	if m.lostAt > 0 && by != m.lostNode && s.began >= m.lostAt && m.result.Granted == 0 {
		m.result.Granted = m.fleet.run.world.Now() - m.lostAt
	}
}

func (m *meter) released(s *slot) {
	if s.hold == 0 {
		m.letGo[s.resource] = m.fleet.run.world.Now()
	}
	if s.holder.keeper.Len() == 0 {
		m.safe(s.holder)
	}
}

func (m *meter) lost(s *slot) {
	m.result.Lost++
	if s.holder.keeper.Len() == 0 {
		m.safe(s.holder)
	}
}

// lose begins the wait for what held a lease while the coordinator was lost.
func (m *meter) lose(n *node) {
	m.lostAt, m.lostNode = m.fleet.run.world.Now(), n
	for _, h := range m.fleet.holders {
		if h.keeper.Len() > 0 {
			m.waiting[h] = true
		}
	}
}

// look notes when somebody else decides.
func (m *meter) look() {
	if m.takenOver {
		return
	}
	for _, n := range m.fleet.run.nodes {
		if n != m.lostNode && n.process.Up() && n.engine.Role() == quorum.Serving {
			m.takenOver = true
			m.result.Successor, m.result.TakenOver = n.process.Region, m.fleet.run.world.Now()-m.lostAt
		}
	}
}

// settled says whether everybody goes on.
func (m *meter) settled() bool {
	return m.takenOver && m.result.Granted > 0 && len(m.waiting) == 0
}
