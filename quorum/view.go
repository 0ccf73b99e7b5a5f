package quorum

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

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
	// regions is told records of groups and promotions; nil: nobody.
	regions func(proto.Message)

	mu       sync.Mutex
	image    *Image
	advanced chan struct{} // closed and replaced whenever the image's revision grows
	// changed is closed and replaced when term, identity or nodes change.
	changed chan struct{}
}

func newView(store Store, logger hclog.Logger) *view {
	return &view{store: store, logger: logger, image: NewImage(), advanced: make(chan struct{}), changed: make(chan struct{})}
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
	if v.image.Reset(entries, revision) {
		v.tellRegionsLocked(entries)
		v.tellLocked(true)
	}
}

func (v *view) apply(c Change) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if before := v.image.Revision(); c.Revision > before {
		v.tellRegionsLocked(c.Entries)
		v.tellLocked(v.image.Apply(c))
	}
}

// tellRegionsLocked passes records of groups and promotions on. Caller holds mu.
func (v *view) tellRegionsLocked(entries []Entry) {
	if v.regions == nil {
		return
	}
	for _, e := range entries {
		var into proto.Message
		switch {
		case e.Value == nil:
			continue
		case strings.HasPrefix(e.Key, prefixGroup):
			into = &writv1.Group{}
		case strings.HasPrefix(e.Key, prefixPromotion):
			into = &writv1.Promotion{}
		default:
			continue
		}
		if err := decodeInto(e, into); err != nil {
			v.logger.Error("unreadable record", "error", err)
			continue
		}
		v.regions(into)
	}
}

// tellLocked wakes those who wait for a revision, and, if changed, for a change. Caller holds mu.
func (v *view) tellLocked(changed bool) {
	for _, err := range v.image.TakeUnreadable() {
		v.logger.Error("unreadable record", "error", err)
	}
	close(v.advanced)
	v.advanced = make(chan struct{})
	if changed {
		v.pokeLocked()
	}
}

// poke tells those who wait for changes to look again.
func (v *view) poke() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pokeLocked()
}

func (v *view) pokeLocked() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// readTimeout bounds a linearizable read whose caller set no deadline.
const readTimeout = 5 * time.Second

// reach waits until the view is at revision.
func (v *view) reach(ctx context.Context, revision int64) error {
	return v.until(ctx, revision, func(i *Image) bool { return i.Revision() >= revision })
}

// reachTerm waits until the view has the claim of that term.
func (v *view) reachTerm(ctx context.Context, term Term) error {
	return v.until(ctx, int64(term), func(i *Image) bool { return i.Has(term) })
}

func (v *view) until(ctx context.Context, revision int64, there func(*Image) bool) error {
	for {
		v.mu.Lock()
		ok, at, advanced := there(v.image), v.image.Revision(), v.advanced
		v.mu.Unlock()
		if ok {
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
func (v *view) snapshot() *Image {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.image.Clone()
}

// resourceRead is a resource's record and checkpoint, both at revision.
type resourceRead struct {
	lease      Entry
	checkpoint []byte
	known      bool
	revision   int64
}

func (v *view) resource(name lease.Resource) resourceRead {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, known := v.image.Get(LeaseKey(name))
	checkpoint, _ := v.image.Get(CheckpointKey(name))
	return resourceRead{lease: e, checkpoint: checkpoint.Value, known: known, revision: v.image.Revision()}
}

// roster is what the nodes have said about themselves and who decides.
type roster struct {
	identity *writv1.IdentityRecord
	nodes    map[string]*writv1.NodeRecord // shared, never changed
	term     *writv1.TermRecord
	termRev  Term
	revision int64
	changed  <-chan struct{}
}

func (v *view) roster() roster {
	v.mu.Lock()
	defer v.mu.Unlock()
	term, termRev := v.image.Term()
	return roster{
		identity: v.image.Identity(), nodes: v.image.nodes, term: term, termRev: termRev,
		revision: v.image.Revision(), changed: v.changed,
	}
}
