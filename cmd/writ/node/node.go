package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/api/server"
	"github.com/writ-io/writ/api/server/identity"
	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/tracing"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
)

// The API is served by what the quorum provides.
var _ server.Quorum = (*quorum.Service)(nil)

// Options are what a start needs beside the configuration.
type Options struct {
	// MinEpoch is --min-epoch; 0 if it was not given.
	MinEpoch fence.Epoch
	// Version is shown in the status.
	Version string
	// Logger takes what happens; nil drops it.
	Logger hclog.Logger
}

const (
	// startTimeout bounds the start of the store: reading its log, and finding the others when it joins them.
	startTimeout = 2 * time.Minute
	// drainTimeout bounds how long requests under way may take to finish when the node stops.
	drainTimeout = 10 * time.Second
)

// Node is one running node.
type Node struct {
	config   Config
	logger   hclog.Logger
	dir      *dataDir
	identity *identity.Source // nil if insecure
	policy   *policy.File     // nil if everything is allowed
	// approvers is the set that a quorum without one begins with; nil: none.
	approvers *writv1.ApproverSet
	member    *etcd.Member
	service   *quorum.Service
	server    *server.Server
	// tracer and promotions are nil if nothing is traced.
	tracer     *tracing.Tracer
	promotions *tracing.Promotions
	endTracing func() // nil: nothing has begun

	serving  sync.WaitGroup // the API and follow
	stopOnce sync.Once
	stopErr  error // set by stopOnce

	mu      sync.Mutex
	failed  error         // guarded by mu; the first failure
	stopped bool          // guarded by mu; what ends now ends because it is told to
	ending  chan struct{} // closed when the node fails or begins to stop
}

// Start starts a node as c says, after it has compared what the data directory holds with its witness. It answers when
// the node serves, which is before it has found the others: see Ready. ctx bounds the start.
//
// A start that is refused has changed nothing, but for a directory and a lock file where there was none.
func Start(ctx context.Context, c Config, o Options) (node *Node, err error) {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	n := &Node{config: c, logger: o.Logger, ending: make(chan struct{})}
	if n.logger == nil {
		n.logger = hclog.NewNullLogger()
	}
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for i := len(undo) - 1; i >= 0; i-- {
			if undoErr := undo[i](); undoErr != nil {
				n.logger.Error("cleaning up after a start that failed", "error", undoErr)
			}
		}
	}()
	if err := n.openFiles(); err != nil {
		return nil, err
	}
	if err := n.openTracing(o.Version); err != nil {
		return nil, err
	}
	undo = append(undo, func() error { n.closeTracing(ctx); return nil })
	if n.dir, err = openDataDir(c.DataDir); err != nil {
		return nil, err
	}
	undo = append(undo, n.dir.close)
	listeners, err := n.listen()
	if err != nil {
		return nil, err
	}
	undo = append(undo, listeners.close)
	witness, undoWitness, err := n.prepare(o.MinEpoch)
	if err != nil {
		return nil, err
	}
	undo = append(undo, undoWitness)
	if err := n.startStore(ctx); err != nil {
		return nil, err
	}
	undo = append(undo, n.member.Close)
	if err := n.startService(witness, o.Version); err != nil {
		return nil, err
	}
	undo = append(undo, func() error { n.service.Close(); return nil })
	n.startPromotions()
	if err := n.startServer(o.Version); err != nil {
		return nil, err
	}
	n.serving.Go(func() { n.fail(n.server.Serve(listeners.api, listeners.http)) })
	n.serving.Go(n.follow)
	n.logger.Info("node is running", "name", c.Name, "region", c.Region, "cluster", c.Cluster, "version", o.Version,
		"api", listeners.api.Addr(), "http", listeners.http.Addr(), "peer", n.member.PeerAddr())
	return n, nil
}

