package proxy_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/proxy"
	"github.com/writ-io/writ/fence/guard/route"
)

// echo is an upstream that keeps the requests that reach it.
type echo struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*http.Request
	body []string
}

func newEcho(t *testing.T) *echo {
	e := &echo{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		e.mu.Lock()
		e.seen = append(e.seen, r)
		e.body = append(e.body, fmt.Sprint(string(body), errText(err)))
		e.mu.Unlock()
		fmt.Fprint(w, "stored")
	}))
	t.Cleanup(e.Close)
	return e
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return "!" + err.Error()
}

// got returns the requests that came, and forgets them.
func (e *echo) got() ([]*http.Request, []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	seen, body := e.seen, e.body
	e.seen, e.body = nil, nil
	return seen, body
}

// signed are writs for resource r, good and bad.
func signed(t *testing.T) (fence.KeySet, map[string]string) {
	t.Helper()
	signer, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := fence.NewKeySet(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	sign := func(s *fence.Signer, change func(*fence.Writ)) string {
		w := fence.Writ{Issuer: "issuer", Resource: "r", Holder: "h", Token: token5, IssuedAt: time.Unix(1_700_000_000, 0)}
		change(&w)
		text, err := s.Sign(w)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	good := sign(signer, func(*fence.Writ) {})
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"writ+jwt","kid":"` + signer.KeyID() + `"}`))
	other := strings.Split(sign(signer, func(w *fence.Writ) { w.Token++ }), ".")
	return keys, map[string]string{
		"good":       good,
		"newer":      sign(signer, func(w *fence.Writ) { w.Token++ }),
		"stranger":   sign(stranger, func(*fence.Writ) {}),
		"resource":   sign(signer, func(w *fence.Writ) { w.Resource = "other" }),
		"issuer":     sign(signer, func(w *fence.Writ) { w.Issuer = "other" }),
		"forged":     parts[0] + "." + other[1] + "." + parts[2],
		"truncated":  good[:len(good)-3],
		"no sig":     parts[0] + "." + parts[1] + ".",
		"alg none":   none + "." + parts[1] + ".",
		"alg none 2": none + "." + parts[1] + "." + parts[2],
		"oversized":  good + strings.Repeat("A", fence.MaxWritBytes),
	}
}

// Whatever is wrong with what is presented, nothing reaches the storage, and the caller reads why.
func TestBadCredentials(t *testing.T) {
	keys, writs := signed(t)
	up := newEcho(t)
	keeper := newGatekeeper()
	keeper.keys = &keys
	w := newWorldWith(t, keeper, nil, up.URL, func(c *proxy.Config) {
		c.Routes = []route.Route{
			{Name: "check", Resource: "r", Upstream: "up"},
			{Name: "trusted", Path: "/t", Resource: "r", Trusted: true, Upstream: "up"},
			{Name: "free", Path: "/t/free", Unguarded: "pass", Upstream: "up"},
		}
	})
	for _, c := range []struct {
		path, header string
		status       int
		reason       string
	}{
		{"/", "", 428, fence.ReasonNoCredential},
		{"/", "Writ: " + writs["stranger"], 403, fence.ReasonUnknownKey},
		{"/", "Writ: " + writs["resource"], 403, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["issuer"], 403, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["forged"], 403, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["truncated"], 0, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["no sig"], 0, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["alg none"], 0, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["alg none 2"], 0, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["oversized"], 400, fence.ReasonInvalidWrit},
		{"/", "Writ:", 400, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["good"] + ", " + writs["good"], 400, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["good"] + "\nWrit: " + writs["good"], 400, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["newer"] + "\nwRIT: " + writs["good"], 400, fence.ReasonInvalidWrit},
		{"/t", "Writ: " + writs["good"] + "\nWrit-Token: 1.5", 400, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["good"] + "\nWrit_Token: 9.9", 400, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["good"] + "\nConnection: writ", 400, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["good"] + "\nConnection: close, Writ-Token", 400, fence.ReasonInvalidWrit},
		{"/", "Writ: " + writs["good"] + "\nTrailer: Writ\nTransfer-Encoding: chunked", 400, fence.ReasonInvalidWrit},
		{"/", "Writ-Token: 1.5", 400, fence.ReasonInvalidToken},
		{"/t", "Writ-Token: 0", 400, fence.ReasonInvalidToken},
		{"/t", "Writ-Token: -1", 400, fence.ReasonInvalidToken},
		{"/t", "Writ-Token: 9223372036854775808", 400, fence.ReasonInvalidToken},
		{"/t", "Writ-Token: 281474976710656", 400, fence.ReasonInvalidToken}, // 1.0
		{"/t", "Writ-Token: 0x10000000005", 400, fence.ReasonInvalidToken},
		{"/t", "Writ-Token: 1.5, 1.6", 400, fence.ReasonInvalidToken},
		{"/t", "Writ-Token: 1.5\nWrit-Token: 1.5", 400, fence.ReasonInvalidToken},
		{"/t", "Writ-Token:", 400, fence.ReasonInvalidToken},
		{"/none/..%2f", "Writ: " + writs["good"], 400, proxy.ReasonAmbiguous},
		{"/t/free/../x", "Writ: " + writs["good"], 400, proxy.ReasonAmbiguous},
		{"/t//free", "", 400, proxy.ReasonAmbiguous},
	} {
		caller := w.dial()
		header := c.header
		if header != "" {
			header += "\n"
		}
		caller.send("PUT %s HTTP/1.1\nHost: h\n%s\n", c.path, header)
		if strings.Contains(c.header, "chunked") {
			caller.send("0\n\n")
		}
		resp, text := caller.answer()
		p := problem(t, text)
		if resp.StatusCode != p.Status || c.status != 0 && p.Status != c.status || p.Status != 400 && c.status == 0 && p.Status != 403 || p.Reason != c.reason {
			t.Errorf("%s %.60q: %d %s", c.path, c.header, resp.StatusCode, text)
		}
	}
	if seen, _ := up.got(); len(seen) > 0 {
		t.Fatalf("%d requests reached the storage, the first is %s", len(seen), seen[0].URL)
	}
	// The control: with a good one it does.
	caller := w.dial()
	caller.send("PUT /%%20 HTTP/1.1\nHost: h\nWrit: %s\n\n", writs["good"])
	if resp, text := caller.answer(); resp.StatusCode != 200 || text != "stored" {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	w.ends(fence.Finished)
	keeper.raise("r", token5+1)
	caller.send("PUT / HTTP/1.1\nHost: h\nWrit: %s\n\n", writs["good"])
	resp, text := caller.answer()
	p := problem(t, text)
	if resp.StatusCode != 412 || resp.Header.Get("Content-Type") != fence.ProblemContentType ||
		p.Resource != "r" || p.Token != token5.Decimal() || p.Floor != (token5+1).Decimal() || p.Reason != fence.ReasonStaleToken {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	if seen, _ := up.got(); len(seen) != 1 {
		t.Errorf("%d requests reached the storage", len(seen))
	}
}

// What a raw caller can make of the framing never makes two requests of one, or reaches the storage unadmitted.
func TestSmuggling(t *testing.T) {
	const inner = "DELETE /inner HTTP/1.1\nHost: h\n\n"
	up := newEcho(t)
	w := newWorld(t, up.URL)
	for _, c := range []struct {
		name, request string
		status        []int    // of the answers
		paths         []string // that reach the storage
	}{
		{"length and chunked", put + "Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n" + inner, []int{200, 428}, []string{"/x"}},
		{"a chunked body behind a length", put + "Content-Length: 40\n\n0\n\n" + inner, []int{200}, []string{"/x"}},
		{"two lengths", put + "Content-Length: 0\nContent-Length: 30\n\n" + inner, []int{400}, nil},
		{"a list of lengths", put + "Content-Length: 0, 30\n\n" + inner, []int{400}, nil},
		{"a signed length", put + "Content-Length: +0\n\n" + inner, []int{400}, nil},
		{"chunked, misspelt", put + "Transfer-Encoding: xchunked\n\n0\n\n" + inner, []int{501}, nil},
		{"chunked and more", put + "Transfer-Encoding: chunked, identity\n\n0\n\n" + inner, []int{501}, nil},
		{"chunked twice", put + "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n" + inner, []int{501}, nil},
		{"chunked with a tab", put + "Transfer-Encoding:\tchunked\n\n0\n\n" + inner, []int{200, 428}, []string{"/x"}},
		{"chunked with a space before the colon", put + "Transfer-Encoding : chunked\n\n0\n\n" + inner, []int{400}, nil},
		{"a folded header", put + "X: a\n Writ-Token: 1.9\n\n" + inner, nil, nil},
		{"a name with a space", "PUT /x HTTP/1.1\nHost: h\nWrit Token: 1.5\n\n", []int{400}, nil},
		{"a null in a value", put + "X: a\x00b\n\n", []int{400}, nil},
		{"a bare return in a value", put + "X: a\rWrit-Token: 1.9\n\n", []int{400}, nil},
		{"a chunk size that overflows", put + "Transfer-Encoding: chunked\n\n10000000000000002\nhi\n0\n\n" + inner, nil, nil},
		{"two hosts", put + "Host: other\n\n", []int{400}, nil},
		{"a host that is none", "PUT /x HTTP/1.1\nHost: a b\n\n", []int{400}, nil},
		{"a body on a read", "GET /x HTTP/1.1\nHost: h\nContent-Length: 35\n\n" + inner, []int{200}, []string{"/x"}},
		{"another method in a header", "GET /x HTTP/1.1\nHost: h\nX-HTTP-Method-Override: DELETE\n\n", []int{428}, nil},
		{"another method in another header", "OPTIONS /x HTTP/1.1\nHost: h\nX-Method-Override: DELETE\n\n", []int{428}, nil},
		{"an opaque address", "PUT http:x HTTP/1.1\nHost: h\nWrit-Token: 1.5\n\n", []int{400}, nil},
		{"a whole address", "PUT http://other/x HTTP/1.1\nHost: h\nWrit-Token: 1.5\n\n", []int{200}, []string{"/x"}},
		{"no path", "DELETE * HTTP/1.1\nHost: h\nWrit-Token: 1.5\n\n", []int{400}, nil},
		{"an old version", "PUT /x HTTP/1.0\nHost: h\nWrit-Token: 1.5\n\n", []int{200}, []string{"/x"}},
		{"a version to come", "PUT /x HTTP/2.0\nHost: h\nWrit-Token: 1.5\n\n", []int{505}, nil},
		{"a small method", "put /x HTTP/1.1\nHost: h\n\n", []int{428}, nil},
		{"a get that is none", "get /x HTTP/1.1\nHost: h\n\n", []int{428}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			caller := w.dial()
			caller.send("%s", c.request)
			var status []int
			for {
				if len(status) >= len(c.status) {
					_ = caller.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // none should follow
				}
				resp, err := caller.next("PUT")
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				status = append(status, resp.StatusCode)
			}
			caller.Close()
			for range len(w.keeper.admitted) {
				w.begun()
				select {
				case <-w.keeper.outcomes:
				case <-time.After(patience):
					t.Fatal("no outcome")
				}
			}
			var paths []string
			seen, bodies := up.got()
			for i, r := range seen {
				if !strings.Contains(bodies[i], "!") {
					paths = append(paths, r.URL.Path) // it came completely
				}
				if len(r.TransferEncoding) > 0 && r.Header.Get("Content-Length") != "" {
					t.Errorf("both framings went on: %v", r.Header)
				}
				if strings.HasPrefix(r.URL.Path, "/inner") || r.Method == "DELETE" {
					t.Errorf("%s %s reached the storage unadmitted (body %q)", r.Method, r.URL, bodies[i])
				}
			}
			if c.status != nil && (!slices.Equal(status, c.status) || !slices.Equal(paths, c.paths)) {
				t.Errorf("answers %v, want %v; the storage got %q, want %q", status, c.status, paths, c.paths)
			}
		})
	}
}

func TestWhatCannotBeGuardedIsRefused(t *testing.T) {
	up := newEcho(t)
	w := newWorld(t, up.URL, func(c *proxy.Config) {
		c.Routes = append(c.Routes, route.Route{Name: "free", Path: "/free", Unguarded: "pass", Upstream: "up"})
	})
	for _, c := range []struct {
		request string
		status  int
		says    string
	}{
		{"GET /x HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: websocket\n\n", 501, "Upgrade"},
		{put + "Connection: keep-alive, upgrade\nUpgrade: h2c\nHTTP2-Settings: AA\n\n", 501, "Upgrade"},
		{put + "Upgrade: h2c\n\n", 501, "Upgrade"},
		{put + "Connection: HTTP2-Settings\nHTTP2-Settings: AA\n\n", 501, "HTTP2-Settings"},
		{"CONNECT h:443 HTTP/1.1\nHost: h\n\n", 501, "CONNECT"},
		{"CONNECT /x HTTP/1.1\nHost: h\nWrit-Token: 1.5\n\n", 501, "CONNECT"},
		{"TRACE /free HTTP/1.1\nHost: h\n\n", 501, "TRACE"},
		{"PUT /x HTTP/2.0\nHost: h\n\n", 505, ""},
		{"DELETE /nowhere HTTP/1.1\nHost: other host\n\n", 400, ""},
	} {
		caller := w.dial()
		caller.send("%s", c.request)
		resp, text := caller.answer()
		if resp.StatusCode != c.status || c.says != "" && !strings.Contains(problem(t, text).Detail, c.says) {
			t.Errorf("%q: %d %s", c.request, resp.StatusCode, text)
		}
	}
	if seen, _ := up.got(); len(seen) > 0 {
		t.Errorf("%d requests reached the storage", len(seen))
	}
}

// A client that begins with HTTP/2 unasked is told in HTTP/2.
func TestHTTP2WithoutNegotiation(t *testing.T) {
	w := newWorld(t, newEcho(t).URL)
	caller := w.dial()
	caller.send("PRI * HTTP/2.0\n\nSM\n\n\x00\x00\x00\x04\x00\x00\x00\x00\x00") // the preface and empty settings
	frame := func() (kind byte, payload []byte) {
		t.Helper()
		header := make([]byte, 9)
		if _, err := io.ReadFull(caller.r, header); err != nil {
			t.Fatal(err)
		}
		payload = make([]byte, int(header[0])<<16|int(header[1])<<8|int(header[2]))
		if _, err := io.ReadFull(caller.r, payload); err != nil {
			t.Fatal(err)
		}
		return header[3], payload
	}
	if kind, payload := frame(); kind != 4 || len(payload) != 0 {
		t.Errorf("the first frame is of type %d and has %d bytes, want settings", kind, len(payload))
	}
	kind, payload := frame()
	const http11Required = 13
	if kind != 7 || len(payload) < 8 || payload[7] != http11Required || !strings.Contains(string(payload[8:]), "use HTTP/1.1") {
		t.Errorf("the second frame is of type %d and says %q, want GOAWAY", kind, payload)
	}
	caller.closed()
}

func TestHTTP2IsNotOffered(t *testing.T) {
	up := newEcho(t)
	w := newWorld(t, up.URL)
	certified := httptest.NewTLSServer(nil) // for its certificate
	defer certified.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := w.proxy.Server("main")
	server.TLSConfig = &tls.Config{Certificates: certified.TLS.Certificates, MinVersion: tls.VersionTLS12}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(listener, "", "")
	}()
	defer func() { server.Close(); <-done }()
	client := certified.Client()
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	resp, err := client.Get("https://" + listener.Addr().String() + "/x")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 1 || resp.StatusCode != 200 || resp.TLS.NegotiatedProtocol == "h2" {
		t.Errorf("%s %s %q", resp.Proto, resp.Status, resp.TLS.NegotiatedProtocol)
	}
}
