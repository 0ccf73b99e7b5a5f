package plan

import (
	"fmt"
	"time"
)

// Of faults: one begins in every slot, more or less, and after a few of them comes a time without.
const (
	warmUp     = 5 * time.Second
	slot       = 15 * time.Second
	breakEvery = 8
	// far apart are operations that each need a whole quorum.
	farApart = time.Minute
)

// common are the kinds that are drawn with the same chance. The operators' own are drawn in operations.
var common = []Kind{
	Cut, OneWay, Bridge, Clog, Swizzle, Lossy, Duplicate, Slow, Crash, CrashLoop, Pause, Freeze, WallJump,
	SlowDisk, FullDisk, TornDisk, Move, Force, Backup, Twice,
}

// faults draws one after the other, with time between, of those kinds that this plan has.
func (d *drawing) faults() {
	var kinds []Kind
	for _, kind := range common {
		if d.yes("with "+string(kind), 2) {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) == 0 {
		return
	}
	slots := int((d.plan.Duration - warmUp) / slot)
	for i := range slots {
		if i%breakEvery == breakEvery-1 || d.one("fault", 8) == 0 {
			continue
		}
		at := warmUp + time.Duration(i)*slot + d.ms("instant", 0, int(slot/time.Millisecond)-1)
		d.fault(at, kinds[d.one("kind", len(kinds))])
		if d.yes("at the same time", 6) {
			d.fault(at+d.ms("a little later", 0, 2000), kinds[d.one("kind", len(kinds))])
		}
	}
}

// fault adds one, if there is room for it.
func (d *drawing) fault(at time.Duration, kind Kind) {
	f := Fault{At: at, Kind: kind}
	s, _ := shapeOf(kind)
	if s.span != never {
		f.For = d.length(kind)
	}
	switch kind {
	case Lossy, Duplicate:
		f.Amount = d.int("amount", 10, 500)
	case Slow:
		f.By = d.ms("slower", 20, 500)
	case SlowDisk:
		f.By = d.ms("slower disk", 5, 500)
	case CrashLoop:
		f.By = d.ms("crash again", 500, 5000)
	case WallJump:
		f.By = d.jump()
	default: // how long is all there is to say
	}
	if !d.concern(&f, s) || f.At+f.For > d.plan.Duration {
		return
	}
	d.plan.Faults = append(d.plan.Faults, f)
}

// length draws for how long a fault lasts: mostly shortly.
func (d *drawing) length(kind Kind) time.Duration {
	low := 200
	switch kind {
	case Freeze:
		low = int(unseenFreeze/time.Millisecond) + 100
	case CrashLoop:
		low = 3000
	default: // short ones are worth drawing
	}
	high := []int{1000, 4000, 10_000, 20_000}[d.one("length", 4)]
	return d.ms("lasts", low, max(low, high))
}

// jump draws how far a wall clock jumps: from a little to a day, forward or back.
func (d *drawing) jump() time.Duration {
	by := d.ms("jump", 1, 1000) * []time.Duration{1, 10, 1000, 60_000}[d.one("jump scale", 4)]
	if d.yes("jump back", 2) {
		return -by
	}
	return by
}

// concern draws whom a fault concerns. It is false if there is nobody.
func (d *drawing) concern(f *Fault, s shape) bool {
	switch {
	case s.a == nobody:
	case f.Kind == Twice:
		if d.yes("twice for one", 2) {
			f.A = []string{d.client()}
		}
	case s.a == resources:
		c := d.plan.Clients[d.one("forced", len(d.plan.Clients))]
		f.A = c.Resources[:1:1]
	case f.Kind == Bridge:
		return d.bridge(f)
	case f.Kind == Swizzle:
		f.A = d.nodeNames()
	case s.network():
		d.sides(f)
	case s.a == anybody:
		f.A = []string{d.anyone()}
	default:
		f.A = []string{d.node()}
	}
	return true
}

func (d *drawing) nodeNames() []string {
	var names []string
	for _, n := range d.plan.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// node draws one, or whichever leads.
func (d *drawing) node() string {
	if d.yes("at the leader", 3) {
		return Leader
	}
	return d.plan.Nodes[d.one("node", len(d.plan.Nodes))].Name
}

func (d *drawing) client() string {
	if d.yes("at the holder", 3) {
		return Holder
	}
	return d.plan.Clients[d.one("client", len(d.plan.Clients))].Name
}

func (d *drawing) anyone() string {
	switch d.one("anyone", 8) {
	case 0, 1, 2, 3:
		return d.node()
	case 4, 5, 6:
		return d.client()
	default:
		return d.regions[d.one("region", len(d.regions))]
	}
}

// sides draws two sides of a network that has at least a node and a client.
func (d *drawing) sides(f *Fault) {
	count := len(d.plan.Nodes)
	switch how := d.one("sides", 4); {
	case how == 0 || count == 1:
		f.A = []string{d.node()}
		if d.yes("a client", 4) {
			f.A = []string{d.client()}
		}
	case how == 1: // two regions, and whoever is there
		a := d.one("region", len(d.regions))
		f.A, f.B = d.regions[a:a+1:a+1], []string{d.regions[(a+1)%count]}
	default: // nodes: a part and the rest, while all clients reach both
		first, part := d.one("first", count), d.int("part", 1, count-1)
		for i, name := range d.nodeNames() {
			if (i-first+count)%count < part {
				f.A = append(f.A, name)
			} else {
				f.B = append(f.B, name)
			}
		}
	}
}

// bridge draws one node that reaches all, while the others are parted.
func (d *drawing) bridge(f *Fault) bool {
	names := d.nodeNames()
	if len(names) < 3 {
		return false
	}
	first := d.one("bridge", len(names))
	names = append(names[first:len(names):len(names)], names[:first]...)
	middle := 1 + len(names)/2
	f.A, f.B = names[:middle:middle], names[middle:]
	return true
}

// operations draws what is rare: up to two works on the quorum itself, in half of the plans.
func (d *drawing) operations() {
	if !d.yes("operations", 2) {
		return
	}
	kinds := []Kind{Restore, OldDisk}
	if len(d.plan.Nodes) > 1 {
		// They lose a minority, which a single node is not.
		kinds = append(kinds, RemoveNode, AddNode, Wipe, NewCluster)
	}
	room := int((d.plan.Duration - warmUp) / (2 * farApart))
	for i := range min(d.int("operation count", 0, 2), room) {
		at := warmUp + time.Duration(i)*2*farApart + d.ms("operation", 30_000, 60_000)
		d.operation(at, kinds[d.one("operation kind", len(kinds))])
	}
}

func (d *drawing) operation(at time.Duration, kind Kind) {
	p := &d.plan
	node := p.Nodes[d.one("operated", len(p.Nodes))].Name
	f := Fault{At: at, Kind: kind, A: []string{node}}
	switch kind {
	case Restore:
		f.A = nil
		p.Faults = append(p.Faults, Fault{At: at - d.ms("since the backup", 1000, 20_000), Kind: Backup})
	case OldDisk:
		f.By = d.ms("old disk", 1000, 30_000)
		f.For = d.ms("down", 200, 5000)
	case Wipe, NewCluster:
		f.For = d.ms("down", 200, 5000)
	case RemoveNode:
		p.Faults = append(p.Faults, Fault{At: at + d.ms("comes back", 5000, 50_000), Kind: AddNode, A: []string{node}})
	case AddNode:
		name := fmt.Sprint("n", len(p.Nodes)+1)
		p.Nodes = append(p.Nodes, Node{Name: name, Region: d.regions[d.one("new region", len(d.regions))], PPM: d.ppm()})
		f.A = []string{name}
	default: // an operator does nothing else
	}
	p.Faults = append(p.Faults, f)
}
