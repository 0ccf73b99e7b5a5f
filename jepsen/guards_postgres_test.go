//go:build linux

package jepsen_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
	"github.com/writ-io/writ/jepsen/appends"
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
	what := pgfence.Installation{Resource: guardedResource, Tables: []string{"public.list"}}
	if _, err := pgfence.Install(t.Context(), conn, what); err != nil {
		t.Fatal(err)
	}
	return dsn
}

// postgres keeps the list in a table of one row. It compares nothing itself: the database does.
type postgres struct {
	pool   *pgxpool.Pool
	fenced *pgfence.Pool
}

func openPostgres(ctx context.Context, dsn string) (*postgres, error) {
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return nil, err
	}
	fenced, err := pgfence.NewPool(pool, pgfence.Config{})
	return &postgres{pool, fenced}, err
}

func (p *postgres) read(ctx context.Context) (page appends.Page, err error) {
	var data []byte
	if err := p.pool.QueryRow(ctx, "SELECT page FROM list").Scan(&data); err != nil {
		return page, err
	}
	return page, json.Unmarshal(data, &page)
}

func (p *postgres) write(ctx context.Context, page appends.Page, presented fence.Token) error {
	data, err := json.Marshal(page)
	if err != nil {
		return err
	}
	write := fence.Write{Resource: guardedResource, Token: presented}
	return p.fenced.Run(ctx, write, pgx.TxOptions{}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE list SET page = $1", data)
		return err
	})
}
