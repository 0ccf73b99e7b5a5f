package bubble

import (
	"sync"
	"testing"
	"time"
)

// Timers that nobody waits for fire in the goroutine that looks at them next. Here many look at once, which crashes the
// race detector if they are on two processors.
func TestTimersThatFireTogether(t *testing.T) {
	for range 20 {
		Test(t, func(*testing.T) {
			var running sync.WaitGroup
			for range 8 {
				running.Go(func() {
					for range 50 {
						timers := make([]*time.Timer, 20)
						for i := range timers {
							timers[i] = time.NewTimer(time.Second)
						}
						time.Sleep(2 * time.Second)
						for i, timer := range timers {
							select {
							case <-timer.C:
							default:
								t.Errorf("timer %d did not fire", i)
							}
						}
					}
				})
			}
			running.Wait()
		})
	}
}
