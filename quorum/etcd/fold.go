package etcd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/writ-io/writ/quorum"
)

const (
	// The log is folded when it has grown by this much: often enough to stay small beside the state, seldom enough
	// that writes of one resource are folded into one.
	foldEntries = 1024
	foldBytes   = 8 << 20
	// foldPart bounds the log to this part of the quota: until it is folded, no compaction makes it smaller.
	foldPart = 16
	// foldTimeout bounds one fold; what it has not done, the next one does.
	foldTimeout = 30 * time.Second
)

// foldBytes is by how much the log may grow.
func (m *Member) foldBytes() int { return int(min(foldBytes, m.cfg.QuotaBytes/foldPart)) }

// packLog counts what this member has added to the log.
type packLog struct {
	mu       sync.Mutex
	sequence uint64
	term     quorum.Term // of the newest entry
	entries  int
	bytes    int
	folding  bool
}

// next is the sequence of the next entry.
func (l *packLog) next() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sequence++
	return l.sequence
}

// grew notes an entry and says whether a fold is due, which the caller then must do.
func (l *packLog) grew(term quorum.Term, bytes, foldBytes int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term = term
	l.entries++
	l.bytes += bytes
	if l.entries < foldEntries && l.bytes < foldBytes {
		return false
	}
	return l.beginLocked()
}

// begin says whether there is anything to fold, of which term, which the caller then must do.
func (l *packLog) begin() (quorum.Term, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term, l.entries > 0 && l.beginLocked()
}

func (l *packLog) beginLocked() bool {
	if l.folding {
		return false
	}
	l.folding, l.entries, l.bytes = true, 0, 0
	return true
}

func (l *packLog) folded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.folding = false
}

// foldLater folds the log beside whatever else happens. Failing is harmless: the log stays, and the next fold has it.
func (m *Member) foldLater(term int64) {
	ctx, leave, err := m.gate.enter(context.Background())
	if err != nil {
		m.packs.folded()
		return
	}
	go func() {
		defer leave()
		defer m.packs.folded()
		ctx, cancel := context.WithTimeout(ctx, foldTimeout)
		defer cancel()
		if err := m.fold(ctx, term); err != nil {
			m.log.Debug("the log was not folded", "error", err)
		}
	}()
}

// fold moves what is in the log into the keys, oldest first.
func (m *Member) fold(ctx context.Context, term int64) error {
	page, err := m.read(ctx, &pb.RangeRequest{Key: []byte(logPrefix), RangeEnd: []byte(logEnd), Serializable: true})
	if err != nil {
		return err
	}
	entries := byRevision(page.Kvs)
	for len(entries) > 0 {
		ops, taken, err := foldOps(entries)
		if err != nil {
			return err
		}
		// The oldest entry must still be there: a fold whose outcome was unknown may come late, and must not put
		// old values over what was folded since.
		response, err := m.propose(ctx, &pb.TxnRequest{
			Compare: []*pb.Compare{modified(keyTerm, term), modified(entries[0].Key, entries[0].ModRevision)},
			Success: ops,
		})
		if err != nil {
			return err
		}
		if !response.Succeeded {
			return fmt.Errorf("fold: %w", quorum.ErrDeposed)
		}
		entries = entries[taken:]
	}
	return nil
}

func modified(key []byte, revision int64) *pb.Compare {
	return &pb.Compare{
		Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: revision},
	}
}

// byRevision sorts log entries in the order of their commits.
func byRevision(kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	slices.SortFunc(kvs, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) })
	return kvs
}

// foldOps answers the operations that fold as many of the first entries as one transaction may hold, at least one.
func foldOps(entries []*mvccpb.KeyValue) (ops []*pb.RequestOp, taken int, err error) {
	newest := map[string][]byte{}
	var order []string
	size := 0
	for _, e := range entries {
		more := 0
		if err := unpack(e.Value, func(key string, value []byte) {
			if _, ok := newest[key]; !ok {
				more++
			}
		}); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", e.Key, err)
		}
		if taken > 0 && (len(newest)+more > quorum.MaxCommitWrites-64 || size+len(e.Value) > quorum.MaxCommitBytes) {
			break
		}
		_ = unpack(e.Value, func(key string, value []byte) {
			old, ok := newest[key]
			if !ok {
				order = append(order, key)
				size += len(key)
			}
			size += len(value) - len(old)
			newest[key] = value
		})
		taken++
	}
	for _, key := range order {
		if value := newest[key]; value != nil {
			ops = append(ops, put([]byte(key), value))
			continue
		}
		ops = append(ops, deleteRange([]byte(key), nil))
	}
	ops = append(ops, logDeletes(entries[:taken])...)
	return append(ops, put(keyHead, headValue)), taken, nil
}

// logDeletes answers one range delete per member and term: what is folded of each is the first part of it.
func logDeletes(entries []*mvccpb.KeyValue) []*pb.RequestOp {
	const group = len(logPrefix) + 16 + 1 + 16 + 1
	last := map[string][]byte{}
	var order []string
	for _, e := range entries {
		g := string(e.Key[:group])
		if _, ok := last[g]; !ok {
			order = append(order, g)
		}
		last[g] = e.Key
	}
	var ops []*pb.RequestOp
	for _, g := range order {
		ops = append(ops, deleteRange([]byte(g), append(slices.Clone(last[g]), 0)))
	}
	return ops
}

func deleteRange(key, end []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key, RangeEnd: end}}}
}
