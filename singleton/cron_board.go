package singleton

import (
	"container/heap"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/singleton/cron"
)

// cronBoard is what all jobs of a Singleton share: one timer for all alarms, one watch of all control documents, and few
// watches of the resources that this process waits for. Its goroutines run while there are jobs.
type cronBoard struct {
	singleton *Singleton
	slots     chan struct{} // bounds the calls under way, but those that store
	stores    chan struct{} // bounds those

	mu       sync.Mutex
	jobs     map[string]*cronJob // guarded by mu
	alarms   cronAlarms          // guarded by mu
	pending  map[string]*cronJob // guarded by mu; jobs whose resources are to be watched
	scopes   []*cronScope        // guarded by mu
	watching map[string]bool     // guarded by mu; the jobs in a scope or pending
	run      *cronRun            // guarded by mu; nil without jobs
}

// cronRun is the goroutines of a board, from its first job to its last.
type cronRun struct {
	ctx    context.Context
	cancel context.CancelFunc
	kick   chan struct{} // the earliest alarm has changed, or there is something to watch
	loops  sync.WaitGroup
}

// cronScope is one watch of resources.
type cronScope struct {
	prefix string
	cancel context.CancelFunc
	failed bool // guarded by the board's mu; the jobs are queued for
}

func newCronBoard(s *Singleton) *cronBoard {
	return &cronBoard{
		singleton: s, slots: make(chan struct{}, cronCallLimit), stores: make(chan struct{}, cronStoreLimit), jobs: make(map[string]*cronJob),
		pending: make(map[string]*cronJob), watching: make(map[string]bool),
	}
}

// enter takes one of the places for calls under way. It returns false if ctx ends before.
func (b *cronBoard) enter(ctx context.Context) bool { return take(ctx, b.slots) }

func (b *cronBoard) exit() { <-b.slots }

// enterStore is enter for a call that stores.
func (b *cronBoard) enterStore(ctx context.Context) bool { return take(ctx, b.stores) }

func (b *cronBoard) exitStore() { <-b.stores }

func take(ctx context.Context, places chan<- struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// join takes a job in.
func (b *cronBoard) join(j *cronJob) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.jobs[j.name] != nil {
		return lease.Invalid("job", "runs in this process already", "give each job a name of its own")
	}
	b.jobs[j.name] = j
	j.alarm = cronAlarm{job: j, index: -1}
	if b.run == nil {
		ctx, cancel := context.WithCancel(context.Background())
		r := &cronRun{ctx: ctx, cancel: cancel, kick: make(chan struct{}, 1)}
		b.run = r
		r.loops.Go(func() { b.loop(r) })
		r.loops.Go(func() { b.watchControls(r) })
	}
	return nil
}

// leave lets a job go. With the last one it waits for the board's goroutines.
func (b *cronBoard) leave(j *cronJob) {
	b.mu.Lock()
	b.disarmLocked(j)
	delete(b.jobs, j.name)
	delete(b.pending, j.name)
	delete(b.watching, j.name)
	var last *cronRun
	if len(b.jobs) == 0 {
		last, b.run, b.scopes = b.run, nil, nil
	}
	b.mu.Unlock()
	if last != nil {
		last.cancel()
		last.loops.Wait()
	}
}

// job returns the job of a name, if it runs in this process.
func (b *cronBoard) job(name string) *cronJob {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.jobs[name]
}

// cronGather is the grid on which alarms ring: jobs that wake together store together, in one message and one commit, which
// costs a fraction of what they would cost one by one. Slots fall on whole seconds, so that only jitter and retries are late
// by it.
const cronGather = 100 * time.Millisecond

// gathered returns the first point of the grid that is not before a time.
func gathered(at time.Time) time.Time {
	if early := at.Truncate(cronGather); early.Before(at) {
		return early.Add(cronGather)
	}
	return at
}

