package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/quorum"
)

// join opens a new member of a running cluster.
func (c *cluster) join(name string) *Member {
	c.t.Helper()
	peer := freeURLs(c.t, "http", 1)[0]
	id, err := c.leader().AddMember(testContext(c.t), peer)
	if err != nil {
		c.t.Fatal(err)
	}
	initial := maps.Clone(c.configs[0].InitialCluster)
	initial[name] = peer
	cfg := c.configs[0]
	cfg.Name, cfg.DataDir = name, filepath.Join(c.t.TempDir(), name)
	cfg.ListenPeerURL, cfg.InitialCluster, cfg.Join = peer, initial, true
	m := open(c.t, cfg)
	if m.ID() != id {
		c.t.Errorf("added member %x runs as %x", id, m.ID())
	}
	c.configs = append(c.configs, cfg)
	c.members = append(c.members, m)
	return m
}

func find(m *Member, id uint64) (quorum.MemberInfo, bool) {
	for _, info := range m.Members() {
		if info.ID == id {
			return info, true
		}
	}
	return quorum.MemberInfo{}, false
}

func TestAddPromoteRemove(t *testing.T) {
	c := newCluster(t, 1)
	first := c.members[0]
	term := claim(t, first)
	for n := range 20 {
		commit(t, first, term, write(fmt.Sprint(n), "x"))
	}
	ctx := testContext(t)

	second := c.join("second")
	if info, ok := find(first, second.ID()); !ok || !info.Learner || len(info.PeerURLs) != 1 {
		t.Errorf("added member is %+v, %v, want a learner", info, ok)
	}
	if _, err := first.AddMember(ctx, second.cfg.ListenPeerURL); !errors.Is(err, ErrMemberExists) {
		t.Errorf("added the same address twice: %v", err)
	}
	// A learner counts for nothing: the first member alone still is the quorum.
	commit(t, first, term, write("alone", "x"))
	promote(t, second, second.ID()) // through a follower, which asks the leader
	eventually(t, "the promotion is known to the new member", func() bool {
		info, ok := find(second, second.ID())
		return ok && !info.Learner && info.Name == "second"
	})
	if err := first.PromoteMember(ctx, second.ID()); !errors.Is(err, ErrMemberExists) {
		t.Errorf("promoted twice: %v", err)
	}
	if got := load(t, second); len(got) != 21 {
		t.Errorf("the new member has %d keys, want 21", len(got))
	}
	eventually(t, "both see each other", func() bool {
		return first.Reachable(second.ID()) && second.Reachable(first.ID()) && first.Reachable(first.ID())
	})

	if err := first.RemoveMember(ctx, second.ID()); err != nil {
		t.Fatal(err)
	}
	wait(t, second.Done(), "the removed member stops")
	if err := second.Err(); !errors.Is(err, ErrRemoved) {
		t.Errorf("the removed member ended with %v", err)
	}
	if err := second.Close(); !errors.Is(err, ErrRemoved) {
		t.Errorf("closing the removed member: %v", err)
	}
	if _, ok := find(first, second.ID()); ok || first.Reachable(second.ID()) {
		t.Error("the removed member is still there")
	}
	commit(t, first, claim(t, first), write("alone", "again"))

	if err := first.PromoteMember(ctx, 12345); !errors.Is(err, ErrNoSuchMember) {
		t.Errorf("promoted a stranger: %v", err)
	}
	if err := first.RemoveMember(ctx, second.ID()); !errors.Is(err, ErrNoSuchMember) {
		t.Errorf("removed twice: %v", err)
	}
	again := open(t, second.cfg)
	wait(t, again.Done(), "the removed member stops again")
	if err := again.Err(); !errors.Is(err, ErrRemoved) {
		t.Errorf("the removed member ended again with %v", err)
	}
}

