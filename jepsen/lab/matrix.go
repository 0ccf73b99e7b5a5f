//go:build linux

package lab

import (
	"errors"
	"strings"
	"time"

	"github.com/writ-io/writ/jepsen/choice"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/netns"
)

// Matrix is how far the regions are from each other. The zero value has them all in one place.
type Matrix struct {
	Name string
	// Doc is a sentence for people.
	Doc string
	// Pace is the share of the workloads' least rates that is asked for; 0: all of it. Who waits for answers from afar gets
	// less done.
	Pace float64
	// roundTrips are those between the regions of each pair: of the first two nodes, of the first and the third, and of the
	// last two. Jitter is how much longer a packet is under way at most.
	roundTrips [3]time.Duration
	jitter     time.Duration
	// heartbeat and election are what a store needs over such distances. Default: those of package cluster.
	heartbeat, election time.Duration
}

// Matrices are all of them. Their figures are those of the plans and fleets of the simulator.
var Matrices = choice.Set[Matrix]{
	All: []Matrix{
		{
			Name: "zone", Doc: "zones of one region: 1.5 ms",
			roundTrips: [3]time.Duration{1500 * time.Microsecond, 1500 * time.Microsecond, 1500 * time.Microsecond}, jitter: 50 * time.Microsecond,
		},
		{
			Name: "continent", Doc: "Frankfurt, Dublin and Stockholm: 24 to 38 ms", Pace: 0.5,
			roundTrips: [3]time.Duration{26 * time.Millisecond, 24 * time.Millisecond, 38 * time.Millisecond}, jitter: 2 * time.Millisecond,
		},
		{
			Name: "globe", Doc: "Europe, the east of the United States and Asia: 85 to 240 ms", Pace: 0.2,
			roundTrips: [3]time.Duration{85 * time.Millisecond, 240 * time.Millisecond, 200 * time.Millisecond}, jitter: 500 * time.Microsecond,
			heartbeat: 250 * time.Millisecond, election: 2500 * time.Millisecond,
		},
	},
	Tell: func(m Matrix) (name, doc string) { return m.Name, m.Doc },
}

// between is what happens to packets from one region to another.
func (m Matrix) between(from, to int) netns.Shape {
	if from == to || m == (Matrix{}) {
		return netns.Shape{}
	}
	return netns.Shape{Delay: m.roundTrips[from+to-1] / 2, Jitter: m.jitter}
}

// home is the region that a party stands in, by its place among [cluster.Regions]; false: it is near to everybody. Nodes, and
// others whose names end with that of a region, stand there. Parties with a number are spread over the regions, but for the guards, which stand with the store in the first one.
func home(party string) (region int, ok bool) {
	if party == Observer {
		return 0, false
	}
	for i, name := range cluster.Regions {
		if strings.HasSuffix(party, name) {
			return i, true
		}
	}
	last := party[len(party)-1]
	if last < '1' || last > '9' || strings.HasPrefix(party, "guard") {
		return 0, true
	}
	return int(last-'1') % cluster.Size, true
}

// spread puts the parties as far apart as the matrix says.
func (l *Lab) spread() (err error) {
	for _, from := range l.Parties() {
		for _, to := range l.Parties() {
			a, far := home(from)
			b, there := home(to)
			if far && there && from != to {
				err = errors.Join(err, l.Net.Base(from, to, l.Config.Matrix.between(a, b)))
			}
		}
	}
	return err
}
