package agent

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

const (
	drain   = writv1.HookKind_HOOK_KIND_DRAIN
	promote = writv1.HookKind_HOOK_KIND_PROMOTE
	done    = writv1.HookOutcome_HOOK_OUTCOME_DONE
	failed  = writv1.HookOutcome_HOOK_OUTCOME_FAILED
)

// task is one of group g in epoch 1.
func task(promotion string, term int64, step uint64, kind writv1.HookKind) *writv1.Task {
	return &writv1.Task{Group: "g", Promotion: promotion, Epoch: 1, Term: term, Step: step, Kind: kind}
}

func began(e Effects) (steps []uint64) {
	for _, b := range e.Begin {
		steps = append(steps, b.Task.GetStep())
	}
	return steps
}

func expect[T comparable](t *testing.T, what string, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func TestALowerStepIsIgnored(t *testing.T) {
	for _, c := range []struct {
		name   string
		second *writv1.Task
		begins bool
	}{
		{"earlier term", task("p", 4, 9, promote), false},
		{"earlier step", task("p", 5, 2, promote), false},
		{"later step", task("p", 5, 4, promote), true},
		{"later term, earlier step", task("p", 6, 1, promote), true},
		{"another promotion of the same term", task("q", 5, 1, promote), true},
		{"another promotion of an earlier term", task("q", 4, 1, promote), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := NewMachine(nil)
			expect(t, "first", began(m.Step(Offered{[]*writv1.Task{task("p", 5, 3, drain)}})), 3)
			m.Step(Finished{&writv1.TaskResult{Group: "g", Outcome: done}})
			if got := len(m.Step(Offered{[]*writv1.Task{c.second}}).Begin) > 0; got != c.begins {
				t.Errorf("begins: %v, want %v", got, c.begins)
			}
		})
	}
}

func TestWhatHasRunIsAnsweredAndNotRunAgain(t *testing.T) {
	m := NewMachine(nil)
	m.Step(Offered{[]*writv1.Task{task("p", 5, 3, drain)}})
	e := m.Step(Finished{&writv1.TaskResult{Group: "g", Outcome: done, Output: "good"}})
	if len(e.Save) != 1 || len(e.Report) != 0 {
		t.Fatalf("it has to be saved before it is reported: %+v", e)
	}
	again := m.Step(Offered{[]*writv1.Task{task("p", 8, 3, drain)}})
	if len(again.Begin) != 0 || len(again.Report) != 1 || again.Report[0].GetOutput() != "good" {
		t.Fatalf("asked by another coordinator: %+v", again)
	}
	// Another kind of the same step is another task.
	expect(t, "another kind", began(m.Step(Offered{[]*writv1.Task{task("p", 8, 3, promote)}})), 3)
}

func TestANewerStepEndsAnOlderOne(t *testing.T) {
	m := NewMachine(nil)
	m.Step(Offered{[]*writv1.Task{task("p", 5, 3, drain)}})
	e := m.Step(Offered{[]*writv1.Task{task("p", 5, 4, promote)}})
	expect(t, "cancelled", e.Cancel, Key{"g", "p", 3, drain})
	expect(t, "begun before the older one has ended", began(e))
	if again := m.Step(Offered{[]*writv1.Task{task("p", 5, 4, promote)}}); len(again.Cancel)+len(again.Begin) != 0 {
		t.Fatalf("asked again: %+v", again)
	}
	e = m.Step(Finished{&writv1.TaskResult{Group: "g", Outcome: failed}})
	expect(t, "begun", began(e), 4)
	if e.Save[0].Key.Step != 3 {
		t.Errorf("saved: %v", e.Save[0].Key)
	}
}

func TestStepsThatAreWantedTogetherRunInOrder(t *testing.T) {
	m := NewMachine(nil)
	e := m.Step(Offered{[]*writv1.Task{task("p", 5, 4, promote), task("p", 5, 3, drain)}})
	expect(t, "begun", began(e), 3)
	e = m.Step(Offered{[]*writv1.Task{task("p", 5, 3, drain), task("p", 5, 4, promote)}})
	expect(t, "cancelled", e.Cancel)
	expect(t, "begun", began(m.Step(Finished{&writv1.TaskResult{Group: "g", Outcome: done}})), 4)
}

// The newer one comes while the older one runs, and both are wanted.
func TestAStepThatIsStillWantedIsNotEnded(t *testing.T) {
	m := NewMachine(nil)
	m.Step(Offered{[]*writv1.Task{task("p", 5, 3, drain)}})
	e := m.Step(Offered{[]*writv1.Task{task("p", 5, 3, drain), task("p", 5, 4, promote)}})
	expect(t, "cancelled", e.Cancel)
	expect(t, "begun", began(e))
	expect(t, "begun", began(m.Step(Finished{&writv1.TaskResult{Group: "g", Outcome: done}})), 4)
}

func TestGroupsDoNotWaitForEachOther(t *testing.T) {
	other := task("h-1.1", 5, 1, drain)
	other.Group = "h"
	m := NewMachine(nil)
	expect(t, "begun", began(m.Step(Offered{[]*writv1.Task{task("p", 5, 7, drain), other}})), 7, 1)
}

