//writ:core

package lease

import (
	"fmt"
	"strings"
	"time"
)

// Bounds of TTLs.
const (
	// MinTTL is the smallest TTL that any policy may allow.
	MinTTL = 250 * time.Millisecond
	// DefaultMaxTTL is the largest TTL where the policy names none. A rebuilt quorum waits as long as the largest TTL
	// that may have been granted before it grants anew, so that a large bound costs time after a disaster.
	DefaultMaxTTL = time.Minute
	// MaxTTL is the largest TTL that any policy may allow.
	MaxTTL = 24 * time.Hour
	// MaxLockDelay bounds PolicyRule.LockDelay.
	MaxLockDelay = time.Hour
)

// Policy says how the resources under a prefix may be leased. The rule with the longest matching prefix applies alone.
// The zero Policy allows TTLs from MinTTL to DefaultMaxTTL and nothing else is restricted.
type Policy struct {
	Rules []PolicyRule
}

// PolicyRule applies to the resources whose names start with Prefix.
type PolicyRule struct {
	Prefix string
	// MinTTL and MaxTTL bound the TTL; zero means MinTTL and DefaultMaxTTL.
	MinTTL, MaxTTL time.Duration
	// LockDelay is how long a resource stays free after its lease has expired (not: been released), for storage that
	// nothing guards: requests of the old holder that are under way can arrive meanwhile.
	LockDelay time.Duration
	// MaxLeases is how many resources under Prefix may be held at a time by this rule; 0: no limit.
	MaxLeases int
	// Regions lists the regions that holders may be in; empty: any.
	Regions []string
}

// Validate checks bounds and relations, and names the rule and field at fault.
func (p Policy) Validate() error {
	seen := make(map[string]bool, len(p.Rules))
	for i, r := range p.Rules {
		at := fmt.Sprintf("resources[%d] (prefix %q)", i, r.Prefix)
		if seen[r.Prefix] {
			return Invalid(at, "repeats a prefix", "give each prefix one rule")
		}
		seen[r.Prefix] = true
		if err := r.validate(at); err != nil {
			return err
		}
	}
	return nil
}

func (r PolicyRule) validate(at string) error {
	minTTL, maxTTL := r.bounds()
	switch {
	case r.MinTTL != 0 && r.MinTTL < MinTTL:
		return Invalid(at+".ttl_min", fmt.Sprintf("is %v", r.MinTTL), fmt.Sprintf("use at least %v", MinTTL))
	case minTTL > MaxTTL:
		return Invalid(at+".ttl_min", fmt.Sprintf("is %v", minTTL), fmt.Sprintf("use at most %v", MaxTTL))
	case maxTTL > MaxTTL:
		return Invalid(at+".ttl_max", fmt.Sprintf("is %v", r.MaxTTL), fmt.Sprintf("use at most %v", MaxTTL))
	case minTTL > maxTTL:
		return Invalid(at+".ttl_min", fmt.Sprintf("(%v) is above ttl_max (%v)", minTTL, maxTTL), "swap or widen them")
	case r.LockDelay < 0 || r.LockDelay > MaxLockDelay:
		return Invalid(at+".lock_delay", fmt.Sprintf("is %v", r.LockDelay), fmt.Sprintf("use 0 to %v", MaxLockDelay))
	case r.MaxLeases < 0:
		return Invalid(at+".max_leases", fmt.Sprintf("is %d", r.MaxLeases), "use 0 for no limit, or a positive count")
	}
	for _, region := range r.Regions {
		if region == "" {
			return Invalid(at+".regions", "holds an empty name", "name regions, or leave the list out to allow any")
		}
	}
	return nil
}

func (r PolicyRule) bounds() (minTTL, maxTTL time.Duration) {
	minTTL, maxTTL = r.MinTTL, r.MaxTTL
	if minTTL == 0 {
		minTTL = MinTTL
	}
	if maxTTL == 0 {
		maxTTL = max(DefaultMaxTTL, minTTL)
	}
	return minTTL, maxTTL
}

// LongestTTL is the largest TTL that the policy lets anybody hold.
func (p Policy) LongestTTL() time.Duration {
	longest := DefaultMaxTTL
	for _, r := range p.Rules {
		if r.Prefix == "" {
			_, longest = r.bounds()
		}
	}
	for _, r := range p.Rules {
		_, maxTTL := r.bounds()
		longest = max(longest, maxTTL)
	}
	return longest
}

// ruleFor answers the index of the rule with the longest matching prefix, or -1.
func (p Policy) ruleFor(name Resource) int {
	best := -1
	for i, r := range p.Rules {
		if strings.HasPrefix(string(name), r.Prefix) && (best < 0 || len(r.Prefix) > len(p.Rules[best].Prefix)) {
			best = i
		}
	}
	return best
}
