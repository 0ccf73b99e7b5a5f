package server

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// pair starts two nodes that know each other, of which a decides.
func pair(t *testing.T, edit func(*Config)) (a, b *node) {
	t.Helper()
	ca := newAuthority(t)
	a, b = start(t, ca, newFake("a"), edit), start(t, ca, newFake("b"), edit)
	for _, n := range []*node{a, b} {
		n.quorum.setNodes(a.info, b.info)
		n.quorum.setCoordinator(a.info)
	}
	return a, b
}

const app = "spiffe://test/app"

// acquired counts calls, and passes them to the fake's usual answer.
func acquired(q *fakeQuorum) *atomic.Int32 {
	var calls atomic.Int32
	q.onAcquire = func(_ context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		calls.Add(1)
		return grantOf(cmd), nil
	}
	return &calls
}

func TestEveryCallIsForwarded(t *testing.T) {
	a, b := pair(t, nil)
	last := lastPrincipal(a.quorum)
	c := b.dial(app)
	ctx := testContext(t)
	ref := uint64(token(7))
	for name, call := range map[string]func() error{
		"Acquire": func() error { _, err := c.leases.Acquire(ctx, acquireRequest("a/b")); return err },
		"CancelAcquire": func() error {
			_, err := c.leases.CancelAcquire(ctx, &writv1.CancelAcquireRequest{Resource: "a/b", RequestId: "r"})
			return err
		},
		"Release": func() error {
			_, err := c.leases.Release(ctx, &writv1.ReleaseRequest{Resource: "a/b", Token: ref})
			return err
		},
		"Checkpoint": func() error {
			_, err := c.leases.Checkpoint(ctx, &writv1.CheckpointRequest{Resource: "a/b", Token: ref})
			return err
		},
		"ForceRelease": func() error {
			_, err := c.leases.ForceRelease(ctx, &writv1.ForceReleaseRequest{Resource: "a/b", Reason: "x"})
			return err
		},
		"Renew": func() error { _, err := c.leases.Renew(ctx, renewRequest("a/b")); return err },
		"Get": func() error {
			_, err := c.leases.Get(ctx, &writv1.GetRequest{Resource: "a/b", WithDeadline: true})
			return err
		},
		"IssueWrit": func() error {
			_, err := c.fences.IssueWrit(ctx, &writv1.IssueWritRequest{Resource: "a/b", Token: ref})
			return err
		},
		"MemberAdd": func() error {
			_, err := c.cluster.MemberAdd(ctx, &writv1.MemberAddRequest{Name: "c", PeerUrl: "http://c"})
			return err
		},
		"MemberRemove": func() error {
			_, err := c.cluster.MemberRemove(ctx, &writv1.MemberRemoveRequest{Name: "c"})
			return err
		},
		"MoveCoordinator": func() error {
			_, err := c.cluster.MoveCoordinator(ctx, &writv1.MoveCoordinatorRequest{To: "b"})
			return err
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := last.Load(); got != lease.Principal(app) {
		t.Errorf("decided for %q, want %q", got, app)
	}
	a.quorum.mu.Lock()
	defer a.quorum.mu.Unlock()
	if want := []lease.Principal{app, app}; !slices.Equal(a.quorum.changers, want) {
		t.Errorf("the membership is changed by %q, want %q", a.quorum.changers, want)
	}
}

func TestRequestWaitsForACoordinator(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.Forward.Patience = 20 * time.Second })
	b.quorum.setCoordinator(quorum.Node{})
	calls := acquired(a.quorum)
	c := b.dial(app)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.leases.Acquire(testContext(t), acquireRequest("a/b")); err != nil {
			t.Errorf("after a coordinator was found: %v", err)
		}
	})
	eventually(t, "the request looks for a coordinator", func() bool { return b.metric("writ_server_forward_attempts_total", "retried") > 0 })
	b.quorum.setCoordinator(a.info)
	wg.Wait()
	if calls.Load() != 1 {
		t.Errorf("the coordinator was asked %d times, want once", calls.Load())
	}
}

