package sim

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/judge"
	"github.com/writ-io/writ/sim/world"
)

// door is the storage of a guard whose storage compares tokens by itself: a table with a trigger, say. It lets writes in whether
// its guard runs or not, and is never down. All its guard does is raise it, before a floor counts as written down.
type door struct {
	guard   *guard
	process *world.Process
	dice    *world.Dice
	// Invariant: no floor ever decreases.
	floors map[lease.Resource]fence.Token
	// open: it has been raised to a seed of the quorum since it was new, or since it was locked. What it would admit before that
	// nobody waits for.
	open  bool
	locks int // counts how often it was locked
}

// raisePatience is how long a guard waits for its storage.
const raisePatience = 3 * time.Second

var errStorageSilent = errors.New("the storage has not answered")

// newDoor makes the storage of a guard; nil if writes go through the guard itself.
func newDoor(g *guard) *door {
	if !g.spec.Storage {
		return nil
	}
	name := "storage-" + g.spec.Name
	d := &door{
		guard: g, process: g.run.world.NewProcess(name, g.spec.Region, 0), dice: g.run.world.Dice("door " + name),
		floors: make(map[lease.Resource]fence.Token),
	}
	d.process.Start()
	return d
}

// floor is the lowest token that it admits.
func (d *door) floor(name lease.Resource) fence.Token {
	if !d.open {
		return math.MaxInt64
	}
	return d.floors[name]
}

// lock has it admit nothing until it is raised to another seed: somebody has answered that nothing is written there any more.
func (d *door) lock() {
	d.open = false
	d.locks++
}

// take carries a passage out a moment later, or long after if it has to queue there. The token is compared in that very instant.
func (d *door) take(p *passage) {
	took := d.dice.Between(0, 5*time.Millisecond)
	if d.dice.Chance(100) {
		took = d.dice.Between(0, 4*time.Second)
	}
	d.process.After(took, func() {
		if floor := d.floor(p.resource); p.token < floor {
			p.refused(&fence.StaleError{Have: p.token, Floor: floor})
			return
		}
		d.floors[p.resource] = p.token // as whoever writes first under a token raises the storage to it
		p.loose = d.guard.run.judge.Admits(d.admission(p))
		base, ok := d.guard.run.storage.carryOut(p)
		p.reply(base, ok)
	})
}

func (d *door) admission(p *passage) judge.Admission {
	return judge.Admission{
		Guard: d.guard.called(), Process: d.process.Name, Store: d.process.Name, Resource: p.resource, Token: p.token,
		Durable: d.floors[p.resource], Seeded: d.open,
	}
}

// raise is what a batch asks of a storage.
type raise struct {
	floors map[lease.Resource]fence.Token
	// seed says that the batch holds a seed of the quorum. rebuilt is how often the quorum had been put back when it gave that, locks
	// how often the storage had been locked.
	seed           bool
	base           fence.Token
	rebuilt, locks int
}

// raise lifts its floors. One that was long under way lifts nothing that is higher already, and ends no lock that came after it.
func (d *door) raise(to raise) {
	for name, floor := range to.floors { // each for itself: the order does not matter
		d.floors[name] = max(d.floors[name], floor)
	}
	if !to.seed {
		return
	}
	d.open = d.open || to.locks == d.locks
	if r := d.guard.run; to.rebuilt == r.rebuilt {
		r.judge.Tighten(d.guard.called(), to.base)
	}
}

// raiseStorage raises the storage to what a batch comes to, and calls done then, or when that has failed. It may have been raised
// all the same, or may be long after.
func (g *guard) raiseStorage(b gate.Batch, done func(err error)) {
	d, state := g.door, written(g.disk.state, b)
	to := raise{floors: make(map[lease.Resource]fence.Token), seed: b.Forget, base: g.seed.base, rebuilt: g.seed.rebuilt, locks: d.locks}
	for _, name := range g.guarding() {
		to.floors[name] = floorIn(state, string(name))
	}
	over, life := false, g.process.Life()
	end := func(err error) {
		if !over && g.process.Life() == life {
			over = true
			done(err)
		}
	}
	g.run.net.Send(g.process, d.process, func() {
		d.process.After(d.dice.Between(0, 20*time.Millisecond), func() { // older transactions end first
			d.raise(to)
			g.run.net.Send(d.process, g.process, func() { end(nil) })
		})
	})
	g.process.After(raisePatience, func() { end(errStorageSilent) })
}

// storagesAwaited marks that a guard is out whose storage compares tokens by itself, and is waited for.
func (r *run) storagesAwaited() {
	if r.marks[MarkStorageAwaited] > 0 {
		return
	}
	known := remembered{rules: r.judge.Ruling(), guards: r.known}
	awaits := func(g *guard) bool {
		return slices.ContainsFunc(g.guarding(), func(name lease.Resource) bool { return known.awaits(g.called(), name) })
	}
	for _, g := range r.guards {
		if g.door != nil && r.known[g.called()].GetOut() && r.judge.Fencing() > 0 && awaits(g) {
			r.mark(MarkStorageAwaited)
		}
	}
}
