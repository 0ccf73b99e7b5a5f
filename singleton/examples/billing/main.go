// Billing bills every customer once a night, from one of all the regions in which it runs.
//
// A night's slot is claimed durably before it runs, and one whose process died is run again by the next, under the same id.
// The id is the key of the run in the database, and one transaction writes the run and its invoices under the token of the
// job: so each night is billed once, whoever was paused or killed in between. Nights that were missed are billed later, for
// up to three days.
//
// With a PostgreSQL at hand, and a quorum of three regions from "go run ./cmd/writ dev --dir /tmp/writ":
//
//	source /tmp/writ/env
//	export DATABASE_URL=postgres://postgres@localhost/shop
//	go run ./singleton/examples/billing -setup
//	psql $DATABASE_URL -c 'INSERT INTO customers SELECT i, 900 FROM generate_series(1, 100) i'
//	WRIT_REGION=eu go run ./singleton/examples/billing -spec '@every 5s'    # and in other terminals with us, ap
//
// Then pause, kill or stop the one that bills, and look at
//
//	psql $DATABASE_URL -c 'SELECT * FROM runs ORDER BY slot DESC LIMIT 10'
//	go run ./cmd/writ job history billing/nightly
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/cron"
	"github.com/writ-io/writ/singleton/schedule"
)

// job is the resource that is held while nights are billed, and what the tables are fenced for.
const job = "billing/nightly"

// retryAfter is how long after a failure a night is tried again.
const retryAfter = 2 * time.Second

var (
	database = flag.String("database", os.Getenv("DATABASE_URL"), "the PostgreSQL database; without it $DATABASE_URL")
	spec     = flag.String("spec", "30 2 * * *", "when to bill: five or six fields of cron, or @every")
	zone     = flag.String("zone", "Europe/Berlin", "the time zone of the spec")
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
	}
	if _, err := schedule.Parse(*spec, *zone); err != nil {
		return fmt.Errorf("-spec or -zone: %w", err)
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
	policy := cron.Policy{CatchUp: cron.CatchUpAll, Window: 72 * time.Hour, Overlap: cron.OverlapBufferOne}
	return jobs.Cron(ctx, job, *spec, func(ctx context.Context, tick singleton.Tick) error {
		return bill(ctx, fenced, tick)
	}, singleton.WithZone(*zone), singleton.WithPolicy(policy))
}

// bill bills a night. A failure of the database can mean that the night is billed after all; it is tried again under the same
// id, by this process or, when the term has ended, by the next.
func bill(ctx context.Context, fenced *pgfence.Pool, tick singleton.Tick) error {
	term, _ := singleton.FromContext(ctx)
	log := slog.With("resource", term.Resource, "token", term.Token, "id", tick.ID, "attempt", tick.Attempt)
	log.Info("work begins")
	defer func() { log.Info("work ends", "cause", context.Cause(ctx)) }()
	for {
		err := fenced.Run(ctx, term.Write(), pgx.TxOptions{}, func(tx pgx.Tx) error {
			return invoice(ctx, tx, term, tick)
		})
		if err == nil {
			return nil
		}
		log.Warn("not billed", "error", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(retryAfter):
		}
	}
}

// invoice writes the invoices of a night, unless an attempt before has.
func invoice(ctx context.Context, tx pgx.Tx, term singleton.Term, tick singleton.Tick) error {
	added, err := tx.Exec(ctx, "INSERT INTO runs (id, slot, attempt, token) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		tick.ID, tick.Slot, tick.Attempt, term.Token)
	if err != nil || added.RowsAffected() == 0 {
		return err
	}
	_, err = tx.Exec(ctx, "INSERT INTO invoices (run, customer, cents) SELECT $1, id, cents FROM customers", tick.ID)
	return err
}
