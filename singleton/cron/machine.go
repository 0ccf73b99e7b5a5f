//writ:core

package cron

import (
	"fmt"
	"slices"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/mutant"
	"github.com/writ-io/writ/singleton/schedule"
)

// Machine decides for one job in one process. It is a pure core: a shell steps it with events and the time of day, and
// carries its effects out.
//
// Invariant: what runs was claimed in a document that has been stored under the token of the term, before it ran.
//
// Invariant: the cursor never goes back, and no slot that is not after it is claimed, but those in the backlog.
type Machine struct {
	cfg Config
	now time.Time

	held  bool // in a term
	ended bool // and its context has ended
	token uint64
	by    string // the holder

	state   State
	control Control
	retry   bool  // state.Running is of another term, and is to be run again
	claimed *Tick // to be run when it is stored
	running *Tick
	started time.Time
	cancel  bool // what runs was cancelled for another slot

	dirty   bool // the state differs from what was last handed out to be stored
	storing bool
	retryAt time.Time // when to store again after a failure, or as soon as the clock has been set back

	next      time.Time // the slot after nextAfter
	nextOK    bool
	nextAfter time.Time

	encoder encoder
	out     Effects
}

// Config is what a Machine must know.
type Config struct {
	Job      string
	Schedule *schedule.Schedule
	Policy   Policy
}

// storeAgain is how long after a failure the state is stored again.
const storeAgain = time.Second

// countLimit is how far slots that were skipped are counted.
const countLimit = 1000

// NewMachine makes a Machine outside of a term. Errors: what [Policy.Validate] finds, and INVALID for the job's name.
func NewMachine(cfg Config) (*Machine, error) {
	if _, err := lease.ParseResource(ControlPrefix + cfg.Job); err != nil {
		return nil, lease.Invalid("job", fmt.Sprintf("%q cannot be the name of a job", cfg.Job),
			fmt.Sprintf("use the name of a resource, of at most %d bytes, such as billing/nightly", lease.MaxResourceBytes-len(ControlPrefix)))
	}
	if cfg.Schedule == nil {
		return nil, lease.Invalid("schedule", "is nil", "pass what schedule.Parse returned")
	}
	if err := cfg.Policy.Validate(); err != nil {
		return nil, err
	}
	cfg.Policy = cfg.Policy.WithDefaults()
	return &Machine{cfg: cfg}, nil
}

// State returns what the Machine knows, which may not be stored yet. The caller must not change it.
func (m *Machine) State() State { return m.state }

// Step takes an event at a time of day, which may be before that of the last step.
func (m *Machine) Step(now time.Time, event Event) Effects {
	m.now, m.out = now.Round(0).UTC(), Effects{}
	if !writable(m.now) { // a clock that shows such a year is wrong, and there are no slots then
		m.now = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)
	}
	if _, ok := event.(Granted); !ok && !m.held {
		panic(fmt.Sprintf("cron: %T outside of a term", event))
	}
	switch event := event.(type) {
	case Granted:
		m.granted(event)
	case Controlled:
		m.control = event.Control
	case Elapsed:
	case Stored:
		m.stored()
	case NotStored:
		m.storing, m.dirty = false, true
		m.retryAt = m.now.Add(storeAgain)
	case Returned:
		m.returned(event)
	case Ended:
		m.ended = true
		m.claimed = nil // it may be stored, and then is for the next holder
	default:
		panic(fmt.Sprintf("cron: unknown event %T", event))
	}
	m.decide()
	return m.out
}