// arm sets the time of day at which to wake a job, or a moment later; zero for none.
func (b *cronBoard) arm(j *cronJob, at time.Time) {
	if at.IsZero() {
		b.disarm(j)
		return
	}
	at = gathered(at)
	b.mu.Lock()
	defer b.mu.Unlock()
	if j.alarm.index >= 0 && j.alarm.at.Equal(at) {
		return
	}
	j.alarm.at = at
	if j.alarm.index < 0 {
		heap.Push(&b.alarms, &j.alarm)
	} else {
		heap.Fix(&b.alarms, j.alarm.index)
	}
	if j.alarm.index == 0 {
		b.run.poke()
	}
}

func (b *cronBoard) disarm(j *cronJob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disarmLocked(j)
}

func (b *cronBoard) disarmLocked(j *cronJob) {
	if j.alarm.index >= 0 {
		heap.Remove(&b.alarms, j.alarm.index)
	}
}

func (r *cronRun) poke() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// cronLook is how often the time of day is looked at while there are alarms: it may have been set.
const cronLook = time.Second

// loop wakes jobs in time, until the last one has left.
func (b *cronBoard) loop(r *cronRun) {
	c := b.singleton.client.Clock()
	timer := c.NewTimer(clock.Never)
	defer timer.Stop()
	var planAt clock.Instant // when to watch what is pending, 0 for never
	looked, wall := c.Now(), c.Wall()
	for {
		now, day := c.Now(), c.Wall()
		if day.Sub(wall) < now.Sub(looked)-cronLook {
			b.ringAll() // what is due a moment after now may not wait for hours
		}
		looked, wall = now, day
		next := b.ring(day)
		if planAt == 0 && b.hasPending() {
			planAt = now.Add(cronDebounce)
		}
		if planAt != 0 && !now.Before(planAt) {
			b.plan(r)
			planAt = 0
		}
		at := clock.Never
		if next >= 0 {
			at = now.Add(next)
		}
		if planAt != 0 {
			at = min(at, planAt)
		}
		if at == clock.Never {
			timer.Stop()
		} else {
			timer.Reset(at)
		}
		select {
		case <-r.ctx.Done():
			return
		case <-timer.C():
		case <-r.kick:
		}
	}
}

// ringAll wakes the jobs that have an alarm, because the time of day was set back. Alarms stay set.
func (b *cronBoard) ringAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.alarms {
		a.job.wake()
	}
}

// ring wakes the jobs whose alarm is due, and returns how long to wait for the next one; negative without any.
func (b *cronBoard) ring(wall time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.alarms) > 0 && !b.alarms[0].at.After(wall) {
		j := b.alarms[0].job
		heap.Pop(&b.alarms)
		j.wake()
	}
	if len(b.alarms) == 0 {
		return -1
	}
	return min(b.alarms[0].at.Sub(wall), cronLook)
}

// cronReadControls is how often jobs read their control documents while those cannot be watched.
const cronReadControls = 15 * time.Second

// watchControls tells jobs when their control document has changed. A program that may read those of its own jobs alone, and
// not watch all, has each job read its own now and then.
func (b *cronBoard) watchControls(r *cronRun) {
	c := b.singleton.client.Clock()
	timer := c.NewTimer(clock.Never)
	defer timer.Stop()
	for warned := false; ; {
		err := b.followControls(r.ctx)
		if r.ctx.Err() != nil || errors.Is(err, lease.ErrClosed) {
			return
		}
		if !warned {
			warned = true
			b.singleton.config.Logger.Warn("control documents cannot be watched, and are read now and then",
				"prefix", cron.ControlPrefix, "every", cronReadControls, "error", err)
		}
		timer.Reset(c.Now().Add(cronReadControls))
		select {
		case <-r.ctx.Done():
			return
		case <-timer.C():
		}
		b.steerHeld()
	}
}

// followControls is watchControls as long as nothing goes wrong.
func (b *cronBoard) followControls(ctx context.Context) error {
	for event, err := range b.singleton.client.Watch(ctx, lease.WatchOptions{Prefix: cron.ControlPrefix}) {
		if err != nil {
			return err
		}
		if event.Info.Resource == "" || event.Info.State == lease.Held {
			continue // whoever holds it may be about to write
		}
		if j := b.job(strings.TrimPrefix(string(event.Info.Resource), cron.ControlPrefix)); j != nil {
			j.steer()
		}
	}
	return ctx.Err()
}

