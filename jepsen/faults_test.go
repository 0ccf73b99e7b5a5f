//go:build linux

package jepsen_test

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/nemesis"
)

// faultLog keeps what was done to a lab, for people.
type faultLog struct {
	start time.Time

	mu      sync.Mutex
	counts  map[string]int // guarded by mu
	journal []string       // guarded by mu
}

var _ nemesis.Log = (*faultLog)(nil)

func newFaultLog() *faultLog { return &faultLog{start: time.Now(), counts: make(map[string]int)} }

// Fault implements nemesis.Log.
func (l *faultLog) Fault(nemesis, detail string) func() {
	l.count(nemesis)
	l.note("begin %s: %s", nemesis, detail)
	return func() { l.note("end %s: %s", nemesis, detail) }
}

func (l *faultLog) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.journal = append(l.journal, fmt.Sprintf("%8.3f %s", time.Since(l.start).Seconds(), fmt.Sprintf(format, args...)))
}

func (l *faultLog) count(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[name]++
}

func (l *faultLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return book.Counts(l.counts)
}

func (l *faultLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.journal, "\n")
}
