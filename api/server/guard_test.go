package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// What a guard asks at any node is answered by the coordinator, for the guard's principal, and what changes is told.
func TestGuardSession(t *testing.T) {
	a, b := pair(t, nil)
	keys := addKeys(a, b)
	var mu sync.Mutex
	var principals []lease.Principal
	a.quorum.onGuard = func(_ context.Context, cmd lease.GuardCall) (*writv1.GuardResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		principals = append(principals, cmd.Principal)
		return guardAnswer(cmd.Request), nil
	}
	for name, n := range map[string]*node{"at the node that decides": a, "at another node": b} {
		t.Run(name, func(t *testing.T) {
			f := newFeed(n.quorum, heldInfo("db/1", 7, "eu"), fencingInfo("db/2", 3, 9), freeInfo("db/3", 2), heldInfo("dbx", 4, "us"), heldInfo("a", 8, "us"))
			g := n.dial(guardApp).guard(t)
			g.want(1, enrolOf([]string{"db/*", "a"}, "db/*", "b"), "enrolled")
			if len(g.keys) != 1 || g.keys[0] != keys {
				t.Errorf("told the keys %q before the answer", g.keys)
			}
			g.until("everything is told", func() bool { return len(g.floors) == 3 && len(g.grants) == 4 })
			floors := map[string]uint64{"db/1": uint64(token(7)), "db/2": uint64(token(9)), "a": uint64(token(8))}
			grants := map[string]string{"db/1": "1.7 eu", "db/2": "0.0 ", "db/3": "0.0 ", "b": "0.0 "}
			if !maps.Equal(g.floors, floors) || !maps.Equal(g.grants, grants) {
				t.Errorf("told floors %v and grants %v, want %v and %v", g.floors, g.grants, floors, grants)
			}
			eventually(t, "it watches what it covers, each once", func() bool { return slices.Equal(f.prefixes(), []string{"a", "b", "db/"}) })

			f.put(fencingInfo("db/1", 7, 12))
			g.until("a raise is told", func() bool { return g.floors["db/1"] == uint64(token(12)) && g.grants["db/1"] == "0.0 " })
			f.put(heldInfo("db/1", 12, "us")) // the same floor again, which is not told
			f.put(heldInfo("ab", 13, "us"))   // only begins like a
			f.put(heldInfo("a", 14, "us"))
			g.until("a grant is told", func() bool { return g.grants["db/1"] == "1.12 us" && g.floors["a"] == uint64(token(14)) })
			if g.raises != 5 || g.floors["ab"] != 0 {
				t.Errorf("%d floors were told, want 5: %v", g.raises, g.floors)
			}
			g.want(2, contactOf(), "contacted")
			g.want(3, contactOf("db/*", "a"), "INVALID") // its stamps are gone
			g.want(4, acksOf("db/1", "a"), "noted")
			g.want(5, enrolOf([]string{"db/*", "a"}, "db/*", "b"), "enrolled")
			g.want(6, leaveOf(), "noted")
			if err := g.stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if err := g.ends(); !errors.Is(err, io.EOF) {
				t.Errorf("ended with %v", err)
			}
		})
	}
	if want := slices.Repeat([]lease.Principal{guardApp}, 10); !slices.Equal(principals, want) {
		t.Errorf("asked for %v", principals)
	}
	eventually(t, "the sessions are over", func() bool { return a.metric("writ_server_guard_sessions", "") == 0 })
	if got := a.metric("writ_server_guard_asks_total", "acks"); got != 1 {
		t.Errorf("%v acks are counted", got)
	}
	if got := b.metric("writ_server_guard_news_total", "raises"); got != 5 {
		t.Errorf("%v raises are counted", got)
	}
}

// addKeys lets nodes announce the key of the first, and answers the set.
func addKeys(nodes ...*node) string {
	first := nodes[0].info
	first.JWKS, _ = signerKeys(nodes[0].quorum.signer)
	for _, n := range nodes {
		n.quorum.setNodes(append(n.quorum.Nodes()[1:], first)...)
	}
	return first.JWKS
}

