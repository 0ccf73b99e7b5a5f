//writ:core

package concurrency

type core struct {
	events chan int // want `core: channel type: a core takes events and returns effects`
}

func (c *core) step() {
	go c.step() // want `core: go statement: one goroutine owns a core`
	select {    // want `core: select statement`
	case <-c.events: // want `core: channel receive`
	default:
	}
	c.events <- 1        // want `core: channel send`
	for range c.events { // want `core: range over a channel`
	}
	close(c.events) // want `core: close: a core has no channels`
}

func rangeOver[C ~chan int](c C) { // want `core: channel type`
	for range c { // want `core: range over a channel`
	}
}

func assert() {
	defer func() {
		_ = recover() // want `core: recover: a core that failed an assertion`
	}()
}
