package partition

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func drawHomes(t *rapid.T, n int) []string {
	if !rapid.Bool().Draw(t, "prefer") {
		return nil
	}
	homes := make([]string, n)
	for p := range homes {
		homes[p] = rapid.SampledFrom([]string{"", "eu", "us"}).Draw(t, "home")
	}
	return homes
}

func drawID(t *rapid.T, n int) string {
	return fmt.Sprintf("%s-%d", rapid.SampledFrom([]string{"eu", "us"}).Draw(t, "region"), n)
}

// Whatever happened before, and in whatever order it was seen: once nothing more happens, everybody agrees, every partition
// is held by whom all targets name, and the load is balanced within one.
func TestMachinesConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "partitions")
		w := newWorld(t, n, drawHomes(t, n))
		w.draw = t
		for range rapid.IntRange(5, 80).Draw(t, "steps") {
			w.disturb()
			for range rapid.IntRange(0, 12).Draw(t, "length") {
				w.random()
			}
		}
		for _, a := range w.actors {
			a.frozen = false
		}
		w.rest()
		w.check()
	})
}

// disturb lets something go wrong, or right.
func (w *world) disturb() {
	t := w.draw
	ready := w.ready()
	kind := rapid.IntRange(0, 9).Draw(t, "event")
	if kind == 0 && len(ready) < 5 {
		homes := w.config.Homes
		if rapid.IntRange(0, 5).Draw(t, "another program") == 0 {
			homes = drawHomes(t, w.config.Partitions)
		}
		w.joinWith(drawID(t, len(w.actors)), homes)
		return
	}
	if len(ready) == 0 {
		return
	}
	a := ready[rapid.IntRange(0, len(ready)-1).Draw(t, "of")]
	switch kind {
	case 1:
		w.crash(a)
	case 2:
		a.inbox = append(a.inbox, Leave{})
	case 3:
		a.frozen = true
	case 4:
		for _, b := range w.actors {
			b.frozen = false
		}
	case 5:
		w.resync(a)
	case 6: // a lease runs out, of whoever holds it, or an operator takes it away
		b := w.actors[rapid.IntRange(0, len(w.actors)-1).Draw(t, "whose")]
		if leases := w.leases(b); len(leases) > 0 {
			w.expire(rapid.SampledFrom(leases).Draw(t, "lease"))
		}
	case 7:
		if runs := a.runs(); len(runs) > 0 {
			w.finish(a, rapid.SampledFrom(runs).Draw(t, "returns"))
		}
	default:
		w.now = w.now.Add(w.config.Grace / 3)
	}
}

// One change of the membership moves only what has to move, whatever the order in which it is seen.
func TestOneChangeMovesTheFewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "partitions")
		w := newWorld(t, n, drawHomes(t, n))
		w.draw = t
		for i := range rapid.IntRange(1, 6).Draw(t, "members") {
			w.join(drawID(t, i))
		}
		w.rest()
		w.check()
		w.moved = 0
		a := w.actors[rapid.IntRange(0, len(w.actors)-1).Draw(t, "changed")]
		want := len(w.leases(a)) - 1 // all but the member's own
		kind := rapid.SampledFrom([]string{"crash", "leave", "pause", "join"}).Draw(t, "kind")
		switch kind {
		case "crash":
			w.crash(a)
		case "leave":
			a.inbox = append(a.inbox, Leave{})
		case "pause":
			a.frozen = true
		case "join":
			a = w.join(drawID(t, len(w.actors)))
		}
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			w.random()
			if leases := w.leases(a); (a.gone || a.frozen) && len(leases) > 0 && rapid.IntRange(0, 5).Draw(t, "runs out") == 0 {
				w.expire(rapid.SampledFrom(leases).Draw(t, "lease"))
			}
		}
		w.rest()
		w.check()
		if kind == "join" {
			want = len(w.leases(a)) - 1
		} else if len(w.ready()) == 0 {
			want = 0
		}
		if w.moved != want {
			t.Fatalf("%d partitions moved after a %s, %d had to: %v", w.moved, kind, want, w)
		}
	})
}
