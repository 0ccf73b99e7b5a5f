package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/storage/datadir"
	"go.uber.org/zap"

	"github.com/writ-io/writ/quorum"
)

// ReadState answers the state that the member in dataDir holds, which must not run, in key order. Everything in its log
// counts, as for Restore: what was under way when it stopped may turn out to have happened.
//
// Nothing in dataDir is changed or made, so that it may be on a medium that is not writable. A copy is worked on, below the
// directory for temporary files, and removed: there has to be room for it. The error is ErrNoMember, ErrLocked or ErrDamaged,
// and names the file.
func ReadState(dataDir string, log hclog.Logger) (entries []quorum.Entry, err error) {
	release, err := ShareLock(filepath.Join(dataDir, lockName))
	if err != nil {
		return nil, err
	}
	defer release()
	state, err := Inspect(dataDir)
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "writ-remains-*")
	if err != nil {
		return nil, fmt.Errorf("a directory to copy %s to: %w: set TMPDIR to one with room for it", dataDir, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := copyTree(datadir.ToMemberDir(dataDir), datadir.ToMemberDir(work)); err != nil {
		return nil, fmt.Errorf("copy %s to %s: %w: set TMPDIR to a directory with room for it", dataDir, work, err)
	}
	found := make(chan []quorum.Entry, 1) // what etcd would have ended the process for leaves its goroutine behind
	err = guarded(dataDir, log, func(zl *zap.Logger) error {
		if err := commitLog(datadir.ToWALDir(work), zl); err != nil {
			return fmt.Errorf("%w: log in %s: %w", ErrDamaged, datadir.ToWALDir(dataDir), err)
		}
		return replay(work, state.LastIndex, zl, func(server *etcdserver.EtcdServer) error {
			ctx, cancel := context.WithTimeout(context.Background(), replayTimeout)
			defer cancel()
			all, _, err := loadState(ctx, server.Range)
			if err != nil {
				return fmt.Errorf("%w: state in %s: %w", ErrDamaged, dataDir, err)
			}
			found <- all
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return <-found, nil
}

// ShareLock takes the lock in the file at path beside others that only read, and answers ErrLocked while a process works under
// it. It does nothing where there is no such file, as in a copy of a directory that was made without it.
func ShareLock(path string) (release func(), err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is locked by a running process", ErrLocked, path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = unlock(file) }, nil
}
