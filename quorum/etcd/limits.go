package etcd

import (
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/writ-io/writ/quorum"
)

// checkWrites holds writes to the limits of one commit, and answers its size: the bytes of its keys and values.
func checkWrites(writes []quorum.Write) (size int, err error) {
	if len(writes) > quorum.MaxCommitWrites {
		return 0, fmt.Errorf("%w: %d writes, at most %d", quorum.ErrTooLarge, len(writes), quorum.MaxCommitWrites)
	}
	seen := make(map[string]struct{}, len(writes))
	for _, write := range writes {
		size += len(write.Key) + len(write.Value)
		if !strings.HasPrefix(write.Key, quorum.Prefix) {
			return 0, fmt.Errorf("key %q is not under %q", write.Key, quorum.Prefix)
		}
		if write.Key == quorum.KeyTerm {
			return 0, fmt.Errorf("key %q is written by Claim alone", write.Key)
		}
		if write.Key == quorum.KeyHead && write.Value == nil {
			return 0, fmt.Errorf("key %q cannot be deleted", write.Key)
		}
		if _, ok := seen[write.Key]; ok {
			return 0, fmt.Errorf("key %q is written twice", write.Key)
		}
		seen[write.Key] = struct{}{}
	}
	if size > quorum.MaxCommitBytes {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", quorum.ErrTooLarge, size, quorum.MaxCommitBytes)
	}
	return size, nil
}

// checkSpace answers ErrNoSpace for a commit of that many bytes that would exceed what the quota allows. What is in use counts, not the
// file: free pages of it are written again. Claims, announcements and folds are not held to the quota: without them a full
// store could not be emptied.
func (m *Member) checkSpace(bytes int) error {
	limit := quorum.RefusedAt(m.cfg.QuotaBytes)
	if inUse := m.server.Backend().SizeInUse(); inUse+int64(bytes) > limit {
		return fmt.Errorf("%w: %d bytes are in use, at most %d", quorum.ErrNoSpace, inUse, limit)
	}
	return nil
}

// NoSpace says whether etcd's alarm for want of space is raised: every write is refused, on every member, until
// ClearNoSpace. Members of this version never raise it: etcd's own quota, which goes by the size of the file, is off. One of
// an earlier version may have.
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
