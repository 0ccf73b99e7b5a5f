//writ:core

package gate

import (
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

// Status is what a gate can tell of itself, for operators and for readiness.
type Status struct {
	// Seeded: the gate may admit; it has heard from the quorum since the process started.
	Seeded bool
	// Enrolled: the quorum counts the guard among those that it raises, as far as the gate has heard.
	Enrolled bool
	// Connected: messages can be sent.
	Connected bool
	// StoreFailed: the last batch could not be written.
	StoreFailed bool
	// Stopping and Left: how far Stop has come.
	Stopping, Left bool
	// Deadline is when writes under rules that close are refused, unless there is contact before; 0: they are now.
	Deadline clock.Instant
	// Lease is the guard lease G, 30 s before the quorum has told it.
	Lease time.Duration
	// Issuer is the name of the quorum, empty before it has told.
	Issuer string
	// RulesVersion is that of the rules the gate goes by.
	RulesVersion uint64
	// Store and Version are those of the floor store, as far as it is known to be durable.
	Store   string
	Version uint64
	Base    fence.Token
	// Witnessed is the highest token from the quorum.
	Witnessed fence.Token
	// Admitted and Refused count since the start.
	Admitted, Refused uint64
	// InFlight are under way, Parked wait for their turn.
	InFlight, Parked int
	// Floors counts the resources with a floor of their own.
	Floors int
	// AlarmCount counts since the start; Alarms are the newest, at most 16.
	AlarmCount uint64
	Alarms     []*writv1.GuardAlarm
	// Quorum is what is known of the quorum, also while it cannot be reached.
	Quorum Quorum
	// Openings are what certificates of break-glass did, the oldest first. One that is not Closed is in force.
	Openings []Opening
}

// Status tells how the gate is. It costs time in proportion to the resources.
func (g *Gate) Status() Status {
	s := Status{
		Seeded: g.seeded, Enrolled: g.link.enrolled, Connected: g.link.up, StoreFailed: g.disk.failing(),
		Stopping: g.stopping, Left: g.left, Deadline: g.deadline, Lease: g.link.lease, Issuer: g.link.issuer,
		RulesVersion: g.rules.GetVersion(), Store: g.store, Version: g.disk.version, Base: g.base, Witnessed: g.witnessed,
		Admitted: g.admitted, Refused: g.refused, InFlight: g.inFlight, Parked: g.parked, Floors: g.ownFloors(),
		AlarmCount: g.alarmCount, Quorum: g.glass.quorum, Openings: g.Openings(),
	}
	for _, a := range g.alarms {
		s.Alarms = append(s.Alarms, proto.CloneOf(a))
	}
	return s
}

func (g *Gate) ownFloors() int {
	n := 0
	//writ:unordered they are only counted
	for _, r := range g.resources.byName {
		if r.own {
			n++
		}
	}
	return n
}

// Floor answers the lowest token that may be admitted for a resource; 0: any.
func (g *Gate) Floor(resource string) fence.Token {
	if r := g.resources.byName[resource]; r != nil {
		return r.floor
	}
	return g.base
}

// Floors answers every resource with a floor of its own, in order of their names, as the gate goes by them. Drained says that
// nothing older is under way.
func (g *Gate) Floors() []Floor {
	var floors []Floor
	for _, r := range g.sorted() {
		if r.own {
			floors = append(floors, Floor{Resource: r.name, Token: r.floor, Drained: r.drained(r.floor, g.now)})
		}
	}
	return floors
}

// Seeded tells whether the gate has heard from the quorum since it was made, and written that down.
func (g *Gate) Seeded() bool { return g.seeded }

// Issuer is the name of the quorum, which its writs are issued by; empty before it has told.
func (g *Gate) Issuer() string { return g.link.issuer }
