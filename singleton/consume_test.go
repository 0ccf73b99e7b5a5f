package singleton_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock/bubble"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/singletontest"
)

// crew is the members of one group, and what is done in it.
type crew struct {
	*testing.T
	quorum     *singletontest.Quorum
	partitions int

	mu      sync.Mutex
	active  map[int]string      // by partition; of those whose context had not ended when somebody else began
	tokens  map[int]fence.Token // guarded by mu, as are all
	started int
}

type crewMember struct {
	*singletontest.Process
	name  string
	leave context.CancelCauseFunc
	done  chan error
	panic any
}

var errLeave = errors.New("leave")

func inCrew(t *testing.T, partitions int, test func(*crew)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		test(&crew{
			T: t, quorum: singletontest.New(t, singletontest.Config{}), partitions: partitions,
			active: make(map[int]string), tokens: make(map[int]fence.Token),
		})
	})
}

// join starts a member. Its region is what is before the dash of its name.
func (c *crew) join(name string, fn func(context.Context, *singleton.Partition) error, opts ...singleton.Option) *crewMember {
	region, _, _ := strings.Cut(name, "-")
	m := &crewMember{Process: c.quorum.Process(name, region), name: name, done: make(chan error, 1)}
	c.start(m, fn, opts...)
	return m
}

func (c *crew) start(m *crewMember, fn func(context.Context, *singleton.Partition) error, opts ...singleton.Option) {
	s := m.Singleton(singleton.Config{})
	var ctx context.Context
	ctx, m.leave = context.WithCancelCause(c.Context())
	go func() {
		defer func() {
			if m.panic = recover(); m.panic != nil {
				m.done <- nil
			}
		}()
		m.done <- s.Consume(ctx, "orders", c.partitions, func(ctx context.Context, p *singleton.Partition) error {
			return c.work(ctx, m.name, p, fn)
		}, opts...)
	}()
	c.Cleanup(func() { m.leave(errLeave) })
}

// work holds fn to what is promised.
func (c *crew) work(ctx context.Context, name string, p *singleton.Partition, fn func(context.Context, *singleton.Partition) error) error {
	c.mu.Lock()
	if other, ok := c.active[p.Index()]; ok {
		c.Errorf("%s begins %d, on which %s works", name, p.Index(), other)
	}
	if p.Token() <= c.tokens[p.Index()] {
		c.Errorf("%s begins %d under %v, after %v", name, p.Index(), p.Token(), c.tokens[p.Index()])
	}
	c.active[p.Index()], c.tokens[p.Index()] = name, p.Token()
	c.started++
	c.mu.Unlock()
	rest := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.active[p.Index()] == name {
			delete(c.active, p.Index())
		}
	}
	defer rest()
	defer context.AfterFunc(ctx, rest)()
	return fn(ctx, p)
}

// distribution tells which partitions are held, by instance, and fails unless they are worked on there.
func (c *crew) distribution() map[string][]int {
	c.Helper()
	held := make(map[string][]int)
	for _, info := range c.quorum.Held("orders/p/") {
		var index int
		if _, err := fmt.Sscanf(string(info.Resource), "orders/p/%d", &index); err != nil {
			c.Fatal(err)
		}
		held[info.Holder.Instance] = append(held[info.Holder.Instance], index)
	}
	return held
}

// wantBalanced fails unless these members hold everything, balanced within one, and work on it.
func (c *crew) wantBalanced(members ...*crewMember) {
	c.Helper()
	held := c.distribution()
	sum, least, most := 0, c.partitions, 0
	for _, m := range members {
		n := len(held[m.name])
		sum, least, most = sum+n, min(least, n), max(most, n)
	}
	if sum != c.partitions || most-least > 1 {
		c.Fatalf("not balanced: %v", held)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, indices := range held {
		for _, index := range indices {
			if c.active[index] != name {
				c.Fatalf("%s holds %d, and %q works on it", name, index, c.active[index])
			}
		}
	}
}

func (c *crew) starts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.started
}

