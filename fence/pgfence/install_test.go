package pgfence_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
)

func install(f *fixture, what pgfence.Installation) (pgfence.Installed, error) {
	f.Helper()
	return pgfence.Install(f.Context(), f.pool, what)
}

func TestInstallIsIdempotent(t *testing.T) {
	f := setUp(t)
	before := catalog(f)
	again := f.install("public.orders")
	if again.Before != again.Version || len(again.Added) != 0 || !slices.Equal(again.Tables, []string{`"public"."orders"`}) {
		t.Fatalf("%+v", again)
	}
	// The floor that it has is kept.
	if _, err := install(f, pgfence.Installation{Resource: resource, Tables: []string{"orders"}, Token: old}); err != nil {
		t.Fatal(err)
	}
	if got := f.text("SELECT floor::text FROM writ.fence"); got != present.Decimal() {
		t.Fatalf("the floor is %s", got)
	}
	if after := catalog(f); after != before {
		t.Fatalf("the catalog changed from\n%s\nto\n%s", before, after)
	}
	// Rights that were granted survive an upgrade.
	app := f.role("idempotent_app", pgfence.Present)
	f.install("orders")
	mustExec(t, rawOn(t, app, present, pgx.TxOptions{}), update)
}

// catalog is what there is of triggers, functions and rights.
func catalog(f *fixture) string {
	return f.text(`SELECT string_agg(line, E'\n' ORDER BY line) FROM (
		SELECT tgname || tgenabled::text || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
		UNION ALL SELECT oid::regprocedure || coalesce(proacl::text, '') || prosrc FROM pg_proc WHERE pronamespace = 'writ'::regnamespace
		UNION ALL SELECT oid::regclass || coalesce(relacl::text, '') FROM pg_class WHERE relnamespace = 'writ'::regnamespace) c(line)`)
}

func TestInstallRepairs(t *testing.T) {
	for name, damage := range map[string]string{
		"disabled":      "ALTER TABLE orders DISABLE TRIGGER writ_fence",
		"all disabled":  "ALTER TABLE orders DISABLE TRIGGER ALL",
		"origin only":   "ALTER TABLE orders ENABLE TRIGGER writ_fence",
		"dropped":       "DROP TRIGGER writ_fence ON orders",
		"fewer events":  "CREATE OR REPLACE TRIGGER writ_fence BEFORE INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION writ.check_write('orders-db', 'a', '1'); ALTER TABLE orders ENABLE ALWAYS TRIGGER writ_fence",
		"other args":    "CREATE OR REPLACE TRIGGER writ_fence BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON orders FOR EACH STATEMENT EXECUTE FUNCTION writ.check_write('orders-db', 'a', '1'); ALTER TABLE orders ENABLE ALWAYS TRIGGER writ_fence",
		"per column":    strings.NewReplacer("UPDATE", "UPDATE OF v").Replace(definition),
		"other body":    "CREATE OR REPLACE FUNCTION writ.check_write() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
		"other explain": "CREATE OR REPLACE FUNCTION writ.explain(name text, presented text) RETURNS void LANGUAGE sql AS 'SELECT'",
		"condition":     strings.NewReplacer("EXECUTE", "WHEN (false) EXECUTE").Replace(definition),
	} {
		t.Run(name, func(t *testing.T) {
			f := setUp(t)
			f.exec(damage)
			if report := verify(f, pgfence.Check{Tables: []string{"orders"}}); report.Protected() {
				t.Fatalf("verify did not find it: %+v", report)
			}
			f.install("orders")
			if report := verify(f, pgfence.Check{Tables: []string{"orders"}}); !report.Protected() {
				t.Fatalf("%+v", report)
			}
			wantStale(t, f.try(old, update), old, present)
		})
	}
}

var definition = "CREATE OR REPLACE TRIGGER writ_fence BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON orders FOR EACH STATEMENT " +
	"EXECUTE FUNCTION writ.check_write('orders-db', '" + pgfence.SettingName("writ", resource) + "', '1'); ALTER TABLE orders ENABLE ALWAYS TRIGGER writ_fence"

// The hashes are computed on both sides of the wire.
func TestNamesAgree(t *testing.T) {
	f := setUp(t)
	for _, name := range []string{resource, "a", "münchen/größe", "quote ' \" \\ $$", strings.Repeat("x", 512)} {
		var key int64
		var setting string
		if err := f.pool.QueryRow(t.Context(), "SELECT writ.lock_key($1), writ.setting_name($1)", name).Scan(&key, &setting); err != nil {
			t.Fatal(err)
		}
		if key != pgfence.LockKey("writ", name) || setting != pgfence.SettingName("writ", name) {
			t.Errorf("%q: SQL has %d %s, Go has %d %s", name, key, setting, pgfence.LockKey("writ", name), pgfence.SettingName("writ", name))
		}
	}
	if pgfence.SettingName("writ", "a") == pgfence.SettingName("other", "a") {
		t.Error("schemas share settings")
	}
}

