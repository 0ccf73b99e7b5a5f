package pgfence_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
)

var snapshotLevels = []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable}

// A writer with a snapshot from before a bump still sees the old floor, and must be refused all the same.
func TestZombieWithOldSnapshotIsRefused(t *testing.T) {
	for _, level := range snapshotLevels {
		t.Run(string(level), func(t *testing.T) {
			f := setUp(t)
			zombie := f.raw(present, pgx.TxOptions{IsoLevel: level})
			mustExec(t, zombie, "SELECT * FROM orders") // takes the snapshot
			f.bump(next)
			if err := f.try(next, "UPDATE orders SET v = 100 WHERE id = 9"); err != nil {
				t.Fatal(err)
			}
			_, err := zombie.Exec(t.Context(), "UPDATE orders SET v = 1 WHERE id = 1")
			if stateOf(err) != "40001" {
				t.Fatalf("got %v, want a serialization failure", err)
			}
			_ = zombie.Rollback(t.Context())

			// Trying again, as one does after that, gets a new snapshot.
			again := f.raw(present, pgx.TxOptions{IsoLevel: level})
			_, err = again.Exec(t.Context(), "UPDATE orders SET v = 1 WHERE id = 1")
			wantStale(t, pgfence.FromError(err), present, next)
		})
	}
}

// The floor may be known to be higher before the bump has drained.
func TestZombieWithOldSnapshotIsRefusedWhileDraining(t *testing.T) {
	for _, level := range snapshotLevels {
		t.Run(string(level), func(t *testing.T) {
			f := setUp(t)
			inFlight := f.raw(present, pgx.TxOptions{})
			mustExec(t, inFlight, "UPDATE orders SET v = 1 WHERE id = 1")
			zombie := f.raw(present, pgx.TxOptions{IsoLevel: level})
			mustExec(t, zombie, "SELECT * FROM orders")
			bumped := f.goBump(next, pgfence.BumpOptions{})
			f.waitUntilDraining()

			refused := make(chan error, 1)
			go func() {
				_, err := zombie.Exec(context.Background(), "UPDATE orders SET v = 1 WHERE id = 2")
				refused <- err
			}()
			f.waitFor("SELECT count(*) = 2 FROM pg_locks WHERE " + inThisDatabase + " AND NOT granted")
			if err := inFlight.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := <-bumped; got.err != nil || got.Proof != pgfence.Acked {
				t.Fatalf("bump: %+v", got)
			}
			if err := <-refused; stateOf(err) != "40001" {
				t.Fatalf("got %v, want a serialization failure", err)
			}
		})
	}
}

// A new holder with a snapshot from before the bump must not build on data that an old one has changed since.
func TestNewHolderWithOldSnapshotIsRefused(t *testing.T) {
	for _, level := range snapshotLevels {
		t.Run(string(level), func(t *testing.T) {
			f := setUp(t)
			early := f.raw(next, pgx.TxOptions{IsoLevel: level})
			mustExec(t, early, "SELECT * FROM orders")
			if err := f.try(present, "UPDATE orders SET v = 5 WHERE id = 1"); err != nil {
				t.Fatal(err)
			}
			f.bump(next)
			_, err := early.Exec(t.Context(), "UPDATE orders SET v = 1 WHERE id = 2")
			wantIs(t, pgfence.FromError(err), pgfence.ErrNotRaised)
		})
	}
}

func TestSnapshotLevelsCanWrite(t *testing.T) {
	f := setUp(t)
	for _, level := range []pgx.TxIsoLevel{pgx.ReadUncommitted, pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		tx, err := pgfence.BeginTx(t.Context(), f.pool, fence.Write{Resource: resource, Token: present}, pgfence.Config{}, pgx.TxOptions{IsoLevel: level})
		if err != nil {
			t.Fatal(err)
		}
		mustExec(t, tx, "UPDATE orders SET v = v + 1 WHERE id = 1")
		mustExec(t, tx, "UPDATE orders SET v = v + 1 WHERE id = 2")
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if v := f.text("SELECT v::text FROM orders WHERE id = 2"); v != "4" {
		t.Fatalf("v = %s", v)
	}
}

// Statements of READ COMMITTED see the floor as of the moment at which they got the lock, not as of their beginning.
func TestZombieThatWaitedForTheLockIsRefused(t *testing.T) {
	f := setUp(t)
	inFlight := f.raw(present, pgx.TxOptions{})
	mustExec(t, inFlight, "UPDATE orders SET v = 1 WHERE id = 1")

	// Somebody's exclusive lock keeps the zombie between the beginning of its statement and its look at the floor, where
	// a pause of its backend could keep it as well.
	blocker := f.raw(0, pgx.TxOptions{})
	if err := inFlight.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustExec(t, blocker, "SELECT pg_advisory_xact_lock($1)", pgfence.LockKey("writ", resource))
	zombie := f.raw(present, pgx.TxOptions{})
	refused := make(chan error, 1)
	go func() {
		_, err := zombie.Exec(context.Background(), "UPDATE orders SET v = 1 WHERE id = 2")
		refused <- err
	}()
	f.waitFor("SELECT count(*) = 1 FROM pg_locks WHERE " + inThisDatabase + " AND NOT granted")
	// The bump, by hand, by the one who holds the lock.
	mustExec(t, blocker, "SELECT * FROM writ.raise_floor($1, $2)", resource, int64(next))
	mustExec(t, blocker, "SELECT writ.drain($1)", resource)
	if err := blocker.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantStale(t, pgfence.FromError(<-refused), present, next)
}

// outcome is what a bump in the background came to.
type outcome struct {
	pgfence.Bumped
	err error
}

func (f *fixture) goBump(token fence.Token, opts pgfence.BumpOptions) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		b, err := pgfence.Bump(ctx, f.pool, pgfence.Config{Bump: opts}, resource, token)
		done <- outcome{b, err}
	}()
	return done
}

// waitUntilDraining waits until a bump waits for transactions in flight.
func (f *fixture) waitUntilDraining() {
	f.Helper()
	f.waitFor("SELECT count(*) > 0 FROM pg_locks WHERE " + inThisDatabase + " AND mode = 'ExclusiveLock' AND NOT granted")
}
