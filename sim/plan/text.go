package plan

import (
	"strings"
)

// Version is the version of the text form that this package reads and writes.
const Version = 1

const (
	magic  = "writ-sim"
	header = magic + " 1"
)

// String is the canonical text form: what [Parse] makes the same plan of, if the plan is valid.
func (p Plan) String() string {
	var b strings.Builder
	b.WriteString(header + "\n")
	for _, s := range p.About {
		b.WriteString(strings.TrimRight("# "+s, " ") + "\n")
	}
	for _, c := range p.settings() {
		if s := c.String(); s != "" {
			b.WriteString(s + "\n")
		}
	}
	for _, l := range p.Links {
		row(&b, "link "+l.A+" "+l.B, l.columns())
	}
	for _, n := range p.Nodes {
		row(&b, "node "+n.Name, n.columns())
	}
	for _, r := range p.Rules {
		row(&b, "rule "+r.Prefix, r.columns())
	}
	for _, g := range p.Guards {
		row(&b, "guard "+g.Name, g.columns())
	}
	for _, g := range p.Groups {
		row(&b, "group "+g.Name, g.columns())
	}
	for _, a := range p.Agents {
		row(&b, "agent "+a.Name, a.columns())
	}
	for _, w := range p.Writers {
		row(&b, "writer "+w.Name, w.columns())
	}
	for _, c := range p.Clients {
		row(&b, "client "+c.Name, c.columns())
	}
	for _, w := range p.Works {
		row(&b, "work "+w.Name, w.columns())
	}
	for _, s := range p.Services {
		row(&b, "service "+s.Name, s.columns())
	}
	for _, w := range p.Watchers {
		row(&b, "watcher "+w.Name, w.columns())
	}
	for _, f := range p.Faults {
		b.WriteString(f.String() + "\n")
	}
	if len(p.Expect) > 0 {
		b.WriteString("expect " + strings.Join(p.Expect, " ") + "\n")
	}
	return b.String()
}

// String is the line of a fault.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString("at " + brief(f.At))
	if f.For != 0 {
		b.WriteString(" for " + brief(f.For))
	}
	b.WriteString(" " + string(f.Kind))
	for _, name := range f.A {
		b.WriteString(" " + name)
	}
	if len(f.B) > 0 {
		b.WriteString(" | " + strings.Join(f.B, " "))
	}
	row(&b, "", f.columns())
	return strings.TrimSuffix(b.String(), "\n")
}

// String is the field and its value, or nothing if it may be left out.
func (c column) String() string {
	switch value := c.get(); {
	case c.hide && value == c.plain:
		return ""
	case c.flag:
		return c.name
	default:
		return c.name + " " + value
	}
}

func row(b *strings.Builder, start string, columns []column) {
	b.WriteString(start)
	for _, c := range columns {
		if s := c.String(); s != "" {
			b.WriteString(" " + s)
		}
	}
	b.WriteString("\n")
}
