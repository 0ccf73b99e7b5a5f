package etcd

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/datadir"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"google.golang.org/protobuf/proto"
)

// boltTimeout bounds the wait for a database file that somebody has open.
const boltTimeout = time.Second

// DiskState is how far a member's directory is, read from the files of a member that is not running.
//
// LastIndex is at least every index that the member had applied and had time to write down (it writes and applies at the
// same time), and Term at least every raft term that it took part in. A directory that is below either was put back to an
// older state.
type DiskState struct {
	// Name is the member's name, empty if it never reached the cluster.
	Name      string
	MemberID  uint64
	ClusterID uint64
	// LastIndex is the newest entry of the log, committed or not. Term and Commit are raft's: Commit is a lower
	// bound, for it is not flushed of itself.
	LastIndex uint64
	Term      uint64
	Commit    uint64
	// ConsistentIndex is the newest entry that the database holds; 0 if there is no database.
	ConsistentIndex uint64
}

// Inspect reads how far the member in dataDir is and changes nothing. It tolerates a torn end of the log as etcd does.
// The error is ErrNoMember if there is none and ErrDamaged if etcd could not start from it.
func Inspect(dataDir string) (DiskState, error) {
	var state DiskState
	walDir := datadir.ToWALDir(dataDir)
	if !wal.Exist(walDir) {
		return state, fmt.Errorf("%w: %s", ErrNoMember, dataDir)
	}
	if err := state.readLog(walDir); err != nil {
		return DiskState{}, fmt.Errorf("%w: log in %s: %w", ErrDamaged, walDir, err)
	}
	db := datadir.ToBackendFileName(dataDir)
	if err := state.readDatabase(db); errors.Is(err, bolterrors.ErrTimeout) {
		return DiskState{}, fmt.Errorf("%w: %s", ErrLocked, db)
	} else if err != nil {
		return DiskState{}, fmt.Errorf("%w: database %s: %w", ErrDamaged, db, err)
	}
	return state, nil
}

// readLog reads the whole log once, and holds one record at a time.
func (s *DiskState) readLog(dir string) (err error) {
	files, closeAll, err := openLog(dir)
	if err != nil {
		return err
	}
	defer closeAll()
	defer func() { // walpb and raftpb panic on what they cannot parse
		if r := recover(); r != nil {
			err = fmt.Errorf("unreadable record: %v", r)
		}
	}()

	var snapshots []uint64
	decoder := wal.NewDecoder(files...)
	rec := &walpb.Record{}
	for err = decoder.Decode(rec); err == nil; err = decoder.Decode(rec) {
		switch rec.GetType() {
		case wal.MetadataType:
			var meta etcdserverpb.Metadata
			if err := proto.Unmarshal(rec.Data, &meta); err != nil {
				return fmt.Errorf("metadata: %w", err)
			}
			s.MemberID, s.ClusterID = meta.GetNodeID(), meta.GetClusterID()
		case wal.EntryType:
			s.LastIndex = wal.MustUnmarshalEntry(rec.Data).GetIndex()
		case wal.StateType:
			hard := wal.MustUnmarshalState(rec.Data)
			s.Term, s.Commit = hard.GetTerm(), hard.GetCommit()
		case wal.SnapshotType:
			var snapshot walpb.Snapshot
			if err := proto.Unmarshal(rec.Data, &snapshot); err != nil {
				return fmt.Errorf("snapshot record: %w", err)
			}
			snapshots = append(snapshots, snapshot.GetIndex())
		case wal.CrcType:
			if crc := decoder.LastCRC(); crc != 0 && rec.Validate(crc) != nil {
				return wal.ErrCRCMismatch
			}
			decoder.UpdateCRC(rec.GetCrc())
		}
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	// A snapshot that the leader sent puts the log ahead of its own entries. One above the commit index was being
	// saved when the member stopped, and does not count.
	for _, index := range snapshots {
		if index <= s.Commit {
			s.LastIndex = max(s.LastIndex, index)
		}
	}
	return nil
}

// openLog opens the files of a log, oldest first.
func openLog(dir string) (files []fileutil.FileReader, closeAll func(), err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(names)
	var open []*os.File
	closeAll = func() {
		for _, file := range open {
			_ = file.Close()
		}
	}
	next := uint64(0)
	for i, name := range names {
		var seq, index uint64
		if _, err := fmt.Sscanf(filepath.Base(name), "%016x-%016x.wal", &seq, &index); err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("unexpected file name %s", filepath.Base(name))
		}
		if i > 0 && seq != next {
			closeAll()
			return nil, nil, fmt.Errorf("file %d of the sequence is missing before %s", next, filepath.Base(name))
		}
		next = seq + 1
		file, err := os.Open(name)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		open = append(open, file)
		files = append(files, fileutil.NewFileReader(file))
	}
	return files, closeAll, nil
}

// readDatabase reads the consistent index and the member's name.
func (s *DiskState) readDatabase(path string) error {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	db, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true, Timeout: boltTimeout})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	return db.View(func(tx *bolt.Tx) error {
		if meta := tx.Bucket(schema.Meta.Name()); meta != nil {
			if raw := meta.Get(schema.MetaConsistentIndexKeyName); len(raw) == 8 {
				s.ConsistentIndex = binary.BigEndian.Uint64(raw)
			}
		}
		members := tx.Bucket(schema.Members.Name())
		if members == nil {
			return nil
		}
		raw := members.Get([]byte(fmt.Sprintf("%x", s.MemberID)))
		if raw == nil {
			return nil
		}
		var member membership.Member
		if err := json.Unmarshal(raw, &member); err != nil {
			return fmt.Errorf("member record: %w", err)
		}
		s.Name = member.Name
		return nil
	})
}
