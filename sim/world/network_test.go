package world_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/sim/world"
)

// wired is three processes on a network, and when each of their packets arrived.
type wired struct {
	*world.World
	net      *world.Network
	a, b, c  *world.Process
	sent     int
	arrivals map[int][]time.Duration // by packet
	order    []int
}

func newWired(seed uint64, q world.Quality) *wired {
	w := world.New(seed)
	x := &wired{World: w, arrivals: make(map[int][]time.Duration)}
	x.net = w.NewNetwork(func(_, _ *world.Process) world.Quality { return q })
	for _, p := range []struct {
		at   **world.Process
		name string
	}{{&x.a, "a"}, {&x.b, "b"}, {&x.c, "c"}} {
		*p.at = w.NewProcess(p.name, "r", 0)
		(*p.at).Start()
	}
	return x
}

// send sends the next packet and answers its number, from 1.
func (x *wired) send(from, to *world.Process) int {
	x.sent++
	n := x.sent
	x.net.Send(from, to, func() {
		x.arrivals[n] = append(x.arrivals[n], x.Now())
		x.order = append(x.order, n)
	})
	return n
}

// between is a fault of what goes from one process to another.
func between(from, to *world.Process) func(f, t *world.Process) bool {
	return func(f, t *world.Process) bool { return f == from && t == to }
}

const second = time.Second

func TestNetworkDelay(t *testing.T) {
	const packets = 20_000
	q := world.Quality{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond}
	x := newWired(1, q)
	at := make([]time.Duration, packets+1)
	for i := range packets {
		x.At(time.Duration(i)*time.Millisecond, func() { at[x.send(x.a, x.b)] = x.Now() })
	}
	x.Run(time.Hour)
	var jitter time.Duration
	overtaken := false
	for n := 1; n <= packets; n++ {
		if len(x.arrivals[n]) != 1 {
			t.Fatalf("packet %d arrived %d times", n, len(x.arrivals[n]))
		}
		took := x.arrivals[n][0] - at[n]
		if took < q.Delay {
			t.Fatalf("packet %d took %v", n, took)
		}
		jitter += took - q.Delay
		overtaken = overtaken || n > 1 && x.arrivals[n][0] < x.arrivals[n-1][0]
	}
	if mean := jitter / packets; mean < q.Jitter*8/10 || mean > q.Jitter*13/10 {
		t.Errorf("the mean of the jitter is %v, want about %v", mean, q.Jitter)
	}
	if !overtaken {
		t.Error("no packet overtook another")
	}
	if x.net.Sent() != packets || x.net.Lost() != 0 {
		t.Errorf("%d sent, %d lost", x.net.Sent(), x.net.Lost())
	}
}

func TestNetworkRates(t *testing.T) {
	const packets = 20_000
	fates := func(seed uint64) (map[int][]time.Duration, uint64) {
		x := newWired(seed, world.Quality{Delay: time.Millisecond, Jitter: time.Millisecond, Loss: 100, Duplicate: 50})
		for i := range packets {
			x.At(time.Duration(i)*time.Millisecond, func() { x.send(x.a, x.b) })
		}
		x.Run(time.Hour)
		return x.arrivals, x.net.Lost()
	}
	arrivals, lost := fates(1)
	twice, late := 0, 0
	for n, at := range arrivals {
		switch {
		case len(at) > 2:
			t.Fatalf("packet %d arrived %d times", n, len(at))
		case len(at) == 2:
			twice++
			if at[1]-at[0] > second {
				late++
			}
		}
	}
	if gone := packets - len(arrivals); uint64(gone) != lost || gone < packets*9/100 || gone > packets*11/100 {
		t.Errorf("%d of %d are missing and %d were lost, of which 100 in 1000 should be", gone, packets, lost)
	}
	if left := len(arrivals); twice < left*4/100 || twice > left*6/100 {
		t.Errorf("%d of %d came twice, of which 50 in 1000 should", twice, left)
	}
	if late == 0 || late > twice/2 {
		t.Errorf("%d of %d duplicates came more than a second late", late, twice)
	}
	again, _ := fates(1)
	if !maps.EqualFunc(arrivals, again, slices.Equal) {
		t.Error("the same seed had unlike packets arrive")
	}
	if other, _ := fates(2); maps.EqualFunc(arrivals, other, slices.Equal) {
		t.Error("another seed had the same packets arrive")
	}
}

