package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/writ-io/writ/quorum"
)

// briefly bounds a call that cannot succeed.
const briefly = 300 * time.Millisecond

func oneStoreLeads(w *world) {
	leader := w.leader(w.all()...)
	term := w.claim(leader, "term")
	w.commit(leader, term, put("a", "1"))
	leaders := 0
	for _, store := range w.Stores {
		leads, changed := store.Leadership()
		if changed == nil {
			w.Fatal("no channel to wait on")
		}
		if leads {
			leaders++
		}
	}
	// An election may pass between two looks, but not make two leaders of a quiet cluster.
	if leaders > 1 {
		w.Errorf("%d stores lead", leaders)
	}
}

func aStoppedLeaderLosesNoAcknowledgedCommit(w *world) {
	w.needFaults(w.Stop != nil)
	leader := w.leader(w.all()...)
	term := w.claim(leader, "old")
	acked := map[string]int64{}
	reached := make(chan struct{})
	ctx, cancel := context.WithCancel(w.ctx)
	var writer sync.WaitGroup
	defer writer.Wait()
	defer cancel()
	writer.Go(func() {
		for n := 0; ; n++ {
			key := fmt.Sprint(n)
			revision, err := w.Stores[leader].Commit(ctx, term, []quorum.Write{put(key, key)})
			if err != nil {
				if !errors.Is(err, quorum.ErrUnknown) && !errors.Is(err, quorum.ErrDeposed) {
					w.Errorf("commit at a stopped leader: %v", err)
				}
				return
			}
			acked[key] = revision
			if n == 30 {
				close(reached)
			}
		}
	})
	select {
	case <-reached:
	case <-w.ctx.Done():
		w.Fatal("the leader does not commit")
	}
	w.Stop(leader)
	writer.Wait()

	survivors := w.all(leader)
	next := w.claim(w.leader(survivors...), "new")
	if next <= term {
		w.Errorf("term %d after %d", next, term)
	}
	for _, i := range survivors {
		state, _ := w.load(i)
		for key, revision := range acked {
			if e := state[keyOf(key)]; string(e.Value) != key || e.Revision != revision {
				w.Errorf("store %d: %s is %q at %d, acknowledged at %d", i, key, e.Value, e.Revision, revision)
			}
		}
		_, err := w.Stores[i].Commit(w.ctx, term, []quorum.Write{put("late", "x")})
		w.want(err, quorum.ErrDeposed, "store %d: commit in the stopped leader's term", i)
	}
}

func anIsolatedLeaderIsDeposed(w *world) {
	w.needFaults(w.Isolate != nil)
	leader := w.leader(w.all()...)
	old := w.claim(leader, "old")
	w.commit(leader, old, put("a", "old"))
	heal := w.Isolate(leader)

	others := w.all(leader)
	successor := w.leader(others...)
	current := w.claim(successor, "new")
	w.commit(successor, current, put("a", "new"))

	// From here on, whatever the old leader answers must not be yes.
	ctx, cancel := context.WithTimeout(w.ctx, briefly)
	defer cancel()
	if err := w.Stores[leader].Confirm(ctx, old); err == nil {
		w.Error("an isolated leader confirmed a deposed term")
	}
	if _, err := w.Stores[leader].Commit(ctx, old, []quorum.Write{put("a", "late")}); err == nil {
		w.Error("an isolated leader committed in a deposed term")
	}
	for {
		leads, changed := w.Stores[leader].Leadership()
		if !leads {
			break
		}
		if !w.any([]<-chan struct{}{changed}) {
			w.Fatal("an isolated leader still believes that it leads")
		}
	}
	heal()
	w.want(w.Stores[leader].Confirm(w.ctx, old), quorum.ErrDeposed, "confirm after healing")
	_, err := w.Stores[leader].Commit(w.ctx, old, []quorum.Write{put("a", "later")})
	w.want(err, quorum.ErrDeposed, "commit after healing")
	// Commits that were under way when the link was cut may arrive now, and must not count.
	for n := range 10 {
		w.commit(successor, w.claimAgain(successor, current), put("b", fmt.Sprint(n)))
	}
	if state, _ := w.load(leader); value(state, "a") != "new" {
		w.Errorf("a is %q, want %q", value(state, "a"), "new")
	}
}

// claimAgain answers term if it still is the newest, and else claims another: healing may depose a leader once more,
// which leaves terms alone, but a commit with an unknown outcome costs one.
func (w *world) claimAgain(store int, term quorum.Term) quorum.Term {
	w.Helper()
	if err := w.Stores[store].Confirm(w.ctx, term); err == nil {
		return term
	}
	return w.claim(store, "again")
}

func anIsolatedStoreAnswersNothingStale(w *world) {
	w.needFaults(w.Isolate != nil)
	leader := w.leader(w.all()...)
	term := w.claim(leader, "term")
	cut := w.all(leader)[0]
	w.head(cut)
	heal := w.Isolate(cut)
	acked := w.commit(leader, term, put("a", "1"))

	ctx, cancel := context.WithTimeout(w.ctx, briefly)
	defer cancel()
	var calls sync.WaitGroup
	store := w.Stores[cut]
	calls.Go(func() {
		head, err := store.Head(ctx)
		w.want(err, quorum.ErrUnknown, "head, which answered %d after %d was acknowledged,", head, acked)
	})
	calls.Go(func() {
		_, revision, err := store.Load(ctx)
		w.want(err, quorum.ErrUnknown, "load, which answered %d after %d was acknowledged,", revision, acked)
	})
	calls.Go(func() { w.want(store.Confirm(ctx, term), quorum.ErrUnknown, "confirm") })
	calls.Go(func() {
		_, err := store.Claim(ctx, []byte("isolated"))
		w.want(err, quorum.ErrUnknown, "claim")
	})
	calls.Go(func() {
		_, err := store.Commit(ctx, term, []quorum.Write{put("b", "1")})
		w.want(err, quorum.ErrUnknown, "commit")
	})
	calls.Wait()
	heal()
	if head := w.head(cut); head < acked {
		w.Errorf("head is %d after healing, %d was acknowledged", head, acked)
	}
}

func anIsolatedWatchCatchesUp(w *world) {
	w.needFaults(w.Isolate != nil)
	leader := w.leader(w.all()...)
	term := w.claim(leader, "term")
	cut := w.all(leader)[0]
	const commits = 50
	var got []int64
	want := []int64{int64(term)}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	go func() { // joined through ended
		ended <- w.Stores[cut].Watch(ctx, int64(term), func(c quorum.Change) bool {
			got = append(got, c.Revision)
			return len(got) < commits+1
		})
	}()
	w.head(cut)
	heal := w.Isolate(cut)
	for n := range commits {
		want = append(want, w.commit(leader, term, put("a", fmt.Sprint(n))))
	}
	heal()
	if err := <-ended; err != nil {
		w.Fatalf("watch: %v", err)
	}
	if !slices.Equal(got, want) {
		w.Errorf("got changes %v, want %v", got, want)
	}
}
