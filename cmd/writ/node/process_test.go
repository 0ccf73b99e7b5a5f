package node

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a writ command that runs as a process of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has

	mu     sync.Mutex
	stdout bytes.Buffer // guarded by mu
	stderr bytes.Buffer // guarded by mu
}

// run starts writ with args. env is added to the environment.
func run(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	p := &process{t: t, cmd: exec.Command(self, args...), exited: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), runCommand+"=1"), env...)
	// A child that outlived it would otherwise keep the output open.
	p.cmd.WaitDelay = 5 * time.Second
	p.cmd.Stdout, p.cmd.Stderr = &lockedWriter{&p.mu, &p.stdout}, &lockedWriter{&p.mu, &p.stderr}
	must(t, p.cmd.Start())
	go func() { // joined through exited
		_ = p.cmd.Wait() // its outcome is in ProcessState
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
	})
	return p
}

type lockedWriter struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (w *lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(b)
}

func (p *process) output() (stdout, stderr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stdout.String(), p.stderr.String()
}

// says waits until stdout or stderr holds text.
func (p *process) says(text string) {
	p.t.Helper()
	eventually(p.t, func() string {
		stdout, stderr := p.output()
		if strings.Contains(stdout, text) || strings.Contains(stderr, text) {
			return ""
		}
		select {
		case <-p.exited:
			p.t.Fatalf("exited with %v before saying %q:\n%s\n%s", p.cmd.ProcessState, text, stdout, stderr)
		default:
		}
		return "it has not said " + text + ":\n" + stdout + stderr
	})
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// exit waits for the end and answers the code.
func (p *process) exit() int {
	p.t.Helper()
	timer := time.NewTimer(2 * patience)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		stdout, stderr := p.output()
		p.t.Fatalf("still running after %v:\n%s\n%s", 2*patience, stdout, stderr)
	}
	return p.cmd.ProcessState.ExitCode()
}

// exits checks the code.
func (p *process) exits(want int) {
	p.t.Helper()
	if got := p.exit(); got != want {
		stdout, stderr := p.output()
		p.t.Fatalf("exit code %d, want %d:\n%s\n%s", got, want, stdout, stderr)
	}
}

// complains checks that the process exited with 1 and one line on stderr, which has all the words.
func (p *process) complains(words ...string) {
	p.t.Helper()
	p.exits(1)
	_, stderr := p.output()
	complaint := ""
	for scanner := bufio.NewScanner(strings.NewReader(stderr)); scanner.Scan(); {
		if line, ok := strings.CutPrefix(scanner.Text(), "writ: "); ok {
			complaint += line + "\n"
		}
	}
	checkWords(p.t, complaint, words...)
}
