package singleton_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	"github.com/writ-io/writ/singleton/cron"
	"github.com/writ-io/writ/singleton/singletontest"
)

// journal is what ticks have done, in order.
type journal struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

// take returns what has been written since it was called last.
func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := strings.Join(j.lines, "\n")
	j.lines = nil
	return text
}

// jobWorld is a quorum and processes that run jobs, in one bubble, whose time begins at midnight on 1 January 2000.
type jobWorld struct {
	*testing.T
	*singletontest.Quorum
	processes int
}

func withJobs(t *testing.T, test func(*jobWorld)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) { test(&jobWorld{T: t, Quorum: singletontest.New(t, singletontest.Config{})}) })
}

func (w *jobWorld) start(region string) *singletontest.Process {
	w.processes++
	return w.Process(fmt.Sprintf("p%d", w.processes), region)
}

func (w *jobWorld) process(region string, cfg singleton.Config) *singleton.Singleton {
	return w.start(region).Singleton(cfg)
}

// cron runs a job in the background and returns how to stop it, which waits.
func (w *jobWorld) cron(s *singleton.Singleton, job, spec string, fn func(context.Context, singleton.Tick) error, opts ...singleton.CronOption) (stop func() error) {
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- s.Cron(ctx, job, spec, fn, opts...) }()
	return func() error {
		cancel()
		return <-done
	}
}

func (w *jobWorld) expect(j *journal, want ...string) {
	w.Helper()
	if got := j.take(); got != strings.Join(want, "\n") {
		w.Errorf("at %s the journal says\n%s\nwant\n%s", time.Now().UTC().Format(time.TimeOnly), got, strings.Join(want, "\n"))
	}
}

// note is a job that tells of its ticks.
func (j *journal) note(who string) func(context.Context, singleton.Tick) error {
	return func(ctx context.Context, tick singleton.Tick) error {
		presented, _ := fence.FromContext(ctx)
		j.add("%s %s attempt %d under %d", who, tick.ID, tick.Attempt, presented.Token&0xffff)
		return nil
	}
}

func TestCronRunsEachSlotInOneProcess(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		var j journal
		stopA := w.cron(w.process("eu", singleton.Config{}), "night/bill", "*/10 * * * *", j.note("a"))
		w.Advance(time.Second)
		stopB := w.cron(w.process("us", singleton.Config{}), "night/bill", "*/10 * * * *", j.note("b"))
		w.Advance(25 * time.Minute)
		w.expect(&j, "a night/bill@2000-01-01T00:10:00Z attempt 1 under 1", "a night/bill@2000-01-01T00:20:00Z attempt 1 under 1")
		if err := stopA(); !errors.Is(err, context.Canceled) {
			t.Errorf("stopped: %v", err)
		}
		w.Advance(10 * time.Minute)
		w.expect(&j, "b night/bill@2000-01-01T00:30:00Z attempt 1 under 2")
		if err := stopB(); !errors.Is(err, context.Canceled) {
			t.Errorf("stopped: %v", err)
		}
		if info := w.Info("night/bill"); info.State != lease.Free || info.End != lease.EndReleased {
			t.Errorf("the lease is %+v", info)
		}
	})
}

func TestCronRunsAgainWhatADeadHolderLeft(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		var j journal
		began, dead := make(chan struct{}), make(chan struct{})
		a := w.start("eu")
		stopA := w.cron(a.Singleton(singleton.Config{}), "job", "0 * * * *", func(ctx context.Context, tick singleton.Tick) error {
			close(began)
			<-ctx.Done()
			j.add("a's context ends: %v", errors.Is(context.Cause(ctx), lease.ErrClosed))
			<-dead // as a process that is gone: it does not return, so that nothing is released
			return nil
		})
		w.Advance(time.Second)
		stopB := w.cron(w.process("us", singleton.Config{}), "job", "0 * * * *", j.note("b"))
		<-began
		at := time.Now()
		_ = a.Client().Close() // dies: its lease runs out
		w.Advance(11 * time.Second)
		w.expect(&j, "a's context ends: true", "b job@2000-01-01T01:00:00Z attempt 2 under 2")
		if got := w.Info("job").GrantedAt.Sub(at); got > lease.DefaultTTL+200*time.Millisecond || got < lease.DefaultTTL/2 {
			t.Errorf("taken over after %v", got)
		}
		close(dead)
		_ = stopA()
		_ = stopB()
	})
}

