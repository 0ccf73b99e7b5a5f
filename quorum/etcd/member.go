package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.uber.org/zap"

	"github.com/writ-io/writ/quorum"
)

// Member is one etcd member in this process. Its methods are safe for concurrent use.
type Member struct {
	cfg    Config
	log    hclog.Logger
	zap    *zap.Logger
	server *etcdserver.EtcdServer
	peers  *peerServer
	lock   *dirLock
	trip   *trip
	gate   *gate
	leader *leadership
	exists bool // the directory held a member when it was opened
	// abandoned says that a start was given up while etcd had the directory open: the lock stays.
	abandoned bool
	workers   sync.WaitGroup // leadership.run

	full      atomic.Bool // etcd may refuse writes for want of space
	packs     packLog
	closing   atomic.Bool
	closeOnce sync.Once
	// lastHistory is one that Progress has answered.
	lastHistory atomic.Pointer[history]
	done        chan struct{}
	err         error // why the member stopped; set before done is closed
}

var _ quorum.Member = (*Member)(nil)

// Open starts the member that cfg describes. It answers once the member runs, which is before it has found its peers:
// see Ready. The context bounds the start, not the member's life.
//
// An error about the configuration or the directory is a *ConfigError. After any other error etcd may still have the
// directory open, which then stays locked: the process should exit.
func Open(ctx context.Context, cfg Config) (*Member, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	m := &Member{
		cfg: cfg, log: cfg.Logger, lock: lock,
		trip: newTrip(cfg.DataDir), gate: newGate(), done: make(chan struct{}),
	}
	m.zap = newZap(cfg.Logger, m.trip)
	m.full.Store(true)
	if err := m.open(ctx); err != nil {
		if m.abandoned {
			return nil, err
		}
		return nil, errors.Join(err, lock.release())
	}
	return m, nil
}

func (m *Member) open(ctx context.Context) (err error) {
	if m.exists, err = preflight(m.cfg); err != nil {
		return err
	}
	if m.peers, err = listenPeers(m.cfg); err != nil {
		return err
	}
	if m.server, err = m.bootstrap(ctx); err != nil {
		m.peers.close(true)
		return err
	}
	m.trip.park()
	m.server.Start()
	m.peers.open(etcdhttp.NewPeerHandler(m.zap, m.server))
	m.leader = newLeadership(m.server)
	m.workers.Go(func() { m.leader.run(m.gate.ctx, m.cfg.Heartbeat) })
	// etcd closes the database only after what it attached has returned.
	m.server.GoAttach(func() {
		<-m.server.StoppingNotify()
		m.gate.shut(ErrStopped)
		m.gate.drain()
	})
	go m.supervise() // joined by Close, through done
	return nil
}

// bootstrap reads the directory or founds it. etcd offers no way to stop it, so when it is given up it is left behind.
func (m *Member) bootstrap(ctx context.Context) (*etcdserver.EtcdServer, error) {
	config, err := serverConfig(m.cfg, m.zap)
	if err != nil {
		return nil, err
	}
	type outcome struct {
		server *etcdserver.EtcdServer
		err    error
	}
	started := make(chan outcome, 1)
	go func() {
		if err := m.checkUnused(config); err != nil {
			started <- outcome{nil, err}
			return
		}
		server, err := etcdserver.NewServer(config)
		started <- outcome{server, err}
	}()
	select {
	case got := <-started:
		if got.err != nil {
			return nil, m.explain(got.err)
		}
		return got.server, nil
	case <-m.trip.c:
		m.abandoned = true
		return nil, m.trip.reason()
	case <-ctx.Done():
	}
	late := fmt.Errorf("quorum/etcd: the start of the member in %s was broken off: %w", m.cfg.DataDir, context.Cause(ctx))
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		late = fmt.Errorf("quorum/etcd: member in %s did not start in time: %w", m.cfg.DataDir, context.Cause(ctx))
	}
	clean := func(got outcome) {
		if got.server != nil {
			got.server.Cleanup()
		}
	}
	// Mostly it ends soon, and then nothing writes to the directory any more.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), bootstrapGrace)
	defer cancel()
	select {
	case got := <-started:
		clean(got)
		return nil, late
	case <-grace.Done():
	}
	m.abandoned = true
	go func() {
		clean(<-started)
		_ = m.lock.release()
	}()
	return nil, late
}

