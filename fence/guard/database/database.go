package database

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/fence/pgfence"
)

// Database is the storage of a guard. It is safe for concurrent use.
type Database struct {
	cfg    Config
	pool   *pgxpool.Pool
	logger hclog.Logger

	mu      sync.Mutex
	wanted  map[string]fence.Token // guarded by mu; what was raised, or noted while the server was in recovery
	raising error                  // guarded by mu; why the newest raise failed
	looking error                  // guarded by mu; why the newest look did
	standby bool                   // guarded by mu; the server is in recovery
}

var _ guard.Storage = (*Database)(nil)

// Open checks the configuration. It asks the database nothing yet.
func Open(c Config) (*Database, error) {
	pool, err := c.pool()
	if err != nil {
		return nil, err
	}
	c.CheckEvery = cmp.Or(c.CheckEvery, DefaultCheckEvery)
	c.Schema = cmp.Or(c.Schema, pgfence.DefaultSchema)
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	d := &Database{cfg: c, logger: c.Logger, wanted: make(map[string]fence.Token)}
	if d.pool, err = pgxpool.NewWithConfig(context.Background(), pool); err != nil { // connects when it is used
		return nil, fmt.Errorf("%w: DSN: %w", ErrConfig, err)
	}
	return d, nil
}

// Close ends the connections. Nothing else may be called then.
func (d *Database) Close() { d.pool.Close() }

// Err is why the newest raise, or look at the database, failed; nil if neither did.
func (d *Database) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failureLocked()
}

func (d *Database) failureLocked() error { return cmp.Or(d.raising, d.looking) }

// Check asks the database whether it can be raised as configured. An error that [pgfence.Unreachable] says yes to may be over in
// a moment; others are for people to put right.
func (d *Database) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	for _, resource := range d.cfg.Resources {
		if _, err := pgfence.Drained(ctx, d.pool, d.cfg.Schema, resource); err != nil {
			return fmt.Errorf("the fence of %q: %w", resource, err)
		}
	}
	return d.mayRaise(ctx)
}

// mayRaise says what the database's role may not do that a raise takes. A raise would find that out too, and then too late.
func (d *Database) mayRaise(ctx context.Context) error {
	rights := []pgfence.Right{pgfence.Raise}
	if !d.cfg.Bump.NoCut {
		rights = append(rights, pgfence.End)
	}
	role, lacking, err := pgfence.Lacking(ctx, d.pool, d.cfg.Schema, rights...)
	if err != nil || len(lacking) == 0 {
		return err
	}
	names := make([]string, 0, len(lacking))
	for _, right := range lacking {
		names = append(names, string(right))
	}
	return fmt.Errorf("role %q may not %s: writ-guard sql grant --role %s --allow %s",
		role, strings.Join(names, " and "), role, strings.Join(names, ","))
}

// Raise implements [guard.Storage].
func (d *Database) Raise(ctx context.Context, floors []gate.Floor) error {
	err := d.raise(ctx, floors)
	d.noteResult(ctx, &d.raising, err)
	return err
}

func (d *Database) raise(ctx context.Context, floors []gate.Floor) error {
	standby, err := d.inRecovery(ctx)
	if err != nil {
		return err
	}
	if standby {
		d.want(floors)
		return nil
	}
	return d.bumpAll(ctx, floors)
}

// bumpAll raises several fences at a time, so that one with long transactions does not hold up the others for long.
func (d *Database) bumpAll(ctx context.Context, floors []gate.Floor) error {
	group := new(errgroup.Group)
	group.SetLimit(parallel)
	for _, f := range floors {
		group.Go(func() error {
			if err := d.bump(ctx, f.Resource, f.Token); err != nil {
				return fmt.Errorf("the fence of %q: %w", f.Resource, err)
			}
			d.want([]gate.Floor{f})
			return nil
		})
	}
	return group.Wait()
}

// bump raises one fence. One that is above the token already has been raised by a writer, or by somebody who made a token up:
// what is older has to have ended all the same.
func (d *Database) bump(ctx context.Context, resource string, token fence.Token) error {
	done, err := pgfence.Bump(ctx, d.pool, d.cfg.fence(), resource, token)
	var stale *fence.StaleError
	if errors.As(err, &stale) && stale.Floor > token {
		d.logger.Warn("the database's fence is above what the quorum has told: a writer was first, or a token was made up",
			"resource", resource, "told", token, "fence", stale.Floor)
		done, err = pgfence.Bump(ctx, d.pool, d.cfg.fence(), resource, stale.Floor)
	}
	if err != nil {
		return err
	}
	for _, h := range done.Ended {
		d.logger.Warn("ended a transaction under an older token", "resource", resource, "token", token, "transaction", h.String())
	}
	return nil
}

func (d *Database) want(floors []gate.Floor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range floors {
		d.wanted[f.Resource] = max(d.wanted[f.Resource], f.Token)
	}
}

// inRecovery says whether the server is a standby, or replays its log: then it takes no writes.
func (d *Database) inRecovery(ctx context.Context) (standby bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if err := d.pool.QueryRow(ctx, "SELECT pg_catalog.pg_is_in_recovery()").Scan(&standby); err != nil {
		return false, err
	}
	d.mu.Lock()
	changed := d.standby != standby
	d.standby = standby
	d.mu.Unlock()
	if changed && standby {
		d.logger.Info("the database is in recovery and takes no writes: floors are raised in it when it leaves that")
	} else if changed {
		d.logger.Info("the database has left recovery: its floors are raised")
	}
	return standby, nil
}

// noteResult keeps what came of a raise or a look, and tells when the database can be fenced no more, or again. A look that finds
// nothing does not make a raise that failed good.
func (d *Database) noteResult(ctx context.Context, of *error, err error) {
	if ctx.Err() != nil {
		return // we are told to stop
	}
	d.mu.Lock()
	before := d.failureLocked()
	*of = err
	now := d.failureLocked()
	d.mu.Unlock()
	switch {
	case now != nil && before == nil:
		d.logger.Error("the database cannot be fenced: raises wait for it", "error", now)
	case now == nil && before != nil:
		d.logger.Info("the database can be fenced again")
	}
}

// Probe is how a canary gets to the tables: it tries to write under old tokens, and takes it back. routed is false for a
// resource that is not one of this database's.
func (d *Database) Probe(ctx context.Context, p *writv1.GuardProbe) (routed, refused bool, detail string) {
	if !slices.Contains(d.cfg.Resources, p.GetResource()) {
		return false, false, ""
	}
	tried, err := pgfence.TryZombie(ctx, d.pool, d.cfg.Schema, p.GetResource())
	switch {
	case err != nil:
		return true, false, "not decided: " + err.Error()
	case len(tried) == 0:
		return true, false, "no table is protected for it: writ-guard sql install"
	}
	refused = true
	var told []string
	for _, t := range tried {
		refused = refused && t.Protected
		told = append(told, t.Table+": "+t.Zombie)
	}
	return true, refused, strings.Join(told, ", ")
}
