package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/agent"
)

// adminTimeout bounds what operators' requests may take.
const adminTimeout = 10 * time.Second

// NewLogger logs as the configuration says.
func (c Config) NewLogger(out io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "writ-agent", Level: hclog.LevelFromString(c.Log.Level), Output: out, JSONFormat: c.Log.Format == "json",
	})
}

// Run runs an agent until ctx ends or it fails. The configuration has been validated.
func Run(ctx context.Context, c Config, version string, logger hclog.Logger) (err error) {
	remote, err := agent.NewRemote(lease.Config{
		Endpoints: c.Quorum.Endpoints, CAFile: c.Quorum.CA, CertFile: c.Quorum.Cert, KeyFile: c.Quorum.Key, Insecure: c.Quorum.Insecure,
		Region: c.Region, Instance: c.Name,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remote.Close()) }()
	cfg := agent.Config{
		Name: c.Name, Region: c.Region, DataDir: c.DataDir, Quorum: remote, Interval: c.Interval, ProbeTimeout: c.ProbeTimeout,
		Failures: c.Failures, Version: version, Logger: logger,
	}
	if c.Quorum.Cert != "" {
		cfg.CertificateExpires = func() time.Time { return expiry(c.Quorum.Cert, c.Quorum.Key) }
	}
	for _, p := range c.Peers {
		cfg.Peers = append(cfg.Peers, agent.Peer{Region: p.Region, Address: p.Address})
	}
	for i, g := range c.Groups {
		built, err := c.group(fmt.Sprintf("groups[%d]", i), g)
		if err != nil {
			return err
		}
		cfg.Groups = append(cfg.Groups, built)
		rehearsed, any, err := drill(fmt.Sprintf("groups[%d]", i), g)
		if err != nil {
			return err
		}
		if any {
			cfg.Groups = append(cfg.Groups, rehearsed)
		}
	}
	tracer, err := c.openTracing(version, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tracer.Close(context.WithoutCancel(ctx))) }()
	cfg.Traced = tracer.Hooks(c.Name, c.Region)
	a, err := agent.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop, err := c.serve(a, logger, cancel)
	if err != nil {
		cancel(err)
		return errors.Join(err, a.Run(ctx)) // which closes it
	}
	logger.Info("running", "agent", c.Name, "region", c.Region, "groups", len(c.Groups))
	err = a.Run(ctx)
	stop()
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// serve answers operators.
func (c Config) serve(a *agent.Agent, logger hclog.Logger, failed context.CancelCauseFunc) (stop func(), err error) {
	if c.Admin.Listen == adminOff {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", c.Admin.Listen)
	if err != nil {
		return nil, wrong("admin.listen", oneLine(err), "choose another address, or off")
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(a.Collector())
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	server := &http.Server{Handler: mux, ReadTimeout: adminTimeout, WriteTimeout: adminTimeout}
	ended := make(chan struct{})
	go func() { // joined by stop
		defer close(ended)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed(fmt.Errorf("admin: %w", err))
		}
	}()
	logger.Debug("serving operators", "address", listener.Addr())
	return func() {
		_ = server.Close() // nobody waits for these answers
		<-ended
	}, nil
}

// expiry is when a certificate ends; zero if it cannot be read at the moment.
func expiry(cert, key string) time.Time {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil || len(pair.Certificate) == 0 {
		return time.Time{}
	}
	parsed, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return time.Time{}
	}
	return parsed.NotAfter
}
