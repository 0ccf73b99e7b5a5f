//go:build unix

package postgres

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/region/agent"
)

const (
	drainKind     = writv1.HookKind_HOOK_KIND_DRAIN
	undrainKind   = writv1.HookKind_HOOK_KIND_UNDRAIN
	promoteKind   = writv1.HookKind_HOOK_KIND_PROMOTE
	demoteKind    = writv1.HookKind_HOOK_KIND_DEMOTE
	verifyKind    = writv1.HookKind_HOOK_KIND_VERIFY
	reinstateKind = writv1.HookKind_HOOK_KIND_REINSTATE

	switchover = writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER
	failover   = writv1.PromotionMode_PROMOTION_MODE_FAILOVER
	failback   = writv1.PromotionMode_PROMOTION_MODE_FAILBACK
	recovery   = writv1.PromotionMode_PROMOTION_MODE_RECOVER
)

func TestASwitchoverAndBack(t *testing.T) {
	a, b := pair(t, nil)
	change := func(from, to *node, names [2]string, mode writv1.PromotionMode, old, fresh fence.Token, row int) {
		t.Helper()
		drained := from.done(drainKind, task(names[0], names[1], mode, 1, old, 0))
		if err := from.tryWrite(old, 1000+row); err == nil || !strings.Contains(err.Error(), "read-only") {
			t.Fatalf("a write to the drained side: %v", err)
		}
		p := task(names[0], names[1], mode, 2, old, fresh)
		p.Position = drained.Position
		promoted := to.done(promoteKind, p)
		if promoted.Position.GetLog() == drained.Position.GetLog() || promoted.Position.GetBytes() < drained.Position.GetBytes() {
			t.Errorf("drained at %v, promoted at %v", drained.Position, promoted.Position)
		}
		to.done(promoteKind, p) // asked twice
		to.done(verifyKind, task(names[0], names[1], mode, 3, old, fresh))
		to.write(fresh, row)
		if err := to.tryWrite(old, 2000+row); !errors.Is(err, fence.ErrStale) {
			t.Errorf("a write with the old token: %v", err)
		}
		out := from.done(reinstateKind, task(names[0], names[1], mode, 4, old, fresh))
		if len(out.Entries) != 0 {
			t.Errorf("nothing was lost: %q", out.Entries)
		}
		from.await("select string_agg(id::text, ' ' order by id) from orders", to.ask("select string_agg(id::text, ' ' order by id) from orders"))
		from.done(reinstateKind, task(names[0], names[1], mode, 4, old, fresh)) // asked twice
	}
	change(a, b, [2]string{"eu", "us"}, switchover, token(1), token(2), 2)
	change(b, a, [2]string{"us", "eu"}, failback, token(2), token(3), 3)
	if got := a.ask("select string_agg(id::text, ' ' order by id) from orders"); got != "1 2 3" {
		t.Errorf("rows: %s", got)
	}
}

func TestALostTailIsFoundAndKept(t *testing.T) {
	for _, method := range []string{Rewind, Reseed} {
		t.Run(method, func(t *testing.T) {
			a, b := pair(t, func(c *Config) { c.Method = method })
			b.cut()
			a.write(token(1), 101) // acknowledged, and never told to b
			a.write(token(1), 102)
			out := b.done(promoteKind, task("eu", "us", failover, 1, token(1), token(2)))
			if out.Position.GetText() == "" {
				t.Errorf("outcome: %+v", out)
			}
			b.write(token(2), 2)
			a.write(token(1), 103) // a zombie's, on the old side
			a.done(demoteKind, task("eu", "us", failover, 2, token(1), token(2)))
			if err := a.tryWrite(token(1), 104); err == nil {
				t.Error("the demoted side took a write")
			}
			out = a.done(reinstateKind, task("eu", "us", failover, 3, token(1), token(2)))
			contains(t, out.Entries, "3 transactions committed", "INSERT orders", "COMMIT", "of timeline 1")
			if n := strings.Count(strings.Join(out.Entries, "\n"), "INSERT orders"); n != 3 {
				t.Errorf("%d rows are listed, want 3:\n%s", n, strings.Join(out.Entries, "\n"))
			}
			a.await("select string_agg(id::text, ' ' order by id) from orders", "1 2")
			keep := filepath.Join(a.dir, "keep", "orders-1.1-3")
			kept, err := os.ReadDir(filepath.Join(keep, "wal"))
			if err != nil || len(kept) == 0 {
				t.Errorf("the lost log was not kept: %v", err)
			}
			if method == Reseed {
				if _, err := os.Stat(filepath.Join(keep, "data", "PG_VERSION")); err != nil {
					t.Errorf("the old data was not kept: %v", err)
				}
			}
			// Its own configuration came through it.
			if got := a.ask("show unix_socket_directories"); got != a.dir {
				t.Errorf("it listens in %s", got)
			}
		})
	}
}

