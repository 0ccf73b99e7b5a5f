package plan

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/writ-io/writ/lease"
)

// Limits of a plan.
const (
	MaxNodes    = 9
	MaxClients  = 64
	MaxWatchers = 64
	MaxGuards   = 16
	MaxRules    = 16
	MaxFaults   = 10_000
	MaxDuration = 24 * time.Hour
	// MaxPPM bounds how fast or slow a clock runs: what leases are promised to survive.
	MaxPPM = 500
)

// maxPause bounds how long actors rest between two things.
const maxPause = time.Hour

// InvalidError says which field of a plan is wrong, how, and what would do. It is the only kind of error that
// [Plan.Validate] returns.
type InvalidError struct {
	Field        string // such as "ttl of client c1"
	Message, Fix string
	place        place
}

func (e *InvalidError) Error() string { return e.Field + " " + e.Message + "; " + e.Fix }

// Validate checks every field, and the relations between them.
func (p Plan) Validate() error {
	c := &checker{plan: &p, actors: make(map[string]string), regions: make(map[string][]string)}
	c.settings()
	c.nodes()
	c.guards()
	c.clients()
	c.groups()
	c.services()
	c.watchers()
	c.links()
	c.faults()
	c.expect()
	if c.found != nil {
		return c.found
	}
	return nil
}

// checker keeps the first problem.
type checker struct {
	plan    *Plan
	found   *InvalidError
	actors  map[string]string   // region by name
	regions map[string][]string // actors by region
}

func (c *checker) fail(at place, field, fix, format string, args ...any) {
	if c.found == nil {
		c.found = &InvalidError{Field: field, Message: fmt.Sprintf(format, args...), Fix: fix, place: at}
	}
}

// span checks that a duration is in a range.
func (c *checker) span(at place, field string, d, low, high time.Duration) {
	c.inRange(at, field, d < low || d > high, brief(d), brief(low), brief(high))
}

// count checks that a number is in a range.
func (c *checker) count(at place, field string, n, low, high int64) {
	c.inRange(at, field, n < low || n > high, fmt.Sprint(n), fmt.Sprint(low), fmt.Sprint(high))
}

func (c *checker) inRange(at place, field string, outside bool, value, low, high string) {
	if outside {
		c.fail(at, field, fmt.Sprintf("use %s to %s", low, high), "is %s", value)
	}
}

var (
	wordForm      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	invariantForm = regexp.MustCompile(`^[A-Z][0-9]{1,3}$`)
	reserved      = []string{"by", "amount"} // which end the names of a fault
)

const fixWord = "use a letter or digit, and then up to 63 of those, dots, dashes and underscores, but not by or amount"

func isWord(s string) bool { return wordForm.MatchString(s) && !slices.Contains(reserved, s) }

func (c *checker) settings() {
	p := c.plan
	if p.Name != "" && !isWord(p.Name) {
		c.fail(place{"name", 0, ""}, "name", fixWord, "is %q", p.Name)
	}
	for _, s := range p.About {
		if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) || s != strings.TrimRight(s, " ") {
			c.fail(place{"name", 0, ""}, "about", "write lines of text without spaces at their ends", "holds %q", s)
		}
	}
	if p.Store != Raft && p.Store != Fast {
		c.fail(place{"store", 0, ""}, "store", "use raft or fast", "is %q", string(p.Store))
	}
	span := func(field string, d, low, high time.Duration) { c.span(place{field, 0, ""}, field, d, low, high) }
	span("duration", p.Duration, time.Second, MaxDuration)
	span("heartbeat", p.Heartbeat, time.Millisecond, time.Minute)
	span("election", p.Election, 5*time.Millisecond, 10*time.Minute)
	if p.Election < 5*p.Heartbeat {
		c.fail(place{"election", 0, ""}, "election", fmt.Sprintf("use at least 5 heartbeats, %s", brief(5*p.Heartbeat)), "is %s", brief(p.Election))
	}
	span("max-ttl", p.MaxTTL, lease.MinTTL, lease.MaxTTL)
	span("lock-delay", p.LockDelay, 0, lease.MaxLockDelay)
	span("retention", p.Retention, time.Second, MaxDuration)
	span("sync", p.SyncDelay, 0, 10*time.Second)
	if p.GuardLease != 0 {
		span("guard-lease", p.GuardLease, lease.MinGuardLease, lease.MaxGuardLease)
	}
	if p.Storage != Comparing && p.Storage != Plain {
		c.fail(place{"storage", 0, ""}, "storage", "use plain, or leave it out for a storage that compares tokens", "is %q", string(p.Storage))
	}
	c.count(place{"sample", 0, ""}, "sample", int64(p.Sample), 0, 1_000_000)
}

