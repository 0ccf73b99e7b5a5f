//go:build linux

package nemesis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/writ-io/writ/jepsen/cgroup"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/wallclock"
)

// singles take something that all processes of the machine share away from one of them.
var singles = []Kind{
	{Name: "starve", Doc: "leave a node, a guard or a writer a few hundredths of a processor", Supported: cgroup.Supported, strike: func(ctx context.Context, s *strike) error {
		return s.starve(ctx)
	}},
	{Name: "clock-jump", Doc: "have the wall clock of a node or a guard jump by seconds to days, or stand still", Supported: wallclock.Supported, strike: func(ctx context.Context, s *strike) error {
		return s.jump(ctx)
	}},
}

// victim is a process that is harmed alone.
type victim struct {
	party string
	take  string
	pid   func() (int, error)
	guard bool
}

func (s *strike) nodeVictim(ctx context.Context) victim {
	i := s.node(ctx)
	return victim{party: region(i), take: "nodes", pid: func() (int, error) { return s.lab.Nodes.Pid(i) }}
}

func (s *strike) guardVictim() victim {
	i := s.rng.IntN(lab.GuardCount)
	return victim{party: guard(i), take: guard(i), pid: s.lab.Guards[i].Pid, guard: true}
}

// starve throttles a process. A guard may be late for whatever it does then, so that it is starved for no longer than it would
// be paused.
func (s *strike) starve(ctx context.Context) error {
	var v victim
	switch s.rng.IntN(3) {
	case 0:
		v = s.guardVictim()
	case 1:
		w := s.writer()
		v = victim{party: w.Party, take: w.Party, pid: w.Pid}
	default:
		v = s.nodeVictim(ctx)
	}
	if !s.take(v.take) {
		return nil
	}
	pid, err := v.pid()
	if err != nil {
		return err
	}
	share, span := float64(2+s.rng.IntN(4))/100, s.between(500, 6000)
	if v.guard {
		span = s.guardPause()
	}
	var group *cgroup.Group
	var began time.Time
	return s.during(ctx, fmt.Sprintf("%s, left %v of a processor", v.party, share), span, func() (err error) {
		began = time.Now()
		group, err = cgroup.Throttle(pid, share)
		return err
	}, func() error {
		err := group.Release()
		if v.guard {
			s.paused(time.Since(began))
		}
		return err
	})
}

// jump has the wall clock of a process jump for a while, and then back: two jumps.
func (s *strike) jump(ctx context.Context) error {
	v := s.nodeVictim(ctx)
	if s.rng.IntN(3) == 0 {
		v = s.guardVictim()
	}
	if !s.take(v.take) {
		return nil
	}
	pid, err := v.pid()
	if err != nil {
		return err
	}
	held, err := wallclock.Of(pid)
	if err != nil {
		return err
	}
	detail, change := v.party+", stands still", func() error { return held.Freeze(time.Now()) }
	if by := s.jumpBy(); by != 0 {
		detail, change = fmt.Sprintf("%s, by %v", v.party, by), func() error { return held.Jump(by) }
	}
	return errors.Join(s.during(ctx, detail, s.between(500, 6000), change, held.Restore), held.Close())
}

// jumpMost is less than what certificates of a lab allow for.
const jumpMost = cluster.Validity / 2

// jumpBy draws by how much a clock jumps, in whole seconds, either way; 0: it stands still.
func (s *strike) jumpBy() time.Duration {
	by := time.Duration(0)
	switch s.rng.IntN(5) {
	case 0:
		return 0
	case 1:
		by = time.Minute
	case 2:
		by = time.Hour
	case 3:
		by = 24 * time.Hour
	case 4:
		by = jumpMost
	}
	by = time.Second + time.Duration(s.rng.Int64N(int64(by)))
	if s.rng.IntN(2) == 0 {
		by = -by
	}
	return by.Truncate(time.Second)
}
