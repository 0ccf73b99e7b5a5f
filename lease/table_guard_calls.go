//writ:core

package lease

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

func (t *Table) guardCall(m Moment, r Request, c GuardCall) {
	say, err := t.heard(m, r.Intake, c)
	if err != nil {
		t.refuse(r.ID, err)
		return
	}
	say.Id = c.Request.GetId()
	t.reply(r.ID, say)
}

func (t *Table) heard(m Moment, intake clock.Instant, c GuardCall) (*writv1.GuardResponse, *Error) {
	req := c.Request
	if enrol := req.GetEnrol(); enrol != nil {
		return t.enrol(m, intake, c, enrol)
	}
	g := t.guards.byName[req.GetGuard()]
	switch {
	case g == nil:
		return nil, Errorf(ReasonNotFound, "no guard %q is enrolled", req.GetGuard())
	case g.rec.Principal != string(c.Principal):
		return nil, Errorf(ReasonDenied, "guard %q is another principal's", req.GetGuard())
	case g.rec.Session != req.GetSession():
		return nil, Errorf(ReasonConflict, "another process is guard %q by now", req.GetGuard())
	case g.rec.Out:
		return nil, Errorf(ReasonExpired, "the lease of guard %q has run out; enrol anew", req.GetGuard())
	}
	switch ask := req.GetAsk().(type) {
	case *writv1.GuardRequest_Contact:
		return t.contact(m, intake, g, ask.Contact), nil
	case *writv1.GuardRequest_Acks:
		return t.acked(m, g, ask.Acks), nil
	case *writv1.GuardRequest_Leave:
		return t.left(m, g, ask.Leave), nil
	}
	return nil, Invalid("ask", "is missing", "enrol, make contact, acknowledge raises, or leave")
}

// enrol makes a guard known, or brings it back, and seeds its floors. Its answer confers the guard lease.
func (t *Table) enrol(m Moment, intake clock.Instant, c GuardCall, ask *writv1.GuardEnrol) (*writv1.GuardResponse, *Error) {
	if err := checkEnrol(c, ask); err != nil {
		return nil, err
	}
	g := t.guards.byName[c.Request.Guard]
	if err := t.mayEnrol(m, g, c, ask); err != nil {
		return nil, err
	}
	rec := &writv1.GuardRecord{
		Name: c.Request.Guard, Principal: string(c.Principal), Region: ask.Region, Form: ask.Form, Promise: int32(ask.Promise),
		Covers: ask.Covers, Stamps: ask.Stamps, Store: ask.Store, Session: c.Request.Session, Version: ask.Version,
		SlackMs: ask.Slack.AsDuration().Milliseconds(), LeaseMs: t.config.GuardLease.Milliseconds(),
		RulesVersion: t.guards.rules.record.GetVersion(), EnrolledAtUnixMs: unixMs(m.Wall), SoftwareVersion: ask.SoftwareVersion,
		NeverLapses: ask.NeverLapses,
	}
	if g == nil {
		g = &guard{rec: rec}
		t.addGuard(g)
	} else {
		t.succeed(g, rec)
	}
	g.since = intake
	t.store(g, rec)
	t.extendGuard(g, intake)
	t.note(Note{Actor: string(c.Principal), Action: "guard.enrol", Target: rec.Name, Reason: rec.Warning,
		Detail: map[string]string{"covers": strings.Join(rec.Covers, " "), "store": rec.Store, "version": fmt.Sprint(rec.Version)}})
	t.reportOpenings(g, ask.Openings)
	answer := &writv1.GuardEnrolled{
		Lease: guardLease(g), Base: uint64(t.base()), Floors: t.seed(rec.Covers), Rules: t.guards.rules.record,
		Incarnation: t.guards.quorum.incarnation, Epoch: uint32(t.epoch), Approvers: t.guards.quorum.encoded,
	}
	if mutant.On(mutant.GuardNotSeeded) {
		answer.Base, answer.Floors = 1<<48|1, nil
	}
	return &writv1.GuardResponse{Say: &writv1.GuardResponse_Enrolled{Enrolled: answer}}, nil
}

