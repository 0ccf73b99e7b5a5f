//go:build linux

package book

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/jepsen/appends/writer"
)

// lineWriter passes on what is written to it in whole lines. One goroutine writes.
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

// Book is what the store and the writers have said.
type Book struct {
	// OnStored and OnHeard, if set, are called with everything that is said, before it counts, one call at a time. They must
	// not call the book.
	OnStored func(store.Line)
	OnHeard  func(writer.Said)

	mu        sync.Mutex
	applied   []appends.Applied          // guarded by mu, and so is what follows
	stale     int                        // refused by the store itself
	stall     time.Duration              // the longest of the store
	attempts  map[string]appends.Attempt // by element
	details   map[string]int             // of attempts that were not acknowledged
	grants    []writer.Said
	listeners map[*listener]bool
	problems  []error
}

// New makes an empty book.
func New() *Book {
	return &Book{attempts: make(map[string]appends.Attempt), details: make(map[string]int), listeners: make(map[*listener]bool)}
}

// FromStore returns what a store says its lines to. Each process gets one of its own.
func (b *Book) FromStore() io.Writer { return &lineWriter{take: b.stored} }

// FromWriter returns the same for a writer.
func (b *Book) FromWriter() io.Writer { return &lineWriter{take: b.heard} }

func (b *Book) stored(line []byte) {
	var s store.Line
	err := json.Unmarshal(line, &s)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil && b.OnStored != nil {
		b.OnStored(s)
	}
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
		b.pass(writer.Said{Kind: writer.Begun, Token: s.Begun})
	}
}

func (b *Book) heard(line []byte) {
	var s writer.Said
	err := json.Unmarshal(line, &s)
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.problems = append(b.problems, fmt.Errorf("a writer says %q: %w", line, err))
		return
	}
	b.Note(s)
}

// Note writes down what a writer says, or somebody who does the work of one.
func (b *Book) Note(s writer.Said) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.OnHeard != nil {
		b.OnHeard(s)
	}
	switch s.Kind {
	case writer.Granted:
		b.grants = append(b.grants, s)
	case writer.Put:
		b.attempts[s.Element] = appends.Attempt{Element: s.Element, Token: s.Token}
	case writer.Done:
		b.attempts[s.Element] = appends.Attempt{Element: s.Element, Token: s.Token, Outcome: s.Outcome}
		if s.Outcome != appends.Acked {
			b.details[fmt.Sprintf("%v: %s", s.Outcome, s.Detail)]++
		}
	}
	b.pass(s)
}

// Newest is the grant with the highest token of those that name a resource.
func (b *Book) Newest(resource string) (newest writer.Said) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range b.grants {
		if g.Element == resource && g.Token >= newest.Token {
			newest = g
		}
	}
	return newest
}

// pass tells those who listen. The caller holds mu.
func (b *Book) pass(s writer.Said) {
	for l := range b.listeners {
		if l.sought(s) {
			l.heard <- s // the first, so it fits
			delete(b.listeners, l)
		}
	}
}

// listener is told of the first thing that a writer says which is sought.
type listener struct {
	sought func(writer.Said) bool
	heard  chan writer.Said
}

// Listen begins to listen, until stop is called.
func (b *Book) Listen(sought func(writer.Said) bool) (heard <-chan writer.Said, stop func()) {
	l := &listener{sought, make(chan writer.Said, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listeners[l] = true
	return l.heard, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, l)
	}
}

// Await waits until a writer says something, and returns false if ctx ends before.
func (b *Book) Await(ctx context.Context, sought func(writer.Said) bool) (writer.Said, bool) {
	heard, stop := b.Listen(sought)
	defer stop()
	select {
	case s := <-heard:
		return s, true
	case <-ctx.Done():
		return writer.Said{}, false
	}
}

// Tally is what a run came to.
type Tally struct {
	// Grants, and those of them to another process than the one before, in the order of tokens.
	Grants, HandOffs int
	// Appends, by outcome.
	Acked, Refused, Unknown int
	// Proofs, by kind, of Observed grants; Details of appends that were not acknowledged.
	Proofs, Details map[string]int
	Observed        int
	// Applied counts writes that the store carried out, Stale those that it refused itself.
	Applied, Stale int
}

// Tally counts. A hand-off is a grant to another process than the one before, in the order of tokens.
func (b *Book) Tally() Tally {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := Tally{
		Grants: len(b.grants), Applied: len(b.applied), Stale: b.stale, Proofs: make(map[string]int), Details: maps.Clone(b.details),
	}
	grants := slices.SortedFunc(slices.Values(b.grants), func(x, y writer.Said) int { return x.Token.Compare(y.Token) })
	for i, g := range grants {
		if i > 0 && g.Writer != grants[i-1].Writer {
			t.HandOffs++
		}
		for _, how := range g.Proofs {
			t.Proofs[how]++
		}
		if len(g.Proofs) > 0 {
			t.Observed++
		}
	}
	for _, a := range b.attempts {
		switch a.Outcome {
		case appends.Acked:
			t.Acked++
		case appends.Refused:
			t.Refused++
		default:
			t.Unknown++
		}
	}
	return t
}

func (t Tally) String() string {
	return fmt.Sprintf("%d grants, %d hand-offs; appends: %d acknowledged, %d refused, %d unknown; %d writes applied, %d refused by the store\n"+
		"proofs of %d grants: %s\nnot acknowledged: %s", t.Grants, t.HandOffs, t.Acked, t.Refused, t.Unknown, t.Applied, t.Stale,
		t.Observed, Counts(t.Proofs), Counts(t.Details))
}

// Counts shows numbers by name.
func Counts(m map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, m[name]))
	}
	return strings.Join(parts, ", ")
}

// Judge has the history judged.
func (b *Book) Judge() []appends.Violation {
	b.mu.Lock()
	defer b.mu.Unlock()
	return appends.Check(b.applied, slices.Collect(maps.Values(b.attempts)))
}

// Stall is the longest time for which the store said that it did not run.
func (b *Book) Stall() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stall
}

// Err returns what could not be understood; nil: nothing.
func (b *Book) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.problems...)
}
