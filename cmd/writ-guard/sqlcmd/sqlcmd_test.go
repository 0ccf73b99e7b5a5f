package sqlcmd_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writ-io/writ/cmd/writ-guard/sqlcmd"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// run runs a command line as the program would, below a root of its own.
func run(t *testing.T, dsn string, args ...string) (stdout string, code int, err error) {
	t.Helper()
	root := &cobra.Command{Use: "writ-guard", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(sqlcmd.Command())
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append([]string{"sql", "--dsn", dsn}, args...))
	err = root.ExecuteContext(t.Context())
	var coded interface{ ExitCode() int }
	switch {
	case errors.As(err, &coded):
		code = coded.ExitCode()
	case err != nil:
		code = 1
	}
	return out.String(), code, err
}

func setUp(t *testing.T) (string, *pgxpool.Pool) {
	t.Helper()
	dsn := pgtest.DSN(t)
	pool := pgtest.Pool(t, dsn)
	exec(t, pool, "CREATE TABLE orders (id int); CREATE TABLE other (id int)")
	return dsn, pool
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, dsn string, args ...string) string {
	t.Helper()
	out, code, err := run(t, dsn, args...)
	if err != nil || code != 0 {
		t.Fatalf("%v: %d %v\n%s", args, code, err, out)
	}
	return out
}

func TestCommands(t *testing.T) {
	dsn, pool := setUp(t)
	if _, code, err := run(t, dsn, "verify"); code != 1 || !strings.Contains(err.Error(), "not installed") {
		t.Fatalf("%d %v", code, err)
	}
	out := must(t, dsn, "install", "--resource", "orders-db", "--table", "public.orders")
	if !strings.Contains(out, `"public"."orders"  protected now`) {
		t.Fatal(out)
	}
	out = must(t, dsn, "install", "--resource", "orders-db", "--table", "orders")
	if !strings.Contains(out, "protected before") {
		t.Fatal(out)
	}
	out = must(t, dsn, "bump", "--resource", "orders-db", "--token", "4.7", "-o", "json")
	var bumped struct{ Resource, Token, TokenText, Proof string }
	if err := json.Unmarshal([]byte(out), &bumped); err != nil || bumped.Token != "1125899906842631" || bumped.TokenText != "4.7" || bumped.Proof != "acked" {
		t.Fatalf("%v: %s", err, out)
	}
	if out = must(t, dsn, "status"); !strings.Contains(out, "orders-db  4.7") {
		t.Fatal(out)
	}
	if _, code, err := run(t, dsn, "bump", "--resource", "orders-db", "--token", "4.6"); code != 2 {
		t.Fatalf("a stale bump: %d %v", code, err)
	}
	if out = must(t, dsn, "verify"); !strings.Contains(out, "no fence, and other tables") {
		t.Fatal(out)
	}
	out, code, err := run(t, dsn, "verify", "--in-schema", "public", "-o", "json")
	var report struct {
		Protected bool
		Findings  []struct{ Severity, Object string }
	}
	if e := json.Unmarshal([]byte(out), &report); e != nil || code != 2 || report.Protected || len(report.Findings) != 1 || report.Findings[0].Severity != "unprotected" {
		t.Fatalf("%d %v %v\n%s", code, err, e, out)
	}
	exec(t, pool, "DO $$ BEGIN CREATE ROLE sqlcmd_app LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
	must(t, dsn, "grant", "--role", "sqlcmd_app", "--allow", "present,raise,cut")
	must(t, dsn, "revoke", "--role", "sqlcmd_app", "--allow", "cut")
	app := dsn + " user=sqlcmd_app"
	if _, code, err := run(t, app, "verify"); code != 4 {
		t.Fatalf("verify without rights: %d %v", code, err)
	}
	must(t, app, "bump", "--resource", "orders-db", "--token", "4.8")
	if out = must(t, dsn, "uninstall", "--all-tables", "--drop-schema"); !strings.Contains(out, `"public"."orders"`) {
		t.Fatal(out)
	}
}

func TestBumpThatIsPending(t *testing.T) {
	dsn, pool := setUp(t)
	must(t, dsn, "install", "--resource", "orders-db", "--table", "orders")
	must(t, dsn, "bump", "--resource", "orders-db", "--token", "4.7")
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"SELECT writ.set_token('orders-db', 1125899906842631)", "INSERT INTO orders VALUES (1)"} {
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	bump := []string{"bump", "--resource", "orders-db", "--token", "4.8", "--drain-timeout", "50ms"}
	if _, code, err := run(t, dsn, append(bump, "--no-cut")...); code != 6 || !strings.Contains(err.Error(), "still run") {
		t.Fatalf("%d %v", code, err)
	}
	if out := must(t, dsn, "status"); !strings.Contains(out, "NO, up to 4.7") {
		t.Fatal(out)
	}
	if out := must(t, dsn, bump...); !strings.Contains(out, "cut") {
		t.Fatal(out)
	}
	_ = tx.Rollback(t.Context()) // its backend is gone
}

func TestBadCommandLines(t *testing.T) {
	dsn, _ := setUp(t)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"bump", "--resource", "x"}, 1, "token"},
		{[]string{"bump", "--resource", "x", "--token", "-1"}, 1, "token"},
		{[]string{"bump", "--resource", "x", "--token", "9223372036854775808"}, 1, "token"},
		{[]string{"bump", "--resource", "x", "--token", "4.7"}, 1, "not installed"},
		{[]string{"install", "--table", "orders"}, 1, "resource"},
		{[]string{"install", "--resource", "x", "--table", "orders; DROP TABLE orders"}, 1, "orders; DROP"},
		{[]string{"install", "--resource", "x", "--schema", "Bad Schema"}, 1, "schema"},
		{[]string{"install", "extra"}, 1, "extra"},
		{[]string{"uninstall"}, 1, "required"},
		{[]string{"uninstall", "--all-tables", "--table", "x"}, 1, "all-tables"},
		{[]string{"status", "-o", "xml"}, 1, "xml"},
		{[]string{"grant", "--role", "postgres", "--allow", "everything"}, 1, "everything"},
		{[]string{"grant"}, 1, "role"},
		{[]string{"status", "--dsn", "host=/nowhere"}, 5, "nowhere"},
		{[]string{"status", "--dsn", "this is no dsn"}, 1, "dsn"},
		{[]string{"status", "--dsn", dsn + " user=nobody_here"}, 4, "nobody_here"},
	} {
		out, code, err := run(t, dsn, c.args...)
		if code != c.code || err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %d %v\n%s", c.args, code, err, out)
		}
	}
}

func TestDSNFromTheEnvironment(t *testing.T) {
	dsn, _ := setUp(t)
	t.Setenv(sqlcmd.DSNVariable, dsn)
	must(t, "", "install")
}

func TestHelp(t *testing.T) {
	out, code, err := run(t, "", "--help")
	if code != 0 || err != nil {
		t.Fatalf("%d %v", code, err)
	}
	for _, name := range []string{"install", "verify", "uninstall", "status", "bump", "grant", "revoke"} {
		if !strings.Contains(out, "\n  "+name+" ") {
			t.Errorf("help does not name %s:\n%s", name, out)
		}
	}
}
