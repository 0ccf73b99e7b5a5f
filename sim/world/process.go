package world

import (
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// Process is a program on a machine. It can be paused and crash. What happens to it while it is paused happens to it, in
// order, when it goes on; what was meant for a life that has ended never does.
type Process struct {
	Name   string
	Region string
	Clock  *Clock

	world   *World
	id      uint64
	number  int    // counts the processes of the world
	life    uint64 // counts starts; 0 before the first
	up      bool
	paused  bool
	pending []func() // while paused
}

// NewProcess makes a process that is not running. The name must be unlike all others.
func (w *World) NewProcess(name, region string, ppm int64) *Process {
	w.processes++
	return &Process{
		Name: name, Region: region, Clock: w.NewClock(name, ppm), world: w, id: hashString(name), number: w.processes - 1,
	}
}

// World is where the process is.
func (p *Process) World() *World { return p.world }

// Up says whether the process runs, or would if it were not paused.
func (p *Process) Up() bool { return p.up }

// Paused says whether it is paused.
func (p *Process) Paused() bool { return p.paused }

// Start begins a new life.
func (p *Process) Start() {
	if p.up {
		panic("world: " + p.Name + " runs already")
	}
	p.life++
	p.up = true
}

// Crash ends the present life, if there is one.
func (p *Process) Crash() {
	p.up, p.paused, p.pending = false, false, nil
}

// Pause stops the process, until Resume. Its clock goes on.
func (p *Process) Pause() { p.paused = p.up }

// Resume lets a paused process go on, and first do what has come up meanwhile.
func (p *Process) Resume() {
	if !p.paused {
		return
	}
	p.paused = false
	life := p.life
	for len(p.pending) > 0 && p.life == life && !p.paused {
		do := p.pending[0]
		p.pending = p.pending[1:]
		do()
	}
}

// Do runs do in the present life of the process: now, or when it is resumed, or never if it is down or crashes before.
func (p *Process) Do(do func()) {
	switch {
	case !p.up:
	case p.paused:
		p.pending = append(p.pending, do)
	default:
		do()
	}
}

// Life identifies the present life, for DoIn.
func (p *Process) Life() uint64 { return p.life }

// DoIn is Do, unless another life has begun since.
func (p *Process) DoIn(life uint64, do func()) {
	if p.life == life {
		p.Do(do)
	}
}

// After runs do in this life of the process, when d of real time has passed.
func (p *Process) After(d time.Duration, do func()) {
	p.world.schedule(p.world.now+d, task{process: p, life: p.life, do: do})
}

// Alarm wakes a process at an instant of its clock. It can be set again, which forgets the time before.
type Alarm struct {
	process *Process
	do      func()
	at      clock.Instant // for which an event is scheduled; Never: none
	set     uint64        // tells events of older settings apart
}

// NewAlarm makes an alarm that is not set.
func (p *Process) NewAlarm(do func()) *Alarm {
	return &Alarm{process: p, do: do, at: clock.Never}
}

// Set sets the alarm to an instant of the process's clock; [clock.Never] turns it off.
func (a *Alarm) Set(at clock.Instant) {
	if at == a.at {
		return
	}
	a.at = at
	a.set++
	if at != clock.Never {
		a.schedule()
	}
}

func (a *Alarm) schedule() {
	p := a.process
	p.world.schedule(p.Clock.When(a.at), task{alarm: a, set: a.set, life: p.life})
}

// wake is the event of a setting.
func (a *Alarm) wake(life, set uint64) {
	p := a.process
	switch {
	case set != a.set || life != p.life || !p.up:
	case p.paused:
		p.pending = append(p.pending, func() { a.ring(set) })
	default:
		a.ring(set)
	}
}

func (a *Alarm) ring(set uint64) {
	switch {
	case set != a.set:
	case a.process.Clock.Now().Before(a.at): // it has missed time since
		a.schedule()
	default:
		a.at = clock.Never
		a.do()
	}
}
