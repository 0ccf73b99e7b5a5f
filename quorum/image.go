//writ:core

package quorum

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/btree"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/mutant"
)

// Image is the whole state of the store at one revision, folded from what Load read and Watch delivered since. It is not
// safe for concurrent use. Records that it hands out are shared, and never changed in place.
type Image struct {
	tree       *btree.BTreeG[kept]
	revision   int64
	term       *writv1.TermRecord
	termRev    int64
	identity   *writv1.IdentityRecord
	nodes      map[string]*writv1.NodeRecord // replaced, never changed
	unreadable []error
}

// kept is an entry as an image keeps it. There is one for every lease, on every node, so key and value share their memory.
type kept struct {
	text     string // the key, and then the value
	key      int    // its length
	revision int64
}

func keep(e Entry) kept { return kept{e.Key + string(e.Value), len(e.Key), e.Revision} }

func (k kept) entry() Entry { return Entry{k.text[:k.key], []byte(k.text[k.key:]), k.revision} }

// at is where a key stands, or would.
func at(key string) kept { return kept{text: key, key: len(key)} }

// NewImage makes the image of an empty store at revision 0.
func NewImage() *Image {
	return &Image{tree: btree.NewG(32, func(a, b kept) bool { return a.text[:a.key] < b.text[:b.key] })}
}

// Reset makes it the image of that state. It answers false and does nothing if that is older than the one in hand: an
// image never goes back.
func (i *Image) Reset(entries []Entry, revision int64) bool {
	if revision < i.revision {
		return false
	}
	next := NewImage()
	next.revision, next.unreadable = revision, i.unreadable
	for _, e := range entries {
		next.put(e)
	}
	*i = *next
	return true
}

// Apply takes a change in, once: one that is not newer than the image does nothing. It answers whether one of the records
// changed that a node itself acts on: the term, the identity, or a node's announcement.
func (i *Image) Apply(c Change) (told bool) {
	if c.Revision <= i.revision {
		return false
	}
	for _, e := range c.Entries {
		told = i.put(e) || told
	}
	i.revision = c.Revision
	return told
}

func (i *Image) put(e Entry) (told bool) {
	if e.Value == nil {
		i.tree.Delete(at(e.Key))
	} else {
		i.tree.ReplaceOrInsert(keep(e))
	}
	switch {
	case strings.HasPrefix(e.Key, prefixLease), strings.HasPrefix(e.Key, prefixCheckpoint), e.Key == KeyHead:
		return false
	case e.Key == KeyTerm:
		i.term, i.termRev = &writv1.TermRecord{}, e.Revision
		i.decode(e, i.term)
		return true
	case e.Key == KeyIdentity:
		i.identity = &writv1.IdentityRecord{}
		i.decode(e, i.identity)
		return true
	}
	name, ok := cutKey(e.Key, prefixNode)
	if !ok {
		return false
	}
	nodes := make(map[string]*writv1.NodeRecord, len(i.nodes)+1)
	maps.Copy(nodes, i.nodes)
	delete(nodes, name)
	if e.Value != nil {
		nodes[name] = &writv1.NodeRecord{}
		i.decode(e, nodes[name])
	}
	i.nodes = nodes
	return true
}

func (i *Image) decode(e Entry, into proto.Message) {
	if err := proto.Unmarshal(e.Value, into); err != nil {
		i.unreadable = append(i.unreadable, fmt.Errorf("record %s: %w", e.Key, err))
	}
}

// TakeUnreadable answers an error for each record of term, identity and nodes that could not be read since the last call.
func (i *Image) TakeUnreadable() []error {
	taken := i.unreadable
	i.unreadable = nil
	return taken
}

// Clone answers the image as it is now. It costs little: what both have in common is shared until one changes.
func (i *Image) Clone() *Image {
	clone := *i
	clone.tree, clone.unreadable = i.tree.Clone(), nil
	return &clone
}

// Revision is that of the state.
func (i *Image) Revision() int64 { return i.revision }

// Has says whether the state has the claim of that term, and so everything that was committed before it.
func (i *Image) Has(term Term) bool {
	return i.revision >= int64(term) || mutant.On(mutant.LoadBeforeClaim)
}

// Term answers who claimed last, nil if nobody has, and the term.
func (i *Image) Term() (*writv1.TermRecord, Term) { return i.term, Term(i.termRev) }

