// Consumer keeps a ledger of a log of events, whose partitions it divides over all processes in all regions.
//
// Each partition is worked on by one process at a time, under a token and from an offset of its own. The offset is the
// checkpoint of the partition: it is stored after the entries have been committed, so that the next one after a process that
// died begins with some events again, whose entries are there already. Entries go to a table of the partition, because a
// table has one fence, which refuses those of a process that has lost the partition.
//
// The table events stands for a log that has the events of a partition in order, such as a topic of Kafka.
//
// With a PostgreSQL at hand, and a quorum of three regions from "go run ./cmd/writ dev --dir /tmp/writ":
//
//	source /tmp/writ/env
//	export DATABASE_URL=postgres://postgres@localhost/shop
//	go run ./singleton/examples/consumer -setup
//	WRIT_REGION=eu go run ./singleton/examples/consumer    # and in other terminals with us, ap
//	psql $DATABASE_URL -c 'INSERT INTO events SELECT p, i, i % 7, 100 FROM generate_series(0, 7) p, generate_series(0, 999) i'
//
// Then pause, kill or stop one, and look at
//
//	psql $DATABASE_URL -c 'SELECT account, count(*), sum(cents) FROM entries GROUP BY account'
//	go run ./cmd/writ lease list orders/
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
)

// The group that divides the work, and into how many partitions.
const (
	group      = "orders"
	partitions = 8
)

// table is where the entries of a partition go.
func table(partition int) string { return fmt.Sprintf("entries_%d", partition) }

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
	l := ledger{pool: pool, fenced: fenced}
	return jobs.Consume(ctx, group, partitions, l.consume)
}

type ledger struct {
	pool   *pgxpool.Pool
	fenced *pgfence.Pool
}

// consume works on a partition for as long as it belongs to this process.
func (l ledger) consume(ctx context.Context, p *singleton.Partition) error {
	offset, err := offsetOf(p.CheckpointData())
	if err != nil {
		return err
	}
	log := slog.With("resource", p.Term().Resource, "token", p.Token())
	log.Info("work begins", "offset", offset)
	defer func() { log.Info("work ends", "offset", offset, "cause", context.Cause(ctx)) }()
	for ctx.Err() == nil {
		next, err := l.enter(ctx, p, offset)
		wait := *every
		if err == nil && next > offset {
			offset, wait = next, 0
			err = p.Checkpoint(ctx, strconv.AppendInt(nil, offset, 10))
		}
		if err != nil {
			log.Warn("not entered", "offset", offset, "error", err)
			wait = *every
		}
		select {
		case <-p.Revoked(): // it is wanted elsewhere, and ours still; the next one begins at the checkpoint
			return nil
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return context.Cause(ctx)
}

func offsetOf(checkpoint []byte) (int64, error) {
	if len(checkpoint) == 0 {
		return 0, nil
	}
	offset, err := strconv.ParseInt(string(checkpoint), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the checkpoint is not an offset: %w", err)
	}
	return offset, nil
}

type event struct{ Position, Account, Cents int64 }

// enter makes entries of the next events, and returns where those after them begin.
func (l ledger) enter(ctx context.Context, p *singleton.Partition, offset int64) (next int64, err error) {
	rows, _ := l.pool.Query(ctx, "SELECT position, account, cents FROM events WHERE part = $1 AND position >= $2 ORDER BY position LIMIT 100",
		p.Index(), offset)
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[event])
	if err != nil || len(events) == 0 {
		return offset, err
	}
	insert := "INSERT INTO " + table(p.Index()) + " (position, account, cents, token) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
	return events[len(events)-1].Position + 1, l.fenced.Run(ctx, p.Term().Write(), pgx.TxOptions{}, func(tx pgx.Tx) error {
		for _, e := range events {
			if _, err := tx.Exec(ctx, insert, e.Position, e.Account, e.Cents, p.Token()); err != nil {
				return err
			}
		}
		return nil
	})
}
