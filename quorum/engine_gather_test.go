package quorum

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// loop is callers that ask again some time after they were answered, and a store that takes its time.
type loop struct {
	t      *testing.T
	engine *Engine
	now    clock.Instant
	back   func(caller int) time.Duration // from the answer to the next request
	commit time.Duration

	due     map[int]clock.Instant // when a caller asks next
	asked   map[lease.CallID]int
	tokens  map[int]lease.Grant
	last    lease.CallID
	doneAt  clock.Instant // when the round in flight is done
	round   uint64
	rounds  []int // how many requests each round had
	held    int   // rounds that waited
	longest time.Duration
	waiting map[lease.CallID]clock.Instant
}

func newLoop(t *testing.T, callers int, back func(int) time.Duration) *loop {
	d := serving(t, EngineConfig{})
	l := &loop{
		t: t, engine: d.engine, now: d.now, back: back, commit: 900 * time.Microsecond, doneAt: clock.Never,
		due: map[int]clock.Instant{}, asked: map[lease.CallID]int{}, tokens: map[int]lease.Grant{}, last: d.last,
		waiting: map[lease.CallID]clock.Instant{},
	}
	for i := range callers {
		l.due[i] = l.now.Add(time.Duration(i) * 37 * time.Microsecond)
	}
	return l
}

// run goes on until so many rounds are done.
func (l *loop) run(rounds int) {
	l.t.Helper()
	for len(l.rounds) < rounds {
		next := min(l.doneAt, l.engine.effects.Wake)
		for _, at := range l.due {
			next = min(next, at)
		}
		if next <= l.now && l.doneAt > l.now && l.engine.effects.Wake <= l.now {
			l.t.Fatal("the engine asks to be woken at once")
		}
		l.now = max(l.now, next)
		switch {
		case l.doneAt <= l.now:
			l.doneAt = clock.Never
			l.step(RoundDone{Round: l.round})
		case l.engine.effects.Wake <= l.now:
			l.step(Tick{})
		default:
			l.ask()
		}
	}
}

// ask hands in what is due.
func (l *loop) ask() {
	var batch Submits
	for i, at := range l.due {
		if at > l.now {
			continue
		}
		delete(l.due, i)
		l.last++
		l.asked[l.last], l.waiting[l.last] = i, l.now
		name := lease.Resource(fmt.Sprintf("r/%d", i))
		var command any = acquireOf("app", name, fmt.Sprint(l.last))
		if g, held := l.tokens[i]; held {
			delete(l.tokens, i)
			command = lease.Release{Caller: lease.Caller{Principal: "app", Instance: "1"}, Ref: lease.Ref{Resource: name, Token: g.Token}}
		}
		batch = append(batch, Submit{ID: l.last, Intake: l.now, Command: command})
	}
	l.step(batch)
}

func (l *loop) step(ev EngineEvent) {
	l.t.Helper()
	queued := len(l.engine.queue)
	if batch, ok := ev.(Submits); ok {
		queued += len(batch)
	}
	held := l.engine.gather.held
	e := l.engine.Step(lease.Moment{Now: l.now}, ev)
	if held && !l.engine.gather.held {
		l.held++
	}
	if e.Commit != nil || e.Confirm {
		l.round, l.doneAt = e.Round, l.now.Add(l.commit)
		l.rounds = append(l.rounds, queued-len(l.engine.queue))
		for id, since := range l.waiting {
			l.longest = max(l.longest, l.now.Sub(since))
			delete(l.waiting, id)
		}
	}
	for _, r := range e.Replies {
		if r.Err != nil {
			l.t.Fatal(r.Err)
		}
		i := l.asked[r.ID]
		if g, ok := r.Value.(*lease.Grant); ok {
			l.tokens[i] = *g
		}
		l.due[i] = l.now.Add(l.back(i))
	}
	if e.Witness != nil {
		l.engine.Step(lease.Moment{Now: l.now}, *e.Witness)
	}
}

func (l *loop) mean(last int) float64 {
	sum := 0
	for _, n := range l.rounds[len(l.rounds)-last:] {
		sum += n
	}
	return float64(sum) / float64(last)
}

