//go:build linux

package nemesis

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/disk"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/wait"
)

// disks harm what nodes and guards keep.
var disks = []Kind{
	diskKind("slow-disk", "have every flush of a node or a guard take longer", func(ctx context.Context, s *strike) error {
		return s.slowDisk(ctx)
	}),
	diskKind("fail-disk", "have every flush of a node or a guard fail, then SIGKILL it if it still runs, and start it again", func(ctx context.Context, s *strike) error {
		return s.failDisk(ctx)
	}),
	diskKind("full-disk", "have no space for a node or a guard, and start a node again if it ends, a guard in any case", func(ctx context.Context, s *strike) error {
		return s.fullDisk(ctx)
	}),
	diskKind("power-cut", "SIGKILL a node, all nodes or a guard, lose or tear what was not flushed, and start again", func(ctx context.Context, s *strike) error {
		return s.powerCut(ctx)
	}),
	diskKind("old-image", "put a guard's disk back to what it held some time before", func(ctx context.Context, s *strike) error {
		return s.oldImage(ctx)
	}),
}

// Lies is no fault that Writ promises to outlast, but what a control does harm by: the disks of all nodes acknowledge what they do
// not keep, and then all of them lose their power at once.
var Lies = diskKind("lying-disks", "have all nodes' disks do nothing at a flush, and then lose their power", func(ctx context.Context, s *strike) error {
	return s.lie(ctx)
})

func diskKind(name, doc string, do func(context.Context, *strike) error) Kind {
	return Kind{Name: name, Doc: doc, Supported: disk.Supported, Needs: func(c *lab.Config) { c.Disks = true }, strike: do}
}

// keeper is a node or a guard, as somebody who has a disk.
type keeper struct {
	party string
	disk  *disk.Disk
	kill  func() error
	start func() error
	// fell ends it unless it has ended by itself; ended is closed when it has.
	fell  func() (alone bool, err error)
	ended func() <-chan struct{}
	// well asks whether it serves; nil: it says itself that somebody has to start it again after any failure of its disk.
	well func(context.Context) bool
}

func (s *strike) keepingNode(i int) keeper {
	nodes := s.lab.Nodes
	return keeper{
		party: region(i), disk: s.lab.Disks[region(i)],
		kill: func() error { return nodes.Kill(i) }, start: func() error { return nodes.Restart(i) },
		fell: func() (bool, error) { return nodes.Fell(i) }, ended: func() <-chan struct{} { return nodes.Ended(i) },
		well: func(ctx context.Context) bool {
			status, err := nodes.Status(ctx, i)
			return err == nil && status.GetReady()
		},
	}
}

func (s *strike) keepingGuard(i int) keeper {
	g := s.lab.Guards[i]
	return keeper{party: guard(i), disk: s.lab.Disks[guard(i)], kill: g.Kill, start: g.Start, fell: g.Fell, ended: g.Ended}
}

// keeper draws and takes one. Of a guard it waits until somebody writes through it, mostly.
func (s *strike) keeper(ctx context.Context) (keeper, bool) {
	if s.rng.IntN(2) == 0 {
		return s.keepingNode(s.node(ctx)), s.take("nodes")
	}
	i, ok := s.writtenTo(ctx)
	return s.keepingGuard(i), ok && s.take(guard(i))
}

func (s *strike) slowDisk(ctx context.Context) error {
	k, ok := s.keeper(ctx)
	if !ok {
		return nil
	}
	span := s.between(20, 1000)
	return s.during(ctx, fmt.Sprintf("%s: %v a flush", k.party, span), s.between(1000, 5000),
		func() error { k.disk.Slow(span); return nil }, func() error { k.disk.Slow(0); return nil })
}

// failDisk never leaves a process running whose flushes have failed: nobody knows what it holds.
func (s *strike) failDisk(ctx context.Context) error {
	k, ok := s.keeper(ctx)
	if !ok {
		return nil
	}
	return s.while(ctx, k.party, func() error { k.disk.Fail(true); return nil }, func(ctx context.Context) error {
		k.await(ctx, s.between(500, 4000))
		return nil
	}, func() error {
		_, err := k.fell()
		k.disk.Fail(false)
		return errors.Join(err, k.start())
	})
}

