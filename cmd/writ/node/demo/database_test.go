package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/fence/pgfence/pgprograms"
)

// dirOf is a directory as short as that of a story, for the path of a socket is limited.
func dirOf(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "writ-demo-test")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// needPostgres skips where there is none, except in CI.
func needPostgres(t *testing.T) {
	t.Helper()
	_, _, err := pgprograms.Find(t.Context())
	if errors.Is(err, pgprograms.ErrMissing) && os.Getenv("WRIT_CI") != "1" {
		t.Skip(err)
	}
	must(t, err)
}

// processesIn counts the processes that name dir in their command line.
func processesIn(t *testing.T, dir string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	n := 0
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && bytes.Contains(line, []byte(dir)) {
			n++
		}
	}
	return n
}

func TestDatabaseLeavesNothingBehind(t *testing.T) {
	needPostgres(t)
	dir := dirOf(t)
	d := StartDatabase(t.Context(), dir)
	defer d.Close()
	must(t, d.ready(t.Context()))
	if processesIn(t, dir) == 0 {
		t.Error("no process runs in the directory")
	}
	w, err := newWriter(t.Context(), "test", "", d.dsn(databaseRole))
	must(t, err)
	defer w.close(context.Background())
	if _, err := w.pool.Exec(t.Context(), "INSERT INTO ledger (line) VALUES ('x')"); err == nil || !strings.Contains(err.Error(), "WF001") {
		t.Errorf("a row without a token: %v, want WF001", err)
	}
	if _, err := w.pool.Exec(t.Context(), "ALTER TABLE ledger DISABLE TRIGGER ALL"); err == nil {
		t.Error("the writers' role owns the table")
	}
	rows, err := d.readRows(t.Context())
	if err != nil || len(rows) != 0 {
		t.Errorf("the table holds %q, %v", rows, err)
	}
	d.Close()
	if n := processesIn(t, dir); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

func TestDatabaseIsBrokenOffWhileItStarts(t *testing.T) {
	needPostgres(t)
	for _, after := range []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
		dir := dirOf(t)
		ctx, cancel := context.WithTimeout(t.Context(), after)
		d := StartDatabase(ctx, dir)
		err := d.ready(context.Background())
		d.Close()
		cancel()
		t.Logf("after %v: %v", after, err)
		if n := processesIn(t, dir); n != 0 {
			t.Errorf("broken off after %v: %d processes are left", after, n)
		}
		if !errors.Is(err, context.DeadlineExceeded) && err != nil {
			t.Errorf("broken off after %v: %v", after, err)
		}
	}
}

func TestDatabaseThatCannotStart(t *testing.T) {
	needPostgres(t)
	dir := filepath.Join(dirOf(t), strings.Repeat("x", 120)) // too long for a socket
	must(t, os.Mkdir(dir, 0o700))
	if os.Geteuid() == 0 {
		must(t, os.Chmod(filepath.Dir(dir), 0o711))
	}
	var out strings.Builder
	told := newTeller(Stage{Out: &out, Database: StartDatabase(t.Context(), dir)})
	defer told.Database.Close()
	must(t, told.setUpDatabase(t.Context()))
	if text := out.String(); told.hasRows() || !strings.Contains(text, "PostgreSQL does not start: the server has ended: ") || !strings.Contains(text, "goes on without") {
		t.Errorf("it says %q", text)
	}
	if n := processesIn(t, dir); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

func TestSettingsNameAnyDirectory(t *testing.T) {
	d := &Database{dir: `/tmp/it's \here`}
	if got := d.dsn("x"); got != `host='/tmp/it\'s \\here' port=5432 user=x dbname=postgres sslmode=disable` {
		t.Errorf("got %s", got)
	}
}
