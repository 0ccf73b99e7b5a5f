package etcd

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
)

// rejoinTimeout bounds the wait for a connection to a peer that is asked who is a member.
const rejoinTimeout = 5 * time.Second

// checkUnused refuses to begin with an empty directory as a member that has run before: without its log it could vote
// against what it has promised. It asks every other member, since one that lags behind may not know yet.
func (m *Member) checkUnused(c config.ServerConfig) error {
	if m.exists {
		return nil
	}
	transport, err := rafthttp.NewRoundTripper(c.PeerTLSInfo, rejoinTimeout)
	if err != nil {
		return invalid("peer.tls", "%w", err)
	}
	var asked sync.WaitGroup
	var used atomic.Bool
	for name, peer := range m.cfg.InitialCluster {
		if name == m.cfg.Name {
			continue
		}
		asked.Go(func() {
			remote, err := etcdserver.GetClusterFromRemotePeers(m.zap, []string{peer}, transport)
			if err != nil {
				return // if none answers where one must, etcd will not join either, and explains
			}
			for _, member := range remote.Members() {
				if slices.Contains(member.PeerURLs, m.cfg.AdvertisePeerURL) && hasStarted(member) {
					used.Store(true)
				}
			}
		})
	}
	asked.Wait()
	if used.Load() {
		return m.forgotten()
	}
	return nil
}

// hasStarted says whether a member has published itself, which is the first that it has the quorum decide.
func hasStarted(member *membership.Member) bool { return len(member.ClientURLs) > 0 }

func (m *Member) forgotten() error {
	return &ConfigError{Field: "data_dir", Err: ErrForgotten, Reason: fmt.Sprintf(
		"%s is empty, but a member with this node's name and address has run before: remove that member and add this node anew", m.cfg.DataDir)}
}
