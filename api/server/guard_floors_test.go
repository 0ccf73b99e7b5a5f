package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

func kept(name string, sequence uint64) *writv1.GuardKeptFloor {
	return &writv1.GuardKeptFloor{Resource: name, Token: uint64(token(sequence))}
}

// pageOf answers an ask from floors that are in order, as a guard does.
func pageOf(floors []*writv1.GuardKeptFloor, ask *writv1.GuardFloorsAsk) *writv1.GuardFloorsPage {
	page := &writv1.GuardFloorsPage{Base: uint64(token(1))}
	for _, f := range floors {
		switch {
		case f.GetResource() <= ask.GetAfter() || !strings.HasPrefix(f.GetResource(), ask.GetPrefix()):
		case len(page.Floors) == int(ask.GetLimit()):
			page.Next = page.Floors[len(page.Floors)-1].GetResource()
			return page
		default:
			page.Floors = append(page.Floors, f)
		}
	}
	return page
}

// tellsFloors enrols a guard that answers what it is asked for its floors with answer; nil is no answer.
func (n *node) tellsFloors(t *testing.T, guards *sync.WaitGroup, name string, answer func(*writv1.GuardFloorsAsk) *writv1.GuardFloorsPage) *client {
	t.Helper()
	c := n.dial(guardApp)
	g := c.guard(t)
	g.name = name
	enrol := enrolOf([]string{"*"})
	enrol.GetEnrol().TellsFloors = true
	g.want(1, enrol, "enrolled")
	guards.Go(func() {
		for {
			m, err := g.next()
			if err != nil {
				return
			}
			if m.GetFloors() == nil {
				continue
			}
			if page := answer(m.GetFloors()); page != nil {
				req := &writv1.GuardRequest{Id: m.GetId(), Guard: g.name, Session: g.run, Ask: &writv1.GuardRequest_Floors{Floors: page}}
				if g.stream.Send(req) != nil {
					return
				}
			}
		}
	})
	return c
}

// brief tells an answer in one line.
func brief(resp *writv1.GetGuardResponse) string {
	reach := strings.ToLower(strings.TrimPrefix(resp.GetReach().String(), "GUARD_REACH_"))
	line := reach + " " + resp.GetNode() + " " + resp.GetGuard().GetName()
	for _, f := range resp.GetFloors() {
		standing := strings.ToLower(strings.TrimPrefix(f.GetStanding().String(), "GUARD_FLOOR_STANDING_"))
		line += fmt.Sprintf(", %s %s %s %s", f.GetFloor().GetResource(), tokenText(f.GetFloor().GetToken()), tokenText(f.GetKnown()), standing)
	}
	return line
}

func floorsPair(t *testing.T) (a, b *node, guards *sync.WaitGroup) {
	t.Helper()
	a, b = pair(t, nil)
	for _, n := range []*node{a, b} {
		n.quorum.onGet = func(quorum.GetQuery) (lease.Info, error) { return lease.Info{}, lease.ErrNotFound }
	}
	guards = &sync.WaitGroup{}
	t.Cleanup(func() {
		a.server.Stop()
		b.server.Stop()
		guards.Wait()
	})
	return a, b, guards
}