func TestNoCoordinatorIsNoQuorum(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.Forward.Patience = 50 * time.Millisecond })
	c := b.dial(app)
	b.quorum.setCoordinator(quorum.Node{})
	eventually(t, "b knows of no coordinator", func() bool { return b.server.tracker.current().node.Name == "" })
	_, err := c.leases.Acquire(testContext(t), acquireRequest("a/b"))
	wantReason(t, err, lease.ReasonNoQuorum, "no coordinator is known")
	_, err = c.leases.Renew(testContext(t), renewRequest("a/b"))
	wantReason(t, err, lease.ReasonNoQuorum, "no coordinator is known")

	// Each believes that the other one decides: the request is passed on once, and never back.
	calls := acquired(b.quorum)
	a.quorum.setCoordinator(b.info)
	b.quorum.setCoordinator(a.info)
	_, err = c.leases.Acquire(testContext(t), acquireRequest("a/b"))
	wantReason(t, err, lease.ReasonNoQuorum, "a did not take the request")
	if calls.Load() != 0 {
		t.Errorf("the request came back %d times", calls.Load())
	}

	// Nothing was sent to one that cannot be reached.
	closed := loopback(t)
	_ = closed.Close()
	b.quorum.setCoordinator(quorum.Node{Name: "gone", APIAddress: closed.Addr().String()})
	eventually(t, "b knows of another coordinator", func() bool { return b.server.tracker.current().node.Name == "gone" })
	_, err = c.leases.Acquire(testContext(t), acquireRequest("a/b"))
	wantReason(t, err, lease.ReasonNoQuorum, "gone", "connection refused")
	_, err = c.leases.Renew(testContext(t), renewRequest("a/b"))
	wantReason(t, err, lease.ReasonNoQuorum, "gone", "connection refused")
}

// blocked makes a coordinator take requests and not answer.
func blocked(q *fakeQuorum) (taken, abandoned chan struct{}) {
	taken, abandoned = make(chan struct{}, 100), make(chan struct{}, 100)
	q.onAcquire = func(ctx context.Context, _ lease.Acquire) (lease.AcquireOutcome, error) {
		taken <- struct{}{}
		<-ctx.Done()
		abandoned <- struct{}{}
		return lease.AcquireOutcome{}, ctx.Err()
	}
	return taken, abandoned
}

// A coordinator that hangs is left as soon as another one decides.
func TestChangeOfCoordinatorEndsAnAttempt(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.Forward.Timeout = time.Hour })
	taken, abandoned := blocked(a.quorum)
	calls := acquired(b.quorum)
	c := b.dial(app)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.leases.Acquire(testContext(t), acquireRequest("a/b")); err != nil {
			t.Errorf("after the change: %v", err)
		}
	})
	<-taken
	b.quorum.setCoordinator(quorum.Node{})
	eventually(t, "b knows of no coordinator", func() bool { return b.server.tracker.current().node.Name == "" })
	b.quorum.setCoordinator(b.info)
	<-abandoned
	wg.Wait()
	if calls.Load() != 1 {
		t.Errorf("the new coordinator was asked %d times, want once", calls.Load())
	}
}

// A request that moves the coordinator is answered by the one that was asked, and not given up because it has moved.
func TestMovingTheCoordinatorIsAnswered(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.Forward.Timeout = time.Hour })
	c := b.dial(app)
	moved := func() {
		a.quorum.setCoordinator(b.info)
		b.quorum.setCoordinator(b.info)
		eventually(t, "b decides", func() bool { return b.server.tracker.current().self })
	}
	a.quorum.onMove = func(to string) (string, error) { moved(); return to, nil }
	resp, err := c.cluster.MoveCoordinator(testContext(t), &writv1.MoveCoordinatorRequest{To: "b"})
	if err != nil || resp.GetCoordinator() != "b" {
		t.Errorf("moved: %v, %v", resp, err)
	}

	// A coordinator that is to be removed hands over first, and then it is the next one's turn.
	a.quorum.setCoordinator(a.info)
	b.quorum.setCoordinator(a.info)
	eventually(t, "a decides", func() bool { return b.server.tracker.current().link != nil })
	var removed atomic.Int32
	a.quorum.onRemove = func(string) error { moved(); return lease.ErrNotCoordinator }
	b.quorum.onRemove = func(string) error { removed.Add(1); return nil }
	if _, err := c.cluster.MemberRemove(testContext(t), &writv1.MemberRemoveRequest{Name: "a"}); err != nil || removed.Load() != 1 {
		t.Errorf("removed %d times: %v", removed.Load(), err)
	}
}

