package server

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

const guardApp = "spiffe://test/guard"

// guardEnd is a guard's end of a session. It remembers what it was told.
type guardEnd struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[writv1.GuardRequest, writv1.GuardResponse]
	name   string
	run    string
	floors map[string]uint64
	grants map[string]string // token and region
	raises int               // floors that were told
	keys   []string
	hurry  int
}

func (c *client) guard(t *testing.T) *guardEnd {
	t.Helper()
	stream, err := c.fences.Guard(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return &guardEnd{t: t, stream: stream, name: "g1", run: "s1", floors: make(map[string]uint64), grants: make(map[string]string)}
}

// ask sends what is said of g; the test fills in what is asked.
func (g *guardEnd) ask(id uint64, req *writv1.GuardRequest) {
	g.t.Helper()
	req.Id, req.Guard, req.Session = id, g.name, g.run
	g.send(req)
}

func (g *guardEnd) send(req *writv1.GuardRequest) {
	g.t.Helper()
	if err := g.stream.Send(req); err != nil {
		g.t.Fatal(err)
	}
}

func enrolOf(covers []string, stamps ...string) *writv1.GuardRequest {
	return &writv1.GuardRequest{Ask: &writv1.GuardRequest_Enrol{Enrol: &writv1.GuardEnrol{Covers: covers, Stamps: stamps, Store: "st"}}}
}

func contactOf(covers ...string) *writv1.GuardRequest {
	return &writv1.GuardRequest{Ask: &writv1.GuardRequest_Contact{Contact: &writv1.GuardContact{Covers: covers}}}
}

func acksOf(resources ...string) *writv1.GuardRequest {
	acks := &writv1.GuardAcks{}
	for _, r := range resources {
		acks.Acks = append(acks.Acks, &writv1.GuardAck{Resource: r, Token: uint64(token(7)), Proof: writv1.GuardProof_GUARD_PROOF_ACKED})
	}
	return &writv1.GuardRequest{Ask: &writv1.GuardRequest_Acks{Acks: acks}}
}

func leaveOf() *writv1.GuardRequest {
	return &writv1.GuardRequest{Ask: &writv1.GuardRequest_Leave{Leave: &writv1.GuardLeave{}}}
}

// next reads one message.
func (g *guardEnd) next() (*writv1.GuardResponse, error) {
	m, err := g.stream.Recv()
	if err != nil {
		return nil, err
	}
	for _, f := range m.GetRaises().GetRaises() {
		g.floors[f.GetResource()] = f.GetToken()
		g.raises++
	}
	for _, f := range m.GetGrants().GetGrants() {
		g.grants[f.GetResource()] = fence.Token(f.GetToken()).String() + " " + f.GetRegion()
	}
	if m.GetJwks() != "" {
		g.keys = append(g.keys, m.GetJwks())
	}
	if m.GetHurry() != nil {
		g.hurry++
	}
	return m, nil
}

// until reads until something has come about.
func (g *guardEnd) until(what string, ok func() bool) {
	g.t.Helper()
	for !ok() {
		if _, err := g.next(); err != nil {
			g.t.Fatalf("while waiting until %s: %v", what, err)
		}
	}
}

// answer reads until an ask is answered whole.
func (g *guardEnd) answer(id uint64) *writv1.GuardResponse {
	g.t.Helper()
	for {
		m, err := g.next()
		if err != nil {
			g.t.Fatalf("while waiting for the answer to %d: %v", id, err)
		}
		if m.GetId() == id && !m.GetEnrolled().GetMore() {
			return m
		}
	}
}

// want asks and compares the kind of the answer, or the reason of its error.
func (g *guardEnd) want(id uint64, req *writv1.GuardRequest, want string) {
	g.t.Helper()
	g.ask(id, req)
	if got := tellGuard(g.answer(id)); got != want {
		g.t.Errorf("%s %d was answered with %s, want %s", askKind(req), id, got, want)
	}
}

func tellGuard(m *writv1.GuardResponse) string {
	switch {
	case m.GetError() != nil:
		return string(lease.ReasonOf(guardError(m)))
	case m.GetEnrolled() != nil:
		return "enrolled"
	case m.GetContacted() != nil:
		return "contacted"
	case m.GetNoted() != nil:
		return "noted"
	}
	return m.String()
}

func guardError(m *writv1.GuardResponse) error { return status.FromProto(m.GetError()).Err() }

// ends reads the end of the stream.
func (g *guardEnd) ends() error {
	g.t.Helper()
	for {
		if _, err := g.next(); err != nil {
			return err
		}
	}
}

// feed is a history that the watches of a fake are told.
type feed struct {
	mu      sync.Mutex
	state   map[lease.Resource]lease.Info
	watches []*feedWatch
}

type feedWatch struct {
	ctx    context.Context
	prefix string
	resume string
	events chan quorum.WatchEvent
	fail   chan error
}

// newFeed makes q watch a feed.
func newFeed(q *fakeQuorum, state ...lease.Info) *feed {
	f := &feed{state: make(map[lease.Resource]lease.Info)}
	for _, info := range state {
		f.state[info.Resource] = info
	}
	q.onWatch = f.watch
	return f
}

func (f *feed) watch(ctx context.Context, prefix, resume string, deliver func(quorum.WatchEvent) error) error {
	w := &feedWatch{ctx: ctx, prefix: prefix, resume: resume, events: make(chan quorum.WatchEvent), fail: make(chan error)}
	f.mu.Lock()
	var events []quorum.WatchEvent
	if resume == "" {
		events = f.presentLocked(prefix)
	}
	f.watches = append(f.watches, w)
	f.mu.Unlock()
	defer f.remove(w)
	for {
		for _, ev := range events {
			if err := deliver(ev); err != nil {
				return err
			}
		}
		select {
		case ev := <-w.events:
			events = []quorum.WatchEvent{ev}
		case err := <-w.fail:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *feed) presentLocked(prefix string) (events []quorum.WatchEvent) {
	for _, info := range f.state {
		if strings.HasPrefix(string(info.Resource), prefix) {
			events = append(events, quorum.WatchEvent{Kind: quorum.WatchState, Lease: info})
		}
	}
	return append(events, quorum.WatchEvent{Kind: quorum.WatchSynced, Resume: "synced"})
}

func (f *feed) remove(w *feedWatch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watches = slices.DeleteFunc(f.watches, func(other *feedWatch) bool { return other == w })
}

// prefixes answers what is watched.
func (f *feed) prefixes() (prefixes []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.watches {
		prefixes = append(prefixes, w.prefix)
	}
	slices.Sort(prefixes)
	return prefixes
}

func (f *feed) matching(name string) (matching []*feedWatch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.watches {
		if strings.HasPrefix(name, w.prefix) {
			matching = append(matching, w)
		}
	}
	return matching
}

// put makes a change, and returns when every watch has begun to deliver it.
func (f *feed) put(info lease.Info) {
	f.mu.Lock()
	f.state[info.Resource] = info
	f.mu.Unlock()
	f.send(quorum.WatchEvent{Kind: quorum.WatchChanged, Lease: info, Resume: "at " + string(info.Resource)})
}

func (f *feed) send(ev quorum.WatchEvent) {
	for _, w := range f.matching(string(ev.Lease.Resource)) {
		select {
		case w.events <- ev:
		case <-w.ctx.Done():
		}
	}
}

// resync tells the watches that history begins anew, with another state.
func (f *feed) resync(state ...lease.Info) {
	f.mu.Lock()
	clear(f.state)
	for _, info := range state {
		f.state[info.Resource] = info
	}
	f.mu.Unlock()
	for _, w := range f.all() {
		f.mu.Lock()
		events := append([]quorum.WatchEvent{{Kind: quorum.WatchResync}}, f.presentLocked(w.prefix)...)
		f.mu.Unlock()
		for _, ev := range events {
			w.events <- ev
		}
	}
}

func heldInfo(name string, sequence uint64, region string) lease.Info {
	return lease.Info{Resource: lease.Resource(name), State: lease.Held, Token: token(sequence), Holder: lease.Holder{Principal: app, Region: region}}
}

func fencingInfo(name string, last, next uint64) lease.Info {
	return lease.Info{Resource: lease.Resource(name), State: lease.Fencing, Token: token(last), Fencing: token(next)}
}

func freeInfo(name string, last uint64) lease.Info {
	return lease.Info{Resource: lease.Resource(name), State: lease.Free, Token: token(last)}
}

func (f *feed) all() []*feedWatch {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.watches)
}
