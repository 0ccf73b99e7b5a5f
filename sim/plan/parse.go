package plan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Parse reads a plan, and checks it as [Plan.Validate] does. The name is the file's, for errors, which are [*SyntaxError]s.
// The documentation of the
// package describes the text.
func Parse(name string, text []byte) (Plan, error) {
	lines, bad := scan(name, text)
	if bad != nil {
		return Plan{}, bad
	}
	p := &parser{file: name, where: make(map[place]position)}
	if err := p.parse(lines); err != nil {
		return Plan{}, err
	}
	var invalid *InvalidError
	if err := p.plan.Validate(); errors.As(err, &invalid) {
		at := p.position(invalid.place)
		return Plan{}, &SyntaxError{File: name, Line: at.line, Column: at.column, Message: invalid.Field + " " + invalid.Message, Fix: invalid.Fix}
	}
	return p.plan, nil
}

// place is where in a plan something is: its section, such as "client", which of those, and the field.
type place struct {
	section string
	index   int
	field   string
}

// parser makes a plan of lines.
type parser struct {
	file  string
	plan  Plan
	where map[place]position
}

func (p *parser) fail(at position, fix, format string, args ...any) error {
	return &SyntaxError{File: p.file, Line: at.line, Column: at.column, Message: fmt.Sprintf(format, args...), Fix: fix}
}

// position finds a place, or the nearest there is.
func (p *parser) position(at place) position {
	for _, near := range []place{at, {at.section, at.index, ""}} {
		if found, ok := p.where[near]; ok {
			return found
		}
	}
	return position{1, 1}
}

