package pgfence

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// session is what raising a fence needs of a driver.
type session interface {
	// inTx runs one READ COMMITTED transaction, whatever the role's defaults are. wait is its lock_timeout.
	inTx(ctx context.Context, wait time.Duration, do func(context.Context, tx) error) error
}

// tx is an open transaction of a session.
type tx interface {
	// query calls scan for every row.
	query(ctx context.Context, scan func(dest func(...any) error) error, sql string, args ...any) error
}

// beginner begins transactions through pgx: a [pgx.Conn], a pgxpool.Pool or a pgxpool.Conn.
type beginner interface {
	BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error)
}

type pgxSession struct{ db beginner }

// limits bounds what may be waited for: by lock_timeout alone, so that statement_timeout, which a role may have set for
// its queries, must not end a drain early.
func limits(wait time.Duration) string {
	return fmt.Sprintf("set local lock_timeout = %d; set local statement_timeout = 0", max(wait.Milliseconds(), 1))
}

// slack is what a few round trips may take on top of a wait inside of the database. A network that swallows packets must
// not hold anybody up for ever.
const slack = 15 * time.Second

func bounded(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, wait+slack)
}

func (s pgxSession) inTx(ctx context.Context, wait time.Duration, do func(context.Context, tx) error) error {
	ctx, cancel := bounded(ctx, wait)
	defer cancel()
	opts := pgx.TxOptions{BeginQuery: "begin isolation level read committed read write; " + limits(wait)}
	return pgx.BeginTxFunc(ctx, s.db, opts, func(t pgx.Tx) error { return do(ctx, pgxTx{t}) })
}

type pgxTx struct{ pgx.Tx }

func (t pgxTx) query(ctx context.Context, scan func(dest func(...any) error) error, sql string, args ...any) error {
	rows, err := t.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

type sqlSession struct{ db *sql.DB }

func (s sqlSession) inTx(ctx context.Context, wait time.Duration, do func(context.Context, tx) error) error {
	ctx, cancel := bounded(ctx, wait)
	defer cancel()
	t, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer func() { _ = t.Rollback() }() // of no effect after a commit
	if _, err := t.ExecContext(ctx, "set transaction read write; "+limits(wait)); err != nil {
		return err
	}
	if err := do(ctx, sqlTx{t}); err != nil {
		return err
	}
	return t.Commit()
}

type sqlTx struct{ *sql.Tx }

func (t sqlTx) query(ctx context.Context, scan func(dest func(...any) error) error, sql string, args ...any) error {
	rows, err := t.QueryContext(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
