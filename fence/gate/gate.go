//writ:core

package gate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

const (
	defaultMaxParked   = 10_000
	defaultMaxParkTime = 10 * time.Second
	defaultDrain       = 10 * time.Second
	// defaultLease stands for the guard lease until the quorum has told it.
	defaultLease = 30 * time.Second

	maxName     = 64
	maxSession  = 48 // a number goes behind it
	maxResource = 512
	maxCovers   = 256
	maxAlarms   = 16
	maxDoubts   = 1000
	maxWait     = time.Hour
)

// Gate decides which writes may go to the storage. It is a pure core: its shell holds one lock around every call, hands
// the present instant in, and carries out the effects.
//
// Invariant: the floor of a resource never decreases, and nothing below it is admitted from the very step that raises it.
//
// Invariant: nothing is admitted under a floor, and no raise to it acknowledged, before it is durable and every write
// below it has finished, or was broken off and waited out.
type Gate struct {
	cfg   Config
	store string
	now   clock.Instant

	// Floors. base is the floor of every resource without one of its own; one of its own may be below it.
	resources resources
	base      fence.Token
	baseAt    clock.Instant // when it rose last; 0: before this process
	witnessed fence.Token
	due       dueHeap // resources with something to do at an instant

	// What may still be under way though no slot knows of it.
	ghostUntil clock.Instant // writes of the process before this one; 0: there are none
	lastGhost  clock.Instant // the last of those and of every broken write

	slots    []slot
	free     int32 // the first free slot, as index+1
	inFlight int
	parked   int

	rules    *writv1.GuardingRecord
	seeded   bool          // the gate may admit: a seed has been persisted in this process
	deadline clock.Instant // until then contact is believed; 0: it is not
	severAt  clock.Instant // when writes that need contact are broken off if there is none by then; 0: they have been
	link     link
	disk     disk
	glass    breakglass

	stopping, left bool
	admitted       uint64
	refused        uint64
	doubts         []string // resources of which news told a floor below theirs: the quorum is asked which of the two holds
	alarms         []*writv1.GuardAlarm
	alarmCount     uint64

	acks      []*writv1.GuardAck
	out       Effects
	delivered bool // out has been handed over, and begins anew
}

// Validate reports the first field that is out of its range, and how to put it right.
func (c Config) Validate() error {
	switch {
	case c.Name == "" || len(c.Name) > maxName:
		return fmt.Errorf("gate: Name has %d bytes: give the guard a name of 1 to %d, the same over restarts", len(c.Name), maxName)
	case c.Session == "" || len(c.Session) > maxSession:
		return fmt.Errorf("gate: Session has %d bytes: draw a new name of 1 to %d for each process", len(c.Session), maxSession)
	case c.Enrol == nil:
		return fmt.Errorf("gate: Enrol is missing: say region, form, promise and what the guard covers")
	case len(c.Enrol.GetCovers()) == 0 || len(c.Enrol.GetCovers()) > maxCovers:
		return fmt.Errorf("gate: Enrol.Covers has %d entries: name 1 to %d resources or prefixes", len(c.Enrol.GetCovers()), maxCovers)
	case c.Slack <= 0 || c.Slack > maxWait:
		return fmt.Errorf("gate: Slack is %v: use more than 0 and at most %v, what bounds a pause plus the storage's execution", c.Slack, maxWait)
	case c.MaxParked < 0:
		return fmt.Errorf("gate: MaxParked is %d: use 0 for %d, or more", c.MaxParked, defaultMaxParked)
	case c.MaxParkTime < 0 || c.MaxParkTime > maxWait:
		return fmt.Errorf("gate: MaxParkTime is %v: use 0 for %v, and at most %v", c.MaxParkTime, defaultMaxParkTime, maxWait)
	}
	for i, pattern := range c.Enrol.GetCovers() {
		prefix := strings.TrimSuffix(pattern, "*")
		if pattern == "" || len(pattern) > maxResource || strings.Contains(prefix, "*") {
			return fmt.Errorf("gate: Enrol.Covers[%d] is %q: use a resource, or a prefix that ends in its only asterisk", i, pattern)
		}
	}
	if err := c.Drift.Validate(); err != nil {
		return fmt.Errorf("gate: Drift: %w", err)
	}
	return nil
}

func (s State) validate() error {
	if s.Store == "" || len(s.Store) > maxName {
		return fmt.Errorf("gate: State.Store has %d bytes: give the floor store a name of 1 to %d when it is made", len(s.Store), maxName)
	}
	if s.Base < 0 || s.Witnessed < 0 {
		return fmt.Errorf("gate: State has base %d and witnessed %d: the floor store is damaged; replace it with a new one", s.Base, s.Witnessed)
	}
	for i, f := range s.Floors {
		if f.Resource == "" || len(f.Resource) > maxResource || f.Token <= 0 {
			return fmt.Errorf("gate: State.Floors[%d] is %d for %q: the floor store is damaged; replace it with a new one", i, f.Token, f.Resource)
		}
		if i > 0 && f.Resource <= s.Floors[i-1].Resource {
			return fmt.Errorf("gate: State.Floors[%d] is for %q, after %q: sort them, one for each resource", i, f.Resource, s.Floors[i-1].Resource)
		}
	}
	return nil
}

