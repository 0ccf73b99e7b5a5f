package etcd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"go.etcd.io/etcd/server/v3/storage/wal"
)

// minFreeBytes is what a new member's first files take: etcd allocates its log two segments ahead.
const minFreeBytes = 2*64_000_000 + 16<<20

// preflight finds what would make etcd end the process while it opens dir. It answers whether dir holds a member.
func preflight(cfg Config) (exists bool, err error) {
	if err := probeWrite(cfg.DataDir); err != nil {
		return false, dirError(cfg.DataDir, err)
	}
	state, err := Inspect(cfg.DataDir)
	switch {
	case errors.Is(err, ErrNoMember):
		if err := checkFresh(cfg); err != nil {
			return false, err
		}
		return false, checkSpace(cfg.DataDir)
	case err != nil:
		return false, &ConfigError{Field: "data_dir", Err: err, Reason: fmt.Sprintf(
			"%v: replace this member, or restore the cluster from a snapshot", err)}
	}
	if state.Name != "" && state.Name != cfg.Name {
		return false, &ConfigError{Field: "data_dir", Err: ErrForeign, Reason: fmt.Sprintf(
			"%s belongs to node %q, and this is %q: give every node a directory of its own",
			cfg.DataDir, state.Name, cfg.Name)}
	}
	return true, nil
}

// checkFresh refuses to found a member over the remains of one.
func checkFresh(cfg Config) error {
	if _, err := os.Stat(filepath.Join(cfg.DataDir, "member", "snap", "db")); err == nil {
		return &ConfigError{Field: "data_dir", Err: ErrDamaged, Reason: fmt.Sprintf(
			"%s holds a database but no log: replace this member, or restore the cluster from a snapshot", cfg.DataDir)}
	}
	if cfg.Join && len(cfg.InitialCluster) < 2 {
		return invalid("initial_cluster", "must name the running members to join them")
	}
	return nil
}

// probeWrite shows that dir takes writes.
func probeWrite(dir string) error {
	file, err := os.CreateTemp(dir, "probe-*")
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, 4096))
	err = errors.Join(err, file.Sync(), file.Close())
	return errors.Join(err, os.Remove(file.Name()))
}

// checkSpace shows that a new member's first files fit.
func checkSpace(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return dirError(dir, err)
	}
	need := min(uint64(minFreeBytes), 2*uint64(wal.SegmentSizeBytes)+16<<20)
	if free := fs.Bavail * uint64(fs.Bsize); free < need {
		return dirError(dir, fmt.Errorf("%w: %d MiB are free", syscall.ENOSPC, free>>20))
	}
	return nil
}
