package pgfence_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
)

// poolAs connects as another role, which must be able to log in.
func poolAs(f *fixture, role string) *pgxpool.Pool {
	f.Helper()
	return pgtest.Pool(f, f.dsn, "user="+role)
}

// poolWith connects with settings of the session.
func poolWith(f *fixture, settings ...string) *pgxpool.Pool {
	f.Helper()
	return pgtest.Pool(f, f.dsn, "options='-c "+strings.Join(settings, " -c ")+"'")
}

// createRole makes a role that can log in. Roles belong to the whole server, so tests use different names, and may find
// theirs from the last time.
func (f *fixture) createRole(name string) {
	f.Helper()
	f.exec("DO $$ BEGIN CREATE ROLE " + name + " LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
}

// role makes a role that can log in and use the tables.
func (f *fixture) role(name string, rights ...pgfence.Right) *pgxpool.Pool {
	f.Helper()
	f.createRole(name)
	f.exec("GRANT ALL ON ALL TABLES IN SCHEMA public TO " + name)
	if len(rights) > 0 {
		if err := pgfence.Grant(f.Context(), f.pool, "", name, rights...); err != nil {
			f.Fatal(err)
		}
	}
	return poolAs(f, name)
}

const update = "UPDATE orders SET v = v + 1 WHERE id = 1"

func TestRoleWithoutGrantIsNotTrusted(t *testing.T) {
	f := setUp(t)
	stranger := f.role("stranger")
	tx := rawOn(t, stranger, present, pgx.TxOptions{})
	_, err := tx.Exec(t.Context(), update)
	wantIs(t, pgfence.FromError(err), pgfence.ErrNotTrusted)
	if strings.Contains(err.Error(), present.Decimal()) && strings.Contains(err.Error(), "floor") {
		t.Errorf("the floor was told to somebody who may not know: %v", err)
	}
	for _, sql := range []string{
		"SELECT * FROM writ.fence", "UPDATE writ.fence SET floor = 1", "DELETE FROM writ.fence", "TRUNCATE writ.fence CASCADE",
		"UPDATE writ.turn SET drained = 1", "INSERT INTO writ.fence (resource, floor, drained) VALUES ('x', 1, 1)", "DROP TABLE writ.turn",
		"SELECT writ.set_token('orders-db', 1)", "SELECT writ.raise_floor('orders-db', 9223372036854775807)", "SELECT writ.drain('orders-db')",
		"SELECT writ.cut('orders-db', 1)", "SELECT writ.holders('orders-db')", "SELECT writ.state('orders-db')",
		"ALTER TABLE orders DISABLE TRIGGER writ_fence", "DROP TRIGGER writ_fence ON orders", "SET session_replication_role = replica",
		"CREATE FUNCTION writ.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
	} {
		if _, err := stranger.Exec(t.Context(), sql); stateOf(err) != "42501" {
			t.Errorf("%s: got %v, want permission denied", sql, err)
		}
	}
}

func TestGrantsAreSeparate(t *testing.T) {
	f := setUp(t)
	writer, raiser, ender := f.role("writer", pgfence.Present), f.role("raiser", pgfence.Raise), f.role("ender", pgfence.Raise, pgfence.End)
	w := fence.Write{Resource: resource, Token: present}
	run := func(pool *pgxpool.Pool, w fence.Write) error {
		p, err := pgfence.NewPool(pool, pgfence.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return p.Run(t.Context(), w, pgx.TxOptions{}, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), update)
			return err
		})
	}
	if err := run(writer, w); err != nil {
		t.Fatal(err)
	}
	// A writer that may not raise waits for somebody who does.
	if err := run(writer, fence.Write{Resource: resource, Token: next}); stateOf(err) != "42501" {
		t.Fatalf("got %v, want permission denied", err)
	}
	wantIs(t, run(raiser, w), pgfence.ErrNotTrusted)

	// Only who may cut can end a transaction that does not end by itself.
	zombie := rawOn(t, writer, present, pgx.TxOptions{})
	mustExec(t, zombie, update)
	cfg := pgfence.Config{Bump: short}
	_, err := pgfence.Bump(t.Context(), raiser, cfg, resource, next)
	var busy *pgfence.BusyError
	if !errors.As(err, &busy) || len(busy.Holders) != 1 || busy.Holders[0].Role != "writer" || !strings.Contains(err.Error(), "grant it cut") {
		t.Fatalf("got %v", err)
	}
	got, err := pgfence.Bump(t.Context(), ender, cfg, resource, next)
	if err != nil || got.Proof != pgfence.Cut || len(got.Ended) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := run(writer, fence.Write{Resource: resource, Token: next}); err != nil {
		t.Fatal(err)
	}
	if err := pgfence.Revoke(t.Context(), f.pool, "", "writer", pgfence.Present); err != nil {
		t.Fatal(err)
	}
	wantIs(t, run(writer, fence.Write{Resource: resource, Token: next}), pgfence.ErrNotTrusted)
}

