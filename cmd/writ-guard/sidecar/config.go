package sidecar

import (
	"cmp"
	_ "embed" // for the example
	"time"

	"github.com/writ-io/writ/cmd/config"
	"github.com/writ-io/writ/cmd/tracing"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/fence/guard/proxy"
	"github.com/writ-io/writ/fence/guard/route"
)

// Config is what a guard is told. It is read from YAML (see Load) and, with the same names, from the environment:
// WRIT_GUARD_DATA_DIR sets data_dir and WRIT_GUARD_QUORUM__ENDPOINTS sets quorum.endpoints, two underscores standing for a
// step into a section. In the environment lists are separated by commas; listeners, upstreams and routes can stand in the
// file alone. The environment wins. Durations have a unit, such as 100ms or 5m.
type Config struct {
	// Name of the guard: unique in the quorum and the same at every start. Letters, digits, ".", "_" and "-", at most 64.
	Name string `koanf:"name"`
	// Region that the guard and its storage stand in, by the same rules. Routes in mode stamp need it.
	Region string `koanf:"region"`
	// DataDir belongs to this guard alone: its floors. It is made if it is missing. Never copy it back from a backup.
	DataDir string `koanf:"data_dir"`

	Quorum config.Quorum `koanf:"quorum"`

	// Slack is W: it bounds a pause of the guard plus everything that the storage, and whatever stands between, does with a
	// request that was let through. 100ms to 30s. Default 15s, with postgres 100ms.
	Slack time.Duration `koanf:"slack"`
	// Isolation is "quorum", which goes by the quorum's rules when the quorum cannot be reached, or "close", which refuses
	// then whatever the rules say. Default quorum.
	Isolation string `koanf:"isolation"`
	// BreakglassFile is looked at every second: a signed certificate of break-glass that is put there is applied. Default:
	// none is looked for, and certificates come by admin alone.
	BreakglassFile string `koanf:"breakglass_file"`
	// StopTimeout bounds how long a stop waits for writes under way, which may take slack. Default: slack and 15s.
	StopTimeout time.Duration `koanf:"stop_timeout"`

	// Listeners are where the HTTP reverse proxy is served.
	Listeners []Listener `koanf:"listeners"`
	// Upstreams are the storages behind it.
	Upstreams []Upstream `koanf:"upstreams"`
	// Routes say which requests are for which resource: those of the proxy, and those of Envoy and nginx, whose listeners
	// have the names "envoy" and "nginx" here.
	Routes []route.Route `koanf:"routes"`

	Envoy Front `koanf:"envoy"`
	Nginx Front `koanf:"nginx"`
	Check Check `koanf:"check"`
	// Postgres is a database whose tables have fences (writ-guard sql install). It is the only form of its guard.
	Postgres Postgres `koanf:"postgres"`
	Admin    Admin    `koanf:"admin"`

	Limits Limits `koanf:"limits"`
	Log    Log    `koanf:"log"`

	// Tracing sends traces of promotions. Default: it does not.
	Tracing tracing.Config `koanf:"tracing"`
}

// Listener is one address of the proxy.
type Listener struct {
	// Name that routes refer to it by.
	Name string `koanf:"name"`
	// Listen is host:port, or unix:/path.
	Listen string `koanf:"listen"`
	// TLS serves HTTPS. Default: plain HTTP.
	TLS ServerTLS `koanf:"tls"`
}

// ServerTLS names the PEM files of a server. They are read anew for each connection.
type ServerTLS struct {
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
	// ClientCA makes callers present a certificate of one of these authorities.
	ClientCA string `koanf:"client_ca"`
}

// Upstream is a storage behind the proxy.
type Upstream struct {
	proxy.Upstream `koanf:",squash"`
	// ClientTLS is for upstreams with an https URL. Default: the system's authorities, and no certificate of its own.
	ClientTLS ClientTLS `koanf:"tls"`
}

// ClientTLS names the PEM files of a client.
type ClientTLS struct {
	CA   string `koanf:"ca"`
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
	// ServerName that the upstream's certificate is to have. Default: the host of the URL.
	ServerName string `koanf:"server_name"`
}

// Front is a form in which another program asks about each request.
type Front struct {
	// Listen is host:port, or unix:/path. Default: the form is not served. Whoever reaches it is believed, so do not let
	// anybody but the program in front.
	Listen string `koanf:"listen"`
	// Timeout bounds how long a request waits to be admitted. Default 5s.
	Timeout time.Duration `koanf:"timeout"`
}

