package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/world"
	"github.com/writ-io/writ/singleton/cron"
)

// storage is what leases protect: one list per resource, which is read and written whole. It compares tokens in the very
// operation, as storage does that Writ calls fenced.
type storage struct {
	run     *run
	process *world.Process
	lists   map[lease.Resource]*list
	order   []lease.Resource
}

type list struct {
	floor fence.Token
	// current is the newest version; each names the one that it was made from.
	current *version
	sent    map[string]uint64 // by connection: what came last, as a stream keeps its order
	acked   []*version
}

type version struct {
	base    *version
	element string
	kept    bool
}

func newStorage(r *run) *storage {
	region := ""
	if len(r.plan.Nodes) > 0 {
		region = r.plan.Nodes[0].Region
	}
	s := &storage{run: r, process: r.world.NewProcess("storage", region, 0), lists: make(map[lease.Resource]*list)}
	s.process.Start()
	return s
}

func (s *storage) list(name lease.Resource) *list {
	l := s.lists[name]
	if l == nil {
		l = &list{current: &version{}, sent: make(map[string]uint64)}
		s.lists[name] = l
		s.order = append(s.order, name)
	}
	return l
}

// admit lets a token in that is not below one that was seen before. Reads carry tokens too: what is read under one must not
// change under an older one.
func (s *storage) admit(c *client, name lease.Resource, token fence.Token, write bool) bool {
	l := s.list(name)
	floor := l.floor
	ok := token >= floor
	if write || !ok {
		s.run.story.write(c.process, name, token, ok, floor)
	}
	if !ok {
		s.run.mark(MarkZombieRefused)
		return false
	}
	l.floor = token
	return true
}

// append reads a list and writes it back with one element more, under a token.
func (s *storage) append(c *client, name lease.Resource, token fence.Token) {
	c.written++
	number, connection := c.written, c.caller.Instance
	s.run.net.Send(c.process, s.process, func() {
		if !s.admit(c, name, token, false) {
			return
		}
		base := s.list(name).current
		s.run.net.Send(s.process, c.process, func() {
			if c.caller.Instance != connection {
				return // whoever asked is gone
			}
			made := &version{base: base, element: fmt.Sprintf("%s#%d", connection, number)}
			s.run.net.Send(c.process, s.process, func() { s.write(c, connection, name, token, number, made) })
		})
	})
}

func (s *storage) write(c *client, connection string, name lease.Resource, token fence.Token, number uint64, made *version) {
	l := s.list(name)
	if number <= l.sent[connection] || !s.admit(c, name, token, true) {
		return // it came twice, or was overtaken on its connection; or its token is stale
	}
	l.sent[connection] = number
	if made.base != l.current && l.overlaps(made, connection) {
		return
	}
	l.current = made
	l.acked = append(l.acked, made)
	s.run.world.Note(uint64(token))
}

// effect has the effect of a run under its id, once, and calls done when that is acknowledged. It asks again until it is.
func (s *storage) effect(f *function, tick *cron.Tick, done func()) {
	c := f.grip.client
	answered := false
	s.run.net.Send(c.process, s.process, func() {
		if !s.admit(c, f.Resource, f.Token, true) {
			return
		}
		if !s.run.judge.SlotEffect(f.Resource, tick) {
			s.run.mark(MarkEffectAgain)
		}
		s.run.world.Note(uint64(f.Token))
		s.run.net.Send(s.process, c.process, func() {
			if !answered {
				answered = true
				done()
			}
		})
	})
	f.after(effectPatience, func() {
		if !answered && (f.works() || f.deaf) {
			s.effect(f, tick, done)
		}
	})
}

// effectPatience is how long the storage's answer is waited for.
const effectPatience = time.Second

// item has the effect of an item of a partition, and calls done when that is acknowledged. It asks again until it is.
func (s *storage) item(f *function, name string, index int, offset uint64, done func()) {
	c := f.grip.client
	answered := false
	s.run.net.Send(c.process, s.process, func() {
		if !s.admit(c, f.Resource, f.Token, true) {
			return
		}
		s.run.judge.Item(name, index, offset, f.Token)
		s.run.world.Note(uint64(f.Token))
		s.run.net.Send(s.process, c.process, func() {
			if !answered {
				answered = true
				done()
			}
		})
	})
	f.after(effectPatience, func() {
		if !answered && f.works() {
			s.item(f, name, index, offset, done)
		}
	})
}

// overlaps says whether a write was made from a version that the same connection has replaced since: its own two writes
// crossed, which a program that waits for its answers does not do.
func (l *list) overlaps(made *version, connection string) bool {
	for v := l.current; v != nil && v != made.base; v = v.base {
		if !strings.HasPrefix(v.element, connection+"#") {
			return false
		}
	}
	return true
}

// judge looks for acknowledged updates that are not there in the end.
func (s *storage) judge() {
	for _, name := range s.order {
		l := s.lists[name]
		for v := l.current; v != nil; v = v.base {
			v.kept = true
		}
		for _, v := range l.acked {
			if !v.kept && (s.run.plan.Storage != plan.Plain || !s.run.judge.Undone(name)) {
				s.run.judge.LostUpdate(name, v.element)
				break
			}
		}
	}
}
