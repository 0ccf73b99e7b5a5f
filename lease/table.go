//writ:core

package lease

import (
	"fmt"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

// Table is the pure core of the server: it decides who holds what. It changes its own memory as it decides; the engine
// around it lets no answer out before what the answer rests on has been committed, or confirmed to be still its own to
// decide, and throws the whole table away when it cannot know. So nothing is ever undone.
//
// Time comes in with every event. Deadlines are counted on the coordinator's suspend-aware clock from the intake of the
// request that they answer.
type Table struct {
	config  TableConfig
	epoch   fence.Epoch
	entries map[Resource]*entry
	timers  timerHeap
	strings interner

	// Tokens from next to limit (sequences of epoch) may be handed out.
	next, limit uint64

	waiting   map[CallID]*waiter
	byRequest map[waitKey]*waiter
	waitSeq   uint64

	held       int
	heldByRule []int

	dirty       []*entry
	dirtyWrites int
	dirtyBytes  int
	effects     Effects
}

// TableConfig holds what the table's decisions depend on besides the requests.
type TableConfig struct {
	Policy Policy
	// Retention is how long the record of a free resource is kept, so that late duplicates of its last requests are
	// recognised. Default 5 minutes.
	Retention time.Duration
	// MaxWaiters bounds the queue of one resource. Default 10,000.
	MaxWaiters int
}

func (c TableConfig) withDefaults() TableConfig {
	if c.Retention <= 0 {
		c.Retention = 5 * time.Minute
	}
	if c.MaxWaiters <= 0 {
		c.MaxWaiters = 10_000
	}
	return c
}

// Moment is the time of an event: the coordinator's own clock for decisions, wall time for people.
type Moment struct {
	Now  clock.Instant
	Wall time.Time
}

// CallID names a request that waits for its answer.
type CallID uint64

// TableEvent is something that happens to the table.
type TableEvent interface{ tableEvent() }

// Request is a command that was taken in at a time: validity counts from there.
type Request struct {
	ID      CallID
	Intake  clock.Instant
	Command Command
}

// Gone says that nobody waits for that answer any more. The place in the queue is kept for a while, as between polls.
type Gone struct{ ID CallID }

// Tick lets time pass: what is due happens, until DirtyWrites has reached MaxWrites or DirtyBytes MaxBytes. The last change
// may exceed them by one write and by a record's size.
type Tick struct{ MaxWrites, MaxBytes int }

func (Request) tableEvent() {}
func (Gone) tableEvent()    {}
func (Tick) tableEvent()    {}

// Effects is what a step wants done. It is valid until the next step.
type Effects struct {
	Replies []Reply
}

// Reply answers a request. Value is *Grant, *Waiting, fence.Token (CancelAcquire), RenewOutcome, Info (ForceRelease,
// Inspect) or nil; with Err set it is nil.
type Reply struct {
	ID    CallID
	Err   *Error
	Value any
}

// entry is one resource.
type entry struct {
	rec        Record
	checkpoint []byte
	deadline   clock.Instant // while held
	notBefore  clock.Instant // while free: the lock delay ends
	freedAt    clock.Instant // while free
	wake       clock.Instant // the earliest timer that is set for this entry
	queue      []*waiter     // by priority, then arrival
	rule       int
	dirty      bool
	counted    int  // its part of dirtyBytes
	dirtyCheck bool // the checkpoint changed
	gone       bool // to be deleted
	ended      bool // the store still says held: to be stored with the next tick
}

// NewTable makes an empty table that hands out tokens of epoch. It hands out none before Allow.
func NewTable(config TableConfig, epoch fence.Epoch) *Table {
	return &Table{
		config:     config.withDefaults(),
		epoch:      epoch,
		entries:    make(map[Resource]*entry),
		waiting:    make(map[CallID]*waiter),
		byRequest:  make(map[waitKey]*waiter),
		heldByRule: make([]int, len(config.Policy.Rules)),
	}
}

// Allow lets the table hand out the sequences first to last of its epoch. Ranges only go up.
func (t *Table) Allow(first, last uint64) {
	if first < t.next || last < t.limit {
		panic(fmt.Sprintf("lease: token range %d-%d goes back: next is %d, limit %d", first, last, t.next, t.limit))
	}
	t.next, t.limit = max(first, 1), last
}

// Extend lets the table hand out sequences up to last, in addition to those that are left.
func (t *Table) Extend(last uint64) { t.Allow(t.next, last) }

// TokensLeft is how many tokens may still be handed out.
func (t *Table) TokensLeft() uint64 {
	if t.next > t.limit {
		return 0
	}
	return t.limit - t.next + 1
}

// Load takes over one resource as it was committed. Every held lease gets its full TTL from m: its holder may have been
// promised that by the coordinator before. A lease of an older epoch has ended: the epoch changes only when everything of
// before has been waited out.
func (t *Table) Load(m Moment, rec Record, checkpoint []byte) {
	rec.Holder.Principal = Principal(t.strings.get(string(rec.Holder.Principal)))
	rec.Holder.Instance = t.strings.get(rec.Holder.Instance)
	rec.Holder.Region = t.strings.get(rec.Holder.Region)
	e := &entry{rec: rec, checkpoint: checkpoint, wake: clock.Never, rule: t.config.Policy.ruleFor(rec.Resource)}
	t.entries[rec.Resource] = e
	if e.rec.Held && e.rec.Token.Epoch() != t.epoch {
		e.rec.remember(e.rec.Holder.Principal, e.rec.RequestID, e.rec.Token, EndExpired)
		e.rec.Held, e.rec.Ending, e.rec.End = false, false, EndExpired
		e.ended = true
		t.wakeAt(e, m.Now)
	}
	if e.rec.Held {
		t.count(e, 1)
		e.deadline = m.Now.Add(rec.TTL)
		t.wakeAt(e, e.deadline)
		return
	}
	e.freedAt = m.Now
	if e.rec.End == EndExpired || e.rec.End == EndForced {
		e.notBefore = m.Now.Add(t.lockDelay(e))
	}
	t.wakeFree(e)
}

// Step takes one event in.
func (t *Table) Step(m Moment, ev TableEvent) *Effects {
	t.effects.Replies = t.effects.Replies[:0]
	switch ev := ev.(type) {
	case Request:
		t.request(m, ev)
	case Gone:
		t.gone(m, ev.ID)
	case Tick:
		t.tick(m, ev)
	}
	return &t.effects
}

func (t *Table) request(m Moment, r Request) {
	switch c := r.Command.(type) {
	case Acquire:
		t.acquire(m, r, c)
	case CancelAcquire:
		t.cancelAcquire(m, r, c)
	case Renew:
		t.renew(m, r, c)
	case Release:
		t.release(m, r, c)
	case Checkpoint:
		t.putCheckpoint(m, r, c)
	case ForceRelease:
		t.forceRelease(m, r, c)
	case Inspect:
		t.inspect(m, r, c)
	}
}

// NextDue is when the next Tick has something to do; clock.Never if nothing is due ever, or not before there are tokens.
func (t *Table) NextDue() clock.Instant {
	if t.TokensLeft() == 0 {
		return clock.Never
	}
	return t.timers.next()
}

// HeldCount is how many resources are held.
func (t *Table) HeldCount() int { return t.held }

// DirtyBytes bounds the size of what Dirty will hand over, with its keys.
func (t *Table) DirtyBytes() int { return t.dirtyBytes }

// DirtyWrites is how many writes what Dirty will hand over takes: one a record, and one a changed checkpoint.
func (t *Table) DirtyWrites() int { return t.dirtyWrites }

// Change is one changed record. A nil Record deletes it and its checkpoint.
type Change struct {
	Resource Resource
	Record   *Record
	// Checkpoint is to be written if CheckpointChanged; empty removes it.
	Checkpoint        []byte
	CheckpointChanged bool
}

// Dirty hands every record that changed since the last call to visit, once each, in the order in which they changed
// first. Records are only valid during the call.
func (t *Table) Dirty(visit func(Change)) {
	for _, e := range t.dirty {
		c := Change{Resource: e.rec.Resource, Record: &e.rec, Checkpoint: e.checkpoint, CheckpointChanged: e.dirtyCheck}
		if e.gone {
			c.Record = nil
			delete(t.entries, e.rec.Resource)
		}
		visit(c)
		e.dirty, e.dirtyCheck = false, false
	}
	clear(t.dirty)
	t.dirty, t.dirtyWrites, t.dirtyBytes = t.dirty[:0], 0, 0
}

// writeOverhead bounds what a write takes beside the resource's name and the value: the rest of its key, and what a store
// adds to both.
const writeOverhead = 32

// mark notes that the record, as it now is, has to be stored.
func (t *Table) mark(e *entry) {
	e.gone = false
	t.changed(e)
}

// forget notes that the record has to be deleted.
func (t *Table) forget(e *entry) {
	e.gone = true
	t.changed(e)
}

func (t *Table) changed(e *entry) {
	e.ended = false
	if !e.dirty {
		e.dirty, e.counted = true, 0
		t.dirty = append(t.dirty, e)
		t.dirtyWrites++
	}
	size := e.size()
	t.dirtyBytes += size - e.counted
	e.counted = size
}

// size bounds from above what storing the entry takes: a round that turns out too large ends the term.
func (e *entry) size() int {
	size := writeOverhead + len(e.rec.Resource)
	if !e.gone {
		size += e.rec.Size()
	}
	if e.dirtyCheck {
		size += writeOverhead + len(e.rec.Resource) + len(e.checkpoint)
	}
	return size
}

func (t *Table) reply(id CallID, value any) {
	t.effects.Replies = append(t.effects.Replies, Reply{ID: id, Value: value})
}

func (t *Table) refuse(id CallID, err *Error) {
	t.effects.Replies = append(t.effects.Replies, Reply{ID: id, Err: err})
}

// count keeps the numbers of held leases.
func (t *Table) count(e *entry, by int) {
	t.held += by
	if e.rule >= 0 {
		t.heldByRule[e.rule] += by
	}
}

func (t *Table) full(rule int) bool {
	return rule >= 0 && t.config.Policy.Rules[rule].MaxLeases > 0 && t.heldByRule[rule] >= t.config.Policy.Rules[rule].MaxLeases
}

func (t *Table) lockDelay(e *entry) time.Duration {
	if e.rule < 0 {
		return 0
	}
	return t.config.Policy.Rules[e.rule].LockDelay
}

// interner shares equal strings: a process that holds 100,000 leases sends its name with each.
type interner struct{ slots [256]string }

func (in *interner) get(s string) string {
	if s == "" {
		return ""
	}
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	slot := &in.slots[h%uint32(len(in.slots))]
	if *slot != s {
		*slot = s
	}
	return *slot
}

// Known says whether the table has a record of the resource.
func (t *Table) Known(name Resource) bool { return t.entries[name] != nil }
