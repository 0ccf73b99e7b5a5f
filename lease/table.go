//writ:core

package lease

import (
	"cmp"
	"fmt"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
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
	names   interner

	// Tokens from next to limit (sequences of epoch) may be handed out.
	next, limit uint64

	waiting   map[CallID]*waiter
	byRequest map[waitKey]*waiter
	waitSeq   uint64

	guards     guards
	tenures    []*entry // by name
	held       int
	heldByRule []int

	dirty       []*entry
	dirtyWrites int
	dirtyBytes  int
	effects     Effects
	noteBytes   int // what the notes of this step take in a log
	// What was answered and noted outside of a step.
	lateReplies []Reply
	lateNotes   []Note
	record      Record // handed to a visitor
}

// TableConfig holds what the table's decisions depend on besides the requests.
type TableConfig struct {
	Policy Policy
	// Retention is how long the record of a free resource is kept, so that late duplicates of its last requests are
	// recognised. Default 5 minutes.
	Retention time.Duration
	// MaxWaiters bounds the queue of one resource. Default 10,000.
	MaxWaiters int
	// GuardLease is G, of guards that enrol from now on. Default [DefaultGuardLease].
	GuardLease time.Duration
}

// LongestGuardLease is for how long writes may reach the storage after a guard's last contact.
func (c TableConfig) LongestGuardLease() time.Duration {
	return cmp.Or(c.GuardLease, DefaultGuardLease) + MaxGuardSlack
}

