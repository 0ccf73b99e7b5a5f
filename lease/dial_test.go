package lease

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"

	"github.com/writ-io/writ/lease/clock"
)

func newTestSet(t *testing.T, region string) (*dialSet, *clock.Manual) {
	t.Helper()
	manual := clock.NewManual(keeperOrigin)
	s, err := newDialSet(Config{
		Endpoints: []string{"a:1", "b:1", "c:1"}, Region: region, Clock: manual, Logger: slog.New(slog.DiscardHandler),
	}, insecure.NewCredentials())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s, manual
}

func (s *dialSet) shown() string {
	var names []string
	for _, e := range *s.order.Load() {
		names = append(names, e.address[:1])
	}
	return strings.Join(names, "")
}

func TestNodesAreOrdered(t *testing.T) {
	s, manual := newTestSet(t, "eu")
	a, b, c := s.all[0], s.all[1], s.all[2]
	failure := errors.New("silent")
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"as configured", func() {}, "abc"},
		{"one is measured", func() { s.measured(b, 10*time.Millisecond, dialFound{"b", "us", true, false}) }, "bac"},
		{"another is farther", func() { s.measured(c, 20*time.Millisecond, dialFound{"c", "ap", true, false}) }, "bca"},
		{"the third is near and of the own region", func() { s.measured(a, 14*time.Millisecond, dialFound{"a", "eu", true, false}) }, "abc"},
		{"it fails", func() { s.failed(a, failure) }, "bca"},
		{"it fails again", func() { s.failed(a, failure) }, "bca"},
		{"the next fails too, later", func() { manual.Advance(time.Millisecond); s.failed(b, failure) }, "cab"},
		{"all fail", func() { manual.Advance(time.Millisecond); s.failed(c, failure) }, "abc"},
		{"one answers after all", func() { s.answered(c) }, "cab"},
		{"another does", func() { s.answered(b) }, "bca"},
		{"all do", func() { s.answered(a) }, "abc"},
		{"it says that it is not ready", func() { s.measured(a, 14*time.Millisecond, dialFound{"a", "eu", false, false}) }, "bca"},
		{"not ready is better than silent", func() { s.failed(c, failure) }, "bac"},
		{"ready again", func() { s.measured(a, 14*time.Millisecond, dialFound{"a", "eu", true, false}) }, "abc"},
		{"much farther than the nearest", func() {
			for range 20 {
				s.measured(a, 60*time.Millisecond, dialFound{"a", "eu", true, false})
			}
		}, "bac"},
		{"a little nearer than the present one", func() {
			for range 20 {
				s.measured(c, 9*time.Millisecond, dialFound{"c", "ap", true, false})
			}
		}, "bca"},
		{"about as near, and the coordinator", func() { s.measured(c, 9*time.Millisecond, dialFound{"c", "ap", true, true}) }, "cba"},
		{"no coordinator any more", func() { s.measured(c, 9*time.Millisecond, dialFound{"c", "ap", true, false}) }, "cba"},
		{"the coordinator, but far away", func() { s.measured(a, 60*time.Millisecond, dialFound{"a", "eu", true, true}) }, "cba"},
		{"a lot nearer than the present one", func() {
			for range 20 {
				s.measured(b, 5*time.Millisecond, dialFound{"b", "us", true, false})
			}
		}, "bca"},
		{"one about as near decides, as another says", func() { s.decided("c") }, "cba"},
		{"the present one does after all", func() { s.decided("b") }, "bca"},
		{"one far away does", func() { s.decided("a") }, "bca"},
		{"one that nobody has met does", func() { s.decided("d") }, "bca"},
		{"the one about as near again", func() { s.decided("c") }, "cba"},
		{"it is busy, and seems farther", func() {
			for range 20 {
				s.measured(c, 30*time.Millisecond, dialFound{"c", "ap", true, true})
			}
		}, "cba"},
		{"it is far away", func() {
			for range 20 {
				s.measured(c, 40*time.Millisecond, dialFound{"c", "ap", true, true})
			}
		}, "bca"},
		{"near enough to stay, not to be chosen", func() {
			for range 20 {
				s.measured(c, 30*time.Millisecond, dialFound{"c", "ap", true, true})
			}
		}, "bca"},
	} {
		if step.do(); s.shown() != step.want {
			t.Errorf("%s: %s, want %s", step.what, s.shown(), step.want)
		}
	}
}