// New makes the gate of a process that has just started, from what its floor store holds. The shell must have marked the
// store as not clean before: State.Clean is how the last process left it. A store that has just been made is not clean,
// because it may stand for one that was lost. It returns an error that names the field and the fix if cfg or state is out
// of range.
func New(cfg Config, state State, now clock.Instant) (*Gate, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := state.validate(); err != nil {
		return nil, err
	}
	if cfg.MaxParked == 0 {
		cfg.MaxParked = defaultMaxParked
	}
	if cfg.MaxParkTime == 0 {
		cfg.MaxParkTime = defaultMaxParkTime
	}
	g := &Gate{
		cfg: cfg, store: state.Store, now: now,
		resources: newResources(len(state.Floors)),
		base:      state.Base, witnessed: state.Witnessed,
		rules: &writv1.GuardingRecord{}, delivered: true,
	}
	g.link = link{lease: defaultLease, enrolDue: now}
	g.disk = disk{version: state.Version, assigned: state.Version, base: state.Base}
	if !state.Clean && !mutant.On(mutant.NoGhostAfterRestart) {
		g.ghostUntil = now.Add(cfg.Slack)
		g.lastGhost = g.ghostUntil
	}
	for _, f := range state.Floors {
		r := g.resource(f.Resource)
		r.own, r.floor, r.file, r.fileDrained = true, f.Token, f.Token, f.Drained
		if f.Drained {
			r.ghost = 0
		}
		g.settle(r)
	}
	g.recallOpenings(state)
	return g, nil
}

// Step takes an event in. The effects are never nil, and valid until the next call of Step, Done or Take; the batches,
// messages and key sets in them may be kept. Time that has passed comes before the event, except Abandoned.
//
// Heard while disconnected, Persisted of a batch that is not under way, and Abandoned of a ticket that is not parked are
// ignored.
func (g *Gate) Step(now clock.Instant, e Event) *Effects {
	g.begin(now)
	if e, ok := e.(Abandoned); ok {
		g.abandoned(e.Ticket) // before it could be decided
	}
	g.passTime()
	switch e := e.(type) {
	case Connected:
		g.disconnected()
		g.connected()
	case Disconnected:
		g.disconnected()
	case Heard:
		g.heard(e.Message)
	case Persisted:
		g.persisted(e)
	case Suspicion:
		g.suspected(e.Wall)
	case Stop:
		g.stop()
	case Abandoned, Tick:
	default:
		panic(fmt.Sprintf("gate: unknown event %T", e))
	}
	return g.finish()
}

// Pending tells whether there is something to Take.
func (g *Gate) Pending() bool { return !g.delivered }

// Take hands over what Admit wants done. If another call comes first, that one hands it over.
func (g *Gate) Take() *Effects {
	g.begin(g.now)
	return g.finish()
}

// begin makes room for the effects of a call.
func (g *Gate) begin(now clock.Instant) {
	g.now = max(g.now, now)
	if !g.delivered {
		return
	}
	g.delivered = false
	g.out = Effects{
		Persist: g.out.Persist[:0], Send: g.out.Send[:0], Decided: g.out.Decided[:0], Cut: g.out.Cut[:0],
		Probe: g.out.Probe[:0], Grants: g.out.Grants[:0], Opened: g.out.Opened[:0],
	}
}

// finish completes the effects of a call.
func (g *Gate) finish() *Effects {
	g.build()
	g.sendDue()
	g.sendAcks()
	g.leave()
	g.out.Wake = g.wake()
	g.delivered = true
	return &g.out
}

// passTime does what has fallen due for writes and resources.
func (g *Gate) passTime() {
	if g.severAt != 0 && !g.now.Before(g.severAt) {
		g.sever()
	}
	g.expireOpenings()
	for len(g.due) > 0 && !g.now.Before(g.due[0].due) {
		g.settle(g.due[0])
	}
}

// wake returns when the next step is due whatever happens.
func (g *Gate) wake() clock.Instant {
	if g.left {
		return clock.Never
	}
	wake := min(g.link.wake(g), g.disk.wake(), g.openingsWake())
	if len(g.due) > 0 {
		wake = min(wake, g.due[0].due)
	}
	if g.severAt != 0 {
		wake = min(wake, g.severAt)
	}
	if g.stopping && g.inFlight == 0 && g.now.Before(g.lastGhost) {
		wake = min(wake, g.lastGhost)
	}
	return wake
}

func (g *Gate) warn(format string, args ...any) {
	if g.out.Warning != "" {
		g.out.Warning += "; "
	}
	g.out.Warning += fmt.Sprintf(format, args...)
}

// stop refuses whatever waits, and everything from now on.
func (g *Gate) stop() {
	g.stopping = true
	g.settleWaiting()
}

// settleWaiting settles every resource that writes wait for.
func (g *Gate) settleWaiting() {
	for _, r := range slices.Clone(g.due) { // parked writes time out, so all of them are there
		if len(r.waiting) > 0 {
			g.settle(r)
		}
	}
}

// leave brings Stop to its end: when nothing is under way any more the quorum is told, and when it has answered, or cannot
// be reached, the guard has left.
func (g *Gate) leave() {
	if !g.stopping || g.left || g.inFlight > 0 || g.now.Before(g.lastGhost) {
		return
	}
	l := &g.link
	switch {
	case !l.up || l.left || l.leaveID != 0 && !g.now.Before(l.leaveUntil):
		g.left = true
		g.out.Left = true
	case l.leaveID == 0:
		l.leaveID = g.send(&writv1.GuardRequest{Ask: &writv1.GuardRequest_Leave{Leave: &writv1.GuardLeave{Version: g.disk.version}}})
		l.leaveUntil = g.now.Add(l.every())
	}
}
