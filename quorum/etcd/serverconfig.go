package etcd

import (
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/features"
	"go.uber.org/zap"
)

const (
	maxSnapshotFiles = 5
	maxLogFiles      = 5
	// slowApply is the time above which etcd warns that applying a transaction takes long.
	slowApply = 500 * time.Millisecond
)

// serverConfig translates c. It takes the place of etcd's embed package, which cannot be had without listeners for
// clients.
func serverConfig(c Config, log *zap.Logger) (config.ServerConfig, error) {
	advertise, err := types.NewURLs([]string{c.AdvertisePeerURL})
	if err != nil {
		return config.ServerConfig{}, invalid("peer.advertise", "%w", err)
	}
	initial := types.URLsMap{}
	for name, peer := range c.InitialCluster {
		if initial[name], err = types.NewURLs([]string{peer}); err != nil {
			return config.ServerConfig{}, invalid("initial_cluster."+name, "%w", err)
		}
	}
	info := tlsInfo(c)
	info.Logger = log
	return config.ServerConfig{
		Name:                       c.Name,
		PeerURLs:                   advertise,
		DataDir:                    c.DataDir,
		InitialPeerURLsMap:         initial,
		InitialClusterToken:        c.ClusterToken,
		NewCluster:                 !c.Join,
		PeerTLSInfo:                info,
		TickMs:                     uint(c.Heartbeat.Milliseconds()),
		ElectionTicks:              int(c.Election / c.Heartbeat),
		InitialElectionTickAdvance: true,
		PreVote:                    true,
		StrictReconfigCheck:        !c.NoStrictReconfig,
		MaxLearners:                membership.DefaultMaxLearners,
		SnapshotCount:              c.SnapshotCount,
		SnapshotCatchUpEntries:     min(c.SnapshotCount, maxCatchUpEntries),
		MaxSnapFiles:               maxSnapshotFiles,
		MaxWALFiles:                maxLogFiles,
		QuotaBackendBytes:          -1, // none: checkSpace knows better, and etcd refuses what frees space too
		MaxTxnOps:                  maxTxnOps,
		MaxRequestBytes:            maxRequestBytes,
		WarningApplyDuration:       slowApply,
		UnsafeNoFsync:              c.UnsafeNoFsync,
		BcryptCost:                 10, // of etcd's own users, which are never enabled
		ServerFeatureGate:          features.NewDefaultServerFeatureGate(c.Name, log),
		Logger:                     log,

		// There are no clients. But it is by these, which a member publishes when it first runs, that etcd knows a
		// member that has lost its data from one that is new.
		ClientURLs: advertise,
	}, nil
}
