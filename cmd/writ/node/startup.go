package node

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
)

// Why a start is refused, beside quorum.ErrWitnessMissing and quorum.ErrWitnessEdited.
var (
	// ErrOtherWitness says that a witness is of another node, cluster or member.
	ErrOtherWitness = errors.New("the witness is another one's")
	// ErrStoreWiped says that there is a witness but no store.
	ErrStoreWiped = errors.New("the store is gone")
	// ErrStoreRolledBack says that the store is older than the witness.
	ErrStoreRolledBack = errors.New("the store was put back to an older state")
	// ErrMinEpoch says that --min-epoch would do nothing, or cannot be.
	ErrMinEpoch = errors.New("--min-epoch has no effect")
)

// minEpochGiven is why a state is foreign when an operator says so.
const minEpochGiven = "--min-epoch %d was given"

// found is what a data directory holds.
type found struct {
	witness    quorum.Witness
	witnessErr error // quorum.ErrWitnessMissing or quorum.ErrWitnessEdited
	disk       etcd.DiskState
	hasStore   bool
	// remains says that there is something of a store, but no log: a first start that did not come far, or a loss.
	remains bool
}

// look reads what the data directory holds and changes nothing.
func (d *dataDir) look(c Config) (f found, err error) {
	f.witness, f.witnessErr = quorum.LoadWitness(d.witness())
	if f.witnessErr != nil && !errors.Is(f.witnessErr, quorum.ErrWitnessMissing) && !errors.Is(f.witnessErr, quorum.ErrWitnessEdited) {
		return f, dirError(d.path, f.witnessErr)
	}
	if f.hasStore = etcd.HasMember(d.store()); !f.hasStore {
		return f, nil
	}
	f.disk, err = etcd.Inspect(d.store())
	if errors.Is(err, etcd.ErrNoMember) {
		f.hasStore, f.remains = false, true
		return f, nil
	}
	if err != nil {
		return f, &wrappedError{fmt.Sprintf("data_dir: the store cannot be read back (%s): %s", oneLine(err), waysOut(c, "")), err}
	}
	return f, nil
}

// waysOut names what an operator can do about a store that must not be started from. other is one more way.
func waysOut(c Config, other string) string {
	text := fmt.Sprintf(`if the other nodes are healthy, run "writ quorum member replace %s %s" there and start this one with bootstrap.join and an empty data_dir; `+
		`if they are lost too, run "writ quorum restore" on every node`, c.Name, c.Bootstrap.Members[c.Name])
	if other != "" {
		text += "; " + other
	}
	return text
}

// minEpochWay is the way out that needs no backup.
const minEpochWay = "if this store is all there is, start it with --min-epoch N, N being the highest epoch that anybody remembers (the part of a token before the dot)"