// Who may cut can end stale transactions and no others.
func TestCutSparesThePresentHolder(t *testing.T) {
	f := setUp(t)
	ender := f.role("sparing_ender", pgfence.End)
	holder := f.raw(present, pgx.TxOptions{})
	mustExec(t, holder, update)
	for _, token := range []fence.Token{old, present, next} {
		var n int
		if err := ender.QueryRow(t.Context(), "SELECT count(*) FROM writ.cut($1, $2)", resource, int64(token)).Scan(&n); err != nil || n != 0 {
			t.Fatalf("cut at %s: %d, %v", token, n, err)
		}
	}
	if err := holder.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The role that logged in is the one that presents the token, in whoever's name it acts.
func TestTrustIsInTheRoleThatLoggedIn(t *testing.T) {
	f := setUp(t)
	app := f.role("app_login", pgfence.Present)
	stranger := f.role("stranger_login")
	f.createRole("tenant")
	f.exec(`CREATE FUNCTION pay() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'UPDATE public.orders SET v = v + 1 WHERE id = 1';
		GRANT ALL ON orders TO tenant; GRANT tenant TO app_login, stranger_login;`)
	for _, prelude := range []string{"SELECT 1", "SET LOCAL ROLE tenant"} {
		for _, sql := range []string{update, "SELECT pay()"} {
			tx := rawOn(t, app, present, pgx.TxOptions{})
			mustExec(t, tx, prelude)
			mustExec(t, tx, sql)
			_ = tx.Rollback(t.Context())
			tx = rawOn(t, stranger, present, pgx.TxOptions{})
			mustExec(t, tx, prelude)
			_, err := tx.Exec(t.Context(), sql)
			wantIs(t, pgfence.FromError(err), pgfence.ErrNotTrusted)
			_ = tx.Rollback(t.Context())
		}
	}
}

// Objects of a role that come first in its search path are not used by the fence.
func TestSearchPathCannotBeHijacked(t *testing.T) {
	f := setUp(t)
	stranger, trusted := f.role("hijacker"), f.role("trusted_hijacker", pgfence.Present)
	f.exec("CREATE SCHEMA trap; GRANT ALL ON SCHEMA trap TO PUBLIC")
	for _, sql := range []string{
		"CREATE FUNCTION trap.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$SELECT '" + present.Decimal() + "'$$",
		"CREATE FUNCTION trap.has_function_privilege(name, oid, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
		"CREATE FUNCTION trap.pg_try_advisory_xact_lock_shared(bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
		"CREATE FUNCTION trap.always(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
		"CREATE FUNCTION trap.always(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
		"CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.always)",
		"CREATE OPERATOR trap.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.always)",
		"CREATE DOMAIN trap.text AS pg_catalog.text", "CREATE DOMAIN trap.int8 AS pg_catalog.int8",
	} {
		f.exec(sql)
	}
	for _, c := range []struct {
		pool  *pgxpool.Pool
		token fence.Token
		want  error
	}{{stranger, present, pgfence.ErrNotTrusted}, {stranger, old, pgfence.ErrNotTrusted}, {trusted, old, fence.ErrStale}} {
		tx := rawOn(t, c.pool, c.token, pgx.TxOptions{})
		mustExec(t, tx, "SET LOCAL search_path = trap, pg_catalog, public")
		_, err := tx.Exec(t.Context(), "UPDATE orders SET v = 1 WHERE v OPERATOR(pg_catalog.=) 0")
		wantIs(t, pgfence.FromError(err), c.want)
	}
}

// Anybody may take an advisory lock. That can hold writers up until the next bump, and no longer.
func TestForeignLockHoldersAreCut(t *testing.T) {
	f := setUp(t)
	rogue := rawOn(t, f.role("rogue"), 0, pgx.TxOptions{})
	mustExec(t, rogue, "SELECT pg_advisory_xact_lock_shared($1)", pgfence.LockKey("writ", resource))
	got := <-f.goBump(next, pgfence.BumpOptions{DrainTimeout: 50 * time.Millisecond, CutTimeout: 5 * time.Second})
	if got.err != nil || got.Proof != pgfence.Cut {
		t.Fatalf("%+v", got)
	}
}

func TestLackingRights(t *testing.T) {
	f := setUp(t)
	all := []pgfence.Right{pgfence.End, pgfence.Present, pgfence.Raise}
	for name, c := range map[string]struct{ has, lacks []pgfence.Right }{
		"lacks_all":     {nil, all},
		"lacks_raising": {[]pgfence.Right{pgfence.Present}, []pgfence.Right{pgfence.End, pgfence.Raise}},
		"lacks_cutting": {[]pgfence.Right{pgfence.Raise, pgfence.Present}, []pgfence.Right{pgfence.End}},
		"lacks_none":    {all, nil},
	} {
		pool := f.role(name, c.has...)
		role, lacking, err := pgfence.Lacking(t.Context(), pool, "", all...)
		if err != nil || role != name || !slices.Equal(lacking, c.lacks) {
			t.Errorf("%s: %q lacks %v, %v", name, role, lacking, err)
		}
	}
	_, _, err := pgfence.Lacking(t.Context(), f.pool, "", "fly")
	wantIs(t, err, pgfence.ErrInvalid)
	_, _, err = pgfence.Lacking(t.Context(), f.pool, "elsewhere", pgfence.Raise)
	wantIs(t, err, pgfence.ErrNotInstalled)
}