// Any node can be asked, and pages together are all that the guard keeps.
func TestGetGuardFromAnyNode(t *testing.T) {
	a, b, guards := floorsPair(t)
	var floors []*writv1.GuardKeptFloor
	for i := range 2300 {
		floors = append(floors, kept(fmt.Sprintf("db/%04d", i), uint64(i+1)))
	}
	floors = append(floors, kept("web", 9))
	floors[7].InFlight, floors[7].Waiting, floors[7].Draining = 3, 2, true
	b.tellsFloors(t, guards, "g1", func(ask *writv1.GuardFloorsAsk) *writv1.GuardFloorsPage { return pageOf(floors, ask) })
	for _, n := range []*node{a, b} {
		for _, c := range []struct {
			req   *writv1.GetGuardRequest
			want  []*writv1.GuardKeptFloor
			pages int
		}{
			{&writv1.GetGuardRequest{Name: "g1"}, floors, 3},
			{&writv1.GetGuardRequest{Name: "g1", Prefix: "db/", PageSize: 500}, floors[:2300], 5},
			{&writv1.GetGuardRequest{Name: "g1", Prefix: "db/229"}, floors[2290:2300], 1},
			{&writv1.GetGuardRequest{Name: "g1", Prefix: "nothing"}, nil, 1},
		} {
			var got []*writv1.GuardKeptFloor
			pages := 0
			for req := c.req; pages == 0 || req.GetPageToken() != ""; pages++ {
				resp, err := n.dial(app).fences.GetGuard(testContext(t), req)
				if err != nil || resp.GetReach() != writv1.GuardReach_GUARD_REACH_ANSWERED || resp.GetNode() != "b" || resp.GetDetail() != "" ||
					resp.GetBase() != uint64(token(1)) || (resp.GetGuard().GetName() == "g1") != (pages == 0) {
					t.Fatalf("%v at %s: %v, %v", req, n.info.Name, resp, err)
				}
				for _, f := range resp.GetFloors() {
					got = append(got, f.GetFloor())
				}
				req = proto.CloneOf(req)
				req.PageToken = resp.GetNextPageToken()
				c.req = req
			}
			same := slices.EqualFunc(got, c.want, func(x, y *writv1.GuardKeptFloor) bool { return proto.Equal(x, y) })
			if !same || pages != c.pages {
				t.Errorf("%v at %s: %d floors in %d pages, want %d in %d", c.req, n.info.Name, len(got), pages, len(c.want), c.pages)
			}
		}
	}
}

// What the quorum knows is put beside each floor. A floor that looks as if it were behind is asked for again: it may have been
// lifted before the grant was seen.
func TestGetGuardJudgesFloors(t *testing.T) {
	a, _, guards := floorsPair(t)
	asked := 0
	var mu sync.Mutex
	a.tellsFloors(t, guards, "g1", func(ask *writv1.GuardFloorsAsk) *writv1.GuardFloorsPage {
		mu.Lock()
		defer mu.Unlock()
		asked++
		lifted := uint64(3)
		if asked > 1 {
			lifted = 8
		}
		base := kept("base", 99)
		base.Base = true
		return pageOf([]*writv1.GuardKeptFloor{
			kept("ahead", 12), base, kept("behind", 5), kept("lifted", lifted), kept("new", 4), kept("raising", 5), kept("same", 7),
		}, ask)
	})
	var levels []quorum.Consistency
	a.quorum.onGet = func(query quorum.GetQuery) (lease.Info, error) {
		mu.Lock()
		defer mu.Unlock()
		levels = append(levels, query.Consistency)
		switch r := query.Resource; r {
		case "ahead", "base", "same":
			return heldInfo(string(r), 7, "eu"), nil
		case "behind":
			return freeInfo("behind", 6), nil
		case "lifted":
			return heldInfo("lifted", 6, "eu"), nil
		case "raising":
			return fencingInfo("raising", 5, 6), nil
		}
		return lease.Info{}, lease.ErrNotFound
	}
	get := func(want string) *writv1.GetGuardResponse {
		t.Helper()
		resp, err := a.dial(app).fences.GetGuard(testContext(t), &writv1.GetGuardRequest{Name: "g1"})
		if got := brief(resp); err != nil || got != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
		return resp
	}
	get("answered a g1, ahead 1.12 1.7 ahead, base 1.99 1.7 same, behind 1.5 1.6 behind, lifted 1.8 1.6 same, new 1.4 0.0 unspecified, " +
		"raising 1.5 1.6 raising, same 1.7 1.7 same")
	if asked != 2 || len(levels) != 7 || levels[0] != quorum.Linearizable || slices.Contains(levels[1:], quorum.Linearizable) {
		t.Errorf("asked %d times, and read at %v", asked, levels)
	}
	// Without a majority nothing can be compared, and what the guard says is told all the same.
	a.quorum.onGet = func(quorum.GetQuery) (lease.Info, error) {
		return lease.Info{}, lease.Errorf(lease.ReasonNoQuorum, "no majority")
	}
	resp := get("answered a g1, ahead 1.12 0.0 unspecified, base 1.99 0.0 unspecified, behind 1.5 0.0 unspecified, lifted 1.8 0.0 unspecified, " +
		"new 1.4 0.0 unspecified, raising 1.5 0.0 unspecified, same 1.7 0.0 unspecified")
	if !strings.Contains(resp.GetDetail(), "not compared") || !strings.Contains(resp.GetDetail(), "no majority") {
		t.Errorf("told %q", resp.GetDetail())
	}
}

