//go:build linux

package jepsen_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence/pgfence/pgtest"
	"github.com/writ-io/writ/jepsen/netns"
	"github.com/writ-io/writ/jepsen/wait"
)

// janitorVariable makes the test binary a janitor of the directory that it names.
const janitorVariable = "WRIT_JEPSEN_JANITOR"

// databaseSettings of the servers. Nobody takes the power away from them.
const databaseSettings = `
fsync = off
max_connections = 60
shared_buffers = 16MB
wal_keep_size = 256MB
log_min_messages = warning
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
wal_sender_timeout = 5s
`

// keptDirectory makes a directory that is removed with every server that runs in it when the test ends, however it does: the
// janitor, a process of its own, sees to it when the pipe from this one is closed.
func keptDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "writ-jepsen-") // short enough for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), janitorVariable+"="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C at the terminal does not reach it
	pipe, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(pipe.Close(), cmd.Wait()); err != nil {
			t.Errorf("janitor: %v", err)
		}
	})
	return dir
}

// runJanitor waits for the end of its input, ends who works in the directory, and removes it.
func runJanitor() int {
	dir := os.Getenv(janitorVariable)
	_, _ = io.Copy(io.Discard, os.Stdin) // its end is all that counts
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for calm := 0; calm < 3; <-tick.C {
		// A server that is told to quit ends at once and leaves no shared memory; its directory is that of its data.
		signal := syscall.SIGQUIT
		if time.Since(began) > 20*time.Second {
			signal = syscall.SIGKILL
		}
		calm++
		for _, pid := range workingIn(dir) {
			calm = 0
			_ = syscall.Kill(pid, signal) // it may just have ended
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "janitor:", err)
		return 1
	}
	return 0
}

