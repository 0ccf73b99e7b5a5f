package etcd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
	"github.com/writ-io/writ/quorum/quorumtest/pace"
)

// patience bounds every wait for what must happen.
const patience = pace.Patience

func TestMain(m *testing.M) {
	wal.SegmentSizeBytes = 1 << 20 // the files of hundreds of members
	os.Exit(m.Run())
}

// cluster is a number of members in this process, on loopback ports.
type cluster struct {
	t       testing.TB
	configs []Config
	members []*Member
}

// freeURLs answers n peer URLs that were free a moment ago. They are not of the kernel's own ports: a member that is stopped and
// started again would find one taken by a connection.
func freeURLs(t testing.TB, scheme string, n int) (urls []string) {
	t.Helper()
	for range n {
		urls = append(urls, scheme+"://"+freeport.Address(t))
	}
	return urls
}

// configs answers the configurations of n members of a new cluster.
func configs(t testing.TB, n int) []Config {
	t.Helper()
	dir := t.TempDir()
	initial := map[string]string{}
	out := make([]Config, n)
	for i, u := range freeURLs(t, "http", n) {
		name := fmt.Sprintf("n%d", i)
		initial[name] = u
		out[i] = Config{
			Name: name, DataDir: filepath.Join(dir, name), ListenPeerURL: u, InitialCluster: initial,
			ClusterToken: t.Name(), Insecure: true, UnsafeNoFsync: true, NoStrictReconfig: true,
		}
	}
	return out
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func open(t testing.TB, cfg Config) *Member {
	t.Helper()
	m, err := Open(testContext(t), cfg)
	if err != nil {
		t.Fatalf("open %s: %v", cfg.Name, err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func (c *cluster) start() {
	c.t.Helper()
	for _, cfg := range c.configs {
		c.members = append(c.members, open(c.t, cfg))
	}
	c.ready(c.members...)
}

// ready waits until members have reached a quorum.
func (c *cluster) ready(members ...*Member) {
	c.t.Helper()
	for _, m := range members {
		wait(c.t, m.Ready(), m.cfg.Name+" is ready")
	}
}

func newCluster(t testing.TB, n int, change ...func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, configs: configs(t, n)}
	for i := range c.configs {
		for _, f := range change {
			f(&c.configs[i])
		}
	}
	c.start()
	return c
}

// isolate cuts member i off in both directions.
func (c *cluster) isolate(i int) (heal func()) {
	cut := c.members[i]
	id := types.ID(cut.ID())
	cut.server.PauseSending()
	for j, m := range c.members {
		if j != i {
			m.server.CutPeer(id)
		}
	}
	return func() {
		cut.server.ResumeSending()
		for j, m := range c.members {
			if j != i {
				m.server.MendPeer(id)
			}
		}
	}
}

// leader waits for a leader among the members.
func (c *cluster) leader() *Member {
	c.t.Helper()
	var leader *Member
	eventually(c.t, "somebody leads", func() bool {
		for _, m := range c.members {
			if leads, _ := m.Leadership(); leads {
				leader = m
			}
		}
		return leader != nil
	})
	return leader
}

func (c *cluster) stores() []quorum.Store {
	var out []quorum.Store
	for _, m := range c.members {
		out = append(out, m)
	}
	return out
}

// closeAll closes the members and forgets them.
func (c *cluster) closeAll() {
	c.t.Helper()
	var closing sync.WaitGroup
	for _, m := range c.members {
		closing.Go(func() {
			if err := m.Close(); err != nil {
				c.t.Errorf("close %s: %v", m.cfg.Name, err)
			}
		})
	}
	closing.Wait()
	c.members = nil
}

func wait(t testing.TB, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("not in %v: %s", patience, what)
	}
}

// eventually looks again and again, where there is no event to wait for.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// claim claims a term, again while elections make the outcome unknown.
func claim(t testing.TB, m *Member) quorum.Term {
	t.Helper()
	ctx := testContext(t)
	for {
		term, err := m.Claim(ctx, []byte(m.cfg.Name))
		if err == nil {
			return term
		}
		if ctx.Err() != nil {
			t.Fatalf("claim: %v", err)
		}
	}
}

func commit(t testing.TB, m *Member, term quorum.Term, writes ...quorum.Write) int64 {
	t.Helper()
	revision, err := m.Commit(testContext(t), term, writes)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return revision
}

func write(key, value string) quorum.Write {
	return quorum.Write{Key: quorum.Prefix + "test/" + key, Value: []byte(value)}
}

// load answers the keys that write wrote, without their prefix.
func load(t testing.TB, m *Member) map[string]string {
	t.Helper()
	entries, _, err := m.Load(testContext(t))
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	out := map[string]string{}
	for _, e := range entries {
		if len(e.Key) > len(quorum.Prefix+"test/") && e.Key[:len(quorum.Prefix+"test/")] == quorum.Prefix+"test/" {
			out[e.Key[len(quorum.Prefix+"test/"):]] = string(e.Value)
		}
	}
	return out
}