func TestCronStandsByWithoutAsking(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		var j journal
		const jobs = 20
		first, second := w.start("eu"), w.start("us")
		a, b := first.Singleton(singleton.Config{}), second.Singleton(singleton.Config{})
		var stops []func() error
		for i := range jobs {
			stops = append(stops, w.cron(a, fmt.Sprintf("fleet-%d/job", i), "@hourly", j.note("a")))
		}
		w.Advance(time.Second)
		for i := range jobs {
			stops = append(stops, w.cron(b, fmt.Sprintf("fleet-%d/job", i), "@hourly", j.note("b")))
		}
		w.Advance(time.Second)
		before := second.Calls("Acquire")
		w.Advance(3 * time.Hour)
		if asked := second.Calls("Acquire") - before; asked != 0 {
			t.Errorf("%d requests while standing by", asked)
		}
		if n := strings.Count(j.take(), "a fleet"); n != 3*jobs {
			t.Errorf("%d ticks, want %d", n, 3*jobs)
		}
		for _, stop := range stops[:jobs] {
			_ = stop()
		}
		w.Advance(time.Second)
		if n := len(w.Held("fleet-")); n != jobs {
			t.Errorf("%d of %d jobs are held after a second", n, jobs)
		}
		for _, stop := range stops[jobs:] {
			_ = stop()
		}
	})
}

// Jobs are read many at a time: one after the other would take longer than anybody waits, where the quorum is far.
func TestManyJobsAreListed(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		const many = 100
		var j journal
		p := w.process("eu", singleton.Config{})
		var stops []func() error
		for i := range many {
			stops = append(stops, w.cron(p, fmt.Sprintf("job%03d", i), "0 * * * *", j.note("a")))
		}
		w.Advance(time.Second)
		far := w.start("")
		operator := far.Singleton(singleton.Config{})
		far.Delay(80 * time.Millisecond)
		began := time.Now()
		jobs, err := operator.Jobs(w.Context(), "")
		if err != nil || len(jobs) != many || jobs[0].Name != "job000" || jobs[many-1].Name != "job099" || len(jobs[7].Next) == 0 {
			t.Errorf("%d jobs, %v", len(jobs), err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the list takes %v", took)
		}
		for _, stop := range stops {
			_ = stop()
		}
	})
}

func TestJobsAreSteered(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		var j journal
		stop := w.cron(w.process("eu", singleton.Config{}), "job", "0 * * * *", j.note("a"), singleton.WithZone("Europe/Berlin"))
		w.Advance(time.Second)
		operator := w.process("", singleton.Config{})
		ctx := w.Context()
		if err := operator.PauseJob(ctx, "job", "the database moves"); err != nil {
			t.Fatal(err)
		}
		w.Advance(2 * time.Hour)
		w.expect(&j)
		id, err := operator.TriggerJob(ctx, "job", "once")
		if again, err := operator.TriggerJob(ctx, "job", "once"); err != nil || again != id {
			t.Errorf("triggered again: %q, %v", again, err)
		}
		w.Advance(time.Second)
		if w.expect(&j, "a job!once attempt 1 under 1"); err != nil || id != "job!once" {
			t.Errorf("triggered as %q, %v", id, err)
		}
		info, err := operator.Job(ctx, "job")
		if err != nil || info.Problem != nil || info.Control.Pause == nil || info.Control.Pause.Note != "the database moves" || info.Control.Pause.By == "" {
			t.Errorf("the job is %+v, %v", info, err)
		}
		history := info.State.History
		if len(history) != 2 || history[0].Outcome != cron.Skipped || history[0].Reason != "paused" || history[0].Count != 2 ||
			history[1].Outcome != cron.Done || !history[1].Manual || history[1].By == "" || history[1].Token != 1 && history[1].Token&0xffff != 1 {
			t.Errorf("the history is %+v", history)
		}
		if next := info.Next; len(next) != 5 || next[0].Format(time.RFC3339) != "2000-01-01T04:00:00+01:00" {
			t.Errorf("the next slots are %v", next)
		}
		if err := operator.ResumeJob(ctx, "job"); err != nil {
			t.Fatal(err)
		}
		w.Advance(time.Hour)
		w.expect(&j, "a job@2000-01-01T03:00:00Z attempt 1 under 1")
		jobs, err := operator.Jobs(ctx, "")
		if err != nil || len(jobs) != 1 || jobs[0].Name != "job" || jobs[0].Control.Pause != nil {
			t.Errorf("the jobs are %+v, %v", jobs, err)
		}
		for _, err := range []error{
			operator.PauseJob(ctx, "jab", ""), operator.PauseJob(ctx, "writ.jobs/job", ""), operator.ResumeJob(ctx, "jab"),
		} {
			if !errors.Is(err, lease.ErrNotFound) {
				t.Errorf("a job that does not exist: %v", err)
			}
		}
		if _, err := operator.TriggerJob(ctx, "job", "two words"); !errors.Is(err, lease.ErrInvalid) {
			t.Errorf("an id of two words: %v", err)
		}
		if err := operator.PauseJob(ctx, "job", strings.Repeat("x", 600)); !errors.Is(err, lease.ErrInvalid) {
			t.Errorf("a long note: %v", err)
		}
		_ = stop()
	})
}

