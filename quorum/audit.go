package quorum

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// What auditors ask. Every node answers from its view, after it has caught up with everything acknowledged before.

// AuditQuery asks for one page of the audit log. Empty fields do not limit.
type AuditQuery struct {
	Target        string // a name, or a prefix that ends in an asterisk
	Action, Actor string
	Since, Until  time.Time // by the times of the records: from Since on, before Until
	After         uint64    // go on after this sequence
	Limit         int       // 1 to 1,000
	NewestFirst   bool
}

// AuditRecord is a record and its stored form.
type AuditRecord struct {
	audit.Record
	Stored []byte
}

// AuditPage is one page.
type AuditPage struct {
	Records []AuditRecord
	More    bool
	// Pruned is the newest record that has been forgotten, Head the newest there is.
	Pruned, Head uint64
	Heads        []AuditHeadStatus
}

// AuditHeadStatus is a head that a node has signed. Alarm says what contradicts it; empty: nothing. One of a history that a
// rebuild of the quorum has ended is no alarm, and not on the chain either.
type AuditHeadStatus struct {
	Head    *writv1.AuditHead
	Alarm   string
	OnChain bool
}

// AuditAnswer is who could write, and the records that say so.
type AuditAnswer struct {
	audit.Answer
	Records []AuditRecord
}

// ListAudit reads one page of the audit log.
func (s *Service) ListAudit(ctx context.Context, q AuditQuery) (AuditPage, error) {
	if q.Limit < 1 || q.Limit > 1000 {
		return AuditPage{}, lease.Invalid("limit", fmt.Sprintf("is %d", q.Limit), "use 1 to 1,000")
	}
	if err := s.fresh(ctx, Linearizable); err != nil {
		return AuditPage{}, err
	}
	return listAudit(ctx, s.view.snapshot(), q)
}

func listAudit(ctx context.Context, image *Image, q AuditQuery) (AuditPage, error) {
	page := AuditPage{Pruned: image.Identity().GetAuditPruned(), Head: image.Identity().GetAuditSequence()}
	if q.After == 0 {
		page.Heads = auditHeadStatuses(image)
	}
	needles := q.needles()
	for e := range auditEntries(image, q.After, q.NewestFirst) {
		if ctx.Err() != nil {
			return AuditPage{}, context.Cause(ctx)
		}
		if !containsAll(e.Value, needles) || !q.timely(e.Value) {
			continue
		}
		r, err := audit.Parse(e.Value)
		if err != nil {
			return AuditPage{}, lease.Errorf(lease.ReasonInternal, "the audit record %s is unreadable: %v", e.Key, err)
		}
		if !q.matches(r) {
			continue
		}
		if len(page.Records) == q.Limit {
			page.More = true
			break
		}
		page.Records = append(page.Records, AuditRecord{Record: r, Stored: e.Value})
	}
	return page, nil
}

func (q AuditQuery) matches(r audit.Record) bool {
	prefix, many := strings.CutSuffix(q.Target, "*")
	switch {
	case many && !strings.HasPrefix(r.Target, prefix), !many && q.Target != "" && q.Target != r.Target:
		return false
	case q.Action != "" && q.Action != r.Action, q.Actor != "" && q.Actor != r.Actor:
		return false
	case !q.Since.IsZero() && r.At.Before(q.Since), !q.Until.IsZero() && !r.At.Before(q.Until):
		return false
	}
	return true
}

// timely says whether the time of a record may match, without decoding all of it: nothing before it can hold its name.
func (q AuditQuery) timely(stored []byte) bool {
	if q.Since.IsZero() && q.Until.IsZero() {
		return true
	}
	_, rest, named := bytes.Cut(stored, []byte(`"at":"`))
	text, _, ended := bytes.Cut(rest, []byte(`"`))
	at, err := time.Parse(time.RFC3339Nano, string(text))
	if !named || !ended || err != nil {
		return true // whoever decodes it sees what is wrong
	}
	return (q.Since.IsZero() || !at.Before(q.Since)) && (q.Until.IsZero() || at.Before(q.Until))
}

// needles are what the stored form of a record has to contain to match: most need not be decoded.
func (q AuditQuery) needles() (needles [][]byte) {
	target, many := strings.CutSuffix(q.Target, "*")
	for _, f := range []struct {
		name, value string
		whole       bool
	}{{"target", target, !many}, {"action", q.Action, true}, {"actor", q.Actor, true}} {
		if f.value == "" {
			continue
		}
		needles = append(needles, needle(f.name, f.value, f.whole))
	}
	return needles
}

// needle is a field as the stored form has it.
func needle(name, value string, whole bool) []byte {
	quoted, err := json.Marshal(value)
	if err != nil {
		return nil // a string can be written
	}
	if !whole {
		quoted = quoted[:len(quoted)-1]
	}
	return []byte(`"` + name + `":` + string(quoted))
}

func containsAll(stored []byte, needles [][]byte) bool {
	return !slices.ContainsFunc(needles, func(n []byte) bool { return !bytes.Contains(stored, n) })
}

