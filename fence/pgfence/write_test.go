package pgfence_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
)

// waitLimit bounds every wait of a test for something that is certain to come.
const waitLimit = 30 * time.Second

// writes are the ways in which SQL can change a table.
var writes = map[string]string{
	"insert":              "INSERT INTO orders VALUES (11, 1)",
	"insert select":       "INSERT INTO orders SELECT 12, 1",
	"insert on conflict":  "INSERT INTO orders VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET v = 5",
	"conflict do nothing": "INSERT INTO orders VALUES (1, 5) ON CONFLICT DO NOTHING",
	"update":              "UPDATE orders SET v = v + 1 WHERE id = 1",
	"update of no row":    "UPDATE orders SET v = v + 1 WHERE id = -1",
	"update from":         "UPDATE orders SET v = s.i FROM generate_series(1, 2) s(i) WHERE id = s.i",
	"delete":              "DELETE FROM orders WHERE id = 2",
	"truncate":            "TRUNCATE orders",
	"truncate cascade":    "TRUNCATE orders CASCADE",
	"merge update":        "MERGE INTO orders o USING (SELECT 3 AS id) s ON o.id = s.id WHEN MATCHED THEN UPDATE SET v = 9",
	"merge insert":        "MERGE INTO orders o USING (SELECT 13 AS id) s ON o.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id, 9)",
	"merge delete":        "MERGE INTO orders o USING (SELECT 3 AS id) s ON o.id = s.id WHEN MATCHED THEN DELETE",
	"writable CTE":        "WITH gone AS (DELETE FROM orders WHERE id = 4 RETURNING *) SELECT * FROM gone",
	"nested CTE":          "WITH a AS (UPDATE orders SET v = 1 WHERE id = 5 RETURNING id), b AS (INSERT INTO orders VALUES (14, 1)) SELECT * FROM a",
	"function":            "SELECT touch()",
	"do block":            "DO $$ BEGIN UPDATE orders SET v = 2; END $$",
	"dynamic SQL":         "DO $$ BEGIN EXECUTE 'DELETE FROM orders'; END $$",
	"view":                "UPDATE orders_view SET v = 3 WHERE id = 6",
	"rule":                "INSERT INTO mailbox VALUES (15)",
	"foreign trigger":     "INSERT INTO events VALUES (1)",
	"explain analyze":     "EXPLAIN ANALYZE DELETE FROM orders WHERE id = 7",
	"procedure":           "CALL touch_all()",
}

const waysToWrite = `
	CREATE FUNCTION touch() RETURNS void LANGUAGE sql AS 'UPDATE orders SET v = v + 1 WHERE id = 1';
	CREATE PROCEDURE touch_all() LANGUAGE plpgsql AS 'BEGIN UPDATE orders SET v = v + 1; END';
	CREATE VIEW orders_view AS SELECT * FROM orders;
	CREATE TABLE mailbox (id int);
	CREATE RULE deliver AS ON INSERT TO mailbox DO INSTEAD INSERT INTO orders VALUES (NEW.id, 0);
	CREATE TABLE events (id int);
	CREATE FUNCTION on_event() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM orders WHERE id = 8; RETURN NEW; END';
	CREATE TRIGGER on_event BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION on_event();
`

func TestEveryWriteIsChecked(t *testing.T) {
	f := setUp(t)
	f.exec(waysToWrite)
	for name, sql := range writes {
		t.Run(name, func(t *testing.T) {
			before := f.content()
			wantIs(t, f.try(0, sql), pgfence.ErrNoToken)
			wantStale(t, f.try(old, sql), old, present)
			wantIs(t, f.try(next, sql), pgfence.ErrNotRaised)
			if after := f.content(); after != before {
				t.Fatalf("a refused write changed %s to %s", before, after)
			}
			if err := f.try(present, sql); err != nil {
				t.Fatalf("the present holder was refused: %v", err)
			}
			mustExec(t, f.raw(0, pgx.TxOptions{}), "SELECT 1")
			restore(f)
		})
	}
}

// restore puts the orders back, as the present holder.
func restore(f *fixture) {
	f.Helper()
	tx := f.raw(present, pgx.TxOptions{})
	mustExec(f, tx, "TRUNCATE orders")
	mustExec(f, tx, "INSERT INTO orders SELECT i, 0 FROM generate_series(1, 10) i")
	if err := tx.Commit(f.Context()); err != nil {
		f.Fatal(err)
	}
}

