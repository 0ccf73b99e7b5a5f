package sim

import (
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/world"
)

// writer is a program that writes what a failover group protects. It goes by what its region's agent said last, which may be
// long over; at times it goes on though it has been told to stop.
type writer struct {
	run     *run
	spec    plan.Writer
	client  *client
	writing bool
}

func newWriter(r *run, spec plan.Writer) *writer {
	c := newClient(r, plan.Client{Name: spec.Name, Region: spec.Region, PPM: spec.PPM, Stamped: spec.Stamped})
	c.appends = true
	return &writer{run: r, spec: spec, client: c}
}

func (w *writer) process() *world.Process { return w.client.process }

func (w *writer) start() {
	if w.client.process.Up() {
		return
	}
	w.client.process.Start()
	w.run.story.up(w.client.process)
	w.client.caller = lease.Caller{Principal: lease.Principal(w.spec.Name), Instance: w.spec.Name + "/" + decimal(w.client.process.Life())}
	w.writing = false
	w.repeat()
}

func (w *writer) crash() {
	if w.client.process.Up() {
		w.client.process.Crash()
		w.run.story.downAt(w.client.process)
	}
}

func (w *writer) repeat() {
	w.client.process.After(w.client.dice.Between(w.spec.Every/2, w.spec.Every*3/2), func() {
		w.write()
		w.repeat()
	})
}

// write rewrites the list of the group, one at a time.
func (w *writer) write() {
	a := w.run.agentIn(w.spec.Region)
	if a == nil || w.writing || w.run.winding {
		return
	}
	d := a.data[w.spec.Group]
	if d == nil || d.token == 0 || !d.writable && !w.client.dice.Chance(300) {
		return
	}
	w.writing = true
	life := w.client.process.Life()
	w.client.rewrite(lease.Resource(w.spec.Group), d.token, func() {
		if w.client.process.Life() == life {
			w.writing = false
		}
	})
}
