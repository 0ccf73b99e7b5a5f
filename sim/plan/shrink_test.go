package plan

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// has finds a fault of a kind that lasts long enough.
func has(p Plan, kind Kind, atLeast time.Duration) bool {
	return slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Kind == kind && f.For >= atLeast })
}

func drawnWith(t *testing.T, wanted func(Plan) bool) Plan {
	t.Helper()
	for seed := range uint64(10_000) {
		if p := Draw(seed, Seeded(seed), DrawOptions{}); wanted(p) {
			return p
		}
	}
	t.Fatal("no plan is like that")
	return Plan{}
}

func TestShrink(t *testing.T) {
	for name, fails := range map[string]func(Plan) bool{
		"always":          func(Plan) bool { return true },
		"a pause":         func(p Plan) bool { return has(p, Pause, 1500*time.Millisecond) },
		"a pause and cut": func(p Plan) bool { return has(p, Pause, 0) && has(p, Cut, 2*time.Second) },
		"two clients":     func(p Plan) bool { return len(p.Clients) >= 2 && len(p.Nodes) >= 3 },
		"a clock":         func(p Plan) bool { return slices.ContainsFunc(p.Clients, func(c Client) bool { return c.PPM > 300 }) },
		"late": func(p Plan) bool {
			return p.Duration >= 77*time.Second && slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.At < 77*time.Second })
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := drawnWith(t, func(p Plan) bool { return fails(p) && len(p.Nodes) == 5 })
			before := p.clone()
			calls := 0
			small := Shrink(p, func(p Plan) bool { calls++; return fails(p) }, 2000)
			if !reflect.DeepEqual(p, before) {
				t.Error("the plan itself was changed")
			}
			if again := Shrink(p, fails, 2000); !reflect.DeepEqual(small, again) {
				t.Errorf("shrunk twice, to\n%s\nand\n%s", small, again)
			}
			roundTrip(t, small)
			t.Logf("%d calls", calls)
			if !fails(small) {
				t.Error("it does not fail")
			}
			if len(small.Nodes)+len(small.Clients)+len(small.Watchers)+len(small.Faults) > 5 {
				t.Errorf("much is left:\n%s", small)
			}
		})
	}
}

// Whatever fails, the answer fails, is valid, and no larger; and the budget is kept to.
func TestShrinkKeepsFailing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64Range(0, 500).Draw(t, "seed")
		p := Draw(seed, Seeded(seed), DrawOptions{Duration: time.Minute})
		var wanted []string
		text := p.String()
		for _, word := range strings.Fields(text) {
			if rapid.IntRange(0, 30).Draw(t, "word") == 30 {
				wanted = append(wanted, word)
			}
		}
		fails := func(p Plan) bool {
			return !slices.ContainsFunc(wanted, func(w string) bool { return !strings.Contains(p.String(), w) })
		}
		budget, calls := rapid.IntRange(0, 200).Draw(t, "budget"), 0
		small := Shrink(p, func(p Plan) bool { calls++; return fails(p) }, budget)
		if calls > budget {
			t.Fatalf("%d calls of %d", calls, budget)
		}
		if !fails(small) {
			t.Fatalf("does not fail:\n%s", small)
		}
		if len(small.Faults) > len(p.Faults) || len(small.Clients) > len(p.Clients) || len(small.Nodes) > len(p.Nodes) || small.Duration > p.Duration {
			t.Fatalf("larger:\n%s\nthan\n%s", small, text)
		}
		roundTrip(t, small)
	})
}
