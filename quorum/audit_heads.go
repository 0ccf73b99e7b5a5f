package quorum

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

// Each node signs the newest record of the audit chain that it has seen, and announces that: whoever changes the log later
// contradicts what the nodes have signed.

// headsCheckedEvery is how often a node holds all heads against the chain.
const headsCheckedEvery = 5 * time.Second

// auditHeads is what a node remembers of heads.
type auditHeads struct {
	// Of the herald alone.
	current   bool // the view has been as new as the store since this process began
	signed    bool
	signedAt  clock.Instant
	checkedAt clock.Instant
	checked   bool

	mu     sync.Mutex
	alarms []string // guarded by mu
}

// signAuditHead answers the head to announce: that which is known, or a newer one if it is time for one.
func (s *Service) signAuditHead(r roster, now bool) *writv1.AuditHead {
	known := r.nodes[s.config.Name].GetAuditHead()
	id := r.identity
	if id.GetAuditSequence() == 0 || s.config.Keys == nil {
		return known
	}
	if !now && s.heads.signed && s.clock.Now().Sub(s.heads.signedAt) < s.config.SignHeads {
		return known
	}
	if known.GetSequence() == id.AuditSequence && string(known.GetHash()) == string(id.AuditHash) && known.GetSequence() > 0 {
		if _, _, err := audit.VerifyHead(s.config.Keys.Keys(), known.GetSigned()); err == nil {
			return known
		}
	}
	s.heads.signed, s.heads.signedAt = true, s.clock.Now()
	next, err := s.newAuditHead(known)
	if err != nil {
		s.logger.Error("no head of the audit log is signed", "error", err)
		return known
	}
	return next
}

// newAuditHead signs the newest head of the view, if the chain leads there from the last one that was signed.
func (s *Service) newAuditHead(known *writv1.AuditHead) (*writv1.AuditHead, error) {
	image := s.view.snapshot()
	id := image.Identity()
	newest := audit.Head{Sequence: id.GetAuditSequence(), Hash: id.GetAuditHash()}
	anchor, err := anchorOf(image)
	if err != nil {
		return nil, err
	}
	head := audit.Head{Sequence: anchor.GetSequence(), Hash: anchor.GetHash()}
	if seen := (audit.Head{Sequence: known.GetSequence(), Hash: known.GetHash()}); seen.Sequence > head.Sequence && onChain(image, seen) == "" {
		head = seen
	}
	for e := range auditEntries(image, head.Sequence, false) {
		if _, head, err = audit.Verify(head, e.Value); err != nil {
			return nil, err
		}
	}
	if !head.Is(newest) {
		return nil, fmt.Errorf("%w: the chain ends at record %d, and the newest should be %d", audit.ErrBroken, head.Sequence, newest.Sequence)
	}
	at := s.clock.Wall()
	signed, err := audit.SignedHead{
		Node: s.config.Name, Cluster: id.GetCluster(), Incarnation: id.GetIncarnation(), Head: head, At: at,
	}.Sign(s.config.Keys)
	if err != nil {
		return nil, err
	}
	return &writv1.AuditHead{Node: s.config.Name, Sequence: head.Sequence, Hash: head.Hash, Signed: signed, At: timestamppb.New(at)}, nil
}

// onChain says how the chain contradicts a head; empty: it does not.
func onChain(image *Image, head audit.Head) string {
	id := image.Identity()
	if head.Sequence > id.GetAuditSequence() {
		return fmt.Sprintf("the log ends at record %d", id.GetAuditSequence())
	}
	if head.Sequence < id.GetAuditPruned() {
		return "" // nobody can say
	}
	var have audit.Head
	if e, ok := image.Get(AuditKey(head.Sequence)); ok && head.Sequence > id.GetAuditPruned() {
		r, err := audit.Parse(e.Value)
		if err != nil || r.Sequence != head.Sequence {
			return fmt.Sprintf("record %d is unreadable", head.Sequence)
		}
		have = audit.HeadOf(r, e.Value)
	} else if anchor, err := anchorOf(image); err == nil && anchor.GetSequence() == head.Sequence {
		have = audit.Head{Sequence: anchor.GetSequence(), Hash: anchor.GetHash()}
	} else {
		return fmt.Sprintf("record %d is missing", head.Sequence)
	}
	if !have.Is(head) {
		return fmt.Sprintf("record %d is another one there than in the log", head.Sequence)
	}
	return ""
}

