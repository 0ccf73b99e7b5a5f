package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// canary is a write that must not reach the storage whatever the guard thinks of it.
type canary struct {
	writ  string
	token fence.Token
	// admitted is set where it would have been sent on.
	admitted bool
}

// write is for mode stamp, where the guard is asked about the token as if it were its own region's.
func (c *canary) write(resource string) fence.Write {
	if c.writ != "" {
		return fence.Write{Resource: resource, Writ: c.writ}
	}
	return fence.Write{Resource: resource, Token: c.token}
}

// Probe sends a write with that writ or token through everything that a caller's write goes through, except that it goes no
// further should it be admitted. refused says that it was not; detail is what the caller would have been told.
func (p *Proxy) Probe(ctx context.Context, probe *writv1.GuardProbe) (refused bool, detail string) {
	mark := &canary{writ: probe.GetWrit(), token: fence.Token(probe.GetToken())}
	sample, match, ok := p.table.Sample(probe.GetResource(), mark.writ == "")
	if !ok {
		return false, fmt.Sprintf("no route leads to resource %q", probe.GetResource())
	}
	target, err := url.ParseRequestURI(sample.Path)
	if err != nil {
		return false, fmt.Sprintf("no request can be made for resource %q: %v", probe.GetResource(), err)
	}
	r := &http.Request{
		Method: sample.Method, URL: target, RequestURI: sample.Path, Host: sample.Host, RemoteAddr: "127.0.0.1:0",
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header), Body: http.NoBody,
	}
	fence.Credential{Writ: mark.writ, Token: mark.token}.Set(r.Header)
	answer := &recorder{header: make(http.Header)}
	p.handle(answer, r.WithContext(ctx), arrival{listener: sample.Listener, probe: mark})
	var told fence.Problem
	if err := json.Unmarshal(answer.body.Bytes(), &told); err != nil {
		return false, fmt.Sprintf("status %d and no reason: %v", answer.status, err)
	}
	detail = fmt.Sprintf("%d %s on route %s: %s", told.Status, told.Reason, match.Route.Name, told.Detail)
	return !mark.admitted, detail
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}
