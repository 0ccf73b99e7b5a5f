package fence_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/external/externaltest"
)

const orders = "orders"

func ofOrders(r *http.Request) (string, bool) {
	return orders, strings.HasPrefix(r.URL.Path, "/orders/")
}

// serve runs a handler behind the middleware in a real server.
func serve(t *testing.T, gate *externaltest.Gate, o fence.MiddlewareOptions, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(fence.Middleware(gate, ofOrders, o)(handler))
	t.Cleanup(server.Close)
	return server
}

func send(t *testing.T, ctx context.Context, client *http.Client, method, url string, header http.Header) (reply, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	resp, err := client.Do(request)
	if err == nil {
		t.Cleanup(func() { resp.Body.Close() })
	}
	return reply{resp}, err
}

// reply is an answer, which the end of the test closes.
type reply struct{ *http.Response }

var presenting = &http.Client{Transport: fence.Transport(nil)}

func TestMiddlewareAdmitsWrites(t *testing.T) {
	gate := externaltest.New(t, orders)
	var admitted fence.Admitted
	var presented fence.Write
	server := serve(t, gate, fence.MiddlewareOptions{}, func(w http.ResponseWriter, r *http.Request) {
		admitted, _ = fence.AdmittedFromContext(r.Context())
		presented, _ = fence.FromContext(r.Context())
		if gate.Open() != 1 {
			t.Errorf("%d writes are under way, want this one", gate.Open())
		}
		w.WriteHeader(http.StatusCreated)
	})
	writ := gate.Sign(t, orders, externaltest.Token(t, 5))
	ctx := fence.NewContext(t.Context(), fence.Write{Resource: orders, Writ: writ})
	resp, err := send(t, ctx, presenting, http.MethodPut, server.URL+"/orders/1", nil)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("response %v, %v", resp, err)
	}
	if want := (fence.Admitted{Resource: orders, Token: externaltest.Token(t, 5)}); admitted != want {
		t.Errorf("the handler knows of %+v, want %+v", admitted, want)
	}
	if want := (fence.Write{Resource: orders, Writ: writ}); presented != want {
		t.Errorf("the handler can pass %+v on, want %+v", presented, want)
	}
	if ended := gate.AwaitEnded(t, 1); !slices.Equal(ended, []fence.Outcome{fence.Finished}) {
		t.Errorf("the gate was told %v", ended)
	}
}

func TestMiddlewareRefusesWithoutCallingTheHandler(t *testing.T) {
	gate := externaltest.New(t, orders)
	gate.Raise(orders, externaltest.Token(t, 5))
	server := serve(t, gate, fence.MiddlewareOptions{}, func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })
	stale := gate.Sign(t, orders, externaltest.Token(t, 4))
	for _, test := range []struct {
		name, method string
		header       http.Header
		status       int
	}{
		{"stale", "PUT", http.Header{"Writ": {stale}}, 412},
		{"none", "PUT", nil, 428},
		{"bare", "PUT", http.Header{"Writ-Token": {"1.9"}}, 400},
		{"twice", "PUT", http.Header{"Writ": {stale, stale}}, 400},
		{"override", "GET", http.Header{"X-Http-Method-Override": {"PUT"}}, 428},
		{"upgrade", "GET", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, 501},
	} {
		resp, err := send(t, t.Context(), http.DefaultClient, test.method, server.URL+"/orders/1", test.header)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != test.status || fence.ErrorFromResponse(resp.Response) == nil {
			t.Errorf("%s: status %d, want %d and a problem", test.name, resp.StatusCode, test.status)
		}
	}
}

func TestMiddlewarePassesWhatIsNotAWrite(t *testing.T) {
	gate := externaltest.New(t, orders)
	gate.Refuse(errors.New("not to be asked"))
	for _, o := range []fence.MiddlewareOptions{{}, {CheckReads: true}} {
		called := 0
		server := serve(t, gate, o, func(_ http.ResponseWriter, r *http.Request) {
			called++
			if _, ok := fence.AdmittedFromContext(r.Context()); ok {
				t.Error("what was not admitted counts as that")
			}
		})
		for _, target := range []string{"/orders/1", "/others/1"} {
			if _, err := send(t, t.Context(), http.DefaultClient, http.MethodGet, server.URL+target, nil); err != nil {
				t.Fatal(err)
			}
		}
		want := 2
		if o.CheckReads {
			want = 1
		}
		if called != want {
			t.Errorf("%+v: the handler was called %d times, want %d", o, called, want)
		}
	}
}

func TestMiddlewareTrusts(t *testing.T) {
	gate := externaltest.New(t, orders)
	trusted := func(r *http.Request) bool { return r.URL.Path == "/orders/trusted" }
	server := serve(t, gate, fence.MiddlewareOptions{Trusted: trusted}, func(http.ResponseWriter, *http.Request) {})
	for path, want := range map[string]int{"/orders/trusted": 200, "/orders/1": 400} {
		ctx := fence.NewContext(t.Context(), fence.Write{Resource: orders, Token: externaltest.Token(t, 5)})
		resp, err := send(t, ctx, presenting, http.MethodPut, server.URL+path, nil)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%s: %v, %v; want %d", path, resp, err, want)
		}
	}
}

