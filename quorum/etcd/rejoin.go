package etcd

import (
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
)

// rejoinTimeout bounds the wait for a connection to a peer that is asked who is a member.
const rejoinTimeout = 5 * time.Second

// checkUnused refuses to join as a member that has run before: without its log it could vote against what it has
// promised. Of a member that founds a cluster etcd finds out the same, if it reaches a peer.
func (m *Member) checkUnused(c config.ServerConfig) error {
	if m.exists || !m.cfg.Join {
		return nil
	}
	transport, err := rafthttp.NewRoundTripper(c.PeerTLSInfo, rejoinTimeout)
	if err != nil {
		return invalid("peer.tls", "%w", err)
	}
	var others []string
	for name, peer := range m.cfg.InitialCluster {
		if name != m.cfg.Name {
			others = append(others, peer)
		}
	}
	slices.Sort(others)
	remote, err := etcdserver.GetClusterFromRemotePeers(m.zap, others, transport)
	if err != nil {
		return nil // etcd will not join either, and explains
	}
	for _, member := range remote.Members() {
		if slices.Contains(member.PeerURLs, m.cfg.AdvertisePeerURL) && len(member.ClientURLs) > 0 {
			return m.forgotten()
		}
	}
	return nil
}

func (m *Member) forgotten() error {
	return &ConfigError{Field: "data_dir", Err: ErrForgotten, Reason: fmt.Sprintf(
		"%s is empty, but a member with this node's name and address has run before: remove that member and add this node anew", m.cfg.DataDir)}
}
