package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/quorum"
)

// DefaultPatience is how long a test waits for what must happen.
const DefaultPatience = time.Minute

// Harness is one new, empty cluster.
type Harness struct {
	// Stores reach the cluster, each through a member of its own. At least one.
	Stores []quorum.Store
	// Compact drops the history before revision on every member. Tests that need it are skipped if it is nil.
	Compact func(ctx context.Context, revision int64) error
	// Isolate cuts the member of a store off from the others, in both directions, until heal is called. The store
	// still answers. Tests that need it are skipped if it is nil or there are fewer than three stores.
	Isolate func(store int) (heal func())
	// Stop ends the member of a store for good, without ceremony. Nil as for Isolate.
	Stop func(store int)
	// Patience is how long to wait for what must happen. Default: DefaultPatience.
	Patience time.Duration
}

// Run tests the stores of open, which is called once for every test and cleans up with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*world)
	}{
		{"ClaimMakesTheNewestTermRecord", claimMakesTheNewestTermRecord},
		{"TermsStrictlyIncrease", termsStrictlyIncrease},
		{"RacingClaimsHaveOneWinner", racingClaimsHaveOneWinner},
		{"ADeposedTermCannotCommit", aDeposedTermCannotCommit},
		{"ATermThatNeverWasCannotCommit", aTermThatNeverWasCannotCommit},
		{"ConfirmFailsAfterAnotherClaim", confirmFailsAfterAnotherClaim},
		{"CommitIsAtomic", commitIsAtomic},
		{"HeadIsTheRevisionOfTheNewestCommit", headIsTheRevisionOfTheNewestCommit},
		{"AnEmptyValueIsNotADelete", anEmptyValueIsNotADelete},
		{"TheHeadKeyMayBeWritten", theHeadKeyMayBeWritten},
		{"AnnounceNeedsNoTerm", announceNeedsNoTerm},
		{"CommitsUpToTheLimit", commitsUpToTheLimit},
		{"CommitsBeyondTheLimitChangeNothing", commitsBeyondTheLimitChangeNothing},
		{"ConcurrentCommitsAreAllMade", concurrentCommitsAreAllMade},
		{"AnEndedContextIsAnUnknownOutcome", anEndedContextIsAnUnknownOutcome},
		{"WhatWasAcknowledgedIsThere", whatWasAcknowledgedIsThere},
		{"LoadIsOneRevision", loadIsOneRevision},
		{"LoadIsInKeyOrder", loadIsInKeyOrder},
		{"HeadIsLinearizable", headIsLinearizable},
		{"WatchHasNoGapAndNoDuplicate", watchHasNoGapAndNoDuplicate},
		{"WatchResumesFromAnyRevision", watchResumesFromAnyRevision},
		{"WatchFromTheFuture", watchFromTheFuture},
		{"ALongHistoryIsTheSame", aLongHistoryIsTheSame},
		{"WatchDeliversChangesWhole", watchDeliversChangesWhole},
		{"WatchWaitsForASlowReader", watchWaitsForASlowReader},
		{"WatchOfCompactedHistoryFails", watchOfCompactedHistoryFails},
		{"WatchEndsWithItsContext", watchEndsWithItsContext},
		{"WatchEndsWhenDeliverSaysSo", watchEndsWhenDeliverSaysSo},
		{"OneStoreLeads", oneStoreLeads},
		{"AStoppedLeaderLosesNoAcknowledgedCommit", aStoppedLeaderLosesNoAcknowledgedCommit},
		{"AnIsolatedLeaderIsDeposed", anIsolatedLeaderIsDeposed},
		{"AnIsolatedStoreAnswersNothingStale", anIsolatedStoreAnswersNothingStale},
		{"AnIsolatedWatchCatchesUp", anIsolatedWatchCatchesUp},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := open(t)
			if h.Patience == 0 {
				h.Patience = DefaultPatience
			}
			ctx, cancel := context.WithTimeout(t.Context(), h.Patience)
			t.Cleanup(cancel)
			test.run(&world{T: t, Harness: h, ctx: ctx})
		})
	}
}

// world is one test's cluster. Its helpers fail the test.
type world struct {
	*testing.T
	Harness
	ctx context.Context // ends when patience does
}

// last is the index of the last store: another member than that of store 0, if there are several.
func (w *world) last() int { return len(w.Stores) - 1 }

