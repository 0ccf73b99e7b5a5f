package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
)

// admin calls f until the quorum lets it through: the store refuses changes until it has been connected for some seconds.
func (c *testCluster) admin(i int, f func(context.Context, writv1.ClusterServiceClient) error) {
	c.t.Helper()
	c.leases(i) // connects
	client := writv1.NewClusterServiceClient(c.conns[c.configs[i].API.Listen])
	eventually(c.t, func() string {
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
		defer cancel()
		if err := f(ctx, client); err != nil {
			return err.Error()
		}
		return ""
	})
}

// admit adds member j to a running quorum, through node i, and configures it to join.
func (c *testCluster) admit(i, j int) {
	c.t.Helper()
	config := &c.configs[j]
	c.admin(i, func(ctx context.Context, admin writv1.ClusterServiceClient) error {
		resp, err := admin.MemberAdd(ctx, &writv1.MemberAddRequest{Name: config.Name, PeerUrl: config.Bootstrap.Members[config.Name]})
		if err == nil {
			config.Bootstrap = Bootstrap{Members: resp.GetMembers(), Join: true}
		}
		return err
	})
}

// replace removes member j and admits it anew.
func (c *testCluster) replace(i, j int) {
	c.t.Helper()
	c.admin(i, func(ctx context.Context, admin writv1.ClusterServiceClient) error {
		_, err := admin.MemberRemove(ctx, &writv1.MemberRemoveRequest{Name: c.configs[j].Name})
		if errors.Is(lease.FromError(err), lease.ErrNotFound) {
			return nil // an earlier attempt was answered with an error, and had its effect
		}
		return err
	})
	c.admit(i, j)
}

// A node whose store was lost comes back under its name as a new member. What its witness knows of tokens stays.
func TestReplacedMemberKeepsItsWitness(t *testing.T) {
	c := newCluster(t, 3)
	c.start(c.all()...)
	c.ready()
	first := c.acquire(0, "a")
	// A witness that has not seen its member leaves it to the others to refuse the node.
	eventually(t, func() string {
		if c.witness(2).MemberID == 0 {
			return "the witness has not seen its member"
		}
		return ""
	})
	c.stop(2)
	before := c.witness(2)
	must(t, os.RemoveAll(c.storePath(2)))
	c.refused(2, 0, ErrStoreWiped, bothWays...)

	c.replace(0, 2)
	c.configs[2].Bootstrap.Join = false
	c.refused(2, 0, ErrStoreWiped, bothWays...)
	c.configs[2].Bootstrap.Join = true
	c.start(2)
	c.ready()
	eventually(t, func() string {
		if w := c.witness(2); w.Incarnation != before.Incarnation || w.AppliedIndex == 0 {
			return "the witness has not taken note"
		}
		return ""
	})
	w := c.witness(2)
	if w.MemberID == before.MemberID || w.Epoch != before.Epoch || w.Ceiling < before.Ceiling || w.MaxTTL < before.MaxTTL || w.Foreign != "" {
		t.Errorf("witness was %+v and is %+v", before, w)
	}
	if second := c.acquire(2, "a"); second.Epoch() != first.Epoch() {
		t.Errorf("token %v after %v: the epoch changed", second, first)
	}
	// The setting may stay.
	c.stop(2)
	c.start(2)
	c.ready()
}

// With directory and witness gone, only the quorum can tell that there is something that the node has forgotten.
func TestForgetfulNodeIsRefused(t *testing.T) {
	c := newCluster(t, 3)
	c.start(c.all()...)
	c.ready()
	first := c.acquire(0, "a")
	c.stop(2)
	for _, join := range []bool{false, true} {
		must(t, os.RemoveAll(c.configs[2].DataDir))
		c.configs[2].Bootstrap.Join = join
		err := c.tryStart(2, 0)
		if !errors.Is(err, etcd.ErrForgotten) {
			t.Fatalf("got %v, want ErrForgotten", err)
		}
		checkWords(t, err.Error(), "data_dir:", "has run before", "add this node anew", "writ quorum member replace n3 http://")
		if left := tree(t, c.configs[2].DataDir); len(left) != 2 {
			t.Errorf("the attempt left %q, want a lock file", left)
		}
	}
	c.replace(0, 2)
	c.start(2)
	c.ready()
	if second := c.acquire(2, "a"); second.Epoch() != first.Epoch() {
		t.Errorf("token %v after %v: the epoch changed", second, first)
	}

	// Its store alone: the witness knows, and lets a setting that was left behind not pass for an admission.
	c.stop(2)
	must(t, os.RemoveAll(c.storePath(2)))
	c.refused(2, 0, etcd.ErrForgotten, "add this node anew")
}

// A node that cannot join yet can try again.
func TestJoinBeforeAdmission(t *testing.T) {
	c := newCluster(t, 2)
	alone := map[string]string{"n1": c.configs[0].Bootstrap.Members["n1"]}
	c.configs[0].Bootstrap.Members = alone
	c.start(0)
	c.ready()
	c.configs[1].Bootstrap.Join = true
	for range 2 {
		err := c.tryStart(1, 0)
		if err == nil {
			t.Fatal("joined without having been admitted")
		}
		checkWords(t, err.Error(), "bootstrap.members", "must have added this member")
	}
	if left := tree(t, c.configs[1].DataDir); len(left) != 2 {
		t.Errorf("the attempts left %q, want a lock file", left)
	}
}

// A first start that was killed may leave a database without a log.
func TestRemainsOfAFirstStart(t *testing.T) {
	c := newCluster(t, 1)
	c.start(0)
	c.ready()
	c.stop(0)
	must(t, os.RemoveAll(filepath.Join(c.storePath(0), "member", "wal")))
	c.refused(0, 0, ErrStoreWiped, bothWays...)
	must(t, os.Remove(c.witnessPath(0)))
	c.refused(0, 0, quorum.ErrWitnessMissing, bothWays...)
	must(t, quorum.SaveWitness(c.witnessPath(0), quorum.Witness{Cluster: "test", Node: "n1"}))
	c.start(0)
	c.acquire(0, "a")
}

func TestRemovedNodeSaysSo(t *testing.T) {
	c := newCluster(t, 3)
	c.start(c.all()...)
	c.ready()
	c.admin(0, func(ctx context.Context, admin writv1.ClusterServiceClient) error {
		_, err := admin.MemberRemove(ctx, &writv1.MemberRemoveRequest{Name: "n3"})
		return err
	})
	removed := c.nodes[2]
	c.nodes[2] = nil
	eventually(t, func() string {
		select {
		case <-removed.Done():
			return ""
		default:
			return "the removed node goes on"
		}
	})
	if err := removed.Stop(t.Context()); !errors.Is(err, etcd.ErrRemoved) {
		t.Errorf("got %v, want ErrRemoved", err)
	} else {
		checkWords(t, err.Error(), `node "n3"`, "can be deleted")
	}
	c.acquire(0, "a")
}
