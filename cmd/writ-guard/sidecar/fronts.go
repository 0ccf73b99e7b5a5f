package sidecar

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/writ-io/writ/fence/guard/external"
	"github.com/writ-io/writ/fence/guard/external/authrequest"
	"github.com/writ-io/writ/fence/guard/external/check"
	"github.com/writ-io/writ/fence/guard/external/extauthz"
	"github.com/writ-io/writ/fence/guard/proxy"
	"github.com/writ-io/writ/fence/guard/route"
)

const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	// frontMode is that of sockets beside which another program stands, which often runs as another user.
	frontMode fs.FileMode = 0o660
)

// listen binds an address, host:port or unix:/path.
func listen(field, address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		return listenUnix(field, path, frontMode)
	}
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l, nil
	}
	cause := err
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		cause = op.Err
	}
	if sys := (*os.SyscallError)(nil); errors.As(cause, &sys) {
		cause = sys.Err
	}
	return nil, wrong(field, fmt.Sprintf("%v (%s)", cause, address), "choose a free address of this machine, or stop what uses it")
}

func listenUnix(field, path string, mode fs.FileMode) (net.Listener, error) {
	l, err := external.ListenUnix(path, mode)
	if err != nil {
		return nil, wrong(field, oneLine(err), "choose a path in a directory that this process may write to")
	}
	return l, nil
}

// serveHTTP serves until the server is stopped, which is no error.
func serveHTTP(server *http.Server) func(net.Listener) error {
	return func(l net.Listener) error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}

// stopHTTP waits for requests under way until ctx ends, and then cuts them off.
func stopHTTP(server *http.Server) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := server.Shutdown(ctx); err != nil {
			return errors.Join(fmt.Errorf("requests were cut off: %w", err), server.Close())
		}
		return nil
	}
}

// standardLogger is what a server of net/http complains to: of clients mostly, which is of no interest, and of its own panics.
func (s *Sidecar) standardLogger(name string) *log.Logger {
	logger := s.logger.Named(name)
	return log.New(complaints{
		panics: logger.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Error}),
		others: logger.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}, "", 0)
}

// complaints sorts the lines of a server of net/http.
type complaints struct{ panics, others io.Writer }

func (c complaints) Write(line []byte) (int, error) {
	if bytes.HasPrefix(line, []byte("http: panic serving")) {
		return c.panics.Write(line)
	}
	return c.others.Write(line)
}

// proxy is the part of the configuration that the proxy is made from.
func (c Config) proxy() proxy.Config {
	p := proxy.Config{Limits: c.Limits.Limits, Listeners: c.listenerNames()}
	for i, r := range c.Routes {
		if c.proxied(r) {
			r.Name = cmp.Or(r.Name, fmt.Sprintf("routes[%d]", i)) // its place in the file, not among those of the proxy
			p.Routes = append(p.Routes, r)
		}
	}
	for _, u := range c.Upstreams {
		p.Upstreams = append(p.Upstreams, u.Upstream)
	}
	return p
}

// table holds the routes of the requests that come in by a listener; of all if it is empty.
func (c Config) table(listener string) *route.Table {
	var routes []route.Route
	for i, r := range c.Routes {
		if listener == "" || r.Listener == "" || r.Listener == listener {
			r.Name = cmp.Or(r.Name, fmt.Sprintf("routes[%d]", i))
			routes = append(routes, r)
		}
	}
	table, err := route.New(routes, route.Known{Listeners: c.listenerNames()})
	if err != nil {
		// checkRoutes has made this table, and no part of it is wrong if the whole is not; there may be no part.
		return nil
	}
	return table
}

func (s *Sidecar) makeProxy() (err error) {
	cfg := s.config.proxy()
	cfg.Registerer, cfg.ErrorLog = s.registry, s.standardLogger(formProxy)
	for i := range cfg.Upstreams {
		if cfg.Upstreams[i].TLS, err = s.config.Upstreams[i].ClientTLS.config(s.logger); err != nil {
			return wrong(fmt.Sprintf("upstreams[%d].tls", i), oneLine(err), "name PEM files that belong together")
		}
	}
	if s.proxy, err = proxy.New(cfg, s.guard, s.guard); err != nil {
		return asConfigError(err)
	}
	s.addProbe(formProxy, s.probeProxy)
	for i, l := range s.config.Listeners {
		bound, err := listen(fmt.Sprintf("listeners[%d].listen", i), l.Listen)
		if err != nil {
			return err
		}
		server := s.proxy.Server(l.Name)
		f := front{name: l.Name, listener: bound, serve: serveHTTP(server), stop: stopHTTP(server), early: true}
		secured, err := l.TLS.config(s.logger)
		if err != nil {
			bound.Close()
			return wrong(fmt.Sprintf("listeners[%d].tls", i), oneLine(err), "name PEM files that belong together")
		}
		if secured != nil {
			f.serve = func(l net.Listener) error { return serveHTTP(server)(tls.NewListener(l, secured)) }
		}
		s.add(f)
	}
	return nil
}

// judge decides about the requests that come in by a listener of another program.
func (s *Sidecar) judge(name string, f Front) (*external.Judge, error) {
	table := s.config.table(name)
	if table == nil {
		return nil, wrong("routes", "has none for "+name, "add routes without a listener, or with listener: "+name)
	}
	return external.NewJudge(external.Config{
		Admitter: s.guard, Routes: table, Listener: name, Stamper: s.guard, Timeout: f.Timeout,
	})
}

func (s *Sidecar) makeEnvoy() error {
	judge, err := s.judge(envoyName, s.config.Envoy)
	if err != nil {
		return err
	}
	l, err := listen("envoy.listen", s.config.Envoy.Listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxCheckBytes), grpc.ConnectionTimeout(headerTimeout))
	extauthz.Register(server, judge)
	s.addProbe(formEnvoy, probeJudge(judge))
	s.add(front{name: envoyName, listener: l, serve: server.Serve, stop: func(ctx context.Context) error {
		defer context.AfterFunc(ctx, server.Stop)()
		server.GracefulStop()
		return nil
	}})
	return nil
}

// maxCheckBytes bounds what Envoy says of a request; it sends no body.
const maxCheckBytes = 1 << 20

func (s *Sidecar) makeNginx() error {
	judge, err := s.judge(nginxName, s.config.Nginx)
	if err != nil {
		return err
	}
	l, err := listen("nginx.listen", s.config.Nginx.Listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: authrequest.Handler(judge), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, ErrorLog: s.standardLogger(nginxName),
	}
	s.addProbe(formNginx, probeJudge(judge))
	s.add(front{name: nginxName, listener: l, serve: serveHTTP(server), stop: stopHTTP(server)})
	return nil
}

func (s *Sidecar) makeCheck() error {
	k := s.config.Check
	mode, err := socketMode(k.Mode)
	if err != nil {
		return err // checkCheck has looked
	}
	server, err := check.New(check.Config{
		Admitter: s.guard, TrustTokens: k.TrustTokens, AllowUIDs: k.UIDs, AllowGIDs: k.GIDs, MaxOpenPerUID: k.MaxOpenPerUID,
		Slack: s.config.Slack, TicketTTL: k.TicketTTL, CutGrace: k.CutGrace, Logger: s.logger.Named(formCheck),
	})
	if err != nil {
		return err
	}
	l, err := listenUnix("check.socket", k.Socket, mode)
	if err != nil {
		return err
	}
	s.addProbe(formCheck, s.probeCheck)
	s.add(front{name: formCheck, listener: l, serve: server.Serve, stop: server.Close})
	return nil
}
