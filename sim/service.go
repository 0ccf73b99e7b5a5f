package sim

import (
	"slices"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/judge"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
	"github.com/writ-io/writ/singleton"
)

// service is a process that does in one place what is to be done in one place: what singleton.Singleton is in production, in
// simulated time, around the cores that ship.
type service struct {
	run    *run
	spec   plan.Service
	client *client // whose keeper keeps all its leases
	// Of the present life.
	works     []undertaking
	functions []*function
	leaving   bool // it ends in order
}

// undertaking is a work as a service does it.
type undertaking interface {
	// end has it end in order.
	end()
	// over tells whether nothing of it is left.
	over() bool
	// crash lets go of what reaches beyond the process.
	crash()
}

func newService(r *run, spec plan.Service) *service {
	c := newClient(r, plan.Client{Name: spec.Name, Region: spec.Region, PPM: spec.PPM, TTL: spec.TTL})
	return &service{run: r, spec: spec, client: c}
}

func (s *service) process() *world.Process { return s.client.process }

func (s *service) dice() *world.Dice { return s.client.dice }

func (s *service) now() clock.Instant { return s.client.process.Clock.Now() }

func (s *service) start() {
	if s.process().Up() {
		return
	}
	s.client.start()
	s.functions, s.leaving, s.works = nil, false, nil
	for _, name := range s.spec.Works {
		w := s.run.plan.Work(name)
		switch {
		case w.Partitions > 0:
			s.works = append(s.works, newConsumer(s, w))
		default:
			s.works = append(s.works, newDuty(s, w))
		}
	}
	s.beat()
}

func (s *service) crash() {
	if !s.process().Up() {
		return
	}
	for _, u := range s.works {
		u.crash()
	}
	s.functions, s.works = nil, nil
	s.run.judge.Gone(s.spec.Name)
	s.client.crash()
}

// deploy ends the process in order, and answers what starts it again: whatever is left of it then is killed.
func (s *service) deploy() (again func()) {
	if !s.process().Up() || s.leaving {
		return nil
	}
	s.leaving = true
	s.run.story.event(s.process(), trace.EventFault, "is to end")
	life := s.process().Life()
	s.process().After(0, func() {
		for _, u := range slices.Clone(s.works) {
			u.end()
		}
		s.depart()
	})
	return func() {
		if s.process().Life() == life && s.process().Up() {
			s.crash()
		}
		s.start()
	}
}

// depart ends the process when nothing of it is left.
func (s *service) depart() {
	if s.leaving && s.process().Up() && !slices.ContainsFunc(s.works, func(u undertaking) bool { return !u.over() }) {
		s.run.mark(MarkDeparted)
		s.crash()
	}
}

// exit ends the process, because of a function that does not return. Somebody starts it again.
func (s *service) exit() {
	s.run.mark(MarkStuckExit)
	s.run.story.event(s.process(), trace.EventFault, "exits, because a function does not return")
	s.process().After(0, func() { // after the step that is under way
		s.crash()
		s.run.world.After(s.dice().Between(200*time.Millisecond, 2*time.Second), s.start)
	})
}

// priority is that of its region for a work.
func (s *service) priority(w *plan.Work) int32 {
	if i := slices.Index(w.Preferred, s.spec.Region); i >= 0 {
		return int32(len(w.Preferred) - i)
	}
	return 0
}

// lead is how long before the end of a lease the context of a function ends, as in production.
func (s *service) lead() time.Duration { return s.spec.TTL / 8 }

func (s *service) newGrip(name string, w *plan.Work) *grip {
	return &grip{client: s.client, resource: lease.Resource(name), ttl: s.spec.TTL, lead: s.lead(), priority: s.priority(w)}
}

// config is what a campaign decides by.
func (s *service) config(w *plan.Work) singleton.RunnerConfig {
	return singleton.RunnerConfig{HandOver: len(w.Preferred) > 0, StopGrace: s.spec.Grace, Strict: s.spec.Strict}
}

