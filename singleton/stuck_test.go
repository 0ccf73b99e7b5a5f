package singleton_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock/bubble"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/singletontest"
)

func TestAStuckFunctionEndsTheProcessWhenItsLeaseHasRunOut(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		var logged strings.Builder
		s := q.Process("a", "").Singleton(singleton.Config{
			StopGrace: 5 * time.Second, Logger: singleton.LoggerOf(hclog.New(&hclog.LoggerOptions{Output: &logged})),
		})
		start := time.Now()
		var ended, exited time.Duration
		wake := make(chan struct{})
		singleton.SetExit(s, func(code int) {
			exited = time.Since(start)
			if info := q.Info("r"); code != singleton.ExitStuck || info.State != lease.Held {
				t.Errorf("exit %d while the lease is %+v", code, info)
			}
			close(wake)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		err := s.Run(ctx, "r", func(ctx context.Context) error {
			<-ctx.Done()
			ended = time.Since(start)
			<-wake
			return nil
		})
		if d := exited - ended; err != nil || d < 10*time.Second || d > 15*time.Second {
			t.Errorf("%v; the context ended at %v, the process at %v", err, ended, exited)
		}
		if !strings.Contains(logged.String(), "[ERROR]") || !strings.Contains(logged.String(), "resource=r") {
			t.Errorf("logged: %s", logged.String())
		}
	})
}

func TestAStrictProcessExitsBeforeAnotherIsGranted(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		a, b := q.Process("a", ""), q.Process("b", "")
		s := a.Singleton(singleton.Config{})
		wake := make(chan struct{})
		singleton.SetExit(s, func(int) {
			if info := q.Info("r"); info.State != lease.Held || info.Holder.Instance != "a" {
				t.Errorf("the process outlives its lease: %+v", info)
			}
			close(wake)
		})
		ctx, cancel := context.WithCancel(t.Context())
		var lead time.Duration
		go func() {
			q.Advance(time.Second)
			a.Partition()
			_ = b.Singleton(singleton.Config{}).Run(ctx, "r", untilEnd)
		}()
		err := s.Run(ctx, "r", func(ctx context.Context) error {
			<-ctx.Done()
			start := time.Now()
			<-wake
			lead = time.Since(start)
			cancel()
			return nil
		}, singleton.Strict())
		if err != nil || lead < time.Second || lead > 1250*time.Millisecond {
			t.Errorf("%v; the function had %v", err, lead)
		}
		a.Heal()
	})
}

func TestAStuckFunctionIsLeftBehind(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		s := q.Process("a", "").Singleton(singleton.Config{})
		wake, returned := make(chan struct{}), make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var told []singleton.Stuck
		err := s.Run(ctx, "r", func(context.Context) error {
			defer close(returned)
			<-wake
			return nil
		}, singleton.StopGrace(3*time.Second), singleton.OnStuck(func(stuck singleton.Stuck) { told = append(told, stuck) }))
		if !errors.Is(err, singleton.ErrStuck) || len(told) != 1 || told[0].Resource != "r" || told[0].Since != 3*time.Second {
			t.Errorf("%v; told %+v", err, told)
		}
		if info := q.Info("r"); info.State != lease.Held || info.Token != told[0].Token {
			t.Errorf("%+v", info)
		}
		q.Advance(11 * time.Second)
		if info := q.Info("r"); info.End != lease.EndExpired {
			t.Errorf("%+v", info)
		}
		close(wake)
		<-returned
	})
}

