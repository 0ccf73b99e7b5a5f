package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/sim/world"
)

// floorDisk is the disk under a guard's floor store.
type floorDisk struct {
	state   gate.State // what is durable
	writing *gate.Batch
	images  []floorImage // what was durable before, until when; the oldest first
	stores  int
	full    bool
	slower  time.Duration
}

// maxImages bounds how many are kept.
const maxImages = 256

type floorImage struct {
	at    time.Duration
	state gate.State
}

// lose makes another, empty store.
func (d *floorDisk) lose(name string) {
	d.stores++
	d.state, d.images = gate.State{Store: fmt.Sprintf("%s-%d", name, d.stores)}, nil
}

// open answers what the store holds, and marks it as not clean.
func (d *floorDisk) open() gate.State {
	state := d.state
	state.Floors = slices.Clone(state.Floors)
	d.state.Clean = false
	d.writing = nil
	return state
}

// crash ends the write that is under way: it may have become durable.
func (d *floorDisk) crash(now time.Duration, dice *world.Dice) {
	if d.writing != nil && dice.Chance(500) {
		d.apply(now, *d.writing)
	}
	d.writing = nil
}

// apply makes a batch durable.
func (d *floorDisk) apply(now time.Duration, b gate.Batch) {
	if len(d.images) == maxImages {
		d.images = slices.Delete(d.images, 0, 1)
	}
	d.images = append(d.images, floorImage{now, d.state})
	d.state = written(d.state, b)
}

// written is what a store holds when a batch has been written to it.
func written(s gate.State, b gate.Batch) gate.State {
	s.Version = b.Version
	s.Base, s.Witnessed = max(s.Base, b.Base), max(s.Witnessed, b.Witnessed)
	floors := make(map[string]gate.Floor, len(s.Floors)+len(b.Floors))
	for _, f := range s.Floors {
		if !b.Forget || f.Token > s.Base {
			floors[f.Resource] = f
		}
	}
	for _, f := range b.Floors {
		floors[f.Resource] = f
	}
	s.Floors = make([]gate.Floor, 0, len(floors))
	for _, f := range floors {
		s.Floors = append(s.Floors, f)
	}
	slices.SortFunc(s.Floors, func(a, b gate.Floor) int { return strings.Compare(a.Resource, b.Resource) })
	return s
}

// floor is what a restart would come back with.
func (d *floorDisk) floor(resource string) fence.Token { return floorIn(d.state, resource) }

func floorIn(s gate.State, resource string) fence.Token {
	for _, f := range s.Floors {
		if f.Resource == resource {
			return f.Token
		}
	}
	return s.Base
}

// putBack makes the disk what it was at an instant, and says whether there is such an image.
func (d *floorDisk) putBack(at time.Duration) bool {
	for i, image := range d.images {
		if image.at > at {
			d.state, d.images = image.state, d.images[:i]
			d.state.Clean = false // it is of a process that ran
			return true
		}
	}
	return false
}

// persist makes a batch durable, and steps the gate when that is done. A storage that compares tokens by itself is raised first: what
// is on the disk is what the guard acknowledges.
func (g *guard) persist(b gate.Batch) {
	if g.door == nil {
		g.write(b)
		return
	}
	g.raiseStorage(b, func(err error) {
		if err != nil {
			g.run.mark(MarkGuardStoreFailed)
			g.step(gate.Persisted{Serial: b.Serial, Err: err})
			return
		}
		g.write(b)
	})
}

func (g *guard) write(b gate.Batch) {
	d := &g.disk
	d.writing = &b
	took := g.dice.Between(g.run.plan.SyncDelay/2, 2*g.run.plan.SyncDelay) + d.slower
	g.process.After(took, func() {
		d.writing = nil
		var err error
		if d.full {
			err = errDiskFull
			g.run.mark(MarkGuardStoreFailed)
		}
		if err == nil || g.dice.Chance(300) { // one that was reported as failed may be there all the same
			d.apply(g.run.world.Now(), b)
		}
		g.step(gate.Persisted{Serial: b.Serial, Err: err})
	})
}
