// Scheduler plans work in one process and does it in all: one leader over all regions makes tasks of what is requested, and
// fenced workers do them.
//
// The leader writes the tasks of a request in one transaction under its token, so that a leader that was paused cannot plan
// what another has planned. Tasks are spread over lanes, which the workers of all processes divide among themselves; a worker
// writes results under the token of its lane, to a table of the lane, because a table has one fence. So the result of a
// worker that was paused is refused when somebody else has the lane. Leader and workers know each other by the database
// alone, and fail one by one.
//
// With a PostgreSQL at hand, and a quorum of three regions from "go run ./cmd/writ dev --dir /tmp/writ":
//
//	source /tmp/writ/env
//	export DATABASE_URL=postgres://postgres@localhost/shop
//	go run ./singleton/examples/scheduler -setup
//	WRIT_REGION=eu go run ./singleton/examples/scheduler    # and in other terminals with us, ap
//	psql $DATABASE_URL -c 'INSERT INTO requests (parts) VALUES (100)'
//
// Then pause, kill or stop the leader or another one, and look at
//
//	psql $DATABASE_URL -c 'SELECT request, count(*), sum(result) FROM results GROUP BY request'
//	go run ./cmd/writ lease list reports/
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
)

const (
	leader = "reports/leader" // the resource of who plans, and what the tasks are fenced for
	group  = "reports/lanes"  // of the workers, who divide the lanes
	lanes  = 6
)

// table is where the results of a lane go.
func table(lane int) string { return fmt.Sprintf("results_%d", lane) }

var (
	database = flag.String("database", os.Getenv("DATABASE_URL"), "the PostgreSQL database; without it $DATABASE_URL")
	every    = flag.Duration("every", time.Second, "how often to look for work")
	ttl      = flag.Duration("ttl", lease.DefaultTTL, "how long others wait when this process has died")
	setup    = flag.Bool("setup", false, "create the tables and fence them, and end")
)

func main() {
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) { // as after a signal
		slog.Error("ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("%q is not a flag: leave it out, or see -help", flag.Arg(0))
	case *database == "":
		return errors.New("-database is empty: name one, such as postgres://app@db/shop, or set DATABASE_URL")
	case *every <= 0:
		return fmt.Errorf("-every is %v: use a duration above 0, such as 1s", *every)
	}
	pool, err := pgxpool.New(ctx, *database)
	if err != nil {
		return fmt.Errorf("-database: %w", err)
	}
	defer pool.Close()
	if *setup {
		return install(ctx, pool)
	}
	fenced, err := pgfence.NewPool(pool, pgfence.Config{})
	if err != nil {
		return err
	}
	cfg, err := lease.ConfigFromEnv()
	if err != nil {
		return err
	}
	client, err := lease.Dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	jobs, err := singleton.New(client, singleton.Config{TTL: *ttl, Logger: slog.Default()})
	if err != nil {
		return err
	}
	s := scheduler{pool: pool, fenced: fenced}
	ctx, end := context.WithCancelCause(ctx) // the first one that ends, ends the other
	var both sync.WaitGroup
	both.Go(func() { end(jobs.Run(ctx, leader, s.plan)) })
	both.Go(func() { end(jobs.Consume(ctx, group, lanes, s.work)) })
	both.Wait()
	return context.Cause(ctx)
}

type scheduler struct {
	pool   *pgxpool.Pool
	fenced *pgfence.Pool
}

// plan is what the leader does: it makes tasks of the requests that have none.
func (s scheduler) plan(ctx context.Context) error {
	term, _ := singleton.FromContext(ctx)
	return repeat(ctx, term, nil, func() error {
		return s.fenced.Run(ctx, term.Write(), pgx.TxOptions{}, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO tasks (request, part, lane, token)
				SELECT id, part, (id + part) % $1, $2 FROM requests, generate_series(1, parts) part
				WHERE NOT EXISTS (SELECT FROM tasks WHERE request = id)`, lanes, term.Token)
			return err
		})
	})
}

type task struct{ Request, Part int64 }

// do stands for hard work.
func (t task) do() (result int64) { return t.Part * t.Part }

// work does the tasks of a lane that have no result.
func (s scheduler) work(ctx context.Context, p *singleton.Partition) error {
	lane := table(p.Index())
	return repeat(ctx, p.Term(), p.Revoked(), func() error {
		rows, _ := s.pool.Query(ctx, `SELECT request, part FROM tasks LEFT JOIN `+lane+` USING (request, part)
			WHERE lane = $1 AND result IS NULL ORDER BY request, part LIMIT 10`, p.Index())
		tasks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[task])
		if err != nil {
			return err
		}
		for _, t := range tasks {
			result := t.do()
			err := s.fenced.Run(ctx, p.Term().Write(), pgx.TxOptions{}, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO "+lane+" (request, part, result, token) VALUES ($1, $2, $3, $4)",
					t.Request, t.Part, result, p.Token())
				return err
			})
			if err != nil {
				return fmt.Errorf("part %d of request %d: %w", t.Part, t.Request, err)
			}
		}
		return nil
	})
}

// repeat does something under a term until that ends or is revoked.
func repeat(ctx context.Context, term singleton.Term, revoked <-chan struct{}, do func() error) error {
	log := slog.With("resource", term.Resource, "token", term.Token)
	log.Info("work begins")
	defer func() { log.Info("work ends", "cause", context.Cause(ctx)) }()
	tick := time.NewTicker(*every)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := do(); err != nil {
			log.Warn("not done", "error", err) // and tried again, here or by who has taken over
		}
		select {
		case <-revoked:
			return nil
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return context.Cause(ctx)
}
