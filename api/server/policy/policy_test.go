package policy_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/api/server/policy"
	"github.com/writ-io/writ/lease"
)

const good = `
# who may do what
grants:
  - principals: ["spiffe://example/app/*", "cron.example"]
    prefix: "billing/"
    verbs: [acquire, read]
  - principals: ["spiffe://example/sre"]
    prefix: ""
    verbs: [acquire, read, force, admin]
  - principals: ["*"]
    prefix: "public"
    verbs: [read]
  - principals: ["spiffe://example/oncall"]
    prefix: "orders"
    verbs: [promote, group]
  - principals: ["spiffe://example/agent"]
    prefix: "orders"
    verbs: [agent]
  - principals: ["spiffe://example/auditor"]
    prefix: ""
    verbs: [audit]
resources:
  - prefix: "billing/"
    ttl_min: 1s
    ttl_max: 5m
    lock_delay: 10s
    max_leases: 1000
    regions: [eu, us]
  - prefix: ""
    ttl_max: 30s
`

func parse(t *testing.T, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAllows(t *testing.T) {
	p := parse(t, good)
	for _, c := range []struct {
		principal lease.Principal
		verb      policy.Verb
		name      string
		want      bool
	}{
		{"spiffe://example/app/a", policy.Acquire, "billing/nightly", true},
		{"spiffe://example/app/a", policy.Read, "billing/", true},
		{"spiffe://example/app/a", policy.Read, "billing", false}, // a listing that shows more than billing/
		{"spiffe://example/app/a", policy.Read, "", false},
		{"spiffe://example/app/a", policy.Acquire, "billing-archive", false},
		{"spiffe://example/app/a", policy.Force, "billing/nightly", false},
		{"spiffe://example/app/a", policy.Admin, "", false},
		{"spiffe://example/app", policy.Acquire, "billing/nightly", false},
		{"spiffe://example/App/a", policy.Acquire, "billing/nightly", false},
		{"cron.example", policy.Acquire, "billing/nightly", true},
		{"cron.example.org", policy.Acquire, "billing/nightly", false},
		{"spiffe://example/sre", policy.Force, "billing/nightly", true},
		{"spiffe://example/sre", policy.Admin, "", true},
		{"spiffe://example/sre2", policy.Admin, "", false},
		{"nobody", policy.Read, "public-key", true},
		{"nobody", policy.Acquire, "public-key", false},
		{"", policy.Read, "billing/nightly", false},
		{"spiffe://example/oncall", policy.Promote, "orders-eu", true},
		{"spiffe://example/oncall", policy.Group, "orders", true},
		{"spiffe://example/oncall", policy.Promote, "payments", false},
		{"spiffe://example/oncall", policy.Agent, "orders", false},
		{"spiffe://example/agent", policy.Agent, "orders", true},
		{"spiffe://example/agent", policy.Promote, "orders", false},
		{"spiffe://example/auditor", policy.Audit, "", true},
		{"spiffe://example/sre", policy.Audit, "", false},
	} {
		// Twice: the second answer is remembered.
		for range 2 {
			if got := p.Allows(c.principal, c.verb, c.name); got != c.want {
				t.Errorf("Allows(%q, %v, %q) = %v, want %v", c.principal, c.verb, c.name, got, c.want)
			}
		}
	}
	if policy.DenyAll().Allows("spiffe://example/sre", policy.Read, "x") {
		t.Error("DenyAll allows")
	}
	if !policy.AllowAll().Allows("anybody", policy.Admin, "") {
		t.Error("AllowAll denies")
	}
}

func TestParseResources(t *testing.T) {
	want := lease.Policy{Rules: []lease.PolicyRule{
		{Prefix: "billing/", MinTTL: time.Second, MaxTTL: 5 * time.Minute, LockDelay: 10 * time.Second, MaxLeases: 1000, Regions: []string{"eu", "us"}},
		{Prefix: "", MaxTTL: 30 * time.Second},
	}}
	if got := parse(t, good).Resources; !reflect.DeepEqual(got, want) {
		t.Errorf("resources %+v, want %+v", got, want)
	}
	if p := parse(t, "grants: []"); p.Allows("a", policy.Read, "b") {
		t.Error("no grants allow something")
	}
}

func TestParseErrorsNameThePlace(t *testing.T) {
	grant := func(rest string) string { return "grants:\n  - " + rest }
	for _, c := range []struct{ name, text, field, want string }{
		{"empty", "", "policy", "empty"},
		{"only a comment", "# nothing\n", "policy", "empty"},
		{"list", "- a\n", "policy", "YAML mapping"},
		{"not YAML", "grants: [", "policy", "YAML"},
		{"duplicate key", "grants: []\ngrants: []\n", "policy", "already defined"},
		{"two documents", "grants: []\n---\ngrants: []\n", "policy", "more than one YAML document"},
		{"unknown key at the top", "grant: []\n", "grant", "not a known key"},
		{"unknown key in a grant", grant(`{principal: [a], principals: [a], prefix: "", verbs: [read]}`), "grants[0].principal", "not a known key"},
		{"other case", grant(`{Principals: [a], prefix: "", verbs: [read]}`), "grants[0].Principals", "not a known key"},
		{"no principals", grant(`{prefix: "", verbs: [read]}`), "grants[0].principals", "empty"},
		{"empty principal", grant(`{principals: [""], prefix: "", verbs: [read]}`), "grants[0].principals", "empty name"},
		{"star inside", grant(`{principals: ["a*b"], prefix: "", verbs: [read]}`), "grants[0].principals", `"a*b"`},
		{"no prefix", grant(`{principals: [a], verbs: [read]}`), "grants[0].prefix", "missing"},
		{"no verbs", grant(`{principals: [a], prefix: ""}`), "grants[0].verbs", "empty"},
		{"unknown verb", grant(`{principals: [a], prefix: "", verbs: [read, write]}`), "grants[0].verbs", `"write"`},
		{"audit under a prefix", grant(`{principals: [a], prefix: "b/", verbs: [audit]}`), "grants[0].verbs", "audit"},
		{"admin under a prefix", grant(`{principals: [a], prefix: "b/", verbs: [admin]}`), "grants[0].verbs", "admin"},
		{"verbs of a wrong type", grant(`{principals: [a], prefix: "", verbs: {read: true}}`), "policy", "wrong type"},
		{"duration without a unit", `resources: [{prefix: "", ttl_max: 5}]`, "policy", "wrong type"},
		{"bad duration", `resources: [{prefix: "", ttl_max: "5 s"}]`, "resources[0].ttl_max", `"5 s"`},
		{"negative duration", `resources: [{prefix: "", lock_delay: -1s}]`, "resources[0].lock_delay", "-1s"},
		{"no resource prefix", `resources: [{ttl_max: 5s}]`, "resources[0].prefix", "missing"},
		{"repeated prefix", `resources: [{prefix: a}, {prefix: a}]`, "resources[1]", "repeats"},
		{"TTL out of range", `resources: [{prefix: a, ttl_max: 1000h}]`, "ttl_max", "1000h"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := policy.Parse([]byte(c.text))
			var invalid *lease.Error
			if !errors.As(err, &invalid) || invalid.Reason != lease.ReasonInvalid {
				t.Fatalf("error %v, want INVALID", err)
			}
			if !strings.Contains(invalid.Field, c.field) || !strings.Contains(err.Error(), c.want) || invalid.Fix == "" {
				t.Errorf("error %q (field %q, fix %q), want field %q and %q", err, invalid.Field, invalid.Fix, c.field, c.want)
			}
		})
	}
}

