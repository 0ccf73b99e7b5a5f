package server

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/stats"

	"github.com/writ-io/writ/api/server/identity"
	"github.com/writ-io/writ/api/server/policy"
	"github.com/writ-io/writ/lease"
)

// Access says who may do what. *policy.File and *policy.Policy are such.
type Access interface {
	Allows(principal lease.Principal, verb policy.Verb, name string) bool
}

// Config of a Server.
type Config struct {
	// Identity is the node's certificate, by which it serves and by which it calls other nodes. Nil needs Insecure.
	Identity *identity.Source
	// Insecure serves without TLS: every caller is who it says it is. For development on one machine only.
	Insecure bool
	// Policy says who may do what. Nil denies everything; policy.AllowAll() is for development.
	Policy Access
	Limits Limits
	// Forward is about requests for the coordinator that reach another node.
	Forward Forward
	// MaxConnectionAge is how long a gRPC connection may last; its client is then asked to make a new one, with the
	// certificate that it has by then. What runs on the connection gets ten more minutes. 0 means an hour; at least a
	// minute.
	MaxConnectionAge time.Duration
	// Logger takes what happens; nil drops it.
	Logger hclog.Logger
	// Registry takes the metrics, and /metrics shows it. One registry per Server; nil makes one, with the Go
	// runtime's and the process's own metrics.
	Registry *prometheus.Registry
	// Tracing follows calls; by default nothing does.
	Tracing Tracing
	// Version is shown in the status.
	Version string
}

// Tracing follows calls through the nodes. What is nil is not installed, and costs nothing.
type Tracing struct {
	// Served sees the calls that this node serves, and Passed those that it passes on to another one.
	Served, Passed stats.Handler
	// Span answers the W3C trace context of the call that a context is of; empty: it is not traced.
	Span func(context.Context) string
}

// Limits of what callers may ask of one node. For each field 0 means the default and a negative value no limit, unless
// said otherwise.
type Limits struct {
	// RatePerSecond is how many requests a principal may make in a second, on average; default 50,000. A renewal counts
	// as one, however many leases it names. What other nodes forward has been counted there.
	RatePerSecond float64
	// Burst is how many requests a principal may make at once; default twice RatePerSecond. It cannot be unlimited.
	Burst int
	// MaxConcurrent is how many requests may be under way at a time, waiting ones and watches included, over all
	// principals; default 50,000.
	MaxConcurrent int
	// MaxRequestBytes bounds one request; default 4 MiB, at least 128 KiB (a checkpoint must fit), at most 64 MiB. It
	// cannot be unlimited. All nodes of a quorum need the same value.
	MaxRequestBytes int
}

// Forward bounds the way to the coordinator.
type Forward struct {
	// Patience is how long a request looks for a coordinator before it is answered with NO_QUORUM; default 2 s. It should
	// exceed an election.
	Patience time.Duration
	// Timeout is how long the coordinator may take to answer, on top of the time that the request itself asks it to wait;
	// default 5 s. It should exceed the time after which a coordinator gives up a commit.
	Timeout time.Duration
}

// The defaults.
const (
	defaultRatePerSecond    = 50_000
	defaultMaxConcurrent    = 50_000
	defaultMaxRequestBytes  = 4 << 20
	minRequestBytes         = 128 << 10
	maxRequestBytes         = 64 << 20
	defaultPatience         = 2 * time.Second
	defaultTimeout          = 5 * time.Second
	defaultMaxConnectionAge = time.Hour
	minMaxConnectionAge     = time.Minute
	// defaultDeadline is for requests that bring none.
	defaultDeadline = 30 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Policy == nil {
		c.Policy = policy.DenyAll()
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
		c.Registry.MustRegister(newGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	l := &c.Limits
	setDefault(&l.RatePerSecond, defaultRatePerSecond)
	setDefault(&l.Burst, max(1, int(min(2*l.RatePerSecond, 1<<30))))
	setDefault(&l.MaxConcurrent, defaultMaxConcurrent)
	setDefault(&l.MaxRequestBytes, defaultMaxRequestBytes)
	setDefault(&c.Forward.Patience, defaultPatience)
	setDefault(&c.Forward.Timeout, defaultTimeout)
	setDefault(&c.MaxConnectionAge, defaultMaxConnectionAge)
	return c
}

// newGoCollector adds to the usual metrics what the heap holds that is in use, apart from what waits to be collected.
func newGoCollector() prometheus.Collector {
	return collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(
		collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/gc/heap/live:bytes$`)},
	))
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate checks ranges and relations. Errors: INVALID, with the field and the remedy.
func (c Config) Validate() error {
	d := c.withDefaults()
	switch {
	case c.Identity == nil && !c.Insecure:
		return lease.Invalid("tls", "is missing", "name ca_file, cert_file and key_file, or set insecure on a machine that nobody else reaches")
	case c.Identity != nil && c.Insecure:
		return lease.Invalid("insecure", "is set together with tls", "remove one of them")
	case d.Limits.Burst < 1:
		return lease.Invalid("limits.burst", fmt.Sprintf("is %d", c.Limits.Burst), "use 1 or more, or 0 for the default")
	case d.Limits.RatePerSecond > 0 && d.Limits.RatePerSecond < 1e-3:
		return lease.Invalid("limits.rate_per_second", fmt.Sprintf("is %v", c.Limits.RatePerSecond), "use 0.001 or more, 0 for the default, or -1 for no limit")
	case d.Limits.MaxRequestBytes < minRequestBytes || d.Limits.MaxRequestBytes > maxRequestBytes:
		return lease.Invalid("limits.max_request_bytes", fmt.Sprintf("is %d", c.Limits.MaxRequestBytes),
			fmt.Sprintf("use %d to %d", minRequestBytes, maxRequestBytes))
	case d.Forward.Patience < 0:
		return lease.Invalid("forward.patience", fmt.Sprintf("is %v", c.Forward.Patience), "use a positive duration, or 0 for the default")
	case d.Forward.Timeout < 0:
		return lease.Invalid("forward.timeout", fmt.Sprintf("is %v", c.Forward.Timeout), "use a positive duration, or 0 for the default")
	case d.MaxConnectionAge < minMaxConnectionAge:
		return lease.Invalid("max_connection_age", fmt.Sprintf("is %v", c.MaxConnectionAge), fmt.Sprintf("use %v or more", minMaxConnectionAge))
	}
	if c.Identity != nil {
		if err := c.Identity.CheckNode(); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
	}
	return nil
}
