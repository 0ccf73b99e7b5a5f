package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/proxy"
	"github.com/writ-io/writ/fence/guard/route"
)

// A refused caller that waits to be asked for its body is not asked, and the connection ends there.
func TestRefusedBeforeTheBody(t *testing.T) {
	up := newEcho(t)
	w := newWorld(t, up.URL)
	w.keeper.raise("r", token5+1)
	for name, length := range map[string]string{"length": "Content-Length: 1073741824", "chunked": "Transfer-Encoding: chunked"} {
		caller := w.dial()
		caller.send("%s%s\nExpect: 100-continue\n\n", put, length)
		resp, text := caller.answer() // a 100 would be the first
		if resp.StatusCode != 412 || !resp.Close || problem(t, text).Reason != fence.ReasonStaleToken {
			t.Errorf("%s: %d %s", name, resp.StatusCode, text)
		}
		caller.closed()
	}
	// One that does not wait, and stalls, is answered all the same, and at once: the rest of its body is not waited for.
	soonest := patience
	for range 5 {
		caller := w.dial()
		caller.send("%sContent-Length: 100000\n\nhi", put)
		sent := time.Now()
		if resp, text := caller.answer(); resp.StatusCode != 412 || !resp.Close {
			t.Errorf("%d %s", resp.StatusCode, text)
		}
		soonest = min(soonest, time.Since(sent))
		caller.Close()
	}
	if soonest > 500*time.Millisecond {
		t.Errorf("the answer took %s at best", soonest)
	}
	caller := w.dial()
	caller.send("%sContent-Length: 100000\n\nhi", put)
	caller.answer()
	caller.closed()
	// Without a body the connection goes on.
	caller = w.dial()
	for range 3 {
		caller.send("%s\n", put)
		if resp, text := caller.answer(); resp.StatusCode != 412 || resp.Close {
			t.Errorf("%d %s", resp.StatusCode, text)
		}
	}
	if seen, _ := up.got(); len(seen) > 0 {
		t.Errorf("%d requests reached the storage", len(seen))
	}
}

// Nothing goes to the upstream, and no body is asked for, before the admission.
func TestAdmittedBeforeTheFirstByte(t *testing.T) {
	connected := make(chan struct{}, 1)
	s := scripted(t, func(s *stage) {
		connected <- struct{}{}
		r := s.request()
		if r.Header.Get("Expect") != "100-continue" {
			t.Errorf("the upstream is not asked: %v", r.Header)
		}
		s.say("HTTP/1.1 100 Continue\n\n")
		body, _ := io.ReadAll(r.Body)
		s.say(fmt.Sprintf("HTTP/1.1 200 OK\nContent-Length: %d\n\n%s", len(body), body))
	})
	w := newWorld(t, s.url())
	wait := make(chan struct{})
	w.keeper.hold(wait)
	caller := w.dial()
	caller.send("%sContent-Length: 2\nExpect: 100-continue\n\n", put)
	for len(w.keeper.asked()) == 0 {
		runtime.Gosched()
	}
	_ = caller.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if b, err := caller.r.Peek(1); !isTimeout(err) {
		t.Fatalf("the caller was told %q before the admission", b)
	}
	select {
	case <-connected:
		t.Fatal("a connection was opened before the admission")
	default:
	}
	_ = caller.SetReadDeadline(time.Now().Add(patience))
	close(wait)
	if line, err := caller.r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	if line, err := caller.r.ReadString('\n'); line != "\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	caller.send("hi")
	resp, text := caller.answer()
	if resp.StatusCode == 100 { // the upstream's, beside the one that the server says when the body is read
		resp, text = caller.answer()
	}
	if resp.StatusCode != 200 || text != "hi" {
		t.Errorf("%d %q", resp.StatusCode, text)
	}
	w.ends(fence.Finished)
}

func TestCallerLeavesBeforeTheAdmission(t *testing.T) {
	w := newWorld(t, newEcho(t).URL)
	w.keeper.hold(make(chan struct{}))
	caller := w.dial()
	caller.send("%s\n", put)
	for len(w.keeper.asked()) == 0 {
		runtime.Gosched()
	}
	caller.Close()
	w.server.Close() // waits
}

func TestTrailersPass(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Sum")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("Sum", fmt.Sprint(r.Trailer))
	}))
	defer up.Close()
	for path, announced := range map[string]string{"/x": "A, B", "/free": "A, Writ-Token, B"} {
		w := newWorld(t, up.URL, func(c *proxy.Config) {
			c.Routes = append(c.Routes, route.Route{Path: "/free", Unguarded: "pass", Upstream: "up"})
		})
		caller := w.dial()
		caller.send("PUT %s HTTP/1.1\nHost: h\nWrit-Token: 1.5\nTrailer: %s\nTransfer-Encoding: chunked\n\n2\nhi\n0\nA: 1\nWrit-Token: 1.9\nC: 3\n\n", path, announced)
		resp, text := caller.answer()
		if got := resp.Trailer().Get("Sum"); resp.StatusCode != 200 || text != "hi" || !strings.Contains(got, "A:[1]") || strings.Contains(got, "Writ") || strings.Contains(got, "C:") {
			t.Errorf("%s: %d %q, trailer %v", path, resp.StatusCode, text, resp.Trailer())
		}
		if path == "/x" {
			w.ends(fence.Finished)
		}
	}
}

