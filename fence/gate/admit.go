//writ:core

package gate

import (
	"fmt"
	"slices"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

const (
	// A ticket is a slot's generation and, in its lower bits, the slot's index. A slot whose generations are used up is
	// not used again.
	slotBits      = 24
	maxSlots      = 1<<slotBits - 1
	maxGeneration = 1<<(64-slotBits) - 1
	// retrySoon is told where an answer from the quorum is all that is missing.
	retrySoon = time.Second
)

type slotState uint8

const (
	unused slotState = iota
	parked
	underWay
	cutOff // under way, and told to be broken off
)

// slot is a write that is parked or under way.
type slot struct {
	res        *resource
	token      fence.Token
	generation uint64
	until      clock.Instant // parked no longer than that
	next       int32         // the next free slot, as index+1
	state      slotState
}

func ticketOf(index int, generation uint64) Ticket {
	return Ticket(generation<<slotBits | uint64(index+1))
}

// Admit asks for a write to be admitted. verified says that the token comes from a signed writ, not bare.
//
//	Go      the write is under way, until Done of that ticket.
//	Wait    the write is parked under that ticket.
//	Refuse  err says why: *fence.StaleError, *fence.UnavailableError, *fence.InvalidError, or one that is
//	        fence.ErrUnguarded.
//
// Whatever the answer: if Pending says so, call Take at once, within the same hold of the lock. After Wait it always does;
// after the others it may, as where the write shows that a certificate is over.
//
// An instant before the last one counts as the last one, here as everywhere.
func (g *Gate) Admit(now clock.Instant, name string, token fence.Token, verified bool) (Ticket, Answer, error) {
	r := g.resources.byName[name]
	if r == nil || token != r.open || token == 0 || !g.seeded || g.stopping ||
		verified && token > g.witnessed || g.closed(r.closes, max(now, g.now)) || g.free == 0 {
		return g.admitSlowly(now, r, name, token, verified)
	}
	return g.enter(r), Go, nil
}

// closed tells whether a resource is refused for want of contact.
func (g *Gate) closed(closes bool, now clock.Instant) bool {
	return closes && now >= g.deadline && !mutant.On(mutant.OpenWhenIsolated)
}

// unseeded tells whether what the quorum knows is not known here yet, so that nothing is admitted.
func (g *Gate) unseeded() bool { return !g.seeded && !mutant.On(mutant.AdmitUnseeded) }

// enter counts a write under the floor of an open resource as under way. There is a free slot.
func (g *Gate) enter(r *resource) Ticket {
	index := g.free - 1
	s := &g.slots[index]
	g.free = s.next
	s.res, s.token, s.state = r, r.open, underWay
	r.live[len(r.live)-1].count++
	g.inFlight++
	g.admitted++
	return ticketOf(int(index), s.generation)
}

// admitSlowly decides about any write. r is nil if the resource is not known.
func (g *Gate) admitSlowly(now clock.Instant, r *resource, name string, token fence.Token, verified bool) (Ticket, Answer, error) {
	g.now = max(g.now, now)
	if r != nil && r.opening != nil {
		g.begin(now)
		g.expireOpenings()
		if verified {
			g.contradicted(r, token)
		}
	}
	if err := g.refusal(r, name, token); err != nil {
		g.refused++
		return 0, Refuse, err
	}
	if r == nil {
		r = g.resource(name)
		g.settle(r) // the base may be open
	}
	if err := g.obstacle(r, token); err != nil {
		g.forget(r)
		g.refused++
		return 0, Refuse, err
	}
	if verified {
		g.witness(token)
	}
	if r.open == token {
		g.countOpening(r)
		return g.enter(r), Go, nil
	}
	g.begin(now)
	if token > r.floor {
		g.raise(r, token, true, verified)
		g.settle(r)
	}
	t := g.park(r)
	g.settle(r)
	return t, Wait, nil
}

// refusal tells why a write is refused, nil if it may go or wait. It decides nothing by what may change within a moment.
func (g *Gate) refusal(r *resource, name string, token fence.Token) error {
	if !token.Valid() {
		return &fence.InvalidError{Kind: fence.ErrInvalidToken, Field: "token", Value: token.Decimal(), Fix: "use a granted token"}
	}
	floor, closes, covered := g.base, false, false
	if r != nil {
		floor, closes, covered = r.floor, r.closes, r.covered
		if mutant.On(mutant.FloorOfAnother) {
			floor = g.base
		}
	} else if name != "" && len(name) <= maxResource {
		covered = g.Covers(name)
		closes, _ = g.ruleFor(name)
	}
	switch {
	case !covered:
		return fmt.Errorf("%w: %.64q", fence.ErrUnguarded, name)
	case g.stopping:
		return &fence.UnavailableError{Resource: name, Obstacle: fence.Stopping}
	case r.by(token): // without a quorum
	case g.unseeded():
		return &fence.UnavailableError{Resource: name, Obstacle: fence.NotSeeded, RetryAfter: retrySoon}
	case g.closed(closes, g.now):
		return g.isolated(name)
	case token < floor && (token < floor-1 || !mutant.On(mutant.OneOlderAdmitted)):
		return &fence.StaleError{Resource: name, Have: token, Floor: floor}
	}
	return nil
}

func (g *Gate) isolated(name string) error {
	if !g.link.enrolled {
		return &fence.UnavailableError{
			Resource: name, Obstacle: fence.NotSeeded, RetryAfter: retrySoon,
			Detail: "the quorum had given this guard up, which now enrols again",
		}
	}
	return &fence.UnavailableError{Resource: name, Obstacle: fence.Isolated, RetryAfter: retrySoon}
}

func (g *Gate) overloaded(name, why string) error {
	return &fence.UnavailableError{Resource: name, Obstacle: fence.Overloaded, Detail: why, RetryAfter: retrySoon}
}

// obstacle tells why a write that may go or wait cannot. If nothing is in its way there is a free slot.
func (g *Gate) obstacle(r *resource, token fence.Token) error {
	waits := r.open != token
	switch {
	case waits && g.disk.failing() && (token > r.floor || !g.durable(r, r.floor)):
		return g.storeFailed(r)
	case waits && g.parked >= g.cfg.MaxParked:
		return g.overloaded(r.name, "too many writes wait for their turn")
	case !g.grow():
		return g.overloaded(r.name, "too many writes are under way")
	}
	return nil
}

func (g *Gate) storeFailed(r *resource) error {
	return &fence.UnavailableError{
		Resource: r.name, Obstacle: fence.StoreFailed, RetryAfter: retrySoon,
		Detail: fmt.Sprintf("floor %s is not on disk", r.floor),
	}
}

// grow sees to a free slot. It fails if there are as many writes as tickets can name.
func (g *Gate) grow() bool {
	if g.free != 0 {
		return true
	}
	if len(g.slots) >= maxSlots {
		return false
	}
	g.slots = append(g.slots, slot{generation: 1})
	g.free = int32(len(g.slots))
	return true
}

// park lets a write under the floor wait for its turn. There is a free slot.
func (g *Gate) park(r *resource) Ticket {
	index := g.free - 1
	s := &g.slots[index]
	g.free = s.next
	s.res, s.token, s.state = r, r.floor, parked
	s.until = g.now.Add(g.cfg.MaxParkTime)
	r.waiting = append(r.waiting, index)
	g.parked++
	return ticketOf(int(index), s.generation)
}

// vacate makes a slot free for another write, under a ticket that there was not yet.
func (g *Gate) vacate(index int32) {
	s := &g.slots[index]
	s.res, s.state = nil, unused
	if s.generation == maxGeneration {
		return
	}
	s.generation++
	s.next = g.free
	g.free = index + 1
}

// slotOf finds the slot of a ticket, -1 if the ticket is not in use.
func (g *Gate) slotOf(t Ticket) int32 {
	index := int64(t&maxSlots) - 1
	if index < 0 || index >= int64(len(g.slots)) {
		return -1
	}
	if s := &g.slots[index]; s.state == unused || s.generation != uint64(t>>slotBits) {
		return -1
	}
	return int32(index)
}

// Done says how the write of a ticket ended that was answered Go, or decided without an error. Anything but Finished counts
// as Broken. It returns nil when there is nothing to do. A ticket that is not under way is ignored.
func (g *Gate) Done(now clock.Instant, t Ticket, o fence.Outcome) *Effects {
	index := g.slotOf(t)
	if index < 0 || g.slots[index].state < underWay {
		return nil
	}
	r, token := g.slots[index].res, g.slots[index].token
	g.vacate(index)
	g.inFlight--
	i := len(r.live) - 1
	for r.live[i].token != token {
		i--
	}
	l := &r.live[i]
	l.count--
	if o != fence.Finished && !mutant.On(mutant.BrokenTakenAsFinished) {
		g.now = max(g.now, now)
		l.ghost = g.now.Add(g.cfg.Slack)
		g.lastGhost = max(g.lastGhost, l.ghost)
	}
	if token == r.floor && !g.stopping {
		return nil
	}
	g.begin(now)
	g.passTime()
	if token != r.floor {
		g.settle(r)
	}
	return g.finish()
}

// abandoned forgets a parked write.
func (g *Gate) abandoned(t Ticket) {
	index := g.slotOf(t)
	if index < 0 || g.slots[index].state != parked {
		return
	}
	r := g.slots[index].res
	i := slices.Index(r.waiting, index)
	r.waiting = slices.Delete(r.waiting, i, i+1)
	g.parked--
	g.vacate(index)
	g.settle(r)
}

// decide answers the parked writes of a resource that can be answered. All of them ask for the same token.
func (g *Gate) decide(r *resource) {
	decided := 0
	for _, index := range r.waiting {
		answered, err := g.verdict(r, &g.slots[index])
		if !answered {
			break // and so must those who came later
		}
		decided++
		s := &g.slots[index]
		g.parked--
		g.out.Decided = append(g.out.Decided, Decided{Ticket: ticketOf(int(index), s.generation), Token: s.token, Err: err})
		if err != nil {
			g.refused++
			g.vacate(index)
			continue
		}
		g.countOpening(r)
		s.state = underWay
		r.live[len(r.live)-1].count++
		g.inFlight++
		g.admitted++
	}
	if decided > 0 {
		r.waiting = slices.Delete(r.waiting, 0, decided)
	}
}

// verdict says what becomes of a parked write; false: it has to wait on.
func (g *Gate) verdict(r *resource, s *slot) (bool, error) {
	switch {
	case r.stale(s.token):
		return true, &fence.StaleError{Resource: r.name, Have: s.token, Floor: r.floor}
	case g.stopping:
		return true, &fence.UnavailableError{Resource: r.name, Obstacle: fence.Stopping}
	case r.open == s.token && (g.unseeded() || g.closed(r.closes, g.now)) && !r.by(s.token):
		return true, g.isolated(r.name)
	case r.open == s.token:
		return true, nil
	case g.disk.failing() && !g.durable(r, r.floor):
		return true, g.storeFailed(r)
	case !g.now.Before(s.until) && !g.durable(r, r.floor):
		return true, g.storeFailed(r)
	case !g.now.Before(s.until):
		return true, g.draining(r)
	}
	return false, nil
}

// draining tells what a write has waited for in vain.
func (g *Gate) draining(r *resource) error {
	e := &fence.UnavailableError{Resource: r.name, Obstacle: fence.Draining, RetryAfter: retrySoon}
	for i := range r.live {
		l := &r.live[i]
		switch {
		case l.token >= r.floor:
		case l.count > 0:
			e.Detail = fmt.Sprintf("%d older writes under %s have not finished", l.count, l.token)
			return e
		case g.now.Before(l.ghost):
			e.RetryAfter = l.ghost.Sub(g.now)
			e.Detail = fmt.Sprintf("an older write under %s was broken off and is waited out for %v", l.token, e.RetryAfter)
		}
	}
	if e.Detail == "" && g.now.Before(r.ghost) {
		e.RetryAfter = r.ghost.Sub(g.now)
		e.Detail = fmt.Sprintf("writes of the process before this one are waited out for %v", e.RetryAfter)
	}
	return e
}
