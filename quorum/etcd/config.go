package etcd

import (
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Defaults of Config.
const (
	DefaultHeartbeat     = 100 * time.Millisecond
	DefaultElection      = time.Second
	DefaultQuotaBytes    = 2 << 30
	DefaultSnapshotCount = 10_000
)

const (
	minHeartbeat = 5 * time.Millisecond
	maxElection  = 50 * time.Second
	// minQuotaBytes leaves room for the largest commit and etcd's own pages.
	minQuotaBytes = 16 << 20
	// maxCatchUpEntries bounds the log that a member keeps in memory for slow peers. Each entry is at most
	// quorum.MaxCommitBytes; a peer that is further behind gets a snapshot.
	maxCatchUpEntries = 5000
	// maxTxnOps is MaxCommitWrites and the head key.
	maxTxnOps = 4096 + 8
	// maxRequestBytes is MaxCommitBytes and what framing adds to it: less than 64 bytes a write.
	maxRequestBytes = 2 << 20
)

// Config describes one member. Fields without a default must be set.
type Config struct {
	// Name of the node; unique in the cluster and the same at every start.
	Name string
	// DataDir is the directory that belongs to the member alone. It is created if it is missing.
	DataDir string
	// ListenPeerURL is where this member accepts its peers: https://host:port, or http:// with Insecure.
	ListenPeerURL string
	// AdvertisePeerURL is where the peers reach this member. Default: ListenPeerURL.
	AdvertisePeerURL string
	// InitialCluster maps the name of every member, this one included, to its advertised peer URL. It counts only
	// until the data directory holds a member.
	InitialCluster map[string]string
	// ClusterToken keeps clusters with the same names and addresses apart. It counts only at the first start.
	ClusterToken string
	// Join says that the cluster runs already and has added this member; otherwise the members of InitialCluster
	// found a new one. It counts only until the data directory holds a member.
	Join bool

	// Heartbeat is the interval of the leader's heartbeats, at least 5 ms. Default: 100 ms.
	Heartbeat time.Duration
	// Election is how long a member waits without a heartbeat before it campaigns: at least five heartbeats, at
	// most 50 s, the same on every member. Default: 1 s.
	Election time.Duration

	// PeerTLS secures the traffic between members. Either it or Insecure must be set.
	PeerTLS *PeerTLS
	// Insecure allows peers without TLS: anybody who reaches the port can then change the store.
	Insecure bool

	// QuotaBytes is how much of the database should be in use at most, at least 16 MiB. Commits are refused at
	// quorum.RefusedAt of it, claims never. Default: 2 GiB. More than 8 GiB is not advised.
	QuotaBytes int64
	// NoStrictReconfig turns off the check that refuses membership changes that could lose the quorum: that members
	// have been connected for five seconds. For tests only.
	NoStrictReconfig bool
	// SnapshotCount is the number of commits between two snapshots of the log. Default: 10,000.
	SnapshotCount uint64
	// UnsafeNoFsync skips flushing to disk. For tests only: a crash of the machine loses acknowledged commits.
	UnsafeNoFsync bool

	// Logger receives etcd's log: warnings and errors as such, its information at debug level. Default: none.
	Logger hclog.Logger
}

// PeerTLS secures the traffic between members: both sides show a certificate of the same authority.
type PeerTLS struct {
	// CAFile holds the certificates of the authorities, PEM.
	CAFile string
	// CertFile and KeyFile hold this member's certificate and key, PEM. They are read again for every connection,
	// so they can be replaced while the member runs. The certificate must allow both server and client use.
	CertFile, KeyFile string
	// AllowedNames are the names that the certificate of a peer that connects must have one of, as common name, DNS
	// name or URI. With an authority that also signs clients they are what keeps a client out; if empty, any
	// certificate passes. A peer that is connected to is known by the host of its advertised address, for which its
	// certificate must be good, for server use: do not sign a client for the address of a node.
	AllowedNames []string
}

// withDefaults answers c with the defaults filled in.
func (c Config) withDefaults() Config {
	if c.AdvertisePeerURL == "" {
		c.AdvertisePeerURL = c.ListenPeerURL
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = DefaultHeartbeat
	}
	if c.Election == 0 {
		c.Election = DefaultElection
	}
	if c.QuotaBytes == 0 {
		c.QuotaBytes = DefaultQuotaBytes
	}
	if c.SnapshotCount == 0 {
		c.SnapshotCount = DefaultSnapshotCount
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

// Validate answers a *ConfigError for the first field that is wrong.
func (c Config) Validate() error {
	c = c.withDefaults()
	for _, check := range []func() error{c.checkNames, c.checkPeers, c.checkTLS, c.checkTimes} {
		if err := check(); err != nil {
			return err
		}
	}
	if c.QuotaBytes < minQuotaBytes {
		return invalid("quota_bytes", "%d is less than %d", c.QuotaBytes, int64(minQuotaBytes))
	}
	return nil
}

func (c Config) checkNames() error {
	if c.Name == "" {
		return invalid("name", "must be set")
	}
	if c.DataDir == "" {
		return invalid("data_dir", "must be set")
	}
	return nil
}

func (c Config) checkPeers() error {
	if err := checkPeerURL("peer.listen", c.ListenPeerURL, true); err != nil {
		return err
	}
	if err := checkPeerURL("peer.advertise", c.AdvertisePeerURL, false); err != nil {
		return err
	}
	if own, ok := c.InitialCluster[c.Name]; !ok {
		return invalid("initial_cluster", "does not hold this node, %q", c.Name)
	} else if own != c.AdvertisePeerURL {
		return invalid("initial_cluster", "has %q for %q, but peer.advertise is %q", own, c.Name, c.AdvertisePeerURL)
	}
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.InitialCluster)) {
		peer := c.InitialCluster[name]
		if name == "" {
			return invalid("initial_cluster", "has a member without a name, %q", peer)
		}
		if strings.ContainsAny(name, ",=") {
			return invalid("initial_cluster", "%q: the name of a member cannot have a comma or an equals sign", name)
		}
		if err := checkPeerURL("initial_cluster."+name, peer, false); err != nil {
			return err
		}
		if other, ok := seen[peer]; ok {
			return invalid("initial_cluster", "%q and %q have the same address %q", other, name, peer)
		}
		seen[peer] = name
	}
	return nil
}

// checkPeerURL accepts scheme://host:port and nothing else: etcd compares these as strings.
func checkPeerURL(field, raw string, listen bool) error {
	if raw == "" {
		return invalid(field, "must be set, e.g. https://10.0.0.1:7413")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return invalid(field, "%q is not a URL: %w", raw, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return invalid(field, "%q must begin with https:// or http://", raw)
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil || port == "" || u.Path != "" || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
		return invalid(field, "%q must be %s://host:port", raw, u.Scheme)
	}
	if listen {
		if host != "" && net.ParseIP(host) == nil && host != "localhost" {
			return invalid(field, "%q must have an IP address as its host", raw)
		}
		return nil
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() || port == "0" {
		return invalid(field, "%q is not an address that others can connect to", raw)
	}
	return nil
}

func secure(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.Scheme == "https"
}

func (c Config) checkTLS() error {
	if c.PeerTLS == nil {
		if !c.Insecure {
			return invalid("peer.tls", "must be set (or peer.insecure, which lets anybody who reaches the port write)")
		}
		if secure(c.ListenPeerURL) || secure(c.AdvertisePeerURL) {
			return invalid("peer.tls", "must be set for https://")
		}
		return nil
	}
	if c.Insecure {
		return invalid("peer.insecure", "contradicts peer.tls")
	}
	if !secure(c.ListenPeerURL) || !secure(c.AdvertisePeerURL) {
		return invalid("peer.listen", "%q must begin with https:// with peer.tls", c.ListenPeerURL)
	}
	for name, peer := range c.InitialCluster {
		if !secure(peer) {
			return invalid("initial_cluster."+name, "%q must begin with https:// with peer.tls", peer)
		}
	}
	for _, file := range []struct{ field, path string }{
		{"peer.tls.ca", c.PeerTLS.CAFile}, {"peer.tls.cert", c.PeerTLS.CertFile}, {"peer.tls.key", c.PeerTLS.KeyFile},
	} {
		if file.path == "" {
			return invalid(file.field, "must be set")
		}
	}
	return nil
}

func (c Config) checkTimes() error {
	if c.Heartbeat < minHeartbeat {
		return invalid("heartbeat", "%v is less than %v", c.Heartbeat, minHeartbeat)
	}
	if c.Heartbeat%time.Millisecond != 0 || c.Election%c.Heartbeat != 0 {
		return invalid("heartbeat", "%v must be whole milliseconds and divide election, %v", c.Heartbeat, c.Election)
	}
	if c.Election < 5*c.Heartbeat {
		return invalid("election", "%v is less than five heartbeats of %v", c.Election, c.Heartbeat)
	}
	if c.Election > maxElection {
		return invalid("election", "%v is more than %v", c.Election, maxElection)
	}
	return nil
}
