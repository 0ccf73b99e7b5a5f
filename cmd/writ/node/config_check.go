package node

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/config"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/region"
)

// Bounds of fields.
const (
	maxNameBytes     = 64
	minHeartbeat     = 5 * time.Millisecond
	maxElection      = 50 * time.Second
	minBeats         = 5  // heartbeats in an election
	minTrips         = 10 // round trips in an election
	minRetention     = 10 * time.Second
	maxRetention     = 30 * 24 * time.Hour
	minQuotaBytes    = 16 << 20
	maxQuotaBytes    = 8 << 30
	minKeepRevisions = 1000
	maxMembers       = 7
	minRequestBytes  = 128 << 10
	maxRequestBytes  = 64 << 20
)

// Validate checks every field and how they relate, and answers everything that is wrong. It expects the defaults to be
// filled in, and looks at the files that are named but changes nothing.
func (c Config) Validate() error {
	return errors.Join(
		c.checkNames(), c.checkAddresses(), c.checkMembers(), c.checkTLS(), c.checkTimes(), c.checkBounds(), c.checkPolicy(), c.checkApprovers(), c.Tracing.Check(),
	)
}

func (c Config) checkNames() error {
	var all error
	for _, f := range []struct{ field, value string }{{"name", c.Name}, {"region", c.Region}, {"cluster", c.Cluster}} {
		if f.value == "" {
			all = errors.Join(all, wrong(f.field, "is missing", `give it, such as "`+f.field+`: eu"`))
		} else if !isName(f.value) {
			all = errors.Join(all, wrong(f.field, fmt.Sprintf("is %.80q", f.value), `use up to 64 letters, digits, ".", "_" and "-"`))
		}
	}
	for i, region := range c.PreferredRegions {
		if !isName(region) {
			all = errors.Join(all, wrong(fmt.Sprintf("preferred_regions[%d]", i), fmt.Sprintf("is %.80q", region), "name a region"))
		}
	}
	if c.DataDir == "" {
		all = errors.Join(all, wrong("data_dir", "is missing", "name a directory of this node's own, such as /var/lib/writ"))
	}
	return all
}

// isName keeps names such that they fit into keys, URLs, log lines and file names.
func isName(name string) bool {
	if name == "" || len(name) > maxNameBytes {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	}) < 0
}

func (c Config) checkAddresses() error {
	var all error
	taken := map[string]string{}
	for _, f := range []struct {
		field string
		Address
	}{{"api", c.API}, {"http", c.HTTP}, {"peer", c.Peer}} {
		all = errors.Join(all, checkListen(f.field+".listen", f.Listen), checkAdvertise(f.field+".advertise", f.Advertise))
		if other, ok := taken[f.Listen]; ok && !strings.HasSuffix(f.Listen, ":0") {
			all = errors.Join(all, wrong(f.field+".listen", fmt.Sprintf("%s is %s's too", f.Listen, other), "give each a port of its own"))
		}
		taken[f.Listen] = f.field + ".listen"
	}
	if host, _, err := net.SplitHostPort(c.Peer.Listen); err == nil && host != "" && net.ParseIP(host) == nil && host != "localhost" {
		all = errors.Join(all, wrong("peer.listen", fmt.Sprintf("%q has a name for its host", c.Peer.Listen), "use an IP address of this machine, or 0.0.0.0 for all"))
	}
	return all
}

func checkListen(field, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil || !isPort(port, 0) {
		return wrong(field, fmt.Sprintf("%q is not host:port", address), "write it like 10.0.0.1:7411, or :7411 for all addresses")
	}
	return nil
}

func checkAdvertise(field, address string) error {
	host, port, err := net.SplitHostPort(address)
	switch {
	case address == "":
		return wrong(field, "is missing", "write host:port at which the other nodes and clients reach it")
	case err != nil || !isPort(port, 1):
		return wrong(field, fmt.Sprintf("%q is not host:port", address), "write it like eu-1.example:7411")
	case host == "" || net.ParseIP(host).IsUnspecified():
		return wrong(field, fmt.Sprintf("%q is no address that others can connect to", address), "name a host or one of its addresses")
	}
	return nil
}

func isPort(text string, least int) bool {
	n, err := strconv.Atoi(text)
	return err == nil && n >= least && n <= 65535
}