// workingIn lists the processes whose working directory is below dir.
func workingIn(dir string) (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd") // the pattern is well-formed
	for _, link := range links {
		if at, err := os.Readlink(link); err == nil && strings.HasPrefix(at, dir+"/") {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// database is a PostgreSQL server of a region, in its namespace.
type database struct {
	*testing.T
	region    string
	net       *netns.Net
	dir, data string
	bin       string
	as        []string
}

// newDatabases lays out a directory for a server in each region.
func newDatabases(t *testing.T, top string, network *netns.Net, regions ...string) map[string]*database {
	t.Helper()
	all := make(map[string]*database)
	for _, region := range regions {
		dir := filepath.Join(top, region)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		bin, as := pgtest.Programs(t, dir)
		all[region] = &database{T: t, region: region, net: network, dir: dir, data: filepath.Join(dir, "data"), bin: bin, as: as}
	}
	return all
}

// dsn reaches the server from anywhere on this machine, address from within the network.
func (d *database) dsn() string {
	return fmt.Sprintf("host=%s port=5432 user=postgres dbname=postgres", d.dir)
}

func (d *database) address() string {
	return fmt.Sprintf("host=%s port=5432 user=postgres dbname=postgres connect_timeout=5", d.net.Address(d.region))
}

// run runs one of PostgreSQL's programs in the region.
func (d *database) run(name string, args ...string) string {
	d.Helper()
	all := append([]string{filepath.Join(d.bin, name)}, args...)
	if name != "pg_waldump" { // the agent keeps what it reads for itself
		all = append(append([]string(nil), d.as...), all...)
	}
	// What pg_ctl starts keeps its output open, so it is a file.
	out, err := os.CreateTemp(d.TempDir(), name)
	if err != nil {
		d.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd := d.net.Command(d.region, all[0], all[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	runErr := cmd.Run()
	said, err := os.ReadFile(out.Name())
	if err = errors.Join(runErr, err); err != nil && name != "pg_waldump" { // which calls the end of the log an error
		d.Fatalf("%s in %s: %v: %s", name, d.region, err, said)
	}
	return string(said)
}

// append writes lines at the end of a file of the data directory.
func (d *database) append(file, text string) {
	d.Helper()
	info, err := os.Stat(d.data)
	if err != nil {
		d.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(d.data, file), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		d.Fatal(err)
	}
	_, err = f.WriteString(text)
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && err == nil {
		err = f.Chown(int(owner.Uid), int(owner.Gid))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		d.Fatal(err)
	}
}

// settings are those that differ between regions.
func (d *database) settings() string {
	return fmt.Sprintf("unix_socket_directories = '%s'\nlisten_addresses = '%s'\n", d.dir, d.net.Address(d.region))
}

func (d *database) start() {
	d.Helper()
	d.run("pg_ctl", "start", "-D", d.data, "-w", "-t", "100", "-l", filepath.Join(d.dir, "log"))
}

// create makes a primary.
func (d *database) create() {
	d.Helper()
	d.run("initdb", "-D", d.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--data-checksums")
	d.append("postgresql.conf", databaseSettings+d.settings())
	d.append("pg_hba.conf", "host all all samenet trust\nhost replication all samenet trust\n")
	d.start()
}

// copyOf makes a standby that follows a primary.
func (d *database) copyOf(primary *database) {
	d.Helper()
	d.run("pg_basebackup", "-D", d.data, "-d", primary.address(), "-X", "stream", "-c", "fast", "--no-sync")
	d.append("postgresql.conf", d.settings())
	d.append("postgresql.auto.conf", fmt.Sprintf("primary_conninfo = '%s'\n", primary.address()))
	d.append("standby.signal", "")
	d.start()
}

// ask answers a query's single text.
func (d *database) ask(ctx context.Context, sql string) (answer string, err error) {
	conn, err := pgx.Connect(ctx, d.dsn())
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	return answer, conn.QueryRow(ctx, sql).Scan(&answer)
}

// exec runs statements, each by itself.
func (d *database) exec(statements ...string) {
	d.Helper()
	conn, err := pgx.Connect(d.Context(), d.dsn())
	if err != nil {
		d.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, sql := range statements {
		if _, err := conn.Exec(d.Context(), sql); err != nil {
			d.Fatalf("%s: %s: %v", d.region, sql, err)
		}
	}
}

// await asks until the answer is what it should be.
func (d *database) await(sql, want string) {
	d.Helper()
	eventually(d.T, d.region+": "+sql, func(ctx context.Context) error {
		got, err := d.ask(ctx, sql)
		if err == nil && got != want {
			err = fmt.Errorf("it is %q, and has to be %q", got, want)
		}
		return err
	})
}

// ids are the rows that there are.
func (d *database) ids() map[string]bool {
	d.Helper()
	conn, err := pgx.Connect(d.Context(), d.dsn())
	if err != nil {
		d.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(d.Context(), "select id from orders")
	if err != nil {
		d.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		d.Fatal(err)
	}
	there := make(map[string]bool, len(all))
	for _, id := range all {
		there[id] = true
	}
	return there
}

// eventually asks until there is no error.
func eventually(t *testing.T, what string, ask func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last error
	for {
		attempt, done := context.WithTimeout(ctx, 10*time.Second)
		err := ask(attempt)
		done()
		if err == nil {
			return
		}
		if last == nil || ctx.Err() == nil { // what went wrong before time was up says more
			last = err
		}
		if !wait.For(ctx, 50*time.Millisecond) {
			t.Fatalf("%s: %v", what, last)
		}
	}
}

// committedIn lists the transactions that kept files of a log commit, and where, from a position on.
func (d *database) committedIn(wal, from string) map[string]string {
	d.Helper()
	files, err := os.ReadDir(wal)
	if err != nil || len(files) == 0 {
		d.Fatalf("the log was not kept in %s: %v", wal, err)
	}
	timeline, err := strconv.ParseUint(files[0].Name()[:8], 16, 32)
	if err != nil {
		d.Fatal(err)
	}
	said := d.run("pg_waldump", "--path="+wal, "--timeline="+strconv.FormatUint(timeline, 10), "--start="+from, "--rmgr=Transaction")
	commits := make(map[string]string)
	for line := range bytes.Lines([]byte(said)) {
		if !bytes.Contains(line, []byte("desc: COMMIT")) {
			continue
		}
		_, rest, _ := strings.Cut(string(line), "tx:")
		xid, rest, _ := strings.Cut(rest, ",")
		_, rest, _ = strings.Cut(rest, "lsn:")
		at, _, _ := strings.Cut(rest, ",")
		commits[strings.TrimSpace(xid)] = strings.TrimSpace(at)
	}
	return commits
}
