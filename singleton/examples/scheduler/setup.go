package main

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/singleton/partition"
)

//go:embed schema.sql
var schema string

// install creates the tables and fences them. It may be repeated.
func install(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, schema); err != nil {
		return fmt.Errorf("create the tables: %w", err)
	}
	what := pgfence.Installation{Resource: leader, Tables: []string{"tasks"}}
	if _, err := pgfence.Install(ctx, pool, what); err != nil {
		return err
	}
	names, err := partition.NewNames(group)
	if err != nil {
		return err
	}
	var all []string
	for i := range lanes {
		if _, err := pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS "+table(i)+" (LIKE result INCLUDING ALL)"); err != nil {
			return fmt.Errorf("create %s: %w", table(i), err)
		}
		what := pgfence.Installation{Resource: names.Partition(i), Tables: []string{table(i)}}
		if _, err := pgfence.Install(ctx, pool, what); err != nil {
			return err
		}
		all = append(all, fmt.Sprintf("SELECT %d AS of_lane, * FROM %s", i, table(i)))
	}
	if _, err := pool.Exec(ctx, "CREATE OR REPLACE VIEW results AS "+strings.Join(all, " UNION ALL ")); err != nil {
		return fmt.Errorf("create the view of all: %w", err)
	}
	return nil
}