func TestReadsNeedNoToken(t *testing.T) {
	f := setUp(t)
	for _, sql := range []string{"SELECT * FROM orders", "SELECT * FROM orders FOR UPDATE", "LOCK TABLE orders IN EXCLUSIVE MODE", "ANALYZE orders", "COPY orders TO STDOUT"} {
		if err := f.try(0, sql); err != nil && !strings.HasPrefix(sql, "COPY") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestCopyIsChecked(t *testing.T) {
	f := setUp(t)
	copyIn := func(token fence.Token) error {
		tx := f.raw(token, pgx.TxOptions{})
		if _, err := tx.CopyFrom(t.Context(), pgx.Identifier{"orders"}, []string{"id", "v"}, pgx.CopyFromRows([][]any{{30, 1}, {31, 2}})); err != nil {
			_ = tx.Rollback(t.Context())
			return pgfence.FromError(err)
		}
		return tx.Commit(t.Context())
	}
	before := f.content()
	wantIs(t, copyIn(0), pgfence.ErrNoToken)
	wantStale(t, copyIn(old), old, present)
	if f.content() != before {
		t.Fatal("a refused COPY changed the table")
	}
	if err := copyIn(present); err != nil {
		t.Fatal(err)
	}
}

// A replication role skips ordinary triggers; superusers can become one at any time.
func TestReplicaRoleIsChecked(t *testing.T) {
	f := setUp(t)
	for _, sql := range []string{"UPDATE orders SET v = 1", "TRUNCATE orders", "INSERT INTO orders VALUES (99, 1)"} {
		tx := f.raw(old, pgx.TxOptions{})
		mustExec(t, tx, "SET LOCAL session_replication_role = replica")
		_, err := tx.Exec(t.Context(), sql)
		wantStale(t, pgfence.FromError(err), old, present)
		_ = tx.Rollback(t.Context())
	}
}

func TestPreparedStatementsAreChecked(t *testing.T) {
	f := setUp(t)
	conn, err := f.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	mustExec(t, conn, "PREPARE up AS UPDATE orders SET v = v + 1 WHERE id = $1")
	mustExec(t, conn, "SET plan_cache_mode = force_generic_plan")
	run := func(token fence.Token) error {
		mustExec(t, conn, "BEGIN")
		defer func() { mustExec(t, conn, "ROLLBACK") }()
		mustExec(t, conn, pgfence.Presenting("writ", resource, token))
		_, err := conn.Exec(t.Context(), "EXECUTE up(1)")
		return pgfence.FromError(err)
	}
	for range 8 { // long enough for every cache to be in use
		if err := run(present); err != nil {
			t.Fatal(err)
		}
	}
	wantStale(t, run(old), old, present)
	f.bump(next)
	wantStale(t, run(present), present, next)
	if err := run(next); err != nil {
		t.Fatal(err)
	}
}

// The token is presented for one transaction, and what one statement was admitted with says nothing about the next.
func TestEveryStatementIsChecked(t *testing.T) {
	f := setUp(t)
	tx := f.raw(present, pgx.TxOptions{})
	mustExec(t, tx, "UPDATE orders SET v = 1 WHERE id = 1")
	mustExec(t, tx, pgfence.Presenting("writ", resource, old))
	_, err := tx.Exec(t.Context(), "UPDATE orders SET v = 1 WHERE id = 2")
	wantStale(t, pgfence.FromError(err), old, present)
}

func TestCascadesAreChecked(t *testing.T) {
	f := setUp(t)
	f.createRole("clerk")
	f.exec(`CREATE TABLE customers (id int PRIMARY KEY);
		INSERT INTO customers VALUES (1), (2);
		CREATE TABLE invoices (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE CASCADE ON UPDATE CASCADE);
		INSERT INTO invoices VALUES (1, 1), (2, 2);
		GRANT ALL ON customers, invoices TO clerk;`)
	f.install("invoices")
	for _, sql := range []string{"DELETE FROM customers WHERE id = 1", "UPDATE customers SET id = 5 WHERE id = 1", "TRUNCATE customers CASCADE"} {
		wantIs(t, f.try(0, sql), pgfence.ErrNoToken)
		wantStale(t, f.try(old, sql), old, present)
	}
	if err := f.try(present, "DELETE FROM customers WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	if n := f.text("SELECT count(*)::text FROM invoices"); n != "1" {
		t.Fatalf("%s invoices are left", n)
	}
	// A cascade runs as the owner of the table; the token is still that of who deletes.
	if err := pgfence.Grant(t.Context(), f.pool, "", "clerk", pgfence.Present); err != nil {
		t.Fatal(err)
	}
	tx := rawOn(t, poolAs(f, "clerk"), present, pgx.TxOptions{})
	mustExec(t, tx, "DELETE FROM customers WHERE id = 2")
}

// Constraint triggers that write at commit are within the transaction, and so is their token.
func TestDeferredWritesAreChecked(t *testing.T) {
	f := setUp(t)
	f.exec(`CREATE TABLE audit (id int);
		CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE orders SET v = 77 WHERE id = 1; RETURN NULL; END';
		CREATE CONSTRAINT TRIGGER late AFTER INSERT ON audit DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();`)
	wantIs(t, pgfence.FromError(f.try(0, "INSERT INTO audit VALUES (1)")), pgfence.ErrNoToken)
	wantStale(t, pgfence.FromError(f.try(old, "INSERT INTO audit VALUES (1)")), old, present)
	if err := f.try(present, "INSERT INTO audit VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	if v := f.text("SELECT v::text FROM orders WHERE id = 1"); v != "77" {
		t.Fatalf("v = %s", v)
	}
}