// bootstrapGrace is how long a start that is given up is waited for.
const bootstrapGrace = 2 * time.Second

// explain adds what to do to an error of etcd's bootstrap.
func (m *Member) explain(err error) error {
	if refused := (*ConfigError)(nil); errors.As(err, &refused) {
		return err
	}
	if m.exists {
		return &ConfigError{Field: "data_dir", Err: err, Reason: fmt.Sprintf("%s: %v", m.cfg.DataDir, err)}
	}
	if strings.Contains(err.Error(), "already been bootstrapped") {
		return m.forgotten()
	}
	advice := "empty the data directory, and add this node to the cluster as a new member"
	if m.cfg.Join {
		advice = "the cluster must be running, must have added this member under its advertised address, and " +
			"initial_cluster must name exactly its members"
	}
	return &ConfigError{Field: "initial_cluster", Err: err, Reason: fmt.Sprintf("%v: %s", err, advice)}
}

// supervise waits for the member's end and cleans up.
func (m *Member) supervise() {
	select {
	case <-m.server.StopNotify():
		m.gate.shut(ErrStopped)
		m.peers.close(false)
		m.workers.Wait()
		m.err = m.verdict()
		m.err = errors.Join(m.err, m.lock.release())
	case <-m.trip.c:
		m.err = m.trip.reason()
		m.gate.shut(fmt.Errorf("%w: %w", ErrStopped, m.err))
		m.peers.close(true)
		go m.server.PauseSending() // may wait for a lock of a parked goroutine
		m.workers.Wait()
		m.log.Error("store failed: this process must exit", "error", m.err)
	}
	close(m.done)
}

// verdict says why the server stopped.
func (m *Member) verdict() error {
	switch {
	case m.trip.removed.Load(), m.server.IsIDRemoved(m.ID()):
		return fmt.Errorf("%w: node %q, member %x; its directory %s can be deleted",
			ErrRemoved, m.cfg.Name, m.ID(), m.cfg.DataDir)
	case m.closing.Load():
		return nil
	}
	return fmt.Errorf("%w by itself", ErrStopped)
}

// Close hands leadership over if it can within an election, stops the member, and waits for its goroutines. It is
// idempotent. It answers Err.
func (m *Member) Close() error {
	m.closeOnce.Do(func() {
		m.closing.Store(true)
		go func() { // ends before done is closed, unless the member fails meanwhile
			m.abdicate()
			m.gate.shut(ErrStopped)
			m.gate.drain()
			m.server.HardStop()
		}()
	})
	<-m.done
	return m.err
}

// Done is closed when the member has stopped, of itself or by Close.
func (m *Member) Done() <-chan struct{} { return m.done }

// Err answers why the member stopped: nil before that and after Close, else ErrRemoved, ErrStopped or a *FailedError.
func (m *Member) Err() error {
	select {
	case <-m.done:
		return m.err
	default:
		return nil
	}
}

// Ready is closed when the member has reached a quorum for the first time.
func (m *Member) Ready() <-chan struct{} { return m.server.ReadyNotify() }

// ID answers the member's id.
func (m *Member) ID() uint64 { return uint64(m.server.MemberID()) }

// ClusterID answers the id of the cluster. It is no evidence of the history: a restored cluster can have the same.
func (m *Member) ClusterID() uint64 { return uint64(m.server.Cluster().ID()) }

// PeerAddr answers the address that the member listens on.
func (m *Member) PeerAddr() net.Addr { return m.peers.addr() }
