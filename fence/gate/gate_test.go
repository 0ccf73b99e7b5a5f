package gate_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
)

func TestConfigErrorsNameTheField(t *testing.T) {
	long := strings.Repeat("x", 65)
	for field, change := range map[string]func(*gate.Config){
		"Name ":           func(c *gate.Config) { c.Name = "" },
		"Name has 65":     func(c *gate.Config) { c.Name = long },
		"Session ":        func(c *gate.Config) { c.Session = "" },
		"Session has 65":  func(c *gate.Config) { c.Session = long },
		"Enrol is":        func(c *gate.Config) { c.Enrol = nil },
		"Enrol.Covers ":   func(c *gate.Config) { c.Enrol = &writv1.GuardEnrol{} },
		"257 entries":     func(c *gate.Config) { c.Enrol.Covers = make([]string, 257) },
		"Enrol.Covers[1]": func(c *gate.Config) { c.Enrol.Covers = []string{"a/*", "a*b"} },
		"Enrol.Covers[0]": func(c *gate.Config) { c.Enrol.Covers = []string{""} },
		"Slack is 0s":     func(c *gate.Config) { c.Slack = 0 },
		"Slack is 1h0m1s": func(c *gate.Config) { c.Slack = time.Hour + time.Second },
		"MaxParked ":      func(c *gate.Config) { c.MaxParked = -1 },
		"MaxParkTime ":    func(c *gate.Config) { c.MaxParkTime = -1 },
		"Drift":           func(c *gate.Config) { c.Drift.PPM = -1 },
	} {
		cfg := config()
		change(&cfg)
		if _, err := gate.New(cfg, gate.State{Store: "s"}, origin); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := config().Validate(); err != nil {
		t.Error(err)
	}
}

func TestDamagedStateIsRefused(t *testing.T) {
	for what, state := range map[string]gate.State{
		"no name":         {},
		"negative base":   {Store: "s", Base: -1},
		"negative":        {Store: "s", Witnessed: -1},
		"floor of nobody": {Store: "s", Floors: []gate.Floor{{Token: 1}}},
		"no floor":        {Store: "s", Floors: []gate.Floor{{Resource: "a"}}},
		"twice":           {Store: "s", Floors: []gate.Floor{{Resource: "a", Token: 1}, {Resource: "a", Token: 2}}},
		"out of order":    {Store: "s", Floors: []gate.Floor{{Resource: "b", Token: 1}, {Resource: "a", Token: 2}}},
	} {
		if _, err := gate.New(config(), state, origin); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

func TestWhatMakesNoSenseIsRefused(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true})
	r.enrol(nil, 0)
	for _, token := range []fence.Token{0, -1, 1, 1 << 48} {
		if _, a, err := r.admit("orders/a", token); a != gate.Refuse || !errors.Is(err, fence.ErrInvalidToken) {
			t.Errorf("token %d: %v, %v", token, a, err)
		}
	}
	for _, name := range []string{"", "other", "billx", "orders", strings.Repeat("orders/", 80)} {
		if _, a, err := r.admit(name, tok(1)); a != gate.Refuse || !errors.Is(err, fence.ErrUnguarded) {
			t.Errorf("%.20q: %v, %v", name, a, err)
		}
	}
	for _, name := range []string{"bill", "orders/", "orders/a/b"} {
		if err := r.admitNow(name, tok(1)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if s := r.gate.Status(); s.Refused != 9 || s.Admitted != 3 || s.Floors != 3 {
		t.Errorf("%+v", s)
	}
}

// Requests that are refused leave nothing behind, however many names they make up.
func TestRefusedWritesCostNoMemory(t *testing.T) {
	r := newRig(t, func(c *gate.Config) { c.MaxParked = 1 }, gate.State{Clean: true, Base: tok(5)})
	r.enrol(nil, tok(5))
	_, _, _ = r.admit("orders/parked", tok(6))
	for i := range 1000 {
		if _, a, _ := r.admit(fmt.Sprintf("orders/%d", i), tok(uint64(4+i%2*4))); a != gate.Refuse {
			t.Fatal("admitted")
		}
	}
	if n := testing.AllocsPerRun(1, func() { r.gate.Status() }); r.gate.Resources() != 1 || n > 100 {
		t.Errorf("%d resources are known", r.gate.Resources())
	}
}

func TestToldThingsArePassedOn(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true})
	r.enrol(nil, 0)
	r.hear(&writv1.GuardResponse{Id: 77, Say: &writv1.GuardResponse_Probe{Probe: &writv1.GuardProbe{Resource: "orders/a", Token: 3}}})
	r.hear(&writv1.GuardResponse{Say: &writv1.GuardResponse_Jwks{Jwks: "{}"}})
	r.hear(&writv1.GuardResponse{Say: &writv1.GuardResponse_Grants{Grants: &writv1.GuardGrants{Grants: []*writv1.GuardGrant{{Resource: "orders/a", Token: 9}}}}})
	if len(r.probes) != 1 || r.probes[0].ID != 77 || r.probes[0].Probe.GetToken() != 3 || r.keys != "{}" || len(r.grants) != 1 {
		t.Errorf("probes %v, keys %q, grants %v", r.probes, r.keys, r.grants)
	}
	if r.gate.Issuer() != "quorum" {
		t.Errorf("issuer %q", r.gate.Issuer())
	}
	r.step(gate.Disconnected{})
	r.hear(&writv1.GuardResponse{Say: &writv1.GuardResponse_Jwks{Jwks: "late"}})
	if r.keys != "{}" {
		t.Error("something was heard while disconnected")
	}
}

func TestEnrolmentSaysWhatTheStoreHolds(t *testing.T) {
	r := newRig(t, nil, gate.State{Store: "mine", Version: 41, Witnessed: tok(9)})
	r.step(gate.Connected{})
	m := r.sent(isEnrol)
	e := m.GetEnrol()
	if m.GetGuard() != "g1" || m.GetSession() != "s1.1" || e.GetStore() != "mine" || e.GetVersion() != 41 ||
		fence.Token(e.GetWitnessed()) != tok(9) || e.GetSlack().AsDuration() != slackW || e.GetRegion() != "eu" || len(e.GetCovers()) != 2 {
		t.Errorf("%v", m)
	}
	if config().Enrol.GetStore() != "" {
		t.Error("the configuration was written to")
	}
}

// Only what the quorum vouches for is witnessed.
func TestBareTokensAreNotWitnessed(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true})
	r.enrol(nil, 0)
	write := func(n uint64, verified bool) {
		t.Helper()
		if _, a, err := r.gate.Admit(r.now, "orders/a", tok(n), verified); a == gate.Refuse {
			t.Fatal(err)
		}
		r.take(r.gate.Take())
		r.store()
	}
	for _, c := range []struct {
		do   func()
		want fence.Token
	}{
		{func() { write(50, false) }, 0},
		{func() { write(50, true) }, tok(50)}, // under a floor that stood already
		{func() { write(60, true) }, tok(60)},
		{func() { r.raise("orders/b", tok(70)) }, tok(70)},
		{func() { write(80, false) }, tok(70)},
	} {
		if c.do(); r.gate.Status().Witnessed != c.want {
			t.Fatalf("witnessed %v, want %v", r.gate.Status().Witnessed, c.want)
		}
	}
	var durable fence.Token
	for _, b := range r.stored {
		durable = max(durable, b.Witnessed)
	}
	if durable != tok(70) {
		t.Errorf("%v is durable", durable)
	}
}

