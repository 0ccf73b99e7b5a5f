package guard

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/lease/clock"
)

const (
	// DefaultSlack is W unless it is configured.
	DefaultSlack = 15 * time.Second

	defaultOpenWait     = 2 * time.Second
	defaultWritCache    = 4 << 20
	maxStamps           = 256
	maxRegion, maxLabel = 64, 64
)

// ErrConfig means that a configuration cannot be used. The error names the field and says how to put it right.
var ErrConfig = errors.New("guard: invalid configuration")

// Config is what a guard needs to know. Name, Covers, Store, Endpoints and the transport security must be set.
type Config struct {
	// Name of the guard: 1 to 64 bytes, the same over restarts, and no other guard's.
	Name string
	// Region is where the guard and its storage are; up to 64 bytes. Stamp mode needs it.
	Region string
	// Form is what kind of guard it is, for people: proxy, extauthz, ...; up to 64 bytes.
	Form string
	// Promise is what it promises about a write with an old token; default: GUARD_PROMISE_DRAINED, and with Storage
	// GUARD_PROMISE_ATOMIC.
	Promise writv1.GuardPromise
	// Covers are the resources that it guards: names, or prefixes that end in an asterisk; 1 to 256.
	Covers []string
	// Stamps are those for which it presents the grant of its own region itself; as Covers, and covered by them.
	Stamps []string
	// SoftwareVersion is told to the quorum, for people; up to 64 bytes.
	SoftwareVersion string

	// Store is the path of the floor store. It is made if it does not exist; its directory must.
	Store string
	// OpenWait is how long New waits for another process to let go of the store; default 2 s.
	OpenWait time.Duration

	// Endpoints are the nodes' host:port, those to be preferred first.
	Endpoints []string
	// CAFile, CertFile and KeyFile are PEM files. They are read again for each connection, so that they may rotate.
	CAFile, CertFile, KeyFile string
	// TLS takes the place of the files.
	TLS *tls.Config
	// Insecure speaks without transport security. For tests.
	Insecure bool
	// DialOptions come after the guard's own.
	DialOptions []grpc.DialOption

	// Storage compares tokens by itself; Covers are names then, and the floors in Store follow what it has been raised to. Nil: the
	// guard's fronts are what compares.
	Storage Storage

	// Traced is told each raise that the guard has acknowledged and that belongs to a trace. It must not block, and not call
	// the guard. Nil: nobody is told.
	Traced func(Raised)

	// Slack is W: it bounds a pause of this process plus the storage's execution of what has been forwarded; default
	// [DefaultSlack], and [DefaultStorageSlack] with Storage, to which nothing is forwarded.
	Slack time.Duration
	// Drift is assumed of the clocks; default [clock.DefaultDrift].
	Drift clock.Drift
	// AlwaysClose makes the guard refuse without contact whatever the quorum's rules say.
	AlwaysClose bool
	// MaxParked bounds the writes that wait for their turn; default 10,000.
	MaxParked int
	// MaxParkTime bounds how long a write waits for its turn; default 10 s.
	MaxParkTime time.Duration
	// WritCacheBytes bounds the memory for writs that were verified before; default 4 MiB. Negative: none are kept.
	WritCacheBytes int

	// Probe carries a canary through the front; see [Prober]. Default: the canary asks for admission and goes nowhere.
	Probe Prober

	// Registerer gets the metrics; nil: nobody does. Collector answers them as well.
	Registerer prometheus.Registerer
	// Logger; default: none.
	Logger hclog.Logger
	// Clock; default [clock.System].
	Clock clock.Clock
}

// Prober sends a canary through the real front of a guard, and tells whether it was refused, and what a caller would have been
// told. The canary must not reach the storage even if it is admitted: [IsCanary] of its context says that it is one.
type Prober func(ctx context.Context, probe *writv1.GuardProbe) (refused bool, detail string)

// Validate reports the first field that cannot be used as an [ErrConfig].
func (c Config) Validate() error {
	switch {
	case c.Store == "":
		return misconfigured("Store", "is empty", "name the file for the floors, on a disk that outlives the process")
	case len(c.Endpoints) == 0:
		return misconfigured("Endpoints", "is empty", "name the nodes' host:port")
	case c.CertFile == "" != (c.KeyFile == ""):
		return misconfigured("CertFile", "and KeyFile belong together", "name both or none")
	case c.Insecure && (c.TLS != nil || c.CAFile != "" || c.CertFile != ""):
		return misconfigured("Insecure", "contradicts the certificates", "set it without TLS, CAFile and CertFile")
	case c.TLS != nil && (c.CAFile != "" || c.CertFile != ""):
		return misconfigured("TLS", "and files are both given", "use one of them")
	case len(c.Region) > maxRegion:
		return misconfigured("Region", fmt.Sprintf("has %d bytes", len(c.Region)), "use at most 64")
	case len(c.Form) > maxLabel:
		return misconfigured("Form", fmt.Sprintf("has %d bytes", len(c.Form)), "use at most 64")
	case len(c.SoftwareVersion) > maxLabel:
		return misconfigured("SoftwareVersion", fmt.Sprintf("has %d bytes", len(c.SoftwareVersion)), "use at most 64")
	case len(c.Stamps) > maxStamps:
		return misconfigured("Stamps", fmt.Sprintf("has %d entries", len(c.Stamps)), "use at most 256; prefixes that end in an asterisk cover many")
	case len(c.Stamps) > 0 && c.Region == "":
		return misconfigured("Region", "is empty", "name the region whose grants are to be stamped")
	case c.OpenWait < 0:
		return misconfigured("OpenWait", fmt.Sprintf("is %v", c.OpenWait), "use 0 for the default, or more")
	}
	for _, e := range c.Endpoints {
		if e == "" {
			return misconfigured("Endpoints", "has an empty entry", "name the nodes' host:port")
		}
	}
	if err := c.withDefaults().gate("session").Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return c.checkStorage()
}

func misconfigured(field, what, fix string) error {
	return fmt.Errorf("%w: %s %s: %s", ErrConfig, field, what, fix)
}

func (c Config) withDefaults() Config {
	if c.Storage != nil {
		c.Slack = cmp.Or(c.Slack, DefaultStorageSlack)
		c.Promise = cmp.Or(c.Promise, writv1.GuardPromise_GUARD_PROMISE_ATOMIC)
	}
	c.Slack = cmp.Or(c.Slack, DefaultSlack)
	if c.Drift == (clock.Drift{}) {
		c.Drift = clock.DefaultDrift()
	}
	if c.Promise == writv1.GuardPromise_GUARD_PROMISE_UNSPECIFIED {
		c.Promise = writv1.GuardPromise_GUARD_PROMISE_DRAINED
	}
	if c.OpenWait == 0 {
		c.OpenWait = defaultOpenWait
	}
	if c.WritCacheBytes == 0 {
		c.WritCacheBytes = defaultWritCache
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Clock == nil {
		c.Clock = clock.System()
	}
	return c
}

// gate is what of it concerns the core.
func (c Config) gate(session string) gate.Config {
	return gate.Config{
		Name: c.Name, Session: session,
		Enrol: &writv1.GuardEnrol{
			Region: c.Region, Form: c.Form, Promise: c.Promise, Covers: c.Covers, Stamps: c.Stamps,
			Slack: durationpb.New(c.Slack), SoftwareVersion: c.SoftwareVersion, NeverLapses: c.Storage != nil,
		},
		Slack: c.Slack, Drift: c.Drift, AlwaysClose: c.AlwaysClose, MaxParked: c.MaxParked, MaxParkTime: c.MaxParkTime,
	}
}
