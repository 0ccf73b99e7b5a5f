package plan

import (
	"reflect"
	"slices"
	"time"
)

// Shrink answers a smaller plan that still fails: with fewer faults, clients, watchers and nodes, a shorter and rounder one.
// It calls fails up to budget times, each time with a valid plan, and expects it to answer the same for the same plan. A plan
// that does not fail at all is answered as it is.
//
// Nothing that it removes changes what is left: what is random in a run does not depend on what else there is.
func Shrink(p Plan, fails func(Plan) bool, budget int) Plan {
	s := &shrinking{best: p, fails: fails, budget: budget}
	if budget <= 0 || !fails(p) {
		return p
	}
	s.budget--
	for again := true; again && s.budget > 0; {
		before := s.best
		// The end first, as the duration of a run is what each try costs.
		s.end()
		s.faults()
		s.actors()
		s.earlier()
		s.end()
		s.features()
		s.round()
		again = !reflect.DeepEqual(before, s.best)
	}
	return s.best
}

type shrinking struct {
	best   Plan
	fails  func(Plan) bool
	budget int
}

// try makes a change, and keeps it if the plan still fails. It is false also if the change changes nothing.
func (s *shrinking) try(change func(*Plan)) bool {
	p := s.best.clone()
	change(&p)
	p.prune()
	if s.budget <= 0 || reflect.DeepEqual(p, s.best) || p.Validate() != nil {
		return false
	}
	s.budget--
	if !s.fails(p) {
		return false
	}
	s.best = p
	return true
}

// clone copies a plan, so that a change to one is none to the other.
func (p Plan) clone() Plan {
	p.Links, p.Nodes, p.Clients = slices.Clone(p.Links), slices.Clone(p.Nodes), slices.Clone(p.Clients)
	p.Rules, p.Guards = slices.Clone(p.Rules), slices.Clone(p.Guards)
	p.Groups, p.Agents, p.Writers = slices.Clone(p.Groups), slices.Clone(p.Agents), slices.Clone(p.Writers)
	p.Works, p.Services = slices.Clone(p.Works), slices.Clone(p.Services)
	p.Watchers, p.Faults = slices.Clone(p.Watchers), slices.Clone(p.Faults)
	for i := range p.Clients {
		p.Clients[i].Resources = slices.Clone(p.Clients[i].Resources)
	}
	for i := range p.Faults {
		p.Faults[i].A, p.Faults[i].B = slices.Clone(p.Faults[i].A), slices.Clone(p.Faults[i].B)
	}
	return p
}

// prune removes what concerns nobody, and what happens after the end.
func (p *Plan) prune() {
	c := &checker{plan: p, actors: make(map[string]string), regions: make(map[string][]string)}
	c.nodes()
	c.guards()
	c.clients()
	c.groups()
	p.idle()
	c.services()
	c.watchers()
	p.Links = slices.DeleteFunc(p.Links, func(l Link) bool { return c.regions[l.A] == nil || c.regions[l.B] == nil })
	p.Faults = slices.DeleteFunc(p.Faults, func(f Fault) bool { return f.At >= p.Duration })
	for i := range p.Faults {
		f := &p.Faults[i]
		f.For = min(f.For, p.Duration-f.At)
	}
	p.Faults = slices.DeleteFunc(p.Faults, func(f Fault) bool {
		s, _ := shapeOf(f.Kind)
		return len(f.A) < s.least || s.span == always && f.For <= 0
	})
	gone := func(name string) bool { return len(c.members(name)) == 0 }
	for i := len(p.Faults) - 1; i >= 0; i-- {
		f := &p.Faults[i]
		s, _ := shapeOf(f.Kind)
		switch s.a {
		case resources:
			f.A = slices.DeleteFunc(f.A, func(name string) bool { return !c.used(name) })
		case groups:
			f.A = slices.DeleteFunc(f.A, func(name string) bool { return !c.grouped(name) })
		case jobs:
			f.A = slices.DeleteFunc(f.A, func(name string) bool { return !c.job(name) })
		case states:
		case rules:
			f.A = slices.DeleteFunc(f.A, func(name string) bool { return !c.ruled(name) })
		default:
			sides := len(f.A) > 0 && len(f.B) > 0
			named := len(f.A)
			f.A, f.B = slices.DeleteFunc(f.A, gone), slices.DeleteFunc(f.B, gone)
			// An empty list would mean all.
			if sides && len(f.B) == 0 || named > 0 && len(f.A) == 0 {
				f.A = nil
			}
			if named == 0 {
				continue
			}
		}
		if len(f.A) < s.least || len(f.A) == 0 && s.a != nobody {
			p.Faults = slices.Delete(p.Faults, i, i+1)
		} else if len(f.B) == 0 {
			f.B = nil
		}
	}
	empty(&p.Links)
	empty(&p.Rules)
	empty(&p.Guards)
	empty(&p.Groups)
	empty(&p.Agents)
	empty(&p.Writers)
	empty(&p.Clients)
	empty(&p.Works)
	empty(&p.Services)
	empty(&p.Watchers)
	empty(&p.Faults)
}

