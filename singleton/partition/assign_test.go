package partition

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// situation is what Assign is asked.
type situation struct {
	members []Member
	holders []string
	homes   []string
}

func drawSituation(t *rapid.T) situation {
	regions := []string{"", "ap", "eu", "us"}
	var s situation
	for i := range rapid.IntRange(1, 7).Draw(t, "members") {
		s.members = append(s.members, Member{fmt.Sprintf("m%d", i), rapid.SampledFrom(regions).Draw(t, "region")})
	}
	n := rapid.IntRange(1, 30).Draw(t, "partitions")
	home := rapid.Bool().Draw(t, "homes")
	for range n {
		// m7 to m9 are nobody.
		holder := rapid.IntRange(-2, 9).Draw(t, "holder")
		s.holders = append(s.holders, map[bool]string{true: fmt.Sprintf("m%d", holder)}[holder >= 0])
		if home {
			s.homes = append(s.homes, rapid.SampledFrom(append(regions, "nowhere")).Draw(t, "home"))
		}
	}
	return s
}

func (s situation) assign() []int { return Assign(s.members, s.holders, s.homes) }

// held counts what each member holds.
func (s situation) held() []int {
	counts := make([]int, len(s.members))
	for _, holder := range s.holders {
		if i := s.member(holder); i >= 0 {
			counts[i]++
		}
	}
	return counts
}

func (s situation) member(id string) int {
	return slices.IndexFunc(s.members, func(m Member) bool { return m.ID == id })
}

func TestAssignIsBalancedAndMovesTheFewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSituation(t)
		target := s.assign()
		counts := make([]int, len(s.members))
		moved := 0
		for p, to := range target {
			if to < 0 || to >= len(s.members) {
				t.Fatalf("partition %d goes to %d", p, to)
			}
			counts[to]++
			if from := s.member(s.holders[p]); from >= 0 && from != to {
				moved++
			}
		}
		if slices.Max(counts)-slices.Min(counts) > 1 {
			t.Fatalf("%v is not balanced within one", counts)
		}
		base, extra := len(target)/len(s.members), len(target)%len(s.members)
		must, over := 0, 0
		for _, held := range s.held() {
			if held > base {
				must += held - base
				over++
			}
		}
		if must -= min(over, extra); moved != must {
			t.Fatalf("%d partitions move away from live members, %d have to", moved, must)
		}
	})
}

// Of what moves, no two partitions could be exchanged so that more are at home; and nobody gives up what is at home while it
// keeps what has a home elsewhere.
func TestAssignPrefersHomes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSituation(t)
		if s.homes == nil {
			return
		}
		target := s.assign()
		stays := func(p int) bool { return s.member(s.holders[p]) == target[p] }
		region := func(p int) string { return s.members[target[p]].Region }
		for p, home := range s.homes {
			for q, other := range s.homes {
				if !stays(p) && !stays(q) && home != "" && home != region(p) && home == region(q) && other != home {
					t.Fatalf("%d, at home in %s, goes to %s, and %d, at home in %s, goes to %s", p, home, region(p), q, other, region(q))
				}
				from := s.member(s.holders[p])
				if !stays(p) && stays(q) && from >= 0 && s.holders[q] == s.holders[p] && home != "" && s.members[from].Region == home &&
					other != home {
					t.Fatalf("%s gives up %d, which is at home, and keeps %d, which is not", s.holders[p], p, q)
				}
			}
		}
	})
}

// Whatever progress is made towards the target leaves the target as it is.
func TestProgressLeavesTheTarget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSituation(t)
		want := s.assign()
		for range len(want) {
			p := rapid.IntRange(0, len(want)-1).Draw(t, "progress")
			switch from := s.member(s.holders[p]); {
			case from == want[p]:
				continue
			case from >= 0:
				s.holders[p] = ""
			case rapid.Bool().Draw(t, "taken"):
				s.holders[p] = s.members[want[p]].ID
			default:
				s.holders[p] = ""
			}
			if got := s.assign(); !slices.Equal(got, want) {
				t.Fatalf("after progress with %d, the target is %v, and was %v", p, got, want)
			}
		}
	})
}

func TestAssignToNobody(t *testing.T) {
	if got := Assign(nil, []string{"a", ""}, nil); !slices.Equal(got, []int{Unassigned, Unassigned}) {
		t.Errorf("%v", got)
	}
}

func BenchmarkAssign(b *testing.B) {
	for _, size := range []struct{ partitions, members int }{{256, 16}, {100_000, 100}} {
		b.Run(fmt.Sprintf("%d over %d", size.partitions, size.members), func(b *testing.B) {
			var s situation
			for i := range size.members {
				s.members = append(s.members, Member{ID: fmt.Sprintf("m%03d", i), Region: []string{"eu", "us"}[i%2]})
			}
			for p := range size.partitions {
				s.holders = append(s.holders, fmt.Sprintf("m%03d", p%(size.members+1))) // one of them is gone
				s.homes = append(s.homes, []string{"eu", "us"}[p%2])
			}
			for b.Loop() {
				s.assign()
			}
		})
	}
}
