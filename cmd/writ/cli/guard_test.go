package cli

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// guarded is a test double of a node that guards are connected to.
type guarded struct {
	writv1.UnimplementedFenceServiceServer
	writv1.UnimplementedClusterServiceServer

	mu       sync.Mutex
	nodes    []*writv1.NodeStatus                // guarded by mu
	leader   string                              // guarded by mu
	list     []*writv1.Guard                     // guarded by mu
	verdicts []*writv1.GuardVerdict              // guarded by mu
	rules    []*writv1.GuardingRule              // guarded by mu
	pages    map[string]*writv1.GetGuardResponse // guarded by mu; by name and page token
	fail     error                               // guarded by mu; of everything but Status
	calls    []string                            // guarded by mu
}

func (g *guarded) note(format string, args ...any) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls = append(g.calls, fmt.Sprintf(format, args...))
	return g.fail
}

func (g *guarded) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

// asked answers what it was asked since the last time.
func (g *guarded) asked() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	calls := strings.Join(g.calls, ", ")
	g.calls = nil
	return calls
}

func (g *guarded) Status(context.Context, *writv1.StatusRequest) (*writv1.StatusResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &writv1.StatusResponse{Node: "us", Coordinator: g.leader, Nodes: g.nodes}, nil
}

func (g *guarded) ListGuards(_ context.Context, r *writv1.ListGuardsRequest) (*writv1.ListGuardsResponse, error) {
	err := g.note("list %s", r.GetResource())
	g.mu.Lock()
	defer g.mu.Unlock()
	return &writv1.ListGuardsResponse{Guards: g.list}, err
}

func (g *guarded) VerifyGuards(_ context.Context, r *writv1.VerifyGuardsRequest) (*writv1.VerifyGuardsResponse, error) {
	err := g.note("verify %s %s", r.GetName(), r.GetResource())
	g.mu.Lock()
	defer g.mu.Unlock()
	return &writv1.VerifyGuardsResponse{Verdicts: g.verdicts}, err
}

func (g *guarded) RemoveGuard(_ context.Context, r *writv1.RemoveGuardRequest) (*writv1.RemoveGuardResponse, error) {
	return &writv1.RemoveGuardResponse{}, g.note("remove %s %t %s", r.GetName(), r.GetAttest(), r.GetReason())
}

func (g *guarded) GetGuarding(context.Context, *writv1.GetGuardingRequest) (*writv1.GetGuardingResponse, error) {
	err := g.note("rules")
	g.mu.Lock()
	defer g.mu.Unlock()
	return &writv1.GetGuardingResponse{Guarding: &writv1.GuardingRecord{Version: 3, Rules: g.rules}}, err
}

func (g *guarded) SetGuarding(_ context.Context, r *writv1.SetGuardingRequest) (*writv1.SetGuardingResponse, error) {
	rule := r.GetRule()
	err := g.note("set %q %v %t %dms remove %t %s", rule.GetPrefix(), rule.GetIsolation(), rule.GetAllowUnproven(), rule.GetDrainMs(), r.GetRemove(), r.GetReason())
	resp := &writv1.SetGuardingResponse{Guarding: &writv1.GuardingRecord{Version: 4}}
	if !r.GetRemove() {
		resp.Guarding.Rules = []*writv1.GuardingRule{rule}
	}
	return resp, err
}

// newGuarded serves doubles that know of each other, and answers them. Only the first is in the environment.
func newGuarded(t *testing.T, names ...string) []*guarded {
	t.Helper()
	var all []*guarded
	var nodes []*writv1.NodeStatus
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		g := &guarded{}
		server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			response, err := handler(ctx, request)
			return response, lease.ToStatus(err).Err()
		}))
		writv1.RegisterFenceServiceServer(server, g)
		writv1.RegisterClusterServiceServer(server, g)
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = server.Serve(l) // its error is that it was stopped
		}()
		t.Cleanup(func() {
			server.Stop()
			<-served
		})
		all = append(all, g)
		nodes = append(nodes, &writv1.NodeStatus{Name: name, ApiAddress: l.Addr().String()})
	}
	for _, g := range all {
		g.nodes = nodes
	}
	t.Setenv("WRIT_ENDPOINTS", nodes[0].GetApiAddress())
	t.Setenv("WRIT_INSECURE", "true")
	return all
}

