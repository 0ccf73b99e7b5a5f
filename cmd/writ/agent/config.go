package agent

import (
	"cmp"
	_ "embed" // for the example
	"time"

	"github.com/writ-io/writ/cmd/config"
	"github.com/writ-io/writ/cmd/tracing"
)

// Config is what an agent is told. It is read from YAML (see Load) and, with the same names, from the environment:
// WRIT_AGENT_DATA_DIR sets data_dir and WRIT_AGENT_QUORUM__ENDPOINTS sets quorum.endpoints, two underscores standing for a
// step into a section. In the environment lists are separated by commas; peers and groups can stand in the file alone. The
// environment wins. Durations have a unit, such as 100ms or 5m.
type Config struct {
	// Name of the agent, the same at every start. Letters, digits, ".", "_" and "-", at most 64.
	Name string `koanf:"name"`
	// Region that it speaks for, by the same rules.
	Region string `koanf:"region"`
	// DataDir belongs to this agent alone: which hooks have run. It is made if it is missing.
	DataDir string `koanf:"data_dir"`

	Quorum config.Quorum `koanf:"quorum"`

	// Interval is how often to look and report until the quorum says otherwise: 100ms to 1m. Default 1s.
	Interval time.Duration `koanf:"interval"`
	// ProbeTimeout bounds one look: 10ms to 1m. Default 5s.
	ProbeTimeout time.Duration `koanf:"probe_timeout"`
	// Failures is how many looks in a row have to fail before a group's health is failed: 1 to 1000. Default 3.
	Failures int `koanf:"failures"`

	// Peers are addresses in other regions, to see whether they can be reached from here.
	Peers []Peer `koanf:"peers"`
	// Groups are the failover groups that the agent looks after.
	Groups []Group `koanf:"groups"`

	Admin Admin `koanf:"admin"`
	Log   Log   `koanf:"log"`

	// Tracing sends traces of promotions. Default: it does not.
	Tracing tracing.Config `koanf:"tracing"`
}

// Peer is an address in another region.
type Peer struct {
	Region  string `koanf:"region"`
	Address string `koanf:"address"`
}

// Group is one failover group.
type Group struct {
	Name string `koanf:"name"`
	// Peers are this group's own, in place of those above that have the same region.
	Peers []Peer `koanf:"peers"`
	// ConfigFiles should be the same in all regions: a digest of them as they are is reported, and preflight compares it.
	ConfigFiles []string `koanf:"config_files"`
	// Postgres brings the probe and the hooks for a PostgreSQL server.
	Postgres Postgres `koanf:"postgres"`
	// Probe says how to look at the data. Default: that of postgres.
	Probe Probe `koanf:"probe"`
	// Hooks go before those of postgres.
	Hooks []Hook `koanf:"hooks"`
	// Drill says what is done in a drill of the group: of the hooks above none is run in one.
	Drill Drill `koanf:"drill"`
}

// Drill are hooks that do no harm to what is real.
type Drill struct {
	Hooks []Hook `koanf:"hooks"`
}

// Postgres is a server with streaming replication; see package region/agent/postgres for the fields.
type Postgres struct {
	DSN            string            `koanf:"dsn"`
	Sources        map[string]string `koanf:"sources"`
	DataDir        string            `koanf:"data_dir"`
	KeepDir        string            `koanf:"keep_dir"`
	BinDir         string            `koanf:"bin_dir"`
	As             []string          `koanf:"as"`
	Start          []string          `koanf:"start"`
	Stop           []string          `koanf:"stop"`
	StopOnDemote   bool              `koanf:"stop_on_demote"`
	Method         string            `koanf:"method"`
	Slot           string            `koanf:"slot"`
	Fence          string            `koanf:"fence"`
	FenceSchema    string            `koanf:"fence_schema"`
	MaxConnections int               `koanf:"max_connections"`
	Grace          time.Duration     `koanf:"grace"`
	// Hooks that it brings. Default: all of drain, undrain, promote, demote, verify and reinstate.
	Hooks []string `koanf:"hooks"`
}

