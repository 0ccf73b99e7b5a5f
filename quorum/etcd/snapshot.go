package etcd

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/schema"
)

// sectorBytes divides the size of every database: what is left over is the checksum.
const sectorBytes = 512

// VerifySnapshot reads a file that Member.Snapshot wrote and checks its checksum and the structure of the database in
// it. The error is ErrDamaged, with the file's name and what is wrong.
func VerifySnapshot(path string) error {
	if err := verifyChecksum(path); errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("snapshot: %w", err)
	} else if err != nil {
		return fmt.Errorf("%w: snapshot %s: %w", ErrDamaged, path, err)
	}
	if err := verifyDatabase(path); err != nil {
		return fmt.Errorf("%w: snapshot %s: %w", ErrDamaged, path, err)
	}
	return nil
}

func verifyChecksum(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a file")
	}
	if info.Size() < sectorBytes || info.Size()%sectorBytes != sha256.Size {
		return fmt.Errorf("%d bytes do not end in a checksum: truncated, or not a snapshot", info.Size())
	}
	hash := sha256.New()
	if _, err := io.CopyN(hash, file, info.Size()-sha256.Size); err != nil {
		return err
	}
	want, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	if !bytes.Equal(hash.Sum(nil), want) {
		return errors.New("checksum does not match: truncated, changed, or not a snapshot")
	}
	return nil
}

// verifyDatabase walks every page.
func verifyDatabase(path string) (err error) {
	defer func() { // bbolt panics on some damages
		if r := recover(); r != nil {
			err = fmt.Errorf("unreadable database: %v", r)
		}
	}()
	db, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true, Timeout: boltTimeout})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	return db.View(func(tx *bolt.Tx) error {
		for _, bucket := range [][]byte{schema.Key.Name(), schema.Meta.Name(), schema.Members.Name()} {
			if tx.Bucket(bucket) == nil {
				return fmt.Errorf("no bucket %q: a database, but not etcd's", bucket)
			}
		}
		var first error
		for err := range tx.Check() { // must be read to its end
			if first == nil {
				first = err
			}
		}
		return first
	})
}
