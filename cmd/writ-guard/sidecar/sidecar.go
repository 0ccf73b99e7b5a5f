package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/tracing"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/fence/guard/database"
	"github.com/writ-io/writ/fence/guard/proxy"
)

// Options are what a start needs beside the configuration.
type Options struct {
	// Version is told to the quorum and shown in the status.
	Version string
	// Logger takes what happens; nil drops it.
	Logger hclog.Logger
}

// endGrace is what fronts get to end in after the guard has closed and cut what was under way.
const endGrace = 2 * time.Second

// Sidecar is one running guard with its forms.
type Sidecar struct {
	config   Config
	version  string
	logger   hclog.Logger
	registry *prometheus.Registry
	guard    *guard.Guard
	database *database.Database // nil without postgres
	tracer   *tracing.Tracer    // nil: nothing is traced
	fronts   []front
	proxy    *proxy.Proxy   // nil without listeners
	probes   []prober       // of the fronts
	serving  sync.WaitGroup // one for each front
	stopOnce sync.Once
	stopErr  error // set by stopOnce

	mu      sync.Mutex
	failed  error         // guarded by mu; the first failure
	stopped bool          // guarded by mu; what ends now ends because it is told to
	ending  chan struct{} // closed when it fails or begins to stop
}

// front is one address at which something is served.
type front struct {
	name     string
	listener net.Listener
	serve    func(net.Listener) error
	// early says that it stops taking requests as soon as the guard is told to stop; others answer until the guard is closed.
	early bool
	// stop ends it when ctx ends at the latest.
	stop func(ctx context.Context) error
}

// Start starts a guard as c says. It answers when everything listens, which is before the guard has heard from the quorum:
// see Ready. A start that is refused has changed nothing but for the data directory.
func Start(c Config, o Options) (started *Sidecar, err error) {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &Sidecar{
		config: c, version: o.Version, logger: o.Logger, registry: prometheus.NewRegistry(), ending: make(chan struct{}),
	}
	if s.logger == nil {
		s.logger = hclog.NewNullLogger()
	}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return nil, wrong("data_dir", oneLine(err), "name a directory that this process may write to")
	}
	if err := s.startGuard(); err != nil {
		return nil, err
	}
	if err := s.makeFronts(); err != nil {
		return nil, err
	}
	for _, f := range s.fronts {
		s.serving.Go(func() { s.fail(f.name, f.serve(f.listener)) })
		s.logger.Info("listening", "form", f.name, "address", f.listener.Addr())
	}
	if s.database != nil {
		s.serving.Go(s.watchDatabase)
	}
	if c.BreakglassFile != "" {
		s.serving.Go(func() { s.watchCertificates(c.BreakglassFile) })
	}
	if c.StopTimeout <= c.Slack && c.form() != formProxy {
		s.logger.Warn("stop_timeout is not longer than slack: a stop after a write will not say goodbye", "stop_timeout", c.StopTimeout, "slack", c.Slack)
	}
	s.logger.Info("guard is running", "name", c.Name, "region", c.Region, "form", c.form(), "covers", c.covers(), "version", o.Version)
	return s, nil
}

func (s *Sidecar) startGuard() (err error) {
	c := s.config
	if s.tracer, err = c.openTracing(s.version, s.logger); err != nil {
		return err
	}
	if err = s.openDatabase(); err != nil {
		return err
	}
	s.guard, err = guard.New(guard.Config{
		Name: c.Name, Region: c.Region, Form: c.form(), Promise: c.promise(), Covers: c.covers(), Stamps: c.stamps(),
		SoftwareVersion: s.version[:min(len(s.version), maxNameBytes)],
		Store:           filepath.Join(c.DataDir, floorFile),
		Endpoints:       c.Quorum.Endpoints, CAFile: c.Quorum.CA, CertFile: c.Quorum.Cert, KeyFile: c.Quorum.Key, Insecure: c.Quorum.Insecure,
		Slack: c.Slack, AlwaysClose: c.Isolation == isolationClose, MaxParked: c.Limits.MaxParked, MaxParkTime: c.Limits.MaxParkTime,
		Registerer: s.registry, Logger: s.logger.Named("guard"),
		Probe: s.probe, Traced: s.tracer.Raises(c.Name, c.Region), Storage: s.storage(),
	})
	return err
}

// Forms, as the quorum is told.
const (
	formProxy = "proxy"
	formEnvoy = "extauthz"
	formNginx = "auth_request"
	formCheck = "check"

	formPostgres = "postgres"
)

// form names everything that is served.
func (c Config) form() string {
	var forms []string
	for _, f := range []struct {
		name   string
		served bool
	}{
		{formProxy, len(c.Listeners) > 0}, {formEnvoy, c.Envoy.Listen != ""}, {formNginx, c.Nginx.Listen != ""}, {formCheck, c.Check.Socket != ""},
		{formPostgres, c.Postgres.used()},
	} {
		if f.served {
			forms = append(forms, f.name)
		}
	}
	return strings.Join(forms, "+")
}

