package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/cmd/writ-guard/sidecar"
	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
	"github.com/writ-io/writ/cmd/writ/node"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
	"github.com/writ-io/writ/quorum/quorumtest/pace"
)

// A quorum is lost, and two people let its guard go on: everything by the command, before a real node and a real guard.
func TestBreakglassForReal(t *testing.T) {
	needKeygen(t)
	dir := t.TempDir()
	l := &live{T: t, dir: dir}
	t.Chdir(dir)
	text := "approvers:\n"
	for _, person := range []string{"ada", "bob"} {
		keygen(t, "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, person))
		line, err := os.ReadFile(filepath.Join(dir, person+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("  - name: %s\n    keys: [%q]\n", person, strings.TrimSpace(string(line)))
	}
	file := func(name, data string) string {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	api, peer, admin, front := freeport.Address(t), freeport.Address(t), freeport.Address(t), freeport.Address(t)
	ctx, cancel := context.WithTimeout(t.Context(), proctest.Patience)
	defer cancel()
	n, err := node.Start(ctx, node.Config{
		Name: "n1", Region: "eu", Cluster: "prod", DataDir: filepath.Join(dir, "n1"), Insecure: true, Approvers: file("approvers.yaml", text+"rule: {people: 2}\n"),
		PolicyFile: file("policy.yaml", "grants: [{principals: [\"*\"], prefix: \"\", verbs: [acquire, read, force, admin, guard]}]\nresources: [{prefix: \"\", ttl_max: 1s}]\n"),
		API:        node.Address{Listen: api}, HTTP: node.Address{Listen: freeport.Address(t)}, Peer: node.Address{Listen: peer},
		Bootstrap: node.Bootstrap{Members: map[string]string{"n1": "http://" + peer}}, Heartbeat: pace.Heartbeat, Election: pace.Election,
		Lease: node.Lease{GuardLease: time.Second},
	}, node.Options{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Stop(context.Background()) //nolint:errcheck // it may have been stopped
	t.Setenv("WRIT_ENDPOINTS", api)
	t.Setenv("WRIT_INSECURE", "true")
	repeat(t, "the rule", func() bool {
		return l.writ("guard", "protect", "orders", "--reason", "test").code == 0
	})

	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }))
	defer store.Close()
	config, err := sidecar.Load(file("guard.yaml", fmt.Sprintf(`
name: eu-db
region: eu
data_dir: guard
quorum: {endpoints: [%q], insecure: true}
slack: 100ms
listeners: [{name: main, listen: %q}]
upstreams: [{name: store, url: %q}]
routes: [{path: /, resource: orders, upstream: store, trusted: true}]
admin: {listen: %q}
`, api, front, store.URL, admin)), nil)
	if err != nil {
		t.Fatal(err)
	}
	guard, err := sidecar.Start(config, sidecar.Options{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer guard.Stop(context.Background()) //nolint:errcheck // what was under way may not have been drained
	write := func() int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+front+"/x", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Writ-Token", "1.5")
		resp, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	repeat(t, "a write", func() bool { return write() == http.StatusCreated })

	file("status.json", l.must(0, "", "quorum", "status", "-o", "json").stdout)
	file("guards.json", l.must(0, "eu-db", "guard", "list", "-o", "json").stdout)
	plan := []string{
		"breakglass", "plan", "--to", "eu", "--guard", admin, "--resource", "orders=shop", "--status", "status.json", "--guards", "guards.json",
		"--attest", "region=us:flooded, site manager on the phone, ticket 71", "--reason", "us and ap lost", "--valid-for", "4h", "--out", "cert.json",
	}
	repeat(t, "the approvers", func() bool { return !strings.Contains(l.writ(plan...).stderr, "remembers no quorum") })
	l.must(2, "the quorum lives", plan...)
	if err := n.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	repeat(t, "the end of the guard's lease", func() bool { return write() == http.StatusServiceUnavailable })

	l.must(1, "--attest says nothing of any other region", without(plan, "region=us")...)
	l.must(0, "eu writes under 1.5", plan...)
	digest := field(t, l.must(0, "", "breakglass", "show", "cert.json", "-o", "json").stdout, "digest")
	apply := []string{"breakglass", "apply", "cert.json", "--guard", admin}
	l.must(4, "needs the signature of 2 more people", apply...)
	l.must(0, ": 1", "breakglass", "sign", "cert.json", "--key", "ada", "--yes", "--digest", digest)
	l.must(2, "already", "breakglass", "sign", "cert.json", "--key", "ada", "--yes", "--digest", digest)
	l.must(4, "needs the signature of 1 more person", apply...)
	l.must(0, ": 2", "breakglass", "sign", "cert.json", "--key", "bob", "--yes", "--digest", digest)
	repeat(t, "the certificate to be taken", func() bool { return l.writ(apply...).code == 0 })
	l.must(0, "OPEN for orders", apply...) // once more is no error
	if status := write(); status != http.StatusCreated {
		t.Errorf("a write under the certificate: %d", status)
	}
}

// repeat polls until done answers true.
func repeat(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(proctest.Patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
