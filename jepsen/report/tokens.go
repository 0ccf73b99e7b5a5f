//go:build linux

package report

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/workload"
)

// laneHeight is that of the lane of a lease, in pixels.
const laneHeight = 18

// lane is who believed in a lease, over time.
type lane struct {
	Name string
	Y    int
	Bars []bar
}

// bar is one belief. Odd ones look different, so that neighbours can be told apart, and so do those that overlap another.
type bar struct {
	X, W    float64
	Odd     bool
	Overlap bool
	Title   string
}

// staircase is the tokens that a store accepted, over time: it never goes down.
type staircase struct {
	Workload string
	Dots     []step
	Low, Top string // the lowest and the highest token
}

// step is a write that was accepted. Down: under an older token than one before.
type step struct {
	X, Y float64
	Down bool
}

// tokens is what was believed, above what was accepted, over the same time.
type tokens struct {
	Width, Left int
	LanesHeight int
	Lanes       []lane
	Height      int
	Stairs      []staircase
	Shades      []shade
	Ticks       []tick
}

// newTokens answers nil for a record in which nobody says what it believes, and no store what it accepted.
func newTokens(h *record.History) (*tokens, error) {
	beliefs, err := workload.Beliefs(h)
	if err != nil {
		return nil, err
	}
	accepted, err := workload.AcceptedWrites(h)
	if err != nil {
		return nil, err
	}
	if len(beliefs) == 0 && len(accepted) == 0 {
		return nil, nil
	}
	frame := newPlot(h, "")
	t := &tokens{Width: frame.Width, Left: left, LanesHeight: laneHeight*len(beliefs) + 4, Height: height, Shades: frame.Shades, Ticks: frame.Ticks}
	span := max(h.Last, time.Second)
	x := func(at time.Duration) float64 { return left + float64(at)/float64(span)*width }
	for i, resource := range slices.Sorted(maps.Keys(beliefs)) {
		t.Lanes = append(t.Lanes, lane{resource, i * laneHeight, bars(beliefs[resource], x)})
	}
	for _, name := range slices.Sorted(maps.Keys(accepted)) {
		t.Stairs = append(t.Stairs, newStaircase(name, accepted[name], x))
	}
	return t, nil
}

func bars(said []workload.Belief, x func(time.Duration) float64) (all []bar) {
	var until time.Duration
	for i, b := range said {
		all = append(all, bar{
			X: x(b.From), W: max(x(b.Until)-x(b.From), 0.5), Odd: i%2 == 1, Overlap: i > 0 && b.From <= until,
			Title: fmt.Sprintf("%s under %v, %v to %v", b.Client, b.Token, b.From.Round(time.Millisecond), b.Until.Round(time.Millisecond)),
		})
		until = max(until, b.Until)
	}
	return all
}

func newStaircase(name string, accepted []workload.Accepted, x func(time.Duration) float64) staircase {
	var order []fence.Token
	for _, a := range accepted {
		order = append(order, a.Token)
	}
	slices.Sort(order)
	order = slices.Compact(order)
	s := staircase{Workload: name, Low: order[0].String(), Top: order[len(order)-1].String()}
	newest := fence.Token(0)
	every := max(1, len(accepted)/dots)
	for i, a := range accepted {
		down := a.Token < newest
		newest = max(newest, a.Token)
		if i%every != 0 && !down { // of a long run not every one, but all that must not be there
			continue
		}
		rank, _ := slices.BinarySearch(order, a.Token)
		s.Dots = append(s.Dots, step{x(a.At), height - 5 - float64(rank)/float64(max(1, len(order)-1))*(height-15), down})
	}
	return s
}
