package gate

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

func listed(n *names, from string, most int) (list []string) {
	n.from(from, func(r *resource) bool {
		list = append(list, r.name)
		return len(list) < most
	})
	return list
}

// The order is that of a sorted set, whatever is taken in and let go, also where pieces are split and vanish.
func TestNamesAreInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var n names
		there := make(map[string]*resource)
		for range rapid.IntRange(1, 12).Draw(t, "turns") {
			from, span, step := rapid.IntRange(0, 3000).Draw(t, "from"), rapid.IntRange(1, 1500).Draw(t, "span"), rapid.IntRange(1, 7).Draw(t, "step")
			insert := rapid.Bool().Draw(t, "insert")
			for i := from; i < from+span; i += step {
				name := fmt.Sprintf("n%05d", i)
				switch r := there[name]; {
				case insert && r == nil:
					there[name] = &resource{name: name}
					n.insert(there[name])
				case !insert && r != nil:
					n.remove(r)
					delete(there, name)
				case !insert:
					n.remove(&resource{name: name}) // which is not there
				}
			}
			want := slices.Sorted(maps.Keys(there))
			if got := listed(&n, "", 1<<30); !slices.Equal(got, want) {
				t.Fatalf("%d names are there, want %d: %v", len(got), len(want), got)
			}
			begin := fmt.Sprintf("n%05d", rapid.IntRange(0, 5000).Draw(t, "begin"))
			at, _ := slices.BinarySearch(want, begin)
			most := rapid.IntRange(1, 2000).Draw(t, "most")
			if got := listed(&n, begin, most); !slices.Equal(got, want[at:min(len(want), at+most)]) {
				t.Fatalf("from %s on there are %v", begin, got)
			}
			for _, chunk := range n.chunks {
				if len(chunk) == 0 || len(chunk) > maxChunk {
					t.Fatalf("a piece has %d names", len(chunk))
				}
			}
		}
	})
}

// A page of 1,000 floors, in the middle of 100,000.
func BenchmarkPage(b *testing.B) {
	const all = 100_000
	g := Gate{resources: newResources(all)}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(all) {
		r := &resource{name: fmt.Sprintf("orders/%06d", i), own: true, floor: 1 << 48}
		g.resources.add(r)
	}
	b.ReportAllocs()
	for b.Loop() {
		if page := g.Page(&writv1.GuardFloorsAsk{Prefix: "orders/", After: "orders/050000"}); len(page.GetFloors()) != MaxPageFloors {
			b.Fatal(len(page.GetFloors()))
		}
	}
}

// What it costs to know the names of 100,000 resources that come in no order.
func BenchmarkNames(b *testing.B) {
	const all = 100_000
	order := rand.New(rand.NewPCG(1, 2)).Perm(all)
	rs := make([]*resource, all)
	for i, at := range order {
		rs[i] = &resource{name: fmt.Sprintf("orders/%06d", at)}
	}
	for b.Loop() {
		var n names
		for _, r := range rs {
			n.insert(r)
		}
	}
}
