package gate_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/lease/clock"
)

// The network.

func (w *world) connect() {
	if w.gate == nil || w.up {
		return
	}
	w.up = true
	w.stream++
	w.step(gate.Connected{})
}

func (w *world) disconnect() {
	if w.gate == nil || !w.up {
		return
	}
	w.up = false
	w.stream++
	w.step(gate.Disconnected{})
}

// hop takes a message to the other side, perhaps late, perhaps never, perhaps twice.
func (w *world) hop(do func()) {
	most, copies := 4*time.Second, []int{0, 1, 1, 1, 2}
	if w.calm {
		most, copies = 200*time.Millisecond, []int{1}
	}
	for range rapid.SampledFrom(copies).Draw(w.t, "copies") {
		w.after(w.duration("hop", most), do)
	}
}

func (w *world) carry(m *writv1.GuardRequest) {
	if !w.up {
		w.fail("sends while disconnected")
	}
	for _, a := range m.GetAcks().GetAcks() {
		token := fence.Token(a.GetToken())
		if w.durable(a.GetResource()) < token {
			w.fail("%s %v is acknowledged, and the disk has %v", a.GetResource(), token, w.durable(a.GetResource()))
		}
		w.clear(a.GetResource(), token, "is acknowledged")
		w.acked[a.GetResource()] = max(w.acked[a.GetResource()], token)
	}
	w.lastID, w.contacts[m.GetId()] = m.GetId(), m.GetContact() != nil
	if m.GetContact() != nil || m.GetEnrol() != nil {
		w.asked[m.GetId()] = w.now
		w.glass.asked[m.GetId()] = true
	}
	w.note("sends", m)
	stream := w.stream
	w.hop(func() {
		if answer := w.atQuorum(m, stream); answer != nil {
			w.hop(func() { w.deliver(answer, stream) })
		}
	})
}

// distrust: it may only count on what it asks from now on.
func (w *world) distrust() {
	w.believable, w.asked = 0, map[uint64]clock.Instant{}
}

func (w *world) deliver(m *writv1.GuardResponse, stream int) {
	if w.gate == nil || !w.up || w.stream != stream {
		return
	}
	switch sent, ok := w.asked[m.GetId()]; {
	case m.GetError() != nil && m.GetId() > w.givenUp && w.contacts[m.GetId()]:
		// It was asked for before what the guard enrols with from now on.
		w.distrust()
		w.givenUp = w.lastID
	case ok && (m.GetContacted() != nil || m.GetEnrolled() != nil):
		w.believable = max(w.believable, sent.Add(worldLease))
	}
	delete(w.contacts, m.GetId()) // it is answered
	if w.glass.asked[m.GetId()] && (m.GetContacted() != nil || m.GetEnrolled() != nil) {
		delete(w.glass.asked, m.GetId()) // a second answer is none
		w.meet()
	}
	w.step(gate.Heard{Message: m})
	// What was granted by certificates is not below what the quorum grants before it is told of them.
	if s := w.gate.Status(); s.AlarmCount > 0 && len(w.glass.taken) == 0 {
		w.fail("a quorum that never went back is taken for one that did: %v", s.Alarms)
	}
}

// The quorum.

func (w *world) atQuorum(m *writv1.GuardRequest, stream int) *writv1.GuardResponse {
	q := &w.quorum
	w.lapse()
	answer := &writv1.GuardResponse{Id: m.GetId()}
	if m.GetEnrol() == nil && m.GetSession() != q.session {
		return failure(m.GetId(), map[bool]string{true: "EXPIRED", false: "CONFLICT"}[q.session == ""])
	}
	switch {
	case m.GetEnrol() != nil:
		if !strings.HasPrefix(m.GetSession(), fmt.Sprintf("s%d.", w.life)) && q.session != "" {
			return nil // the request of a process that has been replaced
		}
		return w.enrol(m)
	case m.GetContact() != nil:
		q.intake, q.version = w.now, max(q.version, m.GetContact().GetVersion())
		contacted := &writv1.GuardContacted{Lease: durationpb.New(worldLease), Raises: w.raises(), Incarnation: "i", Epoch: q.epoch}
		for _, r := range m.GetContact().GetDoubts() {
			floor := cmp.Or(q.holds[r], tok(q.issued+1))
			contacted.Floors = append(contacted.Floors, &writv1.GuardFloor{Resource: r, Token: uint64(floor)})
		}
		answer.Say = &writv1.GuardResponse_Contacted{Contacted: contacted}
	case m.GetAcks() != nil:
		q.version = max(q.version, m.GetAcks().GetVersion())
		for _, a := range m.GetAcks().GetAcks() {
			if fence.Token(a.GetToken()) >= q.unproved[a.GetResource()] {
				delete(q.unproved, a.GetResource())
			}
		}
		answer.Say = &writv1.GuardResponse_Noted{Noted: &writv1.GuardNoted{}}
	case m.GetLeave() != nil:
		if len(w.alive) > 0 && slices.ContainsFunc(w.alive, func(o *worldWrite) bool { return o.until > w.now }) && stream == w.stream {
			w.fail("leaves while writes are under way")
		}
		q.session = ""
		answer.Say = &writv1.GuardResponse_Noted{Noted: &writv1.GuardNoted{}}
	default:
		return nil
	}
	return answer
}

