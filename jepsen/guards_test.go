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
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/nemesis"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/wait"
)

// guardsSpan is how long the guards are tried.
var guardsSpan = flag.Duration("guards", time.Minute, "how long TestGuardedStore does harm")

// Less than this in ten seconds shows too little.
const (
	leastHandOffs = 1
	leastAppends  = 5
)

// TestGuardedStore has two writers append to one list, by reading it and writing it back, through three guards before a store
// that compares nothing, while nodes, guards, writers and the network between them fail. Whoever is granted the lease has to
// find everything that was written before, and nobody may come late. S2, S3.
func TestGuardedStore(t *testing.T) {
	seed := uint64(setting(t, "WRIT_JEPSEN_SEED", time.Now().UnixNano()))
	l := startLab(t, seed, lab.Config{Writers: 2})
	f := l.torment(t, seed, *guardsSpan)
	if got := l.verdict(t, f, *guardsSpan); got != verdict.Valid {
		t.Errorf("the run is %s", got)
	}
}

// TestUnguardedStoreIsCaught is the same with guards that let everything pass: it has to be found out.
func TestUnguardedStoreIsCaught(t *testing.T) {
	seed := uint64(setting(t, "WRIT_JEPSEN_SEED", time.Now().UnixNano()))
	l := startLab(t, seed, lab.Config{Writers: 2, Unguarded: true})
	f, began := l.field(), time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	rng := rand.New(rand.NewPCG(seed, 2))
	found := func() map[appends.Kind]bool {
		kinds := make(map[appends.Kind]bool)
		for _, v := range l.Book.Judge() {
			kinds[v.Kind] = true
		}
		return kinds
	}
	for kinds := found(); (!kinds[appends.Stale] || !kinds[appends.Lost]) && ctx.Err() == nil; kinds = found() {
		strike(ctx, t, f, "hold-writer", rng)
	}
	l.calm(t)
	if got := l.verdict(t, f, time.Since(began)); got != verdict.Invalid {
		t.Errorf("the run is %s", got)
	}
	if kinds := found(); !kinds[appends.Stale] || !kinds[appends.Lost] {
		t.Errorf("stale writes that undo others were not found: %v", kinds)
	}
}

// nemeses that do harm beside each other, one of each list at a time.
var nemeses = [][]string{
	{
		"kill-node", "pause-node", "unplug-node", "cut-nodes-oneway",
		"kill-guard", "stop-guard", "pause-guard", "unplug-guard", "cut-guard", "cut-guard-oneway", "cut-store",
	},
	{"kill-writer", "pause-writer", "hold-writer", "unplug-writer", "cut-writer"},
}

// lonely need things as they are: no other nemesis does harm meanwhile.
var lonely = []string{"kill-guard-slow", "strike-holder", "strike-persist", "strand-kill", "strand-cut", "strand-leave", "zombie", "zombie-restart"}

// lonelyRest is the time before each of them, or the others would hardly come to anything.
const lonelyRest = 6 * time.Second

// field is where the nemeses do harm.
func (l *theLab) field() *nemesis.Field { return &nemesis.Field{Lab: l.Lab, Log: newFaultLog()} }

// strike has a nemesis strike once.
func strike(ctx context.Context, t *testing.T, f *nemesis.Field, name string, rng *rand.Rand) {
	t.Helper()
	kinds, err := nemesis.Kinds.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Strike(ctx, kinds[0], rng); err != nil {
		t.Fatal(err)
	}
}

// torment does harm for a while, and then has everything end well.
func (l *theLab) torment(t *testing.T, seed uint64, span time.Duration) *nemesis.Field {
	t.Helper()
	t.Logf("seed %d", seed)
	f := l.field()
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	var running sync.WaitGroup
	var together sync.RWMutex // held while harm is done; for writing by who must be alone
	failed := make([]error, len(nemeses)+1)
	haunt := func(i int, names []string, rest time.Duration, order sync.Locker) {
		running.Go(func() {
			defer cancel()
			failed[i] = haunted(ctx, f, names, rand.New(rand.NewPCG(seed, uint64(i))), rest, order)
		})
	}
	for i, names := range nemeses {
		haunt(i, names, 600*time.Millisecond, together.RLocker())
	}
	haunt(len(nemeses), lonely, lonelyRest, &together)
	running.Wait()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what was done, in seconds:\n%s", f.Log.(*faultLog).text())
		}
	})
	if err := errors.Join(failed...); err != nil {
		t.Fatal(err)
	}
	l.calm(t)
	return f
}

// haunted has nemeses strike one after the other until ctx ends: every one has its turn before one comes again.
func haunted(ctx context.Context, f *nemesis.Field, names []string, rng *rand.Rand, rest time.Duration, order sync.Locker) error {
	kinds, err := nemesis.Kinds.Named(names...)
	if err != nil {
		return err
	}
	for {
		for _, i := range rng.Perm(len(kinds)) {
			if !wait.For(ctx, rest/2+time.Duration(rng.Int64N(int64(rest)))) {
				return nil
			}
			order.Lock()
			err := f.Strike(ctx, kinds[i], rng)
			order.Unlock()
			if err != nil {
				return err
			}
		}
	}
}

// calm has the writers end, and waits until nothing is under way any more.
func (l *theLab) calm(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l.Net.Heal()
	if err := l.Nodes.AwaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	for _, w := range l.Writers {
		if err := w.Finish(ctx); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	token, err := l.Settle(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("after the faults, %v was granted in %v", token, time.Since(began).Round(time.Millisecond))
	// It says nothing more from now on, so everything has been heard when it is gone.
	if err := l.Store.Kill(); err != nil {
		t.Fatal(err)
	}
}

// verdict judges a run.
func (l *theLab) verdict(t *testing.T, f *nemesis.Field, span time.Duration) verdict.Verdict {
	t.Helper()
	tally := l.Book.Tally()
	t.Logf("%v of %v\nfaults: %v\nlongest pause of a guard: %v", span.Round(time.Second), tally, f.Log, f.LongestPause())
	if err := l.Book.Err(); err != nil {
		t.Error(err)
	}
	if found := l.Book.Judge(); found != nil {
		for i, v := range found {
			if i == 20 {
				t.Logf("and %d more", len(found)-i)
				break
			}
			t.Log(v)
		}
		if l.Book.Stall() > lab.Slack/2 || f.LongestPause() > lab.Slack {
			t.Logf("the store did not run for %v, and a guard was paused for %v: W is %v", l.Book.Stall(), f.LongestPause(), lab.Slack)
			return verdict.Unknown
		}
		return verdict.Invalid
	}
	tens := int(span / (10 * time.Second))
	if tally.HandOffs < tens*leastHandOffs || tally.Acked < tens*leastAppends {
		return verdict.Unknown
	}
	return verdict.Valid
}
