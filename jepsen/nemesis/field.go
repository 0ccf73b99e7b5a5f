//go:build linux

package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/wait"
)

// Log is told of every strike.
type Log interface {
	Fault(nemesis, detail string) (end func())
}

// Kind is a nemesis.
type Kind struct {
	Name string
	// Doc is a sentence for people.
	Doc string
	// Supported says why this machine cannot have it; nil: any machine can.
	Supported func() error
	// Previous: it needs the programs of the previous release.
	Previous bool
	// Needs asks for what the lab has only for those who ask; nil: nothing. It is called before the lab is built.
	Needs func(*lab.Config)
	// strike does harm once. Nothing of it is left when it returns, also when ctx has ended.
	strike func(ctx context.Context, s *strike) error
}

// Field is where harm is done. Its methods are safe for concurrent use.
type Field struct {
	Lab *lab.Lab
	Log Log
	// Paused is told for how long at most a guard stood still, when it goes on; nil: nobody is.
	Paused func(time.Duration)
	// Rest is the middle of the times between two strikes of a nemesis. Default: 700 ms.
	Rest time.Duration

	mu      sync.Mutex
	taken   map[string]bool // guarded by mu; what strikes that are under way touch
	longest time.Duration   // guarded by mu
}

// LongestPause is the longest time for which a guard was paused.
func (f *Field) LongestPause() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.longest
}

// Run has every nemesis strike again and again until ctx ends, and returns when no harm is left. An error says that a process
// could not be harmed or brought back, as when it had ended by itself.
func (f *Field) Run(ctx context.Context, kinds []Kind, seed uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	var once sync.Once
	var failed error
	for i, kind := range kinds {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		running.Go(func() {
			if err := f.haunt(ctx, kind, rng); err != nil {
				once.Do(func() { failed = err })
				cancel(err)
			}
		})
	}
	running.Wait()
	return failed
}

func (f *Field) haunt(ctx context.Context, kind Kind, rng *rand.Rand) error {
	rest := f.Rest
	if rest == 0 {
		rest = 700 * time.Millisecond
	}
	for wait.For(ctx, rest/2+time.Duration(rng.Int64N(int64(rest)))) {
		if err := f.Strike(ctx, kind, rng); err != nil {
			return err
		}
	}
	return nil
}

// Strike has a nemesis strike once.
func (f *Field) Strike(ctx context.Context, kind Kind, rng *rand.Rand) error {
	s := &strike{field: f, lab: f.Lab, rng: rng, name: kind.Name}
	defer s.yield()
	if err := kind.strike(ctx, s); err != nil {
		return fmt.Errorf("nemesis: %s: %w", kind.Name, err)
	}
	return nil
}

// strike is one strike of a nemesis.
type strike struct {
	field *Field
	lab   *lab.Lab
	rng   *rand.Rand
	name  string
	holds []string
}

// take takes everything named, or nothing if somebody else has some of it.
func (s *strike) take(names ...string) bool {
	f := s.field
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		if f.taken[name] {
			return false
		}
	}
	if f.taken == nil {
		f.taken = make(map[string]bool)
	}
	for _, name := range names {
		f.taken[name] = true
	}
	s.holds = append(s.holds, names...)
	return true
}

func (s *strike) yield() {
	f := s.field
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range s.holds {
		delete(f.taken, name)
	}
	s.holds = nil
}

// during does one thing, and another one after a while, and writes both down.
func (s *strike) during(ctx context.Context, detail string, span time.Duration, begin, end func() error) error {
	return s.while(ctx, detail, begin, func(ctx context.Context) error { wait.For(ctx, span); return nil }, end)
}

// while does one thing, and another one when something has happened in between, and writes both down.
func (s *strike) while(ctx context.Context, detail string, begin func() error, meanwhile func(context.Context) error, end func() error) error {
	over := s.field.Log.Fault(s.name, detail)
	defer over()
	if err := begin(); err != nil {
		return err
	}
	return errors.Join(meanwhile(ctx), end())
}

// between draws a time, in milliseconds.
func (s *strike) between(low, high int) time.Duration {
	return time.Duration(low+s.rng.IntN(high-low+1)) * time.Millisecond
}

// out is how long a guard or its network is out: mostly for a moment, often for long enough to be given up.
func (s *strike) out() time.Duration {
	if s.rng.IntN(3) > 0 {
		return s.between(100, 2000)
	}
	return lab.Lapse + s.between(0, 1500)
}
