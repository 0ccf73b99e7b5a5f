package gate_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
)

// FuzzHeard feeds a gate whatever a node could send. It must neither panic nor want to be woken in the past, and a floor
// never decreases.
//
// The bytes are a script: each message has a length of two bytes before it; a length of 0 is followed by a byte that says what
// else happens.
func FuzzHeard(f *testing.F) {
	script := func(messages ...*writv1.GuardResponse) []byte {
		var out []byte
		for _, m := range messages {
			b, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			out = append(out, byte(len(b)), byte(len(b)>>8))
			out = append(append(out, b...), 0, 0, 0, 0, 0, 1) // it is stored, and time passes
		}
		return out
	}
	enrolled := &writv1.GuardResponse{Id: 1, Say: &writv1.GuardResponse_Enrolled{Enrolled: &writv1.GuardEnrolled{
		Lease: durationpb.New(leaseG), Base: uint64(tok(3)), Rules: rules(1, closing("orders/")),
		Floors: []*writv1.GuardFloor{{Resource: "orders/a", Token: uint64(tok(4))}, {Resource: "x", Token: 9}},
	}}}
	more := proto.CloneOf(enrolled)
	more.GetEnrolled().More = true
	contacted := &writv1.GuardResponse{Id: 3, Say: &writv1.GuardResponse_Contacted{Contacted: &writv1.GuardContacted{
		Lease: durationpb.New(time.Second), Raises: []*writv1.GuardFloor{{Resource: "orders/a", Token: uint64(tok(2))}},
	}}}
	raises := &writv1.GuardResponse{Say: &writv1.GuardResponse_Raises{Raises: &writv1.GuardRaises{
		Raises: []*writv1.GuardFloor{{Resource: "orders/a", Token: uint64(tok(8))}},
	}}}
	f.Add([]byte{})
	f.Add(script(enrolled, raises, contacted, failure(4, "EXPIRED"), enrolled))
	f.Add(script(more, more, enrolled, raises, &writv1.GuardResponse{Say: &writv1.GuardResponse_Hurry{}}, contacted))
	f.Add(script(failure(1, "RECOVERING"), &writv1.GuardResponse{Id: 1, Say: &writv1.GuardResponse_Noted{}}, raises))
	f.Add(script(enrolled, raises, &writv1.GuardResponse{Id: 1 << 63, Say: &writv1.GuardResponse_Floors{Floors: &writv1.GuardFloorsAsk{
		Prefix: "orders/", After: "orders/0", Limit: 1 << 31,
	}}}))
	f.Fuzz(fuzzHeard)
}

func fuzzHeard(t *testing.T, script []byte) {
	cfg := config()
	g, err := gate.New(cfg, gate.State{Store: "s"}, origin)
	if err != nil {
		t.Fatal(err)
	}
	now := origin
	var writing []gate.Batch
	var under []gate.Ticket
	floor := fence.Token(0)
	take := func(e *gate.Effects) {
		if e == nil {
			return
		}
		writing = append(writing, e.Persist...)
		for _, d := range e.Decided {
			if d.Err == nil {
				under = append(under, d.Ticket)
			}
		}
		for _, m := range e.Send {
			if _, err := proto.Marshal(m); err != nil && m.GetFloors() == nil { // names that are no text came from the quorum
				t.Fatal(err)
			}
			if n := proto.Size(m.GetFloors()); n > gate.MaxPageBytes {
				t.Fatalf("a page of %d bytes", n)
			}
		}
		if e.Wake <= now {
			t.Fatalf("wake at %v, and it is %v", e.Wake, now)
		}
		if f := g.Floor("orders/a"); f < floor {
			t.Fatalf("the floor falls from %v to %v", floor, f)
		} else {
			floor = f
		}
	}
	take(g.Step(now, gate.Connected{}))
	for len(script) >= 2 {
		n := int(script[0]) | int(script[1])<<8
		script = script[2:]
		if n == 0 {
			if len(script) == 0 {
				return
			}
			what := script[0]
			script = script[1:]
			switch what % 8 {
			case 0:
				if len(writing) > 0 {
					serial := writing[0].Serial
					writing = writing[1:]
					take(g.Step(now, gate.Persisted{Serial: serial}))
				}
			case 1:
				now = now.Add(time.Duration(what) * time.Second)
				take(g.Step(now, gate.Tick{}))
			case 2:
				take(g.Step(now, gate.Disconnected{}))
				take(g.Step(now, gate.Connected{}))
			case 3:
				w, a, _ := g.Admit(now, "orders/a", max(floor, tok(1)), what > 100)
				if a == gate.Go {
					under = append(under, w)
				}
				take(g.Take())
			case 4:
				if len(under) > 0 {
					take(g.Done(now, under[0], fence.Outcome(what%3)))
					under = under[1:]
				}
			case 5:
				take(g.Step(now, gate.Suspicion{}))
			case 6:
				if len(writing) > 0 {
					serial := writing[0].Serial
					writing = writing[1:]
					take(g.Step(now, gate.Persisted{Serial: serial, Err: fence.ErrUnavailable}))
				}
			case 7:
				if what > 250 {
					take(g.Step(now, gate.Stop{}))
				}
			}
			continue
		}
		n = min(n, len(script))
		var m writv1.GuardResponse
		if proto.Unmarshal(script[:n], &m) == nil {
			take(g.Step(now, gate.Heard{Message: &m}))
		}
		script = script[n:]
	}
}
