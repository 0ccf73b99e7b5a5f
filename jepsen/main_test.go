//go:build linux

package jepsen_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/fence/pgfence/pgtest"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/lab"
)

// patience bounds every wait for what must happen. A busy disk can hold up a start, or the end of a process that is being
// killed, for tens of seconds.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	if code, ok := lab.Child(); ok {
		os.Exit(code)
	}
	switch {
	case os.Getenv(holderVariable) != "":
		os.Exit(runHolder())
	case os.Getenv(ordersVariable) != "":
		os.Exit(runOrders())
	case os.Getenv(janitorVariable) != "":
		os.Exit(runJanitor())
	}
	code := pgtest.Main(m)
	for _, dir := range binaryDirs {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// binaryDirs are removed when all tests have run.
var binaryDirs []string

// binary builds the writ program, guardBinary writ-guard; once each.
var (
	binary      = sync.OnceValues(func() (string, error) { return build(cluster.Build) })
	guardBinary = sync.OnceValues(func() (string, error) { return build(cluster.BuildGuard) })
)

func build(what func(ctx context.Context, dir string) (string, error)) (string, error) {
	dir, err := os.MkdirTemp("", "writ-jepsen-")
	if err != nil {
		return "", err
	}
	binaryDirs = append(binaryDirs, dir)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	return what(ctx, dir)
}

// startCluster runs a quorum until the test ends, and shows its logs if the test fails.
func startCluster(t *testing.T, secure bool) *cluster.Cluster {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Config{Binary: path, Dir: t.TempDir(), Secure: secure})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Check(); err != nil {
			t.Error(err)
		}
		c.Close()
		if t.Failed() {
			t.Log(c.Logs(60))
		}
	})
	return c
}

// settle brings every node back and waits until all are ready.
func settle(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.AwaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// setting reads a number from the environment.
func setting(t *testing.T, name string, otherwise int64) int64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", name, err))
	}
	return n
}