// Check is the check API.
type Check struct {
	// Socket is the path of its unix socket. Default: it is not served.
	Socket string `koanf:"socket"`
	// Mode of the socket's file, octal. Default "0600".
	Mode string `koanf:"mode"`
	// UIDs and GIDs of the users, and primary groups, that are answered. Default: the user that the guard runs as.
	UIDs []uint32 `koanf:"uids"`
	GIDs []uint32 `koanf:"gids"`
	// Covers are the resources that are asked about, beside those of the routes: names, or prefixes that end in an asterisk.
	Covers []string `koanf:"covers"`
	// TrustTokens lets bare tokens be presented, which prove nothing.
	TrustTokens bool `koanf:"trust_tokens"`
	// MaxOpenPerUID bounds the tickets of one user. Default 1024.
	MaxOpenPerUID int `koanf:"max_open_per_uid"`
	// TicketTTL is how long a ticket without a connection is valid: 100ms up to less than slack, which has to bound what is
	// left of a ticket when the guard is cut off, and the storage. Default 10s, or two thirds of slack if that is less.
	TicketTTL time.Duration `koanf:"ticket_ttl"`
	// CutGrace is how long whoever holds a ticket has to end it when it is cut: less than slack. Default 1s, or two thirds of
	// slack if that is less.
	CutGrace time.Duration `koanf:"cut_grace"`
}

// Postgres is a database that compares tokens by itself: the guard raises its fences.
type Postgres struct {
	// DSN is a URL or key=value words; what it leaves out comes from the variables of libpq, such as PGPASSFILE. It names one
	// server, not whichever is the primary. Its role has the rights raise and cut.
	DSN string `koanf:"dsn"`
	// Schema is where the fences are. Default writ.
	Schema string `koanf:"schema"`
	// Resources have a fence each.
	Resources []string `koanf:"resources"`
	// DrainTimeout is how long transactions under older tokens may go on before they are ended. Default 10s.
	DrainTimeout time.Duration `koanf:"drain_timeout"`
	// CheckEvery is how often it is looked whether the fences have gone back. 100ms to 10m. Default 5s.
	CheckEvery time.Duration `koanf:"check_every"`
}

func (p Postgres) used() bool { return p.DSN != "" || len(p.Resources) > 0 }

// Admin is for operators: /metrics, /healthz, /readyz and /status.
type Admin struct {
	// Listen is host:port or unix:/path, or "off". Default 127.0.0.1:7420.
	Listen string `koanf:"listen"`
}

// Limits bound what the guard takes on.
type Limits struct {
	proxy.Limits `koanf:",squash"`
	// MaxParked bounds the writes that wait for older ones. Default 10000.
	MaxParked int `koanf:"max_parked"`
	// MaxParkTime bounds how long a write waits for older ones. Default 10s.
	MaxParkTime time.Duration `koanf:"max_park_time"`
}

// Log says what goes to stderr.
type Log struct {
	// Level is trace, debug, info, warn or error. Default info.
	Level string `koanf:"level"`
	// Format is text or json. Default text.
	Format string `koanf:"format"`
}

// exampleYAML is a configuration with every key.
//
//go:embed example.yaml
var exampleYAML string

// Names by which routes refer to the forms that other programs ask.
const (
	envoyName = "envoy"
	nginxName = "nginx"
)

const (
	isolationQuorum = "quorum"
	isolationClose  = "close"
	adminOff        = "off"

	// stopMargin is what a stop takes besides the wait for writes that broke.
	stopMargin        = 15 * time.Second
	defaultAdmin      = "127.0.0.1:7420"
	defaultSocketMode = "0600"
	// floorFile is the floor store's name in the data directory.
	floorFile = "floors.db"
)

// withDefaults answers c with the defaults filled in that are not those of another package.
func (c Config) withDefaults() Config {
	if c.Postgres.used() {
		c.Slack = cmp.Or(c.Slack, guard.DefaultStorageSlack)
	}
	c.Slack = cmp.Or(c.Slack, guard.DefaultSlack)
	c.Isolation = cmp.Or(c.Isolation, isolationQuorum)
	c.StopTimeout = cmp.Or(c.StopTimeout, c.Slack+stopMargin)
	c.Check.Mode = cmp.Or(c.Check.Mode, defaultSocketMode)
	c.Admin.Listen = cmp.Or(c.Admin.Listen, defaultAdmin)
	c.Log.Level = cmp.Or(c.Log.Level, "info")
	c.Log.Format = cmp.Or(c.Log.Format, "text")
	return c
}

// files are the paths that the configuration names.
func (c *Config) files() []*string {
	paths := []*string{&c.DataDir, &c.BreakglassFile, &c.Quorum.CA, &c.Quorum.Cert, &c.Quorum.Key, &c.Tracing.CA, &c.Tracing.Cert, &c.Tracing.Key, &c.Check.Socket}
	for i := range c.Listeners {
		t := &c.Listeners[i].TLS
		paths = append(paths, &t.Cert, &t.Key, &t.ClientCA)
	}
	for i := range c.Upstreams {
		t := &c.Upstreams[i].ClientTLS
		paths = append(paths, &t.CA, &t.Cert, &t.Key)
	}
	return paths
}

// resolvePaths makes the files that the configuration names relative to dir.
func (c *Config) resolvePaths(dir string) {
	config.Resolve(dir, c.files()...)
}
