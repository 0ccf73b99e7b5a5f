package etcd

import (
	"errors"
	"fmt"
)

// Errors of a member. They come beside those of package quorum, and wrapped with detail.
var (
	// ErrLocked says that another process, or this one, has the data directory open.
	ErrLocked = errors.New("quorum/etcd: data directory is in use")
	// ErrNoMember says that a directory holds no member.
	ErrNoMember = errors.New("quorum/etcd: no member in the data directory")
	// ErrForeign says that a directory holds the member of another node or cluster.
	ErrForeign = errors.New("quorum/etcd: data directory belongs to another member")
	// ErrForgotten says that the data of a member which has run before is gone. It must not come back under its old id.
	ErrForgotten = errors.New("quorum/etcd: the member's data is gone")
	// ErrDamaged says that a data directory or a snapshot cannot be read back.
	ErrDamaged = errors.New("quorum/etcd: damaged data")
	// ErrStopped says that the member has stopped or is stopping.
	ErrStopped = errors.New("quorum/etcd: member stopped")
	// ErrRemoved says that the member was removed from the cluster; its data directory is of no more use.
	ErrRemoved = errors.New("quorum/etcd: member was removed from the cluster")
	// ErrNotLeader says that only the raft leader can do this.
	ErrNotLeader = errors.New("quorum/etcd: not the leader")
	// ErrNotReady says that a membership change is refused for now: the learner is behind, or members have been
	// connected for less than five seconds. Try again.
	ErrNotReady = errors.New("quorum/etcd: members not ready")
	// ErrNoSuchMember says that a member id is not in the cluster.
	ErrNoSuchMember = errors.New("quorum/etcd: no such member")
	// ErrMemberExists says that a member with that peer address is in the cluster already.
	ErrMemberExists = errors.New("quorum/etcd: member exists")
)

// ConfigError says which field of a configuration is wrong, and how.
type ConfigError struct {
	Field  string // as in the configuration file, e.g. "peer.listen"
	Reason string
	Err    error // may be nil
}

func (e *ConfigError) Error() string { return e.Field + ": " + e.Reason }
func (e *ConfigError) Unwrap() error { return e.Err }

func invalid(field, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &ConfigError{Field: field, Reason: err.Error(), Err: errors.Unwrap(err)}
}

// FailedError says that etcd met an error that it cannot live with. The process should exit.
type FailedError struct {
	Dir     string
	Message string // etcd's own words
	Cause   error  // may be nil
}

func (e *FailedError) Error() string {
	text := fmt.Sprintf("quorum/etcd: member in %s failed: %s", e.Dir, e.Message)
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

func (e *FailedError) Unwrap() error { return e.Cause }
