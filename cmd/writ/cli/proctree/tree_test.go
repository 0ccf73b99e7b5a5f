//go:build linux

package proctree_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/writ-io/writ/cmd/writ/cli/proctree"
	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
)

// A Tree wants a process of its own, so the tests start themselves once more, as an owner that does what it is told.
const ownerVariable = "PROCTREE_TEST_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(ownerVariable) != "" {
		os.Exit(ownTree(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// ownTree starts a command, obeys the words on its standard input, and tells what happens on its standard output.
func ownTree(args []string) int {
	null, err := os.Open(os.DevNull)
	if err != nil {
		panic(err)
	}
	tree, err := proctree.Start(proctree.Command{Args: args, Env: os.Environ(), Files: [3]*os.File{null, os.Stderr, os.Stderr}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	words := make(chan string)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			words <- in.Text()
		}
	}()
	exited := tree.Exited()
	for {
		select {
		case word := <-words:
			obey(tree, word)
		case sig := <-tree.Stopped():
			fmt.Println("stopped:", sig)
		case <-exited:
			exited = nil
			fmt.Println("exited:", tree.Status(), tree.Status().Code)
		case <-tree.Gone():
			if exited != nil {
				fmt.Println("exited:", tree.Status(), tree.Status().Code)
			}
			fmt.Println("gone:", tree.Left())
			return 0
		}
	}
}

func obey(tree *proctree.Tree, word string) {
	switch word {
	case "usr1":
		tree.Signal(syscall.SIGUSR1)
	case "stop":
		tree.Signal(syscall.SIGSTOP)
	case "continue":
		tree.Resume()
	case "terminate":
		tree.Terminate()
	case "kill":
		tree.Kill()
	case "left":
		fmt.Println("left:", strings.Count(tree.Left(), "("))
	}
}

// owner is the process that runs ownTree.
type owner struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func start(t *testing.T, line *proctest.Line, args ...string) *owner {
	t.Helper()
	o := &owner{cmd: exec.CommandContext(t.Context(), os.Args[0], args...)}
	o.cmd.Env = append(os.Environ(), ownerVariable+"=1", "LINE="+line.Path)
	o.cmd.Stderr = os.Stderr
	in, err := o.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := o.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	o.in, o.out = in, bufio.NewScanner(out)
	watchdog := time.AfterFunc(proctest.Patience, func() { _ = o.cmd.Process.Kill() })
	t.Cleanup(func() {
		watchdog.Stop()
		_ = o.cmd.Process.Kill()
		_ = o.cmd.Wait()
	})
	return o
}

func (o *owner) tell(t *testing.T, word string) {
	t.Helper()
	if _, err := fmt.Fprintln(o.in, word); err != nil {
		t.Fatal(err)
	}
}

func (o *owner) expect(t *testing.T, want string) {
	t.Helper()
	if !o.out.Scan() || o.out.Text() != want {
		t.Fatalf("the owner said %q (%v), want %q", o.out.Text(), o.out.Err(), want)
	}
}

func TestExitCodeAndGone(t *testing.T) {
	o := start(t, proctest.NewLine(t), "sh", "-c", "exit 42")
	o.expect(t, "exited: exit code 42 42")
	o.expect(t, "gone: ")
}

func TestEndBySignal(t *testing.T) {
	o := start(t, proctest.NewLine(t), "sh", "-c", "kill -HUP $$")
	o.expect(t, "exited: killed by SIGHUP 129")
	o.expect(t, "gone: ")
}

func TestCannotStart(t *testing.T) {
	for command, want := range map[string]string{
		"no-such-command": `cannot start "no-such-command": executable file not found in $PATH`,
		"./no/such/file":  `cannot start "./no/such/file": no such file or directory`,
		os.DevNull:        `cannot start "/dev/null": permission denied`,
	} {
		start(t, proctest.NewLine(t), command).expect(t, want)
	}
}

// stubborn is a script that leaves behind a process which ignores SIGTERM, in a session of its own, whose parent has died.
const stubborn = `
exec 9>"$LINE"
trap 'echo term >&9; exit 7' TERM
sleep 1000 &
setsid sh -c '
	trap "" TERM HUP INT
	setsid sh -c "echo ready >&9; exec sleep 1000" &
' &
wait
`

func TestKillReachesProcessesThatLeftTheGroup(t *testing.T) {
	line := proctest.NewLine(t)
	o := start(t, line, "sh", "-c", stubborn)
	line.Expect(t, "ready")
	o.tell(t, "terminate")
	line.Expect(t, "term")
	o.expect(t, "exited: exit code 7 7")
	o.tell(t, "left")
	o.expect(t, "left: 1") // the one that ignores SIGTERM
	o.tell(t, "kill")
	o.expect(t, "gone: ")
	line.Ended(t)
}

// A tree that grows all the while dies too.
func TestKillOfATreeThatForks(t *testing.T) {
	line := proctest.NewLine(t)
	o := start(t, line, "sh", "-c", `
exec 9>"$LINE"
trap "" TERM
fork() { setsid sh -c 'sleep 1000 & sleep 1000' & }
for i in 1 2 3 4 5 6 7 8; do fork; done
echo ready >&9
while :; do fork; sleep 0.01; done`)
	line.Expect(t, "ready")
	o.tell(t, "kill")
	o.expect(t, "exited: killed by SIGKILL 137")
	o.expect(t, "gone: ")
	line.Ended(t)
}

func TestSignalGoesToTheGroup(t *testing.T) {
	line := proctest.NewLine(t)
	o := start(t, line, "sh", "-c", `
exec 9>"$LINE"
trap 'wait; echo parent >&9; exit 0' USR1
sh -c 'trap "echo child >&9; exit 0" USR1; sleep 1000 & echo ready >&9; wait' &
wait`)
	line.Expect(t, "ready")
	o.tell(t, "usr1")
	line.Expect(t, "child")
	line.Expect(t, "parent")
	o.expect(t, "exited: exit code 0 0")
	o.expect(t, "gone: ")
}

func TestStopIsToldAndTerminateContinues(t *testing.T) {
	line := proctest.NewLine(t)
	o := start(t, line, "sh", "-c", `
exec 9>"$LINE"
trap 'echo term >&9; exit 3' TERM
sleep 1000 &
echo ready >&9
wait`)
	line.Expect(t, "ready")
	o.tell(t, "stop")
	o.expect(t, "stopped: stopped (signal)")
	o.tell(t, "terminate")
	line.Expect(t, "term")
	o.expect(t, "exited: exit code 3 3")
	o.expect(t, "gone: ")
}

func TestCommandDiesWithItsOwner(t *testing.T) {
	line := proctest.NewLine(t)
	o := start(t, line, "sh", "-c", `exec 9>"$LINE"; echo ready >&9; exec sleep 1000`)
	line.Expect(t, "ready")
	if err := o.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	line.Ended(t)
}
