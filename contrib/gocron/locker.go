package gocron

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-co-op/gocron/v2"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// ErrNotLocked is what [Locker.Lock] returns, with the holder, when another scheduler runs the job or has just run it, and
// what a function wrapped by [Locker.Under] returns if gocron has not locked its job.
var ErrNotLocked = errors.New("gocron: the job is not locked by this scheduler")

// DefaultMinHold is [LockerConfig.MinHold] unless it is configured.
const DefaultMinHold = 2 * time.Second

// LockerConfig says how jobs are locked.
type LockerConfig struct {
	// Prefix is put before names of jobs to make names of resources, such as "reports/".
	Prefix string
	// TTL is how long others wait for a scheduler that died. 0 stands for lease.DefaultTTL.
	TTL time.Duration
	// MinHold is for how long a job stays locked at least, however short it is: longer than the clocks of schedulers differ,
	// and shorter than the job's interval. 0 stands for [DefaultMinHold].
	MinHold time.Duration
}

// Locker locks jobs by leases of their names.
type Locker struct {
	client *lease.Client
	config LockerConfig
	clock  clock.Clock
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu      sync.Mutex
	locked  map[string]*lock // guarded by mu; by the name of the job
	closed  bool             // guarded by mu
	running sync.WaitGroup   // releases that wait; Add under mu while not closed
}

var _ gocron.Locker = (*Locker)(nil)

// NewLocker makes a locker. The client stays the caller's to close, after [Locker.Close]. Errors: INVALID, naming what
// cannot be used.
func NewLocker(client *lease.Client, cfg LockerConfig) (*Locker, error) {
	if client == nil {
		return nil, lease.Invalid("client", "is nil", "pass what lease.Dial returned")
	}
	if _, err := lease.ParseResource(cfg.Prefix + "job"); err != nil {
		return nil, lease.Invalid("prefix", fmt.Sprintf("is %q, which makes no names of resources", cfg.Prefix), `use one such as "reports/"`)
	}
	switch {
	case cfg.TTL < 0:
		return nil, lease.Invalid("ttl", "is negative", "leave it out for the default")
	case cfg.MinHold < 0:
		return nil, lease.Invalid("min_hold", "is negative", "leave it out for the default")
	case cfg.MinHold == 0:
		cfg.MinHold = DefaultMinHold
	}
	l := &Locker{client: client, config: cfg, clock: client.Clock(), locked: make(map[string]*lock)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l, nil
}

// lock is a job that is locked.
type lock struct {
	locker *Locker
	key    string
	held   *held
	since  clock.Instant
	once   sync.Once
}

// lockLimit bounds how long a job waits for the quorum to answer; gocron may not run it then.
const lockLimit = 5 * time.Second

// Lock locks a job for one run. Errors: [ErrNotLocked] if another scheduler has it, or this one still has; otherwise why
// the quorum could not be asked.
func (l *Locker) Lock(ctx context.Context, key string) (gocron.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, lockLimit)
	defer cancel()
	since := l.clock.Now()
	hold, err := l.client.TryAcquire(ctx, l.config.Prefix+key, lease.AcquireOptions{TTL: l.config.TTL})
	if errors.Is(err, lease.ErrHeld) {
		return nil, fmt.Errorf("%w: %w", ErrNotLocked, err)
	}
	if err != nil {
		return nil, err
	}
	k := &lock{locker: l, key: key, held: newHeld(hold), since: since}
	l.mu.Lock()
	if !l.closed {
		l.running.Add(1)
		l.locked[key] = k
		l.mu.Unlock()
		return k, nil
	}
	l.mu.Unlock()
	_ = k.held.release(ctx) // if nobody can be told, it runs out
	return nil, fmt.Errorf("%w: the locker is closed", ErrNotLocked)
}

// Unlock releases the job when its functions have returned, and not before MinHold is over; gocron does not wait for that.
func (k *lock) Unlock(context.Context) error {
	k.once.Do(func() { go k.unlock() }) // joined by Close
	return nil
}

func (k *lock) unlock() {
	l := k.locker
	defer l.running.Done()
	l.mu.Lock()
	if l.locked[k.key] == k {
		delete(l.locked, k.key)
	}
	l.mu.Unlock()
	k.held.stop(l.ctx)
	timer := l.clock.NewTimer(k.since.Add(l.config.MinHold))
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-k.held.hold.Done():
	case <-l.ctx.Done():
	}
	_ = k.held.release(l.ctx) // if nobody can be told, it runs out
}

// Under returns a task that runs fn under the lock of the job of that name: its context ends when the lease is lost. The
// job must be named so by gocron.WithName. Where the job is not locked it returns [ErrNotLocked].
func (l *Locker) Under(key string, fn func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		l.mu.Lock()
		k := l.locked[key]
		l.mu.Unlock()
		if k == nil {
			return fmt.Errorf("%w: %s", ErrNotLocked, key)
		}
		return k.held.run(ctx, fn)
	}
}

// Close locks no job any more, and waits until all that are locked have been unlocked and released, now without regard to
// MinHold. If ctx ends before, it returns its error, and the rest happens later. Shut the scheduler down first, which
// waits for jobs.
func (l *Locker) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	ended := make(chan struct{})
	go func() { // ends with the last lock
		defer close(ended)
		l.running.Wait()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("gocron: jobs are still locked: %w", context.Cause(ctx))
	}
}
