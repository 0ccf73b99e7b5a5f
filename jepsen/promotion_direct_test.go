//go:build linux

package jepsen_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/jepsen/wait"
)

// directSession is one that knows no guard.
func (l *promotionLab) directSession(d *database) *pgx.Conn {
	l.Helper()
	conn, err := pgx.Connect(l.Context(), d.dsn())
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// writeDirectly presents a token in SQL. What it has committed counts as acknowledged.
func (l *promotionLab) writeDirectly(conn *pgx.Conn, token uint64, id string) error {
	var told receipt
	began := time.Now()
	err := present(l.Context(), conn, token, func(tx pgx.Tx) error { return insertOrder(l.Context(), tx, id, &told) })
	if err == nil {
		l.book.put(id, acked{told, "eu", token, began})
	}
	return err
}

// present writes in a transaction that presents a token as SQL does.
func present(ctx context.Context, conn *pgx.Conn, token uint64, write func(pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select writ.set_token($1, $2)", ordersGroup, int64(token)); err != nil {
			return err
		}
		return write(tx)
	})
	return refusal(err)
}

// refusal says what the fence says, where it is the fence.
func refusal(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return errors.Join(pgfence.FromError(err), err)
	}
	return err
}

// refusesDirectly has a session that overrides what it can present an old token; stale: it is told that the token is.
func (l *promotionLab) refusesDirectly(d *database, token uint64, id string, stale bool) {
	l.Helper()
	conn := l.directSession(d)
	if _, err := conn.Exec(l.Context(), "set default_transaction_read_only = off"); err != nil {
		l.Fatal(err)
	}
	err := l.writeDirectly(conn, token, id)
	if err == nil || stale && !errors.Is(err, fence.ErrStale) {
		l.Errorf("a stubborn session with the old token in %s: %v", d.region, err)
	}
}

// writeThroughFiles goes around the guard of a primary that is cut off, so that what it alone has lies in several files of its
// log, and checkpoints come between.
func (l *promotionLab) writeThroughFiles(conn *pgx.Conn, d *database, token uint64, name string) {
	l.Helper()
	for i := range 3 {
		if err := l.writeDirectly(conn, token, fmt.Sprintf("%s-direct-%d", name, i)); err != nil {
			l.Fatal(err)
		}
		d.exec("select pg_switch_wal()", "checkpoint")
	}
}

// sneak is a program that knows no guard, and presents an old token to a server that is about to be promoted.
type sneak struct {
	cancel context.CancelFunc
	ended  chan struct{}
	// What it has seen, to be read when it has ended.
	tried, stale int
	admitted     []string
}

// sneak begins to write in a session that is kept, and in new ones. It believes what it is told of being read-only, as programs
// do that mean well.
func (l *promotionLab) sneak(ctx context.Context, running *sync.WaitGroup, d *database, token uint64, name string) *sneak {
	l.Helper()
	ctx, cancel := context.WithCancel(ctx)
	s := &sneak{cancel: cancel, ended: make(chan struct{})}
	running.Go(func() {
		defer close(s.ended)
		var conn *pgx.Conn
		for ; wait.For(ctx, time.Millisecond); s.tried++ {
			if conn != nil && s.tried%100 == 0 {
				_ = conn.Close(ctx) // there was nothing under way
			}
			if conn == nil || conn.IsClosed() {
				var err error
				if conn, err = pgx.Connect(ctx, d.dsn()); err != nil {
					continue
				}
			}
			s.try(ctx, conn, token, fmt.Sprintf("%s-sneak-%06d", name, s.tried))
		}
		if conn != nil {
			_ = conn.Close(context.Background()) // as above
		}
	})
	return s
}

// try writes in one message, so that what lies between two tries is short.
func (s *sneak) try(ctx context.Context, conn *pgx.Conn, token uint64, id string) {
	sql := fmt.Sprintf("select writ.set_token('%s', %d); insert into orders values ('%s')", ordersGroup, token, id)
	_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	switch {
	case err == nil:
		s.admitted = append(s.admitted, id)
	case errors.Is(refusal(err), fence.ErrStale):
		s.stale++
	}
}

// judge ends it.
func (s *sneak) judge(l *promotionLab) {
	l.Helper()
	s.cancel()
	<-s.ended
	l.Logf("the old token was presented %d times at the server that was promoted, and was stale %d times", s.tried, s.stale)
	if len(s.admitted) > 0 {
		l.Errorf("%d writes under the old token were taken there, the first is %s", len(s.admitted), s.admitted[0])
	}
	if s.stale == 0 {
		l.Error("it was never told that the token is stale: the test is too weak")
	}
}
