package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/writ-io/writ/quorum"
)

func commitIsAtomic(w *world) {
	term := w.claim(0, "term")
	w.commit(0, term, put("a", "1"), put("b", "1"), put("c", "1"), put("A", "1"), put("B", "1"))
	revision := w.commit(0, term, put("a", "2"), del("b"), put("d", "2"), del("never was"),
		put("A", "2"), del("B"), put("D", "2"), del("Never was"))
	want := map[string]string{"a": "2", "c": "1", "d": "2", "A": "2", "D": "2"}
	for i := range w.Stores {
		state, loaded := w.load(i)
		if got := tested(state); !maps.Equal(got, want) {
			w.Errorf("store %d: state is %v, want %v", i, got, want)
		}
		if loaded != revision {
			w.Errorf("store %d: loaded revision %d, want %d", i, loaded, revision)
		}
		for _, key := range []string{"a", "d", "A", "D"} {
			if got := state[keyOf(key)].Revision; got != revision {
				w.Errorf("store %d: %q is of revision %d, want %d", i, key, got, revision)
			}
		}
	}
}

func headIsTheRevisionOfTheNewestCommit(w *world) {
	if head := w.head(0); head != 0 {
		w.Errorf("head of an empty store is %d", head)
	}
	term := w.claim(0, "term")
	if head := w.head(w.last()); head != int64(term) {
		w.Errorf("head is %d after claim %d", head, term)
	}
	for n := range 5 {
		var writes []quorum.Write // the first commit writes nothing but the head
		for i := range n {
			writes = append(writes, put(fmt.Sprint(i), fmt.Sprint(n)))
		}
		revision := w.commit(0, term, writes...)
		if head := w.head(w.last()); head != revision {
			w.Errorf("head is %d after commit %d", head, revision)
		}
	}
}

func anEmptyValueIsNotADelete(w *world) {
	term := w.claim(0, "")
	from := w.commit(0, term, put("empty", ""), put("gone", "x"), put("Empty", ""), put("Gone", "x"))
	until := w.commit(0, term, put("empty", ""), del("gone"), put("Empty", ""), del("Gone"))
	state, _ := w.load(0)
	for _, name := range []string{"empty", "Empty"} {
		if value(state, name) != "" || state[keyOf(name)].Value == nil {
			w.Errorf("state is %v", tested(state))
		}
	}
	if len(tested(state)) != 2 {
		w.Errorf("state is %v", tested(state))
	}
	for _, change := range w.collect(0, from, until) {
		for _, e := range change.Entries {
			if deleted := change.Revision == until && (e.Key == keyOf("gone") || e.Key == keyOf("Gone")); deleted != (e.Value == nil) {
				w.Errorf("revision %d: %q has value %#v", change.Revision, e.Key, e.Value)
			}
		}
	}
}

func theHeadKeyMayBeWritten(w *world) {
	term := w.claim(0, "term")
	revision := w.commit(0, term, quorum.Write{Key: quorum.KeyHead, Value: []byte("batch 7")}, put("a", "1"))
	state, _ := w.load(0)
	if head := state[quorum.KeyHead]; string(head.Value) != "batch 7" || head.Revision != revision {
		w.Errorf("head record is %q at %d, want %q at %d", head.Value, head.Revision, "batch 7", revision)
	}
}

func announceNeedsNoTerm(w *world) {
	announce := func(store int, write quorum.Write) int64 {
		w.Helper()
		revision, err := w.Stores[store].Announce(w.ctx, write)
		if err != nil {
			w.Fatalf("store %d: announce: %v", store, err)
		}
		if head := w.head(0); head != revision {
			w.Errorf("head is %d after announcement %d", head, revision)
		}
		return revision
	}
	first := announce(0, put("Node", "up"))
	term := w.claim(0, "term")
	second := announce(w.last(), put("Node", "still up"))
	if second <= int64(term) || int64(term) <= first {
		w.Errorf("announced at %d and %d, claimed at %d", first, second, term)
	}
	if err := w.Stores[0].Confirm(w.ctx, term); err != nil {
		w.Errorf("an announcement ended the term: %v", err)
	}
	if state, _ := w.load(w.last()); value(state, "Node") != "still up" {
		w.Errorf("state is %v", tested(state))
	}
	announce(0, del("Node"))
	if state, _ := w.load(w.last()); value(state, "Node") != "<none>" {
		w.Errorf("state is %v after deleting", tested(state))
	}
}

// sized answers n writes whose keys and values are of size bytes in all.
func sized(n, size int) []quorum.Write {
	writes := make([]quorum.Write, n)
	for i := range writes {
		writes[i] = put(fmt.Sprintf("%05d", i), "")
		size -= len(writes[i].Key)
	}
	for i := range writes {
		share := size / n
		if i == 0 {
			share += size % n
		}
		writes[i].Value = []byte(strings.Repeat("x", share))
	}
	return writes
}