func tokenOf(t *testing.T, text string) uint64 {
	t.Helper()
	token, err := fence.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return uint64(token)
}

// someGuards are one in order, one behind and alarmed, one that is out, and one that is and is waited for all the same.
func someGuards(t *testing.T) []*writv1.Guard {
	return []*writv1.Guard{
		{
			Name: "db-1", State: writv1.GuardState_GUARD_STATE_ENROLLED, Region: "eu", Form: "proxy", Promise: writv1.GuardPromise_GUARD_PROMISE_DRAINED,
			LeaseLeft: durationpb.New(28 * time.Second), NewestFloor: &writv1.GuardFloor{Resource: "db/main", Token: tokenOf(t, "1.42")},
		},
		{
			Name: "db-2", State: writv1.GuardState_GUARD_STATE_ENROLLED, Region: "us", Form: "pgfence", Promise: writv1.GuardPromise_GUARD_PROMISE_ATOMIC,
			LeaseLeft: durationpb.New(-1500 * time.Millisecond), Lag: 2, OldestRaise: durationpb.New(3 * time.Second),
			Alarms:  []*writv1.GuardAlarm{{Resource: "db/main", Token: tokenOf(t, "1.41"), Floor: tokenOf(t, "1.99")}},
			Warning: "its floor store went back from version 9 to 3",
		},
		{
			Name: "web", State: writv1.GuardState_GUARD_STATE_OUT, Form: "extauthz", Promise: writv1.GuardPromise_GUARD_PROMISE_CHECK_THEN_ACT,
			LeaseLeft: durationpb.New(-time.Hour),
		},
		{
			Name: "zdb", State: writv1.GuardState_GUARD_STATE_OUT, Form: "postgres", Promise: writv1.GuardPromise_GUARD_PROMISE_ATOMIC,
			NeverLapses: true, Lag: 1, OldestRaise: durationpb.New(time.Minute),
		},
	}
}

const guardsTable = `NAME  STATE     REGION  FORM      PROMISE         LEASE          LAG         FLOOR         ALARMS
db-1  enrolled  eu      proxy     drained         28s            0           db/main 1.42  0
db-2  enrolled  us      pgfence   atomic          over for 1.5s  2 for 3s    -             1
web   out       -       extauthz  check-then-act  -              0           -             0
zdb   awaited   -       postgres  atomic          -              1 for 1m0s  -             0
`

const guardWarnings = `writ: warning: guard db-2 was told token 1.41 of db/main, which is below its floor 1.99
writ: warning: guard db-2: its floor store went back from version 9 to 3
`

func TestGuardList(t *testing.T) {
	g := newGuarded(t, "us")[0]
	g.set(func() { g.list = someGuards(t) })
	writ(t, "guard", "list").want(t, 0, guardsTable, guardWarnings)
	writ(t, "guard", "list", "--resource", "db/main").want(t, 0, guardsTable, guardWarnings)
	if got := g.asked(); got != "list , list db/main" {
		t.Errorf("asked for %s", got)
	}
	g.set(func() { g.list = g.list[:1] })
	writ(t, "guard", "list", "-o", "json").want(t, 0, `{
  "guards": [
    {
      "name": "db-1",
      "state": "GUARD_STATE_ENROLLED",
      "region": "eu",
      "form": "proxy",
      "promise": "GUARD_PROMISE_DRAINED",
      "leaseLeft": "28s",
      "newestFloor": {
        "resource": "db/main",
        "token": "281474976710698"
      }
    }
  ]
}
`, "")
	if r := writ(t, "guard", "list", "-o", "yaml"); r.code != 0 || !strings.HasPrefix(r.stdout, "guards:\n- form: proxy\n") {
		t.Errorf("got %+v", r)
	}
	g.set(func() { g.fail = lease.Errorf(lease.ReasonDenied, "not yours") })
	writ(t, "guard", "list").want(t, 4, "", "writ: DENIED: not yours\n")
	g.set(func() { g.fail = lease.Errorf(lease.ReasonNoQuorum, "nobody there") })
	if r := writ(t, "guard", "list", "--timeout", "200ms"); r.code != 5 {
		t.Errorf("got %+v", r)
	}
}