// A guard that does not answer is told to be what it is. What the quorum knows of it is not told as though it were its word.
func TestGetGuardThatDoesNotAnswer(t *testing.T) {
	a, b, guards := floorsPair(t)
	// Who asks a node for a guard waits for longer than that node does for the guard.
	a.server.guards.probing, b.server.guards.probing = time.Minute, 2*time.Second
	get := func(n *node, want, detail string) {
		t.Helper()
		resp, err := n.dial(app).fences.GetGuard(testContext(t), &writv1.GetGuardRequest{Name: "g1"})
		if got := brief(resp); err != nil || got != want || !strings.Contains(resp.GetDetail(), detail) || (resp.GetBase() != 0) != strings.HasPrefix(want, "answered") {
			t.Errorf("got %s, %v, %q; want %s, %s", got, err, resp.GetDetail(), want, detail)
		}
	}
	get(a, "not_connected  g1", "no node that could be asked has a session")
	_, err := a.dial(app).fences.GetGuard(testContext(t), &writv1.GetGuardRequest{Name: "g2"})
	wantReason(t, err, lease.ReasonNotFound, "g2")

	old := b.dial(guardApp)
	g := old.guard(t)
	g.want(1, enrolOf([]string{"*"}), "enrolled")
	get(a, "too_old b g1", "install a newer writ-guard")
	get(b, "too_old b g1", "install a newer writ-guard")
	_ = old.conn.Close()

	silent := b.tellsFloors(t, guards, "g1", func(*writv1.GuardFloorsAsk) *writv1.GuardFloorsPage { return nil })
	get(a, "silent b g1", "did not answer within")
	get(b, "silent b g1", "did not answer within 2s")
	// An older session that hangs does not hide the one that answers.
	answering := a.tellsFloors(t, guards, "g1", func(ask *writv1.GuardFloorsAsk) *writv1.GuardFloorsPage {
		return pageOf([]*writv1.GuardKeptFloor{kept("x", 3)}, ask)
	})
	get(a, "answered a g1, x 1.3 0.0 unspecified", "")
	get(b, "answered a g1, x 1.3 0.0 unspecified", "")
	_, _ = silent.conn.Close(), answering.conn.Close()
	eventually(t, "they are gone", func() bool { return len(a.server.guards.all())+len(b.server.guards.all()) == 0 })

	b.tellsFloors(t, guards, "g1", func(ask *writv1.GuardFloorsAsk) *writv1.GuardFloorsPage {
		return &writv1.GuardFloorsPage{Floors: []*writv1.GuardKeptFloor{kept("b", 3), kept("a", 3)}}
	})
	get(a, "silent b g1", "makes no sense")
	b.server.Stop()
	resp, err := a.dial(app).fences.GetGuard(testContext(t), &writv1.GetGuardRequest{Name: "g1"})
	if err != nil || brief(resp) != "not_connected  g1" || !slices.Equal(resp.GetSilentNodes(), []string{"b"}) || !strings.Contains(resp.GetDetail(), "node b could not be asked") {
		t.Errorf("with a node that is gone: %v, %v", resp, err)
	}
}

