package judge

import (
	"slices"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton/cron"
	"github.com/writ-io/writ/singleton/schedule"
)

// Job is a cron job whose slots are held to J1.
type Job struct {
	Name     string
	Schedule *schedule.Schedule
	Policy   cron.Policy
	// Start is the time of day at T 0.
	Start time.Time
	// Agree says that all clocks of day that matter show about the same, as far as they drift apart. Only then it is known which
	// slots may be missed.
	Agree bool
}

// job is what is known of a Job.
type job struct {
	Job
	claims map[claimed]bool // that were ever committed
	// Of this lineage.
	lineage  int
	state    *cron.State // committed last; nil: none is
	ran      map[attempt]bool
	disposed map[string]cron.Outcome // by id
	newest   time.Time               // the newest slot that had its effect

	effects map[string]bool // by id: what the storage has
}

type attempt struct {
	id string
	n  int
}

type claimed struct {
	attempt
	token uint64
}

// tolerance is how far clocks that agree may differ, and how long what was decided may take to be committed.
const tolerance = 2 * time.Second

// countedSlots bounds how many slots of one change are looked at: more pass when somebody's clock was set.
const countedSlots = 5000

// Job begins to keep the books of a cron job.
func (j *Judge) Job(b Job) {
	b.Policy = b.Policy.WithDefaults()
	j.jobs[lease.Resource(b.Name)] = &job{Job: b, claims: make(map[claimed]bool), effects: make(map[string]bool)}
}

// wall is the true time of day.
func (j *Judge) wall(b *job) time.Time { return b.Start.Add(j.now()) }

// stored takes in that the state of a job was committed.
func (j *Judge) stored(b *job, data []byte) {
	state, err := cron.ParseState(data)
	if err != nil {
		j.violation("J1", "a state of %s was stored that cannot be read: %v", b.Name, err)
		return
	}
	if b.lineage != j.lineage || b.state == nil {
		b.lineage, b.state, b.ran, b.disposed, b.newest = j.lineage, nil, make(map[attempt]bool), make(map[string]cron.Outcome), time.Time{}
	}
	if c := state.Running; c != nil {
		b.claims[claimed{attempt{c.ID, c.Attempt}, c.Token}] = true
	}
	if b.state != nil {
		j.follows(b, b.state, &state)
	}
	for _, r := range state.History {
		if _, known := b.disposed[r.ID]; r.ID != "" && !known {
			b.disposed[r.ID] = r.Outcome
			if b.state != nil {
				j.disposedOf(b, r)
			}
		}
	}
	b.state = &state
}

// follows checks that a state accounts for everything that the one before it had to do.
func (j *Judge) follows(b *job, was, now *cron.State) {
	if now.Cursor.Before(was.Cursor) {
		j.violation("J1", "the cursor of %s went back from %v to %v", b.Name, was.Cursor, now.Cursor)
		return
	}
	claimed := func(c *cron.Claim) bool {
		return now.Running != nil && now.Running.ID == c.ID || slices.ContainsFunc(now.History, func(r cron.Record) bool { return r.ID == c.ID })
	}
	if c := was.Running; c != nil && !claimed(c) {
		j.violation("J1", "%s forgets that %s was claimed", b.Name, c.ID)
	}
	for _, r := range now.History {
		same := func(o cron.Record) bool {
			return o.ID == r.ID && o.Slot.Equal(r.Slot) && o.Reason == r.Reason && o.Count == r.Count
		}
		if j.OnSlot != nil && !slices.ContainsFunc(was.History, same) {
			j.OnSlot(r)
		}
	}
	var open []time.Time
	for _, slot := range was.Backlog {
		open = append(open, slot.At)
	}
	slot, ok := b.Schedule.Next(was.Cursor)
	for ; ok && !slot.After(now.Cursor) && len(open) < countedSlots; slot, ok = b.Schedule.Next(slot) {
		open = append(open, slot)
	}
	if len(open) == countedSlots {
		return
	}
	for _, at := range open {
		j.accounts(b, now, at)
	}
}

