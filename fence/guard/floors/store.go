package floors

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
)

// Store is an open store of floors. Its methods are safe for concurrent use; writes happen one after the other.
type Store struct {
	path string

	mu     sync.Mutex
	db     *bbolt.DB // guarded by mu; nil if it has to be opened anew, and after Close
	header header    // guarded by mu; as in the file
	keys   Keys      // guarded by mu; as in the file
	// Guarded by mu. Batches go on from it, also if a failed one has reached the file.
	version uint64
	broken  error // guarded by mu
	commit  func(*bbolt.DB, func(*bbolt.Tx) error) error
	closed  bool // guarded by mu
}

// Write makes batches durable, in order and all in one transaction. What a batch forgets goes first, and then its floors are
// put. When it returns nil, the floors in the file are at least those of the batches: one that is there and higher stays. Errors are [ErrVersion] and [ErrInvalid], which are mistakes of the
// caller, [ErrBroken], [ErrClosed], and those of the operating system, after which trying again may help.
func (s *Store) Write(batches ...gate.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	version := s.version
	for _, b := range batches {
		if b.Version <= version {
			return fmt.Errorf("%w: batch %d brings version %d after %d", ErrVersion, b.Serial, b.Version, version)
		}
		if err := validate(b); err != nil {
			return err
		}
		version = b.Version
	}
	if len(batches) == 0 {
		return nil
	}
	return s.update(func(tx *bbolt.Tx, h *header) error {
		floors := tx.Bucket(floorsBucket)
		for _, b := range batches {
			if err := apply(floors, h, b); err != nil {
				return err
			}
			if err := putGlass(tx.Bucket(stateBucket), b); err != nil {
				return err
			}
		}
		return nil
	})
}

func validate(b gate.Batch) error {
	if b.Base < 0 || b.Witnessed < 0 {
		return fmt.Errorf("%w: base %s or witnessed token %s is no token", ErrInvalid, b.Base.Decimal(), b.Witnessed.Decimal())
	}
	for _, f := range b.Floors {
		if f.Resource == "" || len(f.Resource) > maxResource || f.Token <= 0 {
			return fmt.Errorf("%w: floor %s of %q", ErrInvalid, f.Token.Decimal(), shorten(f.Resource))
		}
	}
	return nil
}

// apply carries a batch out in a transaction.
func apply(floors *bbolt.Bucket, h *header, b gate.Batch) error {
	h.version = max(h.version, b.Version)
	h.base, h.witnessed = max(h.base, b.Base), max(h.witnessed, b.Witnessed)
	if b.Forget {
		if err := forget(floors, h); err != nil {
			return err
		}
	}
	for _, f := range b.Floors { // they stay, also below the base: a resource may have a floor of its own there
		if err := put(floors, h, f); err != nil {
			return err
		}
	}
	return nil
}

// putGlass stores what concerns break-glass.
func putGlass(state *bbolt.Bucket, b gate.Batch) error {
	put := func(key []byte, v any) error {
		text, err := encodeJSON(v)
		if err != nil {
			return err
		}
		return state.Put(key, text)
	}
	if b.Quorum != nil {
		if err := put(quorumKey, b.Quorum); err != nil {
			return err
		}
	}
	if b.PutOpenings {
		return put(openingsKey, b.Openings)
	}
	return nil
}

// Invariant: a floor in the file never goes back.
func put(floors *bbolt.Bucket, h *header, f gate.Floor) error {
	key := []byte(f.Resource)
	if value := floors.Get(key); value != nil {
		old, err := decodeFloor(key, value)
		if err != nil {
			return err
		}
		if f.Token < old.Token || f.Token == old.Token && (old.Drained || !f.Drained) {
			return nil
		}
		h.digest ^= digestOf(f.Resource, value)
		h.count--
	}
	value := encodeFloor(f)
	h.digest ^= digestOf(f.Resource, value)
	h.count++
	return floors.Put(key, value)
}

