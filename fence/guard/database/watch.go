package database

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/fence/pgfence"
)

// lookTime bounds a look, but for the bumps that it finds necessary.
const lookTime = 10 * time.Second

// Run looks at the database until ctx ends: fences that are below what was raised are raised again. Tables that are not
// protected are told of once.
func (d *Database) Run(ctx context.Context) {
	tick := time.NewTicker(d.cfg.CheckEvery)
	defer tick.Stop()
	inspected := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := d.look(ctx)
		if err == nil && !inspected {
			inspected = true
			d.inspect(ctx)
		}
	}
}

// look raises again what has gone back, and sees whether the next raise may be carried out.
func (d *Database) look(ctx context.Context) error {
	err := d.raiseAgain(ctx)
	if err == nil {
		err = d.stillMayRaise(ctx)
	}
	d.noteResult(ctx, &d.looking, err)
	return err
}

func (d *Database) stillMayRaise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	return d.mayRaise(ctx)
}

func (d *Database) raiseAgain(ctx context.Context) error {
	behind, err := d.behind(ctx)
	if err != nil || len(behind) == 0 {
		return err
	}
	for _, f := range behind {
		d.logger.Warn("the database's fence has gone back, and is raised again: it was put back to an earlier state, or has just been promoted",
			"resource", f.Resource, "to", f.Token)
	}
	return d.bumpAll(ctx, behind)
}

// behind lists the fences that are below what they should be.
func (d *Database) behind(ctx context.Context) (behind []gate.Floor, err error) {
	standby, err := d.inRecovery(ctx)
	if err != nil || standby {
		return nil, err
	}
	d.mu.Lock()
	wanted := maps.Clone(d.wanted)
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	for _, resource := range slices.Sorted(maps.Keys(wanted)) {
		at, err := pgfence.Drained(ctx, d.pool, d.cfg.Schema, resource)
		if err != nil {
			return nil, err
		}
		if at < wanted[resource] {
			behind = append(behind, gate.Floor{Resource: resource, Token: wanted[resource]})
		}
	}
	return behind, nil
}

// inspect warns of tables that writes get past the fence of. It takes rights that a guard need not have.
func (d *Database) inspect(ctx context.Context) {
	report, err := pgfence.Verify(ctx, d.pool, pgfence.Check{Schema: d.cfg.Schema, NoZombie: true})
	if err != nil {
		d.logger.Debug("whether tables are protected cannot be seen by this role", "error", err)
		return
	}
	for _, f := range report.Findings {
		if f.Severity == pgfence.Unprotected {
			d.logger.Warn("writes can get past the fence", "object", f.Object, "problem", f.Problem, "fix", f.Fix)
		}
	}
}
