package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

func (c *checker) faults() {
	if n := len(c.plan.Faults); n > MaxFaults {
		c.fail(place{"fault", MaxFaults, ""}, "the plan", fmt.Sprintf("have up to %d", MaxFaults), "has %d faults", n)
	}
	for i, f := range c.plan.Faults {
		s, ok := shapeOf(f.Kind)
		if !ok {
			c.fail(place{"fault", i, "kind"}, fmt.Sprintf("fault %q", string(f.Kind)), "use "+kindList(), "is unknown")
			return
		}
		c.when(i, f, s)
		c.who(i, f, s)
		c.howMuch(i, f, s)
		if c.found != nil {
			return
		}
	}
}

// called names a fault in messages.
func (f Fault) called() string { return string(f.Kind) + " at " + brief(f.At) }

func (c *checker) when(i int, f Fault, s shape) {
	at := func(field string) place { return place{"fault", i, field} }
	c.span(at("at"), "the instant of "+f.called(), f.At, 0, c.plan.Duration)
	field := "for of " + f.called()
	switch {
	case s.span == never && f.For != 0:
		c.fail(at("for"), field, "leave it out: "+string(f.Kind)+" happens at an instant", "is %s", brief(f.For))
	case s.span == always && f.For == 0:
		c.fail(at("for"), field, "say for how long, such as: at 10s for 5s "+string(f.Kind), "is missing")
	case f.For < 0 || f.For > c.plan.Duration-f.At:
		c.fail(at("for"), field, fmt.Sprintf("use at most %s, or a longer duration of the plan, which is %s", brief(c.plan.Duration-f.At), brief(c.plan.Duration)), "is %s", brief(f.For))
	case f.Kind == Freeze && f.For != 0 && f.For <= unseenFreeze:
		c.fail(at("for"), field, "leave it out, or use more than "+brief(unseenFreeze)+
			": a shorter freeze hides from the watchdog by design, and nothing is promised for it", "is %s", brief(f.For))
	}
}

func (c *checker) howMuch(i int, f Fault, s shape) {
	amount, by := place{"fault", i, "amount"}, place{"fault", i, "by"}
	switch {
	case s.amount == never && f.Amount != 0:
		c.fail(amount, "amount of "+f.called(), "leave it out: "+string(f.Kind)+" has none", "is %d", f.Amount)
	case s.kind == Forge:
		c.count(amount, "amount of "+f.called(), int64(f.Amount), 1, 1000)
	case s.amount == always:
		c.count(amount, "amount of "+f.called()+", in thousandths,", int64(f.Amount), 1, 1000)
	}
	switch {
	case s.by == never && f.By != 0:
		c.fail(by, "by of "+f.called(), "leave it out: "+string(f.Kind)+" has none", "is %s", brief(f.By))
	case s.by == always && f.By == 0:
		c.fail(by, "by of "+f.called(), "say by how much, such as: by "+brief(min(s.high, time.Second)), "is missing")
	case s.by == always:
		c.span(by, "by of "+f.called(), f.By, s.low, s.high)
	}
}

func (c *checker) who(i int, f Fault, s shape) {
	at := place{"fault", i, ""}
	switch {
	case s.a == nobody && len(f.A) > 0:
		c.fail(place{"fault", i, "A0"}, f.called(), "leave the names out: it concerns the whole quorum", "names %s", f.A[0])
	case len(f.A) < s.least:
		c.fail(at, f.called(), fmt.Sprintf("name at least %d of %s", s.least, s.a), "names too few")
	case s.one() && len(f.A) > 1:
		c.fail(place{"fault", i, "A1"}, f.called(), "name one, and give others a line of their own", "names more than %s", s.a)
	case s.b == never && len(f.B) > 0:
		c.fail(place{"fault", i, "B0"}, f.called(), "leave | and what follows out", "has no second side")
	}
	left := c.side(i, "A", f, s, f.A)
	c.side(i, "B", f, s, f.B)
	if c.found != nil || !s.network() {
		return
	}
	if len(f.B) == 0 {
		for name := range c.actors {
			if !slices.Contains(left, name) {
				return
			}
		}
		if s.b != never && !slices.Contains(f.A, Leader) && !slices.Contains(f.A, Holder) {
			c.fail(at, f.called(), "name fewer", "names everybody, and so nobody is on the other side")
		}
		return
	}
	for j, name := range f.B {
		for _, actor := range c.members(name) {
			if slices.Contains(left, actor) {
				c.fail(place{"fault", i, fmt.Sprint("B", j)}, f.called(), "let everybody be on one side", "has %s on both sides", actor)
			}
		}
	}
}

