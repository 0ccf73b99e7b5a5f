package pgfence_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
)

func asStale(err error, to **fence.StaleError) bool { return errors.As(err, to) }

func verify(f *fixture, what pgfence.Check) pgfence.Report {
	f.Helper()
	report, err := pgfence.Verify(f.Context(), f.pool, what)
	if err != nil {
		f.Fatal(err)
	}
	return report
}

// finds reports whether there is a finding about an object with this problem.
func finds(r pgfence.Report, severity pgfence.Severity, object, problem string) bool {
	return slices.ContainsFunc(r.Findings, func(f pgfence.Finding) bool {
		return f.Severity == severity && strings.Contains(f.Object, object) && strings.Contains(f.Problem, problem) && f.Fix != ""
	})
}

func TestVerifySound(t *testing.T) {
	f := setUp(t)
	f.exec("CREATE TABLE generated (id int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (2) STORED)")
	f.install("orders", "generated")
	before := f.content()
	report := verify(f, pgfence.Check{InSchemas: []string{"public"}})
	if !report.Protected() || len(report.Findings) != 0 || len(report.Tables) != 2 {
		t.Fatalf("%+v", report)
	}
	for _, table := range report.Tables {
		if !table.Protected || table.Zombie != "refused" || table.Resource != resource {
			t.Errorf("%+v", table)
		}
	}
	if f.content() != before {
		t.Error("verifying changed the table")
	}
}

func TestVerifyFinds(t *testing.T) {
	for name, c := range map[string]struct {
		damage   string
		severity pgfence.Severity
		object   string
		problem  string
	}{
		"unprotected":     {"CREATE TABLE fresh (id int)", pgfence.Unprotected, "fresh", "no fence"},
		"right on fence":  {"GRANT UPDATE ON writ.fence TO pg_monitor", pgfence.Unprotected, "writ.fence", "UPDATE"},
		"column right":    {"GRANT UPDATE (floor) ON writ.fence TO pg_monitor", pgfence.Unprotected, "writ.fence", "UPDATE"},
		"right to create": {"GRANT CREATE ON SCHEMA writ TO pg_monitor", pgfence.Unprotected, "schema writ", "CREATE"},
		"public present":  {"GRANT EXECUTE ON FUNCTION writ.set_token TO PUBLIC", pgfence.Unprotected, "set_token", "EXECUTE"},
		"unlogged":        {"ALTER TABLE writ.turn SET UNLOGGED", pgfence.Unprotected, "writ.turn", "not logged"},
		"rule on fence":   {"CREATE RULE no AS ON UPDATE TO writ.fence DO INSTEAD NOTHING", pgfence.Unprotected, "writ.fence", "rules"},
		"function gone":   {"DROP FUNCTION writ.cut", pgfence.Unprotected, "cut", "missing"},
		"search path":     {"ALTER FUNCTION writ.explain RESET search_path", pgfence.Unprotected, "explain", "altered"},
		"other owner":     {"ALTER FUNCTION writ.drain OWNER TO pg_monitor", pgfence.Unprotected, "drain", "owner"},
		"more functions":  {"CREATE FUNCTION writ.more() RETURNS int LANGUAGE sql AS 'SELECT 1'; REVOKE ALL ON FUNCTION writ.more FROM PUBLIC", pgfence.Weak, "more", "not belong"},
		"rule":            {"CREATE TABLE elsewhere (id int); CREATE RULE away AS ON DELETE TO orders DO INSTEAD INSERT INTO elsewhere VALUES (1)", pgfence.Unprotected, "orders", "was admitted"},
		"torn":            {"DELETE FROM writ.turn", pgfence.Unprotected, "orders-db", "contradict"},
		"draining":        {"SELECT writ.raise_floor('orders-db', " + next.Decimal() + ")", pgfence.Weak, "orders-db", "raised"},
		"fence row gone":  {"DELETE FROM writ.fence", pgfence.Weak, "orders", "no fence for resource"},
		"owner logs in":   {"ALTER TABLE orders OWNER TO landlord", pgfence.Weak, "orders", "landlord"},
		"new schema":      {"CREATE SCHEMA later", pgfence.Weak, "later", "no tables"},
	} {
		t.Run(name, func(t *testing.T) {
			f := setUp(t)
			f.createRole("landlord")
			f.exec(c.damage)
			report := verify(f, pgfence.Check{InSchemas: []string{"public", "later"}})
			if !finds(report, c.severity, c.object, c.problem) {
				t.Fatalf("%+v", report)
			}
			if report.Protected() == (c.severity == pgfence.Unprotected) {
				t.Fatalf("Protected is %v: %+v", report.Protected(), report.Findings)
			}
		})
	}
}

// A table that was made beside protected ones, and forgotten, is told of without being asked about. It may need no fence.
func TestVerifyFindsNeighbours(t *testing.T) {
	f := setUp(t)
	f.exec("CREATE TABLE refunds (id int); CREATE SCHEMA aside; CREATE TABLE aside.notes (id int)")
	report := verify(f, pgfence.Check{})
	if !finds(report, pgfence.Weak, `"public"."refunds"`, "no fence") || len(report.Findings) != 1 || !report.Protected() {
		t.Errorf("%+v", report)
	}
	if len(report.Tables) != 1 {
		t.Errorf("looked at %+v", report.Tables)
	}
}

