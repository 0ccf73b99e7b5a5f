package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/route"
)

// Stamper knows the token of the guard's own region.
type Stamper interface {
	// Grant returns the token under which the region holds the resource; ok is false if it does not.
	Grant(resource string) (token fence.Token, ok bool)
}

// Proxy guards storages. It is safe for concurrent use.
type Proxy struct {
	table     *route.Table
	counts    map[string]*counters // by route
	upstreams map[string]*upstream
	limits    Limits
	admitter  fence.Admitter
	stamper   Stamper
	metrics   *metrics
	errorLog  *log.Logger
	watchers  sync.WaitGroup

	mu     sync.Mutex
	active int           // guarded by mu; requests under way
	closed bool          // guarded by mu
	idle   chan struct{} // closed when closed and nothing is under way
}

// upstream is a storage, with the proxy for what passes unchecked.
type upstream struct {
	url       *url.URL
	host      string
	transport *http.Transport
	plain     *httputil.ReverseProxy
}

// New makes a proxy. stamper may be nil if no route is in mode stamp. Errors are those of [Config.Validate].
func New(cfg Config, admitter fence.Admitter, stamper Stamper) (*Proxy, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	table, err := cfg.table()
	if err != nil {
		return nil, err
	}
	if admitter == nil {
		return nil, fieldError("admitter", "is missing", "pass the guard")
	}
	if len(table.Stamps()) > 0 && stamper == nil {
		return nil, fieldError("stamper", "is missing", "pass the guard, because there are routes in mode stamp")
	}
	p := &Proxy{
		table: table, counts: make(map[string]*counters), upstreams: make(map[string]*upstream), limits: cfg.Limits, admitter: admitter, stamper: stamper,
		errorLog: cmp.Or(cfg.ErrorLog, log.New(io.Discard, "", 0)), idle: make(chan struct{}),
	}
	for _, u := range cfg.Upstreams {
		address, err := u.parseURL()
		if err != nil {
			return nil, err
		}
		up := &upstream{url: address, host: u.Host, transport: newTransport(u)}
		up.plain = &httputil.ReverseProxy{
			Rewrite: up.rewrite, Transport: up.transport, BufferPool: buffers, ErrorLog: p.errorLog, ErrorHandler: p.failPlain,
		}
		p.upstreams[u.Name] = up
	}
	if p.metrics, err = newMetrics(p, cfg.Registerer); err != nil {
		return nil, fmt.Errorf("proxy: metrics: %w", err)
	}
	for i, r := range cfg.Routes {
		name := cmp.Or(r.Name, fmt.Sprintf("routes[%d]", i))
		p.counts[name] = p.metrics.counters(name)
	}
	return p, nil
}

// Table is what the proxy goes by.
func (p *Proxy) Table() *route.Table { return p.table }

// Server returns a server for one of the listeners, with the limits of the configuration. It speaks HTTP/1 only, with TLS
// too. The caller serves, shuts it down, and closes the proxy then.
func (p *Proxy) Server(listener string) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           p.Handler(listener),
		Protocols:         &protocols,
		ReadHeaderTimeout: p.limits.HeaderTimeout,
		IdleTimeout:       p.limits.IdleTimeout,
		MaxHeaderBytes:    p.limits.MaxHeaderBytes,
		ErrorLog:          p.errorLog,
	}
}

// Handler handles what comes in by that listener.
func (p *Proxy) Handler(listener string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.handle(w, r, arrival{listener: listener}) })
}

// ServeHTTP handles what comes in by no listener that has a name.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handle(w, r, arrival{}) }

// Close refuses what comes from now on, waits until nothing is under way, and closes the connections to the upstreams. When
// ctx ends it returns its cause, and what is under way goes on.
func (p *Proxy) Close(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		if p.active == 0 {
			close(p.idle)
		}
	}
	p.mu.Unlock()
	select {
	case <-p.idle:
	case <-ctx.Done():
		return fmt.Errorf("proxy: writes are under way: %w", context.Cause(ctx))
	}
	p.watchers.Wait() // each ends with the request that it is for
	for _, u := range p.upstreams {
		u.transport.CloseIdleConnections()
	}
	return nil
}

// enter counts a request in, unless there are too many.
func (p *Proxy) enter() (fence.Obstacle, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return fence.Stopping, false
	case p.active >= p.limits.MaxConcurrent:
		return fence.Overloaded, false
	}
	p.active++
	return "", true
}

