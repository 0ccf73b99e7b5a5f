package quorum

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// A witness contradicts a state that is behind what it remembers of the same history, or of a later epoch.
func TestWhatAWitnessContradicts(t *testing.T) {
	type record = writv1.WitnessRecord
	known := &writv1.IdentityRecord{Incarnation: "i", Epoch: 2, Ceiling: 100}
	for name, c := range map[string]struct {
		id   *writv1.IdentityRecord
		w    *record
		says string // empty: nothing
	}{
		"none":                             {known, nil, ""},
		"a fresh one":                      {known, &record{Node: "n1"}, ""},
		"a fresh one, no state":            {nil, &record{Node: "n1"}, ""},
		"an epoch, no state":               {nil, &record{Node: "n1", Epoch: 1}, "node n1 remembers epoch 1"},
		"foreign, no state":                {nil, &record{Node: "n1", Foreign: "restored"}, "node n1: restored"},
		"foreign of this epoch":            {known, &record{Node: "n1", Epoch: 2, Foreign: "restored"}, "node n1: restored"},
		"foreign of an older epoch":        {known, &record{Node: "n1", Epoch: 1, Foreign: "restored"}, ""},
		"a later epoch":                    {known, &record{Node: "n1", Epoch: 3}, "of epoch 2, but node n1 remembers epoch 3"},
		"an older epoch":                   {known, &record{Node: "n1", Epoch: 1, Incarnation: "h", Ceiling: 900, Revision: 90}, ""},
		"an epoch without its incarnation": {known, &record{Node: "n1", Epoch: 2, Ceiling: 900, Revision: 90}, ""},
		"another incarnation":              {known, &record{Node: "n1", Epoch: 2, Incarnation: "j"}, "incarnation i of epoch 2, but node n1 remembers incarnation j"},
		"the same":                         {known, &record{Node: "n1", Epoch: 2, Incarnation: "i", Ceiling: 100, Revision: 7}, ""},
		"a higher ceiling":                 {known, &record{Node: "n1", Epoch: 2, Incarnation: "i", Ceiling: 101, Revision: 7}, "ceiling is 100, but node n1 remembers 101"},
		"a higher revision":                {known, &record{Node: "n1", Epoch: 2, Incarnation: "i", Ceiling: 100, Revision: 8}, "revision 7, but node n1 remembers 8"},
	} {
		e := NewEngine(EngineConfig{Node: "n1", Cluster: "test"})
		if c.id != nil {
			e.members = []MemberInfo{{ID: 1}}
			c.id.Members = map[string]uint64{"n1": 1}
		}
		e.own = c.w
		own := e.foreign(c.id, 7)
		e.own, e.nodes = nil, []*writv1.NodeRecord{{Name: "n0"}, {Name: "n1", Witness: c.w}}
		told := e.foreign(c.id, 7)
		if own != told || (own == "") != (c.says == "") || !strings.Contains(own, c.says) {
			t.Errorf("%s: its own node says %q, another %q, want %q", name, own, told, c.says)
		}
	}
}

