package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc"

	"github.com/writ-io/writ/lease"
)

// receiver reads what a node sends, and answers how much it was.
type receiver func(context.Context, *grpc.ClientConn, io.Writer) (size int64, err error)

// download writes what a node sends to a file, which appears under its name only when it is whole and on disk.
func (a *app) download(ctx context.Context, path string, force bool, receive receiver) (size int64, sum string, err error) {
	exists := lease.Invalid("FILE", path+" exists", "name another one, or give --force")
	if _, err := os.Lstat(path); err == nil && !force {
		return 0, "", exists
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".part-*")
	if err != nil {
		return 0, "", lease.Invalid("FILE", "cannot be written: "+err.Error(), "name a file in a writable directory")
	}
	defer func() {
		_ = file.Close() // closed already, unless something failed
		_ = os.Remove(file.Name())
	}()
	hash := sha256.New()
	err = a.each(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		hash.Reset()
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := file.Truncate(0); err != nil {
			return err
		}
		var err error
		size, err = receive(ctx, conn, io.MultiWriter(file, hash))
		return err
	})
	if err != nil {
		return 0, "", err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return 0, "", err
	}
	if err := publish(file.Name(), path, force); errors.Is(err, fs.ErrExist) {
		return 0, "", exists
	} else if err != nil {
		return 0, "", err
	}
	return size, hex.EncodeToString(hash.Sum(nil)), nil
}

// publish gives a finished file its name, and makes the name durable. Without replace it never takes another file's place.
func publish(from, to string, replace bool) error {
	name := os.Link
	if replace {
		name = os.Rename
	}
	if err := name(from, to); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// receive writes the pieces of a stream one after the other, until its end.
func receive[Piece any](stream grpc.ServerStreamingClient[Piece], data func(*Piece) []byte, w io.Writer) (size int64, err error) {
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
		n, err := w.Write(data(piece))
		size += int64(n)
		if err != nil {
			return 0, err
		}
	}
}
