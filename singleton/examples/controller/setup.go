package main

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence/pgfence"
)

//go:embed schema.sql
var schema string

// install creates the tables and fences those that the controller writes to. It may be repeated.
func install(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, schema); err != nil {
		return fmt.Errorf("create the tables: %w", err)
	}
	_, err := pgfence.Install(ctx, pool, pgfence.Installation{Resource: resource, Tables: []string{"actual", "changes"}})
	return err
}
