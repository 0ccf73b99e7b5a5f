package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/quorum"
)

func TestPolicyVerbs(t *testing.T) {
	grants, err := policy.Parse([]byte(`
grants:
  - {principals: ["spiffe://test/user"], prefix: "own/", verbs: [acquire]}
  - {principals: ["spiffe://test/reader"], prefix: "own/", verbs: [read]}
  - {principals: ["spiffe://test/sre"], prefix: "own/", verbs: [force]}
  - {principals: ["spiffe://test/admin"], prefix: "", verbs: [admin]}
`))
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, newAuthority(t), newFake("a"), func(c *Config) { c.Policy = grants })
	ctx := testContext(t)
	tok := uint64(token(7))
	calls := []struct {
		name, allowed string
		call          func(*client, string) error
	}{
		{"Acquire", "user", func(c *client, r string) error { _, err := c.leases.Acquire(ctx, acquireRequest(r)); return err }},
		{"CancelAcquire", "user", func(c *client, r string) error {
			_, err := c.leases.CancelAcquire(ctx, &writv1.CancelAcquireRequest{Resource: r, RequestId: "x"})
			return err
		}},
		{"Release", "user", func(c *client, r string) error {
			_, err := c.leases.Release(ctx, &writv1.ReleaseRequest{Resource: r, Token: tok})
			return err
		}},
		{"Checkpoint", "user", func(c *client, r string) error {
			_, err := c.leases.Checkpoint(ctx, &writv1.CheckpointRequest{Resource: r, Token: tok})
			return err
		}},
		{"IssueWrit", "user", func(c *client, r string) error {
			_, err := c.fences.IssueWrit(ctx, &writv1.IssueWritRequest{Resource: r, Token: tok})
			return err
		}},
		{"Renew", "user", func(c *client, r string) error {
			resp, err := c.leases.Renew(ctx, renewRequest(r))
			if err == nil && len(resp.GetFailures()) > 0 {
				err = lease.Errorf(lease.Reason(resp.GetFailures()[0].GetReason()), "%s", resp.GetFailures()[0].GetMessage())
			}
			return err
		}},
		{"Get", "reader", func(c *client, r string) error {
			_, err := c.leases.Get(ctx, &writv1.GetRequest{Resource: r})
			return err
		}},
		{"List", "reader", func(c *client, r string) error {
			_, err := c.leases.List(ctx, &writv1.ListRequest{Prefix: r})
			return err
		}},
		{"Watch", "reader", func(c *client, r string) error { return watchOnce(ctx, c, r) }},
		{"ForceRelease", "sre", func(c *client, r string) error {
			_, err := c.leases.ForceRelease(ctx, &writv1.ForceReleaseRequest{Resource: r, Reason: "x"})
			return err
		}},
		{"MemberAdd", "admin", func(c *client, _ string) error {
			_, err := c.cluster.MemberAdd(ctx, &writv1.MemberAddRequest{Name: "c", PeerUrl: "http://c"})
			return err
		}},
		{"MemberRemove", "admin", func(c *client, _ string) error {
			_, err := c.cluster.MemberRemove(ctx, &writv1.MemberRemoveRequest{Name: "c"})
			return err
		}},
		{"MoveCoordinator", "admin", func(c *client, _ string) error {
			_, err := c.cluster.MoveCoordinator(ctx, &writv1.MoveCoordinatorRequest{})
			return err
		}},
		{"Snapshot", "admin", func(c *client, _ string) error {
			stream, err := c.cluster.Snapshot(ctx, &writv1.SnapshotRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}},
		{"Status", "*", func(c *client, _ string) error { _, err := c.cluster.Status(ctx, &writv1.StatusRequest{}); return err }},
		{"Keys", "*", func(c *client, _ string) error { _, err := c.fences.Keys(ctx, &writv1.KeysRequest{}); return err }},
		{"Health", "*", func(c *client, _ string) error {
			_, err := healthpb.NewHealthClient(c.conn).Check(ctx, &healthpb.HealthCheckRequest{})
			return err
		}},
	}
	for _, who := range []string{"user", "reader", "sre", "admin", "nobody"} {
		c := n.dial("spiffe://test/" + who)
		for _, call := range calls {
			err := call.call(c, "own/thing")
			if allowed := call.allowed == who || call.allowed == "*"; allowed != (err == nil) {
				t.Errorf("%s calls %s: %v, allowed: %v", who, call.name, err, allowed)
			} else if err != nil {
				wantReason(t, err, lease.ReasonDenied, "spiffe://test/"+who)
			}
			if call.allowed == who && who != "admin" {
				wantReason(t, call.call(c, "other/thing"), lease.ReasonDenied, "other/thing")
			}
		}
	}
	if n.metric("writ_server_refused_total", "policy") == 0 {
		t.Error("refusals are not counted")
	}
}

func watchOnce(ctx context.Context, c *client, prefix string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.leases.Watch(ctx, &writv1.WatchRequest{Prefix: prefix})
	if err != nil {
		return err
	}
	header, err := stream.Header()
	if err == nil && len(header.Get(keyWatching)) == 0 {
		_, err = stream.Recv()
	}
	return err
}