// mayEnrol refuses a second process under one name while the first may be admitting. The floor store tells them apart: no two
// processes can have one open.
func (t *Table) mayEnrol(m Moment, g *guard, c GuardCall, ask *writv1.GuardEnrol) *Error {
	switch {
	case g == nil && len(t.guards.order) >= MaxGuards:
		return Errorf(ReasonLimit, "%d guards are enrolled already", len(t.guards.order))
	case g == nil:
		return nil
	case g.rec.Principal != string(c.Principal):
		return Errorf(ReasonDenied, "guard %q is another principal's", g.rec.Name)
	case g.rec.NeverLapses && !keepsOn(g.rec, ask):
		err := Errorf(ReasonConflict, "the storage of guard %q goes on admitting writes of what this one does not cover", g.rec.Name)
		err.Fix = "let it cover " + strings.Join(g.rec.Covers, " ") + " as before, or, when nothing is written there any more, " + t.howToAttest(g)
		return err
	case g.rec.Store == ask.Store:
		return nil
	case mutant.On(mutant.SecondStoreEnrols):
		return nil
	case !g.rec.Out:
		err := Errorf(ReasonConflict, "guard %q, with other floors, may be admitting still", g.rec.Name)
		err.Fix = "wait until its guard lease has run out, give this one another name, or " + t.howToAttest(g)
		err.RetryAfter = g.lapse.Sub(m.Now)
		return err
	case t.lasts(g) != "":
		err := Errorf(ReasonConflict, "guard %q, with other floors, may go on admitting for ever: %s", g.rec.Name, t.lasts(g))
		err.Fix = "give this one another name, or " + t.howToAttest(g)
		return err
	}
	return nil
}

// keepsOn says whether an enrolment is of a storage that does all that the recorded one may go on doing.
func keepsOn(rec *writv1.GuardRecord, ask *writv1.GuardEnrol) bool {
	return ask.NeverLapses && !slices.ContainsFunc(rec.Covers, func(p string) bool { return !slices.Contains(ask.Covers, p) })
}

// MayWitness says whether what an enrolment tells of tokens may count: it makes sense, and the guard's name is its principal's or
// nobody's. It may be refused all the same, for the floors of another process.
func (t *Table) MayWitness(c GuardCall) bool {
	g := t.guards.byName[c.Request.GetGuard()]
	return checkEnrol(c, c.Request.GetEnrol()) == nil && (g == nil || g.rec.Principal == string(c.Principal))
}

// succeed carries over what still counts of the guard's last process.
func (t *Table) succeed(g *guard, rec *writv1.GuardRecord) {
	old := g.rec
	switch {
	case old.Store == rec.Store && !old.Left:
		// It may be the same process, which goes by the rules that it had until it has this answer.
		rec.RulesVersion = min(rec.RulesVersion, old.RulesVersion)
	case old.Store != rec.Store:
		rec.Warning = "its floors were lost, and seeded anew"
	}
	switch {
	case old.Store == rec.Store && rec.Version < old.Version:
		rec.Warning = fmt.Sprintf("its floor store went back from version %d to %d, and was seeded anew", old.Version, rec.Version)
	}
	for _, pattern := range slices.Concat(old.Covers, old.Former) {
		if !slices.Contains(rec.Covers, pattern) && !slices.Contains(rec.Former, pattern) {
			rec.Former = append(rec.Former, pattern)
		}
	}
	if len(rec.Former) > MaxGuardCovers {
		rec.Former = []string{"*"} // for a moment it is waited for everywhere
	}
}

// base is above every token that has been taken, and not above any that will be.
func (t *Table) base() fence.Token {
	base, err := fence.NewToken(t.epoch, t.next)
	if err != nil {
		panic(fmt.Sprintf("lease: %v", err))
	}
	return base
}