func (c Config) checkMembers() error {
	members := c.Bootstrap.Members
	own, ok := members[c.Name]
	switch {
	case len(members) == 0:
		return wrong("bootstrap.members", "is missing", "map the name of every node, this one included, to its peer URL")
	case len(members) > maxMembers:
		return wrong("bootstrap.members", fmt.Sprintf("has %d members", len(members)), fmt.Sprintf("use at most %d, normally 3 or 5", maxMembers))
	case !ok:
		return wrong("bootstrap.members", fmt.Sprintf("does not hold this node, %q", c.Name), fmt.Sprintf("add it, such as %s: %s://10.0.0.1:%s", c.Name, c.scheme(), peerPort))
	case c.Bootstrap.Join && len(members) < 2:
		return wrong("bootstrap.members", "holds no other node to join", "copy what \"writ quorum member add\" has answered")
	}
	var all error
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		field := "bootstrap.members." + name
		if !isName(name) {
			all = errors.Join(all, wrong(field, "is no name of a node", `use up to 64 letters, digits, ".", "_" and "-"`))
		}
		if err := checkPeerURL(field, members[name], c.scheme()); err != nil {
			all = errors.Join(all, err)
		}
		if other, ok := seen[members[name]]; ok {
			all = errors.Join(all, wrong(field, "has the address of "+other, "give each node its own"))
		}
		seen[members[name]] = name
	}
	if all == nil && c.Peer.Advertise != hostPort(own) {
		all = wrong("peer.advertise", fmt.Sprintf("is %s, but bootstrap.members.%s is %s", c.Peer.Advertise, c.Name, own), "make them equal, or leave peer.advertise out")
	}
	return all
}

// checkPeerURL accepts scheme://host:port and nothing else: the store compares these as text.
func checkPeerURL(field, raw, scheme string) error {
	u, err := url.Parse(raw)
	if err != nil || u.String() != u.Scheme+"://"+u.Host {
		return wrong(field, fmt.Sprintf("%q is not a peer URL", raw), "write "+scheme+"://host:port")
	}
	if u.Scheme != scheme {
		return wrong(field, fmt.Sprintf("%q must begin with %s://", raw, scheme), "https is for TLS, and http for insecure: true")
	}
	return checkAdvertise(field, u.Host)
}

func (c Config) checkTLS() error {
	var all error
	for _, f := range []struct {
		field, path string
		secret      bool
	}{
		{"tls.ca", c.TLS.CA, false}, {"tls.cert", c.TLS.Cert, false}, {"tls.key", c.TLS.Key, true},
		{"peer_tls.ca", c.PeerTLS.CA, false}, {"peer_tls.cert", c.PeerTLS.Cert, false}, {"peer_tls.key", c.PeerTLS.Key, true},
	} {
		switch {
		case c.Insecure && f.path != "":
			all = errors.Join(all, wrong(f.field, "is set together with insecure", "remove one of them"))
		case c.Insecure:
		case f.path == "":
			all = errors.Join(all, wrong(f.field, "is missing", "name a PEM file, or set insecure on a machine that nobody else reaches"))
		default:
			all = errors.Join(all, config.CheckFile(f.field, f.path, f.secret))
		}
	}
	return all
}

func (c Config) checkTimes() error {
	switch {
	case c.Heartbeat < minHeartbeat || c.Heartbeat%time.Millisecond != 0:
		return wrong("heartbeat", fmt.Sprintf("is %v", c.Heartbeat), fmt.Sprintf("use whole milliseconds, at least %v", minHeartbeat))
	case c.Election > maxElection:
		return wrong("election", fmt.Sprintf("is %v", c.Election), fmt.Sprintf("use at most %v", maxElection))
	case c.Election < minBeats*c.Heartbeat:
		return wrong("election", fmt.Sprintf("%v is less than %d heartbeats of %v", c.Election, minBeats, c.Heartbeat),
			fmt.Sprintf("use at least %v, better %v", minBeats*c.Heartbeat, 2*minBeats*c.Heartbeat))
	case c.Election%c.Heartbeat != 0:
		return wrong("election", fmt.Sprintf("%v is no multiple of the heartbeat, %v", c.Election, c.Heartbeat), fmt.Sprintf("use %v", c.Election.Truncate(c.Heartbeat)+c.Heartbeat))
	case c.RTT < 0:
		return wrong("rtt", fmt.Sprintf("is %v", c.RTT), "use a positive duration, or leave it out")
	case c.Heartbeat < c.RTT:
		return wrong("heartbeat", fmt.Sprintf("%v is less than a round trip, rtt: %v", c.Heartbeat, c.RTT), fmt.Sprintf("use at least %v", c.RTT))
	case c.Election < minTrips*c.RTT:
		return wrong("election", fmt.Sprintf("%v is less than %d round trips, rtt: %v", c.Election, minTrips, c.RTT), fmt.Sprintf("use at least %v", minTrips*c.RTT))
	case c.Lease.Retention < minRetention || c.Lease.Retention > maxRetention:
		return wrong("lease.retention", fmt.Sprintf("is %v", c.Lease.Retention), fmt.Sprintf("use %v to %v", minRetention, maxRetention))
	case c.Lease.GuardLease < lease.MinGuardLease || c.Lease.GuardLease > lease.MaxGuardLease:
		return wrong("lease.guard_lease", fmt.Sprintf("is %v", c.Lease.GuardLease), fmt.Sprintf("use %v to %v", lease.MinGuardLease, lease.MaxGuardLease))
	case c.Audit.SignEvery < quorum.MinSignHeads || c.Audit.SignEvery > quorum.MaxSignHeads:
		return wrong("audit.sign_every", fmt.Sprintf("is %v", c.Audit.SignEvery), fmt.Sprintf("use %v to %v", quorum.MinSignHeads, quorum.MaxSignHeads))
	}
	return nil
}

