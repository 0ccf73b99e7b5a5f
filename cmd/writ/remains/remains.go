package remains

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
	"github.com/writ-io/writ/region"
)

// Names in a data directory.
const (
	// LockFile is locked by the server that works on the directory.
	LockFile = "LOCK"
	// WitnessFile is what the node remembers outside of its store.
	WitnessFile = "witness.json"
	// StoreDir is the node's member of the replicated store.
	StoreDir = "etcd"
)

// Where the records stand.
var (
	leasePrefix = quorum.LeaseKey("")
	groupPrefix = quorum.RegionKey(region.GroupRecord, "")
	auditPrefix = strings.TrimRight(quorum.AuditKey(0), "0")
)

// Errors of a directory. They name the file.
var (
	// ErrRunning says that a server works on the directory.
	ErrRunning = errors.New("a server works on the data directory")
	// ErrNoState says that the directory holds no quorum's state.
	ErrNoState = errors.New("no quorum's state")
	// ErrDamaged says that something in the directory cannot be read.
	ErrDamaged = errors.New("damaged")
	// ErrOlder says that the store is older than what the node remembers: it was put back, or restored.
	ErrOlder = errors.New("the store is older than its witness")
)

// State is what a directory says of the quorum.
type State struct {
	// Dir is the directory, and Node whose it is; empty: it says nothing of that.
	Dir, Node string
	// Cluster, Incarnation and Epoch are those of the history.
	Cluster, Incarnation string
	Epoch                fence.Epoch
	// ApproversVersion is that of the people who may approve; 0: there are none.
	ApproversVersion uint64
	// Nodes have announced themselves, Guards are those that have not been removed, Groups those of failover; each in order of
	// their names.
	Nodes  []*writv1.NodeRecord
	Guards []*writv1.GuardRecord
	Groups []*writv1.Group
	// Leases are the records of resources, tenures among them, by name.
	Leases map[string]*writv1.LeaseRecord
	// AsOf is when the newest grant, enrolment or audit record was made, by the coordinator's clock; zero: there is none.
	AsOf time.Time

	ceiling uint64
}

// Read reads the data directory of a node, or the store in one.
func Read(dir string, log hclog.Logger) (*State, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%w: %s is not a directory", ErrNoState, dir)
	}
	unlock, err := etcd.ShareLock(filepath.Join(dir, LockFile))
	if err != nil {
		return nil, told(err)
	}
	defer unlock()
	store := dir
	if inner := filepath.Join(dir, StoreDir); etcd.HasMember(inner) {
		store = inner
	}
	disk, err := etcd.Inspect(store)
	if err != nil {
		return nil, told(err)
	}
	entries, err := etcd.ReadState(store, log)
	if err != nil {
		return nil, told(err)
	}
	s := &State{Dir: dir, Node: disk.Name, Leases: make(map[string]*writv1.LeaseRecord)}
	for _, e := range entries {
		if err := s.take(e); err != nil {
			return nil, fmt.Errorf("%w: %s in %s: %w", ErrDamaged, e.Key, store, err)
		}
	}
	if s.Incarnation == "" {
		return nil, fmt.Errorf("%w: the store in %s is not one of writ, or never had a coordinator", ErrNoState, store)
	}
	return s, s.witnessed(filepath.Join(dir, WitnessFile), store, disk)
}

// told says what is wrong in the words of this package.
func told(err error) error {
	for known, as := range map[error]error{etcd.ErrLocked: ErrRunning, etcd.ErrNoMember: ErrNoState, etcd.ErrDamaged: ErrDamaged} {
		if errors.Is(err, known) {
			return fmt.Errorf("%w: %w", as, err)
		}
	}
	return err
}

// witnessed compares the store with what the node remembers.
func (s *State) witnessed(path, store string, disk etcd.DiskState) error {
	w, err := quorum.LoadWitness(path)
	switch {
	case errors.Is(err, quorum.ErrWitnessMissing):
		return nil // a copy of the store alone
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case w.Cluster != s.Cluster:
		return fmt.Errorf("%w: %s is of cluster %q, and the store in %s of %q", ErrOlder, path, w.Cluster, store, s.Cluster)
	case w.Epoch > s.Epoch || w.Epoch == s.Epoch && w.Ceiling > s.ceiling:
		return fmt.Errorf("%w: %s remembers epoch %d and tokens up to %d, and the store in %s epoch %d and %d", ErrOlder, path, w.Epoch, w.Ceiling, store, s.Epoch, s.ceiling)
	case w.MemberID == disk.MemberID && (w.AppliedIndex > disk.LastIndex || w.RaftTerm > disk.Term):
		return fmt.Errorf("%w: %s remembers entry %d of term %d, and the log in %s ends at entry %d of term %d",
			ErrOlder, path, w.AppliedIndex, w.RaftTerm, store, disk.LastIndex, disk.Term)
	}
	s.Node = w.Node
	return nil
}

// take takes one record in.
func (s *State) take(e quorum.Entry) error {
	switch {
	case e.Key == quorum.KeyIdentity:
		identity := &writv1.IdentityRecord{}
		if err := proto.Unmarshal(e.Value, identity); err != nil {
			return err
		}
		s.Cluster, s.Incarnation, s.Epoch, s.ceiling = identity.GetCluster(), identity.GetIncarnation(), fence.Epoch(identity.GetEpoch()), identity.GetCeiling()
	case e.Key == quorum.KeyApprovers:
		set := &writv1.ApproverSet{}
		if err := proto.Unmarshal(e.Value, set); err != nil {
			return err
		}
		s.ApproversVersion = set.GetVersion()
	case strings.HasPrefix(e.Key, quorum.NodeKey("")):
		return keep(&s.Nodes, e.Value, &writv1.NodeRecord{})
	case strings.HasPrefix(e.Key, quorum.GuardKey("")):
		record := &writv1.GuardRecord{}
		defer func() { s.notBefore(time.UnixMilli(record.GetEnrolledAtUnixMs())) }()
		return keep(&s.Guards, e.Value, record)
	case strings.HasPrefix(e.Key, groupPrefix):
		return keep(&s.Groups, e.Value, &writv1.Group{})
	case strings.HasPrefix(e.Key, leasePrefix):
		record := &writv1.LeaseRecord{}
		if err := proto.Unmarshal(e.Value, record); err != nil {
			return err
		}
		s.Leases[strings.TrimPrefix(e.Key, leasePrefix)] = record
		s.notBefore(time.UnixMilli(record.GetGrantedAtUnixMs()))
	case strings.HasPrefix(e.Key, auditPrefix):
		// One that cannot be read says nothing of when; nothing else is taken from it.
		if record, err := audit.Parse(e.Value); err == nil {
			s.notBefore(record.At)
		}
	}
	return nil
}

// notBefore notes that the state is not older than that.
func (s *State) notBefore(at time.Time) {
	if at.Unix() > 0 && at.After(s.AsOf) {
		s.AsOf = at.UTC()
	}
}

func keep[M proto.Message](list *[]M, value []byte, record M) error {
	if err := proto.Unmarshal(value, record); err != nil {
		return err
	}
	*list = append(*list, record)
	return nil
}
