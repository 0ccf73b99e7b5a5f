package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/writ/cli"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
	"github.com/writ-io/writ/quorum/quorumtest/pace"
)

const (
	// patience bounds every wait for what must happen.
	patience = pace.Patience
	// longestTTL is that of the policies of test clusters: a foreign start waits for it.
	longestTTL = time.Second
	// runCommand makes the test binary the writ command.
	runCommand = "WRIT_NODE_TEST_RUN_COMMAND"
)

func TestMain(m *testing.M) {
	wal.SegmentSizeBytes = 1 << 20 // the logs of hundreds of members
	if os.Getenv(runCommand) != "" {
		os.Exit(cli.Main("test", os.Args[1:], Commands("test"), QuorumCommands("test")))
	}
	os.Exit(m.Run())
}

// testCluster is a quorum of nodes in this process.
type testCluster struct {
	t       *testing.T
	dir     string
	configs []Config
	nodes   []*Node // nil while stopped
	conns   map[string]*grpc.ClientConn
	// highest are the highest tokens seen, by resource: the next grant of it must be higher.
	highest map[string]fence.Token
	// ttl is that of every lease, and the longest that the policy allows.
	ttl time.Duration
}

// newCluster also makes the test run in parallel to others: most of its time is waiting.
func newCluster(t *testing.T, size int) *testCluster {
	t.Helper()
	return newClusterTTL(t, size, longestTTL)
}

func newClusterTTL(t *testing.T, size int, ttl time.Duration) *testCluster {
	t.Helper()
	t.Parallel()
	c := &testCluster{
		t: t, dir: t.TempDir(), nodes: make([]*Node, size), ttl: ttl,
		conns: map[string]*grpc.ClientConn{}, highest: map[string]fence.Token{},
	}
	members := map[string]string{}
	for i := range size {
		members[fmt.Sprintf("n%d", i+1)] = "http://" + freeport.Address(t)
	}
	for i := range size {
		c.configs = append(c.configs, c.config(fmt.Sprintf("n%d", i+1), members))
	}
	t.Cleanup(c.close)
	return c
}

func (c *testCluster) config(name string, members map[string]string) Config {
	c.t.Helper()
	policy := filepath.Join(c.dir, "policy.yaml")
	text := fmt.Sprintf("grants: [{principals: [\"*\"], prefix: \"\", verbs: [acquire, read, force, admin]}]\nresources: [{prefix: \"\", ttl_max: %v}]\n", c.ttl)
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return Config{
		Name: name, Region: "r-" + name, Cluster: "test", DataDir: filepath.Join(c.dir, name), Insecure: true, PolicyFile: policy,
		API: Address{Listen: freeport.Address(c.t)}, HTTP: Address{Listen: freeport.Address(c.t)}, Peer: Address{Listen: hostPort(members[name])},
		Bootstrap: Bootstrap{Members: maps.Clone(members)},
		Heartbeat: pace.Heartbeat, Election: pace.Election,
	}.withDefaults()
}

func (c *testCluster) options(i int) Options {
	o := Options{Version: "test"}
	if level := os.Getenv("WRIT_TEST_LOG"); level != "" {
		o.Logger = hclog.New(&hclog.LoggerOptions{Name: c.configs[i].Name, Level: hclog.LevelFromString(level), Output: os.Stderr})
	}
	return o
}

// tryStart starts a node and answers why it did not.
func (c *testCluster) tryStart(i int, minEpoch fence.Epoch) error {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	o := c.options(i)
	o.MinEpoch = minEpoch
	n, err := Start(ctx, c.configs[i], o)
	if err == nil {
		c.nodes[i] = n
	}
	return err
}

