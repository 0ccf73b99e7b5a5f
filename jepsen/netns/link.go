package netns

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"time"
)

// Shape is what happens to what one party sends to another. The zero value passes everything on at once.
type Shape struct {
	// Delay is how long a packet is under way, and Jitter how much longer at most; packets that overtake each other for
	// that are kept in order unless Reorder says otherwise.
	Delay, Jitter time.Duration
	// Loss, Duplicate and Reorder are the shares of the packets that are lost, arrive twice, and may overtake those sent
	// before them: 0 to 1.
	Loss, Duplicate, Reorder float64
	// Rate is how much the link carries, in bytes per second; 0: any amount. What waits for longer than Queue is dropped.
	Rate int
	// Queue is how long a packet may wait for its turn on a link with a Rate. 0 means [DefaultQueue].
	Queue time.Duration
}

// DefaultQueue is how long a packet waits for its turn on a link with a rate before it is dropped.
const DefaultQueue = 500 * time.Millisecond

// Validate names the first field that cannot be.
func (s Shape) Validate() error {
	for _, share := range []struct {
		name string
		of   float64
	}{{"Loss", s.Loss}, {"Duplicate", s.Duplicate}, {"Reorder", s.Reorder}} {
		if !(share.of >= 0 && share.of <= 1) { // and not a number neither
			return fmt.Errorf("netns: shape: %s is %v: give a share from 0 to 1", share.name, share.of)
		}
	}
	for _, span := range []struct {
		name string
		of   time.Duration
	}{{"Delay", s.Delay}, {"Jitter", s.Jitter}, {"Queue", s.Queue}} {
		if span.of < 0 || span.of > time.Minute {
			return fmt.Errorf("netns: shape: %s is %v: give a duration from 0 to a minute", span.name, span.of)
		}
	}
	if s.Rate < 0 {
		return fmt.Errorf("netns: shape: Rate is %d: give bytes per second, or 0 for any amount", s.Rate)
	}
	return nil
}

// over is what happens to what goes through both.
func (s Shape) over(base Shape) Shape {
	switch {
	case s == Shape{}:
		return base
	case base == Shape{}:
		return s
	}
	either := func(a, b float64) float64 { return a + b - a*b }
	sum := Shape{
		Delay: base.Delay + s.Delay, Jitter: base.Jitter + s.Jitter,
		Loss: either(base.Loss, s.Loss), Duplicate: either(base.Duplicate, s.Duplicate), Reorder: either(base.Reorder, s.Reorder),
		Rate: s.Rate, Queue: s.Queue,
	}
	if s.Rate == 0 || base.Rate > 0 && base.Rate < s.Rate {
		sum.Rate, sum.Queue = base.Rate, base.Queue
	}
	return sum
}

// fate is what becomes of a link's packets instead of its shape.
type fate int8

const (
	passed  fate = iota
	dropped      // silently
	refused      // connections are reset
)

// link is one direction between two parties. It decides and does nothing: the switch carries packets.
type link struct {
	// base is how long the way is, and shape what a fault adds to it.
	base, shape Shape
	fate        fate
	// n counts packets. What happens to one is drawn from (seed, n), so that one link's packets do not change what happens
	// on another.
	seed uint64
	n    uint64
	// free is when the link has carried all that was accepted; last, when the last packet that keeps its place arrives.
	free, last time.Duration
}

// carry says when the copies of a packet of size bytes arrive that is sent at now; none if it is lost.
func (l *link) carry(now time.Duration, size int) (arrivals [2]time.Duration, copies int) {
	l.n++
	s := l.shape.over(l.base)
	if l.fate != passed {
		return arrivals, 0
	}
	if s == (Shape{}) {
		arrivals[0] = max(now, l.last)
		return arrivals, 1
	}
	sent := now
	if s.Rate > 0 {
		queue := s.Queue
		if queue == 0 {
			queue = DefaultQueue
		}
		if l.free > now+queue {
			return arrivals, 0
		}
		l.free = max(l.free, now) + time.Duration(float64(size)/float64(s.Rate)*float64(time.Second))
		sent = l.free
	}
	if l.draw(1) < s.Loss {
		return arrivals, 0
	}
	arrive := func(what uint64) time.Duration {
		at := sent + s.Delay + time.Duration(l.draw(what)*float64(s.Jitter))
		if l.draw(what+1) < s.Reorder {
			return at
		}
		l.last = max(l.last, at)
		return l.last
	}
	arrivals[0], copies = arrive(2), 1
	if l.draw(6) < s.Duplicate {
		arrivals[1], copies = arrive(4), 2
	}
	return arrivals, copies
}

// draw is a number in [0, 1) for a decision about the present packet.
func (l *link) draw(what uint64) float64 {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[0:], l.seed)
	binary.LittleEndian.PutUint64(b[8:], l.n)
	binary.LittleEndian.PutUint64(b[16:], what)
	h := fnv.New64a()
	_, _ = h.Write(b[:])
	// FNV's high bits mix badly in so few bytes; a multiplication by an odd constant and a fold spread them.
	x := h.Sum64()
	x ^= x >> 32
	x *= 0x9e3779b97f4a7c15
	x ^= x >> 29
	return float64(x>>11) / (1 << 53)
}
