package lease

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/writ-io/writ/lease/clock"
)

// Config says how a [Client] reaches the quorum and what it assumes. Only Endpoints is mandatory; the zero value of every
// other field stands for the default that is given there.
type Config struct {
	// Endpoints are the API addresses of nodes, host:port, each once. Any node answers any call; several let the client
	// choose the nearest and move on when one fails. An address with a scheme (unix:///run/writ.sock) goes to gRPC as it
	// is.
	Endpoints []string

	// TLS is used as it is, except that nothing older than TLS 1.3 is spoken. It excludes the three files.
	TLS *tls.Config
	// CAFile holds the PEM certificates to trust; empty trusts those of the system. CertFile and KeyFile are the client's
	// own certificate, which says who holds the leases: both or neither. A key file that others than its
	// owner may use is refused. The files are read again for each connection, so they may be replaced while the client runs.
	CAFile, CertFile, KeyFile string
	// Insecure speaks plain text, for tests and a private development quorum. It excludes everything above.
	Insecure bool

	// Region is where this process runs: up to [MaxRegionBytes]. It is stated in grants, and a node of the same region is
	// preferred among those about equally near.
	Region string
	// Instance tells the processes of one principal apart: 1 to [MaxInstanceBytes]. Two processes must never share one.
	// Default: host name, process id and a random part.
	Instance string

	// Drift is what to assume of the clocks. The zero value stands for [clock.DefaultDrift].
	Drift clock.Drift
	// Clock is the clock by which leases are believed. Default: [clock.System].
	Clock clock.Clock
	// RenewPermille is the part of its TTL after which a lease is due for renewal, in thousandths: 100 to 500. Default:
	// 333.
	RenewPermille int

	// DialTimeout bounds [Dial]. Default: 10 s.
	DialTimeout time.Duration
	// AttemptTimeout is how long one node may take over a call that is not bound to a TTL before the next is asked; less
	// than CallTimeout. Default: 2 s.
	AttemptTimeout time.Duration
	// CallTimeout bounds such a call with all its attempts, if its context does not end sooner. Default: 10 s.
	CallTimeout time.Duration

	// Logger hears of failed renewals, lost leases and nodes that come and go. Default: nobody does.
	Logger *slog.Logger
	// DialOptions are added to those of each connection.
	DialOptions []grpc.DialOption
}

const (
	clientDialTimeout    = 10 * time.Second
	clientAttemptTimeout = 2 * time.Second
	clientCallTimeout    = 10 * time.Second
)

// withDefaults fills in what is left out.
func (c Config) withDefaults() Config {
	if c.Drift == (clock.Drift{}) {
		c.Drift = clock.DefaultDrift()
	}
	if c.Clock == nil {
		c.Clock = clock.System()
	}
	if c.Instance == "" {
		c.Instance = clientInstance()
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = clientDialTimeout
	}
	if c.AttemptTimeout == 0 {
		c.AttemptTimeout = clientAttemptTimeout
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = max(clientCallTimeout, 2*c.AttemptTimeout)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// clientInstance makes a name that no other process has.
func clientInstance() string {
	host, err := os.Hostname()
	if err != nil || resourceProblem(host) != "" {
		host = "unknown"
	}
	suffix := fmt.Sprintf("-%d-%s", os.Getpid(), strings.ToLower(rand.Text()[:8]))
	return host[:min(len(host), MaxInstanceBytes-len(suffix))] + suffix
}

// Validate reports the first field that cannot be used as an INVALID *Error, which names it and says what would do.
func (c Config) Validate() error {
	if err := c.validateEndpoints(); err != nil {
		return err
	}
	if err := c.validateSecurity(); err != nil {
		return err
	}
	switch {
	case len(c.Region) > MaxRegionBytes:
		return Invalid("Region", fmt.Sprintf("is %d bytes long", len(c.Region)), fmt.Sprintf("use at most %d", MaxRegionBytes))
	case len(c.Instance) > MaxInstanceBytes:
		return Invalid("Instance", fmt.Sprintf("is %d bytes long", len(c.Instance)), fmt.Sprintf("use at most %d", MaxInstanceBytes))
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"DialTimeout", c.DialTimeout}, {"AttemptTimeout", c.AttemptTimeout}, {"CallTimeout", c.CallTimeout}} {
		if d.value < 0 {
			return Invalid(d.field, fmt.Sprintf("is %v", d.value), "use a positive duration, or 0 for the default")
		}
	}
	full := c.withDefaults()
	if full.AttemptTimeout >= full.CallTimeout {
		return Invalid("AttemptTimeout", fmt.Sprintf("of %v is not below CallTimeout, %v", full.AttemptTimeout, full.CallTimeout),
			"leave time for a second attempt")
	}
	keeper := KeeperConfig{Drift: full.Drift, RenewPermille: c.RenewPermille}
	if err := keeper.Validate(); err != nil {
		return Invalid("Drift or RenewPermille", "is out of range: "+err.Error(), "use the default")
	}
	return nil
}

func (c Config) validateEndpoints() error {
	const fix = "list the nodes' API addresses, such as node-1.example:7411"
	if len(c.Endpoints) == 0 {
		return Invalid("Endpoints", "are empty", fix)
	}
	seen := make(map[string]bool)
	for _, e := range c.Endpoints {
		switch {
		case strings.TrimSpace(e) != e || e == "":
			return Invalid("Endpoints", fmt.Sprintf("hold %q", e), fix)
		case seen[e]:
			return Invalid("Endpoints", fmt.Sprintf("hold %q twice", e), fix)
		case strings.Contains(e, "://"):
		case strings.LastIndexByte(e, ':') < 0:
			return Invalid("Endpoints", fmt.Sprintf("hold %q, which has no port", e), fix)
		}
		seen[e] = true
	}
	return nil
}

func (c Config) validateSecurity() error {
	files := c.CAFile != "" || c.CertFile != "" || c.KeyFile != ""
	switch {
	case c.Insecure && (files || c.TLS != nil):
		return Invalid("Insecure", "excludes TLS and certificate files", "choose one")
	case c.TLS != nil && files:
		return Invalid("TLS", "excludes CAFile, CertFile and KeyFile", "choose one")
	case (c.CertFile == "") != (c.KeyFile == ""):
		return Invalid("CertFile", "and KeyFile belong together", "set both or neither")
	}
	return nil
}

// ConfigFromEnv reads WRIT_ENDPOINTS (separated by commas), WRIT_CA, WRIT_CERT and WRIT_KEY (files), WRIT_REGION, and
// WRIT_INSECURE (a boolean). Variables that are not set leave their field empty. Errors: INVALID for a value that cannot
// be read; [Config.Validate] judges the rest.
func ConfigFromEnv() (Config, error) {
	c := Config{
		CAFile:   os.Getenv("WRIT_CA"),
		CertFile: os.Getenv("WRIT_CERT"),
		KeyFile:  os.Getenv("WRIT_KEY"),
		Region:   os.Getenv("WRIT_REGION"),
	}
	for e := range strings.SplitSeq(os.Getenv("WRIT_ENDPOINTS"), ",") {
		if e = strings.TrimSpace(e); e != "" {
			c.Endpoints = append(c.Endpoints, e)
		}
	}
	if text := os.Getenv("WRIT_INSECURE"); text != "" {
		insecure, err := strconv.ParseBool(text)
		if err != nil {
			return Config{}, Invalid("WRIT_INSECURE", fmt.Sprintf("is %q", text), "use true or false")
		}
		c.Insecure = insecure
	}
	return c, nil
}
