//writ:core

package partition

import (
	"fmt"
	"maps"
	"slices"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// phase is how far a member is with a partition.
type phase uint8

const (
	phaseNone phase = iota
	// phaseAsking: its lease was asked for.
	phaseAsking
	// phaseCancelling: that is not wanted any more, and not answered yet.
	phaseCancelling
	// phaseHeld: its function runs, or has returned of itself.
	phaseHeld
	// phaseRevoked: its function was told to finish.
	phaseRevoked
	// phaseEnding: its function's context has ended.
	phaseEnding
	// phaseReleasing: its function has returned, and the lease is being released.
	phaseReleasing
)

// part is a partition, as a member sees it and what it does about it.
type part struct {
	holder string // as seen; empty if it is free
	phase  phase
	idle   bool // held, and the function has returned
	// until is when the grace of a revoked partition is over; of one that is not held, when it may be asked for again.
	until clock.Instant
}

// seenMember is a member as its lease shows it.
type seenMember struct {
	Member
	homes string // the digest of its homes
}

// membership is how far a member is with its own lease.
type membership uint8

const (
	memberOut membership = iota
	memberJoining
	memberIn
	memberQuitting
)

// Machine is one member's side of a group. It is a pure core: a shell steps it with what happens and does what it is told.
//
// Invariant: a function is started only after a Granted and before the matching Release, and Release comes only after
// Returned.
//
// Invariant: what is asked for was free when last seen, and is given to this member by the target, and nothing that this
// member cancelled is unanswered.
type Machine struct {
	cfg   MachineConfig
	homes string // the digest of cfg.Homes
	now   clock.Instant

	synced  bool                  // what is seen is whole
	members map[string]seenMember // those that live, by ID
	parts   []part

	dirty  bool  // the target may have changed
	target []int // into ids; nil until the first one
	ids    []string

	state    membership
	rejoinAt clock.Instant
	leaving  bool
	done     bool
	settled  bool // waited for others, or had not to
	startAt  clock.Instant

	out Effects
}

// NewMachine makes the machine of a member that has not joined. Its first step joins. Errors: INVALID for a number of
// partitions that no group has, or homes that are not of as many.
func NewMachine(cfg MachineConfig) (*Machine, error) {
	if err := CheckPartitions(cfg.Partitions); err != nil {
		return nil, err
	}
	if cfg.Homes != nil && len(cfg.Homes) != cfg.Partitions {
		return nil, lease.Invalid("homes", fmt.Sprintf("are %d of %d partitions", len(cfg.Homes), cfg.Partitions), "name one for each, or none")
	}
	return &Machine{
		cfg: cfg.withDefaults(), homes: digest(cfg.Homes),
		members: make(map[string]seenMember), parts: make([]part, cfg.Partitions),
	}, nil
}

// Step takes in what has happened, in order, and returns what is to be done about it. The effects are the caller's. Targets are
// computed once a step: a caller that has many events at hand passes them together.
func (m *Machine) Step(now clock.Instant, events ...Event) Effects {
	m.now, m.out = now, Effects{}
	for _, e := range events {
		m.take(e)
	}
	m.belong()
	if m.synced && m.dirty {
		m.aim()
	}
	m.settle()
	idle, pending := true, 0
	for p := range m.parts {
		m.decide(p)
		idle = idle && m.parts[p].phase == phaseNone
		if ph := m.parts[p].phase; ph == phaseAsking || ph == phaseCancelling {
			pending++
		}
	}
	m.ask(pending)
	if m.leaving && idle && m.state == memberOut && !m.done {
		m.done, m.out.Done = true, true
	}
	return m.out
}

// Target returns the ID of the member that should hold a partition, as far as this member has seen; empty if nobody should.
func (m *Machine) Target(index int) string {
	if m.target == nil || m.target[index] == Unassigned {
		return ""
	}
	return m.ids[m.target[index]]
}

// Synced tells whether the member has seen the whole state of the group.
func (m *Machine) Synced() bool { return m.synced }

// Holder returns the ID of the member that holds a partition, as far as this member has seen; empty if nobody does.
func (m *Machine) Holder(index int) string { return m.parts[index].holder }

func (m *Machine) take(event Event) {
	switch e := event.(type) {
	case Watched:
		m.watched(&e.Event)
	case Joined:
		if m.state == memberJoining {
			m.state = memberIn
		}
	case Excluded:
		if m.state == memberJoining {
			m.rejoinAt = m.now.Add(m.cfg.Retry)
		}
		m.state = memberOut
	case Granted:
		m.granted(e.Index)
	case Refused:
		m.refused(e.Index)
	case Returned:
		m.returned(e.Index)
	case Lost:
		m.lost(e.Index)
	case Released:
		if p := &m.parts[e.Index]; p.phase == phaseReleasing {
			p.phase, p.until = phaseNone, 0
		}
	case Leave:
		m.leaving = true
	}
}

// watched takes in what is seen.
func (m *Machine) watched(e *lease.WatchEvent) {
	switch e.Kind {
	case lease.EventResync:
		m.synced, m.dirty = false, true
		clear(m.members)
		for p := range m.parts {
			m.parts[p].holder = ""
		}
	case lease.EventSynced:
		m.synced, m.dirty = true, true
	case lease.EventState, lease.EventChanged, lease.EventRemoved:
		held := e.Kind != lease.EventRemoved && (e.Info.State == lease.Held || e.Info.State == lease.Ending)
		name := string(e.Info.Resource)
		if index, ok := m.cfg.Names.partition(name); ok && index < len(m.parts) {
			holder := ""
			if held {
				holder = e.Info.Holder.Instance
			}
			m.seen(index, holder)
		} else if m.cfg.Names.member(name) {
			m.seenMember(&e.Info, held)
		}
	case lease.EventProgress:
	}
}

// seen notes who holds a partition. Progress towards the target leaves the target as it is (see Assign).
func (m *Machine) seen(index int, holder string) {
	p := &m.parts[index]
	if p.holder == holder {
		return
	}
	if m.target == nil || p.holder == m.Target(index) || holder != "" && holder != m.Target(index) {
		m.dirty = true
	}
	p.holder = holder
}

func (m *Machine) seenMember(info *lease.Info, live bool) {
	id := info.Holder.Instance
	if id == "" {
		return // of a lease that nobody has held
	}
	before, was := m.members[id]
	if !live {
		if was {
			delete(m.members, id)
			m.dirty = true
		}
		return
	}
	if now := parseMember(info); !was || now != before {
		m.members[id] = now
		m.dirty = true
	}
}

// aim computes the target.
//
// Homes count only if all members name the same: with different ones each could leave a partition to the other for good.
func (m *Machine) aim() {
	m.dirty = false
	members := make([]Member, 0, len(m.members))
	homes := m.cfg.Homes
	m.ids = slices.Sorted(maps.Keys(m.members))
	for _, id := range m.ids {
		members = append(members, m.members[id].Member)
		if m.members[id].homes != m.homes {
			homes = nil
		}
	}
	holders := make([]string, len(m.parts))
	for p := range m.parts {
		holders[p] = m.parts[p].holder
	}
	m.target = Assign(members, holders, homes)
}

// settle makes the first members of a group wait for others.
func (m *Machine) settle() {
	if m.settled || !m.synced || m.state != memberIn {
		return
	}
	m.settled = true
	if !slices.ContainsFunc(m.parts, func(p part) bool { return p.holder != "" }) {
		m.startAt = m.now.Add(m.cfg.Settle)
	}
}

// belong joins, and quits when leaving.
func (m *Machine) belong() {
	switch {
	case m.leaving && (m.state == memberJoining || m.state == memberIn):
		m.state, m.out.Quit = memberQuitting, true
	case !m.leaving && m.state == memberOut && m.rejoinAt > m.now:
		m.wake(m.rejoinAt)
	case !m.leaving && m.state == memberOut:
		m.state, m.out.Join = memberJoining, true
	}
}

func (m *Machine) wake(at clock.Instant) {
	if at != 0 && (m.out.Wake == 0 || at < m.out.Wake) {
		m.out.Wake = at
	}
}
