package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"

	"github.com/writ-io/writ/quorum"
)

func TestWhereEtcdWouldExitTheGoroutineEnds(t *testing.T) {
	disk := errors.New("disk on fire")
	for name, die := range map[string]func(*zap.Logger){
		"fatal": func(l *zap.Logger) { l.Fatal("failed to save", zap.String("path", "/data"), zap.Error(disk)) },
		"panic": func(l *zap.Logger) { l.Sugar().Named("raft").Panicf("failed to %s", "save") },
	} {
		trip := newTrip("/data")
		if trip.reason() != nil {
			t.Fatal("tripped before anything happened")
		}
		ended := make(chan bool, 1)
		go func() {
			defer close(ended)
			die(newZap(hclog.NewNullLogger(), trip))
			ended <- true
		}()
		wait(t, trip.c, "the trip")
		if <-ended {
			t.Errorf("%s: went on", name)
		}
		failed := (*FailedError)(nil)
		if err := trip.reason(); !errors.As(err, &failed) || !strings.Contains(err.Error(), "failed to save") ||
			!strings.Contains(err.Error(), "/data") || name == "fatal" && !errors.Is(err, disk) {
			t.Errorf("%s: reason is %v", name, err)
		}
	}
}

func TestTheFirstFailureCounts(t *testing.T) {
	trip := newTrip("/data")
	trip.set("first", nil)
	trip.park()
	if unwind := trip.set("second", nil); unwind {
		t.Error("unwinds while the member runs")
	}
	if err := trip.reason(); !strings.Contains(err.Error(), "first") {
		t.Errorf("reason is %v", err)
	}
}

// A member that runs and then meets what etcd would exit for.
func TestAFailedMemberFallsSilent(t *testing.T) {
	c := newCluster(t, 3)
	m := c.leader()
	term := claim(t, m)
	ended := make(chan error, 1)
	go func() { ended <- m.Watch(context.Background(), 1, func(quorum.Change) bool { return true }) }()
	go m.zap.Fatal("failed to commit tx", zap.Error(syscall.EIO)) // parked for good

	wait(t, m.Done(), "the member stops")
	failed := (*FailedError)(nil)
	if err := m.Err(); !errors.As(err, &failed) || !errors.Is(err, syscall.EIO) || failed.Dir != m.cfg.DataDir {
		t.Errorf("ended with %v", err)
	}
	if err := m.Close(); !errors.As(err, &failed) {
		t.Errorf("close: %v", err)
	}
	if err := <-ended; !errors.As(err, &failed) || !errors.Is(err, ErrStopped) {
		t.Errorf("watch ended with %v", err)
	}
	if _, err := m.Commit(testContext(t), term, nil); !errors.Is(err, quorum.ErrUnknown) || !errors.As(err, &failed) {
		t.Errorf("commit: %v", err)
	}
	if leads, _ := m.Leadership(); leads {
		t.Error("a failed member leads")
	}
	// Its memory may be what failed, so it may not open again in this process.
	if _, err := Open(testContext(t), m.cfg); !errors.Is(err, ErrLocked) {
		t.Errorf("opened again: %v", err)
	}
	// It was the leader: the others notice, and go on.
	for i, other := range c.members {
		if other == m {
			c.members = append(c.members[:i:i], c.members[i+1:]...)
			break
		}
	}
	next := c.leader()
	commit(t, next, claim(t, next), write("a", "1"))
	m.server.HardStop() // nothing was really parked that it waits for
}

// tmpfs mounts a file system of some bytes.
func tmpfs(t *testing.T, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	// Lazily, for a failed member keeps its files open.
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestOpenOnAFullDisk(t *testing.T) {
	dir := tmpfs(t, 4<<20)
	cfg := configs(t, 1)[0]
	cfg.DataDir = filepath.Join(dir, "data")
	if _, err := Open(testContext(t), cfg); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "data_dir: no space left for "+cfg.DataDir) {
		t.Errorf("with little space: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 5<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := Open(testContext(t), cfg); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("with no space: %v", err)
	}
}

func TestOpenOnAReadOnlyDisk(t *testing.T) {
	dir := tmpfs(t, 64<<20)
	cfg := configs(t, 1)[0]
	cfg.DataDir = filepath.Join(dir, "data")
	m := open(t, cfg)
	claim(t, m)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("cannot remount: %v", err)
	}
	if _, err := Open(testContext(t), cfg); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "not writable") {
		t.Errorf("got %v", err)
	}
	if state, err := Inspect(cfg.DataDir); err != nil || state.Name != cfg.Name {
		t.Errorf("inspected %+v, %v", state, err)
	}
}

// The disk fills while the member runs: it fails, and what it acknowledged is there once there is room again.
func TestADiskThatFillsUp(t *testing.T) {
	dir := tmpfs(t, 24<<20)
	cfg := configs(t, 1)[0]
	cfg.DataDir = filepath.Join(dir, "data")
	cfg.UnsafeNoFsync = false
	m := open(t, cfg)
	term := claim(t, m)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 30<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	acked := 0
	for n := range 2000 {
		if _, err := m.Commit(testContext(t), term, []quorum.Write{write(fmt.Sprint(n), strings.Repeat("x", 8<<10))}); err != nil {
			if !errors.Is(err, quorum.ErrUnknown) {
				t.Errorf("commit on a full disk: %v", err)
			}
			break
		}
		acked++
	}
	wait(t, m.Done(), "the member fails")
	failed := (*FailedError)(nil)
	if err := m.Err(); !errors.As(err, &failed) {
		t.Fatalf("ended with %v", err)
	}
	t.Logf("after %d commits: %v", acked, m.Err())

	// As another process would find it.
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	again := configs(t, 1)[0]
	if err := copyTree(cfg.DataDir, again.DataDir); err != nil {
		t.Fatal(err)
	}
	restarted := open(t, again)
	if got := load(t, restarted); len(got) < acked {
		t.Errorf("%d keys are there, %d were acknowledged", len(got), acked)
	}
}
