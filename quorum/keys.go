//writ:core

package quorum

import (
	"fmt"
	"strings"

	"github.com/writ-io/writ/lease"
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

	prefixLease      = Prefix + "lease/"
	prefixCheckpoint = Prefix + "checkpoint/"
	prefixNode       = Prefix + "node/"
	prefixAudit      = Prefix + "audit/"
	prefixGuard      = Prefix + "guard/"
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

// AuditKey is where an audit record stands: fixed width, so that keys sort by sequence.
func AuditKey(sequence uint64) string { return fmt.Sprintf("%s%020d", prefixAudit, sequence) }

// Packable says that a key is written by commits alone, never announced, and that nobody reads it in the store itself: a
// store may keep such writes together.
func Packable(key string) bool {
	return strings.HasPrefix(key, prefixLease) || strings.HasPrefix(key, prefixCheckpoint) || strings.HasPrefix(key, prefixAudit)
}