func TestGuardStreamThatMakesNoSenseEnds(t *testing.T) {
	open := func(id uint64) *writv1.GuardRequest {
		req := contactOf("a")
		req.Id, req.Guard, req.Session = id, "g1", "s1"
		return req
	}
	edit := func(req *writv1.GuardRequest, edit func(*writv1.GuardRequest)) *writv1.GuardRequest {
		edit(req)
		return req
	}
	for name, c := range map[string]struct {
		asks  []*writv1.GuardRequest
		want  lease.Reason
		field string
	}{
		"no id":         {[]*writv1.GuardRequest{open(0)}, lease.ReasonInvalid, "id"},
		"an id twice":   {[]*writv1.GuardRequest{open(1), open(1)}, lease.ReasonInvalid, "id"},
		"nothing asked": {[]*writv1.GuardRequest{{Id: 1, Guard: "g1", Session: "s1"}}, lease.ReasonInvalid, "ask"},
		"acks first":    {[]*writv1.GuardRequest{edit(acksOf("a"), func(r *writv1.GuardRequest) { r.Id, r.Guard, r.Session = 1, "g1", "s1" })}, lease.ReasonInvalid, "ask"},
		"another guard": {[]*writv1.GuardRequest{open(1), edit(open(2), func(r *writv1.GuardRequest) { r.Guard = "g2" })}, lease.ReasonInvalid, "guard"},
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := pair(t, nil)
			a.quorum.onGuard = func(ctx context.Context, _ lease.GuardCall) (*writv1.GuardResponse, error) {
				<-ctx.Done() // it ends with the stream
				return nil, lease.ErrNoQuorum
			}
			g := a.dial(guardApp).guard(t)
			for _, req := range c.asks {
				g.send(req)
			}
			var e *lease.Error
			if err := lease.FromError(g.ends()); !errors.As(err, &e) || e.Reason != c.want || e.Field != c.field || e.Fix == "" {
				t.Errorf("got %v, want %s of %q", err, c.want, c.field)
			}
		})
	}
}

// A guard that asks much at a time is slowed down: so many are carried at a time, and all of them answered.
func TestGuardAsksAreBounded(t *testing.T) {
	const asks = 3 * maxGuardAsks
	a, b := pair(t, nil)
	var running atomic.Int32
	release := make(chan struct{})
	a.quorum.onGuard = func(_ context.Context, cmd lease.GuardCall) (*writv1.GuardResponse, error) {
		if cmd.Request.GetAcks() != nil {
			if now := running.Add(1); now > maxGuardAsks {
				t.Errorf("%d asks are carried at a time", now)
			}
			defer running.Add(-1)
			<-release
		}
		return guardAnswer(cmd.Request), nil
	}
	g := b.dial(guardApp).guard(t)
	g.want(1, contactOf("a"), "contacted")
	for id := range uint64(asks) {
		g.ask(id+2, acksOf("a"))
	}
	eventually(t, "as many are carried as may be", func() bool { return running.Load() == maxGuardAsks })
	<-time.After(50 * time.Millisecond) // in which more would be
	close(release)
	answered := make(map[uint64]bool)
	for len(answered) < asks {
		m, err := g.next()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetNoted() == nil || answered[m.GetId()] {
			t.Errorf("got %v", m)
		}
		answered[m.GetId()] = true
	}
}

