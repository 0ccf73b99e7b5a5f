package etcd

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/server/v3/storage/datadir"

	"github.com/writ-io/writ/quorum"
)

// What a member held can be read where it was killed, log and all, and nothing there is changed.
func TestReadStateOfWhatAMemberLeft(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	c := newCluster(t, 3)
	m := c.leader()
	term := claim(t, m)
	want := map[string]string{}
	for _, n := range []string{"1", "2", "3"} {
		commit(t, m, term, write(n, "value "+n), quorum.Write{Key: quorum.LeaseKey("packed"), Value: []byte(n)})
		want[n] = "value " + n
	}
	crashed := filepath.Join(t.TempDir(), "crashed")
	if err := copyTree(m.cfg.DataDir, crashed); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadState(m.cfg.DataDir, hclog.NewNullLogger()); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), filepath.Join(m.cfg.DataDir, lockName)) {
		t.Errorf("while it runs: %v", err)
	}
	c.closeAll()
	for _, test := range []struct {
		name   string
		change func()
	}{
		{"with a lock that nobody holds", func() {}},
		{"without one", func() { remove(t, filepath.Join(crashed, lockName)) }},
	} {
		test.change()
		before := fingerprint(t, crashed)
		entries, err := ReadState(crashed, hclog.NewNullLogger())
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		got, packed := map[string]string{}, ""
		for _, e := range entries {
			if name, ok := strings.CutPrefix(e.Key, quorum.Prefix+"test/"); ok {
				got[name] = string(e.Value)
			}
			if e.Key == quorum.LeaseKey("packed") {
				packed = string(e.Value)
			}
		}
		if !maps.Equal(got, want) || packed != "3" {
			t.Errorf("%s: state is %v and %q, want %v", test.name, got, packed, want)
		}
		if after := fingerprint(t, crashed); after != before {
			t.Errorf("%s: reading changed %s\nto %s", test.name, before, after)
		}
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "*")); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
}

func TestReadStateNamesWhatIsDamaged(t *testing.T) {
	for name, test := range map[string]struct {
		damage func(t *testing.T, dir string)
		want   error
		file   func(dir string) string
	}{
		"nothing": {func(t *testing.T, dir string) { remove(t, datadir.ToMemberDir(dir)) }, ErrNoMember, func(dir string) string { return dir }},
		"a changed record": {func(t *testing.T, dir string) {
			change(t, lastLog(t, dir), func(raw []byte) { raw[600] ^= 0xff })
		}, ErrDamaged, datadir.ToWALDir},
		"a broken database": {func(t *testing.T, dir string) {
			change(t, datadir.ToBackendFileName(dir), func(raw []byte) { clear(raw[:8192]) })
		}, ErrDamaged, datadir.ToBackendFileName},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := stoppedMember(t, 3)
			test.damage(t, cfg.DataDir)
			if _, err := ReadState(cfg.DataDir, hclog.NewNullLogger()); !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.file(cfg.DataDir)) {
				t.Errorf("got %v, want %v that names %s", err, test.want, test.file(cfg.DataDir))
			}
		})
	}
}