// function is one call of a function of the user's, under a grip.
type function struct {
	judge.Function
	service *service
	work    *plan.Work
	grip    *grip
	deaf    bool // it does not return when its context has ended
	// stopped is since when its context has ended, by the process's clock and in T.
	stopped   clock.Instant
	stoppedAt time.Duration
	overtaken bool // its context has ended for another reason, of which it always hears
	over      bool
	returned  func(singleton.RunnerReturn)
}

// call begins a function. It calls returned when it is over.
func (s *service) call(w *plan.Work, g *grip, returned func(singleton.RunnerReturn)) *function {
	f := &function{Function: judge.Function{Who: s.spec.Name, Resource: g.resource, Token: g.token}, service: s, work: w, grip: g, returned: returned}
	f.deaf = s.dice().Chance(w.Stuck) && !s.run.healing
	s.functions = append(s.functions, f)
	s.run.judge.Begins(f.Function)
	s.run.story.event(s.process(), trace.EventLease, "begins %s under %v", g.resource, g.token)
	return f
}

// stop ends its context. Unless it is deaf it returns soon.
func (f *function) stop() {
	if f.over || f.stopped != 0 {
		return
	}
	f.stopped, f.stoppedAt = f.service.now(), f.service.run.world.Now()
	if !f.deaf {
		f.wind()
	}
}

// overtake ends its context while the term goes on.
func (f *function) overtake() {
	f.overtaken = true
	f.wind()
}

// wind returns soon.
func (f *function) wind() {
	f.after(f.service.dice().Between(0, f.work.Stop), func() {
		if sure := f.grip.sure; f.grip.state != gripHeld && f.service.now().Before(sure) {
			f.service.run.mark(MarkStoppedInTime)
		}
		f.finish(singleton.ReturnedError)
	})
}

// works says whether it goes on.
func (f *function) works() bool { return !f.over && f.stopped == 0 && !f.overtaken }

// after does something in this life of the process, unless the function is over.
func (f *function) after(d time.Duration, do func()) {
	f.service.process().After(d, func() {
		if !f.over {
			do()
		}
	})
}

// finish returns.
func (f *function) finish(how singleton.RunnerReturn) {
	if f.over {
		return
	}
	f.over = true
	s := f.service
	s.functions = slices.DeleteFunc(s.functions, func(o *function) bool { return o == f })
	s.run.judge.Returns(f.Function)
	s.run.story.event(s.process(), trace.EventLease, "returns from %s under %v", f.Resource, f.Token)
	f.returned(how)
}

// beat looks at every function now and then.
func (s *service) beat() {
	s.process().After(s.dice().Between(50*time.Millisecond, 400*time.Millisecond), func() {
		for _, f := range s.functions {
			f.beat()
		}
		s.beat()
	})
}

// beat tells the judge that the function is there.
func (f *function) beat() {
	s := f.service
	careful := s.dice().Chance(300)
	now := s.now()
	if careful {
		if now = s.client.look(); f.over {
			return
		}
		if f.works() && f.grip.until != 0 && now.Before(f.grip.until) {
			s.run.judge.Works(s.spec.Name, f.Resource, f.Token)
		}
	}
	b := judge.Beat{Function: f.Function, Stopped: f.stopped != 0 || f.overtaken, Strict: s.spec.Strict}
	awake := func(late time.Duration) time.Duration { // if it ran when that began
		if s.run.world.Now()-late < s.client.resumedAt {
			return 0
		}
		return late
	}
	b.Late, b.Over = awake(now.Sub(f.grip.sure.Add(-f.grip.lead))), awake(now.Sub(f.grip.sure))
	if f.stopped != 0 {
		since := max(f.stoppedAt, s.client.resumedAt)
		b.Lingers = s.run.world.Now() - since - s.spec.Grace - s.spec.TTL - lingers
	}
	s.run.judge.Beats(b)
}

// lingers is what a clock may be slow by, and the coordinator's fast, over a grace and a lease.
const lingers = time.Second