// actor checks what all actors have.
func (c *checker) actor(section string, index int, name, region string, ppm int64) {
	at := place{section, index, "name0"}
	if !isWord(name) || name[0] != section[0] || len(name) < 2 {
		c.fail(at, section+" "+name, fmt.Sprintf("use a word that starts with %c, such as %c1", section[0], section[0]), "has no such name as a %s has", section)
	}
	if _, twice := c.actors[name]; twice {
		c.fail(at, section+" "+name, "give each a name of its own", "is there twice")
	}
	if !isWord(region) {
		c.fail(place{section, index, "region"}, "region of "+section+" "+name, fixWord, "is %q", region)
	}
	c.count(place{section, index, "ppm"}, "ppm of "+section+" "+name, ppm, -MaxPPM, MaxPPM)
	c.actors[name] = region
	c.regions[region] = append(c.regions[region], name)
}

func (c *checker) nodes() {
	for i, n := range c.plan.Nodes {
		c.actor("node", i, n.Name, n.Region, n.PPM)
	}
	if n := len(c.plan.Nodes); n < 1 || n > MaxNodes {
		c.fail(place{"node", n - 1, ""}, "the plan", fmt.Sprintf("have 1 to %d, each with a line such as: node n1 region eu", MaxNodes), "has %d nodes", n)
	}
	if len(c.plan.Nodes) > 0 && len(c.plan.Founders()) == 0 {
		c.fail(place{"node", 0, ""}, "the plan", "keep a node out of them, or remove it first", "adds every node later, and none is left to begin with")
	}
}

func (c *checker) clients() {
	p := c.plan
	if n := len(p.Clients); n > MaxClients {
		c.fail(place{"client", MaxClients, ""}, "the plan", fmt.Sprintf("have up to %d", MaxClients), "has %d clients", n)
	}
	for i, client := range p.Clients {
		c.actor("client", i, client.Name, client.Region, client.PPM)
		of := " of client " + client.Name
		span := func(field string, d, low, high time.Duration) {
			c.span(place{"client", i, field}, field+of, d, low, high)
		}
		count := func(field string, n, low, high int64) { c.count(place{"client", i, field}, field+of, n, low, high) }
		c.resources(place{"client", i, "resources"}, "resources"+of, client.Resources)
		if longest := min(p.MaxTTL, lease.MaxTTL); client.TTL < lease.MinTTL || client.TTL > longest {
			c.fail(place{"client", i, "ttl"}, "ttl"+of, fmt.Sprintf("use %s to %s, which is max-ttl", brief(lease.MinTTL), brief(longest)), "is %s", brief(client.TTL))
		}
		span("hold", client.Hold, time.Millisecond, maxPause)
		span("think", client.Think, 0, maxPause)
		for _, f := range []struct {
			field string
			every time.Duration
		}{{"write", client.Write}, {"checkpoint", client.Checkpoint}} {
			if f.every != 0 && (f.every < time.Millisecond || f.every > maxPause) {
				c.fail(place{"client", i, f.field}, f.field+of, fmt.Sprintf("use 1ms to %s, or 0s for never", brief(maxPause)), "is %s", brief(f.every))
			}
		}
		count("priority", int64(client.Priority), -lease.MaxPriority, lease.MaxPriority)
		count("impatience", int64(client.Impatience), 0, 1000)
		count("try", int64(client.Try), 0, 1000)
		count("leave", int64(client.Leave), 0, 1000)
	}
}

func (c *checker) resources(at place, field string, names []string) {
	if n := len(names); n < 1 || n > 16 {
		c.fail(at, field, "name 1 to 16, such as r1,r2", "are %d", n)
	}
	for i, name := range names {
		if _, err := lease.ParseResource(name); err != nil || !isToken(name) {
			c.fail(at, field, "use names of up to 512 letters, digits and signs in non-empty segments, without spaces or commas, such as billing/nightly", "hold %q", name)
		}
		if slices.Contains(names[:i], name) {
			c.fail(at, field, "name it once", "hold %s twice", name)
		}
	}
}