// consumeUntilRevoked stores a checkpoint when it is told to finish.
func consumeUntilRevoked(ctx context.Context, p *singleton.Partition) error {
	select {
	case <-p.Revoked():
		return p.Checkpoint(ctx, fmt.Appendf(nil, "after %v", p.Token()))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func TestConsumeDividesTheWork(t *testing.T) {
	inCrew(t, 12, func(c *crew) {
		a := c.join("eu-a", consumeUntilRevoked)
		b := c.join("us-b", consumeUntilRevoked)
		c.quorum.Advance(2 * time.Second)
		c.wantBalanced(a, b)
		if c.starts() != 12 {
			t.Errorf("%d starts of 12 partitions: nobody waited for the others", c.starts())
		}
		third := c.join("ap-c", consumeUntilRevoked)
		c.quorum.Advance(2 * time.Second)
		c.wantBalanced(a, b, third)
		if c.starts() != 16 {
			t.Errorf("%d starts; a third member takes four partitions and moves nothing else", c.starts())
		}
		// What was handed over came with its checkpoint.
		for _, index := range c.distribution()["ap-c"] {
			if info := c.quorum.Info(fmt.Sprintf("orders/p/%05d", index)); !strings.HasPrefix(string(info.Checkpoint), "after ") {
				t.Errorf("partition %d has the checkpoint %q", index, info.Checkpoint)
			}
		}
		b.leave(errLeave)
		if err := <-b.done; !errors.Is(err, errLeave) {
			t.Errorf("left with %v", err)
		}
		c.quorum.Advance(time.Second) // much less than a TTL
		c.wantBalanced(a, third)
		if c.starts() != 20 {
			t.Errorf("%d starts; four partitions had to move", c.starts())
		}
	})
}

func TestConsumeSurvivesACrash(t *testing.T) {
	inCrew(t, 256, func(c *crew) {
		var members []*crewMember
		for i := range 16 {
			members = append(members, c.join(fmt.Sprintf("r%d-m%02d", i%3, i), consumeUntilRevoked))
		}
		c.quorum.Advance(10 * time.Second)
		c.wantBalanced(members...)
		before, held := c.starts(), c.distribution()
		members[5].Partition()
		c.quorum.Advance(lease.DefaultTTL + time.Second)
		c.wantBalanced(append(slices.Clone(members[:5]), members[6:]...)...)
		if moved := c.starts() - before; moved != len(held[members[5].name]) {
			t.Errorf("%d partitions moved, of which the dead member held %d", moved, len(held[members[5].name]))
		}
		after := c.distribution()
		for name, indices := range held {
			for _, index := range indices {
				if name != members[5].name && !slices.Contains(after[name], index) {
					t.Errorf("%d moved away from %s, which lives", index, name)
				}
			}
		}
	})
}

func TestConsumeAfterAPause(t *testing.T) {
	inCrew(t, 6, func(c *crew) {
		refused := make(chan error, 3)
		resumed := make(chan struct{})
		a := c.join("eu-a", func(ctx context.Context, p *singleton.Partition) error {
			select {
			case <-resumed: // of the second time that it holds it
				return consumeUntilRevoked(ctx, p)
			default:
			}
			// Which of the two it sees first when it wakes is not said.
			select {
			case <-p.Revoked():
			case <-ctx.Done():
			}
			refused <- p.Checkpoint(context.WithoutCancel(ctx), []byte("too late"))
			<-ctx.Done()
			return context.Cause(ctx)
		})
		b := c.join("us-b", consumeUntilRevoked)
		c.quorum.Advance(5 * time.Second)
		c.wantBalanced(a, b)
		a.Pause()
		c.mu.Lock() // what it did under its leases is over for everybody else
		maps.DeleteFunc(c.active, func(_ int, name string) bool { return name == "eu-a" })
		c.mu.Unlock()
		c.quorum.Advance(lease.DefaultTTL + time.Second)
		c.wantBalanced(b)
		if len(refused) != 0 {
			t.Errorf("%d functions heard something while nothing could be heard", len(refused))
		}
		close(resumed)
		a.Resume()
		c.quorum.Advance(5 * time.Second)
		c.wantBalanced(a, b)
		for range 3 {
			if err := <-refused; !errors.Is(err, singleton.ErrLost) {
				t.Errorf("a checkpoint under a lost lease: %v", err)
			}
		}
	})
}

func TestConsumePrefersHomes(t *testing.T) {
	home := singleton.Home(func(p int) string { return []string{"eu", "us"}[p%2] })
	inCrew(t, 8, func(c *crew) {
		a := c.join("eu-a", consumeUntilRevoked, home)
		b := c.join("us-b", consumeUntilRevoked, home)
		c.quorum.Advance(2 * time.Second)
		c.wantBalanced(a, b)
		if got := fmt.Sprint(c.distribution()); got != "map[eu-a:[0 2 4 6] us-b:[1 3 5 7]]" {
			t.Error(got)
		}
		// Another program that names other homes makes everybody forget them; nothing is left to nobody.
		d := c.join("us-d", consumeUntilRevoked, singleton.Home(func(int) string { return "us" }))
		c.quorum.Advance(2 * time.Second)
		c.wantBalanced(a, b, d)
	})
}

// A function that does not finish keeps its partition, and its lease, until it has returned.
func TestConsumeWaitsForAFunctionThatWorksOn(t *testing.T) {
	inCrew(t, 2, func(c *crew) {
		causes := make(chan error, 2)
		a := c.join("eu-a", func(ctx context.Context, p *singleton.Partition) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			c.quorum.Advance(5 * time.Second)
			if info := c.quorum.Info(fmt.Sprintf("orders/p/%05d", p.Index())); info.State != lease.Held || info.Token != p.Token() {
				t.Errorf("released while the function runs: %+v", info)
			}
			return errors.New("of no interest")
		}, singleton.RevokeGrace(3*time.Second))
		c.quorum.Advance(time.Second)
		c.wantBalanced(a)
		b := c.join("us-b", consumeUntilRevoked)
		c.quorum.Advance(2 * time.Second)
		if len(causes) != 0 {
			t.Fatalf("%d contexts ended within the grace", len(causes))
		}
		c.quorum.Advance(10 * time.Second)
		c.wantBalanced(a, b)
		if cause := <-causes; len(causes) != 0 || !errors.Is(cause, singleton.ErrRevoked) {
			t.Errorf("ended with %v", cause)
		}
		a.leave(errLeave)
		if err := <-a.done; !errors.Is(err, errLeave) {
			t.Errorf("left with %v", err)
		}
		if cause := <-causes; !errors.Is(cause, errLeave) {
			t.Errorf("ended with %v", cause)
		}
		c.quorum.Advance(time.Second)
		c.wantBalanced(b)
	})
}

func TestConsumeEndsWithItsFunction(t *testing.T) {
	failure := errors.New("failure")
	for name, end := range map[string]func() error{
		"error":  func() error { return failure },
		"panic":  func() error { panic(failure) },
		"goexit": func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			inCrew(t, 4, func(c *crew) {
				a := c.join("eu-a", func(ctx context.Context, p *singleton.Partition) error {
					if p.Index() == 2 {
						c.quorum.Advance(time.Second)
						return end()
					}
					return consumeUntilRevoked(ctx, p)
				})
				err := <-a.done
				var panicked *singleton.PanicError
				switch {
				case name == "error" && !errors.Is(err, failure), name == "goexit" && !errors.Is(err, singleton.ErrGoexit):
					t.Errorf("returned %v", err)
				case name == "panic":
					if value, ok := a.panic.(*singleton.PanicError); !ok || !errors.As(value, &panicked) || !errors.Is(panicked, failure) {
						t.Errorf("panicked with %v", a.panic)
					}
				}
				if held := c.quorum.Held("orders/"); len(held) != 0 {
					t.Errorf("still held: %v", held)
				}
			})
		})
	}
}

