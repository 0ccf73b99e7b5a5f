package node

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
	"github.com/writ-io/writ/region/approval/breakglass"
)

// Restore says how to rebuild a node's store from a backup, while the node is stopped. The same backup goes to every
// node of the rebuilt quorum; bootstrap.members of the configuration are its members.
type Restore struct {
	// Snapshot is a file that "writ quorum snapshot" wrote. Either it or FromData is given.
	Snapshot string
	// FromData is the data directory of a stopped node (or a copy), or the store in it. The node's own will do: with
	// bootstrap.members reduced to the survivors, that forces a new quorum.
	FromData string
	// MinEpoch is needed where the node's witness is missing or edited; see Options.
	MinEpoch fence.Epoch
	// RemoveOld removes the store that was there, when the new one is in its place. Otherwise it is kept aside.
	RemoveOld bool
	// Certificate is a certificate of break-glass that guards were opened by: the quorum starts above the epochs that it speaks
	// of, as if MinEpoch were the highest of them.
	Certificate string
	Logger      hclog.Logger
}

// Restored is what a restore has done.
type Restored struct {
	// Reason is why the state is foreign now.
	Reason string
	// Epoch is the highest that this node remembers. The quorum's next one is above those of all its nodes.
	Epoch fence.Epoch
	// Old is where the store that was there is now; empty if there was none, or it was removed.
	Old string
}

// Run rebuilds the store. What may go wrong leaves either the old state or one that a start refuses:
//
//   - the new store is built beside the old one;
//   - then the witness is written: of the new member, foreign, with the tokens and TTLs that the old one knew. From here
//     on it does not fit the old store, which a start refuses;
//   - then the old store goes aside, and the new one takes its place.
//
// After a crash in between, the same restore is run again.
func (r Restore) Run(c Config) (out Restored, err error) {
	if (r.Snapshot == "") == (r.FromData == "") {
		return out, errors.New("restore: give either --snapshot FILE or --from-data DIR")
	}
	if err := r.readCertificate(c); err != nil {
		return out, err
	}
	dir, err := openDataDir(c.DataDir)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	from, digest, err := r.source()
	if err != nil {
		return out, err
	}
	witness, edited, err := r.witness(c, dir)
	if err != nil {
		return out, err
	}
	member, err := r.build(c, dir, from, digest)
	if err != nil {
		return out, err
	}
	out.Reason = fmt.Sprintf("restored from %s (sha256 %s)", filepath.Base(cmp.Or(r.Snapshot, r.FromData)), digest)
	if witness, err = witness.Rebase(quorum.Witness{
		Cluster: c.Cluster, Node: c.Name, MemberID: member, Foreign: out.Reason,
		Epoch: r.MinEpoch, // a lower one than the witness's has no effect
	}); err != nil {
		return out, err
	}
	out.Epoch = witness.Epoch
	if edited {
		if _, err := dir.setAside(witnessFile, witnessFile+".replaced-"); err != nil {
			return out, err
		}
	}
	if err := dir.saveWitness(witness); err != nil {
		return out, err
	}
	if out.Old, err = dir.setAside(storeDir, replacedDir); err != nil {
		return out, err
	}
	if err := os.Rename(filepath.Join(dir.path, restoringDir), dir.store()); err != nil {
		return out, dirError(dir.path, err)
	}
	if err := dir.sync(); err != nil {
		return out, err
	}
	if r.RemoveOld && out.Old != "" {
		if err := os.RemoveAll(out.Old); err != nil {
			return out, dirError(dir.path, err)
		}
		out.Old = ""
	}
	return out, nil
}

// readCertificate raises MinEpoch to what a certificate speaks of.
func (r *Restore) readCertificate(c Config) error {
	if r.Certificate == "" {
		return nil
	}
	raw, err := os.ReadFile(r.Certificate)
	if err != nil {
		return fmt.Errorf("restore: --certificate: %w", err)
	}
	_, certificate, err := breakglass.ParseFile(raw)
	if err != nil {
		return fmt.Errorf("restore: --certificate %s: %w", r.Certificate, err)
	}
	if certificate.Cluster != c.Cluster {
		return fmt.Errorf("restore: --certificate %s is for the cluster %q, and this node is of %q: give that of this cluster", r.Certificate, certificate.Cluster, c.Cluster)
	}
	r.MinEpoch = max(r.MinEpoch, fence.Epoch(certificate.Highest()))
	return nil
}

// witness is what this node remembers, or what the operator answers for.
func (r Restore) witness(c Config, dir *dataDir) (w quorum.Witness, edited bool, err error) {
	w, err = quorum.LoadWitness(dir.witness())
	missing := errors.Is(err, quorum.ErrWitnessMissing)
	edited = errors.Is(err, quorum.ErrWitnessEdited)
	if r.MinEpoch != 0 && (!r.MinEpoch.Valid() || r.MinEpoch == fence.MaxEpoch) {
		return w, false, fmt.Errorf("%w: %d is no epoch that another can follow: use 1 to %d", ErrMinEpoch, r.MinEpoch, fence.MaxEpoch-1)
	}
	switch {
	case (missing || edited) && r.MinEpoch == 0:
		return w, false, fmt.Errorf("data_dir: %w: give --min-epoch N, N being the highest epoch that anybody remembers: "+
			"the part before the dot of the highest token in a guard, a log or an application, or in another node's %s", err, witnessFile)
	case missing || edited:
		return quorum.Witness{Cluster: c.Cluster, Node: c.Name}, edited, nil
	case err != nil:
		return w, false, dirError(dir.path, err)
	case w.Cluster != c.Cluster || w.Node != c.Name:
		return w, false, fmt.Errorf("data_dir: %w: %s is of node %q in cluster %q, but the configuration says node %q in cluster %q",
			ErrOtherWitness, dir.witness(), w.Node, w.Cluster, c.Name, c.Cluster)
	}
	return w, false, nil
}

