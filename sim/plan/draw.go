package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/writ-io/writ/sim/world"
)

// Source is where draws come from. A small number stands for something simple, so that a source that looks for the smallest
// numbers which still fail finds a simple plan.
type Source interface {
	// Int draws from low to high, both included. The label says what for.
	Int(label string, low, high int) int
}

// Seeded is a source of random numbers. Those of a label do not depend on what is drawn for others.
func Seeded(seed uint64) Source { return seeded{seed, make(map[string]uint64)} }

type seeded struct {
	seed  uint64
	count map[string]uint64
}

func (s seeded) Int(label string, low, high int) int {
	s.count[label]++
	return low + world.NewDice(s.seed, "plan "+label, s.count[label]).Intn(high-low+1)
}

// DrawOptions are what is not left to chance. The zero value is that of 10 minutes on raft.
type DrawOptions struct {
	// Duration is that of the plan; 0: 10 minutes. It is at least a second.
	Duration time.Duration
	// Store is what nodes replicate with; empty: raft.
	Store Store
	// Guards puts guards into every plan, and not only into one of four.
	Guards bool
	// Groups puts guards and a failover group into every plan that has two regions.
	Groups bool
	// Singletons puts services into every plan that do in one place what is to be done in one place.
	Singletons bool
}

// Draw makes a valid plan with that seed. Every plan leaves out some kinds of faults and some features, chosen at random:
// what often happens together hides what happens when something is missing.
//
// All clients together are to make about 50 operations per simulated second, a fifth of that on the fast store; storage
// writes do not count.
func Draw(seed uint64, s Source, o DrawOptions) Plan {
	d := &drawing{source: s, plan: Plan{
		Seed:      seed,
		Store:     cmp.Or(o.Store, Raft),
		Duration:  cmp.Or(o.Duration, 10*time.Minute),
		Election:  time.Second,
		Heartbeat: 100 * time.Millisecond,
		MaxTTL:    time.Minute,
		Retention: 5 * time.Minute,
		SyncDelay: time.Millisecond,
		Sample:    200,
	}}
	d.nodes()
	d.clients()
	d.watchers()
	d.faults()
	d.operations()
	if d.yes("guarded", 4) || o.Guards || o.Groups {
		d.guards()
		if d.yes("grouped", 3) || o.Groups {
			d.group()
		}
	}
	if d.yes("singletons", 6) || o.Singletons {
		d.singletons()
	}
	slices.SortStableFunc(d.plan.Faults, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return d.plan
}

// drawing is a plan on its way.
type drawing struct {
	source  Source
	plan    Plan
	regions []string
	drift   bool
	// latency is about how long an operation takes.
	latency time.Duration
}

func (d *drawing) int(label string, low, high int) int { return d.source.Int(label, low, high) }

// one of n.
func (d *drawing) one(label string, n int) int { return d.int(label, 0, n-1) }

// yes with a chance of one in n.
func (d *drawing) yes(label string, n int) bool { return d.one(label, n) == n-1 }

func (d *drawing) ms(label string, low, high int) time.Duration {
	return time.Duration(d.int(label, low, high)) * time.Millisecond
}

// ppm draws how far a clock is off.
func (d *drawing) ppm() int64 {
	if !d.drift {
		return 0
	}
	n := int64(d.int("ppm", 0, 2*MaxPPM))
	if n%2 == 1 {
		return -(n + 1) / 2
	}
	return n / 2
}

// profile is how regions lie.
type profile struct {
	regions []string
	rtt     [][]int // milliseconds tenfold
	latency time.Duration
	far     bool
}

var (
	zone = profile{
		regions: []string{"zone-a", "zone-b", "zone-d", "zone-e", "zone-f"},
		rtt:     [][]int{{}, {15}, {15, 15}, {15, 15, 15}, {15, 15, 15, 15}},
		latency: 5 * time.Millisecond,
	}
	continent = profile{
		regions: []string{"fra", "dub", "sto", "mil", "par"},
		rtt:     [][]int{{}, {260}, {240, 380}, {110, 330, 340}, {100, 190, 310, 190}},
		latency: 50 * time.Millisecond,
	}
	globe = profile{
		regions: []string{"us-east", "us-west", "eu", "ap", "eu-north"},
		rtt:     [][]int{{}, {650}, {850, 1450}, {2000, 1500, 2300}, {1100, 1700, 300, 2400}},
		latency: 200 * time.Millisecond,
		far:     true,
	}
)

func (d *drawing) nodes() {
	p := &d.plan
	count := []int{3, 3, 3, 3, 3, 3, 3, 5, 5, 1}[d.one("nodes", 10)]
	where := []profile{zone, continent, globe}[d.one("profile", 3)]
	d.latency = where.latency
	if where.far && d.yes("patient election", 2) {
		p.Election, p.Heartbeat = 3*time.Second, 300*time.Millisecond
	}
	d.drift = d.yes("drift", 2)
	noise, slowDisks := d.yes("noise", 2), d.yes("slow disks", 4)
	if slowDisks {
		p.SyncDelay = d.ms("sync", 2, 20)
	}
	if d.yes("lock delay", 8) {
		p.LockDelay = d.ms("lock delay for", 100, 5000)
	}
	first := d.one("first region", len(where.regions))
	for i := range count {
		d.regions = append(d.regions, where.regions[(first+i)%len(where.regions)])
		p.Nodes = append(p.Nodes, Node{Name: fmt.Sprint("n", i+1), Region: d.regions[i], PPM: d.ppm()})
	}
	for i := range count {
		for j := range i {
			low, high := (first+i)%len(where.regions), (first+j)%len(where.regions)
			if low > high {
				low, high = high, low
			}
			l := Link{A: d.regions[j], B: d.regions[i], RTT: time.Duration(where.rtt[high][low]) * 100 * time.Microsecond}
			if noise {
				l.Jitter = l.RTT * time.Duration(d.int("jitter", 0, 20)) / 100
				l.Loss, l.Dup = d.int("loss", 0, 5), d.int("dup", 0, 5)
			}
			p.Links = append(p.Links, l)
		}
	}
}

// wantedRate is how many operations all clients together would make in a second if nothing went wrong and nobody had to
// wait for an answer. Faults, waiting and distances leave about 50 of them.
const wantedRate = 80

// fastQuiet is by how much less there is to do on the fast store: its runs are for many seeds, which differ in what goes
// wrong, and not for much work in each.
const fastQuiet = 5

func (d *drawing) clients() {
	p := &d.plan
	count, resourceCount := d.int("clients", 3, 8), d.int("resources", 1, 4)
	holders := min(count, resourceCount)
	// pace is how often each of the holders has to do something.
	pace := time.Duration(holders) * time.Second / wantedRate
	quiet := 1
	if p.Store == Fast {
		quiet = fastQuiet
	}
	pace *= time.Duration(quiet)
	checkpoints, several := d.one("checkpoints", 4) > 0, d.yes("several resources", 2)
	priorities, impatience, leave, try := d.yes("priorities", 3), d.yes("impatience", 3), d.yes("leave", 3), d.yes("try", 2)
	shortest := 2
	if d.latency > 100*time.Millisecond {
		shortest = 5
	}
	for i := range count {
		c := Client{
			Name:   fmt.Sprint("c", i+1),
			Region: d.regions[d.one("client region", len(d.regions))],
			PPM:    d.ppm(),
			TTL:    time.Duration(d.int("ttl", shortest, 30)) * time.Second,
			Write:  d.ms("write", 20*quiet, 500*quiet),
		}
		firstResource, more := d.one("resource", resourceCount), 0
		if several {
			more = d.one("more resources", resourceCount)
			c.All = more > 0 && d.yes("all", 3)
		}
		for k := range more + 1 {
			c.Resources = append(c.Resources, fmt.Sprint("r", (firstResource+k)%resourceCount+1))
		}
		// Steady holders keep others from working: where they make no checkpoints they are few.
		steady := d.yes("steady", 4)
		if checkpoints {
			steady = steady || d.yes("steadier", 2)
		}
		if steady {
			c.Hold = d.ms("steady hold", 1000, 2*int(min(c.TTL, 10*time.Second)/time.Millisecond))
			c.Think = d.ms("steady think", 100, 2000)
			if checkpoints {
				c.Checkpoint = pace
			}
		} else {
			// It acquires and releases, while it waits for both to arrive.
			c.Hold = max(10*time.Millisecond, 2*pace-d.latency)
			c.Think = d.ms("think", 10, 100)
			c.Write = d.ms("quick write", 5, int(c.Hold/time.Millisecond))
		}
		if priorities {
			c.Priority = int32(d.int("priority", 0, 3))
		}
		if try {
			c.Try = d.int("try of a client", 0, 300)
		}
		if impatience {
			c.Impatience = d.int("impatience of a client", 0, 300)
		}
		if leave {
			c.Leave = d.int("leave of a client", 0, 300)
		}
		p.Clients = append(p.Clients, c)
	}
}

func (d *drawing) watchers() {
	if !d.yes("watchers", 2) {
		return
	}
	for i := range d.int("watcher count", 1, 3) {
		d.plan.Watchers = append(d.plan.Watchers, Watcher{
			Name:   fmt.Sprint("w", i+1),
			Region: d.regions[d.one("watcher region", len(d.regions))],
			Prefix: []string{"", "r", "r1"}[d.one("prefix", 3)],
			Stay:   d.ms("stay", 2000, 60_000),
		})
	}
}
