package storetest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/writ-io/writ/quorum"
)

// While commits run that write one number to keys at both ends of a large state, no load sees two numbers, and the
// number is that of the loaded revision.
func loadIsOneRevision(w *world) {
	const keys = 9000 // several pages
	term := w.claim(0, "term")
	for from := 0; from < keys; from += 3000 {
		var writes []quorum.Write
		for i := from; i < from+3000; i++ {
			writes = append(writes, put(fmt.Sprintf("m%05d", i), "filler"))
		}
		w.commit(0, term, writes...)
	}
	first := w.commit(0, term, put("a", "0"), put("z", "0"))

	ctx, cancel := context.WithCancel(w.ctx)
	var writer sync.WaitGroup
	defer writer.Wait()
	defer cancel()
	writer.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			number := strconv.Itoa(n)
			revision, err := w.Stores[0].Commit(w.ctx, term, []quorum.Write{put("a", number), put("z", number)})
			if err != nil {
				w.Errorf("commit %d: %v", n, err)
				return
			}
			if revision != first+int64(n) {
				w.Errorf("commit %d is revision %d, want %d", n, revision, first+int64(n))
				return
			}
		}
	})
	for round := range 12 {
		store := round % len(w.Stores)
		state, revision := w.load(store)
		want := strconv.FormatInt(revision-first, 10)
		if value(state, "a") != want || value(state, "z") != want || len(tested(state)) != keys+2 {
			w.Errorf("store %d: at revision %d a is %s and z is %s of %d keys, want %s of %d",
				store, revision, value(state, "a"), value(state, "z"), len(tested(state)), want, keys+2)
		}
	}
}

func loadIsInKeyOrder(w *world) {
	term := w.claim(0, "term")
	w.commit(0, term, put("b", "1"), put("a/z", "1"), put("a", "1"), put("\x00", "1"), put("é", "1"))
	entries, _, err := w.Stores[0].Load(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	byKey := func(a, b quorum.Entry) int { return strings.Compare(a.Key, b.Key) }
	if len(entries) != 7 || !slices.IsSortedFunc(entries, byKey) {
		w.Errorf("loaded %+v", entries)
	}
}

func headIsLinearizable(w *world) {
	term := w.claim(0, "term")
	seen := int64(0)
	for n := range 60 {
		acked := w.commit(n%len(w.Stores), term, put("n", fmt.Sprint(n)))
		for i := range w.Stores {
			head := w.head(i)
			if head < acked || head < seen {
				w.Fatalf("store %d: head is %d after %d was acknowledged and %d seen", i, head, acked, seen)
			}
			seen = head
		}
	}
}
