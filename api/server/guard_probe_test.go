package server

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// answerProbes reads on, and answers canaries, until the session ends.
func (g *guardEnd) answerProbes(answer func(*writv1.GuardResponse) *writv1.GuardProbed) {
	for {
		m, err := g.next()
		if err != nil {
			return
		}
		if m.GetProbe() == nil {
			continue
		}
		if verdict := answer(m); verdict != nil {
			req := &writv1.GuardRequest{Id: m.GetId(), Guard: g.name, Session: g.run, Ask: &writv1.GuardRequest_Probed{Probed: verdict}}
			if g.stream.Send(req) != nil {
				return
			}
		}
	}
}

func TestVerifyGuards(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	q.onGet = func(query quorum.GetQuery) (lease.Info, error) {
		switch r := query.Resource; {
		case query.Consistency != quorum.Local:
			return lease.Info{}, lease.ErrNoQuorum // which is not to be needed
		case r == "db/1":
			return heldInfo("db/1", 7, "eu"), nil
		case r == "old":
			newest, err := fence.NewToken(2, 1)
			return lease.Info{Resource: r, Token: newest}, err
		case r == "first":
			return heldInfo("first", 1, "eu"), nil
		case r == "broken":
			return lease.Info{}, lease.Errorf(lease.ReasonInternal, "unreadable")
		}
		return lease.Info{}, lease.ErrNotFound
	}
	n := start(t, ca, q, func(c *Config) { c.Registry = prometheusRegistry() })
	n.server.guards.probing = time.Second
	c := n.dial(app)
	verify := func(req *writv1.VerifyGuardsRequest) []*writv1.GuardVerdict {
		t.Helper()
		resp, err := c.fences.VerifyGuards(testContext(t), req)
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetVerdicts()
	}
	if got := verify(&writv1.VerifyGuardsRequest{}); len(got) != 0 {
		t.Errorf("verdicts %v without guards", got)
	}

	set, err := fence.NewKeySet(q.signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	var guards sync.WaitGroup
	begin := func(name string, covers []string, answer func(*writv1.GuardResponse) *writv1.GuardProbed) *client {
		c := n.dial(guardApp)
		g := c.guard(t)
		g.name = name
		g.want(1, enrolOf(covers), "enrolled")
		guards.Go(func() { g.answerProbes(answer) })
		return c
	}
	refuse := func(m *writv1.GuardResponse) *writv1.GuardProbed {
		p := m.GetProbe()
		w, err := set.Verify(p.GetWrit())
		if err != nil || w.Resource != p.GetResource() || uint64(w.Token) != p.GetToken() || w.Issuer != "test" || w.Holder != canaryHolder || m.GetId() < firstProbe {
			t.Errorf("probe %v with the writ %v: %v", m, w, err)
		}
		return &writv1.GuardProbed{Refused: true, Detail: "412 " + w.Token.String()}
	}
	begin("g1", []string{"*"}, func(*writv1.GuardResponse) *writv1.GuardProbed {
		t.Error("the older session was asked")
		return nil
	})
	begin("g1", []string{"db/*", "db/1"}, refuse)
	begin("g2", []string{"web/*"}, func(*writv1.GuardResponse) *writv1.GuardProbed { return &writv1.GuardProbed{Detail: "204"} })
	begin("g3", []string{"old"}, refuse)
	begin("g4", []string{"first"}, refuse)
	begin("g5", []string{"broken"}, refuse)
	verdicts := verify(&writv1.VerifyGuardsRequest{})
	var lines []string
	for _, v := range verdicts {
		text := "admitted "
		if v.GetRefused() {
			text = "refused "
		}
		lines = append(lines, v.GetGuard()+" "+v.GetResource()+" "+tokenText(v.GetToken())+" "+text+v.GetDetail())
	}
	want := []string{
		"g1 db/1 1.6 refused 412 1.6",
		"g2 web/canary 1.1 admitted 204",
		"g3 old 1.281474976710655 refused 412 1.281474976710655",
		"g4 first 0.0 admitted there is no older token yet: nothing was granted",
		"g5 broken 0.0 admitted INTERNAL: unreadable",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if !strings.Contains(n.log.String(), "did not refuse an old token") {
		t.Errorf("the log says %s", n.log.String())
	}
	if got := verify(&writv1.VerifyGuardsRequest{Name: "g1", Resource: "db/9"}); len(got) != 1 || got[0].GetResource() != "db/9" || got[0].GetToken() != uint64(token(1)) || !got[0].GetRefused() {
		t.Errorf("verdicts %v for a resource", got)
	}
	if got := verify(&writv1.VerifyGuardsRequest{Name: "g1", Resource: "web/9"}); len(got) != 0 {
		t.Errorf("verdicts %v for a resource that it does not cover", got)
	}
	_, err = c.fences.VerifyGuards(testContext(t), &writv1.VerifyGuardsRequest{Resource: "a//b"})
	wantInvalid(t, err, "resource")

	// One that answers too late, or under another id, or that leaves, has not refused.
	n.server.guards.probing = 20 * time.Millisecond
	begin("g6", []string{"web/1"}, func(m *writv1.GuardResponse) *writv1.GuardProbed {
		m.Id++
		return &writv1.GuardProbed{Refused: true}
	})
	if got := verify(&writv1.VerifyGuardsRequest{Name: "g6"}); len(got) != 1 || got[0].GetRefused() || !strings.Contains(got[0].GetDetail(), "did not answer within 20ms") {
		t.Errorf("verdicts %v", got)
	}
	n.server.guards.probing = time.Minute
	var leaver *client
	leaver = begin("g7", []string{"web/1"}, func(*writv1.GuardResponse) *writv1.GuardProbed {
		_ = leaver.conn.Close()
		return nil
	})
	if got := verify(&writv1.VerifyGuardsRequest{Name: "g7"}); len(got) != 1 || got[0].GetRefused() || got[0].GetDetail() != errProbeGone.Error() {
		t.Errorf("verdicts %v", got)
	}
	for outcome, want := range map[string]float64{"refused": 3, "admitted": 1, "unanswered": 4} {
		if got := n.metric("writ_server_guard_probes_total", outcome); got != want {
			t.Errorf("%v probes count as %s, want %v", got, outcome, want)
		}
	}
	n.server.Stop()
	guards.Wait()
}

// What operators ask reaches the coordinator, with the right that it takes.
func TestGuardOperations(t *testing.T) {
	rights := guardPolicy(t, `grants:
- {principals: ["spiffe://test/admin"], prefix: "", verbs: [admin]}
- {principals: ["spiffe://test/reader"], prefix: "", verbs: [read]}
- {principals: ["spiffe://test/db"], prefix: "db/", verbs: [read, acquire, force, guard]}`)
	a, b := pair(t, func(c *Config) { c.Policy = rights })
	ctx := testContext(t)
	rule := &writv1.GuardingRule{Prefix: "db/", Isolation: writv1.Isolation_ISOLATION_CLOSE}
	type call func(*client) error
	list := func(resource string) call {
		return func(c *client) error {
			resp, err := c.fences.ListGuards(ctx, &writv1.ListGuardsRequest{Resource: resource})
			if err == nil && len(resp.GetGuards()) != 1 {
				t.Errorf("listed %v", resp)
			}
			return err
		}
	}
	verify := func(resource string) call {
		return func(c *client) error {
			_, err := c.fences.VerifyGuards(ctx, &writv1.VerifyGuardsRequest{Resource: resource})
			return err
		}
	}
	for name, c := range map[string]struct {
		do      call
		allowed string // of admin, reader, db
	}{
		"list":          {list(""), "admin reader"},
		"list of one":   {list("db/1"), "admin reader db"},
		"verify":        {verify(""), "admin reader"},
		"verify of one": {verify("db/1"), "admin reader db"},
		"rules": {func(c *client) error {
			resp, err := c.fences.GetGuarding(ctx, &writv1.GetGuardingRequest{})
			if err == nil && resp.GetGuarding().GetVersion() != 1 {
				t.Errorf("rules %v", resp)
			}
			return err
		}, "admin reader"},
		"protect": {func(c *client) error {
			resp, err := c.fences.SetGuarding(ctx, &writv1.SetGuardingRequest{Rule: rule, Version: 1, Reason: "why"})
			if err == nil && resp.GetGuarding().GetVersion() != 2 {
				t.Errorf("rules %v", resp)
			}
			return err
		}, "admin"},
		"remove": {func(c *client) error {
			_, err := c.fences.RemoveGuard(ctx, &writv1.RemoveGuardRequest{Name: "g1", Attest: true, Reason: "why"})
			return err
		}, "admin"},
	} {
		for _, who := range []string{"admin", "reader", "db"} {
			err := c.do(b.dial("spiffe://test/" + who))
			if allowed := strings.Contains(c.allowed, who); allowed != (err == nil) || (!allowed && lease.ReasonOf(err) != lease.ReasonDenied) {
				t.Errorf("%s by %s: %v", name, who, err)
			}
		}
	}
	admin := b.dial("spiffe://test/admin")
	_, err := admin.fences.RemoveGuard(ctx, &writv1.RemoveGuardRequest{Name: "g1", Attest: true})
	wantInvalid(t, err, "reason")
	_, err = admin.fences.RemoveGuard(ctx, &writv1.RemoveGuardRequest{})
	wantInvalid(t, err, "name")
	wantInvalid(t, list("a//b")(admin), "resource")
	var changes []any
	a.quorum.mu.Lock()
	for _, cmd := range a.quorum.guardCmds {
		switch cmd := cmd.(type) {
		case lease.SetGuarding:
			if cmd.Principal != "spiffe://test/admin" || cmd.Rule.GetPrefix() != "db/" || cmd.Version != 1 || cmd.Reason != "why" || cmd.Remove {
				t.Errorf("asked for %v", cmd)
			}
			changes = append(changes, cmd)
		case lease.RemoveGuard:
			if want := (lease.RemoveGuard{Caller: lease.Caller{Principal: "spiffe://test/admin"}, Name: "g1", Attest: true, Reason: "why"}); cmd != want {
				t.Errorf("asked for %v", cmd)
			}
			changes = append(changes, cmd)
		}
	}
	a.quorum.mu.Unlock()
	if len(changes) != 2 {
		t.Errorf("%d changes were asked for", len(changes))
	}
}

func TestGuardsOverHTTP(t *testing.T) {
	ca := newAuthority(t)
	n := start(t, ca, newFake("a"), nil)
	web := n.web(ca.source(app))
	for _, c := range []struct{ method, path, body, want string }{
		{http.MethodGet, "/v1/guards?resource=db/1", "", `"name":"g1"`},
		{http.MethodGet, "/v1/guarding", "", `"version":"1"`},
		{http.MethodPost, "/v1/guarding", `{"rule":{"prefix":"db/","isolation":"ISOLATION_CLOSE"},"reason":"x"}`, `"version":"2"`},
		{http.MethodPost, "/v1/guards/g1:remove", `{}`, `{}`},
		{http.MethodPost, "/v1/guards:verify", `{}`, `"verdicts":[]`},
	} {
		if status, body := n.call(web, c.method, c.path, c.body); status != http.StatusOK || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
}
