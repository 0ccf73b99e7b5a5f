package quorum

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func encoded(t interface{ Fatal(...any) }, m proto.Message) []byte {
	value, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func recordOf(t interface{ Fatal(...any) }, r lease.Record) []byte {
	value, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func content(i *Image) []Entry {
	var entries []Entry
	i.Ascend("", func(e Entry) bool {
		entries = append(entries, e)
		return true
	})
	return entries
}

func TestAnImageIsTheStateAtItsRevision(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		image, state, revision := NewImage(), map[string]Entry{}, int64(0)
		keys := []string{KeyIdentity, KeyTerm, NodeKey("a"), NodeKey("b"), LeaseKey("x"), LeaseKey("y"), CheckpointKey("x"), AuditKey(1)}
		entry := func() Entry {
			e := Entry{Key: rapid.SampledFrom(keys).Draw(t, "key"), Revision: revision}
			if rapid.Bool().Draw(t, "put") {
				e.Value = []byte{}
			}
			return e
		}
		want := func() []Entry {
			return slices.SortedFunc(maps.Values(state), func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
		}
		var clone *Image
		var cloned []Entry
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0: // what was told before changes nothing
				before := image.Revision()
				if image.Apply(Change{Revision: rapid.Int64Range(0, revision).Draw(t, "old"), Entries: []Entry{entry()}}) || image.Revision() != before {
					t.Fatal("an old change does something")
				}
				if revision > 0 && image.Reset(nil, revision-1) {
					t.Fatal("the image went back")
				}
			case 1:
				revision += rapid.Int64Range(0, 2).Draw(t, "ahead")
				if !image.Reset(want(), revision) {
					t.Fatal("a newer state is refused")
				}
			case 2:
				clone, cloned = image.Clone(), want()
			default:
				revision++
				e := entry()
				told := image.Apply(Change{Revision: revision, Entries: []Entry{e}})
				if acts := e.Key == KeyIdentity || e.Key == KeyTerm || strings.HasPrefix(e.Key, prefixNode); told != acts {
					t.Fatalf("%s: told is %v", e.Key, told)
				}
				if delete(state, e.Key); e.Value != nil {
					state[e.Key] = e
				}
			}
			if got := content(image); fmt.Sprint(got) != fmt.Sprint(want()) || image.Revision() != revision {
				t.Fatalf("at revision %d: %v, want %v at %d", image.Revision(), got, want(), revision)
			}
			if clone != nil && fmt.Sprint(content(clone)) != fmt.Sprint(cloned) {
				t.Fatalf("a clone changed to %v, was %v", content(clone), cloned)
			}
		}
	})
}

func TestAnImageKnowsTermIdentityAndNodes(t *testing.T) {
	image := NewImage()
	if term, number := image.Term(); term != nil || number != 0 || image.Identity() != nil || len(image.Nodes()) != 0 {
		t.Error("an empty image knows something")
	}
	image.Apply(Change{Revision: 7, Entries: []Entry{
		{Key: NodeKey("b"), Value: encoded(t, &writv1.NodeRecord{Name: "b"}), Revision: 7},
		{Key: KeyTerm, Value: encoded(t, &writv1.TermRecord{Node: "b"}), Revision: 7},
		{Key: KeyIdentity, Value: encoded(t, &writv1.IdentityRecord{Epoch: 3}), Revision: 7},
	}})
	before := image.Clone()
	image.Apply(Change{Revision: 8, Entries: []Entry{
		{Key: NodeKey("a"), Value: encoded(t, &writv1.NodeRecord{Name: "a"}), Revision: 8}, {Key: NodeKey("b"), Revision: 8},
	}})
	if term, number := image.Term(); term.Node != "b" || number != 7 || !image.Has(8) || image.Has(9) {
		t.Errorf("the term is %v, %d", term, number)
	}
	if image.Identity().Epoch != 3 {
		t.Errorf("the identity is %v", image.Identity())
	}
	if got := image.Nodes(); len(got) != 1 || got[0].Name != "a" || image.Node("b") != nil {
		t.Errorf("the nodes are %v", got)
	}
	if got := before.Nodes(); len(got) != 1 || got[0].Name != "b" || before.Revision() != 7 {
		t.Errorf("the clone's nodes became %v", got)
	}
}

func TestAnImageNamesWhatItCannotRead(t *testing.T) {
	image := NewImage()
	image.Apply(Change{Revision: 1, Entries: []Entry{{Key: KeyIdentity, Value: []byte{0xff}, Revision: 1}}})
	image.Reset([]Entry{{Key: NodeKey("a"), Value: []byte{0xff}, Revision: 2}}, 2)
	got := image.TakeUnreadable()
	if len(got) != 2 || !strings.Contains(got[0].Error(), KeyIdentity) || !strings.Contains(got[1].Error(), NodeKey("a")) {
		t.Errorf("unreadable: %v", got)
	}
	if more := image.TakeUnreadable(); more != nil {
		t.Errorf("told twice: %v", more)
	}
}

func TestAnImageIsLoadedWhole(t *testing.T) {
	image := NewImage()
	rec := lease.Record{Resource: "x", Token: 1<<48 | 1, TTL: lease.MinTTL}
	image.Reset([]Entry{
		{Key: CheckpointKey("x"), Value: []byte("state")}, {Key: KeyIdentity, Value: encoded(t, &writv1.IdentityRecord{Epoch: 3})},
		{Key: LeaseKey("x"), Value: recordOf(t, rec)}, {Key: NodeKey("a"), Value: encoded(t, &writv1.NodeRecord{Name: "a"})},
	}, 9)
	got, err := image.Loaded()
	if err != nil || got.Revision != 9 || got.Identity.Epoch != 3 || len(got.Nodes) != 1 || len(got.Leases) != 1 ||
		got.Leases[0].Token != rec.Token || string(got.Checkpoints["x"]) != "state" {
		t.Errorf("loaded %+v, %v", got, err)
	}
	image.Apply(Change{Revision: 10, Entries: []Entry{{Key: LeaseKey("y"), Value: []byte{0xff}, Revision: 10}}})
	if _, err := image.Loaded(); err == nil || !strings.Contains(err.Error(), LeaseKey("y")) {
		t.Errorf("an unreadable lease: %v", err)
	}
}
