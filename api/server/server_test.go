package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-io/writ/api/server/identity"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func TestConfigNamesTheField(t *testing.T) {
	ca := newAuthority(t)
	node := ca.source(nodePrefix + "a")
	nameless := ca.open(ca.files(identity.Subject{Name: "nameless"}))
	for _, c := range []struct {
		name   string
		config Config
		want   string
	}{
		{"neither TLS nor insecure", Config{}, "tls is missing"},
		{"both", Config{Identity: node, Insecure: true}, "insecure is set together with tls"},
		{"node without a name", Config{Identity: nameless}, "neither a SPIFFE ID nor a DNS name"},
		{"burst", Config{Insecure: true, Limits: Limits{Burst: -1}}, "limits.burst is -1"},
		{"rate", Config{Insecure: true, Limits: Limits{RatePerSecond: 1e-9}}, "limits.rate_per_second is 1e-09"},
		{"request size", Config{Insecure: true, Limits: Limits{MaxRequestBytes: 1}}, "limits.max_request_bytes is 1"},
		{"patience", Config{Insecure: true, Forward: Forward{Patience: -1}}, "forward.patience is -1ns"},
		{"timeout", Config{Insecure: true, Forward: Forward{Timeout: -1}}, "forward.timeout is -1ns"},
		{"age", Config{Insecure: true, MaxConnectionAge: time.Second}, "max_connection_age is 1s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(newFake("a"), c.config)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if err := (Config{Identity: node, Limits: Limits{RatePerSecond: -1, MaxConcurrent: -1}}).Validate(); err != nil {
		t.Error(err)
	}
	registry := prometheusRegistry()
	s, err := New(newFake("a"), Config{Insecure: true, Registry: registry})
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if _, err := New(newFake("b"), Config{Insecure: true, Registry: registry}); err == nil || !strings.Contains(err.Error(), "registry of its own") {
		t.Errorf("two servers on one registry: %v", err)
	}
}

func TestHealthFollowsReadiness(t *testing.T) {
	q := newFake("a")
	n := start(t, newAuthority(t), q, nil)
	c := healthpb.NewHealthClient(n.dial(app).conn)
	watch, err := c.Watch(testContext(t), &healthpb.HealthCheckRequest{Service: "writ.v1.LeaseService"})
	if err != nil {
		t.Fatal(err)
	}
	want := func(status healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		resp, err := c.Check(testContext(t), &healthpb.HealthCheckRequest{})
		if err != nil || resp.GetStatus() != status {
			t.Errorf("check: %v, %v, want %v", resp, err, status)
		}
		if resp, err = watch.Recv(); err != nil || resp.GetStatus() != status {
			t.Errorf("watch: %v, %v, want %v", resp, err, status)
		}
	}
	want(healthpb.HealthCheckResponse_SERVING)
	q.setNotReady("no majority answers")
	want(healthpb.HealthCheckResponse_NOT_SERVING)
	q.setNotReady("")
	want(healthpb.HealthCheckResponse_SERVING)
}

