//go:build linux

package jepsen_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
	"github.com/writ-io/writ/jepsen/appends/store"
)

// preparePostgres makes a database with a table for the list and a fence around it, and returns its DSN.
func preparePostgres(t *testing.T) string {
	t.Helper()
	dsn := pgtest.DSN(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), `CREATE TABLE list (page jsonb NOT NULL); INSERT INTO list VALUES ('{}')`); err != nil {
		t.Fatal(err)
	}
	what := pgfence.Installation{Resource: store.Resource, Tables: []string{"public.list"}}
	if _, err := pgfence.Install(t.Context(), conn, what); err != nil {
		t.Fatal(err)
	}
	return dsn
}
