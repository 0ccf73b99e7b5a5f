package database_test

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/fence/guard/database"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const (
	old     = fence.Token(7<<48 | 1)
	present = fence.Token(7<<48 | 2)
	next    = fence.Token(7<<48 | 9)

	// patience bounds every wait for what must happen.
	patience = time.Minute
)

// fixture is a database with a table for each of two resources, and what raises their fences.
type fixture struct {
	*testing.T
	dsn  string
	pool *pgxpool.Pool
	*database.Database
}

func setUp(t *testing.T, change func(*database.Config)) *fixture {
	t.Helper()
	dsn := pgtest.DSN(t)
	f := &fixture{T: t, dsn: dsn, pool: pgtest.Pool(t, dsn)}
	f.exec("CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE bills (id int PRIMARY KEY)")
	for _, name := range []string{"orders", "bills"} {
		if _, err := pgfence.Install(t.Context(), f.pool, pgfence.Installation{Resource: name, Tables: []string{name}}); err != nil {
			t.Fatal(err)
		}
	}
	c := database.Config{DSN: dsn, Resources: []string{"orders", "bills"}, CheckEvery: database.MinCheckEvery}
	if change != nil {
		change(&c)
	}
	var err error
	if f.Database, err = database.Open(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func (f *fixture) exec(sql string, args ...any) {
	f.Helper()
	if _, err := f.pool.Exec(f.Context(), sql, args...); err != nil {
		f.Fatalf("%s: %v", sql, err)
	}
}

func (f *fixture) raise(resource string, token fence.Token) {
	f.Helper()
	if err := f.Raise(f.Context(), []gate.Floor{{Resource: resource, Token: token}}); err != nil {
		f.Fatal(err)
	}
}

// write inserts under a token, as a program does that trusts nobody to raise the fence for it.
func (f *fixture) write(token fence.Token, id int) error {
	return pgx.BeginFunc(f.Context(), f.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(f.Context(), "SELECT writ.set_token('orders', $1)", int64(token)); err != nil {
			return pgfence.FromError(err)
		}
		_, err := tx.Exec(f.Context(), "INSERT INTO orders VALUES ($1)", id)
		return pgfence.FromError(err)
	})
}

func (f *fixture) drained(resource string) fence.Token {
	f.Helper()
	at, err := pgfence.Drained(f.Context(), f.pool, "", resource)
	if err != nil {
		f.Fatal(err)
	}
	return at
}

// watch looks at the database until the test ends.
func (f *fixture) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Database.Run(ctx)
	}()
	f.Cleanup(func() {
		cancel()
		<-done
	})
}

func (f *fixture) await(what string, ok func() bool) {
	f.Helper()
	for deadline := time.Now().Add(patience); !ok(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatalf("%s: does not happen", what)
		}
	}
}

func TestOlderTokensAreRefusedOnceItIsRaised(t *testing.T) {
	f := setUp(t, nil)
	f.raise("orders", present)
	if err := f.write(present, 1); err != nil {
		t.Fatal(err)
	}
	f.raise("orders", next)
	if err := f.write(present, 2); !errors.Is(err, fence.ErrStale) {
		t.Errorf("an older token: %v", err)
	}
	if err := f.write(next, 3); err != nil {
		t.Error(err)
	}
	if at := f.drained("bills"); at != 1 {
		t.Errorf("the fence of bills is at %v", at)
	}
}

// A transaction under an older token that does not end is ended, and has left nothing when the raise has answered.
func TestTransactionsUnderOlderTokensAreEnded(t *testing.T) {
	f := setUp(t, func(c *database.Config) { c.Bump.DrainTimeout = 100 * time.Millisecond })
	f.raise("orders", present)
	tx, err := f.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "SELECT writ.set_token('orders', $1)", int64(present)); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO orders VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	f.raise("orders", next)
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("it has committed")
	}
	var rows int
	if err := f.pool.QueryRow(t.Context(), "SELECT count(*) FROM orders").Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

