package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/raft/v3"

	"github.com/writ-io/writ/quorum"
)

// loadPage is how many entries one read of Load takes.
const loadPage = 4096

var (
	keyTerm = []byte(quorum.KeyTerm)
	keyHead = []byte(quorum.KeyHead)
	// prefixEnd is the first key after every key with the prefix, which ends in a slash.
	prefixEnd = []byte(quorum.Prefix[:len(quorum.Prefix)-1] + "0")
	// headValue is written to the head key when the writer gives none: only its revision counts.
	headValue = []byte{0}
)

// Claim makes value the newest term record.
func (m *Member) Claim(ctx context.Context, value []byte) (quorum.Term, error) {
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	current, err := m.read(ctx, &pb.RangeRequest{Key: keyTerm, KeysOnly: true})
	if err != nil {
		return 0, fmt.Errorf("read term: %w", err)
	}
	revision, err := m.commit(ctx, modRevision(current), []quorum.Write{{Key: quorum.KeyTerm, Value: nonNil(value)}})
	if err != nil {
		return 0, fmt.Errorf("claim: %w", err)
	}
	return quorum.Term(revision), nil
}

// Commit applies writes if term is the newest.
func (m *Member) Commit(ctx context.Context, term quorum.Term, writes []quorum.Write) (int64, error) {
	if term <= 0 { // revision 0 would compare equal to a term key that was never written
		return 0, fmt.Errorf("commit without a term: %w", quorum.ErrDeposed)
	}
	size, err := checkWrites(writes)
	if err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	if err := m.checkSpace(size); err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	packed, direct := pack(writes)
	if packed != nil {
		if len(direct) == 0 {
			packed = markSole(packed)
		}
		direct = append(direct, quorum.Write{Key: string(logKey(int64(term), m.ID(), m.packs.next())), Value: packed})
	}
	revision, err := m.commit(ctx, int64(term), direct)
	if err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	if packed != nil && m.packs.grew(term, len(packed), m.foldBytes()) {
		m.foldLater(int64(term))
	}
	return revision, nil
}

// Announce puts or deletes one key without a term.
func (m *Member) Announce(ctx context.Context, write quorum.Write) (int64, error) {
	if write.Key == quorum.KeyHead {
		return 0, fmt.Errorf("announce: %q is written by every commit", write.Key)
	}
	if quorum.Packable(write.Key) {
		// The log would be applied on top of it.
		return 0, fmt.Errorf("announce: %q is written under a term only", write.Key)
	}
	if _, err := checkWrites([]quorum.Write{write}); err != nil {
		return 0, fmt.Errorf("announce: %w", err)
	}
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	response, err := m.propose(ctx, &pb.TxnRequest{Success: operations([]quorum.Write{write})})
	if err != nil {
		return 0, fmt.Errorf("announce: %w", err)
	}
	return response.Header.Revision, nil
}

// Confirm shows that term is the newest.
func (m *Member) Confirm(ctx context.Context, term quorum.Term) error {
	if term <= 0 {
		return fmt.Errorf("confirm without a term: %w", quorum.ErrDeposed)
	}
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	current, err := m.read(ctx, &pb.RangeRequest{Key: keyTerm, KeysOnly: true})
	if err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	if newest := modRevision(current); newest != int64(term) {
		return fmt.Errorf("confirm: term is %d, not %d: %w", newest, term, quorum.ErrDeposed)
	}
	return nil
}

// Head answers the store's revision, which is that of the newest commit or of a fold after it; 0 if there was no commit.
func (m *Member) Head(ctx context.Context) (int64, error) {
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	head, err := m.read(ctx, &pb.RangeRequest{Key: keyHead, KeysOnly: true})
	if err != nil {
		return 0, fmt.Errorf("head: %w", err)
	}
	if len(head.Kvs) == 0 { // no claim yet
		return 0, nil
	}
	return head.Header.Revision, nil
}

// Load reads the whole state at one revision.
func (m *Member) Load(ctx context.Context) ([]quorum.Entry, int64, error) {
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer leave()
	for {
		entries, revision, err := loadState(ctx, m.read)
		if errors.Is(err, mvcc.ErrCompacted) {
			continue // compacted between two pages
		}
		if err != nil {
			return nil, 0, fmt.Errorf("load: %w", err)
		}
		return entries, revision, nil
	}
}

// reader is what reads of a member go by.
type reader func(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error)

// loadState reads the keys and the log at one revision: the log lies right before the keys.
func loadState(ctx context.Context, read reader) (entries []quorum.Entry, revision int64, err error) {
	page, err := read(ctx, &pb.RangeRequest{Key: []byte(logPrefix), RangeEnd: prefixEnd, Limit: loadPage})
	if err != nil {
		return nil, 0, err
	}
	revision = page.Header.Revision
	entries = make([]quorum.Entry, 0, page.Count)
	var log []*mvccpb.KeyValue
	for {
		for _, kv := range page.Kvs {
			if bytes.HasPrefix(kv.Key, []byte(logPrefix)) {
				log = append(log, kv)
				continue
			}
			entries = append(entries, quorum.Entry{Key: string(kv.Key), Value: nonNil(kv.Value), Revision: kv.ModRevision})
		}
		if !page.More {
			entries, err = overlay(entries, log)
			return entries, revision, err
		}
		next := append(page.Kvs[len(page.Kvs)-1].Key, 0)
		// The first page showed that this member has reached revision, so the rest can be read locally.
		page, err = read(ctx, &pb.RangeRequest{
			Key: next, RangeEnd: prefixEnd, Limit: loadPage, Revision: revision, Serializable: true})
		if err != nil {
			return nil, 0, err
		}
	}
}