func TestMetricsTellHowFullTheStoreIs(t *testing.T) {
	n := start(t, newAuthority(t), newFake("a"), nil)
	for name, want := range map[string]float64{
		"writ_server_store_bytes": 900, "writ_server_store_soft_quota_bytes": 800, "writ_server_store_over_quota": 1,
	} {
		if got := n.metric(name, ""); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestReflection(t *testing.T) {
	n := start(t, newAuthority(t), newFake("a"), nil)
	stream, err := reflectionpb.NewServerReflectionClient(n.dial(app).conn).ServerReflectionInfo(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil || !strings.Contains(resp.String(), "writ.v1.LeaseService") {
		t.Errorf("%v, %v", resp, err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
}

// A server that stops gracefully lets calls finish, and sends those elsewhere that would wait.
func TestGracefulStop(t *testing.T) {
	q := newFake("a")
	release, taken := make(chan struct{}), make(chan struct{}, 2)
	q.onAcquire = func(ctx context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		taken <- struct{}{}
		if cmd.Wait > 0 {
			<-ctx.Done()
			return lease.AcquireOutcome{}, ctx.Err()
		}
		<-release
		return grantOf(cmd), nil
	}
	ca := newAuthority(t)
	n := start(t, ca, q, nil)
	c := n.dial(app)
	ctx := testContext(t)
	var calls sync.WaitGroup
	calls.Go(func() {
		if _, err := c.leases.Acquire(ctx, acquireRequest("a/b")); err != nil {
			t.Errorf("a call under way: %v", err)
		}
	})
	calls.Go(func() {
		req := acquireRequest("a/c")
		req.Wait = durationpb.New(time.Minute)
		_, err := c.leases.Acquire(ctx, req)
		wantReason(t, err, lease.ReasonUnknownOutcome, "shutting down", "another node")
	})
	<-taken
	<-taken
	watch, err := c.leases.Watch(ctx, &writv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Header(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- n.server.GracefulStop(ctx) }()
	_, err = watch.Recv()
	wantReason(t, err, lease.ReasonNoQuorum, "shutting down", "resume token")
	if reason := n.server.health.notReady(); reason != errDraining.Error() {
		t.Errorf("a node that shuts down is not ready because %q", reason)
	}
	close(release)
	calls.Wait()
	if err := <-stopped; err != nil {
		t.Errorf("GracefulStop: %v", err)
	}
	if _, err := c.leases.Acquire(ctx, acquireRequest("a/b")); err == nil {
		t.Error("a stopped server answers")
	}
	if err := n.server.GracefulStop(ctx); err != nil {
		t.Errorf("GracefulStop again: %v", err)
	}
}

func TestGracefulStopIsBounded(t *testing.T) {
	q := newFake("a")
	taken, abandoned := blocked(q)
	n := start(t, newAuthority(t), q, nil)
	c := n.dial(app)
	var calls sync.WaitGroup
	calls.Go(func() {
		if _, err := c.leases.Acquire(testContext(t), acquireRequest("a/b")); err == nil {
			t.Error("a call that hangs succeeded")
		}
	})
	<-taken
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if err := n.server.GracefulStop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("GracefulStop: %v", err)
	}
	<-abandoned // the handler has ended before GracefulStop returned
	calls.Wait()
}

func TestServeEndsWhenAListenerBreaks(t *testing.T) {
	for _, broken := range []string{"gRPC", "HTTP"} {
		s, err := New(newFake("a"), Config{Insecure: true})
		if err != nil {
			t.Fatal(err)
		}
		api, web := loopback(t), loopback(t)
		served := make(chan error, 1)
		go func() { served <- s.Serve(api, web) }()
		eventually(t, "the server answers", func() bool {
			resp, err := http.Get("http://" + web.Addr().String() + "/healthz")
			if err == nil {
				_ = resp.Body.Close()
			}
			return err == nil
		})
		http.DefaultClient.CloseIdleConnections()
		if broken == "gRPC" {
			_ = api.Close()
		} else {
			_ = web.Close()
		}
		if err := <-served; err == nil || !strings.Contains(err.Error(), "serving "+broken) {
			t.Errorf("%s listener broke: Serve returned %v", broken, err)
		}
		if conn, err := net.Dial("tcp", web.Addr().String()); err == nil {
			_ = conn.Close()
			t.Errorf("%s listener broke: HTTP is still served", broken)
		}
	}
}

func TestServeAfterStop(t *testing.T) {
	s, err := New(newFake("a"), Config{Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	s.Stop()
	if err := s.Serve(loopback(t), nil); err == nil {
		t.Error("a stopped server serves")
	}
}

// Without HTTP, gRPC is served all the same.
func TestServeWithoutHTTP(t *testing.T) {
	ca := newAuthority(t)
	s, err := New(newFake("a"), Config{Identity: ca.source(nodePrefix + "a")})
	if err != nil {
		t.Fatal(err)
	}
	l := loopback(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l, nil) }()
	c := dialTo(t, l.Addr().String(), grpc.WithTransportCredentials(ca.source(app).ClientCredentials()))
	if _, err := c.cluster.Status(testContext(t), &writv1.StatusRequest{}); err != nil {
		t.Error(err)
	}
	s.Stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
