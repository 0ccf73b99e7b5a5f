package partition

import (
	"errors"
	"strings"
	"testing"

	"github.com/writ-io/writ/lease"
)

func names(t *testing.T) Names {
	t.Helper()
	n, err := NewNames("orders/shards")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func wantInvalid(t *testing.T, err error, field string, holds ...string) {
	t.Helper()
	var e *lease.Error
	if !errors.As(err, &e) || !errors.Is(err, lease.ErrInvalid) || e.Field != field || e.Fix == "" {
		t.Errorf("%v, want INVALID %s with a fix", err, field)
		return
	}
	for _, text := range holds {
		if !strings.Contains(e.Error(), text) {
			t.Errorf("%q does not say %q", e, text)
		}
	}
}

func TestNames(t *testing.T) {
	n := names(t)
	if n.Group() != "orders/shards/group" || n.Partition(17) != "orders/shards/p/00017" || n.Partition(MaxPartitions-1) != "orders/shards/p/99999" {
		t.Errorf("%s, %s", n.Group(), n.Partition(17))
	}
	for name, want := range map[string]int{
		"orders/shards/p/00000": 0, "orders/shards/p/99999": 99_999,
		"orders/shards/p/1": -1, "orders/shards/p/000001": -1, "orders/shards/p/-0001": -1, "orders/shards/p/+0001": -1,
		"orders/shards/p/0000a": -1, "orders/shards/p/00001/x": -1, "orders/p/00001": -1, "orders/shards/group": -1,
	} {
		if got, ok := n.partition(name); ok != (want >= 0) || ok && got != want {
			t.Errorf("%s is partition %d, %v", name, got, ok)
		}
	}
	for name, want := range map[string]bool{
		"orders/shards/member/a": true, "orders/shards/member/": false, "orders/shards/member/a/b": false, "orders/member/a": false,
	} {
		if n.member(name) != want {
			t.Errorf("%s is a member: %v", name, !want)
		}
	}
}

func TestMemberNames(t *testing.T) {
	n := names(t)
	seen := make(map[string]string)
	for _, id := range []string{"a", "a/b", "a%2Fb", "%", ".", "..", "%2E", "...", "host-1-abc", strings.Repeat("x", lease.MaxInstanceBytes)} {
		name, err := n.Member(id)
		if err != nil {
			t.Errorf("%q: %v", id, err)
			continue
		}
		if seen[name] != "" || !n.member(name) {
			t.Errorf("%q has the name %q, as has %q", id, name, seen[name])
		}
		seen[name] = id
	}
	for _, id := range []string{"", "\x00", strings.Repeat("/", 500)} {
		_, err := n.Member(id)
		wantInvalid(t, err, "instance")
	}
}

func TestBadGroups(t *testing.T) {
	for _, group := range []string{"", "/", "a/", "a//b", "..", "\xff", strings.Repeat("g", 400), strings.Repeat("g", 600)} {
		_, err := NewNames(group)
		wantInvalid(t, err, "group")
	}
}

func TestGroupDocument(t *testing.T) {
	data, err := Group{Partitions: 256}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseGroup(data); err != nil || got.Partitions != 256 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, n := range []int{-1, 0, MaxPartitions + 1} {
		_, err := Group{Partitions: n}.Encode()
		wantInvalid(t, err, "partitions", "1 to 100000")
		_, err = NewMachine(MachineConfig{Partitions: n})
		wantInvalid(t, err, "partitions")
	}
	_, err = NewMachine(MachineConfig{Partitions: 2, Homes: []string{"eu"}})
	wantInvalid(t, err, "homes", "1 of 2")
	for text, says := range map[string]string{
		"":                                  "not a group",
		"7":                                 "not a group",
		"null":                              "not a group",
		`{"writ":"cron","v":1}`:             "not a group",
		`{"writ":"consume","v":2}`:          "version 2",
		`{"writ":"consume","v":1}`:          "0 partitions",
		`{"writ":"consume","partitions":5}`: "version 0",
		`{"writ":"consume","v":1,"partitions":100001}`: "100001 partitions",
	} {
		_, err := ParseGroup([]byte(text))
		wantInvalid(t, err, "group", says)
	}
}

func FuzzParseGroup(f *testing.F) {
	f.Add([]byte(`{"writ":"consume","v":1,"partitions":3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := ParseGroup(data)
		if err != nil {
			wantInvalid(t, err, "group")
			return
		}
		again, err := g.Encode()
		if err != nil {
			t.Fatalf("%q is read and cannot be written: %v", data, err)
		}
		if back, err := ParseGroup(again); err != nil || back != g {
			t.Fatalf("%q is read back as %+v, %v", again, back, err)
		}
	})
}

// Whatever a watch yields, a machine takes it in.
func FuzzWatched(f *testing.F) {
	f.Add("g/p/00001", []byte(nil), "b", uint8(lease.Held))
	f.Add("g/member/b", []byte(`{"writ":"consume","v":1,"region":"eu"}`), "b", uint8(lease.Held))
	f.Add("g/member/b", []byte(`{"writ":"consume","region":7}`), "", uint8(lease.Free))
	f.Fuzz(func(t *testing.T, resource string, metadata []byte, instance string, state uint8) {
		n, err := NewNames("g")
		if err != nil {
			t.Fatal(err)
		}
		m, err := NewMachine(MachineConfig{Names: n, Self: "a", Partitions: 3})
		if err != nil {
			t.Fatal(err)
		}
		info := lease.Info{Resource: lease.Resource(resource), Metadata: metadata, State: lease.State(state), Holder: lease.Holder{Instance: instance}}
		m.Step(1, Joined{}, Watched{lease.WatchEvent{Kind: lease.EventChanged, Info: info}}, Watched{lease.WatchEvent{Kind: lease.EventSynced}})
		m.Step(2, Watched{lease.WatchEvent{Kind: lease.EventRemoved, Info: info}})
		for p := range 3 {
			if got := m.Target(p); got != "" && got != instance {
				t.Errorf("partition %d goes to %q", p, got)
			}
		}
	})
}
