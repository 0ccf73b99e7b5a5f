//go:build linux

package jepsen_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/writ-io/writ/jepsen/cluster"
)

// lapse is how long a guard has to be out of contact for the quorum to give it up, and a little longer.
const lapse = guardLease + slack + time.Second

// plague does harm to one part of a lab, one fault after the other. Every kind of fault has its turn before one comes again.
type plague struct {
	lab    *lab
	rng    *rand.Rand
	faults []fault
	rest   time.Duration // before each fault; the time is drawn, and this is the middle
	log    *plagueLog
}

// fault harms something for a while. Whatever it did is undone when it returns, also when ctx has ended.
type fault struct {
	name string
	do   func(p *plague, ctx context.Context) error
	// alone: it needs things as they are. No other plague does harm meanwhile.
	alone bool
}

// plagueLog is what the plagues of a run did.
type plagueLog struct {
	start    time.Time
	together sync.RWMutex // held while harm is done; for writing by what must be alone

	mu      sync.Mutex
	counts  map[string]int // guarded by mu
	journal []string       // guarded by mu
	longest time.Duration  // guarded by mu; that a guard was paused
}

func (l *plagueLog) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.journal = append(l.journal, fmt.Sprintf("%8.3f %s", time.Since(l.start).Seconds(), fmt.Sprintf(format, args...)))
}

func (l *plagueLog) count(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[name]++
}

func (l *plagueLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("faults: %s\nlongest pause of a guard: %v", counts(l.counts), l.longest)
}

func (l *plagueLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.journal, "\n")
}

// run does harm until ctx ends.
func (p *plague) run(ctx context.Context) error {
	for {
		for _, i := range p.rng.Perm(len(p.faults)) {
			if !wait(ctx, p.rest/2+time.Duration(p.rng.Int64N(int64(p.rest)))) {
				return nil
			}
			f := p.faults[i]
			if err := p.harm(ctx, f); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			p.log.note("end %s", f.name)
			p.log.count(f.name)
		}
	}
}

func (p *plague) harm(ctx context.Context, f fault) error {
	order := p.log.together.RLocker()
	if f.alone {
		order = &p.log.together
	}
	order.Lock()
	defer order.Unlock()
	p.log.note("begin %s", f.name)
	return f.do(p, ctx)
}

func (p *plague) between(low, high int) time.Duration {
	return time.Duration(low+p.rng.IntN(high-low+1)) * time.Millisecond
}

// out is how long a guard or its network is out: mostly for a moment, often for long enough to be given up.
func (p *plague) out() time.Duration {
	if p.rng.IntN(3) > 0 {
		return p.between(100, 2000)
	}
	return lapse + p.between(0, 1500)
}

func (p *plague) guard() int { return p.rng.IntN(guardCount) }

// node draws one, half the time the coordinator.
func (p *plague) node(ctx context.Context) int {
	i := p.rng.IntN(cluster.Size)
	if p.rng.IntN(2) == 0 {
		if c, ok := p.lab.nodes.Coordinator(ctx); ok {
			i = c
		}
	}
	return i
}

func (p *plague) writer() *labWriter { return p.lab.writers[p.rng.IntN(len(p.lab.writers))] }

// pathology is what happens to nodes, guards and the network between them.
var pathology = []fault{
	{"node killed", func(p *plague, ctx context.Context) error {
		i := p.node(ctx)
		return p.during(ctx, p.between(100, 2000), func() error { return p.lab.nodes.Kill(i) }, func() error { return p.lab.nodes.Restart(i) })
	}, false},
	{"coordinator killed", func(p *plague, ctx context.Context) error {
		i, ok := p.lab.nodes.Coordinator(ctx)
		if !ok {
			return nil
		}
		return p.during(ctx, p.between(100, 2000), func() error { return p.lab.nodes.Kill(i) }, func() error { return p.lab.nodes.Restart(i) })
	}, false},
	{"node paused", func(p *plague, ctx context.Context) error {
		i := p.node(ctx)
		return p.during(ctx, p.between(100, 4000), func() error { return p.lab.nodes.Pause(i) }, func() error { return p.lab.nodes.Resume(i) })
	}, false},
	{"node unplugged", func(p *plague, ctx context.Context) error {
		return p.unplugged(ctx, cluster.Regions[p.node(ctx)], p.between(500, 3000))
	}, false},
	{"node cut from another, one way", func(p *plague, ctx context.Context) error {
		i := p.node(ctx)
		j := (i + 1 + p.rng.IntN(cluster.Size-1)) % cluster.Size
		return p.cut(ctx, p.between(500, 3000), cluster.Regions[i], cluster.Regions[j])
	}, false},
	{"guard killed", func(p *plague, ctx context.Context) error {
		g := p.lab.guards[p.guard()]
		return p.during(ctx, p.out(), g.Kill, g.Start)
	}, false},
	{"guard killed in the middle of a write", func(p *plague, ctx context.Context) error {
		i, ok := p.write(ctx, anyWrite)
		if !ok {
			return nil
		}
		return p.during(ctx, p.between(0, 1000), p.lab.guards[i].Kill, p.lab.guards[i].Start)
	}, false},
	{"guard stopped and started", func(p *plague, ctx context.Context) error {
		g := p.lab.guards[p.guard()]
		return p.during(ctx, p.between(0, 1000), func() error { return stop(ctx, g) }, g.Start)
	}, false},
	{"guard paused", func(p *plague, ctx context.Context) error { return p.pauseGuard(ctx, p.guard()) }, false},
	{"guard paused in the middle of a write", func(p *plague, ctx context.Context) error {
		i, ok := p.write(ctx, anyWrite)
		if !ok {
			return nil
		}
		return p.pauseGuard(ctx, i)
	}, false},
	{"guard unplugged", func(p *plague, ctx context.Context) error { return p.unplugged(ctx, guardParty(p.guard()), p.out()) }, false},
	{"guard cut from the quorum", func(p *plague, ctx context.Context) error {
		return p.cut(ctx, p.out(), guardParty(p.guard()), cluster.Regions[:]...)
	}, false},
	{"quorum cut from a guard", func(p *plague, ctx context.Context) error {
		g := guardParty(p.guard())
		return p.cutAll(ctx, p.out(), [][2]string{{cluster.Regions[0], g}, {cluster.Regions[1], g}, {cluster.Regions[2], g}})
	}, false},
	{"guard cut from the store", func(p *plague, ctx context.Context) error {
		g := guardParty(p.guard())
		return p.cutAll(ctx, p.out(), [][2]string{{g, storeParty}, {storeParty, g}})
	}, false},
	{"guard cut from the store, one way", func(p *plague, ctx context.Context) error {
		return p.cut(ctx, lapse+p.between(0, 2000), guardParty(p.guard()), storeParty)
	}, false},
	{"store cut from a guard, one way", func(p *plague, ctx context.Context) error {
		return p.cut(ctx, p.out(), storeParty, guardParty(p.guard()))
	}, false},
}