func TestAPreferredRegionTakesOver(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 3)
		causes := make(map[string][]error)
		start := func(region string, opts ...singleton.Option) {
			opts = append(opts, singleton.Preferred("eu", "us"), singleton.WithHooks(singleton.Hooks{
				Stopped: func(term singleton.Term, cause error) {
					causes[term.Holder.Instance] = append(causes[term.Holder.Instance], cause)
				},
			}))
			s := q.Process(region, region).Singleton(singleton.Config{})
			go func() { done <- s.Run(ctx, "r", untilEnd, opts...) }()
			q.Advance(20 * time.Second)
		}
		start("ap")
		start("us")
		if info := q.Info("r"); info.Holder.Region != "us" {
			t.Errorf("held by %+v", info.Holder)
		}
		start("eu")
		if info := q.Info("r"); info.Holder.Region != "eu" || q.Commits() != 3 {
			t.Errorf("held by %+v after %d commits", info.Holder, q.Commits())
		}
		for _, region := range []string{"ap", "us"} {
			if got := causes[region]; len(got) != 1 || !errors.Is(got[0], singleton.ErrHandedOver) {
				t.Errorf("%s stopped because of %v", region, got)
			}
		}
		cancel()
		for range 3 {
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}

// Release and the next grant are one transaction.
func TestACleanShutdownIsOneCommit(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		a, b := q.Process("a", "").Singleton(singleton.Config{}), q.Process("b", "").Singleton(singleton.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx, "r", untilEnd) }()
		q.Advance(time.Second)
		next, stop := context.WithCancel(t.Context())
		started := make(chan time.Time, 1)
		over := make(chan error, 1)
		go func() {
			over <- b.Run(next, "r", func(context.Context) error { started <- time.Now(); return nil })
		}()
		q.Advance(time.Minute)
		before, at := q.Commits(), time.Now()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if took := (<-started).Sub(at); took > 0 {
			t.Errorf("the next one started %v later", took)
		}
		if err := <-over; err != nil {
			t.Error(err)
		}
		stop()
		if n := q.Commits() - before; n != 2 { // the hand-over, and the release after it
			t.Errorf("%d commits", n)
		}
	})
}

func TestRegionsThatAreNotEligible(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		p := q.Process("a", "ap")
		s := p.Singleton(singleton.Config{Eligible: []string{"eu", "us"}})
		if err := s.Try(t.Context(), "r", untilEnd); !errors.Is(err, singleton.ErrIneligible) {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := s.Run(ctx, "r", untilEnd); !errors.Is(err, context.DeadlineExceeded) || p.Calls("Acquire") > 0 {
			t.Errorf("%v after %d calls", err, p.Calls("Acquire"))
		}
	})
}

func TestTry(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		a, b := q.Process("a", "").Singleton(singleton.Config{}), q.Process("b", "").Singleton(singleton.Config{})
		err := a.Try(t.Context(), "r", func(ctx context.Context) error {
			var held *lease.Error
			if err := b.Try(ctx, "r", untilEnd); !errors.As(err, &held) || held.Reason != lease.ReasonHeld || held.Holder.Instance != "a" {
				t.Error(err)
			}
			if err := singleton.Checkpoint(ctx, []byte("half")); err != nil {
				t.Error(err)
			}
			q.Steal("r")
			<-ctx.Done()
			return nil
		})
		if !errors.Is(err, singleton.ErrLost) {
			t.Errorf("after a theft: %v", err)
		}
		q.Expire("r")
		err = b.Try(t.Context(), "r", func(ctx context.Context) error {
			if term, _ := singleton.FromContext(ctx); string(term.Checkpoint) != "half" || singleton.Verify(ctx) != nil || singleton.Remaining(ctx) == 0 {
				t.Errorf("%+v", term)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := singleton.Checkpoint(t.Context(), nil); !errors.Is(err, singleton.ErrNoTerm) {
			t.Error(err)
		}
	})
}

func TestObserve(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		a, b := q.Process("a", "").Singleton(singleton.Config{}), q.Process("b", "").Singleton(singleton.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var seen []string
		watched := make(chan error, 1)
		go func() {
			for term, err := range b.Observe(ctx, "r") {
				if err != nil {
					watched <- err
					return
				}
				text := term.Holder.Instance
				if term.Ended {
					text += " ended " + term.End.String()
				}
				seen = append(seen, text)
			}
		}()
		q.Advance(time.Second)
		run := func(s *singleton.Singleton, resource string, then func()) {
			_ = s.Run(t.Context(), resource, func(context.Context) error { then(); return nil })
			q.Advance(time.Second)
		}
		run(a, "r", func() {})
		run(a, "r/below", func() {})
		run(b, "r", func() { q.Steal("r"); q.Expire("r") })
		cancel()
		want := []string{"a", "a ended released", "b", "b ended ", "thief", "thief ended expired"}
		if err := <-watched; !errors.Is(err, context.Canceled) || !slices.Equal(seen, want) {
			t.Errorf("%v after %q, want %q", err, seen, want)
		}
	})
}

