package gate_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/lease/clock"
)

// world is a guard with its floor store, the storage behind it, a quorum, and what lies between them. It knows what is really
// under way, and judges every admission and every acknowledgement by that.
type world struct {
	t     *rapid.T
	calm  bool
	park  time.Duration // how long a write may be parked
	now   clock.Instant
	queue []worldEvent
	trace []string

	// The guard's process. gate is nil while it is down.
	gate   *gate.Gate
	life   int
	stream int // messages of another one do not arrive
	up     bool
	wake   clock.Instant
	parked map[gate.Ticket]*worldWrite
	under  map[gate.Ticket]*worldWrite
	used   map[gate.Ticket]bool
	// What the guard may believe by the contacts that it was answered, judged independently of it.
	asked      map[uint64]clock.Instant
	contacts   map[uint64]bool
	lastID     uint64
	givenUp    uint64 // the last request before the quorum was known to have given the guard up
	believable clock.Instant

	disk    gate.State
	history []gate.State // what the disk held before each change
	writing []gate.Batch
	broken  bool // the disk
	seeded  bool // the seed of this process is durable

	alive   []*worldWrite          // what may still reach the storage
	highest map[string]fence.Token // admitted
	acked   map[string]fence.Token // acknowledged by the guard

	quorum worldQuorum
	glass  worldGlass
}

type worldEvent struct {
	at clock.Instant
	do func()
}

// worldWrite is a write that may reach the storage until it ends.
type worldWrite struct {
	resource string
	token    fence.Token
	since    clock.Instant
	until    clock.Instant // clock.Never while the guard carries it
	glass    bool          // a certificate let it go
}

// worldQuorum is what the coordinator knows of the guard and of the resources.
type worldQuorum struct {
	session  string // "" if the guard is out or not known
	removed  bool   // it was not given up for want of contact
	intake   clock.Instant
	store    string
	version  uint64
	issued   uint64
	epoch    uint32
	given    map[string][]fence.Token
	holds    map[string]fence.Token // fencing or granted
	unproved map[string]fence.Token
}

const (
	worldSlack = 2 * time.Second
	worldLease = 12 * time.Second
	worldDrain = 3 * time.Second
)

var worldResources = []string{"open/a", "open/b", "close/a", "close/b"}

func needsContact(resource string) bool { return strings.HasPrefix(resource, "close/") }

func newWorld(t *rapid.T, calm bool) *world {
	w := &world{
		t: t, calm: calm, park: time.Duration(rapid.IntRange(1, 8).Draw(t, "park")) * time.Second, now: origin, disk: gate.State{Store: "store1"},
		highest: map[string]fence.Token{}, acked: map[string]fence.Token{},
		glass:  worldGlass{asked: map[uint64]bool{}, taken: map[string][]worldCertificate{}},
		quorum: worldQuorum{epoch: 1, given: map[string][]fence.Token{}, holds: map[string]fence.Token{}, unproved: map[string]fence.Token{}},
	}
	w.start()
	return w
}

func (w *world) fail(format string, args ...any) {
	w.t.Logf("before that:\n%s", strings.Join(w.trace, "\n"))
	w.t.Fatalf("%v: %s", w.now.Sub(origin), fmt.Sprintf(format, args...))
}

// note remembers what happened lately.
func (w *world) note(what string, about any) {
	if len(w.trace) == 100 {
		w.trace = append(w.trace[:0], w.trace[1:]...)
	}
	w.trace = append(w.trace, fmt.Sprintf("%v %s %v", w.now.Sub(origin), what, about))
}

func (w *world) after(d time.Duration, do func()) {
	at := w.now.Add(d)
	i := sort.Search(len(w.queue), func(i int) bool { return w.queue[i].at > at })
	w.queue = slices.Insert(w.queue, i, worldEvent{at, do})
}

// inLife does something later unless the process has ended by then.
func (w *world) inLife(d time.Duration, do func()) {
	life := w.life
	w.after(d, func() {
		if w.gate != nil && w.life == life {
			do()
		}
	})
}

func (w *world) duration(label string, most time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(0, int64(most/time.Millisecond)).Draw(w.t, label)) * time.Millisecond
}

// start starts the guard's process from what is on its disk.
func (w *world) start() {
	w.life++
	w.stream++
	w.up = false
	w.note("starts", w.disk)
	cfg := gate.Config{
		Name: "g", Session: fmt.Sprintf("s%d", w.life), Slack: worldSlack, MaxParkTime: w.park, MaxParked: 6,
		Enrol: &writv1.GuardEnrol{Covers: []string{"open/*", "close/*"}},
	}
	state := w.disk
	state.Floors, state.Wall = slices.Clone(state.Floors), w.wall()
	w.glass.alone = max(w.glass.alone, w.now.Add(defaultLease))
	w.disk.Clean = false
	w.recall()
	g, err := gate.New(cfg, state, w.now)
	if err != nil {
		w.fail("%v", err)
	}
	w.gate, w.wake = g, clock.Never
	w.parked, w.under, w.used = map[gate.Ticket]*worldWrite{}, map[gate.Ticket]*worldWrite{}, map[gate.Ticket]bool{}
	w.seeded, w.lastID, w.givenUp, w.contacts = false, 0, 0, map[uint64]bool{}
	w.glass.asked = map[uint64]bool{}
	w.distrust()
	w.step(gate.Tick{})
}