// accounts checks that a state says what becomes of a slot.
func (j *Judge) accounts(b *job, s *cron.State, slot time.Time) {
	id := cron.SlotID(b.Name, slot)
	if s.Running != nil && s.Running.ID == id || slices.ContainsFunc(s.Backlog, func(w cron.Slot) bool { return w.At.Equal(slot) }) {
		return
	}
	for _, r := range slices.Backward(s.History) {
		last := r.Slot
		if r.Last != nil {
			last = *r.Last
		}
		switch {
		case r.ID == id:
			return
		case r.ID == "" && r.Outcome == cron.Skipped && !slot.Before(r.Slot) && !slot.After(last):
			if r.Reason == "missed" && b.Agree && !j.mayMiss(b, slot) {
				j.violation("J1", "the slot %s is skipped as missed %v after it was due, within the window of %v", id, j.wall(b).Sub(slot), b.Policy.Window)
			}
			return
		}
	}
	j.violation("J1", "nothing is said of the slot %s, which the cursor has passed", id)
}

// mayMiss tells whether the policy lets a slot be missed by now: it is old, or enough newer ones take its place.
func (j *Judge) mayMiss(b *job, slot time.Time) bool {
	now := j.wall(b).Add(tolerance)
	if now.Sub(slot) > max(b.Policy.Window, cron.Punctual) {
		return true
	}
	most := 1
	if b.Policy.CatchUp == cron.CatchUpAll {
		most = b.Policy.Max
	}
	for range most {
		next, ok := b.Schedule.Next(slot)
		if !ok || next.After(now) {
			return false
		}
		slot = next
	}
	return true
}

// disposedOf checks what is said of a run that was claimed.
func (j *Judge) disposedOf(b *job, r cron.Record) {
	switch r.Outcome {
	case cron.Done:
		if !b.effects[r.ID] {
			j.violation("J1", "%s is recorded as done, and has had no effect", r.ID)
		}
	case cron.Abandoned:
		window := b.Policy.Window
		if r.Manual {
			window = cron.TriggerWindow
		}
		may := r.Attempt >= b.Policy.MaxAttempts || !r.Manual && b.Policy.CatchUp == cron.CatchUpNone || j.wall(b).Add(tolerance).Sub(r.Slot) > window
		if b.Agree && !may {
			j.violation("J1", "%s is given up after attempt %d, %v after it was due, within the window of %v", r.ID, r.Attempt, j.wall(b).Sub(r.Slot), window)
		}
	default:
	}
}

// SlotRuns takes in that a run of a job begins under a grant.
func (j *Judge) SlotRuns(name lease.Resource, tick *cron.Tick, token fence.Token) {
	b := j.jobs[name]
	a := attempt{tick.ID, tick.Attempt}
	if !b.claims[claimed{a, uint64(token)}] {
		j.violation("J1", "attempt %d of %s begins under %v, and was not claimed", a.n, a.id, token)
	}
	if r := j.resource(name); b.state == nil || b.lineage != j.lineage || !r.held || r.token != token {
		return // of a holder that is over: the storage refuses what it does
	}
	if outcome, known := b.disposed[a.id]; known {
		j.violation("J1", "attempt %d of %s begins under %v, and is recorded as %s", a.n, a.id, token, outcome)
	}
	if b.ran[a] {
		j.violation("J1", "attempt %d of %s begins twice", a.n, a.id)
	}
	b.ran[a] = true
}

// SlotEffect takes in that the storage has accepted the effect of a run, and answers whether it is the first under its id.
func (j *Judge) SlotEffect(name lease.Resource, tick *cron.Tick) (first bool) {
	b := j.jobs[name]
	if b.effects[tick.ID] {
		return false
	}
	b.effects[tick.ID] = true
	if !tick.Manual && b.lineage == j.lineage && b.state != nil {
		if !tick.Slot.After(b.newest) {
			j.violation("J1", "the effect of %s comes after that of the slot %v", tick.ID, b.newest.UTC())
		}
		b.newest = tick.Slot
	}
	return true
}

// JobAt returns up to which time of day slots of a job are run or accounted for, as committed.
func (j *Judge) JobAt(name lease.Resource) time.Time {
	b := j.jobs[name]
	if b.state == nil || b.lineage != j.lineage {
		return time.Time{}
	}
	at := b.state.Cursor
	if c := b.state.Running; c != nil && !c.Manual && c.Slot.Before(at) {
		at = c.Slot
	}
	for _, slot := range b.state.Backlog {
		if slot.At.Before(at) {
			at = slot.At
		}
	}
	return at
}
