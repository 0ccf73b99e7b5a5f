package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/storage/datadir"
	"go.uber.org/zap"
)

// DefaultRevisionBump is how far a restored store's revisions are moved on. It is far more than the commits that can
// have followed a snapshot that is worth restoring: 1,000 a second for eleven days.
const DefaultRevisionBump = 1_000_000_000

// RestoreConfig describes one member of a cluster that is rebuilt from a backup. Every member of the new cluster is
// restored from the same backup, with the same InitialCluster, ClusterToken and RevisionBump.
type RestoreConfig struct {
	// SnapshotFile is a file that Member.Snapshot wrote. Either it or FromDataDir must be set.
	SnapshotFile string
	// FromDataDir is the data directory of a stopped member, or a copy of one. Everything in its log counts,
	// including what may not have reached a majority: outcomes that were unknown may turn out to have happened.
	// The directory is not changed.
	FromDataDir string
	// TargetDataDir is the directory to build. It must be empty or not exist; its parent must exist.
	TargetDataDir string
	// Name, PeerURL, InitialCluster and ClusterToken are the new member's, as in Config. A token that was not used
	// before keeps what is left of the old cluster apart.
	Name           string
	PeerURL        string
	InitialCluster map[string]string
	ClusterToken   string
	// RevisionBump moves the revisions on, so that none of the lost history is used again: terms stay terms of one
	// history, and a watch that resumes from before the restore gets quorum.ErrCompacted. Default:
	// DefaultRevisionBump.
	RevisionBump uint64
	// Logger receives the progress at debug level. Default: none.
	Logger hclog.Logger
}

func (c RestoreConfig) validate() error {
	if (c.SnapshotFile == "") == (c.FromDataDir == "") {
		return invalid("snapshot", "either a snapshot file or a data directory must be given")
	}
	member := Config{
		Name: c.Name, DataDir: c.TargetDataDir, ListenPeerURL: c.PeerURL,
		InitialCluster: c.InitialCluster, ClusterToken: c.ClusterToken,
	}.withDefaults()
	if err := member.checkNames(); err != nil {
		return err
	}
	return member.checkPeers()
}

// Restore builds the data directory of a member from a backup: the keys and values of the backup under a new membership.
// It verifies the backup first. TargetDataDir appears complete or not at all.
//
// The restored state must be treated as foreign: nothing in the directory says that it is not the original.
func Restore(c RestoreConfig) (err error) {
	if c.RevisionBump == 0 {
		c.RevisionBump = DefaultRevisionBump
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if err := c.validate(); err != nil {
		return err
	}
	if err := checkTarget(c.TargetDataDir); err != nil {
		return err
	}
	parent := filepath.Dir(filepath.Clean(c.TargetDataDir))
	work, err := os.MkdirTemp(parent, ".restore-*")
	if err != nil {
		return dirError(parent, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	backup := c.SnapshotFile
	if c.FromDataDir != "" {
		backup = filepath.Join(work, "snapshot")
		if err := snapshotDir(c.FromDataDir, filepath.Join(work, "replay"), backup, c.Logger); err != nil {
			return err
		}
	}
	if err := VerifySnapshot(backup); err != nil {
		return err
	}
	built := filepath.Join(work, "data")
	if err := c.build(backup, built); err != nil {
		return err
	}
	if err := syncTree(built); err != nil {
		return dirError(built, err)
	}
	return publish(built, c.TargetDataDir)
}

// checkTarget refuses a directory that holds anything.
func checkTarget(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return dirError(dir, err)
	}
	if len(entries) > 0 {
		return invalid("data_dir", "%s is not empty (it holds %s): restore into a new directory", dir, entries[0].Name())
	}
	return nil
}

// build lets etcd's own tool make the directory.
func (c RestoreConfig) build(backup, dir string) error {
	initial := ""
	for name, peer := range c.InitialCluster {
		if initial != "" {
			initial += ","
		}
		initial += name + "=" + peer
	}
	return guarded(dir, c.Logger, func(log *zap.Logger) error {
		err := snapshot.NewV3(log).Restore(snapshot.RestoreConfig{
			SnapshotPath:        backup,
			Name:                c.Name,
			OutputDataDir:       dir,
			PeerURLs:            []string{c.PeerURL},
			InitialCluster:      initial,
			InitialClusterToken: c.ClusterToken,
			RevisionBump:        c.RevisionBump,
			MarkCompacted:       true,
		})
		if err != nil {
			return fmt.Errorf("restore %s: %w", backup, err)
		}
		return nil
	})
}

// guarded runs etcd's code with a logger that ends f, not the process, where etcd would have ended it.
func guarded(dir string, log hclog.Logger, f func(*zap.Logger) error) error {
	trip := newTrip(dir)
	done := make(chan error, 1)
	go func() { // ends with f, which is told so by its own return or by the trip
		done <- f(newZap(log, trip))
	}()
	select {
	case err := <-done:
		return err
	case <-trip.c:
		return trip.reason()
	}
}

// syncTree flushes every file and directory below root.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncPath(path)
	})
}

func syncPath(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// publish moves a complete directory to its name.
func publish(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return dirError(to, err)
	}
	if err := os.Rename(from, to); err != nil {
		return dirError(to, err)
	}
	if err := syncPath(filepath.Dir(filepath.Clean(to))); err != nil {
		return dirError(to, err)
	}
	return nil
}

// HasMember says whether dir holds a member, or what is left of one.
func HasMember(dir string) bool {
	_, err := os.Stat(datadir.ToMemberDir(dir))
	return err == nil
}
