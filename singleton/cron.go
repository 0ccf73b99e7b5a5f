package singleton

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton/cron"
	"github.com/writ-io/writ/singleton/schedule"
)

// Tick is one run of a job: its slot, the attempt, and an id for its effects. See [cron.Tick].
type Tick = cron.Tick

// ErrOvertaken is the cause of the end of a tick's context under cron.OverlapCancelOther, when the next slot is due.
var ErrOvertaken = errors.New("singleton: the next slot is due")

// CronOption changes how one job is run.
type CronOption func(*cronSettings)

type cronSettings struct {
	zone   string
	policy cron.Policy
	run    []Option
}

// WithZone names the zone of the tz database that the spec is read in, unless it names one itself. The default is UTC.
func WithZone(name string) CronOption { return func(s *cronSettings) { s.zone = name } }

// WithPolicy says how to treat slots that are missed or overlap, and the jitter.
func WithPolicy(p cron.Policy) CronOption { return func(s *cronSettings) { s.policy = p } }

// WithRun passes options of [Singleton.Run] on, such as [TTL] or [Preferred]. The metadata of the lease is the job's own.
func WithRun(opts ...Option) CronOption {
	return func(s *cronSettings) { s.run = append(s.run, opts...) }
}

// cronMetadata is by what a lease shows that it is that of a job.
type cronMetadata struct {
	Writ string `json:"writ"`
	Spec string `json:"spec"`
	Zone string `json:"zone"`
}

const cronMark = "cron"

// Cron runs fn at every slot of a spec, in one process of all that call it, until ctx ends. Package schedule says what specs
// there are and what becomes of them under daylight saving; package cron, what becomes of slots that are missed or overlap,
// which the default is to run the latest of, within an hour, and to skip.
//
// The process that holds the resource named job claims each slot durably before it runs it. If it dies meanwhile, the next
// one runs the slot again, as the next attempt under the same [Tick.ID], as soon as the lease has run out; the same goes for
// a tick that was interrupted by the end of ctx or a loss of the lease, unless it returned nil. An error that fn returns
// otherwise is recorded, logged, and not tried again. The checkpoint of the resource is the state of the job, so that
// [Checkpoint] is refused; people see it by [Singleton.Job] and steer the job by [Singleton.PauseJob], [Singleton.ResumeJob]
// and [Singleton.TriggerJob]. A job that is called otherwise is another job, without history.
//
// The context of fn is as that of [Singleton.Run], and ends with [ErrOvertaken] when the next slot cancels it.
//
// Cron returns, after fn has returned: an error that wraps ctx's cause; INVALID for a job, spec, zone or policy that cannot
// be used, for fn nil, for a job that runs in this process already, and for a state of a version that is not known, which is
// left as it is; DENIED where the policy does not let it acquire the job or read its control document; and otherwise as
// Run. If fn panics or calls runtime.Goexit, that is recorded, the lease is released, and Cron does as Run does.
func (s *Singleton) Cron(ctx context.Context, job, spec string, fn func(context.Context, Tick) error, opts ...CronOption) error {
	j, err := s.newCronJob(job, spec, fn, opts)
	if err != nil {
		return err
	}
	if err := s.cron.join(j); err != nil {
		return err
	}
	defer s.cron.leave(j)
	if err := j.campaign.run(ctx); err != nil || ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("singleton: %s: %w", job, context.Cause(ctx))
}

// cronJob is one call of Cron.
type cronJob struct {
	name     string
	fn       func(context.Context, Tick) error
	machine  cron.Config
	campaign *campaign
	board    *cronBoard

	alarm cronAlarm // guarded by the board's mu

	poke chan struct{} // wakes whoever waits: for the alarm, a change of the control document, or the resource

	mu      sync.Mutex
	steered bool // guarded by mu; the control document has changed
	queue   bool // guarded by mu; the resource is to be queued for rather than watched
	held    bool // guarded by mu; in a term
}

