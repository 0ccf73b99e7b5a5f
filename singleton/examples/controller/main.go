// Controller makes what is as it should be, in one of all the regions in which it runs.
//
// Under the lease it compares what is desired with what is, as often as it is told to, and changes what differs. Each change
// is a transaction under the token of the term: one that a controller had decided on before it was paused is refused when
// another has taken over, instead of undoing what that one has done.
//
// The table actual stands for what a controller controls. If that is an API behind a guard, the requests carry the token:
// http.Client{Transport: fence.Transport(nil)}.
//
// With a PostgreSQL at hand, and a quorum of three regions from "go run ./cmd/writ dev --dir /tmp/writ":
//
//	source /tmp/writ/env
//	export DATABASE_URL=postgres://postgres@localhost/shop
//	go run ./singleton/examples/controller -setup
//	WRIT_REGION=eu go run ./singleton/examples/controller    # and in other terminals with us, ap
//	psql $DATABASE_URL -c "INSERT INTO desired VALUES ('web', 3), ('mail', 1)"
//
// Then pause, kill or stop the one that works, change what is desired, and look at
//
//	psql $DATABASE_URL -c 'SELECT * FROM changes ORDER BY id'
//	go run ./cmd/writ lease get shop/controller
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
)

// resource is what the controller holds, and what the tables are fenced for.
const resource = "shop/controller"

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
	c := controller{pool: pool, fenced: fenced}
	return singleton.Run(ctx, resource, c.control, singleton.TTL(*ttl))
}

type controller struct {
	pool   *pgxpool.Pool
	fenced *pgfence.Pool
}

// control reconciles until the term ends.
func (c controller) control(ctx context.Context) error {
	term, _ := singleton.FromContext(ctx)
	log := slog.With("resource", term.Resource, "token", term.Token)
	log.Info("work begins")
	defer func() { log.Info("work ends", "cause", context.Cause(ctx)) }()
	tick := time.NewTicker(*every)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := c.reconcile(ctx, term); err != nil {
			log.Warn("not reconciled", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return context.Cause(ctx)
}

// difference is a service that has not as many replicas as desired.
type difference struct {
	Name    string
	Desired int
}

// reconcile looks for differences and does away with each.
func (c controller) reconcile(ctx context.Context, term singleton.Term) error {
	rows, _ := c.pool.Query(ctx, `SELECT name, coalesce(d.replicas, 0) FROM desired d FULL JOIN actual a USING (name)
		WHERE coalesce(d.replicas, 0) <> coalesce(a.replicas, 0) ORDER BY name`)
	differences, err := pgx.CollectRows(rows, pgx.RowToStructByPos[difference])
	if err != nil {
		return err
	}
	for _, d := range differences {
		err := c.fenced.Run(ctx, term.Write(), pgx.TxOptions{}, func(tx pgx.Tx) error { return change(ctx, tx, term, d) })
		if err != nil {
			return fmt.Errorf("change %s: %w", d.Name, err)
		}
	}
	return nil
}

// change makes a service have as many replicas as desired, and says so. The one that held the token before may have done so
// since the difference was found; here, behind the fence, it cannot.
func change(ctx context.Context, tx pgx.Tx, term singleton.Term, d difference) error {
	changed, err := tx.Exec(ctx, `INSERT INTO actual AS a (name, replicas) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET replicas = $2 WHERE a.replicas <> $2`, d.Name, d.Desired)
	if err != nil || changed.RowsAffected() == 0 {
		return err
	}
	_, err = tx.Exec(ctx, "INSERT INTO changes (name, replicas, token) VALUES ($1, $2, $3)", d.Name, d.Desired, term.Token)
	return err
}