// auditHeadStatuses holds the heads of all nodes against the chain.
func auditHeadStatuses(image *Image) (statuses []AuditHeadStatus) {
	for _, n := range image.Nodes() {
		if n.AuditHead == nil {
			continue
		}
		status := AuditHeadStatus{Head: n.AuditHead}
		keys, err := fence.ParseJWKS([]byte(n.Jwks))
		if err == nil {
			var said audit.SignedHead
			if said, _, err = audit.VerifyHead(keys, n.AuditHead.Signed); err == nil {
				status.Alarm, status.OnChain = contradicts(image, n, said)
			}
		}
		if err != nil {
			status.Alarm = err.Error()
		}
		statuses = append(statuses, status)
	}
	return statuses
}

// contradicts says what is wrong with a head that is signed, and whether it is on the chain.
func contradicts(image *Image, n *writv1.NodeRecord, said audit.SignedHead) (alarm string, on bool) {
	announced := audit.Head{Sequence: n.AuditHead.Sequence, Hash: n.AuditHead.Hash}
	if !said.Head.Is(announced) || said.Node != n.Name || said.Node != n.AuditHead.Node || said.Cluster != image.Identity().GetCluster() {
		return "it is not what the node has signed", false
	}
	problem := onChain(image, said.Head)
	if problem != "" && said.Incarnation != image.Identity().GetIncarnation() {
		return "", false // of a history that a rebuild has ended
	}
	return problem, problem == ""
}

// watchAuditHeads raises an alarm when a head contradicts the chain. The herald calls it.
func (s *Service) watchAuditHeads(r roster) {
	now := s.clock.Now()
	if r.identity.GetAuditSequence() == 0 || (s.heads.checked && now.Sub(s.heads.checkedAt) < headsCheckedEvery) {
		return
	}
	s.heads.checked, s.heads.checkedAt = true, now
	var alarms []string
	for _, status := range auditHeadStatuses(s.view.snapshot()) {
		if status.Alarm != "" {
			alarms = append(alarms, fmt.Sprintf("node %s has signed head %d, and %s", status.Head.Node, status.Head.Sequence, status.Alarm))
		}
	}
	s.heads.mu.Lock()
	was := s.heads.alarms
	s.heads.alarms = alarms
	s.heads.mu.Unlock()
	for _, alarm := range alarms {
		if !slices.Contains(was, alarm) {
			s.logger.Error("the audit log contradicts a signed head: it, or what that node has seen, was changed", "alarm", alarm)
		}
	}
}

// AuditAlarms says which signed heads contradict the audit log, as this node has seen it a few seconds ago.
func (s *Service) AuditAlarms() []string {
	s.heads.mu.Lock()
	defer s.heads.mu.Unlock()
	return slices.Clone(s.heads.alarms)
}

// signLastAuditHead signs what this node has seen before it stops, if the quorum takes it at once. The herald has ended.
func (s *Service) signLastAuditHead() {
	r := s.view.roster()
	known := r.nodes[s.config.Name]
	if known == nil || s.config.Keys == nil || s.member.Progress().Leader == 0 || known.GetAuditHead().GetSequence() >= r.identity.GetAuditSequence() {
		return
	}
	head, err := s.newAuditHead(known.GetAuditHead())
	var value []byte
	if err == nil {
		value, err = proto.Marshal(s.nodeRecord(r, head))
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), s.config.Election)
		defer cancel()
		_, err = s.member.Announce(ctx, Write{Key: NodeKey(s.config.Name), Value: value})
	}
	if err != nil {
		s.logger.Debug("the last head of the audit log was not signed", "error", err)
	}
}
