package pgfence

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Removal says what is not to be protected any more.
type Removal struct {
	// Schema is where the fence is; empty: [DefaultSchema].
	Schema string
	// Tables lose their protection, with their partitions and children.
	Tables []string
	// AllTables takes the protection from every table.
	AllTables bool
	// DropSchema removes the schema with its floors, which cannot be got back: tokens of the past would be admitted again.
	// It is refused while a table is protected.
	DropSchema bool
	// LockTimeout is how long to wait for tables in use; 0: [DefaultLockTimeout].
	LockTimeout time.Duration
}

// Uninstall takes protection away, in one transaction, and returns the tables that were protected. Floors stay unless
// DropSchema is set.
func Uninstall(ctx context.Context, conn Conn, what Removal) (removed []string, err error) {
	what.Schema = cmp.Or(what.Schema, DefaultSchema)
	if err := checkSchema(what.Schema); err != nil {
		return nil, err
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		i := installing{tx, Installation{Schema: what.Schema, LockTimeout: cmp.Or(what.LockTimeout, DefaultLockTimeout)}}
		if err := i.begin(ctx); err != nil {
			return err
		}
		removed, err = unprotect(ctx, tx, what)
		return err
	})
	return removed, err
}

func unprotect(ctx context.Context, tx pgx.Tx, what Removal) (removed []string, err error) {
	protected, err := protectedTables(ctx, tx, what.Schema)
	if err != nil {
		return nil, err
	}
	tables := protected
	if !what.AllTables {
		named, err := resolve(ctx, tx, what.Schema, what.Tables)
		if err != nil {
			return nil, err
		}
		if tables, err = withDescendants(ctx, tx, named); err != nil {
			return nil, err
		}
	}
	has := make(map[uint32]bool)
	for _, r := range protected {
		has[r.oid] = true
	}
	for _, r := range tables {
		if !has[r.oid] {
			continue
		}
		if _, err := tx.Exec(ctx, "DROP TRIGGER "+TriggerName+" ON "+r.String()); err != nil {
			return nil, fmt.Errorf("pgfence: %s: %w", r, err)
		}
		removed = append(removed, r.String())
	}
	if !what.DropSchema {
		return removed, nil
	}
	if left := len(protected) - len(removed); left > 0 {
		return nil, fmt.Errorf("%w: %d tables are still protected: uninstall them first", ErrInvalid, left)
	}
	_, err = tx.Exec(ctx, render("DROP SCHEMA {schema} CASCADE", what.Schema))
	return removed, err
}

// protectedTables are those with a trigger of this schema's fence.
func protectedTables(ctx context.Context, tx pgx.Tx, schema string) ([]relation, error) {
	checkWrite, err := functionOID(ctx, tx, schema, "check_write")
	if err != nil {
		return nil, err
	}
	return relations(ctx, tx, "WHERE c.oid IN (SELECT t.tgrelid FROM pg_catalog.pg_trigger t WHERE t.tgfoid = $1 AND t.tgname = $2)", checkWrite, TriggerName)
}