// fullDisk starts again what has ended, or cannot be helped otherwise. A node that had no need of space goes on.
func (s *strike) fullDisk(ctx context.Context) error {
	k, ok := s.keeper(ctx)
	if !ok {
		return nil
	}
	return s.while(ctx, k.party, func() error { k.disk.Fill(true); return nil }, func(ctx context.Context) error {
		k.await(ctx, s.between(500, 5000))
		return nil
	}, func() error {
		k.disk.Fill(false)
		if k.wellAgain(context.WithoutCancel(ctx)) {
			return nil
		}
		_, err := k.fell()
		return errors.Join(err, k.start())
	})
}

// recovery is how long a process may take to find that it cannot go on, and to finish what it can.
const recovery = 30 * time.Second

// wellAgain waits until the process serves, or has ended by itself, and tells whether it serves.
func (k keeper) wellAgain(ctx context.Context) bool {
	within, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	for !k.await(within, 50*time.Millisecond) && within.Err() == nil {
		if k.well == nil || k.well(within) {
			return k.well != nil
		}
	}
	return false
}

// await waits until the process has ended by itself, and tells whether it has.
func (k keeper) await(ctx context.Context, span time.Duration) bool {
	timer := time.NewTimer(span)
	defer timer.Stop()
	select {
	case <-k.ended():
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// powerCut strikes a node, all of them, or a guard.
func (s *strike) powerCut(ctx context.Context) error {
	var struck []keeper
	switch {
	case s.rng.IntN(4) == 0:
		for i := range cluster.Size {
			struck = append(struck, s.keepingNode(i))
		}
		if !s.take("nodes") {
			return nil
		}
		defer wait.For(ctx, s.between(3000, 8000)) // or nobody would ever get anywhere
	default:
		k, ok := s.keeper(ctx)
		if !ok {
			return nil
		}
		struck = append(struck, k)
	}
	seed := s.rng.Uint64()
	var parties []string
	for _, k := range struck {
		parties = append(parties, k.party)
	}
	return s.during(ctx, strings.Join(parties, " "), s.between(50, 2000), func() error { return cut(seed, struck...) }, func() (err error) {
		for _, k := range struck {
			err = errors.Join(err, k.start())
		}
		return err
	})
}

// cut takes the power of some away, at once.
func cut(seed uint64, struck ...keeper) (err error) {
	for _, k := range struck {
		err = errors.Join(err, k.kill())
	}
	for i, k := range struck {
		if err == nil {
			_, err = k.disk.Cut(seed + uint64(i))
		}
	}
	return err
}

// lie has the nodes go on with disks that lie for a while, and then with what these held before.
func (s *strike) lie(ctx context.Context) error {
	if !s.take("nodes") {
		return nil
	}
	each := func(do func(k keeper) error) func() error {
		return func() (err error) {
			for i := range cluster.Size {
				err = errors.Join(err, do(s.keepingNode(i)))
			}
			return err
		}
	}
	defer wait.For(ctx, 3*time.Second) // in which what is lost is missed
	return s.during(ctx, "all nodes", s.between(2000, 3000), each(func(k keeper) error { k.disk.Lie(true); return nil }), func() error {
		// Nobody starts before all have ended: one that had not would know what the others have forgotten.
		if err := each(func(k keeper) error { return k.kill() })(); err != nil {
			return err
		}
		return each(func(k keeper) error {
			_, err := k.disk.Revert()
			k.disk.Lie(false)
			return errors.Join(err, k.start())
		})()
	})
}

// oldImage takes a copy of a guard's disk while it is down, lets it go on, and puts the copy back.
func (s *strike) oldImage(ctx context.Context) error {
	i := s.rng.IntN(lab.GuardCount)
	if !s.take(guard(i)) {
		return nil
	}
	k := s.keepingGuard(i)
	copied := filepath.Join(s.lab.Config.Dir, fmt.Sprintf("image-%x", s.rng.Uint64()))
	down := func(do func() error) func() error {
		return func() error { return errors.Join(k.kill(), do(), k.start()) }
	}
	return s.during(ctx, k.party, s.between(500, 5000), down(func() error { return k.disk.Save(copied) }), down(func() error { return k.disk.Restore(copied) }))
}
