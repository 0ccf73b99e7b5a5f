package gate_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/lease/clock"
)

const (
	origin = clock.Instant(time.Hour)
	slackW = 5 * time.Second
	leaseG = 30 * time.Second
)

// tok is the n-th token of the first epoch.
func tok(n uint64) fence.Token { return fence.Token(1<<48 + n) }

func config() gate.Config {
	return gate.Config{
		Name: "g1", Session: "s1", Slack: slackW,
		Enrol: &writv1.GuardEnrol{Region: "eu", Form: "proxy", Promise: writv1.GuardPromise_GUARD_PROMISE_DRAINED, Covers: []string{"orders/*", "bill"}},
	}
}

// rig steps a gate by hand, and keeps what it wants done.
type rig struct {
	tb   testing.TB
	gate *gate.Gate
	now  clock.Instant

	persist   []gate.Batch
	stored    []gate.Batch
	send      []*writv1.GuardRequest
	decided   map[gate.Ticket]error
	admitted  map[gate.Ticket]bool
	cut       []gate.Ticket
	probes    []gate.Probe
	keys      string
	grants    []*writv1.GuardGrant
	left      bool
	reconnect int
	warning   string
	wake      clock.Instant
}

func newRig(tb testing.TB, change func(*gate.Config), state gate.State) *rig {
	tb.Helper()
	cfg := config()
	if change != nil {
		change(&cfg)
	}
	if state.Store == "" {
		state.Store = "store"
	}
	g, err := gate.New(cfg, state, origin)
	if err != nil {
		tb.Fatal(err)
	}
	return &rig{tb: tb, gate: g, now: origin, decided: map[gate.Ticket]error{}, admitted: map[gate.Ticket]bool{}, wake: clock.Never}
}

func (r *rig) take(e *gate.Effects) {
	if e == nil {
		return
	}
	r.persist = append(r.persist, e.Persist...)
	r.send = append(r.send, e.Send...)
	for _, d := range e.Decided {
		r.decided[d.Ticket] = d.Err
		if d.Err == nil {
			r.admitted[d.Ticket] = true
		}
	}
	r.cut = append(r.cut, e.Cut...)
	r.probes = append(r.probes, e.Probe...)
	r.grants = append(r.grants, e.Grants...)
	if e.Keys != "" {
		r.keys = e.Keys
	}
	r.left = r.left || e.Left
	if e.Reconnect {
		r.reconnect++
	}
	r.warning = e.Warning
	r.wake = e.Wake
	if e.Wake <= r.now {
		r.tb.Fatalf("wake at %v, and it is %v", e.Wake.Sub(origin), r.now.Sub(origin))
	}
}

func (r *rig) step(e gate.Event) { r.take(r.gate.Step(r.now, e)) }

// pass lets time pass, and wakes the gate when it wants to be woken.
func (r *rig) pass(d time.Duration) {
	end := r.now.Add(d)
	for r.wake <= end {
		r.now = max(r.now, r.wake)
		r.step(gate.Tick{})
	}
	r.now = end
}

// store makes every batch durable that was asked for.
func (r *rig) store() {
	for len(r.persist) > 0 {
		b := r.persist[0]
		r.persist = r.persist[1:]
		r.stored = append(r.stored, b)
		r.step(gate.Persisted{Serial: b.Serial})
	}
}

func (r *rig) hear(m *writv1.GuardResponse) { r.step(gate.Heard{Message: m}) }

func (r *rig) raise(resource string, f fence.Token) {
	r.hear(&writv1.GuardResponse{Say: &writv1.GuardResponse_Raises{Raises: &writv1.GuardRaises{
		Raises: []*writv1.GuardFloor{{Resource: resource, Token: uint64(f)}},
	}}})
}

func (r *rig) sent(kind func(*writv1.GuardRequest) bool) *writv1.GuardRequest {
	for _, m := range slices.Backward(r.send) {
		if kind(m) {
			return m
		}
	}
	r.tb.Helper()
	r.tb.Fatal("it was not sent")
	return nil
}

func isEnrol(m *writv1.GuardRequest) bool   { return m.GetEnrol() != nil }
func isContact(m *writv1.GuardRequest) bool { return m.GetContact() != nil }
func isLeave(m *writv1.GuardRequest) bool   { return m.GetLeave() != nil }

func (r *rig) acks() []*writv1.GuardAck {
	var all []*writv1.GuardAck
	for _, m := range r.send {
		all = append(all, m.GetAcks().GetAcks()...)
	}
	return all
}

func rules(version uint64, list ...*writv1.GuardingRule) *writv1.GuardingRecord {
	return &writv1.GuardingRecord{Version: version, Rules: list}
}

func closing(prefix string) *writv1.GuardingRule {
	return &writv1.GuardingRule{Prefix: prefix, Isolation: writv1.Isolation_ISOLATION_CLOSE}
}

// answerEnrol answers the last enrolment, and does not store the seed.
func (r *rig) answerEnrol(rules *writv1.GuardingRecord, base fence.Token, floors ...*writv1.GuardFloor) {
	r.tb.Helper()
	r.hear(&writv1.GuardResponse{Id: r.sent(isEnrol).GetId(), Say: &writv1.GuardResponse_Enrolled{Enrolled: &writv1.GuardEnrolled{
		Lease: durationpb.New(leaseG), Base: uint64(base), Floors: floors, Rules: rules, Issuer: "quorum",
	}}})
}

func (r *rig) enrol(rules *writv1.GuardingRecord, base fence.Token, floors ...*writv1.GuardFloor) {
	r.tb.Helper()
	r.step(gate.Connected{})
	r.answerEnrol(rules, base, floors...)
	r.store()
	if !r.gate.Seeded() {
		r.tb.Fatal("not seeded")
	}
}

func failure(id uint64, reason string) *writv1.GuardResponse {
	detail, err := anypb.New(&errdetails.ErrorInfo{Domain: "writ.dev", Reason: reason})
	if err != nil {
		panic(err)
	}
	return &writv1.GuardResponse{Id: id, Say: &writv1.GuardResponse_Error{Error: &status.Status{Code: 9, Message: "no", Details: []*anypb.Any{detail}}}}
}

// admit asks for a write, and carries out what follows.
func (r *rig) admit(resource string, token fence.Token) (gate.Ticket, gate.Answer, error) {
	t, a, err := r.gate.Admit(r.now, resource, token, true)
	if r.gate.Pending() {
		r.take(r.gate.Take())
	}
	if a == gate.Go {
		r.admitted[t] = true
	}
	return t, a, err
}

// admitNow admits a write, stores its floor if need be, and ends it.
func (r *rig) admitNow(resource string, token fence.Token) error {
	t, a, err := r.admit(resource, token)
	if a == gate.Wait {
		r.store()
		err = r.decided[t]
	}
	if r.admitted[t] {
		r.done(t, fence.Finished)
	}
	return err
}

func (r *rig) done(t gate.Ticket, o fence.Outcome) {
	delete(r.admitted, t)
	r.take(r.gate.Done(r.now, t, o))
}
