package netns

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// sent carries count packets of size bytes, one each interval, and returns when each copy arrives.
func sent(l *link, count, size int, interval time.Duration) (arrivals [][]time.Duration) {
	for i := range count {
		at, copies := l.carry(time.Duration(i)*interval, size)
		arrivals = append(arrivals, append([]time.Duration(nil), at[:copies]...))
	}
	return arrivals
}

func TestSharesAreKept(t *testing.T) {
	const count = 20_000
	l := link{seed: 3, shape: Shape{Delay: 20 * ms, Jitter: 10 * ms, Loss: 0.1, Duplicate: 0.05, Reorder: 0.2}}
	lost, doubled, overtaken, last := 0, 0, 0, time.Duration(0)
	for i, at := range sent(&l, count, 100, ms) {
		switch len(at) {
		case 0:
			lost++
		case 2:
			doubled++
		}
		for _, a := range at {
			if under := a - time.Duration(i)*ms; under < 20*ms || under > 30*ms {
				t.Fatalf("packet %d was under way for %v", i, under)
			}
			if a < last {
				overtaken++
			}
			last = max(last, a)
		}
	}
	near := func(what string, n int, share float64) {
		if math.Abs(float64(n)/count-share) > 0.01 {
			t.Errorf("%s: %d of %d, asked for %v", what, n, count, share)
		}
	}
	near("lost", lost, 0.1)
	near("doubled", doubled, 0.9*0.05)
	if overtaken < count/20 {
		t.Errorf("only %d of %d packets were overtaken", overtaken, count)
	}
}

func TestOrderIsKeptUnlessAskedOtherwise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := link{seed: rapid.Uint64().Draw(t, "seed"), shape: Shape{
			Delay:  time.Duration(rapid.IntRange(0, 100).Draw(t, "delay")) * ms,
			Jitter: time.Duration(rapid.IntRange(0, 100).Draw(t, "jitter")) * ms,
			Rate:   rapid.IntRange(0, 100_000).Draw(t, "rate"),
			Loss:   rapid.Float64Range(0, 0.5).Draw(t, "loss"),
		}}
		last := time.Duration(0)
		for i := range 100 {
			now := time.Duration(i) * ms
			if i == 50 && rapid.Bool().Draw(t, "unshaped") {
				l.shape = Shape{}
			}
			at, copies := l.carry(now, 1000)
			if copies == 0 {
				continue
			}
			if at[0] < last || at[0] < now {
				t.Fatalf("packet %d, sent at %v, arrives at %v, after one that arrives at %v", i, now, at[0], last)
			}
			last = at[0]
		}
	})
}

func TestRateIsKept(t *testing.T) {
	l := link{shape: Shape{Rate: 100_000, Queue: 100 * ms}}
	// Twice as much as the link carries, for ten seconds.
	passed, last := 0, time.Duration(0)
	for _, at := range sent(&l, 2000, 1000, 5*ms) {
		if len(at) == 1 {
			passed, last = passed+1, at[0]
		}
	}
	if rate := float64(passed*1000) / last.Seconds(); rate < 99_000 || rate > 101_000 {
		t.Errorf("%.0f bytes per second passed, asked for 100,000", rate)
	}
	if last > 10*time.Second+120*ms {
		t.Errorf("the last packet waited until %v", last)
	}
}

func TestWhatHappensDependsOnSeedAndNumberOnly(t *testing.T) {
	shape := Shape{Delay: 5 * ms, Jitter: 5 * ms, Loss: 0.3, Duplicate: 0.3, Reorder: 0.3}
	draw := func(seed uint64) string { return fmt.Sprint(sent(&link{seed: seed, shape: shape}, 50, 100, ms)) }
	if first, again := draw(7), draw(7); first != again || first == draw(8) {
		t.Error("what happens does not follow the seed")
	}
	// A cut does not change what happens to the packets after it.
	whole, cut := &link{seed: 7, shape: shape}, &link{seed: 7, shape: shape}
	for i := range 50 {
		cut.fate = passed
		if i < 25 {
			cut.fate = dropped
		}
		a, n := whole.carry(time.Duration(i)*time.Second, 100)
		b, m := cut.carry(time.Duration(i)*time.Second, 100)
		if i < 25 && m != 0 || i >= 25 && (a != b || n != m) {
			t.Fatalf("packet %d: %v %d without the cut, %v %d with it", i, a, n, b, m)
		}
	}
}

// What a fault does to a link comes on top of how long it is, and is over without a trace.
func TestShapesComeOnTop(t *testing.T) {
	base := Shape{Delay: 20 * ms, Jitter: 2 * ms, Loss: 0.5, Rate: 100}
	for _, row := range []struct{ shape, base, want Shape }{
		{},
		{Shape{}, base, base},
		{base, Shape{}, base},
		{Shape{Delay: 10 * ms, Jitter: ms, Loss: 0.5, Duplicate: 0.1}, base, Shape{Delay: 30 * ms, Jitter: 3 * ms, Loss: 0.75, Duplicate: 0.1, Rate: 100}},
		{Shape{Rate: 50, Queue: ms}, Shape{Rate: 100}, Shape{Rate: 50, Queue: ms}},
		{Shape{Rate: 500, Queue: ms}, Shape{Rate: 100}, Shape{Rate: 100}},
	} {
		if got := row.shape.over(row.base); got != row.want {
			t.Errorf("%+v over %+v is %+v, want %+v", row.shape, row.base, got, row.want)
		}
	}
	l := link{base: Shape{Delay: 20 * ms}}
	for i, add := range []time.Duration{0, 30 * ms, 0} {
		l.shape = Shape{Delay: add}
		now := time.Duration(i) * time.Second
		if at, copies := l.carry(now, 100); copies != 1 || at[0] != now+20*ms+add {
			t.Errorf("%d copies, after %v", copies, at[0]-now)
		}
	}
}

func TestShapesThatCannotBe(t *testing.T) {
	for field, s := range map[string]Shape{
		"Loss": {Loss: 1.1}, "Duplicate": {Duplicate: -0.1}, "Reorder": {Reorder: math.NaN()}, "Delay": {Delay: -1},
		"Jitter": {Jitter: 2 * time.Minute}, "Queue": {Queue: -1}, "Rate": {Rate: -1},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if err := (Shape{Delay: ms, Loss: 1, Rate: 1}).Validate(); err != nil {
		t.Error(err)
	}
}
