package quorumtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
	"github.com/writ-io/writ/quorum/quorumtest/pace"
)

// Cluster is a quorum of nodes in one process.
type Cluster struct {
	tb    testing.TB
	Nodes []*Node
	// Configure, if set, may change a node's configuration before it starts.
	Configure func(*etcd.Config, *quorum.Config)
	// Wrap, if set, stands between a node and its member.
	Wrap  func(quorum.Member) quorum.Member
	token string
}

// Node is one of them. Service and Member are nil while it is stopped.
type Node struct {
	Name    string
	Dir     string
	PeerURL string
	Member  *etcd.Member
	Service *quorum.Service
	// Removed says that the quorum has taken the node out, which its member calls an error.
	Removed bool
	cluster *Cluster
	join    bool
	joining bool // admitted, and so part of what it starts with
}

// New makes a cluster of size nodes and starts none of them.
func New(tb testing.TB, size int) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb, token: tb.Name()}
	for i := range size {
		c.Nodes = append(c.Nodes, c.newNode(fmt.Sprintf("n%d", i+1)))
	}
	return c
}

// Start makes a cluster and starts all its nodes.
func Start(tb testing.TB, size int) *Cluster {
	tb.Helper()
	c := New(tb, size)
	c.StartAll()
	return c
}

func (c *Cluster) newNode(name string) *Node {
	n := &Node{Name: name, Dir: c.tb.TempDir(), PeerURL: "http://" + FreeAddress(c.tb), cluster: c}
	c.tb.Cleanup(n.Stop)
	return n
}

// Add makes one more node, which joins once the quorum has admitted it, and does not start it.
func (c *Cluster) Add(name string) *Node {
	n := c.newNode(name)
	n.join = true
	c.Nodes = append(c.Nodes, n)
	return n
}

// FreeAddress is a loopback address that nothing listened on a moment ago, and that it has not answered before.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	return freeport.Address(tb)
}

// StartAll starts every node that is stopped, together.
func (c *Cluster) StartAll() {
	c.tb.Helper()
	errs := make(chan error, len(c.Nodes))
	for _, n := range c.Nodes {
		go func() { errs <- n.start() }()
	}
	var failed error
	for range c.Nodes {
		failed = errors.Join(failed, <-errs)
	}
	if failed != nil {
		c.tb.Fatal(failed)
	}
}

// StopAll stops every node.
func (c *Cluster) StopAll() {
	for _, n := range c.Nodes {
		n.Stop()
	}
}

// InitialCluster maps names to peer URLs.
func (c *Cluster) InitialCluster() map[string]string {
	members := map[string]string{}
	for _, n := range c.Nodes {
		if !n.join || n.joining {
			members[n.Name] = n.PeerURL
		}
	}
	return members
}

// Start starts the node.
func (n *Node) Start() {
	n.cluster.tb.Helper()
	n.joining = n.join
	if err := n.start(); err != nil {
		n.cluster.tb.Fatal(err)
	}
}

// WitnessPath is where the node's witness stands, beside its etcd data.
func (n *Node) WitnessPath() string { return filepath.Join(n.Dir, "witness.json") }

// DataDir is the member's own directory.
func (n *Node) DataDir() string { return filepath.Join(n.Dir, "etcd") }

func (n *Node) start() error {
	if n.Service != nil {
		return nil
	}
	logger := hclog.New(&hclog.LoggerOptions{Name: n.Name, Level: hclog.LevelFromString(os.Getenv("WRIT_TEST_LOG")), Output: os.Stderr})
	if os.Getenv("WRIT_TEST_LOG") == "" {
		logger = hclog.NewNullLogger()
	}
	ec := etcd.Config{
		Name: n.Name, DataDir: n.DataDir(), ListenPeerURL: n.PeerURL, InitialCluster: n.cluster.InitialCluster(),
		ClusterToken: n.cluster.token, Join: n.join, Heartbeat: pace.Heartbeat, Election: pace.Election, Insecure: true,
		NoStrictReconfig: true, Logger: logger,
	}
	witness, err := quorum.LoadWitness(n.WitnessPath())
	if err != nil && !errors.Is(err, quorum.ErrWitnessMissing) {
		return err
	}
	qc := quorum.Config{
		Name: n.Name, Region: n.Name, Cluster: "test", APIAddress: "api." + n.Name, PeerURL: n.PeerURL, Principal: lease.Principal("node/" + n.Name),
		Election: pace.Election, Witness: witness.Record(), QuotaBytes: etcd.DefaultQuotaBytes,
		SaveWitness: func(r *writv1.WitnessRecord) error {
			return quorum.SaveWitness(n.WitnessPath(), quorum.WitnessFromRecord(r))
		},
		Logger: logger,
	}
	signer, err := fence.GenerateSigner()
	if err != nil {
		return err
	}
	if qc.Keys, err = fence.NewKeyRing(signer, fence.KeySet{}); err != nil {
		return err
	}
	if n.cluster.Configure != nil {
		n.cluster.Configure(&ec, &qc)
	}
	ctx, cancel := context.WithTimeout(context.Background(), pace.Patience)
	defer cancel()
	if n.Member, err = etcd.Open(ctx, ec); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	member := quorum.Member(n.Member)
	if n.cluster.Wrap != nil {
		member = n.cluster.Wrap(member)
	}
	n.Service, err = quorum.Start(qc, member)
	return err
}

// Stop stops the node, if it runs.
func (n *Node) Stop() {
	if n.Service != nil {
		n.Service.Close()
		n.Service = nil
	}
	if n.Member != nil {
		if err := n.Member.Close(); err != nil && !n.Removed {
			n.cluster.tb.Errorf("node %s: %v", n.Name, err)
		}
		n.Member = nil
	}
}

// Coordinator waits for the node that decides.
func (c *Cluster) Coordinator() *Node {
	c.tb.Helper()
	deadline := time.Now().Add(pace.Patience)
	for time.Now().Before(deadline) {
		var changed <-chan struct{}
		for _, n := range c.Nodes {
			if n.Service == nil {
				continue
			}
			_, self, ch := n.Service.Coordinator()
			if self && n.Service.Status().NotReady == "" {
				return n
			}
			changed = ch
		}
		// What to wait for may happen on any node: look again soon, whichever tells.
		select {
		case <-changed:
		case <-time.After(10 * time.Millisecond):
		}
	}
	for _, n := range c.Nodes {
		if n.Service != nil {
			c.tb.Logf("%s: %+v", n.Name, n.Service.Status())
		}
	}
	c.tb.Fatalf("no coordinator within %v", pace.Patience)
	return nil
}

// Await waits until ok says so, looking again whenever something may have changed.
func (c *Cluster) Await(what string, ok func() bool) {
	c.tb.Helper()
	deadline := time.Now().Add(pace.Patience)
	for !ok() {
		if time.Now().After(deadline) {
			c.tb.Fatalf("not within %v: %s", pace.Patience, what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// Do runs f on the coordinator, again on the next one as long as there is none or the outcome is unknown.
func (c *Cluster) Do(f func(*quorum.Service) error) error {
	c.tb.Helper()
	for {
		err := f(c.Coordinator().Service)
		if !errors.Is(err, lease.ErrNotCoordinator) && !errors.Is(err, lease.ErrUnknownOutcome) && !errors.Is(err, lease.ErrNoQuorum) {
			return err
		}
	}
}