// Names come from people and must mean what they say, whatever is in them.
func TestNamesAreNotSQL(t *testing.T) {
	f := setUp(t)
	tables := []string{`we"ird; DROP TABLE orders; --`, `Robert'); DROP TABLE orders; --`, `$writ$`, `UPPER case`, `ünï`, `back\slash`}
	for i, name := range tables {
		quoted := pgx.Identifier{name}.Sanitize()
		f.exec("CREATE TABLE " + quoted + " (id int)")
		odd := "res' || pg_sleep(100) || '\\'; DROP TABLE orders; $writ$ %I %s \"" + name
		done, err := install(f, pgfence.Installation{Resource: odd, Tables: []string{"public." + quoted}, Token: present})
		if err != nil || len(done.Added) != 1 {
			t.Fatalf("%s: %+v, %v", name, done, err)
		}
		p := fenced(f, pgfence.Config{})
		insert := "INSERT INTO " + quoted + " VALUES (1)"
		if err := p.Run(t.Context(), fence.Write{Resource: odd, Token: next}, pgx.TxOptions{}, doing(insert)); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		err = p.Run(t.Context(), fence.Write{Resource: odd, Token: present}, pgx.TxOptions{}, doing(insert))
		if stale := (*fence.StaleError)(nil); !asStale(err, &stale) || stale.Resource != odd {
			t.Fatalf("%d: %v", i, err)
		}
		tx := f.raw(0, pgx.TxOptions{})
		mustExec(t, tx, pgfence.Presenting("writ", odd, present))
		_, err = tx.Exec(t.Context(), insert)
		if stale := (*fence.StaleError)(nil); !asStale(pgfence.FromError(err), &stale) || stale.Resource != odd || stale.Floor != next {
			t.Fatalf("%d: %v", i, err)
		}
		_ = tx.Rollback(t.Context())
	}
	report := verify(f, pgfence.Check{InSchemas: []string{"public"}})
	if !report.Protected() || len(report.Tables) != len(tables)+1 {
		t.Fatalf("%+v", report)
	}
	for _, name := range []string{"orders; DROP TABLE orders", `orders"`, "a.b.c.d", "", " ", "public.missing", "pg_class", "pg_catalog.pg_class", "writ.fence", "orders_pkey"} {
		_, err := install(f, pgfence.Installation{Resource: "x", Tables: []string{name}})
		wantIs(t, err, pgfence.ErrInvalid)
	}
	for _, schema := range []string{"Writ", `w"; DROP TABLE orders; --`, "public", "pg_x", strings.Repeat("a", 64), "a b", "a'"} {
		if _, err := install(f, pgfence.Installation{Schema: schema}); err == nil {
			t.Errorf("schema %q was accepted", schema)
		}
	}
	for _, role := range []string{"", `nobody"; DROP TABLE orders; --`, "public"} {
		if err := pgfence.Grant(t.Context(), f.pool, "", role, pgfence.Present); err == nil {
			t.Errorf("role %q was accepted", role)
		}
	}
	if f.content() == "" {
		t.Error("the orders are gone")
	}
}

func TestInstallRefuses(t *testing.T) {
	f := setUp(t)
	f.exec(`CREATE VIEW v AS SELECT 1; CREATE TEMP TABLE temporary_one (id int); CREATE SCHEMA taken AUTHORIZATION pg_monitor; CREATE MATERIALIZED VIEW m AS SELECT 1`)
	for _, what := range []pgfence.Installation{
		{Resource: "x", Tables: []string{"v"}}, {Resource: "x", Tables: []string{"m"}},
		{Tables: []string{"orders"}}, {Resource: "a\nb", Tables: []string{"orders"}}, {Resource: "x", LockTimeout: -1},
		{Schema: "taken"},
	} {
		_, err := install(f, what)
		wantIs(t, err, pgfence.ErrInvalid)
	}
	_, err := install(f, pgfence.Installation{Resource: "other", Tables: []string{"orders"}})
	wantIs(t, err, pgfence.ErrConflict)
	if n := f.text("SELECT count(*)::text FROM writ.fence"); n != "1" {
		t.Fatalf("refused installations left %s fences", n)
	}
	f.exec("INSERT INTO writ.installation VALUES (1000)")
	_, err = install(f, pgfence.Installation{})
	wantIs(t, err, pgfence.ErrNotInstalled)
}