// end ends the process. What it carried may go on in the storage for W, and each batch under way may have become durable.
func (w *world) end() {
	for _, t := range slices.Sorted(maps.Keys(w.under)) {
		w.under[t].until = w.now.Add(w.duration("outlives", worldSlack))
	}
	for _, b := range w.writing {
		if rapid.Bool().Draw(w.t, "durable") {
			w.apply(b)
		}
	}
	w.writing = nil
	w.gate, w.up = nil, false
	w.stream++
}

func (w *world) step(e gate.Event) {
	if w.gate != nil {
		w.note(fmt.Sprintf("%T", e), e)
		w.take(w.gate.Step(w.now, e))
	}
}

// take carries effects out.
func (w *world) take(e *gate.Effects) {
	if e == nil {
		return
	}
	if w.wake = e.Wake; e.Wake <= w.now {
		w.fail("wants to be woken at %v", e.Wake.Sub(origin))
	}
	for _, d := range e.Decided {
		write := w.parked[d.Ticket]
		if write == nil {
			w.fail("ticket %d is decided and was not parked", d.Ticket)
		}
		delete(w.parked, d.Ticket)
		if d.Err == nil {
			w.admitted(d.Ticket, write)
		} else {
			w.refused(write, d.Err)
		}
	}
	for _, t := range e.Cut {
		if w.under[t] == nil {
			w.fail("ticket %d is cut and not under way", t)
		}
		w.inLife(w.duration("cut takes", 100*time.Millisecond), func() { w.done(t, rapid.IntRange(0, 3).Draw(w.t, "cut finishes") == 0) })
	}
	w.persist(e.Persist)
	for _, m := range e.Send {
		w.carry(m)
	}
	if e.Reconnect {
		w.inLife(0, w.disconnect)
	}
	if e.Left && len(w.under) > 0 {
		w.fail("left with %d writes under way", len(w.under))
	}
	for t, write := range w.parked {
		if w.now > write.since.Add(w.park) {
			w.fail("ticket %d is parked since %v", t, write.since.Sub(origin))
		}
	}
	if s := w.gate.Status(); s.InFlight != len(w.under) || s.Parked != len(w.parked) {
		w.fail("%d in flight and %d parked, counted %d and %d", len(w.under), len(w.parked), s.InFlight, s.Parked)
	}
	w.judgePages()
}

// write asks for a write.
func (w *world) write(resource string, token fence.Token) error {
	if w.gate == nil {
		return nil
	}
	t, a, err := w.gate.Admit(w.now, resource, token, rapid.Bool().Draw(w.t, "verified"))
	write := &worldWrite{resource: resource, token: token, since: w.now, until: clock.Never}
	if a != gate.Refuse {
		if t == 0 || w.used[t] {
			w.fail("ticket %d is given out again", t)
		}
		w.used[t] = true
	}
	switch a {
	case gate.Refuse:
		w.refused(write, err)
	case gate.Go:
		w.admitted(t, write)
	case gate.Wait:
		w.parked[t] = write
		if rapid.IntRange(0, 9).Draw(w.t, "abandons") == 0 {
			w.inLife(w.duration("abandons after", w.park), func() {
				if w.parked[t] != nil {
					delete(w.parked, t)
					w.step(gate.Abandoned{Ticket: t})
				}
			})
		}
	}
	if w.gate.Pending() {
		w.take(w.gate.Take())
	}
	return err
}

func (w *world) refused(write *worldWrite, err error) {
	var stale *fence.StaleError
	if errors.As(err, &stale) && (stale.Have != write.token || stale.Floor <= write.token) {
		w.fail("%v refuses %v", err, write.token)
	}
	if err == nil {
		w.fail("refused for no reason")
	}
}

// admitted judges an admission.
func (w *world) admitted(t gate.Ticket, write *worldWrite) {
	r, token := write.resource, write.token
	write.glass = w.certified(r, token)
	switch {
	case write.glass:
	case !w.seeded || !w.gate.Seeded():
		w.fail("%s %v is admitted before the seed", r, token)
	case needsContact(r) && w.now >= w.believable:
		w.fail("%s %v is admitted without contact since %v", r, token, w.believable.Sub(origin))
	case needsContact(r) && w.quorum.session == "" && !w.quorum.removed:
		w.fail("%s %v is admitted while the quorum has given the guard up", r, token)
	}
	switch {
	case token < w.highest[r]:
		w.fail("%s %v is admitted after %v", r, token, w.highest[r])
	case token < w.acked[r]:
		w.fail("%s %v is admitted after %v was acknowledged", r, token, w.acked[r])
	case w.durable(r) < token:
		w.fail("%s %v is admitted, and the disk has %v", r, token, w.durable(r))
	}
	w.clear(r, token, "is admitted")
	w.highest[r] = token
	w.under[t] = write
	w.alive = append(w.alive, write)
	w.inLife(w.duration("takes", 8*time.Second), func() { w.done(t, rapid.IntRange(0, 4).Draw(w.t, "finishes") > 0) })
}