// begin decides with which witness a node may start from what was found. The rules, in order; S1 rests on them:
//
//  1. A witness that is missing beside a store, or edited, is no witness: only --min-epoch can take its place.
//  2. A witness of another cluster or node is not overwritten.
//  3. A witness that has seen a member is not combined with an empty store, unless the quorum has admitted this node anew:
//     then what it knows of tokens and TTLs stays and its positions begin again.
//  4. Nor with another node's or member's store, nor with a store that is behind it: raft counts on a member that forgets nothing.
//  5. --min-epoch raises the epoch of a witness and makes the state foreign; it never lowers anything.
//
// Nothing is ever taken from the store: it is what is to be judged.
func begin(c Config, dir string, minEpoch fence.Epoch, f found) (quorum.Witness, error) {
	w := f.witness
	if f.witnessErr == nil && (w.Cluster != c.Cluster || w.Node != c.Name) {
		return w, fmt.Errorf("data_dir: %w: %s is of node %q in cluster %q, but the configuration says node %q in cluster %q: give every node a directory of its own",
			ErrOtherWitness, filepath.Join(dir, witnessFile), w.Node, w.Cluster, c.Name, c.Cluster)
	}
	if f.disk.Name != "" && f.disk.Name != c.Name {
		return w, fmt.Errorf("data_dir: %w: %s belongs to node %q, but the configuration says %q: give every node a directory of its own",
			etcd.ErrForeign, filepath.Join(dir, storeDir), f.disk.Name, c.Name)
	}
	if f.witnessErr != nil {
		return withoutWitness(c, dir, minEpoch, f)
	}
	if !f.hasStore {
		if w.MemberID != 0 && !c.Bootstrap.Join {
			return w, fmt.Errorf("data_dir: %w: %s is missing, but the witness has seen it (epoch %d): %s", ErrStoreWiped,
				filepath.Join(dir, storeDir), w.Epoch, waysOut(c, "if nothing is left anywhere, not even a backup, remove the witnesses and start all nodes with --min-epoch and the highest epoch in them"))
		}
		return withMinEpoch(w.Restarted(), minEpoch)
	}
	if w.MemberID != 0 && w.MemberID != f.disk.MemberID {
		return w, fmt.Errorf("data_dir: %w: %s is of member %x, but %s holds member %x: a restore that was interrupted is to be run again; else %s",
			ErrOtherWitness, filepath.Join(dir, witnessFile), w.MemberID, filepath.Join(dir, storeDir), f.disk.MemberID, waysOut(c, ""))
	}
	if w.AheadOf(quorum.LogEnd{RaftTerm: f.disk.Term, LastIndex: f.disk.LastIndex}) {
		return w, fmt.Errorf("data_dir: %w: the log in %s ends at index %d in raft term %d, but the witness has seen index %d in raft term %d: %s",
			ErrStoreRolledBack, filepath.Join(dir, storeDir), f.disk.LastIndex, f.disk.Term, w.AppliedIndex, w.RaftTerm, waysOut(c, ""))
	}
	w.MemberID = f.disk.MemberID
	return withMinEpoch(w, minEpoch)
}

// withoutWitness starts without a witness: a new node, or one whose operator answers for the epoch.
func withoutWitness(c Config, dir string, minEpoch fence.Epoch, f found) (quorum.Witness, error) {
	blank := quorum.Witness{Cluster: c.Cluster, Node: c.Name, MemberID: f.disk.MemberID}
	missing := errors.Is(f.witnessErr, quorum.ErrWitnessMissing)
	switch {
	case minEpoch != 0 && missing && (f.hasStore || f.remains):
		return withMinEpochBecause(blank, minEpoch, "the witness was missing; ")
	case minEpoch != 0 && !missing:
		return withMinEpochBecause(blank, minEpoch, "the witness was not as it was written; ")
	case missing && (f.hasStore || f.remains):
		return blank, fmt.Errorf("data_dir: %w, but there is a store in %s, which may be a copy or older than it looks: %s",
			f.witnessErr, filepath.Join(dir, storeDir), waysOut(c, minEpochWay))
	case !missing:
		return blank, fmt.Errorf("data_dir: %w: %s", f.witnessErr, waysOut(c, minEpochWay))
	}
	return withMinEpoch(blank, minEpoch)
}

func withMinEpoch(w quorum.Witness, minEpoch fence.Epoch) (quorum.Witness, error) {
	return withMinEpochBecause(w, minEpoch, "")
}

// withMinEpochBecause raises what w remembers to an epoch that an operator names.
func withMinEpochBecause(w quorum.Witness, minEpoch fence.Epoch, why string) (quorum.Witness, error) {
	switch {
	case minEpoch == 0:
		return w, nil
	case !minEpoch.Valid() || minEpoch == fence.MaxEpoch:
		return w, fmt.Errorf("%w: %d is no epoch that another can follow: use 1 to %d", ErrMinEpoch, minEpoch, fence.MaxEpoch-1)
	case minEpoch == w.Epoch && w.Foreign != "":
		return w, nil // the same start once more
	case minEpoch <= w.Epoch:
		return w, fmt.Errorf("%w: %d was given, and the witness remembers epoch %d: start without it", ErrMinEpoch, minEpoch, w.Epoch)
	}
	w.Epoch, w.Incarnation, w.Ceiling = minEpoch, "", 0
	w.Foreign = why + fmt.Sprintf(minEpochGiven, minEpoch)
	return w, nil
}