func (s *Singleton) newCronJob(job, spec string, fn func(context.Context, Tick) error, opts []CronOption) (*cronJob, error) {
	if fn == nil {
		return nil, lease.Invalid("fn", "is nil", "pass the function to run")
	}
	var set cronSettings
	for _, o := range opts {
		if o == nil {
			return nil, lease.Invalid("options", "hold nil", "leave it out")
		}
		o(&set)
	}
	parsed, err := schedule.Parse(spec, set.zone)
	if err != nil {
		return nil, err
	}
	j := &cronJob{
		name: job, fn: fn, machine: cron.Config{Job: job, Schedule: parsed, Policy: set.policy}, board: s.cron,
		poke: make(chan struct{}, 1),
	}
	if _, err := cron.NewMachine(j.machine); err != nil {
		return nil, err
	}
	metadata, err := json.Marshal(cronMetadata{Writ: cronMark, Spec: parsed.Spec(), Zone: parsed.Zone().String()})
	if err != nil {
		return nil, err
	}
	j.campaign, err = s.newCampaign(job, j.work, append(set.run, Metadata(metadata)))
	if err != nil {
		return nil, err
	}
	j.campaign.acquire = j.acquire
	j.queue = j.campaign.settings.priority != nil
	return j, nil
}

// wake wakes the job, which looks around.
func (j *cronJob) wake() {
	select {
	case j.poke <- struct{}{}:
	default:
	}
}

func (j *cronJob) steer() {
	j.mu.Lock()
	j.steered = true
	j.mu.Unlock()
	j.wake()
}

func (j *cronJob) takeSteered() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	was := j.steered
	j.steered = false
	return was
}

func (j *cronJob) setHeld(held bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.held = held
}

func (j *cronJob) isHeld() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.held
}

func (j *cronJob) enqueue() {
	j.mu.Lock()
	j.queue = true
	j.mu.Unlock()
	j.wake()
}

func (j *cronJob) queued() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.queue
}

// outranks tells whether this process is in a better region than a holder.
func (j *cronJob) outranks(holder lease.Holder) bool {
	theirs := j.campaign.settings.Config
	theirs.Region = holder.Region
	return j.campaign.settings.rank() > theirs.rank()
}

// acquire asks for the job's resource. Thousands of processes that stand by would keep the quorum busy if they queued: they
// watch, and ask when the resource is free.
func (j *cronJob) acquire(ctx context.Context) (*lease.Hold, error) {
	client, options := j.campaign.client, j.campaign.settings.acquire()
	for {
		if j.queued() {
			return client.Acquire(ctx, j.name, options)
		}
		if !j.board.enter(ctx) {
			return nil, context.Cause(ctx)
		}
		hold, err := client.TryAcquire(ctx, j.name, options)
		j.board.exit()
		if err == nil {
			return hold, nil
		}
		var said lease.Error
		if own := (*lease.Error)(nil); errors.As(err, &own) {
			said = *own
		}
		switch {
		case errors.Is(err, lease.ErrFencing), said.Reason == lease.ReasonHeld && j.outranks(said.Holder):
			// What is pending belongs to who waits, and only who waits is given way to.
			return client.Acquire(ctx, j.name, options)
		case said.Reason == lease.ReasonLimit && said.RetryAfter > 0:
			// The quorum is busy, not unwilling. Jobs that begin together are not to come back together.
			j.rest(ctx, said.RetryAfter+rand.N(said.RetryAfter))
			continue
		case !errors.Is(err, lease.ErrHeld):
			return nil, err
		}
		j.board.observe(j)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-j.poke:
		}
	}
}

// rest waits, or until ctx ends.
func (j *cronJob) rest(ctx context.Context, span time.Duration) {
	clk := j.campaign.clock
	timer := clk.NewTimer(clk.Now().Add(span))
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-ctx.Done():
	}
}

// cronKey marks the context of a tick.
type cronKey struct{}

const (
	// cronCallLimit bounds the calls of all jobs of a process that are under way at once, and cronStoreLimit those that store,
	// which share messages.
	cronCallLimit  = 64
	cronStoreLimit = 1024
)

// cronDebounce is how long to wait for more jobs before their resources are watched.
const cronDebounce = 50 * time.Millisecond
