package s3fence_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/s3fence"
)

var errNoAnswer = errors.New("connection reset")

// appendOnce appends through store under token.
func appendOnce(t *testing.T, store s3fence.Store, token fence.Token, entry string) error {
	t.Helper()
	_, err := objectsOn(t, store).Update(t.Context(), "list", token, func(i s3fence.Item) ([]byte, error) {
		return append(slices.Clone(i.Body), entry...), nil
	})
	return err
}

// A write whose answer is lost counts once: never twice, and never as refused when it has happened.
func TestLostAnswers(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		if _, err := objectsOn(t, store).Put(t.Context(), "list", tok(1), nil); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name  string
			first func(ctx context.Context, key string, in s3fence.Input) error
		}{
			{"happened", func(ctx context.Context, key string, in s3fence.Input) error {
				_, err := store.Put(ctx, key, in)
				return err
			}},
			{"did not happen", func(context.Context, string, s3fence.Input) error { return nil }},
		} {
			sent := 0
			lossy := &intercepted{Store: store}
			lossy.put = func(ctx context.Context, key string, in s3fence.Input) (string, error) {
				if sent++; sent > 1 {
					return store.Put(ctx, key, in)
				}
				if err := c.first(ctx, key, in); err != nil {
					t.Error(err)
				}
				return "", errNoAnswer
			}
			if err := appendOnce(t, lossy, tok(1), c.name+";"); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		wantBody(t, objectsOn(t, store), "list", "happened;did not happen;", tok(1))
	})
}

// The first of two is late: it arrives after the second, which was sent because the first was not answered.
func TestLateWriteCountsOnce(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		var late s3fence.Input
		lossy := &intercepted{Store: store}
		lossy.put = func(ctx context.Context, key string, in s3fence.Input) (string, error) {
			if late.Body == nil {
				late = in
				return "", errNoAnswer
			}
			return store.Put(ctx, key, in)
		}
		if err := appendOnce(t, lossy, tok(1), "a;"); err != nil {
			t.Fatal(err)
		}
		arrive := func() {
			if _, err := late.Body.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Put(t.Context(), "app/list", late); !errors.Is(err, s3fence.ErrPrecondition) {
				t.Fatalf("the late one: %v", err)
			}
		}
		arrive()
		if err := appendOnce(t, store, tok(1), "b;"); err != nil {
			t.Fatal(err)
		}
		arrive()
		wantBody(t, objectsOn(t, store), "list", "a;b;", tok(1))
	})
}

// If another has written since, nobody can tell whether the write happened before: that is said, not guessed.
func TestUnknownOutcome(t *testing.T) {
	onEach(t, func(t *testing.T, store s3fence.Store) {
		for _, next := range []fence.Token{tok(1), tok(2)} {
			lossy := &intercepted{Store: store}
			lossy.put = func(ctx context.Context, key string, in s3fence.Input) (string, error) {
				if _, err := store.Put(ctx, key, in); err != nil {
					t.Error(err)
				}
				if err := appendOnce(t, store, next, "other;"); err != nil {
					t.Error(err)
				}
				return "", errNoAnswer
			}
			err := appendOnce(t, lossy, tok(1), "mine;")
			var unknown *s3fence.UnknownError
			if !errors.As(err, &unknown) || !errors.Is(err, s3fence.ErrUnknown) || !errors.Is(err, errNoAnswer) {
				t.Fatalf("got %v", err)
			}
			if newer := next > tok(1); errors.Is(err, fence.ErrStale) != newer {
				t.Fatalf("after a write under %s: %v", next, err)
			}
		}
		wantBody(t, objectsOn(t, store), "list", "mine;other;mine;other;", tok(2))
	})
}

func TestCancelledWriteIsUnknown(t *testing.T) {
	store := newMemory()
	ctx, cancel := context.WithCancel(t.Context())
	lossy := &intercepted{Store: store, put: func(ctx context.Context, _ string, _ s3fence.Input) (string, error) {
		cancel()
		return "", ctx.Err()
	}}
	_, err := objectsOn(t, lossy).Put(ctx, "k", tok(1), nil)
	if !errors.Is(err, s3fence.ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestRefusedIsNotUnknown(t *testing.T) {
	g := startGateway(t)
	store := storeOf(t, g.client, "no-such-bucket")
	_, err := store.Put(t.Context(), "k", s3fence.Input{Body: strings.NewReader(""), If: s3fence.Condition{Absent: true}})
	if !errors.Is(err, s3fence.ErrRefused) || errors.Is(err, s3fence.ErrPrecondition) {
		t.Fatal(err)
	}
	// Without rights, and a status that is certain.
	stranger := storeOf(t, newClientWith(g.client.Options().HTTPClient, "http://s3.test", "wrong"), g.bucket(t))
	_, err = stranger.Put(t.Context(), "k", s3fence.Input{Body: strings.NewReader(""), If: s3fence.Condition{Absent: true}})
	if !errors.Is(err, s3fence.ErrRefused) || codeOf(err) != "SignatureDoesNotMatch" {
		t.Fatal(err)
	}
	for _, condition := range []s3fence.Condition{{}, {Match: `"x"`, Absent: true}} {
		if _, err := store.Put(t.Context(), "k", s3fence.Input{If: condition}); !errors.Is(err, s3fence.ErrRefused) || !errors.Is(err, s3fence.ErrInvalid) {
			t.Fatal(err)
		}
	}
}

// The SDK would send a write again by itself, be refused because of its first, and call that a conflict.
func TestAdapterSendsAWriteOnce(t *testing.T) {
	g := startGateway(t)
	bucket := g.bucket(t)
	var puts atomic.Int64
	// A proxy that loses the first answer to a write, after the gateway has carried it out.
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := r.Clone(r.Context())
		out.RequestURI, out.URL.Scheme, out.URL.Host = "", "http", "gateway"
		response, err := g.client.Options().HTTPClient.Do(out)
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		if r.Method == http.MethodPut && puts.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		for name, values := range response.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
	}))
	defer front.Close()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", front.Listener.Addr().String())
	}}
	defer transport.CloseIdleConnections()
	store := storeOf(t, newClient(&http.Client{Transport: transport}, front.URL), bucket)
	if err := appendOnce(t, store, tok(1), "once;"); err != nil {
		t.Fatal(err)
	}
	if n := puts.Load(); n != 1 {
		t.Fatalf("%d requests to write, want 1", n)
	}
	wantBody(t, objectsOn(t, store), "list", "once;", tok(1))
}