func commitsUpToTheLimit(w *world) {
	term := w.claim(0, "term")
	for _, c := range []struct{ writes, bytes int }{
		{quorum.MaxCommitWrites, 256 << 10},
		{quorum.MaxCommitWrites, quorum.MaxCommitBytes},
		{1, quorum.MaxCommitBytes},
	} {
		w.commit(0, term, sized(c.writes, c.bytes)...)
		state, _ := w.load(w.last())
		if got := len(tested(state)); got != quorum.MaxCommitWrites {
			w.Errorf("%d keys after a commit of %d writes", got, c.writes)
		}
	}
}

func commitsBeyondTheLimitChangeNothing(w *world) {
	term := w.claim(0, "term")
	before := w.commit(0, term, put("00000", "kept"))
	for name, writes := range map[string][]quorum.Write{
		"writes": sized(quorum.MaxCommitWrites+1, 256<<10),
		"bytes":  sized(10, quorum.MaxCommitBytes+1),
		"value":  sized(1, 4*quorum.MaxCommitBytes),
	} {
		for i, store := range w.Stores {
			_, err := store.Commit(w.ctx, term, writes)
			w.want(err, quorum.ErrTooLarge, "store %d: too many %s", i, name)
		}
	}
	state, _ := w.load(0)
	if got := tested(state); len(got) != 1 || got["00000"] != "kept" || w.head(0) != before {
		w.Errorf("refused commits left %d keys and head %d, want one and %d", len(got), w.head(0), before)
	}
	w.commit(0, term, put("00000", "still possible"))
}

func concurrentCommitsAreAllMade(w *world) {
	const writers, each = 4, 25
	term := w.claim(0, "term")
	var (
		group     sync.WaitGroup
		mu        sync.Mutex
		revisions = map[int64]string{} // guarded by mu
	)
	for writer := range writers {
		group.Go(func() {
			for n := range each {
				key := fmt.Sprintf("%d/%d", writer, n)
				revision, err := w.Stores[writer%len(w.Stores)].Commit(w.ctx, term, []quorum.Write{put(key, key)})
				if err != nil {
					w.Errorf("commit %s: %v", key, err)
					return
				}
				mu.Lock()
				if other, taken := revisions[revision]; taken {
					w.Errorf("%s and %s are both revision %d", key, other, revision)
				}
				revisions[revision] = key
				mu.Unlock()
			}
		})
	}
	group.Wait()
	state, _ := w.load(w.last())
	for revision, key := range revisions {
		if e := state[keyOf(key)]; string(e.Value) != key || e.Revision != revision {
			w.Errorf("%s is %q at %d, acknowledged at %d", key, e.Value, e.Revision, revision)
		}
	}
}

func anEndedContextIsAnUnknownOutcome(w *world) {
	term := w.claim(0, "term")
	ended, cancel := context.WithCancel(w.ctx)
	cancel()
	store := w.Stores[w.last()]
	_, err := store.Commit(ended, term, []quorum.Write{put("a", "x")})
	w.want(err, quorum.ErrUnknown, "commit")
	_, err = store.Claim(ended, []byte("x"))
	w.want(err, quorum.ErrUnknown, "claim")
	_, err = store.Announce(ended, put("B", "x"))
	w.want(err, quorum.ErrUnknown, "announce")
	w.want(store.Confirm(ended, term), quorum.ErrUnknown, "confirm")
	_, _, err = store.Load(ended)
	w.want(err, quorum.ErrUnknown, "load")
	_, err = store.Head(ended)
	w.want(err, quorum.ErrUnknown, "head")
}

// Commits whose context ends at any moment are acknowledged and there, or unknown; and once a new term was claimed, none
// of the unknown ones arrives any more.
func whatWasAcknowledgedIsThere(w *world) {
	term := w.claim(0, "term")
	acked, unknown := map[string]int64{}, 0
	for n := range 200 {
		key := fmt.Sprint(n)
		ctx, cancel := context.WithTimeout(w.ctx, time.Duration(n*20)*time.Microsecond)
		revision, err := w.Stores[n%len(w.Stores)].Commit(ctx, term, []quorum.Write{put(key, key)})
		cancel()
		switch {
		case err == nil:
			acked[key] = revision
		case errors.Is(err, quorum.ErrUnknown) && !errors.Is(err, quorum.ErrDeposed):
			unknown++
		default:
			w.Fatalf("commit %d: %v", n, err)
		}
	}
	w.Logf("%d acknowledged, %d unknown", len(acked), unknown)
	next := w.claim(0, "next")
	state, _ := w.load(w.last())
	for key, revision := range acked {
		if e := state[keyOf(key)]; string(e.Value) != key || e.Revision != revision {
			w.Errorf("%s is %q at %d, acknowledged at %d", key, e.Value, e.Revision, revision)
		}
	}
	for n := range 20 {
		w.commit(n%len(w.Stores), next, put("later", fmt.Sprint(n)))
	}
	later, _ := w.load(w.last())
	delete(later, keyOf("later"))
	if got, want := tested(later), tested(state); !maps.Equal(got, want) {
		w.Errorf("commits of a deposed term arrived: %d keys, then %d", len(want), len(got))
	}
}
