package node

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
)

// snapshot saves a backup from node i to a file.
func (c *testCluster) snapshot(i int) string {
	c.t.Helper()
	c.leases(i) // connects
	stream, err := writv1.NewClusterServiceClient(c.conns[c.configs[i].API.Listen]).Snapshot(c.t.Context(), &writv1.SnapshotRequest{})
	must(c.t, err)
	file, err := os.CreateTemp(c.t.TempDir(), "*.snapshot")
	must(c.t, err)
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		must(c.t, err)
		_, err = file.Write(chunk.GetChunk())
		must(c.t, err)
	}
	must(c.t, file.Close())
	return file.Name()
}

func (c *testCluster) restore(r Restore, indices ...int) {
	c.t.Helper()
	for _, i := range indices {
		out, err := r.Run(c.configs[i])
		if err != nil {
			c.t.Fatalf("restore %s: %v", c.configs[i].Name, err)
		}
		if w := c.witness(i); w.Foreign != out.Reason || !strings.Contains(out.Reason, "restored from") {
			c.t.Errorf("witness says %q, want %q", w.Foreign, out.Reason)
		}
	}
}

func TestRestoreTwice(t *testing.T) {
	c := newClusterTTL(t, 3, 5*time.Second)
	c.start(c.all()...)
	c.ready()
	c.acquire(0, "a")
	backup := c.snapshot(0)
	// What the backup does not know of.
	c.acquire(1, "b")
	for range 5 {
		c.release(0, "c", c.acquire(0, "c"))
	}
	epochs := []fence.Epoch{c.highest["c"].Epoch()}
	for range 2 {
		c.stop(c.all()...)
		c.restore(Restore{Snapshot: backup}, c.all()...)
		c.start(c.all()...)
		for _, resource := range []string{"a", "b", "c"} {
			c.acquire(2, resource)
		}
		if _, err := c.leases(0).Get(t.Context(), &writv1.GetRequest{Resource: "b"}); err != nil {
			t.Error(err)
		}
		epochs = append(epochs, c.highest["c"].Epoch())
	}
	if !slices.Equal(epochs, []fence.Epoch{1, 2, 3}) {
		t.Errorf("epochs %v, want each one higher", epochs)
	}
	for i := range c.configs {
		for _, n := range []string{"1", "2"} {
			if !etcd.HasMember(filepath.Join(c.configs[i].DataDir, replacedDir+n)) {
				t.Errorf("%s has not kept what was replaced (%s)", c.configs[i].Name, n)
			}
		}
	}
}

// A holder that was granted its lease after the backup believes in it for its TTL. Nobody may be granted the resource
// meanwhile, though the restored state knows nothing of it.
func TestNoOverlapAfterRestore(t *testing.T) {
	const ttl = 20 * time.Second // much longer than the restore takes, on a busy machine too
	c := newClusterTTL(t, 3, ttl)
	c.start(c.all()...)
	c.ready()
	c.release(0, "a", c.acquire(0, "a"))
	backup := c.snapshot(0)
	sent := map[string]clock.Instant{}
	for _, resource := range []string{"a", "new"} {
		sent[resource] = clock.System().Now()
		c.acquire(0, resource)
	}
	c.stop(c.all()...)
	c.restore(Restore{Snapshot: backup}, c.all()...)
	c.start(c.all()...)
	started := clock.System().Now()
	for _, resource := range []string{"a", "new"} {
		c.acquire(0, resource)
		now := clock.System().Now()
		believed := clock.DefaultDrift().BelieveUntil(sent[resource], ttl)
		t.Logf("%s was granted %v after its last grant, and %v after the start", resource, now.Sub(sent[resource]), now.Sub(started))
		if now.Before(believed) {
			t.Errorf("%s was granted again %v before its last holder ceased to believe", resource, believed.Sub(now))
		}
	}
	if quick := started.Sub(sent["a"]); quick > ttl*2/3 {
		t.Errorf("the restore took %v of the TTL: this shows nothing", quick)
	}
}

// Only one of three is left: it goes on alone, from its own store, and the others join anew.
func TestForcedNewQuorum(t *testing.T) {
	c := newCluster(t, 3)
	c.start(c.all()...)
	c.ready()
	first := c.acquire(0, "a")
	c.stop(c.all()...)
	must(t, os.RemoveAll(c.configs[0].DataDir))
	must(t, os.RemoveAll(c.configs[1].DataDir))

	c.configs[2].Bootstrap.Members = map[string]string{"n3": c.configs[2].Bootstrap.Members["n3"]}
	c.restore(Restore{FromData: c.configs[2].DataDir}, 2)
	c.start(2)
	second := c.acquire(2, "a")
	if second.Epoch() != first.Epoch()+1 {
		t.Errorf("token %v after %v", second, first)
	}

	c.admit(2, 0)
	c.start(0)
	c.ready()
	if third := c.acquire(0, "a"); third.Epoch() != second.Epoch() {
		t.Errorf("token %v after %v: joining changed the epoch", third, second)
	}
}