// A guard that leaves, and a node that dies, while they are asked.
func TestGetGuardThatLeavesMeanwhile(t *testing.T) {
	a, b, guards := floorsPair(t)
	var leaver *client
	leaver = b.tellsFloors(t, guards, "g1", func(*writv1.GuardFloorsAsk) *writv1.GuardFloorsPage {
		_ = leaver.conn.Close()
		return nil
	})
	resp, err := a.dial(app).fences.GetGuard(testContext(t), &writv1.GetGuardRequest{Name: "g1"})
	if err != nil || resp.GetReach() != writv1.GuardReach_GUARD_REACH_NOT_CONNECTED || len(resp.GetFloors()) > 0 {
		t.Errorf("a guard that leaves: %v, %v", resp, err)
	}
	asked := make(chan struct{})
	b.tellsFloors(t, guards, "g1", func(*writv1.GuardFloorsAsk) *writv1.GuardFloorsPage {
		close(asked)
		return nil
	})
	guards.Go(func() {
		<-asked
		b.server.Stop()
	})
	began := time.Now()
	resp, err = a.dial(app).fences.GetGuard(testContext(t), &writv1.GetGuardRequest{Name: "g1"})
	if err != nil || resp.GetReach() != writv1.GuardReach_GUARD_REACH_NOT_CONNECTED {
		t.Errorf("a node that dies: %v, %v", resp, err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %v to notice", took)
	}
}

// Without a coordinator the guard's own word is told, and what is missing is named.
func TestGetGuardWithoutCoordinator(t *testing.T) {
	a, b, guards := floorsPair(t)
	a.tellsFloors(t, guards, "g1", func(ask *writv1.GuardFloorsAsk) *writv1.GuardFloorsPage {
		return pageOf([]*writv1.GuardKeptFloor{kept("x", 3)}, ask)
	})
	for _, n := range []*node{a, b} {
		n.quorum.setCoordinator(quorum.Node{})
		eventually(t, "nobody decides", func() bool { return n.server.tracker.current().node.Name == "" })
	}
	resp, err := b.dial(app).fences.GetGuard(testContext(t), &writv1.GetGuardRequest{Name: "g1"})
	if err != nil || brief(resp) != "answered a , x 1.3 0.0 unspecified" || !strings.Contains(resp.GetDetail(), "the coordinator does not say") {
		t.Errorf("got %v, %v", resp, err)
	}
	_, err = b.dial(app).fences.GetGuard(testContext(t), &writv1.GetGuardRequest{Name: "g2"})
	wantReason(t, err, lease.ReasonNoQuorum)
}

// forwardedFor says whom a node asks for.
func forwardedFor(ctx context.Context, principal string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, keyForwarded, principal)
}

func TestGetGuardRefusesNonsense(t *testing.T) {
	rights := guardPolicy(t, `grants:
- {principals: ["spiffe://test/admin"], prefix: "", verbs: [admin]}
- {principals: ["spiffe://test/reader"], prefix: "", verbs: [read]}
- {principals: ["spiffe://test/db"], prefix: "db/", verbs: [read, acquire, force, guard]}`)
	a, b := pair(t, func(c *Config) { c.Policy = rights })
	ctx := testContext(t)
	admin := b.dial("spiffe://test/admin")
	long := strings.Repeat("n", 513)
	for field, reqs := range map[string][]*writv1.GetGuardRequest{
		"name":       {{}, {Name: long}, {Name: "a\x00b"}},
		"prefix":     {{Name: "g1", Prefix: "/a"}, {Name: "g1", Prefix: "a//"}, {Name: "g1", Prefix: "a/../"}, {Name: "g1", Prefix: "\x01"}, {Name: "g1", Prefix: long}},
		"page_size":  {{Name: "g1", PageSize: -1}, {Name: "g1", PageSize: 1001}},
		"page_token": {{Name: "g1", PageToken: "%"}, {Name: "g1", PageToken: strings.Repeat("A", 1000)}},
	} {
		for _, req := range reqs {
			_, err := admin.fences.GetGuard(ctx, req)
			wantInvalid(t, err, field)
		}
	}
	for _, prefix := range []string{"", "db/", "db/.", "d", long[1:]} {
		if _, err := admin.fences.GetGuard(ctx, &writv1.GetGuardRequest{Name: "g1", Prefix: prefix}); err != nil {
			t.Errorf("prefix %.10q: %v", prefix, err)
		}
	}
	for prefix, allowed := range map[string]string{"": "admin reader", "db/": "admin reader db", "d": "admin reader"} {
		for _, who := range []string{"admin", "reader", "db"} {
			resp, err := b.dial("spiffe://test/"+who).fences.GetGuard(ctx, &writv1.GetGuardRequest{Name: "g1", Prefix: prefix})
			if known := resp.GetGuard() != nil; err == nil && known != (who != "db") {
				t.Errorf("%s is told %v", who, resp)
			}
			if ok := strings.Contains(allowed, who); ok != (err == nil) || !ok && lease.ReasonOf(err) != lease.ReasonDenied {
				t.Errorf("prefix %q by %s: %v", prefix, who, err)
			}
		}
	}
	// Between nodes only, whoever it is.
	peers := writv1.NewPeerServiceClient(admin.conn)
	_, err := peers.GuardFloors(ctx, &writv1.GuardFloorsRequest{Principal: "spiffe://test/admin", Guard: "g1", Ask: &writv1.GuardFloorsAsk{Limit: 1}})
	wantReason(t, err, lease.ReasonDenied)
	node := writv1.NewPeerServiceClient(b.dial(nodePrefix + "a").conn)
	for _, who := range []string{"admin", "db"} {
		_, err := node.GuardFloors(forwardedFor(ctx, "spiffe://test/"+who), &writv1.GuardFloorsRequest{Principal: "spiffe://test/" + who, Guard: "g1", Ask: &writv1.GuardFloorsAsk{Limit: 1}})
		if (err == nil) != (who == "admin") {
			t.Errorf("a node asks for %s: %v", who, err)
		}
	}
	for _, ask := range []*writv1.GuardFloorsAsk{nil, {Limit: 1001}, {Limit: 1, Prefix: "//"}, {Limit: 1, After: long}} {
		_, err := node.GuardFloors(forwardedFor(ctx, "spiffe://test/admin"), &writv1.GuardFloorsRequest{Principal: "spiffe://test/admin", Guard: "g1", Ask: ask})
		wantReason(t, err, lease.ReasonInvalid)
	}
	web := a.web(a.ca.source("spiffe://test/reader"))
	if status, body := a.call(web, http.MethodGet, "/v1/guards/g1?prefix=db/&page_size=5", ""); status != http.StatusOK || !strings.Contains(body, `"reach":"GUARD_REACH_NOT_CONNECTED"`) {
		t.Errorf("over HTTP: %d %s", status, body)
	}
	if status, body := a.call(web, http.MethodGet, "/v1/guards/g1?page_size=-5", ""); status != http.StatusBadRequest || !strings.Contains(body, "page_size") {
		t.Errorf("over HTTP: %d %s", status, body)
	}
}

