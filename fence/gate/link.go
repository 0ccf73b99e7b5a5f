//writ:core

package gate

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

const (
	// maxAsks bounds the requests whose answers still count.
	maxAsks = 16
	// maxAcks and maxAckBytes keep a message of acks well below the 4 MiB that gRPC takes by default.
	maxAcks     = 4096
	maxAckBytes = 2 << 20
	// minLease is the shortest guard lease that is taken for one.
	minLease = 6 * time.Millisecond
	// Where the quorum answers with an error, it is asked again after this part of the guard lease.
	retryPart = 30
)

// link is the gate's side of what it has with the quorum.
type link struct {
	up       bool
	lastID   uint64
	lease    time.Duration // G
	issuer   string
	enrolled bool
	attempts int    // to enrol, each under a session of its own
	session  string // of the newest enrolment that was answered: what is conferred under it is conferred on a gate with that seed
	asks     []*ask
	seed     *seed // answered, and not yet persisted

	enrolDue   clock.Instant
	enrolAt    clock.Instant // of the newest attempt
	contactDue clock.Instant
	silent     clock.Instant // the first unanswered question since the last answer; 0: none
	era        uint64        // grows with every suspicion

	complaint string // why the last enrolment was refused; told once

	leaveID    uint64
	leaveUntil clock.Instant
	left       bool // the quorum has answered, or never will
}

// ask is a request that awaits its answer.
type ask struct {
	id    uint64
	enrol bool // else a contact
	sent  clock.Instant
	era   uint64
	rules uint64 // the version that the gate went by
	// session is that under which it was asked.
	session string
	parts   *writv1.GuardEnrolled
	// closings had happened when it was asked, and told are those that it told of.
	closings uint64
	told     []*opening
}

// seed is what has to be durable before the gate may admit.
type seed struct {
	ask    *ask
	lease  time.Duration
	serial uint64 // of the batch that holds it; 0: of none yet
}

func (l *link) every() time.Duration { return l.lease / 6 }

// mayEnrol and mayContact tell whether the gate wants to ask at all. A gate that cannot persist does not, so that the quorum
// gives it up, and need not wait for acks that cannot come.
func (l *link) mayEnrol(g *Gate) bool {
	return l.up && !l.enrolled && l.seed == nil && !g.disk.failing() && !g.stopping
}

func (l *link) mayContact(g *Gate) bool {
	return l.up && l.enrolled && l.leaveID == 0 && !g.disk.failing() && !g.disk.stuck(g.now, l.lease/3)
}

func (l *link) wake(g *Gate) clock.Instant {
	wake := clock.Never
	if l.mayEnrol(g) {
		wake = min(wake, l.enrolDue)
	}
	if l.mayContact(g) {
		wake = min(wake, l.contactDue)
	}
	if l.up && l.silent != 0 {
		wake = min(wake, l.silent.Add(l.lease/3))
	}
	if l.leaveID != 0 {
		wake = min(wake, l.leaveUntil)
	}
	return wake
}

func (g *Gate) connected() {
	g.link.up = true
	g.link.enrolDue, g.link.contactDue = g.now, g.now
}

// disconnected forgets what would only have been answered on the stream that is gone. The quorum tells raises again.
func (g *Gate) disconnected() {
	l := &g.link
	l.up = false
	l.asks, l.silent = nil, 0
	l.left = l.left || l.leaveID != 0
	//writ:unordered each is changed by itself
	for _, r := range g.resources.byName {
		r.told = nil
	}
}

// suspected believes nothing that was asked for before now. What is under way may go on until the deadline of before: if
// the clock missed more time than W allows for, it is too late anyhow.
func (g *Gate) suspected(wall time.Time) {
	if !wall.IsZero() {
		g.glass.wall, g.glass.wallAt = wall, g.now
		for _, o := range g.glass.openings {
			o.until = min(o.until, g.now.Add(o.Expires.Sub(wall)))
		}
		g.expireOpenings()
	}
	if mutant.On(mutant.SuspicionIgnored) {
		return
	}
	g.deadline = 0
	g.link.era++
	g.link.contactDue = g.now
}

