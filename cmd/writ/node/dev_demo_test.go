package node

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/writ-io/writ/cmd/writ/node/demo"
)

// passableDir is a temporary directory that the user of a database can pass.
func passableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "writ-demo-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o711))
	return dir
}

func TestDemo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		flags    []string
		rows     int
		want     []string
		postgres bool
	}{
		{"without PostgreSQL", []string{"--no-postgres"}, 11, []string{
			`PostgreSQL is left out\.`,
			`1 .*; proof: ledger-guard acked +yes\n`,
			`7 .* 412 STALE_TOKEN: 1\.1 is below the floor 1\.2 +yes\n`,
			`11 .* 6 lines in order, none refused is among them +yes\n`,
		}, false},
		{"with PostgreSQL", nil, 13, []string{
			`7 .* 412 STALE_TOKEN: 1\.1 is below the floor 1\.2 +yes\n`,
			`8 .* SQLSTATE WF002: 1\.1 is below the floor 1\.2 +yes\n`,
			`12 .* 6 lines in order, none refused is among them +yes\n`,
			`13 .* 6 rows in order, none refused is among them +yes\n`,
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			temp := passableDir(t)
			env := []string{"TMPDIR=" + temp, "WRIT_ENDPOINTS=nowhere:1", "WRIT_INSECURE=true"}
			p := run(t, env, append([]string{"dev", "--demo"}, test.flags...)...)
			p.exits(0)
			stdout, stderr := p.output()
			t.Log(stdout)
			if test.postgres && strings.Contains(stdout, "PostgreSQL is not installed here") && os.Getenv("WRIT_CI") != "1" {
				t.Skip("PostgreSQL is not installed")
			}
			rows := regexp.MustCompile(`(?m)^\d+ +.* (yes|NO)$`).FindAllStringSubmatch(stdout, -1)
			if len(rows) != test.rows {
				t.Errorf("%d rows of the table, want %d", len(rows), test.rows)
			}
			for _, row := range rows {
				if row[1] != "yes" {
					t.Errorf("not as promised: %s", row[0])
				}
			}
			checkStory(t, stdout, test.want, test.postgres)
			if strings.Contains(stdout, "\x1b") || stderr != "" {
				t.Errorf("colours, or something on stderr: %q", stderr)
			}
			checkNothingLeft(t, temp)
		})
	}
}

// checkStory checks what it must say, and what the storage is shown to hold.
func checkStory(t *testing.T, stdout string, want []string, postgres bool) {
	t.Helper()
	for _, w := range want {
		if !regexp.MustCompile(w).MatchString(stdout) {
			t.Errorf("it does not say %s", w)
		}
	}
	var shown []string
	for _, found := range regexp.MustCompile(`(?m)   \| (.*)$`).FindAllStringSubmatch(stdout, -1) {
		shown = append(shown, found[1])
	}
	lines := []string{
		"holder under 1.1, line 1", "holder under 1.1, line 2",
		"rival under 1.2, line 1", "rival under 1.2, line 2", "rival under 1.2, line 3", "rival under 1.65537, line 4",
	}
	if postgres {
		lines = append(lines, lines...)
	}
	if !slices.Equal(shown, lines) {
		t.Errorf("the storage holds %q, want %q", shown, lines)
	}
}

// checkNothingLeft checks that a command whose temporary files were in temp has left none, and no process that uses them.
func checkNothingLeft(t *testing.T, temp string) {
	t.Helper()
	if left, err := filepath.Glob(filepath.Join(temp, "*")); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && bytes.Contains(line, []byte(temp)) {
			t.Errorf("left %s: %q", file, line)
		}
	}
}

func TestInterruptedDemo(t *testing.T) {
	t.Parallel()
	for name, begun := range map[string]func(*process, string){
		"while it starts": func(p *process, temp string) {
			eventually(p.t, func() string {
				if found, err := filepath.Glob(filepath.Join(temp, "*", "*")); err != nil || len(found) == 0 {
					return "nothing has begun"
				}
				return ""
			})
		},
		"when the quorum is ready":    func(p *process, _ string) { p.says("is ready after") },
		"while the process is paused": func(p *process, _ string) { p.says("SIGSTOP to process") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			temp := passableDir(t)
			p := run(t, []string{"TMPDIR=" + temp}, "dev", "--demo")
			begun(p, temp)
			p.signal(syscall.SIGINT)
			p.complains("interrupted")
			stdout, _ := p.output()
			if found := regexp.MustCompile(`SIGSTOP to process (\d+)`).FindStringSubmatch(stdout); found != nil {
				eventually(t, func() string {
					if _, err := os.Stat("/proc/" + found[1]); err == nil {
						return "the paused process is still there"
					}
					return ""
				})
			}
			checkNothingLeft(t, temp)
		})
	}
}

// stubborn is a quorum whose regions cannot be stopped.
type stubborn struct{ demo.Quorum }

func (stubborn) StopRegion(context.Context, string) error { return errors.New("it does not stop") }

// careless is a quorum that protects nothing.
type careless struct{ demo.Quorum }

func (careless) Protect(context.Context, string) error { return nil }

func TestBrokenPromiseIsTold(t *testing.T) {
	t.Parallel()
	must(t, os.Setenv(runCommand, "1")) // of the holder, which is this binary again
	for _, test := range []struct {
		name string
		with func(demo.Quorum) demo.Quorum
		want []string
	}{
		{"stubborn", func(q demo.Quorum) demo.Quorum { return stubborn{q} }, []string{
			`it does not stop +NO\n`, `10 .* not reached +NO\n`, `8 .* yes\n`,
		}},
		{"careless", func(q demo.Quorum) demo.Quorum { return careless{q} }, []string{
			`1 .* the proofs of the grant are \[\], .* +NO\n`, `2 .* not reached +NO\n`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tellBroken(t, test.with, test.want)
		})
	}
}

func tellBroken(t *testing.T, with func(demo.Quorum) demo.Quorum, want []string) {
	t.Helper()
	dir := t.TempDir()
	plan, err := planDev([]string{"eu", "us", "ap"}, 0, false)
	must(t, err)
	q, err := startDev(t.Context(), dir, plan, "test")
	must(t, err)
	defer func() { must(t, q.stop(t.Context())) }()
	holder, err := plan.client(dir, "holder")
	must(t, err)
	guard, err := plan.client(dir, devGuard)
	must(t, err)
	var out strings.Builder
	err = demo.Tell(t.Context(), demo.Stage{
		Out: &out, Dir: dir, Quorum: with(q), Regions: plan.Regions, Holder: environment(holder), Rival: q.client, Guard: guard,
	})
	t.Log(out.String())
	if !errors.Is(err, demo.ErrBroken) {
		t.Errorf("got %v, want ErrBroken", err)
	}
	for _, w := range want {
		if !regexp.MustCompile(w).MatchString(out.String()) {
			t.Errorf("the table does not say %s", w)
		}
	}
}