func TestTicketsCountOnce(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true})
	r.enrol(nil, 0)
	if err := r.admitNow("orders/a", tok(1)); err != nil {
		t.Fatal(err)
	}
	first, _, _ := r.admit("orders/a", tok(1))
	second, _, _ := r.admit("orders/a", tok(1))
	r.done(first, fence.Finished)
	r.done(first, fence.Finished)
	r.done(0, fence.Finished)
	r.done(1<<63, fence.Finished)
	r.step(gate.Abandoned{Ticket: second})
	if n := r.gate.Status().InFlight; n != 1 {
		t.Fatalf("%d in flight", n)
	}
	third, _, _ := r.admit("orders/a", tok(1))
	if third == first || third == second {
		t.Fatal("a ticket is used twice")
	}
	parked, a, _ := r.admit("orders/a", tok(2))
	if a != gate.Wait {
		t.Fatal("it does not wait")
	}
	r.done(parked, fence.Finished)
	if s := r.gate.Status(); s.Parked != 1 || s.InFlight != 2 {
		t.Errorf("%+v", s)
	}
}

// An outcome that nobody has thought of counts as broken.
func TestUnknownOutcomesAreBroken(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true})
	r.enrol(nil, 0)
	_ = r.admitNow("orders/a", tok(1))
	w, _, _ := r.admit("orders/a", tok(1))
	r.done(w, 0)
	r.raise("orders/a", tok(2))
	r.store()
	r.pass(slackW - 1)
	if n := len(r.acks()); n != 0 {
		t.Fatal("acknowledged too early")
	}
	r.pass(1)
	if acks := r.acks(); len(acks) != 1 || acks[0].GetProof() != writv1.GuardProof_GUARD_PROOF_CUT {
		t.Errorf("%v", acks)
	}
}

