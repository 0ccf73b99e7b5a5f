package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// others are the sessions of programs: not this one, and not the agent's that look.
const others = `backend_type = 'client backend' and pid <> pg_backend_pid()
	and not (application_name = '` + application + `' and usename = current_user)`

// drain stops writing and answers the position behind which nothing comes that was acknowledged.
func (s *Server) drain(ctx context.Context, task *writv1.Task, say *strings.Builder) (position *writv1.Position, _ []string, err error) {
	err = with(ctx, s.cfg.DSN, false, func(conn *pgx.Conn) error {
		st, err := where(ctx, conn)
		if err != nil {
			return err
		}
		if st.recovering {
			return errors.New("it is a standby: there is nothing to drain; is the group's primary where the quorum thinks it is?")
		}
		if err := s.stopWriters(ctx, conn, say); err != nil {
			return err
		}
		if st, err = s.final(ctx, conn, "drained for "+task.GetPromotion()); err != nil {
			return err
		}
		position = st.proto()
		tell(say, "drained at %s of timeline %d", st.at, st.timeline)
		return nil
	})
	return position, nil, err
}

// stopWriters makes sessions read-only and ends those that could write all the same.
func (s *Server) stopWriters(ctx context.Context, conn *pgx.Conn, say *strings.Builder) error {
	since, err := s.setReadOnly(ctx, conn, true)
	if err != nil {
		return err
	}
	if s.cfg.Grace > 0 {
		graced, cancel := context.WithTimeout(ctx, s.cfg.Grace)
		err := until(graced, "waiting for transactions", func() (idle bool, err error) {
			err = conn.QueryRow(ctx, "select not exists (select from pg_stat_activity where xact_start is not null and backend_start < $1 and "+others+")", since).Scan(&idle)
			return idle, err
		})
		cancel()
		if err != nil && ctx.Err() != nil {
			return err
		}
	}
	ended := 0
	// A session of before has the old default, and one that has an id writes in spite of the new one.
	const writers = "(backend_start < $1 or backend_xid is not null) and " + others
	err = until(ctx, "ending sessions that may write", func() (bool, error) {
		var left, terminated int
		err := conn.QueryRow(ctx, "select count(*)::int, (count(*) filter (where pg_terminate_backend(pid)))::int from pg_stat_activity where "+writers, since).Scan(&left, &terminated)
		ended = max(ended, terminated)
		return left == 0, err
	})
	if err != nil {
		return err
	}
	tell(say, "read-only by default; %d sessions ended", ended)
	var prepared string
	if err := conn.QueryRow(ctx, "select coalesce(string_agg(quote_literal(gid), ', '), '') from (select gid from pg_prepared_xacts limit 5) p").Scan(&prepared); err != nil {
		return err
	}
	if prepared != "" {
		return fmt.Errorf("prepared transactions are open: %s: COMMIT PREPARED or ROLLBACK PREPARED them, then resume", prepared)
	}
	return nil
}

// setReadOnly sets the default of new sessions and waits until it is theirs. Sessions that began after the answer have it.
func (s *Server) setReadOnly(ctx context.Context, conn *pgx.Conn, on bool) (since time.Time, err error) {
	change := "alter system reset default_transaction_read_only"
	if on {
		change = "alter system set default_transaction_read_only = on"
	}
	for _, sql := range []string{change, "select pg_reload_conf()"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return since, fmt.Errorf("%s: %w", sql, err)
		}
	}
	// The reload is not done when it is asked for.
	err = until(ctx, "waiting for the configuration to be read", func() (as bool, err error) {
		err = with(ctx, s.cfg.DSN, true, func(fresh *pgx.Conn) error {
			return fresh.QueryRow(ctx, "select current_setting('default_transaction_read_only')::bool = $1, clock_timestamp()", on).Scan(&as, &since)
		})
		return as, err
	})
	return since, err
}

// final writes a last record and answers where it ends. Whatever was acknowledged before, also without waiting for the disk,
// comes before it.
func (s *Server) final(ctx context.Context, conn *pgx.Conn, text string) (state, error) {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set local synchronous_commit = local"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "select pg_logical_emit_message(true, 'writ', $1)", text)
		return err
	})
	if err != nil {
		return state{}, err
	}
	return where(ctx, conn)
}

// undrain lets sessions write again, after the fence has been raised where there is a token to raise it to.
func (s *Server) undrain(ctx context.Context, task *writv1.Task, say *strings.Builder) (*writv1.Position, []string, error) {
	err := with(ctx, s.cfg.DSN, false, func(conn *pgx.Conn) error {
		st, err := where(ctx, conn)
		if err != nil {
			return err
		}
		if st.recovering {
			return errors.New("it is a standby, and cannot write: promote it by a plan")
		}
		if err := s.raise(ctx, task, say); err != nil {
			return err
		}
		if _, err := s.setReadOnly(ctx, conn, false); err != nil {
			return err
		}
		tell(say, "sessions write again")
		return nil
	})
	return nil, nil, err
}

// demote makes a former primary harmless: read-only, without sessions that write, and stopped where that is configured. One
// that does not run is harmless already; whether it does is only known where its data directory, or a command, is.
func (s *Server) demote(ctx context.Context, _ *writv1.Task, say *strings.Builder) (*writv1.Position, []string, error) {
	err := with(ctx, s.cfg.DSN, false, func(conn *pgx.Conn) error {
		st, err := where(ctx, conn)
		if err != nil {
			return err
		}
		if st.recovering {
			tell(say, "it is a standby")
			return nil
		}
		return s.stopWriters(ctx, conn, say)
	})
	if s.cfg.StopOnDemote {
		if stopErr := s.stop(ctx, say); stopErr != nil {
			return nil, nil, errors.Join(err, stopErr)
		}
		return nil, nil, nil
	}
	if err != nil && s.cfg.DataDir != "" {
		if running, runErr := s.running(ctx); runErr == nil && !running {
			tell(say, "it does not run")
			return nil, nil, nil
		}
	}
	return nil, nil, err
}
