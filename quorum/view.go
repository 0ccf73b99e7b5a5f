package quorum

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/btree"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// view is a node's copy of the whole state, kept by one watch over one prefix. It is always the state at one revision.
// Reads are served from it, and a new coordinator takes it over when it has delivered the claim's own event.
type view struct {
	store  Store
	logger hclog.Logger

	mu       sync.Mutex
	tree     *btree.BTreeG[Entry]
	revision int64
	advanced chan struct{} // closed and replaced whenever revision grows
	term     *writv1.TermRecord
	termRev  int64
	identity *writv1.IdentityRecord
	nodes    map[string]*writv1.NodeRecord
	// changed is closed and replaced when term, identity or nodes change.
	changed chan struct{}
}

func newView(store Store, logger hclog.Logger) *view {
	return &view{
		store: store, logger: logger, tree: newTree(), nodes: map[string]*writv1.NodeRecord{},
		advanced: make(chan struct{}), changed: make(chan struct{}),
	}
}

func newTree() *btree.BTreeG[Entry] {
	return btree.NewG(32, func(a, b Entry) bool { return a.Key < b.Key })
}

// run keeps the view until ctx ends. Whatever goes wrong, it loads the state anew and goes on.
func (v *view) run(ctx context.Context, retry func(context.Context) bool) {
	for ctx.Err() == nil {
		entries, revision, err := v.store.Load(ctx)
		if err == nil {
			v.reset(entries, revision)
			err = v.store.Watch(ctx, revision+1, func(c Change) bool {
				v.apply(c)
				return true
			})
		}
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, ErrCompacted) {
			v.logger.Debug("the view starts anew", "error", err)
		}
		if !retry(ctx) {
			return
		}
	}
}

func (v *view) reset(entries []Entry, revision int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if revision < v.revision {
		return // an older state than the one in hand: never go back
	}
	v.tree = newTree()
	v.nodes = map[string]*writv1.NodeRecord{}
	v.term, v.identity = nil, nil
	for _, e := range entries {
		v.put(e)
	}
	v.advance(revision)
	close(v.changed)
	v.changed = make(chan struct{})
}

func (v *view) apply(c Change) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if c.Revision <= v.revision {
		return
	}
	told := false
	for _, e := range c.Entries {
		told = v.put(e) || told
	}
	v.advance(c.Revision)
	if told {
		close(v.changed)
		v.changed = make(chan struct{})
	}
}

func (v *view) advance(revision int64) {
	v.revision = revision
	close(v.advanced)
	v.advanced = make(chan struct{})
}

// put takes one entry in and says whether it is one that the node itself acts on. Caller holds mu.
func (v *view) put(e Entry) (told bool) {
	if e.Value == nil {
		v.tree.Delete(e)
	} else {
		v.tree.ReplaceOrInsert(e)
	}
	switch {
	case strings.HasPrefix(e.Key, prefixLease), strings.HasPrefix(e.Key, prefixCheckpoint), e.Key == KeyHead:
		return false
	case e.Key == KeyTerm:
		v.term, v.termRev = decode(v, e, &writv1.TermRecord{}), e.Revision
		return true
	case e.Key == KeyIdentity:
		v.identity = decode(v, e, &writv1.IdentityRecord{})
		return true
	}
	if name, ok := cutKey(e.Key, prefixNode); ok {
		delete(v.nodes, name)
		if e.Value != nil {
			v.nodes[name] = decode(v, e, &writv1.NodeRecord{})
		}
		return true
	}
	return false
}

func decode[M proto.Message](v *view, e Entry, m M) M {
	if err := proto.Unmarshal(e.Value, m); err != nil {
		v.logger.Error("unreadable record", "key", e.Key, "error", err)
	}
	return m
}

// reach waits until the view is at revision.
func (v *view) reach(ctx context.Context, revision int64) error {
	for {
		v.mu.Lock()
		at, advanced := v.revision, v.advanced
		v.mu.Unlock()
		if at >= revision {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return lease.Errorf(lease.ReasonNoQuorum, "this node is at revision %d and has not caught up with %d", at, revision)
		}
	}
}

// snapshot is the state at one revision; reading it holds nothing up.
func (v *view) snapshot() (*btree.BTreeG[Entry], int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tree.Clone(), v.revision
}

func (v *view) get(key string) (Entry, int64, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.tree.Get(Entry{Key: key})
	return e, v.revision, ok
}

// roster is what the nodes have said about themselves and who decides.
type roster struct {
	identity *writv1.IdentityRecord
	nodes    map[string]*writv1.NodeRecord
	term     *writv1.TermRecord
	termRev  int64
	revision int64
	changed  <-chan struct{}
}

func (v *view) roster() roster {
	v.mu.Lock()
	defer v.mu.Unlock()
	nodes := make(map[string]*writv1.NodeRecord, len(v.nodes))
	for name, n := range v.nodes {
		nodes[name] = n
	}
	return roster{identity: v.identity, nodes: nodes, term: v.term, termRev: v.termRev, revision: v.revision, changed: v.changed}
}

// loadState decodes the whole state for a new coordinator.
func (v *view) loadState() (Loaded, error) {
	tree, revision := v.snapshot()
	out := Loaded{Revision: revision, Checkpoints: map[lease.Resource][]byte{}}
	var failed error
	tree.AscendGreaterOrEqual(Entry{Key: Prefix}, func(e Entry) bool {
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

// readTimeout bounds a linearizable read whose caller set no deadline.
const readTimeout = 5 * time.Second

// poke tells those who wait for changes to look again.
func (v *view) poke() {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.changed)
	v.changed = make(chan struct{})
}
