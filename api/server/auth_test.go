package server

import (
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/writ-io/writ/api/server/identity"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/lease/clock/bubble"
	"github.com/writ-io/writ/quorum"
)

// lastPrincipal records for whom the quorum was asked last.
func lastPrincipal(q *fakeQuorum) *atomic.Value {
	var last atomic.Value
	last.Store(lease.Principal(""))
	q.onAcquire = func(_ context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		last.Store(cmd.Principal)
		return grantOf(cmd), nil
	}
	return &last
}

func TestPrincipalComesFromTheCertificate(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	last := lastPrincipal(q)
	n := start(t, ca, q, nil)
	for _, c := range []struct {
		subject identity.Subject
		want    lease.Principal
	}{
		{identity.Subject{Name: "s", SPIFFE: "spiffe://test/app/billing", DNS: []string{"x.example"}}, "spiffe://test/app/billing"},
		{identity.Subject{Name: "d", DNS: []string{"cron.example", "x.example"}}, "cron.example"},
	} {
		source := ca.open(ca.files(c.subject))
		if _, err := n.dialAs(source).leases.Acquire(testContext(t), acquireRequest("a/b")); err != nil {
			t.Fatal(err)
		}
		if got := last.Load(); got != c.want {
			t.Errorf("over gRPC: decided for %q, want %q", got, c.want)
		}
		last.Store(lease.Principal(""))
		if status, body := n.call(n.web(source), http.MethodPost, "/v1/leases/a/b:acquire", `{"ttl":"10s"}`); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		if got := last.Load(); got != c.want {
			t.Errorf("over HTTP: decided for %q, want %q", got, c.want)
		}
	}
}

func TestCertificateWithoutNameIsRefused(t *testing.T) {
	ca := newAuthority(t)
	n := start(t, ca, newFake("a"), nil)
	nameless := ca.open(ca.files(identity.Subject{Name: "nameless"}))
	_, err := n.dialAs(nameless).leases.Acquire(testContext(t), acquireRequest("a/b"))
	wantReason(t, err, lease.ReasonUnauthenticated, "neither a SPIFFE ID nor a DNS name", "common name")
	status, body := n.call(n.web(nameless), http.MethodGet, "/v1/leases", "")
	if status != http.StatusUnauthorized || !strings.Contains(body, "neither a SPIFFE ID nor a DNS name") {
		t.Errorf("%d %s", status, body)
	}
}

// rawCredentials presents a certificate that identity.Open would refuse.
func rawCredentials(t *testing.T, n *node, files identity.Files) credentials.TransportCredentials {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	config := n.ca.source("spiffe://test/template").ClientConfig("127.0.0.1")
	config.Certificates = []tls.Certificate{pair}
	return credentials.NewTLS(config)
}

func TestUnusableCertificatesAreRefusedAndExplained(t *testing.T) {
	ca, foreign := newAuthority(t), newAuthority(t)
	n := start(t, ca, newFake("a"), nil)
	refused := func(name string, cl *client, toldTo, logged string) {
		t.Helper()
		_, err := cl.leases.Acquire(testContext(t), acquireRequest("a/b"))
		if err == nil || !strings.Contains(err.Error(), toldTo) {
			t.Errorf("%s: the client got %v, want %q", name, err, toldTo)
		}
		eventually(t, "the log says "+logged, func() bool {
			return strings.Contains(n.log.String(), logged) && strings.Contains(n.log.String(), "CN="+name)
		})
	}
	theirs := foreign.files(identity.Subject{Name: "alien", SPIFFE: "spiffe://test/app"})
	theirs.CAFile = ca.ca.File()
	refused("alien", n.dialAs(ca.open(theirs)), "unknown certificate authority", "is not signed by an authority in")

	// identity.Open refuses to present this one, so that plain TLS does: what the client sees is then up to chance.
	late := ca.files(identity.Subject{
		Name: "late", SPIFFE: "spiffe://test/late", NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	})
	refused("late", dialTo(t, n.grpc, grpc.WithTransportCredentials(rawCredentials(t, n, late))), "", "has expired or is not valid yet")
}

