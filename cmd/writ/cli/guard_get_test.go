package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

func (g *guarded) GetGuard(_ context.Context, r *writv1.GetGuardRequest) (*writv1.GetGuardResponse, error) {
	err := g.note("get %s %s %d %s", r.GetName(), r.GetPrefix(), r.GetPageSize(), r.GetPageToken())
	g.mu.Lock()
	defer g.mu.Unlock()
	if resp := g.pages[r.GetName()+" "+r.GetPageToken()]; resp != nil || err != nil {
		return resp, err
	}
	return nil, lease.Errorf(lease.ReasonNotFound, "no guard %q is enrolled", r.GetName())
}

func shownFloor(t *testing.T, name, token, known string, standing writv1.GuardFloorStanding) *writv1.GuardShownFloor {
	f := &writv1.GuardShownFloor{Floor: &writv1.GuardKeptFloor{Resource: name, Token: tokenOf(t, token)}, Standing: standing}
	if known != "" {
		f.Known = tokenOf(t, known)
	}
	return f
}

// twoPages are those of db-1; web is not connected.
func twoPages(t *testing.T) map[string]*writv1.GetGuardResponse {
	list := someGuards(t)
	draining := shownFloor(t, "db/b", "1.41", "1.41", writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_SAME)
	draining.Floor.InFlight, draining.Floor.Waiting, draining.Floor.Draining = 2, 1, true
	return map[string]*writv1.GetGuardResponse{
		"db-1 ": {
			Guard: list[0], Reach: writv1.GuardReach_GUARD_REACH_ANSWERED, Node: "eu", Base: tokenOf(t, "1.40"), NextPageToken: "p2",
			Floors: []*writv1.GuardShownFloor{shownFloor(t, "db/a", "1.42", "1.42", writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_SAME), draining},
		},
		"db-1 p2": {
			Reach: writv1.GuardReach_GUARD_REACH_ANSWERED, Node: "eu", Base: tokenOf(t, "1.40"),
			Floors: []*writv1.GuardShownFloor{
				shownFloor(t, "db/c", "1.3", "1.9", writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_BEHIND),
				shownFloor(t, "db/d", "1.99", "1.9", writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_AHEAD),
				shownFloor(t, "db/e", "1.5", "1.6", writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_RAISING),
				shownFloor(t, "db/f", "1.5", "", writv1.GuardFloorStanding_GUARD_FLOOR_STANDING_UNSPECIFIED),
			},
		},
		"web ": {Guard: list[2], Reach: writv1.GuardReach_GUARD_REACH_NOT_CONNECTED, Detail: "no node has a session of it"},
	}
}

const floorsTable = `asked   answered by node eu
base    1.40
state   enrolled
lease   28s
floors  6

RESOURCE  FLOOR  IN FLIGHT  WAITING  QUORUM  STATE
db/a      1.42   0          0        1.42    same
db/b      1.41   2          1        1.41    draining
db/c      1.3    0          0        1.9     BEHIND
db/d      1.99   0          0        1.9     AHEAD
db/e      1.5    0          0        1.6     raising
db/f      1.5    0          0        -       unknown
`

const floorWarnings = `writ: warning: guard db-1 admits tokens that are older than what has been granted, for 1 resources
writ: warning: guard db-1 has floors above what the quorum knows of, for 1 resources
`

