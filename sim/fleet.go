package sim

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// Fleet is an experiment that measures instead of looking for bugs: one quorum over five regions as the internet connects
// them, many processes that hold leases, and then the loss of the node that decides. Engine, table, keeper and raft are those
// that ship, as in [Run]; the network and the disks take time, and the processor none.
type Fleet struct {
	Seed uint64
	// Coordinator is the region of the node that decides, one of [FleetRegions].
	Coordinator string
	// Processes hold leases, spread evenly over the regions; each holds Leases leases of its own.
	Processes, Leases int
	// Contended is how many resources are fought for, each by one more process of every region, which holds it for about a
	// second.
	Contended int
	// TTL of every lease. A process keeps one for an hour, or for about Hold, rests for a second and takes it again.
	TTL, Hold time.Duration
	// Measure is for how long the steady state is measured.
	Measure time.Duration
	// Alone sends every call of a process, and every renewal that is forwarded to the coordinator, in a message of its own.
	Alone bool
	// Reset says how the coordinator is lost: its process dies, and its machine refuses connections. Otherwise it goes
	// silent, like a region that is cut off.
	Reset bool
}

// FleetResult is what was measured.
type FleetResult struct {
	Fleet      Fleet
	Hash       string // equal for equal fleets, always
	Events     uint64
	Violations []trace.Violation

	// In the steady state, by region of the client, and in the last place over all: acquisitions that nobody contends, from
	// the call to the grant; hand-offs, from the call of the release to the grant that a waiter of the region gets;
	// renewals, from the call of the process to the answer.
	Acquire, HandOff, Renew []Latency
	// Traffic is messages a second in the steady state, those of a message and its answer counted apart; PerNode is how many
	// of them each node sends or receives.
	Traffic Traffic
	PerNode []Traffic
	// Commits and Confirms are rounds a second; Held is how many leases there were at the end of the steady state.
	Commits, Confirms float64
	Held              int

	// After the loss of the coordinator: who decided then; when it began to; when the first lease was granted to a process
	// that asked at once; when all that held leases had renewed them, or let go of their own accord; and how many leases were
	// lost, which should be none.
	Successor                  string
	TakenOver, Granted, Intact time.Duration
	Lost                       int
}

// Traffic is messages a second, by what carries them.
type Traffic struct {
	Client  float64 // between processes and nodes
	Forward float64 // requests between nodes, and their answers
	Raft    float64
}

// fleetRegions are where nodes and processes are. The first two are zones of one region.
var fleetRegions = []string{"us-east-a", "us-east-b", "us-west", "europe", "asia"}

// FleetRegions lists the regions, one node in each.
func FleetRegions() []string { return append([]string(nil), fleetRegions...) }

const (
	fleetElection  = 2500 * time.Millisecond
	fleetHeartbeat = 250 * time.Millisecond
	fleetBlock     = 1 << 16          // tokens reserved at a time, as in production: small blocks bound the grants of a round
	fleetLocal     = time.Millisecond // round trip between a process and the node of its region
	fleetZones     = 1500 * time.Microsecond
)

// FleetRoundTrip is how long a packet takes from one region to another and back, without jitter.
func FleetRoundTrip(a, b string) time.Duration {
	if a == b {
		return fleetLocal
	}
	for _, l := range fleetLinks() {
		if l.A == a && l.B == b || l.A == b && l.B == a {
			return l.RTT
		}
	}
	panic("sim: no link between " + a + " and " + b)
}

// FleetCommit is the least time in which a commit of the node in a region can reach a majority, two of the others.
func FleetCommit(coordinator string) time.Duration {
	first, second := time.Hour, time.Hour
	for _, other := range fleetRegions {
		if other == coordinator {
			continue
		}
		rtt := FleetRoundTrip(coordinator, other)
		if rtt < first {
			first, second = rtt, first
		} else {
			second = min(second, rtt)
		}
	}
	return second
}

func fleetLinks() []plan.Link {
	const far = 500 * time.Microsecond
	var links []plan.Link
	link := func(a, b string, rtt, jitter time.Duration) {
		links = append(links, plan.Link{A: a, B: b, RTT: rtt, Jitter: jitter})
	}
	link("us-east-a", "us-east-b", fleetZones, 50*time.Microsecond)
	for _, east := range []string{"us-east-a", "us-east-b"} {
		link(east, "us-west", 65*time.Millisecond, far)
		link(east, "europe", 85*time.Millisecond, far)
		link(east, "asia", 200*time.Millisecond, far)
	}
	link("us-west", "europe", 140*time.Millisecond, far)
	link("us-west", "asia", 200*time.Millisecond, far)
	link("europe", "asia", 240*time.Millisecond, far)
	return links
}

