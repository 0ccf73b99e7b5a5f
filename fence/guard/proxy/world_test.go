package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/proxy"
	"github.com/writ-io/writ/fence/guard/route"
)

// patience bounds what a test waits for; nothing that goes well takes that long.
const patience = 30 * time.Second

// gatekeeper is an admitter that compares tokens with floors, as a guard does, and keeps nothing.
type gatekeeper struct {
	keys *fence.KeySet // verifies writs; nil: none is acceptable

	mu     sync.Mutex
	floors map[string]fence.Token // guarded by mu
	seen   []fence.Write          // guarded by mu
	wait   chan struct{}          // guarded by mu; if set, admissions wait for it
	fail   error                  // guarded by mu; if set, nothing is admitted

	admitted chan *admission
	outcomes chan fence.Outcome
}

func newGatekeeper() *gatekeeper {
	return &gatekeeper{
		floors:   make(map[string]fence.Token),
		admitted: make(chan *admission, 1000),
		outcomes: make(chan fence.Outcome, 1000),
	}
}

func (g *gatekeeper) Admit(ctx context.Context, w fence.Write) (fence.Admission, error) {
	g.mu.Lock()
	g.seen = append(g.seen, w)
	wait, fail := g.wait, g.fail
	g.mu.Unlock()
	if fail != nil {
		return nil, fail
	}
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	token := w.Token
	if w.Writ != "" {
		if g.keys == nil {
			return nil, fence.ErrUnknownKey
		}
		verified, err := g.keys.Verify(w.Writ)
		if err != nil {
			return nil, err
		}
		if err := verified.Require(fence.Expected{Issuer: "issuer", Resource: w.Resource}); err != nil {
			return nil, err
		}
		token = verified.Token
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if floor := g.floors[w.Resource]; token < floor {
		return nil, &fence.StaleError{Resource: w.Resource, Have: token, Floor: floor}
	}
	g.floors[w.Resource] = token
	a := &admission{keeper: g, token: token, cut: make(chan struct{})}
	g.admitted <- a
	return a, nil
}

func (g *gatekeeper) raise(resource string, floor fence.Token) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.floors[resource] = floor
}

func (g *gatekeeper) hold(wait chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wait = wait
}

// asked returns what was asked to be admitted.
func (g *gatekeeper) asked() []fence.Write {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen
}

type admission struct {
	keeper *gatekeeper
	token  fence.Token
	cut    chan struct{}
	once   bool
	mu     sync.Mutex
}

func (a *admission) Token() fence.Token   { return a.token }
func (a *admission) Cut() <-chan struct{} { return a.cut }
func (a *admission) Done(o fence.Outcome) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.once {
		panic("Done called twice")
	}
	a.once = true
	a.keeper.outcomes <- o
}

// world is a proxy between a gatekeeper and an upstream.
type world struct {
	t      *testing.T
	keeper *gatekeeper
	proxy  *proxy.Proxy
	server *httptest.Server
	log    *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

const token5 fence.Token = 1<<48 | 5

// newWorld serves a proxy whose every path is for resource r on trusted routes, unless change says otherwise.
func newWorld(t *testing.T, upstream string, change ...func(*proxy.Config)) *world {
	t.Helper()
	return newWorldWith(t, newGatekeeper(), nil, upstream, change...)
}

func newWorldWith(t *testing.T, keeper *gatekeeper, stamper proxy.Stamper, upstream string, change ...func(*proxy.Config)) *world {
	t.Helper()
	w := &world{t: t, keeper: keeper, log: &syncBuffer{}}
	cfg := proxy.Config{
		Routes:    []route.Route{{Name: "all", Resource: "r", Trusted: true, Upstream: "up"}},
		Upstreams: []proxy.Upstream{{Name: "up", URL: upstream}},
		ErrorLog:  log.New(w.log, "", 0),
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if w.proxy, err = proxy.New(cfg, w.keeper, stamper); err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewUnstartedServer(nil)
	w.server.Config = w.proxy.Server("main")
	w.server.Start()
	t.Cleanup(func() {
		w.server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := w.proxy.Close(ctx); err != nil {
			t.Error(err)
		}
		// Every admission has been answered for.
		if len(w.keeper.admitted) != 0 || len(w.keeper.outcomes) != 0 {
			t.Errorf("%d admissions and %d outcomes that the test did not expect", len(w.keeper.admitted), len(w.keeper.outcomes))
		}
	})
	return w
}

// ends expects one admission to end like that.
func (w *world) ends(want fence.Outcome) {
	w.t.Helper()
	w.begun()
	w.settles(want)
}

// begun waits for an admission.
func (w *world) begun() *admission {
	w.t.Helper()
	select {
	case a := <-w.keeper.admitted:
		return a
	case <-time.After(patience):
		w.t.Fatal("nothing was admitted")
		return nil
	}
}

func (w *world) settles(want fence.Outcome) {
	w.t.Helper()
	select {
	case got := <-w.keeper.outcomes:
		if got != want {
			w.t.Errorf("outcome %v, want %v", name(got), name(want))
		}
	case <-time.After(patience):
		w.t.Fatalf("no outcome, want %v", name(want))
	}
}

func (w *world) underWay() {
	w.t.Helper()
	select {
	case got := <-w.keeper.outcomes:
		w.t.Fatalf("outcome %v while it is under way", name(got))
	default:
	}
}

func name(o fence.Outcome) string {
	return map[fence.Outcome]string{fence.Finished: "finished", fence.Broken: "broken"}[o]
}

// dial opens a raw connection to the proxy.
func (w *world) dial() *client {
	w.t.Helper()
	return dial(w.t, w.server.Listener.Addr().String())
}

// client speaks HTTP by hand.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, address string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &client{t, nc, bufio.NewReader(nc)}
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\r\n")
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// reply is a response whose body comes from the client's connection, which the client closes.
type reply struct {
	StatusCode int
	Header     http.Header
	Trailer    func() http.Header // after the body
	Close      bool
	Body       io.Reader
}

// next reads one response up to its body.
func (c *client) next(method string) (reply, error) {
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method}) //nolint:bodyclose // closing would wait for the rest of the body
	if err != nil {
		return reply{}, err
	}
	return reply{resp.StatusCode, resp.Header, func() http.Header { return resp.Trailer }, resp.Close, resp.Body}, nil
}

// head is next for a response that has to come.
func (c *client) head(method string) reply {
	c.t.Helper()
	resp, err := c.next(method)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

// answer reads one response.
func (c *client) answer() (reply, string) {
	c.t.Helper()
	resp := c.head("PUT")
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		body = fmt.Append(body, "!", err)
	}
	return resp, string(body)
}

// closed expects the other side to have closed.
func (c *client) closed() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); len(b) > 0 || isTimeout(err) {
		c.t.Errorf("the connection goes on: %q %v", b, err)
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// problem reads a refusal out of a body.
func problem(t *testing.T, body string) fence.Problem {
	t.Helper()
	var p fence.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("not a problem: %q: %v", body, err)
	}
	return p
}
