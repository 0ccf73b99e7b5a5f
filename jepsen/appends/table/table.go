package table

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/jepsen/appends"
)

// Resource is what whoever writes must hold.
const Resource = "orders-pg"

// drain is how long transactions under an older token may go on: less than a writer waits for a read.
const drain = 300 * time.Millisecond

// Create makes the list in a database, with a fence around it if it is to have one.
func Create(ctx context.Context, conn *pgx.Conn, fenced bool) error {
	_, err := conn.Exec(ctx, `CREATE TABLE list_end (n bigint NOT NULL, page jsonb NOT NULL); INSERT INTO list_end VALUES (0, '{}');
		CREATE TABLE list_writes (n bigint PRIMARY KEY, page jsonb NOT NULL, token bigint NOT NULL)`)
	if err != nil || !fenced {
		return err
	}
	_, err = pgfence.Install(ctx, conn, pgfence.Installation{Resource: Resource, Tables: []string{"public.list_end", "public.list_writes"}})
	return err
}

// List is a list in a database. Its methods are safe for concurrent use.
type List struct {
	pool *pgxpool.Pool
	// present begins a transaction, which presents a token if there is a fence.
	present func(ctx context.Context, token fence.Token, do func(pgx.Tx) error) error
}

// Open connects when it has to. Without a fence nothing is compared.
func Open(ctx context.Context, dsn string, fenced bool) (*List, error) {
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return nil, err
	}
	l := &List{pool: pool, present: func(ctx context.Context, _ fence.Token, do func(pgx.Tx) error) error {
		return pgx.BeginFunc(ctx, pool, do)
	}}
	if !fenced {
		return l, nil
	}
	p, err := pgfence.NewPool(pool, pgfence.Config{Bump: pgfence.BumpOptions{DrainTimeout: drain}})
	if err != nil {
		pool.Close()
		return nil, err
	}
	l.present = func(ctx context.Context, token fence.Token, do func(pgx.Tx) error) error {
		return p.Run(ctx, fence.Write{Resource: Resource, Token: token}, pgx.TxOptions{}, do)
	}
	return l, nil
}

// Close ends its connections.
func (l *List) Close() { l.pool.Close() }

// Read returns the end of the list. Errors: fence.ErrStale.
func (l *List) Read(ctx context.Context, token fence.Token) (page appends.Page, err error) {
	err = l.present(ctx, token, func(tx pgx.Tx) error {
		var data []byte
		if err := tx.QueryRow(ctx, "SELECT page FROM list_end").Scan(&data); err != nil {
			return err
		}
		return json.Unmarshal(data, &page)
	})
	return page, err
}

// Write replaces the end of the list. Errors: fence.ErrStale; see [Undone].
func (l *List) Write(ctx context.Context, page appends.Page, token fence.Token) error {
	data, err := json.Marshal(page)
	if err != nil {
		return err
	}
	return l.present(ctx, token, func(tx pgx.Tx) error {
		var n int64
		if err := tx.QueryRow(ctx, "UPDATE list_end SET n = n + 1, page = $1 RETURNING n", data).Scan(&n); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "INSERT INTO list_writes (n, page, token) VALUES ($1, $2, $3)", n, data, int64(token))
		return err
	})
}

// Undone tells whether a write that failed was surely not committed: the database said so, or was never reached.
func Undone(err error) bool {
	var said *pgconn.PgError
	var unreached *pgconn.ConnectError
	switch {
	case errors.Is(err, fence.ErrStale), errors.As(err, &unreached):
		return true
	case errors.As(err, &said):
		return said.SeverityUnlocalized == "ERROR" // the others end the connection, perhaps after the commit
	}
	return false
}

// Row is a write, by its number.
type Row struct {
	N int64
	appends.Applied
}

// After reads the writes that come after one, by number: 0 for all.
func After(ctx context.Context, conn *pgx.Conn, n int64) ([]Row, error) {
	rows, err := conn.Query(ctx, "SELECT n, page, token FROM list_writes WHERE n > $1 ORDER BY n", n)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Row, err error) {
		var token int64
		var page []byte
		if err := row.Scan(&r.N, &page, &token); err != nil {
			return r, err
		}
		r.Token = fence.Token(token)
		return r, json.Unmarshal(page, &r.Page)
	})
}
