package check

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/fence"
)

// Config says whom a server answers and how much they may ask.
type Config struct {
	// Admitter decides. Mandatory.
	Admitter fence.Admitter
	// TrustTokens lets bare tokens be presented, which prove nothing.
	TrustTokens bool
	// AllowUIDs and AllowGIDs are the users, and the primary groups, that are answered. Default: the user of this process.
	AllowUIDs, AllowGIDs []uint32
	// MaxOpenPerUID bounds the tickets of one user, those that wait included: 1 to 100,000. Default 1,024.
	MaxOpenPerUID int
	// Slack is W of the guard that decides: more than 100 ms. Mandatory. The two below are shorter, because nobody can be told
	// that a ticket without a connection is over: a guard that is cut off, or killed, counts as out of the way when W has
	// passed, and what it last admitted must be too. What they leave of W is for the storage.
	Slack time.Duration
	// TicketTTL is how long a ticket without a connection is valid: 100 ms up to less than Slack. Default 10 s, or two thirds
	// of Slack if that is less. A newer token may have to wait for that long, and W on top.
	TicketTTL time.Duration
	// CutGrace is how long whoever holds a ticket has to end it when it is cut: less than Slack. Default 1 s, or two thirds of
	// Slack if that is less.
	CutGrace time.Duration
	// Logger hears of peers that are turned away. Default: nobody does.
	Logger hclog.Logger
}

// Bounds of the configuration.
const (
	MaxMaxOpen   = 100_000
	MinTicketTTL = 100 * time.Millisecond
)

const (
	defaultMaxOpen   = 1024
	defaultTicketTTL = 10 * time.Second
	defaultCutGrace  = time.Second
)

func (c Config) withDefaults() Config {
	if len(c.AllowUIDs)+len(c.AllowGIDs) == 0 {
		c.AllowUIDs = []uint32{uint32(os.Geteuid())}
	}
	if c.MaxOpenPerUID == 0 {
		c.MaxOpenPerUID = defaultMaxOpen
	}
	if c.TicketTTL == 0 {
		c.TicketTTL = max(MinTicketTTL, min(defaultTicketTTL, c.Slack/3*2))
	}
	if c.CutGrace == 0 {
		c.CutGrace = min(defaultCutGrace, c.Slack/3*2)
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

// Validate reports the first field that cannot be used and says what would do.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.Admitter == nil:
		return errors.New("check: Admitter is missing: set the guard that decides")
	case c.MaxOpenPerUID < 1 || c.MaxOpenPerUID > MaxMaxOpen:
		return fmt.Errorf("check: MaxOpenPerUID is %d: use 1 to %d", c.MaxOpenPerUID, MaxMaxOpen)
	case c.Slack <= MinTicketTTL:
		return fmt.Errorf("check: Slack is %v: use that of the guard, and more than %v", c.Slack, MinTicketTTL)
	case c.TicketTTL < MinTicketTTL || c.TicketTTL >= c.Slack:
		return fmt.Errorf("check: TicketTTL is %v: use at least %v and less than Slack, %v", c.TicketTTL, MinTicketTTL, c.Slack)
	case c.CutGrace < 0 || c.CutGrace >= c.Slack:
		return fmt.Errorf("check: CutGrace is %v: use less than Slack, %v", c.CutGrace, c.Slack)
	}
	return nil
}

// peer is who is at the other end of a connection.
type peer struct{ uid, gid uint32 }

func (c Config) allows(p peer) bool {
	return slices.Contains(c.AllowUIDs, p.uid) || slices.Contains(c.AllowGIDs, p.gid)
}
