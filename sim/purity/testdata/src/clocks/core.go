//writ:core

package clocks

import (
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// Arithmetic on what events carry is what cores do.
func pure(at clock.Instant, wall time.Time, ttl time.Duration) bool {
	return at.After(0) && wall.Add(ttl).After(wall) && ttl > 2*time.Second
}

func impure(h clock.Holder) {
	_ = time.Now()               // want `core: must not use time.Now: the time is an input`
	_ = time.Since(time.Time{})  // want `core: must not use time.Since`
	_ = time.Until(time.Time{})  // want `core: must not use time.Until`
	time.Sleep(1)                // want `core: must not use time.Sleep: a core waits by returning a deadline`
	_ = time.After               // want `core: must not use time.After:`
	_ = time.AfterFunc           // want `core: must not use time.AfterFunc`
	_ = time.NewTimer            // want `core: must not use time.NewTimer`
	_ = time.NewTicker           // want `core: must not use time.NewTicker`
	_ = time.Tick                // want `core: must not use time.Tick`
	_ = time.Local               // want `core: must not use time.Local: the time zone is the machine's`
	_, _ = time.LoadLocation("") // want `core: must not use time.LoadLocation`
	var _ clock.Clock            // want `core: must not use clock.Clock: the time is an input`
	_ = clock.System()           // want `core: must not use clock.System`
	_ = h.Clock.Now()            // want `core: must not use clock.Clock` `core: must not use clock.Now`
}