// forget removes the floors at or below the base.
func forget(floors *bbolt.Bucket, h *header) error {
	var gone []string // not deleted on the way, which would confuse the cursor
	err := floors.ForEach(func(key, value []byte) error {
		f, err := decodeFloor(key, value)
		if err == nil && f.Token <= h.base {
			gone = append(gone, f.Resource)
			h.digest ^= digestOf(f.Resource, value)
			h.count--
		}
		return err
	})
	for _, resource := range gone {
		err = errors.Join(err, floors.Delete([]byte(resource)))
	}
	return err
}

// Keys returns what [Store.SaveKeys] has kept.
func (s *Store) Keys() Keys {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys
}

// SaveKeys makes durable what writs are verified by.
func (s *Store) SaveKeys(k Keys) error {
	if len(k.Issuer) > maxIssuer || len(k.JWKS) > fence.MaxJWKSBytes {
		return fmt.Errorf("%w: the keys are too long", ErrInvalid)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if k == s.keys && s.broken == nil && !s.closed {
		return nil
	}
	err := s.update(func(tx *bbolt.Tx, _ *header) error {
		return tx.Bucket(stateBucket).Put(keysKey, k.encode())
	})
	if err == nil {
		s.keys = k
	}
	return err
}

// CloseClean notes that nothing is under way any more, and closes the store. If that cannot be noted, the store is closed all
// the same, and the next process has to assume the worst.
func (s *Store) CloseClean() error {
	s.mu.Lock()
	err := s.update(func(_ *bbolt.Tx, h *header) error {
		h.clean = true
		return nil
	})
	s.mu.Unlock()
	return errors.Join(err, s.Close())
}

// Close closes the store without saying that nothing is under way. Closing twice does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.shut()
}

// shut lets go of the file. The caller holds mu.
func (s *Store) shut() error {
	db := s.db
	s.db = nil
	if db == nil {
		return nil
	}
	if err := db.Close(); err != nil {
		return fmt.Errorf("floors: closing %s: %w", s.path, err)
	}
	return nil
}

// update runs one transaction, which changes the header. The caller holds mu.
func (s *Store) update(change func(*bbolt.Tx, *header) error) error {
	switch {
	case s.closed:
		return ErrClosed
	case s.broken != nil:
		return s.broken
	}
	if s.db == nil {
		if err := s.reopen(); err != nil {
			return err
		}
	}
	next := s.header
	err := s.commit(s.db, func(tx *bbolt.Tx) error {
		if err := change(tx, &next); err != nil {
			return err
		}
		return tx.Bucket(stateBucket).Put(stateKey, next.encode())
	})
	if err == nil {
		s.header, s.version = next, next.version
		return nil
	}
	err = fmt.Errorf("floors: writing %s: %w", s.path, err)
	if unflushed(err) {
		s.broken = fmt.Errorf("%w: %w: check the disk and start the guard again", ErrBroken, err)
		err = s.broken
	}
	// The database may have let go of what it knows of its pages; what is in the file is read anew before the next write.
	return errors.Join(err, s.shut())
}

// commit runs a transaction, and makes an error of a panic or of a fault in the mapped file, such as one that somebody cut.
func commit(db *bbolt.DB, change func(*bbolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%w: %v", ErrBroken, cause)
		}
	}()
	return db.Update(change)
}

// unflushed reports whether a failed transaction leaves it open what is on the disk: what failed was not a write, which says so
// with a path, but the flush of what had been written, or the database itself. A disk that is full at the flush is no such
// case: what is written again is flushed again.
func unflushed(err error) bool {
	var errno syscall.Errno
	var path *os.PathError
	return errors.Is(err, ErrBroken) || errors.As(err, &errno) && !errors.As(err, &path) &&
		!errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT)
}

// reopen opens the file again after a failure, and looks at what is in it. The caller holds mu.
func (s *Store) reopen() error {
	db, err := open(s.path, time.Second)
	if err != nil {
		return err
	}
	found, err := load(db)
	if err == nil && (found.header.name != s.header.name || found.header.version < s.version) {
		err = fmt.Errorf("%w: %s was replaced while it was open", ErrDamaged, s.path)
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	s.db, s.header, s.keys = db, found.header, found.keys
	return nil
}
