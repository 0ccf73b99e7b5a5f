package cli

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
	"github.com/writ-io/writ/lease"
)

// desk is a shell on a terminal.
type desk struct {
	keyboard *os.File
	screen   chan string
	shell    *exec.Cmd
	seen     string
}

// sit starts a shell script at a terminal of its own. The shell stays when the script is over: the end of a session takes
// what is on its way to the screen with it.
func sit(t *testing.T, env []string, script string) *desk {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{keyboard: master, screen: make(chan string, 1000), shell: exec.Command("sh", "-c", script+"\nread end", os.Args[0])}
	d.shell.Env = slices.Concat(os.Environ(), env, []string{mainVariable + "=1", proctest.Brisk})
	d.shell.Stdin, d.shell.Stdout, d.shell.Stderr = slave, slave, slave
	d.shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := d.shell.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(d.screen)
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			if err != nil {
				return // the last process has closed the terminal
			}
			d.screen <- string(buffer[:n])
		}
	}()
	t.Cleanup(func() {
		_ = d.shell.Process.Kill() // which hangs up on the others
		_ = d.shell.Wait()
		<-read
		_ = master.Close()
	})
	return d
}

// hit types keys.
func (d *desk) hit(t *testing.T, keys string) {
	t.Helper()
	if _, err := d.keyboard.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// expect waits until the screen shows a text, behind what was expected before.
func (d *desk) expect(t *testing.T, want string) {
	t.Helper()
	patience := time.After(proctest.Patience)
	for !strings.Contains(d.seen, want) {
		select {
		case text, ok := <-d.screen:
			if !ok {
				t.Fatalf("the terminal was closed behind %q, want %q", d.seen, want)
			}
			d.seen += text
		case <-patience:
			t.Fatalf("the screen shows %q, want %q", d.seen, want)
		}
	}
	d.seen = d.seen[strings.Index(d.seen, want)+len(want):]
}

// atDesk runs a script in which "$0 run" is writ run.
func (s *stage) atDesk(t *testing.T, actor proctest.Actor, script string) *desk {
	t.Helper()
	return sit(t, append(actor.Env(s.line), "WRIT_ENDPOINTS="+s.endpoint, "WRIT_INSECURE=true"), script)
}

const (
	keyInterrupt = "\x03"
	keySuspend   = "\x1a"
)

// The command has the terminal while it runs, and the shell has it afterwards.
func TestRunLendsTheTerminal(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	d := s.atDesk(t, proctest.Actor{Name: "command", Read: true, EndOn: []syscall.Signal{syscall.SIGINT}, Code: 9},
		`"$0" run jobs/a -- "$0"; echo "code $?"; read line; echo "shell read $line"`)
	s.line.Expect(t, "ready")
	d.hit(t, "for the command\n")
	s.line.Expect(t, "command read for the command")
	d.hit(t, keyInterrupt)
	s.line.Expect(t, "command interrupt")
	d.expect(t, "code 9")
	d.hit(t, "for the shell\n")
	d.expect(t, "shell read for the shell")
	s.wantReleased(t)
}

// In a pipeline the terminal is not lent before the command asks for it, so that whatever else is in the pipeline keeps it.
func TestRunLendsTheTerminalOnDemand(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	d := s.atDesk(t, proctest.Actor{Name: "command", Read: true, EndOn: []syscall.Signal{syscall.SIGINT}},
		`"$0" run jobs/a -- "$0" | cat; read line; echo "shell read $line"`)
	d.hit(t, "for the command\n")
	s.line.Expect(t, "ready")
	s.line.Expect(t, "command read for the command")
	d.hit(t, keyInterrupt)
	s.line.Expect(t, "command interrupt")
	s.line.Ended(t)
	d.hit(t, "for the shell\n")
	d.expect(t, "shell read for the shell")
}

// A command that is stopped from the keyboard stops writ too, so that the shell goes on; both are continued together.
func TestRunIsAJob(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	d := s.atDesk(t, proctest.Actor{Name: "command", Read: true, EndOn: []syscall.Signal{syscall.SIGINT}, Code: 7},
		`set -m; "$0" run jobs/a --ttl 1m -- "$0"; echo "shell goes on"; read line; echo "shell read $line"; fg; echo "code $?"`)
	s.line.Expect(t, "ready")
	d.hit(t, keySuspend)
	d.expect(t, "shell goes on")
	d.hit(t, "for the shell\n")
	d.expect(t, "shell read for the shell")
	d.hit(t, "for the command\n")
	s.line.Expect(t, "command read for the command")
	d.hit(t, keyInterrupt)
	s.line.Expect(t, "command interrupt")
	d.expect(t, "code 7")
	s.wantReleased(t)
}

// A job that is continued too late is killed instead.
func TestRunIsAJobUnderALease(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	d := s.atDesk(t, proctest.Actor{Name: "command", Catch: []syscall.Signal{syscall.SIGCONT}},
		`set -m; "$0" run jobs/a --ttl `+lostTTL.String()+` -- "$0"; echo "shell goes on"; read line; fg; echo "code $?"`)
	s.line.Expect(t, "ready")
	d.hit(t, keySuspend)
	d.expect(t, "shell goes on")
	s.take(t) // once the lease has run out
	d.hit(t, "\n")
	s.line.Ended(t)
	d.expect(t, "code 125")
}

// What takes something away asks first. Only the name is a yes, and Ctrl-C is a no.
func TestForceReleaseAsks(t *testing.T) {
	for _, c := range []struct{ keys, want string }{
		{"jobs/a\n", "it is free"},
		{"yes\n", "writ: INVALID: answer is not the name; nothing was changed"},
		{keyInterrupt, "writ: interrupted; nothing was changed"},
	} {
		t.Run(strings.TrimSpace(c.want), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.take(t)
			d := s.atDesk(t, proctest.Actor{}, `trap : INT; "$0" lease force-release jobs/a --reason why; echo "code $?"`)
			d.expect(t, "This takes jobs/a away from its holder. Type jobs/a to go on: ")
			d.hit(t, c.keys)
			d.expect(t, c.want)
			code := 1
			if c.want == "it is free" {
				code = 0
			}
			d.expect(t, fmt.Sprintf("code %d", code))
			if ended := s.quorum.Info(name).End == lease.EndForced; ended != (code == 0) {
				t.Errorf("ended by force: %v", ended)
			}
		})
	}
}