// An ask that is refused is answered, and the stream goes on.
func TestGuardAskIsRefused(t *testing.T) {
	a, b := pair(t, nil)
	a.quorum.onGuard = func(_ context.Context, cmd lease.GuardCall) (*writv1.GuardResponse, error) {
		switch {
		case cmd.Request.GetLeave() != nil:
			return nil, lease.Errorf(lease.ReasonConflict, "another process has that name")
		case cmd.Request.GetAcks() != nil:
			return &writv1.GuardResponse{Say: &writv1.GuardResponse_Hurry{}}, nil
		}
		return guardAnswer(cmd.Request), nil
	}
	g := b.dial(guardApp).guard(t)
	for name, c := range map[string]struct {
		req   *writv1.GuardRequest
		field string
	}{
		"no cover":          {enrolOf(nil), "enrol.covers"},
		"no name":           {enrolOf([]string{"a//b"}), "enrol.covers"},
		"no prefix":         {enrolOf([]string{"a\x00*"}), "enrol.covers"},
		"no stamp":          {enrolOf([]string{"a"}, ""), "enrol.stamps"},
		"no store":          {&writv1.GuardRequest{Ask: &writv1.GuardRequest_Enrol{Enrol: &writv1.GuardEnrol{Covers: []string{"a"}}}}, "enrol.store"},
		"too many covers":   {contactOf(slices.Repeat([]string{"a"}, 257)...), "contact.covers"},
		"contact, no cover": {contactOf(), "contact.covers"},
	} {
		g.ask(7, c.req)
		var e *lease.Error
		if err := lease.FromError(guardError(g.answer(7))); !errors.As(err, &e) || e.Reason != lease.ReasonInvalid || e.Field != c.field || e.Fix == "" {
			t.Errorf("%s: %v, want INVALID of %s", name, err, c.field)
		}
	}
	g.name = strings.Repeat("g", 65)
	g.want(8, enrolOf([]string{"a"}), "INVALID")
	g.name = "g\n"
	g.want(8, enrolOf([]string{"a"}), "INVALID")
	g.name = "g1"
	if got := b.metric("writ_server_guard_sessions", ""); got != 0 {
		t.Errorf("%v sessions are open", got)
	}
	g.want(9, contactOf("a"), "contacted")
	g.want(10, contactOf("a", "b"), "INVALID")
	g.want(11, leaveOf(), "CONFLICT")
	g.want(12, acksOf("a"), "INTERNAL")
	g.want(13, contactOf(), "contacted")
	if got := b.metric("writ_server_guard_sessions", ""); got != 1 {
		t.Errorf("%v sessions are open", got)
	}
}

// revocable is a policy that changes.
type revocable struct{ now atomic.Pointer[policy.Policy] }

func (r *revocable) Allows(p lease.Principal, v policy.Verb, name string) bool {
	return r.now.Load().Allows(p, v, name)
}

func guardPolicy(t *testing.T, text string) *revocable {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r := &revocable{}
	r.now.Store(p)
	return r
}

const mayGuard = `grants: [{principals: ["` + guardApp + `"], prefix: "db/", verbs: [guard]}]`

func TestGuardNeedsTheRight(t *testing.T) {
	rights := guardPolicy(t, mayGuard)
	a, _ := pair(t, func(c *Config) { c.Policy = rights })
	c := a.dial(guardApp)
	for name, req := range map[string]*writv1.GuardRequest{
		"prefix above":      enrolOf([]string{"db/1", "db*"}),
		"everything":        enrolOf([]string{"*"}),
		"another name":      contactOf("db/1", "web"),
		"a stamp elsewhere": enrolOf([]string{"db/1"}, "web"),
	} {
		g := c.guard(t)
		g.want(1, req, "DENIED")
		wantReason(t, g.ends(), lease.ReasonDenied, "guard")
		if len(g.keys) != 0 {
			t.Errorf("%s: was told the keys", name)
		}
	}
	g := c.guard(t)
	g.want(1, enrolOf([]string{"db/*"}), "enrolled")
	g.want(2, acksOf("db/1", "web"), "DENIED")
	wantReason(t, g.ends(), lease.ReasonDenied, `"web"`)

	// One that loses its right is told nothing more from its next ask on, whatever it asks.
	for name, req := range map[string]*writv1.GuardRequest{
		"contact": contactOf(), "acks": acksOf(), "leave": leaveOf(), "enrol": enrolOf([]string{"db/*"}),
	} {
		rights.now.Store(guardPolicy(t, mayGuard).now.Load())
		g := c.guard(t)
		g.want(1, contactOf("db/*"), "contacted")
		rights.now.Store(policy.DenyAll())
		g.want(2, req, "DENIED")
		if reason := lease.ReasonOf(g.ends()); reason != lease.ReasonDenied {
			t.Errorf("%s: ended with %s", name, reason)
		}
	}
	if got := a.metric("writ_server_refused_total", "policy"); got != 9 {
		t.Errorf("%v refusals are counted", got)
	}
}