func TestGuardGet(t *testing.T) {
	g := newGuarded(t, "us")[0]
	g.set(func() { g.pages = twoPages(t) })
	writ(t, "guard", "get", "db-1").want(t, 0, floorsTable, floorWarnings)
	if got := g.asked(); got != "get db-1  1000 , get db-1  1000 p2" {
		t.Errorf("asked for %s", got)
	}
	r := writ(t, "guard", "get", "db-1", "--prefix", "db/", "--limit", "2", "-o", "json")
	var shown struct {
		Floors        []any
		NextPageToken string
	}
	if err := json.Unmarshal([]byte(r.stdout), &shown); err != nil || r.code != 0 || len(shown.Floors) != 2 || !strings.Contains(r.stderr, "more than 2 floors; see --limit") {
		t.Errorf("got %+v, %v", r, err)
	}
	if got := g.asked(); got != "get db-1 db/ 2 " {
		t.Errorf("asked for %s", got)
	}
	if r := writ(t, "guard", "get", "db-1", "-o", "yaml"); r.code != 0 || strings.Count(r.stdout, "  known: ") != 5 || !strings.Contains(r.stdout, "GUARD_FLOOR_STANDING_BEHIND") {
		t.Errorf("got %+v", r)
	}
	// What the quorum remembers is not shown as the guard's own.
	writ(t, "guard", "get", "web").want(t, 5, `asked  not connected
state  out
why    no node has a session of it
`, "writ: NO_QUORUM: the floors of guard web are not known: no node has a session of it\n")
	if r := writ(t, "guard", "get", "nobody"); r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, "NOT_FOUND") {
		t.Errorf("got %+v", r)
	}
	// A guard that goes in the middle shows nothing: a part would look like all.
	g.set(func() {
		g.pages["db-1 p2"] = &writv1.GetGuardResponse{Reach: writv1.GuardReach_GUARD_REACH_NOT_CONNECTED, Detail: "it has gone"}
	})
	writ(t, "guard", "get", "db-1").want(t, 5, "", "writ: NO_QUORUM: guard db-1 told 2 floors and then no more: it has gone; ask again\n")
	for line, want := range map[string]string{
		"get":                      "NAME is missing; write: writ guard get NAME",
		"get a b":                  `arguments are too many: "b"`,
		"get db-1 --limit 0":       "--limit is 0; use 1 to 1000000",
		"get db-1 --limit -3":      "--limit is -3; use 1 to 1000000",
		"get db-1 --limit 1000001": "--limit is 1000001; use 1 to 1000000",
		"get db-1 --limit many":    `--limit is "many"`,
		"list --floors --watch":    "--floors excludes --watch; choose one",
		"get db-1 --prefix":        "--prefix has no value; give it a value",
	} {
		if r := writ(t, append([]string{"guard"}, strings.Fields(line)...)...); r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v, want %s", line, r, want)
		}
	}
}