// idle removes services without works, and works that no service does.
func (p *Plan) idle() {
	for i := range p.Services {
		s := &p.Services[i]
		s.Works = slices.DeleteFunc(slices.Clone(s.Works), func(name string) bool { return p.Work(name) == nil })
	}
	p.Services = slices.DeleteFunc(p.Services, func(s Service) bool { return len(s.Works) == 0 })
	p.Works = slices.DeleteFunc(p.Works, func(w Work) bool {
		return !slices.ContainsFunc(p.Services, func(s Service) bool { return slices.Contains(s.Works, w.Name) })
	})
	empty(&p.Services)
	empty(&p.Works)
}

// empty makes nothing of a list of nothing, as Parse has it.
func empty[T any](list *[]T) {
	if len(*list) == 0 {
		*list = nil
	}
}

// drop tries to remove parts of a list: halves, quarters, and in the end one after the other, from the last.
func (s *shrinking) drop(length func() int, remove func(p *Plan, from, to int)) {
	for size := length(); size > 0; size /= 2 {
		for to := length(); to > 0; to -= size {
			s.try(func(p *Plan) { remove(p, max(0, to-size), to) })
		}
	}
}

func (s *shrinking) faults() {
	s.drop(func() int { return len(s.best.Faults) }, func(p *Plan, from, to int) { p.Faults = cut(p.Faults, from, to) })
}

// cut removes what is there of a range.
func cut[T any](list []T, from, to int) []T {
	to = min(to, len(list))
	return slices.Delete(list, min(from, to), to)
}

func (s *shrinking) actors() {
	s.drop(func() int { return len(s.best.Watchers) }, func(p *Plan, from, to int) { p.Watchers = cut(p.Watchers, from, to) })
	s.drop(func() int { return len(s.best.Clients) }, func(p *Plan, from, to int) { p.Clients = cut(p.Clients, from, to) })
	s.drop(func() int { return len(s.best.Services) }, func(p *Plan, from, to int) { p.Services = cut(p.Services, from, to) })
	s.drop(func() int { return len(s.best.Works) }, func(p *Plan, from, to int) { p.Works = cut(p.Works, from, to) })
	s.drop(func() int { return len(s.best.Writers) }, func(p *Plan, from, to int) { p.Writers = cut(p.Writers, from, to) })
	s.drop(func() int { return len(s.best.Groups) }, func(p *Plan, from, to int) { p.Groups = cut(p.Groups, from, to) })
	s.drop(func() int { return len(s.best.Agents) }, func(p *Plan, from, to int) { p.Agents = cut(p.Agents, from, to) })
	s.drop(func() int { return len(s.best.Guards) }, func(p *Plan, from, to int) { p.Guards = cut(p.Guards, from, to) })
	s.drop(func() int { return len(s.best.Rules) }, func(p *Plan, from, to int) { p.Rules = cut(p.Rules, from, to) })
	s.nodes()
}

// nodes tries smaller quorums, of odd sizes first: an even one bears no more than the odd one below.
func (s *shrinking) nodes() {
	for _, some := range []int{2, 1} {
		for last := len(s.best.Nodes); last >= some; last-- {
			s.try(func(p *Plan) { p.Nodes = cut(p.Nodes, last-some, last) })
			last = min(last, len(s.best.Nodes)+1)
		}
	}
}

// end looks for the earliest end at which the plan still fails, to a tenth of a second.
func (s *shrinking) end() {
	high := s.best.Duration
	low := time.Duration(0) // does not fail, as far as is known
	for _, step := range []time.Duration{10 * time.Second, time.Second, 100 * time.Millisecond} {
		for high-low > step {
			half := (low + (high-low)/2).Round(step)
			if half <= low || half >= high {
				break
			}
			if s.try(func(p *Plan) { p.Duration = half }) {
				high = half
			} else {
				low = half
			}
		}
	}
}

// earlier moves all faults to the start, and the end with them.
func (s *shrinking) earlier() {
	for _, start := range []time.Duration{5 * time.Second, 30 * time.Second} {
		if len(s.best.Faults) == 0 {
			return
		}
		first := s.best.Faults[0].At
		for _, f := range s.best.Faults {
			first = min(first, f.At)
		}
		by := (first - start).Truncate(time.Second)
		if by <= 0 {
			return
		}
		if s.try(func(p *Plan) {
			p.Duration -= by
			for i := range p.Faults {
				p.Faults[i].At -= by
			}
		}) {
			return
		}
	}
}

