package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-io/writ/api/server/identity"
	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// TestMain holds that nothing of this package goes on after its servers have stopped.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := leaked(); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked waits until no goroutine is in this package any more, and answers those that stay.
func leaked() string {
	var left string
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-look.C {
		stacks := make([]byte, 4<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		left = ""
		for _, stack := range strings.Split(string(stacks), "\n\n") {
			if (strings.Contains(stack, "writ/api/server.") || strings.Contains(stack, "google.golang.org/grpc")) && !strings.Contains(stack, "TestMain") {
				left += stack + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
	}
	return left
}

// loopbackIPs are what test servers are reached at.
var loopbackIPs = []net.IP{net.IPv4(127, 0, 0, 1)}

// authority issues the certificates of one test.
type authority struct {
	t  testing.TB
	ca *identity.CA
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	ca, err := identity.NewCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, ca}
}

func (a *authority) files(subject identity.Subject) identity.Files {
	a.t.Helper()
	files, err := a.ca.Issue(subject)
	if err != nil {
		a.t.Fatal(err)
	}
	return files
}

// source is an identity with a SPIFFE ID.
func (a *authority) source(spiffe string) *identity.Source {
	a.t.Helper()
	name := strings.NewReplacer("/", "_", ":", "").Replace(spiffe)
	return a.open(a.files(identity.Subject{Name: name, SPIFFE: spiffe, IPs: loopbackIPs}))
}

func (a *authority) open(files identity.Files) *identity.Source {
	a.t.Helper()
	source, err := identity.Open(files, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return source
}

// node is a server under test.
type node struct {
	t      testing.TB
	ca     *authority
	server *Server
	quorum *fakeQuorum
	log    *syncBuffer
	grpc   string
	http   string
	info   quorum.Node
	served chan error
}

const nodePrefix = "spiffe://test/node/"

// start runs a server with TLS that allows everything to everybody, unless edit changes that.
func start(t testing.TB, ca *authority, q *fakeQuorum, edit func(*Config)) *node {
	t.Helper()
	log := &syncBuffer{}
	config := Config{
		Policy:  policy.AllowAll(),
		Logger:  hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info}),
		Version: "v-test",
		Forward: Forward{Patience: 500 * time.Millisecond, Timeout: 5 * time.Second},
	}
	if ca == nil {
		config.Insecure = true
	} else {
		files := ca.files(identity.Subject{Name: "node-" + q.name, SPIFFE: nodePrefix + q.name, IPs: loopbackIPs})
		var err error
		if config.Identity, err = identity.Open(files, config.Logger); err != nil {
			t.Fatal(err)
		}
	}
	if edit != nil {
		edit(&config)
	}
	server, err := New(q, config)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, ca: ca, server: server, quorum: q, log: log, served: make(chan error, 1)}
	api, web := loopback(t), loopback(t)
	n.grpc, n.http = api.Addr().String(), web.Addr().String()
	n.info = quorum.Node{Name: q.name, APIAddress: n.grpc, HTTPAddress: n.http, Principal: lease.Principal(nodePrefix + q.name)}
	go func() { n.served <- server.Serve(api, web) }()
	// A short test must not be over before: what is stopped does not serve any more, and says so.
	eventually(t, "it serves", func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		return server.serving
	})
	t.Cleanup(func() {
		server.Stop()
		if err := <-n.served; err != nil {
			t.Errorf("serving %s: %v", q.name, err)
		}
		n.served <- nil
	})
	return n
}

func loopback(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// client is a caller with an identity.
type client struct {
	conn    *grpc.ClientConn
	leases  writv1.LeaseServiceClient
	fences  writv1.FenceServiceClient
	cluster writv1.ClusterServiceClient
	peers   writv1.PeerServiceClient
	regions writv1.RegionServiceClient
}

func (n *node) dial(principal string, opts ...grpc.DialOption) *client {
	n.t.Helper()
	return n.dialAs(n.ca.source(principal), opts...)
}

func (n *node) dialAs(source *identity.Source, opts ...grpc.DialOption) *client {
	n.t.Helper()
	return dialTo(n.t, n.grpc, append(opts, grpc.WithTransportCredentials(source.ClientCredentials()))...)
}

func dialTo(t testing.TB, addr string, opts ...grpc.DialOption) *client {
	t.Helper()
	conn, err := grpc.NewClient(addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &client{
		conn: conn, leases: writv1.NewLeaseServiceClient(conn), fences: writv1.NewFenceServiceClient(conn),
		cluster: writv1.NewClusterServiceClient(conn), peers: writv1.NewPeerServiceClient(conn),
		regions: writv1.NewRegionServiceClient(conn),
	}
}

// web is an HTTP client with an identity; a nil source: without a certificate.
func (n *node) web(source *identity.Source) *http.Client {
	n.t.Helper()
	if source == nil {
		source = n.ca.source("spiffe://test/unused")
		transport := &http.Transport{TLSClientConfig: source.ClientConfig("127.0.0.1")}
		transport.TLSClientConfig.Certificates = nil
		n.t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	transport := &http.Transport{DialTLSContext: source.DialTLS}
	n.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (n *node) url(path string) string {
	if n.ca == nil {
		return "http://" + n.http + path
	}
	return "https://" + n.http + path
}

// call makes one HTTP request and answers status and body.
func (n *node) call(c *http.Client, method, path, body string) (int, string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(testContext(n.t), method, n.url(path), strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// testContext ends with the test, or when it hangs.
func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func acquireRequest(resource string) *writv1.AcquireRequest {
	return &writv1.AcquireRequest{Resource: resource, Ttl: durationpb.New(10 * time.Second), RequestId: "r1"}
}

// wantReason fails unless err is an API error of that reason, whose text holds all of words.
func wantReason(t testing.TB, err error, reason lease.Reason, words ...string) {
	t.Helper()
	if got := lease.ReasonOf(err); got != reason {
		t.Errorf("error %v with reason %q, want %s", err, got, reason)
		return
	}
	for _, word := range words {
		if !strings.Contains(status.Convert(err).Message(), word) && !strings.Contains(fmt.Sprint(err), word) {
			t.Errorf("error %q lacks %q", err, word)
		}
	}
}

func wantInvalid(t testing.TB, err error, field string) {
	t.Helper()
	var e *lease.Error
	if !errors.As(lease.FromError(err), &e) || e.Reason != lease.ReasonInvalid || e.Field != field || e.Fix == "" {
		t.Errorf("error %v, want INVALID for the field %s with a fix", err, field)
	}
}

// eventually waits for something that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-look.C {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// metric answers the value of a counter or gauge, or the count of a histogram; label picks one by any label's value.
func (n *node) metric(name, label string) float64 {
	n.t.Helper()
	families, err := n.server.config.Registry.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			matches := label == ""
			for _, l := range m.GetLabel() {
				matches = matches || l.GetValue() == label
			}
			if matches {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}

func renewRequest(resources ...string) *writv1.RenewRequest {
	req := &writv1.RenewRequest{}
	for _, r := range resources {
		req.Leases = append(req.Leases, &writv1.LeaseRef{Resource: r, Token: uint64(token(7))})
	}
	return req
}

func prometheusRegistry() *prometheus.Registry { return prometheus.NewRegistry() }
