package lease_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

func TestPoliciesNameWhatIsWrong(t *testing.T) {
	rule := func(r lease.PolicyRule) lease.Policy {
		return lease.Policy{Rules: []lease.PolicyRule{{Prefix: "ok/"}, r}}
	}
	for name, c := range map[string]struct {
		policy lease.Policy
		says   string
	}{
		"a repeated prefix":     {rule(lease.PolicyRule{Prefix: "ok/"}), `INVALID: resources[1] (prefix "ok/") repeats a prefix; give each prefix one rule`},
		"a short TTL":           {rule(lease.PolicyRule{MinTTL: time.Millisecond}), `INVALID: resources[1] (prefix "").ttl_min is 1ms; use at least 250ms`},
		"a negative TTL":        {rule(lease.PolicyRule{MinTTL: -1}), `INVALID: resources[1] (prefix "").ttl_min is -1ns; use at least 250ms`},
		"a long TTL":            {rule(lease.PolicyRule{MaxTTL: 25 * time.Hour}), `INVALID: resources[1] (prefix "").ttl_max is 25h0m0s; use at most 24h0m0s`},
		"a long lower bound":    {rule(lease.PolicyRule{MinTTL: 25 * time.Hour}), `INVALID: resources[1] (prefix "").ttl_min is 25h0m0s; use at most 24h0m0s`},
		"bounds that cross":     {rule(lease.PolicyRule{MinTTL: time.Minute, MaxTTL: time.Second}), `INVALID: resources[1] (prefix "").ttl_min (1m0s) is above ttl_max (1s); swap or widen them`},
		"a negative upper":      {rule(lease.PolicyRule{MaxTTL: -1}), `INVALID: resources[1] (prefix "").ttl_min (250ms) is above ttl_max (-1ns); swap or widen them`},
		"a negative lock delay": {rule(lease.PolicyRule{LockDelay: -1}), `INVALID: resources[1] (prefix "").lock_delay is -1ns; use 0 to 1h0m0s`},
		"a long lock delay":     {rule(lease.PolicyRule{LockDelay: 2 * time.Hour}), `INVALID: resources[1] (prefix "").lock_delay is 2h0m0s; use 0 to 1h0m0s`},
		"a negative count":      {rule(lease.PolicyRule{MaxLeases: -1}), `INVALID: resources[1] (prefix "").max_leases is -1; use 0 for no limit, or a positive count`},
		"a nameless region":     {rule(lease.PolicyRule{Regions: []string{"eu", ""}}), `INVALID: resources[1] (prefix "").regions holds an empty name; name regions, or leave the list out to allow any`},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.policy.Validate()
			if err == nil || err.Error() != c.says || !errors.Is(err, lease.ErrInvalid) {
				t.Errorf("got  %v\nwant %s", err, c.says)
			}
		})
	}
	if err := (lease.Policy{}).Validate(); err != nil {
		t.Errorf("the zero policy: %v", err)
	}
}

// What the messages above call the bounds is allowed.
func TestPoliciesMayGoToTheirBounds(t *testing.T) {
	for _, r := range []lease.PolicyRule{
		{MinTTL: lease.MinTTL},
		{MaxTTL: lease.MaxTTL},
		{MinTTL: lease.MaxTTL},
		{MinTTL: time.Second, MaxTTL: time.Second},
		{LockDelay: lease.MaxLockDelay},
		{MaxLeases: 1},
	} {
		if err := (lease.Policy{Rules: []lease.PolicyRule{r}}).Validate(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func drawPolicy(t *rapid.T) lease.Policy {
	var p lease.Policy
	ttl := rapid.SampledFrom([]time.Duration{0, lease.MinTTL, time.Second, 90 * time.Second, time.Hour})
	for _, prefix := range rapid.SliceOfNDistinct(rapid.StringMatching(`[ab]{0,3}`), 0, 4, rapid.ID[string]).Draw(t, "prefixes") {
		r := lease.PolicyRule{Prefix: prefix, MinTTL: ttl.Draw(t, "min"), MaxTTL: ttl.Draw(t, "max")}
		if r.MinTTL > r.MaxTTL && r.MaxTTL != 0 {
			r.MinTTL, r.MaxTTL = r.MaxTTL, r.MinTTL
		}
		p.Rules = append(p.Rules, r)
	}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	return p
}

// No lease outlives what the policy calls the longest TTL: a rebuilt quorum waits that long. And somebody may hold one
// for so long, or it would wait in vain.
func TestLongestTTLIsTheLongestThatIsGranted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		longest := time.Duration(0)
		names := []lease.Resource{"x"}
		for _, a := range "ab" {
			for _, b := range "abx" {
				for _, c := range "abx" {
					names = append(names, lease.Resource([]rune{a, b, c}), lease.Resource([]rune{a, b, c, 'x'}))
				}
			}
		}
		for _, name := range names {
			for _, ttl := range []time.Duration{lease.DefaultMaxTTL, time.Second, 90 * time.Second, time.Hour, lease.MinTTL, lease.MaxTTL} {
				if granted := grantedTTL(p, name, ttl); granted > p.LongestTTL() {
					t.Fatalf("%s is granted for %v, the longest is %v in %+v", name, granted, p.LongestTTL(), p)
				} else {
					longest = max(longest, granted)
				}
			}
		}
		if longest != p.LongestTTL() {
			t.Fatalf("nothing is granted for %v, but at most %v in %+v", p.LongestTTL(), longest, p)
		}
	})
}

func grantedTTL(p lease.Policy, name lease.Resource, ttl time.Duration) time.Duration {
	table := lease.NewTable(lease.TableConfig{Policy: p}, 1)
	table.Allow(1, 10)
	m := lease.Moment{Now: clock.Instant(time.Hour)}
	out := table.Step(m, lease.Request{ID: 1, Intake: m.Now, Command: lease.Acquire{Resource: name, RequestID: "A", TTL: ttl}})
	if g, ok := out.Replies[0].Value.(*lease.Grant); ok {
		return g.TTL
	}
	return math.MinInt64
}
