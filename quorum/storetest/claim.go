package storetest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/writ-io/writ/quorum"
)

func claimMakesTheNewestTermRecord(w *world) {
	term := w.claim(0, "first")
	if term <= 0 {
		w.Fatalf("term is %d", term)
	}
	for i := range w.Stores {
		state, revision := w.load(i)
		record := state[quorum.KeyTerm]
		if string(record.Value) != "first" || record.Revision != int64(term) {
			w.Errorf("store %d: term record is %q at %d, want %q at %d", i, record.Value, record.Revision, "first", term)
		}
		if revision < int64(term) {
			w.Errorf("store %d: loaded revision %d after term %d", i, revision, term)
		}
		if err := w.Stores[i].Confirm(w.ctx, term); err != nil {
			w.Errorf("store %d: confirm the newest term: %v", i, err)
		}
	}
}

func termsStrictlyIncrease(w *world) {
	newest := int64(0)
	for round := range 8 {
		term := w.claim(round%len(w.Stores), fmt.Sprint("claim ", round))
		if int64(term) <= newest {
			w.Fatalf("term %d after revision %d", term, newest)
		}
		newest = w.commit(w.last(), term, put("round", fmt.Sprint(round)))
		if newest <= int64(term) {
			w.Fatalf("commit at %d in term %d", newest, term)
		}
	}
}

func racingClaimsHaveOneWinner(w *world) {
	const rounds, racers = 5, 6
	var (
		mu    sync.Mutex
		terms = map[string]quorum.Term{} // by claim; guarded by mu
		maybe = map[string]bool{}        // unknown outcome; guarded by mu
	)
	for round := range rounds {
		var race sync.WaitGroup
		for racer := range racers {
			race.Go(func() {
				name := fmt.Sprintf("%d/%d", round, racer)
				term, err := w.Stores[racer%len(w.Stores)].Claim(w.ctx, []byte(name))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					terms[name] = term
				case errors.Is(err, quorum.ErrDeposed):
				case errors.Is(err, quorum.ErrUnknown):
					maybe[name] = true
				default:
					w.Errorf("claim %s: %v", name, err)
				}
			})
		}
		race.Wait()
	}
	// The history tells the winners: each claim that succeeded wrote one record, and no claim that lost did.
	made := map[string]quorum.Term{}
	for _, change := range w.collect(0, 1, w.head(0)) {
		for _, e := range change.Entries {
			if e.Key != quorum.KeyTerm {
				continue
			}
			if _, twice := made[string(e.Value)]; twice {
				w.Errorf("claim %s was made twice", e.Value)
			}
			made[string(e.Value)] = quorum.Term(e.Revision)
		}
	}
	if len(terms) == 0 && len(maybe) == 0 {
		w.Error("nobody won a race")
	}
	for name, term := range terms {
		if made[name] != term {
			w.Errorf("claim %s answered term %d, history has %d", name, term, made[name])
		}
		delete(made, name)
	}
	for name := range made {
		if !maybe[name] {
			w.Errorf("claim %s lost, but history has it", name)
		}
	}
}

func aDeposedTermCannotCommit(w *world) {
	old := w.claim(0, "old")
	w.commit(0, old, put("a", "old"))
	current := w.claim(w.last(), "new")
	before := w.head(0)
	for i, store := range w.Stores {
		_, err := store.Commit(w.ctx, old, []quorum.Write{put("a", "late"), put("b", "late")})
		w.want(err, quorum.ErrDeposed, "store %d: commit in a deposed term", i)
		if errors.Is(err, quorum.ErrUnknown) {
			w.Errorf("store %d: the outcome of a refused commit is known: %v", i, err)
		}
	}
	state, _ := w.load(w.last())
	if value(state, "a") != "old" || value(state, "b") != "<none>" || w.head(0) != before {
		w.Errorf("a deposed term changed the state to %v", tested(state))
	}
	w.commit(0, current, put("a", "new"))
}

func aTermThatNeverWasCannotCommit(w *world) {
	// On an empty store too: no term key at all must not compare equal to no term.
	for _, term := range []quorum.Term{0, -1, 1, 1 << 40} {
		_, err := w.Stores[0].Commit(w.ctx, term, []quorum.Write{put("a", "x")})
		w.want(err, quorum.ErrDeposed, "commit in term %d", term)
		w.want(w.Stores[0].Confirm(w.ctx, term), quorum.ErrDeposed, "confirm term %d", term)
	}
	term := w.claim(0, "first")
	for _, wrong := range []quorum.Term{0, -1, term - 1, term + 1} {
		_, err := w.Stores[0].Commit(w.ctx, wrong, []quorum.Write{put("a", "x")})
		w.want(err, quorum.ErrDeposed, "commit in term %d of %d", wrong, term)
		w.want(w.Stores[0].Confirm(w.ctx, wrong), quorum.ErrDeposed, "confirm term %d of %d", wrong, term)
	}
	if state, _ := w.load(0); len(tested(state)) != 0 {
		w.Errorf("state is %v, want nothing", tested(state))
	}
}

func confirmFailsAfterAnotherClaim(w *world) {
	for round := range 20 {
		claimer := round % len(w.Stores)
		old := w.claim(claimer, "old")
		if err := w.Stores[w.last()].Confirm(w.ctx, old); err != nil {
			w.Fatalf("confirm the newest term: %v", err)
		}
		current := w.claim((claimer+1)%len(w.Stores), "new")
		for i, store := range w.Stores {
			w.want(store.Confirm(w.ctx, old), quorum.ErrDeposed, "round %d, store %d: confirm a deposed term", round, i)
			if err := store.Confirm(w.ctx, current); err != nil {
				w.Errorf("round %d, store %d: confirm the newest term: %v", round, i, err)
			}
		}
	}
}
