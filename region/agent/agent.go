package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/region"
)

const (
	// A poll that came back sooner than a fraction of the interval is not followed by another one before that.
	pollsPerInterval = 4
	// After a failure the agent waits, doubling up to the most.
	pollFirstPause = 100 * time.Millisecond
	pollMostPause  = 2 * time.Second
	// pollSlack is what an answer may take beyond the wait that was asked for.
	pollSlack = 10 * time.Second
	// retryJournal is how long after a failure the journal is tried again.
	retryJournal = time.Second
	// maxOutbox bounds the results of one poll.
	maxOutbox = 1024
)

// Agent looks after the groups of one region. See the documentation of the package.
type Agent struct {
	cfg     Config
	clock   clock.Clock
	logger  hclog.Logger
	session string
	groups  map[string]*watched
	peers   []*peerSight
	every   atomic.Int64 // the interval, in ns
	metrics *metrics

	// Used by Run alone.
	journal  *Journal
	machine  *Machine
	running  map[Key]context.CancelCauseFunc
	hooks    sync.WaitGroup
	finished chan *writv1.TaskResult
	outbox   []*mail
	polls    polls
	retryAt  clock.Instant
	told     string // what was last logged about groups
}

// mail is a result on its way.
type mail struct {
	result *writv1.TaskResult
	via    uint64 // the poll that carries it, 0: none
}

// New opens the journal of an agent. Errors: what [Config.Validate] finds, and those of the journal.
func New(cfg Config) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	journal, entries, err := OpenJournal(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, clock: cfg.Clock, logger: cfg.Logger, session: strings.ToLower(rand.Text()[:16]),
		groups: make(map[string]*watched), journal: journal, machine: NewMachine(entries),
		running: make(map[Key]context.CancelCauseFunc), finished: make(chan *writv1.TaskResult), retryAt: clock.Never,
	}
	a.every.Store(int64(cfg.Interval))
	a.polls.answers = make(chan pollAnswer)
	a.polls.open = make(map[uint64]context.CancelFunc)
	a.metrics = newMetrics(a)
	a.watch()
	for _, e := range entries {
		if e.Result == nil {
			a.logger.Warn("a hook was running when the agent ended; what is left of it is killed", "task", e.Key)
			killMarked(journal.mark(e.Key))
		}
	}
	return a, nil
}

// interval is how often to look and to report.
func (a *Agent) interval() time.Duration { return time.Duration(a.every.Load()) }

// Run looks, reports and runs hooks until ctx ends; then it ends what runs, closes the journal and answers nil. It is called
// once.
func (a *Agent) Run(ctx context.Context) error {
	looking, stopLooking := context.WithCancel(ctx)
	var lookers sync.WaitGroup
	a.look(looking, &lookers)
	a.loop(ctx)
	stopLooking()
	a.stop()
	lookers.Wait()
	return a.journal.Close()
}

func (a *Agent) loop(ctx context.Context) {
	timer := a.clock.NewTimer(a.clock.Now())
	defer timer.Stop()
	for ctx.Err() == nil {
		if !a.clock.Now().Before(a.retryAt) {
			a.retryAt = clock.Never
			a.step(ctx, Retry{})
		}
		a.poll(ctx)
		at := a.polls.at
		if len(a.polls.open) > 0 {
			at = clock.Never // the answer wakes
		}
		timer.Reset(min(at, a.retryAt))
		select {
		case <-ctx.Done():
		case result := <-a.finished:
			delete(a.running, Key{result.GetGroup(), result.GetPromotion(), result.GetStep(), result.GetKind()})
			a.logger.Info("a hook has ended", "kind", kindName(result.GetKind()), "promotion", result.GetPromotion(),
				"step", result.GetStep(), "outcome", outcomeName(result.GetOutcome()), "took", result.GetTook().AsDuration())
			a.step(ctx, Finished{Result: result})
		case answer := <-a.polls.answers:
			a.answered(ctx, answer)
		case <-timer.C():
		}
	}
}

// stop ends hooks and polls and waits for them. How a hook went that ended by itself is kept.
func (a *Agent) stop() {
	for _, cancel := range a.running {
		cancel(errStopping)
	}
	for _, cancel := range a.polls.open {
		cancel()
	}
	gone := make(chan struct{})
	go func() {
		a.hooks.Wait()
		a.polls.tasks.Wait()
		close(gone)
	}()
	for {
		select {
		case result := <-a.finished:
			for _, e := range a.machine.Step(Finished{Result: result}).Save {
				if err := a.journal.Save(e); err != nil {
					a.logger.Error("the journal cannot be written", "task", e.Key, "error", err)
				}
			}
		case <-a.polls.answers:
		case <-gone:
			return
		}
	}
}