// Probe is one way to look: command or url.
type Probe struct {
	// Command is a program and its arguments, which prints JSON.
	Command []string `koanf:"command"`
	// URL is asked by GET.
	URL     string            `koanf:"url"`
	Headers map[string]string `koanf:"headers"`
	TLS     ClientTLS         `koanf:"tls"`
}

// Hook is what is done for one kind: by exactly one of command, url, guard, dns and weights.
type Hook struct {
	Kind string `koanf:"kind"`
	// Command is a program and its arguments; no shell reads them. Env are more variables, KEY=value.
	Command []string `koanf:"command"`
	Env     []string `koanf:"env"`
	Dir     string   `koanf:"dir"`
	// URL is asked by POST.
	URL string `koanf:"url"`
	// Guard is a URL behind a guard, for verify: two canaries are written to it.
	Guard   string            `koanf:"guard"`
	Headers map[string]string `koanf:"headers"`
	TLS     ClientTLS         `koanf:"tls"`
	// Idempotent says of command and url that doing it once more does no harm.
	Idempotent bool `koanf:"idempotent"`
	// DNS and Weights shift traffic.
	DNS     DNS     `koanf:"dns"`
	Weights Weights `koanf:"weights"`
}

// ClientTLS names PEM files for an https URL.
type ClientTLS struct {
	CA   string `koanf:"ca"`
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
}

// DNS updates a zone at its primary name server.
type DNS struct {
	Server string `koanf:"server"`
	Zone   string `koanf:"zone"`
	Key    string `koanf:"key"`
	// SecretFile holds the key's secret in base64.
	SecretFile string   `koanf:"secret_file"`
	Algorithm  string   `koanf:"algorithm"`
	Records    []Record `koanf:"records"`
}

// Record is a record set, and what stands in it for each region.
type Record struct {
	Name   string              `koanf:"name"`
	Type   string              `koanf:"type"`
	TTL    time.Duration       `koanf:"ttl"`
	Values map[string][]string `koanf:"values"`
}

// Weights are told to a load balancer.
type Weights struct {
	URL      string            `koanf:"url"`
	Method   string            `koanf:"method"`
	Backends map[string]string `koanf:"backends"`
}

// Admin is for operators: /metrics and /healthz.
type Admin struct {
	// Listen is host:port, or "off". Default 127.0.0.1:7421.
	Listen string `koanf:"listen"`
}

// Log says what goes to stderr.
type Log struct {
	// Level is trace, debug, info, warn or error. Default info.
	Level string `koanf:"level"`
	// Format is text or json. Default text.
	Format string `koanf:"format"`
}

// Example is a configuration with every key.
//
//go:embed example.yaml
var Example string

const (
	adminOff     = "off"
	defaultAdmin = "127.0.0.1:7421"
)

func (c Config) withDefaults() Config {
	c.Admin.Listen = cmp.Or(c.Admin.Listen, defaultAdmin)
	c.Log.Level = cmp.Or(c.Log.Level, "info")
	c.Log.Format = cmp.Or(c.Log.Format, "text")
	return c
}

// hook is one of the group's own, or behind them one of its drills'.
func (g *Group) hook(i int) *Hook {
	if i < len(g.Hooks) {
		return &g.Hooks[i]
	}
	return &g.Drill.Hooks[i-len(g.Hooks)]
}

// resolvePaths makes the files that the configuration names relative to dir.
func (c *Config) resolvePaths(dir string) {
	paths := []*string{&c.DataDir, &c.Quorum.CA, &c.Quorum.Cert, &c.Quorum.Key, &c.Tracing.CA, &c.Tracing.Cert, &c.Tracing.Key}
	for i := range c.Groups {
		g := &c.Groups[i]
		paths = append(paths, &g.Postgres.DataDir, &g.Postgres.KeepDir, &g.Probe.TLS.CA, &g.Probe.TLS.Cert, &g.Probe.TLS.Key)
		for j := range g.ConfigFiles {
			paths = append(paths, &g.ConfigFiles[j])
		}
		for j := range len(g.Hooks) + len(g.Drill.Hooks) {
			h := g.hook(j)
			paths = append(paths, &h.Dir, &h.DNS.SecretFile, &h.TLS.CA, &h.TLS.Cert, &h.TLS.Key)
		}
	}
	config.Resolve(dir, paths...)
}
