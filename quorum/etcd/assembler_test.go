package etcd

import (
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"pgregory.net/rapid"

	"github.com/writ-io/writ/quorum"
)

// events answers the events of one commit of n keys at a revision.
func events(revision int64, n int, head bool) (out []*mvccpb.Event) {
	for i := range n {
		out = append(out, &mvccpb.Event{Kv: &mvccpb.KeyValue{
			Key: []byte(fmt.Sprintf("%skey/%d", quorum.Prefix, i)), Value: []byte("x"), ModRevision: revision}})
	}
	if head {
		out = append(out, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: keyHead, ModRevision: revision}})
	}
	return out
}

// However events are cut into responses, the assembler tells the same changes, each as soon as it is complete.
func TestAssemblerTellsWholeChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []*mvccpb.Event
		var want []string
		for i := range rapid.IntRange(1, 8).Draw(t, "revisions") {
			size, head := rapid.IntRange(0, 5).Draw(t, "size"), rapid.Bool().Draw(t, "head")
			next := events(int64(i+1), size, head || size == 0)
			want = append(want, fmt.Sprintf("%d:%d", i+1, len(next)))
			all = append(all, next...)
		}
		// A last commit of ours flushes whatever was not.
		all = append(all, events(99, 0, true)...)
		want = append(want, "99:1")

		var pending assembler
		var got []string
		for _, event := range all {
			changes, err := pending.add(event)
			if err != nil {
				t.Fatal(err)
			}
			for _, change := range changes {
				for _, e := range change.Entries {
					if e.Revision != change.Revision || e.Value == nil {
						t.Fatalf("change %d has entry %+v", change.Revision, e)
					}
				}
				got = append(got, fmt.Sprintf("%d:%d", change.Revision, len(change.Entries)))
			}
			if string(event.Kv.Key) == quorum.KeyHead && len(pending.change.Entries) != 0 {
				t.Fatal("a complete change was held back")
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}
