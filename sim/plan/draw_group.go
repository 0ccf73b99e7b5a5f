package plan

import (
	"fmt"
	"slices"
	"time"
)

// drawnGroup is what the failover group of a drawn plan is called.
const drawnGroup = "orders"

// group draws a failover group, its agents and programs, and what happens to it. There are guards already.
func (d *drawing) group() {
	p := &d.plan
	regions := slices.Clone(d.regions[:min(len(d.regions), d.int("group regions", 2, 3))])
	if len(regions) < 2 {
		return
	}
	if !slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Prefix == drawnGroup }) {
		p.Rules = append(p.Rules, Rule{Prefix: drawnGroup, Drain: d.ms("group drain rule", 300, 5000)})
	}
	for i := range p.Guards {
		g := &p.Guards[i]
		g.Covers = append(slices.Clone(g.Covers), drawnGroup)
		if d.yes("group stamps", 2) && !g.Storage {
			g.Stamps = append(slices.Clone(g.Stamps), drawnGroup)
		}
	}
	g := Group{Name: drawnGroup, Regions: regions, RPO: d.ms("rpo", 0, 8000), Drain: d.ms("group drain", 5000, 30_000), Signed: d.yes("signed", 2), Automatic: d.yes("automatic", 3)}
	p.Groups = append(p.Groups, g)
	for i, region := range regions {
		p.Agents = append(p.Agents, Agent{Name: fmt.Sprint("a", i+1), Region: region, PPM: d.ppm()})
		for j := range d.int("writers", 1, 2) {
			p.Writers = append(p.Writers, Writer{
				Name: fmt.Sprintf("writer%d%d", i+1, j+1), Region: region, PPM: d.ppm(), Group: drawnGroup, Every: d.ms("writes every", 50, 800), Stamped: d.yes("stamped writer", 2),
			})
		}
	}
	for i := range int((p.Duration - warmUp) / groupSlot) {
		at := warmUp + time.Duration(i)*groupSlot + d.ms("group instant", 0, int(groupSlot/time.Millisecond)-1)
		kind := groupKinds[d.one("group kind", len(groupKinds))]
		d.groupFault(at, kind)
		if kind == Switchover || kind == Failover {
			for range d.int("group troubles", 0, 2) {
				d.groupFault(at+d.ms("group trouble", -2000, 8000), groupTroubles[d.one("group trouble", len(groupTroubles))])
			}
		}
	}
}

// groupSlot is how often something happens to a group.
const groupSlot = 25 * time.Second

var (
	groupKinds    = []Kind{Switchover, Switchover, Failover, Failover, Ill, Cut, Crash}
	groupTroubles = []Kind{Abort, BadHooks, Ambush, Ambush, Ambush, Crash, Cut, Slow, Move}
)

// groupFault adds a fault that concerns the group, if there is room for it.
func (d *drawing) groupFault(at time.Duration, kind Kind) {
	f := Fault{At: max(at, warmUp), Kind: kind, A: []string{drawnGroup}}
	agent := d.plan.Agents[d.one("hit agent", len(d.plan.Agents))].Name
	lasts := d.ms("group fault lasts", 1000, []int{5000, 20_000, 40_000}[d.one("group fault length", 3)])
	switch kind {
	case Switchover, Failover, Abort:
	case Ambush:
		f.A, f.For = []string{States[d.one("ambush", len(States))]}, lasts
	case Move:
		f.A = []string{d.plan.Nodes[d.one("group moved to", len(d.plan.Nodes))].Name}
	case Slow:
		f.A, f.For, f.By = []string{agent}, lasts, d.ms("agent slower", 100, 2000)
	default:
		f.A, f.For = []string{agent}, lasts
	}
	if f.At+f.For <= d.plan.Duration {
		d.plan.Faults = append(d.plan.Faults, f)
	}
}
