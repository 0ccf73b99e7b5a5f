package audit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/region/approval"
)

// ledger follows who may approve, what was proposed, and who has signed it, and checks that each signature is right and that
// nothing was executed without those that it needed.
type ledger struct {
	cluster string
	set     *approval.Set       // in force; nil: not known
	raw     *writv1.ApproverSet // the same
	version uint64
	open    map[string]*proposal
	bytes   int // of the documents in open
	report  *Report
	// executed is a change of the approvers that has been executed, of which the record has not come yet.
	executed *proposal
	unknown  string // the operation executed last of which the bundle does not have the proposal
	groups   map[string]*writv1.GroupSpec
	changing *proposal // a change of a group that has been executed
	// context: the records are from before the first one. They are checked, and not counted.
	context bool
}

type proposal struct {
	document  []byte
	parsed    approval.Document
	signed    map[string]string // signatures by approver
	unchecked bool              // something of it stands in records that the bundle does not have
}

// Bounds of what a ledger keeps of operations that have not ended.
const (
	maxOpenOperations = 10_000
	maxOpenBytes      = 64 << 20
	maxReported       = 10_000
)

// Operation is one that was executed.
type Operation struct {
	Sequence  uint64    `json:"sequence,string"`
	ID        string    `json:"id"`
	Kind      string    `json:"kind,omitempty"`
	Group     string    `json:"group,omitempty"`
	Requester string    `json:"requester,omitempty"`
	Digest    string    `json:"digest"`
	At        time.Time `json:"at"`
	// Approvers are those whose signatures over the document are right and counted.
	Approvers []string `json:"approvers"`
	// Automatic: it was executed on evidence, and nobody had to sign.
	Automatic bool `json:"automatic,omitempty"`
	// Unchecked says why not all of it could be checked; empty: it was.
	Unchecked string `json:"unchecked,omitempty"`
}

func (l *ledger) add(r Record) error {
	switch r.Action {
	case ActionPropose, ActionApprove, ActionExecute:
		if err := l.settled(); err != nil {
			return err
		}
	}
	switch r.Action {
	case ActionApproversChange:
		return l.change(r)
	case ActionGroupApply:
		return l.applyGroup(r)
	case ActionGroupRemoved:
		delete(l.groups, r.Target)
	case ActionPropose:
		return l.propose(r)
	case ActionApprove:
		return l.approve(r)
	case ActionWithdraw:
		if p := l.open[r.Target]; p != nil {
			delete(p.signed, r.Detail[detailApprover])
		}
	case ActionExecute:
		err := l.execute(r)
		l.drop(r.Target)
		return err
	default:
		if ends(r.Action) {
			l.drop(r.Target)
		}
	}
	return nil
}

func (l *ledger) drop(id string) {
	if p := l.open[id]; p != nil {
		l.bytes -= len(p.document)
		delete(l.open, id)
	}
}

func (l *ledger) propose(r Record) error {
	document := []byte(r.Detail[detailDocument])
	parsed, err := approval.ParseDocument(document)
	if err != nil {
		return fmt.Errorf("its document is not in order: %w", err)
	}
	if digest := approval.Digest(document); digest != r.Detail[detailDigest] {
		return fmt.Errorf("it says that the digest of its document is %q, which is %s", r.Detail[detailDigest], digest)
	}
	switch {
	case parsed.ID != r.Target:
		return fmt.Errorf("it is about operation %q, and its document about %q", r.Target, parsed.ID)
	case l.cluster != "" && parsed.Cluster != l.cluster:
		return fmt.Errorf("its document is for cluster %q", parsed.Cluster)
	case l.open[r.Target] != nil:
		return errors.New("the operation is proposed a second time")
	case len(l.open) >= maxOpenOperations || l.bytes+len(document) > maxOpenBytes:
		return errors.New("more operations are open at once than a quorum allows")
	}
	l.open[r.Target] = &proposal{document: document, parsed: parsed, signed: map[string]string{}}
	l.bytes += len(document)
	return nil
}

