package sidecar

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/cmd/writ/node"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
	"github.com/writ-io/writ/quorum/quorumtest/pace"
)

// patience bounds every wait for what must happen.
const patience = pace.Patience

// runCommand makes the test binary the program. It must not begin like the variables of a configuration.
const runCommand = "WRIT_TEST_RUN_GUARD"

func TestMain(m *testing.M) {
	if os.Getenv(runCommand) != "" {
		os.Exit(Main("test", os.Args[1:]))
	}
	os.Exit(pgtest.Main(m))
}

// shortDir is a directory whose name leaves room for that of a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "writ")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// startNode starts a quorum of one node, in this process, and answers its API address.
func startNode(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.yaml")
	text := "grants: [{principals: [\"*\"], prefix: \"\", verbs: [acquire, read, force, admin, guard]}]\nresources: [{prefix: \"\", ttl_max: 1s}]\n"
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	api, peer := freeport.Address(t), freeport.Address(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := node.Start(ctx, node.Config{
		Name: "n1", Region: "eu", Cluster: "test", DataDir: filepath.Join(dir, "n1"), Insecure: true, PolicyFile: policy,
		API: node.Address{Listen: api}, HTTP: node.Address{Listen: freeport.Address(t)}, Peer: node.Address{Listen: peer},
		Bootstrap: node.Bootstrap{Members: map[string]string{"n1": "http://" + peer}},
		Heartbeat: pace.Heartbeat, Election: pace.Election,
	}, node.Options{Version: "test", Logger: testLogger("node")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Errorf("node: %v", err)
		}
	})
	return api
}

func testLogger(name string) hclog.Logger {
	level := os.Getenv("WRIT_TEST_LOG")
	if level == "" {
		return hclog.NewNullLogger()
	}
	return hclog.New(&hclog.LoggerOptions{Name: name, Level: hclog.LevelFromString(level), Output: os.Stderr})
}

// logTo is a log that a test reads.
func logTo(w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "guard", Level: hclog.Info, Output: w})
}

// store is an upstream that counts what reaches it.
type store struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string      // guarded by mu
	hold   chan struct{} // answers wait for it, unless nil
}

func newStore(t testing.TB, hold chan struct{}) *store {
	s := &store{hold: hold}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		s.mu.Lock()
		s.bodies = append(s.bodies, string(body))
		s.mu.Unlock()
		if s.hold != nil && r.Method != http.MethodGet {
			select {
			case <-s.hold:
			case <-r.Context().Done():
			}
		}
		if err == nil {
			w.WriteHeader(http.StatusCreated)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.bodies)
}

// every is a configuration in every form, with routes to resource orders that take bare tokens.
func every(t testing.TB, endpoint, upstream string) Config {
	t.Helper()
	dir := shortDir(t)
	text := fmt.Sprintf(`
name: g1
region: eu
data_dir: %[1]s/data
quorum: {endpoints: ["%[2]s"], insecure: true}
slack: 300ms
listeners: [{name: main, listen: "%[4]s"}]
upstreams: [{name: store, url: "%[3]s"}]
routes: [{path: /orders, resource: orders, upstream: store, trusted: true}]
envoy: {listen: "unix:%[1]s/envoy.sock"}
nginx: {listen: "unix:%[1]s/nginx.sock"}
check: {socket: "%[1]s/check.sock", trust_tokens: true, covers: ["jobs/*"]}
admin: {listen: "%[5]s"}
`, dir, endpoint, upstream, freeport.Address(t), freeport.Address(t))
	path := filepath.Join(dir, "guard.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// file is that of every.
func (c Config) file() string { return filepath.Join(filepath.Dir(c.DataDir), "guard.yaml") }

// get asks the admin listener.
func get(t testing.TB, c Config, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + c.Admin.Listen + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// await polls until done answers true.
func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); !done(); <-look.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func awaitReady(t testing.TB, c Config) {
	t.Helper()
	said := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("readyz said %s", said)
		}
	})
	await(t, "readiness", func() bool {
		status, body := get(t, c, "/readyz")
		said = body
		return status == http.StatusOK
	})
}

// put writes through the proxy.
func put(c Config, token string) (status int, body string) {
	request, err := http.NewRequest(http.MethodPut, "http://"+c.Listeners[0].Listen+"/orders/1", strings.NewReader("x"))
	if err != nil {
		return 0, err.Error()
	}
	request.Header.Set("Writ-Token", token)
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// unixClient talks to a socket.
func unixClient(t testing.TB, path string) *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// process is the program as a process of its own.
type process struct {
	cmd    *exec.Cmd
	exited chan error
	log    *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func run(t testing.TB, program string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, args...), exited: make(chan error, 1), log: &lockedBuffer{}}
	p.cmd.Env = append(os.Environ(), runCommand+"=1")
	p.cmd.Stderr, p.cmd.Stdout = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		if t.Failed() {
			t.Logf("the process said:\n%s", p.log)
		}
	})
	return p
}

func (p *process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// end waits for the process and answers its exit code.
func (p *process) end(t testing.TB) int {
	t.Helper()
	select {
	case err := <-p.exited:
		p.exited <- err // for whoever asks again
	case <-time.After(patience):
		t.Fatal("the process goes on")
	}
	return p.cmd.ProcessState.ExitCode()
}

// statusOf reads a field of /proc/PID/status in KiB.
func (p *process) statusOf(t testing.TB, field string) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int
		if _, err := fmt.Sscanf(lines.Text(), field+": %d kB", &kib); err == nil {
			return kib
		}
	}
	t.Fatalf("no %s in the status", field)
	return 0
}

// processorTime is what the process has used, by the kernel's ticks of 10 ms.
func (p *process) processorTime(t testing.TB) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ") // after the name, which may hold anything
	var user, system int64
	if _, err := fmt.Sscanf(rest, "%s %d %d %d %d %d %d %d %d %d %d %d %d", new(string), new(int), new(int), new(int), new(int), new(int),
		new(uint64), new(uint64), new(uint64), new(uint64), new(uint64), &user, &system); err != nil {
		t.Fatalf("%q: %v", rest, err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

func decodeJSON(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}
