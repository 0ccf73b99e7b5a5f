//go:build linux

package jepsen_test

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/jepsen/appends"
)

// guardsSpan is how long the guards are tried.
var guardsSpan = flag.Duration("guards", time.Minute, "how long TestGuardedStore does harm")

// Less than this in ten seconds shows too little.
const (
	leastHandOffs = 1
	leastAppends  = 5
)

// verdict on a run.
type verdict string

const (
	valid verdict = "valid"
	// invalid: a promise was broken.
	invalid verdict = "invalid"
	// undecided: too little happened to mean anything, or something was broken that the machine may be to blame for.
	undecided verdict = "unknown"
)

// TestGuardedStore has two writers append to one list, by reading it and writing it back, through three guards before a store
// that compares nothing, while nodes, guards, writers and the network between them fail. Whoever is granted the lease has to
// find everything that was written before, and nobody may come late. S2, S3.
func TestGuardedStore(t *testing.T) {
	seed := uint64(setting(t, "WRIT_JEPSEN_SEED", time.Now().UnixNano()))
	l := startLab(t, seed, labConfig{writers: 2})
	log := l.torment(t, seed, *guardsSpan)
	if got := l.verdict(t, log, *guardsSpan); got != valid {
		t.Errorf("the run is %s", got)
	}
}

// TestUnguardedStoreIsCaught is the same with guards that let everything pass: it has to be found out.
func TestUnguardedStoreIsCaught(t *testing.T) {
	seed := uint64(setting(t, "WRIT_JEPSEN_SEED", time.Now().UnixNano()))
	l := startLab(t, seed, labConfig{writers: 2, unguarded: true})
	log := newPlagueLog()
	p := l.plague(seed, 2, maladies, log)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for l.book.judge() == nil && ctx.Err() == nil {
		if err := p.pauseReader(ctx, l.writers[0]); err != nil {
			t.Fatal(err)
		}
	}
	l.calm(t)
	if got := l.verdict(t, log, time.Since(log.start)); got != invalid {
		t.Errorf("the run is %s", got)
	}
	kinds := make(map[appends.Kind]bool)
	for _, v := range l.book.judge() {
		kinds[v.Kind] = true
	}
	if !kinds[appends.Stale] || !kinds[appends.Lost] {
		t.Errorf("stale writes that undo others were not found: %v", kinds)
	}
}

func newPlagueLog() *plagueLog {
	return &plagueLog{start: time.Now(), counts: make(map[string]int)}
}

func (l *lab) plague(seed, stream uint64, faults []fault, log *plagueLog) *plague {
	return &plague{lab: l, rng: rand.New(rand.NewPCG(seed, stream)), faults: faults, rest: 600 * time.Millisecond, log: log}
}

// torment does harm for a while, and then has everything end well.
func (l *lab) torment(t *testing.T, seed uint64, span time.Duration) *plagueLog {
	t.Helper()
	t.Logf("seed %d", seed)
	log := newPlagueLog()
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	var running sync.WaitGroup
	var failed [3]error
	for i, faults := range [][]fault{pathology, maladies, aimed} {
		running.Go(func() {
			defer cancel()
			p := l.plague(seed, uint64(i), faults, log)
			if faults[0].alone {
				p.rest = 6 * time.Second // or the others would hardly come to anything
			}
			failed[i] = p.run(ctx)
		})
	}
	running.Wait()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what was done, in seconds:\n%s", log.text())
		}
	})
	if err := errors.Join(failed[:]...); err != nil {
		t.Fatal(err)
	}
	l.calm(t)
	return log
}

// calm has the writers end, and waits until nothing is under way any more.
func (l *lab) calm(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.net.Heal(); err != nil {
		t.Fatal(err)
	}
	if err := l.nodes.AwaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	for _, w := range l.writers {
		if err := w.finish(ctx); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	token := l.settle(ctx, t)
	t.Logf("after the faults, %v was granted in %v", token, time.Since(began).Round(time.Millisecond))
	// It says nothing more from now on, so everything has been heard when it is gone.
	if err := l.store.Kill(); err != nil {
		t.Fatal(err)
	}
}

// verdict judges a run.
func (l *lab) verdict(t *testing.T, log *plagueLog, span time.Duration) verdict {
	t.Helper()
	tally := l.book.tally()
	t.Logf("%v of %v\n%v", span.Round(time.Second), tally, log)
	if err := errors.Join(l.book.problems...); err != nil {
		t.Error(err)
	}
	if found := l.book.judge(); found != nil {
		for i, v := range found {
			if i == 20 {
				t.Logf("and %d more", len(found)-i)
				break
			}
			t.Log(v)
		}
		if l.book.stall > slack/2 || log.longest > slack {
			t.Logf("the store did not run for %v, and a guard was paused for %v: W is %v", l.book.stall, log.longest, slack)
			return undecided
		}
		return invalid
	}
	tens := int(span / (10 * time.Second))
	if tally.handOffs < tens*leastHandOffs || tally.acked < tens*leastAppends {
		return undecided
	}
	return valid
}
