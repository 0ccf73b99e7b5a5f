package world

import (
	"slices"
	"time"
)

// Network carries packets between processes. Every link, which is one direction between two processes, has its own delay,
// loss and cuts; the fate of its n-th packet hangs on the seed, the link and n alone.
type Network struct {
	// Tap, if set, hears of every packet that is sent.
	Tap func(from, to *Process)

	world   *World
	links   [][]*link // by the numbers of both ends
	profile func(from, to *Process) Quality
	faults  []*Fault
	sent    uint64
	lost    uint64
}

// Quality is how well a link carries packets.
type Quality struct {
	Delay     time.Duration // one way, at least
	Jitter    time.Duration // added to it: exponential, with this mean
	Loss      int           // in thousandths
	Duplicate int           // in thousandths
}

// Fault changes what links do, from Add until Remove.
type Fault struct {
	// Hits says which links it concerns.
	Hits func(from, to *Process) bool
	// Cut loses every packet, also those that are under way.
	Cut bool
	// Clog holds every packet back until the fault is removed; then they arrive together.
	Clog bool
	// Delay, Jitter, Loss and Duplicate are added to what the link has.
	Quality

	held []task
}

type link struct {
	network  *Network
	from, to *Process
	dice     *Dice
	quality  Quality
}

// NewNetwork makes a network whose links are of a quality that hangs on their ends.
func (w *World) NewNetwork(profile func(from, to *Process) Quality) *Network {
	return &Network{world: w, profile: profile}
}

// Sent and Lost count packets.
func (n *Network) Sent() uint64 { return n.sent }

// Lost is how many packets were lost.
func (n *Network) Lost() uint64 { return n.lost }

func (n *Network) link(from, to *Process) *link {
	if len(n.links) <= from.number {
		n.links = append(n.links, make([][]*link, from.number+1-len(n.links))...)
	}
	of := n.links[from.number]
	if len(of) <= to.number {
		of = append(of, make([]*link, to.number+1-len(of))...)
		n.links[from.number] = of
	}
	l := of[to.number]
	if l == nil {
		l = &link{network: n, from: from, to: to, dice: n.world.Dice("link", from.id, to.id), quality: n.profile(from, to)}
		of[to.number] = l
	}
	return l
}

// Send carries a packet from one process to the present life of another, where it arrives as a call of deliver: once, or
// twice, or never, and not necessarily in order.
func (n *Network) Send(from, to *Process, deliver func()) {
	l := n.link(from, to)
	n.sent++
	if n.Tap != nil {
		n.Tap(from, to)
	}
	q := l.quality
	for _, f := range n.faults {
		if f.Hits(from, to) {
			q.Delay += f.Delay
			q.Jitter += f.Jitter
			q.Loss += f.Loss
			q.Duplicate += f.Duplicate
		}
	}
	// The same draws for every packet, whatever their use: so the fate of later ones does not change with a fault.
	fate, delay, echo := l.dice.Uint64(), l.dice.Float(), l.dice.Float()
	if int(fate%1000) < q.Loss {
		n.lost++
		return
	}
	l.carry(q.Delay+spread(delay, q.Jitter), deliver)
	if int(fate/1000%1000) < q.Duplicate {
		again := spread(echo, 2*q.Jitter+q.Delay/2)
		if fate/1_000_000%4 == 0 { // from somewhere where it was kept
			again += spread(echo, staleEcho)
		}
		l.carry(q.Delay+again, deliver)
	}
}

// staleEcho is how late some duplicates are: so that what they ask for is long over.
const staleEcho = 3 * time.Second

// spread turns a number from 0 to 1 into a duration with a mean and a long tail: most are short, one in a hundred is ten
// times the mean. It is rational, so that it is the same on every machine.
func spread(x float64, mean time.Duration) time.Duration {
	return time.Duration(int64(float64(mean/time.Microsecond)*(x/(1.1-x))*0.7)) * time.Microsecond
}

func (l *link) carry(delay time.Duration, deliver func()) {
	w := l.network.world
	w.schedule(w.now+delay, task{link: l, life: l.to.life, do: deliver})
}

// arrive ends a packet's way, unless a fault is in it.
func (l *link) arrive(life uint64, deliver func()) {
	for _, f := range l.network.faults {
		if !f.Hits(l.from, l.to) {
			continue
		}
		if f.Cut {
			l.network.lost++
			return
		}
		if f.Clog {
			f.held = append(f.held, task{link: l, life: life, do: deliver})
			return
		}
	}
	l.to.DoIn(life, deliver)
}

// Connected says whether a packet that is sent now could arrive.
func (n *Network) Connected(from, to *Process) bool {
	return !slices.ContainsFunc(n.faults, func(f *Fault) bool { return (f.Cut || f.Clog) && f.Hits(from, to) })
}

// Add begins a fault.
func (n *Network) Add(f *Fault) { n.faults = append(n.faults, f) }

// Remove ends a fault. What it held back arrives, unless another one is in its way.
func (n *Network) Remove(f *Fault) {
	n.faults = slices.DeleteFunc(n.faults, func(o *Fault) bool { return o == f })
	waiting := f.held
	f.held = nil
	for _, packet := range waiting {
		n.world.schedule(n.world.now, packet)
	}
}

// Clear ends every fault.
func (n *Network) Clear() {
	for len(n.faults) > 0 {
		n.Remove(n.faults[0])
	}
}
