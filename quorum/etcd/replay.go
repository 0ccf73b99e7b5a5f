package etcd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/datadir"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// replayTimeout bounds how long a log may take to be applied: at most a few times SnapshotCount entries.
const replayTimeout = 5 * time.Minute

// snapshotDir writes a snapshot of the stopped member in dir to file. The database of a member lags its log, so a copy
// of the directory is started alone, applies the log, and is asked. The copy stays in work.
func snapshotDir(dir, work, file string, log hclog.Logger) error {
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.release() }()
	state, err := Inspect(dir)
	if err != nil {
		return err
	}
	if err := copyTree(datadir.ToMemberDir(dir), datadir.ToMemberDir(work)); err != nil {
		return dirError(work, err)
	}
	return guarded(dir, log, func(zl *zap.Logger) error {
		if err := commitLog(datadir.ToWALDir(work), zl); err != nil {
			return fmt.Errorf("%w: log in %s: %w", ErrDamaged, dir, err)
		}
		return replay(work, state.LastIndex, zl, func(server *etcdserver.EtcdServer) error { return writeSnapshot(file, server.Backend()) })
	})
}

// commitLog marks every entry of a log as committed. etcd drops the others when it starts a member alone, and its
// commit index is not flushed with every commit.
func commitLog(dir string, log *zap.Logger) error {
	snapshots, err := wal.ValidSnapshotEntries(log, dir)
	if err != nil {
		return err
	}
	start := &walpb.Snapshot{}
	if len(snapshots) > 0 {
		start = snapshots[len(snapshots)-1]
	}
	read := func() (*wal.WAL, *raftpb.HardState, []*raftpb.Entry, error) {
		w, err := wal.Open(log, dir, start)
		if err != nil {
			return nil, nil, nil, err
		}
		_, hard, entries, err := w.ReadAll()
		if err != nil {
			return nil, nil, nil, errors.Join(err, w.Close())
		}
		return w, hard, entries, nil
	}
	w, hard, entries, err := read()
	if errors.Is(err, io.ErrUnexpectedEOF) && wal.Repair(log, dir) { // a torn end
		w, hard, entries, err = read()
	}
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		hard.Commit = entries[len(entries)-1].Index
		err = w.Save(hard, nil)
	}
	return errors.Join(err, w.Close())
}

// replay starts the member in dir alone, without a listener, waits until it has applied the entry last, and has it used.
func replay(dir string, last uint64, log *zap.Logger, use func(*etcdserver.EtcdServer) error) error {
	const address = "http://127.0.0.1:1" // nobody is called
	config, err := serverConfig(Config{
		Name: "restore", DataDir: dir, AdvertisePeerURL: address,
		Heartbeat: 10 * time.Millisecond, Election: 100 * time.Millisecond,
		QuotaBytes: 1 << 40, SnapshotCount: 1 << 40,
	}.withDefaults(), log)
	if err != nil {
		return err
	}
	config.ForceNewCluster = true
	server, err := etcdserver.NewServer(config)
	if err != nil {
		return fmt.Errorf("start the member of %s alone: %w", dir, err)
	}
	server.Start()
	defer server.HardStop()
	ctx, cancel := context.WithTimeout(context.Background(), replayTimeout)
	defer cancel()
	select {
	case <-server.ReadyNotify(): // its own entry follows those of the log
	case <-server.StopNotify():
		return fmt.Errorf("replay the log of %s: %w", dir, ErrStopped)
	case <-ctx.Done():
		return fmt.Errorf("replay the log of %s: applied %d of %d entries: %w",
			dir, server.AppliedIndex(), last, context.Cause(ctx))
	}
	if applied := server.AppliedIndex(); applied < last {
		return fmt.Errorf("replay the log of %s: ended at entry %d of %d", dir, applied, last)
	}
	return use(server)
}

func writeSnapshot(path string, from backend.Backend) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	image := from.Snapshot()
	hash := sha256.New()
	_, err = image.WriteTo(io.MultiWriter(file, hash))
	if err = errors.Join(err, image.Close()); err != nil {
		return err
	}
	_, err = file.Write(hash.Sum(nil))
	return err
}

// copyTree copies the files below from.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		return copyFile(path, target)
	})
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
