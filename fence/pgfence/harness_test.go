package pgfence_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const (
	resource = "orders-db"

	// old, present and next are tokens in the order in which they are granted.
	old     = fence.Token(7<<48 | 1)
	present = fence.Token(7<<48 | 2)
	next    = fence.Token(7<<48 | 9)
)

// fixture is a database with a protected table orders, whose fence has been raised to present.
type fixture struct {
	testing.TB
	dsn  string
	pool *pgxpool.Pool
}

const ordersTable = `
	CREATE TABLE orders (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
	INSERT INTO orders SELECT i, 0 FROM generate_series(1, 10) i;
`

func setUp(t testing.TB) *fixture {
	t.Helper()
	dsn := pgtest.DSN(t)
	f := &fixture{TB: t, dsn: dsn, pool: pgtest.Pool(t, dsn)}
	f.exec(ordersTable)
	f.install("orders")
	f.bump(present)
	return f
}

// exec runs SQL outside of any fenced transaction.
func (f *fixture) exec(sql string, args ...any) {
	f.Helper()
	if _, err := f.pool.Exec(f.Context(), sql, args...); err != nil {
		f.Fatalf("%s: %v", sql, err)
	}
}

func (f *fixture) install(tables ...string) pgfence.Installed {
	f.Helper()
	done, err := pgfence.Install(f.Context(), f.pool, pgfence.Installation{Resource: resource, Tables: tables})
	if err != nil {
		f.Fatal(err)
	}
	return done
}

func (f *fixture) bump(token fence.Token) pgfence.Bumped {
	f.Helper()
	done, err := pgfence.Bump(f.Context(), f.pool, pgfence.Config{}, resource, token)
	if err != nil {
		f.Fatal(err)
	}
	return done
}

// raw begins a transaction that presents a token without having looked at the floor, as a writer does that was paused
// after it had. Token 0 presents none.
func (f *fixture) raw(token fence.Token, opts pgx.TxOptions) pgx.Tx {
	f.Helper()
	return rawOn(f, f.pool, token, opts)
}

func rawOn(t testing.TB, pool *pgxpool.Pool, token fence.Token, opts pgx.TxOptions) pgx.Tx {
	t.Helper()
	tx, err := pool.BeginTx(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	if token != 0 {
		mustExec(t, tx, pgfence.Presenting(pgfence.DefaultSchema, resource, token))
	}
	return tx
}

// try runs one statement in a transaction under a token, and commits.
func (f *fixture) try(token fence.Token, sql string) error {
	f.Helper()
	tx := f.raw(token, pgx.TxOptions{})
	if _, err := tx.Exec(f.Context(), sql); err != nil {
		return errors.Join(pgfence.FromError(err), ignoreClosed(tx.Rollback(f.Context())))
	}
	return tx.Commit(f.Context())
}

// ignoreClosed forgives a rollback after the server has ended the connection.
func ignoreClosed(err error) error {
	if err != nil && (errors.Is(err, pgx.ErrTxClosed) || strings.Contains(err.Error(), "conn closed")) {
		return nil
	}
	return err
}

type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func mustExec(t testing.TB, e execer, sql string, args ...any) {
	t.Helper()
	if _, err := e.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// content is what the orders table holds, for comparison.
func (f *fixture) content() string {
	f.Helper()
	return f.text("SELECT coalesce(string_agg(id || '=' || v, ' ' ORDER BY id), '') FROM orders")
}

func (f *fixture) text(sql string, args ...any) (s string) {
	f.Helper()
	if err := f.pool.QueryRow(f.Context(), sql, args...).Scan(&s); err != nil {
		f.Fatalf("%s: %v", sql, err)
	}
	return s
}

func wantStale(t testing.TB, err error, have, floor fence.Token) {
	t.Helper()
	var stale *fence.StaleError
	if !errors.As(err, &stale) || !errors.Is(err, fence.ErrStale) {
		t.Fatalf("got %v, want a StaleError", err)
	}
	if *stale != (fence.StaleError{Resource: resource, Have: have, Floor: floor}) {
		t.Fatalf("got %+v, want token %s below floor %s", *stale, have, floor)
	}
}

func wantIs(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// inThisDatabase is the condition for the fence's locks in pg_locks, which shows those of the whole server.
const inThisDatabase = "locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"

// stateOf is the SQLSTATE of an error.
func stateOf(err error) string {
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// waitFor waits until a query answers true.
func (f *fixture) waitFor(sql string, args ...any) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), waitLimit)
	defer cancel()
	for {
		var done bool
		// The server does the pausing between looks.
		err := f.pool.QueryRow(ctx, "SELECT ("+sql+") FROM pg_sleep(0.005)", args...).Scan(&done)
		if err != nil {
			f.Fatalf("waiting for %s: %v", sql, err)
		}
		if done {
			return
		}
	}
}