func TestPenaltiesGrowUpToALimit(t *testing.T) {
	s, manual := newTestSet(t, "")
	s.refresh = keeperNever
	a := s.all[0]
	var last time.Duration
	for i, want := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second} {
		s.failed(a, errors.New("silent"))
		if last = a.probeAt.Sub(manual.Now()); last != want {
			t.Errorf("failure %d: %v, want %v", i, last, want)
		}
		if next := s.nextProbe(); next != a.probeAt {
			t.Errorf("failure %d: next probe in %v", i, next.Sub(manual.Now()))
		}
		manual.Advance(last)
	}
	// That it answers probes does not yet mean that it serves.
	s.measured(a, time.Millisecond, dialFound{"a", "", true, false})
	s.failed(a, errors.New("silent"))
	if got := a.probeAt.Sub(manual.Now()); got != 10*time.Second {
		t.Errorf("after a probe: %v", got)
	}
	s.measured(a, time.Millisecond, dialFound{"a", "", true, false})
	s.answered(a)
	s.failed(a, errors.New("silent"))
	if got := a.probeAt.Sub(manual.Now()); got != 500*time.Millisecond {
		t.Errorf("after a call: %v", got)
	}
}

// What a node says about who decides has others looked at only if that helps, and not again and again.
func TestNewsOfTheCoordinatorHaveNodesLookedAt(t *testing.T) {
	s, manual := newTestSet(t, "")
	for i, name := range []string{"a", "b"} {
		s.measured(s.all[i], time.Millisecond, dialFound{name: name, ready: true})
	}
	s.measured(s.all[2], time.Millisecond, dialFound{name: "c"})
	s.probed = manual.Now()
	for _, step := range []struct {
		coordinator string
		due         time.Duration
	}{
		{"b", 30 * time.Second},
		{"d", dialRetry}, // nobody's name: all are asked, but that was just done
		{"c", 0},         // not ready when it was looked at
	} {
		s.refresh = manual.Now().Add(dialRefresh)
		s.all[2].probeAt = s.refresh
		s.decided(step.coordinator)
		if due := s.nextProbe().Sub(manual.Now()); due != step.due {
			t.Errorf("%s decides: next look in %v, want %v", step.coordinator, due, step.due)
		}
	}
	s.failed(s.all[2], errors.New("silent"))
	if s.decided("c"); s.nextProbe().Sub(manual.Now()) != dialFirstPenalty {
		t.Error("the penalty of a silent node is over because another says that it decides")
	}
}

func TestATourAsksEveryNodeOnce(t *testing.T) {
	s, _ := newTestSet(t, "")
	tour := s.tour()
	seen := ""
	for range 6 {
		e := tour.next()
		seen += e.address[:1]
		s.failed(e, errors.New("silent")) // which changes the order under way
	}
	if seen != "abcabc" {
		t.Errorf("asked %s", seen)
	}
	s.answered(s.all[2])
	if e := tour.next(); e != s.all[2] {
		t.Errorf("the third round begins with %s", e.address)
	}
	tour.reset()
	s.failed(s.all[2], errors.New("silent"))
	s.answered(s.all[1])
	if e := tour.next(); e != s.all[1] {
		t.Errorf("begins anew with %s", e.address)
	}
}

func TestHedgedRenewalsGoElsewhere(t *testing.T) {
	s, _ := newTestSet(t, "")
	at := func(n int) clock.Instant { return keeperOrigin.Add(time.Duration(n) * time.Second) }
	seen := ""
	for _, r := range []struct {
		attempt int
		sent    clock.Instant
	}{{1, at(1)}, {1, at(1)}, {2, at(2)}, {2, at(2)}, {3, at(3)}, {4, at(4)}, {1, at(5)}} {
		seen += s.renewVia(r.attempt, r.sent).address[:1]
	}
	if seen != "aabbcaa" {
		t.Errorf("went to %s", seen)
	}
	// A node that is known to be silent comes after those that are not.
	s.failed(s.all[1], errors.New("silent"))
	if e := s.renewVia(2, at(6)); e == s.all[1] {
		t.Error("hedged via a silent node")
	}
}
