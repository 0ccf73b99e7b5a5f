package agent

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/lease/clock/bubble"
)

// fakeQuorum answers polls as a coordinator does: it offers what it wants done until there is a result.
type fakeQuorum struct {
	mu      sync.Mutex
	away    bool
	wanted  []*writv1.Task
	told    map[Key]bool
	primary string
	results []*writv1.TaskResult
	reports []*writv1.GroupReport
	polls   int
	changed chan struct{}
	far     time.Duration // how long a call takes to arrive
}

func newFakeQuorum() *fakeQuorum {
	return &fakeQuorum{changed: make(chan struct{}), told: make(map[Key]bool)}
}

func (q *fakeQuorum) set(do func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	do()
	close(q.changed)
	q.changed = make(chan struct{})
}

func (q *fakeQuorum) AgentPoll(ctx context.Context, ask *writv1.AgentPollRequest) (*writv1.AgentPollResponse, error) {
	var polls int
	away := false
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(q.far):
	}
	q.set(func() {
		q.polls++
		polls = q.polls
		if away = q.away; away {
			return
		}
		q.reports = ask.GetReports()
		for _, r := range ask.GetResults() {
			q.results = append(q.results, r)
			for i, w := range q.wanted {
				if w.GetPromotion() == r.GetPromotion() && w.GetStep() == r.GetStep() && w.GetKind() == r.GetKind() {
					q.wanted = append(q.wanted[:i:i], q.wanted[i+1:]...)
					break
				}
			}
		}
	})
	if away {
		return nil, errors.New("no route to host")
	}
	timer := time.NewTimer(ask.GetWait().AsDuration())
	defer timer.Stop()
	for {
		q.mu.Lock()
		news := q.polls != polls
		for _, w := range q.wanted {
			news = news || !q.told[keyOf(w)]
			q.told[keyOf(w)] = true
		}
		answer := &writv1.AgentPollResponse{
			Tasks: append([]*writv1.Task(nil), q.wanted...), Interval: durationpb.New(time.Second),
			Groups: []*writv1.AgentGroup{{Group: "g", Primary: q.primary}},
		}
		changed := q.changed
		q.mu.Unlock()
		if news {
			return answer, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		case <-timer.C:
			return answer, nil
		}
	}
}

// funcHook is a hook of a test.
type funcHook struct {
	run        func(ctx context.Context, t *writv1.Task) (Outcome, error)
	idempotent bool
}

func (h funcHook) Run(ctx context.Context, t *writv1.Task) (Outcome, error) { return h.run(ctx, t) }
func (h funcHook) Idempotent() bool                                         { return h.idempotent }

type funcProbe func(context.Context) (Sight, error)

func (f funcProbe) Look(ctx context.Context) (Sight, error) { return f(ctx) }

// rig is an agent in a bubble.
type rig struct {
	*testing.T
	quorum *fakeQuorum
	stop   func()
	agent  *Agent
}

// startRig starts an agent with group g, and with others; its data directory outlives it.
func startRig(t *testing.T, quorum *fakeQuorum, dir string, g Group, others ...Group) *rig {
	t.Helper()
	g.Name = "g"
	a, err := New(Config{Name: "agent-eu", Region: "eu", DataDir: dir, Quorum: quorum, Groups: append([]Group{g}, others...), Clock: clock.Monotonic()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	return &rig{T: t, quorum: quorum, agent: a, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})}
}

// results answers what the quorum was told, by step: two polls may be on their way at once, and either may be the first to come.
func (r *rig) results() []*writv1.TaskResult {
	synctest.Wait()
	r.quorum.mu.Lock()
	defer r.quorum.mu.Unlock()
	results := slices.Clone(r.quorum.results)
	slices.SortStableFunc(results, func(a, b *writv1.TaskResult) int { return cmp.Compare(a.GetStep(), b.GetStep()) })
	return results
}

func (r *rig) only() *writv1.TaskResult {
	r.Helper()
	results := r.results()
	if len(results) != 1 {
		r.Fatalf("%d results: %v", len(results), results)
	}
	return results[0]
}

func (r *rig) want(tasks ...*writv1.Task) {
	r.quorum.set(func() { r.quorum.wanted = tasks })
	synctest.Wait()
}

func hooks(kind writv1.HookKind, run func(ctx context.Context, t *writv1.Task) (Outcome, error)) Group {
	return Group{Hooks: map[writv1.HookKind]Hook{kind: funcHook{run: run}}}
}

func TestATaskIsRunAndToldAtOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		runs := 0
		r := startRig(t, newFakeQuorum(), t.TempDir(), hooks(drain, func(context.Context, *writv1.Task) (Outcome, error) {
			runs++
			return Outcome{Output: "drained", Position: &writv1.Position{Log: "x/1", Bytes: 7}}, nil
		}))
		defer r.stop()
		synctest.Wait()
		began := time.Now()
		r.want(task("g-1.1", 5, 1, drain))
		result := r.only()
		if result.GetOutcome() != done || result.GetOutput() != "drained" || result.GetPosition().GetBytes() != 7 {
			t.Errorf("result: %v", result)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		// Another coordinator asks for the same.
		r.want(task("g-1.1", 6, 1, drain))
		r.quorum.set(func() { r.quorum.told = map[Key]bool{} })
		if got := r.results(); len(got) != 2 || got[1].GetOutput() != "drained" || runs != 1 {
			t.Errorf("asked twice: ran %d times, results %v", runs, got)
		}
	})
}

func TestATaskOfAnUnknownKindIsAnswered(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := startRig(t, newFakeQuorum(), t.TempDir(), Group{})
		defer r.stop()
		r.want(task("g-1.1", 5, 1, promote))
		if got := r.only(); got.GetOutcome() != writv1.HookOutcome_HOOK_OUTCOME_NONE {
			t.Errorf("result: %v", got)
		}
	})
}

func TestAHookThatHangsTimesOut(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := startRig(t, newFakeQuorum(), t.TempDir(), hooks(drain, func(ctx context.Context, _ *writv1.Task) (Outcome, error) {
			<-ctx.Done()
			return Outcome{Output: "still draining"}, ctx.Err()
		}))
		defer r.stop()
		hanging := task("g-1.1", 5, 1, drain)
		hanging.Timeout = durationpb.New(7 * time.Second)
		r.want(hanging)
		if got := r.results(); len(got) != 0 {
			t.Fatalf("too early: %v", got)
		}
		time.Sleep(7 * time.Second)
		got := r.only()
		if got.GetOutcome() != writv1.HookOutcome_HOOK_OUTCOME_TIMED_OUT || !strings.Contains(got.GetOutput(), "still draining") || got.GetTook().AsDuration() != 7*time.Second {
			t.Errorf("result: %v", got)
		}
	})
}

func TestANewerStepEndsARunningHook(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := startRig(t, newFakeQuorum(), t.TempDir(), hooks(drain, func(ctx context.Context, task *writv1.Task) (Outcome, error) {
			if task.GetStep() == 1 {
				<-ctx.Done()
				return Outcome{}, ctx.Err()
			}
			return Outcome{}, nil
		}))
		defer r.stop()
		r.want(task("g-1.1", 5, 1, drain))
		r.want(task("g-1.1", 5, 2, drain))
		time.Sleep(time.Second)
		got := r.results()
		if len(got) != 2 || got[0].GetOutcome() != failed || !strings.Contains(got[0].GetOutput(), "a newer step") || got[1].GetOutcome() != done {
			t.Errorf("results: %v", got)
		}
	})
}

func TestTheQuorumGoesAwayAndComesBack(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := startRig(t, newFakeQuorum(), t.TempDir(), hooks(drain, func(context.Context, *writv1.Task) (Outcome, error) {
			<-release
			return Outcome{Output: "in spite of all"}, nil
		}))
		defer r.stop()
		r.want(task("g-1.1", 5, 1, drain))
		r.quorum.set(func() { r.quorum.away = true })
		time.Sleep(time.Minute)
		close(release)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		r.quorum.mu.Lock()
		tries := r.quorum.polls
		r.quorum.mu.Unlock()
		if tries > 11*60*2 || tries < 11*60/4 {
			t.Errorf("%d polls in eleven minutes without an answer", tries)
		}
		r.quorum.set(func() { r.quorum.away = false })
		time.Sleep(2*pollMostPause + time.Second)
		if got := r.only(); got.GetOutput() != "in spite of all" {
			t.Errorf("result: %v", got)
		}
	})
}

