//go:build linux

package proctree

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
)

const someStat = " S 1 20 30 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 4711 1000 10 18446744073709551615 1 1 0\n"

func TestParseStat(t *testing.T) {
	for name, prefix := range map[string]string{
		"sh": "10 (sh)", "a) R 7 (b": "10 (a) R 7 (b)", "": "10 ()", "two words": "10 (two words)",
	} {
		want := process{pid: 10, parent: 1, group: 20, session: 30, state: 'S', start: 4711, name: name}
		if got, err := parseStat([]byte(prefix + someStat)); err != nil || got != want {
			t.Errorf("parseStat(%q) = %+v, %v, want %+v", prefix, got, err, want)
		}
	}
	for _, bad := range []string{"", "10", "10 (sh", "10 sh) S", ")(", "10 (sh) S 1 2 3", "x (sh)" + someStat} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", bad, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("10 (sh)" + someStat))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := parseStat(data); err == nil && !strings.Contains(string(data), "("+p.name+")") {
			t.Fatalf("the name %q is not in %q", p.name, data)
		}
	})
}

// Both ways to find descendants find the same: here a child in a session of its own, and its child.
func TestDescendants(t *testing.T) {
	line := proctest.NewLine(t)
	actor := proctest.Actor{Children: []proctest.Actor{{Session: true, Children: []proctest.Actor{{}}}}}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), actor.Env(line)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line.Expect(t, "ready")
	byTask, err := descendantsByTask(cmd.Process.Pid)
	if errors.Is(err, errNoChildrenFile) {
		t.Log("this kernel lists no children")
	} else if err != nil {
		t.Fatal(err)
	}
	byScan, err2 := descendantsByScan(cmd.Process.Pid)
	if err2 != nil {
		t.Fatal(err2)
	}
	if len(byScan) != 2 || byScan[1].parent != byScan[0].pid || byScan[0].session != byScan[0].pid {
		t.Fatalf("found %+v by scan, want the leader of a session, and its child", byScan)
	}
	ids := func(ps []process) (ids []int) {
		for _, p := range ps {
			ids = append(ids, p.pid)
		}
		return ids
	}
	if err == nil && !slices.Equal(ids(byTask), ids(byScan)) {
		t.Errorf("found %v by task, but %v by scan", ids(byTask), ids(byScan))
	}

	// One that got the id of another is not signalled.
	impostor := byScan[1]
	impostor.start++
	if err := impostor.signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if p, err := readProcess(impostor.pid); err != nil || p.state == 'Z' {
		t.Errorf("the process with a reused id was killed: %+v, %v", p, err)
	}
	for _, p := range byScan {
		if err := p.signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	line.Ended(t)
	for _, p := range byScan {
		if err := p.signal(syscall.SIGKILL); err != nil {
			t.Errorf("signal to a process that has gone: %v", err)
		}
	}
}