// A transaction that cannot be ended fails the raise, and one resource's does not keep the others from being raised.
func TestRaiseThatCannotBeProved(t *testing.T) {
	f := setUp(t, func(c *database.Config) {
		c.Bump = pgfence.BumpOptions{DrainTimeout: 100 * time.Millisecond, NoCut: true}
	})
	f.raise("orders", present)
	tx, err := f.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"SELECT writ.set_token('orders', " + present.Decimal() + ")", "INSERT INTO orders VALUES (1)"} {
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	err = f.Raise(t.Context(), []gate.Floor{{Resource: "bills", Token: next}, {Resource: "orders", Token: next}})
	if !errors.Is(err, pgfence.ErrBusy) || f.Err() == nil {
		t.Errorf("raised over a transaction that goes on: %v", err)
	}
	if at := f.drained("bills"); at != next {
		t.Errorf("the fence of bills is at %v", at)
	}
	if err := f.Look(t.Context()); err != nil || !errors.Is(f.Err(), pgfence.ErrBusy) {
		t.Errorf("after a look that found nothing (%v): %v", err, f.Err())
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.raise("orders", next)
	if f.Err() != nil {
		t.Error(f.Err())
	}
}

// A fence that a writer has raised further is none that fails, and what is older than it has ended.
func TestFenceThatIsFurther(t *testing.T) {
	f := setUp(t, nil)
	if _, err := pgfence.Bump(t.Context(), f.pool, pgfence.Config{}, "orders", next); err != nil {
		t.Fatal(err)
	}
	f.raise("orders", present)
	if at := f.drained("orders"); at != next {
		t.Errorf("the fence is at %v", at)
	}
}

func TestDatabaseThatWasPutBack(t *testing.T) {
	f := setUp(t, nil)
	f.raise("orders", next)
	f.watch()
	f.exec("UPDATE writ.fence SET floor = 1, drained = 1; UPDATE writ.turn SET drained = 1")
	f.await("raised again", func() bool { return f.drained("orders") == next })
	if err := f.write(present, 1); !errors.Is(err, fence.ErrStale) {
		t.Errorf("an older token: %v", err)
	}
}

// A standby takes no writes, so that nothing of it has to be waited for; when it is promoted, it is raised.
func TestStandby(t *testing.T) {
	f := setUp(t, nil)
	f.raise("orders", present)
	pgtest.Standby(t)
	f.pool.Reset()
	f.await("the server answers", func() bool { return f.Check(t.Context()) == nil })
	f.raise("orders", next)
	if at := f.drained("orders"); at != present {
		t.Fatalf("the fence is at %v", at)
	}
	f.watch()
	f.exec("SELECT pg_promote()")
	f.await("raised", func() bool { return f.drained("orders") == next })
	if err := f.write(present, 1); !errors.Is(err, fence.ErrStale) {
		t.Errorf("an older token: %v", err)
	}
}

// role makes one that can log in. Roles belong to the whole server, and may be there from the last time.
func (f *fixture) role(name string, rights ...pgfence.Right) {
	f.Helper()
	f.exec("DO $$ BEGIN CREATE ROLE " + name + " LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
	if len(rights) > 0 {
		if err := pgfence.Grant(f.Context(), f.pool, "", name, rights...); err != nil {
			f.Fatal(err)
		}
	}
}

func TestDatabasesThatCannotBeFenced(t *testing.T) {
	f := setUp(t, nil)
	f.role("stranger")
	f.role("presenter", pgfence.Present)
	f.role("raiser", pgfence.Raise)
	for name, c := range map[string]struct {
		dsn, resource, says string
		passes              bool
		raises              bool // while nobody has to be cut
	}{
		"nobody listens":   {dsn: "host=" + t.TempDir() + " dbname=x", passes: true},
		"no such database": {dsn: f.dsn + "x"},
		"no fence":         {dsn: f.dsn, resource: "unknown"},
		"no rights":        {dsn: f.dsn + " user=stranger"},
		"may only present": {dsn: f.dsn + " user=presenter", says: `role "presenter" may not raise and cut: writ-guard sql grant --role presenter --allow raise,cut`},
		"may not cut":      {dsn: f.dsn + " user=raiser", says: `role "raiser" may not cut: writ-guard sql grant --role raiser --allow cut`, raises: true},
	} {
		t.Run(name, func(t *testing.T) {
			resource := cmp.Or(c.resource, "orders")
			d, err := database.Open(database.Config{DSN: c.dsn, Resources: []string{resource}})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := d.Check(t.Context()); err == nil || pgfence.Unreachable(err) != c.passes || !strings.Contains(err.Error(), c.says) {
				t.Errorf("checked: %v", err)
			}
			if err := d.Raise(t.Context(), []gate.Floor{{Resource: resource, Token: next}}); (err == nil) != c.raises || (d.Err() == nil) != c.raises {
				t.Errorf("raised: %v", err)
			}
		})
	}
}

// A right that is taken away shows before the next raise needs it.
func TestRightsAreLookedAt(t *testing.T) {
	f := setUp(t, nil)
	f.role("keeper", pgfence.Raise, pgfence.End)
	d, err := database.Open(database.Config{DSN: f.dsn + " user=keeper", Resources: []string{"orders"}, CheckEvery: database.MinCheckEvery})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	if err := d.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept := &fixture{T: t, Database: d}
	kept.watch()
	if err := pgfence.Revoke(t.Context(), f.pool, "", "keeper", pgfence.End); err != nil {
		t.Fatal(err)
	}
	f.await("it shows", func() bool { return d.Err() != nil && strings.Contains(d.Err().Error(), "may not") })
	if err := pgfence.Grant(t.Context(), f.pool, "", "keeper", pgfence.Raise, pgfence.End); err != nil {
		t.Fatal(err)
	}
	f.await("it is over", func() bool { return d.Err() == nil })
	if n := f.drained("orders"); n != 1 {
		t.Errorf("a look has raised the fence to %v", n)
	}
}

func TestCanary(t *testing.T) {
	f := setUp(t, nil)
	f.raise("orders", next)
	probe := &writv1.GuardProbe{Resource: "orders", Token: uint64(old)}
	if routed, refused, detail := f.Probe(t.Context(), probe); !routed || !refused || detail != `"public"."orders": refused` {
		t.Errorf("%v %v %q", routed, refused, detail)
	}
	f.exec("ALTER TABLE orders DISABLE TRIGGER USER")
	if _, refused, detail := f.Probe(t.Context(), probe); refused || !strings.Contains(detail, "admitted") {
		t.Errorf("without its trigger: %v %q", refused, detail)
	}
	f.exec("DROP TABLE orders")
	if _, refused, detail := f.Probe(t.Context(), probe); refused || !strings.Contains(detail, "no table is protected") {
		t.Errorf("without a table: %v %q", refused, detail)
	}
	if routed, _, _ := f.Probe(t.Context(), &writv1.GuardProbe{Resource: "other"}); routed {
		t.Error("a resource of another database is routed")
	}
}

func TestConfigurationsThatCannotBe(t *testing.T) {
	for want, c := range map[string]database.Config{
		"Resources":  {},
		"empty":      {Resources: []string{""}},
		"CheckEvery": {Resources: []string{"r"}, CheckEvery: time.Nanosecond},
		"DSN":        {Resources: []string{"r"}, DSN: "host=a port=b"},
		"schema":     {Resources: []string{"r"}, Schema: "public"},
		"Drain":      {Resources: []string{"r"}, Bump: pgfence.BumpOptions{DrainTimeout: -1}},
	} {
		if _, err := database.Open(c); !errors.Is(err, database.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