func TestGuardListWatch(t *testing.T) {
	g := newGuarded(t, "us")[0]
	g.set(func() { g.list = someGuards(t)[:1] })
	for form, want := range map[string]string{"table": "NAME  STATE     REGION", "json": `{"guards":[{"name":"db-1"`, "yaml": "---"} {
		t.Run(form, func(t *testing.T) {
			p := launch(t, nil, "guard", "list", "--watch", "-o", form)
			if !p.stdout.Scan() || !strings.HasPrefix(p.stdout.Text(), want) {
				t.Errorf("it said %q, want %q", p.stdout.Text(), want)
			}
			if err := p.signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if code := p.end(t); code != 0 || p.stderr.Len() > 0 {
				t.Errorf("exit code %d, want 0 and silence", code)
			}
		})
	}
}

// A watch goes on where nobody answers.
func TestGuardListWatchGoesOn(t *testing.T) {
	g := newGuarded(t, "us")[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var pages, troubles int
	stdout := writerFunc(func([]byte) {
		if pages++; pages == 2 {
			g.set(func() { g.fail = lease.Errorf(lease.ReasonNoQuorum, "nobody there") })
		}
		if troubles > 0 {
			cancel()
		}
	})
	stderr := writerFunc(func([]byte) {
		if troubles++; pages >= 2 {
			g.set(func() { g.fail = nil })
		}
	})
	a := &app{connection: connection{timeout: 50 * time.Millisecond}, stdout: stdout, stderr: stderr, output: outputTable, now: time.Now}
	if err := a.watchGuards(ctx, &writv1.ListGuardsRequest{}, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if pages < 3 || troubles < 1 {
		t.Errorf("%d pages, %d troubles", pages, troubles)
	}
}

func TestGuardVerify(t *testing.T) {
	g := newGuarded(t, "us")[0]
	writ(t, "guard", "verify").want(t, 2, "NAME  STATE\n", "writ: NOT_GUARDED: no guard is enrolled\n")
	writ(t, "guard", "verify", "db-1", "--resource", "x").want(t, 2, "NAME  STATE\n", "writ: NOT_GUARDED: no guard db-1 is enrolled that covers x\n")
	g.set(func() { g.list = someGuards(t) })
	writ(t, "guard", "verify", "db-1").want(t, 0, "NAME  STATE\ndb-1  in order\n", "")
	writ(t, "guard", "verify").want(t, 2, `NAME  STATE
db-1  in order
db-2  its guard lease is over; it has alarms: 1; its floor store went back from version 9 to 3
web   it is out
zdb   it is out, and its storage goes on by itself: raises wait for it
`, "writ: NOT_GUARDED: 3 of 4 guards are not in order: db-2, web, zdb\n")
	if got := g.asked(); strings.Contains(got, "verify") {
		t.Errorf("sent canaries: %s", got)
	}
}

func TestGuardVerifyZombie(t *testing.T) {
	nodes := newGuarded(t, "us", "eu", "ap")
	us, eu := nodes[0], nodes[1]
	inOrder := someGuards(t)[0]
	second, third := &writv1.Guard{Name: "db-3"}, &writv1.Guard{Name: "db-4"}
	for _, other := range []*writv1.Guard{second, third} {
		other.State, other.LeaseLeft = inOrder.GetState(), inOrder.GetLeaseLeft()
	}
	verdict := func(guard string, refused bool, detail string) *writv1.GuardVerdict {
		return &writv1.GuardVerdict{Guard: guard, Resource: "db/main", Token: tokenOf(t, "1.41"), Refused: refused, Detail: detail}
	}
	us.set(func() {
		us.list = []*writv1.Guard{inOrder, second}
		us.verdicts = []*writv1.GuardVerdict{verdict("db-1", true, "412")}
	})
	eu.set(func() { eu.verdicts = []*writv1.GuardVerdict{verdict("db-3", true, "412")} })
	writ(t, "guard", "verify", "--zombie").want(t, 0, `NAME  STATE     RESOURCE  TOKEN  CANARY
db-1  in order  db/main   1.41   refused
db-3  in order  db/main   1.41   refused
`, "")
	writ(t, "guard", "verify", "db-1", "--zombie", "--resource", "db/x", "-o", "json")
	if got := eu.asked(); got != "verify  , verify db-1 db/x" {
		t.Errorf("asked for %s", got)
	}

	// Worse: one that admits at one of two nodes, one that is connected nowhere, one that is not enrolled.
	us.set(func() { us.list = append(us.list, third) })
	eu.set(func() {
		eu.verdicts = []*writv1.GuardVerdict{verdict("db-1", false, "it was\nadmitted"), {Guard: "stray", Resource: "x", Refused: true}}
	})
	writ(t, "guard", "verify", "--zombie").want(t, 2, `NAME   STATE                                    RESOURCE  TOKEN  CANARY
db-1   it did not refuse: it was; admitted      db/main   1.41   not refused
db-3   it is connected to no node that answers  -         -      not sent
db-4   it is connected to no node that answers  -         -      not sent
stray  it is connected, but not enrolled        x         -      refused
`, "writ: NOT_GUARDED: 4 of 4 guards are not in order: db-1, db-3, db-4, stray\n")

	// Nodes that cannot be asked are told; if all are such, nothing is known.
	us.set(func() {
		us.list = us.list[:1]
		dead := deadEndpoint(t)
		us.nodes = []*writv1.NodeStatus{us.nodes[0], {Name: "eu", ApiAddress: dead}}
	})
	r := writ(t, "guard", "verify", "--zombie")
	if r.code != 0 || !strings.Contains(r.stdout, "db-1  in order") || !strings.HasPrefix(r.stderr, "writ: node eu could not be asked: ") {
		t.Errorf("got %+v", r)
	}
	writ(t, "guard", "verify", "--zombie", "-o", "json").want(t, 0, `{
  "checks": [
    {
      "guard": "db-1",
      "ok": true,
      "verdict": {
        "guard": "db-1",
        "resource": "db/main",
        "token": "281474976710697",
        "refused": true,
        "detail": "412"
      }
    }
  ]
}
`, r.stderr)
	us.set(func() { us.nodes = us.nodes[1:] })
	if r := writ(t, "guard", "verify", "--zombie"); r.code != 5 || r.stdout != "" || !strings.Contains(r.stderr, "NO_QUORUM: none of 1 nodes could be asked") {
		t.Errorf("got %+v", r)
	}
	us.set(func() { us.fail = lease.Errorf(lease.ReasonDenied, "not yours") })
	writ(t, "guard", "verify", "--zombie").want(t, 4, "", "writ: DENIED: not yours\n")
}

func TestGuardRemove(t *testing.T) {
	g := newGuarded(t, "us")[0]
	writ(t, "guard", "remove", "db-1").want(t, 0, "removed db-1\n", "")
	writ(t, "guard", "remove", "db-1", "--attest", "--reason", "its disk is shredded", "-o", "json").want(t, 0, "{}\n", "")
	writ(t, "guard", "remove", "db-1", "--attest").want(t, 1, "", "writ: INVALID: --reason is missing; say who answers for it, and why; it stands in the audit log\n")
	if got := g.asked(); got != "remove db-1 false , remove db-1 true its disk is shredded" {
		t.Errorf("asked for %s", got)
	}
	// What may have had its effect is told, not tried again.
	g.set(func() { g.fail = lease.Errorf(lease.ReasonUnknownOutcome, "the answer was lost") })
	if r := writ(t, "guard", "remove", "db-1"); r.code != 5 || g.asked() != "remove db-1 false " {
		t.Errorf("got %+v", r)
	}
	g.set(func() { g.fail = lease.Errorf(lease.ReasonNotGuarded, "it may be admitting") })
	writ(t, "guard", "remove", "db-1").want(t, 2, "", "writ: NOT_GUARDED: it may be admitting\n")
}

func TestGuardRules(t *testing.T) {
	g := newGuarded(t, "us")[0]
	writ(t, "guard", "rules").want(t, 0, "nothing is guarded\n", "")
	g.set(func() {
		g.rules = []*writv1.GuardingRule{
			{Prefix: "", Isolation: writv1.Isolation_ISOLATION_OPEN, AllowUnproven: true},
			{Prefix: "db/", Isolation: writv1.Isolation_ISOLATION_CLOSE, DrainMs: 2500},
		}
	})
	writ(t, "guard", "rules").want(t, 0, `PREFIX  ISOLATION  UNPROVEN GRANTS  DRAIN
""      open       allowed          10s
"db/"   close      no               2.5s
`, "")
	if r := writ(t, "guard", "rules", "-o", "json"); r.code != 0 || !strings.Contains(r.stdout, `"drainMs": "2500"`) {
		t.Errorf("got %+v", r)
	}
	g.asked()
	writ(t, "guard", "protect", "db/", "--reason", "why").want(t, 0, "PREFIX  ISOLATION  UNPROVEN GRANTS  DRAIN\n\"db/\"   close      no               10s\n", "")
	writ(t, "guard", "protect", "", "--isolation", "open", "--allow-unproven", "--drain", "1s", "--reason", "why").want(t, 0,
		"PREFIX  ISOLATION  UNPROVEN GRANTS  DRAIN\n\"\"      open       allowed          1s\n", "")
	writ(t, "guard", "unprotect", "db/").want(t, 0, "nothing is guarded\n", "")
	want := `set "db/" ISOLATION_CLOSE false 10000ms remove false why, set "" ISOLATION_OPEN true 1000ms remove false why, set "db/" ISOLATION_UNSPECIFIED false 0ms remove true `
	if got := g.asked(); got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	for line, want := range map[string]string{
		"protect db/ --isolation shut --reason x": `--isolation is "shut"; use close or open`,
		"protect db/ --allow-unproven --reason x": "--allow-unproven is given with --isolation close; leave it out, or use --isolation open",
		"protect db/ --drain 0s --reason x":       "--drain is 0s; use 1ms or more",
		"protect db/":                             "--reason is missing; say why; it stands in the audit log",
		"protect db/* --reason x":                 `PREFIX is "db/*"; write the prefix as it is, "db/"`,
		"unprotect db/*":                          `PREFIX is "db/*"; write the prefix as it is, "db/"`,
		"protect":                                 "PREFIX is missing; write: writ guard protect PREFIX",
		"verfy":                                   `command "writ guard verfy" is unknown; did you mean writ guard verify?`,
		"remove":                                  "NAME is missing; write: writ guard remove NAME",
		"verify a b":                              `arguments are too many: "b"; write: writ guard verify [NAME]`,
		"list --resource":                         "--resource has no value; give it a value",
		"protect db/ --reason x --drain 10":       `--drain is "10"; use a duration, such as 10s, 1m30s or 250ms`,
	} {
		if r := writ(t, append([]string{"guard"}, strings.Fields(line)...)...); r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v, want %s", line, r, want)
		}
	}
	if got := g.asked(); got != "" {
		t.Errorf("asked for %s", got)
	}
}

// A lease tells what its guards have proved, and what they have not yet.
func TestLeaseShowsGuards(t *testing.T) {
	l := &writv1.Lease{
		Resource: "db/main", State: writv1.LeaseState_LEASE_STATE_FENCING, Token: tokenOf(t, "1.7"), TokenText: "1.7", Fencing: tokenOf(t, "1.9"),
		Awaits: []string{"db-2", "db-3"}, Proofs: []*writv1.LeaseProof{{Guard: "db-1", How: "acked"}, {Guard: "db-2", How: "lapsed"}},
	}
	var out strings.Builder
	a := &app{stdout: &out, output: outputTable, now: func() time.Time { return instant }}
	if err := a.printLease(l); err != nil {
		t.Fatal(err)
	}
	want := `resource   db/main
state      fencing
token      281474976710663 (1.7)
fencing    281474976710665 (1.9)
waits for  db-2, db-3
proofs     db-1 acked, db-2 lapsed
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if row := a.leaseRow(l); !slices.Contains(row, cell{"fencing", weak}) {
		t.Errorf("row %v", row)
	}
}