func (c TableConfig) withDefaults() TableConfig {
	if c.Retention <= 0 {
		c.Retention = 5 * time.Minute
	}
	if c.MaxWaiters <= 0 {
		c.MaxWaiters = 10_000
	}
	if c.GuardLease <= 0 {
		c.GuardLease = DefaultGuardLease
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

// Tick lets time pass: what is due happens, until DirtyWrites, with one write for each note, has reached MaxWrites, or
// DirtyBytes, with the notes, MaxBytes. The last change may exceed them by one record and what is noted of it.
type Tick struct{ MaxWrites, MaxBytes int }

func (Request) tableEvent() {}
func (Gone) tableEvent()    {}
func (Tick) tableEvent()    {}

// Effects is what a step wants done. It is valid until the next step.
type Effects struct {
	Replies []Reply
	// Notes are for the audit log, in the commit of what they tell.
	Notes []Note
}

// Note is something that an auditor wants to know.
type Note struct {
	Actor, Action, Target, Reason string
	Detail                        map[string]string
}

// Reply answers a request. Value is *Grant, *Waiting, fence.Token (CancelAcquire), RenewOutcome, Info (ForceRelease,
// Inspect), what guard.go says, or nil; with Err set it is nil.
type Reply struct {
	ID    CallID
	Err   *Error
	Value any
}

// entry is one resource. There may be very many: what few of them need is in extra, records are made when they are written,
// and the fields fill a size in which memory is handed out.
type entry struct {
	name      Resource
	requestID string
	holder    *Holder // shared; nil if it was never granted
	extra     *extra  // nil: nothing of it
	token     fence.Token
	ttl       time.Duration
	grantedMs int64
	due       clock.Instant // while held: the deadline; while free: the end of the lock delay
	freedAt   clock.Instant // while free
	rule      int32
	priority  int32
	timer     int32 // its place in the timers, from 1; 0: none
	counted   int32 // its part of dirtyBytes

	how           End // while free
	held, ending  bool
	hasCheckpoint bool
	dirty         bool
	dirtyCheck    bool // the checkpoint changed
	gone          bool // to be deleted
	ended         bool // the store still says held: to be stored with the next tick
}

type extra struct {
	metadata   []byte
	checkpoint []byte
	sequence   uint64 // of the newest checkpoint under the present or last grant
	outcomes   []Outcome
	queue      []*waiter // by priority, then arrival
	raise      *raise    // while free and guarded
	proofs     []Proof   // of the present or last grant
	tenure     string    // the group whose tenure it is
}

// more is the entry's extra, to be changed.
func (e *entry) more() *extra {
	if e.extra == nil {
		e.extra = &extra{}
	}
	return e.extra
}

func (e *entry) queue() []*waiter {
	if e.extra == nil {
		return nil
	}
	return e.extra.queue
}

func (e *entry) outcomes() []Outcome {
	if e.extra == nil {
		return nil
	}
	return e.extra.outcomes
}

func (e *entry) checkpoint() []byte {
	if e.extra == nil {
		return nil
	}
	return e.extra.checkpoint
}

func (e *entry) by() Holder {
	if e.holder == nil {
		return Holder{}
	}
	return *e.holder
}

// grantedAt is as exact as a record of it.
func (e *entry) grantedAt() time.Time {
	if e.grantedMs == 0 {
		return time.Time{}
	}
	return time.UnixMilli(e.grantedMs).UTC()
}

// record is the entry's durable state.
func (e *entry) record() Record {
	r := Record{
		Resource: e.name, Token: e.token, Held: e.held, Ending: e.ending, Holder: e.by(), RequestID: e.requestID,
		Priority: e.priority, TTL: e.ttl, GrantedAt: e.grantedAt(), End: e.how, Outcomes: e.outcomes(),
		HasCheckpoint: e.hasCheckpoint,
	}
	if e.extra != nil {
		r.Metadata, r.CheckpointSequence, r.Proofs = e.extra.metadata, e.extra.sequence, e.extra.proofs
		r.TenureGroup = e.extra.tenure
		if e.extra.raise != nil {
			r.Fencing = e.extra.raise.token
		}
	}
	return r
}

// NewTable makes an empty table that hands out tokens of epoch. It hands out none before Allow.
func NewTable(config TableConfig, epoch fence.Epoch) *Table {
	return &Table{
		config:     config.withDefaults(),
		epoch:      epoch,
		next:       1,
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
	t.next, t.limit = first, last
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
// promised that by the coordinator before. What is of an older epoch has ended: the epoch changes only when everything of
// before has been waited out.
func (t *Table) Load(m Moment, rec Record, checkpoint []byte) {
	e := &entry{
		name: rec.Resource, token: rec.Token, held: rec.Held, ending: rec.Ending, requestID: rec.RequestID,
		holder:   t.names.holder(rec.Holder.Principal, rec.Holder.Instance, rec.Holder.Region),
		priority: rec.Priority, ttl: rec.TTL, how: rec.End, hasCheckpoint: rec.HasCheckpoint,
		rule: int32(t.config.Policy.ruleFor(rec.Resource)),
	}
	if !rec.GrantedAt.IsZero() {
		e.grantedMs = rec.GrantedAt.UnixMilli()
	}
	if len(rec.Metadata) > 0 || len(rec.Outcomes) > 0 || len(checkpoint) > 0 || rec.CheckpointSequence > 0 || len(rec.Proofs) > 0 {
		e.extra = &extra{metadata: rec.Metadata, checkpoint: checkpoint, sequence: rec.CheckpointSequence, outcomes: rec.Outcomes, proofs: rec.Proofs}
	}
	t.entries[rec.Resource] = e
	if rec.TenureGroup != "" {
		t.loadTenure(m, e, rec)
		return
	}
	if e.held && e.token.Epoch() != t.epoch {
		e.remember(rec.Holder.Principal, e.requestID, e.token, EndExpired)
		e.held, e.ending, e.how = false, false, EndExpired
		e.ended = true
		t.wakeAt(e, m.Now)
	}
	if e.held {
		t.count(e, 1)
		e.due = deadline(m.Now, rec.TTL)
		if mutant.On(mutant.ExpiryAtTakeover) {
			e.due = m.Now.Add(rec.TTL / 2)
		}
		t.wakeAt(e, e.due)
		return
	}
	e.freedAt = m.Now
	if e.how == EndExpired || e.how == EndForced {
		e.due = m.Now.Add(t.lockDelay(e))
	}
	t.loadRaise(m, e, rec.Fencing)
	t.wakeFree(e)
}

// Step takes one event in.
func (t *Table) Step(m Moment, ev TableEvent) *Effects {
	t.effects.Replies, t.effects.Notes, t.noteBytes = t.effects.Replies[:0], t.effects.Notes[:0], 0
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
	case GuardCall:
		t.guardCall(m, r, c)
	case ListGuards:
		t.listGuards(m, r, c)
	case RemoveGuard:
		t.removeGuard(m, r, c)
	case SetGuarding:
		t.setGuarding(m, r, c)
	case GetGuarding:
		t.reply(r.ID, cmp.Or(t.guards.rules.record, &writv1.GuardingRecord{}))
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

// DirtyBytes bounds the size of what Dirty and DirtyGuards will hand over, with its keys.
func (t *Table) DirtyBytes() int { return t.dirtyBytes }

// DirtyWrites bounds how many writes what Dirty and DirtyGuards will hand over takes: one a record, and one a changed
// checkpoint.
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
		t.record = e.record()
		c := Change{Resource: e.name, Record: &t.record, Checkpoint: e.checkpoint(), CheckpointChanged: e.dirtyCheck}
		if e.gone {
			c.Record = nil
			t.timers.remove(e)
			delete(t.entries, e.name)
		}
		visit(c)
		e.dirty, e.dirtyCheck = false, false
	}
	clear(t.dirty)
	t.record = Record{}
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
	t.dropRaise(e)
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
	t.dirtyBytes += size - int(e.counted)
	e.counted = int32(size)
}

// size bounds from above what storing the entry takes: a round that turns out too large ends the term.
func (e *entry) size() int {
	size := writeOverhead + len(e.name)
	if !e.gone {
		rec := e.record()
		size += rec.Size()
	}
	if e.dirtyCheck {
		size += writeOverhead + len(e.name) + len(e.checkpoint())
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

// lockDelay is for storage that nothing guards.
func (t *Table) lockDelay(e *entry) time.Duration {
	if e.rule < 0 || t.guarded(e.name) != nil {
		return 0
	}
	return t.config.Policy.Rules[e.rule].LockDelay
}

// Known says whether the table has a record of the resource.
func (t *Table) Known(name Resource) bool { return t.entries[name] != nil }
