package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Group is a failover group: its tenure is of the resource of its name, which a rule has guarded. It begins in the first of
// its regions.
type Group struct {
	Name    string
	Regions []string
	// RPO is how much may be lost without asking, Drain how long a drain may take; 0: nothing, and the default.
	RPO, Drain time.Duration
	// Signed has switchovers signed as failovers are, by two people.
	Signed bool
	// Automatic lets the group fail over by itself from its first region to its second.
	Automatic bool
}

// Agent is what a region runs beside its data. Its name starts with a.
type Agent struct {
	Name, Region string
	PPM          int64
}

// Writer is a program that writes what a group protects, in one of its regions, under the token that its agent told it last.
type Writer struct {
	Name, Region string
	PPM          int64
	Group        string
	// Every is how often it writes.
	Every time.Duration
	// Stamped has its guard present the token.
	Stamped bool
}

// Limits of these.
const (
	MaxGroups  = 8
	MaxAgents  = 16
	MaxWriters = 32
)

func (g *Group) columns() []column {
	return []column{words("regions", &g.Regions), duration("rpo", &g.RPO, "0s"), duration("drain", &g.Drain, "0s"), flag("signed", &g.Signed), flag("automatic", &g.Automatic)}
}

func (a *Agent) columns() []column {
	return []column{word("region", &a.Region, ""), number("ppm", &a.PPM, "0")}
}

func (w *Writer) columns() []column {
	return []column{
		word("region", &w.Region, ""), number("ppm", &w.PPM, "0"), word("group", &w.Group, ""), duration("every", &w.Every, "200ms"), flag("stamped", &w.Stamped),
	}
}

func (c *checker) groups() {
	p := c.plan
	if n := len(p.Groups); n > MaxGroups {
		c.fail(place{"group", MaxGroups, ""}, "the plan", fmt.Sprintf("have up to %d", MaxGroups), "has %d groups", n)
	}
	if n := len(p.Agents); n > MaxAgents {
		c.fail(place{"agent", MaxAgents, ""}, "the plan", fmt.Sprintf("have up to %d", MaxAgents), "has %d agents", n)
	}
	if n := len(p.Writers); n > MaxWriters {
		c.fail(place{"writer", MaxWriters, ""}, "the plan", fmt.Sprintf("have up to %d", MaxWriters), "has %d writers", n)
	}
	for i, a := range p.Agents {
		c.actor("agent", i, a.Name, a.Region, a.PPM)
	}
	for i, g := range p.Groups {
		at, of := place{"group", i, "name0"}, "group "+g.Name
		ruled, through := p.Guarded(g.Name)
		switch {
		case !isWord(g.Name) || g.Name != strings.ToLower(g.Name):
			c.fail(at, of, "use a word of lower case", "has no such name as a group has")
		case slices.ContainsFunc(p.Groups[:i], func(o Group) bool { return o.Name == g.Name }):
			c.fail(at, of, "give each a name of its own", "is there twice")
		case c.used(g.Name):
			c.fail(at, of, "let clients take other resources", "has the name of a resource that a client takes")
		case !ruled || len(through) == 0:
			c.fail(at, of, "add a rule and a guard that cover it", "is not guarded")
		case len(g.Regions) < 2 || len(g.Regions) > 8:
			c.fail(place{"group", i, "regions"}, "regions of "+of, "name 2 to 8, the primary first", "are %d", len(g.Regions))
		}
		for j, region := range g.Regions {
			if !slices.ContainsFunc(p.Agents, func(a Agent) bool { return a.Region == region }) || slices.Contains(g.Regions[:j], region) {
				c.fail(place{"group", i, "regions"}, "regions of "+of, "name each once, and have an agent in it", "hold %q", region)
			}
		}
		c.span(place{"group", i, "rpo"}, "rpo of "+of, g.RPO, 0, time.Hour)
		c.span(place{"group", i, "drain"}, "drain of "+of, g.Drain, 0, time.Hour)
	}
	for i, w := range p.Writers {
		c.actor("writer", i, w.Name, w.Region, w.PPM)
		if !c.grouped(w.Group) {
			c.fail(place{"writer", i, "group"}, "group of writer "+w.Name, "name a group", "is %q", w.Group)
		}
		c.span(place{"writer", i, "every"}, "every of writer "+w.Name, w.Every, time.Millisecond, maxPause)
	}
}

// grouped tells whether there is a group of that name.
func (c *checker) grouped(name string) bool {
	return slices.ContainsFunc(c.plan.Groups, func(g Group) bool { return g.Name == name })
}

// States are the states of a promotion in which an ambush may wait for it.
var States = []string{
	"proposed", "approving", "preflight", "draining", "undraining", "fencing", "tail", "granted", "verifying", "degraded", "reconciled", "rolling_back",
}