// granted begins a term.
func (m *Machine) granted(g Granted) {
	if m.held {
		panic("cron: granted within a term")
	}
	*m = Machine{cfg: m.cfg, now: m.now, held: true, token: uint64(g.Token), by: g.Holder, control: g.Control}
	fresh := State{
		Version: StateVersion, Job: m.cfg.Job, Spec: m.cfg.Schedule.Spec(), Zone: m.cfg.Schedule.Zone().String(), Policy: m.cfg.Policy,
		Cursor: m.now.Truncate(time.Second),
	}
	if len(g.Checkpoint) == 0 {
		m.state, m.dirty = fresh, true
		return
	}
	state, err := ParseState(g.Checkpoint)
	if err == nil && state.Job != m.cfg.Job {
		err = lease.Invalid("state", fmt.Sprintf("is that of the job %q", state.Job), "use a resource of its own for each job")
	}
	if err != nil {
		m.held, m.out.Refused = false, err
		return
	}
	m.state = state
	if mutant.On(mutant.MissedForgotten) && fresh.Cursor.After(m.state.Cursor) {
		m.state.Cursor = fresh.Cursor
	}
	if state.Spec != fresh.Spec || state.Zone != fresh.Zone {
		// What the old spec missed nobody wants any more, and what the new one would have missed was never promised.
		if fresh.Cursor.After(m.state.Cursor) {
			m.state.Cursor = fresh.Cursor
		}
		m.state.Spec, m.state.Zone, m.dirty = fresh.Spec, fresh.Zone, true
	}
	if state.Policy != fresh.Policy {
		m.state.Policy, m.dirty = fresh.Policy, true
	}
	m.takeUp()
}

// takeUp decides about what the holder before left: slots that waited, and a claim without an outcome.
func (m *Machine) takeUp() {
	window := m.cfg.Policy.Window
	for len(m.state.Backlog) > 0 && m.now.Sub(m.state.Backlog[0].At) > max(window, Punctual)+m.cfg.Policy.Jitter {
		m.skip(m.state.Backlog[0].At, m.state.Backlog[0].At, reasonMissed)
		m.state.Backlog = slices.Clone(m.state.Backlog[1:])
	}
	c := m.state.Running
	if c == nil {
		return
	}
	if c.Manual {
		window = TriggerWindow
	}
	switch {
	case m.cfg.Policy.CatchUp == CatchUpNone && !c.Manual:
		m.abandon("its holder died, and missed slots are not run")
	case c.Attempt >= m.cfg.Policy.MaxAttempts:
		m.abandon(fmt.Sprintf("its holder died in attempt %d, which is the last", c.Attempt))
	case m.now.Sub(c.Slot) > window+m.cfg.Policy.Jitter:
		m.abandon(fmt.Sprintf("its holder died, and it is older than %v", window))
	case mutant.On(mutant.DeadClaimForgotten):
		m.state.Running = nil
	default:
		m.retry = true
	}
}

func (m *Machine) abandon(reason string) {
	r := recordOf(m.state.Running)
	r.Outcome, r.Reason = Abandoned, reason
	m.state.record(r)
	m.state.Running, m.dirty = nil, true
}

func recordOf(c *Claim) Record {
	return Record{
		ID: c.ID, Slot: c.Slot, Manual: c.Manual, By: c.By, Attempt: c.Attempt, StartedAt: &c.ClaimedAt, Holder: c.Holder, Token: c.Token,
	}
}

// stored runs what was claimed, now that it is durable.
func (m *Machine) stored() {
	if !m.storing {
		panic("cron: stored without having asked")
	}
	m.storing = false
	if m.claimed == nil {
		return
	}
	m.running, m.claimed, m.started, m.cancel = m.claimed, nil, m.now, false
	m.out.Run = m.running
}

// returned takes the outcome of what ran in.
func (m *Machine) returned(r Returned) {
	if m.running == nil {
		panic("cron: returned without running")
	}
	m.running, m.retryAt = nil, time.Time{}
	if m.ended && r.Outcome == Failed {
		return // it was interrupted; the claim stays, and the next holder runs it again
	}
	record := recordOf(m.state.Running)
	record.Outcome, record.Reason, record.DurationMs = r.Outcome, r.Reason, r.Took.Milliseconds()
	if m.cancel && r.Outcome == Failed {
		record.Outcome = Cancelled
	}
	started := m.started.Truncate(time.Millisecond)
	record.StartedAt = &started
	m.state.record(record)
	m.state.Running, m.dirty = nil, true
}