// The primary's machine lost its power: pg_rewind has to recover it first, and the tail is found all the same.
func TestATailOfAServerThatCrashed(t *testing.T) {
	a, b := pair(t, nil)
	b.cut()
	a.write(token(1), 101)
	a.stop("immediate")
	b.done(promoteKind, task("eu", "us", failover, 1, token(1), token(2)))
	b.write(token(2), 2)
	if _, err := a.do(demoteKind, task("eu", "us", failover, 2, token(1), token(2))); err != nil {
		t.Errorf("demoting what does not run: %v", err)
	}
	out := a.done(reinstateKind, task("eu", "us", failover, 3, token(1), token(2)))
	contains(t, out.Entries, "1 transactions committed", "INSERT orders")
	a.await("select string_agg(id::text, ' ' order by id) from orders", "1 2")
}

func TestPromotingWaitsForThePosition(t *testing.T) {
	a, b := pair(t, nil)
	p := task("eu", "us", switchover, 1, token(1), token(2))
	drained := a.done(drainKind, p)
	b.must("select pg_wal_replay_pause()")
	b.await("select pg_get_wal_replay_pause_state()", "paused")
	p.Position = drained.Position
	p.Position.Bytes += 1 << 20
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := b.server.Hooks()[promoteKind].Run(ctx, p)
	if err == nil || !strings.Contains(err.Error(), "has to reach") {
		t.Errorf("promoted without what is missing: %v", err)
	}
	if got := b.ask("select pg_is_in_recovery()::text"); got != "true" {
		t.Fatal("it has been promoted")
	}
	p.Position.Log = "1/1"
	if _, err := b.do(promoteKind, p); err == nil || !strings.Contains(err.Error(), "not of one cluster") {
		t.Errorf("a position of another cluster: %v", err)
	}
	a.done(undrainKind, task("eu", "us", switchover, 2, 0, token(1)))
	a.write(token(1), 7)

	// A rollback gives the tenure back under a newer token.
	a.done(drainKind, p)
	a.done(reinstateKind, task("us", "eu", switchover, 3, token(2), token(3)))
	a.write(token(3), 8)
	if err := a.tryWrite(token(1), 9); !errors.Is(err, fence.ErrStale) {
		t.Errorf("a write with the token of before: %v", err)
	}
}

