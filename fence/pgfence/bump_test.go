package pgfence_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
)

func TestBumpWaitsForTransactionsInFlight(t *testing.T) {
	f := setUp(t)
	inFlight := f.raw(present, pgx.TxOptions{})
	mustExec(t, inFlight, "UPDATE orders SET v = 42 WHERE id = 1")
	bumped := f.goBump(next, pgfence.BumpOptions{})
	f.waitUntilDraining()

	// Who comes now under the old token is refused at once, without waiting with the bump.
	wantStale(t, f.try(present, "UPDATE orders SET v = 1 WHERE id = 2"), present, next)
	// And the new token is not good yet.
	wantIs(t, f.try(next, "UPDATE orders SET v = 1 WHERE id = 2"), pgfence.ErrNotRaised)
	select {
	case got := <-bumped:
		t.Fatalf("the bump did not wait: %+v", got)
	default:
	}
	// The one in flight is told with its next statement, which ends it and so the wait.
	_, err := inFlight.Exec(t.Context(), "UPDATE orders SET v = 43 WHERE id = 3")
	wantStale(t, pgfence.FromError(err), present, next)
	if err := inFlight.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-bumped; got.err != nil || got.Proof != pgfence.Acked {
		t.Fatalf("%+v, %v", got, got.err)
	}
	if v := f.text("SELECT sum(v)::text FROM orders"); v != "0" {
		t.Fatalf("refused transactions left %s", f.content())
	}
}

// What a transaction has done before the floor was raised it can commit.
func TestBumpLetsAFinishedTransactionCommit(t *testing.T) {
	f := setUp(t)
	inFlight := f.raw(present, pgx.TxOptions{})
	mustExec(t, inFlight, "UPDATE orders SET v = 42 WHERE id = 1")
	bumped := f.goBump(next, pgfence.BumpOptions{})
	f.waitUntilDraining()
	if err := inFlight.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-bumped; got.err != nil || got.Proof != pgfence.Acked || len(got.Ended) != 0 {
		t.Fatalf("%+v, %v", got, got.err)
	}
	// What it wrote is visible to the next holder.
	if v := f.text("SELECT v::text FROM orders WHERE id = 1"); v != "42" {
		t.Fatalf("v = %s", v)
	}
}

// short makes a bump lose patience at once.
var short = pgfence.BumpOptions{DrainTimeout: 50 * time.Millisecond, CutTimeout: 5 * time.Second}