func TestARefusedEntryIsTriedAgain(t *testing.T) {
	m := NewMachine(nil)
	e := m.Step(Offered{[]*writv1.Task{task("p", 5, 3, drain)}})
	m.Step(Refused{Entry{Key: keyOf(e.Begin[0].Task)}})
	expect(t, "begun when it is offered again", began(m.Step(Offered{[]*writv1.Task{task("p", 5, 3, drain)}})), 3)

	e = m.Step(Finished{&writv1.TaskResult{Group: "g", Outcome: done}})
	m.Step(Refused{e.Save[0]})
	if again := m.Step(Offered{[]*writv1.Task{task("p", 5, 3, drain)}}); len(again.Report)+len(again.Begin) != 0 {
		t.Fatalf("an outcome that is not in the journal was told, or run again: %+v", again)
	}
	if retried := m.Step(Retry{}); len(retried.Save) != 1 {
		t.Fatalf("retried: %+v", retried)
	}
}

// An agent runs for years. What one group has done is not forgotten for another one.
func TestWhatIsLongOverIsForgotten(t *testing.T) {
	run := func(m *Machine, group string, term int64) {
		t.Helper()
		asked := task("p", term, 1, drain)
		asked.Group, asked.Promotion = group, fmt.Sprintf("%s-1.%d", group, term)
		expect(t, "begun", began(m.Step(Offered{[]*writv1.Task{asked}})), 1)
		m.Step(Finished{&writv1.TaskResult{Group: group, Outcome: done}})
	}
	m := NewMachine([]Entry{{Key: Key{"g", "g-1.1", 1, drain}, Order: Order{1, 1, "g-1.1", 1}}})
	run(m, "g", 1) // restarted: it is the newest again, and is known once
	run(m, "h", 1)
	for term := int64(2); term <= journalKept+1; term++ {
		run(m, "g", term)
	}
	if got := len(m.known); got != journalKept+1 {
		t.Errorf("%d tasks of both groups are known, want %d", got, journalKept+1)
	}
	for key, want := range map[Key]bool{
		{"g", "g-1.1", 1, drain}: false,
		{"g", "g-1.2", 1, drain}: true,
		{"h", "h-1.1", 1, drain}: true,
	} {
		if _, known := m.known[key]; known != want {
			t.Errorf("%v is known: %t", key, known)
		}
	}
}

func TestAStartGoesOnWithTheJournal(t *testing.T) {
	m := NewMachine([]Entry{
		{Key: Key{"g", "p", 2, drain}, Order: Order{1, 5, "p", 2}, Result: &writv1.TaskResult{Group: "g", Promotion: "p", Step: 2, Kind: drain, Outcome: done}},
		{Key: Key{"g", "p", 3, promote}, Order: Order{1, 5, "p", 3}},
	})
	if e := m.Step(Offered{[]*writv1.Task{task("p", 5, 1, drain)}}); len(e.Begin) != 0 {
		t.Errorf("an older step was begun: %+v", e)
	}
	if e := m.Step(Offered{[]*writv1.Task{task("p", 6, 2, drain)}}); len(e.Report) != 1 {
		t.Errorf("what has run was not answered: %+v", e)
	}
	e := m.Step(Offered{[]*writv1.Task{task("p", 6, 3, promote)}})
	if len(e.Begin) != 1 || !e.Begin[0].Restarted {
		t.Errorf("what had begun: %+v", e)
	}
}

// Whatever is offered in whatever order, one hook of a group runs at a time, no task is begun twice, and none after a newer one
// of its promotion and term.
func TestMachineProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewMachine(nil)
		begun := make(map[Key]bool)
		running := make(map[string]Key)
		newest := make(map[string]Order)
		take := func(e Effects) {
			for _, b := range e.Begin {
				k, o := keyOf(b.Task), orderOf(b.Task)
				if _, busy := running[k.Group]; busy {
					t.Fatalf("%v was begun while %v runs", k, running[k.Group])
				}
				if begun[k] {
					t.Fatalf("%v was begun twice", k)
				}
				last := newest[k.Group+k.Promotion]
				if c := o.compareTerms(newest[k.Group]); c < 0 || o.compareTerms(last) == 0 && o.Step < last.Step {
					t.Fatalf("%v was begun after %v and %v", o, newest[k.Group], last)
				}
				begun[k], running[k.Group], newest[k.Group], newest[k.Group+k.Promotion] = true, k, o, o
			}
			for _, k := range e.Cancel {
				if running[k.Group] != k {
					t.Fatalf("%v was cancelled and does not run", k)
				}
			}
			for _, r := range e.Report {
				if !begun[Key{r.GetGroup(), r.GetPromotion(), r.GetStep(), r.GetKind()}] {
					t.Fatalf("%v was reported and never ran", r)
				}
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			if group := rapid.SampledFrom([]string{"g", "h"}).Draw(t, "group"); rapid.Bool().Draw(t, "finish") {
				if k, ok := running[group]; ok {
					delete(running, group)
					take(m.Step(Finished{&writv1.TaskResult{Group: k.Group, Outcome: done}}))
				}
				continue
			}
			var tasks []*writv1.Task
			for range rapid.IntRange(0, 3).Draw(t, "tasks") {
				tasks = append(tasks, &writv1.Task{
					Group: rapid.SampledFrom([]string{"g", "h"}).Draw(t, "of"), Promotion: rapid.SampledFrom([]string{"p", "q"}).Draw(t, "promotion"),
					Epoch: rapid.Uint32Range(1, 2).Draw(t, "epoch"), Term: rapid.Int64Range(1, 3).Draw(t, "term"),
					Step: rapid.Uint64Range(1, 4).Draw(t, "step"), Kind: rapid.SampledFrom([]writv1.HookKind{drain, promote}).Draw(t, "kind"),
				})
			}
			take(m.Step(Offered{tasks}))
		}
	})
}
