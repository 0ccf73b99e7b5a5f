package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// gate lets renewals at the coordinator through one by one, and shows what each of them held.
type gate struct {
	batches chan []lease.Renew
	open    chan struct{}
	running atomic.Int32
	most    atomic.Int32
}

func gateOf(q *fakeQuorum) *gate {
	g := &gate{batches: make(chan []lease.Renew, 100), open: make(chan struct{})}
	q.onRenew = func(ctx context.Context, cmds []lease.Renew) ([]lease.RenewOutcome, error) {
		if now := g.running.Add(1); now > g.most.Load() {
			g.most.Store(now)
		}
		defer g.running.Add(-1)
		g.batches <- slices.Clone(cmds)
		select {
		case <-g.open:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return make([]lease.RenewOutcome, len(cmds)), nil
	}
	return g
}

// queued waits until n renewals stand in the queue of a node.
func queued(t *testing.T, on *node, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d renewals are queued", n), func() bool {
		on.server.renewer.mu.Lock()
		defer on.server.renewer.mu.Unlock()
		return len(on.server.renewer.queue) == n
	})
}

func refs(cmd lease.Renew) string {
	var names []string
	for _, ref := range cmd.Refs {
		names = append(names, string(ref.Resource))
	}
	return string(cmd.Principal) + "#" + cmd.Instance + ":" + strings.Join(names, ",")
}

func TestRenewalsTravelTogether(t *testing.T) {
	a, b := pair(t, nil)
	g := gateOf(a.quorum)
	b.server.renewer.timeout = time.Hour // the gate decides when an attempt ends, however slow the machine is
	var wg sync.WaitGroup
	renew := func(principal, instance string, resources ...string) {
		c := b.dial(principal)
		wg.Go(func() {
			req := renewRequest(resources...)
			req.Instance = instance
			if resp, err := c.leases.Renew(testContext(t), req); err != nil || len(resp.GetFailures()) != 0 {
				t.Errorf("renewing %v: %v, %v", resources, resp, err)
			}
		})
	}
	renew("spiffe://test/1", "i", "a/1")
	if first := <-g.batches; len(first) != 1 || refs(first[0]) != "spiffe://test/1#i:a/1" {
		t.Errorf("first message %v", first)
	}
	renew("spiffe://test/1", "j", "a/1", "a/2")
	queued(t, b, 1)
	renew("spiffe://test/2", "", "a/3")
	queued(t, b, 2)
	renew("spiffe://test/3", "", "a/4")
	queued(t, b, 3)
	close(g.open)
	wg.Wait()
	var got []string
	for _, cmd := range <-g.batches {
		got = append(got, refs(cmd))
	}
	want := []string{"spiffe://test/1#j:a/1,a/2", "spiffe://test/2#:a/3", "spiffe://test/3#:a/4"}
	if !slices.Equal(got, want) {
		t.Errorf("second message %q, want %q", got, want)
	}
	if len(g.batches) != 0 || g.most.Load() != 1 {
		t.Errorf("%d more messages, %d at a time", len(g.batches), g.most.Load())
	}
	if n := b.metric("writ_server_renew_batch_leases", ""); n != 2 {
		t.Errorf("metric counts %v messages, want 2", n)
	}
}

func TestMessagesOfRenewalsAreBounded(t *testing.T) {
	a, b := pair(t, nil)
	g := gateOf(a.quorum)
	b.server.renewer.timeout = time.Hour // the gate decides when an attempt ends, however slow the machine is
	c := b.dial(app)
	var wg sync.WaitGroup
	renew := func(n int, name string) {
		wg.Go(func() {
			if _, err := c.leases.Renew(testContext(t), renewRequest(slices.Repeat([]string{name}, n)...)); err != nil {
				t.Errorf("renewing %d: %v", n, err)
			}
		})
	}
	renew(1, "x")
	<-g.batches
	for i, n := range []int{4000, 6000, 4000} {
		renew(n, "x")
		queued(t, b, i+1)
	}
	// Names of 512 bytes: 5,000 of them are about 2.7 MB, and two such requests more than a message may hold.
	long := strings.Repeat("n", lease.MaxResourceBytes)
	renew(5000, long)
	queued(t, b, 4)
	renew(5000, long)
	queued(t, b, 5)
	close(g.open)
	wg.Wait()
	total := func(cmds []lease.Renew) (n int) {
		for _, cmd := range cmds {
			n += len(cmd.Refs)
		}
		return n
	}
	var got []int
	for len(g.batches) > 0 {
		got = append(got, total(<-g.batches))
	}
	if want := []int{10_000, 9_000, 5_000}; !slices.Equal(got, want) {
		t.Errorf("messages of %v leases, want %v", got, want)
	}

	_, err := c.leases.Renew(testContext(t), renewRequest(slices.Repeat([]string{"x"}, lease.MaxRenewals+1)...))
	wantInvalid(t, err, "leases")
}