func (c Config) checkBounds() error {
	l, s := c.Limits, c.Storage
	var all error
	for _, f := range []struct {
		wrong               bool
		field, problem, fix string
	}{
		{l.RatePerSecond != -1 && l.RatePerSecond != 0 && !(l.RatePerSecond >= 1e-3 && l.RatePerSecond <= 1e9), "limits.rate_per_second", fmt.Sprintf("is %v", l.RatePerSecond), "use 0.001 or more, or -1 for no limit"},
		{l.Burst < 0, "limits.burst", fmt.Sprintf("is %d", l.Burst), "use 1 or more, or leave it out"},
		{l.MaxConcurrent < -1, "limits.max_concurrent", fmt.Sprintf("is %d", l.MaxConcurrent), "use 1 or more, or -1 for no limit"},
		{l.MaxRequestBytes != 0 && (l.MaxRequestBytes < minRequestBytes || l.MaxRequestBytes > maxRequestBytes), "limits.max_request_bytes", fmt.Sprintf("is %d", l.MaxRequestBytes), fmt.Sprintf("use %d to %d", minRequestBytes, maxRequestBytes)},
		{s.QuotaBytes < minQuotaBytes || s.QuotaBytes > maxQuotaBytes, "storage.quota_bytes", fmt.Sprintf("is %d", s.QuotaBytes), fmt.Sprintf("use %d to %d", minQuotaBytes, int64(maxQuotaBytes))},
		{s.KeepRevisions < minKeepRevisions, "storage.keep_revisions", fmt.Sprintf("is %d", s.KeepRevisions), fmt.Sprintf("use %d or more", minKeepRevisions)},
		{hclog.LevelFromString(c.Log.Level) == hclog.NoLevel || c.Log.Level == "off", "log.level", fmt.Sprintf("is %q", c.Log.Level), "use trace, debug, info, warn or error"},
		{c.Log.Format != "text" && c.Log.Format != "json", "log.format", fmt.Sprintf("is %q", c.Log.Format), "use text or json"},
	} {
		if f.wrong {
			all = errors.Join(all, wrong(f.field, f.problem, f.fix))
		}
	}
	return all
}

func (c Config) checkPolicy() error {
	switch {
	case c.PolicyFile != "":
		return config.CheckFile("policy_file", c.PolicyFile, false)
	case !c.Insecure:
		return wrong("policy_file", "is missing", "name a file that says who may do what: without one nobody may do anything")
	}
	return nil
}

func (c Config) checkApprovers() error {
	if c.Approvers == "" {
		return nil
	}
	return config.CheckFile("approvers", c.Approvers, false)
}

// readApprovers reads the set that a quorum without one begins with, nil if none is configured. An error names the line.
func (c Config) readApprovers() (*writv1.ApproverSet, error) {
	if c.Approvers == "" {
		return nil, nil
	}
	file, err := os.ReadFile(c.Approvers)
	if err != nil {
		return nil, wrong("approvers", oneLine(err), "name a file that can be read")
	}
	set, err := region.ParseApprovers(file)
	if err != nil {
		return nil, fmt.Errorf("approvers: %s: %w", c.Approvers, err)
	}
	return set, nil
}