func TestNonsenseOfTheQuorumIsIgnored(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true})
	r.step(gate.Connected{})
	bad := func(e *writv1.GuardEnrolled) {
		t.Helper()
		r.hear(&writv1.GuardResponse{Id: r.sent(isEnrol).GetId(), Say: &writv1.GuardResponse_Enrolled{Enrolled: e}})
		if r.warning == "" || len(r.persist) > 0 {
			t.Errorf("%v is taken", e)
		}
		r.pass(leaseG)
	}
	bad(&writv1.GuardEnrolled{})
	bad(&writv1.GuardEnrolled{Lease: durationpb.New(-1)})
	bad(&writv1.GuardEnrolled{Lease: durationpb.New(leaseG), Base: 1 << 63})
	r.answerEnrol(nil, 0)
	r.store()
	for _, f := range []*writv1.GuardFloor{
		nil, {Resource: "orders/a"}, {Token: 5}, {Resource: "orders/a", Token: 1 << 63}, {Resource: strings.Repeat("x", 513), Token: 5},
	} {
		r.hear(&writv1.GuardResponse{Say: &writv1.GuardResponse_Raises{Raises: &writv1.GuardRaises{Raises: []*writv1.GuardFloor{f}}}})
		if r.warning == "" || len(r.persist) > 0 {
			t.Errorf("%v is taken", f)
		}
	}
	r.hear(nil)
	r.hear(&writv1.GuardResponse{})
	r.hear(&writv1.GuardResponse{Id: 9, Say: &writv1.GuardResponse_Error{}})
}

func TestAlarmsAreBounded(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true, Base: tok(100)})
	r.enrol(nil, tok(100))
	for i := range uint64(20) {
		r.raise("orders/a", tok(i+1))
		r.pass(2 * time.Second)
		ask := r.sent(isContact)
		r.hear(&writv1.GuardResponse{Id: ask.GetId(), Say: &writv1.GuardResponse_Contacted{Contacted: &writv1.GuardContacted{
			Lease: durationpb.New(leaseG), Floors: floors(ask.GetContact().GetDoubts(), tok(i+1)),
		}}})
	}
	s := r.gate.Status()
	if s.AlarmCount != 20 || len(s.Alarms) != 16 || fence.Token(s.Alarms[15].GetToken()) != tok(20) {
		t.Errorf("%d alarms, %d kept", s.AlarmCount, len(s.Alarms))
	}
	r.pass(5 * time.Second)
	if n := len(r.sent(isContact).GetContact().GetAlarms()); n != 16 {
		t.Errorf("%d alarms are reported", n)
	}
}

// What a node that is behind tells costs no more than a bounded question.
func TestDoubtsAreBounded(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true, Base: tok(100)})
	r.enrol(nil, tok(100))
	r.pass(10 * time.Second)
	for i := range 2000 {
		r.raise(fmt.Sprintf("orders/%d", i), tok(1))
	}
	asked := 0
	for range 3 {
		r.raise("elsewhere", tok(1))
		r.pass(5 * time.Second)
		ask := r.sent(isContact)
		doubts := ask.GetContact().GetDoubts()
		asked += len(doubts)
		if slices.Contains(doubts, "elsewhere") {
			t.Error("asks for what it does not cover, and would not be answered")
		}
		r.hear(&writv1.GuardResponse{Id: ask.GetId(), Say: &writv1.GuardResponse_Contacted{Contacted: &writv1.GuardContacted{
			Lease: durationpb.New(leaseG), Floors: floors(doubts, tok(100)),
		}}})
	}
	if s := r.gate.Status(); asked != 1000 || s.AlarmCount != 0 {
		t.Errorf("asked for %d floors, and raised %d alarms", asked, s.AlarmCount)
	}
}

func floors(names []string, token fence.Token) (all []*writv1.GuardFloor) {
	for _, name := range names {
		all = append(all, &writv1.GuardFloor{Resource: name, Token: uint64(token)})
	}
	return all
}

func TestManyAcksGoInSeveralMessages(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true})
	var floors []*writv1.GuardFloor
	for i := range 10_000 {
		floors = append(floors, &writv1.GuardFloor{Resource: fmt.Sprintf("orders/%05d", i), Token: uint64(tok(7))})
	}
	r.enrol(nil, 0, floors...)
	messages := 0
	for _, m := range r.send {
		if n := len(m.GetAcks().GetAcks()); n > 4096 {
			t.Errorf("%d acks in a message", n)
		} else if n > 0 {
			messages++
		}
	}
	if len(r.acks()) != 10_000 || messages != 3 {
		t.Errorf("%d acks in %d messages", len(r.acks()), messages)
	}
}