func (c *testCluster) start(indices ...int) {
	c.t.Helper()
	errs := make(chan error, len(indices))
	for _, i := range indices {
		go func() { errs <- c.tryStart(i, 0) }()
	}
	for range indices {
		if err := <-errs; err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *testCluster) all() []int {
	indices := make([]int, len(c.configs))
	for i := range indices {
		indices[i] = i
	}
	return indices
}

func (c *testCluster) stop(indices ...int) {
	c.t.Helper()
	for _, i := range indices {
		if n := c.nodes[i]; n != nil {
			c.nodes[i] = nil
			if err := n.Stop(c.t.Context()); err != nil {
				c.t.Errorf("stop %s: %v", c.configs[i].Name, err)
			}
		}
	}
}

func (c *testCluster) close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	for _, n := range c.nodes {
		if n != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = n.Stop(ctx)
			cancel()
		}
	}
}

// eventually polls until f answers nothing that is missing.
func eventually(t *testing.T, f func() (missing string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	missing := f()
	for ; missing != ""; missing = f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("after %v: %s", patience, missing)
		}
	}
}

// ready waits until every running node is.
func (c *testCluster) ready() {
	c.t.Helper()
	eventually(c.t, func() string {
		for _, n := range c.nodes {
			if n != nil && n.Status().NotReady != "" {
				return n.config.Name + ": " + n.Status().NotReady
			}
		}
		return ""
	})
}

func (c *testCluster) leases(i int) writv1.LeaseServiceClient {
	c.t.Helper()
	address := c.configs[i].API.Listen
	if c.conns[address] == nil {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			c.t.Fatal(err)
		}
		c.conns[address] = conn
	}
	return writv1.NewLeaseServiceClient(c.conns[address])
}

// acquire gets a resource through node i, however long the quorum needs to grant it, and checks that its token is above
// every one before.
func (c *testCluster) acquire(i int, resource string) fence.Token {
	c.t.Helper()
	var token fence.Token
	eventually(c.t, func() string {
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		defer cancel()
		resp, err := c.leases(i).Acquire(ctx, &writv1.AcquireRequest{Resource: resource, Ttl: durationpb.New(c.ttl)})
		if err == nil {
			token = fence.Token(resp.GetGrant().GetToken())
			return ""
		}
		if code := status.Code(err); code == codes.InvalidArgument || code == codes.PermissionDenied || code == codes.Unimplemented {
			c.t.Fatal(err)
		}
		return err.Error()
	})
	if token <= c.highest[resource] {
		c.t.Fatalf("token %v of %s after %v", token, resource, c.highest[resource])
	}
	c.highest[resource] = token
	return token
}

func (c *testCluster) release(i int, resource string, token fence.Token) {
	c.t.Helper()
	if _, err := c.leases(i).Release(c.t.Context(), &writv1.ReleaseRequest{Resource: resource, Token: uint64(token)}); err != nil {
		c.t.Fatal(err)
	}
}

// copyTree copies a directory.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// tree lists what is below a directory, with modes and contents, to show that nothing was changed.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %v", strings.TrimPrefix(path, dir), info.Mode())
		if !d.IsDir() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d bytes %.8x", len(content), sha256.Sum256(content))
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// refused starts node i and checks that this is refused as kind, in one line that has all the words, with nothing changed.
func (c *testCluster) refused(i int, minEpoch fence.Epoch, kind error, words ...string) {
	c.t.Helper()
	before := tree(c.t, c.configs[i].DataDir)
	err := c.tryStart(i, minEpoch)
	if err == nil {
		c.t.Fatal("the start was not refused")
	}
	if kind != nil && !errors.Is(err, kind) {
		c.t.Errorf("got %v, want %v", err, kind)
	}
	checkWords(c.t, err.Error(), words...)
	if after := tree(c.t, c.configs[i].DataDir); !slices.Equal(before, after) {
		c.t.Errorf("a start that was refused changed something\nbefore %q\nafter  %q", before, after)
	}
}

func checkWords(t *testing.T, text string, words ...string) {
	t.Helper()
	text = strings.TrimSpace(text)
	if strings.Contains(text, "\n") {
		t.Errorf("more than one line: %s", text)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not say %q", text, word)
		}
	}
	t.Log(text)
}

// mount mounts a tmpfs of a size.
func mount(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("these tests need root, for their file systems: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all space that is left in the file system of dir.
func fill(t *testing.T, dir string) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "ballast"))
	must(t, err)
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	must(t, file.Close())
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