// auditEntries goes over the records behind a sequence, or, the newest first, before it. What has been pruned and not been
// deleted yet is left out.
func auditEntries(image *Image, after uint64, newestFirst bool) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		oldest := image.Identity().GetAuditPruned() + 1
		if !newestFirst {
			image.Ascend(AuditKey(max(after+1, oldest)), func(e Entry) bool {
				return strings.HasPrefix(e.Key, prefixAudit) && yield(e)
			})
			return
		}
		from := AuditKey(^uint64(0))
		if after > 0 {
			from = AuditKey(after - 1)
		}
		image.Descend(from, func(e Entry) bool {
			return strings.HasPrefix(e.Key, prefixAudit) && e.Key >= AuditKey(oldest) && yield(e)
		})
	}
}

// WhoCouldWrite answers which grants and tenures of a resource were in force at an instant.
func (s *Service) WhoCouldWrite(ctx context.Context, resource lease.Resource, at time.Time) (AuditAnswer, error) {
	if err := s.fresh(ctx, Linearizable); err != nil {
		return AuditAnswer{}, err
	}
	return whoCouldWrite(ctx, s.view.snapshot(), resource, at)
}

func whoCouldWrite(ctx context.Context, image *Image, resource lease.Resource, at time.Time) (AuditAnswer, error) {
	anchor, err := anchorOf(image)
	if err != nil {
		return AuditAnswer{}, err
	}
	needles := [][]byte{
		needle("target", string(resource), true), needle("action", "quorum.", false), needle("action", "guard.rule", true),
		needle("action", "operation.", false),
	}
	kept := map[uint64][]byte{}
	records := func(yield func(audit.Record) bool) {
		one := func(stored []byte) bool {
			if !slices.ContainsFunc(needles, func(n []byte) bool { return bytes.Contains(stored, n) }) {
				return true
			}
			r, err := audit.Parse(stored)
			if err != nil || !audit.Concerns(r, string(resource)) {
				return true
			}
			kept[r.Sequence] = stored
			return yield(r)
		}
		for _, stored := range anchor.GetCarried() {
			if !one(stored) {
				return
			}
		}
		for e := range auditEntries(image, 0, false) {
			if ctx.Err() != nil || !one(e.Value) {
				return
			}
		}
	}
	out := AuditAnswer{Answer: audit.Who(string(resource), at, anchor.GetSequence(), records)}
	for _, sequence := range out.Answer.Records {
		r, err := audit.Parse(kept[sequence])
		if err != nil {
			return AuditAnswer{}, lease.Errorf(lease.ReasonInternal, "the audit record %d is unreadable: %v", sequence, err)
		}
		out.Records = append(out.Records, AuditRecord{Record: r, Stored: kept[sequence]})
	}
	return out, context.Cause(ctx)
}

// anchorOf answers where the chain begins, nil at its beginning.
func anchorOf(image *Image) (*writv1.AuditAnchor, error) {
	e, ok := image.Get(KeyAuditAnchor)
	if !ok {
		return nil, nil
	}
	anchor := &writv1.AuditAnchor{}
	if err := proto.Unmarshal(e.Value, anchor); err != nil {
		return nil, lease.Errorf(lease.ReasonInternal, "the record %s is unreadable: %v", e.Key, err)
	}
	return anchor, nil
}