// build makes the new store beside the old one, and answers its member's id.
func (r Restore) build(c Config, dir *dataDir, from, digest string) (member uint64, err error) {
	target := filepath.Join(dir.path, restoringDir)
	unfinished, err := filepath.Glob(filepath.Join(dir.path, ".restore-*"))
	if err != nil {
		return 0, err
	}
	for _, path := range append(unfinished, target) { // of a restore that was cut off
		if err := os.RemoveAll(path); err != nil {
			return 0, dirError(dir.path, err)
		}
	}
	config := etcd.RestoreConfig{
		SnapshotFile: from, TargetDataDir: target, Name: c.Name, PeerURL: c.Bootstrap.Members[c.Name],
		InitialCluster: c.Bootstrap.Members, ClusterToken: token(c, digest), Logger: r.Logger,
	}
	if r.FromData != "" {
		config.SnapshotFile, config.FromDataDir = "", from
	}
	if err := etcd.Restore(config); err != nil {
		return 0, &wrappedError{"restore: " + oneLine(err), err}
	}
	state, err := etcd.Inspect(target)
	if err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	return state.MemberID, nil
}

// token keeps clusters apart that were restored from different backups or with different members: their nodes do not
// talk to each other, whatever is left running somewhere.
func token(c Config, digest string) string {
	hash := sha256.New()
	_, _ = fmt.Fprintf(hash, "%q %q", c.Cluster, digest) // a hash takes everything
	for _, name := range slices.Sorted(maps.Keys(c.Bootstrap.Members)) {
		_, _ = fmt.Fprintf(hash, " %q=%q", name, c.Bootstrap.Members[name])
	}
	return c.Cluster + "-" + hex.EncodeToString(hash.Sum(nil))
}

// source answers the snapshot file, or the store in the directory that was given, and the digest of its content.
func (r Restore) source() (path, digest string, err error) {
	if r.Snapshot != "" {
		digest, err := digestOf(r.Snapshot)
		return r.Snapshot, digest, err
	}
	path = r.FromData
	if inner := filepath.Join(path, storeDir); etcd.HasMember(inner) {
		path = inner
	}
	if !etcd.HasMember(path) {
		return "", "", fmt.Errorf("restore: --from-data %s: %w: name the data_dir of a node, or the directory %q in it", r.FromData, etcd.ErrNoMember, storeDir)
	}
	// The log holds all that counts. What is allocated ahead of it differs from copy to copy.
	logs, err := filepath.Glob(filepath.Join(path, "member", "wal", "*.wal"))
	if err != nil {
		return "", "", err
	}
	slices.Sort(logs)
	digest, err = digestOf(logs...)
	return path, digest, err
}

func digestOf(paths ...string) (string, error) {
	hash := sha256.New()
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("restore: %w", err)
		}
		_, err = io.Copy(hash, file)
		if err := errors.Join(err, file.Close()); err != nil {
			return "", fmt.Errorf("restore: %w", err)
		}
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

func restoreCommand() *cobra.Command {
	var path string
	var minEpoch uint16
	var keepOld bool
	var r Restore
	cmd := &cobra.Command{
		Use:   "restore --config writ.yaml (--snapshot FILE | --from-data DIR)",
		Short: "Rebuild this node's store from a backup, while the node is stopped",
		Long: `Rebuild this node's store from a backup. Stop all nodes, run it with the same backup on every node of
bootstrap.members, and start them. Tokens go on above everything that any node remembers, in a new epoch, and nothing
is granted until the longest lease that may have been granted before has run out.

If only some nodes are left, reduce bootstrap.members to them on each, and restore from one survivor's own data:
--from-data with its data_dir (copied to the other survivors). The rest join afterwards: writ quorum member add.

If guards were opened by a certificate of break-glass meanwhile, give it with --certificate. A guard that was moved to a newer
epoch by one that is not given raises the epoch when it enrols.

Restoring the same backup again is possible at any time; the epoch rises each time.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := Load(path, os.Environ())
			if err != nil {
				return err
			}
			r.MinEpoch, r.RemoveOld, r.Logger = fence.Epoch(minEpoch), !keepOld, newLogger(config.Log, cmd.ErrOrStderr())
			out, err := r.Run(config)
			if err != nil {
				return err
			}
			return report(cmd.OutOrStdout(), config, out)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "the node's configuration `file` (YAML)")
	cmd.Flags().StringVar(&r.Snapshot, "snapshot", "", "restore from this `file`, written by writ quorum snapshot")
	cmd.Flags().StringVar(&r.FromData, "from-data", "", "restore from the data `directory` of a stopped node")
	cmd.Flags().Uint16Var(&minEpoch, "min-epoch", 0, minEpochUsage)
	cmd.Flags().StringVar(&r.Certificate, "certificate", "", "a certificate of break-glass that guards were opened by, `file`: tokens go on above its epochs")
	cmd.Flags().BoolVar(&keepOld, "keep-old", true, "keep the store that was there, as "+replacedDir+"N in the data directory")
	return cmd
}

func report(w io.Writer, c Config, out Restored) error {
	_, err := fmt.Fprintf(w, "node %s: %s\n", c.Name, out.Reason)
	if out.Old != "" {
		_, err2 := fmt.Fprintf(w, "the store that was there is in %s; remove it when the quorum is well\n", out.Old)
		err = errors.Join(err, err2)
	}
	_, err2 := fmt.Fprintf(w, "this node remembers epoch %d: tokens will go on above it\nnext: the same on every other node of %v, then start them\n",
		out.Epoch, slices.Sorted(maps.Keys(c.Bootstrap.Members)))
	return errors.Join(err, err2)
}
