package sim

import (
	"slices"
	"time"

	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// schedule lets the faults of the plan happen in their time.
func (r *run) schedule() {
	for _, f := range r.plan.Faults {
		if f.Kind == plan.OldDisk {
			r.scheduleOldDisk(f)
			continue
		}
		r.world.At(f.At, func() {
			end := r.begin(f)
			if end != nil {
				r.world.After(f.For, end)
			}
		})
	}
}

// actor is what a fault can happen to.
type actor interface {
	start()
	crash()
}

// actors lists everybody whom names stand for: an actor's name, a region's, @leader or @holder.
func (r *run) actors(names []string) []*world.Process {
	var chosen []*world.Process
	add := func(p *world.Process) {
		if p != nil && !slices.Contains(chosen, p) {
			chosen = append(chosen, p)
		}
	}
	for _, name := range names {
		switch name {
		case plan.Leader:
			add(r.leader())
		case plan.Holder:
			add(r.holder())
		default:
			for _, p := range r.processes() {
				if p.Name == name || p.Region == name {
					add(p)
				}
			}
		}
	}
	return chosen
}

func (r *run) processes() []*world.Process {
	all := []*world.Process{r.storage.process}
	for _, n := range r.nodes {
		all = append(all, n.process)
	}
	for _, c := range r.clients {
		all = append(all, c.process)
	}
	for _, w := range r.watches {
		all = append(all, w.process)
	}
	for _, g := range r.guards {
		all = append(all, g.process)
		if g.door != nil {
			all = append(all, g.door.process)
		}
	}
	for _, a := range r.agents {
		all = append(all, a.process)
	}
	for _, w := range r.writers {
		all = append(all, w.process())
	}
	for _, s := range r.services {
		all = append(all, s.process())
	}
	return all
}

func (r *run) leader() *world.Process {
	if n := r.deciding(); n != nil {
		return n.process
	}
	return nil
}

// holder is a client that holds a lease.
func (r *run) holder() *world.Process {
	for _, c := range r.clients {
		if c.process.Up() && len(c.holds) > 0 {
			return c.process
		}
	}
	for _, s := range r.services {
		if s.process().Up() && len(s.client.holds) > 0 {
			return s.process()
		}
	}
	return nil
}

// holderOf is who keeps the leases of an actor; nil if it has none.
func holderOf(who actor) *client {
	switch who := who.(type) {
	case *client:
		return who
	case *service:
		return who.client
	}
	return nil
}

// actor is what a process is; nil for the storage, to which nothing happens.
func (r *run) actor(p *world.Process) actor {
	for _, n := range r.nodes {
		if n.process == p {
			return n
		}
	}
	for _, c := range r.clients {
		if c.process == p {
			return c
		}
	}
	for _, w := range r.watches {
		if w.process == p {
			return w
		}
	}
	for _, g := range r.guards {
		if g.process == p {
			return g
		}
	}
	for _, a := range r.agents {
		if a.process == p {
			return a
		}
	}
	for _, w := range r.writers {
		if w.process() == p {
			return w
		}
	}
	for _, s := range r.services {
		if s.process() == p {
			return s
		}
	}
	return nil
}

// begin starts a fault and answers what ends it; nil if it needs no end.
func (r *run) begin(f plan.Fault) (end func()) {
	a, b := r.actors(f.A), r.actors(f.B)
	r.story.event(nil, trace.EventFault, "fault: %s", f)
	switch f.Kind {
	case plan.Cut, plan.OneWay, plan.Bridge, plan.Clog, plan.Lossy, plan.Duplicate, plan.Slow:
		return r.network(f, a, b)
	case plan.Swizzle:
		return r.swizzle(f, a)
	case plan.Crash, plan.TornDisk, plan.CrashLoop, plan.Pause, plan.Freeze, plan.WallJump:
		return r.each(a, func(p *world.Process) func() { return r.harm(f, p) })
	case plan.SlowDisk, plan.FullDisk, plan.Wipe, plan.OldDisk:
		return r.each(a, func(p *world.Process) func() {
			switch who := r.actor(p).(type) {
			case *node:
				return r.disk(f, who)
			case *guard:
				return r.guardDisk(f, who)
			}
			return nil
		})
	default:
		return r.operate(f, a)
	}
}

// each begins a fault at several, and answers what ends it at all of them.
func (r *run) each(chosen []*world.Process, begin func(*world.Process) func()) func() {
	var ends []func()
	for _, p := range chosen {
		if r.actor(p) == nil {
			continue
		}
		if end := begin(p); end != nil {
			ends = append(ends, end)
		}
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// network changes links for a while.
func (r *run) network(f plan.Fault, a, b []*world.Process) func() {
	if len(a) == 0 {
		return nil
	}
	first := a[0]
	inA := func(p *world.Process) bool { return slices.Contains(a, p) }
	inB := func(p *world.Process) bool {
		if len(f.B) == 0 {
			return !inA(p)
		}
		return slices.Contains(b, p)
	}
	fault := &world.Fault{Hits: func(from, to *world.Process) bool { return inA(from) && inB(to) || inA(to) && inB(from) }}
	switch f.Kind {
	case plan.Cut:
		fault.Cut = true
	case plan.OneWay:
		fault.Cut = true
		fault.Hits = func(from, to *world.Process) bool { return inA(from) && inB(to) }
	case plan.Bridge:
		fault.Cut = true
		fault.Hits = func(from, to *world.Process) bool {
			return from != first && to != first && (inA(from) && inB(to) || inA(to) && inB(from))
		}
	case plan.Clog:
		fault.Clog = true
	case plan.Lossy:
		fault.Loss = f.Amount
	case plan.Duplicate:
		fault.Duplicate = f.Amount
	default:
		fault.Delay, fault.Jitter = f.By, f.By/4
	}
	r.net.Add(fault)
	r.cuts++
	ended := r.story.band(a, trace.BandCut, f.String())
	return func() {
		r.cuts--
		r.net.Remove(fault)
		ended()
	}
}

// swizzle clogs one after the other, and unclogs them in another order.
func (r *run) swizzle(f plan.Fault, a []*world.Process) func() {
	dice := r.world.Dice("swizzle", uint64(f.At))
	for _, p := range a {
		fault := &world.Fault{Clog: true, Hits: func(from, to *world.Process) bool { return from == p || to == p }}
		clog, unclog := dice.Between(0, f.For/2), dice.Between(f.For/2, f.For)
		r.world.After(clog, func() {
			r.net.Add(fault)
			r.cuts++
			ended := r.story.band([]*world.Process{p}, trace.BandCut, f.String())
			r.world.After(unclog-clog, func() {
				r.cuts--
				r.net.Remove(fault)
				ended()
			})
		})
	}
	return nil
}

// harm does something to one process.
func (r *run) harm(f plan.Fault, p *world.Process) (end func()) {
	who := r.actor(p)
	switch f.Kind {
	case plan.Crash:
		who.crash()
		return who.start
	case plan.TornDisk:
		if n, ok := who.(*node); ok {
			r.store.Disk(p).Torn = true
			n.crash()
			r.store.Disk(p).Torn = false
		} else if g, ok := who.(*guard); ok {
			g.crash()
		}
		return who.start
	case plan.CrashLoop:
		stop := r.world.Now() + f.For
		var again func()
		again = func() {
			who.crash()
			r.world.After(max(f.By/4, 10*time.Millisecond), func() {
				who.start()
				if r.world.Now()+f.By < stop {
					r.world.After(f.By, again)
				}
			})
		}
		again()
		return nil
	case plan.WallJump:
		p.Clock.JumpWall(f.By)
		r.story.band([]*world.Process{p}, trace.BandClock, f.String())()
		return nil
	default: // it stands still, below
	}
	if g, ok := who.(*guard); ok {
		r.stall(f, g)
		return nil
	}
	if p.Paused() || !p.Up() {
		return nil
	}
	p.Pause()
	ended := r.story.band([]*world.Process{p}, trace.BandPaused, f.String())
	life := p.Life()
	c := holderOf(who)
	if f.Kind == plan.Freeze && c != nil {
		c.disbelieve() // it stands still, and will look at its clocks before it believes again
	}
	return func() {
		ended()
		if p.Life() != life || !p.Paused() {
			return
		}
		if f.Kind == plan.Freeze {
			p.Clock.Miss(f.For)
		}
		if c != nil {
			c.thaw()
			return
		}
		p.Resume()
	}
}

// disk does something to the disk of one node.
func (r *run) disk(f plan.Fault, n *node) (end func()) {
	disk := r.store.Disk(n.process)
	ended := r.story.band([]*world.Process{n.process}, trace.BandDisk, f.String())
	switch f.Kind {
	case plan.SlowDisk:
		disk.Slower += f.By
		return func() {
			disk.Slower -= f.By
			ended()
		}
	case plan.FullDisk:
		disk.Full = true
		return func() {
			disk.Full = false
			ended()
			n.start()
		}
	default: // it is lost, below
	}
	n.crash()
	disk.Wipe()
	return func() {
		ended()
		n.start() // which finds out that its disk is empty
	}
}

// leastRollback is how old an image of a disk is at least that is put back.
const leastRollback = 15 * time.Second

// scheduleOldDisk takes the image in its time, so that it can be put back.
func (r *run) scheduleOldDisk(f plan.Fault) {
	images := make(map[*node]any)
	r.world.At(max(f.At-max(f.By, leastRollback), 0), func() {
		for _, p := range r.actors(f.A) {
			if n, ok := r.actor(p).(*node); ok && p.Up() {
				images[n] = r.store.Disk(p).Image()
			}
		}
	})
	r.world.At(f.At, func() {
		r.story.event(nil, trace.EventFault, "fault: %s", f)
		for _, p := range r.actors(f.A) {
			if g, ok := r.actor(p).(*guard); ok {
				if end := r.guardDisk(f, g); end != nil {
					r.world.After(f.For, end)
				}
			}
		}
		for _, n := range r.nodes {
			if images[n] == nil || !n.process.Up() {
				continue
			}
			n.crash()
			disk := r.store.Disk(n.process)
			present := disk.Image()
			if disk.PutBack(images[n]); !n.noticesDisk() {
				// A witness takes note of the log every five seconds, of how far it was five seconds before. A disk that lost
				// only what came since cannot be told from a sound one, and nothing is promised for it.
				disk.PutBack(present)
			}
			r.world.After(f.For, n.start)
		}
	})
}
