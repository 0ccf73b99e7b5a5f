package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
	"github.com/writ-io/writ/cmd/writ/node"
	"github.com/writ-io/writ/lease/leasetest"
)

// The tests start themselves once more, as writ, where a command wants a process of its own.
const mainVariable = "WRIT_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" && len(os.Args) > 1 {
		os.Exit(Main("test", os.Args[1:], node.Commands("test"), node.QuorumCommands("test")))
	}
	proctest.Main() // which is started without arguments
	for _, name := range []string{"WRIT_ENDPOINTS", "WRIT_CA", "WRIT_CERT", "WRIT_KEY", "WRIT_REGION", "WRIT_INSECURE", "WRIT_INSTANCE", "NO_COLOR"} {
		_ = os.Unsetenv(name)
	}
	os.Exit(m.Run())
}

// instant is when the tests look at leases.
var instant = time.Date(2026, time.March, 14, 3, 0, 0, 0, time.UTC)

// result is what a command left behind.
type result struct {
	code           int
	stdout, stderr string
}

// writ runs a command line in this process.
func writ(t *testing.T, args ...string) result {
	t.Helper()
	return writWith(t.Context(), t, args...)
}

func writWith(ctx context.Context, t *testing.T, args ...string) result {
	t.Helper()
	return writBy(ctx, t, nil, args...)
}

// writBy runs it when signals have come already.
func writBy(ctx context.Context, t *testing.T, come []os.Signal, args ...string) result {
	t.Helper()
	signals := make(chan os.Signal, signalsKept)
	defer signal.Stop(signals)
	for _, sig := range come {
		signals <- sig
	}
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	var stdout, stderr bytes.Buffer
	a := &app{stdin: stdin, stdout: &stdout, stderr: &stderr, now: func() time.Time { return instant }, signals: signals}
	code := a.run(ctx, "1.2.3", args, nil, nil)
	return result{code, stdout.String(), stderr.String()}
}

// want compares a result, all of it.
func (r result) want(t *testing.T, code int, stdout, stderr string) {
	t.Helper()
	if r.code != code || r.stdout != stdout || r.stderr != stderr {
		t.Errorf("exit code %d\nstdout:\n%s\nstderr:\n%s\nwant exit code %d\nstdout:\n%s\nstderr:\n%s", r.code, r.stdout, r.stderr, code, stdout, stderr)
	}
}

// field reads a field of JSON output, such as "error.reason".
func field(t *testing.T, text, path string) string {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	for name := range strings.SplitSeq(path, ".") {
		fields, ok := value.(map[string]any)
		if !ok {
			t.Fatalf("no field %s in %s", path, text)
		}
		value = fields[name]
	}
	s, _ := value.(string)
	return s
}

// serve starts nodes of one quorum of test doubles, and puts them into the environment.
func serve(t *testing.T, nodes ...*leasetest.Node) {
	t.Helper()
	var endpoints []string
	for _, node := range nodes {
		endpoints = append(endpoints, listen(t, node))
	}
	t.Setenv("WRIT_ENDPOINTS", strings.Join(endpoints, ","))
	t.Setenv("WRIT_INSECURE", "true")
}

// listen starts a node and returns its endpoint.
func listen(t *testing.T, node *leasetest.Node) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node.Serve(l)
	t.Cleanup(node.Stop)
	return l.Addr().String()
}

// double starts a quorum of one test double, in the environment.
func double(t *testing.T) (*leasetest.Quorum, *leasetest.Node) {
	t.Helper()
	quorum := leasetest.NewQuorum(nil)
	node := leasetest.NewNode(quorum, "node-1", "eu")
	serve(t, node)
	return quorum, node
}

// deadEndpoint is an address where nobody listens.
func deadEndpoint(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// process is writ as a process of its own.
type process struct {
	*exec.Cmd
	stdout *bufio.Scanner
	stderr *bytes.Buffer // to be read after the end
}

// prepare makes a process of writ.
func prepare(env []string, args ...string) *process {
	p := &process{Cmd: exec.Command(os.Args[0], args...), stderr: new(bytes.Buffer)}
	p.Env = slices.Concat(os.Environ(), env, []string{mainVariable + "=1", proctest.Brisk})
	p.Stderr = p.stderr
	return p
}

// begin starts it. It is killed if it does not end for too long.
func (p *process) begin(t *testing.T) {
	t.Helper()
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdout = bufio.NewScanner(out)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(proctest.Patience, func() { _ = p.Process.Kill() })
	t.Cleanup(func() {
		if p.ProcessState == nil { // the test has failed in the middle
			_ = p.signal(syscall.SIGCONT)
			_ = p.signal(syscall.SIGTERM)
			_ = p.Wait()
		}
		watchdog.Stop()
	})
}

func launch(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := prepare(env, args...)
	p.begin(t)
	return p
}

func (p *process) signal(sig syscall.Signal) error { return p.Process.Signal(sig) }

// end waits for the end of the process, and returns its exit code.
func (p *process) end(t *testing.T) int {
	t.Helper()
	for p.stdout.Scan() {
		t.Logf("writ said %q", p.stdout.Text())
	}
	_ = p.Wait() // the code tells
	if p.stderr.Len() > 0 {
		t.Logf("writ said on stderr: %s", p.stderr)
	}
	return p.ProcessState.ExitCode()
}