func (p *parser) parse(lines []line) error {
	if err := p.first(lines[0]); err != nil {
		return err
	}
	for _, c := range p.plan.settings() {
		if c.plain != "" {
			c.set(c.plain)
		}
	}
	lines = lines[1:]
	for len(lines) > 0 && lines[0].remark {
		p.plan.About = append(p.plan.About, lines[0].comment)
		lines = lines[1:]
	}
	for _, l := range lines {
		if len(l.tokens) == 0 {
			continue
		}
		if err := p.directive(l); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) first(l line) error {
	at := position{1, 1}
	const fix = "start the file with the line " + header
	if len(l.tokens) == 0 || l.tokens[0].text != magic {
		return p.fail(at, fix, "the first line does not say that this is a plan of a simulated run")
	}
	if len(l.tokens) != 2 {
		return p.fail(l.tokens[0].position, fix, "the first line is not %q and a version", magic)
	}
	if version, err := strconv.Atoi(l.tokens[1].text); err != nil || version != Version {
		return p.fail(l.tokens[1].position, fmt.Sprintf("this program knows version %d: use the program that wrote the file", Version),
			"the plan is of version %q", l.tokens[1].text)
	}
	return nil
}

func (p *parser) directive(l line) error {
	plan := &p.plan
	word, rest := l.tokens[0], l.tokens[1:]
	switch word.text {
	case "link":
		plan.Links = append(plan.Links, Link{})
		link := &plan.Links[len(plan.Links)-1]
		if err := p.names(l, len(plan.Links)-1, "two regions", &link.A, &link.B); err != nil {
			return err
		}
		return p.fields(l, rest[2:], len(plan.Links)-1, link.columns())
	case "node":
		plan.Nodes = append(plan.Nodes, Node{})
		node := &plan.Nodes[len(plan.Nodes)-1]
		if err := p.names(l, len(plan.Nodes)-1, "a name", &node.Name); err != nil {
			return err
		}
		return p.fields(l, rest[1:], len(plan.Nodes)-1, node.columns())
	case "rule":
		plan.Rules = append(plan.Rules, Rule{})
		rule := &plan.Rules[len(plan.Rules)-1]
		if err := p.names(l, len(plan.Rules)-1, "a prefix", &rule.Prefix); err != nil {
			return err
		}
		return p.fields(l, rest[1:], len(plan.Rules)-1, rule.columns())
	case "guard":
		plan.Guards = append(plan.Guards, Guard{})
		guard := &plan.Guards[len(plan.Guards)-1]
		if err := p.names(l, len(plan.Guards)-1, "a name", &guard.Name); err != nil {
			return err
		}
		return p.fields(l, rest[1:], len(plan.Guards)-1, guard.columns())
	case "client":
		plan.Clients = append(plan.Clients, Client{})
		client := &plan.Clients[len(plan.Clients)-1]
		if err := p.names(l, len(plan.Clients)-1, "a name", &client.Name); err != nil {
			return err
		}
		return p.fields(l, rest[1:], len(plan.Clients)-1, client.columns())
	case "group":
		plan.Groups = append(plan.Groups, Group{})
		group := &plan.Groups[len(plan.Groups)-1]
		if err := p.names(l, len(plan.Groups)-1, "a name", &group.Name); err != nil {
			return err
		}
		return p.fields(l, rest[1:], len(plan.Groups)-1, group.columns())
	case "agent":
		plan.Agents = append(plan.Agents, Agent{})
		agent := &plan.Agents[len(plan.Agents)-1]
		if err := p.names(l, len(plan.Agents)-1, "a name", &agent.Name); err != nil {
			return err
		}
		return p.fields(l, rest[1:], len(plan.Agents)-1, agent.columns())
	case "writer":
		plan.Writers = append(plan.Writers, Writer{})
		writer := &plan.Writers[len(plan.Writers)-1]
		if err := p.names(l, len(plan.Writers)-1, "a name", &writer.Name); err != nil {
			return err
		}
		return p.fields(l, rest[1:], len(plan.Writers)-1, writer.columns())
	case "work":
		plan.Works = append(plan.Works, Work{})
		work := &plan.Works[len(plan.Works)-1]
		if err := p.names(l, len(plan.Works)-1, "a name", &work.Name); err != nil {
			return err
		}
		return p.fields(l, rest[1:], len(plan.Works)-1, work.columns())
	case "service":
		plan.Services = append(plan.Services, Service{})
		service := &plan.Services[len(plan.Services)-1]
		if err := p.names(l, len(plan.Services)-1, "a name", &service.Name); err != nil {
			return err
		}
		return p.fields(l, rest[1:], len(plan.Services)-1, service.columns())
	case "watcher":
		plan.Watchers = append(plan.Watchers, Watcher{})
		watcher := &plan.Watchers[len(plan.Watchers)-1]
		if err := p.names(l, len(plan.Watchers)-1, "a name", &watcher.Name); err != nil {
			return err
		}
		return p.fields(l, rest[1:], len(plan.Watchers)-1, watcher.columns())
	case "at":
		return p.fault(l)
	case "expect":
		if len(rest) == 0 {
			return p.fail(l.end, "name invariants, such as S4", "expect names nothing")
		}
		for _, t := range rest {
			p.where[place{"expect", len(plan.Expect), ""}] = t.position
			plan.Expect = append(plan.Expect, t.text)
		}
		return nil
	}
	return p.setting(l)
}

func (p *parser) setting(l line) error {
	word, rest := l.tokens[0], l.tokens[1:]
	var known []string
	for _, c := range p.plan.settings() {
		known = append(known, c.name)
		if c.name != word.text {
			continue
		}
		at := place{c.name, 0, ""}
		if _, twice := p.where[at]; twice {
			return p.fail(word.position, "leave one of them out", "%s is given twice", c.name)
		}
		if len(rest) == 0 {
			return p.fail(l.end, "give it one, such as "+example(c), "%s has no value", c.name)
		}
		if len(rest) > 1 {
			return p.fail(rest[1].position, "leave it out", "%s has one value, and then comes %q", c.name, rest[1].text)
		}
		p.where[at] = rest[0].position
		if fix := c.set(rest[0].text); fix != "" {
			return p.fail(rest[0].position, fix, "%s is %q", c.name, rest[0].text)
		}
		return nil
	}
	return p.fail(word.position, "use one of "+strings.Join(known, ", ")+", link, node, rule, guard, group, agent, writer, client, work, service, watcher, at, expect", "directive %q is unknown", word.text)
}

func example(c column) string {
	if c.plain == "" {
		return "pause-the-holder"
	}
	return c.plain
}

// names reads the words between the directive and its fields.
func (p *parser) names(l line, index int, what string, into ...*string) error {
	section := l.tokens[0].text
	p.where[place{section, index, ""}] = l.tokens[0].position
	for i, name := range into {
		if i+1 >= len(l.tokens) {
			return p.fail(l.end, "write "+what+" after "+section, "%s lacks %s", section, what)
		}
		p.where[place{section, index, fmt.Sprint("name", i)}] = l.tokens[i+1].position
		*name = l.tokens[i+1].text
	}
	return nil
}

// fields reads names and values.
func (p *parser) fields(l line, rest []token, index int, columns []column) error {
	section := l.tokens[0].text
	subject := "the fault"
	if section == "at" {
		section = "fault"
	} else {
		subject = section + " " + l.tokens[1].text
		if section == "link" {
			subject += " " + l.tokens[2].text
		}
	}
	seen := make(map[string]bool)
	for len(rest) > 0 {
		c, ok := find(columns, rest[0].text)
		switch {
		case !ok:
			return p.fail(rest[0].position, "use "+list(columns), "%s has no field %q", subject, rest[0].text)
		case seen[c.name]:
			return p.fail(rest[0].position, "leave one of them out", "%s is given twice for %s", c.name, subject)
		}
		seen[c.name] = true
		p.where[place{section, index, c.name}] = rest[0].position
		if c.flag {
			c.set("")
			rest = rest[1:]
			continue
		}
		if len(rest) < 2 {
			return p.fail(l.end, "give it one", "%s of %s has no value", c.name, subject)
		}
		p.where[place{section, index, c.name}] = rest[1].position
		if fix := c.set(rest[1].text); fix != "" {
			return p.fail(rest[1].position, fix, "%s of %s is %q", c.name, subject, rest[1].text)
		}
		rest = rest[2:]
	}
	for _, c := range columns {
		switch {
		case seen[c.name]:
		case c.plain != "":
			c.set(c.plain)
		case !c.hide:
			return p.fail(l.end, "add "+c.name+" and a value", "%s has no %s", subject, c.name)
		}
	}
	return nil
}

func find(columns []column, name string) (column, bool) {
	for _, c := range columns {
		if c.name == name {
			return c, true
		}
	}
	return column{}, false
}

func list(columns []column) string {
	var names []string
	for _, c := range columns {
		names = append(names, c.name)
	}
	return strings.Join(names, ", ")
}

// fault reads "at T [for D] KIND [NAMES [| NAMES]] [amount N] [by D]".
func (p *parser) fault(l line) error {
	var f Fault
	index := len(p.plan.Faults)
	p.where[place{"fault", index, ""}] = l.tokens[0].position
	rest := l.tokens
	for _, part := range []struct {
		word, field string
		into        *time.Duration
	}{{"at", "at", &f.At}, {"for", "for", &f.For}} {
		if len(rest) == 0 || rest[0].text != part.word {
			continue
		}
		if len(rest) < 2 {
			return p.fail(l.end, "give it a duration", "%s has no value", part.word)
		}
		d, err := time.ParseDuration(rest[1].text)
		if err != nil {
			return p.fail(rest[1].position, fixDuration, "%s is %q", part.word, rest[1].text)
		}
		*part.into = d
		p.where[place{"fault", index, part.field}] = rest[1].position
		rest = rest[2:]
	}
	if len(rest) == 0 {
		return p.fail(l.end, "use "+kindList(), "the fault has no kind")
	}
	f.Kind = Kind(rest[0].text)
	p.where[place{"fault", index, "kind"}] = rest[0].position
	rest = rest[1:]
	side := &f.A
	columns := f.columns()
	for len(rest) > 0 {
		if _, field := find(columns, rest[0].text); field {
			break
		}
		if rest[0].text == "|" {
			if side == &f.B {
				return p.fail(rest[0].position, "use one", "the fault has two |")
			}
			side = &f.B
			if len(rest) == 1 {
				return p.fail(l.end, "name somebody after |, or leave it out for all others", "the second side is empty")
			}
			if _, field := find(columns, rest[1].text); field {
				return p.fail(rest[1].position, "name somebody after |, or leave it out for all others", "the second side is empty")
			}
		} else {
			field := "A"
			if side == &f.B {
				field = "B"
			}
			p.where[place{"fault", index, fmt.Sprint(field, len(*side))}] = rest[0].position
			*side = append(*side, rest[0].text)
		}
		rest = rest[1:]
	}
	if err := p.fields(l, rest, index, columns); err != nil {
		return err
	}
	p.plan.Faults = append(p.plan.Faults, f)
	return nil
}

func kindList() string {
	var names []string
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}
