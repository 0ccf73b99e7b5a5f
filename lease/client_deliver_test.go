package lease

import (
	"fmt"
	"testing"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// A token is only kept while everything before it was seen.
func TestWatchKeepsOnlyTokensThatLeaveNothingOut(t *testing.T) {
	const (
		state, synced   = writv1.WatchResponse_KIND_STATE, writv1.WatchResponse_KIND_SYNCED
		changed, resync = writv1.WatchResponse_KIND_CHANGED, writv1.WatchResponse_KIND_RESYNC
		progress        = writv1.WatchResponse_KIND_PROGRESS
	)
	var seen []string
	yield := func(e WatchEvent, err error) bool {
		seen = append(seen, e.Kind.String()+":"+e.ResumeToken)
		return err == nil
	}
	w := &clientWatch{}
	for i, step := range []struct {
		kind    writv1.WatchResponse_Kind
		token   string
		want    string // where a broken stream goes on
		restart string // what the consumer hears if it breaks here
	}{
		{state, "1", "", "[resync:]"},
		{state, "1", "", "[resync:]"},
		{synced, "1", "1", "[]"},
		{changed, "2", "2", "[]"},
		{changed, "", "2", "[]"},
		{progress, "3", "3", "[]"},
		{writv1.WatchResponse_Kind(99), "4", "3", "[]"},
		{resync, "5", "", "[]"},
		{changed, "6", "", "[]"}, // of a server that has lost its way
		{state, "5", "", "[resync:]"},
		{synced, "5", "5", "[]"},
		{state, "7", "", "[resync:]"},
	} {
		if !w.deliver(&writv1.WatchResponse{Kind: step.kind, ResumeToken: step.token}, yield) || w.token != step.want {
			t.Errorf("step %d: goes on at %q, want %q", i, w.token, step.want)
		}
		broken := *w
		seen = nil
		if !broken.restart(yield) || fmt.Sprint(seen) != step.restart || broken.partial {
			t.Errorf("step %d: a restart is heard as %v, want %s", i, seen, step.restart)
		}
	}
	seen = nil
	w.deliver(&writv1.WatchResponse{Kind: synced, ResumeToken: "8"}, yield)
	w.deliver(&writv1.WatchResponse{Kind: state, ResumeToken: "8"}, yield)
	if fmt.Sprint(seen) != "[synced:8 state:]" {
		t.Errorf("yielded %v", seen)
	}
}
