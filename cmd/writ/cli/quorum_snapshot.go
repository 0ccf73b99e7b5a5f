package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// snapshotTimeout bounds a backup: it takes as long as its size asks for, not as long as a request.
const snapshotTimeout = time.Hour

func (a *app) snapshotCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "snapshot FILE", Short: "Save a backup of the quorum's state",
		Long: `Save a backup of the state as the asked node has it. The file appears under its name only when it is whole and on disk.
"writ quorum restore" rebuilds a quorum from it. Unless --timeout is given it may take an hour.`,
		Args: arguments("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			patient := *a
			if !cmd.Flags().Changed("timeout") {
				patient.timeout = snapshotTimeout
			}
			size, sum, err := patient.snapshot(cmd.Context(), args[0], force)
			if err != nil {
				return err
			}
			// As protobuf JSON has it, 64 bits are a string.
			data := map[string]string{"file": args[0], "bytes": strconv.FormatInt(size, 10), "sha256": sum}
			return a.print(data, func(w io.Writer) { _, _ = fmt.Fprintf(w, "saved %s: %d bytes, sha256 %s\n", args[0], size, sum) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace the file if it exists")
	return cmd
}

func (a *app) snapshot(ctx context.Context, path string, force bool) (size int64, sum string, err error) {
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

func receive(ctx context.Context, conn *grpc.ClientConn, w io.Writer) (size int64, err error) {
	stream, err := writv1.NewClusterServiceClient(conn).Snapshot(ctx, &writv1.SnapshotRequest{})
	if err != nil {
		return 0, err
	}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
		n, err := w.Write(chunk.GetChunk())
		size += int64(n)
		if err != nil {
			return 0, err
		}
	}
}