// The log goes over in pages: a standby that is cut off in the middle of a large record never replays all that it has received.
func TestPromotingWithHalfARecord(t *testing.T) {
	a, b := pair(t, nil)
	// What else writes to the log now and then would send the rest of the record after it.
	pid, err := strconv.Atoi(a.ask("select pid::text from pg_stat_activity where backend_type = 'background writer'"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	open := a.connect()
	for _, sql := range []string{"begin", "select pg_logical_emit_message(true, 'bulk', repeat('x', 100000))"} {
		if _, err := open.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	const half = "select (pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn() + 8192)::text"
	b.await(half, "true")
	b.cut()
	if got := b.ask(half); got != "true" {
		t.Fatal("the standby has the whole record")
	}
	b.done(promoteKind, task("eu", "us", failover, 1, token(1), token(2)))
	b.write(token(2), 2)
	if got := b.ask("select string_agg(id::text, ' ' order by id) from orders"); got != "1 2" {
		t.Errorf("rows: %s", got)
	}
}

// Sessions of before, open transactions, and sessions that say they write all the same.
func TestDrainingEndsWhoMayWrite(t *testing.T) {
	a, _ := pair(t, nil)
	a.must("create table free (id int)")
	idle, open, stubborn := a.connect(), a.connect(), a.connect()
	for _, sql := range []string{"begin", "insert into free values (1)"} {
		if _, err := open.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stubborn.Exec(t.Context(), "set default_transaction_read_only = off"); err != nil {
		t.Fatal(err)
	}
	before := a.done(drainKind, task("eu", "us", switchover, 1, token(1), 0))
	for name, err := range map[string]error{
		"idle":     func() error { _, err := idle.Exec(t.Context(), "insert into free values (2)"); return err }(),
		"open":     func() error { _, err := open.Exec(t.Context(), "commit"); return err }(),
		"stubborn": func() error { _, err := stubborn.Exec(t.Context(), "insert into free values (3)"); return err }(),
		"new":      a.exec("insert into free values (4)"),
	} {
		if err == nil {
			t.Errorf("the %s session has written", name)
		}
	}
	if got := a.ask("select count(*)::text from free"); got != "0" {
		t.Errorf("%s rows", got)
	}
	again := a.done(drainKind, task("eu", "us", switchover, 1, token(1), 0))
	if again.Position.GetBytes() < before.Position.GetBytes() {
		t.Errorf("drained at %v, and then at %v", before.Position, again.Position)
	}
	a.done(undrainKind, task("eu", "us", switchover, 2, 0, token(1)))
	a.must("insert into free values (5)")
}

func TestDrainingNamesPreparedTransactions(t *testing.T) {
	a, _ := pair(t, nil)
	a.must("create table free (id int)")
	conn := a.connect()
	for _, sql := range []string{"begin", "insert into free values (1)", "prepare transaction 'half'"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.do(drainKind, task("eu", "us", switchover, 1, token(1), 0)); err == nil || !strings.Contains(err.Error(), "'half'") {
		t.Errorf("drained: %v", err)
	}
	a.must("rollback prepared 'half'")
}

func TestVerifyingFindsADatabaseThatIsNotFenced(t *testing.T) {
	a, _ := pair(t, nil)
	if _, err := a.do(verifyKind, task("eu", "us", failover, 1, token(1), token(9))); err == nil || !strings.Contains(err.Error(), "new token has to succeed") {
		t.Errorf("a fence that was not raised: %v", err)
	}
	// The old token is the present one: it must not be taken for refused.
	if _, err := a.do(verifyKind, task("eu", "us", failover, 1, token(1), token(1))); err == nil || !strings.Contains(err.Error(), "WAS COMMITTED") {
		t.Errorf("an old token that is taken: %v", err)
	}
	first := a.done(verifyKind, task("", "eu", recovery, 1, 0, token(1)))
	if !strings.Contains(first.Output, "no token before") {
		t.Errorf("the first token: %s", first.Output)
	}
	unknown := task("eu", "us", failover, 1, token(1), token(2))
	unknown.Resource = "other"
	if _, err := a.do(verifyKind, unknown); err == nil || !strings.Contains(err.Error(), "nothing can be verified") {
		t.Errorf("no fence: %v", err)
	}
}

func TestAProbe(t *testing.T) {
	a, b := pair(t, nil)
	look := func(p *Probe) (agent.Sight, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return p.Look(ctx)
	}
	probeA, probeB := a.server.Probe(), b.server.Probe()
	primary, err := look(probeA)
	if err != nil || !*primary.Writable || primary.Upstream != nil || primary.Position.GetBytes() == 0 || *primary.Headroom == 0 || *primary.Headroom > 1000 {
		t.Errorf("the primary: %+v, %v", primary, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var standby agent.Sight
	err = until(ctx, "the standby", func() (bool, error) {
		standby, err = look(probeB)
		return err == nil && standby.Lag != nil && *standby.Lag == 0 && standby.Upstream.GetBytes() >= primary.Position.GetBytes(), err
	})
	if err != nil {
		t.Fatalf("%+v, %v", standby, err)
	}
	if *standby.Writable || standby.Position.GetLog() != primary.Position.GetLog() {
		t.Errorf("the standby: %+v", standby)
	}
	a.stop("fast")
	var failure *agent.Failure
	if _, err := look(probeA); !errors.As(err, &failure) {
		t.Errorf("a server that does not run: %v", err)
	}
	err = until(ctx, "the standby without its upstream", func() (bool, error) {
		standby, err = look(probeB)
		return err == nil && standby.Health == writv1.Health_HEALTH_DEGRADED, err
	})
	if err != nil || standby.Upstream == nil || standby.Lag == nil || *standby.Lag == 0 {
		t.Errorf("what the upstream said last is forgotten, or the lag is 0: %+v, %v", standby, err)
	}
	wrong, err := New(Config{DSN: b.dsn() + " user=nobody_at_all"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := look(wrong.Probe()); err == nil || errors.As(err, &failure) {
		t.Errorf("a probe without a role says nothing of the server: %v", err)
	}
}

// What stands before a server may refuse in its own words, and without a code.
func TestAProbeThatIsRefusedWithoutACode(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		backend := pgproto3.NewBackend(conn, conn)
		_, err = backend.ReceiveStartupMessage()
		backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Message: "no server is left"})
		ended <- errors.Join(err, backend.Flush(), conn.Close())
	}()
	server, err := New(Config{DSN: "postgres://writ@" + l.Addr().String() + "/orders?sslmode=disable"})
	if err != nil {
		t.Fatal(err)
	}
	var failure *agent.Failure
	if _, err := server.Probe().Look(t.Context()); !errors.As(err, &failure) || !strings.Contains(err.Error(), "no server is left") {
		t.Errorf("the look: %v", err)
	}
	if err := errors.Join(<-ended, l.Close()); err != nil {
		t.Error(err)
	}
}