// A function that has nothing more to do is left alone.
func TestConsumeDoesNotRepeatWhatIsFinished(t *testing.T) {
	inCrew(t, 3, func(c *crew) {
		a := c.join("eu-a", func(context.Context, *singleton.Partition) error { return nil })
		c.quorum.Advance(time.Minute)
		if held := c.distribution()["eu-a"]; c.starts() != 3 || len(held) != 3 {
			t.Errorf("%d starts, %v held", c.starts(), held)
		}
		a.leave(errLeave)
		if err := <-a.done; !errors.Is(err, errLeave) {
			t.Error(err)
		}
	})
}

func wantInvalid(t *testing.T, err error, field string, says ...string) {
	t.Helper()
	var e *lease.Error
	if !errors.As(err, &e) || !errors.Is(err, lease.ErrInvalid) || e.Field != field || e.Fix == "" {
		t.Errorf("%v, want INVALID %s with a fix", err, field)
		return
	}
	for _, text := range says {
		if !strings.Contains(e.Error(), text) {
			t.Errorf("%q does not say %q", e, text)
		}
	}
}

func TestConsumeRefuses(t *testing.T) {
	inCrew(t, 1, func(c *crew) {
		s := c.quorum.Process("a", "eu").Singleton(singleton.Config{})
		ctx := c.Context()
		for _, bad := range []struct {
			field, group string
			partitions   int
			fn           func(context.Context, *singleton.Partition) error
			option       singleton.Option
		}{
			{"partitions", "g", 0, consumeUntilRevoked, nil},
			{"partitions", "g", -1, consumeUntilRevoked, nil},
			{"partitions", "g", 100_001, consumeUntilRevoked, nil},
			{"group", "", 1, consumeUntilRevoked, nil},
			{"group", "a//b", 1, consumeUntilRevoked, nil},
			{"group", strings.Repeat("g", 500), 1, consumeUntilRevoked, nil},
			{"fn", "g", 1, nil, nil},
			{"revoke_grace", "g", 1, consumeUntilRevoked, singleton.RevokeGrace(-1)},
			{"ttl", "g", 1, consumeUntilRevoked, singleton.TTL(-1)},
		} {
			opts := []singleton.Option{bad.option}
			if bad.option == nil {
				opts = nil
			}
			wantInvalid(t, s.Consume(ctx, bad.group, bad.partitions, bad.fn, opts...), bad.field)
		}
		wantInvalid(t, s.Resize(ctx, "g", 0), "partitions")
		wantInvalid(t, s.Resize(ctx, "", 1), "group")
		ended, cancel := context.WithCancelCause(ctx)
		cancel(errLeave)
		if err := s.Consume(ended, "g", 1, consumeUntilRevoked); !errors.Is(err, errLeave) {
			t.Errorf("under a context that has ended: %v", err)
		}
		if held := c.quorum.Held(""); len(held) != 0 {
			t.Errorf("held: %v", held)
		}
	})
}

