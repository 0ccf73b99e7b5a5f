package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/writ-io/writ/api/server/identity"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

const (
	httpHeaderTimeout = 5 * time.Second
	httpBodyTimeout   = 15 * time.Second
	httpWriteTimeout  = 30 * time.Second // for each write, not for the whole
	httpIdleTimeout   = 2 * time.Minute
	httpHeaderBytes   = 32 << 10
	apiPrefix         = "/v1/"
)

// httpHandler serves everything that goes over HTTP.
type httpHandler struct {
	config  Config
	logger  hclog.Logger
	api     http.Handler // behind identity and body limit
	metrics http.Handler
	health  *healthService
	keys    *keyring
	csrf    *http.CrossOriginProtection
}

func newHTTP(config Config, toGRPC *grpc.ClientConn, health *healthService, keys *keyring) (*http.Server, error) {
	api, err := newGateway(toGRPC)
	if err != nil {
		return nil, err
	}
	h := &httpHandler{
		config: config, logger: config.Logger, api: api, health: health, keys: keys,
		metrics: promhttp.HandlerFor(config.Registry, promhttp.HandlerOpts{}),
		// A browser that holds a client certificate must not act for a foreign page.
		csrf: http.NewCrossOriginProtection(),
	}
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: httpHeaderTimeout,
		IdleTimeout:       httpIdleTimeout,
		MaxHeaderBytes:    httpHeaderBytes,
		ErrorLog:          log.New(&httpLog{logger: config.Logger, flood: rate.Sometimes{First: 20, Interval: time.Second}}, "", 0),
	}
	if config.Identity != nil {
		server.TLSConfig = config.Identity.ServerConfig(tls.VerifyClientCertIfGiven, "h2", "http/1.1")
	}
	return server, nil
}

func (h *httpHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	paced := newPacedWriter(w, httpWriteTimeout)
	defer paced.finish()
	w = paced
	defer h.recovered(w)
	var serve func(http.ResponseWriter, *http.Request)
	open, readOnly := false, true
	switch path := r.URL.Path; {
	case path == "/healthz":
		serve, open = h.healthz, true
	case path == "/readyz":
		serve, open = h.readyz, true
	case path == "/.well-known/jwks.json":
		serve, open = h.jwks, true
	case path == "/metrics":
		serve = h.metrics.ServeHTTP
	case strings.HasPrefix(path, apiPrefix):
		serve, readOnly = h.serveAPI, false
	default:
		writeError(w, http.StatusNotFound, lease.Errorf(lease.ReasonNotFound, "%s is not served here", path))
		return
	}
	if readOnly && r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		writeError(w, http.StatusMethodNotAllowed, lease.Invalid("method", r.Method+" is not possible here", "use GET"))
		return
	}
	if !open {
		principal, err := h.caller(r)
		if err != nil {
			writeError(w, lease.HTTPStatus(err), err)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), httpCallerKey{}, principal))
	}
	serve(w, r)
}

// httpCallerKey holds the principal that caller has found.
type httpCallerKey struct{}

// caller answers who asks, by the client certificate and nothing else.
func (h *httpHandler) caller(r *http.Request) (lease.Principal, error) {
	if h.config.Insecure {
		return insecureCaller(r.Header.Values(keyInsecure))
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		e := lease.Errorf(lease.ReasonUnauthenticated, "the request shows no client certificate")
		e.Fix = "call with a certificate and key that an authority of this node has issued"
		return "", e
	}
	cert := r.TLS.PeerCertificates[0]
	if clock.System().Wall().After(cert.NotAfter) {
		return "", lease.Errorf(lease.ReasonUnauthenticated, "the client certificate has expired since the connection was made")
	}
	return identity.Principal(cert)
}

// serveAPI reads the body, within its limits, before anything is done: half a request does nothing.
func (h *httpHandler) serveAPI(w http.ResponseWriter, r *http.Request) {
	if err := h.csrf.Check(r); err != nil {
		writeError(w, http.StatusForbidden, lease.Errorf(lease.ReasonDenied, "%v", err))
		return
	}
	controller := http.NewResponseController(w)
	_ = controller.SetReadDeadline(time.Now().Add(httpBodyTimeout)) // a connection that cannot is not slow
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(h.config.Limits.MaxRequestBytes)))
	_ = controller.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
	case errors.As(err, &tooLarge):
		e := lease.Errorf(lease.ReasonLimit, "the request body is larger than %d bytes", tooLarge.Limit)
		e.Field, e.Fix = "body", "send less at a time"
		writeError(w, http.StatusRequestEntityTooLarge, e)
		return
	default:
		writeError(w, http.StatusBadRequest, lease.Invalid("body", "did not arrive whole: "+err.Error(), "send the whole request"))
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	h.api.ServeHTTP(w, r)
}

func (h *httpHandler) recovered(w http.ResponseWriter) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p) // how a handler tells net/http to break the connection
	}
	h.logger.Error("an HTTP handler panicked; the server goes on", "panic", p, "stack", string(debug.Stack()))
	writeError(w, http.StatusInternalServerError, lease.Errorf(lease.ReasonInternal, "the request hit a defect of the server; its log tells more"))
}

// healthz: the process is alive.
func (h *httpHandler) healthz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"alive": true})
}

// readyz: the node can do its work, or why not.
func (h *httpHandler) readyz(w http.ResponseWriter, _ *http.Request) {
	if reason := h.health.notReady(); reason != "" {
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "reason": reason})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"ready": true})
}

func (h *httpHandler) jwks(w http.ResponseWriter, _ *http.Request) {
	keys, err := h.keys.jwks()
	if err != nil {
		h.logger.Error("the public keys cannot be served", "error", err)
		writeError(w, http.StatusInternalServerError, lease.Errorf(lease.ReasonInternal, "the public keys cannot be served"))
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "max-age=60")
	_, _ = w.Write(keys) // a reader that has gone needs no answer
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a reader that has gone needs no answer
}

// httpLog takes the lines of http.Server, which are about connections that failed. Floods are thinned out.
type httpLog struct {
	logger hclog.Logger
	flood  rate.Sometimes
}

func (l *httpLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.HasSuffix(text, ": EOF") {
		l.logger.Debug(text) // somebody looked whether the port is open
		return len(line), nil
	}
	l.flood.Do(func() { l.logger.Warn(text) })
	return len(line), nil
}

// pacedWriter gives every write a deadline of its own, so that a response may be long but a reader not asleep. Between
// writes there is none: HTTP/2 would break the stream when it passes.
type pacedWriter struct {
	http.ResponseWriter
	controller *http.ResponseController
	timeout    time.Duration
}

func newPacedWriter(w http.ResponseWriter, timeout time.Duration) *pacedWriter {
	p := &pacedWriter{ResponseWriter: w, controller: http.NewResponseController(w), timeout: timeout}
	p.limit(false) // the request before may have left one
	return p
}

// limit sets or takes away the deadline. A writer without deadlines is not a connection.
func (w *pacedWriter) limit(on bool) {
	var deadline time.Time
	if on {
		deadline = time.Now().Add(w.timeout)
	}
	_ = w.controller.SetWriteDeadline(deadline)
}

func (w *pacedWriter) Write(b []byte) (int, error) {
	w.limit(true)
	defer w.limit(false)
	return w.ResponseWriter.Write(b)
}

// FlushError is for http.ResponseController.
func (w *pacedWriter) FlushError() error {
	w.limit(true)
	defer w.limit(false)
	return w.controller.Flush()
}

// finish is for what net/http itself still writes after the handler.
func (w *pacedWriter) finish() { w.limit(true) }

// Unwrap is for http.ResponseController.
func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