// features turns off what need not be.
func (s *shrinking) features() {
	all := []func(*Plan){
		func(p *Plan) { p.LockDelay = 0 },
		func(p *Plan) { p.SyncDelay = time.Millisecond },
	}
	each := func(set func(*Plan, int), count int) {
		all = append(all, func(p *Plan) {
			for i := range count {
				set(p, i)
			}
		})
		for i := range count {
			all = append(all, func(p *Plan) { set(p, i) })
		}
	}
	for _, off := range []func(*Link){
		func(l *Link) { l.Loss = 0 }, func(l *Link) { l.Dup = 0 }, func(l *Link) { l.Jitter = 0 },
	} {
		each(func(p *Plan, i int) { off(&p.Links[i]) }, len(s.best.Links))
	}
	each(func(p *Plan, i int) { p.Nodes[i].PPM = 0 }, len(s.best.Nodes))
	each(func(p *Plan, i int) { p.Guards[i].PPM = 0 }, len(s.best.Guards))
	each(func(p *Plan, i int) { p.Guards[i].Storage = false }, len(s.best.Guards))
	each(func(p *Plan, i int) { p.Rules[i].Open = false }, len(s.best.Rules))
	for _, off := range []func(*Client){
		func(c *Client) { c.PPM = 0 }, func(c *Client) { c.All = false },
		func(c *Client) { c.Resources = c.Resources[:1] }, func(c *Client) { c.Resources = c.Resources[len(c.Resources)-1:] },
		func(c *Client) { c.Write = 0 }, func(c *Client) { c.Checkpoint = 0 }, func(c *Client) { c.Priority = 0 },
		func(c *Client) { c.Impatience = 0 }, func(c *Client) { c.Try = 0 }, func(c *Client) { c.Leave = 0 },
	} {
		each(func(p *Plan, i int) { off(&p.Clients[i]) }, len(s.best.Clients))
	}
	each(func(p *Plan, i int) { p.Services[i].PPM = 0 }, len(s.best.Services))
	for _, off := range []func(*Work){
		func(w *Work) { w.Fails = 0 }, func(w *Work) { w.Stuck = 0 }, func(w *Work) { w.Jitter = 0 }, func(w *Work) { w.Homes = nil },
		func(w *Work) { w.Preferred = nil },
	} {
		each(func(p *Plan, i int) { off(&p.Works[i]) }, len(s.best.Works))
	}
	for _, change := range all {
		s.try(change)
	}
}

// round makes faults shorter, of fewer names, and numbers shorter to read.
func (s *shrinking) round() {
	for i := range s.best.Faults {
		// A fault that was pruned meanwhile changes who is meant by i, and nothing else.
		at := func(change func(*Fault)) func(*Plan) {
			return func(p *Plan) {
				if i < len(p.Faults) {
					change(&p.Faults[i])
				}
			}
		}
		for s.try(at(func(f *Fault) { f.For = (f.For / 2).Round(100 * time.Millisecond) })) {
			continue
		}
		for side := range 2 {
			for j := 8; j >= 0; j-- {
				s.try(at(func(f *Fault) {
					names := &f.A
					if side == 1 {
						names = &f.B
					}
					if len(*names) > 1 {
						*names = cut(*names, j, j+1)
					}
				}))
			}
		}
		for _, field := range []func(*Fault) *time.Duration{
			func(f *Fault) *time.Duration { return &f.At },
			func(f *Fault) *time.Duration { return &f.For },
			func(f *Fault) *time.Duration { return &f.By },
		} {
			s.coarse(func(p *Plan) *time.Duration {
				if i < len(p.Faults) {
					return field(&p.Faults[i])
				}
				return new(time.Duration)
			})
		}
	}
	for i := range s.best.Clients {
		s.coarse(func(p *Plan) *time.Duration { return &p.Clients[i].Hold })
		s.coarse(func(p *Plan) *time.Duration { return &p.Clients[i].Think })
		s.coarse(func(p *Plan) *time.Duration { return &p.Clients[i].Write })
		s.coarse(func(p *Plan) *time.Duration { return &p.Clients[i].Checkpoint })
	}
}

// coarse tries a duration of few digits.
func (s *shrinking) coarse(field func(*Plan) *time.Duration) {
	for _, unit := range []time.Duration{10 * time.Second, time.Second, 100 * time.Millisecond, 10 * time.Millisecond} {
		d := *field(&s.best)
		// A unit above it would make a small thing large, which the halving of faults would undo for ever.
		if d < unit {
			continue
		}
		if d%unit == 0 {
			return
		}
		if s.try(func(p *Plan) { *field(p) = d.Round(unit) }) {
			return
		}
		if s.try(func(p *Plan) { *field(p) = d.Truncate(unit) + unit }) {
			return
		}
	}
}