func (l *ledger) approve(r Record) error {
	p := l.open[r.Target]
	switch {
	case p == nil && l.report.Start.Sequence == 0:
		return fmt.Errorf("operation %q is approved, and not open", r.Target)
	case p == nil:
		l.report.unchecked(fmt.Sprintf("record %d: operation %s was proposed in records that this bundle does not have", r.Sequence, r.Target))
		return nil
	case l.set == nil && l.report.Start.Sequence == 0:
		return errors.New("a signature is taken, and there are no approvers")
	case l.set == nil:
		p.unchecked = true
		l.report.unchecked(fmt.Sprintf("record %d: who could approve then stands in records that this bundle does not have", r.Sequence))
		return nil
	}
	if digest := approval.Digest(p.document); r.Detail[detailDigest] != "" && r.Detail[detailDigest] != digest {
		return fmt.Errorf("it is over the digest %q, the document's is %s", r.Detail[detailDigest], digest)
	}
	by, err := l.set.Verify(approval.Namespace, p.document, r.Detail[detailSignature], r.At)
	if err != nil {
		return err
	}
	if by.Approver != r.Detail[detailApprover] || (r.Detail[detailKey] != "" && by.Key != r.Detail[detailKey]) {
		return fmt.Errorf("it says that %s signed with %s, and it was %s with %s", r.Detail[detailApprover], r.Detail[detailKey], by.Approver, by.Key)
	}
	if !r.At.Before(p.parsed.Expires) {
		return fmt.Errorf("the operation had expired at %s", p.parsed.Expires.Format(time.RFC3339))
	}
	p.signed[by.Approver] = r.Detail[detailSignature]
	if !l.context {
		l.report.Signatures++
	}
	return nil
}

// execute checks what the quorum had to check in the same transaction.
func (l *ledger) execute(r Record) error {
	p := l.open[r.Target]
	if p == nil && l.report.Start.Sequence == 0 {
		return fmt.Errorf("operation %q is executed, and not open", r.Target)
	}
	done := Operation{Sequence: r.Sequence, ID: r.Target, At: r.At, Digest: r.Detail[detailDigest], Approvers: []string{}}
	defer func() {
		if !l.context {
			l.report.executed(done)
		}
	}()
	if p == nil {
		done.Unchecked, l.unknown = "it was proposed in records that this bundle does not have", r.Target
		return nil
	}
	digest := approval.Digest(p.document)
	if r.Detail[detailDigest] != "" && r.Detail[detailDigest] != digest {
		return fmt.Errorf("what is executed has the digest %q, what was proposed %s", r.Detail[detailDigest], digest)
	}
	if !r.At.Before(p.parsed.Expires) {
		return fmt.Errorf("the operation had expired at %s", p.parsed.Expires.Format(time.RFC3339))
	}
	done.Kind, done.Group, done.Requester, done.Digest = p.parsed.Kind, p.parsed.Group, p.parsed.Requester, digest
	switch p.parsed.Kind {
	case approval.KindApproversChange:
		l.executed = p
	case approval.KindGroupChange:
		l.changing = p
	}
	var signers []approval.Signer
	if l.set != nil {
		for _, name := range slices.Sorted(maps.Keys(p.signed)) {
			// Who has lost the right since does not count.
			if by, err := l.set.Verify(approval.Namespace, p.document, p.signed[name], r.At); err == nil {
				signers = append(signers, by)
				done.Approvers = append(done.Approvers, by.Approver)
			}
		}
	}
	var err error
	done.Automatic = r.Detail[detailAutomatic] == "true"
	switch {
	case done.Automatic:
		done.Unchecked, err = l.onEvidence(p)
	case p.unchecked || (l.set == nil && l.report.Start.Sequence > 0):
		done.Unchecked = "who could approve stands in records that this bundle does not have"
	default:
		done.Unchecked, err = l.signedBy(p, r.Detail[detailRule], signers)
	}
	return err
}