// Whatever a guard answers, a page that is taken is in order, of what was asked for, and leads on.
func FuzzCheckPage(f *testing.F) {
	seed := func(page *writv1.GuardFloorsPage) []byte {
		raw, err := proto.Marshal(page)
		if err != nil {
			f.Fatal(err)
		}
		return raw
	}
	f.Add(seed(&writv1.GuardFloorsPage{Floors: []*writv1.GuardKeptFloor{kept("db/1", 3), kept("db/2", 4)}, Next: "db/2", Base: 7}), "db/", "db/0", uint32(2))
	f.Add(seed(&writv1.GuardFloorsPage{Floors: []*writv1.GuardKeptFloor{kept("b", 3), kept("a", 4)}}), "", "", uint32(1000))
	f.Add(seed(&writv1.GuardFloorsPage{Next: "a", Base: 1 << 63}), "", "a", uint32(1))
	f.Add(seed(&writv1.GuardFloorsPage{Next: "a"}), "", "b", uint32(1))
	f.Fuzz(func(t *testing.T, raw []byte, prefix, after string, limit uint32) {
		var page writv1.GuardFloorsPage
		ask := &writv1.GuardFloorsAsk{Prefix: prefix, After: after, Limit: limit}
		if proto.Unmarshal(raw, &page) != nil || checkFloorsAsk(ask) != nil || checkPage(ask, &page) != nil {
			return
		}
		last := after
		for _, k := range page.GetFloors() {
			if k.GetResource() <= last || !strings.HasPrefix(k.GetResource(), prefix) || fence.Token(k.GetToken()) < 0 {
				t.Fatalf("%v was taken behind %q", k, last)
			}
			last = k.GetResource()
		}
		next := page.GetNext()
		if len(page.GetFloors()) > int(limit) || next != "" && (next < last || next <= after) || fence.Token(page.GetBase()) < 0 {
			t.Fatalf("taken for %v: %v", ask, &page)
		}
	})
}

// What is asked of a guard that does not read is not kept.
func TestAsksOfAGuardThatDoesNotReadAreDropped(t *testing.T) {
	a, _, guards := floorsPair(t)
	a.server.guards.probing = 5 * time.Millisecond
	a.tellsFloors(t, guards, "g1", func(*writv1.GuardFloorsAsk) *writv1.GuardFloorsPage { return nil })
	for range 2 * maxProbes {
		resp := a.server.guards.floorsHere(context.Background(), "g1", &writv1.GuardFloorsAsk{Limit: 1})
		if resp.GetReach() != writv1.GuardReach_GUARD_REACH_SILENT || !strings.Contains(resp.GetDetail(), "did not answer") {
			t.Fatalf("told %v", resp)
		}
	}
	s := a.server.guards.all()[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) > 0 {
		t.Errorf("%d asks are kept", len(s.asked))
	}
}
