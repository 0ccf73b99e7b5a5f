package guard

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
)

// DefaultStorageSlack is W before a storage that compares by itself, unless it is configured: no write is between the guard and it.
const DefaultStorageSlack = 100 * time.Millisecond

// Storage compares tokens by itself, inside of the operation that writes, such as a table of PostgreSQL with a fence. Writes need
// not pass the guard, so it goes on admitting while the guard is down or out of contact: the quorum waits for what the guard
// acknowledges, and never for its lease to run out.
type Storage interface {
	// Raise has the storage refuse every token below each floor. Nil says that it does, that a crash of it does not take that
	// back, and that nothing under an older token runs in it any more. A floor that is there already is no error. It is called
	// with the floors of all resources when the guard starts, until it succeeds and before anything is said to the quorum; later
	// with those that have changed, one call at a time; ctx ends with the guard.
	Raise(ctx context.Context, floors []gate.Floor) error
}

// raiser raises a storage to what the floor store is about to hold, so that no floor counts as durable before.
type raiser struct {
	storage Storage
	covers  []string
	base    fence.Token
	own     map[string]fence.Token
	raised  map[string]fence.Token // by this process; what one before it did may have been undone
}

func newRaiser(c Config, state gate.State) *raiser {
	if c.Storage == nil {
		return nil
	}
	r := &raiser{storage: c.Storage, covers: c.Covers, base: state.Base, own: make(map[string]fence.Token), raised: make(map[string]fence.Token)}
	for _, f := range state.Floors {
		r.own[f.Resource] = f.Token
	}
	return r
}

// raise carries batches out in the storage. What of a failed one stays noted is what the gate asks for again.
func (r *raiser) raise(ctx context.Context, batches []gate.Batch) error {
	if r == nil {
		return nil
	}
	for _, b := range batches {
		r.note(b)
	}
	var due []gate.Floor
	for _, name := range r.covers {
		if floor := r.floor(name); floor > r.raised[name] {
			due = append(due, gate.Floor{Resource: name, Token: floor})
		}
	}
	if len(due) == 0 {
		return nil
	}
	if err := r.storage.Raise(ctx, due); err != nil {
		return fmt.Errorf("the storage cannot be raised: %w", err)
	}
	for _, f := range due {
		r.raised[f.Resource] = f.Token
	}
	return nil
}

func (r *raiser) note(b gate.Batch) {
	r.base = max(r.base, b.Base)
	if b.Forget {
		maps.DeleteFunc(r.own, func(_ string, own fence.Token) bool { return own <= r.base })
	}
	for _, f := range b.Floors {
		r.own[f.Resource] = f.Token
	}
}

func (r *raiser) floor(name string) fence.Token {
	if own, there := r.own[name]; there {
		return own
	}
	return r.base
}

// checkStorage refuses patterns: a storage is raised for each resource before anybody has asked for it.
func (c Config) checkStorage() error {
	at := slices.IndexFunc(c.Covers, func(p string) bool { return strings.HasSuffix(p, "*") })
	if c.Storage == nil || at < 0 {
		return nil
	}
	return misconfigured("Covers", fmt.Sprintf("has the prefix %q", c.Covers[at]), "name each resource that the storage has a fence for")
}
