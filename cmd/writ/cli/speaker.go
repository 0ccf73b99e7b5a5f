package cli

import (
	"bytes"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// speaker writes to a stream without ever waiting for it. Whoever has a command to kill in time must not wait until
// somebody reads what it says. When too much waits to be written, what comes next is lost.
type speaker struct {
	done chan struct{}

	mu     sync.Mutex
	closed bool        // guarded by mu
	words  chan []byte // sent to under mu
}

const (
	speakerWords = 256
	// speakerPatience bounds how long the end of the program waits for what was said last.
	speakerPatience = time.Second
)

func newSpeaker(w io.Writer) *speaker {
	s := &speaker{done: make(chan struct{}), words: make(chan []byte, speakerWords)}
	go func() {
		defer close(s.done)
		for word := range s.words {
			_, _ = w.Write(word)
		}
	}()
	return s
}

// Write takes p and returns at once.
func (s *speaker) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		select {
		case s.words <- bytes.Clone(p):
		default:
		}
	}
	return len(p), nil
}

// close waits until everything is written, but not long: a stream that nobody reads keeps its goroutine.
func (s *speaker) close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.words)
	}
	s.mu.Unlock()
	select {
	case <-s.done:
	case <-time.After(speakerPatience):
	}
}

// outliveReaders makes a write to an output that nobody reads any more an error instead of this process's end, which would
// leave a lease, or processes that depend on it, to themselves. Processes that are started do not inherit it.
func outliveReaders() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// unhindered returns the same app with an error output that never makes it wait, for commands that keep a lease: neither
// its renewal nor its end must depend on who reads what is said. Call end last.
func (a *app) unhindered() (same *app, end func()) {
	s := newSpeaker(a.stderr)
	other := *a
	other.stderr = s
	return &other, s.close
}
