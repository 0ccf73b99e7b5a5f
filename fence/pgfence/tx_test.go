package pgfence_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
	"github.com/writ-io/writ/lease/clock"
)

func fenced(f *fixture, cfg pgfence.Config) *pgfence.Pool {
	f.Helper()
	p, err := pgfence.NewPool(f.pool, cfg)
	if err != nil {
		f.Fatal(err)
	}
	return p
}

func bearing(token fence.Token) fence.Write { return fence.Write{Resource: resource, Token: token} }

func doing(statement string) func(pgx.Tx) error {
	return func(tx pgx.Tx) error {
		_, err := tx.Exec(context.Background(), statement)
		return err
	}
}

func TestPoolRaisesForANewerToken(t *testing.T) {
	f := setUp(t)
	p := fenced(f, pgfence.Config{})
	if err := p.Run(t.Context(), bearing(present), pgx.TxOptions{}, doing(update)); err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context(), bearing(next), pgx.TxOptions{}, doing(update)); err != nil {
		t.Fatal(err)
	}
	wantStale(t, p.Run(t.Context(), bearing(present), pgx.TxOptions{}, doing(update)), present, next)
	// Another process, which has not heard of it.
	wantStale(t, fenced(f, pgfence.Config{}).Run(t.Context(), bearing(present), pgx.TxOptions{}, doing(update)), present, next)
	_, err := pgfence.BeginTx(t.Context(), f.pool, bearing(present), pgfence.Config{}, pgx.TxOptions{})
	wantStale(t, err, present, next)
	if v := f.text("SELECT v::text FROM orders WHERE id = 1"); v != "2" {
		t.Fatalf("v = %s", v)
	}
}

// What a pool remembers saves a question; it is the trigger that decides.
func TestPoolThatRemembersIsStillFenced(t *testing.T) {
	f := setUp(t)
	p := fenced(f, pgfence.Config{Trust: time.Hour})
	if err := p.Run(t.Context(), bearing(present), pgx.TxOptions{}, doing(update)); err != nil {
		t.Fatal(err)
	}
	f.bump(next)
	wantStale(t, p.Run(t.Context(), bearing(present), pgx.TxOptions{}, doing(update)), present, next)
}

// A database that was put back to an earlier state knows older floors than its writers. The next write raises it again.
func TestPoolForgetsWhatTheDatabaseContradicts(t *testing.T) {
	f := setUp(t)
	p := fenced(f, pgfence.Config{Trust: time.Hour})
	if err := p.Run(t.Context(), bearing(next), pgx.TxOptions{}, doing(update)); err != nil {
		t.Fatal(err)
	}
	f.exec("UPDATE writ.fence SET drained = $1", int64(old))
	f.exec("UPDATE writ.fence SET floor = $1", int64(old))
	f.exec("UPDATE writ.turn SET drained = $1", int64(old))
	wantIs(t, p.Run(t.Context(), bearing(next), pgx.TxOptions{}, doing(update)), pgfence.ErrNotRaised)
	if err := p.Run(t.Context(), bearing(next), pgx.TxOptions{}, doing(update)); err != nil {
		t.Fatal(err)
	}

	// Without a write that is refused, it is noticed when trust runs out.
	c := clock.NewManual(1)
	p = fenced(f, pgfence.Config{Trust: time.Minute, Clock: c})
	if err := p.Run(t.Context(), bearing(next+1), pgx.TxOptions{}, doing(update)); err != nil {
		t.Fatal(err)
	}
	f.exec("UPDATE writ.fence SET drained = $1", int64(old))
	c.Advance(time.Minute)
	if err := p.Run(t.Context(), bearing(next+1), pgx.TxOptions{}, doing(update)); err != nil {
		t.Fatal(err)
	}
}