func TestServerCertificateIsReloaded(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	subject := identity.Subject{Name: "server", SPIFFE: nodePrefix + "a", IPs: loopbackIPs}
	files := ca.files(subject)
	source := ca.open(files)
	n := start(t, ca, q, func(c *Config) { c.Identity = source })
	app := ca.source("spiffe://test/app")
	serial := func() string {
		conn, err := app.DialTLS(testContext(t), "tcp", n.http)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	ca.files(subject) // replaces the pair
	if err := source.Reload(); err != nil {
		t.Fatal(err)
	}
	second := serial()
	if second == first {
		t.Error("the new certificate is not served")
	}
	if err := os.WriteFile(files.CertFile, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := source.Reload(); err == nil {
		t.Error("a broken file was adopted")
	}
	if serial() != second {
		t.Error("a broken file took the certificate away")
	}
	if _, err := n.dialAs(app).leases.Acquire(testContext(t), acquireRequest("a/b")); err != nil {
		t.Errorf("new connection after a broken file: %v", err)
	}
}

// Only nodes may speak for others, and nobody may pose as the HTTP server.
func TestForwardedPrincipal(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	last := lastPrincipal(q)
	q.setNodes(quorum.Node{Name: "a", Principal: nodePrefix + "a"}, quorum.Node{Name: "b", Principal: nodePrefix + "b"})
	n := start(t, ca, q, nil)
	acquire := func(as string, pairs ...string) error {
		last.Store(lease.Principal(""))
		ctx := metadata.AppendToOutgoingContext(testContext(t), pairs...)
		_, err := n.dial(as).leases.Acquire(ctx, acquireRequest("a/b"))
		return err
	}
	const app = "spiffe://test/app"

	wantReason(t, acquire(app, keyForwarded, "spiffe://test/sre"), lease.ReasonDenied, "is not a node")
	wantReason(t, acquire(app, keyForwarded, app), lease.ReasonDenied)
	wantReason(t, acquire(app, "Writ-Forwarded-Principal", "spiffe://test/sre"), lease.ReasonDenied)
	if got := last.Load(); got != lease.Principal("") {
		t.Errorf("a spoofed request reached the quorum as %q", got)
	}
	if err := acquire(nodePrefix+"b", keyForwarded, "spiffe://test/sre"); err != nil || last.Load() != lease.Principal("spiffe://test/sre") {
		t.Errorf("a node that forwards: %v, decided for %q", err, last.Load())
	}
	wantReason(t, acquire(nodePrefix+"b", keyForwarded, ""), lease.ReasonUnauthenticated)
	wantReason(t, acquire(nodePrefix+"b", keyForwarded, app, keyForwarded, "x"), lease.ReasonInvalid)
	for _, key := range []string{keyGateway, keyInsecure} {
		if err := acquire(app, key, "spiffe://test/sre"); err != nil || last.Load() != lease.Principal(app) {
			t.Errorf("%s: %v, decided for %q, want %q", key, err, last.Load(), app)
		}
	}

	// A node that was removed loses the right.
	q.setNodes(quorum.Node{Name: "a", Principal: nodePrefix + "a"})
	b := n.dial(nodePrefix + "b")
	eventually(t, "a removed node is refused", func() bool {
		_, err := b.leases.Acquire(metadata.AppendToOutgoingContext(testContext(t), keyForwarded, app), acquireRequest("a/b"))
		return lease.ReasonOf(err) == lease.ReasonDenied
	})
}

func TestHTTPHeadersAreNoMetadata(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	last := lastPrincipal(q)
	q.setNodes(quorum.Node{Name: "a", Principal: nodePrefix + "a"})
	n := start(t, ca, q, nil)
	for _, as := range []string{"spiffe://test/app", nodePrefix + "a"} {
		for _, key := range []string{keyForwarded, keyGateway, keyInsecure} {
			for _, prefix := range []string{"", "Grpc-Metadata-", "Grpcgateway-"} {
				req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, n.url("/v1/leases/a/b:acquire"), strings.NewReader(`{"ttl":"10s"}`))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set(prefix+key, "spiffe://test/sre")
				resp, err := n.web(ca.source(as)).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if got := last.Swap(lease.Principal("")); resp.StatusCode != http.StatusOK || got != lease.Principal(as) {
					t.Errorf("header %s: status %d, decided for %q, want %q", prefix+key, resp.StatusCode, got, as)
				}
			}
		}
	}
}

func TestPeerServiceIsForNodes(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	q.setNodes(quorum.Node{Name: "b", Principal: nodePrefix + "b"})
	n := start(t, ca, q, nil)
	req := &writv1.RenewBatchRequest{Parts: []*writv1.RenewPart{{
		Principal: "spiffe://test/app", Request: &writv1.RenewRequest{Leases: []*writv1.LeaseRef{{Resource: "a/b", Token: uint64(token(7))}}},
	}}}
	_, err := n.dial("spiffe://test/app").peers.RenewBatch(testContext(t), req)
	wantReason(t, err, lease.ReasonDenied, "spiffe://test/app is not a node")
	// Whoever was just admitted may be known here a little later, and asks again.
	if fail := judge(err, true); !fail.again || fail.sent {
		t.Errorf("a node that is not known yet: %+v", fail)
	}
	resp, err := n.dial(nodePrefix+"b").peers.RenewBatch(testContext(t), req)
	if err != nil || len(resp.GetParts()) != 1 || len(resp.GetParts()[0].GetFailures()) != 0 {
		t.Errorf("a node: %v, %v", resp, err)
	}
}

func TestInsecureCallersSayWhoTheyAre(t *testing.T) {
	q := newFake("a")
	last := lastPrincipal(q)
	n := start(t, nil, q, nil)
	c := dialTo(t, n.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	for _, said := range []string{"", "spiffe://test/app"} {
		ctx, want := testContext(t), insecurePrincipal
		if said != "" {
			ctx, want = metadata.AppendToOutgoingContext(ctx, keyInsecure, said), lease.Principal(said)
		}
		if _, err := c.leases.Acquire(ctx, acquireRequest("a/b")); err != nil || last.Load() != want {
			t.Errorf("said %q: %v, decided for %q, want %q", said, err, last.Load(), want)
		}
	}
	if status, body := n.call(http.DefaultClient, http.MethodPost, "/v1/leases/a/b:acquire", `{"ttl":"10s"}`); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	if !strings.Contains(n.log.String(), "serving without TLS") {
		t.Error("no warning about serving without TLS")
	}
}

// The authenticator by itself: what no path through the servers should ever present is refused all the same.
func TestAuthenticatorFailsClosed(t *testing.T) {
	q := newFake("a")
	q.setNodes(quorum.Node{Name: "b", Principal: nodePrefix + "b"})
	a := &authenticator{nodes: &nodeSet{quorum: q, clock: clock.Monotonic()}}
	for _, c := range []struct {
		name   string
		info   credentials.AuthInfo
		md     metadata.MD
		reason lease.Reason
	}{
		{"no TLS", nil, nil, lease.ReasonUnauthenticated},
		{"no TLS, but a name", nil, metadata.Pairs(keyInsecure, app, keyGateway, app), lease.ReasonUnauthenticated},
		{"TLS of others", credentials.TLSInfo{}, nil, lease.ReasonUnauthenticated},
		{"gateway without a name", inProcess{}, nil, lease.ReasonUnauthenticated},
		{"gateway with two names", inProcess{}, metadata.Pairs(keyGateway, app, keyGateway, "x"), lease.ReasonUnauthenticated},
		{"gateway that forwards", inProcess{}, metadata.Pairs(keyGateway, nodePrefix+"b", keyForwarded, app), lease.ReasonDenied},
		{"gateway", inProcess{}, metadata.Pairs(keyGateway, app), ""},
		{"node that forwards", identity.AuthInfo{Principal: nodePrefix + "b"}, metadata.Pairs(keyForwarded, app), ""},
	} {
		ctx := peer.NewContext(metadata.NewIncomingContext(t.Context(), c.md), &peer.Peer{AuthInfo: c.info})
		got, err := a.authenticate(ctx)
		if lease.ReasonOf(err) != c.reason {
			t.Errorf("%s: %v, want %q", c.name, err, c.reason)
		}
		if err == nil && callerOf(got).principal != app {
			t.Errorf("%s: is %q, want %q", c.name, callerOf(got).principal, app)
		}
	}
	if _, err := a.authenticate(t.Context()); lease.ReasonOf(err) != lease.ReasonUnauthenticated {
		t.Errorf("no peer: %v", err)
	}
}

// A node that has just been started cannot tell a node from a stranger. It lets neither in, and says that this passes, so that
// a lease is not given up for it.
func TestForwardingBeforeTheNodesAreKnown(t *testing.T) {
	q := newFake("a")
	q.setNodes()
	bubble.Test(t, func(t *testing.T) {
		a := &authenticator{nodes: &nodeSet{quorum: q, clock: clock.Monotonic()}}
		forward := func(info credentials.AuthInfo) error {
			md := metadata.Pairs(keyGateway, app, keyForwarded, app)
			_, err := a.authenticate(peer.NewContext(metadata.NewIncomingContext(t.Context(), md), &peer.Peer{AuthInfo: info}))
			return err
		}
		node := identity.AuthInfo{Principal: nodePrefix + "b"}
		if err := forward(node); lease.ReasonOf(err) != lease.ReasonNoQuorum {
			t.Errorf("before: %v", err)
		}
		if err := forward(inProcess{}); lease.ReasonOf(err) != lease.ReasonDenied {
			t.Errorf("the gateway: %v", err)
		}
		q.setNodes(quorum.Node{Name: "a", Principal: nodePrefix + "a"})
		time.Sleep(nodesFresh)
		if err := forward(node); lease.ReasonOf(err) != lease.ReasonDenied {
			t.Errorf("another node, where only one is known: %v", err)
		}
		q.setNodes(quorum.Node{Name: "b", Principal: nodePrefix + "b"})
		time.Sleep(nodesFresh)
		if err := forward(node); err != nil {
			t.Errorf("then: %v", err)
		}
	})
}
