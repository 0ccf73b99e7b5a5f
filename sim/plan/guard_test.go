package plan

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const guarded = `writ-sim 1
guard-lease 8s
storage plain
node n1 region eu
rule r open unproven drain 2s
rule q
guard g1 region eu covers r*,q1
guard g2 region eu ppm -5 covers r1 slack 1s park 2s as g1 close
guard g3 region eu covers r1 storage
client c1 region eu resources r1,r2,q2,x
at 1s for 1s wipe g1
at 2s for 1s stop g1 g2
at 3s attest g2
at 4s open r q
at 5s close r
at 6s force-now r1
at 7s for 1s full-disk g1
at 8s unprotect q
at 9s protect q
at 10s forge g1 amount 5
at 11s probe g1 g2
`

func TestParseGuards(t *testing.T) {
	p, err := Parse("guarded", []byte(guarded))
	if err != nil {
		t.Fatal(err)
	}
	if p.GuardLease != 8*time.Second || p.Storage != Plain || !reflect.DeepEqual(p.Rules, []Rule{{Prefix: "r", Open: true, Unproven: true, Drain: 2 * time.Second}, {Prefix: "q"}}) {
		t.Errorf("parsed\n%s", p)
	}
	want := []Guard{
		{Name: "g1", Region: "eu", Covers: []string{"r*", "q1"}, Slack: 2 * time.Second, Park: 10 * time.Second},
		{Name: "g2", Region: "eu", PPM: -5, Covers: []string{"r1"}, Slack: time.Second, Park: 2 * time.Second, As: "g1", Close: true},
		{Name: "g3", Region: "eu", Covers: []string{"r1"}, Slack: 2 * time.Second, Park: 10 * time.Second, Storage: true},
	}
	if !reflect.DeepEqual(p.Guards, want) {
		t.Errorf("guards %+v, want %+v", p.Guards, want)
	}
	roundTrip(t, p)
	for resource, want := range map[string]string{"r1": "true g1 g2 g3", "r2": "true g1", "q2": "true ", "x": "false "} {
		ruled, through := p.Guarded(resource)
		got := map[bool]string{true: "true ", false: "false "}[ruled] + strings.Join(through, " ")
		if got != want {
			t.Errorf("%s: %s, want %s", resource, got, want)
		}
	}
}

func TestMistakesAboutGuards(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"storage plain", "storage fast", "3:9: storage is \"fast\"; use plain, or leave it out for a storage that compares tokens"},
		{"guard-lease 8s", "guard-lease 1ms", "2:13: guard-lease is 1ms; use 1s to 10m"},
		{"rule q", "rule r", "6:6: rule r is there twice; give each prefix one rule"},
		{"covers r*,q1", "covers r*1", "7:27: covers of guard g1 hold \"r*1\"; name resources, or prefixes that end in an asterisk, such as r1,q*"},
		{"rule q", "rule q unproven", "6:8: rule q is unproven, but guards that close are proved by their silence; add open, or leave unproven out"},
		{"forge g1 amount 5", "forge g1", "20:1: amount of forge at 10s is 0; use 1 to 1000"},
		{"slack 1s", "slack 31s", "8:43: slack of guard g2 is 31s; use 100ms to 30s"},
		{"as g1", "as c1", "8:57: as of guard g2 is \"c1\"; use the name of a guard, or leave it out"},
		{"stop g1 g2", "stop n1", "12:19: stop at 2s names \"n1\", which is no guard; name a guard"},
		{"wipe g1", "wipe c1", "11:19: wipe at 1s names \"c1\", which is neither; name one node or guard"},
		{"open r q", "open x", "14:12: open at 4s names the prefix \"x\", which has no rule; name the prefix of a rule"},
		{"covers r1 storage", "covers r1 storage close", "9:30: storage of guard g3 goes on without its guard, which is to close; leave out storage or close"},
		{"covers r1 storage", "covers r1 stamps r1 storage", "9:40: storage of guard g3 is written to without its guard, which is to stamp; leave out storage or stamps"},
		{"covers r1 storage", "covers r1 as g1 storage", "9:36: storage of guard g3 belongs to a guard with the name of another; leave out storage or as"},
		{"covers r*,q1", "covers r*,q1 storage", "7:33: storage of guard g1 belongs to a guard whose name another one has; leave out storage, or as of the other one"},
		{"guard g2", "guard x2", "8:7: guard x2 has no such name as a guard has; use a word that starts with g, such as g1"},
	} {
		_, err := Parse("f", []byte(strings.Replace(guarded, c.from, c.to, 1)))
		if err == nil || err.Error() != "f:"+c.want {
			t.Errorf("%s: got  %v\nwant f:%s", c.to, err, c.want)
		}
	}
}

// A plan shrinks around the guard and the rule that it needs.
func TestShrinkGuards(t *testing.T) {
	fails := func(p Plan) bool { return len(p.Guards) > 0 && len(p.Rules) > 0 && has(p, Attest, 0) }
	var p Plan
	for seed := uint64(0); !fails(p) || len(p.Guards) < 2; seed++ {
		p = Draw(seed, Seeded(seed), DrawOptions{Guards: true})
	}
	small := Shrink(p, fails, 2000)
	if len(small.Guards) != 1 || len(small.Rules) != 1 || len(small.Faults) != 1 || len(small.Clients) > 1 {
		t.Errorf("much is left:\n%s", small)
	}
	roundTrip(t, small)
}
