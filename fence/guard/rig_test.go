package guard_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/lease/clock/bubble"
)

const slack = 15 * time.Second

// rig is a guard with a real store and real streams, in simulated time.
type rig struct {
	*testing.T
	quorum  *quorum
	network *network
	config  guard.Config
	clock   *jumpy
	log     *lockedBuffer
	guard   *guard.Guard
}

// jumpy is a clock whose time of day can be set.
type jumpy struct {
	clock.Clock
	jump atomic.Int64
}

func (j *jumpy) Wall() time.Time { return j.Clock.Wall().Add(time.Duration(j.jump.Load())) }

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// simulate runs a test in a bubble, with a quorum of two nodes and a guard that is started with start.
func simulate(t *testing.T, test func(*rig)) {
	t.Helper()
	dir := t.TempDir()
	bubble.Test(t, func(t *testing.T) {
		r := &rig{T: t, quorum: newQuorum(), network: &network{nodes: make(map[string]*node)}, log: &lockedBuffer{}}
		r.clock = &jumpy{Clock: clock.Monotonic()}
		r.config = guard.Config{
			Name: "g1", Region: "eu", Form: "test", Covers: []string{"orders", "billing/*", "open/*"},
			Store: filepath.Join(dir, "floors"), Endpoints: []string{"a:1", "b:1"}, Insecure: true,
			Slack: slack, Clock: r.clock, MaxParkTime: time.Minute,
			Logger:      hclog.New(&hclog.LoggerOptions{Output: r.log, Level: hclog.Debug}),
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(r.network.dial)},
		}
		defer func() {
			if t.Failed() {
				t.Log(r.log.String())
			}
		}()
		defer r.network.stopAll()
		defer func() {
			if r.guard != nil {
				r.kill()
			}
		}()
		test(r)
	})
}

func (r *rig) startNodes() {
	r.network.start("a:1", r.quorum)
	r.network.start("b:1", r.quorum)
}

func (r *rig) start() {
	r.Helper()
	var err error
	if r.guard, err = guard.New(r.config); err != nil {
		r.Fatal(err)
	}
	synctest.Wait()
}

// ready starts nodes and guard, and lets the time pass that a process before it counts for.
func (r *rig) ready() {
	r.Helper()
	r.startNodes()
	r.start()
	r.pass(slack + time.Second)
}

// kill ends the guard as a crash would, as far as the next one can tell.
func (r *rig) kill() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = r.guard.Close(ctx)
	r.guard = nil
}

func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) close() {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.guard.Close(ctx); err != nil {
		r.Fatal(err)
	}
	r.guard = nil
}

func (r *rig) admit(resource string, token fence.Token) fence.Admission {
	r.Helper()
	a, err := r.guard.Admit(r.Context(), fence.Write{Resource: resource, Token: token})
	if err != nil {
		r.Fatalf("%s under %s: %v", resource, token, err)
	}
	return a
}

// refuse expects an error, or an obstacle.
func (r *rig) refuse(w fence.Write, want error, obstacle ...fence.Obstacle) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Minute)
	defer cancel()
	a, err := r.guard.Admit(ctx, w)
	if err == nil {
		a.Done(fence.Finished)
		r.Fatalf("%+v was admitted", w)
	}
	if a != nil {
		r.Fatalf("%+v: an admission beside the error %v", w, err)
	}
	if !errors.Is(err, want) {
		r.Fatalf("%+v: %v, want %v", w, err, want)
	}
	if len(obstacle) > 0 {
		r.obstacle(err, obstacle[0])
	}
}

func (r *rig) obstacle(err error, want fence.Obstacle) {
	r.Helper()
	var unavailable *fence.UnavailableError
	if !errors.As(err, &unavailable) || unavailable.Obstacle != want {
		r.Fatalf("%v, want %s", err, want)
	}
}

// pending is an Admit under way.
type pending struct {
	admission fence.Admission
	err       error
	done      atomic.Bool
}

func (r *rig) ask(ctx context.Context, resource string, token fence.Token) *pending {
	p := &pending{}
	g := r.guard
	go func() {
		p.admission, p.err = g.Admit(ctx, fence.Write{Resource: resource, Token: token})
		p.done.Store(true)
	}()
	synctest.Wait()
	return p
}

func (r *rig) wantAck(resource string, token fence.Token, proof writv1.GuardProof) {
	r.Helper()
	synctest.Wait()
	if got, how := r.quorum.acked(resource); got != token || how != proof {
		r.Fatalf("acknowledged %s %s %v, want %s %v", resource, got, how, token, proof)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
