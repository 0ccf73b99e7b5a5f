//go:build linux

package jepsen_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writ-io/writ/jepsen/appends"
)

// lines passes on what is written to it in whole lines. One goroutine writes.
func lines(take func(line []byte)) io.Writer { return &lineWriter{take: take} }

type lineWriter struct {
	take func([]byte)
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, found := bytes.Cut(w.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		w.take(line)
		w.rest = rest
	}
}

// book is what the store and the writers have said.
type book struct {
	mu        sync.Mutex
	applied   []appends.Applied          // guarded by mu, and so is what follows
	stale     int                        // refused by the store itself
	stall     time.Duration              // the longest of the store
	attempts  map[string]appends.Attempt // by element
	details   map[string]int             // of attempts that were not acknowledged
	grants    []said
	listeners map[*listener]bool
	problems  []error
}

func newBook() *book {
	return &book{attempts: make(map[string]appends.Attempt), details: make(map[string]int), listeners: make(map[*listener]bool)}
}

func (b *book) stored(line []byte) {
	var s storeLine
	err := json.Unmarshal(line, &s)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err != nil:
		b.problems = append(b.problems, fmt.Errorf("the store says %q: %w", line, err))
	case s.Applied != nil:
		b.applied = append(b.applied, *s.Applied)
	case s.Stale != 0:
		b.stale++
	}
	b.stall = max(b.stall, s.Stall)
	if s.Begun != 0 {
		b.pass(said{Kind: saidBegun, Token: s.Begun})
	}
}

func (b *book) heard(line []byte) {
	var s said
	err := json.Unmarshal(line, &s)
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.problems = append(b.problems, fmt.Errorf("a writer says %q: %w", line, err))
		return
	}
	b.note(s)
}

// note writes down what a writer says.
func (b *book) note(s said) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch s.Kind {
	case saidGranted:
		b.grants = append(b.grants, s)
	case saidPut:
		b.attempts[s.Element] = appends.Attempt{Element: s.Element, Token: s.Token}
	case saidDone:
		b.attempts[s.Element] = appends.Attempt{Element: s.Element, Token: s.Token, Outcome: s.Outcome}
		if s.Outcome != appends.Acked {
			b.details[fmt.Sprintf("%v: %s", s.Outcome, s.Detail)]++
		}
	}
	b.pass(s)
}

// pass tells those who listen. The caller holds mu.
func (b *book) pass(s said) {
	for l := range b.listeners {
		if l.sought(s) {
			l.heard <- s // the first, so it fits
			delete(b.listeners, l)
		}
	}
}

// listener is told of the first thing that a writer says which is sought.
type listener struct {
	sought func(said) bool
	heard  chan said
}

// listen begins to listen, until stop is called.
func (b *book) listen(sought func(said) bool) (heard <-chan said, stop func()) {
	l := &listener{sought, make(chan said, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listeners[l] = true
	return l.heard, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, l)
	}
}

// await waits until a writer says something, and returns false if ctx ends before.
func (b *book) await(ctx context.Context, sought func(said) bool) (said, bool) {
	heard, stop := b.listen(sought)
	defer stop()
	select {
	case s := <-heard:
		return s, true
	case <-ctx.Done():
		return said{}, false
	}
}

// tally is what a run came to.
type tally struct {
	grants, handOffs         int
	acked, refused, unknown  int
	proofs, details          map[string]int
	applied, stale, observed int
}

// tally counts. A hand-off is a grant to another process than the one before, in the order of tokens.
func (b *book) tally() tally {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := tally{
		grants: len(b.grants), applied: len(b.applied), stale: b.stale, proofs: make(map[string]int), details: maps.Clone(b.details),
	}
	grants := slices.SortedFunc(slices.Values(b.grants), func(x, y said) int { return x.Token.Compare(y.Token) })
	for i, g := range grants {
		if i > 0 && g.Writer != grants[i-1].Writer {
			t.handOffs++
		}
		for _, how := range g.Proofs {
			t.proofs[how]++
		}
		if len(g.Proofs) > 0 {
			t.observed++
		}
	}
	for _, a := range b.attempts {
		switch a.Outcome {
		case appends.Acked:
			t.acked++
		case appends.Refused:
			t.refused++
		default:
			t.unknown++
		}
	}
	return t
}

func (t tally) String() string {
	return fmt.Sprintf("%d grants, %d hand-offs; appends: %d acknowledged, %d refused, %d unknown; %d writes applied, %d refused by the store\n"+
		"proofs of %d grants: %s\nnot acknowledged: %s", t.grants, t.handOffs, t.acked, t.refused, t.unknown, t.applied, t.stale,
		t.observed, counts(t.proofs), counts(t.details))
}

// counts shows numbers by name.
func counts(m map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, m[name]))
	}
	return strings.Join(parts, ", ")
}

// judge has the history judged.
func (b *book) judge() []appends.Violation {
	b.mu.Lock()
	defer b.mu.Unlock()
	return appends.Check(b.applied, slices.Collect(maps.Values(b.attempts)))
}
