package etcd

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/writ-io/writ/quorum"
)

// saveSnapshot writes a snapshot of m to a new file.
func saveSnapshot(t *testing.T, m *Member) string {
	t.Helper()
	reader, size, err := m.Snapshot(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(reader)
	if err := errors.Join(err, reader.Close()); err != nil {
		t.Fatal(err)
	}
	if int64(len(raw)) != size {
		t.Errorf("snapshot has %d bytes, said %d", len(raw), size)
	}
	path := filepath.Join(t.TempDir(), "snapshot")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// restoreAll restores a new cluster of n members and starts it.
func restoreAll(t *testing.T, n int, from RestoreConfig) *cluster {
	t.Helper()
	c := &cluster{t: t, configs: configs(t, n)}
	for i := range c.configs {
		cfg := &c.configs[i]
		cfg.ClusterToken = "restored"
		from.TargetDataDir, from.Name, from.PeerURL = cfg.DataDir, cfg.Name, cfg.ListenPeerURL
		from.InitialCluster, from.ClusterToken = cfg.InitialCluster, cfg.ClusterToken
		if err := Restore(from); err != nil {
			t.Fatalf("restore %s: %v", cfg.Name, err)
		}
	}
	c.start()
	return c
}

func TestRestoreRoundTrip(t *testing.T) {
	c := newCluster(t, 1)
	term := claim(t, c.members[0])
	want := map[string]string{}
	for n := range 20 {
		key := fmt.Sprint(n)
		commit(t, c.members[0], term, write(key, key), write("gone", key))
		want[key] = key
	}
	newest := commit(t, c.members[0], term, quorum.Write{Key: write("gone", "").Key})
	snapshot := saveSnapshot(t, c.members[0])
	// What follows the snapshot is lost, and its revisions must not be used again.
	lost := commit(t, c.members[0], term, write("lost", "x"))
	c.closeAll()

	for round, members := range []int{3, 1} { // restored, snapshot taken, restored again
		restored := restoreAll(t, members, RestoreConfig{SnapshotFile: snapshot})
		m := restored.members[0]
		if got := load(t, m); !maps.Equal(got, want) {
			t.Fatalf("round %d: state is %v, want %v", round, got, want)
		}
		_, revision, err := m.Load(testContext(t))
		if err != nil || revision < newest+DefaultRevisionBump {
			t.Errorf("round %d: revision is %d, %v, want at least %d", round, revision, err, newest+DefaultRevisionBump)
		}
		if err := m.Confirm(testContext(t), term); err != nil {
			t.Errorf("round %d: the term of the snapshot: %v", round, err)
		}
		err = m.Watch(testContext(t), lost, func(quorum.Change) bool { return false })
		if !errors.Is(err, quorum.ErrCompacted) {
			t.Errorf("round %d: watch from a lost revision: got %v, want ErrCompacted", round, err)
		}
		term = claim(t, restored.leader())
		if int64(term) <= revision {
			t.Errorf("round %d: term %d after revision %d", round, term, revision)
		}
		newest = commit(t, m, term, write("after", fmt.Sprint(round)))
		lost = newest
		want["after"] = fmt.Sprint(round)
		snapshot = saveSnapshot(t, m)
		restored.closeAll()
	}
}

// A member that was killed has more in its log than in its database.
func TestRestoreFromDataDir(t *testing.T) {
	c := newCluster(t, 3)
	m := c.leader()
	term := claim(t, m)
	want := map[string]string{}
	for n := range 50 {
		key := fmt.Sprint(n)
		commit(t, m, term, write(key, key))
		want[key] = key
	}
	// The files as a crash would leave them: the database is written now and then, the log with every commit.
	crashed := filepath.Join(t.TempDir(), "crashed")
	if err := copyTree(m.cfg.DataDir, crashed); err != nil {
		t.Fatal(err)
	}
	c.closeAll()
	before, err := Inspect(crashed)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("log is at %d, commit index at %d, database at %d", before.LastIndex, before.Commit, before.ConsistentIndex)

	restored := restoreAll(t, 3, RestoreConfig{FromDataDir: crashed})
	if got := load(t, restored.members[2]); !maps.Equal(got, want) {
		t.Errorf("state is %v, want %v", got, want)
	}
	if after, err := Inspect(crashed); err != nil || after != before {
		t.Errorf("restoring changed the source: %+v, %v, was %+v", after, err, before)
	}
}

func TestRestoreRefuses(t *testing.T) {
	c := newCluster(t, 1)
	commit(t, c.members[0], claim(t, c.members[0]), write("a", "1"))
	snapshot := saveSnapshot(t, c.members[0])
	raw, err := os.ReadFile(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	changed := append([]byte{}, raw...)
	changed[len(changed)/2] ^= 1
	sealed := func(content []byte) []byte {
		sum := sha256.Sum256(content)
		return append(append([]byte{}, content...), sum[:]...)
	}
	full := filepath.Join(t.TempDir(), "full")
	if err := os.MkdirAll(filepath.Join(full, "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := configs(t, 1)[0]
	good := RestoreConfig{
		SnapshotFile: snapshot, TargetDataDir: cfg.DataDir, Name: cfg.Name, PeerURL: cfg.ListenPeerURL,
		InitialCluster: cfg.InitialCluster, ClusterToken: "new",
	}
	for name, test := range map[string]struct {
		change func(*RestoreConfig)
		want   string
		is     error
	}{
		"truncated":        {func(c *RestoreConfig) { c.SnapshotFile = file("s", raw[:len(raw)-4096]) }, "checksum", ErrDamaged},
		"cut in a page":    {func(c *RestoreConfig) { c.SnapshotFile = file("s", raw[:len(raw)-1000]) }, "truncated", ErrDamaged},
		"empty":            {func(c *RestoreConfig) { c.SnapshotFile = file("s", nil) }, "0 bytes", ErrDamaged},
		"changed":          {func(c *RestoreConfig) { c.SnapshotFile = file("s", changed) }, "checksum", ErrDamaged},
		"a text":           {func(c *RestoreConfig) { c.SnapshotFile = file("s", []byte("no snapshot")) }, "not a snapshot", ErrDamaged},
		"a sealed text":    {func(c *RestoreConfig) { c.SnapshotFile = file("s", sealed(make([]byte, 8192))) }, "invalid database", ErrDamaged},
		"another database": {func(c *RestoreConfig) { c.SnapshotFile = file("s", sealed(foreignDatabase(t))) }, "not etcd's", ErrDamaged},
		"missing":          {func(c *RestoreConfig) { c.SnapshotFile += ".not" }, "no such file", os.ErrNotExist},
		"a directory":      {func(c *RestoreConfig) { c.SnapshotFile = full }, "not a file", ErrDamaged},
		"full target":      {func(c *RestoreConfig) { c.TargetDataDir = full }, "is not empty", nil},
		"no source":        {func(c *RestoreConfig) { c.SnapshotFile = "" }, "must be given", nil},
		"two sources":      {func(c *RestoreConfig) { c.FromDataDir = full }, "must be given", nil},
		"no member":        {func(c *RestoreConfig) { c.SnapshotFile, c.FromDataDir = "", full }, full, ErrNoMember},
		"running member":   {func(c *RestoreConfig) { c.SnapshotFile, c.FromDataDir = "", "RUNNING" }, "in use", ErrLocked},
		"not in cluster":   {func(c *RestoreConfig) { c.Name = "stranger" }, "does not hold this node", nil},
		"orphan":           {func(c *RestoreConfig) { c.TargetDataDir = filepath.Join(full, "no", "where") }, "no such file", os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			test.change(&bad)
			if bad.FromDataDir == "RUNNING" {
				bad.FromDataDir = c.members[0].cfg.DataDir
			}
			err := Restore(bad)
			if err == nil || !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v, want %q and %v", err, test.want, test.is)
			}
			if _, err := os.Stat(good.TargetDataDir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a refused restore left %s behind", good.TargetDataDir)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(good.TargetDataDir), ".restore-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if err := Restore(good); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	if !HasMember(good.TargetDataDir) {
		t.Error("the restored directory holds no member")
	}
}

// foreignDatabase answers a bbolt database that is not etcd's.
func foreignDatabase(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte("guard"))
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