// One lease that cannot be renewed does not spoil the others, and every answer names the index of the request.
func TestRenewalAnswersByIndex(t *testing.T) {
	grants, err := policy.Parse([]byte(`grants: [{principals: ["` + app + `"], prefix: "ok/", verbs: [acquire]}]`))
	if err != nil {
		t.Fatal(err)
	}
	a, b := pair(t, func(c *Config) { c.Policy = grants })
	answer := func(_ context.Context, cmds []lease.Renew) ([]lease.RenewOutcome, error) {
		outs := make([]lease.RenewOutcome, len(cmds))
		for i, cmd := range cmds {
			for j, ref := range cmd.Refs {
				switch {
				case strings.HasSuffix(string(ref.Resource), "lost"):
					outs[i].Failures = append(outs[i].Failures, lease.RenewFailure{Index: j, Err: lease.Errorf(lease.ReasonNotHolder, "is not held")})
				case strings.HasSuffix(string(ref.Resource), "wanted"):
					outs[i].Contended = append(outs[i].Contended, j)
				}
			}
		}
		return outs, nil
	}
	a.quorum.onRenew, b.quorum.onRenew = answer, answer
	req := renewRequest("ok/1", "no/1", "ok/lost", "bad//name", "ok/2", "ok/wanted", "no/2", "ok/lost")
	req.Leases[4].Token = 0
	want := "1 DENIED, 2 NOT_HOLDER, 3 INVALID, 4 INVALID, 6 DENIED, 7 NOT_HOLDER; contended [5]"
	check := func(via *node) {
		t.Helper()
		resp, err := via.dial(app).leases.Renew(testContext(t), req)
		if err != nil {
			t.Fatal(err)
		}
		var failures []string
		for _, f := range resp.GetFailures() {
			failures = append(failures, fmt.Sprintf("%d %s", f.GetIndex(), f.GetReason()))
			if f.GetMessage() == "" {
				t.Errorf("failure %d has no message", f.GetIndex())
			}
		}
		if got := fmt.Sprintf("%s; contended %v", strings.Join(failures, ", "), resp.GetContended()); got != want {
			t.Errorf("via %s: %s, want %s", via.quorum.name, got, want)
		}
	}
	check(a)
	check(b)

	resp, err := b.dial(app).leases.Renew(testContext(t), &writv1.RenewRequest{})
	if err != nil || len(resp.GetFailures()) != 0 {
		t.Errorf("nothing to renew: %v, %v", resp, err)
	}
}

// A renewal that nobody waits for any more is not sent.
func TestCancelledRenewalIsNotSent(t *testing.T) {
	a, b := pair(t, nil)
	g := gateOf(a.quorum)
	b.server.renewer.timeout = time.Hour // the gate decides when an attempt ends, however slow the machine is
	c := b.dial(app)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = c.leases.Renew(testContext(t), renewRequest("x/1")) })
	<-g.batches
	ctx, cancel := context.WithCancel(testContext(t))
	wg.Go(func() {
		if _, err := c.leases.Renew(ctx, renewRequest("x/2")); err == nil {
			t.Error("a cancelled renewal succeeded")
		}
	})
	queued(t, b, 1)
	item := func() *renewal {
		b.server.renewer.mu.Lock()
		defer b.server.renewer.mu.Unlock()
		return b.server.renewer.queue[0]
	}()
	cancel()
	<-item.ctx.Done()
	wg.Go(func() { _, _ = c.leases.Renew(testContext(t), renewRequest("x/3")) })
	queued(t, b, 2)
	close(g.open)
	wg.Wait()
	if second := <-g.batches; len(second) != 1 || refs(second[0]) != app+"#:x/3" {
		t.Errorf("second message %v", second)
	}
}

// Renewals survive a change of coordinator, in both directions.
func TestRenewalsFollowTheCoordinator(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.Forward.Patience = 20 * time.Second })
	g := gateOf(a.quorum)
	b.server.renewer.timeout = time.Hour // the gate decides when an attempt ends, however slow the machine is
	c := b.dial(app)
	var wg sync.WaitGroup
	renew := func() {
		wg.Go(func() {
			if resp, err := c.leases.Renew(testContext(t), renewRequest("x/1")); err != nil || len(resp.GetFailures()) != 0 {
				t.Errorf("renewal: %v, %v", resp, err)
			}
		})
	}
	renew()
	<-g.batches // a hangs
	renew()
	queued(t, b, 1)
	b.quorum.setCoordinator(b.info)
	wg.Wait()

	// b does not decide any more, but has not heard of it yet.
	b.quorum.mu.Lock()
	b.quorum.coordinator = quorum.Node{}
	b.quorum.mu.Unlock()
	close(g.open)
	renew()
	eventually(t, "the renewal is retried", func() bool { return b.metric("writ_server_forward_attempts_total", "retried") > 1 })
	b.quorum.setCoordinator(a.info)
	wg.Wait()
}
