package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// process is the holder as the story sees it.
type process struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	said    chan heard
	earlier []heard       // what hear has passed over
	exited  chan struct{} // closed when it has; err is set before
	err     error
	stderr  bytes.Buffer // of the process; read after exited
}

// startHolder starts this program again as a holder that writes to the guard at url and, unless dsn is empty, to a database. It
// ends with ctx, or when this process does.
func startHolder(ctx context.Context, env []string, url, dsn string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{said: make(chan heard, 16), exited: make(chan struct{})}
	p.cmd = exec.CommandContext(ctx, self, "dev", "holder", "--url", url, "--dsn", dsn)
	p.cmd.Env = append(withoutPostgres(withoutWrit(os.Environ())), env...)
	p.cmd.Stderr = &p.stderr
	dieWithParent(p.cmd, syscall.SIGKILL) // even while it is paused
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error)
	go func() { // ends with the process, and joined through exited
		// The kernel ties the life of the child to that of the thread which has started it.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		for decoder := json.NewDecoder(stdout); ; {
			var s said
			if err := decoder.Decode(&s); err != nil {
				break
			}
			p.said <- heard{s, clock.System().Now()}
		}
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, <-started
}

// withoutWrit takes out what tells clients where to go: the demo has a quorum of its own.
func withoutWrit(env []string) []string {
	var out []string
	for _, variable := range env {
		switch name, _, _ := strings.Cut(variable, "="); name {
		case "WRIT_ENDPOINTS", "WRIT_CA", "WRIT_CERT", "WRIT_KEY", "WRIT_REGION", "WRIT_INSECURE":
		default:
			out = append(out, variable)
		}
	}
	return out
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// tell gives a command.
func (p *process) tell(command string) error {
	_, err := io.WriteString(p.stdin, command+"\n")
	return err
}

// heard is what the process said, and when that arrived.
type heard struct {
	said
	at clock.Instant
}

// hear waits for the process to say what, and keeps what else it says for later.
func (p *process) hear(ctx context.Context, what string) (heard, error) {
	for i, h := range p.earlier {
		if h.What == what {
			p.earlier = slices.Delete(p.earlier, i, i+1)
			return h, nil
		}
	}
	for {
		select {
		case h := <-p.said:
			if h.What == what {
				return h, nil
			}
			p.earlier = append(p.earlier, h)
		case <-p.exited:
			return heard{}, fmt.Errorf("the holder has exited: %w: %s", errors.Join(p.err, io.ErrUnexpectedEOF), strings.TrimSpace(p.stderr.String()))
		case <-ctx.Done():
			return heard{}, fmt.Errorf("the holder has not said %q: %w", what, context.Cause(ctx))
		}
	}
}

func (p *process) pause() error  { return syscall.Kill(p.pid(), syscall.SIGSTOP) }
func (p *process) resume() error { return syscall.Kill(p.pid(), syscall.SIGCONT) }

// end lets the process finish, and ends it if it does not.
func (p *process) end(patience time.Duration) {
	_ = p.stdin.Close()
	_ = p.resume() // it may be gone
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-p.said: // so that it is not kept from ending
		case <-p.exited:
			return
		case <-timer.C:
			_ = p.cmd.Process.Kill() // it may be gone
		}
	}
}
