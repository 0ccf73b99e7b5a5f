//go:build unix

package postgres

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
	"github.com/writ-io/writ/region/agent"
)

// patience bounds every wait for what must happen.
const patience = 2 * time.Minute

// settings of the servers. Nobody takes the power away from them.
const settings = `
fsync = off
listen_addresses = ''
max_connections = 40
max_prepared_transactions = 5
shared_buffers = 16MB
wal_keep_size = 64MB
log_min_messages = fatal
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 100ms
`

// node is one real server and what the agent beside it does.
type node struct {
	*testing.T
	dir, data string
	server    *Server
	bin       string
	as        []string
}

func (n *node) dsn() string {
	return fmt.Sprintf("host=%s port=5432 user=postgres dbname=postgres", n.dir)
}

// run runs one of PostgreSQL's programs.
func (n *node) run(name string, args ...string) {
	n.Helper()
	all := append(append([]string(nil), n.as...), append([]string{filepath.Join(n.bin, name)}, args...)...)
	// What pg_ctl starts keeps its output open.
	out, err := os.CreateTemp(n.TempDir(), name)
	if err != nil {
		n.Fatal(err)
	}
	cmd := exec.Command(all[0], all[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		n.Fatalf("%s: %v: %s", name, err, said)
	}
	_ = out.Close()
}

func (n *node) start() {
	n.Helper()
	n.run("pg_ctl", "start", "-D", n.data, "-w", "-t", "100", "-l", filepath.Join(n.dir, "log"))
}

func (n *node) stop(mode string) {
	n.Helper()
	n.run("pg_ctl", "stop", "-D", n.data, "-w", "-m", mode)
}

// append writes lines at the end of a file of the data directory.
func (n *node) append(file, text string) {
	n.Helper()
	f, err := os.OpenFile(filepath.Join(n.data, file), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		n.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		n.Fatal(err)
	}
	if err := f.Close(); err != nil {
		n.Fatal(err)
	}
	if err := ownLike(f.Name(), n.data); err != nil {
		n.Fatal(err)
	}
}

func (n *node) connect() *pgx.Conn {
	n.Helper()
	conn, err := pgx.Connect(n.Context(), n.dsn())
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (n *node) exec(sql string) error {
	conn := n.connect()
	defer func() { _ = conn.Close(context.Background()) }()
	_, err := conn.Exec(n.Context(), sql)
	return err
}

func (n *node) must(sql string) {
	n.Helper()
	if err := n.exec(sql); err != nil {
		n.Fatalf("%s: %v", sql, err)
	}
}

func (n *node) ask(sql string) (answer string) {
	n.Helper()
	conn := n.connect()
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(n.Context(), sql).Scan(&answer); err != nil {
		n.Fatalf("%s: %v", sql, err)
	}
	return answer
}

// do runs a hook.
func (n *node) do(kind writv1.HookKind, task *writv1.Task) (agent.Outcome, error) {
	ctx, cancel := context.WithTimeout(n.Context(), patience)
	defer cancel()
	task.Kind = kind
	return n.server.Hooks()[kind].Run(ctx, task)
}

func (n *node) done(kind writv1.HookKind, task *writv1.Task) agent.Outcome {
	n.Helper()
	out, err := n.do(kind, task)
	if err != nil {
		n.Fatalf("%v: %v: %s", kind, err, out.Output)
	}
	n.Logf("%v: %s", kind, out.Output)
	return out
}

// await asks until the answer is what it should be.
func (n *node) await(sql, want string) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), patience)
	defer cancel()
	var got string
	err := until(ctx, sql, func() (bool, error) {
		conn, err := pgx.Connect(ctx, n.dsn())
		if err != nil {
			return false, err
		}
		defer func() { _ = conn.Close(context.Background()) }()
		err = conn.QueryRow(ctx, sql).Scan(&got)
		return got == want, err
	})
	if err != nil {
		n.Fatalf("it stays %q: %v", got, err)
	}
}

const resource = "orders-db"