// What a caller sends reaches the upstream as it is, but for what it must not see.
func TestWhatTheUpstreamSees(t *testing.T) {
	up := newEcho(t)
	w := newWorldWith(t, newGatekeeper(), grants{"stamped": token5}, up.URL, func(c *proxy.Config) {
		c.Routes = append(c.Routes,
			route.Route{Path: "/forward", Resource: "f", Trusted: true, ForwardWrit: true, Upstream: "up"},
			route.Route{Path: "/stamp", Resource: "stamped", Mode: route.Stamp, Upstream: "up"},
			route.Route{Path: "/nogrant", Resource: "other", Mode: route.Stamp, Upstream: "up"},
			route.Route{Path: "/free", Unguarded: "pass", Upstream: "base"})
		c.Upstreams = append(c.Upstreams, proxy.Upstream{Name: "base", URL: up.URL + "/base", Host: "inner"})
	})
	caller := w.dial()
	ask := func(format string, args ...any) (*http.Request, string) {
		t.Helper()
		caller.send(format, args...)
		resp, text := caller.answer()
		seen, body := up.got()
		if resp.StatusCode != 200 || len(seen) != 1 {
			t.Fatalf("%d %s", resp.StatusCode, text)
		}
		for range len(w.keeper.admitted) {
			w.ends(fence.Finished)
		}
		return seen[0], body[0]
	}
	const common = " HTTP/1.1\nHost: Host:1\nX-Forwarded-For: 1.2.3.4\nConnection: X-Hop\nX-Hop: 1\nX-End: 1\n"
	r, body := ask("PUT /a%%20b/c?x=1;y=%%zz&z%sWrit-Token: 1.5\nContent-Length: 2\n\nhi", common)
	if r.RequestURI != "/a%20b/c?x=1;y=%zz&z" || r.Host != "Host:1" || body != "hi" || r.Header.Get("X-Hop") != "" || r.Header.Get("X-End") != "1" ||
		r.Header.Get("X-Forwarded-For") != "127.0.0.1" || r.Header.Get("X-Forwarded-Host") != "Host:1" || r.Header.Get("Accept-Encoding") != "" {
		t.Errorf("%s %s %q %v", r.Host, r.RequestURI, body, r.Header)
	}
	none := func(r *http.Request) {
		t.Helper()
		for name := range r.Header {
			if strings.Contains(strings.ToLower(name), "writ") {
				t.Errorf("%s reaches the upstream", name)
			}
		}
	}
	none(r)
	for _, request := range []string{"GET /x", "PUT /free", "GET /stamp", "GET /forward/x"} {
		r, _ = ask("%s%sWrit: a\nWrit-Token: 1.5\nWrit_Token: 7\nW.R.I.T: 1\n\n", request, common)
		if request == "GET /forward/x" {
			continue
		}
		none(r)
	}
	if r, _ = ask("PUT /free/x%sContent-Length: 2\n\nhi", common); r.RequestURI != "/base/free/x" || r.Host != "inner" {
		t.Errorf("%s %s", r.Host, r.RequestURI)
	}
	if r, _ = ask("PUT /forward%sWrit-Token: 1.5\n\n", common); r.Header.Get("Writ-Token") != "1.5" {
		t.Errorf("%v", r.Header)
	}
	r, _ = ask("PUT /stamp%sWrit: nonsense\nWrit-Token: 1.9\nWRIT-token: 1.9\nWrit_Token: 1.9\n\n", common)
	if got := r.Header["Writ-Token"]; len(got) != 1 || got[0] != token5.Decimal() || len(r.Header["Writ"]) > 0 || len(r.Header["Writ_token"]) > 0 {
		t.Errorf("%v", r.Header)
	}
	caller.send("PUT /nogrant%s\n", common)
	resp, text := caller.answer()
	if p := problem(t, text); resp.StatusCode != 503 || p.Obstacle != string(fence.NoGrant) || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	// The grant is compared with the floor like any other token.
	w.keeper.raise("stamped", token5+1)
	caller.send("PUT /stamp%s\n", common)
	if resp, text := caller.answer(); resp.StatusCode != 412 {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
}

type grants map[string]fence.Token

func (g grants) Grant(resource string) (fence.Token, bool) { t, ok := g[resource]; return t, ok }

// On routes where nothing is guarded the proxy is a plain one.
func TestUpgradePassesUnguarded(t *testing.T) {
	s := scripted(t, func(s *stage) {
		s.request()
		s.say("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: echo\n\n")
		line, _ := s.r.ReadString('\n')
		_, _ = io.WriteString(s.Conn, line)
	})
	w := newWorld(t, s.url(), func(c *proxy.Config) { c.Routes[0] = route.Route{Unguarded: "pass", Upstream: "up"} })
	caller := w.dial()
	caller.send("GET / HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: echo\n\n")
	if resp := caller.head("GET"); resp.StatusCode != 101 {
		t.Fatal(resp.StatusCode)
	}
	caller.send("hello\n")
	if line, err := caller.r.ReadString('\n'); line != "hello\r\n" {
		t.Errorf("%q %v", line, err)
	}
}

// A read that the upstream makes a tunnel of would let writes follow. (httputil wants it to have been asked for.)
func TestUninvitedTunnelIsRefused(t *testing.T) {
	for _, header := range []string{"", "Connection: Upgrade\n", "Upgrade: websocket\n", "Connection: Upgrade\nUpgrade: websocket\n"} {
		s := scripted(t, func(s *stage) {
			s.request()
			s.say("HTTP/1.1 101 Switching Protocols\n" + header + "\n")
			_ = s.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // httputil keeps the connection open
			_ = s.drained()
		})
		w := newWorld(t, s.url())
		caller := w.dial()
		caller.send("GET /x HTTP/1.1\nHost: h\n\n")
		if resp, text := caller.answer(); resp.StatusCode != 502 {
			t.Errorf("%q: %d %s", header, resp.StatusCode, text)
		}
	}
}

// A body as long as this one passes through, both ways, without being kept.
func TestBodiesAreNotKept(t *testing.T) {
	const length = 64 << 20
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", fmt.Sprint(length))
		w.Header().Set("Received", fmt.Sprint(n, err))
		_, _ = io.CopyN(w, zeros{}, length)
	}))
	defer up.Close()
	w := newWorld(t, up.URL)
	var peak, before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, chunked := range []bool{false, true} {
		r, err := http.NewRequest("PUT", w.server.URL+"/x", io.LimitReader(zeros{}, length))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Writ-Token", "1.5")
		if !chunked {
			r.ContentLength = length
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if got := resp.Header.Get("Received"); n != length || err != nil || got != fmt.Sprint(length, " <nil>") {
			t.Errorf("chunked %v: sent %s, received %d %v", chunked, got, n, err)
		}
		w.ends(fence.Finished)
		runtime.ReadMemStats(&peak)
	}
	if allocated := peak.TotalAlloc - before.TotalAlloc; allocated > 16<<20 {
		t.Errorf("%d bytes were allocated for 4 bodies of %d", allocated, length)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A probe goes through everything but to the storage.
func TestProbe(t *testing.T) {
	keys, writs := signed(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	keeper := newGatekeeper()
	keeper.keys = &keys
	w := newWorldWith(t, keeper, grants{"stamped": token5 + 9}, "http://"+listener.Addr().String(), func(c *proxy.Config) {
		c.Routes = []route.Route{
			{Name: "check", Resource: "r", Upstream: "up"},
			{Name: "trusted", Path: "/t", Host: "*.example.com", Resource: "tenants/{1}", Trusted: true, Upstream: "up"},
			{Name: "stamp", Path: "/s", Resource: "stamped", Mode: route.Stamp, Upstream: "up"},
		}
	})
	for _, c := range []struct {
		probe    *writv1.GuardProbe
		floor    fence.Token
		refused  bool
		says     string
		admitted bool
	}{
		{&writv1.GuardProbe{Resource: "r", Writ: writs["good"]}, token5 + 1, true, "412 STALE_TOKEN on route check", false},
		{&writv1.GuardProbe{Resource: "r", Writ: writs["good"]}, token5, false, "CANARY_ADMITTED", true},
		{&writv1.GuardProbe{Resource: "r", Writ: writs["forged"]}, 0, true, "403 INVALID_WRIT", false},
		{&writv1.GuardProbe{Resource: "r"}, 0, true, "428 NO_CREDENTIAL", false},
		{&writv1.GuardProbe{Resource: "r", Token: uint64(token5)}, 0, true, "400 INVALID_TOKEN", false},
		{&writv1.GuardProbe{Resource: "tenants/a b", Token: uint64(token5)}, token5 + 1, true, "412 STALE_TOKEN on route trusted", false},
		{&writv1.GuardProbe{Resource: "tenants/a b", Token: uint64(token5)}, 0, false, "CANARY_ADMITTED", true},
		{&writv1.GuardProbe{Resource: "stamped", Token: uint64(token5)}, token5 + 1, true, "412 STALE_TOKEN on route stamp", false},
		{&writv1.GuardProbe{Resource: "stamped", Token: uint64(token5)}, 0, false, "CANARY_ADMITTED", true},
		{&writv1.GuardProbe{Resource: "elsewhere", Token: uint64(token5)}, 0, false, "no route", false},
	} {
		keeper.raise(c.probe.Resource, c.floor)
		refused, detail := w.proxy.Probe(t.Context(), c.probe)
		if refused != c.refused || !strings.Contains(detail, c.says) {
			t.Errorf("%v: %v %s", c.probe, refused, detail)
		}
		if c.admitted {
			w.ends(fence.Finished)
		}
	}
	// Nobody was called.
	_ = listener.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Millisecond))
	if nc, err := listener.Accept(); err == nil {
		line, _ := bufio.NewReader(nc).ReadString('\n')
		t.Errorf("a probe reached the storage: %q", line)
	}
}
