package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// cluster is a test double of a node's ClusterService.
type cluster struct {
	writv1.UnimplementedClusterServiceServer

	mu     sync.Mutex
	status *writv1.StatusResponse // guarded by mu
	calls  []string               // guarded by mu; changes that were asked for
	fail   map[string]error       // guarded by mu; by method
	backup []byte                 // guarded by mu
	breaks int                    // guarded by mu; how many backups break off in the middle
}

// change notes a call and answers how it fails.
func (c *cluster) change(method string, args ...string) error {
	c.calls = append(c.calls, strings.Join(append([]string{method}, args...), " "))
	return c.fail[method]
}

func (c *cluster) Status(context.Context, *writv1.StatusRequest) (*writv1.StatusResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status, c.fail["Status"]
}

func (c *cluster) MemberAdd(_ context.Context, r *writv1.MemberAddRequest) (*writv1.MemberAddResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &writv1.MemberAddResponse{MemberId: "c0ffee", Members: map[string]string{"us": "https://us:7413", r.GetName(): r.GetPeerUrl()}},
		c.change("add", r.GetName(), r.GetPeerUrl())
}

func (c *cluster) MemberRemove(_ context.Context, r *writv1.MemberRemoveRequest) (*writv1.MemberRemoveResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &writv1.MemberRemoveResponse{}, c.change("remove", r.GetName())
}

func (c *cluster) MoveCoordinator(_ context.Context, r *writv1.MoveCoordinatorRequest) (*writv1.MoveCoordinatorResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &writv1.MoveCoordinatorResponse{Coordinator: "us"}, c.change("move", r.GetTo())
}

func (c *cluster) Snapshot(_ *writv1.SnapshotRequest, stream grpc.ServerStreamingServer[writv1.SnapshotResponse]) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	half := len(c.backup) / 2
	if err := stream.Send(&writv1.SnapshotResponse{Chunk: c.backup[:half]}); err != nil {
		return err
	}
	if c.breaks > 0 {
		c.breaks--
		return lease.Errorf(lease.ReasonUnknownOutcome, "the node stops")
	}
	return stream.Send(&writv1.SnapshotResponse{Chunk: c.backup[half:]})
}

// asked returns the changes that were asked for, and forgets them.
func (c *cluster) asked() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := strings.Join(c.calls, ", ")
	c.calls = nil
	return calls
}

// set changes the double.
func (c *cluster) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// newCluster serves a double, behind an endpoint where nobody listens.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	node := func(name string, coordinator, reachable bool) *writv1.NodeStatus {
		return &writv1.NodeStatus{
			Name: name, Region: name + "-1", ApiAddress: name + ":7411", HttpAddress: name + ":7412", PeerUrl: "https://" + name + ":7413",
			MemberId: "1", Coordinator: coordinator, Reachable: reachable, Version: "1.2.3",
		}
	}
	c := &cluster{
		fail: make(map[string]error),
		status: &writv1.StatusResponse{
			Node: "us", Cluster: "prod", Epoch: 2, Coordinator: "us", Term: 12, Ready: true, Revision: 99,
			Nodes:   []*writv1.NodeStatus{node("ap", false, true), node("eu", false, false), node("us", true, true)},
			DbBytes: 3 << 20, QuotaBytes: 2 << 30, Version: "1.2.3", Leases: 17,
		},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		response, err := handler(ctx, request)
		return response, lease.ToStatus(err).Err()
	}), grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return lease.ToStatus(handler(srv, stream)).Err()
	}))
	writv1.RegisterClusterServiceServer(server, c)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // its error is that it was stopped
	}()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	t.Setenv("WRIT_ENDPOINTS", deadEndpoint(t)+","+l.Addr().String())
	t.Setenv("WRIT_INSECURE", "true")
	return c
}

const nodesTable = `NODE  REGION  ROLE         REACHABLE  API      PEER             VERSION
ap    ap-1    member       yes        ap:7411  https://ap:7413  1.2.3
eu    eu-1    member       no         eu:7411  https://eu:7413  1.2.3
us    us-1    coordinator  yes        us:7411  https://us:7413  1.2.3
`

