package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Quorum is what the agent asks of the quorum. [*Remote] is one.
type Quorum interface {
	AgentPoll(ctx context.Context, ask *writv1.AgentPollRequest) (*writv1.AgentPollResponse, error)
}

// Config says what an [Agent] looks after. Name, Region, DataDir, Quorum and Groups are mandatory.
type Config struct {
	// Name is the agent's, the same over restarts: letters, digits, ".", "_" and "-", at most 64.
	Name string
	// Region that it speaks for, by the same rules.
	Region string
	// DataDir is its own: the journal. It is made if it is missing.
	DataDir string
	Quorum  Quorum
	Groups  []Group
	// Peers are addresses in other regions, for all groups.
	Peers []Peer

	// Interval is how often to look and to report until the quorum says otherwise: 100ms to 1m. Default 1s.
	Interval time.Duration
	// ProbeTimeout bounds one look: 10ms to 1m. Default 5s.
	ProbeTimeout time.Duration
	// Failures is how many looks in a row have to fail before the health is FAILED: 1 to 1000. Default 3.
	Failures int

	// Version of the software, for people.
	Version string
	// CertificateExpires tells when the agent's certificate does; nil: not known.
	CertificateExpires func() time.Time

	// Traced is told of each hook that has run and belongs to a trace. It must not block. Nil: nobody is told.
	Traced func(Ran)

	// Logger hears of hooks, and of a quorum that goes and comes. Default: nobody does.
	Logger hclog.Logger
	// Clock is for tests. Default [clock.System].
	Clock clock.Clock
}

// Group is what the agent does for one failover group.
type Group struct {
	Name string
	// Probe looks at the data. Nil: nothing is known of it.
	Probe Probe
	// Hooks by kind; a task of another kind is answered with NONE.
	Hooks map[writv1.HookKind]Hook
	// Peers are addresses for this group alone, in place of those of the agent that have the same region.
	Peers []Peer
	// Digest names the configuration that should be the same in all regions, as it is when it is called: with each look. Nil:
	// there is none.
	Digest func() (string, error)
}

const (
	defaultInterval     = time.Second
	defaultProbeTimeout = 5 * time.Second
	defaultFailures     = 3
	maxNameBytes        = 64
	maxGroups           = 4096 // of one poll
)

func (c Config) withDefaults() Config {
	c.Interval = cmp.Or(c.Interval, defaultInterval)
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, defaultProbeTimeout)
	c.Failures = cmp.Or(c.Failures, defaultFailures)
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Clock == nil {
		c.Clock = clock.System()
	}
	return c
}

// Validate answers the first field that cannot be used as an INVALID [*lease.Error].
func (c Config) Validate() error {
	c = c.withDefaults()
	const naming = `use 1 to 64 letters, digits, ".", "_" and "-"`
	switch {
	case !IsName(c.Name):
		return lease.Invalid("Name", fmt.Sprintf("is %.80q", c.Name), naming)
	case !IsName(c.Region):
		return lease.Invalid("Region", fmt.Sprintf("is %.80q", c.Region), naming)
	case c.DataDir == "":
		return lease.Invalid("DataDir", "is empty", "name a directory of this agent's own")
	case c.Quorum == nil:
		return lease.Invalid("Quorum", "is nil", "use a Remote")
	case len(c.Groups) == 0 || len(c.Groups) > maxGroups:
		return lease.Invalid("Groups", fmt.Sprintf("are %d", len(c.Groups)), fmt.Sprintf("name 1 to %d", maxGroups))
	case c.Interval < 100*time.Millisecond || c.Interval > time.Minute:
		return lease.Invalid("Interval", fmt.Sprintf("is %v", c.Interval), "use 100ms to 1m")
	case c.ProbeTimeout < 10*time.Millisecond || c.ProbeTimeout > time.Minute:
		return lease.Invalid("ProbeTimeout", fmt.Sprintf("is %v", c.ProbeTimeout), "use 10ms to 1m")
	case c.Failures < 1 || c.Failures > 1000:
		return lease.Invalid("Failures", fmt.Sprintf("is %d", c.Failures), "use 1 to 1000")
	}
	seen := make(map[string]bool)
	for i, g := range c.Groups {
		field := fmt.Sprintf("Groups[%d].Name", i)
		if !IsName(g.Name) {
			return lease.Invalid(field, fmt.Sprintf("is %.80q", g.Name), naming)
		}
		if seen[g.Name] {
			return lease.Invalid(field, fmt.Sprintf("%q is there twice", g.Name), "join the two")
		}
		seen[g.Name] = true
	}
	return nil
}

// IsName reports whether a name fits into keys, log lines and file names.
func IsName(name string) bool {
	if name == "" || len(name) > maxNameBytes {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	}) < 0
}

// kinds lists the hooks that a group has.
func (g Group) kinds() []writv1.HookKind { return slices.Sorted(maps.Keys(g.Hooks)) }

// peers are those of the group, and those of the agent for regions that it has none for.
func (g Group) peers(common []Peer) []Peer {
	all := slices.Clone(g.Peers)
	for _, p := range common {
		if !slices.ContainsFunc(g.Peers, func(own Peer) bool { return own.Region == p.Region }) {
			all = append(all, p)
		}
	}
	return all
}

func durationProto(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