// believe extends the deadline to what an answer confers.
func (g *Gate) believe(a *ask, lease time.Duration) {
	if a.era != g.link.era {
		return // the clock may have missed time since
	}
	sent := a.sent
	if mutant.On(mutant.ContactFromReply) {
		sent = g.now
	}
	g.deadline = max(g.deadline, g.cfg.Drift.BelieveUntil(sent, lease))
	if !g.glass.heard { // before, it could only be guessed how long a contact counts
		g.glass.heard, g.glass.alive = true, 0
	}
	g.glass.alive = max(g.glass.alive, g.deadline)
	if g.deadline.After(g.now) {
		g.severAt = g.deadline
	}
}

// sendDue asks what is due to be asked.
func (g *Gate) sendDue() {
	l := &g.link
	if g.left {
		return
	}
	switch {
	case l.mayEnrol(g) && !g.now.Before(l.enrolDue):
		g.ask(true, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Enrol{Enrol: g.enrolment()}})
		l.enrolDue, l.enrolAt = g.now.Add(l.every()), g.now
	case l.mayContact(g) && !g.now.Before(l.contactDue):
		g.ask(false, &writv1.GuardRequest{Ask: &writv1.GuardRequest_Contact{Contact: g.contact()}})
		l.contactDue = g.now.Add(l.every())
	}
	if l.up && l.silent != 0 && !g.now.Before(l.silent.Add(l.lease/3)) {
		g.out.Reconnect = true
		l.silent = g.now
	}
}

func (g *Gate) ask(enrol bool, r *writv1.GuardRequest) {
	l := &g.link
	if len(l.asks) == maxAsks {
		l.asks = slices.Delete(l.asks, 0, 1)
	}
	if enrol {
		l.attempts++
		r.Session = fmt.Sprintf("%s.%d", g.cfg.Session, l.attempts)
	}
	id := g.send(r) // under a session
	a := &ask{id: id, enrol: enrol, sent: g.now, era: l.era, rules: g.rules.GetVersion(), session: r.Session, closings: g.glass.closings}
	if enrol {
		a.told = g.untold()
	}
	l.asks = append(l.asks, a)
	if l.silent == 0 {
		l.silent = g.now
	}
}

func (g *Gate) send(r *writv1.GuardRequest) uint64 {
	g.link.lastID++
	r.Id, r.Guard = g.link.lastID, g.cfg.Name
	if r.Session == "" {
		r.Session = g.sessionNow()
	}
	g.out.Send = append(g.out.Send, r)
	return r.Id
}

// sessionNow is that of the newest enrolment which was answered.
func (g *Gate) sessionNow() string { return cmp.Or(g.link.session, g.cfg.Session) }

func (g *Gate) enrolment() *writv1.GuardEnrol {
	e := proto.CloneOf(g.cfg.Enrol)
	e.Store, e.Version, e.Witnessed = g.store, g.disk.version, uint64(g.witnessed)
	e.Slack = durationpb.New(g.cfg.Slack)
	e.TellsFloors = true
	for _, o := range g.untold() {
		e.Openings = append(e.Openings, o.message())
	}
	return e
}

func (g *Gate) contact() *writv1.GuardContact {
	c := &writv1.GuardContact{
		RulesVersion: g.rules.GetVersion(), Version: g.disk.version, Covers: g.cfg.Enrol.GetCovers(), Stamps: g.cfg.Enrol.GetStamps(),
		ApproversVersion: g.glass.quorum.ApproversVersion, TellsFloors: true, Doubts: slices.Clone(g.doubts),
		Counts: &writv1.GuardCounts{Admitted: g.admitted, Refused: g.refused, InFlight: uint64(g.inFlight), Floors: uint64(g.ownFloors())},
	}
	for _, a := range g.alarms {
		c.Alarms = append(c.Alarms, proto.CloneOf(a))
	}
	return c
}

// sendAcks sends what this step has proved.
func (g *Gate) sendAcks() {
	for len(g.acks) > 0 {
		n, bytes := 0, 0
		for n < len(g.acks) && n < maxAcks && bytes < maxAckBytes {
			bytes += len(g.acks[n].GetResource()) + 24
			n++
		}
		g.send(&writv1.GuardRequest{Ask: &writv1.GuardRequest_Acks{Acks: &writv1.GuardAcks{
			Acks: slices.Clone(g.acks[:n]), Version: g.disk.version,
		}}})
		g.acks = slices.Delete(g.acks, 0, n)
	}
}