func TestBumpCutsWhoDoesNotEnd(t *testing.T) {
	for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.Serializable} {
		t.Run(string(level), func(t *testing.T) {
			f := setUp(t)
			zombie := f.raw(present, pgx.TxOptions{IsoLevel: level})
			mustExec(t, zombie, "UPDATE orders SET v = 42 WHERE id = 1")
			// An idle transaction that only reads is none of the fence's business.
			reader := f.raw(present, pgx.TxOptions{IsoLevel: level})
			mustExec(t, reader, "SELECT * FROM orders")

			got := <-f.goBump(next, short)
			if got.err != nil || got.Proof != pgfence.Cut || len(got.Ended) != 1 || got.Ended[0].PID != int(zombie.Conn().PgConn().PID()) ||
				got.Ended[0].Role != "postgres" || got.Ended[0].Began.IsZero() {
				t.Fatalf("%+v, %v", got, got.err)
			}
			if err := zombie.Commit(t.Context()); err == nil {
				t.Fatal("the zombie has committed")
			}
			mustExec(t, reader, "SELECT * FROM orders")
			if v := f.text("SELECT v::text FROM orders WHERE id = 1"); v != "0" {
				t.Fatalf("the zombie has written %s", v)
			}
			if err := f.try(next, "UPDATE orders SET v = 1 WHERE id = 1"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestBumpMayNotCut(t *testing.T) {
	f := setUp(t)
	inFlight := f.raw(present, pgx.TxOptions{})
	mustExec(t, inFlight, "UPDATE orders SET v = 42 WHERE id = 1")
	got := <-f.goBump(next, pgfence.BumpOptions{DrainTimeout: 50 * time.Millisecond, NoCut: true})
	var busy *pgfence.BusyError
	if !errors.As(got.err, &busy) || !errors.Is(got.err, pgfence.ErrBusy) || len(busy.Holders) != 1 {
		t.Fatalf("%+v, %v", got, got.err)
	}
	// The floor is raised all the same, and nobody gets in until the drain is done.
	wantStale(t, f.try(present, "UPDATE orders SET v = 1 WHERE id = 2"), present, next)
	wantIs(t, f.try(next, "UPDATE orders SET v = 1 WHERE id = 2"), pgfence.ErrNotRaised)
	if err := inFlight.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.bump(next); got.Proof != pgfence.Acked {
		t.Fatalf("%+v", got)
	}
}

// A prepared transaction has no backend to terminate.
func TestBumpNamesPreparedTransactions(t *testing.T) {
	f := setUp(t)
	tx := f.raw(present, pgx.TxOptions{})
	mustExec(t, tx, "UPDATE orders SET v = 42 WHERE id = 1")
	mustExec(t, tx, "PREPARE TRANSACTION 'two phases'")
	opts := short
	opts.CutTimeout, opts.CutRounds = 50*time.Millisecond, 2
	got := <-f.goBump(next, opts)
	var busy *pgfence.BusyError
	if !errors.As(got.err, &busy) || len(busy.Holders) != 1 || busy.Holders[0].Prepared != "two phases" || !strings.Contains(got.err.Error(), "two phases") {
		t.Fatalf("%+v, %v", got, got.err)
	}
	f.exec("COMMIT PREPARED 'two phases'")
	if got := f.bump(next); got.Proof != pgfence.Acked {
		t.Fatalf("%+v", got)
	}
}

func TestBumpsAreOrdered(t *testing.T) {
	f := setUp(t)
	for range 2 { // the second is answered at once
		if got := f.bump(next); got.Proof != pgfence.Acked {
			t.Fatalf("%+v", got)
		}
	}
	_, err := pgfence.Bump(t.Context(), f.pool, pgfence.Config{}, resource, present)
	wantStale(t, err, present, next)
	if got := f.text("SELECT floor || ' ' || drained FROM writ.fence"); got != next.Decimal()+" "+next.Decimal() {
		t.Fatal(got)
	}
}

// Of bumps at the same time the newest wins, and none that was overtaken says that it has.
func TestBumpsAtTheSameTime(t *testing.T) {
	f := setUp(t)
	inFlight := f.raw(present, pgx.TxOptions{})
	mustExec(t, inFlight, "UPDATE orders SET v = 42 WHERE id = 1")
	const many = 12
	var bumps sync.WaitGroup
	errs := make([]error, many)
	for i := range many {
		bumps.Go(func() {
			_, errs[i] = pgfence.Bump(context.Background(), f.pool, pgfence.Config{}, resource, next+fence.Token(i))
		})
	}
	f.waitUntilDraining()
	if err := inFlight.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	bumps.Wait()
	for i, err := range errs[:many-1] {
		if err != nil && !errors.Is(err, fence.ErrStale) {
			t.Errorf("bump %d: %v", i, err)
		}
	}
	if errs[many-1] != nil {
		t.Errorf("the newest bump: %v", errs[many-1])
	}
	if err := f.try(next+many-1, "UPDATE orders SET v = 1 WHERE id = 1"); err != nil {
		t.Error(err)
	}
	wantStale(t, f.try(next+many-2, "UPDATE orders SET v = 1 WHERE id = 1"), next+many-2, next+many-1)
}

// A bump that waited while a newer one came must not say that its token is good.
func TestBumpThatIsOvertakenWhileItWaits(t *testing.T) {
	f := setUp(t)
	inFlight := f.raw(present, pgx.TxOptions{})
	mustExec(t, inFlight, "UPDATE orders SET v = 42 WHERE id = 1")
	bumped := f.goBump(next, pgfence.BumpOptions{})
	f.waitUntilDraining()
	f.exec("SELECT writ.raise_floor($1, $2)", resource, int64(next+5))
	if err := inFlight.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantStale(t, (<-bumped).err, next, next+5)
}

// Fences of other resources are not touched by a bump.
func TestBumpConcernsOneResource(t *testing.T) {
	f := setUp(t)
	f.exec("CREATE TABLE stock (id int)")
	if _, err := pgfence.Install(t.Context(), f.pool, pgfence.Installation{Resource: "stock-db", Tables: []string{"stock"}, Token: old}); err != nil {
		t.Fatal(err)
	}
	tx := f.raw(present, pgx.TxOptions{})
	mustExec(t, tx, pgfence.Presenting("writ", "stock-db", old))
	mustExec(t, tx, "UPDATE orders SET v = 1 WHERE id = 1")
	mustExec(t, tx, "INSERT INTO stock VALUES (1)")
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := f.raw(0, pgx.TxOptions{})
	mustExec(t, other, pgfence.Presenting("writ", "stock-db", old))
	mustExec(t, other, "INSERT INTO stock VALUES (1)")
	if got := f.bump(next); got.Proof != pgfence.Acked {
		t.Fatalf("%+v", got)
	}
	mustExec(t, other, "INSERT INTO stock VALUES (2)")
	wantIs(t, f.try(present, "INSERT INTO stock VALUES (3)"), pgfence.ErrNoToken)
}

func TestBumpRefuses(t *testing.T) {
	f := setUp(t)
	for _, token := range []fence.Token{0, -1, -1 << 63} {
		_, err := pgfence.Bump(t.Context(), f.pool, pgfence.Config{}, resource, token)
		wantIs(t, err, fence.ErrInvalidToken)
	}
	for _, name := range []string{"", strings.Repeat("x", 513), "a\nb", "\xff"} {
		_, err := pgfence.Bump(t.Context(), f.pool, pgfence.Config{}, name, next)
		wantIs(t, err, pgfence.ErrInvalid)
	}
	_, err := pgfence.Bump(t.Context(), f.pool, pgfence.Config{}, "nobody's", next)
	wantIs(t, err, fence.ErrUnguarded)
	_, err = pgfence.Bump(t.Context(), f.pool, pgfence.Config{Schema: "elsewhere"}, resource, next)
	wantIs(t, err, pgfence.ErrNotInstalled)
	for _, cfg := range []pgfence.Config{
		{Schema: "pg_writ"}, {Schema: `w"; DROP TABLE orders; --`}, {Issuer: "prod"}, {Trust: -1},
		{Bump: pgfence.BumpOptions{DrainTimeout: -1}}, {Bump: pgfence.BumpOptions{CutTimeout: time.Microsecond}}, {Bump: pgfence.BumpOptions{CutRounds: -1}},
	} {
		if _, err := pgfence.Bump(t.Context(), f.pool, cfg, resource, next); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	if got := f.text("SELECT floor::text FROM writ.fence"); got != present.Decimal() {
		t.Fatalf("the floor is %s", got)
	}
}

// A floor must not be lost in a crash, whatever the role's settings are.
func TestBumpIsDurable(t *testing.T) {
	f := setUp(t)
	tx := f.raw(0, pgx.TxOptions{})
	mustExec(t, tx, "SET LOCAL synchronous_commit = off")
	mustExec(t, tx, "SELECT * FROM writ.raise_floor($1, $2)", resource, int64(next))
	var setting string
	if err := tx.QueryRow(t.Context(), "SHOW synchronous_commit").Scan(&setting); err != nil || setting != "on" {
		t.Fatalf("synchronous_commit = %s, %v", setting, err)
	}
}

// Roles' defaults for their own queries must not break a bump.
func TestBumpWithOddDefaults(t *testing.T) {
	f := setUp(t)
	odd := poolWith(f, "default_transaction_isolation=serializable", "default_transaction_read_only=on", "statement_timeout=1s", "search_path=nowhere")
	inFlight := f.raw(present, pgx.TxOptions{})
	mustExec(t, inFlight, "UPDATE orders SET v = 42 WHERE id = 1")
	bumped := make(chan outcome, 1)
	go func() {
		b, err := pgfence.Bump(context.Background(), odd, pgfence.Config{}, resource, next)
		bumped <- outcome{b, err}
	}()
	f.waitUntilDraining()
	f.exec("SELECT pg_sleep(1.2)") // longer than statement_timeout
	if err := inFlight.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-bumped; got.err != nil || got.Proof != pgfence.Acked {
		t.Fatalf("%+v, %v", got, got.err)
	}
}