func TestGuardListFloors(t *testing.T) {
	g := newGuarded(t, "us")[0]
	g.set(func() {
		g.list = []*writv1.Guard{someGuards(t)[0], someGuards(t)[2]}
		g.pages = twoPages(t)
	})
	writ(t, "guard", "list", "--floors").want(t, 0, strings.Join([]string{
		"NAME  STATE     REGION  FORM      PROMISE         LEASE  LAG  FLOOR         ALARMS",
		"db-1  enrolled  eu      proxy     drained         28s    0    db/main 1.42  0",
		"web   out       -       extauthz  check-then-act  -      0    -             0",
		"", "guard db-1", floorsTable,
		"guard web", "asked  not connected", "state  out", "why    no node has a session of it", "",
	}, "\n"), floorWarnings)
	r := writ(t, "guard", "list", "--floors", "-o", "json", "--resource", "db/")
	var shown struct {
		Guards []struct {
			Guard  struct{ Name string }
			Reach  string
			Floors []any
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &shown); err != nil || len(shown.Guards) != 2 || len(shown.Guards[0].Floors) != 6 || shown.Guards[1].Reach != "GUARD_REACH_NOT_CONNECTED" {
		t.Errorf("got %+v, %v", r, err)
	}
	g.set(func() { g.list = nil })
	writ(t, "guard", "list", "--floors", "-o", "json").want(t, 0, "{\n  \"guards\": []\n}\n", "")
}

// Every floor of a guard before a real quorum, asked at each of its nodes; and what is told of one that is not connected.
func TestGuardGetForReal(t *testing.T) {
	l := goLive(t)
	l.must(0, "", "guard", "protect", "db/", "--reason", "it is a test")
	g := l.guardOf("g-eu", "eu", "db/*")
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(proctest.Patience); !ok(); <-again.C {
			if time.Now().After(deadline) {
				t.Fatalf("not until %s: %+v", what, l.writ("guard", "get", "g-eu"))
			}
		}
	}
	until("the guard is ready", func() bool { return g.Status().Ready() })

	// Floors of tokens that were never granted: 1,100 of them, and one write that goes on.
	const many = 1100
	token, err := fence.NewToken(1, 40)
	if err != nil {
		t.Fatal(err)
	}
	var writes sync.WaitGroup
	for i := range many {
		writes.Go(func() {
			a, err := g.Admit(t.Context(), fence.Write{Resource: fmt.Sprintf("db/%04d", i), Token: token})
			if err != nil {
				t.Error(err)
				return
			}
			if i != 7 {
				a.Done(fence.Finished)
			}
		})
	}
	writes.Wait()
	all := os.Getenv("WRIT_ENDPOINTS")
	type shown struct {
		Reach, Node string
		Guard       struct{ Name string }
		Floors      []struct {
			Floor           struct{ Resource, Token, InFlight string }
			Known, Standing string
		}
	}
	nodes := make(map[string]bool)
	for _, endpoint := range strings.Split(all, ",") {
		t.Setenv("WRIT_ENDPOINTS", endpoint)
		r := l.must(0, "", "guard", "get", "g-eu", "--prefix", "db/", "-o", "json")
		var got shown
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Floors) != many || got.Reach != "GUARD_REACH_ANSWERED" || got.Guard.Name != "g-eu" {
			t.Fatalf("at %s: %d floors, %s, %s", endpoint, len(got.Floors), got.Reach, got.Guard.Name)
		}
		nodes[got.Node] = true
		for i, f := range got.Floors {
			inFlight := ""
			if i == 7 {
				inFlight = "1"
			}
			if f.Floor.Resource != fmt.Sprintf("db/%04d", i) || f.Floor.Token != token.Decimal() || f.Floor.InFlight != inFlight {
				t.Fatalf("at %s: %+v", endpoint, f)
			}
		}
	}
	if len(nodes) != 1 {
		t.Errorf("the guard is said to be connected to %v", nodes)
	}
	t.Setenv("WRIT_ENDPOINTS", all)

	// Granted for real, a floor is the quorum's; made up above that, it is an alarm.
	for _, name := range []string{"db/first", "db/real"} { // the first token may be the base itself
		l.must(0, "", "lease", "acquire", name, "--ttl", "60s")
	}
	r := l.must(0, "same", "guard", "get", "g-eu", "--prefix", "db/real")
	if strings.Contains(r.stdout+r.stderr, "BEHIND") {
		t.Errorf("got %+v", r)
	}
	a, err := g.Admit(t.Context(), fence.Write{Resource: "db/real", Token: token + 1<<30})
	if err != nil {
		t.Fatal(err)
	}
	a.Done(fence.Finished)
	l.must(0, "AHEAD", "guard", "get", "g-eu", "--prefix", "db/real")
	l.must(0, "more than 5 floors", "guard", "get", "g-eu", "--limit", "5")
	l.must(0, "db/0003", "guard", "list", "--floors")
	l.must(1, "no name of a resource begins with it", "guard", "get", "g-eu", "--prefix", "db//")
	l.must(1, "NOT_FOUND", "guard", "get", "g-us")

	// A guard that has gone is told to be gone.
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_ = g.Close(ctx)
	until("it is known to be gone", func() bool { return l.writ("guard", "get", "g-eu").code != 0 })
	r = l.must(5, "not connected", "guard", "get", "g-eu")
	if strings.Contains(r.stdout, "db/0001") {
		t.Errorf("floors are told of a guard that is gone: %s", r.stdout)
	}
}
