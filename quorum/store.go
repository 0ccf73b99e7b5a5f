package quorum

import (
	"context"
	"errors"
	"io"
)

// Term is a coordinator's right to decide: the revision at which its claim was committed. Terms of one history strictly
// increase. 0 is no term.
type Term int64

// Errors of a Store. Every other error means the same as ErrUnknown: the effect may or may not have happened.
var (
	// ErrDeposed says that the term is not (or no longer) the newest one: the commit was certainly not made.
	ErrDeposed = errors.New("quorum: another node has claimed a newer term")
	// ErrUnknown says that the outcome of a commit, claim or confirm is not known. It is never guessed.
	ErrUnknown = errors.New("quorum: outcome unknown")
	// ErrTooLarge says that a commit exceeds MaxCommitWrites or MaxCommitBytes: it was certainly not made.
	ErrTooLarge = errors.New("quorum: commit too large")
	// ErrNoSpace says that the store refuses to grow: the commit was certainly not made.
	ErrNoSpace = errors.New("quorum: storage quota exceeded")
	// ErrCompacted says that history from the asked revision on is no longer kept: load the whole state.
	ErrCompacted = errors.New("quorum: revision compacted")
)

// Limits of one commit.
const (
	MaxCommitWrites = 4096
	MaxCommitBytes  = 1 << 20
)

// RefusedAt is how much of a store with that quota may be in use before commits are refused. Long before, growth is: see
// house. What is left is for history that compaction has not caught up with, and for what ends leases and drops records: a
// store that refused those could not be emptied.
func RefusedAt(quotaBytes int64) int64 { return 2 * quotaBytes }

// Write is one put, or, with a nil Value, one delete.
type Write struct {
	Key   string
	Value []byte
}

// Entry is one key of the state.
type Entry struct {
	Key      string
	Value    []byte
	Revision int64 // at which Value was written
}

// Change is everything that one commit changed, in one piece.
type Change struct {
	Revision int64
	// Entries holds puts (Value non-nil) and deletes (Value nil).
	Entries []Entry
}

// Store is the replicated, linearizable key-value store underneath. All keys lie under Prefix. Every method is safe for
// concurrent use. Contexts bound the waiting; a context that ends while a commit, claim or confirm is under way yields an
// error that is ErrUnknown.
//
// Two implementations pass the suite in quorum/storetest: quorum/etcd and the simulator's.
type Store interface {
	// Claim makes value the newest term record and answers the new term: the revision of that write, which is
	// larger than every revision before. It is a compare-and-set against the record that it read, so that of two
	// racing claims the loser gets ErrDeposed. Claiming also counts as a commit: Watch delivers it.
	Claim(ctx context.Context, value []byte) (Term, error)
	// Load reads the whole state under Prefix, linearizably, and the revision it is of. Entries come in key order.
	Load(ctx context.Context) (entries []Entry, revision int64, err error)
	// Commit applies all writes in one transaction if term is still the newest, and answers its revision. At most
	// one write per key.
	Commit(ctx context.Context, term Term, writes []Write) (revision int64, err error)
	// Confirm shows by a linearizable read begun after the call that term is still the newest.
	Confirm(ctx context.Context, term Term) error
	// Announce puts one key without a term: for the keys that a node owns alone.
	Announce(ctx context.Context, write Write) (revision int64, err error)
	// Head answers, linearizably, the store's revision: that of the newest commit, claim or announcement, or a later one
	// that Watch delivers an empty change for. 0 before the first claim.
	Head(ctx context.Context) (revision int64, err error)
	// Watch calls deliver for every change from revision from on, in order, without gap or duplicate, from one
	// goroutine, until ctx ends, deliver answers false, or an error: ErrCompacted if history from there on is gone.
	// A change is delivered whole; empty ones, and entries of the head key, may come beside. It blocks until it ends.
	Watch(ctx context.Context, from int64, deliver func(Change) bool) error
	// Leadership answers whether this node is where the coordinator should be (beside the raft leader), and a
	// channel that is closed when that answer may have changed.
	Leadership() (leader bool, changed <-chan struct{})
}

// MemberInfo describes a member of the replicated store.
type MemberInfo struct {
	ID       uint64
	Name     string // empty until the member has started
	PeerURLs []string
	Started  bool // it has made itself known to the quorum, and must not come back without its data
	Learner  bool
}

// Progress is how far a member is.
type Progress struct {
	RaftTerm     uint64
	AppliedIndex uint64
	Revision     int64
	Oldest       int64  // revision, before which history is no longer kept
	Compacting   bool   // history that has been given up takes space still
	Leader       uint64 // member id, 0 if none is known
	DBBytes      int64  // in use
	DBFileBytes  int64  // allocated on disk
}

// Member is this node's part of the replicated store.
type Member interface {
	Store
	ID() uint64
	Progress() Progress
	// Members answers the membership as this member has applied it.
	Members() []MemberInfo
	// Reachable says whether this member has an active connection to that one.
	Reachable(id uint64) bool
	// PeerURLProblem says why no member can be added at that URL; empty: nothing speaks against it.
	PeerURLProblem(peerURL string) string
	// AddMember, PromoteMember and RemoveMember change the membership through the quorum. AddMember adds a
	// learner, which has no vote until promoted.
	AddMember(ctx context.Context, peerURL string) (id uint64, err error)
	PromoteMember(ctx context.Context, id uint64) error
	RemoveMember(ctx context.Context, id uint64) error
	// MoveLeader hands raft leadership to another voting member; only the leader can.
	MoveLeader(ctx context.Context, to uint64) error
	// Snapshot answers a consistent image of the member's state, and its size in bytes.
	Snapshot(ctx context.Context) (io.ReadCloser, int64, error)
	// Compact drops history before revision; the present state stays.
	Compact(ctx context.Context, revision int64) error
	// Defragment gives free pages of this member's file back. It blocks this member's reads and writes meanwhile.
	Defragment() error
	// Recount has Progress say how much is in use now. Without it that counts only when something is written, which a store that
	// refuses writes for want of space does not see.
	Recount()
	// ClearNoSpace takes back what keeps a store that was full from being written, on every member, if anything does.
	ClearNoSpace(ctx context.Context) error
	// Done is closed when the member has stopped, of itself or by Close; Err then says why (nil after Close).
	Done() <-chan struct{}
	Err() error
	Close() error
}
