package etcd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/datadir"
)

// stoppedMember answers the directory of a member that made some commits, and how far it was.
func stoppedMember(t *testing.T, commits int) (Config, DiskState) {
	t.Helper()
	c := newCluster(t, 1)
	m := c.members[0]
	term := claim(t, m)
	for n := range commits {
		commit(t, m, term, write(fmt.Sprint(n), "x"))
	}
	c.closeAll()
	progress := m.Progress() // of a member that applies no more
	want := DiskState{
		Name: m.cfg.Name, MemberID: m.ID(), ClusterID: m.ClusterID(),
		LastIndex: progress.AppliedIndex, Term: progress.RaftTerm,
		Commit: progress.AppliedIndex, ConsistentIndex: progress.AppliedIndex,
	}
	return c.configs[0], want
}

func lastLog(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(datadir.ToWALDir(dir), "*.wal"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no log in %s: %v", dir, err)
	}
	slices.Sort(names)
	return names[len(names)-1]
}

func TestInspect(t *testing.T) {
	cfg, want := stoppedMember(t, 20)
	before := fingerprint(t, cfg.DataDir)
	got, err := Inspect(cfg.DataDir)
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if after := fingerprint(t, cfg.DataDir); after != before {
		t.Errorf("inspecting changed the directory:\n%s\nwas\n%s", after, before)
	}
}

// fingerprint answers the names, sizes and times of the files below dir.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintln(&out, path, info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// What a witness is for: the directory put back from a copy.
func TestInspectSeesADirectoryPutBack(t *testing.T) {
	cfg, old := stoppedMember(t, 10)
	backup := filepath.Join(t.TempDir(), "backup")
	if err := copyTree(cfg.DataDir, backup); err != nil {
		t.Fatal(err)
	}
	m := open(t, cfg)
	commit(t, m, claim(t, m), write("later", "x"))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	witnessed := m.Progress()
	state, err := Inspect(cfg.DataDir)
	if err != nil || state.LastIndex < witnessed.AppliedIndex || state.Term < witnessed.RaftTerm {
		t.Errorf("the directory itself is at %+v, %v, witnessed was %+v", state, err, witnessed)
	}
	state, err = Inspect(backup)
	if err != nil || state != old {
		t.Errorf("the copy is at %+v, %v, was %+v", state, err, old)
	}
	if state.LastIndex >= witnessed.AppliedIndex || state.Term >= witnessed.RaftTerm {
		t.Errorf("the copy is at %+v, which is not below what was witnessed, %+v", state, witnessed)
	}
}

// Snapshots of the log make its first files disappear.
func TestInspectAfterLogFilesWereDropped(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.SnapshotCount = 50 })
	m := c.members[0]
	term := claim(t, m)
	for n := range 300 {
		commit(t, m, term, write(fmt.Sprint(n%10), strings.Repeat("x", 40<<10)))
	}
	c.closeAll()
	applied := m.Progress().AppliedIndex
	state, err := Inspect(c.configs[0].DataDir)
	if err != nil || state.LastIndex != applied || state.ConsistentIndex != applied {
		t.Errorf("got %+v, %v, want %d", state, err, applied)
	}
	names, err := os.ReadDir(datadir.ToWALDir(c.configs[0].DataDir))
	if err != nil || len(names) < 3 {
		t.Errorf("the log has %d files, %v: the test shows nothing", len(names), err)
	}
	// A file of the middle that is missing is damage.
	if err := os.Remove(filepath.Join(datadir.ToWALDir(c.configs[0].DataDir), names[1].Name())); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(c.configs[0].DataDir); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got %v", err)
	}
}

// A crash tears the last record. etcd drops it, and so does Inspect; at every length of what is left.
func TestInspectOfATornLog(t *testing.T) {
	cfg, whole := stoppedMember(t, 10)
	log := lastLog(t, cfg.DataDir)
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	end := len(raw)
	for end > 0 && raw[end-1] == 0 {
		end--
	}
	last := whole.LastIndex
	for cut := end; cut > end-400; cut -= 3 {
		if err := os.WriteFile(log, raw[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		state, err := Inspect(cfg.DataDir)
		if err != nil {
			t.Fatalf("cut at %d of %d: %v", cut, end, err)
		}
		if state.LastIndex > last {
			t.Fatalf("cut at %d of %d: last index rose from %d to %d", cut, end, last, state.LastIndex)
		}
		last = state.LastIndex
	}
	if last == whole.LastIndex {
		t.Error("no record was torn: the test shows nothing")
	}
}

func TestInspectOfDamage(t *testing.T) {
	for name, test := range map[string]struct {
		damage func(t *testing.T, dir string)
		want   error
	}{
		"nothing": {func(t *testing.T, dir string) { remove(t, datadir.ToMemberDir(dir)) }, ErrNoMember},
		"a changed record": {func(t *testing.T, dir string) {
			change(t, lastLog(t, dir), func(raw []byte) { raw[600] ^= 0xff })
		}, ErrDamaged},
		"a broken database": {func(t *testing.T, dir string) {
			change(t, datadir.ToBackendFileName(dir), func(raw []byte) { clear(raw[:8192]) })
		}, ErrDamaged},
		"a strange file": {func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(datadir.ToWALDir(dir), "x.wal"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := stoppedMember(t, 3)
			test.damage(t, cfg.DataDir)
			if _, err := Inspect(cfg.DataDir); !errors.Is(err, test.want) || !strings.Contains(err.Error(), cfg.DataDir) {
				t.Errorf("got %v, want %v that names %s", err, test.want, cfg.DataDir)
			}
			m, err := Open(testContext(t), cfg)
			if errors.Is(test.want, ErrDamaged) && !errors.Is(err, ErrDamaged) {
				t.Errorf("opened %v, %v", m, err)
			}
			if m != nil {
				_ = m.Close()
			}
		})
	}
}

func TestOpenRefusesADatabaseWithoutItsLog(t *testing.T) {
	cfg, _ := stoppedMember(t, 3)
	remove(t, datadir.ToWALDir(cfg.DataDir))
	if _, err := Open(testContext(t), cfg); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "no log") {
		t.Errorf("got %v", err)
	}
}

func TestInspectOfARunningMember(t *testing.T) {
	m := newCluster(t, 1).members[0]
	claim(t, m)
	if _, err := Inspect(m.cfg.DataDir); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func change(t *testing.T, path string, f func([]byte)) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f(raw)
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}
