//go:build mutants

package lease

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/sim/mutant"
)

// Each scenario tells what happens where its rule is applied. It must be told otherwise while the mutant is on.
var mutantScenarios = map[mutant.ID]func() []string{
	mutant.ValidityFromReply: func() []string { return believed(2 * time.Second) },
	mutant.NoDriftMargin:     func() []string { return believed(0) },
	mutant.WorkContinues: func() []string {
		k := mustKeeper()
		k.Step(keeperOrigin, KeeperGranted{ID: 1, Ref: Ref{Resource: "r", Token: 1<<48 | 1}, TTL: time.Second, SentAt: keeperOrigin})
		effects := k.Step(keeperOrigin.Add(time.Minute), KeeperTick{})
		return []string{fmt.Sprint(effects.Lost, effects.Beliefs)}
	},
	mutant.FreezeUnnoticed: func() []string {
		var dog clock.Watchdog
		dog.Observe(0, time.Unix(0, 0))
		return []string{fmt.Sprint(dog.Observe(clock.Instant(time.Second), time.Unix(60, 0)))}
	},
	mutant.ExpiryAtTakeover: func() []string {
		s := newMutantTable()
		s.table.Allow(50, 100)
		s.table.Load(s.moment(), Record{Resource: "r", Token: 1<<48 | 1, Held: true, Holder: Holder{Principal: "a", Instance: "1"}, RequestID: "A", TTL: 10 * time.Second}, nil)
		return s.after(8*time.Second).acquire("b", "B", 0).told
	},
	mutant.ReplayWithoutExtending: func() []string {
		return newMutantTable().acquire("a", "A", 0).after(8*time.Second).acquire("a", "A", 0).after(5*time.Second).acquire("b", "B", 0).told
	},
	mutant.RenewalRevives: func() []string {
		return newMutantTable().acquire("a", "A", 0).after(11 * time.Second).tick().ask(Renew{Caller: mutantCaller("a"), Refs: []Ref{{"r", 1<<48 | 1}}}).told
	},
	mutant.ReleaseWithoutToken: func() []string {
		s := newMutantTable().acquire("a", "A", 0).after(11*time.Second).acquire("b", "B", 0)
		return s.ask(Release{Caller: mutantCaller("a"), Ref: Ref{"r", 1<<48 | 1}}).told
	},
	mutant.CheckpointWithoutToken: func() []string {
		s := newMutantTable().acquire("a", "A", 0).after(11*time.Second).acquire("b", "B", 0)
		return s.ask(Checkpoint{Caller: mutantCaller("a"), Ref: Ref{"r", 1<<48 | 1}, Data: []byte("x")}).told
	},
	mutant.OutcomesForgotten: func() []string {
		s := newMutantTable().acquire("a", "A", 0).ask(Release{Caller: mutantCaller("a"), Ref: Ref{"r", 1<<48 | 1}})
		return s.acquire("a", "A", 0).told
	},
	mutant.PollKeepsOldIntake: func() []string {
		s := newMutantTable().acquire("a", "A", 0).acquire("b", "B", time.Minute).after(3*time.Second).acquire("b", "B", time.Minute)
		return s.ask(Release{Caller: mutantCaller("a"), Ref: Ref{"r", 1<<48 | 1}}).after(8*time.Second).acquire("c", "C", 0).told
	},
	mutant.TokenResetAfterDelete: func() []string {
		s := newMutantTable().acquire("a", "A", 0).ask(Release{Caller: mutantCaller("a"), Ref: Ref{"r", 1<<48 | 1}})
		return s.after(time.Hour).tick().acquire("b", "B", 0).told
	},
	mutant.EarlyExpiry: func() []string {
		return newMutantTable().acquire("a", "A", 0).after(9500*time.Millisecond).acquire("b", "B", 0).told
	},
}

func TestMutantsOfHolderAndTableShow(t *testing.T) {
	defer mutant.Use("")
	for id, scenario := range mutantScenarios {
		mutant.Use("")
		want := scenario()
		mutant.Use(id)
		if got := scenario(); slices.Equal(got, want) {
			t.Errorf("%s changes nothing: %q", id, got)
		}
	}
}

// believed tells until when a grant and a renewal are believed that took so long each.
func believed(took time.Duration) []string {
	k := mustKeeper()
	effects := k.Step(keeperOrigin.Add(took), KeeperGranted{ID: 1, Ref: Ref{Resource: "r", Token: 1<<48 | 1}, TTL: 10 * time.Second, SentAt: keeperOrigin})
	told := []string{fmt.Sprint(effects.Beliefs)}
	effects = k.Step(effects.Wake, KeeperTick{})
	r := effects.Renewals[0]
	return append(told, fmt.Sprint(k.Step(r.SentAt.Add(took), KeeperRenewed{Renewal: r}).Beliefs))
}

func mustKeeper() *Keeper {
	k, err := NewKeeper(KeeperConfig{Drift: clock.DefaultDrift()})
	if err != nil {
		panic(err)
	}
	return k
}

// mutantTable is a table and what it has answered.
type mutantTable struct {
	table *Table
	now   clock.Instant
	last  CallID
	told  []string
}

func newMutantTable() *mutantTable {
	s := &mutantTable{table: NewTable(TableConfig{}, 1), now: clock.Instant(time.Hour)}
	s.table.Allow(1, 100)
	return s
}

func mutantCaller(p Principal) Caller { return Caller{Principal: p, Instance: "1"} }

func (s *mutantTable) moment() Moment { return Moment{Now: s.now, Wall: time.Unix(0, int64(s.now))} }

func (s *mutantTable) after(d time.Duration) *mutantTable {
	s.now = s.now.Add(d)
	return s
}

func (s *mutantTable) acquire(p Principal, request string, wait time.Duration) *mutantTable {
	return s.ask(Acquire{Caller: mutantCaller(p), Resource: "r", RequestID: request, TTL: 10 * time.Second, Wait: wait})
}

func (s *mutantTable) ask(c Command) *mutantTable {
	s.last++
	return s.step(Request{ID: s.last, Intake: s.now, Command: c})
}

func (s *mutantTable) tick() *mutantTable {
	return s.step(Tick{MaxWrites: 100, MaxBytes: 1 << 20})
}

func (s *mutantTable) step(ev TableEvent) *mutantTable {
	for _, r := range s.table.Step(s.moment(), ev).Replies {
		text := fmt.Sprintf("%d: %v", r.ID, r.Value)
		switch v := r.Value.(type) {
		case *Grant:
			text = fmt.Sprintf("%d: %v", r.ID, v.Token)
		case RenewOutcome:
			text = fmt.Sprintf("%d: %d failures", r.ID, len(v.Failures))
		case *Waiting:
			text = fmt.Sprintf("%d: waits", r.ID)
		}
		if r.Err != nil {
			text = fmt.Sprintf("%d: %s", r.ID, r.Err.Reason)
		}
		s.told = append(s.told, text)
	}
	s.table.Dirty(func(Change) {})
	return s
}
