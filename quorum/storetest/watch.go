package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/writ-io/writ/quorum"
)

// collect watches a store from a revision on, until the change of revision until.
func (w *world) collect(store int, from, until int64) []quorum.Change {
	w.Helper()
	var changes []quorum.Change
	err := w.Stores[store].Watch(w.ctx, from, func(c quorum.Change) bool {
		changes = append(changes, c)
		return c.Revision < until
	})
	if err != nil {
		w.Fatalf("store %d: watch from %d until %d: %v", store, from, until, err)
	}
	return changes
}

// describe answers a change as text, its entries in key order.
func describe(c quorum.Change) string {
	var lines []string
	for _, e := range c.Entries {
		if e.Revision != c.Revision {
			lines = append(lines, fmt.Sprintf("%s of revision %d", e.Key, e.Revision))
		} else if e.Value == nil {
			lines = append(lines, e.Key+" deleted")
		} else {
			lines = append(lines, fmt.Sprintf("%s=%q", e.Key, e.Value))
		}
	}
	slices.Sort(lines)
	return fmt.Sprintf("%d: %s", c.Revision, strings.Join(lines, ", "))
}

func describeAll(changes []quorum.Change) []string {
	out := make([]string, len(changes))
	for i, c := range changes {
		out[i] = describe(c)
	}
	return out
}

// compare fails the test unless the changes are these.
func (w *world) compare(what string, got []quorum.Change, want []string) {
	w.Helper()
	texts := describeAll(got)
	if slices.Equal(texts, want) {
		return
	}
	for i := range max(len(texts), len(want)) {
		g, x := "nothing", "nothing"
		if i < len(texts) {
			g = texts[i]
		}
		if i < len(want) {
			x = want[i]
		}
		if g != x {
			w.Fatalf("%s: change %d of %d is\n\t%.300s\nwant\n\t%.300s", what, i, len(want), g, x)
		}
	}
}

// history makes some changes of every kind and answers their revisions and how a watch should tell them.
func (w *world) history(commits int) (revisions []int64, want []string) {
	head := func(value string) quorum.Write {
		return quorum.Write{Key: quorum.KeyHead, Value: []byte(value)}
	}
	tell := func(revision int64, writes ...quorum.Write) {
		c := quorum.Change{Revision: revision}
		for _, write := range writes {
			c.Entries = append(c.Entries, quorum.Entry{Key: write.Key, Value: write.Value, Revision: revision})
		}
		revisions, want = append(revisions, revision), append(want, describe(c))
	}
	// What the store writes to the head key of its own is its own business: seen here, and expected from then on.
	term := w.claim(0, "term")
	own := head(headValue(w.collect(0, int64(term), int64(term))[0]))
	tell(int64(term), quorum.Write{Key: quorum.KeyTerm, Value: []byte("term")}, own)
	for n := range commits {
		store := n % len(w.Stores)
		var writes []quorum.Write
		switch n % 4 {
		case 0:
			writes = []quorum.Write{put("a", fmt.Sprint(n)), put("b", fmt.Sprint(n)), put("A", fmt.Sprint(n))}
		case 1:
			writes = []quorum.Write{del("a"), del("A"), put("c", fmt.Sprint(n))}
		case 2:
			revision, err := w.Stores[store].Announce(w.ctx, put("Node", fmt.Sprint(n)))
			if err != nil {
				w.Fatalf("announce: %v", err)
			}
			tell(revision, put("Node", fmt.Sprint(n)), own)
			continue
		}
		writes = append(writes, head(fmt.Sprint("batch ", n)))
		tell(w.commit(store, term, writes...), writes...)
	}
	return revisions, want
}

func headValue(c quorum.Change) string {
	for _, e := range c.Entries {
		if e.Key == quorum.KeyHead {
			return string(e.Value)
		}
	}
	return "<none>"
}