// isToken tells what stands in a list as it is.
func isToken(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsAny(s, ",|") && !strings.HasPrefix(s, "#") && !strings.HasPrefix(s, "@") &&
		!slices.Contains(reserved, s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' })
}

func (c *checker) watchers() {
	if n := len(c.plan.Watchers); n > MaxWatchers {
		c.fail(place{"watcher", MaxWatchers, ""}, "the plan", fmt.Sprintf("have up to %d", MaxWatchers), "has %d watchers", n)
	}
	for i, w := range c.plan.Watchers {
		c.actor("watcher", i, w.Name, w.Region, 0)
		if w.Prefix != "" && (!isToken(w.Prefix) || len(w.Prefix) > lease.MaxResourceBytes) {
			c.fail(place{"watcher", i, "prefix"}, "prefix of watcher "+w.Name, "use the start of a resource's name, or leave it out", "is %q", w.Prefix)
		}
		c.span(place{"watcher", i, "stay"}, "stay of watcher "+w.Name, w.Stay, time.Millisecond, maxPause)
	}
	for _, region := range slices.Sorted(maps.Keys(c.regions)) {
		if _, both := c.actors[region]; both {
			c.fail(place{}, "region "+region, "give the region another name", "has the name of an actor")
		}
	}
}

func (c *checker) links() {
	seen := make(map[[2]string]bool)
	for i, l := range c.plan.Links {
		name := "link " + l.A + " " + l.B
		for side, region := range []string{l.A, l.B} {
			if len(c.regions[region]) == 0 {
				c.fail(place{"link", i, fmt.Sprint("name", side)}, name, "use one of "+c.known(regionsOnly), "names %q, a region where nobody is", region)
			}
		}
		if l.A == l.B {
			c.fail(place{"link", i, "name1"}, name, "name two regions", "leads nowhere")
		}
		pair := [2]string{min(l.A, l.B), max(l.A, l.B)}
		if seen[pair] {
			c.fail(place{"link", i, "name0"}, name, "leave one out: a link leads both ways", "is there twice")
		}
		seen[pair] = true
		c.span(place{"link", i, "rtt"}, "rtt of "+name, l.RTT, time.Microsecond, time.Minute)
		c.span(place{"link", i, "jitter"}, "jitter of "+name, l.Jitter, 0, time.Minute)
		c.count(place{"link", i, "loss"}, "loss of "+name, int64(l.Loss), 0, 1000)
		c.count(place{"link", i, "dup"}, "dup of "+name, int64(l.Dup), 0, 1000)
	}
}

const regionsOnly = true

// known lists who can be named.
func (c *checker) known(regions bool) string {
	var names []string
	for name := range c.regions {
		names = append(names, name)
	}
	if !regions {
		for name := range c.actors {
			names = append(names, name)
		}
		names = append(names, Leader, Holder)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) })
	return strings.Join(names, ", ")
}

func (c *checker) expect() {
	for i, name := range c.plan.Expect {
		if !invariantForm.MatchString(name) {
			c.fail(place{"expect", i, ""}, "expect", "name an invariant, such as S4", "names %q", name)
		}
		if slices.Contains(c.plan.Expect[:i], name) {
			c.fail(place{"expect", i, ""}, "expect", "name it once", "names %s twice", name)
		}
	}
}

// Founders are the nodes that the quorum begins with: all but those that a fault adds before any removes or replaces them.
func (p Plan) Founders() []Node {
	joins := make(map[string]bool)
	first := make(map[string]time.Duration)
	for _, f := range p.Faults {
		if f.Kind != AddNode && f.Kind != RemoveNode || len(f.A) == 0 {
			continue
		}
		name := f.A[0]
		if at, seen := first[name]; !seen || f.At < at {
			first[name], joins[name] = f.At, f.Kind == AddNode
		}
	}
	var founders []Node
	for _, n := range p.Nodes {
		if !joins[n.Name] {
			founders = append(founders, n)
		}
	}
	return founders
}
