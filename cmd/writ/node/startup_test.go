package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
)

func (c *testCluster) witnessPath(i int) string {
	return filepath.Join(c.configs[i].DataDir, witnessFile)
}
func (c *testCluster) storePath(i int) string { return filepath.Join(c.configs[i].DataDir, storeDir) }

func (c *testCluster) witness(i int) quorum.Witness {
	c.t.Helper()
	w, err := quorum.LoadWitness(c.witnessPath(i))
	if err != nil {
		c.t.Fatal(err)
	}
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bothWays are in every refusal of a store that must not be started from.
var bothWays = []string{`"writ quorum member replace n`, `"writ quorum restore"`}

func TestOneNodeServesAndRestarts(t *testing.T) {
	c := newClusterTTL(t, 1, 5*time.Second)
	for range 3 {
		c.start(0)
		c.ready()
		c.release(0, "a", c.acquire(0, "a"))
		c.stop(0)
	}
	w := c.witness(0)
	disk, err := etcd.Inspect(c.storePath(0))
	must(t, err)
	if w.Epoch != 1 || w.AppliedIndex != disk.Commit || w.RaftTerm != disk.Term || w.MemberID != disk.MemberID {
		t.Errorf("witness %+v after a stop, store %+v", w, disk)
	}
}

func TestMissingWitness(t *testing.T) {
	c := newCluster(t, 1)
	c.start(0)
	c.ready()
	c.acquire(0, "a")
	c.stop(0)
	must(t, os.Remove(c.witnessPath(0)))
	c.refused(0, 0, quorum.ErrWitnessMissing, append(bothWays, "--min-epoch N", c.witnessPath(0))...)
	must(t, c.tryStart(0, 7))
	if token := c.acquire(0, "a"); token.Epoch() != 8 {
		t.Errorf("token %v, want one of epoch 8", token)
	}
	c.stop(0)
	c.refused(0, 8, ErrMinEpoch, "8 was given", "remembers epoch 8", "start without it")
	c.start(0)
	if token := c.acquire(0, "a"); token.Epoch() != 8 {
		t.Errorf("token %v, want one of epoch 8", token)
	}
}

func TestEditedWitness(t *testing.T) {
	c := newCluster(t, 1)
	c.start(0)
	c.ready()
	c.acquire(0, "a")
	c.stop(0)
	raw, err := os.ReadFile(c.witnessPath(0))
	must(t, err)
	edited := strings.Replace(string(raw), `"epoch": 1`, `"epoch": 0`, 1)
	if edited == string(raw) {
		t.Fatalf("nothing to edit in %s", raw)
	}
	must(t, os.WriteFile(c.witnessPath(0), []byte(edited), 0o600))
	c.refused(0, 0, quorum.ErrWitnessEdited, append(bothWays, "--min-epoch N", c.witnessPath(0))...)
	must(t, c.tryStart(0, 3))
	if token := c.acquire(0, "a"); token.Epoch() != 4 {
		t.Errorf("token %v, want one of epoch 4", token)
	}
	if _, err := os.Stat(c.witnessPath(0) + ".replaced-1"); err != nil {
		t.Errorf("the edited witness was not kept: %v", err)
	}
}

func TestMinEpochRaises(t *testing.T) {
	c := newCluster(t, 1)
	c.start(0)
	c.acquire(0, "a")
	c.stop(0)
	c.refused(0, fence.MaxEpoch, ErrMinEpoch, "use 1 to 32766")
	must(t, c.tryStart(0, 4))
	if token := c.acquire(0, "a"); token.Epoch() != 5 {
		t.Errorf("token %v, want one of epoch 5", token)
	}
}

// A quorum in service hears of a node that had to be told the epoch, and goes above it.
func TestMinEpochReachesTheOthers(t *testing.T) {
	c := newClusterTTL(t, 3, 5*time.Second)
	c.start(c.all()...)
	c.ready()
	c.release(0, "a", c.acquire(0, "a"))
	c.stop(2)
	must(t, os.Remove(c.witnessPath(2)))
	must(t, c.tryStart(2, 1))
	names := 0
	eventually(t, func() string {
		// Each of another name: what is held when the epoch rises stays held for its TTL.
		names++
		if token := c.acquire(0, fmt.Sprint("a", names)); token.Epoch() == 1 {
			return "the epoch has not been raised"
		}
		return ""
	})
	for i := range c.nodes {
		eventually(t, func() string {
			if w := c.witness(i); w.Epoch != 2 || w.Foreign != "" {
				return fmt.Sprintf("witness %+v, want epoch 2", w)
			}
			return ""
		})
	}
}

func TestMinEpochOfANewQuorum(t *testing.T) {
	c := newCluster(t, 1)
	must(t, c.tryStart(0, 9))
	if token := c.acquire(0, "a"); token.Epoch() != 10 {
		t.Errorf("token %v, want one of epoch 10", token)
	}
}

func TestForeignWitness(t *testing.T) {
	c := newCluster(t, 2)
	c.configs[0].Bootstrap.Members = map[string]string{"n1": c.configs[0].Bootstrap.Members["n1"]}
	c.start(0)
	c.ready()
	c.stop(0)
	original := c.configs[0]

	c.configs[0].Cluster = "other"
	c.refused(0, 0, ErrOtherWitness, `of node "n1" in cluster "test"`, `says node "n1" in cluster "other"`)

	c.configs[0] = original
	c.configs[1].DataDir = c.configs[0].DataDir
	c.refused(1, 0, ErrOtherWitness, `of node "n1" in cluster "test"`, `says node "n2" in cluster "test"`)

	w := c.witness(0)
	must(t, os.Remove(c.witnessPath(0)))
	member := w.MemberID
	w.MemberID = 0xabc
	must(t, quorum.SaveWitness(c.witnessPath(0), w))
	c.refused(0, 0, ErrOtherWitness, append(bothWays, "of member abc", fmt.Sprintf("holds member %x", member))...)
}

// A member that forgets what it has promised can cost the quorum acknowledged grants, so that a store which was copied
// back is not started from even where its tokens would be found out.
func TestCopiedBackStore(t *testing.T) {
	c := newCluster(t, 1)
	c.start(0)
	c.ready()
	c.acquire(0, "a")
	c.stop(0)
	backup := filepath.Join(t.TempDir(), "etcd")
	copyTree(t, c.storePath(0), backup)
	old := c.witness(0)

	c.start(0)
	c.ready()
	c.acquire(0, "b")
	c.stop(0)
	newest := filepath.Join(t.TempDir(), "etcd")
	must(t, os.Rename(c.storePath(0), newest))
	copyTree(t, backup, c.storePath(0))
	w := c.witness(0)
	disk, err := etcd.Inspect(backup)
	must(t, err)
	c.refused(0, 0, ErrStoreRolledBack, append(bothWays,
		fmt.Sprintf("ends at index %d in raft term %d", disk.LastIndex, disk.Term),
		fmt.Sprintf("seen index %d in raft term %d", w.AppliedIndex, w.RaftTerm))...)
	if w.AppliedIndex <= old.AppliedIndex {
		t.Errorf("the witness stayed at index %d", old.AppliedIndex)
	}

	// What was there before is as good as ever.
	must(t, os.RemoveAll(c.storePath(0)))
	must(t, os.Rename(newest, c.storePath(0)))
	c.start(0)
	c.acquire(0, "a")
}

func TestWipedStore(t *testing.T) {
	c := newCluster(t, 1)
	c.start(0)
	c.ready()
	c.stop(0)
	must(t, os.RemoveAll(c.storePath(0)))
	c.refused(0, 0, ErrStoreWiped, append(bothWays, "epoch 1", "bootstrap.join")...)
	c.refused(0, 5, ErrStoreWiped, bothWays...)
}

func TestStoreOfAnotherNode(t *testing.T) {
	c := newCluster(t, 3)
	c.start(c.all()...)
	c.ready()
	c.stop(c.all()...)
	must(t, os.RemoveAll(c.storePath(0)))
	copyTree(t, c.storePath(1), c.storePath(0))
	words := []string{`belongs to node "n2"`, `says "n1"`, "a directory of its own"}
	c.refused(0, 0, etcd.ErrForeign, words...)
	// Nor does the flag make it this node's.
	must(t, os.Remove(c.witnessPath(0)))
	c.refused(0, 5, etcd.ErrForeign, words...)
}

// A child that has been forked and has not become another program yet has every file of its parent. It keeps no lock.
func TestClosedDirectoryIsFreeForAll(t *testing.T) {
	path := t.TempDir()
	for range 2 {
		dir, err := openDataDir(path)
		must(t, err)
		fd, err := syscall.Dup(int(dir.lock.Fd())) // as a fork does
		must(t, err)
		defer func() { _ = syscall.Close(fd) }()
		must(t, dir.close())
	}
}

func TestDirectoryInUse(t *testing.T) {
	c := newCluster(t, 1)
	c.start(0)
	c.ready()
	first := c.nodes[0]
	c.nodes[0] = nil
	err := c.tryStart(0, 0)
	c.nodes[0] = first
	if !errors.Is(err, ErrDataDirInUse) {
		t.Fatalf("got %v, want ErrDataDirInUse", err)
	}
	checkWords(t, err.Error(), "data_dir:", c.configs[0].DataDir, "stop that one")
	c.acquire(0, "a") // undisturbed
	if _, err := (Restore{FromData: c.configs[0].DataDir}).Run(c.configs[0]); !errors.Is(err, ErrDataDirInUse) {
		t.Errorf("restoring a running node: %v, want ErrDataDirInUse", err)
	}
}

func TestPortInUse(t *testing.T) {
	for _, field := range []string{"api", "http", "peer"} {
		t.Run(field, func(t *testing.T) {
			c := newCluster(t, 1)
			address := map[string]string{"api": c.configs[0].API.Listen, "http": c.configs[0].HTTP.Listen, "peer": c.configs[0].Peer.Listen}[field]
			taken, err := net.Listen("tcp", address)
			must(t, err)
			must(t, os.Mkdir(c.configs[0].DataDir, 0o700))
			must(t, os.WriteFile(filepath.Join(c.configs[0].DataDir, lockFile), nil, 0o600))
			c.refused(0, 0, syscall.EADDRINUSE, field+".listen: address already in use ("+address+")", "stop what uses it")
			must(t, taken.Close())
			c.start(0)
			c.ready()
		})
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	c := newCluster(t, 1)
	dir := mount(t, "64m")
	c.configs[0].DataDir = filepath.Join(dir, "data")
	c.start(0)
	c.ready()
	c.stop(0)
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	c.refused(0, 0, syscall.EROFS, "data_dir: "+c.configs[0].DataDir, "make it writable")
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""))
	c.start(0)
	c.ready()
	c.stop(0)

	c.configs[0].DataDir = filepath.Join(dir, "new")
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	err := c.tryStart(0, 0)
	if !errors.Is(err, syscall.EROFS) {
		t.Fatalf("got %v, want EROFS", err)
	}
	checkWords(t, err.Error(), "data_dir: "+c.configs[0].DataDir, "make it writable")
}

func TestFullDisk(t *testing.T) {
	c := newCluster(t, 1)
	dir := mount(t, "40m")
	c.configs[0].DataDir = filepath.Join(dir, "data")
	free := func() { must(t, os.Remove(filepath.Join(dir, "ballast"))) }

	fill(t, dir)
	err := c.tryStart(0, 0)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v, want ENOSPC", err)
	}
	checkWords(t, err.Error(), "data_dir:", "free")
	free()
	c.start(0)
	c.ready()
	c.acquire(0, "a")
	c.stop(0)

	fill(t, dir)
	c.refused(0, 0, syscall.ENOSPC, "data_dir:", "free")
	free()
	c.start(0)
	c.acquire(0, "a")
}

func TestDataDirIsAFile(t *testing.T) {
	c := newCluster(t, 1)
	must(t, os.WriteFile(c.configs[0].DataDir, nil, 0o600))
	err := c.tryStart(0, 0)
	if err == nil {
		t.Fatal("started")
	}
	checkWords(t, err.Error(), "data_dir: "+c.configs[0].DataDir, "name a directory")
}
