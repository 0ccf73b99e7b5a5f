package clock

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-io/writ/lease/clock/bubble"
)

// A suspend is time that passes on the suspend-aware clock while Go's timers
// stand still: here the clock jumps by an hour under an armed timer.
func TestTimerNoticesSuspendWithinOneSlice(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		start := time.Now()
		var slept atomic.Int64
		now := func() Instant {
			return firstInstant.Add(time.Since(start) + time.Duration(slept.Load()))
		}
		timer := newTimer(now, maxSlice, now().Add(30*time.Minute))
		defer timer.Stop()

		time.Sleep(time.Minute)
		slept.Store(int64(time.Hour))
		resumed := time.Now()
		<-timer.C()
		if late := time.Since(resumed); late > maxSlice {
			t.Fatalf("noticed the suspend %v after the resume, want at most %v", late, maxSlice)
		}
	})
}

// Go's clock may run ahead of the clock that the timer serves; the timer must
// then sleep on instead of firing early.
func TestTimerSleepsOnWhenWokenEarly(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		start := time.Now()
		slow := func() Instant { return firstInstant.Add(time.Since(start) * 9 / 10) }
		at := slow().Add(time.Second)
		timer := newTimer(slow, maxSlice, at)
		defer timer.Stop()
		<-timer.C()
		if now := slow(); now.Before(at) {
			t.Fatalf("fired %v early", at.Sub(now))
		}
	})
}

// An expiry can be on its way while Reset or Stop takes the lock; it must find
// that it is void.
func TestTimerIgnoresAnExpiryOfAnOlderRound(t *testing.T) {
	var now Instant = 1
	timer := newTimer(func() Instant { return now }, maxSlice, Instant(time.Hour))
	stale := timer.round
	timer.Stop()
	now = Instant(2 * time.Hour)
	timer.expired(stale)
	select {
	case <-timer.C():
		t.Fatal("fired after Stop")
	default:
	}
}