// While nobody is known to decide, the old coordinator may still answer.
func TestLossOfCoordinatorEndsNoAttempt(t *testing.T) {
	a, b := pair(t, nil)
	taken, answer := make(chan struct{}, 10), make(chan struct{})
	a.quorum.onAcquire = func(ctx context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		taken <- struct{}{}
		select {
		case <-answer:
			return grantOf(cmd), nil
		case <-ctx.Done():
			return lease.AcquireOutcome{}, ctx.Err()
		}
	}
	c := b.dial(app)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.leases.Acquire(testContext(t), acquireRequest("a/b")); err != nil {
			t.Errorf("answered by the old coordinator: %v", err)
		}
	})
	<-taken
	b.quorum.setCoordinator(quorum.Node{})
	eventually(t, "b knows of no coordinator", func() bool { return b.server.tracker.current().node.Name == "" })
	close(answer)
	wg.Wait()
	if len(taken) != 0 {
		t.Error("the coordinator was asked again")
	}
}

// A request that was taken and waited has all its patience again.
func TestPatienceBeginsAnewAfterAWait(t *testing.T) {
	const patience = 100 * time.Millisecond
	a, b := pair(t, func(c *Config) { c.Forward.Patience = patience })
	var calls atomic.Int32
	a.quorum.onAcquire = func(_ context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		switch calls.Add(1) {
		case 2:
			<-time.After(2 * patience) // a long wait, and then the coordinator is deposed
		case 3:
			return grantOf(cmd), nil
		}
		return lease.AcquireOutcome{}, lease.Errorf(lease.ReasonNotCoordinator, "not any more")
	}
	if _, err := b.dial(app).leases.Acquire(testContext(t), acquireRequest("a/b")); err != nil {
		t.Errorf("after %d calls: %v", calls.Load(), err)
	}
}

// What may have had its effect is never reported as if nothing had happened.
func TestLostCoordinatorIsUnknownOutcome(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.Forward.Patience = 100 * time.Millisecond })
	taken, _ := blocked(a.quorum)
	c := b.dial(app)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := c.leases.Acquire(testContext(t), acquireRequest("a/b"))
		wantReason(t, err, lease.ReasonUnknownOutcome, "a did not answer", "same request id")
	})
	<-taken
	a.server.Stop()
	wg.Wait()
	_, err := c.leases.Acquire(testContext(t), acquireRequest("a/b"))
	wantReason(t, err, lease.ReasonNoQuorum)
}

// What a later attempt is refused with says nothing of an earlier one that the old coordinator may have carried out.
func TestRefusalAfterALostAttemptIsUnknownOutcome(t *testing.T) {
	for _, tc := range []struct {
		refusal *lease.Error
		want    lease.Reason
	}{
		{lease.Errorf(lease.ReasonNoQuorum, "no majority confirmed the coordinator; nothing was changed"), lease.ReasonUnknownOutcome},
		{lease.Errorf(lease.ReasonRecovering, "nothing is granted"), lease.ReasonUnknownOutcome},
		{lease.Errorf(lease.ReasonHeld, "by somebody else"), lease.ReasonUnknownOutcome},
		{lease.Errorf(lease.ReasonReleased, "it was"), lease.ReasonUnknownOutcome},
		{lease.Errorf(lease.ReasonDenied, "whoever carries it out"), lease.ReasonDenied},
	} {
		for _, here := range []bool{true, false} {
			ca := newAuthority(t)
			patient := func(c *Config) { c.Forward.Timeout, c.Forward.Patience = time.Hour, time.Hour }
			nodes := []*node{start(t, ca, newFake("a"), patient), start(t, ca, newFake("b"), patient), start(t, ca, newFake("c"), patient)}
			asked, next := nodes[1], nodes[2]
			if here {
				next = asked
			}
			for _, n := range nodes {
				n.quorum.setNodes(nodes[0].info, nodes[1].info, nodes[2].info)
				n.quorum.setCoordinator(nodes[0].info)
			}
			taken, _ := blocked(nodes[0].quorum)
			next.quorum.onAcquire = func(context.Context, lease.Acquire) (lease.AcquireOutcome, error) {
				return lease.AcquireOutcome{}, tc.refusal
			}
			next.quorum.setCoordinator(next.info)
			asked.quorum.setCoordinator(nodes[0].info)
			client := asked.dial(app)
			eventually(t, "who is asked knows the old coordinator", func() bool { return asked.server.tracker.current().node.Name == "a" })
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := client.leases.Acquire(testContext(t), acquireRequest("a/b"))
				wantReason(t, err, tc.want, tc.refusal.Message)
				if tc.want == lease.ReasonUnknownOutcome {
					wantReason(t, err, tc.want, "a did not answer", "asked again: "+string(tc.refusal.Reason), "same request id")
				}
			})
			<-taken
			asked.quorum.setCoordinator(next.info)
			wg.Wait()
		}
	}
}

