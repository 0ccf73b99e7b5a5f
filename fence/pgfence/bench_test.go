package pgfence_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
)

const (
	benchConnections = 16
	benchRows        = 10000
	// benchRound is how many transactions are measured before the other kind has its turn.
	benchRound = 100 * benchConnections
)

type begin func(ctx context.Context) (pgx.Tx, error)

// oneRow is the transaction that is measured: begin, update one row, commit.
func oneRow(ctx context.Context, begin begin, sql string) error {
	tx, err := begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, sql, rand.IntN(benchRows)+1); err != nil {
		return errors.Join(err, ignoreClosed(tx.Rollback(ctx)))
	}
	return tx.Commit(ctx)
}

// round runs transactions over all connections and returns how long they took.
func round(b *testing.B, begin begin, sql string) time.Duration {
	var workers sync.WaitGroup
	start := time.Now()
	for range benchConnections {
		workers.Go(func() {
			for range benchRound / benchConnections {
				if err := oneRow(b.Context(), begin, sql); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
	return time.Since(start)
}

func benchFixture(b *testing.B) (*fixture, *pgxpool.Pool) {
	b.Helper()
	dsn := pgtest.DSN(b)
	f := &fixture{TB: b, dsn: dsn, pool: pgtest.Pool(b, dsn)}
	for _, table := range []string{"plain", "orders"} {
		f.exec("CREATE TABLE " + table + " (id int PRIMARY KEY, v bigint NOT NULL DEFAULT 0) WITH (fillfactor = 70)")
		f.exec("INSERT INTO " + table + " SELECT i FROM generate_series(1, 10000) i")
		f.exec("VACUUM ANALYZE " + table)
	}
	f.install("orders")
	f.bump(present)
	pgtest.Fsync(b, dsn)
	return f, pgtest.Pool(b, dsn, "pool_max_conns=16", "pool_min_conns=16")
}

// BenchmarkOneRowUpdate compares fenced with unfenced transactions in alternating rounds of one run, ABBA, so that what
// else the machine does hits both alike. Each operation is two rounds of each.
func BenchmarkOneRowUpdate(b *testing.B) {
	_, pool := benchFixture(b)
	p, err := pgfence.NewPool(pool, pgfence.Config{})
	if err != nil {
		b.Fatal(err)
	}
	unfenced := func(ctx context.Context) (pgx.Tx, error) { return pool.Begin(ctx) }
	fenced := func(ctx context.Context) (pgx.Tx, error) { return p.BeginTx(ctx, bearing(present), pgx.TxOptions{}) }
	const plainSQL, fencedSQL = "UPDATE plain SET v = v + 1 WHERE id = $1", "UPDATE orders SET v = v + 1 WHERE id = $1"
	round(b, unfenced, plainSQL) // connections and caches
	round(b, fenced, fencedSQL)
	var plain, guarded time.Duration
	var ratios []float64
	rounds := 0
	for b.Loop() {
		one := round(b, unfenced, plainSQL)
		two := round(b, fenced, fencedSQL) + round(b, fenced, fencedSQL)
		one += round(b, unfenced, plainSQL)
		plain, guarded, rounds = plain+one, guarded+two, rounds+2
		ratios = append(ratios, one.Seconds()/two.Seconds())
	}
	slices.Sort(ratios)
	b.ReportMetric(float64(rounds*benchRound)/plain.Seconds(), "unfenced-tx/s")
	b.ReportMetric(float64(rounds*benchRound)/guarded.Seconds(), "fenced-tx/s")
	b.ReportMetric(plain.Seconds()/guarded.Seconds(), "ratio")
	b.ReportMetric(ratios[len(ratios)/2], "median-ratio")
}

// BenchmarkBumpUnderLoad raises the fence again and again while 16 connections write under the newest token that they
// have heard of.
func BenchmarkBumpUnderLoad(b *testing.B) {
	f, pool := benchFixture(b)
	p, err := pgfence.NewPool(pool, pgfence.Config{})
	if err != nil {
		b.Fatal(err)
	}
	var granted, committed atomic.Int64
	granted.Store(int64(present))
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for range benchConnections {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				begin := func(ctx context.Context) (pgx.Tx, error) {
					return p.BeginTx(ctx, bearing(fence.Token(granted.Load())), pgx.TxOptions{})
				}
				err := oneRow(context.Background(), begin, "UPDATE orders SET v = v + 1 WHERE id = $1")
				if err = pgfence.FromError(err); err == nil {
					committed.Add(1)
				} else if !errors.Is(err, fence.ErrStale) {
					b.Error(err)
					return
				}
			}
		})
	}
	var took []time.Duration
	began := time.Now()
	for b.Loop() {
		token := fence.Token(granted.Load()) + 1
		start := time.Now()
		got, err := pgfence.Bump(b.Context(), f.pool, pgfence.Config{}, resource, token)
		took = append(took, time.Since(start))
		if err != nil || got.Proof != pgfence.Acked {
			b.Fatalf("%+v, %v", got, err)
		}
		granted.Store(int64(token))
		// Let the writers get into their stride again before the next one.
		for goal := committed.Load() + 10*benchConnections; committed.Load() < goal && !b.Failed(); {
			if _, err := f.pool.Exec(b.Context(), "SELECT pg_sleep(0.005)"); err != nil {
				b.Fatal(err)
			}
		}
	}
	elapsed := time.Since(began)
	close(stop)
	writers.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
	b.ReportMetric(float64(committed.Load())/elapsed.Seconds(), "tx/s")
}
