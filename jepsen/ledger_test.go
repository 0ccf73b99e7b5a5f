//go:build linux

package jepsen_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// ledger keeps the books of resources whose holders count in the checkpoint: whoever holds one adds one to the number that
// the holder before left. What it finds wrong it keeps. Its methods are safe for concurrent use.
type ledger struct {
	mu       sync.Mutex
	accounts map[lease.Resource]*account // guarded by mu, and so is what follows
	tokens   map[fence.Token]bool
	grants   []time.Time
	counted  int // acknowledged
	unknown  int // whose acknowledgement was lost
	lost     int // holds that ended by themselves
	problems []error
}

// account is one resource.
type account struct {
	last    fence.Token
	hold    *lease.Hold // that was granted last
	value   int         // that was acknowledged last, or received
	perhaps []int       // that have been sent since, with unknown outcome
}

func newLedger() *ledger {
	return &ledger{accounts: make(map[lease.Resource]*account), tokens: make(map[fence.Token]bool)}
}

func (l *ledger) problem(format string, args ...any) {
	l.problems = append(l.problems, fmt.Errorf(format, args...))
}

// granted books a grant and returns the number that came with it.
func (l *ledger) granted(h *lease.Hold) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grants = append(l.grants, time.Now())
	a := l.accounts[h.Resource()]
	if a == nil {
		a = &account{}
		l.accounts[h.Resource()] = a
	}
	if h.Token() <= a.last {
		l.problem("%s: token %v after %v", h.Resource(), h.Token(), a.last)
	}
	if l.tokens[h.Token()] {
		l.problem("%s: token %v was granted before", h.Resource(), h.Token())
	}
	// In this order: a belief that is seen to last beyond the beginning of another one overlaps with it.
	if h.Valid() && a.hold != nil && a.hold.Valid() {
		l.problem("%s: held under %v and %v at once", h.Resource(), a.hold.Token(), h.Token())
	}
	n := 0
	if data := h.CheckpointData(); data != nil {
		var err error
		if n, err = strconv.Atoi(string(data)); err != nil {
			l.problem("%s: checkpoint %q: %w", h.Resource(), data, err)
		}
	}
	if n != a.value && !slices.Contains(a.perhaps, n) {
		l.problem("%s: the checkpoint is %d, want %d or one of %v", h.Resource(), n, a.value, a.perhaps)
	}
	a.last, a.hold, a.value, a.perhaps = h.Token(), h, n, nil
	l.tokens[h.Token()] = true
	return n
}

// stored books what came of storing n.
func (l *ledger) stored(h *lease.Hold, n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accounts[h.Resource()]
	switch {
	case err == nil:
		a.value = n
		l.counted++
	case a.hold == h:
		a.perhaps = append(a.perhaps, n)
		fallthrough
	default:
		l.unknown++
	}
}

// released books what came of a release.
func (l *ledger) released(h *lease.Hold, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, lease.ErrLost) {
		l.lost++
	} else if err != nil {
		l.problem("%s: release: %w", h.Resource(), err)
	}
}

// failed books an acquisition that came to nothing.
func (l *ledger) failed(resource string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problem("%s: acquire: %w", resource, err)
}

// count returns how many grants there were.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.grants)
}

// longestGap returns the longest time without a grant, from an instant to the last grant of now.
func (l *ledger) longestGap(from time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var longest time.Duration
	last := from
	for _, at := range l.grants {
		if at.After(from) {
			longest = max(longest, at.Sub(last))
			last = at
		}
	}
	return longest
}