// steerHeld has the jobs that are held here read their control document. The others read it when they are acquired.
func (b *cronBoard) steerHeld() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		if j.isHeld() {
			j.steer()
		}
	}
}

// observe has a job woken when its resource is free, if it is not yet.
func (b *cronBoard) observe(j *cronJob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.watching[j.name] || b.run == nil {
		return
	}
	b.watching[j.name] = true
	for _, s := range b.scopes {
		if strings.HasPrefix(j.name, s.prefix) {
			if s.failed {
				j.enqueue()
			}
			return // it wakes every job that has joined, whether or not it was observed
		}
	}
	b.pending[j.name] = j
	b.run.poke()
}

func (b *cronBoard) hasPending() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.pending) > 0
}

// plan begins to watch the resources of the pending jobs.
func (b *cronBoard) plan(r *cronRun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.run != r {
		return
	}
	var names []string
	for name := range b.pending {
		names = append(names, name)
	}
	clear(b.pending)
	prefixes := cronPrefixes(names)
	if len(b.scopes)+len(prefixes) > cronScopes {
		for _, s := range b.scopes {
			s.cancel()
			prefixes = append(prefixes, s.prefix)
		}
		prefixes, b.scopes = []string{commonPrefix(prefixes)}, nil
	}
	for _, prefix := range prefixes {
		ctx, cancel := context.WithCancel(r.ctx)
		scope := &cronScope{prefix: prefix, cancel: cancel}
		b.scopes = append(b.scopes, scope)
		r.loops.Go(func() {
			defer cancel()
			b.watchResources(ctx, scope)
		})
	}
}

// watchResources wakes jobs whose resource is free, or held in a worse region than this one. If it may not watch, they
// queue.
func (b *cronBoard) watchResources(ctx context.Context, scope *cronScope) {
	for event, err := range b.singleton.client.Watch(ctx, lease.WatchOptions{Prefix: scope.prefix}) {
		if err != nil {
			if ctx.Err() == nil {
				b.singleton.config.Logger.Warn("jobs cannot be watched, and are queued for", "prefix", scope.prefix, "error", err)
				b.fail(scope)
			}
			return
		}
		if event.Info.Resource == "" {
			continue
		}
		j := b.job(string(event.Info.Resource))
		if j != nil && (event.Info.State != lease.Held && event.Info.State != lease.Ending || j.outranks(event.Info.Holder)) {
			j.wake()
		}
	}
}

// fail has the jobs of a scope queue from now on.
func (b *cronBoard) fail(scope *cronScope) {
	b.mu.Lock()
	defer b.mu.Unlock()
	scope.failed = true
	prefix := scope.prefix
	for name, j := range b.jobs {
		if strings.HasPrefix(name, prefix) {
			j.enqueue()
		}
	}
}

// cronScopes is how many watches of resources there are at most.
const cronScopes = 8

// cronPrefixes returns few prefixes that cover all names, each as long as it can be: one for each first segment, or one in
// all if there are many.
func cronPrefixes(names []string) []string {
	groups := make(map[string]string)
	for _, name := range names {
		first, _, _ := strings.Cut(name, "/")
		if prefix, ok := groups[first]; ok {
			name = commonPrefix([]string{prefix, name})
		}
		groups[first] = name
	}
	var prefixes []string
	for _, prefix := range groups {
		prefixes = append(prefixes, prefix)
	}
	if len(prefixes) > cronScopes {
		return []string{commonPrefix(prefixes)}
	}
	return prefixes
}

func commonPrefix(names []string) string {
	prefix := names[0]
	for _, name := range names[1:] {
		n := 0
		for n < len(prefix) && n < len(name) && prefix[n] == name[n] {
			n++
		}
		prefix = prefix[:n]
	}
	return strings.ToValidUTF8(prefix, "")
}