// An installation that fails changes nothing, and one that waits for a table in use gives up.
func TestInstallIsOneTransaction(t *testing.T) {
	f := setUp(t)
	f.exec("CREATE TABLE free (id int); CREATE TABLE used (id int)")
	user := f.raw(0, pgx.TxOptions{})
	mustExec(t, user, "INSERT INTO used VALUES (1)")
	_, err := install(f, pgfence.Installation{Resource: resource, Tables: []string{"free", "used"}, LockTimeout: 1e7})
	if stateOf(err) != "55P03" || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("got %v", err)
	}
	if err := f.try(0, "INSERT INTO free VALUES (1)"); err != nil {
		t.Fatalf("half of it was installed: %v", err)
	}
}

// Default privileges of a database must not open the fence.
func TestDefaultPrivilegesAreTakenBack(t *testing.T) {
	dsn := pgtest.DSN(t)
	f := &fixture{TB: t, dsn: dsn, pool: pgtest.Pool(t, dsn)}
	f.createRole("greedy")
	f.exec(ordersTable + `GRANT ALL ON orders TO greedy;
		ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO greedy; ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO greedy;
		ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO greedy`)
	defer f.exec(`ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM greedy; ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM greedy;
		ALTER DEFAULT PRIVILEGES REVOKE ALL ON SCHEMAS FROM greedy`)
	f.install("orders")
	f.bump(present)
	greedy := poolAs(f, "greedy")
	for _, sql := range []string{"UPDATE writ.fence SET floor = 1", "SELECT writ.set_token('orders-db', 1)", "SELECT writ.raise_floor('orders-db', 99)"} {
		if _, err := greedy.Exec(t.Context(), sql); stateOf(err) != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if report := verify(f, pgfence.Check{}); !report.Protected() {
		t.Errorf("%+v", report.Findings)
	}
}

func TestUninstall(t *testing.T) {
	f := setUp(t)
	f.exec("CREATE TABLE stock (id int)")
	f.install("stock")
	remove := func(what pgfence.Removal) []string {
		t.Helper()
		removed, err := pgfence.Uninstall(t.Context(), f.pool, what)
		if err != nil {
			t.Fatal(err)
		}
		return removed
	}
	_, err := pgfence.Uninstall(t.Context(), f.pool, pgfence.Removal{DropSchema: true})
	wantIs(t, err, pgfence.ErrInvalid)
	if got := remove(pgfence.Removal{Tables: []string{"stock"}}); !slices.Equal(got, []string{`"public"."stock"`}) {
		t.Fatal(got)
	}
	if err := f.try(0, "INSERT INTO stock VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	wantIs(t, f.try(0, update), pgfence.ErrNoToken)
	remove(pgfence.Removal{AllTables: true})
	if err := f.try(0, update); err != nil {
		t.Fatal(err)
	}
	// The floor was kept.
	f.install("orders")
	wantStale(t, f.try(old, update), old, present)
	remove(pgfence.Removal{AllTables: true, DropSchema: true})
	if err := f.try(0, update); err != nil {
		t.Fatal(err)
	}
	_, err = pgfence.Uninstall(t.Context(), f.pool, pgfence.Removal{AllTables: true})
	wantIs(t, err, pgfence.ErrNotInstalled)
}

// A dump brings the fence along, with the floor of its time.
func TestDumpAndRestore(t *testing.T) {
	f := setUp(t)
	cmd := exec.Command(pgtest.Bin("pg_dump"), "--dbname", f.dsn)
	cmd.Stderr = os.Stderr
	dump, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	f.bump(next)
	dsn := pgtest.DSN(t)
	restore := exec.Command(pgtest.Bin("psql"), "--dbname", dsn, "--quiet", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "--output", os.DevNull)
	restore.Stdin = strings.NewReader(string(dump))
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	g := &fixture{TB: t, dsn: dsn, pool: pgtest.Pool(t, dsn)}
	if report := verify(g, pgfence.Check{Tables: []string{"orders"}}); !report.Protected() {
		t.Fatalf("%+v", report)
	}
	// Until it is bumped, it admits who was the holder then: hence, bump before traffic.
	if err := g.try(present, update); err != nil {
		t.Fatal(err)
	}
	g.bump(next)
	wantStale(t, g.try(present, update), present, next)
}
