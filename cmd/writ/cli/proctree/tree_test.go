//go:build linux

package proctree_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/writ-io/writ/cmd/writ/cli/proctree"
	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
)

// A Tree wants a process of its own, so the tests start themselves once more, as an owner that does what it is told.
const ownerVariable = "PROCTREE_TEST_OWNER"

// actor as a command stands for the actor that start is given.
const actor = "actor"

func TestMain(m *testing.M) {
	if os.Getenv(ownerVariable) != "" {
		os.Exit(ownTree(os.Args[1:]))
	}
	proctest.Main()
	os.Exit(m.Run())
}

// ownTree starts a command, obeys the words on its standard input, and tells what happens on its standard output.
func ownTree(args []string) int {
	null, err := os.Open(os.DevNull)
	if err != nil {
		panic(err)
	}
	if args[0] == actor {
		args = os.Args[:1]
	}
	_ = os.Unsetenv(ownerVariable)
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
	case "usr2":
		tree.Signal(syscall.SIGUSR2)
	case "stop":
		tree.Signal(syscall.SIGSTOP)
	case "continue":
		tree.Resume()
	case "terminate":
		tree.Terminate()
	case "kill":
		tree.Kill()
	case "left":
		fmt.Println("left:", tree.Left() != "")
	}
}

// owner is the process that runs ownTree.
type owner struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func start(t *testing.T, env []string, args ...string) *owner {
	t.Helper()
	o := &owner{cmd: exec.Command(os.Args[0], args...)}
	o.cmd.Env = slices.Concat(os.Environ(), env, []string{ownerVariable + "=1", proctest.Brisk})
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
		_, _ = fmt.Fprintln(o.in, "kill") // it may be gone already
		_ = o.cmd.Wait()
		watchdog.Stop()
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
	o := start(t, nil, "sh", "-c", "exit 42")
	o.expect(t, "exited: exit code 42 42")
	o.expect(t, "gone: ")
}

func TestEndBySignal(t *testing.T) {
	// Not a signal that the test may have been started to ignore, as nohup does with SIGHUP.
	o := start(t, nil, "sh", "-c", "kill -USR1 $$")
	o.expect(t, "exited: killed by SIGUSR1 138")
	o.expect(t, "gone: ")
}

func TestCannotStart(t *testing.T) {
	for command, want := range map[string]string{
		"no-such-command": `cannot start "no-such-command": executable file not found in $PATH`,
		"./no/such/file":  `cannot start "./no/such/file": no such file or directory`,
		os.DevNull:        `cannot start "/dev/null": permission denied`,
	} {
		start(t, nil, command).expect(t, want)
	}
}

// stubborn ignores what asks it to end, in a session of its own.
var stubborn = proctest.Actor{
	Name: "stubborn", Session: true, Ignore: []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT},
}

func TestKillReachesProcessesThatLeftTheGroup(t *testing.T) {
	line := proctest.NewLine(t)
	o := start(t, proctest.Actor{
		Name: "command", EndOn: []syscall.Signal{syscall.SIGTERM}, Code: 7,
		// The parent of the stubborn one has ended, so that it belongs to nobody that is known.
		Children: []proctest.Actor{{Session: true, Leave: true, Children: []proctest.Actor{stubborn}}},
	}.Env(line), actor)
	line.Expect(t, "ready")
	o.tell(t, "terminate")
	line.Expect(t, "command terminated")
	o.expect(t, "exited: exit code 7 7")
	o.tell(t, "left")
	o.expect(t, "left: true")
	o.tell(t, "kill")
	o.expect(t, "gone: ")
	line.Ended(t)
}

// A tree that grows all the while dies too.
func TestKillOfATreeThatForks(t *testing.T) {
	line := proctest.NewLine(t)
	o := start(t, []string{"LINE=" + line.Path}, "sh", "-c", `
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
	usr1, usr2 := []syscall.Signal{syscall.SIGUSR1}, []syscall.Signal{syscall.SIGUSR2}
	o := start(t, proctest.Actor{
		Name: "command", EndOn: usr2,
		Children: []proctest.Actor{{Name: "child", EndOn: usr1}, {Name: "other", Session: true, Catch: usr1, EndOn: usr2}},
	}.Env(line), actor)
	line.Expect(t, "ready")
	o.tell(t, "usr1")
	line.Expect(t, "child user defined signal 1")
	o.tell(t, "usr2")
	line.Expect(t, "command user defined signal 2") // not "other", which is in another group
	o.expect(t, "exited: exit code 0 0")
}

func TestStopIsToldAndTerminateContinues(t *testing.T) {
	line := proctest.NewLine(t)
	o := start(t, proctest.Actor{Name: "command", EndOn: []syscall.Signal{syscall.SIGTERM}, Code: 3}.Env(line), actor)
	line.Expect(t, "ready")
	o.tell(t, "stop")
	o.expect(t, "stopped: stopped (signal)")
	o.tell(t, "terminate")
	line.Expect(t, "command terminated")
	o.expect(t, "exited: exit code 3 3")
	o.expect(t, "gone: ")
}

func TestCommandDiesWithItsOwner(t *testing.T) {
	line := proctest.NewLine(t)
	o := start(t, proctest.Actor{}.Env(line), actor)
	line.Expect(t, "ready")
	if err := o.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	line.Ended(t)
}
