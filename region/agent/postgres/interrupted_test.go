//go:build unix

package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// runVariable makes the test binary an agent that runs one hook.
const runVariable = "WRIT_POSTGRES_RUN"

// run is what it runs.
type run struct {
	Config Config
	Task   json.RawMessage
}

func TestMain(m *testing.M) {
	if text := os.Getenv(runVariable); text != "" {
		if err := runHook(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runHook(text string) error {
	var r run
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return err
	}
	task := &writv1.Task{}
	if err := protojson.Unmarshal(r.Task, task); err != nil {
		return err
	}
	server, err := New(r.Config)
	if err != nil {
		return err
	}
	_, err = server.Hooks()[task.GetKind()].Run(context.Background(), task)
	return err
}

// killed runs a hook in a process of its own, with a script in the place of one of PostgreSQL's programs, and kills it when it is
// time. What it has started goes on until the test ends, as behind a sudo that takes the mark away. In the script $real is the
// program, and $here a directory.
func (n *node) killed(kind writv1.HookKind, task *writv1.Task, program, script string, itIsTime func(here string) bool) {
	n.Helper()
	here := filepath.Join(n.dir, "programs")
	if err := os.MkdirAll(here, 0o755); err != nil {
		n.Fatal(err)
	}
	real, err := os.ReadDir(n.bin)
	if err != nil {
		n.Fatal(err)
	}
	for _, e := range real {
		if err := os.Symlink(filepath.Join(n.bin, e.Name()), filepath.Join(here, e.Name())); e.Name() != program && err != nil {
			n.Fatal(err)
		}
	}
	text := fmt.Sprintf("#!/bin/sh\nhere=%s\nreal=%s\necho $$ >$here/pid\n%s\n", here, filepath.Join(n.bin, program), script)
	replaced := filepath.Join(here, program)
	if err := errors.Join(os.Remove(replaced), os.WriteFile(replaced, []byte(text), 0o755)); err != nil {
		n.Fatal(err)
	}
	if err := ownLike(here, n.dir); err != nil {
		n.Fatal(err)
	}
	cfg := n.server.cfg
	cfg.BinDir = here
	task.Kind = kind
	asked, err := protojson.Marshal(task)
	if err != nil {
		n.Fatal(err)
	}
	r, err := json.Marshal(run{cfg, asked})
	if err != nil {
		n.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		n.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), runVariable+"="+string(r))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		n.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(n.Context(), patience)
	defer cancel()
	err = until(ctx, "the middle of "+program, func() (bool, error) { return itIsTime(here), nil })
	if err := errors.Join(err, cmd.Process.Kill()); err != nil {
		n.Fatal(err)
	}
	if err := <-ended; !strings.Contains(err.Error(), "killed") {
		n.Fatalf("it has ended before: %v", err)
	}
	pid, err := os.ReadFile(filepath.Join(here, "pid"))
	if err != nil {
		n.Fatal(err)
	}
	group, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { _ = syscall.Kill(-group, syscall.SIGKILL) }) // it may have ended
}

// startedTooEarly starts the server as a service manager does that knows nothing, and checks that it serves what it had before, as
// a standby or to readers, or does not run at all.
func (n *node) startedTooEarly() {
	n.Helper()
	args := append(append([]string(nil), n.as...), filepath.Join(n.bin, "pg_ctl"), "start", "-D", n.data, "-w", "-t", "100", "-l", filepath.Join(n.dir, "log"))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	if err := cmd.Run(); err != nil {
		n.Logf("started too early it does not run: %v", err)
		return
	}
	n.Logf("started too early it has %s", n.ask("select string_agg(id::text, ' ' order by id) from orders"))
	if n.ask("select pg_is_in_recovery()::text") == "true" {
		return
	}
	if n.ask("select count(*)::text from orders where id = 2") != "0" {
		n.Error("it is a primary, and has what was written to the other one")
	}
	if err := n.tryWrite(token(1), 1000); err == nil {
		n.Error("it takes a write")
	}
}

// lostOne fails over from a to b, with one row that b never got.
func lostOne(t *testing.T, method string) (a, b *node) {
	t.Helper()
	a, b = pair(t, func(c *Config) { c.Method = method })
	b.cut()
	a.write(token(1), 101)
	b.done(promoteKind, task("eu", "us", failover, 1, token(1), token(2)))
	b.write(token(2), 2)
	a.done(demoteKind, task("eu", "us", failover, 2, token(1), token(2)))
	return a, b
}