// promote promotes a learner as soon as it has caught up.
func promote(t testing.TB, through *Member, id uint64) {
	t.Helper()
	eventually(t, "the learner is promoted", func() bool {
		err := through.PromoteMember(testContext(t), id)
		if err != nil && !errors.Is(err, ErrNotReady) && !errors.Is(err, quorum.ErrUnknown) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func TestALearnerThatIsBehindIsNotPromoted(t *testing.T) {
	c := newCluster(t, 1)
	for range 30 { // so that nothing is less than nine tenths
		claim(t, c.members[0])
	}
	id, err := c.members[0].AddMember(testContext(t), freeURLs(t, "http", 1)[0]) // never started
	if err != nil {
		t.Fatal(err)
	}
	if err := c.members[0].PromoteMember(testContext(t), id); !errors.Is(err, ErrNotReady) {
		t.Errorf("got %v, want ErrNotReady", err)
	}
}

func TestStrictReconfigurationWaits(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.NoStrictReconfig = false })
	leader := c.leader()
	for _, m := range c.members {
		if m != leader {
			_ = m.Close()
			break
		}
	}
	// etcd asks that all members have been connected for five seconds, and one is away.
	if _, err := c.leader().AddMember(testContext(t), freeURLs(t, "http", 1)[0]); !errors.Is(err, ErrNotReady) {
		t.Errorf("got %v, want ErrNotReady", err)
	}
}

func TestMoveLeader(t *testing.T) {
	c := newCluster(t, 3)
	old := c.leader()
	_, lost := old.Leadership()
	var to *Member
	for _, m := range c.members {
		if m != old {
			to = m
		}
	}
	_, won := to.Leadership()
	ctx := testContext(t)
	if err := to.MoveLeader(ctx, to.ID()); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a follower moved the leader: %v", err)
	}
	if err := old.MoveLeader(ctx, 12345); !errors.Is(err, ErrNoSuchMember) {
		t.Errorf("moved to a stranger: %v", err)
	}
	if err := old.MoveLeader(ctx, to.ID()); err != nil {
		t.Fatal(err)
	}
	wait(t, lost, "the old leader hears of it")
	wait(t, won, "the new leader hears of it")
	eventually(t, "only the new one leads", func() bool {
		a, _ := old.Leadership()
		b, _ := to.Leadership()
		return !a && b
	})
	commit(t, to, claim(t, to), write("a", "1"))
}

func TestMoveLeaderToAnAbsentMemberIsGivenUp(t *testing.T) {
	c := newCluster(t, 3)
	old := c.leader()
	term := claim(t, old)
	var gone *Member
	for _, m := range c.members {
		if m != old {
			gone = m
		}
	}
	gone.server.HardStop()
	wait(t, gone.Done(), "the member stops")
	if err := old.MoveLeader(testContext(t), gone.ID()); !errors.Is(err, quorum.ErrUnknown) {
		t.Errorf("got %v, want ErrUnknown", err)
	}
	eventually(t, "the absent member is not reachable", func() bool { return !old.Reachable(gone.ID()) })
	// Proposals are dropped during the transfer, not after it.
	commit(t, old, term, write("a", "1"))
}

// A stopping leader hands over, so that nobody waits for an election.
func TestCloseHandsLeadershipOver(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.Election = 5 * time.Second })
	old := c.leader()
	term := claim(t, old)
	eventually(t, "the members are connected", func() bool {
		for _, m := range c.members {
			if !old.Reachable(m.ID()) {
				return false
			}
		}
		return true
	})
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.members {
		if m == old {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond) // half an election
		if err := m.Confirm(ctx, term); err != nil {
			t.Errorf("%s: confirm right after the leader closed: %v", m.cfg.Name, err)
		}
		cancel()
	}
}

// A member that was away when it was removed learns of it from its peers, and says so, however little it logs.
func TestRemovedWhileAway(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.Logger = hclog.NewNullLogger() })
	away := c.configs[2]
	id := c.members[2].ID()
	if err := c.members[2].Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the member is removed", func() bool {
		return c.members[0].RemoveMember(testContext(t), id) == nil
	})
	again := open(t, away)
	wait(t, again.Done(), "the removed member stops")
	if err := again.Err(); !errors.Is(err, ErrRemoved) {
		t.Errorf("it ended with %v", err)
	}
}
