//writ:core

package gate

import (
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

const (
	// What only saves time after a restart is written this long after it was noticed, unless something else is before.
	lazyAfter = time.Second
	// A failed batch is tried again after this, then twice as long.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// disk is what the gate knows of its floor store. One batch is under way at a time; what comes up meanwhile goes into the
// next one.
type disk struct {
	version  uint64 // the highest that is known to be durable
	assigned uint64 // the highest that a batch was given
	serial   uint64
	base     fence.Token // known to be durable

	dirty     []*resource
	lazy      []*resource
	putBase   bool // the base is to be put
	forget    bool // and what is not above it removed
	witnessed bool // is to be put, at leisure
	quorum    bool // is to be put
	openings  bool // are to be put
	counts    bool // of openings have changed, which are to be put at leisure
	lazyAt    clock.Instant

	under    *Batch // nil: none is under way
	floors   []*resource
	since    clock.Instant
	failures int
	retryAt  clock.Instant
}

// failing tells whether the last batch was not written.
func (d *disk) failing() bool { return d.failures > 0 }

// stuck tells whether a batch has been under way for so long that it looks as if it would never end.
func (d *disk) stuck(now clock.Instant, patience time.Duration) bool {
	return d.under != nil && !now.Before(d.since.Add(patience))
}

func (d *disk) wake() clock.Instant {
	switch {
	case d.under != nil:
		return clock.Never
	case d.failing():
		return d.retryAt
	case d.idle():
		return clock.Never
	}
	return d.lazyAt
}

func (d *disk) idle() bool { return len(d.lazy) == 0 && !d.witnessed && !d.counts }

// witness notes a token of the quorum. It is written at leisure: what it is for is to be told after this process.
func (g *Gate) witness(t fence.Token) {
	if t > g.witnessed {
		g.witnessed = t
		if g.disk.idle() {
			g.disk.lazyAt = g.now.Add(lazyAfter)
		}
		g.disk.witnessed = true
	}
}

// dirty has the floor of a resource written.
func (g *Gate) dirty(r *resource) {
	if !r.dirty {
		r.dirty = true
		g.disk.dirty = append(g.disk.dirty, r)
	}
}

// lazy has it written that a resource has drained.
func (g *Gate) lazy(r *resource) {
	if r.lazy || r.dirty {
		return
	}
	if g.disk.idle() {
		g.disk.lazyAt = g.now.Add(lazyAfter)
	}
	r.lazy = true
	g.disk.lazy = append(g.disk.lazy, r)
}

// build emits the next batch, if there is something to write and the store is ready for it.
func (g *Gate) build() {
	d := &g.disk
	if d.under != nil || d.failing() && g.now.Before(d.retryAt) || g.left {
		return
	}
	urgent := len(d.dirty) > 0 || d.putBase || d.forget || d.quorum || d.openings || g.link.seed != nil && g.link.seed.serial == 0
	if !urgent && !d.failing() && (d.idle() || g.now.Before(d.lazyAt)) {
		return
	}
	d.serial++
	d.assigned++
	b := &Batch{Serial: d.serial, Version: d.assigned, Forget: d.forget}
	d.floors = d.floors[:0]
	for _, r := range d.dirty {
		r.dirty, r.lazy = false, false
		if r.own {
			g.put(b, r)
		}
	}
	for _, r := range d.lazy {
		if r.lazy && r.own && r.file == r.floor && r.drained(r.floor, g.now) && !r.fileDrained {
			g.put(b, r)
		}
		r.lazy = false
	}
	if d.putBase {
		b.Base = g.base
	}
	if d.witnessed {
		b.Witnessed = g.witnessed
	}
	if g.link.seed != nil && g.link.seed.serial == 0 {
		g.link.seed.serial = b.Serial
	}
	g.putGlass(b)
	d.dirty, d.lazy = d.dirty[:0], d.lazy[:0]
	d.putBase, d.forget, d.witnessed = false, false, false
	d.under, d.since = b, g.now
	written := *b
	if mutant.On(mutant.FloorInMemory) {
		written.Floors = nil
	}
	g.out.Persist = append(g.out.Persist, written)
}

func (g *Gate) put(b *Batch, r *resource) {
	b.Floors = append(b.Floors, Floor{Resource: r.name, Token: r.floor, Drained: r.drained(r.floor, g.now)})
	g.disk.floors = append(g.disk.floors, r)
}

// persisted takes the result of a batch in.
func (g *Gate) persisted(e Persisted) {
	d := &g.disk
	b := d.under
	if b == nil || b.Serial != e.Serial {
		return
	}
	d.under = nil
	if e.Err != nil {
		g.notPersisted(b, e.Err)
		return
	}
	if d.failing() {
		g.warn("the floor store works again")
	}
	d.failures = 0
	d.version = b.Version
	for i, r := range d.floors {
		r.file, r.fileDrained = b.Floors[i].Token, b.Floors[i].Drained
	}
	if b.Base != 0 {
		d.base = b.Base
	}
	g.glassPersisted(b)
	if b.Forget {
		g.forgotten(b)
	}
	if seed := g.link.seed; seed != nil && seed.serial == b.Serial {
		g.seedPersisted(seed)
	}
	if b.Base == 0 && !b.Forget {
		for _, r := range d.floors {
			g.settle(r)
		}
		return
	}
	for _, r := range g.sorted() {
		g.settle(r)
	}
}

// forgotten notes that the store has no floor at or below the base any more but those of the batch.
func (g *Gate) forgotten(b *Batch) {
	put := make(map[string]bool, len(b.Floors))
	for _, f := range b.Floors {
		put[f.Resource] = true
	}
	for _, r := range g.sorted() {
		if r.file <= g.disk.base && !put[r.name] {
			r.file, r.fileDrained = 0, false
		}
		g.forget(r)
	}
}

// notPersisted arranges for another try, with what has come up meanwhile. The failed batch may have become durable, so its
// version is not used again.
func (g *Gate) notPersisted(b *Batch, err error) {
	d := &g.disk
	if !d.failing() {
		g.warn("the floor store failed: %v: writes that need a new floor are refused, and the quorum is not asked for contact", err)
	}
	d.retryAt = g.now.Add(min(firstRetry<<min(d.failures, 10), lastRetry))
	d.failures++
	d.putBase = d.putBase || b.Base != 0
	d.forget = d.forget || b.Forget
	d.witnessed = d.witnessed || b.Witnessed != 0
	d.quorum = d.quorum || b.Quorum != nil
	d.openings = d.openings || b.PutOpenings
	if g.link.seed != nil && g.link.seed.serial == b.Serial {
		g.link.seed.serial = 0
	}
	for _, r := range d.floors {
		g.dirty(r)
	}
	g.settleWaiting()
}

// putGlass has written what concerns break-glass.
func (g *Gate) putGlass(b *Batch) {
	d := &g.disk
	if d.quorum {
		q := g.glass.quorum
		b.Quorum = &q
	}
	if d.openings || d.counts {
		b.Openings, b.PutOpenings = g.storedOpenings(), true
		for _, o := range g.glass.openings {
			if !o.durable {
				o.serial = b.Serial
			}
		}
	}
	d.quorum, d.openings, d.counts = false, false, false
}

// glassPersisted opens what a batch has made durable.
func (g *Gate) glassPersisted(b *Batch) {
	for _, o := range g.glass.openings {
		if o.durable || o.serial != b.Serial {
			continue
		}
		o.durable = true
		if r := g.resources.byName[o.Resource]; o.Closed == "" && r != nil && r.opening == o {
			g.out.Opened = append(g.out.Opened, o.Certificate)
			g.warn("BREAK-GLASS: %q is admitted under %v by the certificate %s, without a quorum, until %s",
				o.Resource, o.Token, o.Certificate, o.Expires.UTC().Format(time.RFC3339))
		}
	}
}