func TestPollsArePaced(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := startRig(t, newFakeQuorum(), t.TempDir(), hooks(drain, func(context.Context, *writv1.Task) (Outcome, error) {
			<-release
			return Outcome{}, nil
		}))
		defer r.stop()
		defer close(release)
		long := task("g-1.1", 5, 1, drain)
		long.Timeout = durationpb.New(time.Hour)
		r.want(long)
		r.quorum.mu.Lock()
		before := r.quorum.polls
		r.quorum.mu.Unlock()
		time.Sleep(100 * time.Second)
		r.quorum.mu.Lock()
		defer r.quorum.mu.Unlock()
		if polls := r.quorum.polls - before; polls < 90 || polls > 410 {
			t.Errorf("%d polls in 100 intervals", polls)
		}
	})
}

// Results that come while two polls carry others must not end those, which would give back what they carry: one round trip would
// never be over.
func TestResultsThatComeTogetherAreAllTold(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const many = 5
		var groups []Group
		var tasks []*writv1.Task
		quorum := newFakeQuorum()
		quorum.far = 50 * time.Millisecond
		for i := range many {
			g := hooks(drain, func(context.Context, *writv1.Task) (Outcome, error) {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				return Outcome{}, nil
			})
			g.Name = string(rune('a' + i))
			groups = append(groups, g)
			task := task(g.Name+"-1.1", 5, 1, drain)
			task.Group = g.Name
			tasks = append(tasks, task)
		}
		r := startRig(t, quorum, t.TempDir(), Group{}, groups...)
		defer r.stop()
		r.want(tasks...)
		time.Sleep(time.Second)
		if got := r.results(); len(got) != many {
			t.Errorf("%d of %d results in a second: %v", len(got), many, got)
		}
		quorum.mu.Lock()
		defer quorum.mu.Unlock()
		if quorum.polls > 3*many {
			t.Errorf("%d polls for %d results", quorum.polls, many)
		}
	})
}

func TestARestartInTheMiddleOfAHook(t *testing.T) {
	for _, idempotent := range []bool{true, false} {
		bubble.Test(t, func(t *testing.T) {
			dir, runs := t.TempDir(), 0
			hang := true
			g := Group{Hooks: map[writv1.HookKind]Hook{drain: funcHook{idempotent: idempotent, run: func(ctx context.Context, _ *writv1.Task) (Outcome, error) {
				if runs++; hang {
					<-ctx.Done()
					return Outcome{}, ctx.Err()
				}
				return Outcome{}, nil
			}}}}
			quorum := newFakeQuorum()
			r := startRig(t, quorum, dir, g)
			r.want(task("g-1.1", 5, 1, drain))
			r.stop()
			if runs != 1 {
				t.Fatalf("ran %d times", runs)
			}
			hang = false
			quorum.told = map[Key]bool{}
			r = startRig(t, quorum, dir, g)
			defer r.stop()
			got := r.only()
			if idempotent && (got.GetOutcome() != done || runs != 2) {
				t.Errorf("an idempotent hook: %v after %d runs", got, runs)
			}
			if !idempotent && (got.GetOutcome() != failed || !strings.Contains(got.GetOutput(), "may have run") || runs != 1) {
				t.Errorf("another hook: %v after %d runs", got, runs)
			}
		})
	}
}

func TestWhatAProbeSeesIsReported(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var now atomic.Pointer[func() (Sight, error)]
		see := func(s Sight, err error) { now.Store(new(func() (Sight, error) { return s, err })) }
		see(Sight{}, nil)
		r := startRig(t, newFakeQuorum(), t.TempDir(), Group{Digest: func() (string, error) { return "abc", nil }, Probe: funcProbe(func(context.Context) (Sight, error) { return (*now.Load())() })})
		defer r.stop()
		report := func() *writv1.GroupReport {
			time.Sleep(3 * time.Second)
			synctest.Wait()
			r.quorum.mu.Lock()
			defer r.quorum.mu.Unlock()
			return r.quorum.reports[0]
		}
		lag := 3 * time.Second
		see(Sight{Position: &writv1.Position{Log: "l", Bytes: 9}, Lag: &lag}, nil)
		if got := report(); got.GetHealth() != writv1.Health_HEALTH_OK || got.GetPosition().GetBytes() != 9 || got.GetLag().AsDuration() != lag || got.GetConfigDigest() != "abc" {
			t.Errorf("report: %v", got)
		}
		see(Sight{Position: &writv1.Position{}}, errors.New("exec: no such program"))
		if got := report(); got.GetHealth() != writv1.Health_HEALTH_UNKNOWN || got.GetPosition() != nil {
			t.Errorf("a probe that cannot be run: %v", got)
		}
		see(Sight{}, &Failure{Detail: "connection refused"})
		time.Sleep(2 * time.Second)
		if got := report(); got.GetHealth() != writv1.Health_HEALTH_FAILED || got.GetDetail() != "connection refused" {
			t.Errorf("a failure: %v", got)
		}
	})
}

