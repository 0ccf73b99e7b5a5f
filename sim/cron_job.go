package sim

import (
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/world"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/cron"
)

// cronJob is the labour of a cron job: what singleton.Cron is in production around cron.Machine.
type cronJob struct {
	service  *service
	work     *plan.Work
	config   cron.Config
	controls *watcher // of the job's control document
	term     *cronTerm
}

func newCronJob(s *service, w *plan.Work) *cronJob {
	slots, err := w.Schedule()
	if err != nil {
		panic(err) // plans are valid
	}
	j := &cronJob{service: s, work: w, config: cron.Config{Job: w.Name, Schedule: slots, Policy: w.Policy()}}
	j.controls = newFollower(s.run, s.process(), cron.ControlPrefix+w.Name, j.steered)
	return j
}

func (j *cronJob) leave() { j.controls.leave() }

// steered hears that the control document may have changed.
func (j *cronJob) steered(ev lease.WatchEvent) {
	t := j.term
	switch {
	case t == nil || ev.Info.Resource == "" || ev.Info.State == lease.Held: // whoever holds it may be about to write
	case !t.granted:
		t.steered = true
	default:
		t.steer()
	}
}

// steer lets the core hear of what people want now.
func (t *cronTerm) steer() {
	t.control(func(c cron.Control) { t.step(cron.Controlled{Control: c}) })
}

func (j *cronJob) begin(g *grip, grant *lease.Grant, returned func(singleton.RunnerReturn)) {
	core, err := cron.NewMachine(j.config)
	if err != nil {
		panic(err)
	}
	t := &cronTerm{job: j, core: core, grip: g, returned: returned}
	t.alarm = j.service.process().NewAlarm(t.look)
	j.term = t
	t.control(func(c cron.Control) {
		t.step(cron.Granted{Token: g.token, Holder: j.service.client.caller.Instance, Checkpoint: grant.Checkpoint, Control: c})
		switch {
		case t.stopped:
			t.step(cron.Ended{})
		case t.steered:
			t.steer()
		}
	})
}

func (j *cronJob) stop() {
	if j.term != nil {
		j.term.stop()
	}
}

// cronTerm is one term of a job.
type cronTerm struct {
	job      *cronJob
	core     *cron.Machine
	grip     *grip
	returned func(singleton.RunnerReturn)
	alarm    *world.Alarm
	wake     time.Time     // of day; zero: nothing is waited for
	left     time.Duration // until wake, when that was looked at; 0: it was not

	granted bool
	steered bool // since it began to read what people want
	stopped bool // its context has ended
	over    bool
	storing bool
	stores  int          // tells answers apart
	reads   int          // likewise, of the control document
	waiting []cron.Event // what has happened while something is being stored
	tick    *function
	began   clock.Instant
}

// control reads the control document, until the term's context ends, and hands it on.
func (t *cronTerm) control(do func(cron.Control)) {
	s := t.job.service
	n := s.client.nodes[s.dice().Intn(len(s.client.nodes))]
	t.reads++
	read, answered := t.reads, false
	s.run.operations++
	s.run.net.Send(s.process(), n.process, func() {
		n.getCheckpoint(lease.Resource(cron.ControlPrefix+t.job.work.Name), func(data []byte, ok bool) {
			s.run.net.Send(n.process, s.process(), func() {
				if answered || t.over || !ok || t.reads != read {
					return
				}
				answered = true
				control, err := cron.ParseControl(data)
				if err != nil {
					s.run.violation("J1", err.Error())
					return
				}
				do(control)
			})
		})
	})
	s.process().After(controlPatience, func() {
		switch {
		case answered || t.over || t.reads != read:
		case t.stopped && !t.granted:
			t.leave(singleton.ReturnedError)
		case !t.stopped:
			t.control(do)
		}
	})
}

// controlPatience is how long an answer is waited for.
const controlPatience = time.Second

// step steps the core, unless something is being stored: then that is answered first.
func (t *cronTerm) step(event cron.Event) {
	if t.over {
		return
	}
	if t.storing {
		t.waiting = append(t.waiting, event)
		return
	}
	t.granted = true
	s := t.job.service
	e := t.core.Step(s.process().Clock.Wall(), event)
	if e.Refused != nil {
		s.run.violation("J1", e.Refused.Error())
	}
	if e.Over || e.Refused != nil {
		t.leave(singleton.ReturnedNil)
		return
	}
	if e.Run != nil {
		t.run(e.Run)
	}
	if e.Cancel {
		s.run.mark(MarkSlotOvertaken)
		t.tick.overtake()
	}
	if e.Store != nil {
		t.store(e.Store)
		return
	}
	t.wake, t.left = e.Wake, 0
	t.look()
}