// maladies are what happens to writers.
var maladies = []fault{
	{"writer killed", func(p *plague, ctx context.Context) error {
		w := p.writer()
		return p.during(ctx, p.between(0, 3000), w.Kill, w.Start)
	}, false},
	{"writer killed in the middle of a write", func(p *plague, ctx context.Context) error {
		w := p.writer()
		ctx, cancel := context.WithTimeout(ctx, lapse)
		defer cancel()
		p.lab.book.await(ctx, func(s said) bool { return s.Kind == saidPut && strings.HasPrefix(s.Writer, w.party+".") })
		return p.during(ctx, p.between(0, 1000), w.Kill, w.Start)
	}, false},
	{"writer paused", func(p *plague, ctx context.Context) error {
		w := p.writer()
		return p.during(ctx, p.between(100, 4*int(writerTTL.Milliseconds())), w.Pause, func() error { _, err := w.Resume(); return err })
	}, false},
	{"writer paused between reading and writing", func(p *plague, ctx context.Context) error { return p.pauseReader(ctx, p.writer()) }, false},
	{"writer unplugged", func(p *plague, ctx context.Context) error {
		return p.unplugged(ctx, p.writer().party, p.between(100, 4000))
	}, false},
	{"writer cut from a guard, one way", func(p *plague, ctx context.Context) error {
		ends := [2]string{p.writer().party, guardParty(p.guard())}
		if p.rng.IntN(2) == 0 {
			ends[0], ends[1] = ends[1], ends[0]
		}
		return p.cutAll(ctx, p.between(100, 4000), [][2]string{ends})
	}, false},
	{"writer cut from the quorum", func(p *plague, ctx context.Context) error {
		return p.cut(ctx, p.between(1000, 4000), p.writer().party, cluster.Regions[:]...)
	}, false},
}

// during does one thing, and another one after a while.
func (p *plague) during(ctx context.Context, span time.Duration, begin, end func() error) error {
	if err := begin(); err != nil {
		return err
	}
	wait(ctx, span)
	return end()
}

func (p *plague) unplugged(ctx context.Context, party string, span time.Duration) error {
	p.log.note("unplugged: %s for %v", party, span)
	return p.during(ctx, span, func() error { return p.lab.net.Unplug(party) }, func() error { return p.lab.net.Plug(party) })
}

// cut cuts one party's way to others.
func (p *plague) cut(ctx context.Context, span time.Duration, from string, to ...string) error {
	var ways [][2]string
	for _, there := range to {
		ways = append(ways, [2]string{from, there})
	}
	return p.cutAll(ctx, span, ways)
}

func (p *plague) cutAll(ctx context.Context, span time.Duration, ways [][2]string) error {
	p.log.note("cut: %v for %v", ways, span)
	each := func(do func(from, to string) error) func() error {
		return func() (all error) {
			for _, way := range ways {
				all = errors.Join(all, do(way[0], way[1]))
			}
			return all
		}
	}
	return p.during(ctx, span, each(p.lab.net.Cut), each(p.lab.net.Mend))
}

// write waits until a writer begins to write, and returns by which guard.
func (p *plague) write(ctx context.Context, sought func(said) bool) (guard int, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, lapse)
	defer cancel()
	s, ok := p.lab.book.await(ctx, func(s said) bool { return s.Kind == saidPut && sought(s) })
	return s.Front, ok
}

func anyWrite(said) bool { return true }

// pauseGuard pauses a guard for less than half of W.
func (p *plague) pauseGuard(ctx context.Context, i int) error {
	g := p.lab.guards[i]
	return p.during(ctx, p.between(50, int(slack.Milliseconds())/2-100), g.Pause, func() error {
		span, err := g.Resume()
		p.log.mu.Lock()
		defer p.log.mu.Unlock()
		p.log.longest = max(p.log.longest, span)
		return err
	})
}

// stop ends a guard as a service manager does, which has it wait for what is under way.
func stop(ctx context.Context, g *cluster.Program) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err := g.Stop(ctx)
	if ctx.Err() == nil {
		return nil // it may say that it could not wait for everything
	}
	return err
}
