package fencetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
)

// Guard is what is tried.
type Guard interface {
	// Write has a write of a resource carried out under a token. If it is admitted, the guard calls storage, which is under
	// way until it returns, and returns nil after that. If it is refused, storage is not called, and the error says why;
	// one that is for a stale token matches fence.ErrStale. The token may be any number, for guards do not choose what
	// they are sent.
	Write(ctx context.Context, resource string, token fence.Token, storage func()) error
}

// Restarter is a [Guard] whose floors are durable.
type Restarter interface {
	Guard
	// Restart stops the guard, without a farewell if it can, and starts it again on what it has kept.
	Restart(t *testing.T)
}

// GuardFunc is a Guard that is a function.
type GuardFunc func(ctx context.Context, resource string, token fence.Token, storage func()) error

// Write implements [Guard].
func (f GuardFunc) Write(ctx context.Context, resource string, token fence.Token, storage func()) error {
	return f(ctx, resource, token, storage)
}

// Admitting makes a Guard of an admitter, such as a guard.Guard, that believes bare tokens.
func Admitting(admitter fence.Admitter) Guard {
	return GuardFunc(func(ctx context.Context, resource string, token fence.Token, storage func()) error {
		return fence.Run(ctx, admitter, fence.Write{Resource: resource, Token: token}, func(context.Context) error {
			storage()
			return nil
		})
	})
}

// Config says what to try.
type Config struct {
	// Open makes a guard that has seen nothing of the resources that are named in writes. It must be set.
	Open func(t *testing.T) Guard
	// Resources are two names that it guards. Default: fencetest/a and fencetest/b.
	Resources [2]string
	// Settle is how long a guard is given to do wrong while an older write is under way. Default: 100 ms.
	Settle time.Duration
	// Base is the newest token that it knows already, as a guard does that enrols late; the suite uses newer ones.
	// Default: 1.0.
	Base fence.Token
}

// token returns the n-th token above the base.
func (c Config) token(n int) fence.Token { return c.Base + fence.Token(n) }

// Run tries a guard. A guard that is a [Restarter] is restarted.
func Run(t *testing.T, c Config) {
	t.Helper()
	if c.Open == nil {
		t.Fatal("fencetest: Open is nil; set it to what makes a guard")
	}
	if c.Resources == [2]string{} {
		c.Resources = [2]string{"fencetest/a", "fencetest/b"}
	}
	if c.Base == 0 {
		c.Base = 1 << 48
	}
	if c.Settle <= 0 {
		c.Settle = 100 * time.Millisecond
	}
	for name, check := range checks {
		t.Run(name, func(t *testing.T) {
			if problem := check(t, c, c.Open(t)); problem != "" {
				t.Error(problem)
			}
		})
	}
}

// checks return what is wrong with a guard, or nothing.
var checks = map[string]func(t *testing.T, c Config, g Guard) string{
	"NothingOlderLater":          olderLater,
	"ResourcesAreIndependent":    independent,
	"TokensThatAreNone":          malformed,
	"NewerWaitsForOlder":         drain,
	"ManyAtOnce":                 many,
	"FloorsOutliveARestart":      restart,
	"RefusedWritesChangeNoFloor": refusedChangeNothing,
}

// write writes and tells whether storage was called.
func write(t *testing.T, g Guard, resource string, token fence.Token) (stored bool, err error) {
	t.Helper()
	err = g.Write(t.Context(), resource, token, func() { stored = true })
	return stored, err
}

// admitted returns what is wrong if a write is not admitted.
func admitted(t *testing.T, g Guard, resource string, token fence.Token) string {
	t.Helper()
	if stored, err := write(t, g, resource, token); err != nil || !stored {
		return fmt.Sprintf("a write of %s under %v was refused, or not carried out: %v", resource, token, err)
	}
	return ""
}

// refused returns what is wrong if a write is not refused.
func refused(t *testing.T, g Guard, resource string, token fence.Token, want error) string {
	t.Helper()
	stored, err := write(t, g, resource, token)
	switch {
	case stored:
		return fmt.Sprintf("a write of %s under %v reached the storage", resource, token)
	case err == nil:
		return fmt.Sprintf("a write of %s under %v was answered as if it had been carried out", resource, token)
	case want != nil && !errors.Is(err, want):
		return fmt.Sprintf("a write of %s under %v was refused with %q, which does not match %q", resource, token, err, want)
	}
	return ""
}

// first returns the first problem.
func first(problems ...string) string {
	for _, p := range problems {
		if p != "" {
			return p
		}
	}
	return ""
}