func (p *Proxy) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active--
	if p.closed && p.active == 0 {
		close(p.idle)
	}
}

func (p *Proxy) underWay() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.active
}

// arrival says how a request came.
type arrival struct {
	listener string
	// probe is set for a canary: nothing of it may be sent.
	probe *canary
}

// handle decides what becomes of a request.
func (p *Proxy) handle(w http.ResponseWriter, r *http.Request, from arrival) {
	if obstacle, ok := p.enter(); !ok {
		p.refuse(w, r, "", fence.ProblemFor(&fence.UnavailableError{Obstacle: obstacle}))
		return
	}
	defer p.leave()
	if r.ProtoMajor != 1 {
		p.refuseVersion(w, r)
		return
	}
	match, err := p.table.Match(route.Request{
		Listener: from.listener, Host: r.Host, Method: r.Method, Path: r.URL.EscapedPath(), Overridden: overridden(r.Header),
	})
	if err != nil {
		p.refuse(w, r, "", routingProblem(err))
		return
	}
	up := p.upstreams[match.Route.Upstream]
	if match.Guarded {
		if err := unguardable(r); err != nil {
			p.refuse(w, r, match.Route.Name, fence.ProblemFor(err))
			return
		}
	}
	switch {
	case match.Checked:
		p.check(w, r, from, match, up)
	case from.probe != nil:
		from.probe.admitted = true
		p.refuse(w, r, match.Route.Name, upstreamProblem(failure{err: errCanary}))
	default:
		p.counts[match.Route.Name][outcomePassed].Inc()
		up.plain.ServeHTTP(w, r)
	}
}

// overridden reports whether a header asks for the request to be taken for another method.
func overridden(h http.Header) bool {
	for _, name := range route.OverrideHeaders {
		if len(h[name]) > 0 {
			return true
		}
	}
	return false
}

// check has a request admitted and carries it out.
func (p *Proxy) check(w http.ResponseWriter, r *http.Request, from arrival, match route.Match, up *upstream) {
	name := match.Route.Name
	if limit := p.limits.MaxBodyBytes; limit > 0 && r.ContentLength > limit {
		p.refuse(w, r, name, problem(ReasonTooLarge, http.StatusRequestEntityTooLarge, "The body is too large",
			fmt.Sprintf("it has %d bytes, and the limit is %d", r.ContentLength, limit)))
		return
	}
	write, err := p.credential(r.Header, match, from.probe)
	if err != nil {
		p.refuse(w, r, name, fence.ProblemFor(err))
		return
	}
	admission, err := p.admitter.Admit(r.Context(), write)
	if err != nil {
		if errors.Is(err, context.Cause(r.Context())) && r.Context().Err() != nil {
			p.errorLog.Printf("proxy: route %s: the caller has gone before %q was admitted", name, write.Resource)
		}
		p.refuse(w, r, name, fence.ProblemFor(err))
		return
	}
	e := &exchange{
		proxy: p, upstream: up, match: match, in: r, admission: admission, probe: from.probe,
		w: w, control: http.NewResponseController(w), counts: p.counts[name],
	}
	if match.Route.Mode == route.Stamp {
		e.stamp = write.Token
	}
	if r.Body == nil || r.ContentLength == 0 {
		e.uploaded.Store(true)
	} else {
		// Otherwise the server reads what is left of the body before it answers, while it is being sent on.
		_ = e.control.EnableFullDuplex() // not supported by all servers
	}
	e.serve()
}

// credential is what the request is to be admitted with.
func (p *Proxy) credential(h http.Header, match route.Match, probe *canary) (fence.Write, error) {
	if match.Route.Mode != route.Stamp {
		presented, err := fence.ParseHeader(h, match.Route.Trusted)
		return presented.Write(match.Resource), err
	}
	if probe != nil {
		return probe.write(match.Resource), nil
	}
	token, ok := p.stamper.Grant(match.Resource)
	if !ok {
		return fence.Write{}, &fence.UnavailableError{
			Resource: match.Resource, Obstacle: fence.NoGrant, Detail: "the region of this guard does not hold it",
		}
	}
	return fence.Write{Resource: match.Resource, Token: token}, nil
}

// failPlain answers when the transport failed for what is not a write.
func (p *Proxy) failPlain(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		p.errorLog.Printf("proxy: %s: %v", r.Method, err)
	}
	answer := problem(ReasonBroken, http.StatusBadGateway, "The upstream did not answer", "the request failed on the way to the upstream")
	answer.Respond(w)
}
