package sidecar

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/config"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/fence/guard/external/check"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
)

// start starts a sidecar that is stopped at the end.
func start(t *testing.T, c Config) *Sidecar {
	t.Helper()
	s, err := Start(c, Options{Version: "test", Logger: testLogger("guard")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil && !errors.Is(err, guard.ErrNotDrained) {
			t.Errorf("stop: %v", err)
		}
	})
	return s
}

// All forms stand before the same gate: a token that one of them has admitted is the floor of the others.
func TestEveryFormBeforeARealQuorum(t *testing.T) {
	store := newStore(t, nil)
	c := every(t, startNode(t), store.URL)
	s := start(t, c)
	awaitReady(t, c)

	if status, body := put(c, "1000.5"); status != http.StatusCreated {
		t.Fatalf("proxy: status %d: %s", status, body)
	}
	if status, body := put(c, "1000.4"); status != http.StatusPreconditionFailed || !strings.Contains(body, `"reason":"STALE_TOKEN"`) {
		t.Errorf("proxy, stale: status %d: %s", status, body)
	}
	if status, _ := get(t, c, "/healthz"); status != http.StatusOK {
		t.Errorf("healthz: %d", status)
	}
	if n := store.count(); n != 1 {
		t.Errorf("the storage got %d requests, want 1", n)
	}
	testCheckSocket(t, c)
	testNginxListener(t, c)
	testEnvoyListener(t, c)

	if status, body := get(t, c, "/metrics"); status != http.StatusOK || !strings.Contains(body, "writ_guard_") || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics: %d, %.200s", status, body)
	}
	_, body := get(t, c, "/status")
	var d description
	decodeJSON(t, body, &d)
	if !d.Ready || !d.Enrolled || d.Quorum != "test" || d.Form != "proxy+extauthz+auth_request+check" || d.Refused < 4 || d.Floors != 1 || d.LeaseLeft <= 0 {
		t.Errorf("status %+v", d)
	}

	token, err := fence.NewToken(1000, 4)
	if err != nil {
		t.Fatal(err)
	}
	refused, detail := s.probe(guard.WithCanary(t.Context()), &writv1.GuardProbe{Resource: "orders", Token: uint64(token)})
	if !refused || strings.Count(detail, "STALE_TOKEN") != 4 {
		t.Errorf("a canary: refused %v: %s; want the refusal of each of four forms", refused, detail)
	}
	if refused, detail := s.probe(t.Context(), &writv1.GuardProbe{Resource: "elsewhere", Token: uint64(token)}); refused {
		t.Errorf("a canary to nowhere counts as refused: %s", detail)
	}
	if refused, detail := s.probe(t.Context(), &writv1.GuardProbe{Resource: "orders", Token: uint64(token + 1)}); refused || !strings.Contains(detail, "admitted") {
		t.Errorf("a canary with the newest token: refused %v: %s", refused, detail)
	}
	if n := store.count(); n != 1 {
		t.Errorf("a canary has reached the storage: %d requests", n)
	}
}

func testCheckSocket(t *testing.T, c Config) {
	t.Helper()
	client := check.NewClient(c.Check.Socket)
	defer client.Close()
	stale, err := fence.ParseToken("1000.4")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Admit(t.Context(), fence.Write{Resource: "orders", Token: stale}); !errors.Is(err, fence.ErrStale) {
		t.Errorf("check API, stale: %v", err)
	}
	if _, err := client.Admit(t.Context(), fence.Write{Resource: "elsewhere", Token: stale}); !errors.Is(err, fence.ErrUnguarded) {
		t.Errorf("check API, not covered: %v", err)
	}
	a, err := client.Admit(t.Context(), fence.Write{Resource: "orders", Token: stale + 1})
	if err != nil {
		t.Fatalf("check API: %v", err)
	}
	a.Done(fence.Finished)
}

func testNginxListener(t *testing.T, c Config) {
	t.Helper()
	path, _ := strings.CutPrefix(c.Nginx.Listen, unixPrefix)
	for token, want := range map[string]string{"1000.4": "412", "1000.5": ""} {
		request, err := http.NewRequest(http.MethodGet, "http://guard/", nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"X-Original-Method": "PUT", "X-Original-URI": "/orders/1", "X-Original-Host": "store", "Writ-Token": token,
		} {
			request.Header.Set(name, value)
		}
		resp, err := unixClient(t, path).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Writ-Status"); got != want {
			t.Errorf("nginx, token %s: %d with status %q, want %q", token, resp.StatusCode, got, want)
		}
	}
}

func testEnvoyListener(t *testing.T, c Config) {
	t.Helper()
	conn, err := grpc.NewClient(c.Envoy.Listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for token, want := range map[string]int{"1000.4": 412, "1000.5": 0} {
		response, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), &authv3.CheckRequest{
			Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Method: "PUT", Path: "/orders/1", Host: "store", Headers: map[string]string{"writ-token": token},
			}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := int(response.GetDeniedResponse().GetStatus().GetCode()); got != want {
			t.Errorf("envoy, token %s: status %d, want %d", token, got, want)
		}
	}
}