func olderLater(t *testing.T, c Config, g Guard) string {
	r := c.Resources[0]
	return first(
		admitted(t, g, r, c.token(5)),
		admitted(t, g, r, c.token(5)),
		refused(t, g, r, c.token(4), fence.ErrStale),
		admitted(t, g, r, c.token(9)),
		refused(t, g, r, c.token(5), fence.ErrStale),
		refused(t, g, r, c.token(8), fence.ErrStale),
		admitted(t, g, r, c.token(9)),
	)
}

func independent(t *testing.T, c Config, g Guard) string {
	a, b := c.Resources[0], c.Resources[1]
	return first(
		admitted(t, g, a, c.token(9)),
		admitted(t, g, b, c.token(3)),
		refused(t, g, a, c.token(3), fence.ErrStale),
		admitted(t, g, a, c.token(9)),
		refused(t, g, b, c.token(2), fence.ErrStale),
	)
}

func malformed(t *testing.T, c Config, g Guard) string {
	r := c.Resources[0]
	for _, token := range []fence.Token{0, -1, -1 << 63} {
		if p := refused(t, g, r, token, nil); p != "" {
			return p
		}
	}
	return admitted(t, g, r, c.token(1))
}

func refusedChangeNothing(t *testing.T, c Config, g Guard) string {
	r := c.Resources[0]
	return first(
		admitted(t, g, r, c.token(5)),
		refused(t, g, r, c.token(2), fence.ErrStale),
		refused(t, g, r, c.token(4), fence.ErrStale),
		admitted(t, g, r, c.token(5)),
	)
}

// drain has an older write under way while a newer one comes.
func drain(t *testing.T, c Config, g Guard) string {
	r := c.Resources[0]
	begun, finish := make(chan struct{}), make(chan struct{})
	older := make(chan error, 1)
	go func() {
		older <- g.Write(t.Context(), r, c.token(1), func() {
			close(begun)
			<-finish
		})
	}()
	select {
	case <-begun:
	case err := <-older:
		return fmt.Sprintf("the first write was refused: %v", err)
	}
	finishing, beside := make(chan struct{}), false
	newer := make(chan error, 1)
	go func() {
		newer <- g.Write(t.Context(), r, c.token(2), func() {
			select {
			case <-finishing:
			default:
				beside = true
			}
		})
	}()
	settle := time.NewTimer(c.Settle)
	defer settle.Stop()
	var result error
	answered := false
	select {
	case result = <-newer: // refused for the time being, or wrongly carried out
		answered = true
	case <-settle.C:
	}
	close(finishing)
	close(finish)
	if err := <-older; err != nil && !errors.Is(err, fence.ErrCut) {
		return fmt.Sprintf("the older write, admitted before, failed: %v", err)
	}
	if !answered {
		result = <-newer
	}
	if beside {
		return "a newer write was carried out while an older one was under way"
	}
	if result == nil {
		return refused(t, g, r, c.token(1), fence.ErrStale)
	}
	return admitted(t, g, r, c.token(2))
}

// many has writes under many tokens at once. The storage sees that none begins after a newer one has begun, and that none
// with different tokens run beside each other.
func many(t *testing.T, c Config, g Guard) string {
	var (
		writers sync.WaitGroup
		mu      sync.Mutex
		newest  fence.Token
		running = make(map[fence.Token]int)
		problem string
	)
	storage := func(token fence.Token) func() {
		return func() {
			mu.Lock()
			running[token]++
			if token < newest {
				problem = fmt.Sprintf("a write under %v began after one under %v", token, newest)
			}
			newest = max(newest, token)
			if len(running) > 1 {
				problem = fmt.Sprintf("writes under %d tokens were under way at a time", len(running))
			}
			mu.Unlock()
			mu.Lock()
			defer mu.Unlock()
			if running[token]--; running[token] == 0 {
				delete(running, token)
			}
		}
	}
	for w := range 8 {
		writers.Go(func() {
			for i := range 40 {
				token := c.token(1 + (i*7+w*5)%50)
				_ = g.Write(t.Context(), c.Resources[0], token, storage(token)) // most are refused, as they should be
			}
		})
	}
	writers.Wait()
	if problem != "" {
		return problem
	}
	if newest == 0 {
		return "not one write was admitted"
	}
	return first(admitted(t, g, c.Resources[0], c.token(60)), refused(t, g, c.Resources[0], newest, fence.ErrStale))
}

func restart(t *testing.T, c Config, g Guard) string {
	durable, ok := g.(Restarter)
	if !ok {
		t.Skip("the guard does not say that its floors are durable")
	}
	r := c.Resources[0]
	if p := admitted(t, g, r, c.token(5)); p != "" {
		return p
	}
	durable.Restart(t)
	return first(
		refused(t, g, r, c.token(4), fence.ErrStale),
		admitted(t, g, r, c.token(5)),
		admitted(t, g, r, c.token(6)),
	)
}