// reinstated runs the hook to its end, and checks what comes of it.
func (n *node) reinstated(step uint64) {
	n.Helper()
	for range 2 { // an answer may get lost
		out := n.done(reinstateKind, task("eu", "us", failover, step, token(1), token(2)))
		contains(n.T, out.Entries, "1 transactions committed", "INSERT orders")
	}
	n.await("select string_agg(id::text, ' ' order by id) from orders", "1 2")
	for sql, want := range map[string]string{
		"select pg_is_in_recovery()::text":                                           "true",
		"show unix_socket_directories":                                               n.dir,
		"select count(*)::text from pg_stat_wal_receiver where status = 'streaming'": "1",
	} {
		if got := n.ask(sql); got != want {
			n.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
}

// The agent is killed while the copy is made, which goes on.
func TestACopyThatIsInterrupted(t *testing.T) {
	a, _ := lostOne(t, Reseed)
	a.killed(reinstateKind, task("eu", "us", failover, 3, token(1), token(2)), "pg_basebackup", `exec $real "$@" --max-rate=64`, func(string) bool {
		half, err := filepath.Glob(filepath.Join(a.data+"*", "backup_label")) // which comes first
		return err == nil && len(half) > 0
	})
	a.startedTooEarly()
	a.reinstated(3)
	if _, err := os.Stat(filepath.Join(a.dir, "keep", "orders-1.1-3", "data", "PG_VERSION")); err != nil {
		t.Errorf("the old data was not kept: %v", err)
	}
	a.stop("fast")
	a.start()
	a.await("select string_agg(id::text, ' ' order by id) from orders", "1 2")
}

// The copy is whole when the agent is killed, and not yet told that it is a standby's.
func TestACopyThatIsWholeAndNotInPlace(t *testing.T) {
	a, _ := lostOne(t, Reseed)
	a.killed(reinstateKind, task("eu", "us", failover, 3, token(1), token(2)), "pg_basebackup", `$real "$@" && touch $here/copied && exec sleep 1000`, func(here string) bool {
		_, err := os.Stat(filepath.Join(here, "copied"))
		return err == nil
	})
	a.startedTooEarly()
	a.reinstated(3)
	left, err := filepath.Glob(a.data + ".copy-*")
	if err != nil || len(left) != 0 {
		t.Errorf("it is left: %v, %v", left, err)
	}
}

// The agent is killed when the old data has been moved away, and nothing is in its place.
func TestACopyThatHasNotTakenItsPlace(t *testing.T) {
	a, _ := lostOne(t, Reseed)
	a.killed(reinstateKind, task("eu", "us", failover, 3, token(1), token(2)), "pg_basebackup", `$real "$@" && touch $here/copied && exec sleep 1000`, func(here string) bool {
		_, err := os.Stat(filepath.Join(here, "copied"))
		return err == nil
	})
	if err := os.Rename(a.data, filepath.Join(a.dir, "keep", "orders-1.1-3", "data")); err != nil {
		t.Fatal(err)
	}
	a.reinstated(3)
}

// The agent is killed when pg_rewind has done its work and the other server's configuration lies in the data.
func TestARewindThatIsInterrupted(t *testing.T) {
	a, _ := lostOne(t, Rewind)
	a.killed(reinstateKind, task("eu", "us", failover, 3, token(1), token(2)), "pg_rewind", `$real "$@" && touch $here/rewound && exec sleep 1000`, func(here string) bool {
		_, err := os.Stat(filepath.Join(here, "rewound"))
		return err == nil
	})
	if _, err := os.Stat(filepath.Join(a.data, "standby.signal")); err != nil {
		t.Errorf("who starts it now makes a primary of it: %v", err)
	}
	a.reinstated(3)
}

// pg_rewind has taken a part of the lost log away when it fails, and the next one cannot read it: what was listed before counts.
func TestATailThatWasListedBefore(t *testing.T) {
	a, _ := lostOne(t, Rewind)
	a.killed(reinstateKind, task("eu", "us", failover, 3, token(1), token(2)), "pg_rewind", fmt.Sprintf(`rm -f %s/pg_wal/00000001* && touch $here/gone && exec sleep 1000`, a.data), func(here string) bool {
		_, err := os.Stat(filepath.Join(here, "gone"))
		return err == nil
	})
	a.server.cfg.Method = Auto
	a.reinstated(4) // somebody has resumed
	kept, err := filepath.Glob(filepath.Join(a.dir, "keep", "orders-1.1-3", "wal", "0*"))
	if err != nil || len(kept) == 0 {
		t.Errorf("the lost log was not kept: %v", err)
	}
}