// openFiles reads certificates, policy and approvers.
func (n *Node) openFiles() (err error) {
	c := n.config
	if !c.Insecure {
		files := identity.Files{CAFile: c.TLS.CA, CertFile: c.TLS.Cert, KeyFile: c.TLS.Key}
		if n.identity, err = identity.Open(files, n.logger.Named("tls")); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		if err := n.identity.CheckNode(); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		// The store reads them itself; this is to know before anything is changed.
		peer := identity.Files{CAFile: c.PeerTLS.CA, CertFile: c.PeerTLS.Cert, KeyFile: c.PeerTLS.Key}
		if _, err := identity.Open(peer, nil); err != nil {
			return fmt.Errorf("peer_tls: %w", err)
		}
	}
	if c.PolicyFile != "" {
		if n.policy, err = policy.Open(c.PolicyFile, n.logger.Named("policy"), n.policyChanged); err != nil {
			return fmt.Errorf("policy_file: %w", err)
		}
		n.judge(n.policy.Policy())
	}
	n.approvers, err = c.readApprovers()
	return err
}

// judge warns of what a policy allows and the timing of the quorum does not favour.
func (n *Node) judge(p *policy.Policy) {
	for _, r := range p.Resources.Rules {
		if r.MaxTTL != 0 && r.MaxTTL < 3*n.config.Election {
			n.logger.Warn("leases this short do not outlive a change of the coordinator", "prefix", r.Prefix, "ttl_max", r.MaxTTL, "election", n.config.Election)
		}
	}
	if longest := p.Resources.LongestTTL(); longest > time.Hour {
		n.logger.Warn("after a restore nothing will be granted for as long as the longest TTL", "ttl_max", longest)
	}
}

func (n *Node) policyChanged(p *policy.Policy) {
	n.judge(p)
	n.logger.Warn("grants of the new policy count from now on, its rules for resources from the next start")
}

// listeners are bound before anything is changed and served last.
type listeners struct{ api, http net.Listener }

func (l listeners) close() error { return errors.Join(l.api.Close(), l.http.Close()) }

func (n *Node) listen() (l listeners, err error) {
	c := n.config
	if l.api, err = listen("api.listen", c.API.Listen); err != nil {
		return l, err
	}
	if l.http, err = listen("http.listen", c.HTTP.Listen); err != nil {
		return l, errors.Join(err, l.api.Close())
	}
	// The store binds its port itself; this is to know before anything is changed.
	probe, err := listen("peer.listen", c.Peer.Listen)
	if err != nil {
		return l, errors.Join(err, l.close())
	}
	return l, probe.Close()
}

func listen(field, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l, nil
	}
	cause := err
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		cause = op.Err
	}
	if sys := (*os.SyscallError)(nil); errors.As(cause, &sys) {
		cause = sys.Err
	}
	return nil, &wrappedError{fmt.Sprintf("%s: %v (%s): choose a free address of this machine, or stop what uses it", field, cause, address), err}
}

// prepare decides with which witness to start and makes it durable, before the store can change anything. undo takes back
// what a start that went no further has added.
func (n *Node) prepare(minEpoch fence.Epoch) (w quorum.Witness, undo func() error, err error) {
	undo = func() error { return nil }
	f, err := n.dir.look(n.config)
	if err != nil {
		return w, undo, err
	}
	if w, err = begin(n.config, n.dir.path, minEpoch, f); err != nil {
		return w, undo, err
	}
	if w.Foreign != "" {
		n.logger.Warn("the state is foreign: the epoch will be raised above every witness before anything is granted", "reason", w.Foreign)
	}
	if f.witnessErr == nil && w == f.witness && !f.remains {
		return w, undo, nil
	}
	if errors.Is(f.witnessErr, quorum.ErrWitnessEdited) {
		if _, err := n.dir.setAside(witnessFile, witnessFile+".replaced-"); err != nil {
			return w, undo, err
		}
	}
	if f.remains {
		// No member came of it, or the quorum has admitted this node anew: begin has seen to that.
		if _, err := n.dir.setAside(storeDir, replacedDir); err != nil {
			return w, undo, err
		}
	}
	if !f.hasStore && minEpoch == 0 {
		// What was noted for a member that is yet to be made is worth nothing if it was not.
		undo = func() error {
			switch {
			case etcd.HasMember(n.dir.store()):
				return nil
			case f.witnessErr != nil:
				return os.Remove(n.dir.witness())
			}
			return n.dir.saveWitness(f.witness)
		}
	}
	return w, undo, n.dir.saveWitness(w)
}