func TestCronCancelsWhatIsOvertaken(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		var j journal
		stop := w.cron(w.process("", singleton.Config{}), "job", "0 * * * *", func(ctx context.Context, tick singleton.Tick) error {
			j.add("%s begins", tick.ID)
			<-ctx.Done()
			j.add("%s ends: %v", tick.ID, context.Cause(ctx))
			return ctx.Err()
		}, singleton.WithPolicy(cron.Policy{Overlap: cron.OverlapCancelOther}))
		w.Advance(2*time.Hour + time.Minute)
		w.expect(&j, "job@2000-01-01T01:00:00Z begins", "job@2000-01-01T01:00:00Z ends: singleton: the next slot is due", "job@2000-01-01T02:00:00Z begins")
		_ = stop()
	})
}

func TestCronPrefersARegion(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		var j journal
		cfg := singleton.Config{Preferred: []string{"eu"}}
		stopUS := w.cron(w.process("us", cfg), "job", "0 * * * *", j.note("us"))
		w.Advance(time.Hour + time.Minute)
		stopEU := w.cron(w.process("eu", cfg), "job", "0 * * * *", j.note("eu"))
		w.Advance(time.Hour)
		w.expect(&j, "us job@2000-01-01T01:00:00Z attempt 1 under 1", "eu job@2000-01-01T02:00:00Z attempt 1 under 2")
		_, _ = stopUS(), stopEU()
	})
}

func TestCronOfAFunctionThatDoesNotReturnAnError(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		ctx := w.Context()
		s := w.process("", singleton.Config{})
		var caught any
		func() {
			defer func() { caught = recover() }()
			_ = s.Cron(ctx, "job", "0 * * * *", func(context.Context, singleton.Tick) error { panic("ouch") })
		}()
		if p, ok := caught.(*singleton.PanicError); !ok || p.Value != "ouch" || !bytes.Contains(p.Stack, []byte("cron_test.go")) {
			t.Errorf("it panics with %v", caught)
		}
		if err := s.Cron(ctx, "job", "0 * * * *", func(context.Context, singleton.Tick) error { runtime.Goexit(); return nil }); !errors.Is(err, singleton.ErrGoexit) {
			t.Errorf("Goexit: %v", err)
		}
		info, err := s.Job(ctx, "job")
		if err != nil || info.Lease.State != lease.Free || info.State.Running != nil {
			t.Fatalf("the job is %+v, %v", info, err)
		}
		outcomes := []cron.Outcome{}
		for _, r := range info.State.History {
			outcomes = append(outcomes, r.Outcome)
		}
		if !slices.Equal(outcomes, []cron.Outcome{cron.Panicked, cron.Panicked}) {
			t.Errorf("the history is %+v", info.State.History)
		}
	})
}

func TestCronRefuses(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		s := w.process("", singleton.Config{})
		work := func(context.Context, singleton.Tick) error { return nil }
		ended, cancel := context.WithCancel(w.Context())
		cancel()
		stop := w.cron(s, "taken", "@hourly", func(ctx context.Context, _ singleton.Tick) error {
			return singleton.Checkpoint(ctx, []byte("mine"))
		})
		w.Advance(time.Hour)
		for _, test := range []struct {
			job, spec string
			fn        func(context.Context, singleton.Tick) error
			opts      []singleton.CronOption
			field     string
		}{
			{"job", "@hourly", nil, nil, "fn"},
			{"", "@hourly", work, nil, "job"},
			{"a//b", "@hourly", work, nil, "job"},
			{strings.Repeat("x", 510), "@hourly", work, nil, "job"},
			{"job", "0 0 30 2 *", work, nil, "day of month"},
			{"job", "TZ=", work, nil, "spec"},
			{"job", "@hourly", work, []singleton.CronOption{nil}, "options"},
			{"job", "@hourly", work, []singleton.CronOption{singleton.WithZone("Mars/Base")}, "zone"},
			{"job", "@hourly", work, []singleton.CronOption{singleton.WithPolicy(cron.Policy{Max: 3})}, "max"},
			{"job", "@hourly", work, []singleton.CronOption{singleton.WithRun(singleton.TTL(-1))}, "ttl"},
			{"taken", "@hourly", work, nil, "job"},
		} {
			err := s.Cron(w.Context(), test.job, test.spec, test.fn, test.opts...)
			var invalid *lease.Error
			if !errors.As(err, &invalid) || invalid.Field != test.field || invalid.Fix == "" {
				t.Errorf("%q, %q: %v, want INVALID for %s", test.job, test.spec, err, test.field)
			}
		}
		if err := s.Cron(ended, "job", "@hourly", work); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that has ended: %v", err)
		}
		info, err := s.Job(w.Context(), "taken")
		if err != nil || len(info.State.History) != 1 || !strings.Contains(info.State.History[0].Reason, "is the state of the job") {
			t.Errorf("a tick stores a checkpoint: %+v, %v", info.State.History, err)
		}
		_ = stop()
	})
}