func TestPoolVerifiesWrits(t *testing.T) {
	f := setUp(t)
	signer, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := fence.NewKeySet(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	sign := func(change func(*fence.Writ)) fence.Write {
		w := fence.Writ{Issuer: "prod", Resource: resource, Holder: "a", Token: next, IssuedAt: time.Now()}
		change(&w)
		compact, err := signer.Sign(w)
		if err != nil {
			t.Fatal(err)
		}
		return fence.Write{Resource: resource, Writ: compact}
	}
	good := sign(func(*fence.Writ) {})
	p := fenced(f, pgfence.Config{Verifier: keys, Issuer: "prod"})
	begin := func(w fence.Write) error { return p.Run(t.Context(), w, pgx.TxOptions{}, doing(update)) }

	wantIs(t, begin(sign(func(w *fence.Writ) { w.Resource = "other" })), fence.ErrInvalidWrit)
	wantIs(t, begin(sign(func(w *fence.Writ) { w.Issuer = "test" })), fence.ErrInvalidWrit)
	forged := []byte(good.Writ)
	if i := bytes.LastIndexByte(forged, '.') + 1; forged[i] == 'A' { // of the signature
		forged[i] = 'B'
	} else {
		forged[i] = 'A'
	}
	wantIs(t, begin(fence.Write{Resource: resource, Writ: string(forged)}), fence.ErrInvalidWrit)
	wantIs(t, begin(fence.Write{Resource: resource, Writ: good.Writ, Token: next}), pgfence.ErrInvalid)
	wantIs(t, begin(fence.Write{Resource: resource}), pgfence.ErrInvalid)
	wantIs(t, fenced(f, pgfence.Config{}).Run(t.Context(), good, pgx.TxOptions{}, doing(update)), pgfence.ErrInvalid)
	if got := f.text("SELECT floor::text FROM writ.fence"); got != present.Decimal() {
		t.Fatalf("a refused writ raised the floor to %s", got)
	}
	if err := begin(good); err != nil {
		t.Fatal(err)
	}
	wantStale(t, begin(sign(func(w *fence.Writ) { w.Token = present })), present, next)
}

func TestBadTokens(t *testing.T) {
	f := setUp(t)
	p := fenced(f, pgfence.Config{})
	for _, token := range []fence.Token{0, -1, -1 << 63} {
		if err := p.Run(t.Context(), bearing(token), pgx.TxOptions{}, doing(update)); !errors.Is(err, fence.ErrInvalidToken) && !errors.Is(err, pgfence.ErrInvalid) {
			t.Errorf("%d: %v", token, err)
		}
	}
	setting := pgfence.SettingName("writ", resource)
	for value, want := range map[string]error{
		"":                          pgfence.ErrNoToken,
		"0":                         fence.ErrInvalidToken,
		"-1":                        fence.ErrInvalidToken,
		"007":                       fence.ErrInvalidToken,
		" " + present.Decimal():     fence.ErrInvalidToken,
		present.Decimal() + " ":     fence.ErrInvalidToken,
		"9223372036854775808":       fence.ErrInvalidToken, // 2^63
		"99999999999999999999999":   fence.ErrInvalidToken,
		"NaN":                       fence.ErrInvalidToken,
		"NULL":                      fence.ErrInvalidToken,
		"1e3":                       fence.ErrInvalidToken,
		"'; DROP TABLE orders; --":  fence.ErrInvalidToken,
		strings.Repeat("9", 100000): fence.ErrInvalidToken,
		"9223372036854775807":       pgfence.ErrNotRaised,
		"1":                         fence.ErrStale,
	} {
		tx := f.raw(0, pgx.TxOptions{})
		mustExec(t, tx, "SELECT set_config($1, $2, true)", setting, value)
		_, err := tx.Exec(t.Context(), update)
		if err = pgfence.FromError(err); !errors.Is(err, want) {
			t.Errorf("%.40q: got %v, want %v", value, err, want)
		}
		_ = tx.Rollback(t.Context())
	}
	for _, call := range []string{"'orders-db', NULL", "NULL, 5", "'orders-db', 0", "'orders-db', -5"} {
		_, err := f.pool.Exec(t.Context(), "SELECT writ.set_token("+call+")")
		wantIs(t, pgfence.FromError(err), fence.ErrInvalidToken)
	}
	_, err := f.pool.Exec(t.Context(), "SELECT writ.set_token('orders-db', 9223372036854775808)")
	if err == nil {
		t.Error("2^63 was accepted")
	}
	_, err = f.pool.Exec(t.Context(), "UPDATE writ.fence SET floor = 0, drained = 0")
	if stateOf(err) != "23514" {
		t.Errorf("a floor of 0: %v", err)
	}
	_, err = f.pool.Exec(t.Context(), "UPDATE writ.fence SET floor = NULL")
	if stateOf(err) != "23502" {
		t.Errorf("a floor of NULL: %v", err)
	}
}

// The function for writers in other languages.
func TestSetToken(t *testing.T) {
	f := setUp(t)
	app := f.role("set_token_app", pgfence.Present)
	set := func(tx pgx.Tx, token fence.Token) error {
		_, err := tx.Exec(t.Context(), "SELECT writ.set_token($1, $2)", resource, int64(token))
		return pgfence.FromError(err)
	}
	tx := rawOn(t, app, 0, pgx.TxOptions{})
	if err := set(tx, present); err != nil {
		t.Fatal(err)
	}
	mustExec(t, tx, update)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantStale(t, set(rawOn(t, app, 0, pgx.TxOptions{}), old), old, present)
	wantIs(t, set(rawOn(t, app, 0, pgx.TxOptions{}), next), pgfence.ErrNotRaised)
	_, err := rawOn(t, app, 0, pgx.TxOptions{}).Exec(t.Context(), "SELECT writ.set_token('other', 5)")
	wantIs(t, pgfence.FromError(err), fence.ErrUnguarded)
}

// A token must not outlive its transaction in a connection that goes back to a pool.
func TestTokenDoesNotLeakThroughThePool(t *testing.T) {
	f := setUp(t)
	one := pgtest.Pool(t, f.dsn, "pool_max_conns=1")
	p, err := pgfence.NewPool(one, pgfence.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(pgx.Tx) error{
		"commit":   func(tx pgx.Tx) error { return tx.Commit(t.Context()) },
		"rollback": func(tx pgx.Tx) error { return tx.Rollback(t.Context()) },
		"error": func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "SELECT 1/0")
			return errors.Join(tx.Rollback(t.Context()), ignoring(err))
		},
		"set_token": func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "SELECT writ.set_token($1, $2)", resource, int64(present))
			return errors.Join(err, tx.Commit(t.Context()))
		},
	} {
		tx, err := p.BeginTx(t.Context(), bearing(present), pgx.TxOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pid := tx.Conn().PgConn().PID()
		mustExec(t, tx, update)
		if err := end(tx); err != nil {
			t.Fatal(err)
		}
		again := rawOn(t, one, 0, pgx.TxOptions{})
		if again.Conn().PgConn().PID() != pid {
			t.Fatal("the connection was not used again, so this proves nothing")
		}
		_, err = again.Exec(t.Context(), update)
		if !errors.Is(pgfence.FromError(err), pgfence.ErrNoToken) {
			t.Errorf("after %s: %v", name, err)
		}
		_ = again.Rollback(t.Context())
		if locks := f.text("SELECT count(*)::text FROM pg_locks WHERE " + inThisDatabase + ""); locks != "0" {
			t.Errorf("after %s: %s locks are left", name, locks)
		}
	}
}

