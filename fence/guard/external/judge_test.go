package external_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/external"
	"github.com/writ-io/writ/fence/guard/external/externaltest"
	"github.com/writ-io/writ/fence/guard/route"
)

const resource = "orders"

type stranger struct{}

func (stranger) Grant(string) (fence.Token, bool) { return 0, false }

func newJudge(t testing.TB, gate *externaltest.Gate, stamper external.Stamper) *external.Judge {
	t.Helper()
	j, err := external.NewJudge(external.Config{Admitter: gate, Routes: externaltest.Routes(t, resource), Stamper: stamper})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestConfigIsChecked(t *testing.T) {
	gate, routes := externaltest.New(t), externaltest.Routes(t, resource)
	for field, c := range map[string]external.Config{
		"Admitter": {Routes: routes, Stamper: stranger{}},
		"Routes":   {Admitter: gate, Stamper: stranger{}},
		"Stamper":  {Admitter: gate, Routes: routes},
		"Timeout":  {Admitter: gate, Routes: routes, Stamper: stranger{}, Timeout: -time.Second},
	} {
		if _, err := external.NewJudge(c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v does not name it", field, err)
		}
	}
}

func TestRegionWithoutGrantStampsNothing(t *testing.T) {
	gate := externaltest.New(t, resource)
	_, err := newJudge(t, gate, stranger{}).Decide(t.Context(), external.Request{Method: "POST", Target: "/stamped/1", Host: "x"})
	var refused *fence.UnavailableError
	if !errors.As(err, &refused) || refused.Obstacle != fence.NoGrant {
		t.Errorf("error %v", err)
	}
}

// Upgrades of unguarded routes are nobody's business; those of guarded ones have no end.
func TestUpgrades(t *testing.T) {
	j := newJudge(t, externaltest.New(t, resource), stranger{})
	for target, ok := range map[string]bool{"/open/socket": true, "/orders/1": false} {
		r := external.Request{Method: "GET", Target: target, Host: "x", Header: http.Header{"Upgrade": {"websocket"}}}
		if _, err := j.Decide(t.Context(), r); (err == nil) != ok {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func TestProbe(t *testing.T) {
	gate := externaltest.New(t, resource)
	gate.Raise(resource, externaltest.Token(t, 5))
	j := newJudge(t, gate, stranger{})
	for _, w := range []fence.Write{
		{Resource: resource, Token: externaltest.Token(t, 4)},
		{Resource: resource, Writ: gate.Sign(t, resource, externaltest.Token(t, 4))},
	} {
		if err := j.Probe(t.Context(), w); !errors.Is(err, fence.ErrStale) {
			t.Errorf("an old token: %v", err)
		}
	}
	if err := j.Probe(t.Context(), fence.Write{Resource: resource, Token: externaltest.Token(t, 5)}); err != nil {
		t.Errorf("the newest token: %v", err)
	}
	if ended := gate.Ended(); !slices.Equal(ended, []fence.Outcome{fence.Finished}) {
		t.Errorf("the gate was told %v; nobody carries a canary out", ended)
	}
	if err := j.Probe(t.Context(), fence.Write{Resource: "accounts", Token: 1}); !errors.Is(err, fence.ErrUnguarded) {
		t.Errorf("no route: %v", err)
	}
	if j.Routed("accounts") || !j.Routed(resource) {
		t.Error("Routed is wrong")
	}
}

func FuzzDecide(f *testing.F) {
	gate := externaltest.New(f, resource)
	gate.Raise(resource, externaltest.Token(f, 5))
	j := newJudge(f, gate, stranger{})
	for _, seed := range [][5]string{
		{"POST", "/orders/1?x", "storage:80", "", "1.4"}, {"GET", "//orders", "", "websocket", ""}, {"put", "/orders/%2e%2e/open", "[::1]", "", "1.9"},
		{"CONNECT", "storage:80", "storage:80", "", ""}, {"POST", "http://x/open", "x", "", ""}, {"POST", "/open/../orders/1", "x", "h2c", "9"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	}
	f.Fuzz(func(t *testing.T, method, target, host, upgrade, token string) {
		r := external.Request{Method: method, Target: target, Host: host, Header: http.Header{"Writ-Token": {token}}}
		if upgrade != "" {
			r.Header["Upgrade"] = []string{upgrade}
		}
		before := len(gate.Ended())
		v, err := j.Decide(t.Context(), r)
		switch {
		case err != nil && len(gate.Ended()) != before:
			t.Fatalf("%+v was admitted and refused: %v", r, err)
		case err == nil && v.Match.Checked != (len(gate.Ended()) == before+1):
			t.Fatalf("%+v: %+v, but %d admissions", r, v, len(gate.Ended())-before)
		case err == nil && !v.Match.Checked && v.Match.Guarded && !route.IsRead(method):
			t.Fatalf("%+v is a write and was not checked", r)
		case err == nil && v.Match.Guarded && upgrade != "":
			t.Fatalf("%+v is an upgrade and was let through", r)
		}
	})
}
