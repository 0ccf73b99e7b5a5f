package gate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
)

// floorsOf is a store with floors, in order.
func floorsOf(names ...string) gate.State {
	s := gate.State{Store: "s", Clean: true, Base: tok(1)}
	slices.Sort(names)
	for i, name := range names {
		s.Floors = append(s.Floors, gate.Floor{Resource: name, Token: tok(uint64(i + 2)), Drained: true})
	}
	return s
}

func numbered(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("orders/%06d", i)
	}
	return names
}

func namesIn(floors []*writv1.GuardKeptFloor) []string {
	names := make([]string, len(floors))
	for i, f := range floors {
		names[i] = f.GetResource()
	}
	return names
}

func TestPagesTellEveryFloor(t *testing.T) {
	names := numbered(2500)
	r := newRig(t, nil, floorsOf(append(slices.Clone(names), "bill", "orders", "p")...))
	for _, c := range []struct {
		ask   *writv1.GuardFloorsAsk
		want  []string
		pages int
	}{
		{&writv1.GuardFloorsAsk{Prefix: "orders/", Limit: 1000}, names, 3},
		{&writv1.GuardFloorsAsk{Prefix: "orders/", Limit: 500}, names, 5}, // the last one is full, and said to be the last
		{&writv1.GuardFloorsAsk{Prefix: "orders/"}, names, 3},
		{&writv1.GuardFloorsAsk{Prefix: "orders/", Limit: 1 << 31}, names, 3},
		{&writv1.GuardFloorsAsk{}, slices.Concat([]string{"bill", "orders"}, names, []string{"p"}), 3},
		{&writv1.GuardFloorsAsk{Prefix: "orders/", After: names[2498]}, names[2499:], 1},
		{&writv1.GuardFloorsAsk{Prefix: "orders/", After: names[7] + "!", Limit: 3}, names[8:], 831},
		{&writv1.GuardFloorsAsk{Prefix: "orders/", After: "bill"}, names, 3},
		{&writv1.GuardFloorsAsk{Prefix: "orders/", After: "p"}, []string{}, 1},
		{&writv1.GuardFloorsAsk{Prefix: "orders/00249"}, names[2490:], 1},
		{&writv1.GuardFloorsAsk{Prefix: "q"}, []string{}, 1},
		{&writv1.GuardFloorsAsk{Prefix: "bill"}, []string{"bill"}, 1},
	} {
		floors, n := pages(r.gate, c.ask)
		if got := namesIn(floors); !slices.Equal(got, c.want) || n != c.pages {
			t.Errorf("%v: %d floors in %d pages, want %d in %d", c.ask, len(got), n, len(c.want), c.pages)
		}
	}
	page := r.gate.Page(&writv1.GuardFloorsAsk{Prefix: "bill"})
	if want := (&writv1.GuardFloorsPage{Base: uint64(tok(1)), Floors: []*writv1.GuardKeptFloor{{Resource: "bill", Token: uint64(tok(2))}}}); !proto.Equal(page, want) {
		t.Errorf("told %v, want %v", page, want)
	}
}

// Names that are long make a page small; what it leaves out is in the next one.
func TestPagesAreBounded(t *testing.T) {
	var names []string
	for i := range 1500 {
		names = append(names, fmt.Sprintf("orders/%s%05d", strings.Repeat("n", 500), i))
	}
	r := newRig(t, nil, floorsOf(names...))
	var got []string
	for after := ""; ; {
		page := r.gate.Page(&writv1.GuardFloorsAsk{After: after})
		if n := proto.Size(page); n > gate.MaxPageBytes || n < gate.MaxPageBytes/2 && page.GetNext() != "" {
			t.Errorf("a page of %d bytes with %d floors", n, len(page.GetFloors()))
		}
		got = append(got, namesIn(page.GetFloors())...)
		if after = page.GetNext(); after == "" {
			break
		}
	}
	if !slices.Equal(got, names) {
		t.Errorf("%d floors are told of %d", len(got), len(names))
	}
}