// The two directions of a link, and links to others, have fates of their own.
func TestLinksAreUnlike(t *testing.T) {
	x := newWired(1, world.Quality{Jitter: time.Millisecond})
	fates := func(from, to *world.Process) (took []time.Duration) {
		for range 50 {
			began, n := x.Now(), x.send(from, to)
			x.Run(x.Now() + second)
			took = append(took, x.arrivals[n][0]-began)
		}
		return took
	}
	ab, ba, ac := fates(x.a, x.b), fates(x.b, x.a), fates(x.a, x.c)
	if slices.Equal(ab, ba) || slices.Equal(ab, ac) {
		t.Error("two links are the same")
	}
}

func TestCut(t *testing.T) {
	x := newWired(1, world.Quality{Delay: second})
	cut := &world.Fault{Hits: between(x.a, x.b), Cut: true}
	underWay := x.send(x.a, x.b)
	x.Run(second / 2)
	x.net.Add(cut)
	if x.net.Connected(x.a, x.b) || !x.net.Connected(x.b, x.a) {
		t.Error("it is not cut in just one direction")
	}
	sent, back, other := x.send(x.a, x.b), x.send(x.b, x.a), x.send(x.a, x.c)
	x.Run(2 * second)
	x.net.Remove(cut)
	if !x.net.Connected(x.a, x.b) {
		t.Error("it is cut for ever")
	}
	after := x.send(x.a, x.b)
	x.Run(time.Minute)
	for n, want := range map[int]int{underWay: 0, sent: 0, back: 1, other: 1, after: 1} {
		if got := len(x.arrivals[n]); got != want {
			t.Errorf("packet %d arrived %d times, want %d", n, got, want)
		}
	}
	if x.net.Lost() != 2 {
		t.Errorf("%d were lost", x.net.Lost())
	}
}

func TestClog(t *testing.T) {
	x := newWired(1, world.Quality{Delay: second})
	clog := &world.Fault{Hits: between(x.a, x.b), Clog: true}
	early := x.send(x.a, x.b)
	x.Run(second / 2)
	x.net.Add(clog)
	if x.net.Connected(x.a, x.b) {
		t.Error("a clogged link is connected")
	}
	var held []int
	for range 10 {
		held = append(held, x.send(x.a, x.b))
	}
	back, other := x.send(x.b, x.a), x.send(x.a, x.c)
	x.Run(10 * second)
	if want := []int{early, back, other}; len(x.arrivals[early]) != 0 || len(x.arrivals[back]) != 1 || len(x.arrivals[other]) != 1 {
		t.Errorf("of %v arrived %v", want, x.order)
	}
	x.order = nil
	x.net.Remove(clog)
	x.Run(10 * second)
	if want := append([]int{early}, held...); !slices.Equal(x.order, want) || x.net.Lost() != 0 {
		t.Errorf("in the end %v arrived and %d were lost, want %v", x.order, x.net.Lost(), want)
	}
	x.net.Remove(clog) // again: nothing is in it
	x.Run(time.Minute)
	for n, at := range x.arrivals {
		if len(at) != 1 {
			t.Errorf("packet %d arrived at %v", n, at)
		}
	}
}

// What one clog lets go another one may hold back, and a cut lose.
func TestClogBehindFaults(t *testing.T) {
	x := newWired(1, world.Quality{Delay: second})
	hits := between(x.a, x.b)
	first, then := &world.Fault{Hits: hits, Clog: true}, &world.Fault{Hits: hits, Clog: true}
	x.net.Add(first)
	x.net.Add(then)
	n := x.send(x.a, x.b)
	x.Run(2 * second)
	x.net.Remove(first)
	x.Run(3 * second)
	if len(x.arrivals[n]) != 0 {
		t.Error("it came through the second clog")
	}
	x.net.Remove(then)
	x.Run(4 * second)
	if !slices.Equal(x.arrivals[n], []time.Duration{3 * second}) {
		t.Errorf("it arrived at %v", x.arrivals[n])
	}
	x.net.Add(first)
	n = x.send(x.a, x.b)
	x.Run(6 * second)
	x.net.Add(&world.Fault{Hits: hits, Cut: true})
	x.net.Remove(first)
	x.Run(7 * second)
	if len(x.arrivals[n]) != 0 || x.net.Lost() != 1 {
		t.Error("it came through the cut")
	}
}

