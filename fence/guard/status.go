package guard

import (
	"time"

	"github.com/writ-io/writ/fence/gate"
)

// Status is what a guard can tell of itself, for operators and for health endpoints.
type Status struct {
	gate.Status
	// Name and Session of the guard.
	Name, Session string
	// Endpoint is the node that it speaks with; empty: none.
	Endpoint string
	// LinkError is why the last conversation with a node ended; nil: none has, or the quorum counts the guard all the same.
	LinkError error
	// LeaseLeft is how long writes under rules that close go on without another contact; 0: they do not.
	LeaseLeft time.Duration
	// Keys is the number of keys that writs are verified by.
	Keys int
	// Closed: the guard admits nothing any more.
	Closed bool
}

// Ready reports whether the guard can decide: it is seeded, its store works, and it is not shutting down. Without contact it
// stays ready, for then rules decide.
func (s Status) Ready() bool { return s.Seeded && !s.StoreFailed && !s.Stopping && !s.Closed }

// Floors answers the floors of at most that many resources, in order of their names. It costs time in proportion to all.
func (g *Guard) Floors(most int) []gate.Floor {
	g.mu.Lock()
	defer g.mu.Unlock()
	floors := g.gate.Floors()
	return floors[:min(len(floors), most)]
}

// Status tells how the guard is. It costs time in proportion to the resources.
func (g *Guard) Status() Status {
	now := g.clock.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Status{
		Status: g.gate.Status(), Name: g.cfg.Name, Session: g.session, Endpoint: g.endpoint, LinkError: g.linkErr, Closed: g.over,
	}
	if s.Connected && s.Enrolled {
		s.LinkError = nil
	}
	if s.Deadline != 0 {
		s.LeaseLeft = max(0, s.Deadline.Sub(now))
	}
	s.Keys, _ = g.writs.count()
	return s
}
