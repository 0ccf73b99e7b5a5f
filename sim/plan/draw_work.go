package plan

import (
	"fmt"
	"slices"
	"time"
)

// What is done in one place in drawn plans.
const (
	drawnFunction = "leader"
	drawnJob      = "nightly"
	drawnConsumer = "queue"
)

// singletons draws works, the services that do them, and what happens to those. Nothing else of the plan depends on it.
func (d *drawing) singletons() {
	p := &d.plan
	for _, draw := range []func() Work{d.function, d.job, d.consumer} {
		if w := draw(); !d.yes("without "+w.Name, 4) {
			p.Works = append(p.Works, w)
		}
	}
	if len(p.Works) == 0 {
		return
	}
	grace := d.ms("grace", 300, 6000)
	shortest := 3
	if d.latency > 100*time.Millisecond || p.Election > time.Second {
		shortest = 8 // what takes seconds to commit needs a lease that lasts
	}
	for i := range d.int("services", 2, 4) {
		s := Service{
			Name: fmt.Sprint("s", i+1), Region: d.regions[d.one("service region", len(d.regions))], PPM: d.ppm(), Grace: grace,
			TTL: time.Duration(d.int("service ttl", shortest, shortest+6)) * time.Second, Strict: d.yes("strict", 2),
		}
		for _, w := range p.Works {
			if !d.yes("leaves it to others", 6) {
				s.Works = append(s.Works, w.Name)
			}
		}
		if len(s.Works) > 0 {
			p.Services = append(p.Services, s)
		}
	}
	p.idle()
	if len(p.Services) == 0 {
		return
	}
	for i := range int((p.Duration - warmUp) / serviceSlot) {
		if d.one("service fault", 6) > 0 {
			at := warmUp + time.Duration(i)*serviceSlot + d.ms("service instant", 0, int(serviceSlot/time.Millisecond)-1)
			d.serviceFault(at, serviceKinds[d.one("service kind", len(serviceKinds))])
		}
	}
}

// serviceSlot is how often something happens to services.
const serviceSlot = 20 * time.Second

// serviceKinds happen to services, and are drawn with the same chance.
var serviceKinds = []Kind{
	Crash, Crash, Crash, Pause, Freeze, Cut, OneWay, Slow, Lossy, Deploy, Deploy, Suspend, Resume, Trigger, Trigger,
}

// misbehave draws how the functions of a work behave.
func (d *drawing) misbehave(w *Work) {
	w.Stop = d.ms("stop", 1, 2000)
	if d.yes("fails", 3) {
		w.Fails = d.int("fails of a function", 1, 200)
	}
	if d.yes("stuck", 3) {
		w.Stuck = d.int("stuck functions", 1, 400)
	}
	if len(d.regions) > 1 && w.Partitions == 0 && d.yes("preferred", 3) {
		w.Preferred = []string{d.regions[d.one("preferred region", len(d.regions))]}
	}
}

func (d *drawing) function() Work {
	w := Work{Name: drawnFunction, Takes: d.ms("function takes", 5000, 60_000)}
	d.misbehave(&w)
	return w
}

func (d *drawing) job() Work {
	w := Work{
		Name: drawnJob, Every: time.Duration(d.int("every", 3, 15)) * time.Second, Takes: d.ms("slot takes", 50, 4000),
		CatchUp: []string{"latest", "all", "all", "none"}[d.one("catch up", 4)], Overlap: []string{"skip", "buffer_one", "cancel_other"}[d.one("overlap", 3)],
	}
	if w.CatchUp != "none" {
		w.Window = d.ms("window", 10_000, 120_000)
	}
	if w.CatchUp == "all" {
		w.Max = d.int("max", 2, 100)
	}
	if d.yes("attempts", 3) {
		w.Attempts = d.int("attempts of a slot", 1, 3)
	}
	if d.yes("jitter of slots", 3) {
		w.Jitter = d.ms("slot jitter", 1, 5000)
	}
	if d.yes("long slots", 4) {
		w.Takes = d.ms("long slot takes", 1000, 3*int(w.Every/time.Millisecond))
	}
	d.misbehave(&w)
	return w
}

func (d *drawing) consumer() Work {
	w := Work{Name: drawnConsumer, Partitions: d.int("partitions", 1, 8), Takes: d.ms("item takes", 300, 1500)}
	if len(d.regions) > 1 && d.yes("homes", 2) {
		w.Homes = slices.Clone(d.regions[:2])
	}
	d.misbehave(&w)
	w.Fails /= 20
	return w
}

// serviceFault adds a fault that concerns a service or a job, if there is room for it.
func (d *drawing) serviceFault(at time.Duration, kind Kind) {
	f := Fault{At: at, Kind: kind, A: []string{d.plan.Services[d.one("hit service", len(d.plan.Services))].Name}}
	if s, _ := shapeOf(kind); s.span != never {
		low := 200
		if kind == Freeze {
			low = int(unseenFreeze/time.Millisecond) + 100
		}
		f.For = d.ms("service fault lasts", low, []int{3000, 8000, 15_000, 30_000}[d.one("service fault length", 4)])
	}
	switch kind {
	case Slow:
		f.By = d.ms("service slower", 100, 2000)
	case Lossy:
		f.Amount = d.int("service loss", 10, 500)
	case Suspend, Resume, Trigger:
		if d.plan.Work(drawnJob) == nil {
			return
		}
		f.A = []string{drawnJob}
	default: // how long is all there is to say
	}
	if f.At+f.For <= d.plan.Duration {
		d.plan.Faults = append(d.plan.Faults, f)
	}
}
