//writ:core

package gate

import (
	"container/heap"
	"slices"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

// maxTold bounds the raises of one resource that wait to be acknowledged. An ack of a newer floor proves the older ones.
const maxTold = 8

// resource is what the gate knows of one resource.
type resource struct {
	name    string
	covered bool
	closes  bool          // its rule, or the guard's own, refuses without contact
	drain   time.Duration // how long older writes may take before they are cut

	// open is the floor while a write under exactly it may begin at once, and otherwise 0.
	open  fence.Token
	floor fence.Token
	own   bool // the floor is its own, and not the base

	file        fence.Token // its own floor that is known to be durable; 0: none
	fileDrained bool
	dirty       bool // its floor is to be written
	lazy        bool // that it has drained is to be written, at leisure

	raisedAt clock.Instant // 0: before this process
	vouched  bool          // the floor came from the quorum, not with a bare token
	ghost    clock.Instant // until then writes of the process before may be under way below the floor; 0: none are
	waited   bool          // something below the floor was waited out rather than seen to finish

	live    []live        // in order of their tokens; the floor's last
	waiting []int32       // slots of parked writes, the longest first; all under the floor of now
	told    []fence.Token // floors to acknowledge, in order

	opening *opening // what a certificate of break-glass allows; nil: nothing

	due   clock.Instant
	index int // in the heap; -1: nothing is due
}

// live is what may be under way under one token.
type live struct {
	token fence.Token
	count int
	ghost clock.Instant // until then a broken write may be under way; 0: none
	since clock.Instant // since when the token is below the floor; 0: it is not
	cut   bool
}

// resource finds a resource, or makes it with the base for its floor.
func (g *Gate) resource(name string) *resource {
	if r := g.resources.byName[name]; r != nil {
		return r
	}
	r := &resource{
		name: name, covered: g.Covers(name), floor: g.base, raisedAt: g.baseAt, vouched: true, ghost: g.liveGhost(), index: -1,
	}
	g.applyRule(r)
	g.resources.add(r)
	return r
}

// liveGhost is until when writes of the process before this one may be under way, 0 if none are.
func (g *Gate) liveGhost() clock.Instant {
	if g.now.Before(g.ghostUntil) {
		return g.ghostUntil
	}
	return 0
}

// stale tells whether a token is refused for good.
func (r *resource) stale(token fence.Token) bool { return token < r.floor }

// underway tells whether anything of that token may still reach the storage.
func (l *live) underway(now clock.Instant) bool { return l.count > 0 || now.Before(l.ghost) }

// drained tells whether nothing below f is under way.
func (r *resource) drained(f fence.Token, now clock.Instant) bool {
	if now.Before(r.ghost) {
		return false
	}
	for i := range r.live {
		if r.live[i].token < f && r.live[i].underway(now) {
			return false
		}
	}
	return true
}

// durable tells whether a restart would come back with a floor of at least f.
func (g *Gate) durable(r *resource, f fence.Token) bool {
	if r.file != 0 {
		return r.file >= f
	}
	return g.disk.base >= f
}

// raise lifts a floor. own tells whether it is for this resource, or the base that it falls back to. The caller settles r,
// which closes it.
func (g *Gate) raise(r *resource, f fence.Token, own, vouched bool) {
	if r.drained(r.floor, g.now) {
		r.waited = false
	}
	r.floor, r.own, r.vouched = f, own, vouched
	r.raisedAt = g.now
	r.ghost = g.liveGhost()
	for i := range r.live {
		if r.live[i].since == 0 {
			r.live[i].since = g.now
		}
	}
	if own {
		g.dirty(r)
	}
}

// raiseBase lifts the floor of every resource that has none of its own, and of those whose own is below it and that the
// quorum did not name.
func (g *Gate) raiseBase(base fence.Token, named map[string]bool) {
	if base > g.base {
		g.base, g.baseAt = base, g.now
	}
	for _, r := range g.sorted() {
		switch {
		case named[r.name]:
			// It is put anew, because the store forgets what is not above the base.
			if r.own = r.own || r.floor < g.base; r.own {
				g.dirty(r)
			}
		case r.floor < g.base:
			g.raise(r, g.base, false, true)
			g.settle(r)
		case r.floor == g.base:
			r.own = false
			g.settle(r)
		}
	}
}

// answeredFloor takes in a floor that the quorum answered with to what was asked at an instant: one that it held after that.
func (g *Gate) answeredFloor(f *writv1.GuardFloor, asked clock.Instant) {
	r, floor := g.tell(f)
	if r == nil || !r.stale(floor) {
		return
	}
	switch {
	case r.raisedAt == 0 || r.raisedAt.Before(asked):
		g.alarm(r, floor)
	case !r.vouched: // raised meanwhile with a bare token, which the answer says nothing of
		g.doubt(r)
	}
}

// news takes in a floor that a node tells unasked. It tells what it sees, which may be any time behind what the coordinator
// answered by way of the same node, so that a floor below ours is for no more than a question. One of lately is not even that.
func (g *Gate) news(f *writv1.GuardFloor) {
	r, floor := g.tell(f)
	if r == nil || !r.stale(floor) {
		return
	}
	if mutant.On(mutant.LateNewsAlarms) {
		g.answeredFloor(f, g.now)
		return
	}
	if !r.vouched || r.raisedAt == 0 || r.raisedAt.Before(g.now.Add(-g.link.every())) {
		g.doubt(r)
	}
}

// doubt has the next contact ask for the floor of a resource.
func (g *Gate) doubt(r *resource) {
	at, known := slices.BinarySearch(g.doubts, r.name)
	if known || !r.covered || len(g.doubts) == maxDoubts {
		return
	}
	g.doubts = slices.Insert(g.doubts, at, r.name)
	g.link.contactDue = min(g.link.contactDue, g.now.Add(g.link.lease/retryPart))
}

// settleDoubt takes in what the quorum says of a resource that it was asked for.
func (g *Gate) settleDoubt(f *writv1.GuardFloor, asked clock.Instant) {
	at, known := slices.BinarySearch(g.doubts, f.GetResource())
	if !known {
		return
	}
	g.doubts = slices.Delete(g.doubts, at, at+1)
	if g.resources.byName[f.GetResource()] != nil { // else it was forgotten meanwhile
		g.answeredFloor(f, asked)
	}
}

// tell takes a floor from the quorum in: the resource is raised if it is newer, and to be acknowledged in any case. It answers
// the resource and what was told, nil if that makes no sense.
func (g *Gate) tell(f *writv1.GuardFloor) (r *resource, told fence.Token) {
	told, ok := tokenOf(f.GetToken())
	name := f.GetResource()
	if !ok || told == 0 || name == "" || len(name) > maxResource {
		g.warn("the quorum told a floor of %d for a name of %d bytes, which makes no sense and is ignored", f.GetToken(), len(name))
		return nil, 0
	}
	r = g.resource(name)
	g.witness(told)
	switch {
	case told == r.floor:
		r.vouched = true
	case !r.stale(told):
		g.raise(r, told, true, true)
	}
	if g.link.up {
		if i, found := slices.BinarySearch(r.told, r.floor); !found {
			r.told = slices.Insert(r.told, i, r.floor)
		}
		if len(r.told) > maxTold {
			r.told = slices.Delete(r.told, 0, 1)
		}
	}
	g.settle(r)
	return r, told
}

// tokenOf reads a floor, 0 for none. A base may lie between epochs, so it need not be a token that could be granted.
func tokenOf(v uint64) (fence.Token, bool) {
	t := fence.Token(v)
	return t, t >= 0
}

func (g *Gate) alarm(r *resource, token fence.Token) {
	for _, a := range g.alarms {
		if a.GetResource() == r.name && a.GetToken() == uint64(token) && a.GetFloor() == uint64(r.floor) {
			return // told again
		}
	}
	if len(g.alarms) == maxAlarms {
		g.alarms = slices.Delete(g.alarms, 0, 1)
	}
	g.alarms = append(g.alarms, &writv1.GuardAlarm{Resource: r.name, Token: uint64(token), Floor: uint64(r.floor)})
	g.alarmCount++
	g.warn("the quorum says %s for resource %q, whose floor is %s: a token was made up on a trusted route, or the quorum went back",
		token, r.name, r.floor)
}

// settle does what the state of a resource allows: it opens for its floor, decides parked writes, acknowledges raises and
// cuts what took too long.
func (g *Gate) settle(r *resource) {
	r.expire(g.now)
	g.cut(r)
	drained := r.drained(r.floor, g.now)
	if mutant.On(mutant.DrainTimeoutAdmits) && len(r.waiting) > 0 && !g.now.Before(g.slots[r.waiting[0]].until) {
		drained = true
	}
	durable := g.durable(r, r.floor)
	r.open = 0
	if (drained || mutant.On(mutant.AdmitBeforeDrain)) && (durable || mutant.On(mutant.AdmitBeforeFsync)) && r.covered && r.floor != 0 {
		r.open = r.floor
		if n := len(r.live); n == 0 || r.live[n-1].token != r.floor {
			r.live = append(r.live, live{token: r.floor})
		}
	}
	g.decide(r)
	g.acknowledge(r)
	if drained && r.own && r.file == r.floor && !r.fileDrained {
		g.lazy(r)
	}
	g.schedule(r, drained)
}

// expire forgets older tokens of which nothing is under way any more.
func (r *resource) expire(now clock.Instant) {
	if r.ghost != 0 && !now.Before(r.ghost) {
		r.waited = r.waited || r.ghost.After(r.raisedAt)
		r.ghost = 0
	}
	keep := r.live[:0]
	for _, l := range r.live {
		if l.token < r.floor && !l.underway(now) {
			r.waited = r.waited || l.ghost.After(l.since)
			continue
		}
		keep = append(keep, l)
	}
	r.live = keep
}

// cut breaks off the writes under older tokens whose time is up. They stay under way until they are done, and waited out.
func (g *Gate) cut(r *resource) {
	for i := range r.live {
		l := &r.live[i]
		if l.token >= r.floor || l.cut || l.count == 0 || g.now.Before(l.since.Add(r.drain)) {
			continue
		}
		l.cut = true
		for j := range g.slots {
			if s := &g.slots[j]; s.res == r && s.token == l.token {
				g.breakOff(j)
			}
		}
	}
}

// breakOff has a write cut, unless it has been.
func (g *Gate) breakOff(index int) {
	if s := &g.slots[index]; s.state == underWay {
		s.state = cutOff
		g.out.Cut = append(g.out.Cut, ticketOf(index, s.generation))
	}
}

// sever breaks off every write whose resource is refused without contact. The quorum takes it that nothing of them reaches
// the storage when the guard lease, and W, have run out, so none may go on for longer.
func (g *Gate) sever() {
	g.severAt = 0
	if mutant.On(mutant.NotSevered) {
		return
	}
	for i := range g.slots {
		if s := &g.slots[i]; s.state == underWay && s.res.closes {
			g.breakOff(i)
		}
	}
}

// acknowledge says which floors are proved: durable, and nothing below is under way.
func (g *Gate) acknowledge(r *resource) {
	proved := 0
	for _, f := range r.told {
		if !g.durable(r, f) && !mutant.On(mutant.AckBeforeFsync) || !r.drained(f, g.now) && !mutant.On(mutant.AckBeforeDrain) {
			break
		}
		proved++
	}
	if proved == 0 {
		return
	}
	proof := writv1.GuardProof_GUARD_PROOF_ACKED
	if r.waited {
		proof = writv1.GuardProof_GUARD_PROOF_CUT
	}
	g.acks = append(g.acks, &writv1.GuardAck{Resource: r.name, Token: uint64(r.told[proved-1]), Proof: proof})
	r.told = slices.Delete(r.told, 0, proved)
}

// schedule finds out when a resource has to be settled again for no other reason than time.
func (g *Gate) schedule(r *resource, drained bool) {
	due := clock.Never
	if len(r.waiting) > 0 {
		due = g.slots[r.waiting[0]].until
	}
	if !drained {
		if r.ghost != 0 {
			due = min(due, r.ghost)
		}
		for i := range r.live {
			l := &r.live[i]
			switch {
			case l.token >= r.floor:
			case l.count == 0:
				due = min(due, l.ghost)
			case !l.cut:
				due = min(due, l.since.Add(r.drain))
			}
		}
	}
	r.due = due
	switch {
	case due == clock.Never && r.index >= 0:
		heap.Remove(&g.due, r.index)
	case due == clock.Never:
	case r.index >= 0:
		heap.Fix(&g.due, r.index)
	default:
		heap.Push(&g.due, r)
	}
}

// idle tells whether nothing would be lost if the resource were made anew.
func (r *resource) idle(now clock.Instant) bool {
	if r.own || r.file != 0 || r.dirty || r.lazy || r.opening != nil || len(r.waiting) > 0 || len(r.told) > 0 {
		return false
	}
	for i := range r.live {
		if r.live[i].underway(now) {
			return false
		}
	}
	return true
}

// forget drops a resource of which nothing has to be remembered.
func (g *Gate) forget(r *resource) {
	if !r.idle(g.now) {
		return
	}
	if r.index >= 0 {
		heap.Remove(&g.due, r.index)
	}
	g.resources.drop(r)
}

// sorted returns the resources in order of their names, as a copy that goes on when they change.
func (g *Gate) sorted() []*resource {
	all := make([]*resource, 0, len(g.resources.byName))
	g.resources.names.from("", func(r *resource) bool {
		all = append(all, r)
		return true
	})
	return all
}

// dueHeap orders resources by when they are due, and by name.
type dueHeap []*resource

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if h[i].due != h[j].due {
		return h[i].due < h[j].due
	}
	return h[i].name < h[j].name
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *dueHeap) Push(x any) {
	r := x.(*resource)
	r.index = len(*h)
	*h = append(*h, r)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	r.index = -1
	return r
}
