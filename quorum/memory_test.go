package quorum

import (
	"testing"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

var earlier = Progress{RaftTerm: 4, AppliedIndex: 40}

func TestWhatIsNotedOfTheIdentity(t *testing.T) {
	known := &writv1.WitnessRecord{Incarnation: "i", Epoch: 2, Ceiling: 100, MaxTtlMs: 50, Revision: 8, RaftTerm: 5, AppliedIndex: 30}
	with := func(change func(*writv1.WitnessRecord)) *writv1.WitnessRecord {
		w := proto.CloneOf(known)
		change(w)
		return w
	}
	for name, c := range map[string]struct {
		w    *writv1.WitnessRecord
		id   *writv1.IdentityRecord
		want *writv1.WitnessRecord // nil: nothing is noted
	}{
		"no identity":         {known, nil, nil},
		"nothing new":         {known, &writv1.IdentityRecord{Incarnation: "i", Epoch: 2, Ceiling: 100, MaxTtlMs: 50}, nil},
		"an older epoch":      {known, &writv1.IdentityRecord{Incarnation: "h", Epoch: 1, Ceiling: 500}, nil},
		"another incarnation": {known, &writv1.IdentityRecord{Incarnation: "j", Epoch: 2, Ceiling: 500}, nil},
		"foreign": {
			with(func(w *writv1.WitnessRecord) { w.Foreign = "restored" }),
			&writv1.IdentityRecord{Incarnation: "i", Epoch: 2, Ceiling: 500}, nil,
		},
		"a higher ceiling": {
			known, &writv1.IdentityRecord{Incarnation: "i", Epoch: 2, Ceiling: 200, MaxTtlMs: 20},
			with(func(w *writv1.WitnessRecord) { w.Ceiling, w.Revision, w.AppliedIndex = 200, 12, 40 }),
		},
		"the first": {
			&writv1.WitnessRecord{}, &writv1.IdentityRecord{Incarnation: "i", Epoch: 1, Ceiling: 10, MaxTtlMs: 5},
			&writv1.WitnessRecord{Incarnation: "i", Epoch: 1, Ceiling: 10, MaxTtlMs: 5, Revision: 12, RaftTerm: 4, AppliedIndex: 40},
		},
		"a new epoch": {
			with(func(w *writv1.WitnessRecord) { w.Foreign, w.Revision = "restored", 99 }),
			&writv1.IdentityRecord{Incarnation: "j", Epoch: 3, Ceiling: 10, MaxTtlMs: 20},
			with(func(w *writv1.WitnessRecord) {
				w.Incarnation, w.Epoch, w.Ceiling, w.Revision, w.AppliedIndex = "j", 3, 10, 12, 40
			}),
		},
	} {
		before := proto.CloneOf(c.w)
		got := NoteIdentity(c.w, c.id, 12, earlier)
		if c.want == nil && got != c.w || c.want != nil && !proto.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if !proto.Equal(c.w, before) {
			t.Errorf("%s: the witness was changed in place", name)
		}
	}
}

func TestProgressOnlyGrows(t *testing.T) {
	w := &writv1.WitnessRecord{Incarnation: "i", Epoch: 1, RaftTerm: 3, AppliedIndex: 50, Revision: 20}
	want := &writv1.WitnessRecord{Incarnation: "i", Epoch: 1, RaftTerm: 4, AppliedIndex: 50, Revision: 20}
	if got := NoteProgress(w, 12, earlier); !proto.Equal(got, want) || w.RaftTerm != 3 {
		t.Errorf("%v, want %v", got, want)
	}
	for _, w := range []*writv1.WitnessRecord{{Epoch: 1}, {Incarnation: "i", Foreign: "restored"}} {
		if got := NoteProgress(w, 12, earlier); !proto.Equal(got, w) {
			t.Errorf("%v became %v", w, got)
		}
	}
}

func TestACeilingIsNotedInItsHistoryAlone(t *testing.T) {
	type record = writv1.WitnessRecord
	for name, c := range map[string]struct {
		w, want *record // nil: as it was, and it does not hold the ceiling
	}{
		"the first":              {&record{}, &record{Incarnation: "i", Epoch: 2, Ceiling: 100}},
		"of a new epoch":         {&record{Incarnation: "h", Epoch: 1, Ceiling: 500, Revision: 9}, &record{Incarnation: "i", Epoch: 2, Ceiling: 100}},
		"a higher one":           {&record{Incarnation: "i", Epoch: 2, Ceiling: 50, Revision: 9}, &record{Incarnation: "i", Epoch: 2, Ceiling: 100, Revision: 9}},
		"a lower one":            {&record{Incarnation: "i", Epoch: 2, Ceiling: 150}, &record{Incarnation: "i", Epoch: 2, Ceiling: 150}},
		"of another incarnation": {&record{Incarnation: "j", Epoch: 2, Ceiling: 5}, nil},
		"behind a witness":       {&record{Incarnation: "j", Epoch: 3, Ceiling: 5}, nil},
		"foreign":                {&record{Epoch: 1, Foreign: "restored"}, nil},
	} {
		before := proto.CloneOf(c.w)
		got, holds := NoteCeiling(c.w, Witnessed{Epoch: 2, Incarnation: "i", Ceiling: 100})
		want := c.want
		if want == nil {
			want = before
		}
		if holds != (c.want != nil) || !proto.Equal(got, want) {
			t.Errorf("%s: %v (holds: %v), want %v", name, got, holds, want)
		}
		if !proto.Equal(c.w, before) {
			t.Errorf("%s: the witness was changed in place", name)
		}
	}
}

func TestProgressAloneIsNotAnnounced(t *testing.T) {
	record := func(change func(*writv1.NodeRecord)) *writv1.NodeRecord {
		n := &writv1.NodeRecord{Name: "a", Witness: &writv1.WitnessRecord{Incarnation: "i", Epoch: 2, Ceiling: 10}}
		change(n)
		return n
	}
	known := record(func(*writv1.NodeRecord) {})
	for name, c := range map[string]struct {
		known, next *writv1.NodeRecord
		want        bool
	}{
		"unknown":         {nil, known, true},
		"without witness": {&writv1.NodeRecord{Name: "a"}, known, true},
		"the same":        {known, record(func(*writv1.NodeRecord) {}), false},
		"progress": {known, record(func(n *writv1.NodeRecord) {
			n.Witness.Ceiling, n.Witness.Revision, n.Witness.AppliedIndex, n.Witness.RaftTerm = 90, 9, 9, 9
		}), false},
		"another epoch": {known, record(func(n *writv1.NodeRecord) { n.Witness.Epoch = 3 }), true},
		"foreign":       {known, record(func(n *writv1.NodeRecord) { n.Witness.Foreign = "restored" }), true},
		"a longer TTL":  {known, record(func(n *writv1.NodeRecord) { n.Witness.MaxTtlMs = 1 }), true},
		"a recovery":    {known, record(func(n *writv1.NodeRecord) { n.RecoveryId = "r" }), true},
	} {
		before := proto.CloneOf(c.next)
		if got := WorthAnnouncing(c.known, c.next); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if !proto.Equal(c.next, before) {
			t.Errorf("%s: the announcement was changed", name)
		}
	}
}

func TestAWitnessIsAheadOfALogThatWasPutBack(t *testing.T) {
	w := Witness{RaftTerm: 3, AppliedIndex: 50}
	for _, c := range []struct {
		log  LogEnd
		want bool
	}{
		{LogEnd{3, 50}, false}, {LogEnd{4, 60}, false}, {LogEnd{3, 49}, true}, {LogEnd{2, 50}, true}, {LogEnd{}, true},
	} {
		if got := w.AheadOf(c.log); got != c.want {
			t.Errorf("of %+v: %v", c.log, got)
		}
	}
}