func TestCronLeavesAStateThatItDoesNotKnow(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		s := w.process("", singleton.Config{})
		for _, data := range []string{`{"version":2,"plan":"from the future"}`, "an offset", `{"version":1,"job":"other"}`} {
			err := s.Run(w.Context(), "job", func(ctx context.Context) error { return singleton.Checkpoint(ctx, []byte(data)) })
			if err != nil {
				t.Fatal(err)
			}
			err = s.Cron(w.Context(), "job", "@hourly", func(context.Context, singleton.Tick) error { return nil })
			var invalid *lease.Error
			if !errors.As(err, &invalid) || invalid.Field != "state" {
				t.Errorf("%s: %v", data, err)
			}
			info, err := s.Job(w.Context(), "job")
			if err != nil || info.Problem == nil || string(info.Lease.Checkpoint) != data || info.Lease.State != lease.Free {
				t.Errorf("%s: the job is %+v, %v", data, info, err)
			}
		}
	})
}

func TestCronUnderAClockThatIsSet(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		var j journal
		a := w.start("")
		stop := w.cron(a.Singleton(singleton.Config{}), "job", "*/20 * * * *", j.note("a"))
		w.Advance(30 * time.Minute)
		w.expect(&j, "a job@2000-01-01T00:20:00Z attempt 1 under 1")
		a.JumpClock(time.Hour) // 01:30
		w.Advance(2 * time.Second)
		w.expect(&j, "a job@2000-01-01T01:20:00Z attempt 1 under 1")
		a.JumpClock(-time.Hour)
		w.Advance(time.Hour + 5*time.Minute) // 01:35
		w.expect(&j)
		w.Advance(10 * time.Minute)
		w.expect(&j, "a job@2000-01-01T01:40:00Z attempt 1 under 1")
		_ = stop()
	})
}

// A job that is to be woken in a moment, to store again what failed to be stored, is woken though the clock is set back.
func TestCronWakesUnderAClockThatIsSetBack(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		a := w.start("")
		woken, leave := singleton.WakeAfter(t, a.Singleton(singleton.Config{}), 2*time.Second)
		defer leave()
		w.Advance(time.Second)
		a.JumpClock(-time.Hour)
		w.Advance(3 * time.Second)
		select {
		case <-woken:
		default:
			t.Error("it sleeps for an hour more")
		}
	})
}

// A zombie that wakes up does not record an outcome or claim a slot under its old token.
func TestCronOfAZombie(t *testing.T) {
	withJobs(t, func(w *jobWorld) {
		var j journal
		a := w.start("eu")
		release := make(chan struct{})
		stopA := w.cron(a.Singleton(singleton.Config{}), "job", "0 * * * *", func(_ context.Context, tick singleton.Tick) error {
			j.add("a %s attempt %d", tick.ID, tick.Attempt)
			if tick.Attempt == 1 {
				<-release
			}
			return nil
		})
		w.Advance(time.Second)
		stopB := w.cron(w.process("us", singleton.Config{}), "job", "0 * * * *", j.note("b"))
		w.Advance(time.Hour)
		a.Pause()
		w.Advance(20 * time.Second)
		close(release) // the paused one believes, and says that it is done
		w.Advance(time.Hour)
		a.Resume()
		w.Advance(time.Hour)
		w.expect(&j, "a job@2000-01-01T01:00:00Z attempt 1", "b job@2000-01-01T01:00:00Z attempt 2 under 2",
			"b job@2000-01-01T02:00:00Z attempt 1 under 2", "b job@2000-01-01T03:00:00Z attempt 1 under 2")
		_, _ = stopA(), stopB()
	})
}