func TestSlowCoordinatorIsUnknownOutcome(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.Forward.Timeout = 2 * time.Second })
	blocked(a.quorum)
	_, err := b.dial(app).leases.Acquire(testContext(t), acquireRequest("a/b"))
	wantReason(t, err, lease.ReasonUnknownOutcome, "a did not answer")
}

// The coordinator has as long as the request itself asks it to wait, and the usual time on top.
func TestWaitIsAddedToTheTimeout(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.Forward.Timeout = time.Second })
	left := lastDeadline(a.quorum)
	req := acquireRequest("a/b")
	req.Wait = durationpb.New(10 * time.Second)
	if _, err := b.dial(app).leases.Acquire(testContext(t), req); err != nil {
		t.Fatal(err)
	}
	if got := <-left; got < 9*time.Second || got > 11*time.Second {
		t.Errorf("the coordinator has %v, want about 11 s", got)
	}
}

func TestCancellationPassesThrough(t *testing.T) {
	a, b := pair(t, nil)
	taken, abandoned := blocked(a.quorum)
	ctx, cancel := context.WithCancel(testContext(t))
	c := b.dial(app)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.leases.Acquire(ctx, acquireRequest("a/b")); err == nil {
			t.Error("a cancelled request succeeded")
		}
	})
	<-taken
	cancel()
	<-abandoned
	wg.Wait()
}

// The coordinator believes the node who asks, and not that the node may be asked for it.
func TestCoordinatorAuthorisesAgain(t *testing.T) {
	ca := newAuthority(t)
	deny := func(c *Config) { c.Policy = policy.DenyAll() }
	a, b := start(t, ca, newFake("a"), deny), start(t, ca, newFake("b"), nil)
	for _, n := range []*node{a, b} {
		n.quorum.setNodes(a.info, b.info)
		n.quorum.setCoordinator(a.info)
	}
	calls := acquired(a.quorum)
	c := b.dial(app)
	eventually(t, "b knows the coordinator", func() bool { return b.server.tracker.current().node.Name == "a" })
	_, err := c.leases.Acquire(testContext(t), acquireRequest("a/b"))
	wantReason(t, err, lease.ReasonDenied, app, "acquire", "a/b")
	resp, err := c.leases.Renew(testContext(t), renewRequest("a/b"))
	if err != nil || len(resp.GetFailures()) != 1 || resp.GetFailures()[0].GetReason() != "DENIED" {
		t.Errorf("renewal: %v, %v, want one DENIED", resp, err)
	}
	if calls.Load() != 0 {
		t.Error("a denied request was decided")
	}
}

// A node that has just joined is not refused for good.
func TestForwardingWaitsUntilTheNodeIsKnown(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.Forward.Patience = 20 * time.Second })
	a.quorum.setNodes(a.info)
	c := b.dial(app)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.leases.Acquire(testContext(t), acquireRequest("a/b")); err != nil {
			t.Errorf("after the node became known: %v", err)
		}
	})
	eventually(t, "the request is retried", func() bool { return b.metric("writ_server_forward_attempts_total", "retried") > 0 })
	a.quorum.setNodes(a.info, b.info)
	wg.Wait()
}

// cutter is a connection to the coordinator that breaks when told to.
type cutter struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

