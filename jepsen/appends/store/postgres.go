//go:build linux

package store

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/jepsen/appends"
)

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
	write := fence.Write{Resource: Resource, Token: presented}
	return p.fenced.Run(ctx, write, pgx.TxOptions{}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE list SET page = $1", data)
		return err
	})
}
