//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// spinVariable makes the test binary a program that does nothing as fast as it can.
const spinVariable = "WRIT_CGROUP_SPIN"

// turns is how often it has done nothing.
var turns int

func TestMain(m *testing.M) {
	if os.Getenv(spinVariable) != "" {
		for i := 0; ; i++ {
			turns = i
		}
	}
	os.Exit(m.Run())
}

func require(t *testing.T) hierarchy {
	t.Helper()
	if err := Supported(); err != nil {
		if !errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	h, err := find()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// spin starts a program that wants a processor.
func spin(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), spinVariable+"=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails if it has ended
		_ = cmd.Wait()
	})
	return cmd
}

// left are the groups that this process has made.
func left(t *testing.T, h hierarchy) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(h.root, fmt.Sprintf("%s%d-*", prefix, os.Getpid())))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestThrottle(t *testing.T) {
	h := require(t)
	cmd := spin(t)
	before, err := h.of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	g, err := Throttle(cmd.Process.Pid, 0.03)
	if err != nil {
		t.Fatal(err)
	}
	if in, err := h.of(cmd.Process.Pid); err != nil || in != g.path {
		t.Errorf("it is in %s: %v", in, err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(time.Minute); ; <-tick.C {
		stat, err := os.ReadFile(filepath.Join(g.path, "cpu.stat"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(stat), "nr_throttled ") && !strings.Contains(string(stat), "nr_throttled 0\n") {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("it was never throttled:\n%s", stat)
		}
	}
	if err := g.Release(); err != nil {
		t.Fatal(err)
	}
	if in, err := h.of(cmd.Process.Pid); err != nil || in != before {
		t.Errorf("it is in %s, and was in %s: %v", in, before, err)
	}
	if all := left(t, h); len(all) > 0 {
		t.Errorf("left: %v", all)
	}
}

func TestEndedWhileThrottled(t *testing.T) {
	h := require(t)
	cmd := spin(t)
	g, err := Throttle(cmd.Process.Pid, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := g.Release(); err != nil {
		t.Error(err)
	}
	if _, err := Throttle(cmd.Process.Pid, 0.5); err == nil {
		t.Error("a process was throttled that is gone")
	}
	if all := left(t, h); len(all) > 0 {
		t.Errorf("left: %v", all)
	}
}

func TestLeftoversAreRemoved(t *testing.T) {
	h := require(t)
	gone := exec.Command("/bin/true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.root, fmt.Sprintf("%s%d-1", prefix, gone.Process.Pid))
	mine, err := h.make(1)
	if err == nil {
		err = os.Mkdir(path, 0o700)
	}
	if err == nil {
		err = h.sweep()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if err := os.Remove(mine); err != nil {
		t.Errorf("a group of a process that runs: %v", err)
	}
}

func TestBadShares(t *testing.T) {
	for _, share := range []float64{0, -1, 0.001, 1.5, math.NaN()} {
		if _, err := Throttle(os.Getpid(), share); err == nil || !strings.Contains(err.Error(), "from 0.01 to 1") {
			t.Errorf("%v: %v", share, err)
		}
	}
}
