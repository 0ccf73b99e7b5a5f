//go:build unix

package pgtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence/pgfence/pgprograms"
)

// startTimeout bounds how long the server may take to start on a busy machine.
const startTimeout = time.Minute

// settings beside the defaults. Prepared transactions are off by default, and there are tests about them. No test takes
// the power away from the server, so there is no need to wait for disks except where that is measured.
const settings = `
fsync = off
listen_addresses = ''
max_connections = 120
max_prepared_transactions = 5
shared_buffers = 64MB
log_min_messages = warning
log_min_error_statement = panic
`

var server struct {
	sync.Once
	dir    string
	bin    string
	user   *syscall.Credential
	cmd    *exec.Cmd
	output chan struct{} // closed when all output has been read
	err    error

	databases atomic.Int64
}

// Main runs the tests and stops the server. Call it from TestMain with os.Exit.
func Main(m *testing.M) int {
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return 1
	}
	return code
}

// DSN makes a new database and returns how a superuser reaches it.
func DSN(t testing.TB) string {
	t.Helper()
	server.Do(func() { server.err = start() })
	if errors.Is(server.err, pgprograms.ErrMissing) && os.Getenv("WRIT_CI") != "1" {
		t.Skip(server.err)
	}
	if server.err != nil {
		t.Fatal("pgtest: ", server.err)
	}
	name := fmt.Sprintf("test_%d", server.databases.Add(1))
	conn, err := pgx.Connect(t.Context(), dsn("postgres"))
	if err != nil {
		t.Fatal("pgtest: ", err)
	}
	_, err = conn.Exec(t.Context(), "CREATE DATABASE "+name)
	if err = errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal("pgtest: ", err)
	}
	return dsn(name)
}

// Pool connects to a database; options are appended to its DSN, such as "user=app pool_max_conns=1".
func Pool(t testing.TB, dsn string, options ...string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), strings.Join(append([]string{dsn, "pool_max_conns=24"}, options...), " "))
	if err != nil {
		t.Fatal("pgtest: ", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// Fsync lets the server wait for the disk, as one in use does, until the test has ended.
func Fsync(t testing.TB, dsn string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal("pgtest: ", err)
	}
	set := func(value string) {
		for _, sql := range []string{"ALTER SYSTEM SET fsync = " + value, "SELECT pg_reload_conf()", "CHECKPOINT"} {
			if _, err := conn.Exec(context.Background(), sql); err != nil {
				t.Fatal("pgtest: ", err)
			}
		}
	}
	set("on")
	t.Cleanup(func() {
		set("off")
		_ = conn.Close(context.Background())
	})
}

// Standby restarts the server as a standby that follows nobody: it answers reads only, until it is promoted. It cuts every
// connection, so no other test of the binary may run beside.
func Standby(t testing.TB) {
	t.Helper()
	data := filepath.Join(server.dir, "data")
	if err := end(syscall.SIGINT); err != nil { // in order: a crashed server would recover instead
		t.Fatal("pgtest: ", err)
	}
	if err := os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o600); err != nil {
		t.Fatal("pgtest: ", err)
	}
	if server.user != nil {
		if err := os.Chown(filepath.Join(data, "standby.signal"), int(server.user.Uid), int(server.user.Gid)); err != nil {
			t.Fatal("pgtest: ", err)
		}
	}
	if err := launch(data); err != nil {
		t.Fatal("pgtest: ", err)
	}
}

// Bin returns the path of a program of this PostgreSQL.
func Bin(name string) string { return filepath.Join(server.bin, name) }

func dsn(database string) string {
	return fmt.Sprintf("host=%s port=5432 user=postgres dbname=%s", server.dir, database)
}

func start() (err error) {
	if server.bin, _, err = pgprograms.Find(context.Background()); err != nil {
		return err
	}
	if server.dir, err = os.MkdirTemp("", "pgtest"); err != nil {
		return err
	}
	if server.user, err = pgprograms.User(); err != nil {
		return err
	}
	if server.user != nil {
		if err := os.Chown(server.dir, int(server.user.Uid), int(server.user.Gid)); err != nil {
			return err
		}
	}
	data := filepath.Join(server.dir, "data")
	if out, err := command("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	conf, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conf, "%s\nunix_socket_directories = '%s'\n", settings, server.dir)
	if err = errors.Join(err, conf.Close()); err != nil {
		return err
	}
	return launch(data)
}

// launch starts the server and waits until it answers.
func launch(data string) error {
	cmd := command("postgres", "-D", data)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	server.cmd, server.output = cmd, make(chan struct{})
	ready := make(chan struct{})
	go func() { // joined by stop
		defer close(server.output)
		lines := bufio.NewScanner(stderr)
		for told := false; lines.Scan(); {
			if !told && strings.Contains(lines.Text(), "ready to accept ") {
				told = true
				close(ready)
			} else if strings.Contains(lines.Text(), "PANIC") {
				fmt.Fprintln(os.Stderr, lines.Text())
			}
		}
		_, _ = io.Copy(io.Discard, stderr) // after a line that was too long
	}()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	select {
	case <-ready:
		return nil
	case <-server.output:
		return errors.Join(errors.New("the server has ended"), stop())
	case <-ctx.Done():
		return errors.Join(errors.New("the server does not start"), stop())
	}
}

// stop ends the server at once: nobody needs its data any more.
func stop() error {
	if err := end(syscall.SIGQUIT); err != nil {
		return err
	}
	if server.dir == "" {
		return nil
	}
	return os.RemoveAll(server.dir)
}

func end(how syscall.Signal) error {
	if server.cmd == nil {
		return nil
	}
	if err := server.cmd.Process.Signal(how); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-server.output
	_ = server.cmd.Wait() // an immediate shutdown is never clean
	server.cmd = nil
	return nil
}

func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(Bin(name), args...)
	cmd.Dir = server.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	// A group of its own keeps a Ctrl-C at the terminal from reaching the server before the tests have ended.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: server.user, Setpgid: true}
	return cmd
}