// Identity answers the identity record, nil if there is none.
func (i *Image) Identity() *writv1.IdentityRecord { return i.identity }

// Node answers what the node of that name has announced, nil if nothing.
func (i *Image) Node(name string) *writv1.NodeRecord { return i.nodes[name] }

// Nodes answers what all nodes have announced, by name.
func (i *Image) Nodes() []*writv1.NodeRecord { return sortedNodes(i.nodes) }

func sortedNodes(nodes map[string]*writv1.NodeRecord) []*writv1.NodeRecord {
	return slices.SortedFunc(maps.Values(nodes), func(a, b *writv1.NodeRecord) int { return cmp.Compare(a.Name, b.Name) })
}

// Get answers one entry.
func (i *Image) Get(key string) (Entry, bool) {
	found, ok := i.tree.Get(at(key))
	if !ok {
		return Entry{}, false
	}
	return found.entry(), true
}

// Ascend calls f for every entry from that key on, in key order, until f answers false. f must not change the image.
func (i *Image) Ascend(from string, f func(Entry) bool) {
	i.tree.AscendGreaterOrEqual(at(from), func(k kept) bool { return f(k.entry()) })
}

// Descend calls f for every entry from that key back, until f answers false. f must not change the image.
func (i *Image) Descend(from string, f func(Entry) bool) {
	i.tree.DescendLessOrEqual(at(from), func(k kept) bool { return f(k.entry()) })
}

// Loaded answers the state for a coordinator that takes over. Attempt, Members and Own are the caller's to add.
func (i *Image) Loaded() (Loaded, error) {
	out := Loaded{
		Revision: i.revision, Identity: i.identity, Nodes: i.Nodes(), Checkpoints: make(map[lease.Resource][]byte),
	}
	var failed error
	i.Ascend(Prefix, func(e Entry) bool {
		if _, ok := cutKey(e.Key, prefixGuard); ok || e.Key == KeyGuarding {
			failed = out.guarding(e)
			return failed == nil
		}
		if into := out.region(e.Key); into != nil {
			failed = decodeInto(e, into)
			return failed == nil
		}
		if name, ok := cutKey(e.Key, prefixCheckpoint); ok {
			out.Checkpoints[lease.Resource(name)] = e.Value
			return true
		}
		if _, ok := cutKey(e.Key, prefixLease); !ok {
			return true
		}
		var rec lease.Record
		if failed = rec.UnmarshalBinary(e.Value); failed != nil {
			failed = fmt.Errorf("%s: %w", e.Key, failed)
			return false
		}
		out.Leases = append(out.Leases, rec)
		return true
	})
	return out, failed
}

// guarding takes the record of a guard, or of the rules, in.
func (l *Loaded) guarding(e Entry) error {
	var into proto.Message
	if e.Key == KeyGuarding {
		l.Guarding = &writv1.GuardingRecord{}
		into = l.Guarding
	} else {
		rec := &writv1.GuardRecord{}
		l.Guards = append(l.Guards, rec)
		into = rec
	}
	return decodeInto(e, into)
}

// region makes room for a record of failover groups, if the key is one's; nil: it is not.
func (l *Loaded) region(key string) proto.Message {
	switch kind, _, _ := strings.Cut(strings.TrimPrefix(key, Prefix), "/"); Prefix + kind + "/" {
	case prefixGroup:
		l.Region.Groups = append(l.Region.Groups, &writv1.Group{})
		return l.Region.Groups[len(l.Region.Groups)-1]
	case prefixPromotion:
		l.Region.Promotions = append(l.Region.Promotions, &writv1.Promotion{})
		return l.Region.Promotions[len(l.Region.Promotions)-1]
	case prefixOperation:
		l.Region.Operations = append(l.Region.Operations, &writv1.Operation{})
		return l.Region.Operations[len(l.Region.Operations)-1]
	case KeyApprovers + "/":
		l.Region.Approvers = &writv1.ApproverSet{}
		return l.Region.Approvers
	}
	return nil
}

func decodeInto(e Entry, into proto.Message) error {
	if err := proto.Unmarshal(e.Value, into); err != nil {
		return fmt.Errorf("%s: %w", e.Key, err)
	}
	return nil
}