func ignoring(error) error { return nil }

// Rolling back to a savepoint gives the lock back that was taken after it, and takes the write back that it was for.
func TestSavepoints(t *testing.T) {
	f := setUp(t)
	locks := func() string {
		return f.text("SELECT count(*)::text FROM pg_locks WHERE " + inThisDatabase + " AND granted")
	}
	tx := f.raw(present, pgx.TxOptions{})
	inner, err := tx.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, inner, "UPDATE orders SET v = 5 WHERE id = 1")
	if locks() != "1" {
		t.Fatalf("%s locks", locks())
	}
	if err := inner.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if locks() != "0" {
		t.Fatalf("%s locks after the savepoint", locks())
	}
	// So a bump need not wait, and the transaction cannot write any more.
	f.bump(next)
	inner, err = tx.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = inner.Exec(t.Context(), "UPDATE orders SET v = 5 WHERE id = 1")
	wantStale(t, pgfence.FromError(err), present, next)
	if err := errors.Join(inner.Rollback(t.Context()), tx.Commit(t.Context())); err != nil {
		t.Fatal(err)
	}

	// A write before the savepoint keeps its lock.
	tx = f.raw(next, pgx.TxOptions{})
	mustExec(t, tx, "UPDATE orders SET v = 6 WHERE id = 1")
	inner, err = tx.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, inner, "UPDATE orders SET v = 7 WHERE id = 2")
	if err := inner.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if locks() != "1" {
		t.Fatalf("%s locks", locks())
	}
	// A token that was presented after a savepoint goes with it.
	inner, err = tx.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, inner, pgfence.Presenting("writ", resource, old))
	if err := inner.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustExec(t, tx, "UPDATE orders SET v = 8 WHERE id = 3")
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.content(); !strings.HasPrefix(got, "1=6 2=0 3=8") {
		t.Fatal(got)
	}
}

