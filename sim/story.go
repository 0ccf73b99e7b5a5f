package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// story keeps what is worth drawing of a run. A nil story keeps nothing, and no word is put together for it.
type story struct {
	now     func() time.Duration
	trace   trace.Trace
	lanes   map[string]int
	open    map[string]trace.Band // that have begun: To is not known yet
	beliefs map[string]openBelief
	decides string // the node whose claim was committed last
}

type openBelief struct {
	trace.Belief
	until time.Duration
}

func newStory(p plan.Plan, now func() time.Duration) *story {
	s := &story{now: now, lanes: make(map[string]int), open: make(map[string]trace.Band), beliefs: make(map[string]openBelief)}
	s.lane("operator", "", trace.LaneOperator)
	for _, n := range p.Nodes {
		s.lane(n.Name, n.Region, trace.LaneNode)
	}
	for _, c := range p.Clients {
		s.lane(c.Name, c.Region, trace.LaneClient)
	}
	for _, v := range p.Services {
		s.lane(v.Name, v.Region, trace.LaneClient)
	}
	for _, w := range p.Watchers {
		s.lane(w.Name, w.Region, trace.LaneClient)
	}
	for _, g := range p.Guards {
		s.lane(g.Name, g.Region, trace.LaneGuard)
	}
	s.lane("storage", "", trace.LaneStorage)
	return s
}

func (s *story) lane(name, region string, kind trace.LaneKind) {
	s.lanes[name] = len(s.trace.Lanes)
	s.trace.Lanes = append(s.trace.Lanes, trace.Lane{Name: name, Region: region, Kind: kind})
}

// of is a process's lane; the operator's for nil.
func (s *story) of(p *world.Process) int {
	if p == nil {
		return 0
	}
	lane, ok := s.lanes[p.Name]
	if !ok {
		s.lane(p.Name, p.Region, trace.LaneClient)
		lane = s.lanes[p.Name]
	}
	return lane
}

func (s *story) event(p *world.Process, kind trace.EventKind, format string, args ...any) {
	if s == nil {
		return
	}
	s.trace.Events = append(s.trace.Events, trace.Event{At: s.now(), Lane: s.of(p), Kind: kind, Text: fmt.Sprintf(format, args...)})
}

// begin opens a band of a process, unless one of that kind is open.
func (s *story) begin(p *world.Process, kind trace.BandKind, text string) {
	key := p.Name + " " + string(kind)
	if _, ok := s.open[key]; !ok {
		s.open[key] = trace.Band{Lane: s.of(p), Kind: kind, From: s.now(), Text: text}
	}
}

// end closes a band, and says whether there was one.
func (s *story) end(name string, kind trace.BandKind) bool {
	key := name + " " + string(kind)
	b, ok := s.open[key]
	if ok {
		delete(s.open, key)
		b.To = s.now()
		s.trace.Bands = append(s.trace.Bands, b)
	}
	return ok
}

// up and downAt draw when a process does not run.
func (s *story) up(p *world.Process) {
	if s != nil && s.end(p.Name, trace.BandDown) {
		s.event(p, trace.EventFault, "starts again")
	}
}

func (s *story) downAt(p *world.Process) {
	if s == nil {
		return
	}
	s.end(p.Name, trace.BandCoordinator)
	s.end(p.Name, trace.BandLeader)
	s.begin(p, trace.BandDown, p.Name+" is down")
	s.event(p, trace.EventFault, "dies")
}

// band draws a band over several lanes, from now until what it answers is called.
func (s *story) band(processes []*world.Process, kind trace.BandKind, text string) (end func()) {
	if s == nil {
		return func() {}
	}
	from := s.now()
	return func() {
		for _, p := range processes {
			s.trace.Bands = append(s.trace.Bands, trace.Band{Lane: s.of(p), Kind: kind, From: from, To: s.now(), Text: text})
		}
	}
}

// role draws who believes that it decides.
func (s *story) role(p *world.Process, decides bool, format string, args ...any) {
	if s == nil {
		return
	}
	s.event(p, trace.EventRole, format, args...)
	if decides {
		s.begin(p, trace.BandCoordinator, p.Name+" decides")
	} else {
		s.end(p.Name, trace.BandCoordinator)
	}
}

// leads draws who believes that it leads the store.
func (s *story) leads(p *world.Process, leads bool) {
	if s == nil {
		return
	}
	if leads {
		s.begin(p, trace.BandLeader, "")
	} else {
		s.end(p.Name, trace.BandLeader)
	}
}

// belief draws until when somebody believes in a lease; an instant that has passed ends it now.
func (s *story) belief(p *world.Process, name lease.Resource, token fence.Token, until time.Duration) {
	if s == nil {
		return
	}
	key := p.Name + " " + string(name) + " " + token.Decimal()
	b, ok := s.beliefs[key]
	switch {
	case until > s.now() && !ok:
		s.beliefs[key] = openBelief{trace.Belief{Lane: s.of(p), Resource: string(name), Token: uint64(token), From: s.now()}, until}
		s.event(p, trace.EventLease, "believes in %s under %v", name, token)
	case until > s.now():
		b.until = until
		s.beliefs[key] = b
	case ok:
		delete(s.beliefs, key)
		b.To = min(s.now(), b.until)
		s.trace.Beliefs = append(s.trace.Beliefs, b.Belief)
	}
}

// write draws an attempt to write at the storage.
func (s *story) write(p *world.Process, name lease.Resource, token fence.Token, accepted bool, floor fence.Token) {
	s.attempted(p, name, token, accepted, floor)
	if !accepted {
		s.event(p, trace.EventAnswer, "the storage refuses %s under %v: it has seen %v", name, token, floor)
	}
}

// attempted draws an attempt to write, at the storage or at a guard before it.
func (s *story) attempted(p *world.Process, name lease.Resource, token fence.Token, accepted bool, floor fence.Token) {
	if s == nil {
		return
	}
	s.trace.Writes = append(s.trace.Writes, trace.Write{
		Lane: s.of(p), Resource: string(name), Token: uint64(token), At: s.now(), Accepted: accepted, Floor: uint64(floor),
	})
}

// finish answers the story of a run that is over.
func (s *story) finish(r *Result) *trace.Trace {
	if s == nil {
		return nil
	}
	t := &s.trace
	for _, key := range sortedKeys(s.beliefs) {
		b := s.beliefs[key]
		b.To = min(s.now(), b.until)
		t.Beliefs = append(t.Beliefs, b.Belief)
	}
	for _, key := range sortedKeys(s.open) {
		b := s.open[key]
		b.To = s.now()
		t.Bands = append(t.Bands, b)
	}
	slices.SortStableFunc(t.Bands, func(a, b trace.Band) int { return cmp.Compare(a.From, b.From) })
	slices.SortStableFunc(t.Beliefs, func(a, b trace.Belief) int { return cmp.Compare(a.From, b.From) })
	t.Seed, t.Hash, t.Simulated, t.Violations = r.Seed, r.Hash, r.Simulated, r.Violations
	return t
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

func hex(n uint64) string { return strconv.FormatUint(n, 16) }