func TestBadInput(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := singletontest.New(t, singletontest.Config{}).Process("a", "")
		s := p.Singleton(singleton.Config{})
		for name, call := range map[string]func() error{
			"fn":       func() error { return s.Run(t.Context(), "r", nil) },
			"resource": func() error { return s.Run(t.Context(), "a//b", untilEnd) },
			"options":  func() error { return s.Run(t.Context(), "r", untilEnd, nil) },
			"ttl":      func() error { return s.Run(t.Context(), "r", untilEnd, singleton.TTL(-1)) },
			"short":    func() error { return s.Run(t.Context(), "r", untilEnd, singleton.TTL(time.Millisecond)) },
			"priority": func() error { return s.Run(t.Context(), "r", untilEnd, singleton.Priority(1001)) },
			"metadata": func() error { return s.Run(t.Context(), "r", untilEnd, singleton.Metadata(make([]byte, 5000))) },
			"grace":    func() error { return s.Run(t.Context(), "r", untilEnd, singleton.StopGrace(-1)) },
			"region":   func() error { return s.Run(t.Context(), "r", untilEnd, singleton.Eligible("eu")) },
			"lead":     func() error { _, err := singleton.New(p.Client(), singleton.Config{StopLead: time.Minute}); return err },
			"client":   func() error { _, err := singleton.New(nil, singleton.Config{}); return err },
			"twice": func() error {
				_, err := singleton.New(p.Client(), singleton.Config{Region: "eu", Preferred: []string{"eu", "eu"}})
				return err
			},
			"observe": func() error {
				for _, err := range s.Observe(t.Context(), "") {
					return err
				}
				return nil
			},
		} {
			if err := call(); !errors.Is(err, lease.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestAClosedClient(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := singletontest.New(t, singletontest.Config{}).Process("a", "")
		err := p.Singleton(singleton.Config{}).Run(t.Context(), "r", func(ctx context.Context) error {
			_ = p.Client().Close()
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), lease.ErrClosed) {
				t.Errorf("the cause is %v", context.Cause(ctx))
			}
			return nil
		})
		if !errors.Is(err, lease.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestTheProcesssOwnClient(t *testing.T) {
	t.Setenv("WRIT_ENDPOINTS", "")
	if err := singleton.Run(t.Context(), "r", untilEnd); !errors.Is(err, lease.ErrInvalid) {
		t.Errorf("without endpoints: %v", err)
	}
	t.Setenv("WRIT_INSECURE", "perhaps")
	if err := singleton.Try(t.Context(), "r", untilEnd); !errors.Is(err, lease.ErrInvalid) {
		t.Errorf("with an environment that cannot be read: %v", err)
	}
}

func TestLoggerOf(t *testing.T) {
	var out strings.Builder
	logger := singleton.LoggerOf(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info, DisableTime: true}))
	logger.With("a", 1).WithGroup("g").Info("hello", "b", "x", slog.Group("h", "c", true))
	logger.Debug("dropped")
	logger.Warn("careful")
	if got, want := out.String(), "[INFO]  hello: a=1 g.b=x g.h.c=true\n[WARN]  careful\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
