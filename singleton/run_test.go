package singleton_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/lease/clock/bubble"
	"github.com/writ-io/writ/lease/leasetest"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/singletontest"
)

// world is a quorum of one test double and processes of it, in one bubble of invented time.
type world struct {
	*testing.T
	quorum  *leasetest.Quorum
	network *leasetest.Network
	node    *leasetest.Node
	clock   clock.Clock
}

func inBubble(t *testing.T, test func(*world)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		w := &world{T: t, network: leasetest.NewNetwork(), clock: clock.Monotonic()}
		w.quorum = leasetest.NewQuorum(w.clock)
		w.node = leasetest.NewNode(w.quorum, "node:7411", "eu")
		w.network.Start(w.node)
		t.Cleanup(w.node.Stop)
		test(w)
	})
}

// process is a singleton of a client of its own.
func (w *world) process(region string, cfg singleton.Config) *singleton.Singleton {
	w.Helper()
	client, err := lease.Dial(w.Context(), lease.Config{
		Endpoints: []string{"node:7411"}, Insecure: true, Clock: w.clock, Region: region,
		DialOptions: []grpc.DialOption{w.network.Option()},
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = client.Close() })
	s, err := singleton.New(client, cfg)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// untilEnd is a function that works until its context ends.
func untilEnd(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestRunReturnsWhatTheFunctionReturns(t *testing.T) {
	failure := errors.New("failure")
	inBubble(t, func(w *world) {
		s := w.process("", singleton.Config{})
		for _, want := range []error{nil, failure} {
			var token fence.Token
			err := s.Run(w.Context(), "r", func(ctx context.Context) error {
				term, ok := singleton.FromContext(ctx)
				presented, _ := fence.FromContext(ctx)
				if !ok || term.Resource != "r" || presented != term.Write() {
					t.Errorf("the term is %+v, and %+v is presented", term, presented)
				}
				token = term.Token
				return want
			})
			if info := w.quorum.Info("r"); !errors.Is(err, want) || info.State != lease.Free || info.End != lease.EndReleased || info.Token != token {
				t.Errorf("returned %v, want %v; the lease is %+v", err, want, info)
			}
		}
	})
}

func TestTheEndOfTheCallersContext(t *testing.T) {
	inBubble(t, func(w *world) {
		s := w.process("", singleton.Config{})
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(w.Context())
		var events []string
		err := s.Run(ctx, "r", func(ctx context.Context) error {
			cancel(enough)
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), enough) {
				t.Errorf("the cause is %v", context.Cause(ctx))
			}
			w.pass(25 * time.Second) // two TTLs, less than the grace
			if info := w.quorum.Info("r"); info.State != lease.Held {
				t.Errorf("released while the function runs: %+v", info)
			}
			events = append(events, "returns")
			return nil
		}, singleton.WithHooks(singleton.Hooks{Stopped: func(_ singleton.Term, cause error) {
			if !errors.Is(cause, enough) {
				t.Errorf("the hook is told %v", cause)
			}
			events = append(events, "stopped")
		}}))
		if info := w.quorum.Info("r"); err != nil || info.End != lease.EndReleased || !slices.Equal(events, []string{"returns", "stopped"}) {
			t.Errorf("%v after %v; the lease is %+v", err, events, info)
		}
		if err := s.Run(ctx, "r", untilEnd); !errors.Is(err, enough) {
			t.Errorf("with a context that has ended: %v", err)
		}
		if w.node.Calls("Acquire") != 1 {
			t.Error("a context that has ended asks for the lease")
		}
	})
}

func TestALoggerForOneCall(t *testing.T) {
	inBubble(t, func(w *world) {
		var one, all strings.Builder
		s := w.process("", singleton.Config{Logger: slog.New(slog.NewTextHandler(&all, nil))})
		err := s.Try(w.Context(), "r", func(context.Context) error { return nil }, singleton.WithLogger(slog.New(slog.NewTextHandler(&one, nil))))
		if err != nil || !strings.Contains(one.String(), "term began") || all.Len() > 0 {
			t.Errorf("%v; it hears %q, and that of the configuration %q", err, one.String(), all.String())
		}
		if err := s.Try(w.Context(), "r", func(context.Context) error { return nil }, singleton.WithLogger(nil)); err != nil || all.Len() > 0 {
			t.Errorf("%v; with none, that of the configuration hears %q", err, all.String())
		}
	})
}

func TestALostLeaseIsAskedForAgain(t *testing.T) {
	inBubble(t, func(w *world) {
		s := w.process("", singleton.Config{})
		ctx, cancel := context.WithCancel(w.Context())
		var causes []error
		done := make(chan error, 1)
		go func() {
			done <- s.Run(ctx, "r", func(ctx context.Context) error {
				<-ctx.Done()
				causes = append(causes, context.Cause(ctx))
				return nil
			})
		}()
		w.pass(time.Second)
		w.quorum.End("r", lease.EndForced)
		w.pass(20 * time.Second)
		if info := w.quorum.Info("r"); info.State != lease.Held || len(causes) != 1 {
			t.Errorf("%+v, after %v", info, causes)
		}
		cancel()
		var lost *lease.LostError
		if err := <-done; err != nil || len(causes) != 2 || !errors.Is(causes[0], singleton.ErrLost) || !errors.As(causes[0], &lost) {
			t.Errorf("%v after %v", err, causes)
		}
	})
}

func TestPanicAndGoexit(t *testing.T) {
	inBubble(t, func(w *world) {
		s := w.process("", singleton.Config{})
		if err := s.Run(w.Context(), "r", func(context.Context) error { runtime.Goexit(); return nil }); !errors.Is(err, singleton.ErrGoexit) {
			t.Errorf("Goexit: %v", err)
		}
		defer func() {
			p, ok := recover().(*singleton.PanicError)
			if !ok || p.Value != "bad" || !strings.Contains(string(p.Stack), "TestPanicAndGoexit") {
				t.Errorf("panicked with %+v", p)
			}
			if info := w.quorum.Info("r"); info.End != lease.EndReleased {
				t.Errorf("%+v", info)
			}
		}()
		_ = s.Run(w.Context(), "r", func(context.Context) error { panic("bad") })
	})
}

// The function may have returned before the loss has been heard of: it is run again all the same.
func TestAFunctionThatReturnsAtOnceWhenItsLeaseIsLost(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		s := q.Process("a", "").Singleton(singleton.Config{})
		terms := 0
		err := s.Run(t.Context(), "r", func(ctx context.Context) error {
			if terms++; terms > 60 {
				return nil
			}
			q.Expire("r")
			<-ctx.Done()
			return nil
		})
		if err != nil || terms != 61 {
			t.Errorf("%v after %d terms", err, terms)
		}
	})
}

func TestASignedWritIsPresented(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		s := q.Process("a", "").Singleton(singleton.Config{})
		err := s.Run(t.Context(), "r", func(ctx context.Context) error {
			presented, _ := fence.FromContext(ctx)
			writ, err := q.Keys().Verify(presented.Writ)
			if term, _ := singleton.FromContext(ctx); writ.Token != term.Token || !presented.Token.IsZero() {
				t.Errorf("%+v presents %+v", term, presented)
			}
			return err
		}, singleton.WantWrit())
		if err != nil {
			t.Error(err)
		}
	})
}
