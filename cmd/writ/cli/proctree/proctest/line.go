package proctest

import (
	"bufio"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/writ-io/writ/lease/clock"
)

// Patience is how long a test waits for what must happen. It bounds hangs and decides nothing else.
const Patience = 3 * time.Minute

// Line is a named pipe that a tree of processes holds open for as long as any of them lives.
type Line struct {
	// Path is the pipe's.
	Path string

	words chan string
	gone  chan struct{}
	ended clock.Instant // when the last process had gone; set before gone is closed
}

// NewLine makes a pipe in a directory of the test.
func NewLine(t *testing.T) *Line {
	t.Helper()
	l := &Line{Path: filepath.Join(t.TempDir(), "line"), words: make(chan string, 100), gone: make(chan struct{})}
	if err := syscall.Mkfifo(l.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	opened, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer close(l.words)
		file, err := os.Open(l.Path) // waits for a writer
		close(opened)
		if err != nil {
			return
		}
		defer file.Close()
		for scanner := bufio.NewScanner(file); scanner.Scan(); {
			l.words <- scanner.Text()
		}
		l.ended = clock.System().Now()
		close(l.gone)
	}()
	t.Cleanup(func() {
		// Whoever waits for a writer that never came gets one. To open for both never waits.
		w, err := os.OpenFile(l.Path, os.O_RDWR, 0)
		if err != nil {
			t.Error(err)
			return
		}
		<-opened
		_ = w.Close()
		select {
		case <-done:
		case <-time.After(Patience):
			t.Errorf("processes of this test are still alive")
		}
	})
	return l
}

// Expect waits for the next line that a process wrote.
func (l *Line) Expect(t *testing.T, want string) {
	t.Helper()
	if got := l.Next(t); got != want {
		t.Fatalf("processes said %q, want %q", got, want)
	}
}

// Next returns the next line that a process wrote.
func (l *Line) Next(t *testing.T) string {
	t.Helper()
	select {
	case got, ok := <-l.words:
		if !ok {
			t.Fatal("all processes are gone, want a line from them")
		}
		return got
	case <-time.After(Patience):
		t.Fatal("no line came from the processes")
	}
	return ""
}

// Gone is closed when the last process has gone.
func (l *Line) Gone() <-chan struct{} { return l.gone }

// Ended waits until the last process has gone, and returns when that was, by [clock.System].
func (l *Line) Ended(t *testing.T) clock.Instant {
	t.Helper()
	for {
		select {
		case word, ok := <-l.words:
			if !ok {
				return l.ended
			}
			t.Logf("processes said %q", word)
		case <-time.After(Patience):
			t.Fatal("processes are still alive")
		}
	}
}
