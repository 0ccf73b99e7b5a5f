package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// telling is a story at an instant that the test chooses.
func telling(t *testing.T) (s *story, at *time.Duration, n1, c1 *world.Process) {
	t.Helper()
	w := world.New(1)
	at = new(time.Duration)
	s = newStory(plan.Plan{Nodes: []plan.Node{{Name: "n1", Region: "eu"}}, Clients: []plan.Client{{Name: "c1", Region: "eu"}}}, func() time.Duration { return *at })
	return s, at, w.NewProcess("n1", "eu", 0), w.NewProcess("c1", "eu", 0)
}

// A belief ends at what is believed last, at the latest: nobody who stands still has to say so.
func TestStoryBeliefs(t *testing.T) {
	s, at, _, c1 := telling(t)
	*at = time.Second
	s.belief(c1, "r1", 1, 3*time.Second)
	*at = 2 * time.Second
	s.belief(c1, "r1", 1, 5*time.Second)
	*at = 4 * time.Second
	s.belief(c1, "r1", 1, 0)
	s.belief(c1, "r1", 2, 6*time.Second)
	*at = 10 * time.Second
	s.belief(c1, "r1", 2, 0)
	s.belief(c1, "r1", 3, 11*time.Second)
	*at = 20 * time.Second
	want := []trace.Belief{
		{Lane: 2, Resource: "r1", Token: 1, From: time.Second, To: 4 * time.Second},
		{Lane: 2, Resource: "r1", Token: 2, From: 4 * time.Second, To: 6 * time.Second},
		{Lane: 2, Resource: "r1", Token: 3, From: 10 * time.Second, To: 11 * time.Second},
	}
	if got := s.finish(&Result{}).Beliefs; !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

// Who dies neither leads nor decides any more, and what has no end by the end of the run ends there.
func TestStoryBands(t *testing.T) {
	s, at, n1, _ := telling(t)
	s.leads(n1, true)
	*at = time.Second
	s.role(n1, true, "decides")
	s.role(n1, true, "still")
	*at = 2 * time.Second
	s.downAt(n1)
	*at = 3 * time.Second
	s.up(n1)
	s.up(n1)
	s.leads(n1, true)
	*at = 4 * time.Second
	got := s.finish(&Result{}).Bands
	want := []trace.Band{
		{Lane: 1, Kind: trace.BandLeader, From: 0, To: 2 * time.Second},
		{Lane: 1, Kind: trace.BandCoordinator, From: time.Second, To: 2 * time.Second, Text: "n1 decides"},
		{Lane: 1, Kind: trace.BandDown, From: 2 * time.Second, To: 3 * time.Second, Text: "n1 is down"},
		{Lane: 1, Kind: trace.BandLeader, From: 3 * time.Second, To: 4 * time.Second},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestStoryWords(t *testing.T) {
	s, _, _, c1 := telling(t)
	const first = fence.Token(1<<48 | 1)
	held := lease.Record{
		Resource: "r1", Token: first + 2, Held: true, RequestID: "q3", TTL: time.Second, Holder: lease.Holder{Principal: "c1", Instance: "c1/1"},
		Outcomes: []lease.Outcome{{Principal: "c1", Request: lease.DigestRequest("q1"), Token: first, End: lease.EndReleased}, {Principal: "c1", Request: lease.DigestRequest("q2"), Token: first + 1, End: lease.EndExpired}},
	}
	free := lease.Record{Resource: "r2", Token: first + 1, End: lease.EndForced}
	var entries []quorum.Entry
	for _, rec := range []lease.Record{held, free} {
		value, err := rec.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, quorum.Entry{Key: quorum.LeaseKey(rec.Resource), Value: value})
	}
	s.committed(&run{}, quorum.Change{Revision: 7, Entries: append(entries, quorum.Entry{Key: quorum.LeaseKey("r3")})})
	s.committed(&run{}, quorum.Change{Revision: 8, Entries: []quorum.Entry{{Key: quorum.CheckpointKey("r1"), Value: []byte("x")}}})
	renew := lease.Renew{Refs: []lease.Ref{{Resource: "r1", Token: first + 2}, {Resource: "r2", Token: first + 1}}}
	s.asks(c1, "n1", renew)
	s.answers(c1, "n1", renew, lease.Reply{Value: lease.RenewOutcome{Failures: []lease.RenewFailure{{Index: 1, Err: lease.Errorf(lease.ReasonExpired, "late")}}}})
	s.answers(c1, "n1", renew, lease.Reply{Err: lease.Errorf(lease.ReasonNoQuorum, "alone")})
	s.silent(c1, "n1", 1500*time.Microsecond)
	want := []string{
		"committed as revision 7: r1 is held under 1.3 by c1/1, after 1.2 expired; r2 is free, 1.2 forced; r3 is forgotten",
		"asks n1 to renew r1 under 1.3, r2 under 1.2",
		"hears from n1: EXPIRED: late",
		"hears from n1: renewed 1 of 2",
		"hears from n1: NO_QUORUM: alone",
		"has heard nothing from n1 for 2ms",
	}
	var got []string
	for _, e := range s.trace.Events {
		got = append(got, e.Text)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// Whoever keeps no story pays nothing for its words.
func TestNoStoryCostsNothing(t *testing.T) {
	_, _, _, c1 := telling(t)
	var s *story
	var command lease.Command = lease.Release{Ref: lease.Ref{Resource: "r1", Token: 1}}
	if n := testing.AllocsPerRun(100, func() {
		s.asks(c1, "n1", command)
		s.answers(c1, "n1", command, lease.Reply{})
		s.silent(c1, "n1", time.Second)
		s.committed(nil, quorum.Change{Revision: 1})
		s.leads(c1, true)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
