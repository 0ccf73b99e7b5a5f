package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/lease"
)

func (c *checker) guards() {
	p := c.plan
	if n := len(p.Rules); n > MaxRules {
		c.fail(place{"rule", MaxRules, ""}, "the plan", fmt.Sprintf("have up to %d", MaxRules), "has %d rules", n)
	}
	for i, r := range p.Rules {
		at := place{"rule", i, "name0"}
		if !isToken(r.Prefix) || len(r.Prefix) > lease.MaxResourceBytes {
			c.fail(at, "rule "+r.Prefix, "use the start of a resource's name", "has no such prefix as a rule has")
		}
		if slices.ContainsFunc(p.Rules[:i], func(o Rule) bool { return o.Prefix == r.Prefix }) {
			c.fail(at, "rule "+r.Prefix, "give each prefix one rule", "is there twice")
		}
		if r.Unproven && !r.Open {
			c.fail(place{"rule", i, "unproven"}, "rule "+r.Prefix, "add open, or leave unproven out", "is unproven, but guards that close are proved by their silence")
		}
		c.span(place{"rule", i, "drain"}, "drain of rule "+r.Prefix, r.Drain, 0, lease.MaxDrain)
	}
	if n := len(p.Guards); n > MaxGuards {
		c.fail(place{"guard", MaxGuards, ""}, "the plan", fmt.Sprintf("have up to %d", MaxGuards), "has %d guards", n)
	}
	for i, g := range p.Guards {
		c.actor("guard", i, g.Name, g.Region, g.PPM)
		of := " of guard " + g.Name
		for j, pattern := range g.Covers {
			name := strings.TrimSuffix(pattern, "*")
			if pattern == "" || name != "" && !isToken(name) || strings.Contains(name, "*") || len(pattern) > lease.MaxResourceBytes {
				c.fail(place{"guard", i, "covers"}, "covers"+of, "name resources, or prefixes that end in an asterisk, such as r1,q*", "hold %q", pattern)
			}
			if slices.Contains(g.Covers[:j], pattern) {
				c.fail(place{"guard", i, "covers"}, "covers"+of, "name it once", "hold %s twice", pattern)
			}
		}
		if n := len(g.Covers); n < 1 || n > 16 {
			c.fail(place{"guard", i, "covers"}, "covers"+of, "name 1 to 16, such as r1,q*", "are %d", n)
		}
		if n := len(g.Stamps); n > 16 {
			c.fail(place{"guard", i, "stamps"}, "stamps"+of, "name up to 16", "are %d", n)
		}
		for _, pattern := range g.Stamps {
			if !slices.Contains(g.Covers, pattern) {
				c.fail(place{"guard", i, "stamps"}, "stamps"+of, "name what covers names", "hold %q, which it does not cover", pattern)
			}
		}
		c.span(place{"guard", i, "slack"}, "slack"+of, g.Slack, 100*time.Millisecond, lease.MaxGuardSlack)
		if g.As != "" && (!isWord(g.As) || g.As[0] != 'g') {
			c.fail(place{"guard", i, "as"}, "as"+of, "use the name of a guard, or leave it out", "is %q", g.As)
		}
		c.span(place{"guard", i, "park"}, "park"+of, g.Park, time.Millisecond, maxPause)
		if g.Storage {
			c.storage(i, g)
		}
	}
}

// storage checks the guard of a storage that compares tokens by itself: what it cannot do as nothing goes through it, and that no
// other process has its name, whose storage nobody would raise.
func (c *checker) storage(i int, g Guard) {
	field, at := "storage of guard "+g.Name, place{"guard", i, "storage"}
	switch {
	case g.Close:
		c.fail(at, field, "leave out storage or close", "goes on without its guard, which is to close")
	case len(g.Stamps) > 0:
		c.fail(at, field, "leave out storage or stamps", "is written to without its guard, which is to stamp")
	case g.As != "":
		c.fail(at, field, "leave out storage or as", "belongs to a guard with the name of another")
	case slices.ContainsFunc(c.plan.Guards, func(o Guard) bool { return o.As == g.Name }):
		c.fail(at, field, "leave out storage, or as of the other one", "belongs to a guard whose name another one has")
	}
}

// ruled tells whether a rule has that prefix.
func (c *checker) ruled(prefix string) bool {
	return slices.ContainsFunc(c.plan.Rules, func(r Rule) bool { return r.Prefix == prefix })
}

// Guarded answers whether a rule has a resource guarded, and the guards that cover it have to be written through.
func (p Plan) Guarded(resource string) (ruled bool, through []string) {
	ruled = slices.ContainsFunc(p.Rules, func(r Rule) bool { return strings.HasPrefix(resource, r.Prefix) })
	for _, g := range p.Guards {
		if ruled && slices.ContainsFunc(g.Covers, func(pattern string) bool { return lease.Covers(pattern, lease.Resource(resource)) }) {
			through = append(through, g.Name)
		}
	}
	return ruled, through
}
