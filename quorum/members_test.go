package quorum_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/quorumtest"
)

// changing is a member whose changes of membership are followed by what a test wants to happen between them and their end.
type changing struct {
	quorum.Member
	after func() error
}

func (c *changing) AddMember(ctx context.Context, peerURL string) (uint64, error) {
	id, err := c.Member.AddMember(ctx, peerURL)
	if err != nil {
		return id, err
	}
	return id, c.after()
}

func (c *changing) RemoveMember(ctx context.Context, id uint64) error {
	if err := c.Member.RemoveMember(ctx, id); err != nil {
		return err
	}
	return c.after()
}

// changingCluster is one node, and what happens after its changes of membership.
func changingCluster(t *testing.T) (*quorumtest.Cluster, *changing) {
	t.Helper()
	hook := &changing{after: func() error { return nil }}
	c := quorumtest.New(t, 1)
	c.Wrap = func(m quorum.Member) quorum.Member {
		hook.Member = m
		return hook
	}
	c.StartAll()
	c.Coordinator()
	return c, hook
}

// committed answers what the store holds of the identity, and the audit log.
func committed(t *testing.T, c *quorumtest.Cluster) (*writv1.IdentityRecord, []audit.Record) {
	t.Helper()
	entries, _, err := c.Coordinator().Member.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id, stored := &writv1.IdentityRecord{}, map[string][]byte{}
	for _, e := range entries {
		stored[e.Key] = e.Value
	}
	if err := proto.Unmarshal(stored[quorum.KeyIdentity], id); err != nil {
		t.Fatal(err)
	}
	var records []audit.Record
	var head audit.Head
	for head.Sequence < id.AuditSequence {
		r, next, err := audit.Verify(head, stored[quorum.AuditKey(head.Sequence+1)])
		if err != nil {
			t.Fatal(err)
		}
		records, head = append(records, r), next
	}
	return id, records
}

// wantMembers holds the committed membership against names, and that no change is under way.
func wantMembers(t *testing.T, c *quorumtest.Cluster, names ...string) {
	t.Helper()
	id, _ := committed(t, c)
	if got := slices.Sorted(maps.Keys(id.Members)); !slices.Equal(got, names) || id.Pending != nil {
		t.Fatalf("members %q with %v pending, want %q and nothing", got, id.Pending, names)
	}
}

// Who asked may leave between the store's change and its end: it is ended all the same.
func TestAChangeOfMembersEndsWithoutItsCaller(t *testing.T) {
	c, hook := changingCluster(t)
	changed := func(change func(context.Context, *quorum.Service) error, names ...string) {
		t.Helper()
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		hook.after = func() error { leave(); return nil }
		if err := change(ctx, c.Coordinator().Service); err != nil {
			t.Error(err)
		}
		wantMembers(t, c, names...)
	}
	changed(func(ctx context.Context, s *quorum.Service) error {
		_, _, err := s.MemberAdd(ctx, "ann", "n2", "http://"+quorumtest.FreeAddress(t))
		return err
	}, "n1", "n2")
	changed(func(ctx context.Context, s *quorum.Service) error { return s.MemberRemove(ctx, "ann", "n2") }, "n1")
}

// What became of a change that nobody ended is found out by the same command again, by any other, and by the next coordinator.
func TestAnUnfinishedChangeOfMembersIsFinished(t *testing.T) {
	c, hook := changingCluster(t)
	url := "http://" + quorumtest.FreeAddress(t)
	add := func(name string) (uint64, error) {
		id, members, err := c.Coordinator().Service.MemberAdd(t.Context(), "ann", name, url)
		if err == nil && (members[name] != url || len(members) != 2) {
			t.Errorf("added %s, and the members are %v", name, members)
		}
		return id, err
	}
	remove := func(name string) error { return c.Coordinator().Service.MemberRemove(t.Context(), "ann", name) }
	unknown := func(change func() error) {
		t.Helper()
		hook.after = func() error { return fmt.Errorf("%w: a test says so", quorum.ErrUnknown) }
		if err := change(); !errors.Is(err, lease.ErrUnknownOutcome) {
			t.Fatalf("answered %v, want UNKNOWN_OUTCOME", err)
		}
		hook.after = func() error { return nil }
		if id, _ := committed(t, c); id.Pending == nil {
			t.Fatal("the change is not pending")
		}
	}
	addN2 := func() error { _, err := add("n2"); return err }
	removeN2 := func() error { return remove("n2") }

	unknown(addN2)
	id, err := add("n2")
	if err != nil || id == 0 {
		t.Fatalf("added again: %x, %v", id, err)
	}
	wantMembers(t, c, "n1", "n2")
	if again, err := add("n2"); err != nil || again != id {
		t.Fatalf("added once more: %x, %v, want %x", again, err, id)
	}
	unknown(removeN2)
	if err := removeN2(); err != nil {
		t.Fatalf("removed again: %v", err)
	}
	wantMembers(t, c, "n1")

	unknown(addN2)
	if err := removeN2(); err != nil {
		t.Fatalf("removed what nobody had ended: %v", err)
	}
	wantMembers(t, c, "n1")

	unknown(addN2)
	unknown(removeN2)
	if _, err := add("n3"); err != nil {
		t.Fatalf("added another: %v", err)
	}
	wantMembers(t, c, "n1", "n3")
	unknown(func() error { return remove("n3") })
	c.StopAll()
	c.StartAll()
	wantMembers(t, c, "n1")
	unknown(addN2)
	c.StopAll()
	c.StartAll()
	wantMembers(t, c, "n1", "n2")
	if id, _ := committed(t, c); id.Epoch != 1 {
		t.Errorf("the epoch is %d: our own changes are not foreign", id.Epoch)
	}
}

// The log names who changed the membership, and tells of no change that could not be.
func TestChangesOfMembersAreAuditedByWhoAsked(t *testing.T) {
	c, _ := changingCluster(t)
	s := c.Coordinator().Service
	url := "http://" + quorumtest.FreeAddress(t)
	for _, bad := range []string{"nonsense", "", "ftp://10.0.0.1:1", "https://10.0.0.1:7413", "http://0.0.0.0:7413"} {
		_, _, err := s.MemberAdd(t.Context(), "ann", "n2", bad)
		var e *lease.Error
		if !errors.As(err, &e) || e.Reason != lease.ReasonInvalid || e.Field != "peer_url" || e.Fix == "" {
			t.Errorf("%q: answered %v, want INVALID peer_url with a fix", bad, err)
		}
	}
	if _, _, err := s.MemberAdd(t.Context(), "ann", "n2", c.Nodes[0].PeerURL); !errors.Is(err, lease.ErrConflict) {
		t.Errorf("a URL that is taken: %v", err)
	}
	if _, records := committed(t, c); len(records) != 0 {
		t.Fatalf("recorded are %+v", records)
	}
	if _, _, err := s.MemberAdd(t.Context(), "ann", "n2", url); err != nil {
		t.Fatal(err)
	}
	if err := s.MemberRemove(t.Context(), "bob", "n2"); err != nil {
		t.Fatal(err)
	}
	_, records := committed(t, c)
	var got []string
	for _, r := range records {
		got = append(got, r.Actor+" "+r.Action+" "+r.Target)
	}
	if want := []string{"ann quorum.member-add n2", "bob quorum.member-remove n2"}; !slices.Equal(got, want) {
		t.Errorf("recorded are %q, want %q", got, want)
	}
}
