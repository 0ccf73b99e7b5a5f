package store

import (
	"slices"

	"github.com/writ-io/writ/quorum"
)

// watcher is one Watch of a member.
type watcher struct {
	next    int64 // the first revision that is not delivered yet
	deliver func(quorum.Change)
	ended   func(error)
	over    bool
}

// watchers are all of one member. What they call may add to them, stop them, or end the member's life.
type watchers struct {
	all  []*watcher
	dead func() bool // the member's life is over
}

// add begins a watch, with what k has of it up to a revision.
func (ws *watchers) add(k *kv, upTo, from int64, deliver func(quorum.Change), ended func(error)) (stop func()) {
	w := &watcher{next: max(from, 1), deliver: deliver, ended: ended}
	ws.all = append(ws.all, w)
	ws.catchUp(w, k, upTo)
	return func() {
		w.over = true
		ws.all = slices.DeleteFunc(slices.Clone(ws.all), func(o *watcher) bool { return o == w })
	}
}

// catchUp delivers what a watcher does not have of k up to a revision.
func (ws *watchers) catchUp(w *watcher, k *kv, upTo int64) {
	for !w.over && w.next <= upTo && !ws.dead() {
		changes, there := k.since(w.next)
		if !there {
			w.over = true
			ws.all = slices.DeleteFunc(slices.Clone(ws.all), func(o *watcher) bool { return o == w })
			w.ended(quorum.ErrCompacted)
			return
		}
		w.next = changes[0].Revision + 1
		w.deliver(changes[0])
	}
}

// tell delivers what k has up to a revision to whoever does not have it yet.
func (ws *watchers) tell(k *kv, upTo int64) {
	for _, w := range ws.all {
		ws.catchUp(w, k, upTo)
	}
}
