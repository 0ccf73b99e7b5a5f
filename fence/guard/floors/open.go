package floors

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/writ-io/writ/fence/gate"
)

// Open opens the store at path, and makes one if there is none; its directory must exist. It waits up to the given time for
// another process to close it. The state is what was written last; from now on the file says that a process has it open.
//
// Errors are [ErrInUse], [ErrDamaged] and [ErrForeign], which leave the file as it is, and those of the operating system.
func Open(path string, wait time.Duration) (*Store, gate.State, error) {
	if err := create(path); err != nil {
		return nil, gate.State{}, err
	}
	db, err := open(path, wait)
	if err != nil {
		return nil, gate.State{}, err
	}
	found, err := load(db)
	if err != nil {
		return nil, gate.State{}, errors.Join(fmt.Errorf("%w: file %s", err, path), db.Close())
	}
	s := &Store{path: path, db: db, header: found.header, keys: found.keys, version: found.header.version, commit: commit}
	state := found.header.state()
	state.Floors, state.Quorum, state.Openings = found.floors, found.quorum, found.openings
	if !state.Clean {
		return s, state, nil
	}
	// Before anything is admitted, so that a crash cannot look like a clean end.
	s.mu.Lock()
	err = s.update(func(_ *bbolt.Tx, h *header) error {
		h.clean = false
		return nil
	})
	s.mu.Unlock()
	if err != nil {
		return nil, gate.State{}, errors.Join(err, s.Close())
	}
	return s, state, nil
}

// create makes an empty store unless there is a file. It appears under its name when it is complete, and not if another process
// has been faster.
func create(path string) (err error) {
	switch info, err := os.Stat(path); {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("floors: %s is not a regular file: name a file, or one that does not exist yet", path)
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("floors: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("floors: making %s: %w: its directory must exist and be writable", path, err)
	}
	name := temporary.Name()
	defer func() {
		if err != nil {
			err = fmt.Errorf("floors: making %s: %w", path, err)
		}
		if gone := os.Remove(name); gone != nil && err == nil {
			err = fmt.Errorf("floors: %w", gone)
		}
	}()
	if err := errors.Join(temporary.Close(), fill(name)); err != nil {
		return err
	}
	if err := os.Link(name, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// fill makes an empty file a store.
func fill(path string) error {
	db, err := bbolt.Open(path, 0o600, options(time.Second, nil))
	if err != nil {
		return err
	}
	var h header // not clean: what a store that got lost knew may still be under way
	_, _ = rand.Read(h.name[:])
	err = commit(db, func(tx *bbolt.Tx) error {
		state, err := tx.CreateBucket(stateBucket)
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucket(floorsBucket); err != nil {
			return err
		}
		return state.Put(stateKey, h.encode())
	})
	return errors.Join(err, db.Close())
}

func syncDirectory(name string) error {
	directory, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}

func options(wait time.Duration, file *os.File) *bbolt.Options {
	o := &bbolt.Options{Timeout: wait, FreelistType: bbolt.FreelistMapType, NoStatistics: true}
	if file != nil {
		o.OpenFile = func(string, int, os.FileMode) (*os.File, error) { return file, nil }
	}
	return o
}

// open locks an existing file, inspects it, and only then hands it to the database.
func open(path string, wait time.Duration) (db *bbolt.DB, err error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("floors: %w: the guard must be able to read and write it", err)
	}
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, cause)
		}
		if err != nil {
			_ = file.Close() // the database may have done so
			err = fmt.Errorf("%w: file %s", err, path)
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	if err := lock(file, wait); err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(info, now) {
		return nil, fmt.Errorf("%w: it was moved away meanwhile", ErrInUse)
	}
	if err := inspect(file, info.Size()); err != nil {
		return nil, err
	}
	// Locking again what is locked already does nothing.
	db, err = bbolt.Open(path, 0o600, options(wait, file))
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, ErrInUse
	}
	return db, err
}

// contents is what a file holds.
type contents struct {
	header header
	keys   Keys
	floors []gate.Floor

	quorum   gate.Quorum
	openings []gate.Opening
}

// load reads everything and checks that it fits together.
func load(db *bbolt.DB) (c contents, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, cause)
		}
	}()
	err = db.View(func(tx *bbolt.Tx) error {
		state := tx.Bucket(stateBucket)
		if c.header, err = decodeHeader(state.Get(stateKey)); err != nil {
			return err
		}
		if c.keys, err = decodeKeys(state.Get(keysKey)); err != nil {
			return err
		}
		if err = decodeJSON(state.Get(quorumKey), "quorum", &c.quorum); err != nil {
			return err
		}
		if err = decodeJSON(state.Get(openingsKey), "openings", &c.openings); err != nil {
			return err
		}
		var count, digest uint64
		err := tx.Bucket(floorsBucket).ForEach(func(key, value []byte) error {
			f, err := decodeFloor(bytes.Clone(key), value)
			c.floors = append(c.floors, f)
			count++
			digest ^= digestOf(f.Resource, value)
			return err
		})
		if err == nil && (count != c.header.count || digest != c.header.digest) {
			err = fmt.Errorf("%w: it lost floors: %d are there, %d were", ErrDamaged, count, c.header.count)
		}
		return err
	})
	slices.SortFunc(c.floors, func(a, b gate.Floor) int { return strings.Compare(a.Resource, b.Resource) })
	return c, err
}