func TestClear(t *testing.T) {
	x := newWired(1, world.Quality{Delay: second})
	x.net.Add(&world.Fault{Hits: between(x.a, x.b), Clog: true})
	x.net.Add(&world.Fault{Hits: between(x.a, x.c), Cut: true})
	x.net.Add(&world.Fault{Hits: between(x.b, x.a), Quality: world.Quality{Delay: 5 * second}})
	held := x.send(x.a, x.b)
	x.Run(2 * second)
	x.net.Clear()
	other, back := x.send(x.a, x.c), x.send(x.b, x.a)
	x.Run(time.Minute)
	for n, want := range map[int]time.Duration{held: 2 * second, other: 3 * second, back: 3 * second} {
		if !slices.Equal(x.arrivals[n], []time.Duration{want}) {
			t.Errorf("packet %d arrived at %v, want %v", n, x.arrivals[n], want)
		}
	}
}

// A packet is for the life of its receiver that there was when it was sent, also if a fault holds it back.
func TestPacketsOfALifeBefore(t *testing.T) {
	for name, test := range map[string]struct {
		quality world.Quality
		fault   *world.Fault
	}{
		"under way": {quality: world.Quality{Delay: second}},
		"twice":     {quality: world.Quality{Delay: second, Duplicate: 1000}},
		"held back": {quality: world.Quality{Delay: second}, fault: &world.Fault{Clog: true}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newWired(1, test.quality)
			if test.fault != nil {
				test.fault.Hits = between(x.a, x.b)
				x.net.Add(test.fault)
			}
			x.send(x.a, x.b)
			x.Run(second / 2)
			x.b.Crash()
			x.b.Start()
			x.Run(2 * second)
			x.net.Clear()
			x.Run(time.Minute)
			if len(x.order) != 0 {
				t.Error("it arrived in a later life")
			}
			if n := x.send(x.a, x.b); n != 2 {
				t.Fatal(n)
			}
			x.Run(2 * time.Minute)
			if len(x.arrivals[2]) == 0 {
				t.Error("a packet for this life did not arrive")
			}
		})
	}
}

func TestPacketsToAPausedProcess(t *testing.T) {
	x := newWired(1, world.Quality{Delay: second})
	x.b.Pause()
	x.send(x.a, x.b)
	x.Run(second / 2)
	x.send(x.a, x.b)
	x.Run(5 * second)
	if len(x.order) != 0 {
		t.Error("it took a packet while it was paused")
	}
	x.b.Resume()
	if !slices.Equal(x.order, []int{1, 2}) {
		t.Errorf("it took %v when it went on", x.order)
	}
}

func TestFaultsAddUp(t *testing.T) {
	x := newWired(1, world.Quality{Delay: second, Loss: 100})
	x.net.Add(&world.Fault{Hits: between(x.a, x.b), Quality: world.Quality{Delay: second, Duplicate: 500}})
	x.net.Add(&world.Fault{Hits: between(x.a, x.b), Quality: world.Quality{Delay: second, Duplicate: 500, Loss: 400}})
	const packets = 1000
	for range packets {
		x.send(x.a, x.b)
	}
	x.Run(time.Hour)
	for n, at := range x.arrivals {
		if len(at) != 2 || at[0] != 3*second {
			t.Fatalf("packet %d arrived at %v", n, at)
		}
	}
	if n := len(x.arrivals); n < packets*4/10 || n > packets*6/10 {
		t.Errorf("%d of %d arrived, want half of them", n, packets)
	}
}

