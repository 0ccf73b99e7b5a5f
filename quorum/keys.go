package quorum

import "strings"

// Where everything stands in the replicated store.
const (
	// Prefix is in front of every key.
	Prefix = "/writ/"
	// KeyTerm holds the TermRecord; its revision is the term.
	KeyTerm = Prefix + "term"
	// KeyHead is written by every commit, so that its revision is the newest.
	KeyHead = Prefix + "head"
	// KeyIdentity holds the IdentityRecord.
	KeyIdentity = Prefix + "identity"

	prefixLease      = Prefix + "lease/"
	prefixCheckpoint = Prefix + "checkpoint/"
	prefixNode       = Prefix + "node/"
	prefixAudit      = Prefix + "audit/"
)

func cutKey(key, prefix string) (string, bool) { return strings.CutPrefix(key, prefix) }