// A disk that hangs is noticed as one that fails: no contact is asked for, and the writes learn that it is the disk.
func TestHangingDiskStopsContacts(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true})
	r.enrol(nil, 0)
	w, _, _ := r.admit("orders/a", tok(1))
	r.pass(11 * time.Second)
	var unavailable *fence.UnavailableError
	if !errors.As(r.decided[w], &unavailable) || unavailable.Obstacle != fence.StoreFailed {
		t.Errorf("%v", r.decided[w])
	}
	r.send = nil
	r.pass(time.Minute)
	if len(r.send) > 0 {
		t.Errorf("%v is sent", r.send)
	}
	r.store()
	r.sent(isContact)
}

// What Admit wants done is handed over by the next call if nobody asks for it.
func TestEffectsOfAdmitAreNotLost(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true})
	r.enrol(nil, 0)
	if _, a, _ := r.gate.Admit(r.now, "orders/a", tok(1), true); a != gate.Wait {
		t.Fatal("it does not wait")
	}
	r.step(gate.Tick{})
	if len(r.persist) != 1 {
		t.Fatal("its batch is lost")
	}
	r.take(r.gate.Take())
	if len(r.persist) != 1 {
		t.Fatal("its batch is handed over twice")
	}
}

func TestTimeDoesNotGoBack(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true})
	r.enrol(rules(1, closing("orders/")), 0)
	if err := r.admitNow("orders/a", tok(1)); err != nil {
		t.Fatal(err)
	}
	r.step(gate.Disconnected{})
	r.pass(leaseG)
	if _, a, _ := r.gate.Admit(r.now.Add(-time.Second), "orders/a", tok(1), true); a != gate.Refuse {
		t.Error("an old instant reopens the gate")
	}
}

func TestAlwaysCloseTightens(t *testing.T) {
	r := newRig(t, func(c *gate.Config) { c.AlwaysClose = true }, gate.State{Clean: true})
	r.enrol(rules(1, &writv1.GuardingRule{Prefix: "orders/", Isolation: writv1.Isolation_ISOLATION_OPEN}), 0)
	if err := r.admitNow("orders/a", tok(1)); err != nil {
		t.Fatal(err)
	}
	r.pass(leaseG)
	var unavailable *fence.UnavailableError
	if err := r.admitNow("orders/a", tok(1)); !errors.As(err, &unavailable) || unavailable.Obstacle != fence.Isolated {
		t.Errorf("%v", err)
	}
}

func TestLeaveIsSentOnce(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true})
	r.enrol(nil, 0)
	r.step(gate.Stop{})
	r.step(gate.Tick{})
	if n := len(r.send); n != 2 || r.left {
		t.Fatalf("%d messages, left %v", n, r.left)
	}
	r.hear(failure(r.sent(isLeave).GetId(), "NO_QUORUM"))
	if !r.left {
		t.Error("not left")
	}
	r.left = false
	r.step(gate.Tick{})
	if r.left {
		t.Error("left again")
	}
}

func TestFastPathDoesNotAllocate(t *testing.T) {
	r := newRig(t, nil, gate.State{Clean: true})
	r.enrol(rules(1, closing("orders/")), 0)
	_ = r.admitNow("orders/a", tok(1))
	n := testing.AllocsPerRun(1000, func() {
		w, a, _ := r.gate.Admit(r.now, "orders/a", tok(1), true)
		if a != gate.Go || r.gate.Done(r.now, w, fence.Finished) != nil {
			panic("not the fast path")
		}
		w, _, _ = r.gate.Admit(r.now, "orders/a", tok(1), false)
		r.gate.Done(r.now, w, fence.Broken)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestARuleForOneResourceComesFirst(t *testing.T) {
	opens, closes := writv1.Isolation_ISOLATION_OPEN, writv1.Isolation_ISOLATION_CLOSE
	r := newRig(t, nil, gate.State{Clean: true})
	r.enrol(rules(1, &writv1.GuardingRule{Prefix: "orders/db", Exact: true, Isolation: closes},
		&writv1.GuardingRule{Prefix: "orders/", Isolation: opens}, &writv1.GuardingRule{Prefix: "orders/d", Isolation: opens}), 0)
	for name, want := range map[string]bool{"orders/db": true, "orders/db2": false, "orders/db/x": false, "orders/d": false} {
		if got := r.gate.Closes(name); got != want {
			t.Errorf("%s closes: %t", name, got)
		}
	}
}