// The coordinator believes the node about who asks, and about nothing else.
func TestCoordinatorAuthorisesGuardsAgain(t *testing.T) {
	ca := newAuthority(t)
	rights := guardPolicy(t, mayGuard)
	a, b := start(t, ca, newFake("a"), func(c *Config) { c.Policy = rights }), start(t, ca, newFake("b"), nil)
	for _, n := range []*node{a, b} {
		n.quorum.setNodes(a.info, b.info)
		n.quorum.setCoordinator(a.info)
	}
	g := b.dial(guardApp).guard(t)
	g.want(1, enrolOf([]string{"web"}), "DENIED") // and may ask again: the file of the coordinator may be a moment behind
	g = b.dial(guardApp).guard(t)
	g.want(1, enrolOf([]string{"db/*"}), "enrolled")

	req := enrolOf([]string{"db/*"})
	req.Id, req.Guard, req.Session = 1, "g1", "s1"
	named := metadata.AppendToOutgoingContext(testContext(t), keyForwarded, guardApp)
	peers := b.dial(nodePrefix + "b").peers
	_ = peers
	toA := a.dial(nodePrefix + "b").peers
	if _, err := toA.Guard(named, &writv1.GuardCallRequest{Principal: guardApp, Request: req}); err != nil {
		t.Errorf("a node is refused: %v", err)
	}
	_, err := toA.Guard(named, &writv1.GuardCallRequest{Principal: app, Request: req})
	wantReason(t, err, lease.ReasonDenied)
	_, err = toA.Guard(testContext(t), &writv1.GuardCallRequest{Principal: nodePrefix + "b", Request: req})
	wantReason(t, err, lease.ReasonDenied, "for nodes")
	_, err = a.dial(guardApp).peers.Guard(named, &writv1.GuardCallRequest{Principal: guardApp, Request: req})
	wantReason(t, err, lease.ReasonDenied, "not a node")
	_, err = toA.Guard(named, &writv1.GuardCallRequest{Principal: guardApp})
	wantInvalid(t, err, "request")
	req.Guard = strings.Repeat("g", 65)
	_, err = toA.Guard(named, &writv1.GuardCallRequest{Principal: guardApp, Request: req})
	wantInvalid(t, err, "guard")
	// Two nodes that believe it of each other do not pass it on.
	a.quorum.setCoordinator(b.info)
	req.Guard = "g1"
	_, err = toA.Guard(named, &writv1.GuardCallRequest{Principal: guardApp, Request: req})
	wantReason(t, err, lease.ReasonNotCoordinator)
}