func watchHasNoGapAndNoDuplicate(w *world) {
	const commits = 80
	type told struct {
		store   int
		changes []quorum.Change
		err     error
	}
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	results := make(chan told, len(w.Stores))
	for i, store := range w.Stores {
		go func() { // joined through results
			r := told{store: i}
			r.err = store.Watch(ctx, 1, func(c quorum.Change) bool {
				r.changes = append(r.changes, c)
				return len(r.changes) < commits+1
			})
			results <- r
		}()
	}
	_, want := w.history(commits)
	for range w.Stores {
		r := <-results
		if r.err != nil {
			w.Fatalf("store %d: watch: %v", r.store, r.err)
		}
		w.compare(fmt.Sprintf("store %d, while commits ran", r.store), r.changes, want)
	}
}

func watchResumesFromAnyRevision(w *world) {
	revisions, want := w.history(24)
	until := revisions[len(revisions)-1]
	for i := 0; i < len(want); i += 3 {
		w.compare(fmt.Sprintf("from %d", revisions[i]), w.collect(i%len(w.Stores), revisions[i], until), want[i:])
	}
	w.compare("from the last", w.collect(w.last(), until, until), want[len(want)-1:])
	w.compare("from 0", w.collect(0, 0, until), want)
	w.compare("from -5", w.collect(0, -5, until), want)
}

// A store may tidy up after many commits; neither the state nor the history shows it.
func aLongHistoryIsTheSame(w *world) {
	const commits, names, last = 1500, 40, 900 // after the last only one more name is written
	term := w.claim(0, "term")
	revisions, want := []int64{int64(term)}, map[string]string{}
	for n := range commits {
		name := fmt.Sprint(n % names)
		if n >= last {
			name = "tail"
		}
		writes := []quorum.Write{put(name, fmt.Sprint(n))}
		want[name] = fmt.Sprint(n)
		if n < last && n%3 == 0 {
			other := fmt.Sprint((n + 7) % names)
			writes = append(writes, del(other))
			delete(want, other)
		}
		revisions = append(revisions, w.commit(0, term, writes...))
		if n == commits/2 {
			term = w.claim(w.last(), "next")
			revisions = append(revisions, int64(term))
		}
	}
	for i := range w.Stores {
		until := w.head(i) // whatever the store has written of its own, a watch must get there
		state, _ := w.load(i)
		if got := tested(state); !maps.Equal(got, want) {
			w.Errorf("store %d: state is %v, want %v", i, got, want)
		}
		replayed, from := map[string]string{}, i*commits/4
		var got []int64
		for _, c := range w.collect(i, revisions[from], until) {
			if len(c.Entries) == 0 {
				continue // the store's own
			}
			got = append(got, c.Revision)
			for _, e := range c.Entries {
				if name, ok := strings.CutPrefix(e.Key, packed); ok {
					replayed[name] = string(e.Value)
					if e.Value == nil {
						delete(replayed, name)
					}
				}
			}
		}
		if !slices.Equal(got, revisions[from:]) {
			w.Errorf("store %d: %d changes from %d, want %d", i, len(got), revisions[from], len(revisions)-from)
		}
		if !maps.Equal(replayed, want) {
			w.Errorf("store %d: history from %d leads to %v, want %v", i, revisions[from], replayed, want)
		}
	}
}

func watchFromTheFuture(w *world) {
	term := w.claim(0, "term")
	from := w.head(0) + 3
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	first := make(chan quorum.Change, 1)
	ended := make(chan error, 1)
	go func() { // joined through ended
		ended <- w.Stores[w.last()].Watch(ctx, from, func(c quorum.Change) bool {
			first <- c
			return false
		})
	}()
	var revision int64
	for revision < from {
		revision = w.commit(0, term, put("a", "x"))
	}
	if err := <-ended; err != nil {
		w.Fatalf("watch: %v", err)
	}
	if c := <-first; c.Revision != revision {
		w.Errorf("first change from %d is %d, want %d", from, c.Revision, revision)
	}
}

func watchDeliversChangesWhole(w *world) {
	term := w.claim(0, "term")
	revisions := map[int64]int{}
	for n := range 6 {
		size := 1 + n*(quorum.MaxCommitWrites-1)/5
		writes := sized(size, 200<<10)
		revisions[w.commit(0, term, writes...)] = size
	}
	for i := range w.Stores {
		until := w.head(i)
		for _, c := range w.collect(i, int64(term)+1, until) {
			entries := slices.DeleteFunc(c.Entries, func(e quorum.Entry) bool { return e.Key == quorum.KeyHead })
			if want := revisions[c.Revision]; len(entries) != want {
				w.Errorf("store %d: change %d has %d entries, want %d", i, c.Revision, len(entries), want)
			}
		}
	}
}