// A superuser, or the owner of a table, can take the protection away. That cannot be prevented from inside of the
// database; verify finds it.
func TestSuperusersCanDisableIt(t *testing.T) {
	f := setUp(t)
	for _, sql := range []string{"ALTER TABLE orders DISABLE TRIGGER ALL", "DROP TRIGGER IF EXISTS writ_fence ON orders"} {
		f.exec(sql)
		if err := f.try(0, update); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if report := verify(f, pgfence.Check{Tables: []string{"orders"}}); report.Protected() {
			t.Fatalf("%s: %+v", sql, report)
		}
	}
	// A disabled trigger that is restored within the transaction leaves no trace.
	f.install("orders")
	tx := f.raw(0, pgx.TxOptions{})
	for _, sql := range []string{"ALTER TABLE orders DISABLE TRIGGER writ_fence", update, "ALTER TABLE orders ENABLE ALWAYS TRIGGER writ_fence"} {
		mustExec(t, tx, sql)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if report := verify(f, pgfence.Check{Tables: []string{"orders"}}); !report.Protected() {
		t.Fatalf("%+v", report)
	}
}

func TestVerifyWithoutRights(t *testing.T) {
	f := setUp(t)
	if _, err := pgfence.Verify(t.Context(), f.role("onlooker"), pgfence.Check{}); stateOf(err) != "42501" {
		t.Fatalf("got %v", err)
	}
	if _, err := pgfence.Verify(t.Context(), f.pool, pgfence.Check{Schema: "elsewhere"}); !errors.Is(err, pgfence.ErrNotInstalled) {
		t.Fatalf("got %v", err)
	}
}

func TestPartitions(t *testing.T) {
	f := setUp(t)
	f.exec(`CREATE TABLE events (id int, at int) PARTITION BY RANGE (at);
		CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10);
		CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id);
		CREATE TABLE events_2a PARTITION OF events_2 DEFAULT;
		CREATE TABLE base (id int); CREATE TABLE derived (more int) INHERITS (base);`)
	_, err := install(f, pgfence.Installation{Resource: resource, Tables: []string{"events_1"}})
	wantIs(t, err, pgfence.ErrInvalid) // it could be written to through events
	if done := f.install("events", "base"); len(done.Added) != 6 {
		t.Fatalf("%+v", done)
	}
	tables := []string{"events", "events_1", "events_2", "events_2a", "base", "derived"}
	writesTo := func(table string) []string {
		return []string{"DELETE FROM " + table, "UPDATE " + table + " SET id = 1", "TRUNCATE " + table, "DELETE FROM ONLY " + table}
	}
	for _, table := range tables {
		for _, sql := range writesTo(table) {
			wantIs(t, f.try(0, sql), pgfence.ErrNoToken)
			wantStale(t, f.try(old, sql), old, present)
		}
	}
	if err := f.try(present, "INSERT INTO events VALUES (1, 5), (2, 15)"); err != nil {
		t.Fatal(err)
	}
	if err := f.try(present, "UPDATE events SET at = at + 5 WHERE id = 1"); err != nil { // moves rows
		t.Fatal(err)
	}

	// A partition that comes later is protected against writes through its parents only, which verify finds.
	f.exec("CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30)")
	wantStale(t, f.try(old, "INSERT INTO events VALUES (1, 25)"), old, present)
	if err := f.try(0, "INSERT INTO events_3 VALUES (1, 25)"); err != nil {
		t.Fatalf("the limit that is documented is gone: %v", err)
	}
	report := verify(f, pgfence.Check{})
	if !finds(report, pgfence.Unprotected, "events_3", "no fence") {
		t.Fatalf("%+v", report)
	}
	if done := f.install("events"); !slices.Equal(done.Added, []string{`"public"."events_3"`}) {
		t.Fatalf("%+v", done)
	}
	if report := verify(f, pgfence.Check{}); !report.Protected() {
		t.Fatalf("%+v", report)
	}
	// A parent that comes later is a new way to the tables below it.
	f.exec("CREATE TABLE above (id int); ALTER TABLE base INHERIT above")
	if err := f.try(0, "DELETE FROM above"); err != nil {
		t.Fatalf("the limit that is documented is gone: %v", err)
	}
	if report := verify(f, pgfence.Check{}); !finds(report, pgfence.Unprotected, "above", "no fence") {
		t.Fatalf("%+v", report)
	}
}

func TestStatus(t *testing.T) {
	f := setUp(t)
	f.exec("CREATE TABLE stock (id int)")
	if _, err := install(f, pgfence.Installation{Resource: "a-stock", Tables: []string{"stock"}}); err != nil {
		t.Fatal(err)
	}
	tx := f.raw(present, pgx.TxOptions{})
	mustExec(t, tx, update)
	states, err := pgfence.Status(t.Context(), f.pool, "")
	if err != nil || len(states) != 2 {
		t.Fatalf("%+v, %v", states, err)
	}
	stock, orders := states[0], states[1]
	if stock.Resource != "a-stock" || stock.Floor != 1 || !slices.Equal(stock.Tables, []string{`"public"."stock"`}) || len(stock.Holders) != 0 {
		t.Errorf("%+v", stock)
	}
	if orders.Floor != present || orders.Drained != present || orders.FloorDecimal != present.Decimal() || orders.RaisedBy != "postgres" ||
		len(orders.Holders) != 1 || orders.Holders[0].PID != int(tx.Conn().PgConn().PID()) {
		t.Errorf("%+v", orders)
	}
}
