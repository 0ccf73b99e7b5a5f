package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
)

// Server serves the API of one node. It is used once: New, Serve, and GracefulStop or Stop.
type Server struct {
	config  Config
	logger  hclog.Logger
	grpc    *grpc.Server
	http    *http.Server
	memory  *bufconn.Listener // from the HTTP server to the gRPC server
	gateway *grpc.ClientConn  // the HTTP server's end of it
	tracker *tracker
	renewer *renewer
	health  *healthService
	chain   *chain
	guards  *guards

	drain context.CancelFunc // begins to stop: ends what could go on forever
	stop  context.CancelFunc // ends the background work

	background sync.WaitGroup
	stopOnce   sync.Once
	stopped    chan struct{} // closed when everything has ended

	mu      sync.Mutex
	serving bool // guarded by mu
	closing bool // guarded by mu
}

const (
	// memoryBytes is the buffer between HTTP and gRPC.
	memoryBytes = 1 << 20
	// handshakeTimeout bounds how long a connection may take to say who it is.
	handshakeTimeout = 10 * time.Second
	// ageGrace is what runs on a connection that is too old may go on for.
	ageGrace = 10 * time.Minute
	// maxHeaderBytes bounds metadata; a principal takes 2 KiB at most.
	maxHeaderBytes = 64 << 10
	// messageSlack is for what another node adds to a request that it passes on.
	messageSlack = 16 << 10
)

// New makes a server for the node behind q. It fails where the configuration is not usable.
func New(q Quorum, config Config) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	m, err := newMetrics(config.Registry, config)
	if err != nil {
		return nil, err
	}
	for _, c := range append(storeMetrics(q), auditAlarms(q)) {
		if err := config.Registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	checker, err := newChecker()
	if err != nil {
		return nil, err
	}
	s := &Server{config: config, logger: config.Logger, memory: bufconn.Listen(memoryBytes), stopped: make(chan struct{})}
	draining, drain := context.WithCancel(context.Background())
	running, stop := context.WithCancel(context.Background())
	s.drain, s.stop = drain, stop

	// Timeouts and rates may stand still during suspend: nothing about validity depends on them.
	clk := clock.Monotonic()
	nodes := &nodeSet{quorum: q, clock: clk}
	s.tracker = newTracker(q, config.Identity, config.Limits.MaxRequestBytes+messageSlack, config.Tracing.Passed)
	forwarder := &forwarder{tracker: s.tracker, config: config.Forward, clock: clk, metrics: m}
	s.renewer = &renewer{forwarder: forwarder, quorum: q, maxBytes: config.Limits.MaxRequestBytes, timeout: renewTimeout, stopped: running}
	s.health = newHealthService(q, draining)
	keys := &keyring{quorum: q, logger: config.Logger}
	s.chain = &chain{
		logger: config.Logger, auth: &authenticator{insecure: config.Insecure, nodes: nodes},
		limiter: newLimiter(config.Limits, clk, m), access: config.Policy, checker: checker, metrics: m.grpc, draining: draining,
	}
	s.grpc = s.newGRPC(s.chain)
	signer := &signer{quorum: q, logger: config.Logger}
	leases := &leaseService{
		quorum: q, forwarder: forwarder, renewer: s.renewer, access: config.Policy, signer: signer,
		watcher: &watcher{quorum: q, metrics: m, patience: watchPatience}, chain: s.chain, metrics: m, draining: draining,
	}
	writv1.RegisterLeaseServiceServer(s.grpc, leases)
	s.guards = &guards{
		quorum: q, forwarder: forwarder, chain: s.chain, keys: keys, metrics: m, logger: config.Logger, draining: draining,
		patience: watchPatience, probing: probePatience, maxNews: maxGuardNews,
	}
	writv1.RegisterFenceServiceServer(s.grpc, &fenceService{quorum: q, forwarder: forwarder, signer: signer, keys: keys, guards: s.guards})
	writv1.RegisterClusterServiceServer(s.grpc, &clusterService{quorum: q, forwarder: forwarder, version: config.Version})
	writv1.RegisterRegionServiceServer(s.grpc, &regionService{
		quorum: q, forwarder: forwarder, chain: s.chain, signer: signer, clock: clk, draining: draining,
		span: config.Tracing.Span,
	})
	writv1.RegisterAuditServiceServer(s.grpc, &auditService{quorum: q, forwarder: forwarder})
	writv1.RegisterPeerServiceServer(s.grpc, &peerService{quorum: q, leases: leases, guards: s.guards, chain: s.chain})
	healthpb.RegisterHealthServer(s.grpc, s.health)
	reflection.RegisterV1(s.grpc)
	m.grpc.InitializeMetrics(s.grpc)

	if s.gateway, err = s.dialMemory(); err != nil {
		return nil, err
	}
	if s.http, err = newHTTP(config, s.gateway, s.health, keys); err != nil {
		return nil, errors.Join(err, s.gateway.Close())
	}
	return s, nil
}