// The configuration is what it is now, and not what it was when the agent started.
func TestTheConfigurationIsLookedAtAgain(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var now atomic.Pointer[func() (string, error)]
		see := func(do func() (string, error)) { now.Store(&do) }
		see(func() (string, error) { return "abc", nil })
		r := startRig(t, newFakeQuorum(), t.TempDir(), Group{Digest: func() (string, error) { return (*now.Load())() }})
		defer r.stop()
		held := make(chan struct{})
		defer close(held)
		for _, c := range []struct {
			see  func() (string, error)
			want string
		}{
			{func() (string, error) { return "abc", nil }, "abc"},
			{func() (string, error) { return "def", nil }, "def"},
			{func() (string, error) { return "", errors.New("open orders.yaml: " + strings.Repeat("long", 1000)) }, "unknown in eu, "},
			{func() (string, error) { return "abc", nil }, "abc"},
			{func() (string, error) { <-held; return "abc", nil }, "unknown in eu, not read for "},
		} {
			see(c.see)
			time.Sleep(30 * time.Second)
			synctest.Wait()
			r.quorum.mu.Lock()
			got := r.quorum.reports[0].GetConfigDigest()
			r.quorum.mu.Unlock()
			if !strings.HasPrefix(got, c.want) || len(got) > 256 {
				t.Errorf("the configuration is %q, want %q", got, c.want)
			}
		}
	})
}

func TestOneFailureIsNotADeath(t *testing.T) {
	h := health{threshold: 3}
	down := &Failure{Detail: "refused"}
	for i, want := range []writv1.Health{writv1.Health_HEALTH_DEGRADED, writv1.Health_HEALTH_DEGRADED, writv1.Health_HEALTH_FAILED, writv1.Health_HEALTH_FAILED} {
		if got, _ := h.judge(Sight{}, down, down); got != want {
			t.Errorf("failure %d: %v, want %v", i+1, got, want)
		}
	}
	if got, _ := h.judge(Sight{}, nil, errors.New("no program")); got != writv1.Health_HEALTH_UNKNOWN {
		t.Errorf("a probe that cannot be run: %v", got)
	}
	if got, _ := h.judge(Sight{}, nil, nil); got != writv1.Health_HEALTH_OK || h.failures != 0 {
		t.Errorf("after a good one: %v, %d failures", got, h.failures)
	}
}

// A probe that does not come back must not leave its last good news standing.
func TestAProbeThatHangsMakesTheHealthUnknown(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		looks := 0
		r := startRig(t, newFakeQuorum(), t.TempDir(), Group{Probe: funcProbe(func(context.Context) (Sight, error) {
			if looks++; looks > 1 {
				<-release // it does not even heed its context
			}
			return Sight{}, nil
		})})
		defer r.stop()
		defer close(release)
		time.Sleep(time.Minute)
		synctest.Wait()
		r.quorum.mu.Lock()
		defer r.quorum.mu.Unlock()
		if got := r.quorum.reports[0]; got.GetHealth() != writv1.Health_HEALTH_UNKNOWN || !strings.Contains(got.GetDetail(), "has not come back") {
			t.Errorf("report: %v", got)
		}
	})
}

// The region that has the tenure must not be made to follow the other, whatever a task says.
func TestReinstatingThePrimaryIsNotFollowing(t *testing.T) {
	for primary, want := range map[string]string{"eu": "us to eu", "us": "eu to us"} {
		bubble.Test(t, func(t *testing.T) {
			quorum := newFakeQuorum()
			quorum.primary = primary
			reinstate := writv1.HookKind_HOOK_KIND_REINSTATE
			r := startRig(t, quorum, t.TempDir(), hooks(reinstate, func(_ context.Context, task *writv1.Task) (Outcome, error) {
				return Outcome{Output: task.GetFrom() + " to " + task.GetTo()}, nil
			}))
			defer r.stop()
			back := task("g-1.1", 5, 1, reinstate)
			back.From, back.To = "eu", "us"
			r.want(back)
			if got := r.only().GetOutput(); got != want {
				t.Errorf("primary %s: %s, want %s", primary, got, want)
			}
		})
	}
}
