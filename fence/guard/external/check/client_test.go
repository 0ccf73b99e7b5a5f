package check_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/external/check"
	"github.com/writ-io/writ/fence/guard/external/externaltest"
)

func newClient(t *testing.T, s *service) *check.Client {
	t.Helper()
	c := check.NewClient(s.path)
	t.Cleanup(c.Close)
	return c
}

func write(t *testing.T, sequence uint64) fence.Write {
	return fence.Write{Resource: resource, Token: externaltest.Token(t, sequence)}
}

func awaitCut(t *testing.T, a fence.Admission) {
	t.Helper()
	select {
	case <-a.Cut():
	case <-time.After(time.Minute):
		t.Fatal("no cut")
	}
}

func TestClientIsAdmitted(t *testing.T) {
	s := start(t, nil)
	c := newClient(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	signed := fence.Write{Resource: resource, Writ: s.gate.Sign(t, resource, externaltest.Token(t, 5))}
	a, err := c.Admit(ctx, signed)
	if err != nil {
		t.Fatal(err)
	}
	cancel() // an admission outlives the context that it was asked under
	if a.Token() != externaltest.Token(t, 5) || s.gate.Open() != 1 {
		t.Errorf("token %v, %d under way", a.Token(), s.gate.Open())
	}
	select {
	case <-a.Cut():
		t.Error("cut without a reason")
	case <-time.After(100 * time.Millisecond): // a connection that ended with the context would have been noticed by now
	}
	a.Done(fence.Finished)
	b, err := c.Admit(t.Context(), signed)
	if err != nil {
		t.Fatal(err)
	}
	b.Done(fence.Broken)
	if ended := s.gate.Ended(); !slices.Equal(ended, []fence.Outcome{fence.Finished, fence.Broken}) {
		t.Errorf("the gate was told %v", ended)
	}
}

func TestClientIsCut(t *testing.T) {
	s := start(t, func(c *check.Config) { c.CutGrace = time.Minute })
	a, err := newClient(t, s).Admit(t.Context(), write(t, 5))
	if err != nil {
		t.Fatal(err)
	}
	s.gate.Raise(resource, externaltest.Token(t, 6))
	awaitCut(t, a)
	a.Done(fence.Broken)
	if ended := s.gate.AwaitEnded(t, 1); !slices.Equal(ended, []fence.Outcome{fence.Broken}) {
		t.Errorf("the gate was told %v", ended)
	}
}

// A guard that goes away cannot tell of newer tokens any more.
func TestClientIsCutWhenTheGuardGoes(t *testing.T) {
	s := start(t, nil)
	a, err := newClient(t, s).Admit(t.Context(), write(t, 5))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitCut(t, a)
	a.Done(fence.Finished) // too late, and harmless
	if ended := s.gate.Ended(); !slices.Equal(ended, []fence.Outcome{fence.Broken}) {
		t.Errorf("the gate was told %v", ended)
	}
}

func TestClientIsRefused(t *testing.T) {
	s := start(t, nil)
	c := newClient(t, s)
	s.gate.Raise(resource, externaltest.Token(t, 6))
	var stale *fence.StaleError
	if _, err := c.Admit(t.Context(), write(t, 5)); !errors.As(err, &stale) ||
		*stale != (fence.StaleError{Resource: resource, Have: externaltest.Token(t, 5), Floor: externaltest.Token(t, 6)}) {
		t.Errorf("stale: %v", err)
	}
	if _, err := c.Admit(t.Context(), fence.Write{Resource: "accounts", Token: externaltest.Token(t, 6)}); !errors.Is(err, fence.ErrUnguarded) {
		t.Errorf("unguarded: %v", err)
	}
	if _, err := c.Admit(t.Context(), fence.Write{Resource: resource}); !errors.Is(err, fence.ErrNoCredential) {
		t.Errorf("no credential: %v", err)
	}
	if _, err := c.Admit(t.Context(), fence.Write{Resource: ""}); !errors.Is(err, fence.ErrUnavailable) {
		t.Errorf("no resource: %v", err)
	}
	if _, err := c.Admit(t.Context(), fence.Write{Resource: resource, Writ: "x"}); !errors.Is(err, fence.ErrInvalidWrit) {
		t.Errorf("no writ: %v", err)
	}
	s.gate.Refuse(&fence.UnavailableError{Resource: resource, Obstacle: fence.Isolated})
	var unavailable *fence.UnavailableError
	if _, err := c.Admit(t.Context(), write(t, 6)); !errors.As(err, &unavailable) || unavailable.Obstacle != fence.Isolated {
		t.Errorf("isolated: %v", err)
	}
}

func TestClientWithoutAGuard(t *testing.T) {
	c := check.NewClient(filepath.Join(t.TempDir(), "none.sock"))
	var unavailable *fence.UnavailableError
	if _, err := c.Admit(t.Context(), write(t, 5)); !errors.As(err, &unavailable) || unavailable.Obstacle != check.Unreachable {
		t.Errorf("error %v", err)
	}
}

func TestClientStopsWaiting(t *testing.T) {
	s := start(t, nil)
	s.gate.Hold()
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	answered := make(chan error, 1)
	go func() {
		_, err := newClient(t, s).Admit(ctx, write(t, 5))
		answered <- err
	}()
	cancel(why)
	if err := <-answered; !errors.Is(err, why) {
		t.Errorf("error %v, want the cause", err)
	}
}

func BenchmarkClient(b *testing.B) {
	s := start(b, nil)
	c := check.NewClient(s.path)
	defer c.Close()
	w := fence.Write{Resource: resource, Token: externaltest.Token(b, 5)}
	for b.Loop() {
		a, err := c.Admit(b.Context(), w)
		if err != nil {
			b.Fatal(err)
		}
		a.Done(fence.Finished)
	}
}
