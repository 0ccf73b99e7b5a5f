package judge

import (
	"maps"
	"slices"
	"strings"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// logged is one change of a record, in commit order.
type logged struct {
	revision int64
	index    int // in its change
	resource lease.Resource
	removed  bool
	token    fence.Token // of the record
	held     bool
}

// Watch follows what one watcher is told.
type Watch struct {
	judge   *Judge
	name    string
	prefix  string
	lineage int
	at      int   // the next one of the log that it is to be told
	synced  bool  // it has been told a whole state
	told    int64 // revision of that
}

// Watch begins to follow a watcher of the resources under a prefix.
func (j *Judge) Watch(name, prefix string) *Watch {
	return &Watch{judge: j, name: name, prefix: prefix}
}

// Synced takes in that the watcher has been told the whole state as of a revision.
func (w *Watch) Synced(revision int64) {
	j := w.judge
	w.lineage, w.synced, w.told = j.lineage, true, revision
	w.at, _ = slices.BinarySearchFunc(j.log, revision+1, func(l logged, r int64) int { return int(l.revision - r) })
}

// Told takes in one event that the watcher was told behind that state.
func (w *Watch) Told(ev quorum.WatchEvent) {
	j := w.judge
	if w.lineage != j.lineage || !w.synced {
		return // of a history that has ended
	}
	for w.at < len(j.log) && !strings.HasPrefix(string(j.log[w.at].resource), w.prefix) {
		w.at++
	}
	if w.at == len(j.log) {
		j.violation("S10", "%s was told a change of %s at revision %d that was not committed", w.name, ev.Lease.Resource, ev.Lease.Revision)
		return
	}
	want := j.log[w.at]
	if want.resource != ev.Lease.Resource || want.revision != ev.Lease.Revision || want.removed != (ev.Kind == quorum.WatchRemoved) {
		j.violation("S10", "%s was told a change of %s at revision %d, and the next one is of %s at %d", w.name, ev.Lease.Resource, ev.Lease.Revision, want.resource, want.revision)
		w.synced = false // one report is enough
		return
	}
	if held := ev.Lease.State == lease.Held || ev.Lease.State == lease.Ending; !want.removed && (want.token != ev.Lease.Token || want.held != held) {
		j.violation("S10", "%s was told of %s under %v (held: %v) at revision %d, where it is under %v (held: %v)",
			w.name, want.resource, ev.Lease.Token, held, want.revision, want.token, want.held)
	}
	w.at++
}

// Behind is how many changes the watcher has not been told of yet; 0 if it waits for a whole state.
func (w *Watch) Behind() int {
	if w.lineage != w.judge.lineage || !w.synced {
		return 0
	}
	n := 0
	for _, l := range w.judge.log[w.at:] {
		if strings.HasPrefix(string(l.resource), w.prefix) {
			n++
		}
	}
	return n
}

// names lists the resources in order.
func (j *Judge) names() []lease.Resource { return slices.Sorted(maps.Keys(j.resources)) }