// seed lists the floors of the resources whose present or next token is below the base.
func (t *Table) seed(covers []string) []*writv1.GuardFloor {
	var floors []*writv1.GuardFloor
	//writ:unordered sorted below
	for name, e := range t.entries {
		if coversAny(covers, name) {
			if floor := e.floor(); floor != 0 {
				floors = append(floors, &writv1.GuardFloor{Resource: string(name), Token: uint64(floor)})
			}
		}
	}
	slices.SortFunc(floors, func(a, b *writv1.GuardFloor) int { return strings.Compare(a.Resource, b.Resource) })
	return floors
}

// seedFloor is the floor that a seed gives a resource: its own, or the base.
func (t *Table) seedFloor(name Resource) fence.Token {
	if e := t.entries[name]; e != nil {
		if floor := e.floor(); floor != 0 {
			return floor
		}
	}
	return t.base()
}

// floor is the lowest token that a guard may admit; 0: none that has been taken.
func (e *entry) floor() fence.Token {
	switch r := e.raise(); {
	case e.held:
		return e.token
	case r != nil:
		return r.token
	}
	return 0
}

func (t *Table) contact(m Moment, intake clock.Instant, g *guard, ask *writv1.GuardContact) *writv1.GuardResponse {
	if !mutant.On(mutant.ContactWithoutExtending) {
		t.extendGuard(g, intake)
	}
	g.counts, g.alarms = ask.Counts, ask.Alarms
	current := t.guards.rules.record
	// Any other version may be of a history that was undone, and say something else.
	if v := current.GetVersion(); v == ask.RulesVersion && v > g.rec.RulesVersion {
		rec := proto.CloneOf(g.rec)
		rec.RulesVersion = v
		t.store(g, rec)
	}
	if len(g.rec.Former) > 0 && intake >= g.since.Add(time.Duration(g.rec.SlackMs)*time.Millisecond) {
		t.dropFormer(m, g)
	}
	answer := &writv1.GuardContacted{Lease: guardLease(g), Incarnation: t.guards.quorum.incarnation, Epoch: uint32(t.epoch)}
	if ask.ApproversVersion != t.guards.quorum.version {
		answer.Approvers = t.guards.quorum.encoded
	}
	for e := range g.open.all() {
		if len(answer.Raises) == maxToldRaises {
			break
		}
		answer.Raises = append(answer.Raises, &writv1.GuardFloor{Resource: string(e.name), Token: uint64(e.raise().token)})
	}
	for _, name := range ask.Doubts {
		if resource := Resource(name); coversAny(g.rec.Covers, resource) {
			answer.Floors = append(answer.Floors, &writv1.GuardFloor{Resource: name, Token: uint64(t.seedFloor(resource))})
		}
	}
	if ask.RulesVersion != current.GetVersion() {
		answer.Rules = current
	}
	return &writv1.GuardResponse{Say: &writv1.GuardResponse_Contacted{Contacted: answer}}
}

// maxToldRaises bounds the raises in one answer; the next contact tells more.
const maxToldRaises = 1000

// dropFormer ends the waiting for a guard where only its last process admitted anything: that is W ago by now.
func (t *Table) dropFormer(m Moment, g *guard) {
	rec := proto.CloneOf(g.rec)
	rec.Former = nil
	t.store(g, rec)
	for e := range g.open.all() {
		if !g.covers(e.name) {
			t.prove(m, g, e, ProofLapsed)
		}
	}
}

func (t *Table) acked(m Moment, g *guard, ask *writv1.GuardAcks) *writv1.GuardResponse {
	proved := false
	for _, ack := range ask.GetAcks() {
		e, token := t.entries[Resource(ack.GetResource())], fence.Token(ack.GetToken())
		if g.newest == nil || token > fence.Token(g.newest.Token) {
			g.newest = &writv1.GuardFloor{Resource: ack.GetResource(), Token: ack.GetToken()}
		}
		if e == nil || e.raise() == nil || !e.raise().waitsFor(g) {
			continue
		}
		if token < e.raise().token && !mutant.On(mutant.AckOfOlderFloor) {
			continue
		}
		how := ProofAcked
		if ack.GetProof() == writv1.GuardProof_GUARD_PROOF_CUT {
			how = ProofCut
		}
		t.prove(m, g, e, how)
		proved = true
	}
	if proved && ask.GetVersion() > g.rec.Version {
		rec := proto.CloneOf(g.rec)
		rec.Version = ask.GetVersion()
		t.store(g, rec)
	}
	return noted()
}

