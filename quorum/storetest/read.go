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
// number is that of the newest commit up to the loaded revision.
func loadIsOneRevision(w *world) {
	const keys = 4500 // more than a page
	term := w.claim(0, "term")
	for from := 0; from < keys; from += 1500 {
		var writes []quorum.Write
		for i := from; i < from+1500; i++ {
			writes = append(writes, put(fmt.Sprintf("m%05d", i), "filler"))
		}
		w.commit(0, term, writes...)
	}
	numbers := []string{"a", "z", "A", "Z"}
	write := func(n int) (writes []quorum.Write) {
		for _, name := range numbers {
			writes = append(writes, put(name, strconv.Itoa(n)))
		}
		return writes
	}
	revisions := []int64{w.commit(0, term, write(0)...)} // of commit n; the writer's until it is joined

	ctx, cancel := context.WithCancel(w.ctx)
	var writer sync.WaitGroup
	defer writer.Wait()
	defer cancel()
	writer.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			revision, err := w.Stores[0].Commit(w.ctx, term, write(n))
			if err != nil {
				w.Errorf("commit %d: %v", n, err)
				return
			}
			revisions = append(revisions, revision)
		}
	})
	loaded := map[int64]int{} // number by revision
	for round := range 8 {
		state, revision := w.load(round % len(w.Stores))
		number := value(state, numbers[0])
		for _, name := range numbers {
			if value(state, name) != number {
				w.Errorf("at revision %d, %s is %s and %s is %s", revision, numbers[0], number, name, value(state, name))
			}
		}
		if got := len(tested(state)); got != keys+len(numbers) {
			w.Errorf("at revision %d there are %d keys, want %d", revision, got, keys+len(numbers))
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			w.Fatal(err)
		}
		loaded[revision] = n
	}
	cancel()
	writer.Wait()
	for revision, got := range loaded {
		newest, exact := slices.BinarySearch(revisions, revision)
		if !exact {
			newest--
		}
		if got != newest {
			w.Errorf("at revision %d the number is %d, want %d", revision, got, newest)
		}
	}
}

func loadIsInKeyOrder(w *world) {
	term := w.claim(0, "term")
	w.commit(0, term, put("b", "1"), put("a/z", "1"), put("a", "1"), put("\x00", "1"), put("é", "1"), put("B", "1"), put("A", "1"))
	entries, _, err := w.Stores[0].Load(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	byKey := func(a, b quorum.Entry) int { return strings.Compare(a.Key, b.Key) }
	if len(entries) != 9 || !slices.IsSortedFunc(entries, byKey) {
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
