package quorum_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
	"github.com/writ-io/writ/quorum/quorumtest"
	"github.com/writ-io/writ/quorum/quorumtest/pace"
)

// smallStore is a quorum of one node with so little room that its housekeeping shows.
func smallStore(t *testing.T, quotaBytes int64) *quorumtest.Cluster {
	t.Helper()
	c := quorumtest.New(t, 1)
	c.Configure = func(e *etcd.Config, q *quorum.Config) {
		e.QuotaBytes, q.QuotaBytes, q.Retention = quotaBytes, quotaBytes, time.Second
		q.Policy = lease.Policy{Rules: []lease.PolicyRule{{MaxTTL: 10 * time.Minute}}}
	}
	c.StartAll()
	return c
}

func checkpoint(t *testing.T, c *quorumtest.Cluster, g *lease.Grant, size int) error {
	t.Helper()
	command := lease.Checkpoint{
		Caller: alice, Ref: lease.Ref{Resource: g.Resource, Token: g.Token}, Data: bytes.Repeat([]byte("x"), size),
	}
	return c.Do(func(s *quorum.Service) error { return s.Checkpoint(t.Context(), command) })
}

// Twice the quota is written, of which little is state: nothing is refused, and the file does not outgrow the quota.
func TestHistoryBringsNoRefusals(t *testing.T) {
	const quota = 32 << 20
	c := smallStore(t, quota)
	service, member := c.Coordinator().Service, c.Nodes[0].Member
	term := service.Status().Term
	g := acquire(t, c, "busy", 10*time.Minute)
	for n := range 2 * quota / lease.MaxCheckpointBytes {
		if err := checkpoint(t, c, g, lease.MaxCheckpointBytes); err != nil {
			t.Fatalf("checkpoint %d, with %d bytes in use: %v", n, member.Progress().DBBytes, err)
		}
		if n%50 == 0 { // however fast this machine is, housekeeping is to keep up
			flush(t, c)
			c.Await("history is dropped", func() bool { return service.Status().DBBytes < quota*3/4 })
			acquire(t, c, lease.Resource(fmt.Sprintf("new/%d", n)), 10*time.Minute)
		}
	}
	if st := service.Status(); st.OverQuota || st.Term != term || st.NotReady != "" {
		t.Errorf("at the end: %+v", st)
	}
	if p := member.Progress(); p.DBFileBytes > quota {
		t.Errorf("the file is %d bytes long", p.DBFileBytes)
	}
}

// flush has the database write what it holds in memory, which its size does not count.
func flush(t *testing.T, c *quorumtest.Cluster) {
	t.Helper()
	image, _, err := c.Nodes[0].Member.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = image.Close() // nobody reads it
}

// settled waits until nothing but state is in use, or the soft quota is not exceeded, and says which.
func settled(t *testing.T, c *quorumtest.Cluster) (full bool) {
	t.Helper()
	for deadline := time.Now().Add(pace.Patience); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		p := c.Nodes[0].Member.Progress()
		over := c.Nodes[0].Service.Status().OverQuota
		if !over || p.Oldest == p.Revision && !p.Compacting {
			return over
		}
	}
	t.Fatalf("history is not dropped: %+v", c.Nodes[0].Member.Progress())
	return false
}

func TestAStoreFullOfStateRefusesWhatGrowsAndRecovers(t *testing.T) {
	c := smallStore(t, 16<<20)
	var grants []*lease.Grant
	for full := false; !full; {
		n := len(grants)
		if n > 300 {
			t.Fatal("the quota does nothing")
		}
		var out lease.AcquireOutcome
		err := c.Do(func(s *quorum.Service) (err error) {
			out, err = s.Acquire(t.Context(), lease.Acquire{
				Caller: alice, Resource: lease.Resource(fmt.Sprintf("fill/%d", n)), RequestID: "r", TTL: 10 * time.Minute,
			})
			return err
		})
		if err == nil {
			grants = append(grants, out.Grant)
			err = checkpoint(t, c, out.Grant, lease.MaxCheckpointBytes)
		}
		switch {
		case errors.Is(err, lease.ErrLimit):
			full = settled(t, c)
		case err != nil:
			t.Fatalf("resource %d: %v", n, err)
		}
	}
	if err := checkpoint(t, c, grants[0], lease.MaxCheckpointBytes); err != nil {
		t.Errorf("a checkpoint that does not grow: %v", err)
	}
	known := grants[0]
	renewed, err := c.Coordinator().Service.Renew(t.Context(), []lease.Renew{{
		Caller: alice, Refs: []lease.Ref{{Resource: known.Resource, Token: known.Token}},
	}})
	if err != nil || len(renewed[0].Failures) != 0 {
		t.Errorf("a renewal: %+v, %v", renewed, err)
	}
	release(t, c, known)
	grants[0] = acquire(t, c, known.Resource, 10*time.Minute)
	c.Nodes[0].Stop()
	c.Nodes[0].Start()
	for _, g := range grants { // what has a checkpoint is kept for good
		if err := checkpoint(t, c, g, 0); err != nil {
			t.Fatal(err)
		}
		release(t, c, g)
	}
	c.Await("the records are forgotten", func() bool {
		page, err := c.Coordinator().Service.List(t.Context(), quorum.ListQuery{Prefix: "fill/", Limit: 1})
		return err == nil && len(page.Leases) == 0
	})
	full := func(st quorum.Status) bool { return st.OverQuota || st.DBBytes > 8<<20 }
	for deadline := time.Now().Add(pace.Patience); full(c.Nodes[0].Service.Status()); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the store stays full: %+v", c.Nodes[0].Member.Progress())
		}
	}
	acquire(t, c, "new", 10*time.Minute)
	// Nobody else could take over, so the coordinator gives its free pages back itself.
	c.Await("the file is short", func() bool { return c.Nodes[0].Member.Progress().DBFileBytes < 12<<20 })
}

func TestTheCoordinatorGoesToAPreferredRegion(t *testing.T) {
	c := quorumtest.New(t, 3)
	c.StartAll()
	was := c.Coordinator()
	preferred := c.Nodes[0]
	if preferred == was {
		preferred = c.Nodes[1]
	}
	c.StopAll()
	c.Configure = func(_ *etcd.Config, q *quorum.Config) { q.PreferredRegions = []string{preferred.Name} }
	c.StartAll()
	c.Await(preferred.Name+" decides", func() bool { return c.Coordinator() == preferred })
}
