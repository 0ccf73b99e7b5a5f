package quorum_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
	"github.com/writ-io/writ/quorum/quorumtest"
	"github.com/writ-io/writ/quorum/quorumtest/pace"
)

var alice = lease.Caller{Principal: "alice", Instance: "1"}

// acquire gets a resource from whoever decides, with one request id however often it has to ask.
func acquire(t *testing.T, c *quorumtest.Cluster, name lease.Resource, ttl time.Duration) *lease.Grant {
	t.Helper()
	request := lease.Acquire{Caller: alice, Resource: name, RequestID: fmt.Sprintf("%s-%d", name, time.Now().UnixNano()), TTL: ttl}
	var grant *lease.Grant
	err := c.Do(func(s *quorum.Service) error {
		out, err := s.Acquire(t.Context(), request)
		grant = out.Grant
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return grant
}

func release(t *testing.T, c *quorumtest.Cluster, g *lease.Grant) {
	t.Helper()
	err := c.Do(func(s *quorum.Service) error {
		return s.Release(t.Context(), lease.Release{Caller: alice, Ref: lease.Ref{Resource: g.Resource, Token: g.Token}})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTokensRiseOverTakeoverAndFullRestart(t *testing.T) {
	c := quorumtest.Start(t, 3)
	last := fence.Token(0)
	next := func(when string) {
		t.Helper()
		g := acquire(t, c, "a", 10*time.Second)
		if g.Token <= last {
			t.Fatalf("%s: token %v does not exceed %v", when, g.Token, last)
		}
		if g.Token.Epoch() != 1 {
			t.Fatalf("%s: token %v is of another epoch", when, g.Token)
		}
		last = g.Token
		release(t, c, g)
	}
	next("at first")
	for range 2 {
		stopped := c.Coordinator()
		stopped.Stop()
		next("after a takeover")
		stopped.Start()
	}
	c.StopAll()
	c.StartAll()
	next("after a restart of everything")
}

func TestATakeoverKeepsLeasesAndGivesThemTheirFullTTL(t *testing.T) {
	c := quorumtest.Start(t, 3)
	const ttl = 30 * time.Second
	g := acquire(t, c, "kept", ttl)
	checkpoint := lease.Checkpoint{Caller: alice, Ref: lease.Ref{Resource: "kept", Token: g.Token}, Data: []byte("slot 7")}
	if err := c.Do(func(s *quorum.Service) error { return s.Checkpoint(t.Context(), checkpoint) }); err != nil {
		t.Fatal(err)
	}
	c.Coordinator().Stop()
	var info lease.Info
	err := c.Do(func(s *quorum.Service) (err error) {
		info, err = s.Inspect(t.Context(), lease.Inspect{Caller: alice, Ref: lease.Ref{Resource: "kept", Token: g.Token}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if info.State != lease.Held || info.Remaining < ttl-5*time.Second {
		t.Fatalf("after the takeover: %+v", info)
	}
	release(t, c, g)
	if again := acquire(t, c, "kept", ttl); string(again.Checkpoint) != "slot 7" {
		t.Fatalf("the next holder got checkpoint %q", again.Checkpoint)
	}
}

func TestAGracefulStopHandsTheCoordinatorOver(t *testing.T) {
	c := quorumtest.New(t, 3)
	// Long enough that no election happens of itself on a busy machine.
	c.Configure = func(e *etcd.Config, q *quorum.Config) { e.Election, q.Election = 3*time.Second, 3*time.Second }
	c.StartAll()
	was := c.Coordinator()
	// A node can be elected before the streams of messages to the others are open, and hands over only along those.
	c.Await("another node is reachable", func() bool {
		return slices.ContainsFunc(was.Service.Nodes(), func(n quorum.Node) bool { return n.Reachable && n.Name != was.Name })
	})
	to, err := was.Service.MoveCoordinator(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	c.Await(to+" decides", func() bool { return c.Coordinator().Name == to && to != was.Name })
	if _, err := was.Service.MoveCoordinator(t.Context(), ""); !errors.Is(err, lease.ErrNotCoordinator) {
		t.Fatalf("a node that does not decide moved the coordinator: %v", err)
	}
}

func TestEveryNodeReadsWhatWasAcknowledged(t *testing.T) {
	c := quorumtest.Start(t, 3)
	for i := range 5 {
		g := acquire(t, c, lease.Resource(fmt.Sprintf("list/%d", i)), 10*time.Second)
		for _, n := range c.Nodes {
			info, err := n.Service.Get(t.Context(), quorum.GetQuery{Resource: g.Resource})
			if err != nil || info.Token != g.Token || info.State != lease.Held {
				t.Fatalf("%s: %+v, %v", n.Name, info, err)
			}
		}
	}
	page, err := c.Nodes[0].Service.List(t.Context(), quorum.ListQuery{Prefix: "list/", Limit: 2})
	if err != nil || len(page.Leases) != 2 || !page.More || page.Leases[1].Resource != "list/1" {
		t.Fatalf("first page: %+v, %v", page, err)
	}
	page, err = c.Nodes[0].Service.List(t.Context(), quorum.ListQuery{Prefix: "list/", After: "list/1", Limit: 10})
	if err != nil || len(page.Leases) != 3 || page.More {
		t.Fatalf("second page: %+v, %v", page, err)
	}
	if _, err := c.Nodes[1].Service.Get(t.Context(), quorum.GetQuery{Resource: "nothing"}); !errors.Is(err, lease.ErrNotFound) {
		t.Fatalf("an unknown resource: %v", err)
	}
}

// Each node answers with the checkpoint that was acknowledged last, and only if it is asked for.
func TestEveryNodeReadsCheckpoints(t *testing.T) {
	c := quorumtest.Start(t, 3)
	g := acquire(t, c, "slots", 10*time.Second)
	for _, data := range []string{"slot 1", "slot 2", ""} {
		cmd := lease.Checkpoint{Caller: alice, Ref: lease.Ref{Resource: "slots", Token: g.Token}, Data: []byte(data)}
		if err := c.Do(func(s *quorum.Service) error { return s.Checkpoint(t.Context(), cmd) }); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.Nodes {
			with, err := n.Service.Get(t.Context(), quorum.GetQuery{Resource: "slots", WithCheckpoint: true})
			if err != nil || with.Token != g.Token || string(with.Checkpoint) != data {
				t.Fatalf("%s: %+v, %v", n.Name, with, err)
			}
			local, err := n.Service.Get(t.Context(), quorum.GetQuery{Resource: "slots", Consistency: quorum.Local, WithCheckpoint: true})
			if err != nil || local.Revision < with.Revision || string(local.Checkpoint) != data {
				t.Fatalf("%s has seen %+v, %v", n.Name, local, err)
			}
			if bare, err := n.Service.Get(t.Context(), quorum.GetQuery{Resource: "slots"}); err != nil || bare.Checkpoint != nil {
				t.Fatalf("%s, not asked for it: %+v, %v", n.Name, bare, err)
			}
		}
		var decided lease.Info
		err := c.Do(func(s *quorum.Service) (err error) {
			decided, err = s.Inspect(t.Context(), lease.Inspect{Caller: alice, Ref: lease.Ref{Resource: "slots"}, WithCheckpoint: true})
			return err
		})
		if err != nil || string(decided.Checkpoint) != data {
			t.Fatalf("the coordinator: %+v, %v", decided, err)
		}
	}
}

// events watches in the background and hands what it is told over one by one.
func events(t *testing.T, s *quorum.Service, prefix, resume string) (<-chan quorum.WatchEvent, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, done := make(chan quorum.WatchEvent), make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Watch(ctx, prefix, resume, func(e quorum.WatchEvent) error {
			select {
			case out <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return out, func() { cancel(); <-done }
}

func next(t *testing.T, ch <-chan quorum.WatchEvent) quorum.WatchEvent {
	t.Helper()
	select {
	case e := <-ch:
		return e
	case <-time.After(pace.Patience):
		t.Fatal("no event")
		return quorum.WatchEvent{}
	}
}

func TestAWatchResumesAtAnotherNodeWithoutGapOrDuplicate(t *testing.T) {
	c := quorumtest.Start(t, 3)
	first := acquire(t, c, "watched/a", 10*time.Second)
	acquire(t, c, "other", 10*time.Second)
	ch, stop := events(t, c.Nodes[0].Service, "watched/", "")
	if e := next(t, ch); e.Kind != quorum.WatchState || e.Lease.Token != first.Token {
		t.Fatalf("first event %+v", e)
	}
	synced := next(t, ch)
	if synced.Kind != quorum.WatchSynced || synced.Resume == "" {
		t.Fatalf("second event %+v", synced)
	}
	release(t, c, first)
	freed := next(t, ch)
	if freed.Kind != quorum.WatchChanged || freed.Lease.State != lease.Free || freed.Lease.End != lease.EndReleased {
		t.Fatalf("third event %+v", freed)
	}
	stop()
	second := acquire(t, c, "watched/a", 10*time.Second)
	acquire(t, c, "watched/b", 10*time.Second)
	ch, stop = events(t, c.Nodes[1].Service, "watched/", freed.Resume)
	defer stop()
	if e := next(t, ch); e.Kind != quorum.WatchChanged || e.Lease.Token != second.Token {
		t.Fatalf("resumed with %+v", e)
	}
	if e := next(t, ch); e.Lease.Resource != "watched/b" {
		t.Fatalf("then %+v", e)
	}
}

func TestAWatchThatCannotGoOnIsToldSo(t *testing.T) {
	c := quorumtest.Start(t, 1)
	acquire(t, c, "a", 10*time.Second)
	for name, token := range map[string]string{"another incarnation": "0123456789ab:3", "the future": ""} {
		t.Run(name, func(t *testing.T) {
			if token == "" {
				token = c.Nodes[0].Service.Status().Incarnation + ":999999999"
			}
			ch, stop := events(t, c.Nodes[0].Service, "", token)
			defer stop()
			if e := next(t, ch); e.Kind != quorum.WatchResync {
				t.Fatalf("first event %+v", e)
			}
			if e := next(t, ch); e.Kind != quorum.WatchState {
				t.Fatalf("second event %+v", e)
			}
		})
	}
	for _, token := range []string{"x", ":1", "a:b", "a:1:0", "a:-1", "a:1:2:3"} {
		err := c.Nodes[0].Service.Watch(t.Context(), "", token, func(quorum.WatchEvent) error { return nil })
		if !errors.Is(err, lease.ErrInvalid) {
			t.Errorf("resume token %q: %v", token, err)
		}
	}
}

func TestAWatchBehindTheCompactionResyncs(t *testing.T) {
	c := quorumtest.Start(t, 1)
	g := acquire(t, c, "a", 10*time.Second)
	ch, stop := events(t, c.Nodes[0].Service, "", "")
	next(t, ch)
	synced := next(t, ch)
	stop()
	release(t, c, g)
	acquire(t, c, "a", 10*time.Second)
	head, err := c.Nodes[0].Member.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes[0].Member.Compact(t.Context(), head); err != nil {
		t.Fatal(err)
	}
	ch, stop = events(t, c.Nodes[0].Service, "", synced.Resume)
	defer stop()
	if e := next(t, ch); e.Kind != quorum.WatchResync {
		t.Fatalf("first event %+v", e)
	}
}

// renew wants the lease to be held still.
func renew(t *testing.T, c *quorumtest.Cluster, g *lease.Grant) {
	t.Helper()
	err := c.Do(func(s *quorum.Service) error {
		out, err := s.Renew(t.Context(), []lease.Renew{{Caller: alice, Refs: []lease.Ref{{Resource: g.Resource, Token: g.Token}}}})
		if err == nil && len(out[0].Failures) > 0 {
			err = out[0].Failures[0].Err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMembersComeAndGo(t *testing.T) {
	c := quorumtest.Start(t, 3)
	kept := acquire(t, c, "kept", time.Minute)
	before := acquire(t, c, "a", 10*time.Second)
	release(t, c, before)
	added := c.Add("n4")
	err := c.Do(func(s *quorum.Service) error {
		_, _, err := s.MemberAdd(t.Context(), "admin", "n4", added.PeerURL)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	added.Start()
	c.Await("n4 has a vote", func() bool {
		members := c.Coordinator().Member.Members()
		return len(members) == 4 && !slices.ContainsFunc(members, func(m quorum.MemberInfo) bool { return m.Learner })
	})
	renew(t, c, kept)
	removed := c.Nodes[0]
	removed.Removed = true
	if err := c.Do(func(s *quorum.Service) error { return s.MemberRemove(t.Context(), "admin", removed.Name) }); err != nil {
		t.Fatal(err)
	}
	removed.Stop()
	renew(t, c, kept)
	c.Coordinator().Stop()
	renew(t, c, kept)
	after := acquire(t, c, "a", 10*time.Second)
	if after.Token <= before.Token || after.Token.Epoch() != before.Token.Epoch() {
		t.Fatalf("token %v after %v: our own changes of membership are not foreign", after.Token, before.Token)
	}
	if err := c.Do(func(s *quorum.Service) error { return s.MemberRemove(t.Context(), "admin", "nobody") }); !errors.Is(err, lease.ErrNotFound) {
		t.Fatalf("removing nobody: %v", err)
	}
	if err := c.Do(func(s *quorum.Service) error {
		_, _, err := s.MemberAdd(t.Context(), "admin", "n4", "http://127.0.0.1:1")
		return err
	}); !errors.Is(err, lease.ErrConflict) {
		t.Fatalf("a second n4: %v", err)
	}
}

func TestAForceReleaseIsAudited(t *testing.T) {
	c := quorumtest.Start(t, 1)
	g := acquire(t, c, "forced", 3*time.Second)
	ref := lease.Ref{Resource: "forced", Token: g.Token}
	force := lease.ForceRelease{Caller: lease.Caller{Principal: "root"}, Ref: ref, Reason: "drill"}
	if _, err := c.Nodes[0].Service.ForceRelease(t.Context(), force); err != nil {
		t.Fatal(err)
	}
	out, err := c.Nodes[0].Service.Renew(t.Context(), []lease.Renew{{Caller: alice, Refs: []lease.Ref{ref}}})
	if err != nil || len(out[0].Failures) != 1 || !errors.Is(out[0].Failures[0].Err, lease.ErrExpired) {
		t.Fatalf("a renewal after the forced release: %+v, %v", out, err)
	}
	if next := acquireWaiting(t, c, "forced"); next.Token <= g.Token {
		t.Fatalf("token %v after %v", next.Token, g.Token)
	}
	entries, _, err := c.Nodes[0].Member.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Key == quorum.AuditKey(1) {
			return
		}
	}
	t.Fatal("no audit record of the forced release")
}

// acquireWaiting polls until the resource is granted.
func acquireWaiting(t *testing.T, c *quorumtest.Cluster, name lease.Resource) *lease.Grant {
	t.Helper()
	for {
		var out lease.AcquireOutcome
		err := c.Do(func(s *quorum.Service) (err error) {
			out, err = s.Acquire(t.Context(), lease.Acquire{Caller: alice, Resource: name, RequestID: "waiting", TTL: 3 * time.Second, Wait: time.Second})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if out.Grant != nil {
			return out.Grant
		}
	}
}
