//writ:core

package quorum

import (
	"fmt"
	"strings"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region"
)

// Where everything stands in the replicated store.
const (
	// Prefix is in front of every key.
	Prefix = "/writ/"
	// KeyTerm holds the TermRecord; its revision is the term.
	KeyTerm = Prefix + "term"
	// KeyHead is for the store's own use: what it writes there marks the end of a change.
	KeyHead = Prefix + "head"
	// KeyIdentity holds the IdentityRecord.
	KeyIdentity = Prefix + "identity"

	// KeyGuarding holds the GuardingRecord.
	KeyGuarding = Prefix + "guarding"
	// KeyAuditAnchor holds the AuditAnchor, once audit records have been pruned.
	KeyAuditAnchor = Prefix + "auditanchor"
	// KeyApprovers holds the ApproverSet.
	KeyApprovers = Prefix + "approvers"

	prefixLease      = Prefix + "lease/"
	prefixCheckpoint = Prefix + "checkpoint/"
	prefixNode       = Prefix + "node/"
	prefixAudit      = Prefix + "audit/"
	prefixGuard      = Prefix + "guard/"
	prefixGroup      = Prefix + "group/"
	prefixPromotion  = Prefix + "promotion/"
	prefixOperation  = Prefix + "operation/"
)

func cutKey(key, prefix string) (string, bool) { return strings.CutPrefix(key, prefix) }

// LeaseKey is where the record of a resource stands.
func LeaseKey(name lease.Resource) string { return prefixLease + string(name) }

// CheckpointKey is where the checkpoint of a resource stands.
func CheckpointKey(name lease.Resource) string { return prefixCheckpoint + string(name) }

// NodeKey is where a node announces itself.
func NodeKey(name string) string { return prefixNode + name }

// GuardKey is where the record of a guard stands.
func GuardKey(name string) string { return prefixGuard + name }

// RegionKey is where a record of failover groups stands.
func RegionKey(kind region.RecordKind, name string) string {
	switch kind {
	case region.GroupRecord:
		return prefixGroup + name
	case region.PromotionRecord:
		return prefixPromotion + name
	case region.OperationRecord:
		return prefixOperation + name
	case region.ApproversRecord:
		return KeyApprovers
	}
	panic(fmt.Sprintf("quorum: record of kind %d", kind))
}

// AuditKey is where an audit record stands: fixed width, so that keys sort by sequence.
func AuditKey(sequence uint64) string { return fmt.Sprintf("%s%020d", prefixAudit, sequence) }

// Packable says that a key is written by commits alone, never announced, and that nobody reads it in the store itself: a
// store may keep such writes together.
func Packable(key string) bool {
	return strings.HasPrefix(key, prefixLease) || strings.HasPrefix(key, prefixCheckpoint) || strings.HasPrefix(key, prefixAudit)
}
