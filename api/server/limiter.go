package server

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// maxLimited bounds the principals whose rates are remembered. One that was forgotten starts with a full burst.
const maxLimited = 10_000

// limiter bounds the rate of each principal, and how much goes on at a time altogether. The interceptor of the middleware
// library turns every refusal into a bare text, so that this is a stage of its own: reason and retry time must arrive.
type limiter struct {
	limits  Limits
	clock   clock.Clock
	metrics *metrics
	running atomic.Int64

	mu     sync.Mutex
	recent *list.List                        // guarded by mu; of *bucket, the least recently used last
	byName map[lease.Principal]*list.Element // guarded by mu; the same buckets
}

type bucket struct {
	principal lease.Principal
	limiter   *rate.Limiter
}

func newLimiter(limits Limits, clk clock.Clock, m *metrics) *limiter {
	return &limiter{limits: limits, clock: clk, metrics: m, recent: list.New(), byName: make(map[lease.Principal]*list.Element)}
}

func nothing() {}

// enter lets a request in; done must be called when it is over. What another node forwards was counted there.
func (l *limiter) enter(from *caller) (done func(), err error) {
	if !from.forwarded {
		if wait := l.take(from.principal); wait > 0 {
			l.metrics.refusedRate.Inc()
			e := lease.Errorf(lease.ReasonLimit, "%s asks more than %g times a second", from.principal, l.limits.RatePerSecond)
			e.RetryAfter = wait
			return nothing, e
		}
	}
	if l.limits.MaxConcurrent < 0 {
		return nothing, nil
	}
	if running := l.running.Add(1); running > int64(l.limits.MaxConcurrent) {
		l.running.Add(-1)
		l.metrics.refusedConcurrent.Inc()
		e := lease.Errorf(lease.ReasonLimit, "%d requests are under way on this node, which is its limit", l.limits.MaxConcurrent)
		e.RetryAfter = time.Second
		return nothing, e
	}
	return l.leave, nil
}

func (l *limiter) leave() { l.running.Add(-1) }

// take takes one token, or answers how long it will be until there is one.
func (l *limiter) take(p lease.Principal) (wait time.Duration) {
	if l.limits.RatePerSecond < 0 {
		return 0
	}
	// Any origin will do: only differences count.
	now := time.Unix(0, int64(l.clock.Now()))
	b := l.bucket(p)
	if b.AllowN(now, 1) {
		return 0
	}
	reservation := b.ReserveN(now, 1)
	defer reservation.CancelAt(now)
	return max(time.Millisecond, reservation.DelayFrom(now))
}

func (l *limiter) bucket(p lease.Principal) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.byName[p]; e != nil {
		l.recent.MoveToFront(e)
		return e.Value.(*bucket).limiter
	}
	if l.recent.Len() >= maxLimited {
		oldest := l.recent.Remove(l.recent.Back()).(*bucket)
		delete(l.byName, oldest.principal)
	}
	b := &bucket{p, rate.NewLimiter(rate.Limit(l.limits.RatePerSecond), l.limits.Burst)}
	l.byName[p] = l.recent.PushFront(b)
	return b.limiter
}
