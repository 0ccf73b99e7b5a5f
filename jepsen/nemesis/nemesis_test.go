//go:build linux

package nemesis

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/lease/clock/bubble"
)

// log counts.
type log struct {
	mu           sync.Mutex
	begun, ended int // guarded by mu
}

func (l *log) Fault(string, string) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ended++
	}
}

func TestEveryNemesisHasItsTurn(t *testing.T) {
	for seed := range uint64(20) {
		turns, largest := make(map[string]int), 0
		for round := 1; round <= 200; round++ {
			swarm := Swarm(seed, Kinds.All, round)
			if len(swarm) == 0 || len(swarm) > swarmMost {
				t.Fatalf("seed %d, round %d: %d at once", seed, round, len(swarm))
			}
			if again := Swarm(seed, Kinds.All, round); !slices.Equal(Kinds.Names(swarm), Kinds.Names(again)) {
				t.Fatalf("seed %d, round %d: %v and then %v", seed, round, Kinds.Names(swarm), Kinds.Names(again))
			}
			largest = max(largest, len(swarm))
			for _, k := range swarm {
				turns[k.Name]++
			}
		}
		if largest != swarmMost {
			t.Errorf("seed %d: at most %d at once", seed, largest)
		}
		least, most := 200, 0
		for _, k := range Kinds.All {
			least, most = min(least, turns[k.Name]), max(most, turns[k.Name])
		}
		// One that is drawn twice in a round has one turn of it.
		if least == 0 || most-least > 8 {
			t.Errorf("seed %d: between %d and %d turns: %v", seed, least, most, turns)
		}
	}
	if got := Swarm(1, nil, 3); got != nil {
		t.Errorf("nobody: %v", got)
	}
}

func TestNamesAreUnique(t *testing.T) {
	names := Kinds.Names(Kinds.All)
	if len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
		t.Error(names)
	}
}

// No two strikes touch the same thing at a time, and every one of them is over in the end.
func TestStrikesTakeTurns(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := &log{}
		f := &Field{Log: l}
		busy := make(map[string]bool)
		struck := 0
		kind := func(names ...string) Kind {
			return Kind{Name: names[0], strike: func(ctx context.Context, s *strike) error {
				if !s.take(names...) {
					return nil
				}
				set := func(to bool) func() error {
					return func() error {
						f.mu.Lock()
						defer f.mu.Unlock()
						for _, name := range names {
							if busy[name] == to {
								t.Errorf("%s is touched by two", name)
							}
							busy[name] = to
						}
						struck++
						return nil
					}
				}
				return s.during(ctx, "", s.between(100, 2000), set(true), set(false))
			}}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := f.Run(ctx, []Kind{kind("a", "b"), kind("b", "c"), kind("c", "a"), kind("d")}, 1); err != nil {
			t.Fatal(err)
		}
		for name, still := range busy {
			if still {
				t.Errorf("%s is still harmed", name)
			}
		}
		if l.begun != l.ended || l.begun < 50 || struck != 2*l.begun {
			t.Errorf("%d strikes began, %d ended, %d changes", l.begun, l.ended, struck)
		}
	})
}

func TestFailedStrikeEndsTheRun(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		gone := errors.New("gone")
		bad := Kind{Name: "bad", strike: func(ctx context.Context, s *strike) error {
			return s.during(ctx, "", time.Second, func() error { return gone }, func() error { return nil })
		}}
		good := Kind{Name: "good", strike: func(context.Context, *strike) error { return nil }}
		f := &Field{Log: &log{}}
		if err := f.Run(t.Context(), []Kind{good, bad}, 1); !errors.Is(err, gone) {
			t.Error(err)
		}
		if f.Strike(t.Context(), good, rand.New(rand.NewPCG(1, 1))) != nil {
			t.Error("a strike failed that does nothing")
		}
	})
}