// A guard is told to hurry when another node decides, and what it has asked is answered by that one.
func TestGuardFollowsTheCoordinator(t *testing.T) {
	a, b := pair(t, nil)
	taken := make(chan struct{}, 10)
	a.quorum.onGuard = func(ctx context.Context, cmd lease.GuardCall) (*writv1.GuardResponse, error) {
		if cmd.Request.GetId() == 1 {
			return guardAnswer(cmd.Request), nil
		}
		taken <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	g := b.dial(guardApp).guard(t)
	g.want(1, enrolOf([]string{"a"}), "enrolled")
	g.ask(2, contactOf())
	<-taken
	if g.hurry != 0 {
		t.Errorf("told to hurry %d times", g.hurry)
	}
	b.quorum.setCoordinator(quorum.Node{})
	eventually(t, "nobody decides", func() bool { return b.server.tracker.current().node.Name == "" })
	b.quorum.setCoordinator(b.info)
	if got := tellGuard(g.answer(2)); got != "contacted" {
		t.Errorf("answered with %s", got)
	}
	g.until("it is told to hurry", func() bool { return g.hurry == 1 })
	b.quorum.setCoordinator(a.info)
	g.until("it is told to hurry again", func() bool { return g.hurry == 2 })
}

func TestGuardWithoutCoordinator(t *testing.T) {
	_, b := pair(t, func(c *Config) { c.Forward.Patience = 30 * time.Millisecond })
	g := b.dial(guardApp).guard(t)
	g.want(1, contactOf("a"), "contacted")
	b.quorum.setCoordinator(quorum.Node{})
	eventually(t, "nobody decides", func() bool { return b.server.tracker.current().node.Name == "" })
	g.want(2, contactOf(), "NO_QUORUM")
	b.quorum.setCoordinator(b.info)
	g.until("it is told to hurry", func() bool { return g.hurry == 1 })
	g.want(3, contactOf(), "contacted")
}

func TestGuardIsToldOfKeys(t *testing.T) {
	a, _ := pair(t, nil)
	g := a.dial(guardApp).guard(t)
	g.want(1, contactOf("a"), "contacted")
	if len(g.keys) != 0 {
		t.Errorf("told %q although no key is known", g.keys)
	}
	for i := range 2 {
		a.quorum.setNodes(append(a.quorum.Nodes(), newFake("c").nodes...)...)
		g.until("new keys are told", func() bool { return len(g.keys) == i+1 })
		if set, err := fence.ParseJWKS([]byte(g.keys[i])); err != nil || set.Len() != i+1 {
			t.Errorf("told %q: %v", g.keys, err)
		}
	}
	a.quorum.setNodes() // as if it had forgotten
	a.quorum.setCoordinator(a.info)
	g.want(2, contactOf(), "contacted")
	if len(g.keys) != 2 {
		t.Errorf("told %q", g.keys)
	}
}

// Floors of everything that is held can be many: they come in parts that a guard takes in.
func TestGuardSeedComesInParts(t *testing.T) {
	const floors = 20_001 // which do not fit into what anybody else may send
	a, b := pair(t, nil)
	name := func(i int) string { return fmt.Sprintf("db/%0240d", i) }
	var all []*writv1.GuardFloor
	for i := range floors {
		all = append(all, &writv1.GuardFloor{Resource: name(i), Token: uint64(token(uint64(i + 1)))})
	}
	a.quorum.onGuard = func(_ context.Context, cmd lease.GuardCall) (*writv1.GuardResponse, error) {
		resp := guardAnswer(cmd.Request)
		if enrolled := resp.GetEnrolled(); enrolled != nil {
			enrolled.Floors = all
		} else {
			resp.GetContacted().Raises = all[:2_500]
		}
		return resp, nil
	}
	g := b.dial(guardApp).guard(t)
	g.ask(1, enrolOf([]string{"db/*"}))
	seen, parts := 0, 0
	for more := true; more; parts++ {
		m, err := g.next()
		if err != nil {
			t.Fatal(err)
		}
		part := m.GetEnrolled()
		if part == nil {
			t.Fatalf("got %v", m)
		}
		for _, f := range part.GetFloors() {
			if f.GetResource() != name(seen) || f.GetToken() != uint64(token(uint64(seen+1))) {
				t.Fatalf("floor %d is %v", seen, f)
			}
			seen++
		}
		more = part.GetMore()
		if m.GetId() != 1 || len(part.GetFloors()) > maxFloorsPerPart || part.GetLease() == nil || part.GetBase() == 0 || part.GetIssuer() == "" || (part.GetRules() == nil) != more {
			t.Errorf("part %d: id %d, %d floors, lease %v, rules %v", parts, m.GetId(), len(part.GetFloors()), part.GetLease(), part.GetRules())
		}
		if size := proto.Size(m); size > 1<<20 {
			t.Errorf("part %d has %d bytes", parts, size)
		}
	}
	if seen != floors || parts != floors/maxFloorsPerPart+1 {
		t.Errorf("%d floors in %d parts", seen, parts)
	}
	g.ask(2, contactOf())
	contacted := g.answer(2).GetContacted()
	if len(g.floors) != 2_000 || len(contacted.GetRaises()) != 500 || contacted.GetLease() == nil {
		t.Errorf("%d raises came before the answer, and %d with it", len(g.floors), len(contacted.GetRaises()))
	}
}

// A watch that breaks off goes on where it was; when history begins anew, what is not in it is free.
func TestGuardWatchGoesOn(t *testing.T) {
	a, _ := pair(t, nil)
	f := newFeed(a.quorum, heldInfo("db/1", 7, "eu"), heldInfo("db/2", 8, "eu"))
	g := a.dial(guardApp).guard(t)
	g.want(1, enrolOf([]string{"db/*"}, "db/*"), "enrolled")
	g.until("the state is told", func() bool { return len(g.grants) == 2 && len(g.floors) == 2 })
	fail := func(err error) (resume string) {
		before := f.all()[0]
		before.fail <- err
		eventually(t, "it watches again", func() bool { w := f.all(); return len(w) == 1 && w[0] != before })
		return f.all()[0].resume
	}
	if resume := fail(lease.Errorf(lease.ReasonNoQuorum, "lost")); resume != "synced" {
		t.Errorf("resumed at %q", resume)
	}
	f.put(heldInfo("db/3", 9, "us"))
	g.until("a change is told", func() bool { return g.grants["db/3"] == "1.9 us" })
	if resume := fail(lease.Invalid("resume_token", "is not one of this service", "")); resume != "" {
		t.Errorf("resumed at %q", resume)
	}

	later, err := fence.NewToken(2, 1)
	if err != nil {
		t.Fatal(err)
	}
	again := heldInfo("db/3", 9, "us")
	again.Token = later
	f.resync(again, freeInfo("db/2", 8))
	g.until("the new state is told", func() bool {
		return g.grants["db/1"] == "0.0 " && g.grants["db/2"] == "0.0 " && g.grants["db/3"] == "2.1 us" && g.floors["db/3"] == uint64(later)
	})
	f.send(quorum.WatchEvent{Kind: quorum.WatchRemoved, Lease: lease.Info{Resource: "db/3"}, Resume: "r"})
	g.until("a removal is told", func() bool { return g.grants["db/3"] == "0.0 " })
	told := g.raises
	f.put(again) // and it is forgotten what was told of it
	g.until("its floor is told again", func() bool { return g.raises == told+1 })
	if got := a.metric("writ_server_guard_sessions", ""); got != 1 {
		t.Errorf("%v sessions", got)
	}
}

// What belongs to a session ends with it, however it ends.
func TestBrokenGuardStreamLeavesNothing(t *testing.T) {
	a, _ := pair(t, nil)
	f := newFeed(a.quorum)
	taken := make(chan struct{})
	a.quorum.onGuard = func(ctx context.Context, cmd lease.GuardCall) (*writv1.GuardResponse, error) {
		if cmd.Request.GetAcks() != nil {
			taken <- struct{}{}
			<-ctx.Done()
		}
		return guardAnswer(cmd.Request), nil
	}
	c := a.dial(guardApp)
	g := c.guard(t)
	req := contactOf("a", "b/*")
	req.GetContact().Alarms = []*writv1.GuardAlarm{{Resource: "a", Token: uint64(token(3)), Floor: uint64(token(4))}}
	g.want(1, req, "contacted")
	eventually(t, "it watches", func() bool { return len(f.all()) == 2 })
	if a.metric("writ_server_guard_sessions", "") != 1 || a.metric("writ_server_guard_alarms", "") != 1 {
		t.Errorf("%v sessions, %v alarms", a.metric("writ_server_guard_sessions", ""), a.metric("writ_server_guard_alarms", ""))
	}
	req = contactOf()
	req.GetContact().Alarms = []*writv1.GuardAlarm{{Resource: "a", Token: uint64(token(3)), Floor: uint64(token(4))}, {Resource: "b/x", Token: 1, Floor: 2}}
	g.want(2, req, "contacted")
	if got := a.metric("writ_server_guard_alarms", ""); got != 2 {
		t.Errorf("%v alarms", got)
	}
	if log := a.log.String(); strings.Count(log, "below its floor") != 2 || !strings.Contains(log, "token=1.3 floor=1.4") {
		t.Errorf("the log says: %s", log)
	}
	g.ask(3, acksOf("a"))
	<-taken
	if err := c.conn.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is left", func() bool {
		return a.metric("writ_server_guard_sessions", "") == 0 && a.metric("writ_server_guard_alarms", "") == 0 &&
			len(f.all()) == 0 && a.server.chain.limiter.running.Load() == 0
	})
}