func (w *world) raises() []*writv1.GuardFloor {
	var floors []*writv1.GuardFloor
	for _, r := range slices.Sorted(maps.Keys(w.quorum.unproved)) {
		floors = append(floors, &writv1.GuardFloor{Resource: r, Token: uint64(w.quorum.unproved[r])})
	}
	return floors
}

// enrol seeds the guard. Every token of a resource that nobody holds is below the base if its store went back.
func (w *world) enrol(m *writv1.GuardRequest) *writv1.GuardResponse {
	q := &w.quorum
	e := m.GetEnrol()
	w.contradict(e)
	seed := &writv1.GuardEnrolled{
		Lease: durationpb.New(worldLease), Issuer: "q", Incarnation: "i", Epoch: q.epoch,
		Rules: &writv1.GuardingRecord{Version: 1, Rules: []*writv1.GuardingRule{
			{Prefix: "close/", Isolation: writv1.Isolation_ISOLATION_CLOSE, DrainMs: worldDrain.Milliseconds()},
			{Prefix: "open/", Isolation: writv1.Isolation_ISOLATION_OPEN, DrainMs: worldDrain.Milliseconds()},
		}},
	}
	if e.GetStore() != q.store || e.GetVersion() < q.version || rapid.Bool().Draw(w.t, "high base") {
		seed.Base = uint64(tok(q.issued + 1))
	}
	q.session, q.intake, q.store, q.version = m.GetSession(), w.now, e.GetStore(), e.GetVersion()
	q.removed = false
	for _, r := range slices.Sorted(maps.Keys(q.holds)) {
		seed.Floors = append(seed.Floors, &writv1.GuardFloor{Resource: r, Token: uint64(q.holds[r])})
	}
	return &writv1.GuardResponse{Id: m.GetId(), Say: &writv1.GuardResponse_Enrolled{Enrolled: seed}}
}

// lapse gives the guard up when its lease and W have run out. Nothing that needs contact may reach the storage any more.
func (w *world) lapse() {
	q := &w.quorum
	if q.session == "" || w.now < q.intake.Add(worldLease+worldSlack) {
		return
	}
	for _, o := range w.alive {
		if needsContact(o.resource) && o.until > w.now && !o.glass {
			w.fail("the guard has lapsed, and %s %v is under way", o.resource, o.token)
		}
	}
	q.session = ""
}

// issue raises a resource to a new token.
func (w *world) issue(resource string) {
	q := &w.quorum
	q.issued++
	q.given[resource] = append(q.given[resource], tok(q.issued))
	q.holds[resource] = tok(q.issued)
	q.unproved[resource] = tok(q.issued)
	w.tell(resource)
}

func (w *world) tell(resource string) {
	if floor := w.quorum.unproved[resource]; floor != 0 {
		w.tellFloor(resource, floor)
	}
}

// tellLate has a node that is behind tell of what was granted once.
func (w *world) tellLate(resource string) {
	if given := w.quorum.given[resource]; len(given) > 0 {
		w.tellFloor(resource, rapid.SampledFrom(given).Draw(w.t, "floor"))
	}
}

func (w *world) tellFloor(resource string, floor fence.Token) {
	stream := w.stream
	m := &writv1.GuardResponse{Say: &writv1.GuardResponse_Raises{Raises: &writv1.GuardRaises{
		Raises: []*writv1.GuardFloor{{Resource: resource, Token: uint64(floor)}},
	}}}
	w.hop(func() { w.deliver(m, stream) })
}
