package store

import (
	"maps"
	"slices"
	"strings"

	"github.com/writ-io/writ/quorum"
)

// kind is what a command does.
type kind uint8

const (
	kindCommit kind = iota
	kindClaim
	kindAnnounce
	kindCompact // drops history, and makes no revision
	kindStarted // a member has started, and makes no revision
)

// command is what members agree on. Nobody changes one that has been proposed, but for what is marked.
type command struct {
	id     uint64
	kind   kind
	term   quorum.Term // of a commit
	expect int64       // the revision of the record that a claim replaces; where compaction begins; the member that has started
	writes []quorum.Write

	// The proposer's own, which only its replica touches: done is called when it applies the command.
	proposer uint64
	done     func(revision int64, err error)

	// entries is what the command changed when it first was applied, as revision entriesAt, for all replicas to share.
	entries   []quorum.Entry
	entriesAt int64
}

// kv is the key-value state machine: the same commands in the same order lead to the same state.
type kv struct {
	// The term and head records stand apart because every command looks at them.
	record   quorum.Entry // of revision 0: there is none
	head     quorum.Entry // as record
	keys     map[string]quorum.Entry
	revision int64
	bytes    int64 // of all keys and values in keys
	// history holds the changes of revisions floor to revision, without gap.
	history []quorum.Change
	floor   int64
}

func newKV() *kv {
	return &kv{keys: make(map[string]quorum.Entry), floor: 1}
}

// restoreKV is the state of a backup, without its history.
func restoreKV(b *Backup) *kv {
	k := newKV()
	k.revision, k.floor = b.Revision, b.Revision+1
	for _, e := range b.Entries {
		k.put(e)
	}
	return k
}

// clone is a copy that shares only what nobody changes.
func (k *kv) clone() *kv {
	c := *k
	c.keys = maps.Clone(k.keys)
	c.history = slices.Clip(k.history) // k alone appends in place, where c does not look
	return &c
}

// tooLarge says whether a commit exceeds the limits.
func tooLarge(writes []quorum.Write) bool {
	if len(writes) > quorum.MaxCommitWrites {
		return true
	}
	size := 0
	for _, w := range writes {
		size += len(w.Key) + len(w.Value)
	}
	return size > quorum.MaxCommitBytes
}

// holds says whether term is the newest one.
func (k *kv) holds(term quorum.Term) bool {
	return term > 0 && int64(term) == k.record.Revision
}

// apply does what a command says, or answers why not. A command that changes something makes the next revision.
func (k *kv) apply(c *command) (changed bool, err error) {
	switch c.kind {
	case kindClaim:
		if k.record.Revision != c.expect {
			return false, quorum.ErrDeposed
		}
	case kindCommit:
		if !k.holds(c.term) {
			return false, quorum.ErrDeposed
		}
	case kindCompact:
		k.compact(c.expect)
		return false, nil
	case kindStarted:
		return false, nil
	case kindAnnounce:
	}
	k.revision++
	if c.entriesAt != k.revision {
		c.entries, c.entriesAt = k.entries(c), k.revision
	}
	for _, e := range c.entries {
		k.put(e)
	}
	k.history = append(k.history, quorum.Change{Revision: k.revision, Entries: c.entries})
	return true, nil
}

// noHead is what the head key holds if a command does not write it.
var noHead = []byte{}

// entries is what a command changes as the present revision. Each change writes the head key, as etcd's do, and a delete of
// what is not there changes nothing.
func (k *kv) entries(c *command) []quorum.Entry {
	entries, headWritten := make([]quorum.Entry, 0, len(c.writes)+1), false
	for _, w := range c.writes {
		headWritten = headWritten || w.Key == quorum.KeyHead
		if w.Value == nil && !k.has(w.Key) {
			continue
		}
		entries = append(entries, quorum.Entry{Key: w.Key, Value: w.Value, Revision: k.revision})
	}
	if !headWritten {
		entries = append(entries, quorum.Entry{Key: quorum.KeyHead, Value: noHead, Revision: k.revision})
	}
	return entries
}

func (k *kv) has(key string) bool {
	switch key {
	case quorum.KeyTerm:
		return k.record.Revision > 0
	case quorum.KeyHead:
		return k.head.Revision > 0
	}
	_, there := k.keys[key]
	return there
}

func (k *kv) put(e quorum.Entry) {
	if e.Value == nil {
		e = quorum.Entry{Key: e.Key}
	}
	switch e.Key {
	case quorum.KeyTerm:
		k.record = e
		return
	case quorum.KeyHead:
		k.head = e
		return
	}
	if old, there := k.keys[e.Key]; there {
		k.bytes -= int64(len(old.Key) + len(old.Value))
	}
	if e.Value == nil {
		delete(k.keys, e.Key)
		return
	}
	k.bytes += int64(len(e.Key) + len(e.Value))
	k.keys[e.Key] = e
}

// load is the whole state in key order.
func (k *kv) load() []quorum.Entry {
	entries := make([]quorum.Entry, 0, len(k.keys)+2)
	for _, e := range k.keys { // sorted below
		entries = append(entries, e)
	}
	for _, e := range []quorum.Entry{k.record, k.head} {
		if e.Revision > 0 {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b quorum.Entry) int { return strings.Compare(a.Key, b.Key) })
	return entries
}

func (k *kv) backup() *Backup {
	return &Backup{Revision: k.revision, Entries: k.load()}
}

// compact drops the history before a revision. One that is yet to come is ignored, as etcd refuses it.
func (k *kv) compact(revision int64) {
	if revision <= k.floor || revision > k.revision {
		return
	}
	k.history = slices.Clone(k.history[revision-k.floor:])
	k.floor = revision
}

// since is the history from a revision on; false if it is gone.
func (k *kv) since(from int64) ([]quorum.Change, bool) {
	from = max(from, 1)
	switch {
	case from < k.floor:
		return nil, false
	case from > k.revision:
		return nil, true
	}
	return k.history[from-k.floor:], true
}
