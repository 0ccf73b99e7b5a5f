package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// pipe is a client's end of a pipeline.
type pipe struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[writv1.PipelineRequest, writv1.PipelineResponse]
}

func (c *client) pipeline(t *testing.T) *pipe {
	t.Helper()
	stream, err := c.leases.Pipeline(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return &pipe{t, stream}
}

func (p *pipe) send(calls ...*writv1.PipelineCall) {
	p.t.Helper()
	if err := p.stream.Send(&writv1.PipelineRequest{Calls: calls}); err != nil {
		p.t.Fatal(err)
	}
}

// answers reads as many answers and tells them in a line each, by id.
func (p *pipe) answers(n int) map[uint64]string {
	p.t.Helper()
	got := make(map[uint64]string)
	for len(got) < n {
		resp, err := p.stream.Recv()
		if err != nil {
			p.t.Fatalf("after %d of %d answers: %v", len(got), n, err)
		}
		for _, a := range resp.GetAnswers() {
			if _, twice := got[a.GetId()]; twice {
				p.t.Errorf("call %d was answered twice", a.GetId())
			}
			got[a.GetId()] = tell(a)
		}
	}
	return got
}

func tell(a *writv1.PipelineAnswer) string {
	switch {
	case a.GetError() != nil:
		return string(lease.ReasonOf(status.FromProto(a.GetError()).Err()))
	case a.GetRelease() != nil:
		return "released"
	case a.GetCheckpoint() != nil:
		return "stored"
	case a.GetAcquire().GetWaiting() != nil:
		return "waiting"
	}
	g := a.GetAcquire().GetGrant()
	return g.GetResource() + " to " + g.GetHolder().GetPrincipal()
}

func (p *pipe) want(want map[uint64]string) {
	p.t.Helper()
	if got := p.answers(len(want)); !maps.Equal(got, want) {
		p.t.Errorf("got %v, want %v", got, want)
	}
}

// ends reads the end of the stream.
func (p *pipe) ends() error {
	p.t.Helper()
	resp, err := p.stream.Recv()
	if err == nil {
		p.t.Fatalf("got %v, want the end", resp)
	}
	return err
}

func pipedAcquire(id uint64, resource string, wait time.Duration) *writv1.PipelineCall {
	req := acquireRequest(resource)
	if wait > 0 {
		req.Wait = durationpb.New(wait)
	}
	return &writv1.PipelineCall{Id: id, Call: &writv1.PipelineCall_Acquire{Acquire: req}}
}

func pipedRelease(id uint64, resource string) *writv1.PipelineCall {
	return &writv1.PipelineCall{Id: id, Call: &writv1.PipelineCall_Release{
		Release: &writv1.ReleaseRequest{Resource: resource, Token: uint64(token(7))},
	}}
}

func pipedCheckpoint(id uint64, resource string, data []byte) *writv1.PipelineCall {
	return &writv1.PipelineCall{Id: id, Call: &writv1.PipelineCall_Checkpoint{
		Checkpoint: &writv1.CheckpointRequest{Resource: resource, Token: uint64(token(7)), Data: data, Instance: "i", Sequence: id},
	}}
}

func abandoned(id uint64) *writv1.PipelineCall {
	return &writv1.PipelineCall{Id: id, Call: &writv1.PipelineCall_Abandon{Abandon: true}}
}

func TestPipelineAnswersEachCall(t *testing.T) {
	a, b := pair(t, func(c *Config) {
		c.Policy = allowPrefix("open/")
	})
	a.quorum.onRelease = func(cmd lease.Release) error {
		if cmd.Resource == "open/lost" {
			return lease.Errorf(lease.ReasonExpired, "it has expired")
		}
		return nil
	}
	var mu sync.Mutex
	var stored []lease.Checkpoint // guarded by mu
	a.quorum.onStore = func(cmd lease.Checkpoint) error {
		if cmd.Resource == "open/lost" {
			return lease.Errorf(lease.ReasonNotHolder, "another one holds it")
		}
		mu.Lock()
		defer mu.Unlock()
		stored = append(stored, cmd)
		return nil
	}
	calls := func(from uint64) ([]*writv1.PipelineCall, map[uint64]string) {
		bad := pipedAcquire(from+2, "open/a", 0)
		bad.GetAcquire().Ttl = nil
		return []*writv1.PipelineCall{
				pipedAcquire(from, "open/a", 0), pipedRelease(from+1, "open/a"), bad, pipedAcquire(from+3, "open//a", 0),
				pipedAcquire(from+4, "closed/a", 0), pipedRelease(from+5, "closed/a"), pipedRelease(from+6, "open/lost"),
				pipedAcquire(from+7, "open/b", time.Second),
				pipedCheckpoint(from+8, "open/a", []byte("state")), pipedCheckpoint(from+9, "closed/a", nil),
				pipedCheckpoint(from+10, "open/lost", nil), pipedCheckpoint(from+11, "open/a", make([]byte, lease.MaxCheckpointBytes+1)),
				pipedCheckpoint(from+12, "open//a", nil),
			}, map[uint64]string{
				from: "open/a to " + app, from + 1: "released", from + 2: "INVALID", from + 3: "INVALID",
				from + 4: "DENIED", from + 5: "DENIED", from + 6: "EXPIRED", from + 7: "open/b to " + app,
				from + 8: "stored", from + 9: "DENIED", from + 10: "NOT_HOLDER", from + 11: "INVALID", from + 12: "INVALID",
			}
	}
	for name, n := range map[string]*node{"at the node that decides": a, "at another node": b} {
		t.Run(name, func(t *testing.T) {
			p := n.dial(app).pipeline(t)
			for from := uint64(1); from < 60; from += 20 { // an error of one call leaves the stream as it is
				together, want := calls(from)
				p.send(together...)
				p.want(want)
			}
			if err := p.stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if err := p.ends(); !errors.Is(err, io.EOF) {
				t.Errorf("ended with %v", err)
			}
		})
	}
	mu.Lock()
	defer mu.Unlock()
	for i, from := range []uint64{1, 21, 41, 1, 21, 41} {
		want := lease.Checkpoint{
			Caller: lease.Caller{Principal: app, Instance: "i"}, Ref: lease.Ref{Resource: "open/a", Token: token(7)},
			Data: []byte("state"), Sequence: from + 8,
		}
		if len(stored) != 6 || !reflect.DeepEqual(stored[i], want) {
			t.Fatalf("%d checkpoints were stored, want 6, of which %d is %+v", len(stored), i, want)
		}
	}
	_, page := a.call(a.web(a.ca.source(app)), http.MethodGet, "/metrics", "")
	for _, line := range []string{
		`writ_server_pipelined_calls_total{grpc_code="OK",grpc_method="Acquire"} 6`,
		`writ_server_pipelined_calls_total{grpc_code="PermissionDenied",grpc_method="Release"} 3`,
		`writ_server_pipelined_call_seconds_count{grpc_method="Acquire"} 15`,
		`writ_server_pipelined_calls_total{grpc_code="OK",grpc_method="Checkpoint"} 3`,
	} {
		if !strings.Contains(page, line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

// What a client has asked before it closes its side is answered.
func TestPipelineAnswersWhatIsOpenAtItsEnd(t *testing.T) {
	a, _ := pair(t, nil)
	release := make(chan struct{})
	a.quorum.onAcquire = func(_ context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		<-release
		return grantOf(cmd), nil
	}
	p := a.dial(app).pipeline(t)
	p.send(pipedAcquire(1, "a", 0))
	if err := p.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	close(release)
	p.want(map[uint64]string{1: "a to " + app})
	if err := p.ends(); !errors.Is(err, io.EOF) {
		t.Errorf("ended with %v", err)
	}
}

func TestPipelineThatMakesNoSenseEnds(t *testing.T) {
	for name, c := range map[string]struct {
		calls []*writv1.PipelineCall
		want  lease.Reason
		field string
	}{
		"no id":          {[]*writv1.PipelineCall{pipedAcquire(0, "a", 0)}, lease.ReasonInvalid, "calls.id"},
		"an id twice":    {[]*writv1.PipelineCall{pipedAcquire(1, "a", time.Second), pipedAcquire(1, "a", 0)}, lease.ReasonInvalid, "calls.id"},
		"no call":        {[]*writv1.PipelineCall{{Id: 1}}, lease.ReasonInvalid, "calls.call"},
		"too many calls": {manyCalls(maxPipelined + 1), lease.ReasonLimit, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := pair(t, nil)
			a.quorum.onAcquire = func(ctx context.Context, _ lease.Acquire) (lease.AcquireOutcome, error) {
				<-ctx.Done() // it ends with the stream
				return lease.AcquireOutcome{}, lease.ErrNoQuorum
			}
			p := a.dial(app).pipeline(t)
			p.send(c.calls...)
			var e *lease.Error
			if err := lease.FromError(p.ends()); !errors.As(err, &e) || e.Reason != c.want || e.Field != c.field {
				t.Errorf("got %v, want %s of %q", err, c.want, c.field)
			}
		})
	}
}

// manyCalls have the ids from 10 on.
func manyCalls(n int) []*writv1.PipelineCall {
	calls := make([]*writv1.PipelineCall, n)
	for i := range calls {
		calls[i] = pipedAcquire(uint64(i+10), fmt.Sprintf("r/%d", i), time.Second)
	}
	return calls
}

func TestPipelinedCallIsAbandoned(t *testing.T) {
	a, b := pair(t, nil)
	began, ended := make(chan struct{}), make(chan struct{})
	a.quorum.onAcquire = func(ctx context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		if cmd.Wait == 0 {
			return grantOf(cmd), nil
		}
		if cmd.Resource == "c" { // which may be abandoned before it gets here
			<-ctx.Done()
			return lease.AcquireOutcome{}, lease.ErrNoQuorum
		}
		began <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return lease.AcquireOutcome{}, lease.ErrNoQuorum
	}
	for name, n := range map[string]*node{"at the node that decides": a, "at another node": b} {
		t.Run(name, func(t *testing.T) {
			p := n.dial(app).pipeline(t)
			p.send(pipedAcquire(1, "a", 5*time.Second))
			<-began
			p.send(abandoned(1), abandoned(9))
			<-ended
			p.send(pipedAcquire(1, "b", 0)) // the id is free again
			p.want(map[uint64]string{1: "b to " + app})
			// One that arrives with what it abandons.
			p.send(pipedAcquire(2, "c", 5*time.Second), abandoned(2), pipedAcquire(3, "d", 0))
			p.want(map[uint64]string{3: "d to " + app})
		})
	}
	// One that is left with the stream.
	c := a.dial(app)
	p := c.pipeline(t)
	p.send(pipedAcquire(1, "a", 5*time.Second))
	<-began
	if err := c.conn.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}

// A node that ceases to decide passes on what it has not decided.
func TestPipelineFollowsTheCoordinator(t *testing.T) {
	a, b := pair(t, nil)
	b.quorum.onAcquire = func(_ context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) { return grantOf(cmd), nil }
	a.quorum.onAcquire = func(context.Context, lease.Acquire) (lease.AcquireOutcome, error) {
		for _, n := range []*node{a, b} {
			n.quorum.setCoordinator(b.info)
		}
		return lease.AcquireOutcome{}, lease.Errorf(lease.ReasonNotCoordinator, "a has stopped deciding")
	}
	p := a.dial(app).pipeline(t)
	p.send(pipedAcquire(1, "a", 0))
	p.want(map[uint64]string{1: "a to " + app})
	p.send(pipedRelease(2, "a"))
	p.want(map[uint64]string{2: "released"})
}

// Who decides is told with the first answers, and again when it has changed.
func TestPipelineTellsWhoDecides(t *testing.T) {
	a, b := pair(t, nil)
	acquired(a.quorum)
	acquired(b.quorum)
	p := a.dial(app).pipeline(t)
	for i, step := range []struct {
		decides *node
		told    string
	}{{a, "a"}, {a, ""}, {b, "b"}, {b, ""}, {a, "a"}} {
		for _, n := range []*node{a, b} {
			n.quorum.setCoordinator(step.decides.info)
		}
		name := step.decides.info.Name
		eventually(t, "a knows who decides", func() bool { return a.server.tracker.current().node.Name == name })
		p.send(pipedAcquire(uint64(i+1), fmt.Sprintf("r/%d", i), 0))
		response, err := p.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if told := response.GetCoordinator(); told != step.told {
			t.Errorf("answer %d, while %s decides: told %q, want %q", i, name, told, step.told)
		}
	}
}

func TestPipelinedGrantIsSigned(t *testing.T) {
	a, _ := pair(t, nil)
	p := a.dial(app).pipeline(t)
	call := pipedAcquire(1, "a", 0)
	call.GetAcquire().WantWrit = true
	p.send(call)
	resp, err := p.stream.Recv()
	if err != nil || strings.Count(resp.GetAnswers()[0].GetAcquire().GetGrant().GetWrit(), ".") != 2 {
		t.Errorf("got %v, %v, want a signed grant", resp, err)
	}
}

func TestLimitsCountPipelinedCalls(t *testing.T) {
	t.Run("rate", func(t *testing.T) {
		a, _ := pair(t, func(c *Config) { c.Limits = Limits{RatePerSecond: 0.001, Burst: 2} })
		p := a.dial(app).pipeline(t)
		p.send(pipedRelease(1, "a"), pipedRelease(2, "a"), pipedRelease(3, "a"))
		p.want(map[uint64]string{1: "released", 2: "released", 3: "LIMIT"})
	})
	t.Run("concurrency", func(t *testing.T) {
		a, _ := pair(t, func(c *Config) { c.Limits.MaxConcurrent = 2 })
		a.quorum.onAcquire = func(ctx context.Context, _ lease.Acquire) (lease.AcquireOutcome, error) {
			<-ctx.Done()
			return lease.AcquireOutcome{}, lease.ErrNoQuorum
		}
		c := a.dial(app)
		p := c.pipeline(t)
		p.send(pipedAcquire(1, "a", time.Second), pipedAcquire(2, "b", time.Second), pipedRelease(3, "c"), abandoned(1), pipedRelease(4, "c"))
		p.want(map[uint64]string{3: "LIMIT", 4: "released"})
		// What the limits count ends with the stream, also while it takes calls in.
		p.send(manyCalls(maxPipelined / 2)...)
		if err := c.conn.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "nothing is counted any more", func() bool { return a.server.chain.limiter.running.Load() == 0 })
	})
}

func TestDrainingEndsPipelines(t *testing.T) {
	a, _ := pair(t, nil)
	began, release := make(chan struct{}, 2), make(chan struct{})
	a.quorum.onAcquire = func(ctx context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		began <- struct{}{}
		if cmd.Wait > 0 {
			<-ctx.Done()
			return lease.AcquireOutcome{}, lease.ErrNoQuorum
		}
		<-release
		return grantOf(cmd), nil
	}
	p := a.dial(app).pipeline(t)
	p.send(pipedAcquire(1, "waits", 5*time.Second), pipedAcquire(2, "works", 0))
	<-began
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- a.server.GracefulStop(testContext(t)) }()
	p.want(map[uint64]string{1: "UNKNOWN_OUTCOME"})
	p.send(pipedRelease(3, "late"))
	p.want(map[uint64]string{3: "NOT_COORDINATOR"})
	close(release)
	p.want(map[uint64]string{2: "works to " + app})
	if err := p.ends(); !errors.Is(err, io.EOF) {
		t.Errorf("ended with %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("GracefulStop: %v", err)
	}
}

func TestPanicCostsOnePipelinedCall(t *testing.T) {
	a, _ := pair(t, func(c *Config) { c.Policy = panicsAt("secret/check") })
	var asked atomic.Int32
	a.quorum.onAcquire = func(_ context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		switch {
		case cmd.Resource != "secret/alone":
			return grantOf(cmd), nil
		case asked.Add(1) == 1:
			return lease.AcquireOutcome{}, lease.Errorf(lease.ReasonNotCoordinator, "not for now")
		}
		panic("boom")
	}
	p := a.dial(app).pipeline(t)
	p.send(pipedAcquire(1, "secret/check", 0), pipedAcquire(2, "a", 0), pipedAcquire(3, "secret/alone", 0))
	p.want(map[uint64]string{1: "INTERNAL", 2: "a to " + app, 3: "INTERNAL"})
	if log := a.log.String(); strings.Count(log, "boom") != 2 {
		t.Errorf("the log lacks the panics: %s", log)
	}
}

type panicsAt string

func (p panicsAt) Allows(_ lease.Principal, _ policy.Verb, name string) bool {
	if name == string(p) {
		panic("boom")
	}
	return true
}

// allowPrefix lets everybody do everything under a prefix.
type allowPrefix string

func (p allowPrefix) Allows(_ lease.Principal, _ policy.Verb, name string) bool {
	return strings.HasPrefix(name, string(p))
}