// All witnesses and one store are left: a copy of it makes up for the others.
func TestRestoreOfOneStoreEverywhere(t *testing.T) {
	c := newCluster(t, 3)
	c.start(c.all()...)
	c.ready()
	c.acquire(0, "a")
	c.stop(c.all()...)
	backup := filepath.Join(t.TempDir(), "data")
	copyTree(t, c.configs[1].DataDir, backup)
	for i := range c.configs {
		must(t, os.RemoveAll(c.storePath(i)))
	}
	c.restore(Restore{FromData: backup}, c.all()...)
	c.start(c.all()...)
	if token := c.acquire(2, "a"); token.Epoch() != 2 {
		t.Errorf("token %v, want one of epoch 2", token)
	}
}

// Nodes that were restored from different backups do not become one quorum.
func TestRestoreOfDifferentBackups(t *testing.T) {
	c := newCluster(t, 2)
	c.start(c.all()...)
	c.ready()
	backups := []string{c.snapshot(0)}
	c.acquire(0, "a")
	backups = append(backups, c.snapshot(0))
	c.stop(c.all()...)
	for i, backup := range backups {
		c.restore(Restore{Snapshot: backup}, i)
	}
	c.start(c.all()...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if resp, err := c.leases(0).Acquire(ctx, &writv1.AcquireRequest{Resource: "a", Ttl: durationpb.New(longestTTL)}); err == nil {
		t.Errorf("granted %v", resp)
	}
	for _, n := range c.nodes {
		if reason := n.Status().NotReady; reason == "" {
			t.Errorf("%s is ready", n.config.Name)
		}
	}
}

// A store that was copied back is refused, and restoring from it is the way on.
func TestRestoreOfACopiedBackStore(t *testing.T) {
	c := newClusterTTL(t, 1, 5*time.Second)
	c.start(0)
	c.acquire(0, "a")
	c.stop(0)
	backup := filepath.Join(t.TempDir(), "etcd")
	copyTree(t, c.storePath(0), backup)
	c.start(0)
	for range 3 {
		c.release(0, "a", c.acquire(0, "a"))
	}
	c.stop(0)
	must(t, os.RemoveAll(c.storePath(0)))
	copyTree(t, backup, c.storePath(0))
	c.refused(0, 0, ErrStoreRolledBack)
	c.restore(Restore{FromData: c.storePath(0)}, 0)
	c.start(0)
	if token := c.acquire(0, "a"); token.Epoch() != 2 {
		t.Errorf("token %v, want one of epoch 2", token)
	}
}

// A backup that was taken in the middle of a recovery holds an epoch that tokens were granted in later.
func TestRestoreOfABackupFromARecovery(t *testing.T) {
	c := newClusterTTL(t, 1, 5*time.Second) // which is how long the recovery lasts
	must(t, c.tryStart(0, 4))
	eventually(t, func() string {
		if status := c.nodes[0].Status(); status.Epoch == 5 {
			return ""
		}
		return "the epoch has not been raised"
	})
	backup := c.snapshot(0)
	if reason := c.nodes[0].Status().NotReady; !strings.Contains(reason, "recovering") {
		t.Fatalf("the backup came too late (%q)", reason)
	}
	for range 5 {
		c.release(0, "a", c.acquire(0, "a"))
	}
	c.stop(0)
	c.restore(Restore{Snapshot: backup}, 0)
	c.start(0)
	if token := c.acquire(0, "a"); token.Epoch() != 6 {
		t.Errorf("token %v, want one of epoch 6", token)
	}
}

// Whatever moment a restore is cut off at: the old state, or one that is refused and can be restored again.
func TestInterruptedRestore(t *testing.T) {
	for _, step := range []string{"built", "witnessed", "set aside"} {
		t.Run(step, func(t *testing.T) {
			c := newCluster(t, 1)
			c.start(0)
			c.acquire(0, "a")
			backup := c.snapshot(0)
			c.acquire(0, "b")
			c.stop(0)
			before, oldStore := c.witness(0), filepath.Join(t.TempDir(), "etcd")
			copyTree(t, c.storePath(0), oldStore)

			c.restore(Restore{Snapshot: backup}, 0)
			// Back through the steps.
			must(t, os.Rename(c.storePath(0), filepath.Join(c.configs[0].DataDir, restoringDir)))
			if step != "set aside" {
				must(t, os.Rename(filepath.Join(c.configs[0].DataDir, replacedDir+"1"), c.storePath(0)))
			}
			if step == "built" {
				must(t, os.Remove(c.witnessPath(0)))
				must(t, quorum.SaveWitness(c.witnessPath(0), before))
			}
			switch step {
			case "built":
				c.start(0)
				c.acquire(0, "a")
				c.stop(0)
			case "witnessed":
				c.refused(0, 0, ErrOtherWitness, "a restore that was interrupted is to be run again")
			case "set aside":
				c.refused(0, 0, ErrStoreWiped, `"writ quorum restore"`)
			}
			c.restore(Restore{Snapshot: backup}, 0)
			c.start(0)
			for _, resource := range []string{"a", "b"} {
				if token := c.acquire(0, resource); token.Epoch() != 2 {
					t.Errorf("token %v, want one of epoch 2", token)
				}
			}
		})
	}
}

func TestRestoreWithoutWitness(t *testing.T) {
	c := newCluster(t, 1)
	c.start(0)
	c.acquire(0, "a")
	backup := c.snapshot(0)
	c.stop(0)
	refused := func(want error, words ...string) {
		t.Helper()
		before := tree(t, c.configs[0].DataDir)
		_, err := Restore{Snapshot: backup}.Run(c.configs[0])
		if !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
		checkWords(t, err.Error(), words...)
		if after := tree(t, c.configs[0].DataDir); !slices.Equal(before, after) {
			t.Errorf("a restore that was refused changed something\nbefore %q\nafter  %q", before, after)
		}
	}
	raw, err := os.ReadFile(c.witnessPath(0))
	must(t, err)
	must(t, os.WriteFile(c.witnessPath(0), append(raw, '!'), 0o600))
	refused(quorum.ErrWitnessEdited, "--min-epoch N", "highest token")
	must(t, os.Remove(c.witnessPath(0)))
	refused(quorum.ErrWitnessMissing, "--min-epoch N", "highest token")
	c.restore(Restore{Snapshot: backup, MinEpoch: 11}, 0)
	c.start(0)
	if token := c.acquire(0, "a"); token.Epoch() != 12 {
		t.Errorf("token %v, want one of epoch 12", token)
	}
}

func TestRestoreRefuses(t *testing.T) {
	c := newCluster(t, 1)
	c.start(0)
	c.ready()
	backup := c.snapshot(0)
	c.stop(0)
	damaged := filepath.Join(t.TempDir(), "damaged")
	raw, err := os.ReadFile(backup)
	must(t, err)
	raw[len(raw)/2] ^= 1
	must(t, os.WriteFile(damaged, raw, 0o600))
	before := tree(t, c.configs[0].DataDir)
	for _, test := range []struct {
		name string
		r    Restore
		want string
	}{
		{"nothing", Restore{}, "give either --snapshot FILE or --from-data DIR"},
		{"both", Restore{Snapshot: backup, FromData: c.configs[0].DataDir}, "give either"},
		{"no such file", Restore{Snapshot: backup + "x"}, "no such file"},
		{"damaged", Restore{Snapshot: damaged}, "damaged"},
		{"no store", Restore{FromData: t.TempDir()}, "name the data_dir of a node"},
		{"last epoch", Restore{Snapshot: backup, MinEpoch: fence.MaxEpoch}, "use 1 to 32766"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.r.Run(c.configs[0])
			if err == nil {
				t.Fatal("was not refused")
			}
			checkWords(t, err.Error(), test.want)
		})
	}
	if after := tree(t, c.configs[0].DataDir); !slices.Equal(before, after) {
		t.Errorf("restores that were refused changed something\nbefore %q\nafter  %q", before, after)
	}
	c.start(0)
	c.ready()
}