// The store must have the members that this history committed, but for a change that it announced.
func TestWhichMembersAreStrangers(t *testing.T) {
	add := &writv1.MemberChange{Name: "n4", Add: true, PeerUrl: "https://n4"}
	remove := &writv1.MemberChange{Name: "n3", MemberId: 3}
	for name, c := range map[string]struct {
		pending *writv1.MemberChange
		members []uint64
		says    string // empty: nothing
	}{
		"as committed":                   {nil, []uint64{1, 2, 3}, ""},
		"one is new":                     {nil, []uint64{1, 2, 3, 4}, "member 4 (https://n4) was not admitted"},
		"one replaces another":           {nil, []uint64{1, 2, 4}, "member 4 (https://n4) was not admitted"},
		"one has gone":                   {nil, []uint64{1, 2}, "1 members left"},
		"two have gone":                  {nil, []uint64{1}, "2 members left"},
		"added, not yet":                 {add, []uint64{1, 2, 3}, ""},
		"added":                          {add, []uint64{1, 2, 3, 4}, ""},
		"added, and another":             {add, []uint64{1, 2, 3, 4, 5}, "member 5 (https://n5) was not admitted"},
		"added, and one has gone":        {add, []uint64{1, 2, 4}, "1 members left"},
		"removed, not yet":               {remove, []uint64{1, 2, 3}, ""},
		"removed":                        {remove, []uint64{1, 2}, ""},
		"removed, and another has gone":  {remove, []uint64{1}, "1 members left"},
		"removed, and one is new":        {remove, []uint64{1, 2, 4}, "member 4 (https://n4) was not admitted"},
		"a stranger removed, one gone":   {&writv1.MemberChange{Name: "n9", MemberId: 9}, []uint64{1, 2}, "1 members left"},
		"removed by its address, is new": {&writv1.MemberChange{Name: "n4", PeerUrl: "https://n4"}, []uint64{1, 2, 3, 4}, "member 4 (https://n4) was not admitted"},
	} {
		e := NewEngine(EngineConfig{Node: "n1", Cluster: "test"})
		for _, id := range c.members {
			e.members = append(e.members, MemberInfo{ID: id, PeerURLs: []string{fmt.Sprint("https://n", id)}})
		}
		id := &writv1.IdentityRecord{Members: map[string]uint64{"n1": 1, "n2": 2, "n3": 3}, Pending: c.pending}
		if got := e.foreign(id, 7); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q, want %q", name, got, c.says)
		}
		if got := e.foreign(nil, 7); got != "" {
			t.Errorf("%s, but nothing was committed: %q", name, got)
		}
	}
}

func TestMembersAreNamedByTheStoreTheirNodesOrTheirIDs(t *testing.T) {
	e := NewEngine(EngineConfig{Node: "n1", Cluster: "test"})
	e.members = []MemberInfo{{ID: 1, Name: "n1"}, {ID: 2}, {ID: 0xab}}
	e.nodes = []*writv1.NodeRecord{{Name: "other", MemberId: 1}, {Name: "n2", MemberId: 2}}
	if got, want := e.memberMap(), map[string]uint64{"n1": 1, "n2": 2, "ab": 0xab}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// What was committed, or was just decided, goes before what a member says of itself.
func TestNamesOfMembers(t *testing.T) {
	members := []MemberInfo{{ID: 1, Name: "own"}, {ID: 2, Name: "own"}, {ID: 3, Name: "n3"}, {ID: 0xab}}
	got := NameMembers(members, map[string]uint64{"n1": 1, "gone": 9}, map[string]uint64{"n2": 2})
	if want := (map[string]uint64{"n1": 1, "n2": 2, "n3": 3, "ab": 0xab}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Only the member whose removal was announced may be missing.
func TestAnotherMemberThanTheRemovedOneIsMissing(t *testing.T) {
	e := NewEngine(EngineConfig{Node: "n1", Cluster: "test"})
	e.members = []MemberInfo{{ID: 1, Name: "n1"}, {ID: 3, Name: "n3"}}
	id := &writv1.IdentityRecord{
		Members: map[string]uint64{"n1": 1, "n2": 2, "n3": 3},
		Pending: &writv1.MemberChange{Name: "n3", MemberId: 3},
	}
	if got := e.foreign(id, 7); got == "" {
		t.Error("n2 left without being removed, and the state is not foreign")
	}
}

// membership is a member of which only the membership is asked.
type membership struct{ Member }

func (membership) Members() []MemberInfo { return nil }

// What is committed while a new coordinator reads the state does not make the state look behind what its own witness, or that of
// another node, notes of it in the meantime.
func TestTheStoreMayMoveWhileTheStateIsRead(t *testing.T) {
	id := &writv1.IdentityRecord{Cluster: "test", Incarnation: "i", Epoch: 1}
	value, err := proto.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{view: newView(nil, hclog.NewNullLogger()), member: membership{}}
	s.view.reset([]Entry{{Key: KeyIdentity, Value: value, Revision: 10}}, 10)
	state, err := s.view.snapshot().Loaded()
	if err != nil {
		t.Fatal(err)
	}
	s.testify(&state, func() *writv1.WitnessRecord {
		s.view.apply(Change{Revision: 11})
		return &writv1.WitnessRecord{Node: "n1", Epoch: 1, Incarnation: "i", Revision: s.view.roster().revision}
	})
	if reason := foreignTo(state.Identity, state.Revision, state.Own); reason != "" || state.Own.Revision != 11 {
		t.Errorf("%s; the witness is at %d", reason, state.Own.Revision)
	}
}
