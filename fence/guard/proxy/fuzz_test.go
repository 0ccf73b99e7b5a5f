package proxy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/proxy"
	"github.com/writ-io/writ/fence/guard/route"
)

// countingKeeper admits what carries token 1.5 and counts.
type countingKeeper struct {
	*lightKeeper
	admitted atomic.Int64
}

func (k *countingKeeper) Admit(ctx context.Context, w fence.Write) (fence.Admission, error) {
	if w.Token != token5 || w.Resource != "r" {
		return nil, fence.ErrInvalidToken
	}
	k.admitted.Add(1)
	return k.lightKeeper.Admit(ctx, w)
}

// Whatever bytes a caller sends, the storage sees no write that was not admitted, and nothing of what was presented.
func FuzzRawRequest(f *testing.F) {
	keeper := &countingKeeper{lightKeeper: newLightKeeper()}
	var writes atomic.Int64
	var fault atomic.Value
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !route.IsRead(r.Method) && writes.Add(1) > keeper.admitted.Load() {
			fault.Store(r.Method + " " + r.RequestURI + " was not admitted")
		}
		_, _ = io.Copy(io.Discard, r.Body)
		for name := range r.Header {
			if strings.Contains(strings.ToLower(name), "writ") {
				fault.Store(name + " reached the storage")
			}
		}
		for name := range r.Trailer {
			if strings.Contains(strings.ToLower(name), "writ") {
				fault.Store("trailer " + name + " reached the storage")
			}
		}
	}))
	f.Cleanup(up.Close)
	p, err := proxy.New(proxy.Config{
		Routes: []route.Route{
			{Resource: "r", Trusted: true, Upstream: "up"},
			{Path: "/get", Methods: []string{"GET"}, Unguarded: "pass", Upstream: "up"},
		},
		Upstreams: []proxy.Upstream{{Name: "up", URL: up.URL}},
		Limits:    proxy.Limits{Linger: 10 * time.Millisecond, HeaderTimeout: 50 * time.Millisecond},
	}, keeper, nil)
	if err != nil {
		f.Fatal(err)
	}
	address := serve(f, p.Server(""))
	crlf := func(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }
	const inner = "DELETE /inner HTTP/1.1\nHost: h\n\n"
	for _, seed := range []string{
		put + "\n", put + "Content-Length: 2\n\nhi", put + "Transfer-Encoding: chunked\n\n2\nhi\n0\nA: b\n\n" + inner,
		put + "Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n" + inner, put + "Transfer-Encoding: \x0bchunked\n\n0\n\n" + inner,
		put + "Connection: Writ-Token, close\n\n", put + "Writ_Token: 1.9\n\n", put + "Trailer: Writ\nTransfer-Encoding: chunked\n\n0\nWrit: a\n\n",
		"GET /get HTTP/1.1\nHost: h\nContent-Length: 35\n\n" + inner, "GET /get HTTP/1.1\nHost: h\nX-HTTP-Method: PUT\n\n" + inner,
		"POST http:get HTTP/1.1\nHost: h\n\n", "PRI * HTTP/2.0\n\nSM\n\n", "CONNECT h:1 HTTP/1.1\n\n", "GET /get/../x HTTP/1.0\n\n",
		put + "Expect: 100-continue\nContent-Length: 2\n\nhi" + inner, put + "Upgrade: h2c\nConnection: Upgrade, HTTP2-Settings\n\n" + inner,
	} {
		f.Add(crlf(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(20 * time.Millisecond))
		_, _ = nc.Write(sent)
		_, _ = io.Copy(io.Discard, nc)
		if problem := fault.Load(); problem != nil {
			t.Fatal(problem)
		}
	})
}
