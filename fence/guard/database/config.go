package database

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence/pgfence"
)

const (
	// DefaultCheckEvery is how often the database is looked at.
	DefaultCheckEvery = 5 * time.Second
	// MinCheckEvery is how often it is at most.
	MinCheckEvery = 100 * time.Millisecond
	// MaxCheckEvery is how seldom it is at most.
	MaxCheckEvery = 10 * time.Minute

	// parallel bounds the fences that are raised at a time.
	parallel = 4
)

// ErrConfig means that a configuration cannot be used. The error names the field and says how to put it right.
var ErrConfig = errors.New("database: invalid configuration")

// Config says which fences there are, and where.
type Config struct {
	// DSN names the database, as a URL or key=value words; what it leaves out is taken from the variables of libpq.
	DSN string
	// Schema is where the fence is installed; empty: [pgfence.DefaultSchema].
	Schema string
	// Resources have a fence in it each; at least one.
	Resources []string
	// Bump says how long older transactions may go on, and what is done then.
	Bump pgfence.BumpOptions
	// CheckEvery is how often the database is looked at; default [DefaultCheckEvery].
	CheckEvery time.Duration
	// Logger; default: none.
	Logger hclog.Logger
}

// Validate reports the first field that cannot be used as an [ErrConfig].
func (c Config) Validate() error {
	_, err := c.pool()
	return err
}

func (c Config) pool() (*pgxpool.Config, error) {
	if err := c.fence().Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	switch {
	case len(c.Resources) == 0:
		return nil, fmt.Errorf("%w: Resources is empty: name the resources that the database has a fence for", ErrConfig)
	case slices.Contains(c.Resources, ""):
		return nil, fmt.Errorf("%w: Resources has an empty entry: name a resource", ErrConfig)
	case c.CheckEvery != 0 && (c.CheckEvery < MinCheckEvery || c.CheckEvery > MaxCheckEvery):
		return nil, fmt.Errorf("%w: CheckEvery is %v: use %v to %v", ErrConfig, c.CheckEvery, MinCheckEvery, MaxCheckEvery)
	}
	pool, err := pgxpool.ParseConfig(c.DSN)
	if err != nil {
		return nil, fmt.Errorf("%w: DSN: %w", ErrConfig, err) // pgx leaves the password out
	}
	pool.MaxConns = parallel + 2 // for the look, and for a canary
	if pool.ConnConfig.RuntimeParams["application_name"] == "" {
		pool.ConnConfig.RuntimeParams["application_name"] = "writ-guard"
	}
	return pool, nil
}

func (c Config) fence() pgfence.Config { return pgfence.Config{Schema: c.Schema, Bump: c.Bump} }