// Callers that ask again at once share a round, whoever began when.
func TestRoundsGatherCallersThatLoop(t *testing.T) {
	for _, callers := range []int{2, 5, 16, 40} {
		l := newLoop(t, callers, func(i int) time.Duration { return 300*time.Microsecond + time.Duration(i)*5*time.Microsecond })
		l.run(400)
		if mean := l.mean(100); mean < 0.95*float64(callers) {
			t.Errorf("%d callers: rounds of %.1f", callers, mean)
		}
	}
}

// Who does not come back soon is not waited for, except now and then.
func TestRoundsDoNotWaitInVain(t *testing.T) {
	for name, c := range map[string]struct {
		back func(int) time.Duration
		most int // of 1000 rounds that wait
	}{
		"far away":   {func(i int) time.Duration { return 40*time.Millisecond + time.Duration(i)*time.Millisecond }, 50},
		"one by one": {func(i int) time.Duration { return time.Duration(1+i%7) * 1300 * time.Microsecond }, 300},
	} {
		l := newLoop(t, 12, c.back)
		l.run(1000)
		l.held = 0
		l.run(2000)
		if l.longest > l.commit+gatherMost+time.Microsecond {
			t.Errorf("%s: a request waited for %v", name, l.longest)
		}
		if l.held > c.most {
			t.Errorf("%s: %d of 1000 rounds waited", name, l.held)
		}
	}
}

// A caller that is alone is never kept waiting.
func TestLoneCallerIsDecidedAtOnce(t *testing.T) {
	l := newLoop(t, 1, func(int) time.Duration { return 200 * time.Microsecond })
	l.run(200)
	if l.longest != 0 {
		t.Errorf("it waited for %v", l.longest)
	}
}

// Many requests are enough, however many more there may be.
func TestLargeRoundsDoNotWait(t *testing.T) {
	g := gather{began: 0}
	g.done(clock.Instant(time.Millisecond), 500, gatherEnough)
	if g.holds(clock.Instant(time.Millisecond), gatherEnough) {
		t.Error("a full round waits")
	}
	if !g.holds(clock.Instant(time.Millisecond), gatherEnough-1) {
		t.Error("a round that is not full does not wait")
	}
	if g.holds(clock.Instant(2*time.Millisecond), gatherEnough-1) {
		t.Error("a round waits longer than the last one took")
	}
}

// Waiting pays if a full round has come together, or three quarters of those who were answered have come back.
func TestWhenWaitingHasPaid(t *testing.T) {
	for _, c := range []struct {
		answered, before, queued int
		paid                     bool
	}{
		{8, 0, 8, true}, {8, 0, 6, true}, {8, 0, 5, false}, {8, 0, 0, false}, {8, 2, 8, true}, {8, 2, 7, false},
		{500, 0, gatherEnough, true}, {500, 0, gatherEnough - 1, false},
	} {
		g := gather{answered: c.answered, queued: c.before, held: true, missed: 2}
		g.started(recoveryStart, c.queued)
		if g.missed == 0 != c.paid || g.rest > 0 == c.paid || g.held || g.began != recoveryStart {
			t.Errorf("%d have come to %d who waited, of %d: %+v", c.queued-c.before, c.before, c.answered, g)
		}
	}
	g := gather{answered: 8, missed: 2}
	if g.started(recoveryStart, 0); g.missed != 2 || g.rest != 0 {
		t.Errorf("a round that has not waited taught %+v", g)
	}
	var rests []int
	for range 7 {
		g = gather{answered: 8, held: true, missed: g.missed}
		g.started(recoveryStart, 0)
		rests = append(rests, g.rest)
	}
	if want := []int{8, 16, 32, 32, 32, 32, 32}; !slices.Equal(rests, want) {
		t.Errorf("waiting is tried again after %v rounds, want %v", rests, want)
	}
}

// After it has rested for its rounds, waiting is tried again.
func TestARestFromWaitingEnds(t *testing.T) {
	g := gather{rest: 2, began: recoveryStart}
	for range 2 {
		if g.done(recoveryStart.Add(time.Millisecond), 8, 0); g.holds(recoveryStart.Add(time.Millisecond), 1) {
			t.Fatal("a round waits that rests from it")
		}
	}
	if g.done(recoveryStart.Add(time.Millisecond), 8, 0); !g.holds(recoveryStart.Add(time.Millisecond), 1) {
		t.Error("no round waits any more")
	}
}
