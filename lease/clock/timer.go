package clock

import (
	"sync"
	"time"
)

// tick is the channel side of a timer. Its owner's lock guards it, so that
// firing and clearing cannot interleave.
type tick chan struct{}

func newTick() tick { return make(tick, 1) }

// fire leaves a tick unless one is there already.
func (c tick) fire() {
	select {
	case c <- struct{}{}:
	default:
	}
}

// clear takes back a tick that nobody has received.
func (c tick) clear() {
	select {
	case <-c:
	default:
	}
}

// goTimer is a Timer on Go's timers. They measure another clock than now does,
// so each expiry only means "look again".
type goTimer struct {
	now   func() Instant
	slice time.Duration // longest sleep without looking at now
	ch    tick

	mu sync.Mutex
	// round grows with every Reset and Stop; an expiry of an older round finds
	// that it is void. Invariant: while armed, exactly one expiry of the present
	// round is pending.
	round uint64      // guarded by mu
	at    Instant     // guarded by mu
	timer *time.Timer // guarded by mu; the pending expiry, nil when disarmed
}

func newTimer(now func() Instant, slice time.Duration, at Instant) *goTimer {
	t := &goTimer{now: now, slice: slice, ch: newTick()}
	t.Reset(at)
	return t
}

func (t *goTimer) C() <-chan struct{} { return t.ch }

func (t *goTimer) Reset(at Instant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.disarm()
	t.at = at
	t.look()
}

func (t *goTimer) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.disarm()
}

// disarm voids what is pending and takes back an unreceived tick. The caller
// holds mu.
func (t *goTimer) disarm() {
	t.round++
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	t.ch.clear()
}

// look fires when the instant has come and otherwise sleeps on, never longer
// than one slice. The caller holds mu.
func (t *goTimer) look() {
	left := t.at.Sub(t.now())
	if left <= 0 {
		t.timer = nil
		t.ch.fire()
		return
	}
	round := t.round
	t.timer = time.AfterFunc(min(left, t.slice), func() { t.expired(round) })
}

func (t *goTimer) expired(round uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.round != round {
		return
	}
	t.look()
}
