package world

import (
	"fmt"
	"math/bits"
	"time"
)

// World is simulated real time, with what is going to happen in it.
type World struct {
	seed      uint64
	now       time.Duration
	queue     queue
	sequence  uint64
	events    uint64
	digest    uint64
	processes int
}

// New makes a world at T 0 in which nothing is going to happen.
func New(seed uint64) *World {
	w := &World{seed: seed}
	w.Note(seed)
	return w
}

// Seed is what every random choice of this world is derived from.
func (w *World) Seed() uint64 { return w.seed }

// Now is the present instant T.
func (w *World) Now() time.Duration { return w.now }

// Events is how many events have happened.
func (w *World) Events() uint64 { return w.events }

// At schedules do for an instant; one that has passed means now.
func (w *World) At(at time.Duration, do func()) { w.schedule(at, task{do: do}) }

func (w *World) schedule(at time.Duration, t task) {
	w.sequence++
	w.queue.push(w.now, max(at, w.now), w.sequence, t)
}

// After schedules do for after d.
func (w *World) After(d time.Duration, do func()) { w.At(w.now+d, do) }

// Next is when the next event happens; false if none is scheduled.
func (w *World) Next() (at time.Duration, ok bool) {
	h := w.queue.next()
	if h == nil {
		return 0, false
	}
	return (*h)[0].at, true
}

// Step lets the next event happen, and answers false if there is none.
func (w *World) Step() bool {
	h := w.queue.next()
	if h == nil {
		return false
	}
	e, t := w.queue.pop(h)
	if e.at < w.now {
		panic(fmt.Sprintf("world: an event of %v at %v", e.at, w.now))
	}
	w.now = e.at
	w.events++
	w.Note(uint64(e.at))
	w.Note(e.sequence)
	t.happen()
	return true
}

// Run lets everything happen that is scheduled up to and at an instant, and moves time there.
func (w *World) Run(until time.Duration) {
	for {
		at, ok := w.Next()
		if !ok || at > until {
			break
		}
		w.Step()
	}
	w.now = max(w.now, until)
}

// Note takes a value into the digest: whatever two runs of one seed must agree on.
func (w *World) Note(v uint64) { w.digest = mix(w.digest^v, digestKey) }

// NoteString takes a text into the digest.
func (w *World) NoteString(s string) { w.Note(hashString(s)) }

// Digest is a digest of everything that has happened so far, in order.
func (w *World) Digest() uint64 { return w.digest }

// mix is the multiply-and-fold step of wyhash.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xe7037ed1a0b428db)
	return hi ^ lo
}

const digestKey = 0x8ebc6af09c88c6e3

// hashString is FNV-1a, finished by mix.
func hashString(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h, uint64(len(s)))
}