// Without a policy nobody may do anything.
func TestNoPolicyDeniesEverything(t *testing.T) {
	n := start(t, newAuthority(t), newFake("a"), func(c *Config) { c.Policy = nil })
	_, err := n.dial(app).leases.Acquire(testContext(t), acquireRequest("a/b"))
	wantReason(t, err, lease.ReasonDenied, "policy", "acquire")
}

func TestRateLimit(t *testing.T) {
	manual := clock.NewManual(1)
	m, err := newMetrics(prometheusRegistry(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	l := newLimiter(Limits{RatePerSecond: 10, Burst: 2, MaxConcurrent: 3}, manual, m)
	enter := func(p lease.Principal, forwarded bool) error {
		done, err := l.enter(&caller{principal: p, forwarded: forwarded})
		done()
		return err
	}
	for range 2 {
		if err := enter("x", false); err != nil {
			t.Fatalf("within the burst: %v", err)
		}
	}
	err = enter("x", false)
	wantReason(t, err, lease.ReasonLimit, "x asks more than 10 times a second")
	var limit *lease.Error
	if !errors.As(err, &limit) || limit.RetryAfter != 100*time.Millisecond {
		t.Errorf("retry after %v, want 100 ms", limit.RetryAfter)
	}
	if err := enter("y", false); err != nil {
		t.Errorf("another principal: %v", err)
	}
	if err := enter("x", true); err != nil {
		t.Errorf("what another node has counted: %v", err)
	}
	manual.Advance(100 * time.Millisecond)
	if err := enter("x", false); err != nil {
		t.Errorf("after the wait: %v", err)
	}
	for i := range maxLimited + 10 {
		_ = enter(lease.Principal(fmt.Sprint(i)), false)
	}
	if n := len(l.byName); n != maxLimited || l.recent.Len() != n {
		t.Errorf("%d principals are remembered, want %d", n, maxLimited)
	}
	unlimited := newLimiter(Limits{RatePerSecond: -1, MaxConcurrent: -1}, manual, m)
	for range 1000 {
		if _, err := unlimited.enter(&caller{principal: "x"}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRateLimitIsAnsweredWithARetryTime(t *testing.T) {
	ca := newAuthority(t)
	n := start(t, ca, newFake("a"), func(c *Config) { c.Limits = Limits{RatePerSecond: 0.01, Burst: 1} })
	c := n.dial(app)
	if _, err := c.leases.Get(testContext(t), &writv1.GetRequest{Resource: "a/b"}); err != nil {
		t.Fatal(err)
	}
	_, err := c.leases.Get(testContext(t), &writv1.GetRequest{Resource: "a/b"})
	wantReason(t, err, lease.ReasonLimit)
	status, body := n.call(n.web(ca.source(app)), http.MethodGet, "/v1/leases/a/b", "")
	if status != http.StatusTooManyRequests || !strings.Contains(body, `"retryAfter"`) {
		t.Errorf("%d %s", status, body)
	}
	if n.metric("writ_server_refused_total", "rate") != 2 {
		t.Error("refusals are not counted")
	}
}

func TestConcurrencyLimit(t *testing.T) {
	q := newFake("a")
	taken, _ := blocked(q)
	n := start(t, newAuthority(t), q, func(c *Config) { c.Limits.MaxConcurrent = 2 })
	c := n.dial(app)
	ctx, cancel := context.WithCancel(testContext(t))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { _, _ = c.leases.Acquire(ctx, acquireRequest("a/b")) })
		<-taken
	}
	_, err := c.leases.Get(testContext(t), &writv1.GetRequest{Resource: "a/b"})
	wantReason(t, err, lease.ReasonLimit, "2 requests are under way")
	cancel()
	wg.Wait()
	eventually(t, "there is room again", func() bool {
		_, err := c.leases.Get(testContext(t), &writv1.GetRequest{Resource: "a/b"})
		return err == nil
	})
}

func TestPanicCostsOneCall(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	q.onAcquire = func(context.Context, lease.Acquire) (lease.AcquireOutcome, error) { panic("boom") }
	q.onWatch = func(context.Context, string, string, func(quorum.WatchEvent) error) error { return nil }
	q.onList = func(quorum.ListQuery) (quorum.ListPage, error) { panic("bang") }
	n := start(t, ca, q, nil)
	c := n.dial(app)
	_, err := c.leases.Acquire(testContext(t), acquireRequest("secret/resource"))
	wantReason(t, err, lease.ReasonInternal, "defect")
	if strings.Contains(err.Error(), "boom") {
		t.Errorf("the caller learns of the panic: %v", err)
	}
	status, body := n.call(n.web(ca.source(app)), http.MethodGet, "/v1/leases", "")
	if status != http.StatusInternalServerError || strings.Contains(body, "bang") {
		t.Errorf("%d %s", status, body)
	}
	log := n.log.String()
	if !strings.Contains(log, "boom") || !strings.Contains(log, "bang") || !strings.Contains(log, "leases.go") {
		t.Errorf("the log lacks panic or stack: %s", log)
	}
	if _, err := c.leases.Get(testContext(t), &writv1.GetRequest{Resource: "a/b"}); err != nil {
		t.Errorf("the server did not go on: %v", err)
	}
}

// What is not ours to tell stays in the log.
func TestForeignErrorsStayInTheLog(t *testing.T) {
	q := newFake("a")
	q.onAcquire = func(context.Context, lease.Acquire) (lease.AcquireOutcome, error) {
		return lease.AcquireOutcome{}, fmt.Errorf("disk /dev/sda is full")
	}
	n := start(t, newAuthority(t), q, nil)
	_, err := n.dial(app).leases.Acquire(testContext(t), acquireRequest("a/b"))
	wantReason(t, err, lease.ReasonInternal)
	if strings.Contains(err.Error(), "sda") || !strings.Contains(n.log.String(), "sda") {
		t.Errorf("caller got %v, log %s", err, n.log.String())
	}
}

func TestLargeRequests(t *testing.T) {
	ca := newAuthority(t)
	n := start(t, ca, newFake("a"), nil)
	tenMiB := make([]byte, 10<<20)
	c := n.dial(app)
	_, err := c.leases.Acquire(testContext(t), &writv1.AcquireRequest{Resource: "a/b", Metadata: tenMiB})
	if st := status.Convert(err); st.Code() != codes.ResourceExhausted || !strings.Contains(st.Message(), "larger than max") {
		t.Errorf("over gRPC: %v", err)
	}
	code, body := n.call(n.web(ca.source(app)), http.MethodPost, "/v1/leases/a/b:acquire", `{"metadata":"`+strings.Repeat("A", 10<<20)+`"}`)
	if code != http.StatusRequestEntityTooLarge || !strings.Contains(body, "larger than 4194304 bytes") || !strings.Contains(body, `"fix"`) {
		t.Errorf("over HTTP: %d %.300s", code, body)
	}
	// What fits the transport is judged by field.
	_, err = c.leases.Acquire(testContext(t), &writv1.AcquireRequest{Resource: "a/b", Ttl: acquireRequest("").GetTtl(), Metadata: tenMiB[:lease.MaxMetadataBytes+1]})
	wantInvalid(t, err, "metadata")
	_, err = c.leases.Checkpoint(testContext(t), &writv1.CheckpointRequest{Resource: "a/b", Token: 1, Data: tenMiB[:lease.MaxCheckpointBytes+1]})
	wantInvalid(t, err, "data")
	// Headers are bounded too.
	ctx := metadata.AppendToOutgoingContext(testContext(t), "x", strings.Repeat("y", 20<<20))
	if _, err = c.leases.Get(ctx, &writv1.GetRequest{Resource: "a/b"}); err == nil {
		t.Error("20 MiB of headers are accepted")
	}
}

func TestHalfARequest(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	last := lastPrincipal(q)
	n := start(t, ca, q, nil)
	source := ca.source(app)

	conn, err := source.DialTLS(testContext(t), "tcp", n.http)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "POST /v1/leases/a/b:acquire HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"ttl\":")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(*tls.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(answer, []byte("400 Bad Request")) || !bytes.Contains(answer, []byte("did not arrive whole")) {
		t.Errorf("HTTP: %s", answer)
	}
	_ = conn.Close()

	// The first bytes of HTTP/2, and then nothing.
	conn, err = tls.Dial("tcp", n.grpc, withProtocol(source.ClientConfig("127.0.0.1"), "h2"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00"); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()

	if _, err := n.dialAs(source).leases.Get(testContext(t), &writv1.GetRequest{Resource: "a/b"}); err != nil {
		t.Errorf("the server did not go on: %v", err)
	}
	if got := last.Load(); got != lease.Principal("") {
		t.Errorf("half a request was decided for %q", got)
	}
}

func withProtocol(config *tls.Config, protocol string) *tls.Config {
	config.NextProtos = []string{protocol}
	return config
}

// Every method of every service is known to authorisation: what is new is denied until somebody has thought about it.
func TestEveryMethodIsAuthorised(t *testing.T) {
	n := start(t, newAuthority(t), newFake("a"), nil)
	c := n.dial(app)
	for service, info := range n.server.grpc.GetServiceInfo() {
		for _, method := range info.Methods {
			if method.IsClientStream {
				continue // reflection
			}
			name := "/" + service + "/" + method.Name
			var err error
			if method.IsServerStream {
				var stream grpc.ClientStream
				ctx, cancel := context.WithCancel(testContext(t))
				stream, err = c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
				if err == nil {
					err = stream.SendMsg(&writv1.StatusRequest{})
				}
				if err == nil {
					_, err = stream.Header()
				}
				cancel()
			} else {
				err = c.conn.Invoke(testContext(t), name, &writv1.StatusRequest{}, &writv1.StatusResponse{})
			}
			if err != nil && strings.Contains(err.Error(), "not known to the policy") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