// overlay applies the log on top of the keys and answers them in key order.
func overlay(entries []quorum.Entry, log []*mvccpb.KeyValue) ([]quorum.Entry, error) {
	if len(log) == 0 {
		return entries, nil
	}
	newest := map[string]quorum.Entry{}
	for _, kv := range byRevision(log) {
		err := unpack(kv.Value, func(key string, value []byte) {
			newest[key] = quorum.Entry{Key: key, Value: bytes.Clone(value), Revision: kv.ModRevision}
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kv.Key, err)
		}
	}
	entries = slices.DeleteFunc(entries, func(e quorum.Entry) bool {
		_, ok := newest[e.Key]
		return ok
	})
	for _, e := range newest {
		if e.Value != nil {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b quorum.Entry) int { return strings.Compare(a.Key, b.Key) })
	return entries, nil
}

// commit proposes writes, compared with the revision of the term key.
func (m *Member) commit(ctx context.Context, term int64, writes []quorum.Write) (int64, error) {
	response, err := m.propose(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{modified(keyTerm, term)},
		Success: operations(writes),
	})
	if err != nil {
		return 0, err
	}
	if !response.Succeeded {
		return 0, quorum.ErrDeposed
	}
	return response.Header.Revision, nil
}

// operations answers writes as etcd's, with the head key last: its event ends the change for a watch. A sole log entry, which
// most commits are, says so itself.
func operations(writes []quorum.Write) []*pb.RequestOp {
	if len(writes) == 1 && isSole(writes[0].Key, writes[0].Value) {
		return []*pb.RequestOp{put([]byte(writes[0].Key), writes[0].Value)}
	}
	ops := make([]*pb.RequestOp, 0, len(writes)+1)
	head := headValue
	for _, write := range writes {
		switch {
		case write.Key == quorum.KeyHead:
			head = write.Value
		case write.Value == nil:
			ops = append(ops, deleteRange([]byte(write.Key), nil))
		default:
			ops = append(ops, put([]byte(write.Key), write.Value))
		}
	}
	return append(ops, put(keyHead, head))
}

func put(key, value []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}
}

// propose passes one transaction through raft. Its errors are classified: ErrNoSpace and ErrTooLarge mean that nothing
// was proposed, everything else is ErrUnknown.
func (m *Member) propose(ctx context.Context, txn *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, unknown(ctx, err)
	}
	if m.NoSpace() { // asked before: etcd's refusal of a proposal does not tell whether that was applied
		return nil, fmt.Errorf("%w: etcd's alarm is raised", quorum.ErrNoSpace)
	}
	response, err := m.server.Txn(ctx, txn)
	switch {
	case err == nil:
		return response, nil
	case errors.Is(err, etcderrors.ErrRequestTooLarge):
		return nil, fmt.Errorf("%w: %w", quorum.ErrTooLarge, err)
	case errors.Is(err, etcderrors.ErrNoSpace):
		// etcd answers this for a transaction that it applied and that exceeded the quota, too.
		m.full.Store(true)
	}
	return nil, unknown(ctx, err)
}

// read ranges over keys, again while etcd says that leadership changed under it.
func (m *Member) read(ctx context.Context, request *pb.RangeRequest) (*pb.RangeResponse, error) {
	for {
		// etcd may answer all the same.
		if err := ctx.Err(); err != nil {
			return nil, unknown(ctx, err)
		}
		response, err := m.server.Range(ctx, request)
		switch {
		case err == nil:
			return response, nil
		case errors.Is(err, mvcc.ErrCompacted):
			return nil, err
		case ctx.Err() != nil, !retryable(err):
			return nil, unknown(ctx, err)
		}
	}
}

// retryable says that a linearizable read was given up over an election, or after etcd's own limit.
func retryable(err error) bool {
	return errors.Is(err, etcderrors.ErrLeaderChanged) || errors.Is(err, etcderrors.ErrTimeout) ||
		errors.Is(err, raft.ErrProposalDropped) || errors.Is(err, context.DeadlineExceeded)
}

// unknown wraps err as ErrUnknown, with the reason that ended ctx if one did.
func unknown(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		if cause := context.Cause(ctx); !errors.Is(err, cause) {
			return fmt.Errorf("%w: %w: %w", quorum.ErrUnknown, err, cause)
		}
	}
	if errors.Is(err, etcderrors.ErrStopped) || errors.Is(err, raft.ErrStopped) {
		return fmt.Errorf("%w: %w: %w", quorum.ErrUnknown, ErrStopped, err)
	}
	return fmt.Errorf("%w: %w", quorum.ErrUnknown, err)
}

func modRevision(response *pb.RangeResponse) int64 {
	if len(response.Kvs) == 0 {
		return 0
	}
	return response.Kvs[0].ModRevision
}

// nonNil keeps an empty value apart from a delete.
func nonNil(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// entry answers an event as an Entry.
func entry(event *mvccpb.Event) quorum.Entry {
	out := quorum.Entry{Key: string(event.Kv.Key), Revision: event.Kv.ModRevision}
	if event.Type == mvccpb.Event_PUT {
		out.Value = nonNil(event.Kv.Value)
	}
	return out
}
