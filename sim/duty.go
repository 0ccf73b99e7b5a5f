package sim

import (
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/singleton"
)

// duty is a work that a service does in one campaign after the other: what calls singleton.Run, or singleton.Cron, again and
// again.
type duty struct {
	service  *service
	work     *plan.Work
	campaign *campaign
	labour   labour
	ended    bool
	stop     func() // what goes on beside it
}

func newDuty(s *service, w *plan.Work) *duty {
	d := &duty{service: s, work: w, stop: func() {}}
	d.labour = &shift{service: s, work: w}
	if w.Every > 0 {
		job := newCronJob(s, w)
		d.labour, d.stop = job, job.leave
	}
	s.process().After(s.dice().Between(0, 500*time.Millisecond), d.run)
	return d
}

// run begins a campaign.
func (d *duty) run() {
	if d.ended {
		return
	}
	d.campaign = &campaign{
		service: d.service, labour: d.labour, newGrip: func() *grip { return d.service.newGrip(d.work.Name, d.work) }, done: d.done,
	}
	d.campaign.run(d.service.config(d.work))
}

func (d *duty) done(singleton.RunnerOutcome) {
	d.campaign = nil
	if d.ended {
		d.service.depart()
		return
	}
	d.service.process().After(d.service.dice().Between(10*time.Millisecond, 2*time.Second), d.run)
}

func (d *duty) end() {
	d.ended = true
	if d.campaign != nil {
		d.campaign.end()
	}
}

func (d *duty) over() bool { return d.ended && d.campaign == nil }

func (d *duty) crash() {
	if d.campaign != nil {
		d.campaign.dead = true
	}
	d.stop()
}

// shift is the labour of a work that is a mere function: it writes what its resource protects, until it returns.
type shift struct {
	service  *service
	work     *plan.Work
	function *function
}

func (l *shift) begin(g *grip, _ *lease.Grant, returned func(singleton.RunnerReturn)) {
	f := l.service.call(l.work, g, returned)
	l.function = f
	if l.work.Takes > 0 {
		f.after(l.service.dice().About(l.work.Takes), func() {
			switch {
			case !f.works():
			case l.service.dice().Chance(l.work.Fails):
				f.finish(singleton.ReturnedError)
			default:
				f.finish(singleton.ReturnedNil)
			}
		})
	}
	l.write(f)
}

// write writes now and then, also when it is deaf and has been told to stop.
func (l *shift) write(f *function) {
	f.after(l.service.dice().Between(100*time.Millisecond, 900*time.Millisecond), func() {
		l.service.run.storage.append(l.service.client, f.Resource, f.Token)
		l.write(f)
	})
}

func (l *shift) stop() {
	if l.function != nil {
		l.function.stop()
	}
}