func TestStatus(t *testing.T) {
	c := newCluster(t)
	writ(t, "quorum", "status").want(t, 0, `cluster      prod
asked        us
ready        yes
coordinator  us
epoch        2
held leases  17
storage      3.0 MiB of 2048.0 MiB

`+nodesTable, "")
	writ(t, "quorum", "member", "list").want(t, 0, nodesTable, "")
	if r := writ(t, "quorum", "status", "-o", "json"); field(t, r.stdout, "coordinator") != "us" || field(t, r.stdout, "dbBytes") != "3145728" {
		t.Errorf("got %+v", r)
	}
	c.set(func() {
		c.status.Node, c.status.Coordinator, c.status.Ready, c.status.NotReadyReason = "ap", "", false, "no coordinator"
		c.status.RecoveringFor = durationpb.New(42 * time.Second)
	})
	want := "cluster      prod\nasked        ap\nready        no: no coordinator\ncoordinator  none known\nepoch        2\ngrants in    42s\n"
	if r := writ(t, "quorum", "status"); r.code != 0 || !strings.HasPrefix(r.stdout, want) {
		t.Errorf("got %+v, want it to begin with %s", r, want)
	}
}

// A watch goes on where nobody answers, and ends well.
func TestStatusWatch(t *testing.T) {
	c := newCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var pages, troubles int
	stdout := writerFunc(func(p []byte) {
		if pages++; pages == 2 {
			c.set(func() { c.fail["Status"] = lease.Errorf(lease.ReasonNoQuorum, "nobody there") })
		}
	})
	stderr := writerFunc(func(p []byte) {
		if troubles++; pages >= 2 && troubles >= 2 {
			cancel()
		}
	})
	a := &app{connection: connection{timeout: 50 * time.Millisecond}, stdout: stdout, stderr: stderr, output: outputJSON, now: time.Now}
	if err := a.watchStatus(ctx, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if pages < 2 || troubles < 2 {
		t.Errorf("%d pages, %d troubles", pages, troubles)
	}
}

// Each form of --watch can be read as a stream, and Ctrl-C is a good end.
func TestStatusWatchForms(t *testing.T) {
	newCluster(t)
	for form, want := range map[string]string{"table": "cluster      prod", "json": `{"node":"us","cluster":"prod"`, "yaml": "---"} {
		t.Run(form, func(t *testing.T) {
			p := launch(t, nil, "quorum", "status", "--watch", "-o", form)
			if !p.stdout.Scan() || !strings.HasPrefix(p.stdout.Text(), want) {
				t.Errorf("it said %q, want %q", p.stdout.Text(), want)
			}
			if err := p.signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if code := p.end(t); code != 0 || p.stderr.Len() > 0 {
				t.Errorf("exit code %d, want 0 and silence", code)
			}
		})
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func TestMemberAdd(t *testing.T) {
	c := newCluster(t)
	writ(t, "quorum", "member", "add", "sa", "https://sa:7413").want(t, 0, `admitted sa as member c0ffee. Start it with an empty data_dir and:

bootstrap:
  join: true
  members:
    sa: https://sa:7413
    us: https://us:7413
`, "")
	if got := c.asked(); got != "add sa https://sa:7413" {
		t.Errorf("asked for %s", got)
	}
	// An unknown outcome is told, not tried again.
	c.set(func() { c.fail["add"] = lease.Errorf(lease.ReasonUnknownOutcome, "the answer was lost") })
	if r := writ(t, "quorum", "member", "add", "sa", "https://sa:7413"); r.code != 5 || c.asked() != "add sa https://sa:7413" {
		t.Errorf("got %+v", r)
	}
}

func TestMemberRemove(t *testing.T) {
	c := newCluster(t)
	writ(t, "quorum", "member", "remove", "eu").want(t, 0, "removed eu\n", "")
	writ(t, "quorum", "member", "remove", "xx").want(t, 1, "", "writ: NOT_FOUND: xx is no member\n")
	writ(t, "quorum", "member", "remove", "ap").want(t, 1, "",
		"writ: INVALID: NAME ap cannot be spared: us sees 1 of 2 other nodes, and 2 must be left; bring the others back first, or give --force\n")
	if got := c.asked(); got != "remove eu" {
		t.Errorf("asked for %s", got)
	}
	writ(t, "quorum", "member", "remove", "ap", "--force").want(t, 0, "removed ap\n", "")
	c.set(func() { c.status.Nodes = c.status.Nodes[2:] })
	writ(t, "quorum", "member", "remove", "us").want(t, 1, "", "writ: INVALID: NAME us is the only node; stop it instead\n")
}

func TestMemberReplace(t *testing.T) {
	c := newCluster(t)
	replace := func(name string, args ...string) result {
		return writ(t, append([]string{"quorum", "member", "replace", name, "https://" + name + ":7413"}, args...)...)
	}
	r := replace("eu")
	if r.code != 0 || r.stderr != "writ: removing eu\nwrit: removed; admitting eu at https://eu:7413\n" || !strings.HasPrefix(r.stdout, "admitted eu as member c0ffee.") {
		t.Errorf("got %+v", r)
	}
	if got := c.asked(); got != "remove eu, add eu https://eu:7413" {
		t.Errorf("asked for %s", got)
	}
	replace("ap").want(t, 1, "", "writ: INVALID: NAME ap still runs; stop it first, or give --force\n")
	if got := c.asked(); got != "" {
		t.Errorf("asked for %s", got)
	}
	if r := replace("new"); r.code != 0 || r.stderr != "writ: new is no member; admitting it\n" || c.asked() != "add new https://new:7413" {
		t.Errorf("got %+v", r)
	}
	c.set(func() { c.fail["add"] = lease.Errorf(lease.ReasonConflict, "another change is under way") })
	if r := replace("eu"); r.code != 2 || !strings.HasSuffix(r.stderr, `eu is removed but not admitted; go on with "writ quorum member add eu https://eu:7413": CONFLICT: another change is under way`+"\n") {
		t.Errorf("got %+v", r)
	}
}

// Who is refused is told so at once, whatever is asked for.
func TestQuorumRefused(t *testing.T) {
	c := newCluster(t)
	refused := lease.Errorf(lease.ReasonDenied, "not yours")
	const told = "writ: DENIED: not yours\n"
	c.set(func() { c.fail["move"], c.fail["add"], c.fail["remove"] = refused, refused, refused })
	for _, line := range []string{"move-coordinator", "member add sa https://sa:7413", "member remove eu", "member replace new https://new:7413"} {
		r := writ(t, append([]string{"quorum"}, strings.Fields(line)...)...)
		if r.code != 4 || r.stdout != "" || !strings.HasSuffix(r.stderr, told) {
			t.Errorf("%s: %+v", line, r)
		}
	}
	c.asked()
	c.set(func() { c.fail["Status"] = refused })
	for _, line := range []string{"status", "member list", "member add sa https://sa:7413", "move-coordinator"} {
		writ(t, append([]string{"quorum"}, strings.Fields(line)...)...).want(t, 4, "", told)
	}
	if got := c.asked(); got != "" {
		t.Errorf("asked for %s", got)
	}
}

func TestMoveCoordinator(t *testing.T) {
	c := newCluster(t)
	writ(t, "quorum", "move-coordinator").want(t, 0, "coordinator: us\n", "")
	writ(t, "quorum", "move-coordinator", "us", "-o", "json").want(t, 0, "{\n  \"coordinator\": \"us\"\n}\n", "")
	if got := c.asked(); got != "move , move us" {
		t.Errorf("asked for %s", got)
	}
}

func TestSnapshot(t *testing.T) {
	c := newCluster(t)
	c.set(func() { c.backup, c.breaks = bytes.Repeat([]byte("state"), 1000), 1 })
	dir := t.TempDir()
	file := filepath.Join(dir, "backup")
	sum := sha256.Sum256(c.backup)
	writ(t, "quorum", "snapshot", file).want(t, 0, fmt.Sprintf("saved %s: 5000 bytes, sha256 %x\n", file, sum), "")
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, c.backup) {
		t.Errorf("saved %d bytes, %v", len(got), err)
	}
	writ(t, "quorum", "snapshot", file).want(t, 1, "", fmt.Sprintf("writ: INVALID: FILE %s exists; name another one, or give --force\n", file))
	if r := writ(t, "quorum", "snapshot", file, "--force", "-o", "json"); r.code != 0 || field(t, r.stdout, "bytes") != "5000" || len(field(t, r.stdout, "sha256")) != 64 {
		t.Errorf("with --force: %+v", r)
	}
	if r := writ(t, "quorum", "snapshot", filepath.Join(dir, "no", "dir")); r.code != 1 || !strings.Contains(r.stderr, "name a file in a writable directory") {
		t.Errorf("in no directory: %+v", r)
	}
	// A backup that never comes whole leaves nothing.
	c.set(func() { c.breaks = 1 << 30 })
	if r := writ(t, "quorum", "snapshot", filepath.Join(dir, "half"), "--timeout", "200ms"); r.code != 5 {
		t.Errorf("half a backup: %+v", r)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(entries, []string{"backup"}, func(e os.DirEntry, name string) bool { return e.Name() == name }) {
		t.Errorf("left %v", entries)
	}
}

// The name is taken only if nobody else has taken it meanwhile.
func TestPublish(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, name := range []string{from, to} {
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := publish(from, to, false); !os.IsExist(err) {
		t.Errorf("publish over a file: %v", err)
	}
	if err := publish(from, to, true); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(to); string(got) != from {
		t.Errorf("published %q", got)
	}
}
