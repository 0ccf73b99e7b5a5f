package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
)

// promote makes a standby the primary: it replays what it has to have, is promoted, has its fence raised, and then takes
// writes.
func (s *Server) promote(ctx context.Context, task *writv1.Task, say *strings.Builder) (position *writv1.Position, _ []string, err error) {
	err = with(ctx, s.cfg.DSN, false, func(conn *pgx.Conn) error {
		st, err := where(ctx, conn)
		if err != nil {
			return err
		}
		if st.recovering {
			if err := s.replay(ctx, conn, st, task, say); err != nil {
				return err
			}
			// Nobody writes to it by default before its fence has been raised.
			if _, err := s.setReadOnly(ctx, conn, true); err != nil {
				return err
			}
			if err := promoteNow(ctx, conn); err != nil {
				return err
			}
		} else {
			tell(say, "it is a primary already")
		}
		if st, err = where(ctx, conn); err != nil {
			return err
		}
		tell(say, "primary on timeline %d at %s", st.timeline, st.at)
		position = st.proto()
		if err := s.raise(ctx, task, say); err != nil {
			return err
		}
		_, err = s.setReadOnly(ctx, conn, false)
		return err
	})
	return position, nil, err
}

// replay waits for the position that has to be reached, and for what has been received.
func (s *Server) replay(ctx context.Context, conn *pgx.Conn, st state, task *writv1.Task, say *strings.Builder) error {
	want := task.GetPosition()
	planned := task.GetMode() == writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER || task.GetMode() == writv1.PromotionMode_PROMOTION_MODE_FAILBACK
	if planned && want != nil {
		if systemOf(want) != st.system {
			return fmt.Errorf("the position to reach is in log %q, and this server is of system %s: they are not of one cluster", want.GetLog(), st.system)
		}
		var at string
		err := until(ctx, "waiting for what the other side had written", func() (reached bool, err error) {
			err = conn.QueryRow(ctx, "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn, pg_last_wal_replay_lsn()::text", lsn(want.GetBytes()).String()).Scan(&reached, &at)
			return reached, err
		})
		if err != nil {
			return fmt.Errorf("it is at %s and has to reach %s: %w", at, lsn(want.GetBytes()), err)
		}
		tell(say, "has reached %s", lsn(want.GetBytes()))
		return nil
	}
	return replayReceived(ctx, conn, say)
}

// replayReceived waits as long as what has been received is being replayed: a standby that has not been told to promote itself
// can still stay one. It does not wait for all of it. The log comes in pages, and replay stands still before a record that was
// cut off; whatever else holds it up, such as a query or a pause, pg_promote replays all that there is.
func replayReceived(ctx context.Context, conn *pgx.Conn, say *strings.Builder) error {
	var received *string // nil: nothing has come since the server started
	if err := conn.QueryRow(ctx, "select pg_last_wal_receive_lsn()::text").Scan(&received); err != nil {
		return err
	}
	var at string
	still := 0
	return until(ctx, "replaying what was received", func() (done bool, err error) {
		before := at
		err = conn.QueryRow(ctx, "select coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, true), coalesce(pg_last_wal_replay_lsn(), '0/0')::text", received).Scan(&done, &at)
		if done || err != nil {
			return done, err
		}
		if still++; at != before {
			still = 0
		}
		if still < int(replayStill/lookEvery) {
			return false, nil
		}
		tell(say, "it has received %s, and replay stands still at %s", *received, at)
		return true, nil
	})
}

// promoteNow promotes and waits until the server is a primary.
func promoteNow(ctx context.Context, conn *pgx.Conn) error {
	wait := 60
	if deadline, ok := ctx.Deadline(); ok {
		wait = max(1, int(time.Until(deadline).Seconds()))
	}
	var done bool
	if err := conn.QueryRow(ctx, "select pg_promote(true, $1)", wait).Scan(&done); err != nil {
		return fmt.Errorf("pg_promote: %w", err)
	}
	return until(ctx, "waiting for the promotion", func() (primary bool, err error) {
		err = conn.QueryRow(ctx, "select not pg_is_in_recovery()").Scan(&primary)
		return primary, err
	})
}