// A fault may spread packets out that the link would carry alike.
func TestFaultWithJitter(t *testing.T) {
	x := newWired(1, world.Quality{Delay: second})
	x.net.Add(&world.Fault{Hits: between(x.a, x.b), Quality: world.Quality{Jitter: second}})
	const packets = 1000
	var jitter time.Duration
	for range packets {
		x.send(x.a, x.b)
		x.send(x.b, x.a)
	}
	x.Run(time.Hour)
	for n, at := range x.arrivals {
		if n%2 == 0 && at[0] != second || at[0] < second {
			t.Fatalf("packet %d arrived at %v", n, at)
		}
		jitter += at[0] - second
	}
	if mean := jitter / packets; mean < second*8/10 || mean > second*13/10 {
		t.Errorf("the mean of the jitter is %v", mean)
	}
}

func TestTap(t *testing.T) {
	x := newWired(1, world.Quality{Loss: 1000})
	var heard []string
	x.net.Tap = func(from, to *world.Process) { heard = append(heard, from.Name+to.Name) }
	x.send(x.a, x.b)
	x.send(x.c, x.a)
	if !slices.Equal(heard, []string{"ab", "ca"}) {
		t.Errorf("it heard of %q", heard)
	}
}

// Without a fault every packet that it does not concern has the same fate: those of other links, those that arrive before
// it begins, and those that are sent when it is over. Only so a failing plan can be made smaller.
func TestFaultsLeaveOtherPacketsAlone(t *testing.T) {
	type packet struct {
		at       time.Duration
		from, to int
	}
	rapid.Check(t, func(t *rapid.T) {
		var packets []packet
		for range rapid.IntRange(1, 60).Draw(t, "packets") {
			packets = append(packets, packet{
				// Faults begin and end at whole milliseconds.
				at:   time.Duration(rapid.IntRange(0, 99).Draw(t, "at"))*time.Millisecond + time.Microsecond,
				from: rapid.IntRange(0, 2).Draw(t, "from"), to: rapid.IntRange(0, 2).Draw(t, "to"),
			})
		}
		quality := world.Quality{
			Delay: time.Duration(rapid.IntRange(0, 20).Draw(t, "delay")) * time.Millisecond, Jitter: 3 * time.Millisecond,
			Loss: 100, Duplicate: rapid.SampledFrom([]int{0, 300}).Draw(t, "duplicate"),
		}
		begin := time.Duration(rapid.IntRange(0, 99).Draw(t, "begin")) * time.Millisecond
		end := begin + time.Duration(rapid.IntRange(0, 50).Draw(t, "for"))*time.Millisecond
		hitFrom, hitTo := rapid.IntRange(0, 2).Draw(t, "hit from"), rapid.IntRange(-1, 2).Draw(t, "hit to")
		hit := func(p packet) bool { return p.from == hitFrom && (hitTo < 0 || p.to == hitTo) }
		kind := rapid.SampledFrom([]world.Fault{
			{Cut: true}, {Clog: true}, {Quality: world.Quality{Loss: 500}}, {Quality: world.Quality{Duplicate: 500}},
			{Quality: world.Quality{Delay: second, Jitter: second}},
		}).Draw(t, "kind")
		seed := rapid.Uint64().Draw(t, "seed")
		fates := func(faulty bool) map[int][]time.Duration {
			x := newWired(seed, quality)
			processes := []*world.Process{x.a, x.b, x.c}
			if faulty {
				f := kind
				f.Hits = func(from, to *world.Process) bool {
					return from == processes[hitFrom] && (hitTo < 0 || to == processes[hitTo])
				}
				x.At(begin, func() { x.net.Add(&f) })
				x.At(end, func() { x.net.Remove(&f) })
			}
			byPacket := make(map[int]int) // the n-th one is sent as which
			for i, p := range packets {
				x.At(p.at, func() { byPacket[i] = x.send(processes[p.from], processes[p.to]) })
			}
			x.Run(time.Hour)
			fate := make(map[int][]time.Duration)
			for i := range packets {
				fate[i] = x.arrivals[byPacket[i]]
			}
			return fate
		}
		with, without := fates(true), fates(false)
		for i, p := range packets {
			concerned := hit(p) && p.at < end && (len(without[i]) == 0 || slices.Max(without[i]) >= begin)
			if !concerned && !slices.Equal(with[i], without[i]) {
				t.Fatalf("a packet of %v from %d to %d arrived at %v, and without a fault from %v to %v of what goes from %d to %d at %v",
					p.at, p.from, p.to, with[i], begin, end, hitFrom, hitTo, without[i])
			}
		}
	})
}