// The reader takes its first change, sleeps through many times what any buffer holds, and gets the rest.
func watchWaitsForASlowReader(w *world) {
	const commits = 600
	term := w.claim(0, "term")
	var (
		taken = make(chan struct{})
		wake  = make(chan struct{})
		ended = make(chan error, 1)
		got   []int64
		want  = []int64{int64(term)}
	)
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	go func() { // joined through ended
		ended <- w.Stores[w.last()].Watch(ctx, int64(term), func(c quorum.Change) bool {
			if len(got) == 0 {
				close(taken)
				select {
				case <-wake:
				case <-ctx.Done():
				}
			}
			got = append(got, c.Revision)
			return len(got) < commits+1
		})
	}()
	<-taken
	for n := range commits {
		want = append(want, w.commit(0, term, put("a", fmt.Sprint(n))))
	}
	close(wake)
	if err := <-ended; err != nil {
		w.Fatalf("watch: %v", err)
	}
	if !slices.Equal(got, want) {
		w.Errorf("got changes %v, want %v", got, want)
	}
}

func watchOfCompactedHistoryFails(w *world) {
	if w.Compact == nil {
		w.Skip("the harness does not compact")
	}
	revisions, want := w.history(20)
	const middle = 10 // a change with a delete, which must survive a compaction at its own revision
	if !strings.Contains(want[middle], "deleted") {
		w.Fatalf("change %q deletes nothing", want[middle])
	}
	revision, until := revisions[middle], revisions[len(revisions)-1]
	if err := w.Compact(w.ctx, revision); err != nil {
		w.Fatalf("compact: %v", err)
	}
	for i := range w.Stores {
		for _, from := range []int64{1, revisions[0], revision - 1} {
			err := w.Stores[i].Watch(w.ctx, from, func(c quorum.Change) bool {
				w.Errorf("store %d: watch from %d, compacted at %d, delivered %d", i, from, revision, c.Revision)
				return false
			})
			w.want(err, quorum.ErrCompacted, "store %d: watch from %d, compacted at %d", i, from, revision)
		}
		w.compare(fmt.Sprintf("store %d, from the compacted revision", i), w.collect(i, revision, until), want[middle:])
	}
	if state, loaded := w.load(0); loaded < until || value(state, "b") != "16" || value(state, "A") != "<none>" {
		w.Errorf("compaction changed the state to %v at %d", tested(state), loaded)
	}
	// A second time, and below: no error.
	if err := errors.Join(w.Compact(w.ctx, revision), w.Compact(w.ctx, revision-1)); err != nil {
		w.Errorf("compact what is compacted: %v", err)
	}
}

func watchEndsWithItsContext(w *world) {
	w.claim(0, "term")
	for i, store := range w.Stores {
		// While it waits, and while it delivers.
		for _, from := range []int64{1, w.head(0) + 1} {
			ctx, cancel := context.WithCancel(w.ctx)
			started, ended := make(chan struct{}), make(chan error, 1)
			go func() { // joined through ended
				close(started)
				ended <- store.Watch(ctx, from, func(quorum.Change) bool { cancel(); return true })
			}()
			<-started
			cancel()
			select {
			case err := <-ended:
				w.want(err, context.Canceled, "store %d: watch from %d", i, from)
			case <-w.ctx.Done():
				w.Fatalf("store %d: watch from %d goes on without its context", i, from)
			}
		}
	}
}

func watchEndsWhenDeliverSaysSo(w *world) {
	w.history(8)
	calls := 0
	err := w.Stores[0].Watch(w.ctx, 1, func(quorum.Change) bool { calls++; return calls < 3 })
	if err != nil || calls != 3 {
		w.Errorf("watch ended with %v after %d deliveries, want 3", err, calls)
	}
}
