//go:build linux

package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/jepsen/record"
)

// The size of a plot, in pixels.
const (
	width, height = 1000, 150
	left          = 60
	// buckets is how many spans of time the rates are counted in, and dots how many latencies are shown at most.
	buckets, dots = 200, 4000
)

// plot is a workload over time.
type plot struct {
	Workload            string
	Width, Height, Left int
	Shades              []shade
	Healed              []float64
	// Rates are lines of points, by outcome; Most is the largest, calls per second.
	Rates map[record.Outcome]string
	Most  float64
	Dots  []dot
	Ticks []tick
	// Marks of the latencies.
	Marks []tick
}

// shade is a fault.
type shade struct {
	X, W  float64
	Title string
}

type dot struct {
	X, Y    float64
	Outcome record.Outcome
}

type tick struct {
	At   float64
	Text string
}

func newPlot(h *record.History, workload string) plot {
	p := plot{Workload: workload, Width: width + left + 20, Height: height, Left: left, Rates: make(map[record.Outcome]string)}
	span := max(h.Last, time.Second)
	x := func(at time.Duration) float64 { return left + float64(at)/float64(span)*width }
	for _, f := range h.Faults {
		end := f.Ended
		if end == 0 {
			end = h.Last
		}
		title := fmt.Sprintf("%s: %s, %.1f s to %.1f s", f.Nemesis, f.Detail, f.Began.Seconds(), end.Seconds())
		p.Shades = append(p.Shades, shade{x(f.Began), max(x(end)-x(f.Began), 1), title})
	}
	for _, r := range h.Rounds {
		if r.Healed != 0 {
			p.Healed = append(p.Healed, x(r.Healed))
		}
	}
	for i := range 11 {
		at := span * time.Duration(i) / 10
		p.Ticks = append(p.Ticks, tick{x(at), fmt.Sprintf("%.0f s", at.Seconds())})
	}
	p.rates(h, span, x)
	p.latencies(h, x)
	return p
}

// rates counts calls by when they returned.
func (p *plot) rates(h *record.History, span time.Duration, x func(time.Duration) float64) {
	counts := make(map[record.Outcome][]int)
	for _, o := range []record.Outcome{record.OK, record.Fail, record.Unknown} {
		counts[o] = make([]int, buckets)
	}
	most := 1
	for _, c := range h.Calls {
		if c.Workload != p.Workload {
			continue
		}
		at := c.Returned
		if c.Open {
			at = c.At
		}
		i := min(int(float64(at)/float64(span)*buckets), buckets-1)
		counts[c.Outcome][i]++
		most = max(most, counts[c.Outcome][i])
	}
	for o, each := range counts {
		var points []string
		for i, n := range each {
			y := height - float64(n)/float64(most)*(height-10)
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(span*time.Duration(2*i+1)/(2*buckets)), y))
		}
		p.Rates[o] = strings.Join(points, " ")
	}
	p.Most = math.Round(float64(most)/span.Seconds()*buckets*10) / 10
}

// latencies are shown from 0.1 ms to 100 s, on a logarithmic scale.
func (p *plot) latencies(h *record.History, x func(time.Duration) float64) {
	y := func(d time.Duration) float64 {
		v := math.Log10(max(float64(d)/float64(time.Millisecond), 0.1))
		return height - (min(v, 5)+1)/6*(height-10)
	}
	for _, d := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second} {
		p.Marks = append(p.Marks, tick{y(d), d.String()})
	}
	var own []*record.Call
	for _, c := range h.Calls {
		if c.Workload == p.Workload && !c.Open {
			own = append(own, c)
		}
	}
	// The slowest are always shown; of the others, every so many.
	slices.SortFunc(own, func(a, b *record.Call) int { return int((b.Returned - b.At) - (a.Returned - a.At)) })
	step := max(1, len(own)/dots)
	for i, c := range own {
		if i < dots/4 || i%step == 0 {
			p.Dots = append(p.Dots, dot{x(c.At), y(c.Returned - c.At), c.Outcome})
		}
	}
}
