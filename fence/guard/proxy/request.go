package proxy

import (
	"io"
	"net/http"
	"net/http/httputil"
	"strings"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/route"
)

// rewrite addresses a request that passes unchecked.
func (u *upstream) rewrite(pr *httputil.ProxyRequest) {
	u.address(pr)
	stripCredentials(pr.Out)
	if pr.Out.Body != nil && len(pr.Out.Trailer) > 0 {
		pr.Out.Body = &trailing{pr.Out.Body, pr.In.Trailer, pr.Out.Trailer}
	}
}

// address sends a request to the upstream with path, query and Host as the caller sent them.
func (u *upstream) address(pr *httputil.ProxyRequest) {
	pr.SetURL(u.url)
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery // also what httputil finds strange: nothing here depends on it
	if pr.Out.Host = u.host; u.host == "" {
		pr.Out.Host = pr.In.Host
	}
	pr.SetXForwarded()
}

// stripCredentials takes off what a caller presented, under every name that a program could take for one of the headers.
func stripCredentials(r *http.Request) {
	for name := range r.Header {
		if isCredential(name) {
			delete(r.Header, name)
		}
	}
	for name := range r.Trailer {
		if isCredential(name) {
			delete(r.Trailer, name)
		}
	}
}

// rewrite makes the request to the upstream.
func (e *exchange) rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	e.upstream.address(pr)
	if e.match.Route.Mode == route.Stamp || !e.match.Route.ForwardWrit {
		stripCredentials(out)
	}
	if e.match.Route.Mode == route.Stamp {
		fence.Credential{Token: e.stamp}.Set(out.Header)
	}
	hideIdempotency(out.Header)
	switch {
	case out.Body != nil:
		limit := e.proxy.limits.MaxBodyBytes
		if limit == 0 {
			limit = -1
		}
		e.upload = upload{ReadCloser: out.Body, e: e, left: limit, from: pr.In.Trailer, to: out.Trailer}
		out.Body = &e.upload
	case route.IsRead(out.Method):
		out.Body = nothing{} // a request with a body is not sent again; this one is sent without
	}
}

// hideIdempotency keeps the transport from sending a write again because its caller says that it is idempotent. Upstreams
// do not tell the names apart.
func hideIdempotency(h http.Header) {
	for _, name := range idempotencyKeys {
		if values, ok := h[name]; ok {
			delete(h, name)
			h[strings.ToLower(name)] = values
		}
	}
}

// idempotencyKeys are those that net/http knows.
var idempotencyKeys = [...]string{"Idempotency-Key", "X-Idempotency-Key"}

// nothing is a body without bytes that net/http does not know to be one.
type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }
func (nothing) Close() error             { return nil }

// trailing is the body of a request with trailers.
type trailing struct {
	io.ReadCloser
	from, to http.Header
}

func (t *trailing) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err == io.EOF {
		copyTrailer(t.to, t.from)
	}
	return n, err
}