// raise raises the fence in the database to the task's token.
func (s *Server) raise(ctx context.Context, task *writv1.Task, say *strings.Builder) error {
	if s.cfg.Fence == Off || task.GetToken() == 0 && s.cfg.Fence == Auto {
		return nil
	}
	if task.GetToken() == 0 {
		return errors.New("the task carries no token to raise the fence to")
	}
	return s.fenced(ctx, task, say, func(pool *pgxpool.Pool) error {
		token := fence.Token(task.GetToken())
		bumped, err := pgfence.Bump(ctx, pool, pgfence.Config{Schema: s.cfg.FenceSchema}, task.GetResource(), token)
		if err != nil {
			return fmt.Errorf("raising the fence: %w", err)
		}
		tell(say, "the fence of %s is at %v (%s)", task.GetResource(), token, bumped.Proof)
		return nil
	})
}

// fenced runs do if the database has a fence of the task's resource. One that has not is an error where it is required.
func (s *Server) fenced(ctx context.Context, task *writv1.Task, say *strings.Builder, do func(*pgxpool.Pool) error) error {
	cfg, err := pgxpool.ParseConfig(s.cfg.DSN)
	if err != nil {
		return err
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = application
	cfg.ConnConfig.RuntimeParams["default_transaction_read_only"] = "off"
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	states, err := pgfence.Status(ctx, pool, s.cfg.FenceSchema)
	missing := errors.Is(err, pgfence.ErrNotInstalled)
	if err != nil && !missing {
		return fmt.Errorf("looking at the fence: %w", err)
	}
	for _, st := range states {
		if st.Resource == task.GetResource() {
			return do(pool)
		}
	}
	if s.cfg.Fence == Required {
		return fmt.Errorf("the database has no fence of %q: run writ-guard sql install, or set fence to auto", task.GetResource())
	}
	tell(say, "the database has no fence of %s", task.GetResource())
	return nil
}

// verify writes under the new token, and asks that the old one, if there was one, is refused. It needs package pgfence.
func (s *Server) verify(ctx context.Context, task *writv1.Task, say *strings.Builder) (*writv1.Position, []string, error) {
	asked := false
	err := s.fenced(ctx, task, say, func(pool *pgxpool.Pool) error {
		asked = true
		states, err := pgfence.Status(ctx, pool, s.cfg.FenceSchema)
		if err != nil {
			return err
		}
		var table string
		for _, st := range states {
			if st.Resource == task.GetResource() && len(st.Tables) > 0 {
				table = st.Tables[0]
			}
		}
		if table == "" {
			return fmt.Errorf("no table is protected for %q: run writ-guard sql install", task.GetResource())
		}
		fresh := canary(ctx, pool, s.cfg.FenceSchema, task.GetResource(), fence.Token(task.GetToken()), table)
		if fresh != nil {
			return fmt.Errorf("the canary with the new token has to succeed: %w", fresh)
		}
		if task.GetOldToken() == 0 {
			tell(say, "a write to %s with token %v succeeded; there was no token before", table, fence.Token(task.GetToken()))
			return nil
		}
		stale := canary(ctx, pool, s.cfg.FenceSchema, task.GetResource(), fence.Token(task.GetOldToken()), table)
		switch {
		case stale == nil:
			return errors.New("the canary with the old token WAS COMMITTED: the database is not fenced")
		case !errors.Is(stale, fence.ErrStale):
			return fmt.Errorf("the canary with the old token has to be refused as stale: %w", stale)
		}
		tell(say, "a write to %s with token %v succeeded, one with %v was refused", table, fence.Token(task.GetToken()), fence.Token(task.GetOldToken()))
		return nil
	})
	if err == nil && !asked {
		err = fmt.Errorf("nothing can be verified without a fence of %q in the database: run writ-guard sql install, or configure the hook verify with a guard's URL", task.GetResource())
	}
	return nil, nil, err
}

// canary commits a write that changes no row of a protected table: the fence judges statements, not rows. What it logs makes
// the commit wait for the disk, so that a server which cannot write is noticed. The token is presented in SQL as a zombie
// would, for a client that knows better would not send it.
func canary(ctx context.Context, pool *pgxpool.Pool, schema, resource string, token fence.Token, table string) error {
	if !token.Valid() {
		return fmt.Errorf("the task carries no such token: %v", token)
	}
	if schema == "" {
		schema = pgfence.DefaultSchema
	}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select "+pgx.Identifier{schema, "set_token"}.Sanitize()+"($1, $2)", resource, int64(token)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "delete from "+table+" where false"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "select pg_logical_emit_message(true, 'writ', 'canary')")
		return err
	})
	return pgfence.FromError(err)
}
