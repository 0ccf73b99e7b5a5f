//go:build linux

package wallclock_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/jepsen/wallclock"
	"github.com/writ-io/writ/lease/clock"
)

// childVariable makes the test binary a program that says what time it is whenever it is asked.
const childVariable = "WRIT_WALLCLOCK_CHILD"

// said is what the child says.
type said struct {
	Wall    time.Time
	Elapsed time.Duration // since its start, as the time package measures
	Boot    clock.Instant
}

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		tell()
		return
	}
	os.Exit(m.Run())
}

func tell() {
	start := time.Now()
	for range 2 { // threads that read the clock all the time
		go func() {
			for time.Since(start) < time.Hour {
				_ = time.Now()
			}
		}()
	}
	out := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if out.Encode(said{time.Now(), time.Since(start), clock.System().Now()}) != nil {
			return
		}
	}
}

// child is a process that can be asked for the time.
type child struct {
	*testing.T
	pid int
	ask io.Writer
	out *json.Decoder
}

func startChild(t *testing.T) *child {
	t.Helper()
	if err := wallclock.Supported(); err != nil && os.Getenv("WRIT_CI") != "1" {
		t.Skip(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stderr = append(os.Environ(), childVariable+"=1"), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &child{t, cmd.Process.Pid, in, json.NewDecoder(out)}
}

func (c *child) time() (s said) {
	c.Helper()
	if _, err := io.WriteString(c.ask, "?\n"); err != nil {
		c.Fatal(err)
	}
	if err := c.out.Decode(&s); err != nil {
		c.Fatal(err)
	}
	return s
}

func (c *child) clock() *wallclock.Clock {
	c.Helper()
	held, err := wallclock.Of(c.pid)
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = held.Close() })
	return held
}

// tolerance is how far what a busy child says may be behind.
const tolerance = 10 * time.Second

// expect holds the child's clocks against ours: the wall clock is off by so much, the others are not.
func (c *child) expect(off time.Duration, before said) said {
	c.Helper()
	asked := time.Now()
	s := c.time()
	if got := s.Wall.Sub(asked.Add(off)); got < -time.Second || got > tolerance {
		c.Errorf("the wall clock is off by %v, want %v", off+got, off)
	}
	passed := s.Boot.Sub(before.Boot)
	if got := s.Elapsed - before.Elapsed - passed; passed < 0 || passed > tolerance || got.Abs() > tolerance {
		c.Errorf("%v passed by one clock, and %v by another", passed, s.Elapsed-before.Elapsed)
	}
	return s
}

func TestJumps(t *testing.T) {
	c := startChild(t)
	s := c.expect(0, c.time())
	held := c.clock()
	s = c.expect(0, s)
	for _, by := range []time.Duration{30 * time.Second, -30 * time.Second, 72 * time.Hour, -72 * time.Hour, 20 * 365 * 24 * time.Hour, 0} {
		if err := held.Jump(by); err != nil {
			t.Fatal(err)
		}
		s = c.expect(by, s)
	}
	again := c.clock() // of a process that has been changed
	if err := again.Jump(time.Hour); err != nil {
		t.Fatal(err)
	}
	s = c.expect(time.Hour, s)
	if err := held.Restore(); err != nil {
		t.Fatal(err)
	}
	c.expect(0, s)
	other := startChild(t)
	if err := held.Jump(time.Hour); err != nil {
		t.Fatal(err)
	}
	other.expect(0, other.time())
	if got := time.Since(time.Now().Round(0)); got.Abs() > tolerance {
		t.Errorf("our own clock is off by %v", got)
	}
}

func TestFrozenClock(t *testing.T) {
	c := startChild(t)
	held := c.clock()
	at := time.Date(2031, 5, 6, 7, 8, 9, 123456789, time.UTC)
	if err := held.Freeze(at); err != nil {
		t.Fatal(err)
	}
	first := c.time()
	second := c.time()
	if !first.Wall.Equal(at) || !second.Wall.Equal(at) {
		t.Errorf("%v, %v: want %v", first.Wall, second.Wall, at)
	}
	if second.Elapsed <= first.Elapsed || second.Boot <= first.Boot {
		t.Errorf("%v and %v later: its other clocks stand still", second.Elapsed-first.Elapsed, second.Boot.Sub(first.Boot))
	}
	if err := held.Jump(time.Minute); err != nil {
		t.Fatal(err)
	}
	s := c.expect(time.Minute, second)
	if err := held.Restore(); err != nil {
		t.Fatal(err)
	}
	c.expect(0, s)
}

// Processes are changed while their threads are in the midst of reading the clock.
func TestManyProcesses(t *testing.T) {
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			c := startChild(t)
			if err := c.clock().Jump(time.Hour); err != nil {
				t.Fatal(err)
			}
			c.expect(time.Hour, c.time())
		})
	}
}

func TestNoProcess(t *testing.T) {
	if err := wallclock.Supported(); err != nil {
		if !errors.Is(err, wallclock.ErrUnsupported) {
			t.Error(err)
		}
		t.Skip(err)
	}
	cmd := exec.Command("/bin/true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := wallclock.Of(cmd.Process.Pid); err == nil || !strings.Contains(err.Error(), "wallclock: ") {
		t.Error(err)
	}
}