func (c *cutter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.conns = append(c.conns, conn)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

// memberFake counts changes of membership.
type memberFake struct {
	*fakeQuorum
	add func() error
}

func (q *memberFake) MemberAdd(context.Context, lease.Principal, string, string) (uint64, map[string]string, error) {
	return 1, nil, q.add()
}

// A broken connection: what is idempotent is asked for again, what is not is not.
func TestBrokenConnection(t *testing.T) {
	ca := newAuthority(t)
	listener := &cutter{Listener: loopback(t)}
	fake := newFake("a")
	var adds, acquires atomic.Int32
	q := &memberFake{fakeQuorum: fake, add: func() error {
		adds.Add(1)
		listener.cut()
		return nil
	}}
	fake.onAcquire = func(_ context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		if acquires.Add(1) == 1 {
			listener.cut()
		}
		return grantOf(cmd), nil
	}
	server, err := New(q, Config{Identity: ca.source(nodePrefix + "a"), Policy: policy.AllowAll()})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener, nil) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	b := start(t, ca, newFake("b"), nil)
	a := quorum.Node{Name: "a", APIAddress: listener.Addr().String(), Principal: nodePrefix + "a"}
	fake.setNodes(a, b.info)
	b.quorum.setNodes(a, b.info)
	b.quorum.setCoordinator(a)
	c := b.dial(app)

	resp, err := c.leases.Acquire(testContext(t), &writv1.AcquireRequest{Resource: "a/b", Ttl: durationpb.New(time.Second)})
	if err != nil || resp.GetGrant() == nil || acquires.Load() != 2 {
		t.Errorf("Acquire: %v, %v, asked %d times, want 2", resp, err, acquires.Load())
	}
	_, err = c.cluster.MemberAdd(testContext(t), &writv1.MemberAddRequest{Name: "c", PeerUrl: "http://c"})
	wantReason(t, err, lease.ReasonUnknownOutcome)
	if adds.Load() != 1 {
		t.Errorf("MemberAdd was asked %d times, want once", adds.Load())
	}
}

// A request without an id is one request, however often it is asked.
func TestRequestIDIsChosenOnce(t *testing.T) {
	a, b := pair(t, nil)
	ids := make(chan string, 2)
	a.quorum.onAcquire = func(_ context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		ids <- cmd.RequestID
		if len(ids) == 1 {
			return lease.AcquireOutcome{}, lease.Errorf(lease.ReasonNotCoordinator, "not now")
		}
		return grantOf(cmd), nil
	}
	req := acquireRequest("a/b")
	req.RequestId = ""
	if _, err := b.dial(app).leases.Acquire(testContext(t), req); err != nil {
		t.Fatal(err)
	}
	if first, second := <-ids, <-ids; first == "" || first != second {
		t.Errorf("request ids %q and %q, want one", first, second)
	}
}

// A node of the quorum may renew for its clients only in batches; a single renewal with a forwarded name is never passed on.
func TestForwardedRenewalIsNotPassedOn(t *testing.T) {
	_, b := pair(t, nil)
	ctx := metadata.AppendToOutgoingContext(testContext(t), keyForwarded, app)
	_, err := b.dial(nodePrefix+"a").leases.Renew(ctx, renewRequest("a/b"))
	wantReason(t, err, lease.ReasonNotCoordinator)
}

// lastDeadline tells how much time the quorum is given.
func lastDeadline(q *fakeQuorum) chan time.Duration {
	left := make(chan time.Duration, 1)
	q.onAcquire = func(ctx context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		return grantOf(cmd), nil
	}
	return left
}

// A change that nobody tells of is found all the same.
func TestSilentChangeOfCoordinator(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.Forward.Patience = 20 * time.Second })
	b.quorum.setCoordinator(quorum.Node{Name: "a"}) // its address is not known yet
	c := b.dial(app)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.leases.Acquire(testContext(t), acquireRequest("a/b")); err != nil {
			t.Errorf("after the address became known: %v", err)
		}
	})
	eventually(t, "the request is retried", func() bool { return b.metric("writ_server_forward_attempts_total", "retried") > 0 })
	b.quorum.mu.Lock()
	b.quorum.coordinator = a.info
	b.quorum.mu.Unlock()
	wg.Wait()
}