// pair starts a primary and a standby that streams from it, with a fenced table.
func pair(t *testing.T, change func(*Config)) (a, b *node) {
	t.Helper()
	top, err := os.MkdirTemp("", "pair") // short enough for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	bin, as := pgtest.Programs(t, top)
	nodes := map[string]*node{}
	for _, region := range []string{"eu", "us"} {
		dir := filepath.Join(top, region)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := ownLike(dir, top); err != nil {
			t.Fatal(err)
		}
		nodes[region] = &node{T: t, dir: dir, data: filepath.Join(dir, "data"), bin: bin, as: as}
	}
	a, b = nodes["eu"], nodes["us"]
	t.Cleanup(func() {
		for _, n := range nodes {
			if _, err := os.Stat(filepath.Join(n.data, "postmaster.pid")); err == nil {
				n.stop("immediate")
			}
		}
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	for region, other := range map[string]string{"eu": "us", "us": "eu"} {
		n := nodes[region]
		cfg := Config{
			DSN: n.dsn(), Region: region, Sources: map[string]string{other: nodes[other].dsn()},
			DataDir: n.data, KeepDir: filepath.Join(n.dir, "keep"), BinDir: bin, As: as, Grace: -1,
		}
		if change != nil {
			change(&cfg)
		}
		if n.server, err = New(cfg); err != nil {
			t.Fatal(err)
		}
	}
	a.run("initdb", "-D", a.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--data-checksums")
	a.append("postgresql.conf", fmt.Sprintf("%s\nunix_socket_directories = '%s'\n", settings, a.dir))
	a.start()
	b.run("pg_basebackup", "-D", b.data, "-d", a.dsn(), "-X", "stream", "-c", "fast", "--no-sync")
	b.append("postgresql.conf", fmt.Sprintf("unix_socket_directories = '%s'\n", b.dir))
	b.append("postgresql.auto.conf", fmt.Sprintf("primary_conninfo = '%s'\n", a.dsn()))
	b.append("standby.signal", "")
	b.start()
	a.must("create table orders (id int primary key)")
	conn := a.connect()
	if _, err := pgfence.Install(t.Context(), conn, pgfence.Installation{Resource: resource, Tables: []string{"orders"}}); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
	a.write(token(1), 1)
	b.await("select count(*)::text from orders", "1")
	return a, b
}

func token(sequence uint64) fence.Token {
	t, err := fence.NewToken(1, sequence)
	if err != nil {
		panic(err)
	}
	return t
}

// tryWrite writes a row as an application does.
func (n *node) tryWrite(t fence.Token, id int) error {
	n.Helper()
	pool := pgtest.Pool(n.T, n.dsn())
	defer pool.Close()
	fenced, err := pgfence.NewPool(pool, pgfence.Config{})
	if err != nil {
		n.Fatal(err)
	}
	return fenced.Run(n.Context(), fence.Write{Resource: resource, Token: t}, pgx.TxOptions{}, func(tx pgx.Tx) error {
		_, err := tx.Exec(n.Context(), "insert into orders values ($1)", id)
		return err
	})
}

func (n *node) write(t fence.Token, id int) {
	n.Helper()
	if err := n.tryWrite(t, id); err != nil {
		n.Fatalf("row %d: %v", id, err)
	}
}

// cut ends the replication to a standby.
func (n *node) cut() {
	n.Helper()
	n.must("alter system set primary_conninfo = ''")
	n.must("select pg_reload_conf()")
	n.await("select count(*)::text from pg_stat_wal_receiver", "0")
}

func task(from, to string, mode writv1.PromotionMode, step uint64, old, new fence.Token) *writv1.Task {
	return &writv1.Task{
		Group: "orders", Promotion: "orders-1.1", Epoch: 1, Term: 1, Step: step, Resource: resource, From: from, To: to, Mode: mode,
		OldToken: uint64(old), Token: uint64(new),
	}
}

func contains(t *testing.T, entries []string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(strings.Join(entries, "\n"), part) {
			t.Errorf("entries lack %q:\n%s", part, strings.Join(entries, "\n"))
		}
	}
}
