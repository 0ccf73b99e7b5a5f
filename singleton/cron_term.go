package singleton

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton/cron"
)

// work is what runs while the job is held.
func (j *cronJob) work(ctx context.Context, hold *lease.Hold) error {
	defer j.board.disarm(j)
	j.setHeld(true)
	defer j.setHeld(false)
	j.takeSteered() // what has changed so far is read now
	control, err := j.readControl(ctx)
	if err != nil {
		return err
	}
	machine, err := cron.NewMachine(j.machine)
	if err != nil {
		return err
	}
	t := &cronTerm{cronJob: j, ctx: ctx, hold: hold, core: machine, ended: ctx.Done()}
	return t.run(cron.Granted{
		Token: hold.Token(), Holder: hold.Holder().String(), Checkpoint: hold.CheckpointData(), Control: control,
	})
}

// readControl reads the control document, for as long as ctx lasts.
func (j *cronJob) readControl(ctx context.Context) (cron.Control, error) {
	clk := j.campaign.client.Clock()
	for {
		if !j.board.enter(ctx) {
			return cron.Control{}, context.Cause(ctx)
		}
		info, err := j.campaign.client.Get(ctx, cron.ControlPrefix+j.name, lease.GetOptions{WithCheckpoint: true})
		j.board.exit()
		switch reason := lease.ReasonOf(err); {
		case err == nil:
			return cron.ParseControl(info.Checkpoint)
		case reason == lease.ReasonNotFound:
			return cron.ParseControl(nil)
		case ctx.Err() != nil:
			return cron.Control{}, context.Cause(ctx)
		case reason == lease.ReasonDenied, reason == lease.ReasonInvalid, reason == lease.ReasonUnauthenticated, errors.Is(err, lease.ErrClosed):
			return cron.Control{}, fmt.Errorf("read the control document of %s: %w", j.name, err)
		}
		j.campaign.settings.Logger.Warn("the control document of a job could not be read", "job", j.name, "error", err)
		timer := clk.NewTimer(clk.Now().Add(cronReadAgain))
		select {
		case <-ctx.Done():
		case <-timer.C():
		}
		timer.Stop()
	}
}

// cronReadAgain is how long after a failure the control document is read again.
const cronReadAgain = time.Second

// cronTerm is the shell of a cron.Machine: one term of a job. Its fields are touched by one goroutine alone.
type cronTerm struct {
	*cronJob
	ctx   context.Context
	hold  *lease.Hold
	core  *cron.Machine
	ended <-chan struct{} // until the core has heard of it

	cancel   context.CancelCauseFunc // of what runs
	returned chan cronReturn
	last     cronReturn // a panic or an exit ends the term
	pending  cron.Event // to be taken in next
}

// cronReturn says how a tick ended.
type cronReturn struct {
	event cron.Returned
	panic *PanicError
	exit  bool
}

// run steps the core until the term is over.
func (t *cronTerm) run(event cron.Event) error {
	clock := t.campaign.client.Clock()
	for {
		effects := t.core.Step(clock.Wall(), event)
		switch {
		case effects.Refused != nil:
			return effects.Refused
		case effects.Over:
			return t.leave()
		}
		if effects.Run != nil {
			t.start(*effects.Run)
		}
		if effects.Cancel {
			t.cancel(ErrOvertaken)
		}
		if effects.Store != nil {
			event = t.store(effects.Store)
			continue
		}
		t.board.arm(t.cronJob, effects.Wake)
		event = t.wait()
	}
}

// leave ends the term as what ran did, if that did not return.
func (t *cronTerm) leave() error {
	if t.last.panic != nil {
		panic(t.last.panic)
	}
	if t.last.exit {
		runtime.Goexit()
	}
	return nil
}

// wait waits for the next event.
func (t *cronTerm) wait() cron.Event {
	if event := t.pending; event != nil {
		t.pending = nil
		return event
	}
	for {
		select {
		case <-t.ended:
			t.ended = nil
			return cron.Ended{}
		case t.last = <-t.returned:
			t.returned = nil
			t.cancel(nil)
			if t.last.panic != nil || t.last.exit {
				t.pending = t.last.event // after the end, so that nothing else is claimed
				return cron.Ended{}
			}
			return t.last.event
		case <-t.poke:
			if !t.takeSteered() {
				return cron.Elapsed{}
			}
			control, err := t.readControl(t.ctx)
			if err == nil {
				return cron.Controlled{Control: control}
			}
			t.campaign.settings.Logger.Warn("the control document of a job cannot be read; what was known of it goes on", "job", t.name, "error", err)
		}
	}
}

// store stores the state. A term that has ended has a context of its own for that.
func (t *cronTerm) store(data []byte) cron.Event {
	ctx := t.ctx
	if ctx.Err() != nil {
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
		defer cancel()
		ctx = own
	}
	if !t.board.enterStore(ctx) {
		return cron.NotStored{}
	}
	defer t.board.exitStore()
	if err := t.hold.Checkpoint(ctx, data); err != nil {
		t.campaign.settings.Logger.Warn("the state of a job was not stored", "job", t.name, "token", t.hold.Token(), "error", err)
		return cron.NotStored{}
	}
	return cron.Stored{}
}

// start runs a tick.
func (t *cronTerm) start(tick Tick) {
	ctx, cancel := context.WithCancelCause(context.WithValue(t.ctx, cronKey{}, true))
	returned := make(chan cronReturn, 1)
	t.cancel, t.returned = cancel, returned
	go t.tick(ctx, tick, returned) // joined by wait, unless the job is left behind as stuck
}

// tick calls the function and tells how it ended, however it did.
func (t *cronTerm) tick(ctx context.Context, tick Tick, returned chan<- cronReturn) {
	clock := t.campaign.client.Clock()
	began := clock.Now()
	result := cronReturn{exit: true, event: cron.Returned{Outcome: cron.Panicked, Reason: "the function ended its goroutine"}}
	defer func() {
		if value := recover(); value != nil {
			result = cronReturn{panic: newPanicError(value), event: cron.Returned{Outcome: cron.Panicked, Reason: fmt.Sprint(value)}}
		}
		result.event.Took = clock.Now().Sub(began)
		returned <- result
	}()
	err := t.fn(ctx, tick)
	result = cronReturn{event: cron.Returned{Outcome: cron.Done}}
	if err != nil {
		result.event = cron.Returned{Outcome: cron.Failed, Reason: err.Error()}
		t.campaign.settings.Logger.Warn("a job failed", "job", t.name, "id", tick.ID, "attempt", tick.Attempt, "error", err)
	}
}