// A write whose handler is cut is broken, even if it then returns in order.
func TestMiddlewareCuts(t *testing.T) {
	gate := externaltest.New(t, orders)
	inside := make(chan struct{})
	server := serve(t, gate, fence.MiddlewareOptions{}, func(w http.ResponseWriter, r *http.Request) {
		close(inside)
		<-r.Context().Done()
		if err := context.Cause(r.Context()); !errors.Is(err, fence.ErrCut) {
			t.Errorf("cause %v", err)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	go func() {
		<-inside
		gate.Raise(orders, externaltest.Token(t, 6))
	}()
	ctx := fence.NewContext(t.Context(), fence.Write{Resource: orders, Writ: gate.Sign(t, orders, externaltest.Token(t, 5))})
	resp, err := send(t, ctx, presenting, http.MethodPut, server.URL+"/orders/1", nil)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("response %v, %v: want that of the handler", resp, err)
	}
	if ended := gate.AwaitEnded(t, 1); !slices.Equal(ended, []fence.Outcome{fence.Broken}) {
		t.Errorf("the gate was told %v", ended)
	}
}

// A caller that goes away does not stop a storage that is half-way through a write.
func TestMiddlewareOutlivesTheCaller(t *testing.T) {
	gate := externaltest.New(t, orders)
	inside, checked := make(chan struct{}), make(chan error, 1)
	var outer context.Context // of the server, which notices that the caller has gone
	guarded := fence.Middleware(gate, ofOrders, fence.MiddlewareOptions{})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body) // only then does the server look whether the caller has gone
		close(inside)
		<-outer.Done()
		checked <- r.Context().Err()
	}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer = r.Context()
		guarded.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(fence.NewContext(t.Context(), fence.Write{Writ: gate.Sign(t, orders, externaltest.Token(t, 5))}))
	go func() {
		<-inside
		cancel()
	}()
	if _, err := send(t, ctx, presenting, http.MethodPut, server.URL+"/orders/1", nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("the caller has %v", err)
	}
	if err := <-checked; err != nil {
		t.Errorf("the handler was stopped: %v", err)
	}
	if ended := gate.AwaitEnded(t, 1); !slices.Equal(ended, []fence.Outcome{fence.Finished}) {
		t.Errorf("the gate was told %v", ended)
	}
}

func TestPanicBreaksTheWrite(t *testing.T) {
	gate := externaltest.New(t, orders)
	handler := fence.Middleware(gate, ofOrders, fence.MiddlewareOptions{})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oops") }))
	request := httptest.NewRequest(http.MethodPut, "/orders/1", nil)
	request.Header.Set("Writ", gate.Sign(t, orders, externaltest.Token(t, 5)))
	func() {
		defer func() {
			if r := recover(); r != "oops" {
				t.Errorf("the panic became %v", r)
			}
		}()
		handler.ServeHTTP(httptest.NewRecorder(), request)
	}()
	if ended := gate.Ended(); !slices.Equal(ended, []fence.Outcome{fence.Broken}) {
		t.Errorf("the gate was told %v", ended)
	}
}

func TestRun(t *testing.T) {
	gate := externaltest.New(t, orders)
	w := fence.Write{Resource: orders, Token: externaltest.Token(t, 5)}
	failure := errors.New("duplicate key")
	if err := fence.Run(t.Context(), gate, w, func(context.Context) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	cut := fence.Run(t.Context(), gate, w, func(context.Context) error {
		gate.Raise(orders, externaltest.Token(t, 6))
		return failure
	})
	if !errors.Is(cut, fence.ErrCut) || !errors.Is(cut, failure) {
		t.Errorf("a cut write: %v", cut)
	}
	if err := fence.Run(t.Context(), gate, w, func(context.Context) error { panic("called") }); !errors.Is(err, fence.ErrStale) {
		t.Errorf("a stale write: %v", err)
	}
	w.Token = externaltest.Token(t, 6)
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = fence.Run(t.Context(), gate, w, func(context.Context) error { runtime.Goexit(); return nil })
	}()
	<-exited
	if want := []fence.Outcome{fence.Finished, fence.Broken, fence.Broken}; !slices.Equal(gate.Ended(), want) {
		t.Errorf("the gate was told %v, want %v", gate.Ended(), want)
	}
}

func TestTransport(t *testing.T) {
	var got http.Header
	client := &http.Client{Transport: fence.Transport(roundTrip(func(r *http.Request) (*http.Response, error) {
		got = r.Header
		ok := response(200, "", "")
		return &ok, nil
	}))}
	for _, test := range []struct {
		name   string
		write  *fence.Write
		header http.Header
		want   http.Header
	}{
		{"nothing", nil, nil, http.Header{}},
		{"writ", &fence.Write{Resource: orders, Writ: "a.b.c"}, http.Header{"Accept": {"x"}}, http.Header{"Writ": {"a.b.c"}, "Accept": {"x"}}},
		{"token", &fence.Write{Token: 4<<48 | 7}, nil, http.Header{"Writ-Token": {"1125899906842631"}}},
		{"empty", &fence.Write{Resource: orders}, nil, http.Header{}},
		{"its own", &fence.Write{Writ: "a.b.c"}, http.Header{"Writ-Token": {"1.1"}}, http.Header{"Writ-Token": {"1.1"}}},
	} {
		ctx := t.Context()
		if test.write != nil {
			ctx = fence.NewContext(ctx, *test.write)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://store/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header = test.header
		before := request.Header.Clone()
		resp, err := client.Transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		for _, name := range []string{"Writ", "Writ-Token", "Accept"} {
			if !slices.Equal(got[name], test.want[name]) {
				t.Errorf("%s: %s is %q, want %q", test.name, name, got[name], test.want[name])
			}
			if !slices.Equal(request.Header[name], before[name]) {
				t.Errorf("%s: the request itself was changed", test.name)
			}
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