func TestLimitsCountAsksOfGuards(t *testing.T) {
	a, _ := pair(t, func(c *Config) { c.Limits = Limits{RatePerSecond: 0.001, Burst: 3} }) // of which the stream takes one
	g := a.dial(guardApp).guard(t)
	g.want(1, contactOf("a"), "contacted")
	g.want(2, contactOf(), "contacted")
	g.want(3, contactOf(), "LIMIT")
	wantReason(t, a.dial(guardApp).guard(t).ends(), lease.ReasonLimit)
}

func TestDrainingEndsGuardSessions(t *testing.T) {
	a, _ := pair(t, nil)
	began, release := make(chan struct{}), make(chan struct{})
	a.quorum.onGuard = func(_ context.Context, cmd lease.GuardCall) (*writv1.GuardResponse, error) {
		if cmd.Request.GetAcks() != nil {
			close(began)
			<-release
		}
		return guardAnswer(cmd.Request), nil
	}
	idle := a.dial(guardApp).guard(t)
	idle.want(1, contactOf("a"), "contacted")
	g := a.dial(guardApp).guard(t)
	g.want(1, contactOf("a"), "contacted")
	g.ask(2, acksOf("a"))
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- a.server.GracefulStop(testContext(t)) }()
	wantReason(t, idle.ends(), lease.ReasonNoQuorum, "shutting down", "another node")
	eventually(t, "the other one is ending too", func() bool {
		for _, s := range a.server.guards.all() {
			s.mu.Lock()
			ending := s.ending
			s.mu.Unlock()
			if !ending {
				return false
			}
		}
		return true
	})
	g.want(3, contactOf(), "NOT_COORDINATOR")
	close(release)
	if got := tellGuard(g.answer(2)); got != "noted" {
		t.Errorf("answered with %s", got)
	}
	wantReason(t, g.ends(), lease.ReasonNoQuorum, "shutting down")
	if err := <-stopped; err != nil {
		t.Errorf("GracefulStop: %v", err)
	}
}

