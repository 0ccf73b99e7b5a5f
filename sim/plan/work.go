package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton/cron"
	"github.com/writ-io/writ/singleton/partition"
	"github.com/writ-io/writ/singleton/schedule"
)

// Work is what runs in one place: a function, the slots of a cron job if Every is set, or the partitions of a group of
// consumers if Partitions is. Its effects go to storage that compares tokens.
type Work struct {
	Name string
	// Every is how far slots are apart, in whole seconds.
	Every time.Duration
	// Of a cron job: its policy.
	CatchUp  string
	Overlap  string
	Window   time.Duration
	Jitter   time.Duration
	Max      int
	Attempts int
	// Partitions is how many there are. Homes are regions that they prefer, in turns.
	Partitions int
	Homes      []string
	// Preferred regions take the work over from others, the best first. Consumers have none.
	Preferred []string
	// Takes is how long it takes until a function returns of itself, or until an item of a partition is done: a mean; 0: a
	// function that never does. Stop is how long a function takes to return after its context has ended.
	Takes, Stop time.Duration
	// In thousandths: Fails is how many functions return an error, Stuck how many never return after their context has ended.
	Fails, Stuck int
}

// Service is a process that does works. Its name starts with s.
type Service struct {
	Name, Region string
	PPM          int64
	Works        []string
	TTL          time.Duration
	// Grace is how long a function has to return after its context has ended; Strict ends the process when the lease runs out.
	Grace  time.Duration
	Strict bool
}

// Limits of these.
const (
	MaxWorks    = 16
	MaxServices = 32
	// maxSimulatedPartitions is how many partitions a group has at most here.
	maxSimulatedPartitions = 64
)

func (w *Work) columns() []column {
	return []column{
		duration("every", &w.Every, "0s"), optional(word("catch-up", &w.CatchUp, "")), optional(word("overlap", &w.Overlap, "")),
		duration("window", &w.Window, "0s"), duration("jitter", &w.Jitter, "0s"), number("max", &w.Max, "0"), number("attempts", &w.Attempts, "0"),
		number("partitions", &w.Partitions, "0"), optional(words("homes", &w.Homes)), optional(words("preferred", &w.Preferred)),
		duration("takes", &w.Takes, "0s"), duration("stop", &w.Stop, "0s"), number("fails", &w.Fails, "0"), number("stuck", &w.Stuck, "0"),
	}
}

func (s *Service) columns() []column {
	return []column{
		word("region", &s.Region, ""), number("ppm", &s.PPM, "0"), words("works", &s.Works), duration("ttl", &s.TTL, "5s"),
		duration("grace", &s.Grace, "3s"), flag("strict", &s.Strict),
	}
}

// Policy is that of a cron job.
func (w *Work) Policy() cron.Policy {
	return cron.Policy{
		CatchUp: cron.CatchUp(w.CatchUp), Window: w.Window, Max: w.Max, Overlap: cron.Overlap(w.Overlap), Jitter: w.Jitter, MaxAttempts: w.Attempts,
	}
}

// Schedule is that of a cron job.
func (w *Work) Schedule() (*schedule.Schedule, error) {
	return schedule.Parse("@every "+w.Every.String(), "")
}

// HomeOf is the region that a partition prefers; empty if it prefers none.
func (w *Work) HomeOf(index int) string {
	if len(w.Homes) == 0 {
		return ""
	}
	return w.Homes[index%len(w.Homes)]
}

// Work finds a work by its name; nil if there is none.
func (p *Plan) Work(name string) *Work {
	i := slices.IndexFunc(p.Works, func(w Work) bool { return w.Name == name })
	if i < 0 {
		return nil
	}
	return &p.Works[i]
}

func (c *checker) services() {
	p := c.plan
	if n := len(p.Works); n > MaxWorks {
		c.fail(place{"work", MaxWorks, ""}, "the plan", fmt.Sprintf("have up to %d", MaxWorks), "has %d works", n)
	}
	if n := len(p.Services); n > MaxServices {
		c.fail(place{"service", MaxServices, ""}, "the plan", fmt.Sprintf("have up to %d", MaxServices), "has %d services", n)
	}
	for i := range p.Works {
		c.work(i, &p.Works[i])
	}
	for i, s := range p.Services {
		c.actor("service", i, s.Name, s.Region, s.PPM)
		of := " of service " + s.Name
		if s.Name == "storage" || s.Name == "steward" {
			c.fail(place{"service", i, "name0"}, "service "+s.Name, "give it another name, such as s1", "has the name of an actor that there is anyway")
		}
		if n := len(s.Works); n < 1 || n > MaxWorks {
			c.fail(place{"service", i, "works"}, "works"+of, fmt.Sprintf("name 1 to %d", MaxWorks), "are %d", n)
		}
		for j, name := range s.Works {
			if p.Work(name) == nil || slices.Contains(s.Works[:j], name) {
				c.fail(place{"service", i, "works"}, "works"+of, "name works that there are, each once", "hold %q", name)
			}
		}
		longest := min(p.MaxTTL, lease.MaxTTL)
		if s.TTL < time.Second || s.TTL > longest {
			c.fail(place{"service", i, "ttl"}, "ttl"+of, fmt.Sprintf("use 1s to %s, which is max-ttl", brief(longest)), "is %s", brief(s.TTL))
		}
		c.span(place{"service", i, "grace"}, "grace"+of, s.Grace, 10*time.Millisecond, maxPause)
	}
}

