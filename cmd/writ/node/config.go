package node

import (
	"cmp"
	_ "embed" // for the example
	"net"
	"net/url"
	"time"

	"github.com/writ-io/writ/cmd/tracing"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
)

// Config is what one node of a quorum is told. It is read from YAML (see Load) and, with the same names, from the
// environment: WRIT_SERVER_DATA_DIR sets data_dir and WRIT_SERVER_API__LISTEN sets api.listen, two underscores standing
// for a step into a section. In the environment lists are separated by commas, and bootstrap.members is written as
// name=URL,name=URL. The environment wins. Durations have a unit, such as 100ms or 5m.
type Config struct {
	// Name of the node: unique in the quorum and the same at every start. Letters, digits, ".", "_" and "-", at most 64.
	Name string `koanf:"name"`
	// Region that the node stands in, by the same rules. Holders and the place of the coordinator refer to it.
	Region string `koanf:"region"`
	// Cluster is the name of the quorum, the same on all its nodes and never changed. Writs carry it as their issuer.
	Cluster string `koanf:"cluster"`
	// DataDir belongs to this node alone: the replicated store, the witness beside it, and the node's keys. It is made
	// if it is missing. Never copy it back from a backup: see the command "writ quorum restore".
	DataDir string `koanf:"data_dir"`

	// API is where gRPC is served. Default port 7411.
	API Address `koanf:"api"`
	// HTTP is where REST, metrics, health and public keys are served. Default port 7412.
	HTTP Address `koanf:"http"`
	// Peer is where the other nodes reach this one's store. Default port 7413. Its listen address needs an IP address,
	// and its advertise address is the one in bootstrap.members.
	Peer Address `koanf:"peer"`

	Bootstrap Bootstrap `koanf:"bootstrap"`

	// TLS is the node's identity toward clients and other nodes. Its certificate needs a SPIFFE ID or a DNS name, and both
	// extended key usages, serverAuth and clientAuth.
	TLS TLS `koanf:"tls"`
	// PeerTLS secures the store's own traffic. Use another authority than for tls: whoever it signs can write the store.
	PeerTLS PeerTLS `koanf:"peer_tls"`
	// Insecure serves everything without TLS: callers are who they say they are, and anybody who reaches the peer port can
	// write the store. For development on one machine.
	Insecure bool `koanf:"insecure"`

	// Heartbeat is the interval of the store's heartbeats. At least 5ms, whole milliseconds, not below rtt. Default 100ms.
	Heartbeat time.Duration `koanf:"heartbeat"`
	// Election is how long nodes wait without a heartbeat before they elect another leader: at least 5 heartbeats and 10
	// round trips, a multiple of the heartbeat, at most 50s, the same on all nodes. Default 1s.
	Election time.Duration `koanf:"election"`
	// RTT is the longest round trip between two nodes, for the checks of heartbeat and election. Default 0: not checked.
	RTT time.Duration `koanf:"rtt"`
	// PreferredRegions lists where the coordinator should be, best first. Default: anywhere.
	PreferredRegions []string `koanf:"preferred_regions"`

	// PolicyFile says who may do what, and how long resources may be leased. It is needed unless insecure is set.
	PolicyFile string `koanf:"policy_file"`
	// Approvers names a file with the people who may approve promotions, and the rule for changing them. A quorum takes it in
	// once, when it has no approvers yet: from then on the rule alone decides. Default: there are none.
	Approvers string `koanf:"approvers"`

	Lease   Lease   `koanf:"lease"`
	Audit   Audit   `koanf:"audit"`
	Limits  Limits  `koanf:"limits"`
	Storage Storage `koanf:"storage"`
	Log     Log     `koanf:"log"`

	// Tracing sends traces of promotions. Default: it does not.
	Tracing tracing.Config `koanf:"tracing"`
}

// Address is where something is served.
type Address struct {
	// Listen is host:port to bind. An empty host, 0.0.0.0 or [::] binds all addresses.
	Listen string `koanf:"listen"`
	// Advertise is host:port at which others reach it. Default: the host of bootstrap.members.NAME with the port of listen.
	Advertise string `koanf:"advertise"`
}

// Bootstrap says who founds the quorum. It counts only until the data directory holds a member.
type Bootstrap struct {
	// Members maps the name of every node, this one included, to its peer URL, https://host:port.
	Members map[string]string `koanf:"members"`
	// Join says that the quorum runs already and has admitted this node by "writ quorum member add" or "member replace".
	// Otherwise the members found a new quorum.
	Join bool `koanf:"join"`
}

// TLS names the PEM files of an identity. They may be replaced while the node runs.
type TLS struct {
	// CA holds the certificates of the authorities whose word counts.
	CA string `koanf:"ca"`
	// Cert holds the node's certificate, followed by intermediate ones.
	Cert string `koanf:"cert"`
	// Key holds its private key; nobody but the owner may have access (mode 0600).
	Key string `koanf:"key"`
}