// A panic costs what it was about, and nobody else anything.
func TestPanicCostsOneAskOfAGuard(t *testing.T) {
	a, _ := pair(t, func(c *Config) { c.Policy = panicsAt("secret/check") })
	a.quorum.onGuard = func(_ context.Context, cmd lease.GuardCall) (*writv1.GuardResponse, error) {
		if cmd.Request.GetLeave() != nil {
			panic("boom")
		}
		return guardAnswer(cmd.Request), nil
	}
	a.quorum.onWatch = func(ctx context.Context, prefix, _ string, _ func(quorum.WatchEvent) error) error {
		if prefix == "watch" {
			panic("boom")
		}
		<-ctx.Done()
		return ctx.Err()
	}
	c := a.dial(guardApp)
	g := c.guard(t)
	g.want(1, contactOf("secret/check"), "INTERNAL")
	g.want(2, contactOf("a"), "contacted")
	g.want(3, leaveOf(), "INTERNAL")
	g.want(4, contactOf(), "contacted")
	other := c.guard(t)
	other.want(1, contactOf("watch"), "contacted")
	wantReason(t, other.ends(), lease.ReasonInternal)
	g.want(5, contactOf(), "contacted")
	if log := a.log.String(); strings.Count(log, "boom") != 3 {
		t.Errorf("the log lacks the panics: %s", log)
	}
}

// The watch of a name that another one begins with says nothing of the other, which has a watch of its own: together they
// could go back.
func TestGuardWatchesKeepToTheirNames(t *testing.T) {
	a, _ := pair(t, nil)
	f := newFeed(a.quorum, heldInfo("ab", 7, "eu"))
	g := a.dial(guardApp).guard(t)
	g.want(1, enrolOf([]string{"a", "ab"}, "a", "ab"), "enrolled")
	g.until("the state is told", func() bool { return g.grants["ab"] == "1.7 eu" && g.grants["a"] != "" })
	for _, w := range f.all() {
		if w.prefix == "a" { // it is behind
			w.events <- quorum.WatchEvent{Kind: quorum.WatchChanged, Lease: heldInfo("ab", 6, "us"), Resume: "r"}
			w.events <- quorum.WatchEvent{Kind: quorum.WatchRemoved, Lease: lease.Info{Resource: "ab"}, Resume: "r"}
		}
	}
	f.put(heldInfo("a", 9, "eu"))
	g.until("a is told", func() bool { return g.grants["a"] == "1.9 eu" })
	if g.grants["ab"] != "1.7 eu" {
		t.Errorf("ab is told to be %s", g.grants["ab"])
	}
}

// Whoever acquires a guarded resource gets a writ, asked for or not.
func TestGuardedGrantIsSigned(t *testing.T) {
	a, _ := pair(t, nil)
	a.quorum.onAcquire = func(_ context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		outcome := grantOf(cmd)
		outcome.Grant.Guarded = cmd.Resource == "guarded"
		return outcome, nil
	}
	c := a.dial(app)
	for name, want := range map[string]bool{"guarded": true, "other": false} {
		resp, err := c.leases.Acquire(testContext(t), acquireRequest(name))
		if err != nil || (resp.GetGrant().GetWrit() != "") != want {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
}
