package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/fence/pgfence/pgprograms"
)

const (
	table = "ledger"
	// databaseRole is whom the writers log in as: it may present tokens, and own nothing.
	databaseRole = "writer"
	// databaseTimeout bounds the start of a PostgreSQL, from nothing. A machine that is busy has taken more than 20 seconds.
	databaseTimeout = 45 * time.Second
)

// Database is a PostgreSQL server of the story's own, in a directory of its own, reachable over a unix socket there.
type Database struct {
	cancel  context.CancelFunc
	started chan struct{} // closed when it has, or has not; the rest is set before

	dir     string // of the socket, and of everything else
	version string
	err     error         // why it was not started
	server  *exec.Cmd     // nil: none runs
	exited  chan struct{} // closed when the server has; set with server
}

// StartDatabase begins to start a server below dir, which must be the story's alone: where this process is root, dir is made
// passable for the user that the server runs as, who can read nothing else in it. Close stops it in every case.
func StartDatabase(ctx context.Context, dir string) *Database {
	ctx, cancel := context.WithTimeoutCause(ctx, databaseTimeout, fmt.Errorf("it took longer than %v", databaseTimeout))
	d := &Database{cancel: cancel, started: make(chan struct{}), dir: filepath.Join(dir, "postgres")}
	go func() { // joined by Close
		defer close(d.started)
		runtime.LockOSThread() // the kernel ties the life of a child to that of the thread which has started it
		d.err = d.start(ctx, dir)
	}()
	return d
}

// Close stops the server, at once: nobody needs its data any more. Its directory stays.
func (d *Database) Close() {
	d.cancel()
	<-d.started
	d.stop()
}

func (d *Database) stop() {
	if d.server == nil {
		return
	}
	_ = d.server.Process.Signal(syscall.SIGQUIT) // it may be gone
	<-d.exited
	d.server = nil
}

// ready waits until the server can be used, or why it cannot.
func (d *Database) ready(ctx context.Context) error {
	select {
	case <-d.started:
		return d.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// dsn is how a role reaches the server.
func (d *Database) dsn(role string) string {
	return fmt.Sprintf("host='%s' port=5432 user=%s dbname=postgres sslmode=disable", strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(d.dir), role)
}

func (d *Database) start(ctx context.Context, parent string) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			d.stop()
		}
	}()
	bin, version, err := pgprograms.Find(ctx)
	if err != nil {
		return err
	}
	d.version = version
	as, err := pgprograms.User()
	if err != nil {
		return err
	}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return err
	}
	if as != nil {
		if err := errors.Join(os.Chmod(parent, 0o711), os.Chown(d.dir, int(as.Uid), int(as.Gid))); err != nil {
			return err
		}
	}
	data := filepath.Join(d.dir, "data")
	initdb := d.command(ctx, as, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w %s", err, lastLine(string(out)))
	}
	// The story does not survive the machine, so nobody waits for its disk.
	if err := d.launch(ctx, d.command(context.WithoutCancel(ctx), as, filepath.Join(bin, "postgres"), "-D", data,
		"-c", "listen_addresses=", "-c", `unix_socket_directories="`+d.dir+`"`, "-c", "fsync=off", "-c", "max_connections=20",
		"-c", "shared_buffers=16MB", "-c", "log_min_messages=log", "-c", "logging_collector=off")); err != nil {
		return err
	}
	return d.setUp(ctx)
}

// command is a program that ends with ctx, in a process group of its own, so that a Ctrl-C at the terminal does not reach it
// before the story has ended.
func (d *Database) command(ctx context.Context, as *syscall.Credential, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = d.dir
	cmd.Env = append(withoutPostgres(withoutWrit(os.Environ())), "LC_ALL=C")
	dieWithParent(cmd, syscall.SIGQUIT)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential, cmd.SysProcAttr.Setpgid = as, true
	return cmd
}

// withoutPostgres takes out what tells the server's programs and its clients where to go.
func withoutPostgres(env []string) []string {
	var out []string
	for _, variable := range env {
		if !strings.HasPrefix(variable, "PG") {
			out = append(out, variable)
		}
	}
	return out
}

// launch starts the server and waits until it says that it is ready.
func (d *Database) launch(ctx context.Context, cmd *exec.Cmd) error {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	began, ready, exited := make(chan error, 1), make(chan struct{}), make(chan struct{})
	last := ""  // read after exited
	go func() { // joined through exited
		defer close(exited)
		runtime.LockOSThread() // as StartDatabase
		err := cmd.Start()
		began <- err
		if err != nil {
			return
		}
		lines := bufio.NewScanner(stderr)
		for told := false; lines.Scan(); last = lines.Text() {
			if !told && strings.Contains(lines.Text(), "ready to accept connections") {
				told = true
				close(ready)
			}
		}
		_, _ = io.Copy(io.Discard, stderr) // after a line that was too long
		_ = cmd.Wait()                     // an immediate shutdown is never clean
	}()
	if err := <-began; err != nil {
		return err
	}
	d.server, d.exited = cmd, exited
	select {
	case <-ready:
		return nil
	case <-exited:
		return fmt.Errorf("the server has ended: %s", last)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// setUp makes the table, protects it, and trusts the writers' role to present tokens.
func (d *Database) setUp(ctx context.Context) (err error) {
	conn, err := pgx.Connect(ctx, d.dsn("postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, `
		CREATE TABLE `+table+` (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, line text NOT NULL);
		CREATE ROLE `+databaseRole+` LOGIN;
		GRANT SELECT, INSERT ON `+table+` TO `+databaseRole)
	if err != nil {
		return err
	}
	if _, err = pgfence.Install(ctx, conn, pgfence.Installation{Resource: resource, Tables: []string{table}}); err != nil {
		return err
	}
	return pgfence.Grant(ctx, conn, "", databaseRole, pgfence.Present, pgfence.Raise)
}

// readRows reads the table back.
func (d *Database) readRows(ctx context.Context) ([]string, error) {
	conn, err := pgx.Connect(ctx, d.dsn(databaseRole))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "SELECT line FROM "+table+" ORDER BY n")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