func (c *checker) work(i int, w *Work) {
	p, of := c.plan, " of work "+w.Name
	at := func(field string) place { return place{"work", i, field} }
	ruled, _ := p.Guarded(w.Name)
	below := strings.HasPrefix
	switch {
	case !isWord(w.Name) || w.Name != strings.ToLower(w.Name):
		c.fail(at("name0"), "work "+w.Name, "use a word of lower case", "has no such name as a work has")
	case slices.ContainsFunc(p.Works[:i], func(o Work) bool { return o.Name == w.Name }):
		c.fail(at("name0"), "work "+w.Name, "give each a name of its own", "is there twice")
	case c.used(w.Name) || c.grouped(w.Name) || slices.ContainsFunc(p.Clients, func(o Client) bool {
		return slices.ContainsFunc(o.Resources, func(r string) bool { return below(r, w.Name+"/") || below(r, cron.ControlPrefix) })
	}):
		c.fail(at("name0"), "work "+w.Name, "let clients and groups take other resources", "has the name of a resource that others take")
	case ruled || slices.ContainsFunc(p.Rules, func(r Rule) bool {
		return below(w.Name+"/", r.Prefix) || below(r.Prefix, w.Name+"/") || below(cron.ControlPrefix, r.Prefix)
	}):
		c.fail(at("name0"), "work "+w.Name, "let rules guard other resources", "is guarded, and its storage compares tokens")
	case w.Every != 0 && w.Partitions != 0:
		c.fail(at("partitions"), "partitions"+of, "leave it out, or every", "are set, and it is a cron job")
	}
	c.count(at("partitions"), "partitions"+of, int64(w.Partitions), 0, min(maxSimulatedPartitions, partition.MaxPartitions))
	if len(w.Homes) > 0 && w.Partitions == 0 {
		c.fail(at("homes"), "homes"+of, "leave them out", "are named, and there are no partitions")
	}
	if len(w.Preferred) > 0 && w.Partitions > 0 {
		c.fail(at("preferred"), "preferred"+of, "leave them out, or name homes", "are named, and consumers have none")
	}
	c.regionList(at("homes"), "homes"+of, w.Homes)
	c.regionList(at("preferred"), "preferred"+of, w.Preferred)
	if w.Every == 0 && (w.CatchUp != "" || w.Overlap != "" || w.Window != 0 || w.Jitter != 0 || w.Max != 0 || w.Attempts != 0) {
		c.fail(at(""), "work "+w.Name, "add every and a duration, such as every 10s", "has a policy, and no slots")
	}
	if w.Every != 0 {
		if slots, err := w.Schedule(); err != nil {
			c.fail(at("every"), "every"+of, "use whole seconds, such as 10s", "is %s", brief(w.Every))
		} else if _, err := cron.NewMachine(cron.Config{Job: w.Name, Schedule: slots, Policy: w.Policy()}); err != nil {
			c.fail(at(""), "work "+w.Name, "change that", "has a policy that cannot be: %v", err)
		}
	}
	c.span(at("takes"), "takes"+of, w.Takes, 0, maxPause)
	c.span(at("stop"), "stop"+of, w.Stop, 0, maxPause)
	c.count(at("fails"), "fails"+of, int64(w.Fails), 0, 1000)
	c.count(at("stuck"), "stuck"+of, int64(w.Stuck), 0, 1000)
}

func (c *checker) regionList(at place, field string, regions []string) {
	for _, region := range regions {
		if !isWord(region) || len(regions) > 16 {
			c.fail(at, field, "name up to 16 regions", "hold %q", region)
		}
	}
}

// job tells whether there is a cron job of that name.
func (c *checker) job(name string) bool {
	w := c.plan.Work(name)
	return w != nil && w.Every > 0
}
