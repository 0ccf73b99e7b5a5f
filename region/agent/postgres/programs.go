package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/writ-io/writ/region/agent"
)

// outputKept is how much of what a program says is kept.
const outputKept = 2048

// program runs one of PostgreSQL's programs for the task, and answers the end of what it said.
func (r *reinstating) program(ctx context.Context, name string, args ...string) (string, error) {
	said := agent.NewTail(outputKept)
	err := agent.Program{
		Args: r.args(name, args...), Env: []string{"LC_ALL=C"}, Dir: "/", Stdout: said, Stderr: said, Mark: agent.Mark(ctx),
	}.Run(ctx)
	return strings.TrimSpace(said.String()), err
}

// args puts what stands before every program before one.
func (s *Server) args(name string, args ...string) []string {
	if s.cfg.BinDir != "" {
		name = filepath.Join(s.cfg.BinDir, name)
	}
	all := append([]string(nil), s.cfg.As...)
	return append(append(all, name), args...)
}

// command runs one that starts or stops the server. It carries no mark: what it starts is to stay.
func (s *Server) command(ctx context.Context, args []string) (string, error) {
	said := agent.NewTail(outputKept)
	err := agent.Program{Args: args, Env: []string{"LC_ALL=C"}, Dir: "/", Stdout: said, Stderr: said}.Run(ctx)
	return strings.TrimSpace(said.String()), err
}

// notRunning is what pg_ctl status exits with.
const notRunning = 3

// running asks pg_ctl.
func (s *Server) running(ctx context.Context) (bool, error) {
	out, err := s.command(ctx, s.args("pg_ctl", "status", "-D", s.cfg.DataDir))
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == notRunning {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: %s", err, out)
	}
	return true, nil
}

// stop stops the server; one that does not run is stopped.
func (s *Server) stop(ctx context.Context, say *strings.Builder) error {
	args := s.cfg.Stop
	if len(args) == 0 {
		running, err := s.running(ctx)
		if err != nil {
			return err
		}
		if !running {
			tell(say, "it does not run")
			return nil
		}
		args = s.args("pg_ctl", "stop", "-D", s.cfg.DataDir, "-m", "fast", "-w", "-t", seconds(ctx))
	}
	if out, err := s.command(ctx, args); err != nil {
		return fmt.Errorf("stopping: %w: %s", err, out)
	}
	tell(say, "stopped")
	return nil
}

func (s *Server) start(ctx context.Context) error {
	args := s.cfg.Start
	if len(args) == 0 {
		args = s.args("pg_ctl", "start", "-D", s.cfg.DataDir, "-l", filepath.Join(s.cfg.DataDir, "startup.log"), "-w", "-t", seconds(ctx))
	}
	if out, err := s.command(ctx, args); err != nil {
		return fmt.Errorf("starting: %w: %s", err, out)
	}
	return nil
}

// controlled is what the control file of a stopped server says.
type controlled struct {
	system   string
	timeline uint32
	segment  uint64 // bytes of a file of the log
	state    string
}

// control reads the control file.
func (r *reinstating) control(ctx context.Context) (c controlled, err error) {
	full := agent.NewTail(64 << 10) // it has some four
	err = agent.Program{Args: r.args("pg_controldata", "-D", r.cfg.DataDir), Env: []string{"LC_ALL=C"}, Dir: "/", Stdout: full, Stderr: full, Mark: agent.Mark(ctx)}.Run(ctx)
	if err != nil {
		return c, fmt.Errorf("%w: %s", err, full)
	}
	lines := bufio.NewScanner(strings.NewReader(full.String()))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "Database system identifier":
			c.system = value
		case "Database cluster state":
			c.state = value
		case "Latest checkpoint's TimeLineID":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return c, fmt.Errorf("pg_controldata: %w", err)
			}
			c.timeline = uint32(n)
		case "Bytes per WAL segment":
			if c.segment, err = strconv.ParseUint(value, 10, 64); err != nil {
				return c, fmt.Errorf("pg_controldata: %w", err)
			}
		}
	}
	if c.system == "" || c.timeline == 0 || c.segment == 0 {
		return c, errors.New("pg_controldata does not tell system, timeline and segment size")
	}
	return c, nil
}

// copyFile copies a file and waits for the disk.
func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // it was only read
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Sync(), target.Close())
}

// writeFile replaces a file, or leaves the old one.
func writeFile(path string, data []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(data)
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return nil
}