// clear fails if something older may still reach the storage.
func (w *world) clear(resource string, token fence.Token, what string) {
	for _, other := range w.alive {
		if other.resource == resource && other.token < token && other.until > w.now {
			w.fail("%s %v %s while %v is under way", resource, token, what, other.token)
		}
	}
}

// done ends a write. A broken one may go on in the storage for W.
func (w *world) done(t gate.Ticket, finished bool) {
	write := w.under[t]
	if write == nil {
		return
	}
	delete(w.under, t)
	outcome := fence.Finished
	write.until = w.now
	if !finished {
		outcome = fence.Broken
		write.until = w.now.Add(w.duration("outlives", worldSlack))
	}
	w.take(w.gate.Done(w.now, t, outcome))
	w.alive = slices.DeleteFunc(w.alive, func(o *worldWrite) bool { return o.until <= w.now })
}

// The disk.

func (w *world) durable(resource string) fence.Token {
	for _, f := range w.disk.Floors {
		if f.Resource == resource {
			return f.Token
		}
	}
	return w.disk.Base
}

func (w *world) persist(batches []gate.Batch) {
	for _, b := range batches {
		if len(w.writing) > 0 {
			w.fail("batch %d while %d is under way", b.Serial, w.writing[0].Serial)
		}
		w.writing = append(w.writing, b)
		w.inLife(w.duration("fsync", 300*time.Millisecond), func() {
			w.writing = nil
			switch {
			case !w.broken:
				w.apply(b)
				w.seeded = w.seeded || b.Forget
				w.step(gate.Persisted{Serial: b.Serial})
			default:
				if rapid.Bool().Draw(w.t, "durable all the same") {
					w.apply(b)
				}
				w.step(gate.Persisted{Serial: b.Serial, Err: errors.New("disk full")})
			}
		})
	}
}

// apply makes a batch durable, and fails if it takes a floor back.
func (w *world) apply(b gate.Batch) {
	before := map[string]fence.Token{}
	for _, r := range worldResources {
		before[r] = w.durable(r)
	}
	if b.Version <= w.disk.Version {
		w.fail("version %d after %d", b.Version, w.disk.Version)
	}
	w.note("durable", b)
	w.history = append(w.history, w.disk)
	s := w.disk
	s.Version = b.Version
	s.Base, s.Witnessed = max(s.Base, b.Base), max(s.Witnessed, b.Witnessed)
	if b.Quorum != nil {
		s.Quorum = *b.Quorum
	}
	if b.PutOpenings {
		s.Openings = b.Openings
		w.reveal(b.Openings)
	}
	floors := map[string]gate.Floor{}
	for _, f := range s.Floors {
		if !b.Forget || f.Token > s.Base {
			floors[f.Resource] = f
		}
	}
	for _, f := range b.Floors {
		floors[f.Resource] = f
	}
	s.Floors = nil
	for _, name := range slices.Sorted(maps.Keys(floors)) {
		s.Floors = append(s.Floors, floors[name])
	}
	w.disk = s
	for _, r := range worldResources {
		if w.durable(r) < before[r] {
			w.fail("batch %d takes %s from %v back to %v", b.Serial, r, before[r], w.durable(r))
		}
	}
}

// roll takes the disk back to what it was, so far that the quorum can tell; else it is lost.
func (w *world) roll(lost bool) {
	for _, s := range slices.Backward(w.history) {
		if !lost && s.Store == w.disk.Store && s.Version < w.quorum.version && rapid.Bool().Draw(w.t, "this far") {
			w.disk = s
			// A file from before a certificate was given up would bring it back: nobody could tell.
			w.disk.Openings = nil
			return
		}
	}
	w.disk = gate.State{Store: fmt.Sprintf("store%d", w.life+1)}
}

// run lets the world go on.
func (w *world) run(span time.Duration) {
	end := w.now.Add(span)
	for {
		next := end
		if w.gate != nil {
			next = min(next, w.wake)
		}
		switch {
		case len(w.queue) > 0 && w.queue[0].at <= next:
			e := w.queue[0]
			w.queue = w.queue[1:]
			w.now = max(w.now, e.at)
			w.lapse()
			e.do()
		case w.gate != nil && w.wake <= end:
			w.now = max(w.now, w.wake)
			w.lapse()
			w.step(gate.Tick{})
		default:
			w.now = end
			w.lapse()
			return
		}
	}
}
