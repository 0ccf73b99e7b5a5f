package etcd

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

// A child that has been forked and has not become another program yet has every file of its parent. It keeps no lock.
func TestReleasedLockIsFreeForAll(t *testing.T) {
	dir := t.TempDir()
	inherit := func(l *dirLock) {
		t.Helper()
		fd, err := syscall.Dup(int(l.file.Fd())) // as a fork does
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(fd) })
	}
	for range 2 {
		l, err := lockDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		inherit(l)
		if _, err := lockDir(dir); !errors.Is(err, ErrLocked) {
			t.Errorf("a lock that is held: %v", err)
		}
		if err := l.release(); err != nil {
			t.Fatal(err)
		}
		release, err := ShareLock(filepath.Join(dir, lockName))
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
}