func TestConsumeOfAnotherNumber(t *testing.T) {
	inCrew(t, 4, func(c *crew) {
		a := c.join("eu-a", consumeUntilRevoked)
		c.quorum.Advance(time.Second)
		c.partitions = 6
		b := c.join("us-b", consumeUntilRevoked)
		wantInvalid(t, <-b.done, "partitions", "is 6", "has 4", "Resize")
		s := b.Singleton(singleton.Config{})
		if err := s.Resize(c.Context(), "orders", 6); !errors.Is(err, lease.ErrConflict) || !strings.Contains(err.Error(), "eu-a") {
			t.Errorf("resized under a member: %v", err)
		}
		a.leave(errLeave)
		if err := <-a.done; !errors.Is(err, errLeave) {
			t.Error(err)
		}
		if err := s.Resize(c.Context(), "orders", 6); err != nil {
			t.Error(err)
		}
		c.start(b, consumeUntilRevoked)
		c.quorum.Advance(2 * time.Second)
		c.wantBalanced(b)
	})
}

// Two processes under one name would each take what the other holds for its own.
func TestConsumeTwiceUnderOneName(t *testing.T) {
	inCrew(t, 4, func(c *crew) {
		a := c.join("eu-a", consumeUntilRevoked)
		c.quorum.Advance(time.Second)
		second := a.Singleton(singleton.Config{}).Consume(c.Context(), "orders", 4, consumeUntilRevoked)
		wantInvalid(t, second, "instance", "eu-a", "another process")
		c.wantBalanced(a)
	})
}

// A process that is not eligible joins nothing, and one whose region is not known may not be asked to.
func TestConsumeWhereItIsNotEligible(t *testing.T) {
	inCrew(t, 4, func(c *crew) {
		a := c.join("eu-a", consumeUntilRevoked, singleton.Eligible("us"))
		c.quorum.Advance(time.Minute)
		if held := c.quorum.Held(""); len(held) != 0 {
			t.Errorf("held: %v", held)
		}
		a.leave(errLeave)
		if err := <-a.done; !errors.Is(err, errLeave) {
			t.Error(err)
		}
	})
}

// A function that never returns is left behind, and its lease with it.
func TestConsumeLeavesAStuckFunctionBehind(t *testing.T) {
	inCrew(t, 2, func(c *crew) {
		stuck := make(chan singleton.Stuck, 2)
		hang := make(chan struct{})
		a := c.join("eu-a", func(ctx context.Context, p *singleton.Partition) error {
			if p.Index() == 1 {
				<-hang
			}
			return consumeUntilRevoked(ctx, p)
		}, singleton.OnStuck(func(s singleton.Stuck) { stuck <- s }), singleton.StopGrace(time.Second), singleton.RevokeGrace(time.Second))
		c.quorum.Advance(time.Second)
		a.leave(errLeave)
		if err := <-a.done; !errors.Is(err, singleton.ErrStuck) {
			t.Errorf("returned %v", err)
		}
		if s := <-stuck; s.Resource != "orders/p/00001" {
			t.Errorf("told %+v", s)
		}
		if info := c.quorum.Info("orders/p/00001"); info.State != lease.Held {
			t.Errorf("released under a function that runs: %+v", info)
		}
		close(hang)
		c.quorum.Advance(lease.DefaultTTL)
		if held := c.quorum.Held("orders/"); len(held) != 0 {
			t.Errorf("held: %v", held)
		}
	})
}

// A partition that is lost and free again is asked for in the step in which it is released. That is for the worker of the lease
// that was lost; the one that asks anew is released later, once.
func TestConsumeAsksAgainInTheStepThatReleases(t *testing.T) {
	inCrew(t, 1, func(c *crew) {
		s := c.quorum.Process("eu-a", "eu").Singleton(singleton.Config{})
		before, after, err := singleton.ReleaseAndAsk(c.Context(), s, "orders")
		if err != nil || !before || !after {
			t.Errorf("released: the worker before %v, the new one %v; %v", before, after, err)
		}
	})
}
