//writ:core

package quorum

import (
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// gather lets a round wait a moment for those whom the last one answered. Callers that work in a loop ask again together,
// but later than it takes to start a round with those that waited meanwhile: left to themselves they form two groups that
// take turns, and every round carries half of them. A round that waits for both costs nobody anything.
//
// Where callers do not come back at once, waiting does not pay, and is tried less and less.
type gather struct {
	began    clock.Instant // when the round in flight was started
	answered int           // requests that the last round answered
	queued   int           // requests that waited when it was done
	until    clock.Instant // the next round does not wait longer
	held     bool          // it has waited
	missed   int           // how often in a row waiting has not paid
	rest     int           // rounds that start at once, before waiting is tried again
}

const (
	// A round waits for at most as long as the last one took, and never longer than this.
	gatherMost = 2 * time.Millisecond
	// gatherEnough requests need not wait for more.
	gatherEnough = 128
	// gatherRest is the most rounds in a row that start at once after waiting has not paid.
	gatherRest = 32
)

// holds tells whether a round should wait, with that many requests in the queue.
func (g *gather) holds(now clock.Instant, queued int) bool {
	wait := 0 < queued && queued < g.enough() && now.Before(g.until)
	g.held = g.held || wait
	return wait
}

// enough is how many requests a round need not wait beyond: everybody's, if there are few.
func (g *gather) enough() int { return min(g.answered+g.queued, gatherEnough) }

// started notes that a round is started with that many requests, and learns from it.
func (g *gather) started(now clock.Instant, queued int) {
	if g.held {
		if came := queued - g.queued; queued >= g.enough() || 4*came >= 3*g.answered {
			g.missed = 0
		} else {
			g.missed++
			g.rest = min(1<<min(g.missed, 5), gatherRest)
		}
	}
	g.began, g.until, g.held = now, 0, false
}

// done notes that a round has answered so many requests, while so many wait.
func (g *gather) done(now clock.Instant, answered, queued int) {
	if g.rest > 0 {
		g.rest--
		return
	}
	g.answered, g.queued = answered, queued
	g.until = now.Add(min(now.Sub(g.began), gatherMost))
}
