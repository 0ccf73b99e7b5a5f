package singleton

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// DefaultStopGrace is how long a function has to return after its context has ended, unless it is configured.
const DefaultStopGrace = 30 * time.Second

// Config says how functions run. The zero value is ready for use.
type Config struct {
	// TTL is how long others wait for a process that died. 0 means lease.DefaultTTL; at least 250 ms unless the policy
	// says otherwise.
	TTL time.Duration
	// Region is where this process runs. Empty stands for the client's, lease.Config.Region. One of the two must be set if
	// Eligible or Preferred is.
	Region string
	// Eligible regions are those in which functions may run; empty: in all of them. A process elsewhere waits until its
	// context ends and runs nothing.
	Eligible []string
	// Preferred regions, the best first, up to 1,000. A process in a better region takes over from one in a worse region,
	// which is told by [ErrHandedOver]; all regions that are not named are equal and last.
	Preferred []string
	// StopLead is how long before the end of the lease, for want of a renewal, the context of a function ends, so that it
	// can stop while certainly nobody else runs: up to a quarter of TTL. 0 stands for an eighth of TTL.
	StopLead time.Duration
	// StopGrace is how long a function has to return after its context has ended, before it is taken for stuck. 0 means
	// [DefaultStopGrace]. The lease is renewed during that time, unless it has been lost; it is not prolonged beyond.
	StopGrace time.Duration
	// Strict takes a function that has lost its lease for stuck when the lease runs out, which is StopLead after its
	// context has ended, whatever is left of StopGrace. The process then exits before anybody else can run the function.
	Strict bool
	// OnStuck is told of a function that did not return in time. The default logs it, waits until the lease has run out,
	// and exits the process with [ExitStuck], unless the function returns before. If OnStuck returns before the function
	// does, the function is abandoned and its lease is never released.
	OnStuck func(Stuck)
	// Hooks are called as terms begin and end.
	Hooks Hooks
	// Logger hears of terms that begin and end. Default: nobody does, except that a process which exits tells
	// slog.Default() why. See [LoggerOf] for other loggers.
	Logger *slog.Logger
}

// ExitStuck is the exit code of a process that ends because a function did not return.
const ExitStuck = 70

// Stuck names a function that did not return in time.
type Stuck struct {
	Resource lease.Resource
	Token    fence.Token
	// Since is for how long its context had ended.
	Since time.Duration
}

// Hooks are called from the goroutine that runs the term; nil ones are left out.
type Hooks struct {
	// Started is called before the function, with the term that begins.
	Started func(Term)
	// Stopped is called after the function has returned and before the lease is released, with the cause of the end of its
	// context, nil if it returned of itself.
	Stopped func(Term, error)
}

// Validate reports the first field that cannot be used as an INVALID *lease.Error that names it.
func (c Config) Validate() error {
	full := c.withDefaults()
	switch {
	case c.TTL < 0:
		return lease.Invalid("ttl", fmt.Sprintf("is %v", c.TTL), "leave it out for the default, or name a duration of at least 250 ms")
	case c.StopGrace < 0:
		return lease.Invalid("stop_grace", fmt.Sprintf("is %v", c.StopGrace), "leave it out for the default")
	case c.StopLead < 0 || c.StopLead > full.TTL/4:
		return lease.Invalid("stop_lead", fmt.Sprintf("is %v with a TTL of %v", c.StopLead, full.TTL), "use at most a quarter of the TTL, or leave it out for the default")
	case c.Region == "" && len(c.Eligible)+len(c.Preferred) > 0:
		return lease.Invalid("region", "is empty, and regions are eligible or preferred", "name the region in which this process runs")
	case len(c.Preferred) > lease.MaxPriority:
		return lease.Invalid("preferred", fmt.Sprintf("names %d regions", len(c.Preferred)), fmt.Sprintf("name at most %d", lease.MaxPriority))
	}
	if err := checkRegions("eligible", c.Eligible); err != nil {
		return err
	}
	return checkRegions("preferred", c.Preferred)
}

func checkRegions(field string, regions []string) error {
	for i, r := range regions {
		switch {
		case r == "":
			return lease.Invalid(field, "names a region without a name", "leave it out")
		case slices.Contains(regions[:i], r):
			return lease.Invalid(field, fmt.Sprintf("names %q twice", r), "name each region once")
		}
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.TTL == 0 {
		c.TTL = lease.DefaultTTL
	}
	if c.StopLead == 0 {
		c.StopLead = c.TTL / 8
	}
	if c.StopGrace == 0 {
		c.StopGrace = DefaultStopGrace
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// eligible tells whether functions may run in this region.
func (c Config) eligible() bool { return len(c.Eligible) == 0 || slices.Contains(c.Eligible, c.Region) }

// rank is the priority of this region.
func (c Config) rank() int32 {
	if i := slices.Index(c.Preferred, c.Region); i >= 0 {
		return int32(len(c.Preferred) - i) //nolint:gosec // at most lease.MaxPriority, see Validate
	}
	return 0
}