// ExportAudit writes a bundle of the records from one sequence to another; 0: from the first, to the newest.
func (s *Service) ExportAudit(ctx context.Context, from, to uint64, w io.Writer) error {
	if err := s.fresh(ctx, Linearizable); err != nil {
		return err
	}
	src, err := s.auditSource(ctx, s.view.snapshot(), from, to)
	if err != nil {
		return err
	}
	if err := audit.Export(w, src); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func (s *Service) auditSource(ctx context.Context, image *Image, from, to uint64) (audit.Source, error) {
	id := image.Identity()
	anchor, err := anchorOf(image)
	if err != nil {
		return audit.Source{}, err
	}
	first, newest := anchor.GetSequence()+1, id.GetAuditSequence()
	if from == 0 {
		from = first
	}
	if to == 0 {
		to = newest
	}
	if from < first || to > newest || from > to+1 {
		return audit.Source{}, lease.Invalid("from", fmt.Sprintf("and to ask for records %d to %d", from, to), fmt.Sprintf("there are %d to %d", first, newest))
	}
	src := audit.Source{
		Cluster: id.GetCluster(), Incarnation: id.GetIncarnation(), Exported: s.clock.Wall(), Pruned: anchor.GetSequence(),
		Start: audit.Head{Sequence: anchor.GetSequence(), Hash: anchor.GetHash()}, Context: anchor.GetCarried(),
	}
	if from > first {
		carry := &audit.Carry{}
		if src.Start, err = carryTo(image, anchor, from-1, carry); err != nil {
			return audit.Source{}, err
		}
		src.Context = carry.Records()
	}
	src.Records = func(yield func([]byte) bool) {
		for e := range auditEntries(image, from-1, false) {
			if e.Key > AuditKey(to) || ctx.Err() != nil || !yield(e.Value) {
				return
			}
		}
	}
	src.Heads, src.Keys, err = signedHeads(image, anchor)
	return src, err
}

// carryTo goes over the records up to a sequence, and answers that head.
func carryTo(image *Image, anchor *writv1.AuditAnchor, through uint64, carry *audit.Carry) (audit.Head, error) {
	head := audit.Head{Sequence: anchor.GetSequence(), Hash: anchor.GetHash()}
	for _, stored := range anchor.GetCarried() {
		if r, err := audit.Parse(stored); err == nil {
			carry.Add(r, stored)
		}
	}
	for e := range auditEntries(image, anchor.GetSequence(), false) {
		if e.Key > AuditKey(through) {
			break
		}
		r, next, err := audit.Verify(head, e.Value)
		if err != nil {
			return head, lease.Errorf(lease.ReasonInternal, "%v", err)
		}
		carry.Add(r, e.Value)
		head = next
	}
	return head, nil
}

// signedHeads answers the heads that nodes have signed, with that which the chain was pruned behind, and the keys of all.
func signedHeads(image *Image, anchor *writv1.AuditAnchor) (heads []string, keys []byte, err error) {
	all, _ := fence.NewKeySet() // of no keys
	add := func(jwks string, head *writv1.AuditHead) {
		set, err := fence.ParseJWKS([]byte(jwks))
		if err != nil {
			return
		}
		all = all.Merge(set)
		// What cannot be verified shows nothing but that, and listing tells of it.
		if _, _, err := audit.VerifyHead(set, head.GetSigned()); err == nil {
			heads = append(heads, head.GetSigned())
		}
	}
	if anchor != nil {
		add(anchor.Jwks, anchor.Head)
	}
	for _, n := range image.Nodes() {
		add(n.Jwks, n.AuditHead)
	}
	keys, err = all.MarshalJWKS()
	return heads, keys, err
}

// PruneAudit forgets the records before a sequence, and answers up to which one they are forgotten. Only the coordinator does
// it. Doing it again goes on with what was interrupted.
func (s *Service) PruneAudit(ctx context.Context, actor lease.Principal, before uint64, reason string) (uint64, error) {
	if err := s.fresh(ctx, Linearizable); err != nil {
		return 0, err
	}
	if _, self, _ := s.Coordinator(); !self {
		return 0, lease.ErrNotCoordinator
	}
	image := s.view.snapshot()
	pruned := image.Identity().GetAuditPruned()
	oldest := pruned + 1
	image.Ascend(prefixAudit, func(e Entry) bool { // what an interrupted command has left
		if r, err := audit.Parse(e.Value); err == nil && strings.HasPrefix(e.Key, prefixAudit) {
			oldest = min(oldest, r.Sequence)
		}
		return false
	})
	if before-1 > pruned {
		anchor, err := pruneAnchor(image, before-1)
		if err != nil {
			return pruned, err
		}
		if _, err := s.do(ctx, PruneAudit{Actor: actor, Reason: reason, Anchor: anchor}); err != nil {
			return pruned, err
		}
		pruned = anchor.Sequence
	}
	for from := oldest; from <= pruned; from += maxPruned {
		if _, err := s.do(ctx, PruneAudit{From: from, To: min(from+maxPruned-1, pruned)}); err != nil {
			return pruned, err
		}
	}
	return pruned, nil
}

// maxCarriedBytes bounds what an anchor keeps of what it cuts off, so that it fits into a commit.
const maxCarriedBytes = MaxCommitBytes / 2

// pruneAnchor makes the anchor for cutting the chain behind a record, which a signed head has to cover.
func pruneAnchor(image *Image, through uint64) (*writv1.AuditAnchor, error) {
	if newest := image.Identity().GetAuditSequence(); through > newest {
		return nil, lease.Invalid("before", fmt.Sprintf("is %d", through+1), fmt.Sprintf("the newest record is %d", newest))
	}
	anchor := &writv1.AuditAnchor{Sequence: through}
	for _, status := range auditHeadStatuses(image) {
		if status.OnChain && status.Head.Sequence >= through && status.Head.Sequence > anchor.Head.GetSequence() {
			anchor.Head, anchor.Jwks = status.Head, image.Node(status.Head.Node).GetJwks()
		}
	}
	if anchor.Head == nil {
		return nil, &lease.Error{
			Reason: lease.ReasonConflict, Message: fmt.Sprintf("no node has signed a head at or behind record %d yet", through),
			Fix: "wait a minute, or name an older record",
		}
	}
	old, err := anchorOf(image)
	if err != nil {
		return nil, err
	}
	carry := &audit.Carry{}
	head, err := carryTo(image, old, through, carry)
	if err != nil {
		return nil, err
	}
	if head.Sequence != through {
		return nil, lease.Errorf(lease.ReasonInternal, "the chain ends at record %d", head.Sequence)
	}
	anchor.Hash, anchor.Carried = head.Hash, carry.Records()
	if size := proto.Size(anchor); size > maxCarriedBytes {
		return nil, lease.Errorf(lease.ReasonLimit, "what is still in force from before record %d takes %d bytes, and %d can be carried over: prune less", through+1, size, maxCarriedBytes)
	}
	return anchor, nil
}