// Without a quorum the guard listens, says why it is not ready, and lets nothing through.
func TestNothingPassesBeforeTheQuorumIsHeard(t *testing.T) {
	store := newStore(t, nil)
	c := every(t, freeport.Address(t), store.URL)
	start(t, c)
	await(t, "the reason", func() bool {
		status, body := get(t, c, "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "has not heard from the quorum") && strings.Contains(body, "refused")
	})
	if status, body := put(c, "1000.5"); status != http.StatusServiceUnavailable || !strings.Contains(body, "NOT_SEEDED") {
		t.Errorf("a write: status %d: %s", status, body)
	}
	if n := store.count(); n != 0 {
		t.Errorf("%d requests have reached the storage", n)
	}
}

// A start that is refused lets go of everything that it had.
func TestStartThatFailsLetsGo(t *testing.T) {
	c := every(t, freeport.Address(t), "http://127.0.0.1:1")
	taken, err := net.Listen("tcp", c.Admin.Listen)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Start(c, Options{})
	var wrong *config.Error
	if !errors.As(err, &wrong) || wrong.Field != "admin.listen" || !strings.Contains(wrong.Fix, "choose a free address") {
		t.Errorf("error %v", err)
	}
	taken.Close()
	start(t, c) // the same addresses, sockets and floor store
}

func TestTwoGuardsCannotShareADirectory(t *testing.T) {
	c := every(t, freeport.Address(t), "http://127.0.0.1:1")
	start(t, c)
	other := every(t, freeport.Address(t), "http://127.0.0.1:1")
	other.DataDir = c.DataDir
	s, err := Start(other, Options{})
	if err == nil {
		_ = s.Stop(context.Background())
		t.Fatal("two guards have one floor store")
	}
	if !strings.Contains(err.Error(), c.DataDir) {
		t.Errorf("%v does not name the directory", err)
	}
}

func TestListenerThatFailsEndsTheGuard(t *testing.T) {
	s, err := Start(every(t, freeport.Address(t), "http://127.0.0.1:1"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.fronts[0].listener.Close()
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatal("nobody notices")
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "main") {
		t.Errorf("error %v", err)
	}
	if err := s.Stop(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("stop answers %v, want why it had failed", err)
	}
}

func TestProcessStopsInOrder(t *testing.T) {
	store := newStore(t, make(chan struct{}))
	c := every(t, startNode(t), store.URL)
	p := run(t, os.Args[0], "--config", c.file())
	awaitReady(t, c)
	answered := make(chan int, 1)
	go func() {
		status, _ := put(c, "1000.5")
		answered <- status
	}()
	await(t, "the write to be under way", func() bool { return store.count() == 1 })
	p.signal(t, syscall.SIGTERM)
	await(t, "the refusal of new ones", func() bool {
		status, _ := get(t, c, "/readyz")
		return status == http.StatusServiceUnavailable
	})
	close(store.hold)
	if status := <-answered; status != http.StatusCreated {
		t.Errorf("the write under way: status %d", status)
	}
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, path := range []string{"envoy.sock", "nginx.sock", "check.sock"} {
		if _, err := os.Lstat(filepath.Join(filepath.Dir(c.DataDir), path)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left behind: %v", path, err)
		}
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	store := newStore(t, make(chan struct{}))
	defer close(store.hold)
	c := every(t, startNode(t), store.URL)
	p := run(t, os.Args[0], "--config", c.file())
	awaitReady(t, c)
	go put(c, "1000.5") // ends with the process
	await(t, "the write to be under way", func() bool { return store.count() == 1 })
	p.signal(t, syscall.SIGTERM)
	await(t, "the beginning of the stop", func() bool { return strings.Contains(p.log.String(), "stopping") })
	// Another one within the echo is the same once more, so it is repeated until it counts.
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		again := time.NewTicker(20 * time.Millisecond)
		defer again.Stop()
		for ; len(p.exited) == 0; <-again.C {
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		}
	}()
	<-ended
	if code := p.end(t); code != 1 || !strings.Contains(p.log.String(), "second signal") {
		t.Errorf("exit code %d, log %s", code, p.log)
	}
}

func TestCommandChecksConfigurations(t *testing.T) {
	c := every(t, freeport.Address(t), "http://127.0.0.1:1")
	p := run(t, os.Args[0], "--check-config", "--config", c.file())
	if code := p.end(t); code != 0 || !strings.Contains(p.log.String(), "good") {
		t.Errorf("exit code %d: %s", code, p.log)
	}
	if _, err := os.Stat(c.DataDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("checking has made the data directory: %v", err)
	}
	if err := os.WriteFile(c.file(), []byte("name: x\nslac: 1s"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = run(t, os.Args[0], "--check-config", "--config", c.file())
	if code := p.end(t); code != 1 || !strings.Contains(p.log.String(), "slac: is not a known key: did you mean slack?") {
		t.Errorf("exit code %d: %s", code, p.log)
	}
	p = run(t, os.Args[0], "--example")
	if code := p.end(t); code != 0 || p.log.String() != exampleYAML {
		t.Errorf("exit code %d: %.100s", code, p.log)
	}
}
