package quorum_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/quorumtest"
)

// record leaves n records in the audit log: a forced release each.
func record(t *testing.T, c *quorumtest.Cluster, n int) {
	t.Helper()
	for i := range n {
		g := acquire(t, c, lease.Resource(fmt.Sprintf("forced/%d-%d", time.Now().UnixNano(), i)), 30*time.Second)
		err := c.Do(func(s *quorum.Service) error {
			_, err := s.ForceRelease(t.Context(), lease.ForceRelease{
				Caller: lease.Caller{Principal: "root"}, Ref: lease.Ref{Resource: g.Resource, Token: g.Token}, Reason: "drill",
			})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sign has a node sign the newest head: nodes do that when they stop, too.
func sign(t *testing.T, c *quorumtest.Cluster, n *quorumtest.Node) {
	t.Helper()
	seen, err := n.Service.ListAudit(t.Context(), quorum.AuditQuery{Limit: 1}) // it has seen everything
	if err != nil {
		t.Fatal(err)
	}
	n.Stop()
	n.Start()
	c.Await("every node knows what "+n.Name+" has signed", func() bool {
		for _, other := range c.Nodes {
			page, err := other.Service.ListAudit(t.Context(), quorum.AuditQuery{Limit: 1})
			if err != nil || !slices.ContainsFunc(page.Heads, func(h quorum.AuditHeadStatus) bool { return h.Head.Sequence >= seen.Head }) {
				return false
			}
		}
		return true
	})
}

func TestTheAuditLogIsListed(t *testing.T) {
	c := quorumtest.Start(t, 3)
	record(t, c, 5)
	for _, n := range c.Nodes { // each answers, and all the same
		page, err := n.Service.ListAudit(t.Context(), quorum.AuditQuery{Action: "lease.force-release", Limit: 3})
		if err != nil || len(page.Records) != 3 || !page.More || page.Head < 5 {
			t.Fatalf("%s: %+v, %v", n.Name, page, err)
		}
		next, err := n.Service.ListAudit(t.Context(), quorum.AuditQuery{
			Action: "lease.force-release", Limit: 3, After: page.Records[2].Sequence,
		})
		if err != nil || len(next.Records) != 2 || next.More || next.Records[0].Sequence <= page.Records[2].Sequence {
			t.Fatalf("%s, the second page: %+v, %v", n.Name, next, err)
		}
		newest, err := n.Service.ListAudit(t.Context(), quorum.AuditQuery{Target: "forced/*", Actor: "root", Limit: 1, NewestFirst: true})
		if err != nil || len(newest.Records) != 1 || newest.Records[0].Sequence != next.Records[1].Sequence {
			t.Fatalf("%s, the newest: %+v, %v", n.Name, newest, err)
		}
		older, err := n.Service.ListAudit(t.Context(), quorum.AuditQuery{Target: "forced/*", Limit: 1000, NewestFirst: true, After: newest.Records[0].Sequence})
		if err != nil || len(older.Records) != 4 {
			t.Fatalf("%s, older ones: %+v, %v", n.Name, older, err)
		}
		at := newest.Records[0].At
		for name, q := range map[string]quorum.AuditQuery{
			"another target": {Target: "forced", Limit: 10}, "another actor": {Actor: "roo", Limit: 10}, "another action": {Action: "lease", Limit: 10},
			"later": {Since: at.Add(time.Nanosecond), Limit: 10}, "earlier": {Until: at.Add(-time.Hour), Limit: 10},
		} {
			if page, err := n.Service.ListAudit(t.Context(), q); err != nil || len(page.Records) != 0 {
				t.Errorf("%s, %s: %+v, %v", n.Name, name, page, err)
			}
		}
	}
	if _, err := c.Nodes[0].Service.ListAudit(t.Context(), quorum.AuditQuery{}); !errors.Is(err, lease.ErrInvalid) {
		t.Errorf("without a limit: %v", err)
	}
}

func TestABundleVerifiesAndPruningKeepsWhatIsLeftVerifiable(t *testing.T) {
	c := quorumtest.Start(t, 3)
	record(t, c, 6)
	sign(t, c, c.Nodes[2])
	prune := func(before uint64) (pruned uint64, err error) {
		err = c.Do(func(s *quorum.Service) (err error) {
			pruned, err = s.PruneAudit(t.Context(), "root", before, "kept for a year")
			return err
		})
		return pruned, err
	}
	all := exported(t, c, 0, 0)
	if all.Start.Sequence != 0 || all.Records < 6 || all.Covered < 6 || all.Pruned != 0 {
		t.Errorf("the whole log: %+v", all)
	}
	part := exported(t, c, 3, 5)
	if part.Start.Sequence != 2 || part.End.Sequence != 5 || part.Records != 3 {
		t.Errorf("a part of it: %+v", part)
	}
	if _, err := prune(1_000_000); !errors.Is(err, lease.ErrInvalid) {
		t.Errorf("pruned behind the end: %v", err)
	}
	pruned, err := prune(4)
	if err != nil || pruned != 3 {
		t.Fatalf("pruned up to %d, %v", pruned, err)
	}
	if pruned, err = prune(4); err != nil || pruned != 3 {
		t.Errorf("once more: pruned up to %d, %v", pruned, err)
	}
	for _, n := range c.Nodes {
		page, err := n.Service.ListAudit(t.Context(), quorum.AuditQuery{Limit: 100})
		if err != nil || page.Pruned != 3 || page.Records[0].Sequence != 4 || page.Records[len(page.Records)-1].Action != audit.ActionPrune {
			t.Errorf("%s lists %+v, %v", n.Name, page, err)
		}
		for _, h := range page.Heads {
			if h.Alarm != "" {
				t.Errorf("%s: the head of %s: %s", n.Name, h.Head.Node, h.Alarm)
			}
		}
	}
	rest := exported(t, c, 0, 0)
	if rest.Start.Sequence != 3 || rest.Pruned != 3 || rest.Covered < 6 {
		t.Errorf("the rest: %+v", rest)
	}
	if through := exported(t, c, 5, 5); through.Start.Sequence != 4 {
		t.Errorf("a part of the rest: %+v", through)
	}
	err = c.Nodes[0].Service.ExportAudit(t.Context(), 1, 0, &bytes.Buffer{})
	if !errors.Is(err, lease.ErrInvalid) {
		t.Errorf("exported what has been pruned: %v", err)
	}
	entries, _, err := c.Nodes[0].Member.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Key == quorum.AuditKey(3) {
			t.Error("record 3 is still stored")
		}
	}
}

// exported exports from the first node and verifies.
func exported(t *testing.T, c *quorumtest.Cluster, from, to uint64) audit.Report {
	t.Helper()
	var bundle bytes.Buffer
	if err := c.Nodes[0].Service.ExportAudit(t.Context(), from, to, &bundle); err != nil {
		t.Fatal(err)
	}
	report, err := audit.VerifyBundle(&bundle)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestNothingIsPrunedThatNoHeadCovers(t *testing.T) {
	c := quorumtest.Start(t, 1)
	record(t, c, 1)
	sign(t, c, c.Nodes[0]) // from now on it is silent for a minute
	record(t, c, 3)
	page, err := c.Nodes[0].Service.ListAudit(t.Context(), quorum.AuditQuery{Limit: 1, NewestFirst: true})
	if err != nil {
		t.Fatal(err)
	}
	signed := page.Heads[0].Head.Sequence
	if signed >= page.Head {
		t.Fatalf("head %d of %d is signed", signed, page.Head)
	}
	_, err = c.Nodes[0].Service.PruneAudit(t.Context(), "root", signed+2, "too much")
	if !errors.Is(err, lease.ErrConflict) {
		t.Errorf("pruned behind the signed head %d: %v", signed, err)
	}
	if _, err := c.Nodes[0].Service.PruneAudit(t.Context(), "root", signed+1, "as far as it goes"); err != nil {
		t.Error(err)
	}
	exported(t, c, 0, 0)
}
