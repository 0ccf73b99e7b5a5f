//go:build linux

package jepsen_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/netns"
)

const (
	// guardLease and slack are G and W. Pauses of guards stay below half of W, so that a busy machine has the other half.
	guardLease = 3 * time.Second
	slack      = 2 * time.Second
	drainTime  = time.Second
	writerTTL  = 1500 * time.Millisecond
	guardCount = 3
	guardPort  = "8080"
)

// The parties of the network beside the nodes.
const (
	storeParty    = "store"
	observerParty = "observer" // is never cut
)

func guardParty(i int) string { return fmt.Sprintf("guard%d", i+1) }

// labConfig says what to build.
type labConfig struct {
	unguarded bool   // the guards let everything pass
	atomic    bool   // the store compares tokens itself
	postgres  string // the DSN of what the store keeps the list in
	writers   int
}

// lab is a quorum, three guards, a store and writers, each in a network namespace of its own.
type lab struct {
	config  labConfig
	dir     string
	seed    uint64
	net     *netns.Net
	nodes   *cluster.Cluster
	set     *cluster.Processes
	guards  [guardCount]*cluster.Program
	store   *cluster.Program
	writers []*labWriter
	book    *book
}

// labWriter is a writer, with its restarts.
type labWriter struct {
	*cluster.Program
	party    string
	restarts int

	mu    sync.Mutex
	stdin io.WriteCloser // guarded by mu; of the present process
}

func (w *labWriter) tell(command string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := fmt.Fprintln(w.stdin, command)
	return err
}

// finish has the writer end when it has done what it is doing.
func (w *labWriter) finish(ctx context.Context) error {
	w.mu.Lock()
	err := w.stdin.Close()
	w.mu.Unlock()
	return errors.Join(err, w.Await(ctx))
}

// startLab builds a lab and waits until the guards are enrolled. It is torn down when the test ends.
func startLab(t *testing.T, seed uint64, config labConfig) *lab {
	t.Helper()
	if err := netns.Supported(); err != nil && os.Getenv("WRIT_CI") != "1" {
		t.Skip(err)
	}
	writ, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	guard, err := guardBinary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l := &lab{config: config, dir: t.TempDir(), seed: seed, book: newBook()}
	l.buildNet(t)
	l.set = cluster.NewProcesses()
	t.Cleanup(l.set.Close)
	l.startNodes(ctx, t, writ)
	l.startStore(t)
	if !config.unguarded {
		l.protect(ctx, t)
	}
	for i := range l.guards {
		l.addGuard(t, i, guard)
	}
	l.awaitGuards(ctx, t)
	for i := range config.writers {
		l.addWriter(t, i)
	}
	return l
}

func (l *lab) buildNet(t *testing.T) {
	t.Helper()
	parties := append([]string{storeParty, observerParty}, cluster.Regions[:]...)
	for i := range l.guards {
		parties = append(parties, guardParty(i))
	}
	for i := range l.config.writers {
		parties = append(parties, fmt.Sprintf("writer%d", i+1))
	}
	var err error
	if l.net, err = netns.New(parties...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.net.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (l *lab) startNodes(ctx context.Context, t *testing.T, binary string) {
	t.Helper()
	addresses := make([]string, cluster.Size)
	for i, name := range cluster.Regions {
		addresses[i] = l.net.Address(name)
	}
	var err error
	l.nodes, err = cluster.Start(ctx, cluster.Config{
		Binary: binary, Dir: l.dir, Secure: true, GuardLease: guardLease, Addresses: addresses,
		Command: func(i int, path string, args ...string) *exec.Cmd {
			return l.net.Command(cluster.Regions[i], path, args...)
		},
		Dialer: l.net.Dial(observerParty),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.nodes.Check(); err != nil {
			t.Error(err)
		}
		l.nodes.Close()
		if t.Failed() {
			t.Log(l.nodes.Logs(40))
		}
	})
}

// self prepares a command that runs this test binary as a party.
func (l *lab) self(party, variable string, config any) (*exec.Cmd, error) {
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := l.net.Command(party, path)
	cmd.Env = append(os.Environ(), variable+"="+string(data))
	return cmd, nil
}

func (l *lab) start(t *testing.T, p *cluster.Program) {
	t.Helper()
	p.Log, p.Processes = filepath.Join(l.dir, p.Name+".log"), l.set
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Check(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			data, err := os.ReadFile(p.Log)
			t.Logf("--- %s, its last lines (%v)\n%s", p.Name, err, data[max(0, len(data)-4000):])
		}
	})
}

// front is the URL of a guard.
func (l *lab) front(guard int) string {
	return "http://" + l.net.Address(guardParty(guard)) + ":" + guardPort
}

func (l *lab) storeAddress() string { return l.net.Address(storeParty) + ":" + storePort }

func (l *lab) startStore(t *testing.T) {
	t.Helper()
	l.store = &cluster.Program{Name: storeParty, Command: func() (*exec.Cmd, error) {
		config := storeConfig{Listen: l.storeAddress(), Atomic: l.config.atomic, Postgres: l.config.postgres}
		cmd, err := l.self(storeParty, storeVariable, config)
		if err == nil {
			cmd.Stdout = lines(l.book.stored)
		}
		return cmd, err
	}}
	l.start(t, l.store)
}

