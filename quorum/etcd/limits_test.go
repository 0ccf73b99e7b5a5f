package etcd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/writ-io/writ/quorum"
)

func TestCheckWrites(t *testing.T) {
	for name, test := range map[string]struct {
		writes []quorum.Write
		want   string
		is     error
	}{
		"nothing":         {nil, "", nil},
		"foreign key":     {[]quorum.Write{{Key: "/other/key", Value: []byte{}}}, "not under", nil},
		"no key":          {[]quorum.Write{{Value: []byte{}}}, "not under", nil},
		"the term":        {[]quorum.Write{{Key: quorum.KeyTerm, Value: []byte{}}}, "by Claim alone", nil},
		"twice":           {[]quorum.Write{write("a", "1"), {Key: write("a", "").Key}}, "twice", nil},
		"deletes head":    {[]quorum.Write{{Key: quorum.KeyHead}}, "cannot be deleted", nil},
		"head and others": {[]quorum.Write{{Key: quorum.KeyHead, Value: []byte("7")}, write("a", "1")}, "", nil},
		"too many":        {make([]quorum.Write, quorum.MaxCommitWrites+1), "4097 writes", quorum.ErrTooLarge},
		"too big":         {[]quorum.Write{write("a", strings.Repeat("x", quorum.MaxCommitBytes))}, "bytes", quorum.ErrTooLarge},
	} {
		_, err := checkWrites(test.writes)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

// fill commits until the store refuses to grow, and answers the number of the newest commit that was acknowledged.
func fill(t *testing.T, m *Member, term quorum.Term) (acked int) {
	t.Helper()
	for n := range 200 {
		_, err := m.Commit(testContext(t), term, []quorum.Write{write("big", strings.Repeat("x", 512<<10)), write("n", fmt.Sprint(n))})
		switch {
		case err == nil:
			acked = n
		case errors.Is(err, quorum.ErrNoSpace) && !errors.Is(err, quorum.ErrUnknown):
			return acked
		default:
			t.Fatal(err)
		}
	}
	t.Fatal("the quota does nothing")
	return 0
}

func TestAFullStoreRefusesCommitsOnly(t *testing.T) {
	m := newCluster(t, 1, func(cfg *Config) { cfg.QuotaBytes = minQuotaBytes }).members[0]
	ctx := testContext(t)
	term := claim(t, m)
	acked := fill(t, m, term)
	head, err := m.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := strconv.Atoi(load(t, m)["n"]); err != nil || got != acked {
		t.Errorf("newest commit is %d, %v, acknowledged was %d", got, err, acked)
	}
	_, err = m.Commit(ctx, term, []quorum.Write{write("small", strings.Repeat("x", 512<<10))})
	if !errors.Is(err, quorum.ErrNoSpace) {
		t.Errorf("got %v", err)
	}
	if again, err := m.Head(ctx); err != nil || again != head {
		t.Errorf("head moved from %d to %d, %v", head, again, err)
	}
	if err := m.Confirm(ctx, term); err != nil {
		t.Errorf("a full store does not confirm: %v", err)
	}
	if _, err := m.Announce(ctx, write("node", "x")); err != nil {
		t.Errorf("a full store takes no announcement: %v", err)
	}
	term = claim(t, m)
	if m.NoSpace() {
		t.Error("etcd's alarm is raised")
	}
	// Compaction is enough, without defragmentation: free pages are written again. The first one folds the log. Ten thousand
	// messages would have the server write by itself.
	rounds := 0
	eventually(t, "commits are possible", func() bool {
		if rounds++; rounds > 1000 {
			t.Fatalf("what was freed does not count: %+v", m.Progress())
		}
		head, err := m.Head(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Compact(ctx, head); err != nil {
			t.Fatal(err)
		}
		m.Recount() // nothing else is written, to see what was freed
		_, err = m.Commit(ctx, term, []quorum.Write{write("small", "x")})
		return err == nil && m.Progress().DBBytes < minQuotaBytes/4
	})
}

// What is compacted is no history any more, and how far that has come is known.
func TestProgressTellsOfCompaction(t *testing.T) {
	m := newCluster(t, 1).members[0]
	term := claim(t, m)
	for n := range 10 {
		commit(t, m, term, write("n", fmt.Sprint(n)))
	}
	if p := m.Progress(); p.Oldest >= p.Revision || p.Compacting {
		t.Errorf("before: %+v", p)
	}
	head, err := m.Head(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Compact(testContext(t), head); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the compaction is over", func() bool { return !m.Progress().Compacting })
	if p := m.Progress(); p.Oldest != head {
		t.Errorf("after a compaction to %d: %+v", head, p)
	}
}

// A member of an earlier version may have raised the alarm.
func TestTheAlarmIsKnownAndCleared(t *testing.T) {
	c := newCluster(t, 3)
	raised, other := c.members[0], c.members[1]
	ctx := testContext(t)
	term := claim(t, other)
	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: raised.ID(), Alarm: pb.AlarmType_NOSPACE}
	if _, err := raised.server.Alarm(ctx, alarm); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the alarm is known", func() bool {
		_, err := other.Commit(ctx, term, []quorum.Write{write("small", "x")})
		// Only once the alarm is known is the outcome of a refusal known.
		if err != nil && !errors.Is(err, quorum.ErrUnknown) && !errors.Is(err, quorum.ErrNoSpace) {
			t.Fatal(err)
		}
		return errors.Is(err, quorum.ErrNoSpace)
	})
	if !other.NoSpace() {
		t.Error("the alarm is not known")
	}
	if _, err := other.Claim(ctx, []byte("x")); !errors.Is(err, quorum.ErrNoSpace) {
		t.Errorf("claim: %v", err)
	}
	if _, err := other.Announce(ctx, write("node", "x")); !errors.Is(err, quorum.ErrNoSpace) {
		t.Errorf("announce: %v", err)
	}
	if err := other.ClearNoSpace(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "commits are possible", func() bool {
		_, err := other.Commit(ctx, term, []quorum.Write{write("small", "x")})
		return err == nil
	})
}