// decide goes on as far as it can.
func (m *Machine) decide() {
	if !m.held {
		return
	}
	if m.ended {
		m.finish()
		return
	}
	if m.storing {
		return // and what follows from the time is decided when that is answered
	}
	m.dispose()
	m.claim()
	switch {
	case m.dirty && m.retryDue():
		m.store()
	case m.dirty:
		m.out.Wake = m.retryAt
	default:
		if next, ok := m.nextSlot(); ok {
			m.out.Wake = m.due(next)
		}
	}
}

// retryDue tells whether to store again. What is farther off than it ever was shows that the clock was set back, and then nobody
// knows how long ago the failure is.
func (m *Machine) retryDue() bool {
	left := m.retryAt.Sub(m.now)
	return left <= 0 || left > storeAgain
}

// finish ends the term once nothing runs. What is left to store is tried once.
func (m *Machine) finish() {
	switch {
	case m.running != nil || m.storing:
	case m.dirty && m.retryAt.IsZero():
		m.store()
	default:
		m.held, m.out.Over = false, true
	}
}

func (m *Machine) store() {
	m.dirty, m.storing, m.retryAt = false, true, time.Time{}
	m.out.Store = m.encoder.encode(m.state)
}

// claim claims what is to be run next, if nothing runs: what a dead holder left, then what people want, then slots.
func (m *Machine) claim() {
	if m.running != nil || m.claimed != nil {
		return
	}
	if m.retry {
		m.retry = false
		c := *m.state.Running
		c.Attempt++
		m.claimRun(c)
		return
	}
	if t, ok := m.trigger(); ok {
		m.claimRun(Claim{ID: TriggerID(m.cfg.Job, t.ID), Slot: t.At.UTC(), Manual: true, By: clip(t.By), Attempt: 1})
		return
	}
	if len(m.state.Backlog) == 0 {
		return
	}
	slot := m.state.Backlog[0]
	m.state.Backlog = slices.Clone(m.state.Backlog[1:])
	m.claimRun(Claim{ID: SlotID(m.cfg.Job, slot.At), Slot: slot.At.UTC(), Attempt: 1, Missed: slot.Missed})
}

// SlotID is the id of a slot of a job.
func SlotID(job string, slot time.Time) string { return job + "@" + slot.UTC().Format(time.RFC3339) }

// TriggerID is the id of the run that a trigger of a job asks for.
func TriggerID(job, id string) string { return job + "!" + id }

func (m *Machine) claimRun(c Claim) {
	c.ClaimedAt, c.Holder, c.Token = m.now.Truncate(time.Millisecond), clip(m.by), m.token
	m.state.Running, m.dirty = &c, true
	m.claimed = &Tick{
		Job: m.cfg.Job, ID: c.ID, Slot: c.Slot.In(m.cfg.Schedule.Zone()), Attempt: c.Attempt, Missed: c.Missed, Manual: c.Manual, By: c.By,
	}
	if mutant.On(mutant.ClaimedAfterRun) {
		m.running, m.claimed, m.started, m.cancel = m.claimed, nil, m.now, false
		m.out.Run = m.running
	}
}

// trigger returns the first trigger that was not handled, and handles it.
func (m *Machine) trigger() (Trigger, bool) {
	var handled []string // what the document does not hold any more cannot come back
	for _, t := range m.control.Triggers {
		if slices.Contains(m.state.Handled, t.ID) {
			handled = append(handled, t.ID)
		}
	}
	if len(handled) != len(m.state.Handled) {
		m.state.Handled, m.dirty = handled, true
	}
	for _, t := range m.control.Triggers {
		if slices.Contains(m.state.Handled, t.ID) {
			continue
		}
		m.state.Handled, m.dirty = append(slices.Clone(m.state.Handled), t.ID), true
		if m.now.Sub(t.At) <= TriggerWindow {
			return t, true
		}
		m.state.record(Record{
			ID: TriggerID(m.cfg.Job, t.ID), Slot: t.At.UTC(), Manual: true, By: t.By, Outcome: Skipped,
			Reason: fmt.Sprintf("the trigger is older than %v", TriggerWindow),
		})
	}
	return Trigger{}, false
}