func (l *lab) addGuard(t *testing.T, i int, binary string) {
	t.Helper()
	path := filepath.Join(l.dir, guardParty(i)+".yaml")
	if err := os.WriteFile(path, []byte(l.guardConfig(i)), 0o600); err != nil {
		t.Fatal(err)
	}
	l.guards[i] = &cluster.Program{Name: guardParty(i), Command: func() (*exec.Cmd, error) {
		return l.net.Command(guardParty(i), binary, "--config", path), nil
	}}
	l.start(t, l.guards[i])
}

func (l *lab) guardConfig(i int) string {
	client := l.nodes.Client()
	route := "  - {path: " + storePath + ", resource: " + guardedResource + ", upstream: store, forward_writ: true}\n"
	if l.config.unguarded {
		route = "  - {path: " + storePath + ", unguarded: pass, upstream: store}\n" +
			"  - {path: /other, resource: other, upstream: store}\n" // a guard has to guard something
	}
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nregion: eu\ndata_dir: %s\nslack: %v\n", guardParty(i), guardParty(i), slack)
	fmt.Fprintf(&b, "quorum: {endpoints: [%s], ca: %q, cert: %q, key: %q}\n",
		strings.Join(client.Endpoints, ", "), client.CAFile, client.CertFile, client.KeyFile)
	fmt.Fprintf(&b, "listeners:\n  - {name: main, listen: %q}\n", l.net.Address(guardParty(i))+":"+guardPort)
	patience := "" // of the last one, slow writes are too slow
	if i == guardCount-1 {
		patience = ", response_timeout: 500ms"
	}
	fmt.Fprintf(&b, "upstreams:\n  - {name: store, url: %q, dial_timeout: 1s%s}\n", "http://"+l.storeAddress(), patience)
	fmt.Fprintf(&b, "routes:\n%sadmin: {listen: \"off\"}\nlimits: {linger: 5s, max_park_time: 2s}\nlog: {level: info}\n", route)
	return b.String()
}

func (l *lab) addWriter(t *testing.T, i int) {
	t.Helper()
	w := &labWriter{party: fmt.Sprintf("writer%d", i+1)}
	client := l.nodes.Client()
	config := writerConfig{Endpoints: client.Endpoints, CA: client.CAFile, Cert: client.CertFile, Key: client.KeyFile, TTL: writerTTL}
	for i := range l.guards {
		config.Fronts = append(config.Fronts, l.front(i))
	}
	w.Program = &cluster.Program{Name: w.party, Command: func() (*exec.Cmd, error) {
		w.restarts++
		config.Name, config.Seed = fmt.Sprintf("%s.%d", w.party, w.restarts), l.seed+uint64(w.restarts)
		cmd, err := l.self(w.party, writerVariable, config)
		if err != nil {
			return nil, err
		}
		cmd.Stdout = lines(l.book.heard)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stdin, err = cmd.StdinPipe()
		return cmd, err
	}}
	l.start(t, w.Program)
	l.writers = append(l.writers, w)
}

// conn connects to a node that is ready.
func (l *lab) conn(t *testing.T, i int) *grpc.ClientConn {
	t.Helper()
	conn, err := l.nodes.Dial(i)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// protect has the resource guarded.
func (l *lab) protect(ctx context.Context, t *testing.T) {
	t.Helper()
	_, err := writv1.NewFenceServiceClient(l.conn(t, 0)).SetGuarding(ctx, &writv1.SetGuardingRequest{
		Rule:   &writv1.GuardingRule{Prefix: guardedResource, Isolation: writv1.Isolation_ISOLATION_CLOSE, DrainMs: drainTime.Milliseconds()},
		Reason: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitGuards waits until every guard is enrolled.
func (l *lab) awaitGuards(ctx context.Context, t *testing.T) {
	t.Helper()
	client := writv1.NewFenceServiceClient(l.conn(t, 0))
	for {
		response, err := client.ListGuards(ctx, &writv1.ListGuardsRequest{})
		enrolled := 0
		for _, g := range response.GetGuards() {
			if g.GetState() == writv1.GuardState_GUARD_STATE_ENROLLED {
				enrolled++
			}
		}
		if enrolled == len(l.guards) {
			return
		}
		if !wait(ctx, 50*time.Millisecond) {
			t.Fatalf("%d guards are enrolled: %v", enrolled, err)
		}
	}
}

// settle waits until a new grant is made, before which every older write is over, and returns its token.
func (l *lab) settle(ctx context.Context, t *testing.T) fence.Token {
	t.Helper()
	client := writv1.NewLeaseServiceClient(l.conn(t, 0))
	for {
		response, err := client.Acquire(ctx, &writv1.AcquireRequest{
			Resource: guardedResource, Ttl: durationpb.New(time.Minute), RequestId: "settle", Instance: "observer",
		})
		if token := response.GetGrant().GetToken(); token != 0 {
			return fence.Token(token)
		}
		if !wait(ctx, 100*time.Millisecond) {
			t.Fatalf("no grant after the faults: %v", err)
		}
	}
}
