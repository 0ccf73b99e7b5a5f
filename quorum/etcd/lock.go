package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// lockName is the file in a data directory whose lock says that a process has it open. etcd locks its files too, but
// waits for them without an end.
const lockName = "LOCK"

// dirLock is an exclusive hold on a data directory. The kernel drops it when the process ends.
type dirLock struct{ file *os.File }

// lockDir creates dir if it is missing and takes its lock, or answers ErrLocked at once.
func lockDir(dir string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, dirError(dir, err)
	}
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, dirError(dir, err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &ConfigError{Field: "data_dir", Err: ErrLocked,
				Reason: fmt.Sprintf("%s is in use by another node: stop it, or give each node a directory of its own", dir)}
		}
		return nil, dirError(dir, err)
	}
	return &dirLock{file}, nil
}

// release drops the lock. The file stays: removing it would let two processes hold locks on two files of that name.
func (l *dirLock) release() error { return unlock(l.file) }

// unlock drops the lock of a file and closes it. Closing alone would leave the lock to a child of this process that has been
// forked and has not become another program yet, for it has the file too.
func unlock(file *os.File) error {
	return errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
}

// dirError says what is wrong with a data directory and what to do.
func dirError(dir string, err error) error {
	reason := fmt.Sprintf("%s: %v", dir, err)
	switch {
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		reason = fmt.Sprintf("%s is not writable for this process: %v", dir, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		reason = fmt.Sprintf("no space left for %s: free at least %d MiB: %v", dir, minFreeBytes>>20, err)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		reason = fmt.Sprintf("%s is not a directory: %v", dir, err)
	}
	return &ConfigError{Field: "data_dir", Reason: reason, Err: err}
}
