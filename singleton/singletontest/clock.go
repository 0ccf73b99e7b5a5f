package singletontest

import (
	"sync"
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// processClock follows a base clock, unless its process is paused; when that ends it jumps to where it would be, as a clock
// does that counts suspend. Its timers fire then.
type processClock struct {
	base    clock.Clock
	manual  *clock.Manual
	timer   clock.Timer // of the base, for the earliest timer
	stop    chan struct{}
	stopped chan struct{}

	mu     sync.Mutex
	last   clock.Instant // of the base, to which manual was advanced; guarded by mu
	paused bool          // guarded by mu
}

var _ clock.Clock = (*processClock)(nil)

func newProcessClock(base clock.Clock) *processClock {
	c := &processClock{
		base: base, manual: clock.NewManual(base.Now()), timer: base.NewTimer(clock.Never), last: base.Now(),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	c.manual.SetWall(base.Wall())
	go c.run()
	return c
}

func (c *processClock) run() {
	defer close(c.stopped)
	for {
		select {
		case <-c.timer.C():
			c.follow()
		case <-c.stop:
			return
		}
	}
}

func (c *processClock) close() {
	close(c.stop)
	<-c.stopped
	c.timer.Stop()
}

// follow moves the clock to where the base is, and sees to it that the earliest timer will fire.
func (c *processClock) follow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused {
		return
	}
	now := c.base.Now()
	c.manual.Advance(now.Sub(c.last))
	c.last = now
	if at, ok := c.manual.NextTimer(); ok {
		c.timer.Reset(now.Add(at.Sub(c.manual.Now())))
	}
}

func (c *processClock) pause(paused bool) {
	c.follow()
	c.mu.Lock()
	c.paused = paused
	c.mu.Unlock()
	c.follow()
}

// Now implements clock.Clock.
func (c *processClock) Now() clock.Instant {
	c.follow()
	return c.manual.Now()
}

// Wall implements clock.Clock.
func (c *processClock) Wall() time.Time {
	c.follow()
	return c.manual.Wall()
}

// NewTimer implements clock.Clock.
func (c *processClock) NewTimer(at clock.Instant) clock.Timer {
	c.follow()
	t := processTimer{c.manual.NewTimer(at), c}
	c.follow()
	return t
}

type processTimer struct {
	clock.Timer
	clock *processClock
}

func (t processTimer) Reset(at clock.Instant) {
	t.Timer.Reset(at)
	t.clock.follow()
}