func TestRestoreOnAFullDisk(t *testing.T) {
	c := newCluster(t, 1)
	dir := mount(t, "40m")
	c.configs[0].DataDir = filepath.Join(dir, "data")
	c.start(0)
	c.acquire(0, "a")
	backup := c.snapshot(0)
	c.stop(0)
	fill(t, dir)
	before := tree(t, c.configs[0].DataDir)
	_, err := Restore{Snapshot: backup}.Run(c.configs[0])
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want ENOSPC", err)
	}
	checkWords(t, err.Error(), "restore:", "no space left")
	if after := tree(t, c.configs[0].DataDir); !slices.Equal(before, after) {
		t.Errorf("a restore that was refused changed something\nbefore %q\nafter  %q", before, after)
	}
	must(t, os.Remove(filepath.Join(dir, "ballast")))
	c.restore(Restore{Snapshot: backup}, 0)
	c.start(0)
	c.acquire(0, "a")
}

func TestRestoreRemovesTheOldStore(t *testing.T) {
	c := newCluster(t, 1)
	c.start(0)
	c.ready()
	backup := c.snapshot(0)
	c.stop(0)
	c.restore(Restore{Snapshot: backup, RemoveOld: true}, 0)
	if left, err := filepath.Glob(filepath.Join(c.configs[0].DataDir, replacedDir+"*")); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
	c.start(0)
	c.acquire(0, "a")
}
