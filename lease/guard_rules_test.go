package lease

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

func TestRulesForOneResourceComeFirst(t *testing.T) {
	closes, opens := writv1.Isolation_ISOLATION_CLOSE, writv1.Isolation_ISOLATION_OPEN
	var r guardRules
	for _, rule := range []*writv1.GuardingRule{
		{Prefix: "orders", Isolation: opens}, {Prefix: "orders-db", Exact: true, Isolation: closes}, {Prefix: "orders-db", Isolation: opens},
	} {
		next, err := r.changed(SetGuarding{Rule: rule}, 1)
		if err != nil {
			t.Fatal(err)
		}
		r = guardRules{next}
	}
	if len(r.record.Rules) != 3 {
		t.Fatalf("the rules are %v", r.record.Rules)
	}
	for name, want := range map[Resource]writv1.Isolation{"orders-db": closes, "orders-db2": opens, "orders-db/a": opens, "orders": opens, "bills": 0} {
		if got := r.of(name).GetIsolation(); got != want {
			t.Errorf("%s goes by %v, want %v", name, got, want)
		}
	}
	next, err := r.changed(SetGuarding{Rule: &writv1.GuardingRule{Prefix: "orders-db", Exact: true}, Remove: true}, 1)
	if err != nil || (guardRules{next}).of("orders-db").GetIsolation() != opens {
		t.Errorf("without it: %v, %v", next, err)
	}
	if _, err := (guardRules{next}).changed(SetGuarding{Rule: &writv1.GuardingRule{Prefix: "orders-db", Exact: true}, Remove: true}, 1); err == nil {
		t.Error("a rule that is not there was removed")
	}
}

// What was closed all the time must not be said to be closed since now, and the other way round: a guard that goes by an older
// version may go on without contact for what was open then.
func TestClosedSinceIsWhatGuardsKnew(t *testing.T) {
	names := []Resource{"a", "ab", "ab/c", "abc", "b"}
	rapid.Check(t, func(t *rapid.T) {
		var r guardRules
		history := map[uint64]guardRules{0: r}
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			rule := &writv1.GuardingRule{
				Prefix: rapid.SampledFrom([]string{"", "a", "ab", "abc"}).Draw(t, "prefix"), Exact: rapid.Bool().Draw(t, "exact"),
				Isolation: rapid.SampledFrom([]writv1.Isolation{writv1.Isolation_ISOLATION_CLOSE, writv1.Isolation_ISOLATION_OPEN}).Draw(t, "isolation"),
			}
			next, err := r.changed(SetGuarding{Rule: rule, Remove: rapid.Bool().Draw(t, "remove")}, 1)
			if err != nil {
				continue
			}
			r = guardRules{next}
			history[next.Version] = r
		}
		for _, name := range names {
			now := r.of(name)
			if now.GetIsolation() != writv1.Isolation_ISOLATION_CLOSE {
				continue
			}
			for version, then := range history {
				if open := then.of(name).GetIsolation() != writv1.Isolation_ISOLATION_CLOSE; open && version >= now.ClosedSince {
					t.Fatalf("%s goes by %v, and by version %d was not closed: %v", name, now, version, then.record)
				}
			}
		}
		for version, then := range history {
			for _, pattern := range []string{"a", "ab*", "ab/*", "*"} {
				covered := slices.ContainsFunc(names, func(name Resource) bool {
					rule := r.of(name)
					return coversAny([]string{pattern}, name) && rule != nil && (rule.Isolation == writv1.Isolation_ISOLATION_OPEN || then.of(name).GetIsolation() == writv1.Isolation_ISOLATION_OPEN)
				})
				if covered && !r.opens([]string{pattern}, version) {
					t.Fatalf("a guard of %s with version %d may go on, and is not said to; rules %v, then %v", pattern, version, r.record, then.record)
				}
			}
		}
	})
}