func TestFileKeepsTheLastGoodState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := policy.Open(path, nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	write("nonsense: 1")
	if _, err := policy.Open(path, nil, nil); !errors.Is(err, lease.ErrInvalid) || !strings.Contains(err.Error(), path) {
		t.Errorf("broken file: %v", err)
	}
	write(good)
	var log bytes.Buffer
	var seen []*policy.Policy
	f, err := policy.Open(path, hclog.New(&hclog.LoggerOptions{Output: &log}), func(p *policy.Policy) { seen = append(seen, p) })
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := f.Reload(); changed || err != nil || len(seen) != 0 {
		t.Errorf("unchanged file: changed %v, error %v, told %d", changed, err, len(seen))
	}
	write("grants: [")
	for range 3 {
		if changed, err := f.Reload(); changed || err == nil {
			t.Errorf("broken file: changed %v, error %v", changed, err)
		}
	}
	if got := strings.Count(log.String(), "[ERROR]"); got != 1 {
		t.Errorf("logged %d times: %s", got, log.String())
	}
	if !f.Allows("cron.example", policy.Acquire, "billing/nightly") {
		t.Error("a broken file took rights away")
	}
	write(`grants: [{principals: [x], prefix: "", verbs: [read]}]`)
	if changed, err := f.Reload(); !changed || err != nil || len(seen) != 1 || seen[0] != f.Policy() {
		t.Errorf("new file: changed %v, error %v, told %d", changed, err, len(seen))
	}
	if f.Allows("cron.example", policy.Acquire, "billing/nightly") || !f.Allows("x", policy.Read, "a") {
		t.Error("the new state does not apply")
	}
}

func TestFileIsWatched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte("grants: []"), 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan *policy.Policy, 1)
	f, err := policy.Open(path, nil, func(p *policy.Policy) { told <- p })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { f.Watch(ctx, time.Millisecond) })
	next := filepath.Join(t.TempDir(), "next.yaml")
	if err := os.WriteFile(next, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	select {
	case p := <-told:
		if !p.Allows("cron.example", policy.Acquire, "billing/nightly") {
			t.Error("told of another state than the file's")
		}
	case <-time.After(time.Minute):
		t.Error("not told of the change")
	}
	cancel()
	wg.Wait()
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("grants: []"))
	f.Add([]byte("grants:\n  - {principals: [\"*\"], prefix: \"\", verbs: [read]}\n---\n"))
	f.Add([]byte("resources: [{prefix: a, ttl_min: 1s, regions: [eu]}]"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Parse(data)
		if err != nil {
			var invalid *lease.Error
			if !errors.As(err, &invalid) || invalid.Reason != lease.ReasonInvalid || invalid.Field == "" || invalid.Fix == "" {
				t.Fatalf("error %v does not name field and fix", err)
			}
			return
		}
		if err := p.Resources.Validate(); err != nil {
			t.Fatalf("accepted rules that do not validate: %v", err)
		}
		for _, g := range p.Grants {
			if g.Verbs == 0 || len(g.Principals) == 0 {
				t.Fatalf("accepted an empty grant %+v", g)
			}
			for _, pattern := range g.Principals {
				if !p.Allows(lease.Principal(strings.TrimSuffix(pattern, "*")), g.Verbs, g.Prefix) {
					t.Fatalf("%q does not have the grant %+v", pattern, g)
				}
			}
		}
	})
}

func BenchmarkAllows(b *testing.B) {
	p, err := policy.Parse([]byte(good))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p.Allows("spiffe://example/app/a", policy.Acquire, "billing/nightly")
	}
}
