package agent

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// Journal remembers which tasks have begun and how they went. What [Journal.Save] has answered survives the process and the
// power.
type Journal struct {
	db   *bbolt.DB
	keep int
	id   uint64
}

const (
	// journalFile is the journal's name in the data directory.
	journalFile = "tasks.db"
	// journalKept is how many tasks of a group are remembered. A promotion has some ten, and the quorum asks for no older one.
	journalKept = 512
	// identity is the bucket whose sequence is the journal's id. Older versions take every
	// bucket for a group's and every key for a task: it has none, and a name that no group can have.
	identity = "\x00"
	// journalWait is how long another process may take to close the journal.
	journalWait = 2 * time.Second
)

// errInUse means that another agent has the same data directory.
var errInUse = errors.New("agent: the journal is in use by another process: give each agent a data_dir of its own")

// entryBytes is an entry as it is stored.
type entryBytes struct {
	Key    Key    `json:"key"`
	Order  Order  `json:"order"`
	Result []byte `json:"result,omitempty"` // a TaskResult; absent: it has begun
}

// OpenJournal opens the journal in a directory, and makes both if they are missing. It answers what it holds, oldest first.
func OpenJournal(dir string) (*Journal, []Entry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("agent: data_dir: %w: name a directory that this process may write", err)
	}
	path := filepath.Join(dir, journalFile)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: journalWait, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bbolt.ErrTimeout) { //nolint:staticcheck // its new name is the same value
		return nil, nil, errInUse
	}
	if err != nil {
		return nil, nil, fmt.Errorf("agent: the journal %s: %w", path, err)
	}
	j := &Journal{db: db, keep: journalKept}
	entries, err := j.load()
	if err == nil {
		err = j.identify()
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("agent: the journal %s: %w: move it away only if no promotion is under way", path, err), db.Close())
	}
	return j, entries, nil
}

// Close releases the file.
func (j *Journal) Close() error { return j.db.Close() }

// identify reads the journal's id, and draws one for a journal that has none.
func (j *Journal) identify() error {
	err := j.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte(identity)); b != nil {
			j.id = b.Sequence()
		}
		return nil
	})
	if err != nil || j.id != 0 {
		return err
	}
	return j.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(identity))
		if err != nil {
			return err
		}
		var id [8]byte
		_, _ = rand.Read(id[:]) // never fails
		j.id = binary.BigEndian.Uint64(id[:]) | 1
		return b.SetSequence(j.id)
	})
}

// mark names a task of this agent on its machine, where others may have tasks of the same name: those of another quorum, or of
// another region.
func (j *Journal) mark(k Key) string {
	return fmt.Sprintf("%016x/%s/%s/%d/%s", j.id, k.Group, k.Promotion, k.Step, kindName(k.Kind))
}

func (j *Journal) load() (entries []Entry, err error) {
	err = j.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, group *bbolt.Bucket) error {
			return group.ForEach(func(_, value []byte) error {
				e, err := decodeEntry(value)
				entries = append(entries, e)
				return err
			})
		})
	})
	return entries, err
}

func decodeEntry(value []byte) (e Entry, err error) {
	var stored entryBytes
	if err := json.Unmarshal(value, &stored); err != nil {
		return e, err
	}
	e = Entry{Key: stored.Key, Order: stored.Order}
	if stored.Result != nil {
		e.Result = &writv1.TaskResult{}
		err = proto.Unmarshal(stored.Result, e.Result)
	}
	return e, err
}

// Save writes an entry down, in place of an older one of the same key.
func (j *Journal) Save(e Entry) error {
	stored := entryBytes{Key: e.Key, Order: e.Order}
	if e.Result != nil {
		var err error
		if stored.Result, err = proto.Marshal(e.Result); err != nil {
			return err
		}
	}
	value, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	return j.db.Update(func(tx *bbolt.Tx) error {
		group, err := tx.CreateBucketIfNotExists([]byte(e.Key.Group))
		if err != nil {
			return err
		}
		if err := forget(group, e.Key, j.keep); err != nil {
			return err
		}
		at, err := group.NextSequence()
		if err != nil {
			return err
		}
		return group.Put(binary.BigEndian.AppendUint64(nil, at), value)
	})
}

// forget removes the entry of a key, and the oldest ones above what is kept: the newest always stays, with the order that
// has been seen.
func forget(group *bbolt.Bucket, key Key, keep int) error {
	var places [][]byte
	var old [][]byte
	err := group.ForEach(func(place, value []byte) error {
		e, err := decodeEntry(value)
		if err != nil {
			return err
		}
		if e.Key == key {
			old = append(old, append([]byte(nil), place...))
		} else {
			places = append(places, append([]byte(nil), place...))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if over := len(places) + 1 - keep; over > 0 {
		old = append(old, places[:over]...)
	}
	for _, place := range old {
		if err := group.Delete(place); err != nil {
			return err
		}
	}
	return nil
}