// streamWorkers is how many goroutines wait for calls; more calls at once get goroutines of their own.
const streamWorkers = 256

func (s *Server) newGRPC(c *chain) *grpc.Server {
	outside := insecure.NewCredentials()
	if s.config.Identity != nil {
		outside = s.config.Identity.ServerCredentials()
	}
	options := []grpc.ServerOption{
		grpc.Creds(serverCredentials{outside}),
		grpc.ChainUnaryInterceptor(c.unary()...),
		grpc.ChainStreamInterceptor(c.stream()...),
		grpc.MaxRecvMsgSize(s.config.Limits.MaxRequestBytes + messageSlack),
		grpc.InitialWindowSize(streamWindowBytes),
		grpc.InitialConnWindowSize(connWindowBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.WaitForHandlers(true),
		// A goroutine that has served a call has the stack that the next one needs.
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			// A client that is gone must not keep its place in a queue, or a watch.
			Time: 30 * time.Second, Timeout: 10 * time.Second,
			MaxConnectionAge: s.config.MaxConnectionAge, MaxConnectionAgeGrace: ageGrace,
		}),
	}
	if served := s.config.Tracing.Served; served != nil {
		options = append(options, grpc.StatsHandler(served))
	}
	return grpc.NewServer(options...)
}

// dialMemory connects the HTTP server to the gRPC server, within the process.
func (s *Server) dialMemory() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///in-process",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.memory.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxRequestBytes)),
	)
}

// Serve serves gRPC on grpcListener and HTTP on httpListener, which may be nil for no HTTP, until the server is stopped; it
// then returns nil, once everything has ended. It closes the listeners. If one of them breaks, everything stops and Serve
// returns why.
func (s *Server) Serve(grpcListener, httpListener net.Listener) error {
	s.mu.Lock()
	if s.serving || s.closing {
		s.mu.Unlock()
		err := errors.New("server: Serve is called twice, or after Stop")
		for _, l := range []net.Listener{grpcListener, httpListener} {
			if l != nil {
				err = errors.Join(err, l.Close())
			}
		}
		return err
	}
	s.serving = true
	running := s.renewer.stopped
	s.background.Go(func() { s.tracker.run(running) })
	s.background.Go(func() { s.health.run(running) })
	s.background.Go(func() { s.guards.run(running) })
	s.mu.Unlock()

	if s.config.Insecure {
		s.logger.Warn("serving without TLS: everybody who can connect is who they say they are")
	}
	var broken error
	var brokenMu sync.Mutex
	listen := func(what string, serve func() error) {
		s.background.Go(func() {
			err := serve()
			if err == nil || errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, http.ErrServerClosed) {
				return
			}
			brokenMu.Lock()
			broken = errors.Join(broken, fmt.Errorf("serving %s: %w", what, err))
			brokenMu.Unlock()
			// Stop waits for this goroutine, so that it must not be waited for here.
			go s.Stop()
		})
	}
	listen("gRPC on "+grpcListener.Addr().String(), func() error { return s.grpc.Serve(grpcListener) })
	listen("gRPC in memory", func() error { return s.grpc.Serve(inMemoryListener{s.memory}) })
	if httpListener != nil {
		listen("HTTP on "+httpListener.Addr().String(), func() error {
			if s.config.Identity != nil {
				return s.http.ServeTLS(httpListener, "", "")
			}
			return s.http.Serve(httpListener)
		})
	}
	<-s.stopped
	brokenMu.Lock()
	defer brokenMu.Unlock()
	return broken
}

// GracefulStop lets requests under way finish, ends watches and waits in a way that sends clients to another node, and
// stops. When ctx ends first, it stops hard and returns the error of ctx.
func (s *Server) GracefulStop(ctx context.Context) error {
	s.begin()
	httpErr := s.http.Shutdown(ctx)
	graceful := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		defer close(graceful)
		s.grpc.GracefulStop()
	})
	var err error
	select {
	case <-graceful:
		err = httpErr
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.Stop()
	wait.Wait()
	return err
}

// begin turns new work away.
func (s *Server) begin() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.drain()
}

// Stop ends everything at once and waits until it has.
func (s *Server) Stop() {
	s.begin()
	s.stopOnce.Do(func() {
		_ = s.http.Close() // its listeners are closed, whatever it says
		s.stop()
		s.grpc.Stop()
		_ = s.gateway.Close()
		_ = s.memory.Close()
		s.renewer.join()
		s.background.Wait()
		s.tracker.close()
		close(s.stopped)
	})
	<-s.stopped
}