func TestDatabaseSQL(t *testing.T) {
	f := setUp(t)
	connConfig, err := pgx.ParseConfig(f.dsn)
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*connConfig)
	defer db.Close()
	d, err := pgfence.NewDB(db, pgfence.Config{})
	if err != nil {
		t.Fatal(err)
	}
	work := func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), update)
		return err
	}
	for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelSerializable} {
		if err := d.Run(t.Context(), bearing(next), &sql.TxOptions{Isolation: level}, work); err != nil {
			t.Fatal(err)
		}
	}
	wantStale(t, d.Run(t.Context(), bearing(present), nil, work), present, next)
	tx, err := pgfence.BeginSQL(t.Context(), db, bearing(next), pgfence.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgfence.BumpSQL(t.Context(), db, pgfence.Config{Bump: short}, resource, next+1)
	if err != nil || got.Proof != pgfence.Acked { // it has not written
		t.Fatalf("%+v, %v", got, err)
	}
	_, err = tx.ExecContext(t.Context(), update)
	wantStale(t, pgfence.FromError(err), next, next+1)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}

	// A zombie is cut through database/sql as well.
	zombie := f.raw(next+1, pgx.TxOptions{})
	mustExec(t, zombie, update)
	got, err = pgfence.BumpSQL(t.Context(), db, pgfence.Config{Bump: short}, resource, next+2)
	if err != nil || got.Proof != pgfence.Cut || len(got.Ended) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := db.ExecContext(t.Context(), update); !errors.Is(pgfence.FromError(err), pgfence.ErrNoToken) {
		t.Fatal(err)
	}
}

// Whether a commit went through whose answer was lost cannot be known; a bump makes sure that it is decided.
func TestConnectionLostAtCommit(t *testing.T) {
	f := setUp(t)
	for i := range 20 {
		token := next + fence.Token(i)
		// A pool of its own, because the connection may be terminated after it was given back.
		writer := pgtest.Pool(t, f.dsn, "pool_max_conns=2")
		tx, err := pgfence.BeginTx(t.Context(), writer, bearing(token), pgfence.Config{}, pgx.TxOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pid := tx.Conn().PgConn().PID()
		mustExec(t, tx, fmt.Sprintf("UPDATE orders SET v = %d WHERE id = 1", i+1))
		committed := make(chan error, 1)
		go func() { committed <- tx.Commit(context.Background()) }()
		f.exec("SELECT pg_terminate_backend($1)", pid)
		f.bump(token + 1)
		settled := f.text("SELECT v::text FROM orders WHERE id = 1")
		if err := <-committed; err == nil && settled != fmt.Sprint(i+1) {
			t.Fatalf("round %d: an acknowledged commit is lost", i)
		}
		// Whatever it was, it stays so.
		if again := f.text("SELECT v::text FROM orders WHERE id = 1"); again != settled {
			t.Fatalf("round %d: %s became %s after the bump", i, settled, again)
		}
		f.bump(token + 1)
		if err := f.try(token+1, "UPDATE orders SET v = 0 WHERE id = 1"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFromErrorLeavesOthersAlone(t *testing.T) {
	f := setUp(t)
	if pgfence.FromError(nil) != nil {
		t.Error("nil became an error")
	}
	_, err := f.pool.Exec(t.Context(), "SELECT 1/0")
	if got := pgfence.FromError(err); !same(got, err) || stateOf(got) != "22012" {
		t.Errorf("%v became %v", err, got)
	}
	err = f.try(old, update)
	if stateOf(err) != pgfence.StateStaleToken {
		t.Errorf("the driver's error is out of reach in %v", err)
	}
	once := pgfence.FromError(err)
	if twice := pgfence.FromError(once); !same(twice, once) {
		t.Errorf("mapped twice: %v", twice)
	}
}
