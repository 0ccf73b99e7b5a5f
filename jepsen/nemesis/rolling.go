//go:build linux

package nemesis

import (
	"context"
	"strings"

	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/wait"
)

// RollingRestart is the name of the nemesis that does no harm where nothing else does: who is asked to end hands over first.
const RollingRestart = "rolling-restart"

// rolling does what operators do.
var rolling = []Kind{
	{Name: RollingRestart, Doc: "SIGTERM each node in turn, and start it again, waiting until it serves before the next", strike: func(ctx context.Context, s *strike) error {
		if !s.take("nodes") {
			return nil
		}
		return s.roll(ctx, "", func(int) {})
	}},
	{Name: "replace-member", Doc: "SIGKILL a node, take it out of the quorum, and admit it again without its data", strike: func(ctx context.Context, s *strike) error {
		i := s.node(ctx)
		if !s.take("nodes") {
			return nil
		}
		return s.while(ctx, region(i), func() error { return s.lab.Nodes.Kill(i) }, func(ctx context.Context) error {
			wait.For(ctx, s.between(0, 2000))
			return nil
		}, func() error {
			replacing, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
			defer cancel()
			return s.lab.Nodes.Replace(replacing, i)
		})
	}},
	{Name: "upgrade", Doc: "roll nodes and guards from the previous release to this one, and back the next time; needs -previous", Previous: true, strike: func(ctx context.Context, s *strike) error {
		return s.upgrade(ctx)
	}},
}

// roll restarts every node in turn, each with what before does to it while it is down. What is begun when ctx ends is finished.
func (s *strike) roll(ctx context.Context, detail string, before func(i int)) error {
	order := s.rng.Perm(cluster.Size)
	var names []string
	for _, i := range order {
		names = append(names, region(i))
	}
	defer s.field.Log.Fault(s.name, strings.TrimSpace(strings.Join(names, " ")+" "+detail))()
	for _, i := range order {
		if err := s.restart(ctx, i, before); err != nil || !wait.For(ctx, s.between(0, 500)) {
			return err
		}
	}
	return nil
}

func (s *strike) restart(ctx context.Context, i int, before func(i int)) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	// One that was started a moment ago may not have begun to listen for signals.
	if err := s.lab.Nodes.AwaitNode(ctx, i); err != nil {
		return err
	}
	if err := s.lab.Nodes.Stop(ctx, i); err != nil {
		return err
	}
	before(i)
	if err := s.lab.Nodes.Restart(i); err != nil {
		return err
	}
	return s.lab.Nodes.AwaitNode(ctx, i)
}

// upgrade rolls everything to the other release.
func (s *strike) upgrade(ctx context.Context) error {
	if !s.take("nodes") {
		return nil
	}
	to := s.lab.OtherRelease()
	if err := s.roll(ctx, "to "+to.Name, func(i int) { s.lab.Nodes.Use(i, to.Writ) }); err != nil {
		return err
	}
	for _, i := range s.rng.Perm(lab.GuardCount) {
		if !wait.For(ctx, s.between(500, 2000)) {
			return nil
		}
		if !s.take(guard(i)) {
			continue // it has its turn the next time
		}
		if err := s.upgradeGuard(ctx, i, to); err != nil {
			return err
		}
	}
	return nil
}

func (s *strike) upgradeGuard(ctx context.Context, i int, to lab.Release) error {
	return s.during(ctx, guard(i)+" to "+to.Name, s.between(0, 500), func() error {
		if err := s.endGuard(ctx, i); err != nil {
			return err
		}
		s.lab.UseGuard(i, to.Guard)
		return nil
	}, s.lab.Guards[i].Start)
}
