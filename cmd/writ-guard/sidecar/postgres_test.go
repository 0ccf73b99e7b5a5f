package sidecar

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
)

// orders is a database with a fenced table for the resource orders, and the configuration of its guard.
func orders(t *testing.T, endpoint string) (*pgxpool.Pool, Config) {
	t.Helper()
	dsn := pgtest.DSN(t)
	pool := pgtest.Pool(t, dsn)
	if _, err := pool.Exec(t.Context(), "CREATE TABLE orders (id int PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	if _, err := pgfence.Install(t.Context(), pool, pgfence.Installation{Resource: "orders", Tables: []string{"orders"}}); err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	path := filepath.Join(dir, "guard.yaml")
	text := fmt.Sprintf(`
name: db-eu
region: eu
data_dir: data
quorum: {endpoints: [%q], insecure: true}
postgres: {dsn: %q, resources: [orders], drain_timeout: 1s}
admin: {listen: %q}
`, endpoint, dsn, freeport.Address(t))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pool, c
}

// insert writes under a token as a program does that raises nothing itself.
func insert(t *testing.T, pool *pgxpool.Pool, token fence.Token, id int) error {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }() // of no effect after a commit
	if _, err := tx.Exec(t.Context(), "SELECT writ.set_token('orders', $1)", int64(token)); err != nil {
		return pgfence.FromError(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO orders VALUES ($1)", id); err != nil {
		return pgfence.FromError(err)
	}
	return tx.Commit(t.Context())
}

// A database's guard proves what the database refuses. While it is down the database goes on, so nobody is granted anything.
func TestDatabaseIsProvedBeforeAGrant(t *testing.T) {
	endpoint := startNode(t)
	pool, c := orders(t, endpoint)
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	api := writv1.NewFenceServiceClient(conn)
	rule := &writv1.GuardingRule{Prefix: "orders", Isolation: writv1.Isolation_ISOLATION_CLOSE}
	if _, err := api.SetGuarding(t.Context(), &writv1.SetGuardingRequest{Rule: rule, Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	s, err := Start(c, Options{Version: "test", Logger: testLogger("guard")})
	if err != nil {
		t.Fatal(err)
	}
	awaitReady(t, c)
	listed := func() *writv1.Guard {
		list, err := api.ListGuards(t.Context(), &writv1.ListGuardsRequest{})
		if err != nil || len(list.GetGuards()) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		return list.GetGuards()[0]
	}
	if g := listed(); g.GetPromise() != writv1.GuardPromise_GUARD_PROMISE_ATOMIC || g.GetForm() != "postgres" || !g.GetNeverLapses() {
		t.Errorf("listed as %v", g)
	}

	first := holder(t, endpoint)
	was, err := first.Acquire(t.Context(), "orders", lease.AcquireOptions{TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := insert(t, pool, was.Token(), 1); err != nil {
		t.Errorf("the holder, right after the grant: %v", err)
	}

	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := was.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	granted := make(chan *lease.Hold, 1)
	second := holder(t, endpoint)
	go func() {
		defer close(granted)
		if h, err := second.Acquire(t.Context(), "orders", lease.AcquireOptions{TTL: time.Second}); err == nil {
			granted <- h
		}
	}()
	await(t, "the raise waits for the guard", func() bool {
		g := listed()
		return g.GetLag() == 1 && g.GetState() == writv1.GuardState_GUARD_STATE_OUT
	})
	if err := insert(t, pool, was.Token(), 2); err != nil {
		t.Errorf("the database refused what nobody has told it of: %v", err)
	}
	select {
	case h := <-granted:
		t.Fatalf("granted %v while the database admits %v", h, was.Token())
	default:
	}

	start(t, c)
	var now *lease.Hold
	select {
	case now = <-granted:
	case <-time.After(patience):
	}
	if now == nil {
		t.Fatal("not granted when the guard is back")
	}
	if err := insert(t, pool, was.Token(), 3); !errors.Is(err, fence.ErrStale) {
		t.Errorf("the zombie: %v", err)
	}
	if err := insert(t, pool, now.Token(), 4); err != nil {
		t.Errorf("its successor: %v", err)
	}
	verified, err := api.VerifyGuards(t.Context(), &writv1.VerifyGuardsRequest{Resource: "orders"})
	if err != nil || len(verified.GetVerdicts()) != 1 || !verified.GetVerdicts()[0].GetRefused() {
		t.Errorf("canary: %v, %v", verified, err)
	}
}

func holder(t *testing.T, endpoint string) *lease.Client {
	t.Helper()
	c, err := lease.Dial(t.Context(), lease.Config{Endpoints: []string{endpoint}, Insecure: true, Region: "eu"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A database that is there and cannot be fenced is no reason to wait, and the quorum is not told of such a guard.
func TestDatabaseThatHasNoFence(t *testing.T) {
	_, c := orders(t, "127.0.0.1:1")
	c.Postgres.Resources = []string{"bills"}
	if _, err := Start(c, Options{}); err == nil || !strings.Contains(err.Error(), "writ-guard sql install") {
		t.Errorf("started: %v", err)
	}
	c.Postgres.DSN = "host=" + t.TempDir()
	s := start(t, c)
	if err := s.Ready(); err == nil {
		t.Error("ready without a database")
	}
}
