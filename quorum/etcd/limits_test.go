package etcd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

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
		err := checkWrites(test.writes)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

// fill commits until the store refuses to grow, and answers the number of the newest commit that was acknowledged. The
// size of the file lags the commits, so the first that exceeds the quota can be one that etcd makes and then regrets.
func fill(t *testing.T, m *Member, term quorum.Term) (acked int) {
	t.Helper()
	for n := range 200 {
		_, err := m.Commit(testContext(t), term, []quorum.Write{write("big", strings.Repeat("x", 512<<10)), write("n", fmt.Sprint(n))})
		switch {
		case err == nil:
			acked = n
		case errors.Is(err, quorum.ErrNoSpace):
			if errors.Is(err, quorum.ErrUnknown) {
				t.Errorf("a refused commit is unknown: %v", err)
			}
			return acked
		case !errors.Is(err, quorum.ErrUnknown):
			t.Fatal(err)
		}
	}
	t.Fatal("the quota does nothing")
	return 0
}

func TestAFullStoreRefusesAndRecovers(t *testing.T) {
	m := newCluster(t, 1, func(cfg *Config) { cfg.QuotaBytes = minQuotaBytes }).members[0]
	ctx := testContext(t)
	term := claim(t, m)
	acked := fill(t, m, term)
	head, err := m.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := strconv.Atoi(load(t, m)["n"]); err != nil || got < acked {
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
	before := m.Progress()
	if err := errors.Join(m.Compact(ctx, head), m.Defragment()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "compacted history is gone", func() bool {
		if err := m.Defragment(); err != nil {
			t.Fatal(err)
		}
		return m.Progress().DBFileBytes < before.DBFileBytes/2
	})
	if err := m.ClearNoSpace(ctx); err != nil {
		t.Fatal(err)
	}
	commit(t, m, term, write("small", "x"))
	if m.NoSpace() {
		t.Error("etcd's alarm is still raised")
	}
}

// The alarm can still be raised, by a member whose file is fuller than that of the one that proposed.
func TestTheAlarmIsKnownAndCleared(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) {
		if cfg.Name == "n0" {
			cfg.QuotaBytes = minQuotaBytes
		}
	})
	small, large := c.members[0], c.members[1]
	ctx := testContext(t)
	term := claim(t, large)
	eventually(t, "the alarm is raised", func() bool {
		_, err := large.Commit(ctx, term, []quorum.Write{write("big", strings.Repeat("x", 512<<10))})
		// Only once the alarm is known is the outcome of a refusal known.
		if err != nil && !errors.Is(err, quorum.ErrUnknown) && !errors.Is(err, quorum.ErrNoSpace) {
			t.Fatal(err)
		}
		return errors.Is(err, quorum.ErrNoSpace)
	})
	if !large.NoSpace() {
		t.Error("the alarm is not known")
	}
	if _, err := large.Claim(ctx, []byte("x")); !errors.Is(err, quorum.ErrNoSpace) {
		t.Errorf("claim: %v", err)
	}
	if _, err := large.Announce(ctx, write("node", "x")); !errors.Is(err, quorum.ErrNoSpace) {
		t.Errorf("announce: %v", err)
	}
	head, err := large.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := large.Compact(ctx, head); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is room again", func() bool {
		if err := small.Defragment(); err != nil {
			t.Fatal(err)
		}
		return small.Progress().DBFileBytes < minQuotaBytes/2
	})
	if err := large.ClearNoSpace(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "commits are possible", func() bool {
		_, err := large.Commit(ctx, term, []quorum.Write{write("small", "x")})
		return err == nil
	})
}