// plan is the part of the experiment that [Run] knows too: the quorum.
func (f Fleet) plan() plan.Plan {
	p := plan.Plan{
		Seed: f.Seed, Store: plan.Raft, Election: fleetElection, Heartbeat: fleetHeartbeat, MaxTTL: f.TTL,
		Retention: 5 * time.Minute, SyncDelay: time.Millisecond, Links: fleetLinks(),
	}
	for i, region := range fleetRegions {
		p.Nodes = append(p.Nodes, plan.Node{Name: "n" + decimal(uint64(i+1)), Region: region, PPM: int64(40*i - 80)})
	}
	return p
}

// Of the time that a fleet takes up to its steady state.
const (
	fleetPlacing  = time.Minute
	fleetRamp     = 10 * time.Second
	fleetPatience = 2 * time.Minute
)

// RunFleet carries an experiment out. Whatever goes wrong is in the result.
func RunFleet(f Fleet) *FleetResult {
	r := newRun(f.plan(), Options{})
	r.tokenBlock = fleetBlock
	x := newFleet(r, f)
	world.Seeded(r.world.Dice("crypto/rand"), func() {
		defer func() {
			if p := recover(); p != nil {
				r.violation("panic", fmt.Sprintf("%v\n%s", p, debug.Stack()))
			}
		}()
		x.carryOut()
	})
	return x.result()
}

// fleet is an experiment that is being carried out.
type fleet struct {
	run     *run
	spec    Fleet
	fronts  []*front
	holders []*holder
	meter   meter
	winding bool // nobody lets go of a lease that nobody else wants
}

func newFleet(r *run, spec Fleet) *fleet {
	x := &fleet{run: r, spec: spec}
	x.meter.begin(x)
	for _, n := range r.nodes {
		x.fronts = append(x.fronts, newFront(x, n))
	}
	for i := range spec.Processes {
		h := newHolder(x, "p"+decimal(uint64(i)), i%len(fleetRegions))
		for j := range spec.Leases {
			h.add(h.process.Name+"/"+decimal(uint64(j)), spec.Hold)
		}
	}
	for i := range spec.Contended {
		for region := range fleetRegions {
			h := newHolder(x, "q"+decimal(uint64(i))+"-"+decimal(uint64(region)), region)
			h.add("contended/"+decimal(uint64(i)), 0)
		}
	}
	return x
}

func (x *fleet) carryOut() {
	w := x.run.world
	for _, n := range x.run.nodes {
		n.start()
	}
	coordinator := x.place()
	if coordinator == nil {
		x.run.violation("fleet", "nobody decides in "+x.spec.Coordinator)
		return
	}
	for _, f := range x.fronts {
		f.follow()
	}
	dice := w.Dice("ramp")
	for _, h := range x.holders {
		w.After(dice.Between(0, fleetRamp), h.start)
	}
	w.Run(w.Now() + fleetRamp + x.spec.TTL/2)

	x.meter.open()
	w.Run(w.Now() + x.spec.Measure)
	x.meter.close()

	x.lose(coordinator)
	for limit := w.Now() + fleetPatience; w.Now() < limit && !x.meter.settled(); {
		w.Run(w.Now() + time.Millisecond)
		x.meter.look()
	}
	if !x.meter.settled() {
		x.run.violation("fleet", fmt.Sprintf("%d processes have neither renewed nor let go %v after the coordinator was lost", len(x.meter.waiting), fleetPatience))
	}
}

// place moves the coordinator to where it is wanted.
func (x *fleet) place() *node {
	w := x.run.world
	for limit := w.Now() + fleetPlacing; w.Now() < limit; {
		w.Run(w.Now() + time.Second)
		for _, n := range x.run.nodes {
			if n.process.Region != x.spec.Coordinator {
				continue
			}
			if x.run.coordinator() == n {
				return n
			}
			x.run.oper.move(n, func(bool) {})
		}
	}
	return nil
}

// lose ends the coordinator, and lets one process of every region ask for a lease at that moment.
func (x *fleet) lose(n *node) {
	x.winding = true
	x.meter.lose(n)
	n.crash()
	if x.spec.Reset {
		x.fronts[x.index(n)].reset()
	}
	for region := range fleetRegions {
		h := newHolder(x, "probe-"+decimal(uint64(region)), region)
		h.add(h.process.Name, time.Hour)
		h.start()
	}
}

func (x *fleet) index(n *node) int {
	for i, o := range x.run.nodes {
		if o == n {
			return i
		}
	}
	panic("sim: a node of nowhere")
}

func (x *fleet) result() *FleetResult {
	res := x.meter.result
	res.Fleet, res.Violations = x.spec, x.run.violations
	res.Hash, res.Events = fmt.Sprintf("%016x", x.run.world.Digest()), x.run.world.Events()
	return &res
}
