package guard

import (
	"errors"
	"sync"
	"time"

	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/fence/guard/floors"
)

// disk writes what the gate wants to be durable, in order and away from its lock.
type disk struct {
	guard *Guard
	store *floors.Store
	above *raiser       // nil: the storage does not compare by itself
	begun chan struct{} // closed when the storage is where the floor store is
	ready chan struct{} // holds one token while there may be something to do
	done  sync.WaitGroup

	mu      sync.Mutex
	batches []gate.Batch // guarded by mu
	keys    *floors.Keys // guarded by mu; nil: nothing to keep
	closing bool         // guarded by mu
}

func newDisk(g *Guard, store *floors.Store, above *raiser) *disk {
	return &disk{guard: g, store: store, above: above, begun: make(chan struct{}), ready: make(chan struct{}, 1)}
}

func (d *disk) start() { d.done.Go(d.run) }

func (d *disk) poke() {
	select {
	case d.ready <- struct{}{}:
	default:
	}
}

func (d *disk) write(batches []gate.Batch) {
	if len(batches) == 0 {
		return
	}
	d.mu.Lock()
	d.batches = append(d.batches, batches...)
	d.mu.Unlock()
	d.poke()
}

func (d *disk) keep(k floors.Keys) {
	d.mu.Lock()
	d.keys = &k
	d.mu.Unlock()
	d.poke()
}

// close carries out what is left, and joins.
func (d *disk) close() {
	d.mu.Lock()
	d.closing = true
	d.mu.Unlock()
	d.poke()
	d.done.Wait()
}

// storageRetry is how soon a storage that could not be raised at the start is asked again.
const storageRetry = time.Second

// begin raises a storage that compares by itself to what the floor store held when the process began. The gate takes that for
// durable and acknowledges it as soon as it is asked, so until then nobody may be spoken to: what the process before did to the
// storage may have been undone.
func (d *disk) begin() {
	g := d.guard
	for {
		err := d.above.raise(g.ctx, nil)
		if err == nil {
			close(d.begun)
			return
		}
		g.logger.Error("nothing is said to the quorum until the storage is where it was", "error", err)
		timer := g.clock.NewTimer(g.clock.Now().Add(storageRetry))
		select {
		case <-timer.C():
		case <-g.ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (d *disk) run() {
	d.begin()
	for range d.ready {
		for {
			d.mu.Lock()
			batches, keys, closing := d.batches, d.keys, d.closing
			d.batches, d.keys = nil, nil
			d.mu.Unlock()
			if len(batches) == 0 && keys == nil {
				if closing {
					return
				}
				break
			}
			d.persist(batches)
			d.save(keys)
		}
	}
}

// persist writes batches in one transaction, and tells the gate. Should that fail, each has to stand for itself. A storage that
// compares by itself goes first: what the floor store holds, it has been raised to.
func (d *disk) persist(batches []gate.Batch) {
	if len(batches) == 0 {
		return
	}
	g := d.guard
	began := g.clock.Now()
	err := d.above.raise(g.ctx, batches)
	raised := err == nil
	if raised {
		err = d.store.Write(batches...)
	}
	g.metrics.persist.Observe(g.clock.Now().Sub(began).Seconds())
	if raised && err != nil && len(batches) > 1 {
		for _, b := range batches {
			g.tell(gate.Persisted{Serial: b.Serial, Err: d.store.Write(b)})
		}
		return
	}
	for _, b := range batches {
		g.tell(gate.Persisted{Serial: b.Serial, Err: err})
	}
	if err != nil {
		g.logger.Error("floors cannot be written", "error", err)
	}
}

// save keeps keys. Losing them costs a guard that restarts while the quorum is away, which admits nothing then; so it is tried
// again only with the next change.
func (d *disk) save(k *floors.Keys) {
	if k == nil {
		return
	}
	if err := d.store.SaveKeys(*k); err != nil && !errors.Is(err, floors.ErrClosed) {
		d.guard.logger.Warn("the quorum's keys cannot be kept", "error", err)
	}
}

// shut closes the store, as clean if nothing is under way. The disk must have been closed.
func (d *disk) shut(clean bool) error {
	if clean {
		return d.store.CloseClean()
	}
	return d.store.Close()
}
