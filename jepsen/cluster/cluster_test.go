//go:build linux

package cluster_test

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/writ-io/writ/jepsen/cluster"
)

func TestClosedSetLeavesNothing(t *testing.T) {
	t.Parallel()
	set := cluster.NewProcesses()
	var all []*cluster.Process
	for range 3 {
		p, err := set.Start(exec.Command("sleep", "600"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := all[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := all[0].Kill(); err == nil {
		t.Error("a process was killed twice")
	}
	set.Close()
	set.Close()
	for i, p := range all {
		select {
		case <-p.Done():
		default:
			t.Errorf("process %d runs after Close", i)
		}
		if p.Err() == nil {
			t.Errorf("process %d ended well", i)
		}
	}
	if _, err := set.Start(exec.Command("sleep", "600")); err == nil {
		t.Error("a process was started after Close")
	}
}

func TestProgramThatCannotStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := cluster.Start(ctx, cluster.Config{Binary: "/nonexistent/writ", Dir: t.TempDir()}); err == nil {
		t.Error("a cluster of nothing was started")
	}
	if _, err := cluster.Start(ctx, cluster.Config{Binary: "/bin/false", Dir: t.TempDir()}); err == nil || ctx.Err() != nil {
		t.Errorf("a program that ends at once was waited for: %v", err)
	}
}
