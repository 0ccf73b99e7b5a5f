package clock_test

import (
	"fmt"
	"time"

	"github.com/writ-io/writ/lease/clock"
)

func ExampleShrink() {
	window := clock.Shrink(10*time.Second, clock.DefaultDriftPPM, clock.DefaultMargin)
	fmt.Println(window)
	// Output: 9.980004997s
}

// Validity counts from before the request is sent.
func ExampleDrift_BelieveUntil() {
	c := clock.NewManual(clock.Instant(time.Hour))
	sent := c.Now()
	c.Advance(200 * time.Millisecond) // the round trip
	until := clock.DefaultDrift().BelieveUntil(sent, 10*time.Second)
	fmt.Println(until.Sub(c.Now()))
	// Output: 9.780004997s
}

func ExampleManual() {
	c := clock.NewManual(clock.Instant(time.Hour))
	timer := c.NewTimer(c.Now().Add(time.Minute))
	c.Advance(59 * time.Second)
	select {
	case <-timer.C():
		fmt.Println("early")
	default:
		fmt.Println("waiting")
	}
	c.Advance(time.Second)
	<-timer.C()
	fmt.Println("fired")
	// Output:
	// waiting
	// fired
}

func ExampleSystem() {
	c := clock.System()
	timer := c.NewTimer(c.Now().Add(time.Millisecond))
	defer timer.Stop()
	<-timer.C()
	fmt.Println("a millisecond has passed")
	// Output: a millisecond has passed
}

func ExampleWatchdog() {
	c := clock.NewManual(clock.Instant(time.Hour))
	var dog clock.Watchdog
	dog.Observe(c.Now(), c.Wall())
	c.Advance(time.Second)
	c.JumpWall(time.Minute) // thawed: the time of day was corrected
	jump, suspect := dog.Observe(c.Now(), c.Wall())
	fmt.Println(jump, suspect)
	// Output: 1m0s true
}
