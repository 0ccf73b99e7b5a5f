//writ:core

package lease

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// Bounds of what guards and their rules may ask for.
const (
	// DefaultGuardLease is G: for how long a guard may go on admitting after its last contact. It is long against an
	// election, so that a short outage of the quorum stops nobody.
	DefaultGuardLease = 30 * time.Second
	// MinGuardLease and MaxGuardLease bound G.
	MinGuardLease = time.Second
	MaxGuardLease = 10 * time.Minute
	// MaxGuardSlack bounds W.
	MaxGuardSlack = 30 * time.Second
	// MaxGuardRules bounds the rules.
	MaxGuardRules = 256
	// MaxGuardCovers bounds the patterns of one guard, of either kind.
	MaxGuardCovers = 256
	// MaxGuards bounds the guards of a quorum.
	MaxGuards = 4096
	// MaxDrain bounds how long a rule lets older writes finish.
	MaxDrain = 5 * time.Minute

	maxGuardName = 64
	// maxGuardPatternBytes bounds what a guard's record takes of a round.
	maxGuardPatternBytes = 64 << 10
)

// Covers says whether a pattern, a name or a prefix that ends in an asterisk, matches a resource.
func Covers(pattern string, name Resource) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(string(name), prefix)
	}
	return pattern == string(name)
}

func coversAny(patterns []string, name Resource) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return Covers(p, name) })
}

// guardRules finds the rule of a resource. The record in it is replaced, never changed.
type guardRules struct{ record *writv1.GuardingRecord }

// of answers nil for a resource that is not guarded.
func (r guardRules) of(name Resource) *writv1.GuardingRule {
	var best *writv1.GuardingRule
	for _, rule := range r.record.GetRules() {
		switch {
		case rule.Exact && rule.Prefix == string(name):
			return rule
		case rule.Exact:
		case strings.HasPrefix(string(name), rule.Prefix) && (best == nil || len(rule.Prefix) > len(best.Prefix)):
			best = rule
		}
	}
	return best
}

// ofAll is the rule that holds for every resource under a prefix which no other rule is for.
func (r guardRules) ofAll(prefix string) *writv1.GuardingRule {
	var best *writv1.GuardingRule
	for _, rule := range r.record.GetRules() {
		if !rule.Exact && strings.HasPrefix(prefix, rule.Prefix) && (best == nil || len(rule.Prefix) > len(best.Prefix)) {
			best = rule
		}
	}
	return best
}

// opens says whether a guard of those patterns, which goes by rules of that version, may go on without contact for one of them.
func (r guardRules) opens(patterns []string, version uint64) bool {
	return slices.ContainsFunc(r.record.GetRules(), func(rule *writv1.GuardingRule) bool {
		open := rule.Isolation == writv1.Isolation_ISOLATION_OPEN || version < rule.ClosedSince
		return open && slices.ContainsFunc(patterns, func(p string) bool {
			prefix, wild := strings.CutSuffix(p, "*")
			if rule.Exact && !wild {
				return prefix == rule.Prefix
			} else if rule.Exact {
				return strings.HasPrefix(rule.Prefix, prefix)
			}
			return strings.HasPrefix(prefix, rule.Prefix) || (wild && strings.HasPrefix(rule.Prefix, prefix))
		})
	})
}

// rulesOfEpoch is how many versions of the rules an epoch has.
const rulesOfEpoch = 1_000_000