// step tells the machine of an event and does what it wants done.
func (a *Agent) step(ctx context.Context, first Event) {
	for events := []Event{first}; len(events) > 0; events = events[1:] {
		do := a.machine.Step(events[0])
		for _, key := range do.Cancel {
			a.logger.Warn("a newer step ends a hook", "task", key)
			a.running[key](errSuperseded)
		}
		for _, b := range do.Begin {
			if more := a.begin(ctx, b); more != nil {
				events = append(events, more)
			}
		}
		for _, e := range do.Save {
			if err := a.journal.Save(e); err != nil {
				a.logger.Error("the journal cannot be written; the outcome of a hook is not reported", "task", e.Key, "error", err)
				a.retryAt = min(a.retryAt, a.clock.Now().Add(retryJournal))
				events = append(events, Refused{Entry: e})
				continue
			}
			a.send(e.Result)
		}
		for _, result := range do.Report {
			a.send(result)
		}
	}
}

// send puts a result into the outbox unless it is there.
func (a *Agent) send(result *writv1.TaskResult) {
	same := func(m *mail) bool {
		return m.result.GetGroup() == result.GetGroup() && m.result.GetPromotion() == result.GetPromotion() &&
			m.result.GetStep() == result.GetStep() && m.result.GetKind() == result.GetKind()
	}
	if !slices.ContainsFunc(a.outbox, same) {
		a.outbox = append(a.outbox, &mail{result: result})
	}
}

var (
	errSuperseded = errors.New("a newer step took its place")
	errStopping   = errors.New("the agent was stopped")
)

// defaultTimeout is a task's that names none.
const defaultTimeout = 30 * time.Second

// begin starts a task's hook once that is in the journal. It answers what to tell the machine if nothing was started.
func (a *Agent) begin(ctx context.Context, b Begin) Event {
	task, key := b.Task, keyOf(b.Task)
	hook := a.hook(key)
	result := &writv1.TaskResult{Group: key.Group, Promotion: key.Promotion, Step: key.Step, Kind: key.Kind}
	switch {
	case hook == nil:
		result.Outcome = writv1.HookOutcome_HOOK_OUTCOME_NONE
		result.Output = fmt.Sprintf("agent %s has no hook %s for group %s", a.cfg.Name, kindName(key.Kind), key.Group)
		return Finished{Result: result}
	case b.Restarted && !hook.Idempotent():
		result.Outcome = writv1.HookOutcome_HOOK_OUTCOME_FAILED
		result.Output = "it may have run: the agent ended while it did, and it is not said to be idempotent; look what it has done, then resume"
		return Finished{Result: result}
	}
	entry := Entry{Key: key, Order: orderOf(task)}
	if err := a.journal.Save(entry); err != nil {
		a.logger.Error("the journal cannot be written; a hook is not started", "task", key, "error", err)
		return Refused{Entry: entry}
	}
	timeout := defaultTimeout
	if task.GetTimeout() != nil {
		timeout = max(task.GetTimeout().AsDuration(), 0)
	}
	stopping, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	limited, cancel := context.WithTimeout(withMark(stopping, a.journal.mark(key)), timeout)
	a.running[key] = stop
	a.logger.Info("running a hook", "task", key, "timeout", timeout, "restarted", b.Restarted)
	began := a.clock.Now()
	span := region.SpanID(key.Promotion, "hook", strconv.FormatUint(key.Step, 10), kindName(key.Kind))
	if traceparent := task.GetTraceparent(); a.cfg.Traced != nil && traceparent != "" {
		task = proto.CloneOf(task)
		task.Traceparent = region.WithSpan(traceparent, span) // what the hook does is a part of it
	}
	a.hooks.Go(func() {
		defer cancel()
		defer stop(nil)
		outcome, err := hook.Run(limited, task)
		result.Took = durationpb.New(a.clock.Now().Sub(began))
		if errors.Is(context.Cause(limited), errStopping) && err != nil {
			return // it stays begun
		}
		judge(result, outcome, err, context.Cause(limited), timeout)
		if a.cfg.Traced != nil && b.Task.GetTraceparent() != "" {
			a.cfg.Traced(Ran{Traceparent: b.Task.GetTraceparent(), Span: span, Task: b.Task, Result: result, Ended: a.clock.Wall()})
		}
		a.finished <- result
	})
	return nil
}

func (a *Agent) hook(key Key) Hook {
	if g := a.groups[key.Group]; g != nil {
		return g.Hooks[key.Kind]
	}
	return nil
}

// judge writes how a hook went into its result.
func judge(result *writv1.TaskResult, outcome Outcome, err, cause error, timeout time.Duration) {
	text := strings.TrimSpace(outcome.Output)
	say := func(line string) {
		if text != "" {
			text += "\n"
		}
		text += line
	}
	result.Position = outcome.Position
	result.Entries = clipEntries(outcome.Entries)
	switch {
	case err == nil:
		result.Outcome = writv1.HookOutcome_HOOK_OUTCOME_DONE
	case errors.Is(cause, errSuperseded):
		result.Outcome = writv1.HookOutcome_HOOK_OUTCOME_FAILED
		say(errSuperseded.Error())
	case errors.Is(cause, context.DeadlineExceeded):
		result.Outcome = writv1.HookOutcome_HOOK_OUTCOME_TIMED_OUT
		say(fmt.Sprintf("it took longer than %v: %v", timeout, err))
	default:
		result.Outcome = writv1.HookOutcome_HOOK_OUTCOME_FAILED
		say(err.Error())
	}
	result.Output = clip(text, maxOutputBytes)
}
