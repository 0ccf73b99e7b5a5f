//go:build linux

package examples_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/fence/pgfence/pgtest"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/lease"
)

// startLimit bounds the building of programs and the start of a quorum on a busy machine.
const startLimit = 8 * time.Minute

// lab is what all tests share: the programs, and a quorum of three server processes.
var lab struct {
	sync.Once
	dir    string
	quorum *cluster.Cluster
	err    error
}

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	if lab.quorum != nil {
		lab.quorum.Close()
	}
	if lab.dir != "" {
		_ = os.RemoveAll(lab.dir)
	}
	os.Exit(code)
}

func startLab(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a quorum and programs")
	}
	if lab.Do(func() { lab.err = buildLab() }); lab.err != nil {
		t.Fatal(lab.err)
	}
}

func buildLab() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if lab.dir, err = os.MkdirTemp("", "examples"); err != nil {
		return err
	}
	writ, err := cluster.Build(ctx, lab.dir)
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", lab.dir+"/", "./billing", "./consumer", "./controller", "./scheduler")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	dir := filepath.Join(lab.dir, "quorum")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	lab.quorum, err = cluster.Start(ctx, cluster.Config{Binary: writ, Dir: dir, Secure: true})
	return err
}

// environment is that of a program in a region.
func environment(region, dsn string) []string {
	to := lab.quorum.Client()
	return append(os.Environ(),
		"WRIT_ENDPOINTS="+strings.Join(to.Endpoints, ","), "WRIT_CA="+to.CAFile, "WRIT_CERT="+to.CertFile, "WRIT_KEY="+to.KeyFile,
		"WRIT_REGION="+region, "DATABASE_URL="+dsn,
		"PGAPPNAME="+region, // by which the database tells who is who
	)
}

// connect returns a client of the test's own.
func connect(t *testing.T) *lease.Client {
	t.Helper()
	cfg := lab.quorum.Client()
	cfg.DialTimeout = time.Minute
	client, err := lease.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Flags that cannot be used are told by name, with what to do.
func TestFlags(t *testing.T) {
	startLab(t)
	const database = "-database=postgres://nobody@127.0.0.1:1/none"
	for _, c := range []struct {
		program string
		args    []string
		env     string
		want    []string
	}{
		{program: "billing", want: []string{"-database is empty", "DATABASE_URL"}},
		{program: "consumer", want: []string{"-database is empty", "DATABASE_URL"}},
		{program: "controller", want: []string{"-database is empty", "DATABASE_URL"}},
		{program: "scheduler", want: []string{"-database is empty", "DATABASE_URL"}},
		{program: "billing", args: []string{"-database=postgres://x:y:z"}, want: []string{"-database", "parse"}},
		{program: "consumer", args: []string{database, "more"}, want: []string{"more", "is not a flag", "leave it out"}},
		{program: "consumer", args: []string{database, "-every=0s"}, want: []string{"-every is 0s", "above 0"}},
		{program: "scheduler", args: []string{database, "-every=-1s"}, want: []string{"-every is -1s", "above 0"}},
		{program: "controller", args: []string{database, "-every=soon"}, want: []string{"soon", "-every"}},
		{program: "controller", args: []string{database, "-ttl=-1s"}, want: []string{"ttl", "-1s", "leave it out"}},
		{program: "billing", args: []string{database, "-ttl=-1s"}, want: []string{"ttl", "-1s", "leave it out"}},
		{program: "billing", args: []string{database, "-spec=61 2 * * *"}, want: []string{"-spec", "minute", "61", "0 to 59"}},
		{program: "billing", args: []string{database, "-zone=Europe/Atlantis"}, want: []string{"-zone", "Europe/Atlantis"}},
		{program: "billing", args: []string{database}, env: "WRIT_ENDPOINTS=", want: []string{"Endpoints"}},
		{program: "billing", args: []string{database, "-setup"}, want: []string{"create the tables", "127.0.0.1"}},
	} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(lab.dir, c.program), c.args...)
		cmd.Env = append(environment("eu", ""), c.env)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() < 1 {
			t.Errorf("%s %q: %v", c.program, c.args, err)
		}
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s %q says nothing of %q: %s", c.program, c.args, want, out)
			}
		}
	}
}
