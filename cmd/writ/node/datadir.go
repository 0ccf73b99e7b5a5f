package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/writ-io/writ/cmd/writ/remains"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/quorum"
)

// Names in a data directory.
const (
	lockFile    = remains.LockFile
	witnessFile = remains.WitnessFile
	storeDir    = remains.StoreDir
	keysDir     = "keys"
	// restoringDir is a store that is being built; replacedDir, with a number, one that a restore has taken away.
	restoringDir = "etcd.restoring"
	replacedDir  = "etcd.replaced-"
)

// ErrDataDirInUse says that another process works on a data directory.
var ErrDataDirInUse = errors.New("the data directory is in use")

// dataDir is a node's directory, locked for this process. The kernel drops the lock when the process ends.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir takes the lock of the directory at path, which it makes if it is missing.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, dirError(path, err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, dirError(path, err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("data_dir: %w: %s is another running node's: stop that one, or give this one a directory of its own", ErrDataDirInUse, path)
		}
		return nil, dirError(path, err)
	}
	return &dataDir{path, lock}, nil
}

// close drops the lock, also for a child of this process that has been forked and has not become another program yet. The file
// stays: removing it would let two processes hold locks on two files of that name.
func (d *dataDir) close() error {
	return errors.Join(syscall.Flock(int(d.lock.Fd()), syscall.LOCK_UN), d.lock.Close())
}

func (d *dataDir) witness() string { return filepath.Join(d.path, witnessFile) }
func (d *dataDir) store() string   { return filepath.Join(d.path, storeDir) }

// saveWitness makes w durable.
func (d *dataDir) saveWitness(w quorum.Witness) error {
	if err := quorum.SaveWitness(d.witness(), w); err != nil {
		return dirError(d.path, err)
	}
	return nil
}

// setAside renames name to the first free one of base0, base1, … and answers its path, or "" if there is no name.
func (d *dataDir) setAside(name, base string) (string, error) {
	from := filepath.Join(d.path, name)
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	for n := 1; ; n++ {
		to := filepath.Join(d.path, fmt.Sprintf("%s%d", base, n))
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		if err := os.Rename(from, to); err != nil {
			return "", dirError(d.path, err)
		}
		return to, d.sync()
	}
}

// sync makes renames durable.
func (d *dataDir) sync() error {
	dir, err := os.Open(d.path)
	if err == nil {
		err = errors.Join(dir.Sync(), dir.Close())
	}
	if err != nil {
		return dirError(d.path, err)
	}
	return nil
}

// keyRing loads the node's keys: the last by name signs, the others still verify. It makes the first key.
func (d *dataDir) keyRing() (*fence.KeyRing, error) {
	dir := filepath.Join(d.path, keysDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, dirError(d.path, err)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	if len(paths) == 0 {
		first, err := fence.GenerateSigner()
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, "writ-0001.pem")
		if err := fence.SaveSigner(path, first); err != nil {
			return nil, dirError(d.path, err)
		}
		paths = []string{path}
	}
	var current *fence.Signer
	others := fence.KeySet{}
	for _, path := range paths {
		if current, err = fence.LoadSigner(path); err != nil {
			return nil, fmt.Errorf("key %s: %w", path, err)
		}
		own, err := fence.NewKeySet(current.Public())
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", path, err)
		}
		others = others.Merge(own)
	}
	return fence.NewKeyRing(current, others)
}

// dirError says what is wrong with a data directory and what to do, in one line.
func dirError(path string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		advice = ": make it writable for this process"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		advice = ": free space on its file system"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		advice = ": name a directory"
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	return &wrappedError{fmt.Sprintf("data_dir: %s: %s%s", path, text, advice), err}
}

// wrappedError is one line of text around an error.
type wrappedError struct {
	text string
	err  error
}

func (e *wrappedError) Error() string { return e.text }
func (e *wrappedError) Unwrap() error { return e.err }