// left notes that a guard has stopped in order: nothing that it admitted is under way, but for what its storage admits by itself.
func (t *Table) left(m Moment, g *guard, ask *writv1.GuardLeave) *writv1.GuardResponse {
	rec := proto.CloneOf(g.rec)
	rec.Out, rec.Version = true, max(rec.Version, ask.GetVersion())
	rec.Left = !rec.NeverLapses || mutant.On(mutant.StorageGuardLeaves)
	t.store(g, rec)
	t.note(Note{Actor: rec.Principal, Action: "guard.leave", Target: rec.Name})
	t.reviewGuard(m, g)
	return noted()
}

func noted() *writv1.GuardResponse {
	return &writv1.GuardResponse{Say: &writv1.GuardResponse_Noted{Noted: &writv1.GuardNoted{}}}
}

func guardLease(g *guard) *durationpb.Duration {
	return durationpb.New(time.Duration(g.rec.LeaseMs) * time.Millisecond)
}

func unixMs(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixMilli()
}

func checkEnrol(c GuardCall, ask *writv1.GuardEnrol) *Error {
	switch slack := ask.GetSlack(); {
	case c.Request.GetGuard() == "":
		return Invalid("guard", "is empty", "give the guard a name")
	case c.Request.GetSession() == "" || ask.GetStore() == "":
		return Invalid("session", "or store is empty", "name this run of the process, and its floor store")
	case len(ask.GetCovers()) == 0 || len(ask.GetCovers()) > MaxGuardCovers || len(ask.GetStamps()) > MaxGuardCovers:
		return Invalid("covers", fmt.Sprintf("has %d patterns, stamps %d", len(ask.GetCovers()), len(ask.GetStamps())), fmt.Sprintf("use 1 to %d", MaxGuardCovers))
	case slack.CheckValid() != nil || slack.AsDuration() < 0 || slack.AsDuration() > MaxGuardSlack:
		return Invalid("slack", fmt.Sprintf("is %v", slack.AsDuration()), fmt.Sprintf("use 0 to %v", MaxGuardSlack))
	}
	if err := checkOpenings(ask.Openings); err != nil {
		return err
	}
	bytes := 0
	for _, pattern := range slices.Concat(ask.Covers, ask.Stamps) {
		bytes += len(pattern)
		name := strings.TrimSuffix(pattern, "*")
		if name == pattern && resourceProblem(name) != "" {
			return Invalid("covers", fmt.Sprintf("%q %s", pattern, resourceProblem(name)), "use names of resources, or prefixes that end in an asterisk")
		}
		if err := checkText("covers", pattern, MaxResourceBytes+1); err != nil {
			return err
		}
	}
	if bytes > maxGuardPatternBytes {
		return Invalid("covers", fmt.Sprintf("and stamps are %d bytes long together", bytes), fmt.Sprintf("use at most %d; a prefix covers many", maxGuardPatternBytes))
	}
	for _, f := range []struct {
		name, text string
		most       int
	}{
		{"guard", c.Request.Guard, maxGuardName}, {"session", c.Request.Session, maxGuardName}, {"store", ask.Store, maxGuardName},
		{"region", ask.Region, MaxRegionBytes}, {"form", ask.Form, maxGuardName}, {"software_version", ask.SoftwareVersion, maxGuardName},
		{"principal", string(c.Principal), maxPrincipalBytes},
	} {
		if err := checkText(f.name, f.text, f.most); err != nil {
			return err
		}
	}
	return nil
}
