package floors

import "go.etcd.io/bbolt"

// FailLate has the next write report an error though it was carried out.
func (s *Store) FailLate(err error) {
	s.commit = func(db *bbolt.DB, change func(*bbolt.Tx) error) error {
		s.commit = commit
		if failed := commit(db, change); failed != nil {
			return failed
		}
		return err
	}
}

// EncodeFloor is a record as the store writes it.
var EncodeFloor = encodeFloor

// Unflushed says whether a failed write leaves it open what is on the disk.
var Unflushed = unflushed