func (n *Node) startStore(ctx context.Context) (err error) {
	c := n.config
	e := etcd.Config{
		Name: c.Name, DataDir: n.dir.store(),
		ListenPeerURL: c.scheme() + "://" + c.Peer.Listen, AdvertisePeerURL: c.Bootstrap.Members[c.Name],
		InitialCluster: c.Bootstrap.Members, ClusterToken: c.Cluster, Join: c.Bootstrap.Join,
		Heartbeat: c.Heartbeat, Election: c.Election, QuotaBytes: c.Storage.QuotaBytes,
		Insecure: c.Insecure, Logger: n.logger.Named("store"),
	}
	if !c.Insecure {
		e.PeerTLS = &etcd.PeerTLS{CAFile: c.PeerTLS.CA, CertFile: c.PeerTLS.Cert, KeyFile: c.PeerTLS.Key, AllowedNames: c.PeerTLS.AllowedNames}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	fresh := !etcd.HasMember(e.DataDir)
	if n.member, err = etcd.Open(ctx, e); err == nil {
		return nil
	}
	var refused *etcd.ConfigError
	if !errors.As(err, &refused) {
		return err
	}
	// etcd begins with the database, and only then finds out that it cannot join.
	if _, inspectErr := etcd.Inspect(e.DataDir); fresh && errors.Is(inspectErr, etcd.ErrNoMember) && !errors.Is(err, etcd.ErrLocked) {
		err = errors.Join(err, os.RemoveAll(e.DataDir))
	}
	text := strings.NewReplacer("initial_cluster", "bootstrap.members", "peer.tls", "peer_tls", "peer.insecure", "insecure").Replace(oneLine(err))
	if errors.Is(err, etcd.ErrForgotten) {
		text += fmt.Sprintf(" (writ quorum member replace %s %s)", c.Name, e.AdvertisePeerURL)
	}
	return &wrappedError{text, err}
}

func (n *Node) startService(w quorum.Witness, version string) error {
	c := n.config
	keys, err := n.dir.keyRing()
	if err != nil {
		return err
	}
	principal := lease.Principal("node/" + c.Name)
	if n.identity != nil {
		if principal, err = n.identity.Principal(); err != nil {
			return err
		}
	}
	var resources lease.Policy
	if n.policy != nil {
		resources = n.policy.Policy().Resources
	}
	n.service, err = quorum.Start(quorum.Config{
		Name: c.Name, Region: c.Region, Cluster: c.Cluster,
		APIAddress: c.API.Advertise, HTTPAddress: c.HTTP.Advertise, PeerURL: c.Bootstrap.Members[c.Name],
		Principal: principal, Version: version, Election: c.Election, Policy: resources, Retention: c.Lease.Retention,
		GuardLease:       c.Lease.GuardLease,
		SignHeads:        c.Audit.SignEvery,
		Approvers:        n.approvers,
		Regions:          n.tellPromotions(),
		PreferredRegions: c.PreferredRegions, QuotaBytes: c.Storage.QuotaBytes, KeepRevisions: c.Storage.KeepRevisions,
		Witness:     w.Record(),
		SaveWitness: func(r *writv1.WitnessRecord) error { return n.dir.saveWitness(quorum.WitnessFromRecord(r)) },
		Keys:        keys, Logger: n.logger.Named("quorum"),
	}, n.member)
	return err
}

func (n *Node) startServer(version string) (err error) {
	c := n.config
	var access server.Access = policy.AllowAll()
	if n.policy != nil {
		access = n.policy
	}
	n.server, err = server.New(n.service, server.Config{
		Identity: n.identity, Insecure: c.Insecure, Policy: access,
		Limits: server.Limits{
			RatePerSecond: c.Limits.RatePerSecond, Burst: c.Limits.Burst,
			MaxConcurrent: c.Limits.MaxConcurrent, MaxRequestBytes: c.Limits.MaxRequestBytes,
		},
		Forward: server.Forward{Patience: max(2*time.Second, 3*c.Election), Timeout: max(5*time.Second, 4*c.Election)},
		Tracing: followCalls(n.tracer),
		Logger:  n.logger.Named("api"), Version: version,
	})
	return err
}
