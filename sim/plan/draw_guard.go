package plan

import (
	"fmt"
	"slices"
	"time"
)

// guards draws rules, guards, and what happens to them. Nothing else of the plan depends on it.
func (d *drawing) guards() {
	p := &d.plan
	if d.yes("plain storage", 2) {
		p.Storage = Plain
	}
	p.GuardLease = time.Duration(d.int("guard lease", 4, 20)) * time.Second
	r := Rule{Prefix: "r", Open: d.yes("open", 3), Drain: d.ms("drain", 300, 5000)}
	r.Unproven = r.Open && d.yes("unproven", 3)
	p.Rules = append(p.Rules, r)
	if d.yes("second rule", 4) {
		p.Rules = append(p.Rules, Rule{Prefix: "r1", Open: !r.Open, Drain: d.ms("drain", 300, 5000)})
	}
	partly := d.yes("partly covered", 6)
	for i := range d.int("guards", 1, 3) {
		g := Guard{
			Name: fmt.Sprint("g", i+1), Region: d.regions[d.one("guard region", len(d.regions))], PPM: d.ppm(),
			Covers: []string{"r*"}, Slack: d.ms("slack", 1000, 5000), Park: d.ms("park", 500, 8000),
		}
		if partly && d.yes("covers part", 2) {
			g.Covers = []string{"r1", "r2"}
		}
		g.Close = d.yes("closes itself", 6)
		g.Storage = !g.Close && d.yes("storage compares", 12)
		if d.yes("stamps", 4) && !g.Storage {
			g.Stamps = slices.Clone(g.Covers)
			d.stamped(g.Region)
		}
		p.Guards = append(p.Guards, g)
	}
	var kinds []Kind
	for _, kind := range guardKinds {
		if d.yes("guards with "+string(kind), 2) {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) == 0 {
		return
	}
	for i := range int((p.Duration - warmUp) / slot) {
		if i%breakEvery == breakEvery-1 || d.one("guard fault", 6) == 0 {
			continue
		}
		at := warmUp + time.Duration(i)*slot + d.ms("guard instant", 0, int(slot/time.Millisecond)-1)
		d.guardFault(at, kinds[d.one("guard kind", len(kinds))])
		if d.yes("guards at the same time", 3) {
			d.guardFault(at+d.ms("guards a little later", 0, 2000), kinds[d.one("guard kind", len(kinds))])
		}
	}
}

// guardKinds happen to guards, and are drawn with the same chance.
var guardKinds = []Kind{
	Cut, OneWay, Clog, Slow, Lossy, Crash, CrashLoop, Pause, Freeze, WallJump, SlowDisk, FullDisk, TornDisk, Wipe, OldDisk,
	Stop, Attest, Open, Close, ForceNow, Move, Protect, Unprotect, Forge, Probe,
}

// guardFault adds a fault that concerns a guard, if there is room for it.
func (d *drawing) guardFault(at time.Duration, kind Kind) {
	f := Fault{At: at, Kind: kind, A: []string{d.plan.Guards[d.one("hit guard", len(d.plan.Guards))].Name}}
	s, _ := shapeOf(kind)
	if s.span != never {
		low := 200
		if kind == Freeze {
			low = int(unseenFreeze/time.Millisecond) + 100
		}
		if kind == CrashLoop {
			low = 3000
		}
		f.For = d.ms("guard fault lasts", low, []int{3000, 8000, 20_000, 30_000}[d.one("guard fault length", 4)])
	}
	switch kind {
	case Cut, OneWay, Clog:
		if d.yes("guard from nodes", 2) {
			f.B = d.nodeNames()
		} else if kind == OneWay && d.yes("nodes from guard", 2) {
			f.A, f.B = d.nodeNames(), f.A
		}
	case Lossy:
		f.Amount = d.int("guard loss", 10, 500)
	case Slow:
		f.By = d.ms("guard slower", 100, 4000)
	case SlowDisk:
		f.By = d.ms("guard disk slower", 50, 3000)
	case CrashLoop:
		f.By = d.ms("guard crashes again", 300, 5000)
	case WallJump:
		f.By = d.ms("guard jump", 1, 100_000)
	case OldDisk:
		f.By = d.ms("guard disk old", 1000, 60_000)
	case Forge:
		f.Amount = d.int("made up", 1, 1000)
	case Open, Close, Protect, Unprotect:
		f.A = []string{d.plan.Rules[d.one("rule", len(d.plan.Rules))].Prefix}
	case ForceNow:
		c := d.plan.Clients[d.one("forced now", len(d.plan.Clients))]
		f.A = c.Resources[:1:1]
	case Move:
		f.A = []string{d.plan.Nodes[d.one("moved to", len(d.plan.Nodes))].Name}
	default: // how long is all there is to say
	}
	if f.At+f.For > d.plan.Duration {
		return
	}
	d.plan.Faults = append(d.plan.Faults, f)
}

// stamped has some of the clients of a region write without tokens of their own.
func (d *drawing) stamped(region string) {
	for i := range d.plan.Clients {
		if c := &d.plan.Clients[i]; c.Region == region && d.yes("writes without a token", 2) {
			c.Stamped = true
		}
	}
}