// claim claims a term through a store. It tries again while an election makes the outcome unknown.
func (w *world) claim(store int, value string) quorum.Term {
	w.Helper()
	for {
		term, err := w.Stores[store].Claim(w.ctx, []byte(value))
		if err == nil {
			return term
		}
		if w.ctx.Err() != nil || !errors.Is(err, quorum.ErrUnknown) && !errors.Is(err, quorum.ErrDeposed) {
			w.Fatalf("store %d: claim: %v", store, err)
		}
	}
}

func (w *world) commit(store int, term quorum.Term, writes ...quorum.Write) int64 {
	w.Helper()
	revision, err := w.Stores[store].Commit(w.ctx, term, writes)
	if err != nil {
		w.Fatalf("store %d: commit in term %d: %v", store, term, err)
	}
	return revision
}

func (w *world) head(store int) int64 {
	w.Helper()
	revision, err := w.Stores[store].Head(w.ctx)
	if err != nil {
		w.Fatalf("store %d: head: %v", store, err)
	}
	return revision
}

func (w *world) load(store int) (map[string]quorum.Entry, int64) {
	w.Helper()
	entries, revision, err := w.Stores[store].Load(w.ctx)
	if err != nil {
		w.Fatalf("store %d: load: %v", store, err)
	}
	state := make(map[string]quorum.Entry, len(entries))
	for _, e := range entries {
		if _, twice := state[e.Key]; twice {
			w.Fatalf("store %d: load has %q twice", store, e.Key)
		}
		state[e.Key] = e
	}
	return state, revision
}

// want fails the test unless err is target.
func (w *world) want(err, target error, what string, args ...any) {
	w.Helper()
	if !errors.Is(err, target) {
		w.Errorf("%s: got %v, want %v", fmt.Sprintf(what, args...), err, target)
	}
}

// needFaults skips the test unless hook is there and a majority survives the loss of one store.
func (w *world) needFaults(hook bool) {
	w.Helper()
	if !hook || len(w.Stores) < 3 {
		w.Skip("the harness has no such fault, or fewer than three stores")
	}
}

// leader waits until one of the stores leads.
func (w *world) leader(among ...int) int {
	w.Helper()
	for {
		var changed []<-chan struct{}
		for _, i := range among {
			leads, c := w.Stores[i].Leadership()
			if leads {
				return i
			}
			changed = append(changed, c)
		}
		if !w.any(changed) {
			w.Fatalf("no leader among %v", among)
		}
	}
}

// any waits for one of the channels, or answers false when patience ends.
func (w *world) any(channels []<-chan struct{}) bool {
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	woken := make(chan struct{}, len(channels))
	for _, c := range channels {
		go func() { // ends with ctx
			select {
			case <-c:
				woken <- struct{}{}
			case <-ctx.Done():
			}
		}()
	}
	select {
	case <-woken:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// all answers the indexes of the stores but those given.
func (w *world) all(but ...int) (out []int) {
	for i := range w.Stores {
		skip := false
		for _, b := range but {
			skip = skip || b == i
		}
		if !skip {
			out = append(out, i)
		}
	}
	return out
}

// A store may keep some keys apart from others (see quorum.Packable), so tests write both kinds: names that begin with an
// upper-case letter stand under a key that is not packable, the others under one that is.
const (
	packed = quorum.Prefix + "lease/"
	plain  = quorum.Prefix + "node/"
)

func keyOf(name string) string {
	if name != "" && name[0] >= 'A' && name[0] <= 'Z' {
		return plain + name
	}
	return packed + name
}

func put(name, value string) quorum.Write {
	return quorum.Write{Key: keyOf(name), Value: []byte(value)}
}

func del(name string) quorum.Write { return quorum.Write{Key: keyOf(name)} }

// value answers what state holds for a name, and "<none>" for nothing.
func value(state map[string]quorum.Entry, name string) string {
	e, ok := state[keyOf(name)]
	if !ok {
		return "<none>"
	}
	return string(e.Value)
}

// tested answers the entries of state that a test wrote, by name.
func tested(state map[string]quorum.Entry) map[string]string {
	out := map[string]string{}
	for key, e := range state {
		for _, prefix := range []string{packed, plain} {
			if name, ok := strings.CutPrefix(key, prefix); ok {
				out[name] = string(e.Value)
			}
		}
	}
	return out
}
