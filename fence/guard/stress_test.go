package guard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
)

// ledger knows what goes to the storage, and what must not any more.
type ledger struct {
	*testing.T
	mu      sync.Mutex
	highest map[string]fence.Token
	under   map[string]map[fence.Token]int
}

func (l *ledger) begin(resource string, token fence.Token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if token < l.highest[resource] {
		l.Errorf("%s admitted for %s after %s", token, resource, l.highest[resource])
	}
	l.highest[resource] = token
	l.older(resource, token, "admitted")
	if l.under[resource] == nil {
		l.under[resource] = make(map[fence.Token]int)
	}
	l.under[resource][token]++
}

func (l *ledger) older(resource string, token fence.Token, what string) {
	for o, n := range l.under[resource] {
		if o < token && n > 0 {
			l.Errorf("%s %s for %s beside %d writes under %s", token, what, resource, n, o)
		}
	}
}

func (l *ledger) end(resource string, token fence.Token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.under[resource][token]--
}

func (l *ledger) acked(ack *writv1.GuardAck) {
	l.mu.Lock()
	defer l.mu.Unlock()
	token := fence.Token(ack.GetToken())
	l.older(ack.GetResource(), token, "acknowledged")
	l.highest[ack.GetResource()] = max(l.highest[ack.GetResource()], token)
}

// Writers, raises, nodes that drop the guard and a guard that restarts, in real time with a real disk: nothing stale ever goes
// beside or after something newer.
func TestNothingStaleUnderLoad(t *testing.T) {
	q := newQuorum()
	book := &ledger{T: t, highest: make(map[string]fence.Token), under: make(map[string]map[fence.Token]int)}
	q.onAck = book.acked
	n := &network{nodes: make(map[string]*node)}
	defer n.stopAll()
	n.start("a:1", q)
	config := guard.Config{
		Name: "g", Covers: []string{"*"}, Store: filepath.Join(t.TempDir(), "floors"), Endpoints: []string{"a:1"}, Insecure: true,
		Slack: 5 * time.Millisecond, MaxParkTime: 200 * time.Millisecond,
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(n.dial)},
	}
	rounds, each := 3, 400
	if testing.Short() {
		rounds, each = 2, 150
	}
	var newest atomic.Uint64
	newest.Store(10)
	var admitted, stale atomic.Int64
	for range rounds {
		g, err := guard.New(config)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return g.Status().Seeded })
		var writers sync.WaitGroup
		for w := range 6 {
			random := rand.New(rand.NewPCG(7, uint64(w)))
			writers.Go(func() {
				for range each {
					resource, token := fmt.Sprint("r", random.IntN(3)), newest.Load()-uint64(random.IntN(3))
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(40))*time.Millisecond)
					a, err := g.Admit(ctx, fence.Write{Resource: resource, Token: tok(token)})
					cancel()
					switch {
					case errors.Is(err, fence.ErrStale):
						stale.Add(1)
					case err == nil:
						admitted.Add(1)
						book.begin(resource, a.Token())
						outcome := fence.Outcome(1 + random.IntN(20)/19)
						time.Sleep(time.Duration(random.IntN(300)) * time.Microsecond) // the storage takes that long
						book.end(resource, a.Token())
						a.Done(outcome)
					}
				}
			})
		}
		busy := make(chan struct{})
		go func() {
			writers.Wait()
			close(busy)
		}()
		for alive := true; alive; {
			select {
			case <-busy:
				alive = false
			case <-time.After(3 * time.Millisecond):
				q.raise(fmt.Sprint("r", rand.IntN(3)), tok(newest.Add(1)))
				if rand.IntN(40) == 0 {
					q.drop()
				}
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := g.Close(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	t.Logf("%d admitted, %d stale, %d acknowledged", admitted.Load(), stale.Load(), len(q.acks))
	if admitted.Load() < 100 || stale.Load() < 10 || len(q.acks) < 5 {
		t.Error("too little happened")
	}
}

// live is a guard in real time that is ready.
func live(b *testing.B, q *quorum) *guard.Guard {
	b.Helper()
	n := &network{nodes: make(map[string]*node)}
	n.start("a:1", q)
	g, err := guard.New(guard.Config{
		Name: "g", Covers: []string{"*"}, Store: filepath.Join(b.TempDir(), "floors"), Endpoints: []string{"a:1"}, Insecure: true,
		Slack: time.Millisecond, DialOptions: []grpc.DialOption{grpc.WithContextDialer(n.dial)},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := g.Close(ctx); err != nil {
			b.Error(err)
		}
		n.stopAll()
	})
	eventually(b, func() bool { return g.Status().Seeded && (q.jwks == "" || g.Status().Keys > 0) })
	return g
}

func benchmarkAdmit(b *testing.B, g *guard.Guard, w fence.Write, parallel bool) {
	one := func() {
		a, err := g.Admit(b.Context(), w)
		if err != nil {
			b.Error(err)
			return
		}
		a.Done(fence.Finished)
	}
	one()
	b.ReportAllocs()
	defer func(before time.Duration) { // what it costs also where others use the machine
		b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
	}(processorTime(b))
	if !parallel {
		for b.Loop() {
			one()
		}
		return
	}
	b.SetParallelism(1)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			one()
		}
	})
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A writ that was verified before, admitted and done.
func BenchmarkWritSeenBefore(b *testing.B) {
	s := newSigner(b)
	q := newQuorum()
	q.publish(s.Public())
	g := live(b, q)
	benchmarkAdmit(b, g, fence.Write{Resource: "orders", Writ: sign(b, s, "orders", tok(5))}, false)
}

func BenchmarkWritSeenBeforeParallel(b *testing.B) {
	s := newSigner(b)
	q := newQuorum()
	q.publish(s.Public())
	g := live(b, q)
	benchmarkAdmit(b, g, fence.Write{Resource: "orders", Writ: sign(b, s, "orders", tok(5))}, true)
}

func BenchmarkToken(b *testing.B) {
	benchmarkAdmit(b, live(b, newQuorum()), fence.Write{Resource: "orders", Token: tok(5)}, false)
}

func BenchmarkTokenParallel(b *testing.B) {
	benchmarkAdmit(b, live(b, newQuorum()), fence.Write{Resource: "orders", Token: tok(5)}, true)
}

// From telling a raise until its acknowledgement has come.
func BenchmarkRaise(b *testing.B) {
	q := newQuorum()
	came := make(chan struct{}, 1)
	q.onAck = func(*writv1.GuardAck) { came <- struct{}{} }
	live(b, q)
	sequence := uint64(100)
	for b.Loop() {
		sequence++
		q.raise("orders", tok(sequence))
		<-came
	}
}