// A resource that goes by the base is worth telling while writes of it are under way. However many there are that are not, a
// page looks at few.
func TestPagesPassOverWhatIsNotKept(t *testing.T) {
	r := newRig(t, nil, gate.State{Store: "s", Clean: true})
	r.enrol(nil, tok(9))
	const idle = 9000
	for _, name := range numbered(idle) {
		if err := r.admitNow(name, tok(9)); err != nil {
			t.Fatal(err)
		}
	}
	if ticket, a, err := r.admit("orders/z", tok(9)); a != gate.Go {
		t.Fatal(ticket, a, err)
	}
	floors, n := pages(r.gate, &writv1.GuardFloorsAsk{Limit: 1})
	want := &writv1.GuardKeptFloor{Resource: "orders/z", Token: uint64(tok(9)), InFlight: 1, Base: true}
	if len(floors) != 1 || !proto.Equal(floors[0], want) || n != 3 {
		t.Errorf("told %v in %d pages, want %v in 3", floors, n, want)
	}
}

func TestPageTellsWhatIsUnderWay(t *testing.T) {
	r := newRig(t, nil, gate.State{Store: "s", Clean: true})
	r.enrol(nil, 0)
	told := func(what string, want *writv1.GuardKeptFloor) {
		t.Helper()
		page := r.gate.Page(&writv1.GuardFloorsAsk{})
		if want.Resource = "bill"; len(page.GetFloors()) != 1 || !proto.Equal(page.GetFloors()[0], want) {
			t.Errorf("%s: told %v, want %v", what, page, want)
		}
	}
	if err := r.admitNow("bill", tok(5)); err != nil {
		t.Fatal(err)
	}
	told("at rest", &writv1.GuardKeptFloor{Token: uint64(tok(5))})
	first, _, _ := r.admit("bill", tok(5))
	second, _, _ := r.admit("bill", tok(5))
	told("two under way", &writv1.GuardKeptFloor{Token: uint64(tok(5)), InFlight: 2})
	if _, a, err := r.admit("bill", tok(6)); a != gate.Wait {
		t.Fatal(a, err)
	}
	told("a newer one waits", &writv1.GuardKeptFloor{Token: uint64(tok(6)), InFlight: 2, Waiting: 1, Draining: true})
	r.store()
	r.done(first, fence.Finished)
	r.done(second, fence.Broken)
	told("what broke may still arrive", &writv1.GuardKeptFloor{Token: uint64(tok(6)), Waiting: 1, Draining: true})
	r.pass(slackW)
	told("drained", &writv1.GuardKeptFloor{Token: uint64(tok(6)), InFlight: 1})
}

// A page answers under the id of its ask, and does nothing else.
func TestFloorsAreToldToTheNode(t *testing.T) {
	r := newRig(t, nil, floorsOf("bill", "orders/1"))
	ask := &writv1.GuardResponse{Id: 1<<63 + 7, Say: &writv1.GuardResponse_Floors{Floors: &writv1.GuardFloorsAsk{Limit: 1}}}
	r.hear(ask)
	if len(r.send) != 0 {
		t.Errorf("sent %v without a stream", r.send)
	}
	r.enrol(nil, tok(1), &writv1.GuardFloor{Resource: "bill", Token: uint64(tok(4))}, &writv1.GuardFloor{Resource: "orders/1", Token: uint64(tok(3))})
	if e := r.sent(isEnrol); !e.GetEnrol().GetTellsFloors() {
		t.Errorf("the enrolment %v does not say that floors are told", e)
	}
	if r.pass(leaseG / 6); !r.sent(isContact).GetContact().GetTellsFloors() {
		t.Error("the contact does not say that floors are told")
	}
	before, batches := len(r.send), len(r.stored)
	r.hear(ask)
	want := &writv1.GuardRequest{Id: ask.GetId(), Guard: "g1", Session: "s1.1", Ask: &writv1.GuardRequest_Floors{Floors: &writv1.GuardFloorsPage{
		Floors: []*writv1.GuardKeptFloor{{Resource: "bill", Token: uint64(tok(4))}}, Next: "bill", Base: uint64(tok(1)),
	}}}
	if r.store(); len(r.send) != before+1 || !proto.Equal(r.send[before], want) || len(r.stored) != batches {
		t.Errorf("sent %v, want %v; %d batches", r.send[before:], want, len(r.stored)-batches)
	}
	// What the gate asks next has the number that it would have had.
	r.pass(leaseG / 6)
	if id := r.sent(isContact).GetId(); id > 10 {
		t.Errorf("the next contact has the id %d", id)
	}
}