// heard takes a message of the quorum in.
func (g *Gate) heard(m *writv1.GuardResponse) {
	if !g.link.up || g.left {
		return
	}
	switch say := m.GetSay().(type) {
	case *writv1.GuardResponse_Enrolled:
		g.heardEnrolled(m.GetId(), say.Enrolled)
	case *writv1.GuardResponse_Contacted:
		g.heardContacted(m.GetId(), say.Contacted)
	case *writv1.GuardResponse_Noted:
		g.link.left = g.link.left || m.GetId() != 0 && m.GetId() == g.link.leaveID
	case *writv1.GuardResponse_Error:
		g.heardError(m)
	case *writv1.GuardResponse_Raises:
		for _, f := range say.Raises.GetRaises() {
			g.news(f)
		}
	case *writv1.GuardResponse_Jwks:
		g.out.Keys = say.Jwks
	case *writv1.GuardResponse_Grants:
		g.out.Grants = append(g.out.Grants, say.Grants.GetGrants()...)
	case *writv1.GuardResponse_Hurry:
		g.link.contactDue = g.now
	case *writv1.GuardResponse_Probe:
		g.out.Probe = append(g.out.Probe, Probe{ID: m.GetId(), Probe: say.Probe})
	case *writv1.GuardResponse_Floors:
		g.tellFloors(m.GetId(), say.Floors)
	}
}

// answered finds the request that a message answers, nil if it is not awaited. The last part takes it off the list.
func (g *Gate) answered(id uint64, enrol, last bool) *ask {
	l := &g.link
	i := slices.IndexFunc(l.asks, func(a *ask) bool { return a.id == id && a.enrol == enrol })
	if i < 0 {
		return nil
	}
	a := l.asks[i]
	l.silent = 0
	if last {
		l.asks = slices.Delete(l.asks, i, i+1)
	}
	return a
}

// heardEnrolled takes a part of the seed in, and on the last one has all of it written down.
func (g *Gate) heardEnrolled(id uint64, e *writv1.GuardEnrolled) {
	a := g.answered(id, true, !e.GetMore())
	if a == nil {
		return
	}
	g.met()
	if a.closings != g.glass.closings { // what it was opened for has to be told
		g.link.asks = slices.DeleteFunc(g.link.asks, func(o *ask) bool { return o == a })
		g.link.enrolDue = g.now
		return
	}
	if a.parts == nil {
		a.parts = &writv1.GuardEnrolled{}
	}
	proto.Merge(a.parts, e)
	l := &g.link
	if e.GetMore() {
		l.enrolDue = g.now.Add(l.every())
		return
	}
	// An older seed would take resources for free that have been granted since, and lift them to the base.
	l.asks = slices.DeleteFunc(l.asks, func(o *ask) bool { return o.enrol && o.id < a.id })
	lease := a.parts.GetLease().AsDuration()
	base, ok := tokenOf(a.parts.GetBase())
	if lease < minLease || !ok {
		g.warn("the quorum answered an enrolment with a lease of %v and the base %d, which makes no sense", lease, a.parts.GetBase())
		return
	}
	l.lease, l.session = lease, a.session
	l.issuer = a.parts.GetIssuer()
	g.learn(l.issuer, a.parts.GetIncarnation(), a.parts.GetEpoch(), a.parts.GetApprovers(), true)
	g.plant(base, a.parts.GetFloors(), a.sent)
	l.seed = &seed{ask: a, lease: lease}
	if mutant.On(mutant.SeededBeforePersisted) {
		g.seedPersisted(l.seed)
	}
	if rules := a.parts.GetRules(); rules != nil {
		g.adopt(rules)
	}
}

