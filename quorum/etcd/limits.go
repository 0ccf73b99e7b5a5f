package etcd

import (
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage"

	"github.com/writ-io/writ/quorum"
)

// checkWrites holds writes to the limits of one commit. The size of a commit is the bytes of its keys and values.
func checkWrites(writes []quorum.Write) error {
	if len(writes) > quorum.MaxCommitWrites {
		return fmt.Errorf("%w: %d writes, at most %d", quorum.ErrTooLarge, len(writes), quorum.MaxCommitWrites)
	}
	size := 0
	seen := make(map[string]struct{}, len(writes))
	for _, write := range writes {
		size += len(write.Key) + len(write.Value)
		if !strings.HasPrefix(write.Key, quorum.Prefix) {
			return fmt.Errorf("key %q is not under %q", write.Key, quorum.Prefix)
		}
		if write.Key == quorum.KeyTerm {
			return fmt.Errorf("key %q is written by Claim alone", write.Key)
		}
		if write.Key == quorum.KeyHead && write.Value == nil {
			return fmt.Errorf("key %q cannot be deleted", write.Key)
		}
		if _, ok := seen[write.Key]; ok {
			return fmt.Errorf("key %q is written twice", write.Key)
		}
		seen[write.Key] = struct{}{}
	}
	if size > quorum.MaxCommitBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", quorum.ErrTooLarge, size, quorum.MaxCommitBytes)
	}
	return nil
}

// checkSpace answers ErrNoSpace if etcd would refuse txn, before it is proposed: once proposed, etcd's refusal does not
// tell whether the transaction was applied.
func (m *Member) checkSpace(txn *pb.TxnRequest) error {
	if m.NoSpace() {
		return fmt.Errorf("%w: etcd's alarm is raised", quorum.ErrNoSpace)
	}
	backend := m.server.Backend()
	if !storage.NewBackendQuota(m.zap, m.cfg.QuotaBytes, backend, "writ").Available(txn) {
		return fmt.Errorf("%w: database of %d bytes, quota %d", quorum.ErrNoSpace, backend.Size(), m.cfg.QuotaBytes)
	}
	return nil
}

// NoSpace says whether etcd's alarm for want of space is raised: every write is refused, on every member, until
// ClearNoSpace.
func (m *Member) NoSpace() bool {
	if !m.full.Load() {
		return false // no transaction was refused since the alarm was last seen down
	}
	for _, alarm := range m.server.Alarms() {
		if alarm.Alarm == pb.AlarmType_NOSPACE {
			return true
		}
	}
	m.full.Store(false)
	return false
}
