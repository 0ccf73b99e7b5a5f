package sidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/fence/guard/database"
	"github.com/writ-io/writ/fence/pgfence"
)

func (c Config) database() database.Config {
	p := c.Postgres
	return database.Config{
		DSN: p.DSN, Schema: p.Schema, Resources: p.Resources, CheckEvery: p.CheckEvery,
		Bump: pgfence.BumpOptions{DrainTimeout: p.DrainTimeout},
	}
}

// checkPostgres looks at what the database is configured as. It asks the database nothing.
func (c Config) checkPostgres() error {
	p := c.Postgres
	var all error
	switch {
	case !p.used():
		return nil
	case len(p.Resources) == 0:
		all = wrong("postgres.resources", "is missing", "name the resources that the database has a fence for")
	case c.BreakglassFile != "":
		all = wrong("breakglass_file", "is set for a database", "leave it out: the database goes on by itself when the quorum is lost")
	}
	for i, r := range p.Resources {
		if slices.Contains(p.Resources[:i], r) || r == "" || r[len(r)-1] == '*' {
			all = errors.Join(all, wrong(fmt.Sprintf("postgres.resources[%d]", i), fmt.Sprintf("%.80q is no name, or there twice", r), "name each resource that the database has a fence for, not a prefix"))
		}
	}
	if err := c.database().Validate(); err != nil && all == nil {
		all = wrong("postgres", oneLine(err), "put it right as it says")
	}
	return all
}

// openDatabase refuses a database that is there and cannot be fenced. One that cannot be reached is waited for.
func (s *Sidecar) openDatabase() (err error) {
	c := s.config
	if !c.Postgres.used() {
		return nil
	}
	settings := c.database()
	settings.Logger = s.logger.Named("postgres")
	if s.database, err = database.Open(settings); err != nil {
		return wrong("postgres", oneLine(err), "put it right as it says")
	}
	s.addProbe(formPostgres, s.database.Probe)
	err = s.database.Check(context.Background()) // which bounds itself
	switch {
	case err == nil:
	case pgfence.Unreachable(err):
		s.logger.Warn("the database cannot be reached yet: raises wait for it", "error", err)
	default:
		return wrong("postgres", oneLine(err), "install the fence with writ-guard sql install, and let the role of the dsn raise it: writ-guard sql grant --allow raise,cut")
	}
	return nil
}

func (s *Sidecar) storage() guard.Storage {
	if s.database == nil {
		return nil
	}
	return s.database
}

// watchDatabase looks at the database until the guard stops.
func (s *Sidecar) watchDatabase() {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with the guard
		<-s.ending
		cancel()
	}()
	s.database.Run(ctx)
}

func (s *Sidecar) closeDatabase() {
	if s.database != nil {
		s.database.Close()
	}
}
