package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/quorum"
)

// slowGuard is a guard that begins a session and reads when it is let.
type slowGuard struct {
	writv1.FenceService_GuardServer
	ctx   context.Context
	begin chan *writv1.GuardRequest
	read  chan *writv1.GuardResponse
}

func (s *slowGuard) Context() context.Context { return s.ctx }

func (s *slowGuard) Recv() (*writv1.GuardRequest, error) {
	select {
	case req := <-s.begin:
		return req, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *slowGuard) Send(m *writv1.GuardResponse) error {
	select {
	case s.read <- m:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// newSlowGuard serves it until the test ends, and answers how the stream ended.
func newSlowGuard(t *testing.T, q *fakeQuorum, covers []string, edit func(*guards)) (*slowGuard, *sync.WaitGroup, *error) {
	t.Helper()
	m, err := newMetrics(prometheusRegistry(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	check, err := newChecker()
	if err != nil {
		t.Fatal(err)
	}
	logger := hclog.NewNullLogger()
	clk := clock.Monotonic()
	c := &chain{logger: logger, limiter: newLimiter(Config{}.withDefaults().Limits, clk, m), access: policy.AllowAll(), checker: check}
	tracker := newTracker(q, nil, defaultMaxRequestBytes, nil)
	tracker.adopt(q.coordinator, true)
	g := &guards{
		quorum: q, forwarder: &forwarder{tracker: tracker, config: Config{}.withDefaults().Forward, clock: clk, metrics: m}, chain: c,
		keys: &keyring{quorum: q, logger: logger}, metrics: m, logger: logger, draining: t.Context(), patience: time.Minute,
		probing: time.Millisecond, maxNews: maxGuardNews,
	}
	edit(g)
	ctx, cancel := context.WithCancel(context.WithValue(testContext(t), callerKey{}, &caller{principal: guardApp}))
	s := &slowGuard{ctx: ctx, begin: make(chan *writv1.GuardRequest, 10), read: make(chan *writv1.GuardResponse)}
	var served sync.WaitGroup
	ended := new(error)
	served.Go(func() { *ended = g.serve(s) })
	t.Cleanup(func() {
		cancel()
		served.Wait()
	})
	req := contactOf(covers...)
	req.Id, req.Guard, req.Session = 1, "g1", "s1"
	s.begin <- req
	return s, &served, ended
}

// A guard that does not read keeps nobody waiting, and is told the newest when it does.
func TestSlowGuardIsToldTheNewest(t *testing.T) {
	const events, resources = 100_000, 1_500
	q := newFake("a")
	delivered := make(chan struct{})
	q.onWatch = func(ctx context.Context, _, _ string, deliver func(quorum.WatchEvent) error) error {
		for i := range events {
			info := heldInfo(fmt.Sprintf("a/%d", i%resources), uint64(i+1), "eu")
			if err := deliver(quorum.WatchEvent{Kind: quorum.WatchChanged, Lease: info}); err != nil {
				return err
			}
		}
		close(delivered)
		<-ctx.Done()
		return ctx.Err()
	}
	s, _, _ := newSlowGuard(t, q, []string{"a/*"}, func(*guards) {})
	<-delivered // although nothing is read
	floors := make(map[string]uint64)
	told := 0
	newest := func() bool {
		for r := range resources {
			last := uint64((events-1-r)/resources*resources + r + 1)
			if floors[fmt.Sprintf("a/%d", r)] != uint64(token(last)) {
				return false
			}
		}
		return true
	}
	for !newest() {
		raises := (<-s.read).GetRaises().GetRaises()
		if len(raises) > maxNews {
			t.Fatalf("%d floors in one message", len(raises))
		}
		for _, f := range raises {
			if floors[f.GetResource()] >= f.GetToken() {
				t.Fatalf("floor of %s goes from %d to %d", f.GetResource(), floors[f.GetResource()], f.GetToken())
			}
			floors[f.GetResource()] = f.GetToken()
			told++
		}
	}
	if told > resources+maxNews { // the first message may have been on its way before
		t.Errorf("%d floors were told", told)
	}
}

// One that reads too little for the news of too many resources is let go.
func TestGuardThatDoesNotReadIsLetGo(t *testing.T) {
	const limit = 10
	q := newFake("a")
	delivered, gaveUp := 0, make(chan struct{})
	q.onWatch = func(_ context.Context, _, _ string, deliver func(quorum.WatchEvent) error) error {
		defer close(gaveUp)
		for i := 0; ; i++ {
			if err := deliver(quorum.WatchEvent{Kind: quorum.WatchChanged, Lease: heldInfo(fmt.Sprintf("a/%d", i), 1, "eu")}); err != nil {
				return err
			}
			delivered++
		}
	}
	s, served, ended := newSlowGuard(t, q, []string{"a/*"}, func(g *guards) { g.maxNews, g.patience = limit, time.Millisecond })
	<-gaveUp
	if delivered > 2*limit {
		t.Errorf("%d events were taken, want at most %d", delivered, 2*limit)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		served.Wait()
	}()
	for reading := true; reading; {
		select {
		case <-s.read:
		case <-over:
			reading = false
		}
	}
	wantReason(t, *ended, lease.ReasonLimit, "read faster")
}

// A probe that a guard does not read is not kept for it.
func TestProbesOfASlowGuardAreDropped(t *testing.T) {
	q := newFake("a")
	var all *guards
	s, _, _ := newSlowGuard(t, q, []string{"a/*"}, func(g *guards) { all = g })
	<-s.read // the keys; it does not read on
	eventually(t, "it is known", func() bool { return len(all.all()) == 1 })
	session := all.all()[0]
	for range 3 * maxProbes {
		verdicts := all.verify(t.Context(), "", "", 0)
		if len(verdicts) != 1 || verdicts[0].GetRefused() || !strings.Contains(verdicts[0].GetDetail(), "did not answer") {
			t.Fatalf("verdicts %v", verdicts)
		}
	}
	session.mu.Lock()
	defer session.mu.Unlock()
	if len(session.asked) > 0 || len(session.answers) > 1 {
		t.Errorf("%d probes and %d messages are kept", len(session.asked), len(session.answers))
	}
}

// However news come and are taken, the last floor that a guard is told is the highest, and nothing is told twice.
func TestNewsKeepTheNewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 5).Draw(t, "limit")
		n := newNews(limit)
		want, told := make(map[string]uint64), make(map[string]uint64)
		wantHeld, toldHeld := make(map[string]uint64), make(map[string]uint64)
		take := func(*rapid.T) {
			for _, m := range n.take() {
				for _, f := range m.GetRaises().GetRaises() {
					if told[f.GetResource()] >= f.GetToken() {
						t.Fatalf("%s was told %d after %d", f.GetResource(), f.GetToken(), told[f.GetResource()])
					}
					told[f.GetResource()] = f.GetToken()
				}
				for _, f := range m.GetGrants().GetGrants() {
					toldHeld[f.GetResource()] = f.GetToken()
				}
			}
		}
		name := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g"})
		t.Repeat(map[string]func(*rapid.T){
			"raise": func(t *rapid.T) {
				r, floor := name.Draw(t, "resource"), rapid.Uint64Range(0, 9).Draw(t, "floor")
				if n.raise(r, floorNews{token: floor}) {
					want[r] = max(want[r], floor)
				} else if len(n.floors.order) < limit {
					t.Fatal("refused although there is room")
				}
			},
			"grant": func(t *rapid.T) {
				r, held := name.Draw(t, "resource"), rapid.Uint64Range(0, 9).Draw(t, "token")
				if n.grant(r, grantNews{token: held}) {
					wantHeld[r] = held
				}
			},
			"take": take,
			"": func(t *rapid.T) {
				if len(n.floors.order) > limit || len(n.floors.values) != len(n.floors.order) || len(n.grants.values) != len(n.grants.order) {
					t.Fatalf("%d floors in order, %d values", len(n.floors.order), len(n.floors.values))
				}
			},
		})
		take(t)
		for r, floor := range want {
			if told[r] != floor {
				t.Fatalf("%s was told %d, want %d", r, told[r], floor)
			}
		}
		for r, held := range wantHeld {
			if toldHeld[r] != held {
				t.Fatalf("%s was told to be held under %d, want %d", r, toldHeld[r], held)
			}
		}
	})
}

// What is watched matches what the patterns match, and no two of them the same.
func TestOutermost(t *testing.T) {
	word := rapid.StringOfN(rapid.SampledFrom([]rune("ab/")), 0, 4, -1)
	rapid.Check(t, func(t *rapid.T) {
		patterns := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return word.Draw(t, "word") + rapid.SampledFrom([]string{"", "*"}).Draw(t, "asterisk")
		}), 1, 8).Draw(t, "patterns")
		outer := outermost(patterns)
		name := lease.Resource(word.Draw(t, "name"))
		count := 0
		for _, p := range outer {
			if lease.Covers(p, name) {
				count++
			}
		}
		if want := coveredBy(patterns, name); (count == 1) != want || count > 1 {
			t.Fatalf("%d of %q match %q, and of %q: %t", count, outer, name, patterns, want)
		}
	})
	if got := outermost([]string{"a", "*", "b*", "a"}); !slices.Equal(got, []string{"*"}) {
		t.Errorf("got %q", got)
	}
}