// PeerTLS is TLS between the members of the store.
type PeerTLS struct {
	CA   string `koanf:"ca"`
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
	// AllowedNames are the names of which a peer's certificate must have one, as common name, DNS name or URI. Default:
	// every certificate of the authority passes.
	AllowedNames []string `koanf:"allowed_names"`
}

// Lease holds what is the same for all leases. How long resources may be leased stands in the policy file.
type Lease struct {
	// Retention is how long the record of a free resource is kept, so that late duplicates of requests are told apart from
	// new ones. 10s to 30 days. Default 5m.
	Retention time.Duration `koanf:"retention"`
	// GuardLease is for how long a guard may go on admitting writes after its last contact with the quorum, and so how long
	// it takes to fence a guard that nobody can reach. The same on all nodes. 1s to 10m. Default 30s.
	GuardLease time.Duration `koanf:"guard_lease"`
}

// Audit holds what is about the audit log.
type Audit struct {
	// SignEvery is how often the node signs the newest record that it has seen, if there are new ones. Until then nobody
	// vouches for them, and they cannot be pruned. 1s to 1h. Default 1m.
	SignEvery time.Duration `koanf:"sign_every"`
}

// Limits bound what callers may ask of this node.
type Limits struct {
	// RatePerSecond is how many requests a principal may make in a second. Default 50000; -1 for no limit.
	RatePerSecond float64 `koanf:"rate_per_second"`
	// Burst is how many requests a principal may make at once. Default: twice rate_per_second.
	Burst int `koanf:"burst"`
	// MaxConcurrent is how many requests may be under way, over all principals. Default 50000; -1 for no limit.
	MaxConcurrent int `koanf:"max_concurrent"`
	// MaxRequestBytes bounds one request: 128 KiB to 64 MiB, the same on all nodes. Default 4 MiB.
	MaxRequestBytes int `koanf:"max_request_bytes"`
}

// Storage bounds the replicated store.
type Storage struct {
	// QuotaBytes is how large the store is to become: new resources and larger checkpoints are refused at 80 % of it. While
	// compaction is behind it can take twice as much. 16 MiB to 8 GiB. Default 2 GiB.
	QuotaBytes int64 `koanf:"quota_bytes"`
	// KeepRevisions is how many commits of history are kept for watches to resume over, while the store is at most half
	// full. At least 1000. Default 200000.
	KeepRevisions int64 `koanf:"keep_revisions"`
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

// Default ports.
const (
	apiPort  = "7411"
	httpPort = "7412"
	peerPort = "7413"
)

const (
	defaultRetention     = 5 * 60 * time.Second
	defaultKeepRevisions = 200_000
)

// withDefaults answers c with the defaults filled in. Advertised addresses are worked out last, from what is there.
func (c Config) withDefaults() Config {
	c.API.Listen = cmp.Or(c.API.Listen, ":"+apiPort)
	c.HTTP.Listen = cmp.Or(c.HTTP.Listen, ":"+httpPort)
	c.Peer.Listen = cmp.Or(c.Peer.Listen, ":"+peerPort)
	c.Heartbeat = cmp.Or(c.Heartbeat, etcd.DefaultHeartbeat)
	c.Election = cmp.Or(c.Election, etcd.DefaultElection)
	c.Lease.Retention = cmp.Or(c.Lease.Retention, defaultRetention)
	c.Lease.GuardLease = cmp.Or(c.Lease.GuardLease, lease.DefaultGuardLease)
	c.Audit.SignEvery = cmp.Or(c.Audit.SignEvery, quorum.DefaultSignHeads)
	c.Storage.QuotaBytes = cmp.Or(c.Storage.QuotaBytes, etcd.DefaultQuotaBytes)
	c.Storage.KeepRevisions = cmp.Or(c.Storage.KeepRevisions, defaultKeepRevisions)
	c.Log.Level = cmp.Or(c.Log.Level, "info")
	c.Log.Format = cmp.Or(c.Log.Format, "text")
	own := hostPort(c.Bootstrap.Members[c.Name])
	c.Peer.Advertise = cmp.Or(c.Peer.Advertise, own)
	host, _, _ := net.SplitHostPort(own)
	for _, a := range []*Address{&c.API, &c.HTTP} {
		if _, port, err := net.SplitHostPort(a.Listen); err == nil && a.Advertise == "" && host != "" {
			a.Advertise = net.JoinHostPort(host, port)
		}
	}
	return c
}

// hostPort is the address in a peer URL, or empty.
func hostPort(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Host
}

// scheme is that of peer URLs.
func (c Config) scheme() string {
	if c.Insecure {
		return "http"
	}
	return "https"
}