// look steps the core if it is time, or the clock was set back, and looks again.
func (t *cronTerm) look() {
	left := t.wake.Sub(t.job.service.process().Clock.Wall())
	switch {
	case t.over || t.storing || t.wake.IsZero():
		t.alarm.Set(clock.Never)
	case left <= 0 || t.left > 0 && left > t.left:
		t.wake = time.Time{}
		t.step(cron.Elapsed{})
	default:
		t.left = left
		t.alarm.Set(t.job.service.now().Add(min(left, cronLook)))
	}
}

// cronLook is how often the time of day is looked at, as in production: it may have been set.
const cronLook = time.Second

// store stores the state, and steps with what came of it. When the context has ended it is tried for a few seconds.
func (t *cronTerm) store(data []byte) {
	t.storing = true
	t.stores++
	number, stopped, until := t.stores, t.stopped, t.job.service.now().Add(releaseLimit)
	goOn := func() bool {
		return t.stores == number && t.storing && (!t.stopped || stopped && t.job.service.now().Before(until))
	}
	t.grip.checkpoint(data, goOn, func(ok bool) {
		if t.stores == number && t.storing {
			t.stored(ok)
		}
	})
}

// stored answers the core.
func (t *cronTerm) stored(ok bool) {
	if t.over {
		return
	}
	t.storing = false
	if ok {
		t.step(cron.Stored{})
	} else {
		t.step(cron.NotStored{})
	}
	for len(t.waiting) > 0 && !t.storing && !t.over {
		event := t.waiting[0]
		t.waiting = t.waiting[1:]
		t.step(event)
	}
}

// stop ends the term's context, and that of what runs in it, and a call that is under way.
func (t *cronTerm) stop() {
	if t.stopped || t.over {
		return
	}
	t.stopped = true
	if t.tick != nil {
		t.tick.stop()
	}
	if !t.granted {
		return // it hears when it has read the control document
	}
	if t.storing {
		t.stores++
		t.waiting = append(t.waiting, cron.Ended{})
		t.stored(false)
		return
	}
	t.step(cron.Ended{})
}

// leave returns.
func (t *cronTerm) leave(how singleton.RunnerReturn) {
	t.over = true
	t.alarm.Set(clock.Never)
	if t.job.term == t {
		t.job.term = nil
	}
	t.returned(how)
}

// run runs a tick: a function that takes a while, has its effect at the storage, and returns when that is acknowledged.
func (t *cronTerm) run(tick *cron.Tick) {
	s := t.job.service
	t.marks(tick)
	s.run.judge.SlotRuns(t.grip.resource, tick, t.grip.token)
	t.began = s.now()
	outcome := cron.Failed
	t.tick = s.call(t.job.work, t.grip, func(singleton.RunnerReturn) {
		t.tick = nil
		t.step(cron.Returned{Outcome: outcome, Reason: "simulated", Took: s.now().Sub(t.began)})
	})
	f := t.tick
	if t.stopped {
		f.stop()
	}
	f.after(s.dice().About(max(t.job.work.Takes, time.Millisecond)), func() {
		if !f.works() && !f.deaf {
			return
		}
		if s.dice().Chance(t.job.work.Fails) {
			s.run.mark(MarkSlotFailed)
			f.finish(singleton.ReturnedError)
			return
		}
		s.run.storage.effect(f, tick, func() {
			if f.works() {
				outcome = cron.Done
				f.finish(singleton.ReturnedNil)
			}
		})
	})
}

// marks notes what a run shows.
func (t *cronTerm) marks(tick *cron.Tick) {
	r := t.job.service.run
	switch late := t.job.service.process().Clock.Wall().Sub(tick.Slot); {
	case tick.Manual:
		r.mark(MarkSlotTriggered)
	case tick.Attempt > 1:
		r.mark(MarkSlotAgain)
	case late > cron.Punctual+t.job.work.Jitter:
		r.mark(MarkSlotCaughtUp)
	}
}