// plant lifts floors and base to the seed. Nothing of it is admitted under before it is persisted.
func (g *Gate) plant(base fence.Token, floors []*writv1.GuardFloor, sent clock.Instant) {
	g.witness(base)
	named := make(map[string]bool, len(floors))
	for _, f := range floors {
		if token, ok := tokenOf(f.GetToken()); ok && token != 0 && f.GetResource() != "" && len(f.GetResource()) <= maxResource {
			named[f.GetResource()] = true
			g.resource(f.GetResource()) // with the base of before
		}
	}
	g.disk.putBase = g.disk.putBase || base > g.base
	g.disk.forget = true
	if !mutant.On(mutant.SeedBaseIgnored) {
		g.raiseBase(base, named)
	}
	for _, f := range floors {
		g.answeredFloor(f, sent)
	}
}

// seedPersisted lets the gate admit.
func (g *Gate) seedPersisted(s *seed) {
	l := &g.link
	l.seed = nil
	if !l.enrolled {
		// A newer attempt that is under way has a session that counts from when the quorum has it: its answer is waited for.
		l.contactDue = l.enrolAt.Add(l.every())
	}
	g.toldOpenings(s.ask.told)
	l.enrolled, l.complaint = true, ""
	g.seeded = true
	g.believe(s.ask, s.lease)
}

func (g *Gate) heardContacted(id uint64, c *writv1.GuardContacted) {
	a := g.answered(id, false, true)
	if a == nil {
		return
	}
	if g.met(); len(g.untold()) > 0 {
		g.givenUp("it was opened by a certificate meanwhile")
		return
	}
	g.learn(g.link.issuer, c.GetIncarnation(), c.GetEpoch(), c.GetApprovers(), false)
	if lease := c.GetLease().AsDuration(); lease >= minLease {
		g.link.lease = lease
		g.believe(a, lease)
	} else {
		g.warn("the quorum answered a contact with a lease of %v, which makes no sense", lease)
	}
	// An answer that was long under way must not bring older rules back: the quorum counts on those that it was told of.
	if r := c.GetRules(); r != nil && (r.GetVersion() > g.rules.GetVersion() || a.rules == g.rules.GetVersion()) {
		g.adopt(r)
	}
	for _, f := range c.GetRaises() {
		g.answeredFloor(f, a.sent)
	}
	for _, f := range c.GetFloors() {
		g.settleDoubt(f, a.sent)
	}
}

// heardError takes in that a request failed.
func (g *Gate) heardError(m *writv1.GuardResponse) {
	l := &g.link
	if m.GetId() != 0 && m.GetId() == l.leaveID {
		l.left = true
		return
	}
	i := slices.IndexFunc(l.asks, func(a *ask) bool { return a.id == m.GetId() })
	if i < 0 {
		return
	}
	a := l.asks[i]
	l.asks = slices.Delete(l.asks, i, i+1)
	reason, text := errorOf(m)
	retry := g.now.Add(l.lease / retryPart)
	if a.enrol {
		if complaint := reason + ": " + text; !l.enrolled && complaint != l.complaint {
			l.complaint = complaint
			g.warn("the quorum refuses to enrol this guard: %s", complaint)
		}
		if reason == "CONFLICT" { // which nobody but a quorum says
			g.met()
		}
		l.enrolDue = min(l.enrolDue, retry)
		return
	}
	switch {
	case a.session != l.session: // the guard has enrolled anew since
		l.contactDue = min(l.contactDue, retry)
	case reason == "EXPIRED":
		g.met()
		g.givenUp(reason)
	case reason == "NOT_FOUND", reason == "CONFLICT":
		g.met()
		g.givenUp(reason)
		g.disowned()
	default:
		l.contactDue = min(l.contactDue, retry)
	}
}

// givenUp takes in that the quorum does not wait for this guard any more: it has to enrol before anything is conferred again.
func (g *Gate) givenUp(reason string) {
	l := &g.link
	g.warn("the quorum does not count this guard any more (%s): it enrols again", reason)
	l.enrolled = false
	l.asks, l.silent, l.seed = nil, 0, nil
	l.enrolDue = g.now
	g.deadline = 0
	g.sever()
}

// disowned takes in that the quorum has this guard on its list no more, or another process under its name. Then people have answered
// for it that it admits nothing, or it was proved: tokens are granted without it, whatever its rules say, so nothing is admitted
// before it has been seeded anew.
func (g *Gate) disowned() {
	g.seeded = false
	for i := range g.slots {
		if s := &g.slots[i]; s.state == underWay && !s.res.by(s.token) {
			g.breakOff(i)
		}
	}
}
