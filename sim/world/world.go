package world

import (
	"fmt"
	"math/bits"
	"time"
)

// World is simulated real time, with what is going to happen in it.
type World struct {
	seed     uint64
	now      time.Duration
	heap     []event
	sequence uint64
	events   uint64
	digest   uint64
}

// event is something that happens at an instant. Events of one instant happen in the order in which they were scheduled.
type event struct {
	at       time.Duration
	sequence uint64
	do       func()
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
func (w *World) At(at time.Duration, do func()) {
	w.sequence++
	w.push(event{at: max(at, w.now), sequence: w.sequence, do: do})
}

// After schedules do for after d.
func (w *World) After(d time.Duration, do func()) { w.At(w.now+d, do) }

// Next is when the next event happens; false if none is scheduled.
func (w *World) Next() (at time.Duration, ok bool) {
	if len(w.heap) == 0 {
		return 0, false
	}
	return w.heap[0].at, true
}

// Step lets the next event happen, and answers false if there is none.
func (w *World) Step() bool {
	if len(w.heap) == 0 {
		return false
	}
	e := w.pop()
	if e.at < w.now {
		panic(fmt.Sprintf("world: an event of %v at %v", e.at, w.now))
	}
	w.now = e.at
	w.events++
	w.Note(uint64(e.at) ^ e.sequence<<1)
	e.do()
	return true
}

// Run lets everything happen that is scheduled up to and at an instant, and moves time there.
func (w *World) Run(until time.Duration) {
	for len(w.heap) > 0 && w.heap[0].at <= until {
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

// push and pop keep the heap, whose parents come before their four children: that is flatter than a binary one, and so
// faster for so many short-lived events.

func (e event) before(o event) bool {
	return e.at < o.at || e.at == o.at && e.sequence < o.sequence
}

func (w *World) push(e event) {
	w.heap = append(w.heap, e)
	i := len(w.heap) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if !e.before(w.heap[parent]) {
			break
		}
		w.heap[i] = w.heap[parent]
		i = parent
	}
	w.heap[i] = e
}

func (w *World) pop() event {
	top := w.heap[0]
	last := len(w.heap) - 1
	e := w.heap[last]
	w.heap[last] = event{}
	w.heap = w.heap[:last]
	if last == 0 {
		return top
	}
	i := 0
	for {
		child := 4*i + 1
		if child >= last {
			break
		}
		least := child
		for c := child + 1; c < min(child+4, last); c++ {
			if w.heap[c].before(w.heap[least]) {
				least = c
			}
		}
		if !w.heap[least].before(e) {
			break
		}
		w.heap[i] = w.heap[least]
		i = least
	}
	w.heap[i] = e
	return top
}

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
