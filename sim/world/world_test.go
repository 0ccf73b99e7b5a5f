package world_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/sim/world"
)

// Events happen in the order of their instants, and those of one instant in the order in which they were scheduled: as in
// a list that is sorted anew each time.
func TestEventsHappenInOrder(t *testing.T) {
	type planned struct {
		at time.Duration
		id int
	}
	rapid.Check(t, func(t *rapid.T) {
		w := world.New(1)
		var want []planned
		var happened []int
		id := 0
		var schedule func()
		schedule = func() {
			id++
			me := id
			delay := time.Duration(rapid.IntRange(-2, 6).Draw(t, "delay"))
			more := rapid.IntRange(0, 9).Draw(t, "more") == 0
			want = append(want, planned{w.Now() + max(delay, 0), me})
			w.After(delay, func() {
				happened = append(happened, me)
				if more { // what an event schedules for now comes behind what was scheduled for now before
					schedule()
				}
			})
		}
		step := func() {
			if len(want) == 0 {
				if _, ok := w.Next(); ok || w.Step() {
					t.Fatal("something happened that nobody has scheduled")
				}
				return
			}
			slices.SortStableFunc(want, func(a, b planned) int { return int(a.at - b.at) })
			next := want[0]
			want = want[1:]
			if at, ok := w.Next(); !ok || at != next.at {
				t.Fatalf("the next event is at %v (%v), want %v", at, ok, next.at)
			}
			n := len(happened)
			if !w.Step() || len(happened) != n+1 || happened[n] != next.id || w.Now() != next.at {
				t.Fatalf("%v happened at %v, want %d at %v", happened[n:], w.Now(), next.id, next.at)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "actions") {
			if rapid.Bool().Draw(t, "schedule") {
				for range rapid.IntRange(1, 12).Draw(t, "at once") {
					schedule()
				}
			} else {
				step()
			}
		}
		for len(want) > 0 {
			step()
		}
		step()
		if w.Events() != uint64(len(happened)) {
			t.Fatalf("%d events were counted, and %d happened", w.Events(), len(happened))
		}
	})
}

func TestRun(t *testing.T) {
	w := world.New(1)
	var got []time.Duration
	note := func() { got = append(got, w.Now()) }
	w.At(2, func() { note(); w.After(0, note); w.After(1, note) })
	w.At(4, note)
	w.Run(3)
	if want := []time.Duration{2, 2, 3}; !slices.Equal(got, want) || w.Now() != 3 {
		t.Errorf("events at %v until %v, want %v until 3ns", got, w.Now(), want)
	}
	w.Run(1)
	if w.Now() != 3 {
		t.Errorf("time has gone back to %v", w.Now())
	}
	w.At(1, note) // the past: now
	w.Run(10)
	if want := []time.Duration{2, 2, 3, 3, 4}; !slices.Equal(got, want) || w.Now() != 10 {
		t.Errorf("events at %v until %v, want %v until 10ns", got, w.Now(), want)
	}
	if w.Step() || w.Now() != 10 {
		t.Errorf("something happened at %v", w.Now())
	}
}

func TestDigest(t *testing.T) {
	of := func(seed uint64, do func(w *world.World)) uint64 {
		w := world.New(seed)
		do(w)
		w.Run(time.Second)
		return w.Digest()
	}
	notes := func(values ...uint64) func(*world.World) {
		return func(w *world.World) {
			for _, v := range values {
				w.Note(v)
			}
		}
	}
	events := func(at ...time.Duration) func(*world.World) {
		return func(w *world.World) {
			for _, d := range at {
				w.At(d, func() {})
			}
		}
	}
	if first, again := of(1, events(1, 2)), of(1, events(1, 2)); first != again {
		t.Error("one history has two digests")
	}
	seen := map[uint64]string{}
	for name, digest := range map[string]uint64{
		"nothing":               of(1, notes()),
		"another seed":          of(2, notes()),
		"an event":              of(1, events(1)),
		"a later event":         of(1, events(7)),
		"two events":            of(1, events(1, 2)),
		"two in another order":  of(1, events(2, 1)),
		"two at once":           of(1, events(1, 1)),
		"a note":                of(1, notes(1)),
		"a note of nothing":     of(1, notes(0)),
		"two notes of nothing":  of(1, notes(0, 0)),
		"two notes":             of(1, notes(1, 2)),
		"notes, the other way":  of(1, notes(2, 1)),
		"a text":                of(1, func(w *world.World) { w.NoteString("ab") }),
		"another text":          of(1, func(w *world.World) { w.NoteString("ba") }),
		"an event, then a note": of(1, func(w *world.World) { w.At(1, func() { w.Note(1) }) }),
	} {
		if other, ok := seen[digest]; ok {
			t.Errorf("%s and %s have one digest", name, other)
		}
		seen[digest] = name
	}
}

// Which of two events of one instant comes first shows in the digest as soon as they do anything that is noted.
func TestDigestShowsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfNDistinct(rapid.Uint64(), 2, 8, rapid.ID[uint64]).Draw(t, "values")
		shuffled := rapid.Permutation(values).Draw(t, "shuffled")
		digest := func(values []uint64) uint64 {
			w := world.New(1)
			for _, v := range values {
				w.At(1, func() { w.Note(v) })
			}
			w.Run(1)
			return w.Digest()
		}
		if same := slices.Equal(values, shuffled); same != (digest(values) == digest(shuffled)) {
			t.Fatalf("%v and %v: equal digests, unlike orders, or the other way round", values, shuffled)
		}
	})
}