// changed answers the rules with one put or removed. Their version is one that no epoch before can have given to others: a
// guard may go by rules of a history that a restore has undone.
func (r guardRules) changed(c SetGuarding, epoch fence.Epoch) (*writv1.GuardingRecord, *Error) {
	next := proto.CloneOf(r.record)
	if next == nil {
		next = &writv1.GuardingRecord{}
	}
	if c.Version != 0 && c.Version != next.Version {
		return nil, &Error{Reason: ReasonConflict, Message: fmt.Sprintf("the rules are of version %d by now, not %d", next.Version, c.Version),
			Fix: "read them again and decide anew"}
	}
	if err := checkGuardingRule(c.Rule, c.Remove); err != nil {
		return nil, err
	}
	next.Version = max(next.Version, uint64(epoch-1)*rulesOfEpoch) + 1
	at := slices.IndexFunc(next.Rules, func(rule *writv1.GuardingRule) bool { return sameScope(rule, c.Rule) })
	switch {
	case c.Remove && at < 0:
		return nil, &Error{Reason: ReasonNotFound, Message: fmt.Sprintf("there is no rule for %s", scopeOf(c.Rule))}
	case c.Remove:
		next.Rules = slices.Delete(next.Rules, at, at+1)
		return r.since(next), nil
	case at < 0 && len(next.Rules) >= MaxGuardRules:
		return nil, Errorf(ReasonLimit, "there are %d rules already", len(next.Rules))
	case at < 0:
		next.Rules = append(next.Rules, nil)
		at = len(next.Rules) - 1
	}
	next.Rules[at] = proto.CloneOf(c.Rule)
	slices.SortStableFunc(next.Rules, func(a, b *writv1.GuardingRule) int {
		switch order := strings.Compare(a.Prefix, b.Prefix); {
		case order != 0 || a.Exact == b.Exact:
			return order
		case b.Exact:
			return -1
		}
		return 1
	})
	return r.since(next), nil
}

// sameScope says whether two rules are for the same resources.
func sameScope(a, b *writv1.GuardingRule) bool {
	return a.GetPrefix() == b.GetPrefix() && a.GetExact() == b.GetExact()
}

// scopeOf says for people which resources a rule is for.
func scopeOf(rule *writv1.GuardingRule) string {
	if rule.GetExact() {
		return fmt.Sprintf("the resource %q alone", rule.GetPrefix())
	}
	return fmt.Sprintf("the prefix %q", rule.GetPrefix())
}

// since notes for every rule that closes since which version all resources under it have been closed: a guard that goes by an
// older version may go on without contact for some of them.
func (r guardRules) since(next *writv1.GuardingRecord) *writv1.GuardingRecord {
	for _, rule := range next.Rules {
		before := r.ofAll(rule.Prefix)
		if rule.Exact {
			before = r.of(Resource(rule.Prefix))
		}
		switch {
		case rule.Isolation != writv1.Isolation_ISOLATION_CLOSE:
			rule.ClosedSince = 0
		case before.GetIsolation() == writv1.Isolation_ISOLATION_CLOSE && (rule.Exact || r.sameBelow(next, rule.Prefix)):
			rule.ClosedSince = before.ClosedSince
		default:
			rule.ClosedSince = next.Version
		}
	}
	return next
}

// sameBelow says whether the rules for some of the resources under a prefix are what they were.
func (r guardRules) sameBelow(next *writv1.GuardingRecord, prefix string) bool {
	below := func(rec *writv1.GuardingRecord) []*writv1.GuardingRule {
		var rules []*writv1.GuardingRule
		for _, rule := range rec.GetRules() {
			if (rule.Exact || len(rule.Prefix) > len(prefix)) && strings.HasPrefix(rule.Prefix, prefix) {
				rules = append(rules, rule)
			}
		}
		return rules
	}
	return slices.EqualFunc(below(r.record), below(next), func(a, b *writv1.GuardingRule) bool {
		return sameScope(a, b) && a.Isolation == b.Isolation
	})
}

func checkGuardingRule(rule *writv1.GuardingRule, remove bool) *Error {
	if rule == nil {
		return Invalid("rule", "is missing", "say which prefix, and what its guards do without contact")
	}
	if err := checkText("rule.prefix", rule.Prefix, MaxResourceBytes); err != nil || remove {
		return err
	}
	open := rule.Isolation == writv1.Isolation_ISOLATION_OPEN
	switch {
	case rule.Isolation != writv1.Isolation_ISOLATION_CLOSE && !open:
		return Invalid("rule.isolation", fmt.Sprintf("is %v", rule.Isolation), "use ISOLATION_CLOSE or ISOLATION_OPEN")
	case rule.AllowUnproven && !open:
		return Invalid("rule.allow_unproven", "is set with ISOLATION_CLOSE", "leave it out: a guard that closes lapses, which is a proof")
	case rule.DrainMs < 0 || rule.DrainMs > MaxDrain.Milliseconds():
		return Invalid("rule.drain_ms", fmt.Sprintf("is %d", rule.DrainMs), fmt.Sprintf("use 0 for 10 seconds, or 1 to %d", MaxDrain.Milliseconds()))
	}
	return nil
}