// side checks the names of a side and answers whom they stand for.
func (c *checker) side(i int, letter string, f Fault, s shape, names []string) []string {
	var all []string
	for j, name := range names {
		at := place{"fault", i, fmt.Sprint(letter, j)}
		if s.a == resources {
			if !c.used(name) {
				c.fail(at, f.called(), "name a resource that a client takes", "names the resource %q, which nobody takes", name)
			}
			continue
		}
		if s.a == groups {
			if !c.grouped(name) {
				c.fail(at, f.called(), "name a group", "names the group %q, which there is not", name)
			}
			continue
		}
		if s.a == states {
			if !slices.Contains(States, name) {
				c.fail(at, f.called(), "use "+strings.Join(States, ", "), "names the state %q", name)
			}
			continue
		}
		if s.a == rules {
			if !c.ruled(name) {
				c.fail(at, f.called(), "name the prefix of a rule", "names the prefix %q, which has no rule", name)
			}
			continue
		}
		if s.a == jobs {
			if !c.job(name) {
				c.fail(at, f.called(), "name a cron job", "names the job %q, which there is not", name)
			}
			continue
		}
		members := c.members(name)
		if len(members) == 0 {
			c.fail(at, f.called(), "use one of "+c.known(!regionsOnly), "names %q, which is nobody", name)
		}
		if slices.Contains(names[:j], name) {
			c.fail(at, f.called(), "name it once", "names %s twice", name)
		}
		isNode := func(actor string) bool { return actor == Leader || strings.HasPrefix(actor, "n") }
		isGuard := func(actor string) bool { return strings.HasPrefix(actor, "g") }
		hasDisk := func(actor string) bool { return isNode(actor) || isGuard(actor) }
		_, actor := c.actors[name]
		switch {
		case s.a == oneNode && (!actor && name != Leader || !isNode(name)):
			c.fail(at, f.called(), "name one node", "names %q, which is no node", name)
		case s.a == oneDisk && (!actor && name != Leader || !hasDisk(name)):
			c.fail(at, f.called(), "name "+string(oneDisk), "names %q, which is neither", name)
		case s.a == agents && (!actor || !strings.HasPrefix(name, "a")):
			c.fail(at, f.called(), "name an agent", "names %q, which is no agent", name)
		case s.a == services && (!actor || !strings.HasPrefix(name, "s")):
			c.fail(at, f.called(), "name a service", "names %q, which is no service", name)
		case s.a == guards && (!actor || !isGuard(name)):
			c.fail(at, f.called(), "name a guard", "names %q, which is no guard", name)
		case s.a == disks && !slices.ContainsFunc(members, hasDisk):
			c.fail(at, f.called(), "name "+string(disks), "names %q, where none is", name)
		case s.a == nodes && !slices.ContainsFunc(members, isNode):
			c.fail(at, f.called(), "name "+string(nodes), "names %q, where no node is", name)
		}
		all = append(all, members...)
	}
	return all
}

// members are the actors that a name stands for.
func (c *checker) members(name string) []string {
	if _, ok := c.actors[name]; ok || name == Leader || name == Holder {
		return []string{name}
	}
	return c.regions[name]
}

// used tells whether a client takes a resource.
func (c *checker) used(resource string) bool {
	return slices.ContainsFunc(c.plan.Clients, func(client Client) bool { return slices.Contains(client.Resources, resource) })
}