// promise is the weakest of what is served.
func (c Config) promise() writv1.GuardPromise {
	switch c.form() {
	case formProxy:
		return writv1.GuardPromise_GUARD_PROMISE_DRAINED
	case formPostgres:
		return writv1.GuardPromise_GUARD_PROMISE_ATOMIC
	}
	return writv1.GuardPromise_GUARD_PROMISE_CHECK_THEN_ACT
}

// covers are the resources of the routes, of the check API, or of the database.
func (c Config) covers() []string {
	all := slices.Clone(c.Postgres.Resources)
	if len(c.Routes) > 0 {
		all = c.table("").Covers()
	}
	if c.Check.Socket != "" {
		all = append(all, c.Check.Covers...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (c Config) stamps() []string {
	if len(c.Routes) == 0 {
		return nil
	}
	return c.table("").Stamps()
}

// makeFronts binds every address, the guard's own last.
func (s *Sidecar) makeFronts() error {
	c := s.config
	if len(c.Listeners) > 0 {
		if err := s.makeProxy(); err != nil {
			return err
		}
	}
	if c.Envoy.Listen != "" {
		if err := s.makeEnvoy(); err != nil {
			return err
		}
	}
	if c.Nginx.Listen != "" {
		if err := s.makeNginx(); err != nil {
			return err
		}
	}
	if c.Check.Socket != "" {
		if err := s.makeCheck(); err != nil {
			return err
		}
	}
	if c.Admin.Listen == adminOff {
		return nil
	}
	l, err := listen("admin.listen", c.Admin.Listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s.admin(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, ErrorLog: s.standardLogger("admin")}
	s.add(front{name: "admin", listener: l, serve: serveHTTP(server), stop: stopHTTP(server)})
	return nil
}

func (s *Sidecar) add(f front) { s.fronts = append(s.fronts, f) }

// abandon takes a start back.
func (s *Sidecar) abandon() {
	for _, f := range s.fronts {
		f.listener.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing can be under way
	if s.proxy != nil {
		_ = s.proxy.Close(ctx)
	}
	if s.guard != nil {
		_ = s.guard.Close(ctx) // it has admitted nothing
	}
	s.closeDatabase()
	_ = s.tracer.Close(ctx) // there is nothing to send
}

// Guard is for tests.
func (s *Sidecar) status() guard.Status { return s.guard.Status() }

// Ready answers nil if the guard can decide about writes, and otherwise why it cannot. One that was started under a certificate
// of break-glass decides by that, though it has not heard from a quorum.
func (s *Sidecar) Ready() error {
	st := s.status()
	switch {
	case st.Ready() && (s.database == nil || s.database.Err() == nil):
		return nil
	case st.Stopping || st.Closed:
		return errors.New("the guard is stopping")
	case s.database != nil && s.database.Err() != nil:
		return fmt.Errorf("the database cannot be fenced: %w", s.database.Err())
	case st.StoreFailed:
		return errors.New("the floor store cannot be written: look at the disk of data_dir")
	case inForce(st) > 0:
		return nil
	case st.LinkError != nil:
		return fmt.Errorf("the guard has not heard from the quorum since it started: %w", st.LinkError)
	}
	return errors.New("the guard has not heard from the quorum since it started")
}

// Done is closed when a listener has failed or the guard begins to stop; Err then says why it failed.
func (s *Sidecar) Done() <-chan struct{} { return s.ending }

// Err answers why the guard has failed: a listener ended by itself.
func (s *Sidecar) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// fail notes the first failure. A nil err is none, and neither is what happens while the guard stops.
func (s *Sidecar) fail(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || s.failed != nil || s.stopped {
		return
	}
	s.failed = fmt.Errorf("%s: %w", name, err)
	close(s.ending)
}

// Stop stops the guard: new writes are refused, those under way finish or are cut when ctx or stop_timeout ends, the quorum
// is told, and everything ends. It answers what went wrong, and Err for a guard that had failed. It may be called again, and
// then answers the same.
func (s *Sidecar) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() { s.stopErr = errors.Join(s.Err(), s.stop(ctx)) })
	return s.stopErr
}

func (s *Sidecar) stop(ctx context.Context) error {
	s.mu.Lock()
	if s.failed == nil {
		close(s.ending)
	}
	s.stopped = true
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, s.config.StopTimeout)
	defer cancel()
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), s.config.StopTimeout+endGrace)
	defer cancelLast()
	var stopping sync.WaitGroup
	var errs collected
	end := func(f front) {
		if err := f.stop(last); err != nil {
			errs.add(fmt.Errorf("%s: %w", f.name, err))
		}
	}
	for _, f := range s.fronts {
		if f.early {
			stopping.Go(func() { end(f) })
		}
	}
	errs.add(s.guard.Close(ctx))
	stopping.Wait()
	for _, f := range s.fronts {
		if !f.early {
			end(f)
		}
	}
	s.serving.Wait()
	if s.proxy != nil {
		errs.add(s.proxy.Close(last))
	}
	s.closeDatabase()
	errs.add(s.tracer.Close(last))
	s.logger.Info("guard has stopped")
	return errs.join()
}

// collected gathers errors of several goroutines.
type collected struct {
	mu   sync.Mutex
	errs []error // guarded by mu
}

func (c *collected) add(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, err)
}

func (c *collected) join() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.errs...)
}
