//writ:core

package quorum

import (
	"encoding/hex"
	"fmt"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/lease"
)

// PruneAudit forgets audit records. With an Anchor it moves to there where the chain begins, and records that it did; what
// stands before the anchor is then deleted from From to To, in as many commands as it takes.
type PruneAudit struct {
	Actor    lease.Principal
	Reason   string
	Anchor   *writv1.AuditAnchor
	From, To uint64
}

// maxPruned bounds the records that one command deletes.
const maxPruned = 512

func (e *Engine) pruneAudit(m lease.Moment, id lease.CallID, c PruneAudit) lease.Reply {
	refuse := func(reason lease.Reason, format string, args ...any) lease.Reply {
		return lease.Reply{ID: id, Err: lease.Errorf(reason, format, args...)}
	}
	if e.role != Serving {
		return refuse(lease.ReasonRecovering, "nothing is pruned while the quorum recovers")
	}
	if a := c.Anchor; a != nil {
		if a.Sequence <= e.identity.AuditPruned || a.Sequence > e.identity.AuditSequence || a.Head.GetSequence() < a.Sequence {
			return refuse(lease.ReasonConflict, "the audit log goes from %d to %d by now, and cannot be cut behind %d",
				e.identity.AuditPruned+1, e.identity.AuditSequence, a.Sequence)
		}
		e.identity.AuditPruned = a.Sequence
		e.add(Write{Key: KeyAuditAnchor, Value: marshal(a)})
		e.audit(m, audit.Record{
			Actor: string(c.Actor), Action: audit.ActionPrune, Target: e.config.Cluster, Reason: c.Reason,
			Detail: map[string]string{
				"through": fmt.Sprint(a.Sequence), "hash": hex.EncodeToString(a.Hash),
				"head_node": a.Head.GetNode(), "head": fmt.Sprint(a.Head.GetSequence()), "signed": a.Head.GetSigned(),
			},
		})
	}
	if c.From == 0 {
		return lease.Reply{ID: id}
	}
	if c.To > e.identity.AuditPruned || c.To < c.From || c.To-c.From >= maxPruned {
		return refuse(lease.ReasonInternal, "records %d to %d cannot be deleted at once, or have not been pruned", c.From, c.To)
	}
	for sequence := c.From; sequence <= c.To; sequence++ {
		e.add(Write{Key: AuditKey(sequence)})
	}
	return lease.Reply{ID: id}
}
